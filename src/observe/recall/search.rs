//! Owns the side of the index: what it returns for each query, by the settings that are in effect.
//! Must not go through the planner, which could choose another way to the rows.

use super::index::{AnnIndex, Query};
use pgrx::{check_for_interrupts, pg_sys};
use std::time::Instant;

/// Asks the index for the k nearest neighbours of each query, the query's own row left out, and
/// notes their distances. Queries that come too late are given up, but never the first.
pub fn ask_index(
    index: &AnnIndex,
    snapshot: pg_sys::Snapshot,
    queries: &mut Vec<Query>,
    k: usize,
    deadline: Instant,
) {
    let scan = index.begin_search(snapshot);
    let mut asked = 0;
    for query in queries.iter_mut() {
        if asked > 0 && Instant::now() > deadline {
            break;
        }
        let mut key = index.order_by(query);
        // SAFETY: the scan was begun with one key to order by, which outlives the call.
        unsafe { pg_sys::index_rescan(scan, std::ptr::null_mut(), 0, &mut key, 1) };
        let forward = pg_sys::ScanDirection::ForwardScanDirection;
        // SAFETY: the slot is one of the table's.
        let next = || unsafe { pg_sys::index_getnext_slot(scan, forward, index.slot) };
        while query.returned.len() < k && next() {
            check_for_interrupts!();
            if index.tid() != query.tid
                && let Some(value) = index.value()
            {
                query.returned.push(index.distance(value, query));
            }
        }
        asked += 1;
    }
    queries.truncate(asked);
    // SAFETY: the slot may still point into a buffer that the scan holds.
    unsafe {
        pg_sys::ExecClearTuple(index.slot);
        pg_sys::index_endscan(scan);
    }
}
