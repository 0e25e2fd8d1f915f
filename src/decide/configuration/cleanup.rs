//! Owns what shards that were moved away and wait to be dropped mean for those that are to be moved.
//! Must not count them.

use super::advice::{Advice, ok, warning};
use serde::Deserialize;

/// Rows of `pg_dist_cleanup` that name shards, and the version of the extension citus.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Leftovers {
    pub version: String,
    pub count: u64,
}

const REMEDY: &str = "CALL citus_cleanup_orphaned_resources(); until pg_dist_cleanup is empty, before shards are moved. Citus 13.4 and 14.2 are mended.";

impl Leftovers {
    /// What may happen when shards are moved now, and how not to let it.
    pub fn risk(&self) -> Option<String> {
        let is_at_risk = self.count > 0 && can_drop_live_shards(&self.version);
        is_at_risk.then(|| format!("{}: {REMEDY}", self.finding()))
    }

    fn finding(&self) -> String {
        let Self { version, count } = self;
        format!(
            "{count} shards that were moved away wait to be dropped, and citus {version} can drop a live shard that is moved back to where one of them waits (citus#8594, #8714)"
        )
    }

    pub fn advice(&self) -> Advice {
        const CHECK: &str = "pg_dist_cleanup";
        match self.risk() {
            Some(_) => warning(CHECK, self.finding(), REMEDY),
            None => ok(CHECK, "no shard that waits to be dropped endangers another"),
        }
    }
}

/// 13.2 and 13.3, 14.0 and 14.1.
fn can_drop_live_shards(version: &str) -> bool {
    let mut numbers = version.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    matches!((numbers.next(), numbers.next()), (Some(13), Some(2 | 3)) | (Some(14), Some(0 | 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_leftovers_under_a_citus_with_the_race_are_a_risk() {
        let risk = |version: &str, count| Leftovers { version: version.into(), count }.risk();
        for version in ["13.2-1", "13.3-1", "14.0-1", "14.1-1"] {
            assert!(risk(version, 2).unwrap().contains("2 shards"), "{version}");
            assert_eq!(risk(version, 0), None);
        }
        for version in ["13.1-1", "13.4-1", "14.2-1", "15.0-1", ""] {
            assert_eq!(risk(version, 2), None, "{version}");
        }
    }
}
