//! Owns what an operator has set: sources, names, networks, the policy made of them, and what is to be
//! said about it.
//! Must not know what the fleet looks like at the moment.

pub mod advice;
pub mod cleanup;
pub mod doctor;
pub mod names;
pub mod networks;
pub mod policy;
pub mod sources;
