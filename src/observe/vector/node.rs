//! Owns what one node says of its own vector tables, the answer of `fleet.vector_evidence()`: its
//! catalogs and statistics, the pages on disk, and what the host gives it.
//! Must not read a row of a table, wait for a lock, or ask another node.

use super::metapage::Opened;
use crate::backend::catalog::{is_installed, value};
use crate::error::Error;
use decide::search::vector::model::{Index, NodeEvidence, Relation, Resources};
use pgrx::{IntoDatum, pg_sys};
use std::ffi::CStr;
use std::fs::read_to_string;

/// Collects the evidence of this node. Runs with the setting of Citus that shows shards, and with a
/// search path of pg_catalog alone: both belong to the SQL function.
pub fn collect() -> Result<NodeEvidence, Error> {
    if is_installed(c"vector") {
        // The settings of searches exist only where the library has been loaded.
        // SAFETY: what the extension itself was created from; an ERROR where the file is gone.
        unsafe { pg_sys::load_file(c"$libdir/vector".as_ptr(), false) };
    }
    let mut evidence: NodeEvidence = value(include_str!("node.sql"), &[])?;
    for relation in &mut evidence.relations {
        look(relation);
    }
    evidence.resources = Resources { memory: memory(), disk_free: disk_free() };
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
    // SAFETY: the data directory's name is set before any of our code runs; statvfs writes one
    // structure, which is read only where it succeeded.
    unsafe {
        let path = CStr::from_ptr(pg_sys::DataDir);
        let mut answer = std::mem::zeroed::<libc::statvfs>();
        (libc::statvfs(path.as_ptr(), &mut answer) == 0)
            .then(|| answer.f_bavail.saturating_mul(answer.f_frsize))
    }
}
