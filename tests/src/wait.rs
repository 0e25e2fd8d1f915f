//! Owns waiting: every wait of the harness and of the suites is for a condition, with a deadline.
//! Must not know what is being waited for.

use std::fmt::Display;
use std::thread;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(20);

/// Asks `condition` until it is `Ok`, and panics with its last `Err` once `deadline` has passed.
#[track_caller]
pub fn until<T, E: Display>(
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> Result<T, E>,
) -> T {
    let started = Instant::now();
    loop {
        match condition() {
            Ok(value) => return value,
            Err(last) if started.elapsed() >= deadline => {
                panic!("{what}: not within {deadline:?}; last seen: {last}")
            }
            Err(_) => thread::sleep(POLL),
        }
    }
}

/// Panics unless `action` returns within `limit`; what it returns is handed on with the time taken.
#[track_caller]
pub fn within<T>(what: &str, limit: Duration, action: impl FnOnce() -> T) -> (T, Duration) {
    let started = Instant::now();
    let value = action();
    let taken = started.elapsed();
    assert!(taken <= limit, "{what}: took {taken:?}, more than {limit:?}");
    (value, taken)
}

/// Watches for `span` that `condition` stays `Ok`: for things that must not happen.
#[track_caller]
pub fn throughout<E: Display>(
    what: &str,
    span: Duration,
    mut condition: impl FnMut() -> Result<(), E>,
) {
    let started = Instant::now();
    while started.elapsed() < span {
        if let Err(seen) = condition() {
            panic!("{what}: broken after {:?}: {seen}", started.elapsed());
        }
        thread::sleep(POLL);
    }
}
