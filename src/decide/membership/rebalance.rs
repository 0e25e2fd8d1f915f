//! Owns when Citus's background rebalancer is started for workers that have joined
//! (`citus_fleet.rebalance_on_join`), and what is shown of it until it is done.
//! Must not start it twice for one worker, nor beside anything that moves or builds.

use super::plan::Planner;
use crate::membership::model::{Change, DistNode, State, Subject, Worker};
use crate::membership::registered::Registered;

/// How long no worker may have joined: the next one of a group that is starting is not far.
const SETTLED_SECONDS: u64 = 10;

/// What Citus refuses most of all is to move a table whose changes it cannot replicate.
const REFUSED: &str = "Give every distributed table a primary key or a replica identity; or move the shards once by hand: SELECT citus_rebalance_start(shard_transfer_mode => 'block_writes');";

impl Planner<'_> {
    pub(super) fn rebalance(&mut self) {
        for known in self.registered {
            if let Some(tasks) = known.row.tasks {
                let (done, total) = (tasks.done, tasks.total);
                self.tell(
                    known.row,
                    format!(
                        "shards are being moved: {done} of {total} moves to or from it are done"
                    ),
                    None,
                );
            }
        }
        let waiting: Vec<&DistNode> = self
            .registered
            .iter()
            .map(|known| known.row)
            .filter(|row| row.waits_for_shards)
            .collect();
        if waiting.is_empty() || !self.policy.rebalance_on_join {
            return;
        }
        match self.not_now(&waiting) {
            Some((why, remedy)) => {
                for row in waiting {
                    self.tell(
                        row,
                        format!("it holds no shards yet; the rebalancer waits: {why}"),
                        remedy.clone(),
                    );
                }
            }
            None => self.plan.changes.push(Change::Rebalance),
        }
    }

    /// Why moving shards has to wait.
    fn not_now(&self, waiting: &[&DistNode]) -> Option<(String, Option<String>)> {
        let coordinator = self.seen.coordinator;
        let builds_at = |known: &Registered<'_>| {
            known.server.is_some_and(|(_, server, _)| server.index_builds > 0)
        };
        let sick = |worker: &&Worker| worker.nodeid.is_some() && worker.state != State::Active;
        let just = |why: String| Some((why, None));
        if let Some(withheld) = self.withheld(Subject::Shards) {
            let remedy = withheld.remedy.unwrap_or_else(|| REFUSED.to_owned());
            return Some((withheld.reason.unwrap_or_default(), Some(remedy)));
        }
        if let Some(worker) = self.plan.workers.iter().find(sick) {
            return just(format!("{}:{} is {}", worker.nodename, worker.nodeport, worker.state));
        }
        if let Some(known) =
            self.registered.iter().find(|known| known.row.hasmetadata && !known.row.metadatasynced)
        {
            return just(format!("the metadata of {} is out of sync", known.row.nodename));
        }
        if coordinator.citus.as_ref().is_some_and(|citus| citus.is_job_running) {
            return just("another background job of Citus is running".into());
        }
        if coordinator.index_builds > 0 || self.registered.iter().any(builds_at) {
            return just("an index is being built".into());
        }
        let is_joining =
            self.plan.changes.iter().any(|change| matches!(change, Change::Register { .. }));
        let is_new = |row: &&DistNode| {
            let identity = coordinator.identities.get(&row.nodeid);
            identity.is_none_or(|identity| identity.recorded_for < SETTLED_SECONDS)
        };
        (is_joining || waiting.iter().any(is_new))
            .then(|| ("workers have just joined".into(), None))
    }

    /// Says something of a worker that is in order otherwise.
    fn tell(&mut self, row: &DistNode, what: String, remedy: Option<String>) {
        let workers = &mut self.plan.workers;
        let worker = workers.iter_mut().find(|worker| worker.nodeid == Some(row.nodeid));
        let is_free =
            |worker: &&mut Worker| worker.state == State::Active && worker.reason.is_none();
        if let Some(worker) = worker.filter(is_free) {
            (worker.reason, worker.remedy) = (Some(what), remedy);
        }
    }
}
