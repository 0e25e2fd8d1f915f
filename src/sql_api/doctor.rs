//! Owns collecting what `decide::doctor` looks at: settings of this session's server and what the
//! controller saw last. No network.
//! Must not judge.

use crate::apply::removal;
use crate::backend::catalog::{is_installed, read_one, setting, value};
use crate::board;
use crate::board::report::Complaint;
use crate::error::Error;
use crate::http::gate;
use crate::session::snapshot_json;
use crate::settings;
use decide::condition::{Condition, of_controller};
use decide::configuration::doctor::{self, Advice, CitusSettings, Configuration, HttpFacts, Token};
use decide::configuration::networks::Networks;
use pgrx::pg_sys;
use serde::Deserialize;
use std::time::{SystemTime, UNIX_EPOCH};

/// Runs the checks of `fleet.doctor()`.
pub fn examine() -> Result<Vec<Advice>, Error> {
    Ok(doctor::examine(&facts()?))
}

/// The part of the snapshot that is looked at; see `worker::status`.
#[derive(Default, Deserialize)]
struct Seen {
    status: SeenStatus,
    workers: Vec<SeenWorker>,
}

#[derive(Default, Deserialize)]
struct SeenStatus {
    errors: Vec<String>,
    dns_complaints: Vec<String>,
    last_cycle: Option<f64>,
    coordinator_host: Option<Complaint>,
    empty_sources: Vec<String>,
}

#[derive(Deserialize)]
struct SeenWorker {
    nodename: String,
    nodeport: u16,
    nodeid: Option<i32>,
    server_version: Option<String>,
    citus_version: Option<String>,
    vector_version: Option<String>,
}

fn token() -> Token {
    match gate::token() {
        None => Token::NotAsked,
        Some(token) if token.is_empty() => Token::Unusable,
        Some(_) => Token::Asked,
    }
}

fn facts() -> Result<Configuration, Error> {
    let seen: Seen = match controller()?.is_none().then(snapshot_json).transpose()?.flatten() {
        Some(snapshot) => serde_json::from_value(snapshot)?,
        None => Seen::default(),
    };
    Ok(Configuration {
        shared_preload_libraries: setting(c"shared_preload_libraries"),
        library_version: env!("CARGO_PKG_VERSION").to_owned(),
        controller: controller()?,
        citus: citus(seen.status.coordinator_host)?,
        listen_addresses: setting(c"listen_addresses"),
        ssl: setting(c"ssl") == "on",
        wal_level: setting(c"wal_level"),
        max_prepared_transactions: setting(c"max_prepared_transactions")
            .parse()
            .unwrap_or_default(),
        extensions: value(include_str!("extensions.sql"), &[])?,
        sources: setting(c"citus_fleet.workers"),
        http: settings::http_listen().map(|listen| HttpFacts { listen, token: token() }),
        allows_every_network: Networks::parse(&setting(c"citus_fleet.allowed_networks"))
            .is_ok_and(|networks| networks.is_everything()),
        unbound_passwords: settings::unbound_passwords(),
        workers: seen
            .workers
            .into_iter()
            .filter(|worker| worker.nodeid.is_some() && worker.server_version.is_some())
            .map(|w| (format!("{}:{}", w.nodename, w.nodeport), w.citus_version, w.vector_version))
            .collect(),
        failures: {
            let is_dns = |error: &&String| seen.status.dns_complaints.contains(error);
            seen.status.errors.iter().filter(|error| !is_dns(error)).cloned().collect()
        },
        stalled_for: seen.status.last_cycle.and_then(stalled_for),
        dns: seen.status.dns_complaints,
        unresolved_sources: seen.status.empty_sources,
    })
}

/// How long the controller has finished no cycle, where that is too long.
fn stalled_for(last_cycle: f64) -> Option<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let age = now - last_cycle;
    (of_controller(Some(age)) == Condition::Red).then_some(age as u64)
}

/// Why there is no controller for this database, if there is none.
fn controller() -> Result<Option<String>, Error> {
    // SAFETY: set when this session connected.
    let database = unsafe { pg_sys::MyDatabaseId };
    Ok(match board::controller() {
        Ok(Some(controller)) if controller.database == database => None,
        Ok(Some(_)) => {
            Some(format!("it looks after database {}", settings::database().to_string_lossy()))
        }
        Ok(None) => Some("it is not running".into()),
        Err(error) => Some(error.to_string()),
    })
}

/// Of which no node is: leftovers on every node count.
const NO_GROUP: i32 = -1;

fn citus(complaint: Option<Complaint>) -> Result<Option<CitusSettings>, Error> {
    if !is_installed(c"citus") {
        return Ok(None);
    }
    Ok(Some(CitusSettings {
        own_host: read_one(
            "SELECT n.nodename FROM pg_catalog.pg_dist_node n
             WHERE n.groupid OPERATOR(pg_catalog.=) 0
               AND n.noderole::pg_catalog.text OPERATOR(pg_catalog.=) 'primary' LIMIT 1",
            &[],
        )?,
        coordinator_host_setting: setting(c"citus_fleet.coordinator_host"),
        // One without a remedy is that nobody knows yet.
        coordinator_host_complaint: complaint.and_then(|c| c.reason.zip(c.remedy)),
        local_hostname: setting(c"citus.local_hostname"),
        node_conninfo: setting(c"citus.node_conninfo"),
        leftovers: removal::leftovers(NO_GROUP)?,
        output_plugin_libraries: read_one(
            "SELECT s.setting FROM pg_catalog.pg_settings s
             WHERE s.name OPERATOR(pg_catalog.=) 'output_plugin_libraries'",
            &[],
        )?,
    }))
}
