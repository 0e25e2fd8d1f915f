//! Owns what was found as rows: each finding of `fleet.vector_findings`, how many there are of each check, and
//! what is silenced. Must not judge: a finding is as its check has made it.

use super::checks::{CHECKS, Found};
use super::finding::{Evidence, Remedy};
use super::fleet::Fleet;
use crate::condition::Condition;
use serde::Serialize;
use serde_json::{Value, json};

/// A row of `fleet.vector_findings`.
#[derive(Serialize)]
pub struct FindingRow<'f> {
    check: &'static str,
    indicator: &'static str,
    status: Condition,
    node: Option<&'f str>,
    table_name: Option<&'f str>,
    shardid: Option<i64>,
    index_name: Option<&'f str>,
    symptom: &'f str,
    evidence: &'f Evidence,
    impact: &'static str,
    cause: &'static str,
    action: &'static str,
    run_on: Option<&'f str>,
    remedy_sql: Option<String>,
    silenced_by: Option<&'f str>,
    silenced_why: Option<&'f str>,
    silenced_until: Option<f64>,
}

/// Every finding, those that are only worth knowing among them; the worst first.
pub fn rows<'f>(found: &'f [Found<'_>]) -> Vec<FindingRow<'f>> {
    let mut rows: Vec<FindingRow<'f>> = found.iter().map(row).collect();
    rows.sort_by_key(|row| (row.silenced_by.is_some(), std::cmp::Reverse(row.status)));
    rows
}

fn row<'f>(found: &'f Found<'_>) -> FindingRow<'f> {
    let (check, finding, subject) = (found.check, &found.finding, &found.finding.subject);
    let remedy = finding.remedy.as_ref();
    FindingRow {
        check: check.id,
        indicator: check.indicator,
        status: finding.status,
        node: subject.node.as_deref(),
        table_name: subject.table.as_deref(),
        shardid: subject.shardid,
        index_name: subject.index.as_deref(),
        symptom: &finding.symptom,
        evidence: &finding.evidence,
        impact: check.impact,
        cause: check.cause,
        action: check.action,
        run_on: remedy.map(|remedy| remedy.run_on.as_str()),
        remedy_sql: remedy.map(Remedy::script),
        silenced_by: found.silence.map(|silence| silence.silenced_by.as_str()),
        silenced_why: found.silence.map(|silence| silence.why.as_str()),
        silenced_until: found.silence.map(|silence| silence.until),
    }
}

/// How many findings of each check have each severity, and how many are silenced: zeros too, so that nobody
/// has to tell what has ended from what was never asked.
pub fn counts(found: &[Found<'_>]) -> Value {
    let of_check = |id: &str| {
        let about = || found.iter().filter(|one| one.check.id == id);
        let with =
            |status| about().filter(|one| one.counts() && one.finding.status == status).count();
        json!({
            "check": id,
            "red": with(Condition::Red),
            "yellow": with(Condition::Yellow),
            "unknown": with(Condition::Unknown),
            "silenced": about().filter(|one| one.silence.is_some()).count(),
        })
    };
    CHECKS.iter().map(|check| of_check(check.id)).collect()
}

/// Every silence that has not ended, with how many findings it silences at this moment.
pub fn silences(fleet: &Fleet<'_>, found: &[Found<'_>]) -> Value {
    let silenced = |silence| found.iter().filter(|one| one.silence == Some(silence)).count();
    let rows = fleet.silences.iter().map(|silence| {
        json!({
            "check": silence.check,
            "table_name": silence.table_name,
            "until": silence.until,
            "why": silence.why,
            "silenced_by": silence.silenced_by,
            "findings": silenced(silence),
        })
    });
    rows.collect()
}
