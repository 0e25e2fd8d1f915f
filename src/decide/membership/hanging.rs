//! Owns whose turn it is where servers have hung while they joined: one of them at a time, and only in a
//! cycle that has nothing else to do, because nobody else can change the cluster meanwhile.
//! Must not keep anything from being changed but registrations.

use super::cause::{Cause, Hang};
use super::change::{Change, ChangeFailure};
use super::evidence::Hindrance;
use super::plan::Plan;
use super::schedule;
use super::situations;
use super::view::View;
use std::net::SocketAddr;
use std::time::Duration;

/// Takes registrations out of a plan: of those that have hung, all but the one whose turn it is; of the
/// others, all while so many have hung just now that the next ones may, too.
pub fn hold_back(view: &View<'_>, plan: &mut Plan) {
    let now = view.seen.now.monotonic;
    let known: Vec<(Duration, Duration)> =
        view.seen.failures.values().filter_map(known_hang).collect();
    let is_calm = schedule::calm_at(now, &known) <= now;
    let is_rested = schedule::rested_at(&known) <= now;
    let hung = |change: &Change| last_hang(view, change);
    // A mark is one row on one server, and keeps nobody waiting.
    let is_small = |change: &Change| matches!(change, Change::Mark { .. });
    let is_idle =
        plan.sought.is_empty() && plan.changes.iter().all(|it| hung(it).is_some() || is_small(it));
    let may_be_next = |failure: &&ChangeFailure| match known_hang(failure) {
        Some(_) => is_idle && is_rested,
        None => is_idle && is_calm,
    };
    let next: Option<Duration> = plan
        .changes
        .iter()
        .filter_map(hung)
        .filter(may_be_next)
        .map(|failure| failure.retry_at)
        .min();
    let mut next_one = next;
    let mut held: Vec<(SocketAddr, Hindrance)> = Vec::new();
    plan.changes.retain(|change| {
        let Change::Register { endpoint, .. } = change else { return true };
        let hindrance = match hung(change) {
            Some(failure) if next_one == Some(failure.retry_at) => {
                next_one = None;
                None
            }
            Some(failure) => Some(Hindrance::of(failure)),
            None => (!is_calm).then_some(Hindrance::OthersHang(known.len())),
        };
        held.extend(hindrance.clone().map(|why| (*endpoint, why)));
        hindrance.is_none()
    });
    for (endpoint, why) in held {
        let listed = plan.workers.iter_mut().filter(|worker| worker.endpoint == Some(endpoint));
        listed.for_each(|worker| worker.is_now(situations::of_hindrance(&why)));
    }
}

/// The last attempt of a registration, where that hung.
fn last_hang<'a>(view: &View<'a>, change: &Change) -> Option<&'a ChangeFailure> {
    let Change::Register { .. } = change else { return None };
    let failure = view.seen.failures.get(&change.subject())?;
    matches!(failure.cause, Cause::Hung(_)).then_some(failure)
}

/// When the server that hung had done so, and for how long, where it is known to be the one, and is to rest.
fn known_hang(failure: &ChangeFailure) -> Option<(Duration, Duration)> {
    match failure.cause {
        Cause::Hung(Hang { took, is_known: true }) if !failure.is_forgiven() => {
            Some((failure.failed_at, took))
        }
        _ => None,
    }
}
