//! Owns the order of the steps of `fleet.remove_worker` and `fleet.enroll_worker`, and when they refuse.
//! Must not take a step itself; `apply::removal` does.

use super::{Error, autoregister, locks, require_coordinator, require_superuser, snapshot_json};
use crate::apply::removal::{self, Held};
use pgrx::prelude::*;

/// Removes a worker; with `transfer`, moves its shards away first, in that shard transfer mode.
pub fn remove(nodename: &str, nodeport: i32, transfer: Option<&str>) -> Result<(), Error> {
    require_superuser("fleet.remove_worker()")?;
    require_coordinator("fleet.remove_worker()")?;
    let name = format!("{nodename}:{nodeport}");
    let node = removal::find(nodename, nodeport)?.ok_or(Error::NoSuchWorker(name.clone()))?;
    if !locks::try_mark_removing(node.nodeid) {
        return Err(Error::BeingRemoved(name));
    }
    require_not_paused()?;
    let mut standing = look(node.nodeid)?;
    if let Some(mode) = transfer
        && !removal::held_alone(node.groupid)?.is_empty()
    {
        if !standing.is_itself {
            let Standing { state, reason, .. } = standing;
            return Err(Error::NotInOrder { node: name, state, reason });
        }
        if !node.has_elsewhere {
            return Err(Error::NowhereToGo(name));
        }
        notice!("moving the shards of {name} to the other nodes");
        removal::drain(nodename, nodeport, mode)?;
        // It may have taken hours.
        standing = look(node.nodeid)?;
    }
    let held = removal::held_alone(node.groupid)?;
    if !held.is_empty() {
        return Err(Error::HoldsData { node: name, held: list(&held) });
    }
    require_not_paused()?;
    removal::remove(&node, nodename, nodeport, standing.is_itself)?;
    super::wake_controller_after_commit();
    notice!("{name} is removed; SELECT fleet.enroll_worker(…) lets it join again");
    Ok(())
}

/// Lets a removed server join again.
pub fn enroll(nodename: &str, nodeport: i32) -> Result<(), Error> {
    require_superuser("fleet.enroll_worker()")?;
    require_coordinator("fleet.enroll_worker()")?;
    let name = || format!("{nodename}:{nodeport}");
    match removal::enroll(nodename, nodeport)? {
        None => Err(Error::NotRemoved(name())),
        Some(false) => Err(Error::NotClean(name())),
        Some(true) => {
            super::wake_controller_after_commit();
            Ok(())
        }
    }
}

/// What the controller has just seen of a worker.
struct Standing {
    state: String,
    reason: String,
    /// The server at its address is known to be this worker.
    is_itself: bool,
}

/// Has the controller look again, without changing anything.
fn look(nodeid: i32) -> Result<Standing, Error> {
    autoregister(true)?;
    let snapshot = snapshot_json()?.unwrap_or_default();
    let workers = snapshot["workers"].as_array().map_or(&[][..], Vec::as_slice);
    let worker = workers.iter().find(|worker| worker["nodeid"] == nodeid);
    let text =
        |key: &str| worker.and_then(|worker| worker[key].as_str()).unwrap_or_default().to_owned();
    let state = text("state");
    let is_itself = matches!(state.as_str(), "active" | "removing");
    Ok(Standing { is_itself, reason: text("reason"), state })
}

fn require_not_paused() -> Result<(), Error> {
    let paused: Option<bool> = removal::look_up("SELECT c.paused FROM fleet.control c", &[])?;
    if paused == Some(true) { Err(Error::Paused) } else { Ok(()) }
}

/// What remains where, a table at a time.
fn list(held: &[Held]) -> String {
    const MOST: usize = 20;
    let tables =
        held.iter().take(MOST).map(|held| format!("{}: {} shards", held.table, held.shards));
    let more = held.len().saturating_sub(MOST);
    let more = (more > 0).then(|| format!("and {more} more tables"));
    tables.chain(more).collect::<Vec<_>>().join(", ")
}
