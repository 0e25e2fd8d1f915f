//! Owns every decision: what an observation means, what is to be changed, what is to be probed next.
//! Must stay pure: no pgrx, no clock, no I/O; time comes in as a value (`make lint` compiles this
//! folder on its own to make sure).

pub mod change;
pub mod condition;
pub mod discovery;
pub mod doctor;
pub mod membership;
pub mod model;
pub mod names;
pub mod networks;
pub mod policy;
pub mod preflight;
pub mod recall;
pub mod registered;
pub mod schedule;
pub mod search_options;
pub mod sources;
pub mod vector;
pub mod verdict;
pub mod whereabouts;
