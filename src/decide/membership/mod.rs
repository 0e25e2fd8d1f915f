//! Owns who is a member: what every candidate and every registered worker is, and what is to be changed.
//! Must not act, and must not look at what the members hold.

pub mod candidate;
pub mod cause;
pub mod change;
pub mod coordinator;
pub mod discovery;
pub mod endpoint;
pub mod evidence;
mod follow;
mod hanging;
pub mod lineage;
pub mod observation;
pub mod own_address;
pub mod plan;
pub mod planner;
mod rebalance;
mod registered;
pub mod schedule;
pub mod server;
pub mod situations;
pub mod state;
#[cfg(test)]
mod tests;
pub mod verdict;
mod view;
mod whereabouts;
