//! Owns the shape of `fleet.vector_health()`: indicators, impacts, diagnoses, as Elasticsearch's
//! `_health_report` has them. Must not find anything.

use super::checks::{CHECKS, Check, Found, INDICATORS};
use super::finding::{Concern, Finding, Remedy};
use super::fleet::Fleet;
use crate::condition::Condition;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashSet};

/// How many diagnoses of one check are shown unless all are asked for.
const SHOWN: usize = 10;

/// The whole report. With `verbose`, every diagnosis, what is only worth knowing, and details of what
/// was looked at.
pub fn report(fleet: &Fleet<'_>, found: &[Found<'_>], verbose: bool) -> Value {
    let worst = worst(found);
    let indicators: Map<String, Value> = INDICATORS
        .iter()
        .map(|(name, well)| {
            let about: Vec<&Found<'_>> =
                found.iter().filter(|one| one.check.indicator == *name).collect();
            ((*name).to_owned(), indicator(name, well, &about, verbose))
        })
        .collect();
    let mut report = json!({
        "status": worst,
        "observed_at": fleet.observed_at,
        "indicators": indicators,
        "silenced": found.iter().filter(|one| one.silence.is_some()).count(),
    });
    if verbose {
        report["details"] = details(fleet);
    }
    report
}

/// The worst of what is not meant to be so.
fn worst(found: &[Found<'_>]) -> Condition {
    let counted = found.iter().filter(|one| one.counts());
    counted.map(|one| one.finding.status).max().unwrap_or_default()
}

fn details(fleet: &Fleet<'_>) -> Value {
    let silent = fleet.nodes.iter().filter(|node| node.answer.is_err()).count();
    let placements: usize = fleet.tables.iter().map(|table| table.placements.len()).sum();
    json!({
        "nodes": fleet.nodes.len(),
        "nodes_without_answer": silent,
        "tables": fleet.tables.len(),
        "placements": placements,
        "checks": CHECKS.iter().map(|check| check.id).collect::<Vec<_>>(),
    })
}

fn indicator(name: &str, well: &str, found: &[&Found<'_>], verbose: bool) -> Value {
    let bad: Vec<&Found<'_>> = found.iter().copied().filter(|one| one.counts()).collect();
    let worst = bad.iter().map(|one| one.finding.status).max().unwrap_or_default();
    let groups = groups(found.iter().copied().filter(|one| verbose || one.counts()));
    let mut diagnosis: Vec<Value> = Vec::new();
    let mut left_out = 0;
    for group in groups.values() {
        let shown = if verbose { group.len() } else { group.len().min(SHOWN) };
        diagnosis.extend(group.iter().take(shown).map(|same| diagnose(same)));
        left_out += group.len() - shown;
    }
    let symptom = match bad.iter().max_by_key(|one| one.finding.status) {
        None => well.to_owned(),
        Some(worst) if bad.len() == 1 => sentence(&worst.finding.symptom),
        Some(worst) => {
            format!("{} findings; the worst: {}", bad.len(), sentence(&worst.finding.symptom))
        }
    };
    let mut indicator = json!({
        "status": worst,
        "symptom": symptom,
        "impacts": impacts(&bad),
        "diagnosis": diagnosis,
    });
    if left_out > 0 {
        indicator["diagnoses_left_out"] = json!(left_out);
    }
    if verbose {
        let checks = CHECKS.iter().filter(|check| check.indicator == name);
        indicator["details"] =
            json!({ "checks": checks.map(|check| check.id).collect::<Vec<_>>() });
    }
    indicator
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    // A name stays as it is written.
    let begins_with_word =
        text.split(' ').next().is_some_and(|word| word.chars().all(|c| c.is_ascii_lowercase()));
    match letters.next() {
        Some(first) if begins_with_word => format!("{}{}.", first.to_uppercase(), letters.as_str()),
        _ => format!("{text}."),
    }
}

/// One impact for each check that has found something, with the severity of its worst: 1 is the worst.
fn impacts(bad: &[&Found<'_>]) -> Vec<Value> {
    let mut worst: BTreeMap<&str, (&Check, Condition)> = BTreeMap::new();
    for one in bad {
        let entry = worst.entry(one.check.id).or_insert((one.check, Condition::Green));
        entry.1 = entry.1.max(one.finding.status);
    }
    worst
        .into_iter()
        .map(|(id, (check, status))| {
            let severity = match status {
                Condition::Red => 1,
                Condition::Yellow => 2,
                Condition::Unknown | Condition::Green => 3,
            };
            json!({ "id": id, "severity": severity, "description": check.impact })
        })
        .collect()
}

/// Findings of one thing.
type Same<'f> = Vec<&'f Found<'f>>;

/// What makes findings of one check one thing: the statement that mends them; where there is none, the table
/// and the index that they are about, and the node only where they are about nothing else. What is silenced
/// is another thing.
type Thing<'f> = (bool, Option<&'f Remedy>, [Option<&'f String>; 3]);

fn thing<'f>(found: &'f Found<'_>) -> Thing<'f> {
    let finding: &Finding = &found.finding;
    let Concern { node, table, index, .. } = &finding.subject;
    let node = node.as_ref().filter(|_| table.is_none());
    let is_silenced = found.silence.is_some();
    match &finding.remedy {
        Some(remedy) => (is_silenced, Some(remedy), [None; 3]),
        None => (is_silenced, None, [node, table.as_ref(), index.as_ref()]),
    }
}

/// The findings of each check, those of one thing together, the worst first.
fn groups<'f>(found: impl Iterator<Item = &'f Found<'f>>) -> BTreeMap<&'static str, Vec<Same<'f>>> {
    let mut by_check: BTreeMap<&'static str, BTreeMap<Thing<'f>, Same<'f>>> = BTreeMap::new();
    for one in found {
        let things = by_check.entry(one.check.id).or_default();
        things.entry(thing(one)).or_default().push(one);
    }
    by_check
        .into_iter()
        .map(|(id, things)| {
            let mut groups: Vec<Same<'f>> = things.into_values().collect();
            for group in &mut groups {
                group.sort_by_key(|one| std::cmp::Reverse(one.finding.status));
            }
            groups.sort_by_key(|group| std::cmp::Reverse(group[0].finding.status));
            (id, groups)
        })
        .collect()
}

fn diagnose(same: &[&Found<'_>]) -> Value {
    let worst = same[0];
    let (check, finding) = (worst.check, &worst.finding);
    let mut diagnosis = json!({
        "id": check.id,
        "status": finding.status,
        "symptom": sentence(&finding.symptom),
        "cause": check.cause,
        "action": check.action,
        "evidence": finding.evidence,
        "confidence": finding.evidence.confidence,
        "affected_resources": affected(same),
        "run_on": finding.remedy.as_ref().map(|remedy| &remedy.run_on),
        "remedy_sql": finding.remedy.as_ref().map(Remedy::script),
    });
    if let Some(silence) = worst.silence {
        diagnosis["silenced"] =
            json!({ "by": silence.silenced_by, "why": silence.why, "until": silence.until_text });
    }
    diagnosis
}

fn affected(same: &[&Found<'_>]) -> Value {
    let mut resources: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    let mut known = HashSet::new();
    for one in same {
        let subject = &one.finding.subject;
        for (kind, value) in [
            ("nodes", subject.node.clone().map(Value::from)),
            ("tables", subject.table.clone().map(Value::from)),
            ("shards", subject.shardid.map(Value::from)),
            ("indexes", subject.index.clone().map(Value::from)),
        ] {
            let Some(value) = value else { continue };
            if known.insert((kind, value.clone())) {
                resources.entry(kind).or_default().push(value);
            }
        }
    }
    json!(resources)
}
