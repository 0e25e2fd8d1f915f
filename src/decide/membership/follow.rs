//! Owns what is to be done about a worker that is registered: follow it, reactivate it, disable it,
//! or nothing.
//! Must not touch a row whose server is not known by its recorded identity.

use super::plan::Planner;
use crate::configuration::policy::OnAbsent;
use crate::membership::model::{Action, Candidate, Change, Lineage, State, Subject};
use crate::membership::registered::Registered;
use crate::membership::verdict::Verdict;
use crate::membership::whereabouts::{Missing, Whereabouts, whereabouts};
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// What became of looking after one registered worker.
pub(super) struct Followed {
    pub verdict: Verdict,
    pub action: Action,
    pub change: Option<Change>,
    /// Other addresses at which its server was seen.
    pub sightings: Vec<SocketAddr>,
    pub recheck: Vec<SocketAddr>,
    /// Where its next primary may appear, while it has none.
    pub sought: Vec<SocketAddr>,
}

impl Followed {
    fn nothing(verdict: Verdict) -> Self {
        Self {
            verdict,
            action: Action::None,
            change: None,
            sightings: Vec::new(),
            recheck: Vec::new(),
            sought: Vec::new(),
        }
    }
}

impl<'a> Planner<'a> {
    pub(super) fn follow(&self, known: &Registered<'a>) -> Followed {
        let row = known.row;
        let verdict = known.verdict.clone();
        // Where DNS has not said where the name leads, nothing is known of the server there.
        let is_located = self.seen.node_addresses.contains_key(&row.nodeid);
        let Some(identity) =
            self.seen.coordinator.identities.get(&row.nodeid).filter(|_| is_located)
        else {
            return Followed::nothing(verdict);
        };
        if verdict.state == State::Inactive {
            if !identity.disabled_by_fleet {
                return Followed::nothing(verdict);
            }
            if known.is_healthy(identity) {
                return self.reactivate(known, verdict);
            }
        }
        let candidates = self.sightings.get(&identity.system_identifier);
        let candidates = candidates.map_or(&[][..], Vec::as_slice);
        let missing = Missing { identity, groupid: row.groupid, endpoints: &known.endpoints };
        let followed = match whereabouts(&missing, self.seen, candidates) {
            Whereabouts::Unknown if verdict.state == State::Absent => self.absent(known, verdict),
            Whereabouts::Unknown => Followed::nothing(verdict),
            Whereabouts::Waiting(endpoint) => {
                Followed { sightings: vec![endpoint], ..Followed::nothing(verdict) }
            }
            Whereabouts::Unsure(endpoints) => {
                let sightings = endpoints.clone();
                Followed { recheck: endpoints, sightings, ..Followed::nothing(verdict) }
            }
            Whereabouts::Twice(one, other) => Followed {
                sightings: vec![one, other],
                ..Followed::nothing(Verdict::new(
                    State::Conflict,
                    format!(
                        "two running servers claim to be this worker: {one} and {other} (system identifier {})",
                        identity.system_identifier
                    ),
                    "Stop the one that is not the primary of this group; nothing is changed until then.",
                ))
            },
            Whereabouts::Moved(candidate, lineage) => {
                self.update_address(known, verdict, candidate, lineage)
            }
        };
        let elsewhere = |at: &SocketAddr| !known.endpoints.contains(at);
        let sought = candidates.iter().map(|candidate| candidate.endpoint).filter(elsewhere);
        match known.is_healthy(identity) {
            true => followed,
            false => Followed { sought: sought.collect(), ..followed },
        }
    }

    fn update_address(
        &self,
        known: &Registered<'_>,
        verdict: Verdict,
        to: &Candidate,
        lineage: Lineage,
    ) -> Followed {
        let change = Change::UpdateAddress {
            nodeid: known.row.nodeid,
            from: (known.row.nodename.clone(), known.row.nodeport),
            nodename: self.name(to).unwrap_or_else(|| to.endpoint.ip().to_string()),
            nodeport: to.endpoint.port(),
            endpoint: to.endpoint,
            lineage,
        };
        let news = format!("its server answers at {} now", to.endpoint);
        let followed = self.propose(known, verdict, change, Action::UpdateAddress, &news);
        Followed { sightings: vec![to.endpoint], ..followed }
    }

    fn reactivate(&self, known: &Registered<'_>, verdict: Verdict) -> Followed {
        let (nodename, nodeport) = (known.row.nodename.clone(), known.row.nodeport);
        let change = Change::Reactivate { nodeid: known.row.nodeid, nodename, nodeport };
        if known.server.is_some_and(|(.., probe)| self.is_stale(probe.at)) {
            return Followed { recheck: known.endpoints.clone(), ..Followed::nothing(verdict) };
        }
        self.propose(known, verdict, change, Action::Reactivate, "it was absent and is back")
    }

    fn absent(&self, known: &Registered<'_>, verdict: Verdict) -> Followed {
        if self.policy.on_absent == OnAbsent::Report {
            return Followed::nothing(verdict);
        }
        let (nodename, nodeport) = (known.row.nodename.clone(), known.row.nodeport);
        let change = Change::Disable { nodeid: known.row.nodeid, nodename, nodeport };
        let news = verdict.reason.clone().unwrap_or_default();
        self.propose(known, verdict, change, Action::Disable, &news)
    }

    /// Puts a change of a row into the plan, unless something stands in its way.
    fn propose(
        &self,
        known: &Registered<'_>,
        verdict: Verdict,
        change: Change,
        action: Action,
        news: &str,
    ) -> Followed {
        let obstacle = self.withheld(Subject::Node(known.row.nodeid));
        let (reason, remedy) = match &obstacle {
            Some(obstacle) => (
                format!("{news}; {}", obstacle.reason.as_deref().unwrap_or_default()),
                obstacle.remedy.clone().or(verdict.remedy),
            ),
            None => (news.to_owned(), None),
        };
        let change = obstacle.is_none().then_some(change);
        let verdict = Verdict { state: verdict.state, reason: Some(reason), remedy };
        Followed { action, change, ..Followed::nothing(verdict) }
    }

    /// Takes out updates to a name and port that another row keeps. Rows that exchange theirs move
    /// in one transaction; a row that stays where another wants to go keeps it out.
    pub(super) fn without_collisions(&self, mut followed: Vec<Followed>) -> Vec<Followed> {
        loop {
            let moving: BTreeSet<i32> =
                followed.iter().filter_map(|f| moved(f).map(|(id, ..)| id)).collect();
            let collision = followed.iter().enumerate().find_map(|(index, f)| {
                let (nodeid, nodename, nodeport) = moved(f)?;
                let holder = self.seen.coordinator.nodes().iter().find(|row| {
                    row.nodeid != nodeid
                        && row.nodename == nodename
                        && row.nodeport == nodeport
                        && !moving.contains(&row.nodeid)
                })?;
                Some((
                    index,
                    format!("{nodename}:{nodeport} is registered as node {} still", holder.nodeid),
                ))
            });
            let Some((index, why)) = collision else { return followed };
            let f = &mut followed[index];
            f.change = None;
            f.action = Action::None;
            f.verdict = Verdict::new(
                State::Conflict,
                format!("{}; {why}", f.verdict.reason.as_deref().unwrap_or_default()),
                "Bring that node back at an address of its own, or remove it: this row follows then.",
            );
        }
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
