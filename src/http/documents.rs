//! Owns what is served, made from one collection: the same snapshot, rows and report that SQL shows.
//! Must not read anything but what a member of `pg_monitor` may.

use crate::backend::catalog::value;
use crate::backend::transaction::transaction;
use crate::board;
use crate::error::Error;
use crate::metrics;
use decide::condition;
use decide::condition::Condition;
use decide::membership::state::State;
use hyper::body::Bytes;
use serde_json::{Value, json};
use std::cell::OnceCell;
use std::time::{SystemTime, UNIX_EPOCH};

/// Every document of one moment, or why there is none.
pub type Documents = Result<Papers, String>;

pub struct Papers {
    snapshot: Value,
    vector_rows: Value,
    /// Neither the fleet nor search is red.
    pub is_well: bool,
    pub health: Bytes,
    pub workers: Bytes,
    pub vector: Bytes,
    /// In OpenMetrics, without and with every placement: made when they are first asked for.
    metrics: [OnceCell<String>; 2],
}

impl Papers {
    pub fn metrics(&self, shards: bool) -> &str {
        self.metrics[usize::from(shards)]
            .get_or_init(|| metrics::text(&self.snapshot, &self.vector_rows, shards))
    }
}

/// Whether the controller is at work, and what it says of itself: from shared memory alone.
pub fn readiness() -> (bool, Bytes) {
    let snapshot = board::snapshot().ok().flatten();
    let snapshot: Value =
        snapshot.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default();
    let is_ready = controller(&snapshot) == Condition::Green;
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
    Ok(make(snapshot, vector, &events))
}

fn make(snapshot: Value, vector: Value, events: &Value) -> Papers {
    let fleet = fleet(&snapshot);
    let search = &vector["health"];
    let worst = [status(&fleet), status(search)].into_iter().max().unwrap_or_default();
    Papers {
        is_well: worst != Condition::Red,
        health: text(&json!({ "status": worst, "fleet": fleet, "search": search })),
        workers: text(&json!({
            "controller": snapshot["status"], "workers": snapshot["workers"], "events": events,
        })),
        vector: text(&vector),
        metrics: Default::default(),
        snapshot,
        vector_rows: vector,
    }
}

fn text(value: &Value) -> Bytes {
    value.to_string().into()
}

fn controller(snapshot: &Value) -> Condition {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    condition::of_controller(snapshot["status"]["last_cycle"].as_f64().map(|at| now - at))
}

/// How the fleet is, and what of it is not green.
fn fleet(snapshot: &Value) -> Value {
    let controller = controller(snapshot);
    let workers = snapshot["workers"].as_array().map_or(&[][..], Vec::as_slice);
    let mut worst = controller;
    let mut symptoms = Vec::new();
    if controller != Condition::Green {
        symptoms.push(json!({ "status": controller, "reason": "the controller has finished no cycle for a minute" }));
    }
    if snapshot["status"]["disputed"] == true {
        worst = Condition::Red;
        let complaint = &snapshot["status"]["coordinator_host"];
        symptoms.push(json!({
            "status": worst, "reason": complaint["reason"], "remedy": complaint["remedy"],
        }));
    }
    for worker in workers {
        let Ok(state) = serde_json::from_value::<State>(worker["state"].clone()) else {
            continue;
        };
        let has_lost = worker["lost_wal"].as_u64().is_some_and(|bytes| bytes > 0);
        let is_outdated = worker["code"] == "out_of_sync";
        let own = if has_lost || is_outdated { Condition::Yellow } else { Condition::Green };
        let status = state.condition(worker["nodeid"].is_number()).max(own);
        worst = worst.max(status);
        if status != Condition::Green {
            symptoms.push(json!({
                "status": status, "nodename": worker["nodename"], "nodeport": worker["nodeport"],
                "state": state, "code": worker["code"], "reason": worker["reason"], "remedy": worker["remedy"],
            }));
        }
    }
    json!({ "status": worst, "symptoms": symptoms })
}

fn status(report: &Value) -> Condition {
    serde_json::from_value(report["status"].clone()).unwrap_or(Condition::Unknown)
}
