//! Owns lists: the worst rows first, those that somebody asks for, and no more of them at once than an
//! answer may have bytes. Must not know what a row is about beyond its table, its node and its status.

use super::query::Query;
use decide::condition::Condition;
use serde_json::{Value, json};
use std::cmp::Reverse;

/// Bytes of the rows of one answer, so that all answers of a refresh together have less than 200 kB: names
/// may be as long as PostgreSQL lets them be.
const MOST_BYTES: usize = 30 << 10;

/// The worst first; those that are as bad stay in their order.
pub fn sort(rows: &mut [Value]) {
    rows.sort_by_cached_key(|row| Reverse(badness(row)));
}

/// The page that is asked for, as many rows of it as there is room for; `next` is where the one after it
/// begins.
pub fn page(rows: &[Value], query: &Query) -> Value {
    let asked: Vec<&Value> = rows.iter().filter(|row| is_asked_for(row, query)).collect();
    let rows = first(asked.iter().skip(query.offset).take(query.limit).copied(), MOST_BYTES);
    let next = query.offset + rows.len();
    let next = (!rows.is_empty() && next < asked.len()).then_some(next);
    json!({ "total": asked.len(), "offset": query.offset, "next": next, "rows": rows })
}

/// How many rows there are of each status.
pub fn counts(rows: &[Value]) -> Value {
    let count = |name: &str| rows.iter().filter(|row| row["status"] == name).count();
    Condition::NAMES.into_iter().map(|name| (name.to_owned(), json!(count(name)))).collect()
}

/// The first rows, as many as have so many bytes; one that has more by itself is shown nonetheless, or
/// nobody would get past it.
pub fn first<'a>(rows: impl Iterator<Item = &'a Value>, bytes: usize) -> Vec<&'a Value> {
    let mut taken = 0;
    let mut shown = Vec::new();
    for row in rows {
        taken += row.to_string().len();
        if taken > bytes && !shown.is_empty() {
            break;
        }
        shown.push(row);
    }
    shown
}

fn is_asked_for(row: &Value, query: &Query) -> bool {
    let is_found = |part: &str| {
        let table = row["table_name"].as_str().is_some_and(|it| it.to_lowercase().contains(part));
        table || node(row).is_some_and(|it| it.to_lowercase().contains(part))
    };
    query.table.as_deref().is_none_or(|table| row["table_name"] == table)
        && query.node.as_deref().is_none_or(|asked| node(row).is_some_and(|node| node == asked))
        && query.find.as_deref().is_none_or(is_found)
        && (!query.wrong || badness(row) > Condition::Green)
}

/// `host:port`; none where a row is of no node.
pub fn node(row: &Value) -> Option<String> {
    Some(format!("{}:{}", row["nodename"].as_str()?, row["nodeport"]))
}

/// How bad a row says that it is; one that says nothing, as of what is under way, is as well as can be.
pub fn badness(row: &Value) -> Condition {
    Condition::of_row(row).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shards(many: usize) -> Vec<Value> {
        let status = |n: usize| if n % 10 == 7 { "red" } else { "green" };
        let row = |n| {
            json!({ "table_name": format!("public.t{}", n % 2), "shardid": n, "nodename": "w",
                    "nodeport": 5432 + n % 3, "status": status(n) })
        };
        let mut rows: Vec<Value> = (0..many).map(row).collect();
        sort(&mut rows);
        rows
    }

    fn ids(page: &Value) -> Vec<u64> {
        page["rows"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["shardid"].as_u64().unwrap())
            .collect()
    }

    #[test]
    fn the_worst_come_first_and_every_row_once() {
        let rows = shards(100);
        let mut seen = Vec::new();
        let mut query = Query { limit: 7, ..Query::default() };
        loop {
            let page = page(&rows, &query);
            assert_eq!(page["total"], 100);
            seen.extend(ids(&page));
            let Some(next) = page["next"].as_u64() else { break };
            query.offset = next as usize;
        }
        assert_eq!(seen[..10], [7, 17, 27, 37, 47, 57, 67, 77, 87, 97]);
        seen.sort_unstable();
        assert_eq!(seen, (0..100).collect::<Vec<u64>>());
        assert_eq!(counts(&rows), json!({ "green": 90, "unknown": 0, "yellow": 0, "red": 10 }));
    }

    #[test]
    fn only_what_is_asked_for_is_there() {
        let rows = shards(100);
        let asked = |query: Query| page(&rows, &query)["total"].as_u64().unwrap();
        let table = || Some("public.t0".to_owned());
        assert_eq!(asked(Query { table: table(), ..Query::default() }), 50);
        assert_eq!(asked(Query { table: table(), wrong: true, ..Query::default() }), 0);
        assert_eq!(asked(Query { wrong: true, ..Query::default() }), 10);
        assert_eq!(asked(Query { node: Some("w:5432".into()), ..Query::default() }), 34);
        assert_eq!(asked(Query { node: Some("w".into()), ..Query::default() }), 0);
        assert_eq!(asked(Query { find: Some("ic.t1".into()), ..Query::default() }), 50);
        let beyond = page(&rows, &Query { offset: 1000, ..Query::default() });
        assert_eq!((ids(&beyond), &beyond["next"]), (vec![], &Value::Null));
    }

    #[test]
    fn an_answer_has_an_end_however_long_the_names_are() {
        let row = |n: usize| json!({ "shardid": n, "table_name": "x".repeat(40_000) });
        let rows: Vec<Value> =
            (0..3).map(row).chain([json!({"v": "x".repeat(MOST_BYTES)})]).collect();
        let page = page(&rows, &Query::default());
        assert_eq!((ids(&page), &page["next"]), (vec![0], &json!(1)));
        assert_eq!(first(rows[3..].iter(), 10).len(), 1, "nobody is stuck before it");
    }
}
