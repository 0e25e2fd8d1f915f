//! Owns which settings are options of a search or of an index build.
//! Must not know their values: each node judges those by its own pgvector.

/// What `fleet.set_search_option` sets: settings of pgvector, and the server's own that bound a
/// build. None of them reaches beyond searches, builds and VACUUM.
pub const OPTIONS: &[&str] = &[
    "hnsw.ef_search",
    "hnsw.iterative_scan",
    "hnsw.max_scan_tuples",
    "hnsw.scan_mem_multiplier",
    "ivfflat.iterative_scan",
    "ivfflat.max_probes",
    "ivfflat.probes",
    "maintenance_work_mem",
    "max_parallel_maintenance_workers",
];

/// The option of this name, in whatever case it is given, as settings are.
pub fn option(name: &str) -> Option<&'static str> {
    OPTIONS.iter().find(|option| option.eq_ignore_ascii_case(name)).copied()
}

/// Whether a setting is one of pgvector's searches.
pub fn is_of_search(name: &str) -> bool {
    name.starts_with("hnsw.") || name.starts_with("ivfflat.")
}

/// Whether pgvector has to be loaded for the setting to be known.
pub fn is_of_vector(option: &str) -> bool {
    option.contains('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_options_pass() {
        assert_eq!(option("HNSW.Ef_Search"), Some("hnsw.ef_search"));
        for name in ["", "search_path", "hnsw.ef_search ", "hnsw.ef_search; DROP", "work_mem"] {
            assert_eq!(option(name), None, "{name}");
        }
        assert!(is_of_vector("ivfflat.probes") && !is_of_vector("maintenance_work_mem"));
    }
}
