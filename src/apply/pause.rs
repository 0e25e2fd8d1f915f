//! Owns what `fleet.pause()` means for a change: none begins once it is committed, and it waits for one
//! that has begun. Must not pause or resume anything.

use crate::error::Error;
use pgrx::prelude::*;

/// Holds `fleet.pause()` off until the end of the transaction; fails where it has been called.
pub fn hold_off() -> Result<(), Error> {
    let paused: Option<bool> = Spi::get_one("SELECT c.paused FROM fleet.control c FOR SHARE")?;
    if paused == Some(false) { Ok(()) } else { Err(Error::Paused) }
}
