//! Owns what a server takes for the time: libfaketime gives it another, where it is installed.
//! Must not touch the clock of the machine, nor the one that never jumps.

use std::path::Path;

/// Debian's places for it.
const LIBRARIES: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
];

/// The environment of a process whose clock is off by so many seconds; none where that cannot be had.
pub fn shifted(seconds: i64) -> Option<[(String, String); 3]> {
    let library = LIBRARIES.into_iter().find(|library| Path::new(library).exists())?;
    let offset = format!("{seconds:+}s");
    let variables = [
        ("LD_PRELOAD", library),
        ("FAKETIME", offset.as_str()),
        // PostgreSQL waits by it.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    Some(variables.map(|(name, value)| (name.to_owned(), value.to_owned())))
}
