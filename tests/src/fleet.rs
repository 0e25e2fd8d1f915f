//! Owns reading what citus_fleet says of a cluster: its views, its status, its controller.
//! Must not judge it: suites do.

use crate::cluster::Cluster;
use crate::server::{Row, Server};
use crate::wait::until;
use std::net::IpAddr;
use std::time::Duration;

/// Far longer than anything should take: a test that waits this long has failed.
pub const SOON: Duration = Duration::from_secs(20);

impl Cluster {
    /// The row of `fleet.workers` for an address; `Err` says what is there instead.
    pub fn worker_at(&self, address: IpAddr) -> Result<Row, String> {
        worker_at(&self.coordinator, address)
    }

    /// Waits until `fleet.workers` has this state for this address.
    #[track_caller]
    pub fn wait_for_state(&self, address: IpAddr, state: &str) -> Row {
        wait_for_state(&self.coordinator, address, state)
    }

    /// Waits until every one of the cluster's own workers is `active`.
    #[track_caller]
    pub fn wait_until_all_active(&self) {
        for worker in &self.workers {
            self.wait_for_state(worker.address, "active");
        }
    }

    /// The process id of the controller, once it runs.
    #[track_caller]
    pub fn controller(&self) -> u32 {
        controller(&self.coordinator)
    }

    /// Waits until this many cycles have begun and ended.
    #[track_caller]
    pub fn wait_for_cycles(&self, rounds: u64) {
        let cycles = || -> Result<u64, String> {
            let count = self.coordinator.try_value("SELECT fleet.status()->>'cycles'")?;
            count.parse().map_err(|_| format!("cycles = {count:?}"))
        };
        let before = until("the controller counts its cycles", SOON, cycles);
        // The cycle that runs now has begun too early to count.
        let wanted = before + rounds + 1;
        until(&format!("{rounds} cycles have passed"), Duration::from_secs(60), || {
            let now = cycles()?;
            if now >= wanted { Ok(()) } else { Err(format!("{now} of {wanted}")) }
        });
    }
}

pub fn worker_at(coordinator: &Server, address: IpAddr) -> Result<Row, String> {
    let everything = "SELECT * FROM fleet.workers";
    let mut rows = coordinator
        .try_rows(&format!("{everything} WHERE host(address::text::inet) = '{address}'"))
        .map_err(|error| error.to_string())?;
    match rows.len() {
        1 => Ok(rows.remove(0)),
        0 => {
            let others = coordinator.try_rows(everything).map_err(|error| error.to_string())?;
            let others: Vec<String> = others
                .iter()
                .map(|row| format!("{} {} ({})", &row["address"], &row["state"], &row["reason"]))
                .collect();
            Err(format!("{address} is not in fleet.workers, but {others:?}"))
        }
        _ => Err(format!("{address} is in fleet.workers {} times: {rows:?}", rows.len())),
    }
}

#[track_caller]
pub fn wait_for_state(coordinator: &Server, address: IpAddr, state: &str) -> Row {
    until(&format!("{address} is {state}"), SOON, || {
        let row = worker_at(coordinator, address)?;
        if &row["state"] == state { Ok(row) } else { Err(format!("{row:?}")) }
    })
}

#[track_caller]
pub fn controller(coordinator: &Server) -> u32 {
    until("the controller runs", SOON, || {
        let pid = coordinator.try_value(
            "SELECT pid FROM pg_catalog.pg_stat_activity WHERE backend_type = 'citus_fleet controller'",
        )?;
        pid.parse::<u32>().map_err(|error| error.to_string())
    })
}
