//! Owns planning: what every candidate and every registered worker is, and what is to be changed.
//! Must not act, and must not plan anything that a later observation could not plan again.

use super::candidate::Candidate;
use super::change::{Change, Subject};
use super::coordinator::Identity;
use super::endpoint::Endpoint;
use super::evidence::{Bar, Hindrance, Newcomer, Twin, bar};
use super::follow::{Followed, follow, without_collisions};
use super::lineage::Descent;
use super::observation::{Observation, Sighting};
use super::plan::{Plan, Worker};
use super::registered::Registered;
use super::situations::{self, CLEANING, CLEANING_WAITS, NODES_DIFFER, REGISTERING, SYNCING};
use super::verdict::Verdict;
use super::view::View;
use super::{hanging, own_address, rebalance};
use crate::configuration::policy::Policy;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

/// What everything observed means, and what is to be done about it.
pub fn plan(seen: &Observation<'_>, policy: &Policy) -> Plan {
    let registered: Vec<Registered> =
        seen.coordinator.worker_rows().map(|row| Registered::judge(row, seen, policy)).collect();
    let mut differing = registered.iter().filter(|it| it.at_home.code == NODES_DIFFER.code);
    let differing = differing.next().map(|it| Hindrance::NodesDiffer(it.row.to_string()));
    let own_doubt = own_address::doubt(seen).or(differing.clone());
    let stop = own_doubt.clone().filter(Hindrance::is_about_the_coordinator);
    let view = View::new(seen, policy, stop.clone());
    let coordinator_host = own_doubt.as_ref().map(situations::of_hindrance);
    let mut planner = Planner {
        view: &view,
        registered: &registered,
        obstacle: differing.or_else(|| obstacle(&view, &registered)),
        own_doubt,
        taken: BTreeSet::new(),
        plan: Plan {
            coordinator_host,
            is_disputed: matches!(stop, Some(Hindrance::OwnElsewhere { .. })),
            is_unproved: stop.as_ref().is_some_and(Hindrance::is_about_its_address),
            ..Plan::default()
        },
    };
    planner.coordinator_host();
    planner.registered_workers();
    for candidate in seen.candidates {
        planner.candidate(candidate);
    }
    planner.removed_servers();
    planner.clones();
    rebalance::rebalance(&view, &registered, &mut planner.plan);
    hanging::hold_back(&view, &mut planner.plan);
    planner.plan
}

/// What keeps Citus from adding any node at the moment.
fn obstacle(view: &View<'_>, registered: &[Registered<'_>]) -> Option<Hindrance> {
    let coordinator = view.seen.coordinator;
    if coordinator.citus.is_none() {
        return Some(Hindrance::NoCitus);
    }
    let is_localhost = coordinator.own_row().is_some_and(|row| row.nodename == "localhost");
    if is_localhost && view.policy.coordinator_host.is_none() {
        return Some(Hindrance::OnLocalhost);
    }
    let culprits: Vec<String> = registered.iter().filter_map(Registered::blocks_adding).collect();
    const MOST: usize = 3;
    let more = culprits.len().saturating_sub(MOST);
    let more = (more > 0).then(|| format!("{more} more workers are not in order"));
    let named: Vec<String> = culprits.into_iter().take(MOST).chain(more).collect();
    (!named.is_empty()).then(|| Hindrance::Worker(named.join(", ")))
}

struct Planner<'a> {
    view: &'a View<'a>,
    registered: &'a [Registered<'a>],
    obstacle: Option<Hindrance>,
    /// Why nobody may be told where the coordinator is.
    own_doubt: Option<Hindrance>,
    /// Endpoints that are another one's server, or its own already.
    taken: BTreeSet<SocketAddr>,
    plan: Plan,
}

impl<'a> Planner<'a> {
    fn coordinator_host(&mut self) {
        let coordinator = self.view.seen.coordinator;
        let (Some((name, port)), Some(_)) =
            (&self.view.policy.coordinator_host, &coordinator.citus)
        else {
            return;
        };
        let own = coordinator.own_row();
        let is_so = own.is_some_and(|row| row.nodename == *name && row.port() == Some(*port));
        // It would be written to every worker, and what keeps that from being done is an obstacle already.
        if is_so || self.registered.iter().any(Registered::may_not_be_written_to) {
            return;
        }
        match self.view.withheld(Subject::Coordinator).or_else(|| self.own_address()) {
            None => self
                .plan
                .changes
                .push(Change::SetCoordinatorHost { nodename: name.clone(), nodeport: *port }),
            // Whoever is added gets what is in the row.
            Some(why) => {
                self.obstacle.get_or_insert(why);
            }
        }
    }

    /// Why no worker may be told where the coordinator is.
    fn own_address(&mut self) -> Option<Hindrance> {
        let stale = own_address::stale(self.view.seen);
        let is_stale = !stale.is_empty();
        self.plan.recheck.extend(stale);
        self.own_doubt.clone().or(is_stale.then_some(Hindrance::OwnStale))
    }

    fn registered_workers(&mut self) {
        let followed: Vec<Followed> =
            self.registered.iter().map(|known| follow(self.view, known)).collect();
        let followed = without_collisions(self.view, followed);
        for (known, followed) in self.registered.iter().zip(followed) {
            self.taken.extend(known.places());
            self.taken.extend(&followed.sightings);
            let source = self.source_of(known, &followed.sightings);
            self.plan.recheck.extend(followed.recheck);
            self.plan.recheck.extend(&known.recheck);
            self.plan.sought.extend(followed.sought);
            self.plan.changes.extend(followed.change);
            self.plan.rivals.extend(followed.rival.map(|rival| (known.row.nodeid, rival)));
            let at = known.sighting.map(|sighting| sighting.at);
            self.list(
                (known.row.nodename.clone(), known.row.nodeport),
                at.or(known.places().first().copied()),
                Some((known.row.nodeid, known.row.groupid)),
                source,
                followed.verdict,
            );
            if let Some(worker) = self.plan.workers.last_mut() {
                worker.elsewhere = followed.sightings;
            }
        }
    }

    fn list(
        &mut self,
        (nodename, nodeport): (String, i32),
        endpoint: Option<SocketAddr>,
        node: Option<(i32, i32)>,
        source: Option<String>,
        verdict: Verdict,
    ) {
        let (nodeid, groupid) = node.unzip();
        let Verdict { code, state, action, reason, remedy } = verdict;
        self.plan.workers.push(Worker {
            nodename,
            nodeport,
            endpoint,
            elsewhere: Vec::new(),
            nodeid,
            groupid,
            source,
            code,
            state,
            action,
            reason,
            remedy,
        });
    }

    /// The source that names a worker: by its address, or by another one of the same server.
    fn source_of(&self, known: &Registered<'_>, sightings: &[SocketAddr]) -> Option<String> {
        let by_address =
            known.endpoints.iter().chain(sightings).find_map(|at| self.view.named.get(at));
        let by_server = || {
            let ours = known.sighting?.server;
            let mut theirs = self.view.sightings_of(ours.system_identifier);
            theirs.find(|(_, theirs)| ours.is_same(theirs.server)).map(|(candidate, _)| candidate)
        };
        by_address.copied().or_else(by_server).map(|candidate| candidate.source.clone())
    }

    fn candidate(&mut self, candidate: &'a Candidate) {
        let at = candidate.endpoint;
        if self.taken.contains(&at) {
            return;
        }
        let bar = bar(candidate, self.view.seen.coordinator, self.view.policy);
        let Ok(twin) = self.twin(at, bar.is_none()) else {
            return;
        };
        let nodename = self.nodename(candidate);
        let clone = self.view.seen.coordinator.clone_at(&nodename, at);
        let node = clone.map(|row| (row.nodeid, row.groupid));
        let verdict = self.judge(at, nodename.clone(), bar, twin);
        self.list(
            (nodename, at.port().into()),
            Some(at),
            node,
            Some(candidate.source.clone()),
            verdict,
        );
    }

    /// What a server that no row leads to is; what is wanted of it goes into the plan.
    fn judge(
        &mut self,
        at: SocketAddr,
        nodename: String,
        bar: Option<Bar>,
        twin: Option<Twin>,
    ) -> Verdict {
        let seen = self.view.seen;
        let holder = seen.coordinator.nodes().iter();
        let holder = holder
            .filter(|row| row.nodename == nodename && row.port() == Some(at.port()))
            .map(|row| row.nodeid)
            .next();
        let clone = seen.coordinator.clone_at(&nodename, at);
        let mut it = Newcomer {
            at,
            nodename,
            endpoint: seen.endpoints.get(&at),
            coordinator: seen.coordinator,
            bar,
            twin,
            holder,
            clone,
            hindrance: None,
            is_stale: false,
        };
        let verdict = situations::of_newcomer(&it);
        match verdict.code {
            REGISTERING | SYNCING => {
                let withheld = || self.view.withheld(Subject::Endpoint(at));
                it.hindrance = self.obstacle.clone().or_else(withheld);
                if it.hindrance.is_none() {
                    it.hindrance = self.own_address();
                }
                it.is_stale = self.is_stale(&it);
                self.register(&it)
            }
            CLEANING => match self.view.withheld(Subject::Endpoint(at)) {
                Some(why) => {
                    let (why, removed) = (situations::of_hindrance(&why), it.removed());
                    let count = removed.map_or(0, |(_, removed)| removed.relations.len());
                    let facts = vec![
                        ("count", count.to_string()),
                        ("why", why.reason.unwrap_or_default()),
                        ("way", why.remedy.unwrap_or_default()),
                    ];
                    CLEANING_WAITS.verdict(&facts)
                }
                None => {
                    self.plan.changes.extend(clean(&it));
                    verdict
                }
            },
            _ => verdict,
        }
    }

    /// A server that passed preflight: registers it unless something else stands in the way.
    fn register(&mut self, it: &Newcomer<'_>) -> Verdict {
        let verdict = situations::of_newcomer(it);
        if let (REGISTERING | SYNCING, Some(server)) = (verdict.code, it.server()) {
            self.plan.changes.push(Change::Register {
                nodename: it.nodename.clone(),
                nodeport: it.at.port(),
                endpoint: it.at,
                lineage: server.lineage(),
            });
        } else if it.hindrance.is_none() {
            self.plan.recheck.push(it.at);
        }
        verdict
    }

    /// Whether what is known of a server, or of the name that Citus is to reach it by, is too old.
    fn is_stale(&self, it: &Newcomer<'_>) -> bool {
        let Some(endpoint) = it.endpoint else { return true };
        endpoint.probe.as_ref().is_none_or(|probe| self.view.seen.is_stale(probe.at))
            || self.view.is_name_stale(&it.nodename, it.at)
    }

    /// Compares a candidate with every worker and every other candidate of the same system identifier;
    /// `Err` where it is one of them under another address.
    fn twin(&mut self, at: SocketAddr, may_connect: bool) -> Result<Option<Twin>, Alias> {
        let seen = self.view.seen;
        let Some(here) = seen.sighting(at).filter(|_| may_connect) else { return Ok(None) };
        let identifier = here.server.system_identifier;
        let lineage = here.server.lineage();
        let is_past = |known: &Identity| {
            known.record.system_identifier == identifier
                && known.record.descent(&lineage) == Descent::LeftBehind
        };
        if identifier == seen.coordinator.system_identifier
            || here.server.in_recovery
            || seen.coordinator.identities.values().any(is_past)
        {
            return Ok(None);
        }
        let workers = self.registered.iter().filter_map(|known| known.sighting);
        let others = self.view.sightings_of(identifier).map(|(_, sighting)| sighting);
        let namesakes: Vec<Sighting> = workers
            .chain(others)
            .filter(|other| {
                other.at != at
                    && other.server.system_identifier == identifier
                    && !other.server.in_recovery
            })
            .collect();
        if let Some(other) = namesakes.iter().find(|other| !here.server.is_same(other.server)) {
            if here.is_simultaneous(other) {
                return Ok(Some(Twin::Runs(other.at)));
            }
            // One that takes long to answer is not asked the faster for it.
            let is_asked = |at: &SocketAddr| seen.endpoints.get(at).is_some_and(Endpoint::is_asked);
            if ![at, other.at].iter().any(is_asked) {
                self.plan.recheck.extend([at, other.at]);
            }
            return Ok(Some(Twin::Unsure(other.at)));
        }
        let is_listed = namesakes.iter().any(|other| self.taken.contains(&other.at));
        self.taken.extend(namesakes.iter().map(|other| other.at));
        if is_listed { Err(Alias) } else { Ok(None) }
    }

    /// What Citus is to know a candidate by: its name, unless this plan gives it to another server
    /// already, whatever DNS said at one moment; else its address. A name that a row has is kept, and
    /// is a conflict: the row may lead to this server too.
    fn nodename(&self, candidate: &Candidate) -> String {
        let is_taken = |name: &str| {
            self.plan.changes.iter().any(|change| match change {
                Change::Register { nodename, nodeport, .. } => {
                    nodename == name && *nodeport == candidate.endpoint.port()
                }
                _ => false,
            })
        };
        self.view
            .name(candidate)
            .filter(|name| !is_taken(name))
            .unwrap_or_else(|| candidate.endpoint.ip().to_string())
    }

    /// Clones that no source names.
    fn clones(&mut self) {
        for row in self.view.seen.coordinator.clone_rows() {
            if self.plan.workers.iter().all(|worker| worker.nodeid != Some(row.nodeid)) {
                let name = (row.nodename.clone(), row.nodeport);
                let node = Some((row.nodeid, row.groupid));
                self.list(name, None, node, None, situations::of_clone(row));
            }
        }
    }

    /// Removed servers that are to be cleaned and that no source names any more.
    fn removed_servers(&mut self) {
        for removed in &self.view.seen.coordinator.removed {
            let Some(at) = removed.endpoint_to_clean() else {
                continue;
            };
            let is_listed = self.view.named.contains_key(&at) || self.taken.contains(&at);
            // Whoever else answers there is nobody's business.
            let is_it = |sighting: Sighting<'_>| {
                sighting.server.system_identifier == removed.system_identifier
            };
            if is_listed || !self.view.seen.sighting(at).is_some_and(is_it) {
                continue;
            }
            let verdict = self.judge(at, removed.nodename.clone(), None, None);
            self.list((removed.nodename.clone(), removed.nodeport), Some(at), None, None, verdict);
        }
    }
}

/// An endpoint that is another address of a server that is listed already.
struct Alias;

/// What is to be dropped from a removed server.
fn clean(it: &Newcomer<'_>) -> Option<Change> {
    let (_, removed) = it.removed()?;
    // A name that DNS does not confirm at the moment gives way to the address, for which no
    // certificate is: the name that Citus knew it by still is the server's.
    let is_named = it.nodename.parse::<IpAddr>().is_err();
    Some(Change::Clean {
        nodename: if is_named { it.nodename.clone() } else { removed.nodename.clone() },
        endpoint: it.at,
        system_identifier: removed.system_identifier,
        relations: removed.relations.clone(),
    })
}
