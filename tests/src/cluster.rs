//! Owns putting servers together: a coordinator, workers beside it, and the DNS that names them.
//! Must not register workers unless a test says so.

use crate::dns::Dns;
use crate::need::Need;
use crate::run::{Subnet, port};
use crate::server::{Row, Server, Spec};
use std::net::{IpAddr, Ipv4Addr};

/// The name that the scripted DNS gives to the workers.
pub const WORKER: &str = "worker";

pub struct Cluster {
    pub coordinator: Server,
    pub workers: Vec<Server>,
    pub dns: Dns,
    pub subnet: Subnet,
}

/// What to build; every field has a default that most tests keep.
#[derive(Clone, Debug)]
pub struct Plan {
    workers: usize,
    citus: bool,
    fleet: bool,
    create_fleet: bool,
    coordinator_host: bool,
    announce: bool,
    own_resolver: bool,
    settings: Vec<(String, String)>,
    worker_settings: Vec<(String, String)>,
    worker_memory: Option<u64>,
    worker_disk: Option<u64>,
    worker_shared_memory: Option<u64>,
    environment: Vec<(String, String)>,
}

impl Plan {
    /// A coordinator with Citus and citus_fleet, and this many workers that DNS announces.
    pub fn workers(workers: usize) -> Plan {
        Plan {
            workers,
            citus: Need::Citus.missing().is_none(),
            fleet: true,
            create_fleet: true,
            coordinator_host: true,
            announce: true,
            own_resolver: false,
            settings: Vec::new(),
            worker_settings: Vec::new(),
            worker_memory: None,
            worker_disk: None,
            worker_shared_memory: None,
            environment: Vec::new(),
        }
    }

    /// Everywhere without Citus.
    pub fn without_citus(mut self) -> Plan {
        self.citus = false;
        self
    }

    /// Without citus_fleet: a cluster to compare with.
    pub fn without_fleet(mut self) -> Plan {
        self.fleet = false;
        self.create_fleet = false;
        self
    }

    /// citus_fleet is preloaded, and CREATE EXTENSION is left to the test.
    pub fn not_created(mut self) -> Plan {
        self.create_fleet = false;
        self
    }

    /// The coordinator is registered as `localhost`, as Citus itself does when it has to.
    pub fn coordinator_is_localhost(mut self) -> Plan {
        self.coordinator_host = false;
        self
    }

    /// DNS does not know the workers until the test says so.
    pub fn unannounced(mut self) -> Plan {
        self.announce = false;
        self
    }

    /// The scripted DNS is the coordinator's system resolver too: workers are registered by name, and
    /// Citus connects by it. Takes `Need::Mounts`.
    pub fn own_resolver(mut self) -> Plan {
        self.own_resolver = true;
        self.set("citus_fleet.nameserver", "")
    }

    /// A setting of the coordinator, in which `{address}` stands for its address; it wins over the
    /// defaults of the harness.
    pub fn set(mut self, name: &str, value: &str) -> Plan {
        self.settings.push((name.to_string(), value.to_string()));
        self
    }

    pub fn worker_set(mut self, name: &str, value: &str) -> Plan {
        self.worker_settings.push((name.to_string(), value.to_string()));
        self
    }

    /// So many bytes of memory and of disk for each worker. Takes `Need::Mounts`.
    pub fn worker_host(mut self, memory: u64, disk: u64) -> Plan {
        (self.worker_memory, self.worker_disk) = (Some(memory), Some(disk));
        self
    }

    /// So many bytes of /dev/shm for each worker. Takes `Need::Mounts`.
    pub fn worker_shared_memory(mut self, bytes: u64) -> Plan {
        self.worker_shared_memory = Some(bytes);
        self
    }

    /// An environment variable of the coordinator's server process.
    pub fn env(mut self, name: &str, value: &str) -> Plan {
        self.environment.push((name.to_string(), value.to_string()));
        self
    }

    #[track_caller]
    pub fn start(self) -> Cluster {
        let subnet = Subnet::new();
        let dns = match self.own_resolver {
            true => Dns::start_at(subnet.address(), 53),
            false => Dns::start(subnet.address()),
        };
        let mut specs = vec![self.coordinator_spec("coordinator", &subnet, &dns)];
        for number in 1..=self.workers {
            specs.push(self.worker_spec(&format!("worker-{number}"), subnet.address()));
        }
        let mut servers = Server::start_all(specs).into_iter();
        let cluster = Cluster {
            coordinator: servers.next().expect("a coordinator"),
            workers: servers.collect(),
            dns,
            subnet,
        };
        if self.citus {
            let host = match self.coordinator_host {
                true => cluster.coordinator.address.to_string(),
                false => "localhost".to_string(),
            };
            let port = cluster.coordinator.port;
            cluster
                .coordinator
                .run(&format!("SELECT pg_catalog.citus_set_coordinator_host('{host}', {port})"));
        }
        if self.announce {
            cluster.announce_all();
        }
        if self.create_fleet {
            cluster.coordinator.run("CREATE EXTENSION citus_fleet");
        }
        cluster
    }

    /// The description of the coordinator, for one that something else is to start.
    pub fn coordinator_spec(&self, name: &str, subnet: &Subnet, dns: &Dns) -> Spec {
        let mut spec = self.base(Spec::new(name, subnet.address()));
        if self.fleet {
            spec = spec
                .preload("citus_fleet")
                .set("citus_fleet.nameserver", &dns.address().to_string())
                .set("citus_fleet.workers", &format!("{WORKER}:{}", port()))
                .set("citus_fleet.interval", "1s")
                .set("citus_fleet.probe_timeout", "1s");
        }
        spec.resolvers = self.own_resolver.then(|| vec![dns.address().ip()]);
        let address = spec.addresses[0].to_string();
        let settings = self.settings.iter();
        spec.settings.extend(
            settings.map(|(name, value)| (name.clone(), value.replace("{address}", &address))),
        );
        spec.environment.extend(self.environment.iter().cloned());
        spec
    }

    fn base(&self, spec: Spec) -> Spec {
        if self.citus { spec.citus() } else { spec }
    }

    fn worker_spec(&self, name: &str, address: Ipv4Addr) -> Spec {
        let mut spec = self.base(Spec::new(name, address));
        if self.fleet {
            spec = spec.preload("citus_fleet");
        }
        spec.settings.extend(self.worker_settings.iter().cloned());
        (spec.memory, spec.disk) = (self.worker_memory, self.worker_disk);
        spec.shared_memory = self.worker_shared_memory;
        spec
    }
}

impl Cluster {
    /// With everything at its default, and this many workers that DNS announces.
    #[track_caller]
    pub fn with_workers(workers: usize) -> Cluster {
        Plan::workers(workers).start()
    }

    /// The description of one more Citus worker, at an address of its own, without citus_fleet
    /// preloaded: a worker does not need that.
    pub fn worker_spec(&self, name: &str) -> Spec {
        Spec::new(name, self.subnet.address()).citus()
    }

    /// The description of one more server without Citus.
    pub fn plain_spec(&self, name: &str) -> Spec {
        Spec::new(name, self.subnet.address())
    }

    /// Lets DNS name exactly these addresses.
    pub fn announce(&self, addresses: &[IpAddr]) {
        self.dns.addresses(WORKER, addresses);
    }

    /// Lets DNS name all of the cluster's own workers.
    pub fn announce_all(&self) {
        self.announce_with(&[]);
    }

    /// Lets DNS name the cluster's own workers and these addresses.
    pub fn announce_with(&self, more: &[IpAddr]) {
        let own = self.workers.iter().map(|worker| worker.address);
        let all: Vec<IpAddr> = own.chain(more.iter().copied()).collect();
        self.announce(&all);
    }

    /// Lets the coordinator hold shards, so that tables can be distributed before there are workers.
    #[track_caller]
    pub fn keep_shards_on_coordinator(&self) {
        self.coordinator.run(&format!(
            "SELECT pg_catalog.citus_set_node_property('{}', {}, 'shouldhaveshards', true)",
            self.coordinator.address, self.coordinator.port
        ));
    }

    /// Registers a worker as a person would: one `citus_add_node`.
    #[track_caller]
    pub fn add_by_hand(&self, worker: &Server) -> String {
        self.coordinator.value(&format!(
            "SELECT pg_catalog.citus_add_node('{}', {})",
            worker.address, worker.port
        ))
    }

    /// The rows of `pg_dist_node`, the coordinator's own left out.
    #[track_caller]
    pub fn nodes(&self) -> Vec<Row> {
        self.coordinator
            .rows("SELECT * FROM pg_catalog.pg_dist_node WHERE groupid <> 0 ORDER BY nodeid")
    }
}
