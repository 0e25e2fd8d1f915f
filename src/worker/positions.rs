//! Owns how far the server of each worker was seen to have come since the controller started, and which
//! instance it was. Must not say so of another server than the recorded one.

use decide::membership::coordinator::{Coordinator, Identity};
use decide::membership::endpoint::Endpoint;
use decide::membership::lineage::{Descent, Lsn, Mark, Record};
use decide::membership::plan::Worker;
use decide::membership::server::Server;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

#[derive(Default)]
pub struct Positions(BTreeMap<i32, Seen>);

struct Seen {
    /// What was recorded of the worker by then: a position says nothing of another record.
    recorded_us: i64,
    timeline: i32,
    mark: Option<Mark>,
    /// None once it has gone back: then it does not go on from what was seen of it.
    started_us: Option<i64>,
    position: Lsn,
}

impl Seen {
    fn is_of(&self, known: &Identity) -> bool {
        self.recorded_us == known.recorded_us
            && self.timeline == known.record.timeline
            && self.mark == known.record.mark
    }
}

/// Whether a server writes on where the recorded one was, on the same timeline.
fn goes_on(record: &Record, server: &Server) -> bool {
    let is_its = !server.in_recovery && server.system_identifier == record.system_identifier;
    is_its && matches!(record.descent(&server.lineage()), Descent::Descends { from: None, .. })
}

impl Positions {
    /// Forgets nodes that there are no rows of any more.
    pub fn keep(&mut self, rows: &BTreeSet<i32>) {
        self.0.retain(|nodeid, _| rows.contains(nodeid));
    }

    /// Adds to what is recorded of the workers what has been seen of them since.
    pub fn recollect(&self, coordinator: &mut Coordinator) {
        for (nodeid, known) in &mut coordinator.identities {
            if let Some(seen) = self.0.get(nodeid).filter(|seen| seen.is_of(known)) {
                known.record.position = known.record.position.max(Some(seen.position));
                known.record.started_us = seen.started_us;
            }
        }
    }

    /// Takes in how far the workers have come, also those in a conflict: clients' rows go where the row
    /// of a worker leads.
    pub fn learn(
        &mut self,
        workers: &[Worker],
        endpoints: &BTreeMap<SocketAddr, Endpoint>,
        coordinator: &Coordinator,
    ) {
        for worker in workers {
            let server = worker.endpoint.and_then(|at| endpoints.get(&at)?.server());
            let known =
                worker.nodeid.and_then(|nodeid| coordinator.identities.get_key_value(&nodeid));
            if let (Some((nodeid, known)), Some(server)) = (known, server)
                && goes_on(&known.record, server)
            {
                let (recorded_us, timeline) = (known.recorded_us, known.record.timeline);
                let mark = known.record.mark.clone();
                let (started_us, position) = (Some(server.started_us), server.position);
                let before = self.0.get(nodeid).filter(|seen| seen.is_of(known));
                let before = before.filter(|_| !position.ends_a_record());
                let position = before.map_or(position, |seen| seen.position);
                let seen = Seen { recorded_us, timeline, mark, started_us, position };
                self.0.insert(*nodeid, seen);
            }
        }
    }

    /// An instance has gone back to an earlier moment.
    pub fn doubt(&mut self, started_us: Option<i64>) {
        let its = self.0.values_mut().filter(|seen| seen.started_us == started_us);
        its.for_each(|seen| seen.started_us = None);
    }

    /// Workers that have come further than was `recorded`: of which record, and how far. One that nobody
    /// writes to does not.
    pub fn advanced(
        &self,
        coordinator: &Coordinator,
        recorded: &BTreeMap<i32, Option<Lsn>>,
    ) -> Vec<(i32, i64, Lsn)> {
        let seen = self.0.iter().filter_map(|(nodeid, seen)| {
            let known = coordinator.identities.get(nodeid).filter(|known| seen.is_of(known))?;
            let before = *recorded.get(nodeid)?;
            (before < Some(seen.position)).then_some((*nodeid, known.recorded_us, seen.position))
        });
        seen.collect()
    }
}
