//! Owns the checks of indexes as the catalogs have them: invalid, left over, unused.
//! Must not look into an index.

use super::columns::is_large;
use super::each::{Place, Spot, each_index};
use crate::condition::Condition;
use crate::search::vector::finding::{Concern, Evidence, Finding, Remedy};
use crate::search::vector::fleet::{Fleet, is_leftover};
use crate::search::vector::model::{Index, Relation};

/// So many reads of all rows without one use of the index are no coincidence.
const UNUSED_READS: f64 = 100.0;

/// Whether an index is being built on this table at this moment. Which one is not always told: REINDEX
/// CONCURRENTLY names only one of the two that it works on.
fn is_building(fleet: &Fleet<'_>, node: usize, relation: &Relation) -> bool {
    let builds = fleet.nodes[node].answer.map(|evidence| evidence.builds.as_slice());
    builds.unwrap_or_default().iter().any(|build| build.relation == relation.oid)
}

/// Whether one index answers the searches of the other. While one of them is held exclusively only the
/// columns are known.
fn serves(one: &Index, other: &Index) -> bool {
    match (one.key(), other.key()) {
        (Some(one), Some(other)) => one == other,
        _ => one.columns == other.columns,
    }
}

pub fn invalid(fleet: &Fleet<'_>) -> Vec<Finding> {
    let look = |spot: Spot<'_, '_>| {
        let Place { placement, relation, .. } = spot.place;
        let left = !spot.index.valid && !is_building(fleet, placement.node, relation);
        left.then(|| relation.indexes.iter().any(|it| it.valid && serves(it, spot.index)))
    };
    each_index(fleet, look, |spot, replaced, everywhere| Finding {
        status: if replaced { Condition::Yellow } else { Condition::Red },
        subject: spot.subject(fleet),
        symptom: format!("index {} on {} is invalid", spot.index.quoted, spot.node(fleet)),
        evidence: Evidence::exact("indisvalid", false, true),
        remedy: Some(spot.rebuild(fleet, everywhere)),
    })
}

pub fn leftover(fleet: &Fleet<'_>) -> Vec<Finding> {
    let on_shards = fleet.placements().flat_map(|(table, placement, relation)| {
        placement.extras.iter().map(move |index| (table, Some(placement), relation, *index))
    });
    let on_shells = fleet.tables.iter().filter(|table| table.sharded).flat_map(|table| {
        table.shell.indexes.iter().map(move |index| (table, None, table.shell, index))
    });
    let (coordinator, _) = fleet.coordinator();
    on_shards
        .chain(on_shells)
        .filter(|(_, _, _, index)| is_leftover(index))
        .filter(|(_, placement, relation, _)| {
            !is_building(fleet, placement.map_or(coordinator, |p| p.node), relation)
        })
        .map(|(table, placement, relation, index)| {
            let node = &fleet.nodes[placement.map_or(coordinator, |p| p.node)];
            let drop =
                format!("DROP INDEX CONCURRENTLY {}.{}", relation.quoted_schema, index.quoted);
            let subject = match placement {
                Some(placement) => fleet.subject_of(table, placement, index),
                None => Concern {
                    table: Some(table.name.to_owned()),
                    index: Some(index.quoted.clone()),
                    ..node.subject()
                },
            };
            Finding {
                status: Condition::Yellow,
                subject,
                symptom: format!(
                    "index {} on {} is what a failed REINDEX has left",
                    index.quoted, node.address
                ),
                evidence: Evidence::exact("indisvalid", false, true),
                remedy: Some(node.remedy(drop)),
            }
        })
        .collect()
}

pub fn shell_invalid(fleet: &Fleet<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for table in fleet.tables.iter().filter(|table| table.sharded) {
        let shells = table.shell.indexes.iter().filter(|i| !i.valid && !is_leftover(i));
        for shell in shells {
            let counterparts = table.counterparts(shell);
            if !counterparts.iter().all(|index| index.valid) {
                continue;
            }
            let index = format!("{}.{}", table.shell.quoted_schema, shell.quoted);
            let is_known = table.placements.iter().all(|placement| placement.relation.is_some());
            let is_built = is_building(fleet, fleet.coordinator().0, table.shell);
            let (what, remedy) = match counterparts.is_empty() {
                false => ("valid on all shards", format!("REINDEX INDEX CONCURRENTLY {index}")),
                true if is_known && !is_built => ("on no shard", format!("DROP INDEX {index}")),
                true => continue,
            };
            findings.push(Finding {
                status: Condition::Yellow,
                subject: table.subject_of_index(shell),
                symptom: format!("index {index} is invalid on the coordinator, and {what}"),
                evidence: Evidence::exact("indisvalid", false, true),
                remedy: Some(Remedy::on_coordinator(remedy)),
            });
        }
    }
    findings
}

/// Cumulative statistics say so, and go on saying it until the index is used or they are reset.
pub fn unused(fleet: &Fleet<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for table in &fleet.tables {
        let known = || table.placements.iter().filter_map(|placement| placement.relation);
        let large = known().filter(|relation| is_large(fleet, relation));
        // Scans that begin and read little, as those of an ivfflat build's samples, are none of all rows.
        let reads = large.map(|relation| relation.rows_read as f64 / relation.rows());
        let reads = reads.fold(0.0, f64::max).floor();
        if reads < UNUSED_READS {
            continue;
        }
        for shell in &table.shell.indexes {
            let counterparts = table.counterparts(shell);
            // A look by EXPLAIN is no use.
            let is_used = |index: &&Index| index.scans as f64 > reads / UNUSED_READS;
            if counterparts.is_empty() || counterparts.iter().any(|i| is_used(i) || !i.valid) {
                continue;
            }
            let scans = counterparts.iter().map(|index| index.scans).max().unwrap_or_default();
            findings.push(Finding {
                status: Condition::Yellow,
                subject: table.subject_of_index(shell),
                symptom: format!(
                    "index {} has served {scans} searches of a shard, while {} was read as a whole {reads} times",
                    shell.quoted, table.name
                ),
                evidence: Evidence::estimated("reads of a whole shard", reads, UNUSED_READS),
                remedy: None,
            });
        }
    }
    findings
}
