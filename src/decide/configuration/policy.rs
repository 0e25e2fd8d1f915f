//! Owns what the operator wants, as one plain value that decisions are given.
//! Must not read settings; `settings` fills it in.

use super::names::HostName;
use super::networks::{NameSuffixes, Networks};
use super::sources::Source;
use crate::membership::model::Candidate;
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
    /// The names to try for a candidate, the preferred one first; none where it is to be known by
    /// its address, as one is that the operator has given by its address.
    pub fn origins(self, candidate: &Candidate) -> Vec<NameOrigin> {
        let given = candidate.given.clone().map(NameOrigin::Given);
        let is_target = candidate.source.starts_with("srv:");
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
        let candidate = |given: Option<&str>, source: &str| Candidate {
            endpoint: "10.0.0.1:5432".parse().unwrap(),
            given: given.map(|name| HostName::parse(name).unwrap()),
            source: source.into(),
        };
        let given = || NameOrigin::Given(HostName::parse("w").unwrap());
        let host = candidate(Some("w"), "w:5432");
        assert_eq!(NodeNames::Auto.origins(&host), [NameOrigin::Pointer, given()]);
        assert_eq!(
            NodeNames::Auto.origins(&candidate(Some("w"), "srv:s")),
            [given(), NameOrigin::Pointer]
        );
        assert_eq!(NodeNames::Auto.origins(&candidate(None, "10.0.0.1:5432")), []);
        assert_eq!(
            NodeNames::Ptr.origins(&candidate(None, "10.0.0.1:5432")),
            [NameOrigin::Pointer]
        );
        assert_eq!(NodeNames::Given.origins(&host), [given()]);
        assert_eq!(NodeNames::Address.origins(&host), []);
    }
}
