//! Owns the metrics of vector-shard health. Labels are tables, indexes and nodes; shards only on request,
//! since there may be thousands of them. Must not judge what it shows.

use super::{Gauges, Labels, Page, label, node, rows, set};
use decide::condition::Condition;
use decide::search::vector::series::{shown, worst};
use serde_json::Value;
use std::collections::BTreeMap;

impl Page {
    /// All of them; `vector` holds all rows of the `fleet.vector_…` views, by view.
    pub(super) fn vector(&mut self, vector: &Value, shards: bool) {
        self.findings(vector);
        self.tables(vector);
        self.nodes(rows(vector, "nodes"));
        self.progress(rows(vector, "progress"));
        self.recall(&worst(rows(vector, "recall")));
        if shards {
            self.shards(rows(vector, "shards"));
        }
    }

    fn tables(&mut self, vector: &Value) {
        let mut worst: BTreeMap<(String, String), Condition> = BTreeMap::new();
        let mut sums: BTreeMap<(String, String), [f64; 3]> = BTreeMap::new();
        let (shards, left_out) = shown(rows(vector, "shards"));
        self.gauge(
            "vector_tables_left_out",
            "Tables without series of their own, because there are too many; none is worse than those with",
            &left_out.into(),
        );
        for shard in &shards {
            let place = (label(shard, "table_name"), node(shard));
            let known = worst.entry(place.clone()).or_default();
            *known = (*known).max(Condition::of_row(shard).unwrap_or(Condition::Unknown));
            let sum = sums.entry(place).or_default();
            for (sum, key) in sum.iter_mut().zip(["index_bytes", "rows", "dead_rows"]) {
                *sum += shard[key].as_f64().unwrap_or_default();
            }
        }
        let health = self.family(
            "vector_health_status",
            "Worst status of a table's placements on a node: 1 for the one it is, 0 for the others",
        );
        for ((table, node), worst) in worst {
            set_status(&health, &vec![("table", table), ("node", node)], Some(worst));
        }
        let bytes = self.bytes("vector_index", "Bytes of a table's vector indexes on a node");
        let dead = self
            .family("vector_dead_tuples_ratio", "Dead rows among all rows of a table on a node");
        for ((table, node), [index_bytes, live, dead_rows]) in sums {
            let labels = vec![("table", table), ("node", node)];
            bytes.get_or_create(&labels).set(index_bytes);
            if live + dead_rows > 0.0 {
                dead.get_or_create(&labels).set(dead_rows / (live + dead_rows));
            }
        }
        self.skew(&shards);
    }

    /// Rows of the largest shard over those of the mean one; a replica counts as its shard.
    fn skew(&mut self, shards: &[&Value]) {
        let mut tables: BTreeMap<String, BTreeMap<i64, f64>> = BTreeMap::new();
        for shard in shards.iter().filter(|shard| shard["kind"] == "distributed") {
            let (Some(id), Some(count)) = (shard["shardid"].as_i64(), shard["rows"].as_f64())
            else {
                continue;
            };
            let rows = tables.entry(label(shard, "table_name")).or_default().entry(id).or_default();
            *rows = rows.max(count);
        }
        let skew =
            self.family("vector_skew_ratio", "Rows of a table's largest shard over the mean");
        for (table, shards) in tables {
            let mean = shards.values().sum::<f64>() / shards.len() as f64;
            let most = shards.values().copied().fold(0.0, f64::max);
            if mean > 0.0 {
                skew.get_or_create(&vec![("table", table)]).set(most / mean);
            }
        }
    }

    fn nodes(&mut self, nodes: &[Value]) {
        let health = self.family(
            "vector_node_status",
            "Condition of a node for vector search: 1 for the one it is, 0 for the others",
        );
        let fit = self.family(
            "vector_memory_fit_ratio",
            "Bytes of a node's vector indexes over its effective_cache_size",
        );
        for row in nodes {
            set_status(&health, &vec![("node", node(row))], Condition::of_row(row));
            let ratio = row["index_bytes"].as_f64().zip(row["effective_cache_size"].as_f64());
            if let Some((bytes, cache)) = ratio.filter(|(_, cache)| *cache > 0.0) {
                fit.get_or_create(&vec![("node", node(row))]).set(bytes / cache);
            }
        }
    }

    fn progress(&mut self, progress: &[Value]) {
        let family = self.family(
            "vector_progress_ratio",
            "How far the slowest build, vacuum or move of a table on a node is in its phase",
        );
        let mut least: BTreeMap<Labels, f64> = BTreeMap::new();
        for row in progress {
            let labels = vec![
                ("table", label(row, "table_name")),
                ("node", node(row)),
                ("activity", label(row, "activity")),
            ];
            if let Some(ratio) = row["ratio"].as_f64() {
                least.entry(labels).and_modify(|known| *known = known.min(ratio)).or_insert(ratio);
            }
        }
        for (labels, ratio) in least {
            family.get_or_create(&labels).set(ratio);
        }
    }

    /// Of each vector index of a table what is known today: of what is not, only since when.
    fn recall(&mut self, recalls: &[&Value]) {
        let mean = self.family(
            "vector_recall_ratio",
            "Recall of a table's vector index, all placements together; absent while it is not known",
        );
        let low = self.family(
            "vector_recall_ci_low_ratio",
            "Lower end of the confidence interval of that recall",
        );
        let high = self.family(
            "vector_recall_ci_high_ratio",
            "Upper end of the confidence interval of that recall",
        );
        let queries = self.family(
            "vector_recall_queries",
            "Queries that the figures which still count were measured with",
        );
        let measured = self.timestamps(
            "vector_recall_timestamp",
            "When the oldest of those figures was measured, since 1970",
        );
        let settings = self.family(
            "vector_recall_settings",
            "The search settings that they were measured by, as a label",
        );
        for row in recalls {
            let labels =
                vec![("table", label(row, "table_name")), ("index", label(row, "index_name"))];
            set(&mean, labels.clone(), &row["recall"]);
            set(&low, labels.clone(), &row["ci_low"]);
            set(&high, labels.clone(), &row["ci_high"]);
            set(&queries, labels.clone(), &row["queries"]);
            set(&measured, labels.clone(), &row["measured_at"]);
            if let Some(text) = row["settings"].as_str() {
                let labels = [labels, vec![("settings", text.to_owned())]].concat();
                settings.get_or_create(&labels).set(1.0);
            }
        }
    }

    /// Every check, whether it has found something or not: what was never there cannot be told from what
    /// has ended.
    fn findings(&mut self, vector: &Value) {
        let family = self.family("vector_findings", "Findings of vector-shard health, by check");
        let silenced = self.family(
            "vector_silenced_findings",
            "Findings that fleet.silence() says are meant to be so, by check",
        );
        for row in rows(vector, "findings") {
            let check = || ("check", label(row, "check"));
            for severity in ["red", "yellow", "unknown"] {
                set(&family, vec![check(), ("severity", severity.to_owned())], &row[severity]);
            }
            set(&silenced, vec![check()], &row["silenced"]);
        }
        let family = self.family(
            "vector_status",
            "Overall status of vector-shard health: 1 for the one it is, 0 for the others",
        );
        set_status(&family, &vec![], Condition::of_row(&vector["health"]));
    }

    fn shards(&mut self, shards: &[Value]) {
        let bytes = self.bytes("vector_shard_index", "Bytes of a placement's vector indexes");
        let live = self.family("vector_shard_rows", "Rows of a placement, estimated");
        let health = self.family(
            "vector_shard_status",
            "Condition of a placement: 1 for the one it is, 0 for the others",
        );
        for row in shards {
            let labels = vec![
                ("table", label(row, "table_name")),
                ("node", node(row)),
                ("shardid", row["shardid"].as_i64().map(|id| id.to_string()).unwrap_or_default()),
            ];
            set(&bytes, labels.clone(), &row["index_bytes"]);
            set(&live, labels.clone(), &row["rows"]);
            set_status(&health, &labels, Condition::of_row(row));
        }
    }
}

/// A series for each status: 1 for the one it is, 0 for the others.
fn set_status(family: &Gauges, labels: &Labels, is: Option<Condition>) {
    for (number, status) in Condition::NAMES.into_iter().enumerate() {
        let mut labels = labels.clone();
        labels.push(("status", status.to_owned()));
        let is_it = is.is_some_and(|is| is as usize == number);
        family.get_or_create(&labels).set(f64::from(u8::from(is_it)));
    }
}
