//! Owns the arithmetic of pgvector: how many pages an index should have, and how much memory its
//! build takes. Must not know where the numbers come from.
//!
//! The formulas follow pgvector's own structures (hnsw.h, hnswbuild.c, ivfbuild.c, ivfkmeans.c) and
//! PostgreSQL's; the bench program compares them with real builds (`builds`).

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
/// settings that are not at their defaults, the statement. Measured, with few settings.
const SHARED_STATE: f64 = 200_544.0;

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

/// Where a build of an hnsw index keeps its graph until it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GraphMemory {
    /// In the memory of the one process that builds.
    Own,
    /// In a segment that all of a parallel build share.
    Shared,
}

impl GraphMemory {
    pub fn of(allowance: &Allowance, table_pages: u64) -> Self {
        if planned_workers(allowance, table_pages) > 0 { Self::Shared } else { Self::Own }
    }

    /// Bytes of one row (`HnswInitElement`): `HnswElementData`, the list of its layers, 2·m neighbours on
    /// the lowest layer and m on each other one, of which there are 1/(m − 1) on average, and the value.
    /// In a process's own memory each of these pieces has a header of 8 bytes.
    fn row_bytes(self, value_bytes: f64, m: u32) -> f64 {
        let m = f64::from(m.max(2));
        let header = if self == Self::Own { 8.0 } else { 0.0 };
        let lowest = 128.0 + 8.0 + (8.0 + 32.0 * m) + aligned(value_bytes) + 4.0 * header;
        let other = 8.0 + (8.0 + 16.0 * m) + header;
        lowest + other / (m - 1.0)
    }

    /// Bytes of `maintenance_work_mem` that hold no rows: a segment leaves 3 MB for others, and keeps 1 MB
    /// for rows that are on their way when it is full.
    fn reserve(self) -> f64 {
        match self {
            Self::Own => 0.0,
            Self::Shared => 4.0 * MEGABYTE,
        }
    }
}

/// Bytes of `maintenance_work_mem` with which a build of this hnsw index over so many rows just does not
/// spill to disk.
pub fn graph_bytes(index: &Index, rows: f64, memory: GraphMemory) -> Option<f64> {
    let value = value_bytes(&index.kind, index.dimensions)?;
    Some(rows * memory.row_bytes(value, index.option("m", M)) + memory.reserve())
}

/// Bytes of the host's memory that one build of this hnsw index takes: what its rows want until it
/// spills, or the whole segment, which is reserved at once.
pub fn build_bytes(index: &Index, rows: f64, allowance: &Allowance, pages: u64) -> Option<f64> {
    match GraphMemory::of(allowance, pages) {
        GraphMemory::Own => {
            graph_bytes(index, rows, GraphMemory::Own).map(|bytes| bytes.min(allowance.memory))
        }
        GraphMemory::Shared => Some(shared_bytes(index, allowance, pages)),
    }
}

/// Pages of an hnsw index in which nothing is wasted (`CreateGraphPages`).
///
/// An element and its neighbours are on one page where they fit on one, else on two, of which nothing else
/// gets the rest. Neighbours take more room with each layer, so how many rows a page has is a matter of
/// chance: n fit if the layers above the lowest of n rows, which are distributed as a negative binomial,
/// are no more than there is room for.
pub fn graph_pages(value_bytes: f64, m: u32, rows: f64) -> f64 {
    let m = f64::from(m.max(2));
    let row = aligned(72.0 + value_bytes) + aligned(4.0 + 12.0 * m) + 8.0;
    if row > PAGE_ROOM {
        return 1.0 + (rows * 2.0).max(1.0);
    }
    let (layer, another) = (6.0 * m, 1.0 / m);
    let fit = |n: f64| {
        let spare = ((PAGE_ROOM - n * row) / layer).floor() as u32;
        let mut exactly = (1.0 - another).powf(n);
        let mut at_most = 0.0;
        for layers in 0..=spare {
            at_most += exactly;
            exactly *= another * (n + f64::from(layers)) / f64::from(layers + 1);
        }
        at_most
    };
    let per_page: f64 = (1..=(PAGE_ROOM / row) as u32).map(|n| fit(f64::from(n))).sum();
    1.0 + (rows / per_page).ceil().max(1.0)
}

/// Pages of this index over so many rows, had it been built just now.
pub fn tight_pages(index: &Index, rows: f64) -> Option<f64> {
    let value = value_bytes(&index.kind, index.dimensions)?;
    if index.method == "hnsw" {
        return Some(graph_pages(value, index.option("m", M), rows));
    }
    let Some(Metapage::Ivfflat { lists, head_pages: Some(head), .. }) = index.meta else {
        return None;
    };
    // Every list has its last page half empty on average, and one page at least.
    let lists = f64::from(lists);
    Some(head as f64 + (rows / list_page_rows(value) + lists / 2.0).max(lists).ceil())
}

/// Rows on one page of an ivfflat list: an index tuple's header, the value, a line pointer. A value of up
/// to 127 bytes has a header of one byte instead of four (`index_form_tuple`).
pub fn list_page_rows(value_bytes: f64) -> f64 {
    let value = if value_bytes <= 130.0 { value_bytes - 3.0 } else { value_bytes };
    (PAGE_ROOM / (aligned(8.0 + value) + 4.0)).floor().max(1.0)
}

/// Rows that a page of a table can have (`MaxHeapTuplesPerPage`).
const TABLE_PAGE_ROWS: f64 = 291.0;

/// Bytes of `maintenance_work_mem` without which a build of this ivfflat index ends with "memory required
/// is …" (`ElkanKmeans`); `None` of a table without rows, which trains on nothing.
///
/// Room for the samples is made before any is taken: for 50 of each list and 10,000 at least, and from
/// pgvector 0.8.5 on for no more than the table's pages can have, which are to be given then.
pub fn training_bytes(index: &Index, rows: f64, table_pages: Option<u64>) -> Option<f64> {
    let value = aligned(value_bytes(&index.kind, index.dimensions)?);
    if rows < 1.0 {
        return None;
    }
    let lists = f64::from(index.option("lists", LISTS));
    let wanted = (50.0 * lists).max(10_000.0);
    let room = table_pages.map_or(wanted, |pages| wanted.min(pages as f64 * TABLE_PAGE_ROWS));
    let samples = wanted.min(rows);
    let vectors = (room + 2.0 * lists) * value;
    let per_list = lists * (4.0 * f64::from(index.dimensions) + 12.0);
    Some(vectors + per_list + 8.0 * samples + 4.0 * samples * lists + 4.0 * lists * lists)
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
        let value = value_bytes("vector", 256).unwrap();
        let bytes = GraphMemory::Own.row_bytes(value, 16);
        assert!((1738.0..1739.0).contains(&bytes), "{bytes}");
        let bytes = GraphMemory::Shared.row_bytes(value, 16);
        assert!((1706.0..1707.0).contains(&bytes), "{bytes}");
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
            let index = Index { method: method.into(), ..ivfflat(64, 100) };
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
        let pages =
            |dimensions, m, rows| graph_pages(value_bytes("vector", dimensions).unwrap(), m, rows);
        // 1104 + 200 + 8 bytes: six to a page, with room for three more layers.
        assert_eq!(pages(256, 16, 59.0), 11.0);
        assert_eq!(pages(256, 16, 5.0), 2.0);
        // 544 bytes: fifteen to a page, but only if none of them is on another layer.
        assert!((69_400.0..69_700.0).contains(&pages(64, 16, 1e6)));
        // 1,536 dimensions: one to a page; 2,000: two pages for each.
        assert_eq!(pages(1536, 16, 7.0), 8.0);
        assert_eq!(pages(2000, 16, 7.0), 15.0);
        // An empty graph has a page for the first element to come.
        assert_eq!((pages(64, 16, 0.0), pages(2000, 16, 0.0)), (2.0, 2.0));
    }

    #[test]
    fn a_list_has_a_page_however_few_its_rows_are() {
        let meta = Metapage::Ivfflat {
            version: 1,
            dimensions: 64,
            lists: 1000,
            built_pages: None,
            head_pages: Some(36),
        };
        let index = Index { meta: Some(meta), ..ivfflat(64, 1000) };
        assert_eq!(tight_pages(&index, 1000.0), Some(1036.0));
        // 29 rows to a page, and half a page for each list.
        assert_eq!(tight_pages(&index, 29_000.0), Some(1536.0));
    }

    #[test]
    fn short_values_have_a_short_header_in_a_list() {
        assert_eq!(list_page_rows(value_bytes("vector", 64).unwrap()), 29.0);
        // 8 + 13 bytes of bit(64) instead of 8 + 16: 24 either way; of bit(72), 24 instead of 32.
        assert_eq!(list_page_rows(value_bytes("bit", 64).unwrap()), 291.0);
        assert_eq!(list_page_rows(value_bytes("bit", 72).unwrap()), 291.0);
    }

    #[test]
    fn values_have_the_sizes_of_their_types() {
        assert_eq!(value_bytes("vector", 3), Some(20.0));
        assert_eq!(value_bytes("halfvec", 3), Some(14.0));
        assert_eq!(value_bytes("bit", 9), Some(10.0));
        assert_eq!(value_bytes("sparsevec", 9), None);
        assert_eq!(value_bytes("vector", -1), None);
    }

    fn ivfflat(dimensions: i32, lists: u32) -> Index {
        Index {
            method: "ivfflat".into(),
            kind: "vector".into(),
            options: vec![format!("lists={lists}")],
            dimensions,
            ..Index::default()
        }
    }

    #[test]
    fn a_training_wants_room_for_samples_and_distances() {
        // 50,000 samples of 1,000 lists: 200 MB of distances alone.
        let index = ivfflat(128, 1000);
        let all = training_bytes(&index, 1e6, None).unwrap();
        assert!((230e6..240e6).contains(&all), "{all}");
        let few = training_bytes(&index, 100.0, None).unwrap();
        assert!(few < all / 5.0);
        // A page of 100 rows has no room for more than 291.
        let sparing = training_bytes(&index, 100.0, Some(1)).unwrap();
        assert_eq!(few - sparing, (50_000.0 - 291.0) * 520.0);
        assert_eq!(training_bytes(&index, 1e6, Some(100_000)), Some(all));
        assert_eq!(training_bytes(&index, 0.0, None), None);
    }

    #[test]
    fn a_shared_graph_spills_before_its_segment_is_full() {
        let index = Index { method: "hnsw".into(), ..ivfflat(64, 1) };
        let fits = |rows, memory| graph_bytes(&index, rows, memory).unwrap() <= DEFAULTS.memory;
        assert!(fits(69_000.0, GraphMemory::Own) && !fits(69_300.0, GraphMemory::Own));
        assert!(fits(67_000.0, GraphMemory::Shared) && !fits(67_200.0, GraphMemory::Shared));
        assert_eq!(GraphMemory::of(&DEFAULTS, 1024), GraphMemory::Shared);
        assert_eq!(GraphMemory::of(&DEFAULTS, 1023), GraphMemory::Own);
    }

    #[test]
    fn a_build_takes_what_its_rows_want_or_a_whole_segment() {
        let index = Index { method: "hnsw".into(), ..ivfflat(64, 1) };
        let build = |rows, pages| build_bytes(&index, rows, &DEFAULTS, pages).unwrap();
        assert!(build(1000.0, 1023) < 2.5 * MEGABYTE);
        assert_eq!(build(1e6, 1023), DEFAULTS.memory);
        assert_eq!(build(1000.0, 1024), build(1e6, 1024));
        assert!(build(1000.0, 1024) > 61.0 * MEGABYTE);
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
