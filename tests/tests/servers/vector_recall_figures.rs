//! The figures of `fleet.vector_recall` against brute force in SQL, for every metric, type and method.

use crate::suite::{Test, suite};
use crate::vector_recall::{lone, number};
use citus_fleet_tests::Need;
use citus_fleet_tests::server::Row;

pub fn suite() -> Vec<Test> {
    suite!("vector_recall_figures", &[Need::Fleet, Need::Vector]; figures_are_those_of_brute_force)
}

/// One way to index the table `items`.
struct Case {
    method: &'static str,
    expression: &'static str,
    class: &'static str,
    operator: &'static str,
    predicate: &'static str,
}

const fn case(
    method: &'static str,
    expression: &'static str,
    class: &'static str,
    operator: &'static str,
) -> Case {
    Case { method, expression, class, operator, predicate: "true" }
}

const CASES: [Case; 16] = [
    case("hnsw", "v", "vector_l2_ops", "<->"),
    case("hnsw", "v", "vector_ip_ops", "<#>"),
    case("hnsw", "v", "vector_cosine_ops", "<=>"),
    case("hnsw", "v", "vector_l1_ops", "<+>"),
    case("ivfflat", "v", "vector_l2_ops", "<->"),
    case("ivfflat", "v", "vector_cosine_ops", "<=>"),
    case("hnsw", "h", "halfvec_cosine_ops", "<=>"),
    case("ivfflat", "h", "halfvec_ip_ops", "<#>"),
    case("hnsw", "s", "sparsevec_l2_ops", "<->"),
    case("hnsw", "s", "sparsevec_cosine_ops", "<=>"),
    case("hnsw", "b", "bit_hamming_ops", "<~>"),
    case("hnsw", "b", "bit_jaccard_ops", "<%>"),
    case("ivfflat", "b", "bit_hamming_ops", "<~>"),
    case("hnsw", "(v::halfvec(16))", "halfvec_l2_ops", "<->"),
    case("hnsw", "(binary_quantize(v)::bit(16))", "bit_hamming_ops", "<~>"),
    Case { predicate: "id % 3 = 0", ..case("hnsw", "v", "vector_l2_ops", "<->") },
];

/// Rows with NULLs, zero vectors and duplicates among them.
const ITEMS: &str = "
    CREATE TABLE items (id int, v vector(16), h halfvec(16), s sparsevec(16), b bit(64));
    SELECT setseed(0.42);
    INSERT INTO items (id, v) SELECT i, CASE
        WHEN i % 50 = 0 THEN NULL
        WHEN i % 51 = 0 THEN array_fill(0, ARRAY[16])::vector
        WHEN i % 7 = 0 THEN array_fill(i % 5 + 1, ARRAY[16])::vector
        ELSE (SELECT array_agg(random() - 0.5) FROM generate_series(1, 16) WHERE i > 0)::vector END
      FROM generate_series(1, 300) i;
    UPDATE items SET h = v, s = v::sparsevec,
      b = (SELECT string_agg((random() < 0.4)::int::text, '') FROM generate_series(1, 64) WHERE id > 0)::bit(64)";

const K: usize = 5;

/// Asks with every row, as `fleet.vector_recall` does where the sample is larger than the table, and
/// lets SQL say how many of the neighbours that the index gives are no farther than the fifth.
fn brute_force(case: &Case) -> String {
    let Case { expression: e, operator: op, predicate: p, .. } = case;
    let more = K + 1;
    // What an index that normalizes may round.
    let slack = if *op == "<=>" { 1e-6 } else { 0.0 };
    format!(
        "WITH q AS MATERIALIZED (SELECT ctid AS tid, {e} AS v FROM items WHERE {p} AND {e} IS NOT NULL)
         SELECT count(*) AS queries, avg(ann.hits::float8 / exact.n) AS recall,
                sum(ann.returned)::float8 / sum(exact.n) AS returned_ratio,
                percentile_cont(0.1) WITHIN GROUP (ORDER BY ann.hits::float8 / exact.n) AS p10
         FROM q CROSS JOIN LATERAL (
           SELECT max(d) AS last, count(*) AS n
           FROM (SELECT ({e} {op} q.v) + 0 AS d FROM items
                 WHERE {p} AND ctid <> q.tid AND {e} IS NOT NULL ORDER BY 1 LIMIT {K}) e
           WHERE d <> 'NaN') exact
         CROSS JOIN LATERAL (
           SELECT count(*) FILTER (WHERE d <= exact.last + {slack}) AS hits, count(*) AS returned
           FROM (SELECT d FROM (
                   SELECT ctid AS tid, {e} {op} q.v AS d FROM items
                   WHERE {p} ORDER BY {e} {op} q.v LIMIT {more}) a
                 WHERE tid <> q.tid LIMIT {K}) a) ann
         WHERE (q.v {op} q.v) <> 'NaN' AND exact.n > 0"
    )
}

fn figures_are_those_of_brute_force() {
    let cluster = lone();
    let mut session = cluster.coordinator.session();
    session.run(ITEMS);
    session.run("SET enable_seqscan = off; SET hnsw.ef_search = 6; SET ivfflat.probes = 2");
    // It is measured by what is set for the database, whatever the session has.
    session.run(
        "ALTER DATABASE postgres SET hnsw.ef_search = 6; ALTER DATABASE postgres SET ivfflat.probes = 2",
    );
    let mut imperfect = 0;
    for case in &CASES {
        let Case { method, expression, class, predicate, operator } = case;
        let options = if *method == "hnsw" { "m = 3, ef_construction = 6" } else { "lists = 12" };
        session.run(&format!(
            "CREATE INDEX probed ON items USING {method} ({expression} {class}) WITH ({options}) WHERE {predicate}"
        ));
        let brute = brute_force(case);
        let plan = session.rows(&format!("EXPLAIN {brute}"));
        let uses = |row: &Row| row.first().contains("Index Scan using probed");
        assert!(plan.iter().any(uses), "{class}: {plan:?}");
        let truth = session.rows(&brute);
        let ours = session.rows(&format!("SELECT * FROM fleet.vector_recall('items', {K}, 10000)"));
        assert_eq!(ours.len(), 1, "{class}: {ours:?}");
        for figure in ["queries", "recall", "returned_ratio", "p10"] {
            let (truth, ours) = (number(&truth[0], figure), number(&ours[0], figure));
            assert!(
                (truth - ours).abs() < 2e-6,
                "{method} {expression} {class} {operator}: {figure} is {ours}, brute force says {truth}"
            );
        }
        let recall = number(&ours[0], "recall");
        assert!(number(&ours[0], "ci_low") <= recall && recall <= number(&ours[0], "ci_high"));
        imperfect += usize::from(recall < 0.999);
        session.run("DROP INDEX probed");
    }
    assert!(imperfect >= 10, "only {imperfect} of the indexes missed anything: a poor test");
    // Several indexes on one table: a row for each, by its own order.
    session.run(
        "CREATE INDEX one ON items USING hnsw (v vector_l2_ops);
         CREATE INDEX two ON items USING hnsw (v vector_cosine_ops);
         ALTER DATABASE postgres SET hnsw.ef_search = 1000",
    );
    let rows = session.rows("SELECT * FROM fleet.vector_recall('items', 10, 1000)");
    let names: Vec<&str> = rows.iter().map(|row| &row["index"]).collect();
    assert_eq!(names, ["one", "two"]);
    assert!(rows.iter().all(|row| number(row, "recall") == 1.0), "{rows:?}");
    // More neighbours than there are rows: what there is, and a note.
    let few = session.rows("SELECT * FROM fleet.vector_recall('items', 5000, 20)");
    assert!(few.iter().all(|row| row["note"].contains("fewer than k + 1")), "{few:?}");
    assert!(few.iter().all(|row| number(row, "returned_ratio") <= 1.0), "{few:?}");
    // A transaction sees its own rows, on both sides.
    session.run("BEGIN READ WRITE; DELETE FROM items WHERE id > 20");
    let own = session.rows("SELECT * FROM fleet.vector_recall('items', 5, 1000)");
    assert!(number(&own[0], "queries") <= 20.0 && number(&own[0], "recall") == 1.0, "{own:?}");
    session.run("ROLLBACK");
}
