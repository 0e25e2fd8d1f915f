//! Owns the controller, the one background worker that observes, decides and applies.
//! Must not hold rules of its own: what to do is `decide`'s, how it is done `observe`'s and `apply`'s.

mod cycle;
mod events;
mod main_loop;
mod memory;
pub mod register;
mod snapshot;
