//! Owns looking: DNS, logins to other servers, the coordinator's own catalogs. Reads only.
//! Must not change anything, anywhere, and must not decide what an observation means.

pub mod ask;
pub mod citus_nodes;
pub mod credentials;
pub mod dns;
pub mod login;
pub mod naming;
pub mod network;
pub mod probe;
pub mod recall;
pub mod search_option;
pub mod vector;
