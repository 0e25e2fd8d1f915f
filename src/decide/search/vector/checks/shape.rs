//! Owns the checks of whether an index is what was declared: its definition, its options, its graph.
//! Must not parse names: which index is which follows from the names that Citus gives.

use super::each::{Place, Spot, each_index};
use super::upkeep::STALE;
use crate::condition::Condition;
use crate::search::vector::finding::{Evidence, Finding, Remedy};
use crate::search::vector::fleet::{Fleet, Placement, ShardIndex, is_leftover, quote};
use crate::search::vector::model::{Index, Metapage, Relation};
use crate::search::vector::sizes::{EF_CONSTRUCTION, LISTS, M};

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
                status: Condition::Yellow,
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
            let extras = placement.extras.iter().filter(|index| !is_leftover(index));
            extras.map(move |index| Finding {
                status: Condition::Yellow,
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
    placed: &ShardIndex<'_>,
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
    each_index(
        fleet,
        |spot| outdated(spot.index),
        |spot, (built, now), everywhere| Finding {
            status: Condition::Yellow,
            subject: spot.subject(fleet),
            symptom: format!(
                "index {} on {} was built with {built}, and declares {now}",
                spot.index.quoted,
                spot.node(fleet)
            ),
            evidence: Evidence::exact("options", built, now),
            remedy: Some(spot.rebuild(fleet, everywhere)),
        },
    )
}

/// Whether the graph has nowhere to begin although there are rows; and the share of NULLs among them,
/// where it is known.
fn emptiness(spot: Spot<'_, '_>) -> Option<Option<f64>> {
    let (relation, index) = (spot.place.relation, spot.index);
    let is_empty = matches!(index.meta, Some(Metapage::Hnsw { has_entry: false, .. }));
    if !is_empty || !index.valid || index.partial || relation.rows() < 1.0 {
        return None;
    }
    // What was counted before much of the table was written says nothing of it now.
    let is_counted = relation.modified as f64 <= STALE * relation.rows();
    let columns = relation.columns.iter().filter(|column| index.columns.contains(&column.name));
    let columns = columns.filter(|_| is_counted);
    Some(columns.filter_map(|column| column.null_fraction).reduce(f64::max))
}

pub fn empty_graph(fleet: &Fleet<'_>) -> Vec<Finding> {
    each_index(fleet, emptiness, |spot, nulls, everywhere| {
        let Place { table, relation, .. } = spot.place;
        // Whether the rows have vectors at all is known only after an ANALYZE, and whether those are
        // zero, which have no angle to anything, not even then.
        let definition = spot.index.definition.as_ref();
        let skips_zero = definition.is_none_or(|text| text.contains("_cosine_ops"));
        let has_none = nulls.is_some_and(|fraction| fraction >= ALL);
        let mut remedy = spot.rebuild(fleet, everywhere);
        if nulls.is_none() {
            let name = if everywhere { table.name } else { &relation.quoted };
            remedy = remedy.then(format!("ANALYZE {name}"));
        }
        Finding {
            status: match nulls {
                // There is nothing to hold; or autovacuum is about to find out.
                Some(_) if has_none => Condition::Green,
                None if relation.autovacuum.is_some() => Condition::Green,
                Some(_) if !skips_zero => Condition::Red,
                _ => Condition::Yellow,
            },
            subject: spot.subject(fleet),
            symptom: format!(
                "index {} on {} is empty, and its table is not",
                spot.index.quoted,
                spot.node(fleet)
            ),
            evidence: Evidence::exact("rows of the table", relation.rows().round(), 0),
            remedy: (!has_none).then_some(remedy),
        }
    })
}
