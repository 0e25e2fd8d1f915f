//! Owns how much is measured, and saying how far it has come.
//! Must not know what is measured.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A full run, or a quick one that shows whether everything still works.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    pub quick: bool,
}

impl Effort {
    pub fn pick<T>(self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    pub fn seconds(self, full: u64, quick: u64) -> Duration {
        Duration::from_secs(self.pick(full, quick))
    }
}

/// Prints a line of progress with the time since the program began.
pub fn say(who: &str, what: &str) {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    let elapsed = BEGAN.get_or_init(Instant::now).elapsed().as_secs();
    println!("{:3}:{:02}  {who:8} {what}", elapsed / 60, elapsed % 60);
}

/// A number in [0, 1) that differs for every `n` and leaves no gaps: where in a waiting time an
/// event falls should be neither fixed nor left to chance.
pub fn phase(n: usize) -> f64 {
    (n as f64 * 0.618_033_988_75).fract()
}
