//! Owns what the sources are known to yield: the last good answer of every name.
//! Must not take a failure for an absence: a failed lookup keeps what the name gave before.

use super::candidate::Candidate;
use crate::configuration::names::HostName;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;

/// Why a lookup brought no answer. NXDOMAIN and NODATA are answers, and not among these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DnsFailure {
    ServFail,
    Refused,
    Timeout,
    Truncated,
    /// An answer that breaks the rules: a CNAME loop, an SRV record with port 0.
    Malformed,
    /// More endpoints than `citus_fleet.max_workers`.
    TooMany,
    Other,
}

impl DnsFailure {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ServFail => "SERVFAIL",
            Self::Refused => "REFUSED",
            Self::Timeout => "timeout",
            Self::Truncated => "truncated",
            Self::Malformed => "malformed",
            Self::TooMany => "too many answers",
            Self::Other => "failure",
        }
    }
}

impl fmt::Display for DnsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What one name gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    Yield(Vec<Yield>),
    /// NXDOMAIN or NODATA.
    Nothing,
    Failed(DnsFailure, String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Yield {
    pub endpoint: SocketAddr,
    pub given: Option<HostName>,
}

/// What one source gave: an answer for each name it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceAnswer {
    /// The source as the operator wrote it.
    pub source: String,
    /// The lookup that yields the names failed (SRV), so nothing is known of any of them.
    pub failed: Option<(DnsFailure, String)>,
    /// Whether names that are not among these are known not to exist.
    pub complete: bool,
    pub names: BTreeMap<String, Lookup>,
}

/// A complaint about a source, for `fleet.status()` and `fleet.doctor()`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsComplaint {
    pub source: String,
    pub failure: DnsFailure,
    pub message: String,
}

/// The last good answers, by source and name.
#[derive(Debug, Default)]
pub struct Discovery {
    known: BTreeMap<String, BTreeMap<String, Vec<Yield>>>,
    /// Sources of which every name is known not to exist at the moment.
    pub empty: Vec<String>,
    pub complaints: Vec<DnsComplaint>,
    /// Sources that have been answered at least once.
    answered: BTreeSet<String>,
    /// A source has never been answered: who it names is not known, so nobody is unnamed.
    pub is_in_the_dark: bool,
}

impl Discovery {
    /// Takes in one pass over all sources. Sources that are no longer set are forgotten.
    pub fn learn(&mut self, answers: Vec<SourceAnswer>, max_workers: usize) {
        let mut before = std::mem::take(&mut self.known);
        self.complaints.clear();
        self.empty.clear();
        self.is_in_the_dark = false;
        let mut total = 0;
        for answer in answers {
            let last = before.remove(&answer.source).unwrap_or_default();
            let source = answer.source.clone();
            let mut now = self.merge(answer, &last);
            let count: usize = now.values().map(Vec::len).sum();
            if total + count > max_workers {
                self.complaints.push(DnsComplaint {
                    source: source.clone(),
                    failure: DnsFailure::TooMany,
                    message: format!("{count} endpoints; citus_fleet.max_workers is {max_workers}"),
                });
                now = last;
            }
            if !self.complaints.iter().any(|complaint| complaint.source == source) {
                self.answered.insert(source.clone());
            }
            self.is_in_the_dark |= !self.answered.contains(&source);
            total += now.values().map(Vec::len).sum::<usize>();
            if now.values().all(Vec::is_empty)
                && !self.complaints.iter().any(|c| c.source == source)
            {
                self.empty.push(source.clone());
            }
            self.known.insert(source, now);
        }
    }

    fn merge(
        &mut self,
        answer: SourceAnswer,
        last: &BTreeMap<String, Vec<Yield>>,
    ) -> BTreeMap<String, Vec<Yield>> {
        let mut complain = |failure, message| {
            self.complaints.push(DnsComplaint { source: answer.source.clone(), failure, message });
        };
        if let Some((failure, message)) = answer.failed {
            complain(failure, message);
            return last.clone();
        }
        let mut now = if answer.complete { BTreeMap::new() } else { last.clone() };
        for (name, answer) in answer.names {
            let found = match answer {
                Lookup::Yield(found) => found,
                Lookup::Nothing => Vec::new(),
                Lookup::Failed(failure, message) => {
                    complain(failure, format!("{name}: {message}"));
                    last.get(&name).cloned().unwrap_or_default()
                }
            };
            now.insert(name, found);
        }
        now
    }

    /// Every endpoint once, with the first source that yields it, in the order of the addresses.
    pub fn candidates(&self) -> Vec<Candidate> {
        let mut by_endpoint: BTreeMap<SocketAddr, Candidate> = BTreeMap::new();
        for (source, names) in &self.known {
            for found in names.values().flatten() {
                by_endpoint.entry(found.endpoint).or_insert_with(|| Candidate {
                    endpoint: found.endpoint,
                    given: found.given.clone(),
                    source: source.clone(),
                });
            }
        }
        by_endpoint.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(addresses: &[&str]) -> Lookup {
        Lookup::Yield(
            addresses.iter().map(|a| Yield { endpoint: a.parse().unwrap(), given: None }).collect(),
        )
    }

    fn pass(names: &[(&str, Lookup)]) -> Vec<SourceAnswer> {
        vec![SourceAnswer {
            source: "s".into(),
            failed: None,
            complete: true,
            names: names.iter().map(|(n, a)| (n.to_string(), a.clone())).collect(),
        }]
    }

    fn endpoints(discovery: &Discovery) -> Vec<String> {
        discovery.candidates().iter().map(|c| c.endpoint.to_string()).collect()
    }

    #[test]
    fn a_failure_keeps_the_set_and_an_empty_answer_does_not() {
        let mut discovery = Discovery::default();
        discovery.learn(pass(&[("w", found(&["10.0.0.1:1", "10.0.0.2:1"]))]), 10);
        for failure in [
            DnsFailure::ServFail,
            DnsFailure::Refused,
            DnsFailure::Timeout,
            DnsFailure::Truncated,
            DnsFailure::Malformed,
        ] {
            discovery.learn(pass(&[("w", Lookup::Failed(failure, "x".into()))]), 10);
            assert_eq!(endpoints(&discovery), ["10.0.0.1:1", "10.0.0.2:1"]);
            assert_eq!(discovery.complaints[0].failure, failure);
            assert!(discovery.empty.is_empty());
        }
        discovery.learn(pass(&[("w", Lookup::Nothing)]), 10);
        assert_eq!(endpoints(&discovery), Vec::<String>::new());
        assert_eq!(discovery.empty, ["s"]);
        assert!(discovery.complaints.is_empty());
    }

    #[test]
    fn one_failing_name_of_a_pattern_costs_the_others_nothing() {
        let mut discovery = Discovery::default();
        discovery
            .learn(pass(&[("w1", found(&["10.0.0.1:1"])), ("w2", found(&["10.0.0.2:1"]))]), 10);
        discovery.learn(
            pass(&[
                ("w1", found(&["10.0.0.9:1"])),
                ("w2", Lookup::Failed(DnsFailure::Timeout, "x".into())),
            ]),
            10,
        );
        assert_eq!(endpoints(&discovery), ["10.0.0.2:1", "10.0.0.9:1"]);
    }

    #[test]
    fn a_search_that_ended_in_failures_forgets_no_name() {
        let mut discovery = Discovery::default();
        discovery
            .learn(pass(&[("w1", found(&["10.0.0.1:1"])), ("w5", found(&["10.0.0.5:1"]))]), 10);
        let mut broken = pass(&[("w1", found(&["10.0.0.1:1"]))]);
        broken[0].complete = false;
        discovery.learn(broken, 10);
        assert_eq!(endpoints(&discovery), ["10.0.0.1:1", "10.0.0.5:1"]);
        discovery.learn(pass(&[("w1", found(&["10.0.0.1:1"]))]), 10);
        assert_eq!(endpoints(&discovery), ["10.0.0.1:1"]);
    }

    #[test]
    fn a_failing_srv_lookup_keeps_all_its_targets() {
        let mut discovery = Discovery::default();
        discovery.learn(pass(&[("t1", found(&["10.0.0.1:1"]))]), 10);
        discovery.learn(
            vec![SourceAnswer {
                source: "s".into(),
                failed: Some((DnsFailure::ServFail, "x".into())),
                complete: true,
                names: BTreeMap::new(),
            }],
            10,
        );
        assert_eq!(endpoints(&discovery), ["10.0.0.1:1"]);
    }

    #[test]
    fn a_source_that_was_never_answered_leaves_the_fleet_in_the_dark() {
        let mut discovery = Discovery::default();
        let failed = || pass(&[("w", Lookup::Failed(DnsFailure::Timeout, "x".into()))]);
        discovery.learn(failed(), 10);
        assert!(discovery.is_in_the_dark);
        discovery.learn(pass(&[("w", Lookup::Nothing)]), 10);
        assert!(!discovery.is_in_the_dark);
        discovery.learn(failed(), 10);
        assert!(!discovery.is_in_the_dark, "what it gave before is known");
    }

    #[test]
    fn too_many_answers_are_refused_together() {
        let mut discovery = Discovery::default();
        discovery.learn(pass(&[("w", found(&["10.0.0.1:1"]))]), 2);
        discovery.learn(pass(&[("w", found(&["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"]))]), 2);
        assert_eq!(endpoints(&discovery), ["10.0.0.1:1"]);
        assert_eq!(discovery.complaints[0].failure, DnsFailure::TooMany);
    }

    #[test]
    fn a_source_that_is_no_longer_set_is_forgotten() {
        let mut discovery = Discovery::default();
        discovery.learn(pass(&[("w", found(&["10.0.0.1:1"]))]), 2);
        discovery.learn(vec![], 2);
        assert!(discovery.candidates().is_empty());
    }
}
