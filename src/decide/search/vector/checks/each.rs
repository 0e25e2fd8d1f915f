//! Owns going over all placements, or one index on all of them, and telling the findings whether
//! they are the same everywhere: then one statement on the coordinator mends them all.
//! Must not judge.

use crate::search::vector::finding::{Concern, Finding, Remedy};
use crate::search::vector::fleet::{Fleet, Placement, Table, is_leftover};
use crate::search::vector::model::{Index, Relation};

/// A placement that is there.
#[derive(Clone, Copy)]
pub struct Place<'f, 'a> {
    pub table: &'f Table<'a>,
    pub placement: &'f Placement<'a>,
    pub relation: &'a Relation,
}

/// An index that is there, on one placement.
#[derive(Clone, Copy)]
pub struct Spot<'f, 'a> {
    pub place: Place<'f, 'a>,
    /// The index as its table knows it.
    pub shell: &'a Index,
    pub index: &'a Index,
}

impl Place<'_, '_> {
    /// `host:port` of its node.
    pub fn node<'f>(&self, fleet: &'f Fleet<'_>) -> &'f str {
        &fleet.node(self.placement).address
    }
}

impl Spot<'_, '_> {
    pub fn node<'f>(&self, fleet: &'f Fleet<'_>) -> &'f str {
        self.place.node(fleet)
    }

    pub fn subject(&self, fleet: &Fleet<'_>) -> Concern {
        fleet.subject_of(self.place.table, self.place.placement, self.shell)
    }

    /// REINDEX: on the whole table where all of its placements need it, else on this one.
    pub fn rebuild(&self, fleet: &Fleet<'_>, everywhere: bool) -> Remedy {
        match everywhere {
            true => Remedy::on_coordinator(reindex(self.place.table.shell, self.shell)),
            false => {
                fleet.on_node_of(self.place.placement, reindex(self.place.relation, self.index))
            }
        }
    }
}

/// The statement that builds an index of a relation anew.
pub fn reindex(of: &Relation, index: &Index) -> String {
    format!("REINDEX INDEX CONCURRENTLY {}.{}", of.quoted_schema, index.quoted)
}

/// Looks at every placement, and tells of those where something was seen.
pub fn each_placement<'f, 'a, W>(
    fleet: &'f Fleet<'a>,
    look: impl Fn(Place<'f, 'a>) -> Option<W>,
    tell: impl Fn(Place<'f, 'a>, W, bool) -> Finding,
) -> Vec<Finding> {
    fleet.tables.iter().flat_map(|table| told(table, places(table), &look, &tell)).collect()
}

/// Looks at every index on every placement, and tells of those where something was seen.
pub fn each_index<'f, 'a, W>(
    fleet: &'f Fleet<'a>,
    look: impl Fn(Spot<'f, 'a>) -> Option<W>,
    tell: impl Fn(Spot<'f, 'a>, W, bool) -> Finding,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for table in &fleet.tables {
        for shell in table.shell.indexes.iter().filter(|index| !is_leftover(index)) {
            let spots = places(table).filter_map(|place| {
                Some(Spot { place, shell, index: place.placement.counterpart(shell)? })
            });
            findings.extend(told(table, spots, &look, &tell));
        }
    }
    findings
}

/// What is told of those among a table's placements where something was seen.
fn told<S: Copy, W>(
    table: &Table<'_>,
    spots: impl Iterator<Item = S>,
    look: impl Fn(S) -> Option<W>,
    tell: impl Fn(S, W, bool) -> Finding,
) -> Vec<Finding> {
    let seen: Vec<(S, W)> = spots.filter_map(|spot| Some((spot, look(spot)?))).collect();
    let everywhere = seen.len() == table.placements.len();
    seen.into_iter().map(|(spot, what)| tell(spot, what, everywhere)).collect()
}

fn places<'f, 'a>(table: &'f Table<'a>) -> impl Iterator<Item = Place<'f, 'a>> {
    table.placements.iter().filter_map(move |placement| {
        Some(Place { table, placement, relation: placement.relation? })
    })
}
