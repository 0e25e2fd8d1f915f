//! Owns what SQL sees of recall: its arguments, its privileges and its rows.
//! Must not measure: a node does, for its own placements.

use crate::backend::relation::require_table;
use crate::error::Error;
use crate::observe::recall::{self, cluster, target};
use crate::recall_results;
use crate::session;
use crate::settings::Settings;
use decide::search::recall::ask::Ask;
use decide::search::recall::result::{Measured, Placed};
use pgrx::datum::Interval;
use pgrx::prelude::*;

#[pg_schema]
pub mod fleet {
    use super::{interval, measure_here, vector_recall_rows};
    use crate::backend::encoding::{Json, Text};
    use crate::error::{Error, given};
    use pgrx::PgRelation;
    use pgrx::datum::Interval;
    use pgrx::prelude::*;

    /// Measures how much of the exact answer the vector indexes of a table give: one row for each
    /// index of each placement, each measured on its own node, all nodes at the same time.
    ///
    /// `sample` rows of a placement are asked with, each for its `k` nearest neighbours; the index
    /// answers by the settings of the database on that node, and one pass over the placement's heap
    /// says what the right answer is. `recall` is the mean over the queries, `ci_low` and `ci_high`
    /// its 95 % confidence interval, `p10` what nine queries in ten reach, `returned_ratio` the
    /// rows that came back against those that there were to come. A placement that could not be
    /// measured, its node being down or the `budget` too short, is a row with a `note`.
    ///
    /// The tables are only read. Figures for the default `k` of at least the default `sample` are
    /// kept in `fleet.recall_results`, for health to look at, where a superuser calls in a
    /// transaction that may write.
    ///
    /// Errors: 22023 for arguments that make no sense; 42809 for what is no table or has no
    /// vectors; 55000 for a table without a vector index, and on a worker; 42501 without SELECT on
    /// the table.
    // pgrx reads the columns from the signature itself and knows no alias.
    #[allow(clippy::type_complexity)]
    #[pg_extern(volatile, parallel_unsafe)]
    pub fn vector_recall(
        relation: Option<PgRelation>,
        k: default!(Option<i32>, 10),
        sample: default!(Option<i32>, 100),
        budget: default!(Option<Interval>, "'30 s'"),
    ) -> TableIterator<
        'static,
        (
            name!(nodename, String),
            name!(nodeport, i32),
            name!(shardid, Option<i64>),
            name!(placement, Text),
            name!(index, Option<Text>),
            name!(k, i32),
            name!(queries, i32),
            name!(recall, Option<f64>),
            name!(ci_low, Option<f64>),
            name!(ci_high, Option<f64>),
            name!(p10, Option<f64>),
            name!(returned_ratio, Option<f64>),
            name!(duration, Option<Interval>),
            name!(note, Option<Text>),
        ),
    > {
        let (relation, k) = (given(relation, "relation"), given(k, "k"));
        let (sample, budget) = (given(sample, "sample"), given(budget, "budget"));
        let rows = vector_recall_rows(relation.oid(), k, sample, &budget)
            .unwrap_or_else(|error: Error| error.raise());
        TableIterator::new(rows.into_iter().map(move |row| {
            let measured = row.measured;
            (
                row.node.nodename,
                i32::from(row.node.nodeport),
                row.shardid,
                Text(measured.relation),
                measured.index.map(Text),
                k,
                i32::try_from(measured.queries).unwrap_or(i32::MAX),
                measured.recall,
                measured.ci_low,
                measured.ci_high,
                measured.p10,
                measured.returned_ratio,
                measured.duration_ms.map(interval),
                measured.note.map(Text),
            )
        }))
    }

    /// Measures the recall of every hnsw and ivfflat index of tables of this server, given by
    /// qualified names: one JSON object for each. `fleet.vector_recall` asks every node for it.
    ///
    /// Reads only. A table that cannot be measured is an object with a `note`, not an error.
    /// `budget_ms` holds for all of them together.
    ///
    /// Errors: 22023 for arguments that make no sense; 42501 unless superuser, since it takes no
    /// privilege on the tables.
    #[pg_extern(volatile, parallel_unsafe)]
    pub fn shard_recall(
        relations: Option<Vec<String>>,
        k: Option<i32>,
        sample: Option<i32>,
        budget_ms: Option<i64>,
    ) -> Json {
        let (relations, k) = (given(relations, "relations"), given(k, "k"));
        let (sample, budget_ms) = (given(sample, "sample"), given(budget_ms, "budget_ms"));
        let measured = measure_here(&relations, k, sample, budget_ms)
            .unwrap_or_else(|error: Error| error.raise());
        Json(serde_json::json!(measured))
    }
}

fn measure_here(
    relations: &[String],
    k: i32,
    sample: i32,
    budget_ms: i64,
) -> Result<Vec<Measured>, Error> {
    session::require_superuser("fleet.shard_recall()")?;
    let ask = Ask::new(k, sample, budget_ms.saturating_mul(1000))?;
    Ok(recall::measure(relations, &ask))
}

fn vector_recall_rows(
    relation: pg_sys::Oid,
    k: i32,
    sample: i32,
    budget: &Interval,
) -> Result<Vec<Placed>, Error> {
    let ask = Ask::new(k, sample, microseconds(budget))?;
    require_table(relation)?;
    target::may_read(relation)?;
    let survey = cluster::survey(relation)?;
    let mut rows = survey.measure_here(&ask);
    if survey.is_distributed() {
        let settings = Settings::current().map_err(Error::Internal)?;
        let credentials = cluster::credentials()?;
        rows.extend(survey.measure_elsewhere(&ask, &credentials, settings.probe_timeout)?);
    }
    survey.check(&rows)?;
    if ask.is_to_be_kept() && may_write() {
        recall_results::store(relation, &ask, &rows)?;
    }
    Ok(rows)
}

/// Whether the figures can be kept: a superuser's transaction that may write.
fn may_write() -> bool {
    // SAFETY: flags of this session and of the server.
    unsafe { pg_sys::superuser() && !pg_sys::XactReadOnly && !pg_sys::RecoveryInProgress() }
}

/// An interval's length, with months of 30 days, as PostgreSQL compares intervals.
fn microseconds(interval: &Interval) -> i64 {
    const DAY: i64 = 86_400_000_000;
    let days = i64::from(interval.months()) * 30 + i64::from(interval.days());
    days.saturating_mul(DAY).saturating_add(interval.micros())
}

fn interval(milliseconds: f64) -> Interval {
    Interval::from_micros((milliseconds * 1e3) as i64)
}
