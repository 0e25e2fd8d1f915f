//! Owns how the fleet and search are in brief: what of them is not green, the worst first, as much as
//! somebody can read. Must not judge search: the report of `fleet.vector_health()` does.

use super::list::{badness, first, node, sort};
use decide::condition;
use decide::condition::Condition;
use decide::membership::state::State;
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes of the fleet's symptoms, and of the diagnoses of search.
const SYMPTOM_BYTES: usize = 12 << 10;
const DIAGNOSIS_BYTES: usize = 20 << 10;

/// A diagnosis names so many shards, tables, nodes and indexes of each.
const AFFECTED: usize = 20;

pub fn controller(snapshot: &Value) -> Condition {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    condition::of_controller(snapshot["status"]["last_cycle"].as_f64().map(|at| now - at))
}

pub fn status(report: &Value) -> Condition {
    Condition::of_row(report).unwrap_or(Condition::Unknown)
}

/// Gives every worker of a snapshot its status.
pub fn rate(workers: &mut [Value]) {
    for worker in workers {
        let Ok(state) = serde_json::from_value::<State>(worker["state"].clone()) else {
            continue;
        };
        let has_lost = worker["lost_wal"].as_u64().is_some_and(|bytes| bytes > 0);
        let is_outdated = worker["code"] == "out_of_sync";
        let own = if has_lost || is_outdated { Condition::Yellow } else { Condition::Green };
        worker["status"] = json!(state.condition(worker["nodeid"].is_number()).max(own));
    }
}

/// How the fleet is, and what of it is not green; `workers` are rated and sorted.
pub fn fleet(snapshot: &Value, workers: &[Value]) -> Value {
    let controller = controller(snapshot);
    let mut symptoms = Vec::new();
    if controller != Condition::Green {
        symptoms.push(json!({ "status": controller, "reason": "the controller has finished no cycle for a minute" }));
    }
    if snapshot["status"]["disputed"] == true {
        let complaint = &snapshot["status"]["coordinator_host"];
        symptoms.push(json!({
            "status": Condition::Red, "reason": complaint["reason"], "remedy": complaint["remedy"],
        }));
    }
    symptoms.extend(workers.iter().filter(|worker| badness(worker) > Condition::Green).map(|worker| {
        json!({
            "status": worker["status"], "nodename": worker["nodename"], "nodeport": worker["nodeport"],
            "state": worker["state"], "code": worker["code"], "reason": worker["reason"], "remedy": worker["remedy"],
        })
    }));
    sort(&mut symptoms);
    let worst = symptoms.first().map(status).unwrap_or_default();
    let shown = first(symptoms.iter(), SYMPTOM_BYTES);
    json!({ "status": worst, "symptoms": shown, "symptoms_left_out": symptoms.len() - shown.len() })
}

/// Every node that search knows and every worker that the controller knows, each with what both say of
/// it; the worse of them counts.
pub fn nodes(search: &[Value], workers: &[Value]) -> Vec<Value> {
    let mut nodes = search.to_vec();
    let places: HashMap<Option<String>, usize> =
        search.iter().enumerate().map(|(number, row)| (node(row), number)).collect();
    for worker in workers {
        let number = places.get(&node(worker)).copied().unwrap_or_else(|| {
            let [name, port, id] = ["nodename", "nodeport", "nodeid"].map(|key| &worker[key]);
            nodes.push(
                json!({ "nodename": name, "nodeport": port, "nodeid": id, "status": "green" }),
            );
            nodes.len() - 1
        });
        let row = &mut nodes[number];
        for key in ["state", "code", "since"] {
            row[key] = worker[key].clone();
        }
        if !worker["reason"].is_null() {
            row["reason"] = worker["reason"].clone();
        }
        if badness(worker) > badness(row) {
            row["status"] = worker["status"].clone();
        }
    }
    nodes
}

/// The report of `fleet.vector_health()` without what is only worth knowing, and with as many diagnoses
/// as there is room for: the worst first, and the first of every check before the second of any.
pub fn brief(mut health: Value) -> Value {
    let mut all: Vec<(usize, String, Value)> = Vec::new();
    for (name, indicator) in health["indicators"].as_object_mut().into_iter().flatten() {
        let mut of_check: HashMap<String, usize> = HashMap::new();
        let Value::Array(diagnoses) = indicator["diagnosis"].take() else { continue };
        indicator["diagnosis"] = json!([]);
        for mut diagnosis in diagnoses.into_iter().filter(|one| badness(one) > Condition::Green) {
            let earlier = of_check.entry(diagnosis["id"].to_string()).or_default();
            shorten(&mut diagnosis);
            all.push((*earlier, name.clone(), diagnosis));
            *earlier += 1;
        }
        indicator.as_object_mut().map(|indicator| indicator.remove("details"));
    }
    all.sort_by_key(|(earlier, _, diagnosis)| (Reverse(badness(diagnosis)), *earlier));
    let shown = first(all.iter().map(|(_, _, diagnosis)| diagnosis), DIAGNOSIS_BYTES).len();
    for (number, (_, name, diagnosis)) in all.into_iter().enumerate() {
        let indicator = &mut health["indicators"][name];
        match &mut indicator["diagnosis"] {
            Value::Array(diagnoses) if number < shown => diagnoses.push(diagnosis),
            _ => {
                let before = indicator["diagnoses_left_out"].as_u64().unwrap_or_default();
                indicator["diagnoses_left_out"] = json!(before + 1);
            }
        }
    }
    health.as_object_mut().map(|health| health.remove("details"));
    health
}

/// Thousands of shards may be affected by one thing.
fn shorten(diagnosis: &mut Value) {
    let mut left_out = json!({});
    for (kind, affected) in diagnosis["affected_resources"].as_object_mut().into_iter().flatten() {
        let Value::Array(affected) = affected else { continue };
        if affected.len() > AFFECTED {
            left_out[kind] = json!(affected.len() - AFFECTED);
            affected.truncate(AFFECTED);
        }
    }
    diagnosis["affected_left_out"] = left_out;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diagnosis(id: &str, status: &str, shards: usize) -> Value {
        json!({ "id": id, "status": status, "symptom": "x".repeat(1000),
                "affected_resources": { "shards": (0..shards).collect::<Vec<_>>(), "tables": ["t"] } })
    }

    #[test]
    fn a_report_has_an_end_and_of_every_check_one() {
        let many = |id: &str, status: &str| vec![diagnosis(id, status, 6000); 50];
        let mut found = many("index_missing", "yellow");
        found.extend(many("index_invalid", "red"));
        found.push(diagnosis("def_drift", "green", 1));
        let health = json!({ "status": "red", "details": { "nodes": 1 }, "indicators": {
            "indexes": { "status": "red", "details": {}, "diagnosis": found },
            "upkeep": { "status": "yellow", "diagnoses_left_out": 7, "diagnosis": many("bloat", "yellow") },
        }});
        let brief = brief(health);
        assert!(brief.to_string().len() < 32 << 10, "{}", brief.to_string().len());
        let ids = |name: &str| -> Vec<&str> {
            let shown = brief["indicators"][name]["diagnosis"].as_array().unwrap();
            shown.iter().map(|one| one["id"].as_str().unwrap()).collect()
        };
        let shown = ids("indexes").len() + ids("upkeep").len();
        assert!(shown > 10 && !ids("indexes").contains(&"def_drift"), "{brief}");
        let left = |name: &str| brief["indicators"][name]["diagnoses_left_out"].as_u64().unwrap();
        assert_eq!(left("indexes") + left("upkeep"), 150 + 7 - shown as u64);
        let one = &brief["indicators"]["indexes"]["diagnosis"][0];
        assert_eq!(one["affected_left_out"], json!({ "shards": 5980 }));
        assert_eq!((&brief["details"], &brief["status"]), (&Value::Null, &json!("red")));
    }

    #[test]
    fn the_worse_of_two_tales_of_a_node_counts() {
        let at = |port: u16| json!({ "nodename": "w", "nodeport": port, "status": "green" });
        let mut workers = vec![
            json!({ "nodename": "w", "nodeport": 1, "nodeid": 2, "state": "unreachable", "reason": "no" }),
            json!({ "nodename": "new", "nodeport": 1, "state": "refused", "code": "other_citus" }),
        ];
        rate(&mut workers);
        let nodes = nodes(&[at(1), at(2)], &workers);
        assert_eq!(nodes.len(), 3);
        assert_eq!((&nodes[0]["status"], &nodes[0]["reason"]), (&json!("red"), &json!("no")));
        assert_eq!(nodes[1], at(2));
        assert_eq!(
            (&nodes[2]["nodename"], &nodes[2]["code"]),
            (&json!("new"), &json!("other_citus"))
        );
    }
}
