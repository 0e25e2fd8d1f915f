//! Owns which tables have metrics of their own where there are thousands of them, as with a schema for
//! each tenant. Must not count anything else.

use crate::condition::Condition;
use serde_json::Value;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// So many places of tables, each of them a table on a node, have series of their own.
const MOST_PLACES: usize = 200;

/// How bad a table's worst placement is, and the nodes that it is on.
type Table<'a> = (Condition, BTreeSet<(&'a str, Option<u64>)>);

/// The rows of `fleet.vector_shards` whose tables have series, the worst tables before the others; and how
/// many tables have none.
pub fn shown(shards: &[Value]) -> (Vec<&Value>, usize) {
    let name = |shard: &Value| shard["table_name"].as_str().unwrap_or_default().to_owned();
    let mut tables: BTreeMap<String, Table<'_>> = BTreeMap::new();
    for shard in shards {
        let (worst, nodes) = tables.entry(name(shard)).or_default();
        *worst = badness(shard).max(*worst);
        nodes.insert((shard["nodename"].as_str().unwrap_or_default(), shard["nodeport"].as_u64()));
    }
    let all = tables.len();
    let mut tables: Vec<(String, Table<'_>)> = tables.into_iter().collect();
    tables.sort_by_key(|(_, (worst, _))| Reverse(*worst));
    let mut taken = 0;
    let has_room = |(_, (_, nodes)): &(String, Table<'_>)| {
        let before = taken;
        taken += nodes.len();
        before < MOST_PLACES
    };
    let kept: BTreeSet<String> =
        tables.into_iter().take_while(has_room).map(|(table, _)| table).collect();
    let shown = shards.iter().filter(|shard| kept.contains(&name(shard))).collect();
    (shown, all - kept.len())
}

/// The rows of as many indexes as have series, the worst before the others.
pub fn worst(indexes: &[Value]) -> Vec<&Value> {
    let mut rows: Vec<&Value> = indexes.iter().collect();
    rows.sort_by_key(|row| Reverse(badness(row)));
    rows.truncate(MOST_PLACES);
    rows
}

fn badness(row: &Value) -> Condition {
    Condition::of_row(row).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::shown;
    use serde_json::{Value, json};

    fn shard(table: usize, node: usize, status: &str) -> Value {
        json!({ "table_name": format!("t{table}.a"), "nodename": "w", "nodeport": node, "status": status })
    }

    #[test]
    fn of_thousands_of_tables_the_worst_have_series() {
        let status = |n| if n == 2999 { "yellow" } else { "green" };
        let shards: Vec<Value> = (0..3000).map(|n| shard(n, n % 4, status(n))).collect();
        let (shown, left_out) = shown(&shards);
        assert_eq!((shown.len(), left_out), (200, 2800));
        assert!(shown.contains(&&shards[2999]));
    }

    #[test]
    fn a_large_cluster_of_few_tables_has_all_of_them() {
        let shards: Vec<Value> =
            (0..3).flat_map(|t| (0..2000).map(move |n| shard(t, n % 20, "green"))).collect();
        assert_eq!(shown(&shards), (shards.iter().collect(), 0));
        let wide: Vec<Value> = (0..1000).map(|node| shard(0, node, "red")).collect();
        assert_eq!(shown(&wide).1, 0, "one table has series, on however many nodes it is");
    }
}
