//! Owns whether the address that workers get for the coordinator leads to this server: every worker
//! that joins takes whoever is there for its coordinator, and Citus checks nothing.
//! Must not look at workers.

use super::plan::Planner;
use crate::configuration::policy::Policy;
use crate::membership::model::{Coordinator, Observation, Server, State};
use crate::membership::verdict::Verdict;
use std::net::SocketAddr;

const REMEDY: &str = "Set citus_fleet.coordinator_host to a name or an address of this server alone. Nothing is to be done on a server that is to become a worker of the coordinator there.";

/// What workers know the coordinator by, or are to: the setting, or else its row of `pg_dist_node`.
/// None without Citus, and where the row is Citus's own placeholder.
pub fn own_address<'a>(coordinator: &'a Coordinator, policy: &'a Policy) -> Option<(&'a str, u16)> {
    coordinator.citus.as_ref()?;
    let set = policy.coordinator_host.as_ref().map(|(name, port)| (name.as_str(), *port));
    let row = coordinator.own_row().filter(|row| row.nodename != "localhost");
    set.or_else(|| row.map(|row| (row.nodename.as_str(), row.nodeport)))
}

/// Why workers cannot be given the coordinator's address: somebody else answers there, or nobody.
///
/// This server has to answer, not only one with its system identifier, which its standbys and a copy
/// of it that was restored elsewhere have too. Through a proxy or a Service it does: whoever asks is
/// the primary.
pub(super) fn doubt(seen: &Observation<'_>, policy: &Policy) -> Option<Verdict> {
    let (name, port) = own_address(seen.coordinator, policy)?;
    let because = |why: String, remedy: String| {
        Some(Verdict::ready(format!("the coordinator's address {name}:{port} {why}"), remedy))
    };
    if seen.own_endpoints.is_empty() {
        return because("does not resolve at the moment".into(), REMEDY.into());
    }
    let asked = seen.own_endpoints.iter().map(|at| Some((at, &seen.probes.get(at)?.result)));
    let Some(answers) = asked.collect::<Option<Vec<_>>>() else {
        return Some(Verdict::without_remedy(State::Ready, "the coordinator's address is checked"));
    };
    let (mut is_here, mut failure) = (false, None);
    for (at, answer) in answers {
        match answer {
            Ok(server) if is_this(server, seen.coordinator) => is_here = true,
            Ok(server) => {
                let it = server.system_identifier;
                return because(
                    format!("leads to another server, {at} (system identifier {it})"),
                    REMEDY.into(),
                );
            }
            Err(why) => failure = Some(why),
        }
    }
    let Verdict { reason, remedy, .. } = Verdict::unreachable(failure.filter(|_| !is_here)?);
    because(
        format!("cannot be reached: {}", reason.unwrap_or_default()),
        remedy.unwrap_or_default(),
    )
}

fn is_this(server: &Server, coordinator: &Coordinator) -> bool {
    server.system_identifier == coordinator.system_identifier
        && server.started_us == coordinator.started_us
}

impl Planner<'_> {
    /// Why no worker may be told where the coordinator is. An old answer is asked for again: what a
    /// name leads to may have changed.
    pub(super) fn own_address(&mut self) -> Option<Verdict> {
        let is_old = |at| {
            let probe = self.seen.probes.get(at);
            probe.is_some_and(|probe| self.is_stale(probe.at))
        };
        let old: Vec<SocketAddr> =
            self.seen.own_endpoints.iter().filter(|at| is_old(at)).copied().collect();
        let again = (!old.is_empty()).then(|| {
            Verdict::without_remedy(State::Ready, "the coordinator's address is checked once more")
        });
        self.plan.recheck.extend(old);
        self.plan.coordinator_host.clone().or(again)
    }
}
