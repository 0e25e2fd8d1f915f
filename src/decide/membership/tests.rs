//! Owns the tests of `plan`: what every state, reason and change follows from.
//! `build` makes observations; `candidates`, `workers`, `holds`, `moves` and `mistakes` are tables of
//! cases; `properties` compares random fleets (`world`) with a model that is far simpler than the planner.

mod build;
mod candidates;
mod holds;
mod mistakes;
mod moves;
mod properties;
mod workers;
mod world;
