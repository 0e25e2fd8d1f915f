//! Owns what is to be done about a worker that is registered: follow it, reactivate it, disable it,
//! or nothing.
//! Must not touch a row whose server is not known by its recorded identity.

use super::candidate::Candidate;
use super::change::{Change, Subject};
use super::evidence::Member;
use super::registered::Registered;
use super::server::Lineage;
use super::situations::{self, ADDRESS_TAKEN};
use super::state::Action;
use super::verdict::Verdict;
use super::view::View;
use super::whereabouts::{Missing, Whereabouts, whereabouts};
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
}

pub fn follow(view: &View<'_>, known: &Registered<'_>) -> Followed {
    let row = known.row;
    // Where DNS has not said where the name leads, nothing is known of the server there.
    let is_located = view.seen.node_addresses.contains_key(&row.nodeid);
    let identity = known.identity.filter(|_| is_located);
    let is_well = known.is_well();
    // What an operator has disabled follows nobody, and what is back has not moved.
    let may_follow = |identity: &super::coordinator::Identity| {
        row.isactive || (identity.disabled_by_fleet && !is_well)
    };
    let followed = identity.filter(|identity| may_follow(identity));
    let candidates = followed.map_or(&[][..], |it| view.candidates_of(it.system_identifier));
    let whereabouts = match followed {
        Some(identity) => {
            let missing = Missing { identity, groupid: row.groupid, endpoints: &known.endpoints };
            whereabouts(&missing, view.seen, candidates)
        }
        None => Whereabouts::Unknown,
    };
    let verdict = situations::of_member(&Member {
        row,
        at_home: &known.at_home,
        is_well,
        disabled_by_fleet: identity.is_some_and(|identity| identity.disabled_by_fleet),
        is_known: identity.is_some(),
        whereabouts: whereabouts.clone(),
        system_identifier: identity.map_or(0, |identity| identity.system_identifier),
        is_disabled_when_absent: view.policy.on_absent == OnAbsent::Disable,
    });
    let (sightings, mut recheck) = match &whereabouts {
        Whereabouts::Unknown => (Vec::new(), Vec::new()),
        Whereabouts::Waiting(at) => (vec![*at], Vec::new()),
        Whereabouts::Moved(to, _) => (vec![to.endpoint], Vec::new()),
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
    let withheld = view.withheld(Subject::Node(row.nodeid)).filter(|_| change.is_some());
    let verdict = match &withheld {
        Some(why) => verdict.held(&situations::of_hindrance(why)),
        None => verdict,
    };
    let is_elsewhere = |at: &SocketAddr| !known.endpoints.contains(at);
    let sought = candidates.iter().map(|candidate| candidate.endpoint).filter(is_elsewhere);
    Followed {
        verdict,
        change: change.filter(|_| withheld.is_none()),
        sightings,
        recheck,
        sought: if is_well { Vec::new() } else { sought.collect() },
    }
}

/// The change that an action wants of a row.
fn change(
    view: &View<'_>,
    known: &Registered<'_>,
    action: Action,
    whereabouts: &Whereabouts<'_>,
) -> Option<Change> {
    let nodeid = known.row.nodeid;
    let (nodename, nodeport) = (known.row.nodename.clone(), known.row.nodeport);
    match (action, whereabouts) {
        (Action::UpdateAddress, Whereabouts::Moved(to, lineage)) => {
            Some(update_address(view, known, to, *lineage))
        }
        (Action::Reactivate, _) => Some(Change::Reactivate { nodeid, nodename, nodeport }),
        (Action::Disable, _) => Some(Change::Disable { nodeid, nodename, nodeport }),
        _ => None,
    }
}

fn update_address(
    view: &View<'_>,
    known: &Registered<'_>,
    to: &Candidate,
    lineage: Lineage,
) -> Change {
    Change::UpdateAddress {
        nodeid: known.row.nodeid,
        from: (known.row.nodename.clone(), known.row.nodeport),
        nodename: view.name(to).unwrap_or_else(|| to.endpoint.ip().to_string()),
        nodeport: to.endpoint.port(),
        endpoint: to.endpoint,
        lineage,
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
                    && row.nodeport == nodeport
                    && !moving.contains(&row.nodeid)
            })?;
            let facts = vec![
                ("reason", f.verdict.reason.clone().unwrap_or_default()),
                ("name", nodename.to_owned()),
                ("port", nodeport.to_string()),
                ("node", holder.nodeid.to_string()),
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
