//! Owns what `fleet.remove_worker` means for the plan: a worker that is being emptied, and a server
//! that has been removed, is to be cleaned, and stays out.
//! Must not remove anything: only an operator does.

use super::plan::Planner;
use crate::login::{LoginFailure, LoginFailureKind};
use crate::membership::model::{Action, Change, DistNode, Removed, Server, State, Subject, Worker};
use crate::membership::registered::quoted;
use crate::membership::verdict::Verdict;
use std::net::{IpAddr, SocketAddr};

/// What an active worker that takes no shards is to be shown as.
pub(super) fn seen_on(row: &DistNode, verdict: Verdict) -> Verdict {
    // Whoever was probed in the moment of its removal is empty already.
    if row.is_being_removed && verdict.state == State::Blank {
        return Verdict::without_remedy(State::Removing, "it has been removed just now");
    }
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

    /// A candidate that cannot be logged in to. Where nobody answers at the address that a server had when
    /// it was removed, it is that one: its name is found for as long as DNS keeps it.
    pub(super) fn silent(&self, endpoint: SocketAddr, failure: &LoginFailure) -> Verdict {
        use LoginFailureKind as Kind;
        let unreachable = Verdict::unreachable(failure);
        let mut removed = self.seen.coordinator.removed.iter();
        match removed.find(|removed| removed.endpoint() == Some(endpoint)) {
            Some(removed)
                if matches!(failure.kind, Kind::Refused | Kind::Timeout | Kind::NoRoute) =>
            {
                let left =
                    if removed.is_clean { "" } else { ", and is to be cleaned when it is back" };
                let why = unreachable.reason.unwrap_or_default();
                let why = format!("it was removed by fleet.remove_worker{left}; {why}");
                Verdict::without_remedy(State::Removed, why)
            }
            _ => unreachable,
        }
    }

    /// Removed servers that are to be cleaned and that no source names any more.
    pub(super) fn removed_servers(&mut self) {
        for removed in &self.seen.coordinator.removed {
            let Some(endpoint) = removed.endpoint_to_clean() else {
                continue;
            };
            let is_listed = self.named.contains_key(&endpoint) || self.taken.contains(&endpoint);
            // Whoever else answers there is nobody's business.
            let it = self.server(endpoint).map(|(server, _)| server);
            let it = it.filter(|server| server.system_identifier == removed.system_identifier);
            let Some(server) = it.filter(|_| !is_listed) else {
                continue;
            };
            let verdict = self.keep_out(removed.nodename.clone(), endpoint, server, removed);
            self.plan.workers.push(Worker {
                nodename: removed.nodename.clone(),
                nodeport: removed.nodeport,
                endpoint: Some(endpoint),
                nodeid: None,
                groupid: None,
                source: None,
                state: verdict.state,
                action: Action::Refuse,
                reason: verdict.reason,
                remedy: verdict.remedy,
            });
        }
    }

    /// A server that has been removed: it is cleaned once, and then nothing happens to it.
    pub(super) fn keep_out(
        &mut self,
        nodename: String,
        endpoint: SocketAddr,
        server: &Server,
        removed: &Removed,
    ) -> Verdict {
        let node = format!("{}, {}", quoted(&removed.nodename), removed.nodeport);
        let enroll = format!("SELECT fleet.enroll_worker({node}); lets it join again.");
        let is_out = server.membership.as_ref().is_none_or(|m| m.group_id == 0 && m.nodes == 0);
        if !is_out {
            return Verdict::new(
                State::Removed,
                "it was removed, but still takes itself for a worker of this cluster: it could not be told",
                "To use the host again, empty its data directory and run initdb: it joins as a new worker.",
            );
        }
        if removed.is_clean {
            return Verdict::new(State::Removed, "it was removed by fleet.remove_worker", enroll);
        }
        let left = format!("it was removed; {} relations of Citus on it", removed.relations.len());
        if server.in_recovery {
            let why = format!("{left} cannot be dropped while it is a standby");
            return Verdict::new(
                State::Removed,
                why,
                "Promote its primary, or remove the standby too.",
            );
        }
        if let Some(withheld) = self.withheld(Subject::Endpoint(endpoint)) {
            let why = format!("{left} wait; {}", withheld.reason.unwrap_or_default());
            return Verdict { state: State::Removed, reason: Some(why), remedy: withheld.remedy };
        }
        // A name that DNS does not confirm at the moment gives way to the address, for which no
        // certificate is: the name that Citus knew it by still is the server's.
        let is_named = nodename.parse::<IpAddr>().is_err();
        self.plan.changes.push(Change::Clean {
            nodename: if is_named { nodename } else { removed.nodename.clone() },
            endpoint,
            system_identifier: removed.system_identifier,
            relations: removed.relations.clone(),
        });
        Verdict::without_remedy(State::Removed, format!("{left} are being dropped"))
    }
}
