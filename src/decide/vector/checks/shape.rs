//! Owns the checks of whether an index is what was declared: its definition, its options, its graph.
//! Must not parse names: which index is which follows from the names that Citus gives.

use super::indexes::rebuild;
use crate::decide::vector::finding::{Evidence, Finding, Remedy, Status};
use crate::decide::vector::fleet::{Fleet, Placed, Placement, Table, is_leftover, quote};
use crate::decide::vector::model::{Index, Metapage, Relation};
use crate::decide::vector::sizes::{EF_CONSTRUCTION, LISTS, M};

/// Practically every row.
const ALL: f64 = 0.99;

/// What makes two indexes the same: everything but the order in which options were declared.
fn declared(index: &Index) -> Option<String> {
    let mut options = index.options.clone();
    options.sort();
    Some(format!("{} {}", index.shape()?, options.join(", ")).trim_end().to_owned())
}

pub fn drift(fleet: &Fleet<'_>) -> Vec<Finding> {
    let changed = fleet.indexes().filter(|(table, ..)| table.sharded).filter_map(
        |(table, placement, relation, placed, index)| {
            let (wanted, found) = (declared(placed.shell)?, declared(index)?);
            (wanted != found).then(|| Finding {
                status: Status::Yellow,
                subject: fleet.subject_of(table, placement, placed.shell),
                symptom: format!(
                    "index {} on {} is {found}, its table declares {wanted}",
                    index.quoted,
                    fleet.node(placement).address
                ),
                evidence: Evidence::exact("definition", found, wanted),
                remedy: replace(fleet, placement, relation, placed, index),
            })
        },
    );
    let unknown = fleet.placements().filter(|(table, ..)| table.sharded).flat_map(
        |(table, placement, relation)| {
            let extras = placement.extras.iter().filter(|index| !is_leftover(&index.name));
            extras.map(move |index| Finding {
                status: Status::Yellow,
                subject: fleet.subject_of(table, placement, index),
                symptom: format!(
                    "{} on {} has index {}, of which its table knows nothing",
                    relation.quoted,
                    fleet.node(placement).address,
                    index.quoted
                ),
                evidence: Evidence::exact("definition", declared(index), None::<String>),
                remedy: Some(fleet.on_node_of(
                    placement,
                    format!("DROP INDEX CONCURRENTLY {}.{}", relation.quoted_schema, index.quoted),
                )),
            })
        },
    );
    changed.chain(unknown).collect()
}

/// Builds the declared index beside the wrong one before that is dropped, so that searches always
/// have one.
fn replace(
    fleet: &Fleet<'_>,
    placement: &Placement<'_>,
    relation: &Relation,
    placed: &Placed<'_>,
    index: &Index,
) -> Option<Remedy> {
    let definition = placed.shell.definition.as_ref()?;
    let (schema, table, old) = (&relation.quoted_schema, &relation.quoted, &index.quoted);
    let new = quote(&format!("fleet_rebuild_{}", index.oid));
    let create = format!("CREATE INDEX CONCURRENTLY {new} ON {table} USING {definition}");
    Some(
        fleet
            .on_node_of(placement, create)
            .then(format!("DROP INDEX CONCURRENTLY {schema}.{old}"))
            .then(format!("ALTER INDEX {schema}.{new} RENAME TO {old}")),
    )
}

/// What an index was built with and what is declared now, where they differ.
fn outdated(index: &Index) -> Option<(String, String)> {
    let (built, now) = match index.meta.as_ref()? {
        Metapage::Hnsw { m, ef_construction, .. } => {
            let (now_m, now_ef) =
                (index.option("m", M), index.option("ef_construction", EF_CONSTRUCTION));
            let shown = |m: u32, ef: u32| format!("m = {m}, ef_construction = {ef}");
            (shown(*m, *ef_construction), shown(now_m, now_ef))
        }
        Metapage::Ivfflat { lists, .. } => {
            (format!("lists = {lists}"), format!("lists = {}", index.option("lists", LISTS)))
        }
    };
    (built != now).then_some((built, now))
}

pub fn option_not_applied(fleet: &Fleet<'_>) -> Vec<Finding> {
    let finding = |(table, placement, relation, placed, index): Of<'_, '_>| {
        let (built, now) = outdated(index)?;
        let everywhere = is_everywhere(table, placed, |index| outdated(index).is_some());
        Some(Finding {
            status: Status::Yellow,
            subject: fleet.subject_of(table, placement, placed.shell),
            symptom: format!(
                "index {} on {} was built with {built}, and declares {now}",
                index.quoted,
                fleet.node(placement).address
            ),
            evidence: Evidence::exact("options", built, now),
            remedy: Some(rebuild(
                fleet,
                table,
                placement,
                relation,
                placed.shell,
                index,
                everywhere,
            )),
        })
    };
    fleet.indexes().filter_map(finding).collect()
}

type Of<'f, 'a> = (&'f Table<'a>, &'f Placement<'a>, &'a Relation, &'f Placed<'a>, &'a Index);

/// Whether an index is so on every placement of its table.
pub fn is_everywhere(
    table: &Table<'_>,
    placed: &Placed<'_>,
    is_so: impl Fn(&Index) -> bool,
) -> bool {
    table.placements.iter().all(|other| other.counterpart(placed.shell).is_some_and(&is_so))
}

fn is_empty(index: &Index) -> bool {
    index.valid && matches!(index.meta, Some(Metapage::Hnsw { has_entry: false, .. }))
}

pub fn empty_graph(fleet: &Fleet<'_>) -> Vec<Finding> {
    let finding = |(table, placement, relation, placed, index): Of<'_, '_>| {
        if !is_empty(index) || index.partial || relation.rows() < 1.0 {
            return None;
        }
        let columns = relation.columns.iter().filter(|column| index.columns.contains(&column.name));
        let nulls = columns.filter_map(|column| column.null_fraction).reduce(f64::max);
        let everywhere = is_everywhere(table, placed, is_empty);
        // Whether the rows have vectors at all is known only after an ANALYZE, and whether those are
        // zero, which have no angle to anything, not even then.
        let skips_zero = index.definition.as_ref().is_none_or(|text| text.contains("_cosine_ops"));
        let lost = !skips_zero && nulls.is_some_and(|fraction| fraction < ALL);
        let mut remedy =
            rebuild(fleet, table, placement, relation, placed.shell, index, everywhere);
        if nulls.is_none() {
            let name = if everywhere { table.name } else { &relation.quoted };
            remedy = remedy.then(format!("ANALYZE {name}"));
        }
        Some(Finding {
            status: if lost { Status::Red } else { Status::Yellow },
            subject: fleet.subject_of(table, placement, placed.shell),
            symptom: format!(
                "index {} on {} is empty, and its table is not",
                index.quoted,
                fleet.node(placement).address
            ),
            evidence: Evidence::exact("rows of the table", relation.rows().round(), 0),
            remedy: Some(remedy),
        })
    };
    fleet.indexes().filter_map(finding).collect()
}
