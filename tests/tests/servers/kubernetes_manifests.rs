//! The manifests under k8s/ against each other and against a real server: what one names, another has
//! to have, and every setting has to be one that PostgreSQL takes.

use crate::suite::{Test, suite};
use citus_fleet_tests::manifests::{
    Object, Value, at, find, list, of_kind, pairs, read, render, settings, string, text,
};
use citus_fleet_tests::server::Data;
use citus_fleet_tests::{Need, Server, Spec, Subnet};
use std::collections::BTreeSet;

pub fn suite() -> Vec<Test> {
    let mut tests = suite!("kubernetes_manifests", &[Need::Kubectl];
        selectors_select_pods_that_have_the_ports,
        what_pods_mount_is_made,
        the_simple_way_names_what_there_is,
        the_operators_clusters_agree,
        the_operator_is_told_of_what_the_manifests_rely_on,
        the_examples_monitor_the_port_that_is_served,
    );
    tests.extend(suite!("kubernetes_manifests", &[Need::Fleet, Need::Citus];
        postgresql_takes_the_settings_of_the_simple_way,
        postgresql_takes_the_settings_of_the_operators_clusters,
    ));
    tests
}

const ROLE: &str = "citus-fleet/role";
/// Off on workers, or else the operator's sessions there would reach into the other clusters.
const PROPAGATION: &str = "citus.enable_ddl_propagation";

fn includes(labels: &[(String, String)], selector: &[(String, String)]) -> bool {
    !selector.is_empty() && selector.iter().all(|label| labels.contains(label))
}

/// The label query of a NetworkPolicy, a budget or a workload, as (key, allowed values).
fn query(selector: &Value) -> Vec<(String, Vec<String>)> {
    let exact = pairs(&selector["matchLabels"]).into_iter().map(|(key, value)| (key, vec![value]));
    let one_of = list(&selector["matchExpressions"]).iter().map(|expression| {
        assert_eq!(expression["operator"], "In");
        let values = list(&expression["values"]).iter().map(|value| string(value).to_string());
        (string(&expression["key"]).to_string(), values.collect())
    });
    exact.chain(one_of).collect()
}

fn fits(labels: &[(String, String)], query: &[(String, Vec<String>)]) -> bool {
    let fits_one = |(key, values): &(String, Vec<String>)| {
        labels.iter().any(|(name, value)| name == key && values.contains(value))
    };
    !query.is_empty() && query.iter().all(fits_one)
}

struct Pods<'a> {
    labels: Vec<(String, String)>,
    template: &'a Value,
}

impl Pods<'_> {
    fn has_port(&self, port: &Value) -> bool {
        let ports = list(at(self.template, "spec/containers/0/ports"));
        ports.iter().any(|own| own["name"] == *port || own["containerPort"] == *port)
    }
}

fn pods(objects: &[Object]) -> Vec<Pods<'_>> {
    let workloads =
        objects.iter().filter(|object| matches!(object.kind(), "StatefulSet" | "Deployment"));
    workloads
        .map(|workload| {
            let template = workload.at("spec/template");
            let labels = pairs(at(template, "metadata/labels"));
            assert!(
                fits(&labels, &query(workload.at("spec/selector"))),
                "{} does not select its own pods",
                workload.name()
            );
            Pods { labels, template }
        })
        .collect()
}

fn selectors_select_pods_that_have_the_ports() {
    let objects = render("simple");
    let pods = pods(&objects);
    assert_eq!(pods.len(), 2);
    for service in of_kind(&objects, "Service") {
        let selector = pairs(service.at("spec/selector"));
        let selected: Vec<_> = pods.iter().filter(|pod| includes(&pod.labels, &selector)).collect();
        assert_eq!(selected.len(), 1, "{} selects one workload", service.name());
        for port in list(service.at("spec/ports")) {
            assert!(selected[0].has_port(&port["targetPort"]), "{}: {port:?}", service.name());
        }
    }
    for set in of_kind(&objects, "StatefulSet") {
        // Pods have stable names only below the headless Service that governs them.
        let service = find(&objects, "Service", string(set.at("spec/serviceName")));
        assert_eq!(service.at("spec/clusterIP"), "None", "{}", service.name());
        let labels = pairs(set.at("spec/template/metadata/labels"));
        assert!(includes(&labels, &pairs(service.at("spec/selector"))), "{}", set.name());
    }
    for object in &objects {
        let selector = match object.kind() {
            "PodDisruptionBudget" => object.at("spec/selector"),
            "NetworkPolicy" => object.at("spec/podSelector"),
            _ => continue,
        };
        let query = query(selector);
        let selected: Vec<_> = pods.iter().filter(|pod| fits(&pod.labels, &query)).collect();
        assert!(!selected.is_empty(), "{} {} selects nothing", object.kind(), object.name());
        for rule in list(object.at("spec/ingress")) {
            for port in list(&rule["ports"]) {
                assert!(selected.iter().all(|pod| pod.has_port(&port["port"])), "{port:?}");
            }
        }
    }
}

/// The images' tag, as docker/README.md and the scripts have it.
fn tag() -> String {
    let scripts = text("scripts/common.sh");
    let tag = scripts.split("${TAG:=").nth(1).and_then(|rest| rest.split('}').next());
    let tag = tag.expect("a default").to_string();
    assert!(tag.starts_with(&format!("{}-citus", env!("CARGO_PKG_VERSION"))), "{tag}");
    tag
}

/// ConfigMaps are in the same rendering; Secrets are never committed, and made by scripts/secrets.
fn what_pods_mount_is_made() {
    let objects = render("simple");
    let secrets = text("scripts/secrets");
    for set in of_kind(&objects, "StatefulSet") {
        let volumes = list(set.at("spec/template/spec/volumes"));
        for volume in volumes {
            if let Some(name) = at(volume, "configMap/name").as_str() {
                find(&objects, "ConfigMap", name);
            }
            if let Some(name) = at(volume, "secret/secretName").as_str() {
                assert!(secrets.contains(name), "scripts/secrets does not make {name}");
            }
        }
        let claims = list(set.at("spec/volumeClaimTemplates"));
        let there: BTreeSet<&str> = volumes
            .iter()
            .map(|volume| string(&volume["name"]))
            .chain(claims.iter().map(|claim| string(at(claim, "metadata/name"))))
            .collect();
        let container = set.at("spec/template/spec/containers/0");
        for mount in list(&container["volumeMounts"]) {
            assert!(there.contains(string(&mount["name"])), "{mount:?}");
        }
        assert_eq!(container["image"], format!("citus_fleet:{}", tag()));
    }
}

fn the_simple_way_names_what_there_is() {
    let objects = render("simple");
    let settings = settings("simple/config/coordinator.conf");
    let value = |name: &str| &settings.iter().find(|(key, _)| key == name).expect("set").1;

    let workers = find(&objects, "StatefulSet", "citus-worker");
    let service = find(&objects, "Service", string(workers.at("spec/serviceName")));
    let port = string(service.at("spec/ports/0/name"));
    let source = format!("srv:_{port}._tcp.{}", service.name());
    assert_eq!(*value("citus_fleet.workers"), source);
    // A pod that starts or stops keeps its name: shards are moved off it until the end.
    assert_eq!(service.at("spec/publishNotReadyAddresses").as_bool(), Some(true));

    let coordinator = find(&objects, "StatefulSet", "citus-coordinator");
    let name = format!("{}-0.{}", coordinator.name(), string(coordinator.at("spec/serviceName")));
    assert_eq!(*value("citus_fleet.coordinator_host"), name);
    assert_eq!(coordinator.at("spec/replicas"), 1);

    // A worker that goes keeps its data, and the guard looks at the workers and at this namespace.
    for set in [workers, coordinator] {
        let kept = set.at("spec/persistentVolumeClaimRetentionPolicy");
        assert_eq!(
            (&kept["whenScaled"], &kept["whenDeleted"]),
            (&"Retain".into(), &"Retain".into())
        );
    }
    let policy = find(&objects, "ValidatingAdmissionPolicy", "citus-worker-scale-down");
    assert_eq!(
        policy.at("spec/matchConditions/0/expression"),
        &Value::from(format!("object.metadata.name == '{}'", workers.name()))
    );
    let binding = find(&objects, "ValidatingAdmissionPolicyBinding", policy.name());
    let namespace = find(&objects, "Namespace", "citus");
    let wanted = query(binding.at("spec/matchResources/namespaceSelector"));
    assert!(fits(&pairs(namespace.at("metadata/labels")), &wanted));
}

fn clusters() -> Vec<Object> {
    let objects = render("ha");
    of_kind(&objects, "postgresql").cloned().collect()
}

fn parameters(cluster: &Object) -> Vec<(String, String)> {
    pairs(cluster.at("spec/postgresql/parameters"))
}

fn the_operators_clusters_agree() {
    let clusters = clusters();
    let coordinator = find(&clusters, "postgresql", "citus-coordinator");
    let own = |cluster: &Object| -> Vec<_> {
        let all = parameters(cluster).into_iter();
        all.filter(|(name, _)| !name.starts_with("citus_fleet.") && name != PROPAGATION).collect()
    };
    let template = text("ha/workers/citus-worker-N.template");
    let pattern = string(&coordinator.at("spec/postgresql/parameters")["citus_fleet.workers"]);
    for cluster in &clusters {
        let name = cluster.name();
        assert_eq!(own(cluster), own(coordinator), "{name}");
        for path in ["spec/patroni", "spec/dockerImage", "spec/postgresql/version", "spec/teamId"] {
            assert_eq!(cluster.at(path), coordinator.at(path), "{name}: {path}");
        }
        // Two, because one of them confirms every commit of the other.
        assert_eq!(cluster.at("spec/numberOfInstances"), 2, "{name}");
        assert_eq!(cluster.at("spec/patroni/synchronous_mode").as_bool(), Some(true), "{name}");
        assert_eq!(cluster.at("spec/tls/secretName"), &Value::from(format!("{name}-tls")));
        assert_eq!(cluster.at("spec/tls/caFile"), "ca.crt");
        assert!(name.starts_with(&format!("{}-", string(cluster.at("spec/teamId")))), "{name}");
        let role = match name.strip_prefix("citus-worker-") {
            Some(number) => {
                assert_eq!(pattern.replace("{n}", number), name, "the pattern finds it");
                let written = text(&format!("ha/workers/{name}.yaml"));
                assert_eq!(written, template.replace("@N@", number), "{name} is the template's");
                assert_eq!(cluster.at("spec/postgresql/parameters")[PROPAGATION], "off");
                "worker"
            }
            None => "coordinator",
        };
        assert_eq!(cluster.at("metadata/labels")[ROLE], role);
    }
    assert_eq!(clusters.len(), 3);
    let set = |name: &str| string(&coordinator.at("spec/postgresql/parameters")[name]).to_string();
    assert_eq!(set("citus_fleet.coordinator_host"), coordinator.name());
    assert!(set("shared_preload_libraries").starts_with("citus,citus_fleet,"));
    // Spilo's start-up script creates these; what it fails at fails the bootstrap.
    for needed in ["pg_cron", "pg_stat_statements", "pg_stat_kcache", "set_user", "pg_auth_mon"] {
        assert!(set("shared_preload_libraries").split(',').any(|name| name == needed), "{needed}");
    }
    let hba: Vec<&str> = list(coordinator.at("spec/patroni/pg_hba")).iter().map(string).collect();
    let position = |line: &str| hba.iter().position(|own| own.starts_with(line)).expect(line);
    assert!(position("hostnossl all all all reject") < position("hostssl all all all scram"));
    position("local replication standby");
}

fn the_operator_is_told_of_what_the_manifests_rely_on() {
    let (operator, objects) = (render("ha/operator"), render("ha"));
    let configuration = find(&operator, "ConfigMap", "postgres-operator");
    let told = |name: &str| string(&configuration.at("data")[name]).to_string();
    let deployment = find(&operator, "Deployment", "postgres-operator");
    let clusters = clusters();

    assert_eq!(told("docker_image"), string(clusters[0].at("spec/dockerImage")));
    assert_eq!(told("docker_image"), format!("citus_fleet-spilo:{}", tag()));
    assert_eq!(told("watched_namespace"), string(clusters[0].at("metadata/namespace")));
    // Or else no network policy and no monitor would find the pods.
    assert!(told("inherited_labels").split(',').any(|label| label == ROLE));
    for name in ["enable_persistent_volume_claim_deletion", "enable_secrets_deletion"] {
        assert_eq!(told(name), "false", "{name}");
    }
    assert_eq!(told("major_version_upgrade_mode"), "off");
    for field in ["RunAsUser", "RunAsGroup", "FSGroup"] {
        let own = clusters[0].at(&format!("spec/spilo{field}"));
        let told = told(&format!("spilo_{}", field.to_lowercase()));
        assert_eq!(own.as_u64().map(|id| id.to_string()), Some(told));
    }
    let environment = deployment.at("spec/template/spec/containers/0/env/0");
    assert_eq!(
        (&environment["name"], &environment["value"]),
        (&"CONFIG_MAP_NAME".into(), &configuration.name().into())
    );

    // The policy lets this operator in, from this namespace.
    let policy = find(&objects, "NetworkPolicy", "citus-nodes");
    let peers = list(policy.at("spec/ingress/0/from"));
    let peer = peers.iter().find(|peer| !peer["namespaceSelector"].is_null()).expect("a peer");
    assert!(fits(
        &pairs(deployment.at("spec/template/metadata/labels")),
        &query(&peer["podSelector"])
    ));
    let namespace = (
        "kubernetes.io/metadata.name".to_string(),
        vec![string(deployment.at("metadata/namespace")).to_string()],
    );
    assert_eq!(query(&peer["namespaceSelector"]), [namespace]);
}

fn the_examples_monitor_the_port_that_is_served() {
    let (simple, ha) = (render("examples/simple"), render("examples/ha"));
    let set = find(&simple, "StatefulSet", "citus-coordinator");
    let ports = list(set.at("spec/template/spec/containers/0/ports"));
    let port = ports.iter().find(|port| port["name"] == "metrics").expect("a port for metrics");
    let number = port["containerPort"].as_u64().expect("a number");
    let listens = format!("0.0.0.0:{number}");
    let served = settings("simple/monitoring/monitoring.conf");
    assert_eq!(served, [("citus_fleet.http_listen".to_string(), listens.clone())]);
    // The generator's file reaches the coordinator, and the coordinator alone.
    for config in of_kind(&simple, "ConfigMap") {
        let has = !config.at("data")["monitoring.conf"].is_null();
        assert_eq!(has, config.name().starts_with("citus-coordinator-config"), "{}", config.name());
    }
    let coordinator = find(&ha, "postgresql", "citus-coordinator");
    assert_eq!(coordinator.at("spec/postgresql/parameters")["citus_fleet.http_listen"], listens);

    for (objects, port) in [(&simple, Value::from("metrics")), (&ha, Value::from(number))] {
        let monitor = find(objects, "PodMonitor", "citus-fleet");
        let endpoint = monitor.at("spec/podMetricsEndpoints/0");
        assert!(endpoint["port"] == port || endpoint["portNumber"] == port, "{endpoint:?}");
        let policy = find(objects, "NetworkPolicy", "citus-metrics");
        assert_eq!(policy.at("spec/ingress/0/ports/0/port"), &port);
        assert_eq!(policy.at("spec/podSelector"), monitor.at("spec/selector"));
        assert_eq!(monitor.at("metadata/namespace"), policy.at("metadata/namespace"));
    }
}

/// Starts a server with these settings, and has it say that each is a setting, and in force.
#[track_caller]
fn assert_taken(name: &str, preload: &[&str], settings: &[(String, String)]) {
    let mut spec = Spec::new(name, Subnet::new().address());
    spec.data = Data::Citus;
    spec.preload = preload.iter().map(ToString::to_string).collect();
    spec.settings = settings.to_vec();
    let server = Server::start(spec);
    let refused =
        "SELECT name || ': ' || error AS it FROM pg_file_settings WHERE error IS NOT NULL";
    assert_eq!(
        server.rows(refused).iter().map(|row| row["it"].to_string()).collect::<Vec<_>>(),
        Vec::<String>::new()
    );
    // A name of an extension that the extension does not know is dropped when it is loaded. Not from
    // pg_settings, where Citus hides some.
    for (setting, value) in settings {
        let known = server.try_value(&format!("SELECT current_setting('{setting}')"));
        assert!(known.is_ok(), "{setting} = {value} is no setting");
    }
}

fn postgresql_takes_the_settings_of_the_simple_way() {
    let mut all = settings("simple/config/common.conf");
    assert_taken("worker", &["citus", "citus_fleet"], &all);
    all.extend(settings("simple/config/coordinator.conf"));
    assert_taken("coordinator", &["citus", "citus_fleet"], &all);
}

fn postgresql_takes_the_settings_of_the_operators_clusters() {
    for file in ["ha/coordinator/citus-coordinator.yaml", "ha/workers/citus-worker-1.yaml"] {
        let cluster = &read(file)[0];
        // The libraries are Spilo's, apart from ours; this one is set with the rest of the harness.
        let settings: Vec<_> = parameters(cluster)
            .into_iter()
            .filter(|(name, _)| name != "shared_preload_libraries")
            .collect();
        assert_taken(cluster.name(), &["citus", "citus_fleet"], &settings);
    }
}
