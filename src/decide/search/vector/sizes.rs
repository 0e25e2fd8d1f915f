//! Owns the arithmetic of pgvector: how many pages an index should have, and how much memory its
//! build takes. Must not know where the numbers come from.
//!
//! The formulas follow pgvector's own structures (hnsw.h, hnswbuild.c, ivfkmeans.c, version 0.8) and
//! were compared with measurements: 1,739 bytes a row for vector(256) at m = 16, as predicted.

use super::model::{Index, Metapage, PAGE};

/// pgvector's defaults.
pub const M: u32 = 16;
pub const EF_CONSTRUCTION: u32 = 64;
pub const LISTS: u32 = 100;

/// What a page holds besides its header and pgvector's own trailer.
const PAGE_ROOM: f64 = 8160.0;

/// Rounds up to the alignment of everything PostgreSQL stores.
fn aligned(bytes: f64) -> f64 {
    (bytes / 8.0).ceil() * 8.0
}

/// Bytes of one value; `None` where it depends on the value (sparsevec) or is not declared.
pub fn value_bytes(kind: &str, dimensions: i32) -> Option<f64> {
    let dimensions = f64::from(u32::try_from(dimensions).ok().filter(|&d| d > 0)?);
    match kind {
        "vector" => Some(8.0 + 4.0 * dimensions),
        "halfvec" => Some(8.0 + 2.0 * dimensions),
        "bit" => Some(8.0 + (dimensions / 8.0).ceil()),
        _ => None,
    }
}

/// Bytes of memory that an hnsw build keeps for each row until it spills to disk.
pub fn graph_row_bytes(value_bytes: f64, m: u32) -> f64 {
    let m = f64::from(m.max(2));
    let fixed = 128.0 + 8.0 + 8.0 + 32.0;
    fixed + 32.0 * m + aligned(value_bytes) + (16.0 + 16.0 * m) / (m - 1.0)
}

/// Bytes of memory that a build of this hnsw index over so many rows wants.
pub fn graph_bytes(index: &Index, rows: f64) -> Option<f64> {
    let value = value_bytes(&index.kind, index.dimensions)?;
    Some(rows * graph_row_bytes(value, index.option("m", M)))
}

/// What a build may take, by the settings of its node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Allowance {
    /// Bytes of `maintenance_work_mem`.
    pub memory: f64,
    /// `max_parallel_maintenance_workers`.
    pub workers: u32,
    /// Bytes of `min_parallel_table_scan_size`.
    pub scan_size: f64,
}

const MEGABYTE: f64 = 1024.0 * 1024.0;
/// No participant of a parallel build is left with less of `maintenance_work_mem`.
const PARTICIPANT: f64 = 32.0 * MEGABYTE;
/// Each worker's queue for its errors (`PARALLEL_ERROR_QUEUE_SIZE`).
const ERROR_QUEUE: f64 = 16_384.0;
/// What every parallel statement shares besides: the session's types (`SESSION_DSA_SIZE`, 192 kB),
/// settings that are not at their defaults, the statement. Measured: 200,544 bytes.
const SHARED_STATE: f64 = 200_704.0;

/// Workers that PostgreSQL would give a build (`plan_create_index_workers`): one from
/// `min_parallel_table_scan_size` of the table's own pages on, another for each time they triple, as many
/// as leave each participant 32 MB. A table's `parallel_workers`, which overrides that, is not known here.
pub fn planned_workers(allowance: &Allowance, table_pages: u64) -> u32 {
    let mut threshold = (allowance.scan_size / PAGE as f64).floor().max(1.0);
    let pages = table_pages as f64;
    if allowance.scan_size > 0.0 && pages < threshold {
        return 0;
    }
    let mut workers = 1;
    while pages >= threshold * 3.0 {
        workers += 1;
        threshold *= 3.0;
    }
    let by_memory = (allowance.memory / PARTICIPANT).floor() - 1.0;
    workers.min(allowance.workers).min(by_memory.max(0.0) as u32)
}

/// Bytes of dynamic shared memory, in /dev/shm by default, that one build of this index takes from its
/// beginning to its end; 0 where no worker helps.
///
/// hnsw asks for all of `max_parallel_maintenance_workers` as soon as PostgreSQL grants one, and keeps its
/// graph there: 3 MB less than `maintenance_work_mem`, however few the rows are (`HnswBeginParallel`).
/// ivfflat takes as many workers as it is granted, and shares the lists' centres alone
/// (`IvfflatBeginParallel`): each participant sorts in memory of its own.
pub fn shared_bytes(index: &Index, allowance: &Allowance, table_pages: u64) -> f64 {
    let granted = planned_workers(allowance, table_pages);
    if granted == 0 {
        return 0.0;
    }
    let (workers, own) = if index.method == "hnsw" {
        (allowance.workers, graph_area(allowance.memory))
    } else {
        let value = value_bytes(&index.kind, index.dimensions).unwrap_or_default();
        (granted, f64::from(index.option("lists", LISTS)) * aligned(value))
    };
    own + f64::from(workers) * ERROR_QUEUE + SHARED_STATE
}

/// The part of `maintenance_work_mem` that a parallel hnsw build shares.
fn graph_area(memory: f64) -> f64 {
    let others = 3.0 * MEGABYTE;
    if memory > others { memory - others } else { memory }
}

/// Pages of an hnsw index in which nothing is wasted; `None` where an element and its neighbours do
/// not fit on one page, because then it depends on what else is there.
pub fn graph_pages(value_bytes: f64, m: u32, rows: f64) -> Option<f64> {
    let element = aligned(72.0 + value_bytes);
    let neighbors = aligned(4.0 + 12.0 * f64::from(m));
    let per_page = (PAGE_ROOM / (element + neighbors + 8.0)).floor();
    (per_page >= 1.0).then(|| 1.0 + (rows / per_page).ceil())
}

/// Pages of this index over so many rows, had it been built just now.
pub fn tight_pages(index: &Index, rows: f64) -> Option<f64> {
    let value = value_bytes(&index.kind, index.dimensions)?;
    if index.method == "hnsw" {
        return graph_pages(value, index.option("m", M), rows);
    }
    let Some(Metapage::Ivfflat { lists, head_pages: Some(head), .. }) = index.meta else {
        return None;
    };
    // Every list has its last page half empty on average.
    Some(head as f64 + (rows / list_page_rows(value)).ceil() + f64::from(lists) / 2.0)
}

/// Rows on one page of an ivfflat list: an index tuple's header, the value, a line pointer.
pub fn list_page_rows(value_bytes: f64) -> f64 {
    (PAGE_ROOM / (aligned(8.0 + value_bytes) + 4.0)).floor().max(1.0)
}

/// Bytes of memory without which an ivfflat build ends with "memory required is …" (`ElkanKmeans`).
pub fn kmeans_bytes(value_bytes: f64, dimensions: f64, lists: f64, rows: f64) -> f64 {
    let room = (50.0 * lists).max(10_000.0);
    let samples = room.min(rows.max(1.0));
    let vectors = (room + 2.0 * lists) * aligned(value_bytes);
    let per_list = lists * (4.0 * dimensions + 12.0);
    vectors + per_list + 8.0 * samples + 4.0 * samples * lists + 4.0 * lists * lists
}

/// How many lists pgvector's documentation advises for so many rows.
pub fn advised_lists(rows: f64) -> f64 {
    if rows <= 1_000_000.0 { (rows / 1000.0).max(1.0).round() } else { rows.sqrt().round() }
}

/// Bytes as people write them in a setting: whole megabytes, rounded up.
pub fn megabytes(bytes: f64) -> u64 {
    (bytes / MEGABYTE).ceil().max(1.0) as u64
}

/// Pages as bytes, for people: `12.3 MB`.
pub fn human(bytes: f64) -> String {
    let mut value = bytes;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 1024.0 {
            return format!("{value:.1} {unit}").replace(".0 B", " B");
        }
        value /= 1024.0;
    }
    format!("{value:.1} TB")
}

pub fn page_bytes(pages: u64) -> f64 {
    (pages * PAGE) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_a_graph_takes_what_was_measured() {
        let bytes = graph_row_bytes(value_bytes("vector", 256).unwrap(), 16);
        assert!((1738.0..1739.0).contains(&bytes), "{bytes}");
    }

    const DEFAULTS: Allowance =
        Allowance { memory: 64.0 * MEGABYTE, workers: 2, scan_size: 8.0 * MEGABYTE };

    #[test]
    fn a_build_is_given_workers_as_postgresql_gives_them() {
        let with = |memory: f64, workers, pages| {
            let allowance = Allowance { memory: memory * MEGABYTE, workers, ..DEFAULTS };
            planned_workers(&allowance, pages)
        };
        assert_eq!(with(64.0, 2, 1023), 0);
        assert_eq!(with(64.0, 2, 1024), 1);
        assert_eq!(with(64.0, 0, 1024), 0);
        // 32 MB for each participant, the leader included.
        assert_eq!(with(63.0, 2, 1024), 0);
        assert_eq!(with(95.0, 2, 3072), 1);
        assert_eq!(with(96.0, 2, 3072), 2);
        assert_eq!(with(1024.0, 8, 3071), 1);
        assert_eq!(with(1024.0, 8, 9216), 3);
        let always = Allowance { scan_size: 0.0, ..DEFAULTS };
        assert_eq!(planned_workers(&always, 0), 1);
    }

    #[test]
    fn a_parallel_build_shares_what_was_measured() {
        let shared = |method: &str, memory: f64, workers| {
            let index = Index {
                method: method.into(),
                kind: "vector".into(),
                dimensions: 64,
                ..Index::default()
            };
            let allowance = Allowance { memory: memory * MEGABYTE, workers, ..DEFAULTS };
            shared_bytes(&index, &allowance, 1482)
        };
        // Segments in /dev/shm, byte by byte: 61 MB of graph, and the session's types beside it.
        for (workers, segment) in [(1, 63_983_328.0), (2, 63_999_712.0), (4, 64_032_480.0)] {
            let bytes = shared("hnsw", 64.0, workers);
            assert!((bytes - segment - 196_736.0).abs() < 4096.0, "{workers}: {bytes}");
        }
        assert!((shared("ivfflat", 64.0, 4) - 46_592.0 - 196_736.0).abs() < 4096.0);
        assert_eq!(shared("hnsw", 63.0, 2), 0.0);
        assert_eq!(shared("hnsw", 64.0, 0), 0.0);
    }

    #[test]
    fn a_tight_graph_has_whole_elements_on_a_page() {
        // 1104 + 200 + 8 bytes: six to a page.
        let pages = graph_pages(value_bytes("vector", 256).unwrap(), 16, 60.0).unwrap();
        assert_eq!(pages, 11.0);
        // 1,536 dimensions: one to a page; 2,000: none.
        assert_eq!(graph_pages(value_bytes("vector", 1536).unwrap(), 16, 7.0), Some(8.0));
        assert_eq!(graph_pages(value_bytes("vector", 2000).unwrap(), 16, 7.0), None);
    }

    #[test]
    fn values_have_the_sizes_of_their_types() {
        assert_eq!(value_bytes("vector", 3), Some(20.0));
        assert_eq!(value_bytes("halfvec", 3), Some(14.0));
        assert_eq!(value_bytes("bit", 9), Some(10.0));
        assert_eq!(value_bytes("sparsevec", 9), None);
        assert_eq!(value_bytes("vector", -1), None);
    }

    #[test]
    fn kmeans_wants_room_for_samples_and_distances() {
        // 50,000 samples of 1,000 lists: 200 MB of distances alone.
        let bytes = kmeans_bytes(value_bytes("vector", 128).unwrap(), 128.0, 1000.0, 1e6);
        assert!((230e6..240e6).contains(&bytes), "{bytes}");
        assert!(kmeans_bytes(520.0, 128.0, 1000.0, 100.0) < bytes / 5.0);
    }

    #[test]
    fn lists_follow_the_rows() {
        assert_eq!(advised_lists(10.0), 1.0);
        assert_eq!(advised_lists(100_000.0), 100.0);
        assert_eq!(advised_lists(4_000_000.0), 2000.0);
    }

    #[test]
    fn sizes_are_written_for_people() {
        assert_eq!(human(512.0), "512 B");
        assert_eq!(human(1536.0), "1.5 kB");
        assert_eq!(human(3.0 * 1024.0 * 1024.0 * 1024.0), "3.0 GB");
        assert_eq!(megabytes(1.0), 1);
    }
}
