//! Owns the controller, the one background worker that observes, decides and applies.
//! Must not hold rules of its own: what to do is `decide`'s, how it is done `observe`'s and `apply`'s.

mod carry_out;
mod cycle;
mod events;
mod main_loop;
mod memory;
mod positions;
mod record;
pub mod register;
mod snapshot;
