//! Owns the metrics: what they are called, what they mean, and their text in OpenMetrics. Made from
//! the same JSON that the views show, so that the numbers are the same.
//! Must not collect anything.

mod vector;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU64;

use decide::membership::state::State;

type Labels = Vec<(&'static str, String)>;
type Ratio = Gauge<f64, AtomicU64>;
type Gauges = Family<Labels, Ratio>;

/// The text of `fleet.metrics()` and of `/metrics`.
///
/// `snapshot` is `fleet.snapshot()`, null while there is none; `vector` holds all rows of the
/// `fleet.vector_…` views, by view.
pub fn text(snapshot: &Value, vector: &Value, shards: bool) -> String {
    let mut page = Page(Registry::with_prefix("citus_fleet"));
    page.controller(&snapshot["status"]);
    page.workers(rows(snapshot, "workers"));
    page.vector(vector, shards);
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = encode(&mut text, &page.0);
    text
}

/// The same in Prometheus's older text format, for whoever does not ask for OpenMetrics: there a
/// counter is declared under the name that its samples have.
/// Source: Prometheus, "Exposition formats".
pub fn older_format(openmetrics: &str) -> String {
    let declared =
        |line: &'_ str| Some(line.strip_prefix("# TYPE ")?.strip_suffix(" counter")?.to_owned());
    let counters: BTreeSet<String> = openmetrics.lines().filter_map(declared).collect();
    let mut text = String::with_capacity(openmetrics.len());
    for line in openmetrics.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("EOF" | "UNIT"), ..) => continue,
            (Some("#"), Some(what), Some(name), Some(rest)) if counters.contains(name) => {
                text.push_str(&format!("# {what} {name}_total {rest}"));
            }
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

fn rows<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn label(row: &Value, key: &str) -> String {
    row[key].as_str().unwrap_or_default().to_owned()
}

/// `host:port`, as in `pg_dist_node`.
fn node(row: &Value) -> String {
    format!("{}:{}", row["nodename"].as_str().unwrap_or_default(), row["nodeport"])
}

/// A metric is left out where there is nothing to say: 0 would be a lie.
fn set(family: &Gauges, labels: Labels, value: &Value) {
    if let Some(value) = value.as_f64() {
        family.get_or_create(&labels).set(value);
    }
}

struct Page(Registry);

impl Page {
    fn gauge(&mut self, name: &str, help: &str, value: &Value) {
        let gauge = Ratio::default();
        if let Some(value) = value.as_f64() {
            gauge.set(value);
            self.0.register(name, help, gauge);
        }
    }

    fn seconds(&mut self, name: &str, help: &str, value: Option<f64>) {
        let gauge = Ratio::default();
        if let Some(value) = value {
            gauge.set(value);
            self.0.register_with_unit(name, help, Unit::Seconds, gauge);
        }
    }

    fn counter(&mut self, name: &str, help: &str, value: &Value) {
        let counter = Counter::<u64>::default();
        counter.inc_by(value.as_u64().unwrap_or_default());
        self.0.register(name, help, counter);
    }

    fn family(&mut self, name: &str, help: &str) -> Gauges {
        let family = Gauges::default();
        self.0.register(name, help, family.clone());
        family
    }

    fn timestamps(&mut self, name: &str, help: &str) -> Gauges {
        let family = Gauges::default();
        self.0.register_with_unit(name, help, Unit::Seconds, family.clone());
        family
    }

    fn bytes(&mut self, name: &str, help: &str) -> Gauges {
        let family = Gauges::default();
        self.0.register_with_unit(name, help, Unit::Bytes, family.clone());
        family
    }

    fn counters(&mut self, name: &str, help: &str, by_kind: &Value) {
        let family = Family::<Labels, Counter>::default();
        for (kind, count) in by_kind.as_object().into_iter().flatten() {
            let counter = family.get_or_create(&vec![("kind", kind.clone())]);
            counter.inc_by(count.as_u64().unwrap_or_default());
        }
        self.0.register(name, help, family.clone());
    }

    fn controller(&mut self, status: &Value) {
        let is_up = f64::from(u8::from(status["last_cycle"].is_number()));
        self.gauge(
            "controller_up",
            "Whether the controller has finished a cycle since it started",
            &is_up.into(),
        );
        let disputed = status["disputed"].as_bool().map(|disputed| f64::from(u8::from(disputed)));
        self.gauge(
            "coordinator_disputed",
            "Whether another server runs at the coordinator's address: there may be two coordinators",
            &disputed.into(),
        );
        let paused = status["paused"].as_bool().map(|paused| f64::from(u8::from(paused)));
        self.gauge("paused", "Whether fleet.pause() has stopped changes", &paused.into());
        self.seconds(
            "last_cycle_timestamp",
            "When the last good cycle ended, since 1970",
            status["last_cycle"].as_f64(),
        );
        self.seconds(
            "cycle_duration",
            "Duration of the last cycle",
            status["cycle_ms"].as_f64().map(|ms| ms / 1e3),
        );
        self.counter("cycles", "Cycles since the controller started", &status["cycles"]);
        self.counter(
            "changes",
            "Changes of the cluster's metadata since the controller started",
            &status["changes"],
        );
        self.counters(
            "dns_errors",
            "Lookups of sources that failed, by kind",
            &status["dns_errors_by_kind"],
        );
        self.counters(
            "probe_errors",
            "Probes that failed, by kind",
            &status["probe_errors_by_kind"],
        );
    }

    fn workers(&mut self, workers: &[Value]) {
        let mut counts: BTreeMap<&str, u32> = State::ALL.iter().map(|s| (s.as_str(), 0)).collect();
        for worker in workers {
            *counts.entry(worker["state"].as_str().unwrap_or_default()).or_default() += 1;
        }
        let family = self.family("workers", "Candidates and registered workers, by state");
        for (state, count) in counts {
            family.get_or_create(&vec![("state", state.to_owned())]).set(count.into());
        }
        let family = self.bytes(
            "lost_wal",
            "WAL that was seen of a worker and that its server lacks since it was promoted",
        );
        for worker in workers {
            if let Some(lost) = worker["lost_wal"].as_f64() {
                family.get_or_create(&vec![("node", node(worker))]).set(lost);
            }
        }
        let mut situations: BTreeMap<[String; 3], u32> = BTreeMap::new();
        for worker in workers {
            let is_registered = worker["nodeid"].is_number().to_string();
            let labels = [label(worker, "state"), label(worker, "code"), is_registered];
            *situations.entry(labels).or_default() += 1;
        }
        let family = self.family("worker_situations", "Candidates and registered workers, by code");
        for ([state, code, registered], count) in situations {
            let labels = vec![("state", state), ("code", code), ("registered", registered)];
            family.get_or_create(&labels).set(count.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn example(mut vector: Value) -> String {
        let snapshot = json!({
            "status": {
                "last_cycle": 1.7e9, "cycle_ms": 12.5, "cycles": 3, "changes": 2, "paused": false,
                "disputed": false,
                "dns_errors_by_kind": {"timeout": 4}, "probe_errors_by_kind": {"refused": 1},
            },
            "workers": [
                {"state": "active", "code": "active", "nodeid": 2, "lost_wal": 0},
                {"state": "active", "code": "active", "nodeid": 3, "lost_wal": 9},
                {"state": "blank", "code": "citus_gone", "nodeid": 4},
                {"state": "standby", "code": "standby"},
            ],
        });
        vector["recall"] = json!([
            {"table_name": "t", "index_name": "i", "recall": 0.7, "ci_low": 0.6, "ci_high": 0.8, "queries": 200,
             "settings": "hnsw.ef_search=40", "measured_at": 1.7e9},
            {"table_name": "t", "index_name": "j", "recall": null, "queries": 7, "measured_at": null},
        ]);
        vector["health"] = json!({ "status": "yellow" });
        vector["findings"] = json!([
            {"check": "recall_low", "red": 0, "yellow": 2, "unknown": 0, "silenced": 1},
        ]);
        text(&snapshot, &vector, true)
    }

    #[track_caller]
    fn has(text: &str, line: &str) {
        assert!(text.lines().any(|one| one == line), "{line:?} is not in\n{text}");
    }

    #[test]
    fn the_controller_and_its_workers() {
        let text = example(json!({}));
        has(&text, "citus_fleet_workers{state=\"active\"} 2.0");
        has(&text, "citus_fleet_workers{state=\"blank\"} 1.0");
        has(&text, "citus_fleet_workers{state=\"absent\"} 0.0");
        has(
            &text,
            "citus_fleet_worker_situations{state=\"active\",code=\"active\",registered=\"true\"} 2.0",
        );
        has(
            &text,
            "citus_fleet_worker_situations{state=\"blank\",code=\"citus_gone\",registered=\"true\"} 1.0",
        );
        has(&text, "citus_fleet_cycle_duration_seconds 0.0125");
        has(&text, "citus_fleet_cycles_total 3");
        has(&text, "citus_fleet_dns_errors_total{kind=\"timeout\"} 4");
        has(&text, "# EOF");
    }

    #[test]
    fn recall_is_told_with_its_age_and_its_settings() {
        let text = example(json!({}));
        has(&text, "citus_fleet_vector_recall_ratio{table=\"t\",index=\"i\"} 0.7");
        has(&text, "citus_fleet_vector_recall_queries{table=\"t\",index=\"i\"} 200.0");
        has(
            &text,
            "citus_fleet_vector_recall_timestamp_seconds{table=\"t\",index=\"i\"} 1700000000.0",
        );
        has(
            &text,
            "citus_fleet_vector_recall_settings{table=\"t\",index=\"i\",settings=\"hnsw.ef_search=40\"} 1.0",
        );
        // What is not known has no figure.
        assert!(!text.contains("vector_recall_ratio{table=\"t\",index=\"j\"}"), "{text}");
        has(&text, "citus_fleet_vector_recall_queries{table=\"t\",index=\"j\"} 7.0");
    }

    #[test]
    fn every_finding_is_counted() {
        let text = example(json!({}));
        has(&text, "citus_fleet_vector_findings{check=\"recall_low\",severity=\"yellow\"} 2.0");
        has(&text, "citus_fleet_vector_findings{check=\"recall_low\",severity=\"red\"} 0.0");
        has(&text, "citus_fleet_vector_silenced_findings{check=\"recall_low\"} 1.0");
        has(&text, "citus_fleet_vector_status{status=\"yellow\"} 1.0");
        has(&text, "citus_fleet_vector_status{status=\"green\"} 0.0");
    }

    #[test]
    fn a_table_on_a_node_is_as_good_as_its_worst_placement() {
        let shard = |id: i64, node: &str, status: &str, rows: f64| {
            json!({"table_name": "t", "shardid": id, "kind": "distributed", "nodename": node, "nodeport": 1,
                   "status": status, "rows": rows, "dead_rows": 25, "index_bytes": 8192})
        };
        let text = example(json!({ "shards": [
            shard(1, "a", "green", 75.0), shard(2, "a", "red", 75.0), shard(3, "b", "yellow", 150.0),
        ]}));
        has(&text, "citus_fleet_vector_health_status{table=\"t\",node=\"a:1\",status=\"red\"} 1.0");
        has(
            &text,
            "citus_fleet_vector_health_status{table=\"t\",node=\"a:1\",status=\"green\"} 0.0",
        );
        has(
            &text,
            "citus_fleet_vector_health_status{table=\"t\",node=\"b:1\",status=\"yellow\"} 1.0",
        );
        has(&text, "citus_fleet_vector_index_bytes{table=\"t\",node=\"a:1\"} 16384.0");
        has(&text, "citus_fleet_vector_dead_tuples_ratio{table=\"t\",node=\"a:1\"} 0.25");
        has(&text, "citus_fleet_vector_skew_ratio{table=\"t\"} 1.5");
        has(&text, "citus_fleet_vector_shard_rows{table=\"t\",node=\"b:1\",shardid=\"3\"} 150.0");
    }

    /// The names that some text mentions.
    fn mentioned(text: &str) -> BTreeSet<&str> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        text.split(|c: char| !is_name(c)).filter(|word| word.starts_with("citus_fleet_")).collect()
    }

    #[test]
    fn the_dashboard_and_the_rules_ask_for_metrics_that_exist() {
        let place = json!({"table_name": "t", "shardid": 1, "kind": "distributed", "nodename": "w", "nodeport": 1,
            "status": "green", "rows": 1.0, "dead_rows": 0, "index_bytes": 1, "effective_cache_size": 2,
            "activity": "build", "ratio": 0.5});
        let everything =
            json!({ "shards": [place.clone()], "nodes": [place.clone()], "progress": [place] });
        let text = example(everything);
        let served = mentioned(&text);
        for consumer in [
            include_str!("../../monitoring/dashboard.json"),
            include_str!("../../monitoring/rules.yaml"),
            include_str!("../../monitoring/rules_test.yaml"),
        ] {
            let unknown: Vec<&str> = mentioned(consumer).difference(&served).copied().collect();
            assert_eq!(unknown, Vec::<&str>::new(), "{text}");
            assert!(mentioned(consumer).len() > 5);
        }
        serde_json::from_str::<Value>(include_str!("../../monitoring/dashboard.json")).unwrap();
    }

    #[test]
    fn the_older_format_declares_counters_as_their_samples_are_called() {
        let text = older_format(&example(json!({})));
        has(&text, "# TYPE citus_fleet_cycles_total counter");
        has(&text, "citus_fleet_cycles_total 3");
        has(&text, "# TYPE citus_fleet_workers gauge");
        assert!(!text.contains("# EOF") && !text.contains("# UNIT"), "{text}");
        assert!(!text.contains("# TYPE citus_fleet_cycles counter"), "{text}");
    }

    #[test]
    fn hostile_names_stay_inside_their_label() {
        let name = "x\"} 1\nciti_fake{a=\"\\";
        let text =
            example(json!({ "shards": [{"table_name": name, "shardid": 1, "kind": "distributed",
            "nodename": "a", "nodeport": 1, "status": "green", "rows": 1.0, "dead_rows": 0}] }));
        assert!(!text.lines().any(|line| line.starts_with("citi_fake")), "{text}");
        assert!(text.contains(r#"table="x\"} 1\nciti_fake{a=\"\\""#), "{text}");
    }
}
