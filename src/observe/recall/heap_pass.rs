//! Owns the exact side: one pass over the heap, in which every row is measured against every query.
//! Must not use an index, nor give an answer for a table of which it has seen only a part.

use super::index::{AnnIndex, Query};
use decide::search::recall::ask::affordable;
use decide::search::recall::nearest::{Nearest, Score};
use pgrx::{check_for_interrupts, pg_sys};
use std::time::{Duration, Instant};

/// Fewer queries than this say little: a pass that is late gives up no more of them.
const LEAST_QUERIES: usize = 10;

/// After how much of its time a pass looks whether it will be late.
const LOOK: f64 = 0.02;

pub enum Pass {
    Complete {
        scores: Vec<Score>,
        /// Rows that the index should hold.
        rows: u64,
    },
    /// The deadline came first.
    Ended {
        /// From 0 to 1.
        done: f64,
    },
}

/// Scores what the index returned for each query. Where all queries would take too long, the last
/// ones are given up.
pub fn score(
    index: &AnnIndex,
    snapshot: pg_sys::Snapshot,
    queries: &[Query],
    k: usize,
    deadline: Instant,
) -> Pass {
    let started = Instant::now();
    let allowed = deadline.saturating_duration_since(started);
    let mut nearest = vec![Nearest::new(k); queries.len()];
    let mut distances = vec![0.0; queries.len()];
    let mut active = queries.len();
    let mut rows = 0;
    let mut looked = (0.0, Duration::ZERO);
    // SAFETY: the table is open; every row at its turn, from the first block to the last.
    unsafe {
        let blocks =
            pg_sys::RelationGetNumberOfBlocksInFork(index.heap, pg_sys::ForkNumber::MAIN_FORKNUM);
        let scan = pg_sys::table_beginscan_strat(
            index.heap,
            snapshot,
            0,
            std::ptr::null_mut(),
            true,
            false,
        );
        let mut ended = None;
        let forward = pg_sys::ScanDirection::ForwardScanDirection;
        while pg_sys::table_scan_getnextslot(scan, forward, index.slot) {
            check_for_interrupts!();
            let elapsed = started.elapsed();
            let tid = index.tid();
            let done = f64::from(tid.0) / f64::from(blocks);
            if elapsed > allowed {
                ended = Some(done);
                break;
            }
            let (covered, span) = (done - looked.0, elapsed - looked.1);
            if covered > 0.0 && span > allowed.mul_f64(LOOK) {
                let ahead = (1.0 - done, allowed - elapsed);
                active = affordable(active, LEAST_QUERIES, (covered, span), ahead);
                looked = (done, elapsed);
            }
            let Some(value) = index.value() else {
                continue;
            };
            rows += 1;
            index.distances(value, &queries[..active], &mut distances[..active]);
            for ((query, nearest), distance) in
                queries.iter().zip(&mut nearest).zip(&distances[..active])
            {
                if query.tid != tid {
                    nearest.offer(*distance);
                }
            }
        }
        pg_sys::ExecClearTuple(index.slot);
        pg_sys::table_endscan(scan);
        if let Some(done) = ended {
            return Pass::Ended { done };
        }
    }
    let scored = queries.iter().zip(&nearest).take(active);
    let scores = scored
        .filter_map(|(query, nearest)| nearest.score(&query.returned, index.slack()))
        .collect();
    Pass::Complete { scores, rows }
}
