//! Owns the words of vector-shard health as plain data: what each node says of itself, and what the
//! coordinator's catalogs say of the cluster. Must not judge anything.

use super::activity::{Build, Slot, Vacuum};
use super::figure;
use crate::login::LoginFailure;
use crate::node::any_port;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What one node says of itself: the answer of `fleet.vector_evidence()`. Every field that a later
/// version adds has a default, so that nodes of two versions understand each other.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct NodeEvidence {
    /// When it was collected, in seconds since 1970 by the node's own clock.
    pub observed_at: f64,
    /// Since when it has counted what its statistics say; another moment after a reset or a crash.
    #[serde(default)]
    pub counted_since: Option<f64>,
    pub version_num: u32,
    pub in_recovery: bool,
    /// Installed versions of citus, vector and citus_fleet, by name.
    pub extensions: BTreeMap<String, String>,
    /// Settings of searches and builds, by name; those in bytes are in bytes.
    pub settings: BTreeMap<String, Setting>,
    /// Settings of searches that single roles have in this database.
    #[serde(default)]
    pub role_settings: Vec<RoleSetting>,
    /// Its name, ready for a statement.
    #[serde(default)]
    pub database: String,
    #[serde(default)]
    pub library: Library,
    /// By pg_stat_statements, where it is there.
    #[serde(default)]
    pub searches: Vec<Search>,
    #[serde(default)]
    pub resources: Resources,
    /// The schema that the extension vector lives in, ready for a statement.
    pub vector_schema: Option<String>,
    /// Tables with a vector column or a vector index; shards are tables too.
    pub relations: Vec<Relation>,
    pub builds: Vec<Build>,
    pub vacuums: Vec<Vacuum>,
    /// Replication slots of a shard move or a shard split.
    pub slots: Vec<Slot>,
}

/// A setting as new sessions of the database have it, and as the session that asked has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    pub value: String,
    pub session: String,
    /// Where the session has it from, as in `pg_settings`.
    #[serde(default)]
    pub source: String,
}

/// What `ALTER ROLE … SET` has left.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RoleSetting {
    /// Ready for a statement.
    pub role: String,
    /// Whether it holds in this database alone.
    pub in_database: bool,
    pub name: String,
    pub value: String,
}

/// The library of pgvector, which is not always that of the extension's version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Library {
    /// The version that is installed on the host; none where it cannot be told.
    pub installed: Option<String>,
    /// Whether the server runs one whose file has been replaced or removed since.
    pub is_replaced: bool,
}

/// Searches of one relation by the order of one operator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Search {
    pub relation: u32,
    pub operator: String,
    #[serde(deserialize_with = "figure::count")]
    pub calls: u64,
}

/// What the host gives the server; `None` where it cannot be told.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Resources {
    /// Bytes of memory: of the host, or of the control group where that has less.
    pub memory: Option<u64>,
    /// Bytes of /dev/shm, used or not, where the server takes its dynamic shared memory from there.
    pub shared_memory: Option<u64>,
    /// Bytes that the server may still write to the file system of its data directory.
    pub disk_free: Option<u64>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Relation {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    /// Schema and name, ready for a statement; and the schema alone.
    pub quoted: String,
    pub quoted_schema: String,
    /// Whether it is a partitioned table, which has no rows of its own.
    pub partitioned: bool,
    /// The table that it is a partition of, as `quoted`; and the topmost one.
    pub parent: Option<String>,
    #[serde(default)]
    pub root: Option<String>,
    #[serde(default)]
    pub materialized: bool,
    /// `heap`, `columnar`, …; empty from a version that does not tell.
    #[serde(default)]
    pub access_method: String,
    /// Whether logical replication can tell its rows apart, which a shard move without blocking
    /// writes needs: a primary key or a replica identity.
    #[serde(default)]
    pub has_identity: bool,
    /// `pg_class.reltuples`: −1 until the first VACUUM, ANALYZE or CREATE INDEX.
    #[serde(deserialize_with = "figure::tuples")]
    pub reltuples: f64,
    #[serde(deserialize_with = "figure::count")]
    pub relpages: u64,
    /// Pages on disk at this moment; `None` while somebody holds it exclusively.
    #[serde(default, deserialize_with = "figure::known_count")]
    pub pages: Option<u64>,
    /// Cumulative statistics: rows alive, rows dead, rows ever inserted, rows changed since the last
    /// ANALYZE.
    #[serde(deserialize_with = "figure::count")]
    pub live: u64,
    #[serde(deserialize_with = "figure::count")]
    pub dead: u64,
    #[serde(default, deserialize_with = "figure::count")]
    pub inserted: u64,
    /// Rows ever updated, those of them within their page and so without a new entry in any index, and rows
    /// ever deleted.
    #[serde(default, deserialize_with = "figure::count")]
    pub updated: u64,
    #[serde(default, deserialize_with = "figure::count")]
    pub hot_updated: u64,
    #[serde(default, deserialize_with = "figure::count")]
    pub deleted: u64,
    /// When autovacuum acts; none where it is off, for this table or for the server.
    #[serde(default)]
    pub autovacuum: Option<Autovacuum>,
    #[serde(deserialize_with = "figure::count")]
    pub modified: u64,
    /// Rows that scans without an index have read, and those that any index has led to, since the statistics
    /// were reset.
    #[serde(default, deserialize_with = "figure::count")]
    pub rows_read: u64,
    #[serde(default, deserialize_with = "figure::count")]
    pub rows_fetched: u64,
    /// Columns of which one value stands in more than half of the rows, and that share, by the last ANALYZE.
    #[serde(default)]
    pub dominant: BTreeMap<String, f64>,
    /// When VACUUM and ANALYZE last ended, automatic ones included, in seconds since 1970.
    pub last_vacuum: Option<f64>,
    pub last_analyze: Option<f64>,
    /// Its columns of type vector, halfvec or sparsevec.
    pub columns: Vec<Column>,
    /// Its hnsw and ivfflat indexes.
    pub indexes: Vec<Index>,
}

/// So many rows later autovacuum acts by itself.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Autovacuum {
    /// Dead rows.
    #[serde(deserialize_with = "figure::tuples")]
    pub vacuum_at: f64,
    /// Rows changed since the last ANALYZE.
    #[serde(deserialize_with = "figure::tuples")]
    pub analyze_at: f64,
}

impl Relation {
    /// Dead rows that indexes still lead to. What a HOT update leaves behind is reached by way of the row
    /// that took its place.
    pub fn dead_in_indexes(&self) -> f64 {
        let gone = (self.updated + self.deleted) as f64;
        let hot = if gone > 0.0 { self.hot_updated as f64 / gone } else { 0.0 };
        self.dead as f64 * (1.0 - hot.min(1.0))
    }

    /// Entries ever written to or taken from its indexes, since the statistics were reset.
    pub fn written(&self) -> u64 {
        let new_entries = self.updated.saturating_sub(self.hot_updated);
        self.inserted.saturating_add(new_entries).saturating_add(self.deleted)
    }

    /// The rows that have something for an index to hold.
    pub fn filled_rows(&self, index: &Index) -> f64 {
        let nulls = self
            .columns
            .iter()
            .filter(|column| index.columns.contains(&column.name))
            .filter_map(|column| column.null_fraction)
            .fold(0.0, f64::max);
        self.rows() * (1.0 - nulls)
    }

    /// Whether VACUUM or ANALYZE has corrected what the statistics count, as far as those know.
    fn is_refreshed(&self) -> bool {
        self.last_vacuum.is_some() || self.last_analyze.is_some()
    }

    /// Whether a crash, or a reset, has taken what was counted: the catalogs know of more rows than were written.
    pub fn is_count_lost(&self) -> bool {
        !self.is_refreshed() && (self.inserted as f64) < self.reltuples
    }

    /// Rows that an index holds, or would.
    pub fn indexed_rows(&self, index: &Index) -> f64 {
        // How many rows a predicate takes was counted when the index was built.
        if index.partial { index.reltuples.max(0.0) } else { self.filled_rows(index) }
    }

    /// Whether vector indexes can be built on it. A partitioned table has no access method of its own.
    pub fn is_heap(&self) -> bool {
        matches!(self.access_method.as_str(), "" | "heap")
    }

    /// Its pages, without TOAST, estimated from the last VACUUM while it cannot be looked at.
    pub fn table_pages(&self) -> u64 {
        self.pages.unwrap_or(self.relpages)
    }

    /// Estimated number of rows.
    ///
    /// The statistics count every write, but a crash loses them, and a session that reports what it
    /// wrote only after somebody else's ANALYZE has it counted twice. The catalogs survive a crash,
    /// but are as old as the last VACUUM, ANALYZE or CREATE INDEX; like the planner, they are taken
    /// for the density of today's pages.
    pub fn rows(&self) -> f64 {
        /// A table of so many more pages than when it was measured has changed too much to compare.
        const GROWN: f64 = 1.5;
        let (live, measured) = (self.live as f64, self.relpages as f64);
        if self.reltuples < 0.0 || self.relpages == 0 {
            return live;
        }
        let pages = self.pages.map_or(measured, |pages| pages as f64);
        let by_density = self.reltuples / measured * pages;
        if self.is_count_lost() {
            return live.max(by_density);
        }
        if self.is_refreshed() && pages <= GROWN * measured { live.min(by_density) } else { live }
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    pub quoted: String,
    /// `vector`, `halfvec` or `sparsevec`.
    pub kind: String,
    /// Declared dimensions; −1 where the column has none.
    pub dimensions: i32,
    /// Its type is a domain over that one.
    #[serde(default)]
    pub is_domain: bool,
    /// It comes from a parent table, which alone can change it.
    #[serde(default)]
    pub is_inherited: bool,
    /// Share of NULLs in `pg_statistic`; `None` before the first ANALYZE.
    #[serde(default, deserialize_with = "figure::share")]
    pub null_fraction: Option<f64>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Index {
    pub oid: u32,
    pub name: String,
    /// Ready for a statement, without the schema.
    pub quoted: String,
    /// `hnsw` or `ivfflat`.
    pub method: String,
    pub partitioned: bool,
    pub valid: bool,
    pub ready: bool,
    /// How its definition begins, up to and including USING; the node keeps it to itself.
    #[serde(default, skip_serializing)]
    pub head: String,
    /// All that follows USING in its definition, with every name qualified; `None` while somebody
    /// holds the table exclusively.
    #[serde(default)]
    pub definition: Option<String>,
    /// `m=16`, `ef_construction=64`, `lists=100`: only what was declared, in the order it was.
    pub options: Vec<String>,
    /// The columns of the table that it reads.
    pub columns: Vec<String>,
    /// Type and dimensions of what it holds, which an expression may have made of a column.
    pub kind: String,
    pub dimensions: i32,
    pub partial: bool,
    /// Its file, which is another one after a rebuild.
    #[serde(default)]
    pub filenode: u32,
    #[serde(deserialize_with = "figure::tuples")]
    pub reltuples: f64,
    #[serde(deserialize_with = "figure::count")]
    pub relpages: u64,
    #[serde(default, deserialize_with = "figure::known_count")]
    pub pages: Option<u64>,
    #[serde(deserialize_with = "figure::count")]
    pub scans: u64,
    /// Cumulative: blocks asked for, and those found in shared buffers.
    #[serde(deserialize_with = "figure::count")]
    pub blocks_fetched: u64,
    #[serde(deserialize_with = "figure::count")]
    pub blocks_hit: u64,
    /// `None` while it cannot be read: it is held exclusively, or it has no pages yet.
    #[serde(default)]
    pub meta: Option<Metapage>,
}

impl Index {
    /// A declared option, or pgvector's default for it.
    pub fn option(&self, name: &str, default: u32) -> u32 {
        self.options
            .iter()
            .filter_map(|option| option.split_once('='))
            .find(|(known, _)| *known == name)
            .and_then(|(_, value)| value.parse().ok())
            .unwrap_or(default)
    }

    /// Bytes on disk, estimated from the last VACUUM while it cannot be looked at.
    pub fn bytes(&self) -> u64 {
        self.pages.unwrap_or(self.relpages) * PAGE
    }

    /// What the index is, apart from its name and its options: method, key, operator class, predicate.
    pub fn shape(&self) -> Option<String> {
        let definition = self.definition.as_ref()?;
        Some(match self.options.is_empty() {
            true => definition.clone(),
            false => definition.replacen(&self.with_clause(), "", 1),
        })
    }

    /// What its searches ask for: key, operator class and predicate, whatever the method.
    pub fn key(&self) -> Option<String> {
        let shape = self.shape()?;
        shape.split_once(' ').map(|(_, key)| key.to_owned())
    }

    /// The clause as PostgreSQL writes it; the values of these options are numbers.
    fn with_clause(&self) -> String {
        let options: Vec<String> = self
            .options
            .iter()
            .map(|option| match option.split_once('=') {
                Some((name, value)) => format!("{name}='{value}'"),
                None => option.clone(),
            })
            .collect();
        format!(" WITH ({})", options.join(", "))
    }
}

/// Bytes of a page.
pub const PAGE: u64 = 8192;

/// What an index says of itself on its first pages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "lowercase")]
pub enum Metapage {
    Hnsw {
        version: u32,
        dimensions: u32,
        m: u32,
        ef_construction: u32,
        /// Whether there is a vector to begin a search at.
        has_entry: bool,
    },
    Ivfflat {
        version: u32,
        dimensions: u32,
        lists: u32,
        /// Pages that the build itself has filled, the last list's counted as one; `None` where
        /// the pages with the lists could not be understood.
        built_pages: Option<u64>,
        /// Pages in front of the first list: the metapage and the lists' centres.
        head_pages: Option<u64>,
    },
}

/// A row of `fleet.recall_results`: the last measured recall of one index of one placement.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct RecallResult {
    pub nodename: String,
    #[serde(deserialize_with = "any_port")]
    pub nodeport: u16,
    /// Schema and name of the relation on the node, ready for a statement.
    pub placement: String,
    pub index: String,
    pub filenode: u32,
    /// The settings that it was measured by, as `name=value` between spaces.
    pub settings: String,
    pub k: u32,
    pub queries: u32,
    pub recall: f64,
    pub deviation: f64,
    pub returned_ratio: f64,
    /// Rows that the index should hold, and `Relation::written`, when it was measured.
    pub rows: u64,
    pub written: u64,
    /// `NodeEvidence::counted_since` at that time.
    pub counted_since: Option<f64>,
    /// In seconds since 1970.
    pub measured_at: f64,
}

/// A row of `fleet.silences` that has not ended: a finding that is meant to be so.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Silence {
    pub check: String,
    /// As an operator knows it; none where the whole cluster is meant.
    pub table_name: Option<String>,
    /// The same and its partitions, as `Relation::quoted`.
    pub relations: Vec<String>,
    /// In seconds since 1970.
    pub until: f64,
    /// The same for people.
    pub until_text: String,
    pub why: String,
    pub silenced_by: String,
}

/// The answer of one node, or why there is none.
pub type NodeAnswer = Result<NodeEvidence, LoginFailure>;

#[cfg(test)]
mod tests {
    use super::Relation;

    #[test]
    fn rows_are_estimated_by_what_can_be_trusted() {
        let measured =
            Relation { reltuples: 1000.0, relpages: 10, pages: Some(10), ..Relation::default() };
        let analyzed = Relation { last_analyze: Some(1.0), ..measured.clone() };
        let cases = [
            ("never measured", Relation { live: 7, reltuples: -1.0, ..Relation::default() }, 7.0),
            (
                "statistics lost in a crash",
                Relation { live: 3, inserted: 3, ..measured.clone() },
                1000.0,
            ),
            (
                "measured by CREATE INDEX, then deleted",
                Relation { live: 400, inserted: 1000, ..measured.clone() },
                400.0,
            ),
            ("counted twice", Relation { live: 2000, inserted: 1000, ..analyzed.clone() }, 1000.0),
            ("deleted since", Relation { live: 400, ..analyzed.clone() }, 400.0),
            ("grown since", Relation { live: 5000, pages: Some(50), ..analyzed.clone() }, 5000.0),
            ("locked", Relation { live: 2000, pages: None, ..analyzed.clone() }, 1000.0),
            (
                "empty when it was measured",
                Relation { live: 50, reltuples: 0.0, relpages: 0, ..analyzed },
                50.0,
            ),
        ];
        for (what, relation, rows) in cases {
            assert_eq!(relation.rows(), rows, "{what}");
        }
    }
}
