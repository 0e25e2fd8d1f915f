//! Owns looking: what DNS and other servers say, and the coordinator's own catalogs. Reads only.
//! Must not change anything, anywhere, and must not decide what an observation means.

pub mod coordinator;
pub mod holders;
pub mod naming;
pub mod network;
pub mod probe;
pub mod recall;
pub mod search_option;
pub mod search_settings;
pub mod vector;
