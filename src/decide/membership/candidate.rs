//! Owns what a source yields: an endpoint that may become a worker.
//! Must not know what answers there.

use crate::configuration::names::HostName;
use std::net::SocketAddr;

/// An endpoint that a source yields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub endpoint: SocketAddr,
    /// The name that the source gave for it; none where it gave an address.
    pub given: Option<HostName>,
    /// The source as the operator wrote it.
    pub source: String,
}
