//! Owns the order of the steps of `fleet.remove_worker` and `fleet.enroll_worker`, and when they refuse.
//! Must not take a step itself; `apply::removal` does.

use crate::apply::removal::{self, Held};
use crate::backend::locks;
use crate::error::Error;
use crate::session::{
    autoregister, require_coordinator, require_superuser, require_undisputed, snapshot_json,
    wake_controller_after_commit,
};
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
    if node.is_job_running {
        return Err(Error::JobRunning);
    }
    let mut look = look_again(node.nodeid)?;
    require_undisputed()?;
    if let Some(mode) = transfer {
        look.require_itself(&name)?;
        if !removal::held(node.groupid)?.is_empty() {
            if !node.has_elsewhere {
                return Err(Error::NowhereToGo(name));
            }
            removal::wait_for_others(&node, false)?;
            if let Some(risk) = removal::leftovers(node.groupid)?.risk() {
                warning!("{risk}");
            }
            notice!("moving the shards of {name} to the other nodes");
            removal::drain(nodename, nodeport, mode)?;
            // It may have taken hours.
            look = look_again(node.nodeid)?;
            look.require_itself(&name)?;
        }
    }
    let held = removal::held(node.groupid)?;
    if !held.is_empty() {
        return Err(Error::HoldsData { node: name, held: list(&held) });
    }
    if look.is_itself && removal::has_remains(node.groupid)? {
        return Err(Error::HoldsRemains(name));
    }
    removal::wait_for_others(&node, look.is_itself)?;
    let is_recorded = removal::remove(&node, look.is_itself, &look.silent)?;
    wake_controller_after_commit();
    match (is_recorded, look.is_itself) {
        (true, true) => {
            notice!("{name} is removed; SELECT fleet.enroll_worker(…) lets it join again")
        }
        (true, false) => notice!(
            "{name} is removed; it could not be told, so its data directory has to be emptied before the host is used again"
        ),
        (false, _) => {
            notice!("{name} is removed; who it was is not known, so nothing keeps it out")
        }
    }
    Ok(())
}

/// Lets a removed server join again.
pub fn enroll(nodename: &str, nodeport: i32) -> Result<(), Error> {
    require_superuser("fleet.enroll_worker()")?;
    require_coordinator("fleet.enroll_worker()")?;
    let name = || format!("{nodename}:{nodeport}");
    if removal::is_unaware(nodename, nodeport)? {
        return Err(Error::Unaware(name()));
    }
    match removal::enroll(nodename, nodeport)? {
        None => Err(Error::NotRemoved(name())),
        Some(false) => Err(Error::NotClean(name())),
        Some(true) => {
            wake_controller_after_commit();
            Ok(())
        }
    }
}

/// What the controller has just seen of a worker.
struct Look {
    state: String,
    reason: String,
    /// The server at its address is known to be this worker.
    is_itself: bool,
    /// The other workers that Citus sends metadata to, and of which that is not known.
    silent: Vec<i32>,
}

impl Look {
    fn require_itself(&self, name: &str) -> Result<(), Error> {
        if self.is_itself {
            return Ok(());
        }
        let (state, reason) = (self.state.clone(), self.reason.clone());
        Err(Error::NotInOrder { node: name.to_owned(), state, reason })
    }
}

/// Has the controller look again, without changing anything.
fn look_again(nodeid: i32) -> Result<Look, Error> {
    autoregister(true)?;
    let snapshot = snapshot_json()?.unwrap_or_default();
    let workers = snapshot["workers"].as_array().map_or(&[][..], Vec::as_slice);
    let worker = workers.iter().find(|worker| worker["nodeid"] == nodeid);
    let text =
        |key: &str| worker.and_then(|worker| worker[key].as_str()).unwrap_or_default().to_owned();
    let state = text("state");
    // One that is empty is called removing as well, while it is being removed.
    let answers = |worker: &serde_json::Value| {
        let state = worker["state"].as_str().unwrap_or_default();
        matches!(state, "active" | "removing") && worker["code"] != "removed_just_now"
    };
    let is_silent = |other: &&serde_json::Value| other["nodeid"] != nodeid && !answers(other);
    let silent = workers.iter().filter(is_silent).filter_map(|other| other["nodeid"].as_i64());
    let silent = removal::with_metadata(silent.filter_map(|id| i32::try_from(id).ok()).collect())?;
    Ok(Look { is_itself: worker.is_some_and(answers), reason: text("reason"), state, silent })
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
