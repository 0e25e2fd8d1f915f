//! Owns the table of situations: what a candidate, a registered worker, or what is in their way, is
//! called, in which state that is, and what is to be done about it. As in pg_hba.conf, the first row that
//! matches counts, so a row means: this, and nothing above it.
//! Must not look at anything but the evidence that it is given.

mod at_home;
mod candidates;
mod document;
mod hindrances;
mod lineage;
mod logins;
mod row;
#[cfg(test)]
mod tests;
mod workers;

use super::evidence::{AtHome, Hindrance, Member, Newcomer};
use super::state::State;
use super::verdict::Verdict;
pub use at_home::NODES_DIFFER;
pub use candidates::{CLEANING, CLEANING_WAITS, CLONE, REGISTERING, SYNCING, of_clone};
pub use document::document;
pub use logins::of_login;
pub use row::{Facts, Row};
use row::{WayOut, When};
pub use workers::{ADDRESS_TAKEN, HOLDS_NO_SHARDS, SHARDS_ARE_MOVED};

/// The whole table, in the order in which it is read.
const TABLE: [&[Row]; 6] = [
    lineage::TABLE,
    workers::TABLE,
    at_home::TABLE,
    candidates::TABLE,
    logins::TABLE,
    hindrances::TABLE,
];

/// A row of the table as people read it.
pub struct Description {
    pub code: &'static str,
    pub state: State,
    /// It does not end by itself.
    pub needs_hands: bool,
    pub reason: &'static str,
    pub cause: &'static str,
    pub remedy: Option<&'static str>,
}

/// The table, with the names of what its texts are filled with in braces.
pub fn described() -> impl Iterator<Item = Description> {
    rows().map(|row| {
        let remedy = match row.way_out {
            WayOut::Do(remedy) | WayOut::Tell(remedy) => Some(remedy),
            WayOut::Nothing | WayOut::Wait(_) => None,
        };
        let needs_hands = matches!(row.way_out, WayOut::Do(_));
        let Row { code, state, reason, cause, .. } = *row;
        Description { code, state, needs_hands, reason, cause, remedy }
    })
}

fn rows() -> impl Iterator<Item = &'static Row> {
    TABLE.iter().copied().flatten()
}

pub fn of_newcomer(it: &Newcomer<'_>) -> Verdict {
    let failure = it.failure();
    first(|when| match when {
        When::Candidate(matches) => matches(it),
        When::Login(kind) => failure.and_then(|failure| logins::of_kind(kind, failure)),
        When::Hindrance(matches) => it.hindrance.as_ref().and_then(matches),
        _ => None,
    })
}

/// The server at a row's address, wherever else it may be.
pub fn at_home(it: &AtHome<'_>) -> Verdict {
    first(|when| match when {
        When::AtHome(matches) => matches(it),
        When::Login(kind) => it.failure.as_ref().and_then(|failure| logins::of_kind(kind, failure)),
        _ => None,
    })
}

/// A registered worker: what its row, its whereabouts and the operator make of it, or else what the
/// server at its address is.
pub fn of_member(it: &Member<'_>) -> Verdict {
    matching(|when| match when {
        When::Worker(matches) => matches(it),
        _ => None,
    })
    .unwrap_or_else(|| it.at_home.clone())
}

pub fn of_hindrance(it: &Hindrance) -> Verdict {
    first(|when| match when {
        When::Hindrance(matches) => matches(it),
        _ => None,
    })
}

/// The first row that matches. There is one for whatever can be given: the last rows of each kind take
/// everything that is left (`tests`).
fn first(matches: impl Fn(When) -> Option<Facts>) -> Verdict {
    matching(matches).unwrap_or_else(|| logins::OTHER.verdict(&vec![("message", String::new())]))
}

fn matching(matches: impl Fn(When) -> Option<Facts>) -> Option<Verdict> {
    rows().find_map(|row| {
        let facts = row.when.iter().find_map(|when| matches(*when))?;
        Some(row.verdict(&facts))
    })
}
