//! Owns what is to be done about a worker that is registered: follow it, reactivate it, disable it,
//! or nothing.
//! Must not touch a row whose server is not known by its recorded identity.

use super::candidate::Candidate;
use super::change::{Change, Subject};
use super::coordinator::{DistNode, Identity};
use super::endpoint::Phase;
use super::evidence::Member;
use super::lineage::Descent;
use super::registered::Registered;
use super::server::Server;
use super::situations::{self, ADDRESS_TAKEN};
use super::state::{Action, State};
use super::verdict::Verdict;
use super::view::View;
use super::whereabouts::{Missing, Move, Whereabouts, whereabouts};
use crate::configuration::policy::OnAbsent;
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// What became of looking after one registered worker.
pub struct Followed {
    pub verdict: Verdict,
    pub change: Option<Change>,
    /// Other addresses at which its server was seen.
    pub sightings: Vec<SocketAddr>,
    pub recheck: Vec<SocketAddr>,
    /// Where its next primary may appear, while it has none.
    pub sought: Vec<SocketAddr>,
    /// Another server that runs as this worker beside its own, or in its place with an older state.
    pub rival: Option<String>,
}

pub fn follow(view: &View<'_>, known: &Registered<'_>) -> Followed {
    let row = known.row;
    // Where DNS has not said where the name leads, nothing is known of the server there.
    let is_located = view.seen.node_addresses.contains_key(&row.nodeid);
    let identity = known.identity.filter(|_| is_located);
    let is_well = known.is_well();
    // What an operator has disabled follows nobody, and what is back has not moved.
    // Nor is one followed that two servers have been.
    let may_follow = |identity: &Identity| {
        identity.rival.is_none() && (row.isactive || (identity.disabled_by_fleet && !is_well))
    };
    let followed = identity.filter(|identity| may_follow(identity));
    let candidates = followed.map_or(&[][..], |it| view.candidates_of(it.record.system_identifier));
    let whereabouts = match followed {
        Some(identity) => {
            let (groupid, endpoints) = (row.groupid, &known.endpoints[..]);
            let is_name_lost = known.is_name_lost;
            let missing = Missing { identity, groupid, endpoints, is_name_lost };
            whereabouts(&missing, view.seen, candidates)
        }
        None => Whereabouts::Unknown,
    };
    let verdict = situations::of_member(&Member {
        row,
        at_home: &known.at_home,
        is_well,
        whereabouts: whereabouts.clone(),
        identity,
        max_lost_wal: view.policy.max_lost_wal,
        is_disabled_when_absent: view.policy.on_absent == OnAbsent::Disable,
    });
    let (sightings, mut recheck) = match &whereabouts {
        Whereabouts::Unknown => (Vec::new(), Vec::new()),
        Whereabouts::Waiting(at) => (vec![*at], Vec::new()),
        Whereabouts::Moved(there) => (vec![there.to.endpoint], Vec::new()),
        Whereabouts::Twice(one, other) => (vec![*one, *other], Vec::new()),
        Whereabouts::Unsure(at) => (at.clone(), at.clone()),
    };
    let mut change = change(view, known, verdict.action, &whereabouts);
    if matches!(change, Some(Change::Reactivate { .. }))
        && known.sighting.is_some_and(|sighting| view.seen.is_stale(sighting.asked_at))
    {
        recheck = known.endpoints.clone();
        change = None;
    }
    // Citus will look the name up itself: that it leads there alone has to be true now.
    if let Some(Change::UpdateAddress { nodename, endpoint, .. }) = &change
        && view.is_name_stale(nodename, *endpoint)
    {
        recheck.push(*endpoint);
        change = None;
    }
    let withheld = view.withheld(Subject::Node(row.nodeid)).filter(|_| change.is_some());
    let verdict = match &withheld {
        // A mark is nobody's business but the fleet's.
        Some(why) if verdict.action != Action::None => verdict.held(&situations::of_hindrance(why)),
        _ => verdict,
    };
    let rival = match &whereabouts {
        Whereabouts::Twice(one, other) => {
            let rival = if known.endpoints.contains(other) { one } else { other };
            let server = view.seen.sighting(*rival).map(|sighting| sighting.server);
            let timeline = server.map_or(0, |server| server.timeline);
            Some(format!("{rival}, timeline {timeline}, has run beside it"))
        }
        _ => followed.and_then(|identity| older_state(view, known, identity, candidates)),
    };
    let is_elsewhere = |at: &SocketAddr| !known.endpoints.contains(at);
    let sought = candidates.iter().map(|candidate| candidate.endpoint).filter(is_elsewhere);
    Followed {
        verdict,
        change: change.filter(|_| withheld.is_none()),
        sightings,
        recheck,
        sought: if is_well { Vec::new() } else { sought.collect() },
        rival,
    }
}

/// An older state of a worker's server that runs in its place, or where its next one is looked for: it is to
/// be remembered before it has written so much that nothing tells it from the worker.
fn older_state(
    view: &View<'_>,
    known: &Registered<'_>,
    identity: &Identity,
    candidates: &[&Candidate],
) -> Option<String> {
    let is_silent = |at: &SocketAddr| {
        view.seen.endpoints.get(at).is_some_and(|endpoint| endpoint.phase() == Phase::Silent)
    };
    let at_home = known.sighting.filter(|_| known.at_home.state == State::Conflict);
    let elsewhere = candidates.iter().filter(|_| known.endpoints.iter().all(is_silent));
    let elsewhere = elsewhere.filter_map(|candidate| view.seen.sighting(candidate.endpoint));
    let mut sightings = at_home.into_iter().chain(elsewhere);
    sightings.find_map(|it| {
        let Server { system_identifier, in_recovery, ref membership, .. } = *it.server;
        let is_its = system_identifier == identity.record.system_identifier
            && membership.as_ref().is_some_and(|its| its.group_id == known.row.groupid);
        if !is_its || in_recovery || view.seen.is_stale(it.asked_at) {
            return None;
        }
        match identity.record.descent(&it.server.lineage()) {
            Descent::Older { lacks, .. } => Some(format!(
                "{} has run with an older state, which lacked {lacks} bytes of WAL that were seen",
                it.at
            )),
            _ => None,
        }
    })
}

/// The change that an action wants of a row.
fn change(
    view: &View<'_>,
    known: &Registered<'_>,
    action: Action,
    whereabouts: &Whereabouts<'_>,
) -> Option<Change> {
    let nodeid = known.row.nodeid;
    if let (Action::UpdateAddress, Whereabouts::Moved(there)) = (action, whereabouts) {
        return Some(update_address(view, known, there));
    }
    let (nodename, nodeport) = (known.row.nodename.clone(), known.row.port()?);
    match (action, whereabouts) {
        (Action::None, _) => mark(known),
        (Action::Reactivate, _) => Some(Change::Reactivate { nodeid, nodename, nodeport }),
        (Action::Disable, _) => Some(Change::Disable { nodeid, nodename, nodeport }),
        _ => None,
    }
}

/// The coordinator's mark, for a worker that is in order and has none, or has been promoted since.
fn mark(known: &Registered<'_>) -> Option<Change> {
    let (record, sighting) = (&known.identity?.record, known.sighting?);
    let is_due = known.is_well() && known.row.isactive && record.mark.is_none();
    (is_due && sighting.server.marks.is_some()).then(|| Change::Mark {
        nodeid: known.row.nodeid,
        nodename: known.row.nodename.clone(),
        endpoint: sighting.at,
        system_identifier: record.system_identifier,
    })
}

fn update_address(view: &View<'_>, known: &Registered<'_>, there: &Move<'_>) -> Change {
    let endpoint = there.to.endpoint;
    Change::UpdateAddress {
        nodeid: known.row.nodeid,
        from: (known.row.nodename.clone(), known.row.nodeport),
        nodename: view.name(there.to).unwrap_or_else(|| endpoint.ip().to_string()),
        nodeport: endpoint.port(),
        endpoint,
        lineage: there.lineage.clone(),
        lacks: there.lacks,
        switch: there.switch,
        last_seen: known.identity.and_then(|known| known.record.position),
        known_mark: known.identity.and_then(|known| Some(known.record.mark.as_ref()?.id.clone())),
    }
}

/// Takes out updates to a name and port that another row keeps. Rows that exchange theirs move
/// in one transaction; a row that stays where another wants to go keeps it out.
pub fn without_collisions(view: &View<'_>, mut followed: Vec<Followed>) -> Vec<Followed> {
    loop {
        let moving: BTreeSet<i32> =
            followed.iter().filter_map(|f| moved(f).map(|(id, ..)| id)).collect();
        let collision = followed.iter().enumerate().find_map(|(index, f)| {
            let (nodeid, nodename, nodeport) = moved(f)?;
            let holder = view.seen.coordinator.nodes().iter().find(|row| {
                row.nodeid != nodeid
                    && row.nodename == nodename
                    && row.port() == Some(nodeport)
                    && !moving.contains(&row.nodeid)
            })?;
            let is_its = |row: &&DistNode| row.nodeid == nodeid;
            let group = view.seen.coordinator.nodes().iter().find(is_its).map(|row| row.groupid);
            let way = match !holder.is_primary && group == Some(holder.groupid) {
                // The very server that was its secondary. Its row cannot be removed, which would be told to
                // every node, also where this worker was.
                true => format!(
                    "SELECT citus_update_node({}, 'replaced.invalid', {nodeport}); and lead that node to the server that becomes the secondary.",
                    holder.nodeid
                ),
                false => "Bring that node back at an address of its own, or remove it".to_owned(),
            };
            let facts = vec![
                ("reason", f.verdict.reason.clone().unwrap_or_default()),
                ("name", nodename.to_owned()),
                ("port", nodeport.to_string()),
                ("node", holder.nodeid.to_string()),
                ("way", way),
            ];
            Some((index, ADDRESS_TAKEN.verdict(&facts)))
        });
        let Some((index, verdict)) = collision else { return followed };
        (followed[index].change, followed[index].verdict) = (None, verdict);
    }
}

fn moved(followed: &Followed) -> Option<(i32, &str, u16)> {
    match &followed.change {
        Some(Change::UpdateAddress { nodeid, nodename, nodeport, .. }) => {
            Some((*nodeid, nodename, *nodeport))
        }
        _ => None,
    }
}
