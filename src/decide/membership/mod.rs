//! Owns who is a member: what every candidate and every registered worker is, and what is to be changed.
//! Must not act, and must not look at what the members hold.

pub mod change;
pub mod discovery;
mod follow;
pub mod model;
pub mod own_address;
pub mod plan;
mod preflight;
mod rebalance;
mod registered;
mod removal;
pub mod schedule;
#[cfg(test)]
mod tests;
pub mod verdict;
mod whereabouts;
