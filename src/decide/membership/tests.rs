//! Owns the tests of `plan`: what every state, reason and change follows from.
//! `build` makes observations; `candidates`, `workers` and `holds` are tables of cases; `properties`
//! compares random fleets (`world`) with a model that is far simpler than the planner.

mod build;
mod candidates;
mod holds;
mod properties;
mod suspected;
mod workers;
mod world;
