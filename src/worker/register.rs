//! Owns telling the postmaster about the controller.
//! Must not run anything of it.

use pgrx::bgworkers::{BackgroundWorkerBuilder, BgWorkerStartTime};
use std::time::Duration;

/// What the controller is called in `pg_stat_activity` and in the log.
pub const NAME: &str = "citus_fleet controller";

/// Registers the controller. It starts once recovery has finished, so a standby coordinator has
/// none and gets it at its promotion.
pub fn controller() {
    BackgroundWorkerBuilder::new(NAME)
        .set_type(NAME)
        .set_library("citus_fleet")
        .set_function("citus_fleet_controller")
        // This also sets the start time, so it comes first.
        .enable_spi_access()
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_restart_time(Some(Duration::from_secs(1)))
        .load();
}
