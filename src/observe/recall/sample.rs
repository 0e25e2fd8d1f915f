//! Owns choosing the rows that are asked with: some of the rows of some of the blocks.
//! Must not read the whole table for it.

use super::index::{AnnIndex, Query, Tid};
use pgrx::{check_for_interrupts, pg_sys};
use std::time::Instant;

/// More rows than fit into a block, whatever its size.
const LAST_OFFSET: u16 = 8192;

/// Chooses rows with a value that has a distance: as many as are wanted, or all there are. They come
/// in random order, so that any first part of them is a sample too.
pub fn choose(
    index: &AnnIndex,
    snapshot: pg_sys::Snapshot,
    wanted: usize,
    deadline: Instant,
) -> Vec<Query> {
    let mut pool = gather(index, snapshot, wanted, deadline);
    let mut queries = Vec::with_capacity(wanted.min(pool.len()));
    while queries.len() < wanted && !pool.is_empty() {
        let tid = pool.swap_remove(random_below(pool.len() as u64) as usize);
        queries.extend(fetch(index, snapshot, tid));
        check_for_interrupts!();
    }
    queries
}

/// Rows that can be asked with, of as many random blocks as rows are wanted, so that rows that were
/// written together do not ask together; of more blocks where those hold too few.
fn gather(
    index: &AnnIndex,
    snapshot: pg_sys::Snapshot,
    wanted: usize,
    deadline: Instant,
) -> Vec<Tid> {
    let mut pool = Vec::new();
    // SAFETY: the table is open; the scan ends before it is closed.
    unsafe {
        let blocks =
            pg_sys::RelationGetNumberOfBlocksInFork(index.heap, pg_sys::ForkNumber::MAIN_FORKNUM);
        let mut scan: pg_sys::TableScanDesc = std::ptr::null_mut();
        for (visited, block) in random_order(blocks).enumerate() {
            if pool.len() >= wanted && visited >= wanted || Instant::now() > deadline {
                break;
            }
            let (mut first, mut last) = (pointer((block, 1)), pointer((block, LAST_OFFSET)));
            if scan.is_null() {
                scan =
                    pg_sys::table_beginscan_tidrange(index.heap, snapshot, &mut first, &mut last);
            } else {
                pg_sys::table_rescan_tidrange(scan, &mut first, &mut last);
            }
            let forward = pg_sys::ScanDirection::ForwardScanDirection;
            while pg_sys::table_scan_getnextslot_tidrange(scan, forward, index.slot) {
                check_for_interrupts!();
                if index.value().is_some() {
                    pool.push(index.tid());
                }
            }
        }
        if !scan.is_null() {
            pg_sys::ExecClearTuple(index.slot);
            pg_sys::table_endscan(scan);
        }
    }
    pool
}

/// The row as a query; nothing for a zero vector, which has no cosine distance, not even to itself.
fn fetch(index: &AnnIndex, snapshot: pg_sys::Snapshot, tid: Tid) -> Option<Query> {
    // SAFETY: the row was visible to the same snapshot a moment ago.
    let found = unsafe {
        pg_sys::table_tuple_fetch_row_version(index.heap, &mut pointer(tid), snapshot, index.slot)
    };
    let value = index.value().filter(|_| found)?;
    let query = Query { tid, value: index.keep(value), returned: Vec::new() };
    let own = index.distance(query.value, &query);
    (!own.is_nan()).then_some(query)
}

fn pointer((block, offset): Tid) -> pg_sys::ItemPointerData {
    pg_sys::ItemPointerData {
        ip_blkid: pg_sys::BlockIdData { bi_hi: (block >> 16) as u16, bi_lo: block as u16 },
        ip_posid: offset,
    }
}

/// All blocks, each once, in steps that have no divisor in common with their number, as
/// `TABLESAMPLE SYSTEM_ROWS` does it.
fn random_order(blocks: u32) -> impl Iterator<Item = u32> {
    let count = u64::from(blocks);
    let step = loop {
        let step = 1 + random_below(count);
        if greatest_common_divisor(step, count) == 1 || count == 0 {
            break step;
        }
    };
    let start = random_below(count);
    (0..count).map(move |place| ((start + place * step) % count) as u32)
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// A number from 0 to below `bound`, by the server's own generator.
fn random_below(bound: u64) -> u64 {
    // SAFETY: the generator's state of this process, which the server seeds at its start.
    unsafe {
        pg_sys::pg_prng_uint64_range(
            &raw mut pg_sys::pg_global_prng_state,
            0,
            bound.saturating_sub(1),
        )
    }
}
