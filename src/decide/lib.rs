//! Owns every decision: what an observation means, what is to be changed, what is to be probed next.
//! Must stay pure: no pgrx, no clock, no I/O; time comes in as a value. It is a crate of its own, so that
//! the compiler keeps the wall (`docs/architecture.md`, "Rooms").

#![forbid(unsafe_code)]

pub mod condition;
pub mod configuration;
pub mod login;
pub mod membership;
pub mod node;
pub mod search;
