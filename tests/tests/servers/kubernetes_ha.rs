//! What k8s/ha says, without Kubernetes: PostgreSQL under Patroni and etcd with the parameters, pg_hba
//! lines, shared passwords and verified TLS of the manifests, two instances each, found by the pattern.
//! Names become addresses, which certificates are for, because Citus asks the system's resolver.

use crate::lifecycle::FIRST;
use crate::suite::{Test, suite};
use citus_fleet_tests::fleet::SOON;
use citus_fleet_tests::manifests::{self, Object, at, list, pairs, string};
use citus_fleet_tests::patroni::Member;
use citus_fleet_tests::run::port;
use citus_fleet_tests::server::Data;
use citus_fleet_tests::server::process::{as_servers, run_program};
use citus_fleet_tests::tls::Authority;
use citus_fleet_tests::writer::{ITEMS, assert_exact, fill};
use citus_fleet_tests::{Dns, Etcd, Need, Patroni, Server, Spec, Subnet, Writer, until};

pub fn suite() -> Vec<Test> {
    suite!("kubernetes_ha",
        &[Need::Fleet, Need::Citus, Need::Vector, Need::Patroni, Need::OpenSsl];
        clusters_of_the_manifests_register_fail_over_and_grow,
    )
}

const SUPERUSER: &str = "S3cretOfTheSuperuser";
const REPLICATION: &str = "S3cretOfTheStandby";

struct World {
    subnet: Subnet,
    dns: Dns,
    etcd: Etcd,
    authority: Authority,
}

impl World {
    fn new() -> World {
        let subnet = Subnet::new();
        let dns = Dns::start(subnet.address());
        // As CoreDNS answers for Services.
        dns.ttl(30);
        let etcd = Etcd::start(&subnet);
        World { dns, etcd, authority: Authority::new(), subnet }
    }

    /// One instance of a cluster, with what its manifest says.
    fn spec(&self, cluster: &Object, instance: u32) -> Spec {
        let address = self.subnet.address();
        let mut spec = Spec::new(&format!("{}-{instance}", cluster.name()), address)
            .certificate(&self.authority.issue(address.into()))
            .passwords(SUPERUSER, REPLICATION)
            .set("citus_fleet.nameserver", &self.dns.address().to_string());
        spec.data = Data::Citus;
        for (name, value) in pairs(cluster.at("spec/postgresql/parameters")) {
            let value = match name.as_str() {
                // The others are Spilo's.
                "shared_preload_libraries" => {
                    let ours = value.split(',').filter(|library| library.starts_with("citus"));
                    spec.preload = ours.map(ToString::to_string).collect();
                    continue;
                }
                "citus.node_conninfo" => {
                    let root = self.authority.root();
                    assert!(value.contains("sslmode=verify-full"), "{value}");
                    value.replace("/tls/ca.crt", &root.to_string_lossy())
                }
                "citus_fleet.workers" => format!("{value}:{}", port()),
                "citus_fleet.coordinator_host" => format!("{address}:{}", port()),
                "citus.local_hostname" => address.to_string(),
                _ => value,
            };
            spec = spec.set(&name, &value);
        }
        // Local connections are the harness's own.
        let lines = list(cluster.at("spec/patroni/pg_hba")).iter().map(string);
        spec.hba(lines.filter(|line| line.starts_with("host")))
    }

    /// A cluster as the operator makes it, with Spilo's hook, behind a name as a Service gives it.
    #[track_caller]
    fn start(&self, cluster: &Object) -> Patroni {
        let instances = cluster.at("spec/numberOfInstances").as_u64().expect("a number");
        assert_eq!(at(&cluster.0, "spec/patroni/synchronous_mode").as_bool(), Some(true));
        let specs = (0..instances as u32).map(|instance| self.spec(cluster, instance)).collect();
        let patroni = Patroni::start(&self.etcd, &self.subnet, specs, None);
        after_bootstrap_or_promotion(&patroni.members[0]);
        patroni.name_leader(&self.dns, cluster.name());
        patroni
    }
}

/// What Spilo's post_init.sh calls, as it calls it.
#[track_caller]
fn after_bootstrap_or_promotion(member: &Member) {
    let script = manifests::path("../docker/spilo/citus_fleet_init.sh");
    let mut hook = as_servers("bash");
    let path = std::env::var("PATH").unwrap_or_default();
    hook.env("PATH", format!("{}:{path}", citus_fleet_tests::install::install().bin.display()));
    hook.env("PATRONI_CONFIGURATION", member.configuration());
    // The servers' account may not be able to look into the source tree.
    hook.args(["-c", &std::fs::read_to_string(script).expect("the hook"), "citus_fleet_init.sh"]);
    hook.arg(format!(
        "host={} port={} user=postgres dbname=postgres",
        member.server.directory().display(),
        member.server.port
    ));
    run_program(hook);
}

fn active(coordinator: &Server) -> Result<String, String> {
    let sql = "SELECT count(*) FILTER (WHERE state = 'active') || coalesce(string_agg(', ' || nodename || ' ' || state || ' ' || coalesce(reason, ''), '') FILTER (WHERE state NOT IN ('active', 'standby')), '') FROM fleet.workers";
    coordinator.try_value(sql).map_err(|error| error.to_string())
}

#[track_caller]
fn wait_until_active(coordinator: &Server, workers: usize) {
    until(&format!("{workers} workers are active"), SOON, || match active(coordinator)? {
        found if found == workers.to_string() => Ok(()),
        found => Err(found),
    });
}

fn clusters_of_the_manifests_register_fail_over_and_grow() {
    let world = World::new();
    let read = |file: &str| manifests::read(file).remove(0);
    let coordinator = world.start(&read("ha/coordinator/citus-coordinator.yaml"));
    let first = world.start(&read("ha/workers/citus-worker-1.yaml"));
    let second = world.start(&read("ha/workers/citus-worker-2.yaml"));
    let [lead, spare] = [&coordinator.members[0], &coordinator.members[1]];

    wait_until_active(&lead.server, 2);
    lead.server.run(ITEMS);
    lead.server.run("SELECT create_distributed_table('items', 'id', shard_count := 8)");
    lead.server.run("CREATE INDEX ON items USING hnsw (v vector_l2_ops)");
    fill(&lead.server, FIRST);
    let writer = Writer::through(&[&lead.server, &spare.server], FIRST);
    writer.wait_for_more();

    // A worker's primary is gone; its name leads to the other instance.
    first.members[0].kill();
    first.wait_for_leader(&first.members[1]);
    after_bootstrap_or_promotion(&first.members[1]);
    writer.wait_for_more();
    wait_until_active(&lead.server, 2);

    // The coordinator's primary, too. Citus has given the workers the coordinator's password for
    // replication: the one that comes back there, has to copy with it.
    lead.kill();
    coordinator.wait_for_leader(spare);
    after_bootstrap_or_promotion(spare);
    writer.wait_for_more();
    wait_until_active(&spare.server, 2);
    first.members[0].begin();
    first.wait_for_standby(&first.members[0]);
    first.wait_for_synchronous_standby();

    // One more, from the template.
    let template = manifests::text("ha/workers/citus-worker-N.template").replace("@N@", "3");
    let third = world.start(&manifests::parse(&template)[0]);
    wait_until_active(&spare.server, 3);
    spare.server.run("SELECT rebalance_table_shards()");
    let spread = "SELECT count(DISTINCT nodename) FROM citus_shards";
    assert_eq!(spare.server.value(spread), "3");
    writer.wait_for_more();

    let last = writer.finish();
    for server in [&spare.server, &second.members[0].server, &third.members[0].server] {
        assert_exact(server, last);
    }
    for member in coordinator.members.iter().chain(&first.members).chain(&third.members) {
        let log = member.server.log();
        assert!(!log.contains(SUPERUSER) && !log.contains(REPLICATION), "{}", member.server.name);
    }
}
