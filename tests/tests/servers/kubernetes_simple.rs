//! What k8s/simple says, without Kubernetes: servers with the settings of its files, scram and verified
//! TLS, and a DNS server that answers as CoreDNS does for the workers' headless Service.
//! Names are not registered here, because the system's resolver, which Citus asks, does not know them.

use crate::lifecycle::FIRST;
use crate::suite::{Test, suite};
use citus_fleet_tests::fleet::{wait_for_state, worker_at};
use citus_fleet_tests::manifests::settings;
use citus_fleet_tests::run::port;
use citus_fleet_tests::server::Data;
use citus_fleet_tests::tls::Authority;
use citus_fleet_tests::writer::{ITEMS, assert_exact, fill};
use citus_fleet_tests::{Dns, Need, Server, Shutdown, Spec, Subnet, Writer};
use std::fs;
use std::os::unix::fs::PermissionsExt;

pub fn suite() -> Vec<Test> {
    suite!("kubernetes_simple", &[Need::Fleet, Need::Citus, Need::Vector, Need::OpenSsl];
        a_stateful_set_grows_restarts_and_shrinks,
    )
}

const PASSWORD: &str = "S3cretOfTheSuperuser";

struct World {
    subnet: Subnet,
    dns: Dns,
    authority: Authority,
    passwords: String,
}

impl World {
    fn new() -> World {
        let subnet = Subnet::new();
        let dns = Dns::start(subnet.address());
        dns.ttl(30);
        // The image writes one, and names it in the servers' environment.
        let file = citus_fleet_tests::run::directory()
            .join(format!("pgpass-{}", subnet.cidr().replace('/', "-")));
        fs::write(&file, format!("*:*:*:postgres:{PASSWORD}\n")).expect("a password file");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("chmod");
        citus_fleet_tests::run::give_to_servers(&file);
        let passwords = file.to_string_lossy().into_owned();
        World { subnet, dns, authority: Authority::new(), passwords }
    }

    fn spec(&self, name: &str, files: &[&str]) -> Spec {
        let address = self.subnet.address();
        let root = self.authority.root();
        let mut spec = Spec::new(name, address)
            .preload("citus")
            .preload("citus_fleet")
            .certificate(&self.authority.issue(address.into()))
            .env("PGPASSFILE", &self.passwords)
            .hba(["hostssl all all all scram-sha-256"])
            .set(
                "citus.node_conninfo",
                &format!("sslmode=verify-full sslrootcert={}", root.display()),
            );
        spec.data = Data::Citus;
        for (name, value) in files.iter().flat_map(|file| settings(file)) {
            // The rest of the machine runs other tests.
            if !matches!(name.as_str(), "shared_buffers" | "citus_fleet.coordinator_host") {
                spec = spec.set(&name, &value);
            }
        }
        spec
    }

    fn start(&self, specs: Vec<Spec>) -> Vec<Server> {
        let servers = Server::start_all(specs);
        for server in &servers {
            server.run(&format!("ALTER ROLE postgres PASSWORD '{PASSWORD}'"));
            server.run("CREATE EXTENSION citus_fleet");
        }
        servers
    }

    fn worker(&self, ordinal: usize) -> Spec {
        self.spec(&format!("citus-worker-{ordinal}"), &["simple/config/common.conf"])
    }

    /// The records of the headless Service for pods that are there.
    fn announce(&self, pods: &[&Server]) {
        let service = "citus-workers.citus.svc.cluster.local";
        let names: Vec<String> = pods.iter().map(|pod| format!("{}.{service}", pod.name)).collect();
        for (pod, name) in pods.iter().zip(&names) {
            self.dns.addresses(name, &[pod.address]);
        }
        let targets: Vec<(u16, &str)> = names.iter().map(|name| (port(), name.as_str())).collect();
        self.dns.services("_postgresql._tcp.citus-workers", &targets);
    }
}

fn a_stateful_set_grows_restarts_and_shrinks() {
    let world = World::new();
    let files = ["simple/config/common.conf", "simple/config/coordinator.conf"];
    let spec = world.spec("citus-coordinator-0", &files);
    let own = format!("{}:{}", spec.addresses[0], spec.port);
    let spec = spec
        .set("citus_fleet.coordinator_host", &own)
        .set("citus_fleet.nameserver", &world.dns.address().to_string());
    let mut pods = world.start(vec![spec, world.worker(0), world.worker(1)]);
    let coordinator = pods.remove(0);
    world.announce(&[&pods[0], &pods[1]]);
    for pod in &pods {
        wait_for_state(&coordinator, pod.address, "active");
    }
    coordinator.run(ITEMS);
    coordinator.run("SELECT create_distributed_table('items', 'id', shard_count := 6)");
    fill(&coordinator, FIRST);

    // kubectl scale statefulset citus-worker --replicas=3
    pods.extend(world.start(vec![world.worker(2)]));
    world.announce(&[&pods[0], &pods[1], &pods[2]]);
    wait_for_state(&coordinator, pods[2].address, "active");
    coordinator.run("SELECT rebalance_table_shards()");
    let writer = Writer::start(&coordinator, FIRST);
    writer.wait_for_more();

    // A pod comes back under its name, with its volume, at another address. Its certificate is for the
    // name, which here is the address: a new one.
    let nodeid = wait_for_state(&coordinator, pods[1].address, "active")["nodeid"].to_string();
    pods[1].stop(Shutdown::Fast);
    let address = world.subnet.address();
    pods[1].move_to(address);
    pods[1].certify(&world.authority.issue(address.into()));
    world.announce(&[&pods[0], &pods[1], &pods[2]]);
    pods[1].begin();
    assert_eq!(&wait_for_state(&coordinator, address.into(), "active")["nodeid"], &nodeid);
    writer.wait_for_more();

    // The last pod goes undrained: its shards wait for it.
    let last_row = writer.finish();
    pods[2].stop(Shutdown::Fast);
    world.announce(&[&pods[0], &pods[1]]);
    wait_for_state(&coordinator, pods[2].address, "unreachable");
    let placements = "SELECT count(DISTINCT nodename) FROM citus_shards";
    assert_eq!(coordinator.value(placements), "3");
    pods[2].begin();
    world.announce(&[&pods[0], &pods[1], &pods[2]]);
    wait_for_state(&coordinator, pods[2].address, "active");
    assert_exact(&coordinator, last_row);

    // make scale WORKERS=2
    let gone = pods.pop().expect("three");
    coordinator.run(&format!("SELECT fleet.remove_worker('{}', {})", gone.address, gone.port));
    assert_eq!(coordinator.value(placements), "2");
    citus_fleet_tests::until("it is clean", citus_fleet_tests::fleet::SOON, || {
        match coordinator.try_value("SELECT count(*) FROM fleet.removed WHERE cleaned_at IS NULL") {
            Ok(left) if left == "0" => Ok(()),
            left => Err(format!("{left:?}")),
        }
    });
    world.announce(&[&pods[0], &pods[1]]);
    assert_exact(&coordinator, last_row);

    // The name comes again with a new volume: a new worker.
    drop(gone);
    pods.extend(world.start(vec![world.worker(2)]));
    world.announce(&[&pods[0], &pods[1], &pods[2]]);
    wait_for_state(&coordinator, pods[2].address, "active");
    assert!(worker_at(&coordinator, pods[1].address).is_ok());
    assert_exact(&pods[2], last_row);
    assert!(!coordinator.log().contains(PASSWORD));
}
