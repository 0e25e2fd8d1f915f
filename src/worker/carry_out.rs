//! Owns carrying a plan out, in the order of what it is worth: first whatever keeps the rows of registered
//! workers right, then those who want to join, then what removed servers have left.
//! Must not talk to a server inside a transaction, nor let one that joins hold up one that moves.

use crate::apply::nodes::{self, Marks, Outcome};
use crate::apply::{claims, leftovers, marks};
use crate::backend::transaction::transaction;
use crate::error::Error;
use crate::net::credentials::Credentials;
use crate::net::login::Login;
use crate::observe::network::{Answered, Network};
use crate::observe::probe::Prober;
use decide::membership::change::{Change, Subject};
use decide::membership::lineage::Mark;
use futures_util::future::join_all;

/// Makes the changes, each as far as it can be made. Those who want to join are looked at once more, and
/// `wanted_still` says what is wanted by that. `tables` are sent to each server that is activated. A signal
/// leaves the rest for the next cycle.
pub fn carry_out(
    network: &mut Network,
    prober: &Prober,
    changes: &[Change],
    tables: u64,
    wanted_still: impl FnOnce(Vec<Answered>) -> Result<Vec<Change>, Error>,
) -> Vec<Outcome> {
    let credentials = &prober.credentials;
    let is_joining = |change: &&Change| matches!(change, Change::Register { .. });
    let is_cleaning = |change: &&Change| matches!(change, Change::Clean { .. });
    let of = |is_it: &dyn Fn(&&Change) -> bool| -> Vec<Change> {
        changes.iter().filter(|change| is_it(change)).cloned().collect()
    };
    let of_rows = of(&|change| !is_joining(change) && !is_cleaning(change));
    let mut outcomes = keep(network, credentials, of_rows, tables);
    // Whoever is added would be given the coordinator's address.
    let has_stale_address = outcomes.iter().any(|Outcome { change, result, .. }| {
        matches!(change, Change::SetCoordinatorHost { .. }) && result.is_err()
    });
    if !has_stale_address {
        outcomes.extend(join(network, prober, of(&is_joining), tables, wanted_still));
    }
    outcomes.extend(clean(network, credentials, of(&is_cleaning)));
    outcomes
}

/// Changes of registered workers: their servers are marked before their rows lead there.
fn keep(
    network: &mut Network,
    credentials: &Credentials,
    changes: Vec<Change>,
    tables: u64,
) -> Vec<Outcome> {
    let marking = changes.iter().map(|change| mark(credentials, change));
    let Some(results) = network.perform(join_all(marking)) else { return Vec::new() };
    let (mut left, mut ready, mut outcomes) = (Marks::new(), Vec::new(), Vec::new());
    for (change, result) in changes.into_iter().zip(results) {
        match result {
            Ok(mark) => {
                left.extend(mark);
                ready.push(change);
            }
            Err(error) => outcomes.push(Outcome::new(change, Err(error.into()))),
        }
    }
    for mut outcome in nodes::apply(&ready, &left, tables) {
        outcome.mark = match outcome.change.subject() {
            Subject::Node(nodeid) => left.remove(&nodeid),
            _ => None,
        };
        outcomes.push(outcome);
    }
    outcomes
}

/// The mark that a change leaves in the data of a server, where it does.
async fn mark(credentials: &Credentials, change: &Change) -> Result<Option<(i32, Mark)>, Error> {
    let (nodeid, nodename, endpoint, system_identifier, known) = match change {
        Change::Mark { nodeid, nodename, endpoint, system_identifier } => {
            (nodeid, nodename, endpoint, system_identifier, None)
        }
        // A version of the extension that has no table for marks is followed without.
        Change::UpdateAddress { nodeid, nodename, endpoint, lineage, known_mark, .. }
            if lineage.marks.is_some() =>
        {
            (nodeid, nodename, endpoint, &lineage.system_identifier, known_mark.as_deref())
        }
        _ => return Ok(None),
    };
    let mark = marks::leave(credentials, nodename, *endpoint, *system_identifier, known).await?;
    Ok(Some((*nodeid, mark)))
}

/// Adds those that could be claimed and are still fit, under their claims.
fn join(
    network: &mut Network,
    prober: &Prober,
    changes: Vec<Change>,
    tables: u64,
    wanted_still: impl FnOnce(Vec<Answered>) -> Result<Vec<Change>, Error>,
) -> Vec<Outcome> {
    if changes.is_empty() {
        return Vec::new();
    }
    let claiming = changes.iter().map(|change| claim(prober, change));
    let Some(results) = network.perform(join_all(claiming)) else { return Vec::new() };
    let (mut claimed, mut logins, mut answers) = (Vec::new(), Vec::new(), Vec::new());
    let mut outcomes = Vec::new();
    for (change, result) in changes.into_iter().zip(results) {
        match result {
            Ok((login, answer)) => {
                claimed.push(change);
                logins.push(login);
                answers.push(answer);
            }
            Err(error) => outcomes.push(Outcome::new(change, Err(error.into()))),
        }
    }
    let is_claimed = |change: &Change| {
        matches!(change, Change::Register { .. })
            && claimed.iter().any(|it| it.subject() == change.subject())
    };
    match wanted_still(answers) {
        Ok(wanted) => {
            let fit: Vec<Change> = wanted.into_iter().filter(is_claimed).collect();
            outcomes.extend(nodes::apply(&fit, &Marks::new(), tables));
        }
        Err(error) => {
            let failed = |change| Outcome::new(change, Err(error.clone().into()));
            outcomes.extend(claimed.into_iter().map(failed));
        }
    }
    // The claims end here, when the servers know whose they are.
    drop(logins);
    outcomes
}

async fn claim(prober: &Prober, change: &Change) -> Result<(Login, Answered), Error> {
    let Change::Register { nodename, endpoint, .. } = change else {
        return Err(Error::Internal("nobody is claimed but who joins".into()));
    };
    claims::claim(prober, nodename, *endpoint).await
}

/// Drops what removed servers have left.
fn clean(network: &mut Network, credentials: &Credentials, changes: Vec<Change>) -> Vec<Outcome> {
    let dropping = changes.iter().map(|change| leftovers::drop_relations(credentials, change));
    let Some(results) = network.perform(join_all(dropping)) else { return Vec::new() };
    let cleaned = changes.into_iter().zip(results).map(|(change, result)| {
        let result = result
            .and_then(|system_identifier| transaction(|| leftovers::set_clean(system_identifier)))
            .map(|()| None)
            .map_err(Into::into);
        Outcome::new(change, result)
    });
    cleaned.collect()
}
