//! Owns the tests of `plan`: what every state, reason and change follows from.
//! `build` makes observations; `candidates`, `workers`, `holds`, `hanging`, `clones`, `moves`, `mistakes`, `removal` and `rebalance`
//! are tables of cases; `properties` compares random fleets (`world`) with a model that is far simpler than the planner.

pub mod build;
mod candidates;
mod clones;
mod hanging;
mod holds;
mod mistakes;
mod moves;
mod properties;
mod rebalance;
mod removal;
mod workers;
mod world;
