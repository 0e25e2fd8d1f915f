//! Owns what `fleet.remove_worker` means for the plan: a worker that is being emptied, and a server
//! that has been removed, is to be cleaned, and stays out.
//! Must not remove anything: only an operator does.

use super::Planner;
use crate::decide::model::{Candidate, Change, NodeRow, Removed, Server, State, Subject};
use crate::decide::registered::quoted;
use crate::decide::verdict::Verdict;

/// What an active worker that takes no shards is to be shown as.
pub(super) fn seen_on(row: &NodeRow, verdict: Verdict) -> Verdict {
    if verdict.state != State::Active || verdict.reason.is_some() {
        return verdict;
    }
    let left = match row.placements {
        Some(1) => "1 shard is left on it".to_owned(),
        Some(count) => format!("{count} shards are left on it"),
        None => "its shards have not begun to move".to_owned(),
    };
    if row.is_being_removed {
        return Verdict::without_remedy(State::Removing, left);
    }
    if row.shouldhaveshards {
        return verdict;
    }
    let node = format!("{}, {}", quoted(&row.nodename), row.nodeport);
    Verdict::new(
        State::Active,
        format!("it takes no new shards (shouldhaveshards = false); {left}"),
        format!(
            "SELECT citus_set_node_property({node}, 'shouldhaveshards', true); or, to go on removing it, SELECT fleet.remove_worker({node});"
        ),
    )
}

impl<'a> Planner<'a> {
    /// The record of a server that an operator has removed.
    pub(super) fn removed(&self, server: &Server) -> Option<&'a Removed> {
        let mut removed = self.seen.coordinator.removed.iter();
        removed.find(|removed| removed.system_identifier == server.system_identifier)
    }

    /// A server that has been removed: it is cleaned once, and then nothing happens to it.
    pub(super) fn keep_out(
        &mut self,
        candidate: &Candidate,
        server: &Server,
        removed: &Removed,
    ) -> Verdict {
        let node = format!("{}, {}", quoted(&removed.nodename), removed.nodeport);
        let enroll = format!("SELECT fleet.enroll_worker({node}); lets it join again.");
        let is_out = server.membership.as_ref().is_none_or(|m| m.group_id == 0 && m.nodes == 0);
        if removed.is_clean {
            return Verdict::new(State::Removed, "it was removed by fleet.remove_worker", enroll);
        }
        if !is_out {
            return Verdict::new(
                State::Removed,
                "it was removed while it did not answer, and still takes itself for a worker of this cluster",
                "To use the host again, empty its data directory and run initdb: it joins as a new worker.",
            );
        }
        let count = removed.relations.len();
        let left = format!("it was removed; {count} relations that Citus has left there");
        if server.in_recovery {
            return Verdict::new(
                State::Removed,
                format!("{left} cannot be dropped on a standby"),
                enroll,
            );
        }
        if let Some(withheld) = self.withheld(Subject::Endpoint(candidate.endpoint)) {
            let why = withheld.reason.unwrap_or_default();
            return Verdict {
                state: State::Removed,
                reason: Some(format!("{left} are to be dropped; {why}")),
                remedy: withheld.remedy,
            };
        }
        self.plan.changes.push(Change::Clean {
            nodename: self.nodename(candidate),
            endpoint: candidate.endpoint,
            system_identifier: removed.system_identifier,
            relations: removed.relations.clone(),
        });
        Verdict::without_remedy(State::Removed, format!("{left} are being dropped"))
    }
}
