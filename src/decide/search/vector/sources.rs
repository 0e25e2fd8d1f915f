//! Owns what the picture is put together from: everything that was collected, as it was told.
//! Must not put it together.

use super::catalogs::Catalogs;
use super::model::{NodeAnswer, NodeEvidence, RecallResult, Silence};
use std::collections::BTreeMap;

/// Everything that was collected, before it is put together.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    pub own_port: u16,
    pub own: &'a NodeEvidence,
    /// `None` without Citus.
    pub catalogs: Option<&'a Catalogs>,
    /// Of the other nodes, by nodeid.
    pub answers: &'a BTreeMap<i32, NodeAnswer>,
    pub recalls: &'a [RecallResult],
    pub silences: &'a [Silence],
}
