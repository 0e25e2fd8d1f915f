//! Owns the controller, the one background worker that observes, decides and applies.
//! Must not hold rules of its own: what to do is `decide`'s, how it is done `observe`'s and `apply`'s.

pub mod board;
pub mod connection;
pub mod containment;
pub mod cycle;
pub mod events;
pub mod main_loop;
pub mod memory;
pub mod register;
pub mod sampler;
pub mod signals;
pub mod status;
