//! Owns the checks of what wears out: dead rows, wasted pages, missing vectors, old statistics.
//! Must not count rows: it works with what the statistics say.

use super::each::{Place, each_index, each_placement, reindex};
use super::nodes::rounded;
use crate::condition::Condition;
use crate::search::vector::finding::{Evidence, Finding, Remedy};
use crate::search::vector::fleet::{Fleet, Placement, Table};
use crate::search::vector::model::{Column, Index, Relation};
use crate::search::vector::progress;
use crate::search::vector::sizes::tight_pages;

/// An index of this many times the pages that its rows need.
const BLOATED: f64 = 1.5;
/// Below a megabyte nothing is worth a rebuild.
const BLOAT_MIN_PAGES: u64 = 128;
/// Dead rows among all. At 25 % a search with ef_search = 40 returned 127 of 160 rows.
const MANY_DEAD: f64 = 0.10;
const TOO_MANY_DEAD: f64 = 0.20;
/// Below so many rows a share says nothing.
const FEW_ROWS: f64 = 1_000.0;
const MANY_NULLS: f64 = 0.01;
/// Rows changed since the last ANALYZE, as the share at which autovacuum would act.
pub const STALE: f64 = 0.2;

/// How many times the pages that it needs an index has; `None` where that cannot be told.
pub fn pages_ratio(relation: &Relation, index: &Index) -> Option<f64> {
    let pages = index.pages.filter(|_| !index.partial)?;
    Some(pages as f64 / tight_pages(index, relation.filled_rows(index))?)
}

/// The same where it is too much.
fn wasted(relation: &Relation, index: &Index) -> Option<f64> {
    let is_worth_it = index.valid && index.pages.is_some_and(|pages| pages >= BLOAT_MIN_PAGES);
    pages_ratio(relation, index).filter(|ratio| is_worth_it && *ratio > BLOATED)
}

pub fn bloat(fleet: &Fleet<'_>) -> Vec<Finding> {
    each_index(
        fleet,
        |spot| wasted(spot.place.relation, spot.index),
        |spot, ratio, everywhere| Finding {
            status: Condition::Yellow,
            subject: spot.subject(fleet),
            symptom: format!(
                "index {} on {} has {ratio:.1} times the pages that its rows need",
                spot.index.quoted,
                spot.node(fleet)
            ),
            evidence: Evidence::estimated("pages per page needed", rounded(ratio), BLOATED),
            remedy: Some(spot.rebuild(fleet, everywhere)),
        },
    )
}

/// The share of dead rows, where it is too large.
fn dead_share(relation: &Relation) -> Option<f64> {
    let dead = relation.dead_in_indexes();
    let all = relation.rows() + dead;
    let share = dead / all;
    // Up to there autovacuum lets them lie, and from there on removes them.
    let is_usual = relation.autovacuum.is_some_and(|at| relation.dead as f64 <= at.vacuum_at);
    let is_many = all >= FEW_ROWS && share > MANY_DEAD && !is_usual;
    (is_many && !relation.indexes.is_empty()).then_some(share)
}

/// Whether a crash, or a reset, has taken what was counted: nobody knows then how many rows are dead.
fn is_uncounted(relation: &Relation) -> bool {
    let is_filled = relation.pages.is_some_and(|pages| pages > 0);
    let is_known = relation.reltuples >= FEW_ROWS && is_filled;
    is_known && relation.is_count_lost() && !relation.indexes.is_empty()
}

pub fn dead_tuples(fleet: &Fleet<'_>) -> Vec<Finding> {
    let mut findings = dead(fleet);
    findings.extend(each_placement(
        fleet,
        |place| is_uncounted(place.relation).then_some(()),
        |place, (), everywhere| {
            let analyze = |of: &Relation| format!("ANALYZE {}", of.quoted);
            Finding {
                status: Condition::Unknown,
                subject: fleet.subject(place.table, place.placement),
                symptom: format!(
                    "how many rows of {} on {} are dead is not known: its statistics were lost or reset",
                    place.relation.quoted,
                    place.node(fleet)
                ),
                evidence: Evidence::exact("rows counted", place.relation.inserted, None::<u64>),
                remedy: Some(match everywhere {
                    true => Remedy::on_coordinator(analyze(place.table.shell)),
                    false => fleet.on_node_of(place.placement, analyze(place.relation)),
                }),
            }
        },
    ));
    findings
}

fn dead(fleet: &Fleet<'_>) -> Vec<Finding> {
    each_placement(
        fleet,
        |place| dead_share(place.relation),
        |place, share, everywhere| Finding {
            status: if share > TOO_MANY_DEAD { Condition::Red } else { Condition::Yellow },
            subject: fleet.subject(place.table, place.placement),
            symptom: format!(
                "{:.0} % of the rows of {} on {} are dead",
                share * 100.0,
                place.relation.quoted,
                place.node(fleet)
            ),
            evidence: Evidence::estimated("dead rows per row", rounded(share), MANY_DEAD),
            remedy: Some(renew(fleet, place, everywhere)),
        },
    )
}

/// REINDEX of every vector index, then VACUUM: on the whole table, or on one placement.
fn renew(fleet: &Fleet<'_>, place: Place<'_, '_>, everywhere: bool) -> Remedy {
    let of = if everywhere { place.table.shell } else { place.relation };
    let mut sql: Vec<String> =
        of.indexes.iter().filter(|index| index.valid).map(|index| reindex(of, index)).collect();
    sql.push(format!("VACUUM {}", of.quoted));
    let run_on = match everywhere {
        true => Remedy::on_coordinator("").run_on,
        false => fleet.on_node_of(place.placement, "").run_on,
    };
    Remedy { run_on, sql }
}

pub fn vacuum_stuck(fleet: &Fleet<'_>) -> Vec<Finding> {
    const IN_INDEXES: &str = "vacuuming indexes";
    let mut findings = Vec::new();
    for (number, node) in fleet.nodes.iter().enumerate() {
        let Ok(evidence) = node.answer else { continue };
        for vacuum in evidence.vacuums.iter().filter(|vacuum| vacuum.phase == IN_INDEXES) {
            let taken = evidence.observed_at - vacuum.started;
            let relation = evidence.relations.iter().find(|r| r.oid == vacuum.relation);
            let Some(relation) = relation.filter(|_| taken >= fleet.thresholds.stalled_after)
            else {
                continue;
            };
            let mut remedy =
                node.remedy(format!("SELECT pg_catalog.pg_cancel_backend({})", vacuum.pid));
            remedy.sql.extend(relation.indexes.iter().map(|index| reindex(relation, index)));
            findings.push(Finding {
                status: Condition::Yellow,
                subject: progress::subject(fleet, number, vacuum.relation, 0),
                symptom: format!(
                    "a VACUUM of {} on {} runs since {} s and is at the indexes",
                    relation.quoted,
                    node.address,
                    taken.round()
                ),
                evidence: Evidence::exact("seconds", taken.round(), fleet.thresholds.stalled_after),
                remedy: Some(remedy.then(format!("VACUUM {}", relation.quoted))),
            });
        }
    }
    findings
}

pub fn unindexed(fleet: &Fleet<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for table in &fleet.tables {
        for column in &table.shell.columns {
            findings.extend(unindexed_of(fleet, table, &column.name));
        }
    }
    findings
}

/// The rows of a placement that lack a value of a column with an index, where that is known.
fn lacking<'a>(placement: &Placement<'a>, name: &str) -> Option<(&'a Relation, &'a Column, f64)> {
    let relation = placement.relation?;
    let column = relation.columns.iter().find(|column| column.name == name)?;
    let mut indexes = relation.indexes.iter();
    let is_indexed = indexes.any(|i| i.valid && !i.partial && i.columns.contains(&column.name));
    let known = column.null_fraction.filter(|_| is_indexed && relation.rows() >= 1.0)?;
    Some((relation, column, known * relation.rows()))
}

/// A column may be without values on purpose, which nothing in the catalogs tells. Then it is so on all
/// shards alike: what only one lacks has not arrived there.
fn unindexed_of(fleet: &Fleet<'_>, table: &Table<'_>, name: &str) -> Vec<Finding> {
    let found: Vec<_> =
        table.placements.iter().filter_map(|p| Some((p, lacking(p, name)?))).collect();
    let nulls: f64 = found.iter().map(|(_, (_, _, nulls))| nulls).sum();
    let rows: f64 = found.iter().map(|(_, (relation, ..))| relation.rows()).sum();
    let tell =
        |(placement, (relation, column, own)): &(&Placement<'_>, (&Relation, &Column, f64))| {
            let share = own / relation.rows();
            let elsewhere = rows - relation.rows();
            let others_have = elsewhere > 0.0 && (nulls - own) / elsewhere <= MANY_NULLS;
            (share > 0.0).then(|| Finding {
                status: match share > MANY_NULLS && others_have {
                    true => Condition::Yellow,
                    false => Condition::Green,
                },
                subject: fleet.subject(table, placement),
                symptom: format!(
                    "{:.1} % of the rows of {} on {} have no {}, so its index does not hold them",
                    share * 100.0,
                    relation.quoted,
                    fleet.node(placement).address,
                    column.quoted
                ),
                evidence: Evidence::estimated("NULLs per row", rounded(share), MANY_NULLS),
                // Where the vectors come from is not in the catalogs.
                remedy: None,
            })
        };
    found.iter().filter_map(tell).collect()
}

fn is_stale(relation: &Relation) -> bool {
    let modified = relation.modified as f64;
    modified >= FEW_ROWS && (relation.reltuples < 0.0 || modified > STALE * relation.rows())
}

pub fn stale_statistics(fleet: &Fleet<'_>) -> Vec<Finding> {
    each_placement(
        fleet,
        |place| is_stale(place.relation).then_some(place.relation.modified),
        |place, modified, _| Finding {
            // Autovacuum does it by itself, mostly within minutes.
            status: match place.relation.autovacuum {
                Some(_) => Condition::Green,
                None => Condition::Yellow,
            },
            subject: fleet.subject(place.table, place.placement),
            symptom: format!(
                "{modified} rows of {} on {} changed since the last ANALYZE",
                place.relation.quoted,
                place.node(fleet)
            ),
            evidence: Evidence::exact(
                "rows changed since the last ANALYZE",
                modified,
                (STALE * place.relation.rows()).round().max(FEW_ROWS),
            ),
            remedy: (place.relation.autovacuum.is_none())
                .then(|| Remedy::on_coordinator(format!("ANALYZE {}", place.table.name))),
        },
    )
}
