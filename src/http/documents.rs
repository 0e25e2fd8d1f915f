//! Owns what is served, made from one collection: the same snapshot, rows and report that SQL shows.
//! Must not read anything but what a member of `pg_monitor` may.

use crate::decide::condition;
use crate::decide::model::State;
use crate::decide::vector::finding::Status;
use crate::error::Error;
use crate::metrics;
use crate::observe::citus_nodes::read_one;
use crate::worker::containment::transaction;
use hyper::body::Bytes;
use pgrx::JsonB;
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// Every document of one moment, or why there is none.
pub type Documents = Result<Papers, String>;

pub struct Papers {
    /// The controller is at work.
    pub is_ready: bool,
    /// Neither the fleet nor search is red.
    pub is_well: bool,
    pub ready: Bytes,
    pub health: Bytes,
    pub workers: Bytes,
    pub vector: Bytes,
    /// In OpenMetrics.
    pub metrics: String,
    pub shard_metrics: String,
}

/// Collects once and makes all documents of it.
pub fn collect() -> Documents {
    let read = || {
        let snapshot = value("SELECT fleet.snapshot()")?;
        // Names of the rows are those of the views.
        let vector = value("SELECT fleet.vector_rows('all')")?;
        let events = value(
            "SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.to_jsonb(e)), '[]')
             FROM (SELECT * FROM fleet.events ORDER BY at DESC LIMIT 50) e",
        )?;
        Ok((snapshot, vector, events))
    };
    let (snapshot, vector, events) = transaction(read).map_err(|error| error.to_string())?;
    Ok(make(&snapshot, &vector, &events))
}

fn value(statement: &str) -> Result<Value, Error> {
    Ok(read_one::<JsonB>(statement, &[])?.map_or(Value::Null, |value| value.0))
}

fn make(snapshot: &Value, vector: &Value, events: &Value) -> Papers {
    let controller = controller(snapshot);
    let fleet = fleet(snapshot, controller);
    let search = &vector["health"];
    let worst = [status(&fleet), status(search)].into_iter().max().unwrap_or_default();
    Papers {
        is_ready: controller == Status::Green,
        is_well: worst != Status::Red,
        ready: text(
            &json!({ "ready": controller == Status::Green, "controller": snapshot["status"] }),
        ),
        health: text(&json!({ "status": worst, "fleet": fleet, "search": search })),
        workers: text(&json!({
            "controller": snapshot["status"], "workers": snapshot["workers"], "events": events,
        })),
        vector: text(vector),
        metrics: metrics::text(snapshot, vector, false),
        shard_metrics: metrics::text(snapshot, vector, true),
    }
}

fn text(value: &Value) -> Bytes {
    value.to_string().into()
}

fn controller(snapshot: &Value) -> Status {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    condition::of_controller(snapshot["status"]["last_cycle"].as_f64().map(|at| now - at))
}

/// How the fleet is, and what of it is not green.
fn fleet(snapshot: &Value, controller: Status) -> Value {
    let workers = snapshot["workers"].as_array().map_or(&[][..], Vec::as_slice);
    let mut worst = controller;
    let mut symptoms = Vec::new();
    if controller != Status::Green {
        symptoms.push(json!({ "status": controller, "reason": "the controller has finished no cycle for a minute" }));
    }
    for worker in workers {
        let Ok(state) = serde_json::from_value::<State>(worker["state"].clone()) else {
            continue;
        };
        let status = condition::of_worker(state, worker["nodeid"].is_number());
        worst = worst.max(status);
        if status != Status::Green {
            symptoms.push(json!({
                "status": status, "nodename": worker["nodename"], "nodeport": worker["nodeport"],
                "state": state, "reason": worker["reason"], "remedy": worker["remedy"],
            }));
        }
    }
    json!({ "status": worst, "symptoms": symptoms })
}

fn status(report: &Value) -> Status {
    serde_json::from_value(report["status"].clone()).unwrap_or(Status::Unknown)
}
