//! Owns the judgement of a worker that `pg_dist_node` has: is the server there still what the
//! row says, and does it keep Citus from adding others?
//! Must not look at candidates; `membership` brings the two together.

use super::model::{DistNode, Identity, Observation, Probe, Server, State};
use super::verdict::Verdict;
use super::whereabouts::SIMULTANEOUS;
use crate::configuration::policy::Policy;
use crate::login::{LoginFailure, LoginFailureKind};
use std::net::SocketAddr;

/// A row of `pg_dist_node` with what is known of the server there.
#[derive(Debug)]
pub struct Registered<'a> {
    pub row: &'a DistNode,
    /// Where its name leads.
    pub endpoints: Vec<SocketAddr>,
    /// The address that answered last, and what it said.
    pub server: Option<(SocketAddr, &'a Server, &'a Probe)>,
    pub verdict: Verdict,
    /// Addresses whose answer is from before the last one, and may be outdated.
    pub recheck: Vec<SocketAddr>,
}

impl<'a> Registered<'a> {
    pub fn judge(row: &'a DistNode, seen: &Observation<'a>, policy: &Policy) -> Self {
        let addresses = seen.node_addresses.get(&row.nodeid);
        let endpoints: Vec<SocketAddr> = addresses
            .into_iter()
            .flatten()
            .map(|address| SocketAddr::new(*address, row.nodeport))
            .collect();
        let probes: Vec<&Probe> = endpoints.iter().filter_map(|e| seen.probes.get(e)).collect();
        let mut servers: Vec<(SocketAddr, &Server, &Probe)> = endpoints
            .iter()
            .filter_map(|endpoint| {
                let probe = seen.probes.get(endpoint)?;
                Some((*endpoint, probe.result.as_ref().ok()?, probe))
            })
            .collect();
        servers.sort_by_key(|(.., probe)| std::cmp::Reverse(probe.at));
        let newest = servers.first().copied();
        // Two answers of one server differ when it was restarted between them.
        let outdated = |(_, server, probe): &(SocketAddr, &Server, &Probe)| {
            newest.is_some_and(|(_, last, last_probe)| {
                !is_same(server, last) && last_probe.at - probe.at > SIMULTANEOUS
            })
        };
        let recheck = servers.iter().filter(|seen| outdated(seen)).map(|(at, ..)| *at).collect();
        servers.retain(|seen| !outdated(seen));
        let unresolvable = addresses.is_some_and(Vec::is_empty);
        let identity = seen.coordinator.identities.get(&row.nodeid);
        let verdict = if !row.isactive {
            inactive(row, newest.map(|(_, server, _)| answering(row, server, identity)))
        } else if servers.iter().any(|(_, server, _)| !is_same(server, servers[0].1)) {
            Verdict::new(
                State::Conflict,
                format!("its name leads to {} servers: {}", endpoints.len(), list(&endpoints)),
                format!(
                    "Give the worker a name or an address of its own: SELECT citus_update_node({}, '<name>', {});",
                    row.nodeid, row.nodeport
                ),
            )
        } else if let Some((_, server, _)) = newest {
            answering(row, server, identity)
        } else {
            silent(row, &probes, unresolvable, seen, policy)
        };
        Self { row, server: newest, endpoints, verdict, recheck }
    }

    /// Whether the server there is in order, whatever `isactive` says.
    pub fn is_healthy(&self, identity: &Identity) -> bool {
        self.server.is_some_and(|(_, server, _)| {
            server.system_identifier == identity.system_identifier
                && answering(self.row, server, Some(identity)).state == State::Active
        })
    }

    /// Why Citus could not add a node while this one is as it is: an add sends the new row to every
    /// node that has metadata, and fails when one of them cannot take it.
    pub fn blocks_adding(&self) -> Option<String> {
        if !self.row.isactive || !self.row.hasmetadata {
            return None;
        }
        let name = format!("{}:{}", self.row.nodename, self.row.nodeport);
        if !self.row.metadatasynced {
            return Some(format!("the metadata of {name} is out of sync"));
        }
        (self.verdict.state != State::Active).then(|| format!("{name} is {}", self.verdict.state))
    }
}

/// Whether two answers came from one server: clones and standbys share the system identifier, but
/// not the microsecond at which their postmaster started.
pub fn is_same(a: &Server, b: &Server) -> bool {
    a.system_identifier == b.system_identifier && a.started_us == b.started_us
}

fn answering(row: &DistNode, server: &Server, identity: Option<&Identity>) -> Verdict {
    let Some(membership) = &server.membership else {
        return blank("the extension citus is gone from the server there");
    };
    if let Some(known) = identity.filter(|known| known.has_left_behind(server)) {
        return left_behind(server, known);
    }
    let is_other =
        identity.is_some_and(|known| known.system_identifier != server.system_identifier);
    if is_other && (membership.group_id != 0 || membership.nodes != 0 || server.in_recovery) {
        return Verdict::new(
            State::Conflict,
            format!(
                "another server answers at its address (system identifier {}, expected {})",
                server.system_identifier,
                identity.map_or(0, |known| known.system_identifier)
            ),
            "Bring the worker back under a name that a source yields: its row follows by itself.",
        );
    }
    if server.in_recovery {
        return Verdict::new(
            State::Standby,
            "its address leads to a server in recovery",
            "Promote it, or make the name lead to the primary again.",
        );
    }
    if membership.group_id == 0 && membership.nodes == 0 {
        return blank("the server there holds no data of this cluster: it has come back empty");
    }
    if membership.group_id != row.groupid {
        return Verdict::new(
            State::Conflict,
            format!(
                "the server there is of group {}, the row says group {}",
                membership.group_id, row.groupid
            ),
            "Find the worker of this group and make the name lead to it.",
        );
    }
    if row.hasmetadata && !row.metadatasynced {
        return Verdict::without_remedy(
            State::Active,
            "its metadata is out of sync; Citus's maintenance daemon tries again by itself",
        );
    }
    Verdict::active()
}

/// A primary that a promotion has left behind: it has the right identity and lacks the newest rows.
pub fn left_behind(server: &Server, known: &Identity) -> Verdict {
    Verdict::new(
        State::Conflict,
        format!(
            "the server there was left behind at timeline {} when a standby of it was promoted; this worker is at timeline {}",
            server.timeline, known.timeline
        ),
        "Bring the promoted server back. Make this one its standby with pg_rewind or pg_basebackup: rows written since the promotion are not on it.",
    )
}

/// Activating a node whose server is not in order would hide what it has lost.
fn inactive(row: &DistNode, server: Option<Verdict>) -> Verdict {
    const DISABLED: &str = "it is disabled in pg_dist_node (isactive = false)";
    match server {
        Some(Verdict { state, reason: Some(reason), remedy }) if state != State::Active => {
            Verdict {
                state: State::Inactive,
                reason: Some(format!("{DISABLED}; {reason}")),
                remedy,
            }
        }
        _ => Verdict::new(
            State::Inactive,
            DISABLED,
            format!("SELECT citus_activate_node({}, {});", quoted(&row.nodename), row.nodeport),
        ),
    }
}

fn blank(reason: &str) -> Verdict {
    Verdict::new(
        State::Blank,
        reason,
        "Restore its data directory from a backup or bring its volume back. Do not activate it: that would hide the loss.",
    )
}

fn silent(
    row: &DistNode,
    probes: &[&Probe],
    unresolvable: bool,
    seen: &Observation<'_>,
    policy: &Policy,
) -> Verdict {
    let verdict = match probes.first().and_then(|probe| probe.result.as_ref().err()) {
        Some(failure) => Verdict::unreachable(failure),
        None if unresolvable => Verdict::unreachable(&LoginFailure {
            kind: LoginFailureKind::Unresolvable,
            message: row.nodename.clone(),
        }),
        // Nothing is known yet: Citus's own word stands until the first answer.
        None => return Verdict::active(),
    };
    let unnamed_for =
        seen.unnamed_since.get(&row.nodeid).map(|since| seen.now.monotonic.saturating_sub(*since));
    match unnamed_for {
        Some(unnamed) if unnamed >= policy.absent_after => Verdict::new(
            State::Absent,
            format!(
                "no source has named it for {} s and it does not answer ({})",
                unnamed.as_secs(),
                verdict.reason.unwrap_or_default()
            ),
            "Bring it back, or remove it for good after moving its shards away.",
        ),
        _ => verdict,
    }
}

fn list(endpoints: &[SocketAddr]) -> String {
    endpoints.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// An SQL literal of a name that may hold anything: Citus stores host names unchecked.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
