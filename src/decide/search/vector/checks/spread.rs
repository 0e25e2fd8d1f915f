//! Owns the checks across nodes: how evenly rows are spread, whether replicas agree, what moves.
//! Must not look at one placement alone.

use super::nodes::rounded;
use crate::condition::Condition;
use crate::node::literal;
use crate::search::vector::catalogs::CatalogShard;
use crate::search::vector::finding::{Concern, Evidence, Finding, Remedy};
use crate::search::vector::fleet::{Fleet, Kind, Placement, Table, quote};
use crate::search::vector::model::Relation;
use crate::search::vector::nodes::FleetNode;
use crate::search::vector::progress;

/// The largest against the mean.
const UNEVEN: f64 = 1.5;
/// A tenant of so many of a shard's rows has twice as many as all others together.
const DOMINANT: f64 = 2.0 / 3.0;
/// A shard of practically one tenant: nothing is won by parting it from the others.
const ALONE: f64 = 0.99;
/// Moves that lower the fullest node by less of a mean one are not worth it.
const GAIN: f64 = 0.1;
/// Replicas are counted by estimates: less than this share, or so few rows, is no difference.
const APART: f64 = 0.1;
const APART_ROWS: f64 = 100.0;

pub fn skew(fleet: &Fleet<'_>) -> Vec<Finding> {
    let distributed = fleet.tables.iter().filter(|table| table.kind == Kind::Distributed);
    let shards = distributed.filter_map(|table| uneven_shards(fleet, table));
    shards.chain(uneven_nodes(fleet)).collect()
}

/// The share of a shard's rows that one tenant has, where it is more than half.
fn tenant_share(table: &Table<'_>, relation: &Relation) -> f64 {
    let share = table.distribution_column.and_then(|column| relation.dominant.get(column));
    share.copied().unwrap_or(0.0)
}

/// A shard that holds one tenant alone cannot be divided any more.
fn is_divisible(table: &Table<'_>, shard: &CatalogShard, relation: &Relation) -> bool {
    shard.minimum != shard.maximum && tenant_share(table, relation) <= ALONE
}

fn uneven_shards(fleet: &Fleet<'_>, table: &Table<'_>) -> Option<Finding> {
    let mut rows = Vec::new();
    for placement in &table.placements {
        let Some(shard) = placement.shard else { continue };
        // One placement that is not known could be the largest.
        let relation = placement.relation?;
        if is_divisible(table, shard, relation) {
            rows.push((shard, placement, relation));
        }
    }
    let total: f64 = rows.iter().map(|(.., relation)| relation.rows()).sum();
    let (shard, placement, most) = rows.iter().max_by(|a, b| a.2.rows().total_cmp(&b.2.rows()))?;
    let ratio = most.rows() / (total / rows.len() as f64);
    if rows.len() < 2 || total < fleet.thresholds.index_min_rows || ratio <= UNEVEN {
        return None;
    }
    let name = literal(table.name);
    // Several tenants of much the same size that happen to share a shard are not helped by giving one of
    // them another: of fewer tenants than shards some always do.
    let is_dominated = tenant_share(table, most) > DOMINANT;
    Some(Finding {
        status: if is_dominated { Condition::Yellow } else { Condition::Green },
        subject: fleet.subject(table, placement),
        symptom: format!(
            "shard {} of {} has {ratio:.1} times the rows of a mean shard",
            shard.shardid, table.name
        ),
        evidence: Evidence::estimated("rows per row of a mean shard", rounded(ratio), UNEVEN),
        remedy: table.distribution_column.filter(|_| is_dominated).map(|column| {
            let column = quote(column);
            Remedy::on_coordinator(format!(
                "SELECT pg_catalog.isolate_tenant_to_new_shard({name}, (SELECT {column} FROM {} \
                 WHERE pg_catalog.get_shard_id_for_distribution_column({name}, {column}) = {} \
                 GROUP BY 1 ORDER BY pg_catalog.count(*) DESC LIMIT 1), 'CASCADE', {})",
                table.name,
                shard.shardid,
                split_mode(fleet, table.shell)
            ))
        }),
    })
}

/// Bytes of vector indexes of distributed tables, on the nodes that are there for shards.
fn uneven_nodes(fleet: &Fleet<'_>) -> Option<Finding> {
    // Of each node its shards.
    let mut held: Vec<(usize, Vec<f64>)> = Vec::new();
    for (number, node) in fleet.nodes.iter().enumerate().filter(|(_, node)| node.holds_shards) {
        node.answer.ok()?;
        held.push((number, Vec::new()));
    }
    let mut rows = 0.0;
    for (table, placement, relation) in fleet.placements() {
        let Some(node) = held.iter_mut().find(|(number, _)| *number == placement.node) else {
            continue;
        };
        if table.kind == Kind::Distributed {
            let bytes = relation.indexes.iter().map(|index| index.bytes()).sum::<u64>();
            node.1.push(bytes as f64);
            rows += relation.rows();
        }
    }
    let sum = |shards: &[f64]| shards.iter().sum::<f64>();
    let mean = held.iter().map(|(_, shards)| sum(shards)).sum::<f64>() / held.len().max(1) as f64;
    let (number, fullest) = held.iter().max_by(|a, b| sum(&a.1).total_cmp(&sum(&b.1)))?;
    let least = held.iter().map(|(_, shards)| sum(shards)).fold(f64::INFINITY, f64::min);
    let (most, ratio) = (sum(fullest), sum(fullest) / mean);
    if held.len() < 2 || rows < fleet.thresholds.index_min_rows || mean == 0.0 || ratio <= UNEVEN {
        return None;
    }
    // One shard cannot be spread over two nodes: where the emptiest node would be as full as this one is
    // now, moving it helps nobody; nor does moving next to nothing.
    let gain = |shard: &f64| shard.min(most - least - shard).max(0.0);
    if fullest.iter().map(gain).sum::<f64>() <= GAIN * mean {
        return None;
    }
    Some(Finding {
        status: Condition::Yellow,
        subject: fleet.nodes[*number].subject(),
        symptom: format!(
            "{} holds {ratio:.1} times the vector indexes of a mean node",
            fleet.nodes[*number].address
        ),
        evidence: Evidence::estimated(
            "index bytes per byte of a mean node",
            rounded(ratio),
            UNEVEN,
        ),
        remedy: Some(rebalance(fleet)),
    })
}

/// How shards can be moved: without blocking writes only where all of their rows have an identity.
fn transfer_mode<'a>(mut shells: impl Iterator<Item = &'a Relation>) -> &'static str {
    if shells.all(|shell| shell.has_identity) { "'auto'" } else { "'block_writes'" }
}

/// How a shard can be split: as it is moved, and where all servers let Citus's own output plugin be used, which
/// newer versions of PostgreSQL have to be told.
fn split_mode(fleet: &Fleet<'_>, shell: &Relation) -> &'static str {
    let forbids = |node: &FleetNode<'_>| {
        let settings = node.answer.ok().map(|evidence| &evidence.settings);
        let allowed = settings.and_then(|settings| settings.get("output_plugin_libraries"));
        allowed.is_some_and(|it| !it.value.split(',').any(|name| name.trim() == "citus"))
    };
    if fleet.nodes.iter().any(forbids) {
        return "'block_writes'";
    }
    transfer_mode(std::iter::once(shell))
}

fn rebalance(fleet: &Fleet<'_>) -> Remedy {
    let distributed = fleet.tables.iter().filter(|table| table.kind == Kind::Distributed);
    let mode = transfer_mode(distributed.map(|table| table.shell));
    Remedy::on_coordinator(format!(
        "SELECT pg_catalog.citus_rebalance_start(shard_transfer_mode => {mode})"
    ))
}

pub fn divergence(fleet: &Fleet<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for table in fleet.tables.iter().filter(|table| table.sharded) {
        // Those of one shard stand together.
        let id = |placement: &Placement<'_>| placement.shard.map(|shard| shard.shardid);
        for replicas in table.placements.chunk_by(|a, b| id(a) == id(b)) {
            findings.extend(diverged(fleet, table, replicas));
        }
    }
    findings
}

/// Whether the statistics tell how many rows there are closely enough to compare: the last ANALYZE is not
/// outdated by what was written since. Of pages without rows the statistics are lost.
fn is_counted(relation: &Relation) -> bool {
    let rows = relation.rows();
    let is_recent =
        relation.last_analyze.is_some() && relation.modified as f64 <= APART / 2.0 * rows;
    relation.pages == Some(0) || (rows > 0.0 && is_recent)
}

fn diverged(fleet: &Fleet<'_>, table: &Table<'_>, replicas: &[Placement<'_>]) -> Option<Finding> {
    let shardid = replicas.first()?.shard?.shardid;
    let known: Vec<(&Placement<'_>, &Relation)> = replicas
        .iter()
        .filter_map(|placement| Some((placement, placement.relation?)))
        .filter(|(_, relation)| is_counted(relation))
        .collect();
    let by_rows = |a: &&(&Placement<'_>, &Relation), b: &&(&Placement<'_>, &Relation)| {
        a.1.rows().total_cmp(&b.1.rows())
    };
    let (few, most) = (known.iter().min_by(by_rows)?, known.iter().max_by(by_rows)?);
    let (fewer, more) = (few.1.rows(), most.1.rows());
    if more - fewer < APART_ROWS || more - fewer < APART * more {
        return None;
    }
    let (from, to) = (fleet.node(most.0), fleet.node(few.0));
    Some(Finding {
        status: Condition::Yellow,
        subject: fleet.subject(table, few.0),
        symptom: format!(
            "{} has {} rows on {}, and {} on {}",
            few.1.quoted,
            fewer.round(),
            to.address,
            more.round(),
            from.address
        ),
        evidence: Evidence::estimated("rows", fewer.round(), more.round()),
        remedy: Some(count(table, shardid)),
    })
}

/// What both have, counted. Which of them is right is for a person to say, and nothing is emptied before.
fn count(table: &Table<'_>, shardid: i64) -> Remedy {
    Remedy::on_coordinator(format!(
        "SELECT r.nodename, r.nodeport, r.result AS rows FROM pg_catalog.run_command_on_placements({}, \
         'SELECT pg_catalog.count(*) FROM %s') AS r WHERE r.shardid = {shardid}",
        literal(table.name)
    ))
}

pub fn moving(fleet: &Fleet<'_>) -> Vec<Finding> {
    let clean = || Remedy::on_coordinator("CALL pg_catalog.citus_cleanup_orphaned_resources()");
    let mut findings: Vec<Finding> = fleet
        .arrivals
        .iter()
        .map(|arrival| {
            let node = &fleet.nodes[arrival.node];
            let (status, words) = match arrival.leaves {
                true => (Condition::Green, "has moved away and is about to be removed"),
                false => {
                    (Condition::Yellow, "is on its way there, or was left by a move that failed")
                }
            };
            Finding {
                status,
                subject: Concern {
                    node: Some(node.address.clone()),
                    table: Some(arrival.table.to_owned()),
                    shardid: Some(arrival.shardid),
                    index: None,
                },
                symptom: format!("{} on {} {words}", arrival.relation.quoted, node.address),
                evidence: Evidence::estimated("done", progress::of_arrival(arrival), 1.0),
                remedy: Some(clean()),
            }
        })
        .collect();
    for node in &fleet.nodes {
        let slots = node.answer.map(|evidence| evidence.slots.as_slice()).unwrap_or_default();
        findings.extend(slots.iter().map(|slot| Finding {
            status: Condition::Yellow,
            subject: node.subject(),
            symptom: format!(
                "replication slot {} on {} keeps WAL for a shard that moves",
                slot.name, node.address
            ),
            evidence: Evidence::exact("bytes of WAL kept", slot.retained, None::<u64>),
            remedy: Some(clean()),
        }));
    }
    findings
}

pub fn job(fleet: &Fleet<'_>) -> Vec<Finding> {
    let failed = fleet.job.filter(|job| ["failed", "failing"].contains(&job.state.as_str()));
    failed
        .map(|job| Finding {
            status: Condition::Yellow,
            subject: Concern::default(),
            symptom: format!(
                "background job {} ({}) has failed: {}",
                job.id,
                job.description,
                job.message.as_deref().unwrap_or("no message")
            ),
            evidence: Evidence::exact("state", job.state.as_str(), "finished"),
            remedy: Some(rebalance(fleet)),
        })
        .into_iter()
        .collect()
}
