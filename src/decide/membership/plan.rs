//! Owns what a plan is: what is to be done, and what every worker is shown as.
//! Must not plan: `planner` does.

use super::change::Change;
use super::state::{Action, State};
use super::verdict::Verdict;
use std::net::SocketAddr;

/// A worker as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    pub nodename: String,
    pub nodeport: i32,
    pub endpoint: Option<SocketAddr>,
    /// Other addresses at which its server was seen.
    pub elsewhere: Vec<SocketAddr>,
    pub nodeid: Option<i32>,
    pub groupid: Option<i32>,
    pub source: Option<String>,
    pub code: &'static str,
    pub state: State,
    pub action: Action,
    pub reason: Option<String>,
    pub remedy: Option<String>,
}

impl Worker {
    pub(super) fn is_now(&mut self, verdict: Verdict) {
        (self.code, self.state, self.action) = (verdict.code, verdict.state, verdict.action);
        (self.reason, self.remedy) = (verdict.reason, verdict.remedy);
    }
}

/// What is to be done, and what is to be shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub changes: Vec<Change>,
    /// Why workers cannot be told where the coordinator is.
    pub coordinator_host: Option<Verdict>,
    /// Another server runs at the coordinator's address: there may be two coordinators.
    pub is_disputed: bool,
    /// This server is not known to be at the coordinator's address.
    pub is_unproved: bool,
    pub workers: Vec<Worker>,
    /// Workers that two servers were seen running as at one moment: that is to be remembered.
    pub rivals: Vec<(i32, String)>,
    /// Endpoints whose newest answer is too old to act on.
    pub recheck: Vec<SocketAddr>,
    /// Where the primary of a worker that has none at the moment may appear.
    pub sought: Vec<SocketAddr>,
}
