//! Owns the making of observations for tests, so that a case is a line or two.
//! Addresses are written without a port, which is 5432; everything not said is healthy and fresh.

use crate::configuration::names::HostName;
use crate::configuration::networks::{NameSuffixes, Networks};
use crate::configuration::policy::{NodeNames, OnAbsent, Policy};
use crate::login::{LoginFailure, LoginFailureKind};
use crate::membership::candidate::Candidate;
use crate::membership::cause::Cause;
use crate::membership::change::{Change, ChangeFailure, Subject};
use crate::membership::coordinator::{CitusFacts, Coordinator, DistNode, Identity, OwnAddress};
use crate::membership::endpoint::{Endpoint, Naming, Probe, ProbeResult};
use crate::membership::lineage::{History, Lsn, Mark, Record};
use crate::membership::observation::{Hold, Now, Observation};
use crate::membership::plan::{Plan, Worker};
use crate::membership::planner::plan;
use crate::membership::server::{ExtensionState, Membership, Relation, Server};
use crate::membership::state::{Action, State};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

pub const COORDINATOR_ID: i64 = 1;
const COORDINATOR_STARTED: i64 = -1;
/// Where the coordinator's own address leads.
pub const OWN: &str = "10.1.0.1";
/// What every test calls now, in seconds of the monotonic clock.
pub const NOW: u64 = 1000;

pub fn ip(address: &str) -> IpAddr {
    address.parse().unwrap()
}

pub fn at(address: &str) -> SocketAddr {
    SocketAddr::new(ip(address), 5432)
}

pub fn name(name: &str) -> HostName {
    HostName::parse(name).unwrap()
}

pub fn relation(schema: &str, name: &str) -> Relation {
    Relation { schema: schema.into(), name: name.into() }
}

fn has(version: &str) -> ExtensionState {
    ExtensionState { installed: Some(version.into()), available: true }
}

/// Server number `n`: empty, and fit to become a worker.
pub fn server(n: i64) -> Server {
    Server {
        system_identifier: 7000 + n,
        started_us: n * 1_000_000,
        in_recovery: false,
        timeline: 1,
        history: Some(History::default()),
        position: Lsn(100),
        marks: Some(vec![mark(7000 + n)]),
        version_num: 170_006,
        max_prepared_transactions: 200,
        wants_password: false,
        citus: has("13.2-1"),
        vector: has("0.8.1"),
        fleet: has("0.1.0"),
        relations: Vec::new(),
        index_builds: 0,
        membership: Some(Membership::default()),
    }
}

/// Server number `n` as the worker that holds a group.
pub fn member(n: i64, group_id: i32) -> Server {
    Server {
        membership: Some(Membership {
            group_id,
            nodes: 3,
            rows: BTreeMap::new(),
            server_id: None,
            distributed_tables: 5,
            coordinator: Some("coord:5432".into()),
            nodeid: None,
        }),
        ..server(n)
    }
}

fn learn(endpoint: &mut Endpoint, second: u64, result: ProbeResult) {
    let at = Duration::from_secs(second);
    endpoint.learn(Probe { at, round_trip: Duration::from_millis(1), result }, 0);
}

/// A server as it is after a promotion at that position, its first one.
pub fn promoted(server: Server, at: u64) -> Server {
    let history = format!("1 {}", Lsn(at)).parse().unwrap();
    Server { timeline: 2, history: Some(history), position: Lsn(at + 100), ..server }
}

/// A copy of server `n`'s data directory that runs as a server of its own.
pub fn clone_of(n: i64) -> Server {
    Server { started_us: n * 1_000_000 + 1, ..server(n) }
}

/// The mark of a server with that system identifier.
fn mark(system_identifier: i64) -> String {
    format!("mark of {system_identifier}")
}

/// A worker's identity, as it is recorded of server `system_identifier - 7000`.
pub fn identity(system_identifier: i64) -> Identity {
    Identity {
        record: Record {
            system_identifier,
            timeline: 1,
            history: Some(History::default()),
            position: Some(Lsn(100)),
            mark: Some(Mark { id: mark(system_identifier), position: Lsn(50) }),
            started_us: None,
        },
        disabled_by_fleet: false,
        to_be_synced: false,
        recorded_us: 1,
        recorded_for: 3600,
        rival: None,
        lost_wal: 0,
    }
}

/// An active row of `pg_dist_node`. Its group is not its id, so that mixing them up shows.
pub fn row(nodeid: i32, nodename: &str) -> DistNode {
    DistNode {
        nodeid,
        groupid: nodeid + 10,
        nodename: nodename.into(),
        nodeport: 5432,
        isactive: true,
        hasmetadata: true,
        metadatasynced: true,
        is_primary: true,
        shouldhaveshards: true,
        clone_of: None,
        is_being_removed: false,
        placements: None,
        waits_for_shards: false,
        tasks: None,
    }
}

/// Everything that a plan is made from, owned.
pub struct Fleet {
    pub coordinator: Coordinator,
    pub candidates: Vec<Candidate>,
    pub node_addresses: BTreeMap<i32, Vec<IpAddr>>,
    pub lost_names: BTreeSet<i32>,
    pub own: Vec<OwnAddress>,
    pub endpoints: BTreeMap<SocketAddr, Endpoint>,
    pub unnamed_since: BTreeMap<i32, Duration>,
    pub rows_read_at: Duration,
    pub is_proved: bool,
    pub failures: BTreeMap<Subject, ChangeFailure>,
    pub hold: Option<Hold>,
    pub policy: Policy,
}

/// A coordinator that is registered as `coord`, and nothing else.
pub fn fleet() -> Fleet {
    let own = DistNode { groupid: 0, ..row(1, "coord") };
    Fleet {
        coordinator: Coordinator {
            system_identifier: COORDINATOR_ID,
            started_us: COORDINATOR_STARTED,
            version_num: 170_006,
            vector_version: Some("0.8.1".into()),
            fleet_version: "0.1.0".into(),
            citus: Some(CitusFacts {
                version: "13.2-1".into(),
                server_id: Some("ours".into()),
                group_id: 0,
                nodes: vec![own],
                clashes: BTreeSet::from([relation("public", "docs")]),
                tables: 1,
                is_job_running: false,
            }),
            role_has_password: false,
            paused: false,
            identities: BTreeMap::new(),
            removed: Vec::new(),
            index_builds: 0,
        },
        candidates: Vec::new(),
        node_addresses: BTreeMap::new(),
        lost_names: BTreeSet::new(),
        own: vec![OwnAddress {
            nodename: "coord".into(),
            nodeport: 5432,
            endpoints: vec![at(OWN)],
        }],
        endpoints: BTreeMap::new(),
        unnamed_since: BTreeMap::new(),
        rows_read_at: Duration::from_secs(NOW),
        is_proved: true,
        failures: BTreeMap::new(),
        hold: None,
        policy: Policy {
            sources: Vec::new(),
            node_names: NodeNames::Auto,
            networks: Networks::parse("private").unwrap(),
            names: NameSuffixes::default(),
            max_workers: 1024,
            coordinator_host: None,
            interval: Duration::from_secs(5),
            absent_after: Duration::from_secs(60),
            max_lost_wal: None,
            on_absent: OnAbsent::Report,
            rebalance_on_join: false,
        },
    }
    .answer(OWN, coordinator())
}

/// The coordinator as it answers at its own address.
pub fn coordinator() -> Server {
    Server { system_identifier: COORDINATOR_ID, started_us: COORDINATOR_STARTED, ..server(0) }
}

impl Fleet {
    /// A source yields the address; nobody has asked it yet.
    pub fn candidate(mut self, address: &str) -> Self {
        self.candidates.push(Candidate {
            endpoint: at(address),
            given: None,
            source: format!("source of {address}"),
        });
        self
    }

    /// The address answers as `server`, whether a source yields it or not.
    pub fn answer(mut self, address: &str, server: Server) -> Self {
        let endpoint = self.endpoints.entry(at(address)).or_default();
        *endpoint = Endpoint::default();
        // It has run for a while.
        learn(endpoint, NOW - 1, Ok(server.clone()));
        learn(endpoint, NOW, Ok(server));
        endpoint.named_at = Some(Duration::from_secs(NOW));
        self
    }

    /// A source yields the address, and it answers as `server`.
    pub fn server(self, address: &str, server: Server) -> Self {
        self.candidate(address).answer(address, server)
    }

    /// The address has been probed without success for long.
    pub fn failing(self, address: &str, kind: LoginFailureKind) -> Self {
        self.failing_since(address, kind, 1)
    }

    /// The same since that second.
    pub fn failing_since(mut self, address: &str, kind: LoginFailureKind, since: u64) -> Self {
        let endpoint = self.endpoints.entry(at(address)).or_default();
        *endpoint = Endpoint::default();
        for second in [since, NOW] {
            let message = "in its own words".into();
            learn(endpoint, second, Err(LoginFailure { kind, message }));
        }
        endpoint.named_at = Some(Duration::from_secs(NOW));
        self
    }

    pub fn down(self, address: &str) -> Self {
        self.failing(address, LoginFailureKind::Refused)
    }

    /// The answer of the address is that old.
    pub fn aged(mut self, address: &str, seconds: f64) -> Self {
        let probe = self.endpoints.get_mut(&at(address)).unwrap().probe.as_mut().unwrap();
        probe.at = Duration::from_secs(NOW) - Duration::from_secs_f64(seconds);
        self
    }

    /// The source gave that name for the address.
    pub fn given(mut self, address: &str, given: &str) -> Self {
        let candidate = self.candidates.iter_mut();
        let candidate = candidate.filter(|c| c.endpoint == at(address)).last();
        candidate.unwrap().given = Some(name(given));
        self
    }

    /// A name was found for the address, and the system's resolver leads from it to `addresses`.
    pub fn naming(mut self, address: &str, found: &str, addresses: &[&str]) -> Self {
        self.endpoints.get_mut(&at(address)).unwrap().naming = Some(Naming {
            name: name(found),
            addresses: addresses.iter().map(|address| ip(address)).collect(),
        });
        self
    }

    /// A row of `pg_dist_node` whose name leads to `addresses`; without any, it never led anywhere.
    pub fn row(mut self, row: DistNode, addresses: &[&str]) -> Self {
        if addresses.is_empty() {
            self.lost_names.insert(row.nodeid);
        }
        let addresses = addresses.iter().map(|address| ip(address)).collect();
        self.node_addresses.insert(row.nodeid, addresses);
        self.nodes().push(row);
        self
    }

    /// A worker that is as it should be: row `nodeid`, at an address that answers for its group.
    pub fn worker(self, nodeid: i32, address: &str) -> Self {
        let row = row(nodeid, &format!("w{nodeid}"));
        let server = member(nodeid.into(), row.groupid);
        self.row(row, &[address]).answer(address, server)
    }

    /// DNS says that the name of that row does not exist any more.
    pub fn lost(mut self, nodeid: i32) -> Self {
        self.lost_names.insert(nodeid);
        self
    }

    /// No source has named that row for so long.
    pub fn unnamed(mut self, nodeid: i32, seconds: u64) -> Self {
        let since = Duration::from_secs(NOW - seconds);
        self.unnamed_since.insert(nodeid, since);
        self
    }

    /// Citus did not accept the registration; the next attempt is due at `retry_at`.
    pub fn refused_by_citus(self, address: &str, retry_at: Duration) -> Self {
        self.failed(Subject::Endpoint(at(address)), retry_at)
    }

    pub fn failed(mut self, subject: Subject, retry_at: Duration) -> Self {
        let failure = ChangeFailure {
            what: "register it".into(),
            reason: "canceling statement due to lock timeout".into(),
            cause: Cause::Refused,
            attempts: 3,
            failed_at: Duration::from_secs(NOW - 1),
            retry_at,
        };
        self.failures.insert(subject, failure);
        self
    }

    /// Why what failed has failed.
    pub fn because(mut self, cause: Cause) -> Self {
        self.failures.values_mut().for_each(|failure| failure.cause = cause.clone());
        self
    }

    /// Whose server a registered worker is known to be.
    pub fn known_as(mut self, nodeid: i32, system_identifier: i64) -> Self {
        self.coordinator.identities.insert(nodeid, identity(system_identifier));
        self
    }

    pub fn hold(mut self, hold: Hold) -> Self {
        self.hold = Some(hold);
        self
    }

    pub fn coordinator_host(mut self, host: &str) -> Self {
        self.policy.coordinator_host = Some((host.into(), 5432));
        self.own[0].nodename = host.into();
        self
    }

    /// The name that the coordinator's own row has.
    pub fn registered_as(mut self, host: &str) -> Self {
        self.nodes()[0].nodename = host.into();
        self
    }

    pub fn nodes(&mut self) -> &mut Vec<DistNode> {
        &mut self.coordinator.citus.as_mut().unwrap().nodes
    }

    pub fn plan(&self) -> Plan {
        let rows = self.coordinator.rows();
        let seen = Observation {
            now: Now { monotonic: Duration::from_secs(NOW), wall_us: 0 },
            coordinator: &self.coordinator,
            candidates: &self.candidates,
            node_addresses: &self.node_addresses,
            lost_names: &self.lost_names,
            own: &self.own,
            own_row_since: Duration::ZERO,
            rows: &rows,
            rows_since: Duration::ZERO,
            rows_read_at: self.rows_read_at,
            is_proved: self.is_proved,
            endpoints: &self.endpoints,
            unnamed_since: &self.unnamed_since,
            failures: &self.failures,
            hold: self.hold.clone(),
        };
        plan(&seen, &self.policy)
    }

    /// The one worker of a plan that changes nothing; its state, and the reason has all of `facts`.
    #[track_caller]
    pub fn gives(&self, state: State, facts: &[&str]) -> Worker {
        let plan = self.plan();
        assert_eq!(plan.changes, [], "expected {state} ({facts:?})");
        assert_eq!(plan.workers.len(), 1, "{:#?}", plan.workers);
        plan.workers[0].is(state, facts);
        plan.workers[0].clone()
    }
}

impl Worker {
    /// Asserts the state, and that the reason has all of `facts`.
    #[track_caller]
    pub fn is(&self, state: State, facts: &[&str]) {
        assert_eq!(self.state, state, "{self:#?}");
        let reason = self.reason.as_deref().unwrap_or_default();
        for fact in facts {
            assert!(reason.contains(fact), "{fact:?} is not in {reason:?}");
        }
    }
}

impl Plan {
    /// The worker that is listed with an address or under a name; there must be exactly one.
    #[track_caller]
    pub fn at(&self, place: &str) -> &Worker {
        let is_there = |worker: &&Worker| {
            worker.nodename == place || worker.endpoint.is_some_and(|e| e.ip().to_string() == place)
        };
        let found: Vec<&Worker> = self.workers.iter().filter(is_there).collect();
        assert_eq!(found.len(), 1, "{place} in {:#?}", self.workers);
        found[0]
    }

    /// What is to be registered, as (name, address), in the order of the changes.
    pub fn registers(&self) -> Vec<(String, String)> {
        let registered = self.changes.iter().filter_map(|change| match change {
            Change::Register { nodename, nodeport, endpoint, .. } => {
                assert_eq!(*nodeport, endpoint.port());
                Some((nodename.clone(), endpoint.ip().to_string()))
            }
            _ => None,
        });
        registered.collect()
    }

    /// Asserts that exactly these addresses are to be registered, each by its address.
    #[track_caller]
    pub fn registers_only(&self, addresses: &[&str]) {
        let expected = addresses.iter().map(|a| (a.to_string(), a.to_string()));
        assert_eq!(self.registers(), expected.collect::<Vec<_>>());
        for address in addresses {
            assert_eq!(self.at(address).action, Action::Register);
        }
    }
}
