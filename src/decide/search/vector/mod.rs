//! Owns what the evidence of all nodes means: which findings there are, and how well vector search
//! works on every placement, index, table and node. Must stay pure, as all of `decide`.

pub mod activity;
pub mod catalogs;
pub mod checks;
mod figure;
pub mod finding;
pub mod fleet;
pub mod health;
pub mod model;
pub mod nodes;
pub mod progress;
mod recalls;
pub mod rows;
pub mod series;
pub mod sizes;
pub mod sources;
pub mod told;
