//! Owns what is served, made from one collection: the same snapshot, rows and report that SQL shows.
//! Must not read anything but what a member of `pg_monitor` may, nor serve more at once than a page can
//! show: of everything there are the worst, and the rest is asked for.

use super::list::{counts, first, page, sort};
use super::query::Query;
use super::report;
use crate::backend::catalog::value;
use crate::backend::transaction::transaction;
use crate::board;
use crate::error::Error;
use crate::metrics;
use decide::condition::Condition;
use hyper::body::Bytes;
use serde_json::{Value, json};
use std::cell::OnceCell;

/// Every document of one moment, or why there is none.
pub type Documents = Result<Papers, String>;

pub struct Papers {
    /// `fleet.snapshot()`, and the rows of the views by their names, in the order of their badness.
    snapshot: Value,
    vector: Value,
    nodes: Value,
    events: Value,
    /// Neither the fleet nor search is red.
    pub is_well: bool,
    pub health: Bytes,
    pub summary: Bytes,
    /// In OpenMetrics, without and with every placement: made when they are first asked for.
    metrics: [OnceCell<String>; 2],
}

/// The lists under `/vector/`. All but the shards are in the summary too, as far as there is room.
const LISTS: [&str; 6] = ["shards", "tables", "nodes", "progress", "recall", "silences"];

/// Bytes of each list in a summary, which has as many rows as a page of it.
const LIST_BYTES: usize = 14 << 10;
const LIST_ROWS: usize = 25;

impl Papers {
    pub fn metrics(&self, shards: bool) -> &str {
        self.metrics[usize::from(shards)]
            .get_or_init(|| metrics::text(&self.snapshot, &self.vector, shards))
    }

    /// A page of the list at a path; none where there is no such list.
    pub fn list(&self, path: &str, query: &Query) -> Option<Bytes> {
        if path == "/workers" {
            let page = page(rows(&self.snapshot["workers"]), query);
            let events = first(rows(&self.events).iter(), LIST_BYTES);
            return Some(text(&json!({
                "controller": self.snapshot["status"], "workers": page["rows"],
                "total": page["total"], "next": page["next"], "events": events,
            })));
        }
        if path == "/events" {
            return Some(text(&page(rows(&self.events), query)));
        }
        let name = path.strip_prefix("/vector/").filter(|name| LISTS.contains(name))?;
        let mut page = page(self.rows(name), query);
        page["observed_at"] = self.vector["observed_at"].clone();
        Some(text(&page))
    }

    fn rows(&self, list: &str) -> &[Value] {
        rows(if list == "nodes" { &self.nodes } else { &self.vector[list] })
    }

    /// How search is: the report, and of every list the worst rows, and how many of them are left out.
    fn summary(&self, health: &Value) -> Value {
        let mut summary = json!({
            "observed_at": self.vector["observed_at"], "health": health, "left_out": {},
        });
        for name in LISTS {
            let rows = self.rows(name);
            summary["counts"][name] = counts(rows);
            if name != "shards" {
                let shown = first(rows.iter().take(LIST_ROWS), LIST_BYTES);
                summary["left_out"][name] = json!(rows.len() - shown.len());
                summary[name] = json!(shown);
            }
        }
        summary
    }
}

/// Whether the controller is at work, and what it says of itself: from shared memory alone.
pub fn readiness() -> (bool, Bytes) {
    let snapshot = board::snapshot().ok().flatten();
    let snapshot: Value =
        snapshot.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default();
    let is_ready = report::controller(&snapshot) == Condition::Green;
    (is_ready, text(&json!({ "ready": is_ready, "controller": snapshot["status"] })))
}

/// Collects once and makes all documents of it.
pub fn collect() -> Documents {
    let read = || {
        let snapshot = value("SELECT COALESCE(fleet.snapshot()::pg_catalog.text, 'null')", &[])?;
        // Names of the rows are those of the views.
        let vector = value("SELECT fleet.vector_rows('all')::pg_catalog.text", &[])?;
        let events: Value = value(
            "SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.to_jsonb(e)), '[]')::pg_catalog.text
             FROM (SELECT * FROM fleet.events ORDER BY at DESC LIMIT 50) e",
            &[],
        )?;
        Ok::<_, Error>((snapshot, vector, events))
    };
    let (snapshot, vector, events) = transaction(read).map_err(|error| error.to_string())?;
    Ok(make(snapshot, vector, events))
}

fn make(mut snapshot: Value, mut vector: Value, events: Value) -> Papers {
    let health = report::brief(vector["health"].take());
    // The metrics go by it.
    vector["health"] = json!({ "status": health["status"] });
    if let Value::Array(workers) = &mut snapshot["workers"] {
        report::rate(workers);
    }
    for list in [&mut snapshot, &mut vector].into_iter().filter_map(Value::as_object_mut) {
        list.values_mut().filter_map(Value::as_array_mut).for_each(|rows| sort(rows));
    }
    let fleet = report::fleet(&snapshot, rows(&snapshot["workers"]));
    let mut nodes = report::nodes(rows(&vector["nodes"]), rows(&snapshot["workers"]));
    sort(&mut nodes);
    let worst = [&fleet, &health].map(report::status).into_iter().max().unwrap_or_default();
    let mut papers = Papers {
        is_well: worst != Condition::Red,
        health: text(&json!({ "status": worst, "fleet": fleet, "search": health })),
        summary: Bytes::new(),
        metrics: Default::default(),
        snapshot,
        vector,
        nodes: Value::Array(nodes),
        events,
    };
    papers.summary = text(&papers.summary(&health));
    papers
}

fn rows(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> Bytes {
    value.to_string().into()
}
