//! Owns what one node says of its own vector tables, the answer of `fleet.vector_evidence()`: its
//! catalogs and statistics, the pages on disk, and what the host gives it.
//! Must not read a row of a table, wait for a lock, or ask another node.

use super::metapage::Opened;
use super::searches;
use crate::backend::catalog::{read_one, setting, value};
use crate::backend::transaction::contained;
use crate::error::Error;
use crate::observe::search_settings;
use decide::search::vector::model::{Index, NodeEvidence, Relation, Resources};
use pgrx::{IntoDatum, pg_sys};
use std::ffi::CStr;
use std::fs::read_to_string;

/// Collects the evidence of this node. Runs with the setting of Citus that shows shards, and with a
/// search path of pg_catalog alone: both belong to the SQL function.
pub fn collect() -> Result<NodeEvidence, Error> {
    let of_database = search_settings::of_database()?;
    let mut evidence: NodeEvidence = value(include_str!("node.sql"), &[])?;
    for (name, value) in of_database {
        evidence.settings.entry(name).or_default().value = value;
    }
    for relation in &mut evidence.relations {
        look(relation);
    }
    evidence.resources =
        Resources { memory: memory(), disk_free: disk_free(), shared_memory: shared_memory() };
    evidence.counted_since = read_one(include_str!("../counted_since.sql"), &[])?;
    evidence.library.is_replaced = is_library_replaced();
    // Without them something can be told all the same.
    evidence.searches = contained(searches::collect).unwrap_or_default();
    Ok(evidence)
}

/// Adds what takes a lock on the table: its size, and the definitions and first pages of its
/// indexes. What somebody holds exclusively at this moment is left out.
fn look(relation: &mut Relation) {
    let Some(table) = Opened::without_waiting(relation.oid) else { return };
    relation.pages = (!relation.partitioned).then(|| table.pages().into());
    for index in &mut relation.indexes {
        let Some(opened) = Opened::without_waiting(index.oid) else { continue };
        index.definition = definition(index);
        if !index.partitioned {
            index.pages = Some(opened.pages().into());
            index.meta = opened.metapage();
        }
    }
}

/// What follows USING. The table is locked already, so nothing is waited for.
fn definition(index: &Index) -> Option<String> {
    let oid = pg_sys::Oid::from(index.oid);
    // SAFETY: PostgreSQL's own function with the argument that it declares; the text is copied.
    let text: Option<String> =
        unsafe { pgrx::direct_function_call(pg_sys::pg_get_indexdef, &[oid.into_datum()]) };
    text?.strip_prefix(&index.head).map(str::to_owned)
}

/// Bytes of memory that this server can have: the host's, or the control group's where that is less.
fn memory() -> Option<u64> {
    let meminfo = read_to_string("/proc/meminfo").unwrap_or_default();
    let host = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .and_then(|kib| kib.trim().parse::<u64>().ok())
        .map(|kib| kib * 1024);
    let group = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .iter()
        .find_map(|path| read_to_string(path).ok()?.trim().parse::<u64>().ok());
    host.into_iter().chain(group).min()
}

/// Bytes that the server's user may still write to the file system of the data directory.
fn disk_free() -> Option<u64> {
    // SAFETY: the data directory's name is set before any of our code runs.
    let answer = file_system(unsafe { CStr::from_ptr(pg_sys::DataDir) })?;
    Some(answer.f_bavail.saturating_mul(answer.f_frsize))
}

/// Bytes of /dev/shm, where dynamic shared memory of type posix lives on Linux.
fn shared_memory() -> Option<u64> {
    let is_there = setting(c"dynamic_shared_memory_type") == "posix";
    let answer = is_there.then(|| file_system(c"/dev/shm"))??;
    Some(answer.f_blocks.saturating_mul(answer.f_frsize))
}

fn file_system(path: &CStr) -> Option<libc::statvfs> {
    // SAFETY: statvfs writes one structure, which is read only where it succeeded.
    unsafe {
        let mut answer = std::mem::zeroed::<libc::statvfs>();
        (libc::statvfs(path.as_ptr(), &mut answer) == 0).then_some(answer)
    }
}

/// Whether the library that this process has loaded is not the file of that name any more: where it is
/// preloaded, until the server is restarted.
fn is_library_replaced() -> bool {
    let maps = read_to_string("/proc/self/maps").unwrap_or_default();
    maps.lines().any(|line| line.ends_with("/vector.so (deleted)"))
}
