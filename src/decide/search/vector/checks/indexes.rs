//! Owns the checks of whether there is an index: missing, impossible, invalid, left over, unused.
//! Must not look into an index.

use super::each::{Place, Spot, each_index};
use crate::condition::Condition;
use crate::node::literal;
use crate::search::vector::finding::{Concern, Evidence, Finding, Remedy};
use crate::search::vector::fleet::{Fleet, Placement, Table, is_leftover, quote};
use crate::search::vector::model::{Column, Index, Relation};

/// So many reads of all rows without one use of the index are no coincidence.
const UNUSED_SCANS: u64 = 100;

/// The most dimensions that hnsw and ivfflat take.
fn most_dimensions(kind: &str) -> Option<i32> {
    match kind {
        "vector" => Some(2_000),
        "halfvec" => Some(4_000),
        _ => None,
    }
}

fn is_indexable(column: &Column) -> bool {
    column.dimensions > 0
        && most_dimensions(&column.kind).is_none_or(|most| column.dimensions <= most)
}

fn covers(index: &Index, column: &Column) -> bool {
    index.columns.contains(&column.name)
}

/// Whether the placement is large enough to need an index.
fn is_large(fleet: &Fleet<'_>, relation: &Relation) -> bool {
    relation.rows() >= fleet.thresholds.index_min_rows
}

pub fn missing(fleet: &Fleet<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for table in &fleet.tables {
        for column in table.shell.columns.iter().filter(|column| is_indexable(column)) {
            findings.extend(missing_on(fleet, table, column));
        }
    }
    findings
}

fn missing_on(fleet: &Fleet<'_>, table: &Table<'_>, column: &Column) -> Vec<Finding> {
    let known: Vec<(&Placement<'_>, &Relation)> =
        table.placements.iter().filter_map(|p| Some((p, p.relation?))).collect();
    let lacking: Vec<&(&Placement<'_>, &Relation)> = known
        .iter()
        .filter(|(_, relation)| !relation.indexes.iter().any(|index| covers(index, column)))
        .collect();
    let everywhere = lacking.len() == known.len();
    if everywhere && !lacking.iter().any(|(_, relation)| is_large(fleet, relation)) {
        return Vec::new();
    }
    let finding = |&&(placement, relation): &&(&Placement<'_>, &Relation)| {
        let remedy = match everywhere {
            true => Some(create(fleet, table, column)),
            false => recreate(fleet, table, column, placement, relation),
        };
        let node = &fleet.node(placement).address;
        Finding {
            status: if !everywhere && is_large(fleet, relation) {
                Condition::Red
            } else {
                Condition::Yellow
            },
            subject: fleet.subject(table, placement),
            symptom: match everywhere {
                true => format!("column {} of {} has no vector index", column.quoted, table.name),
                false => format!(
                    "{} on {node} has no vector index on {}, as other shards of {} have",
                    relation.quoted, column.quoted, table.name
                ),
            },
            evidence: Evidence::estimated(
                "rows",
                relation.rows().round(),
                fleet.thresholds.index_min_rows,
            ),
            remedy,
        }
    };
    lacking.iter().map(finding).collect()
}

/// A new index on the whole table. pgvector's first operator class stands in for the one that the
/// queries need, which nobody but their author knows.
fn create(fleet: &Fleet<'_>, table: &Table<'_>, column: &Column) -> Remedy {
    let class = operator_class(fleet, &column.kind, "l2_ops");
    Remedy::on_coordinator(format!(
        "CREATE INDEX CONCURRENTLY ON {} USING hnsw ({} {class})",
        table.name, column.quoted
    ))
}

fn operator_class(fleet: &Fleet<'_>, kind: &str, class: &str) -> String {
    format!("{}.{kind}_{class}", vector_schema(fleet))
}

fn vector_schema<'f>(fleet: &'f Fleet<'_>) -> &'f str {
    fleet
        .nodes
        .iter()
        .filter(|node| node.is_coordinator())
        .find_map(|node| node.answer.ok()?.vector_schema.as_deref())
        .unwrap_or("public")
}

/// The index that this shard lacks, under the name by which Citus will look for it.
fn recreate(
    fleet: &Fleet<'_>,
    table: &Table<'_>,
    column: &Column,
    placement: &Placement<'_>,
    relation: &Relation,
) -> Option<Remedy> {
    let placed = placement.indexes.iter().find(|p| covers(p.shell, column) && p.index.is_none())?;
    let definition = placed.shell.definition.as_ref().or_else(|| {
        // The shell is locked; another shard has the same.
        let mut twins = table.placements.iter().filter_map(|p| p.counterpart(placed.shell));
        twins.find_map(|twin| twin.definition.as_ref())
    })?;
    Some(fleet.on_node_of(
        placement,
        format!(
            "CREATE INDEX CONCURRENTLY {} ON {} USING {definition}",
            quote(placed.name),
            relation.quoted
        ),
    ))
}

pub fn not_indexable(fleet: &Fleet<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for table in &fleet.tables {
        let large = table.placements.iter().filter_map(|p| p.relation).any(|r| is_large(fleet, r));
        let columns = table.shell.columns.iter().filter(|column| !is_indexable(column));
        for column in columns.filter(|c| large && !table.shell.indexes.iter().any(|i| covers(i, c)))
        {
            let dimensions = column.dimensions;
            findings.push(Finding {
                status: Condition::Yellow,
                subject: Concern { table: Some(table.name.to_owned()), ..Concern::default() },
                symptom: match dimensions {
                    1.. => format!(
                        "column {} of {} has {dimensions} dimensions, more than an index of {} takes",
                        column.quoted, table.name, column.kind
                    ),
                    _ => format!("column {} of {} declares no dimensions", column.quoted, table.name),
                },
                evidence: Evidence::exact(
                    "declared dimensions", dimensions, most_dimensions(&column.kind),
                ),
                remedy: Some(make_indexable(fleet, table, column)),
            });
        }
    }
    findings
}

fn make_indexable(fleet: &Fleet<'_>, table: &Table<'_>, column: &Column) -> Remedy {
    let (name, quoted, d) = (table.name, &column.quoted, column.dimensions);
    let schema = vector_schema(fleet);
    if d <= 0 {
        // The dimensions are in the data, which only the operator may read.
        let body = format!(
            "BEGIN EXECUTE pg_catalog.format('ALTER TABLE %s ALTER COLUMN %s TYPE {schema}.{kind}(%s)', \
             {table}, {column}, (SELECT {schema}.vector_dims({quoted}) FROM {name} \
             WHERE {quoted} IS NOT NULL LIMIT 1)); END",
            kind = column.kind,
            table = literal(name),
            column = literal(quoted),
        );
        return Remedy::on_coordinator(format!("DO {}", literal(&body)));
    }
    let key = match column.kind.as_str() {
        "vector" if d <= 4_000 => {
            format!(
                "({quoted}::{schema}.halfvec({d})) {}",
                operator_class(fleet, "halfvec", "l2_ops")
            )
        }
        _ => format!(
            "({schema}.binary_quantize({quoted})::bit({d})) {}",
            operator_class(fleet, "bit", "hamming_ops")
        ),
    };
    Remedy::on_coordinator(format!("CREATE INDEX CONCURRENTLY ON {name} USING hnsw ({key})"))
}

/// Whether an index is being built on this table at this moment. Which one is not always told: REINDEX
/// CONCURRENTLY names only one of the two that it works on.
fn is_building(fleet: &Fleet<'_>, node: usize, relation: &Relation) -> bool {
    let builds = fleet.nodes[node].answer.map(|evidence| evidence.builds.as_slice());
    builds.unwrap_or_default().iter().any(|build| build.relation == relation.oid)
}

pub fn invalid(fleet: &Fleet<'_>) -> Vec<Finding> {
    let look = |spot: Spot<'_, '_>| {
        let Place { placement, relation, .. } = spot.place;
        let left = !spot.index.valid && !is_building(fleet, placement.node, relation);
        left.then(|| relation.indexes.iter().any(|i| i.valid && i.columns == spot.index.columns))
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
    let coordinator = fleet.nodes.iter().position(|node| node.is_coordinator()).unwrap_or(0);
    on_shards
        .chain(on_shells)
        .filter(|(_, _, _, index)| !index.valid && is_leftover(&index.name))
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
        let shells = table.shell.indexes.iter().filter(|i| !i.valid && !is_leftover(&i.name));
        for shell in shells {
            let counterparts = table.counterparts(shell);
            if counterparts.is_empty() || !counterparts.iter().all(|index| index.valid) {
                continue;
            }
            let index = format!("{}.{}", table.shell.quoted_schema, shell.quoted);
            findings.push(Finding {
                status: Condition::Yellow,
                subject: table.subject_of_index(shell),
                symptom: format!(
                    "index {index} is invalid on the coordinator, and valid on all shards"
                ),
                evidence: Evidence::exact("indisvalid", false, true),
                remedy: Some(Remedy::on_coordinator(format!("REINDEX INDEX CONCURRENTLY {index}"))),
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
        let scans: u64 = known().map(|relation| relation.seq_scans).sum();
        if scans < UNUSED_SCANS || !known().any(|relation| is_large(fleet, relation)) {
            continue;
        }
        for shell in &table.shell.indexes {
            let counterparts = table.counterparts(shell);
            if counterparts.is_empty() || counterparts.iter().any(|i| i.scans > 0 || !i.valid) {
                continue;
            }
            findings.push(Finding {
                status: Condition::Yellow,
                subject: table.subject_of_index(shell),
                symptom: format!(
                    "index {} has served no search, while {} was read as a whole {scans} times",
                    shell.quoted, table.name
                ),
                evidence: Evidence::exact("scans of the whole table", scans, UNUSED_SCANS),
                remedy: None,
            });
        }
    }
    findings
}
