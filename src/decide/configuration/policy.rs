//! Owns what the operator wants, as one plain value that decisions are given.
//! Must not read settings; `settings` fills it in.

use super::names::HostName;
use super::networks::{NameSuffixes, Networks};
use super::sources::Source;
use std::time::Duration;

/// Which name of a worker is registered (`citus_fleet.node_names`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NodeNames {
    /// SRV target, then PTR, then the name the source gives, then the address.
    #[default]
    Auto,
    /// The PTR name or the address.
    Ptr,
    /// The name the source gives (the target, for SRV) or the address.
    Given,
    /// Always the address.
    Address,
}

/// Where a name for a candidate may come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameOrigin {
    Given(HostName),
    Pointer,
}

impl NodeNames {
    /// The names to try for what a source yields, under the name that it gave, the preferred one first;
    /// none where it is to be known by its address, as one is that the operator has given by it.
    pub fn origins(self, given: Option<&HostName>, source: &str) -> Vec<NameOrigin> {
        let given = given.cloned().map(NameOrigin::Given);
        let is_target = source.starts_with("srv:");
        let mut origins: Vec<NameOrigin> = match self {
            Self::Address => Vec::new(),
            Self::Given => given.into_iter().collect(),
            Self::Ptr => vec![NameOrigin::Pointer],
            Self::Auto => {
                given.into_iter().flat_map(|given| [NameOrigin::Pointer, given]).collect()
            }
        };
        if is_target {
            origins.reverse();
        }
        origins
    }
}

/// The settings that decisions depend on.
#[derive(Clone, Debug)]
pub struct Policy {
    pub sources: Vec<Source>,
    pub node_names: NodeNames,
    pub networks: Networks,
    pub names: NameSuffixes,
    /// More candidates than this are refused together.
    pub max_workers: usize,
    /// The coordinator's own host and port, where the operator has set them.
    pub coordinator_host: Option<(String, u16)>,
    pub interval: Duration,
    pub absent_after: Duration,
    pub on_absent: OnAbsent,
    /// More bytes of WAL than this may no promoted server lack and be followed; none: any number.
    pub max_lost_wal: Option<u64>,
    /// Whether Citus's rebalancer is started for workers that have joined.
    pub rebalance_on_join: bool,
}

/// What becomes of a worker that is absent (`citus_fleet.on_absent`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnAbsent {
    #[default]
    Report,
    /// `citus_disable_node`, where Citus allows it.
    Disable,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_in_which_names_are_tried() {
        let given = || HostName::parse("w").unwrap();
        let of = |names: NodeNames, source| names.origins(Some(&given()), source);
        let name = || NameOrigin::Given(given());
        assert_eq!(of(NodeNames::Auto, "w:5432"), [NameOrigin::Pointer, name()]);
        assert_eq!(of(NodeNames::Auto, "srv:s"), [name(), NameOrigin::Pointer]);
        assert_eq!(NodeNames::Auto.origins(None, "10.0.0.1:5432"), []);
        assert_eq!(NodeNames::Ptr.origins(None, "10.0.0.1:5432"), [NameOrigin::Pointer]);
        assert_eq!(of(NodeNames::Given, "w:5432"), [name()]);
        assert_eq!(of(NodeNames::Address, "w:5432"), []);
    }
}
