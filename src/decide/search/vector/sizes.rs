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
    // Every list has its last page half empty on average, and is there from the start.
    let lists = f64::from(lists);
    let pages = (rows / list_page_rows(value)).ceil() + lists / 2.0;
    Some(head as f64 + pages.max(lists))
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
    (bytes / (1024.0 * 1024.0)).ceil().max(1.0) as u64
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
