//! Owns the checks of `fleet.doctor()`: configuration in, findings out.
//! Must not read a setting or a catalog; `sql_api::doctor` collects them.

pub use super::advice::{Advice, Severity};
use super::advice::{error, ok, warning};
use super::cleanup::Leftovers;
use std::net::SocketAddr;

/// What the checks look at.
#[derive(Clone, Debug, Default)]
pub struct Configuration {
    pub shared_preload_libraries: String,
    pub library_version: String,
    /// Why there is no controller for this database, if there is none.
    pub controller: Option<String>,
    pub citus: Option<CitusSettings>,
    pub listen_addresses: String,
    pub ssl: bool,
    pub wal_level: String,
    pub max_prepared_transactions: i64,
    /// (extension, installed version, version that its package would install).
    pub extensions: Vec<(String, String, String)>,
    pub sources: String,
    pub allows_every_network: bool,
    pub unbound_passwords: bool,
    /// (worker, citus version, vector version) of workers that answer.
    pub workers: Vec<(String, Option<String>, Option<String>)>,
    /// What DNS fails at, in words.
    pub dns: Vec<String>,
    /// Changes of the cluster that failed and are repeated, and what else went wrong.
    pub failures: Vec<String>,
    /// For how many seconds the controller has finished no cycle, where that is too long.
    pub stalled_for: Option<u64>,
    pub unresolved_sources: Vec<String>,
    /// Where metrics are served, if anywhere.
    pub http: Option<HttpFacts>,
}

#[derive(Clone, Debug)]
pub struct HttpFacts {
    pub listen: SocketAddr,
    pub token: Token,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    NotAsked,
    /// The file is missing, unreadable or empty.
    Unusable,
    Asked,
}

#[derive(Clone, Debug, Default)]
pub struct CitusSettings {
    /// The coordinator's own row in `pg_dist_node`.
    pub own_host: Option<String>,
    pub coordinator_host_setting: String,
    /// Why workers cannot be told where the coordinator is, and what can be done about it.
    pub coordinator_host_complaint: Option<(String, String)>,
    pub local_hostname: String,
    pub node_conninfo: String,
    pub leftovers: Leftovers,
    /// None where this PostgreSQL lets every library decode.
    pub output_plugin_libraries: Option<String>,
}

/// Runs every check; one that has nothing to complain of says so too.
pub fn examine(facts: &Configuration) -> Vec<Advice> {
    let mut findings = vec![preload(facts), controller(facts), http(facts)];
    match &facts.citus {
        Some(citus) => {
            findings.extend([
                coordinator_host(citus),
                local_hostname(citus, facts),
                sslmode(citus, facts),
                output_plugins(citus),
                citus.leftovers.advice(),
            ]);
        }
        None => findings.push(warning(
            "citus",
            "Citus is not installed in this database: workers are found and probed, not registered",
            "CREATE EXTENSION citus;",
        )),
    }
    findings.extend([
        prepared_transactions(facts),
        wal_level(facts),
        networks(facts),
        passwords(facts),
    ]);
    findings.extend(versions(facts));
    findings.extend(worker_versions(facts));
    findings.extend(sources(facts));
    findings.extend(facts.failures.iter().map(|failure| {
        error(
            "changes",
            failure.clone(),
            "It is tried again by itself; fleet.workers says of each worker what it waits for.",
        )
    }));
    findings
}

fn preload(facts: &Configuration) -> Advice {
    const CHECK: &str = "shared_preload_libraries";
    let remedy = "Set shared_preload_libraries = 'citus,citus_fleet' (others after them) and restart the server.";
    let libraries: Vec<&str> =
        facts.shared_preload_libraries.split(',').map(|l| l.trim().trim_matches('"')).collect();
    let position = |name| libraries.iter().position(|library| *library == name);
    match (position("citus"), position("citus_fleet")) {
        (_, None) => error(CHECK, "citus_fleet is not preloaded", remedy),
        (None, Some(_)) if facts.citus.is_some() => error(CHECK, "citus is not preloaded", remedy),
        (Some(citus), Some(_)) if citus > 0 => {
            error(CHECK, "citus is not the first of the libraries", remedy)
        }
        _ => ok(CHECK, facts.shared_preload_libraries.clone()),
    }
}

/// Whoever reaches the endpoint may read names of hosts and tables.
fn http(facts: &Configuration) -> Advice {
    const CHECK: &str = "http";
    let Some(HttpFacts { listen, token }) = &facts.http else {
        return ok(CHECK, "citus_fleet.http_listen is empty: nothing is served");
    };
    match token {
        Token::Unusable => error(
            CHECK,
            "the file of citus_fleet.http_token_file cannot be read or is empty: nobody is let in",
            "Write a token into it, readable for the server's account.",
        ),
        Token::NotAsked if !listen.ip().is_loopback() => warning(
            CHECK,
            format!("{listen} is served to everybody who reaches it"),
            "Set citus_fleet.http_token_file, or let a firewall or a NetworkPolicy say who may.",
        ),
        _ => ok(CHECK, listen.to_string()),
    }
}

fn controller(facts: &Configuration) -> Advice {
    match &facts.controller {
        None if facts.stalled_for.is_some() => error(
            "controller",
            format!(
                "it has finished no cycle for {} s: what fleet.workers shows is that old",
                facts.stalled_for.unwrap_or_default()
            ),
            "See the server log and what its process waits for in pg_stat_activity; SELECT pg_terminate_backend(pid) restarts it.",
        ),
        None => ok("controller", "it is running"),
        Some(why) => error(
            "controller",
            why.clone(),
            "See the server log, citus_fleet.database and max_worker_processes.",
        ),
    }
}

fn coordinator_host(citus: &CitusSettings) -> Advice {
    const CHECK: &str = "coordinator_host";
    let remedy = "SELECT citus_set_coordinator_host('<name of this host>'); or set citus_fleet.coordinator_host.";
    if let Some((why, remedy)) = &citus.coordinator_host_complaint {
        return error(CHECK, why, remedy);
    }
    match citus.own_host.as_deref() {
        _ if !citus.coordinator_host_setting.is_empty() => ok(
            CHECK,
            format!("kept at {} by citus_fleet.coordinator_host", citus.coordinator_host_setting),
        ),
        None => warning(CHECK, "pg_dist_node has no row for the coordinator", remedy),
        Some("localhost") => error(
            CHECK,
            "the coordinator is registered as localhost, where workers cannot reach it",
            remedy,
        ),
        Some(host) => ok(CHECK, format!("registered as {host}")),
    }
}

/// Citus connects to its own server for rebalancing and for some DDL, at `citus.local_hostname`.
fn local_hostname(citus: &CitusSettings, facts: &Configuration) -> Advice {
    const CHECK: &str = "citus.local_hostname";
    let listens =
        facts.listen_addresses.split(',').map(str::trim).any(|address| {
            ["*", "0.0.0.0", "::", "localhost", "127.0.0.1", "::1"].contains(&address)
        });
    if citus.local_hostname == "localhost" && !listens {
        return error(
            CHECK,
            format!(
                "it is localhost, where this server does not listen ({})",
                facts.listen_addresses
            ),
            "Set citus.local_hostname to an address of listen_addresses, or to the socket directory.",
        );
    }
    ok(CHECK, citus.local_hostname.clone())
}

fn sslmode(citus: &CitusSettings, facts: &Configuration) -> Advice {
    const CHECK: &str = "sslmode";
    let mode = citus
        .node_conninfo
        .split_whitespace()
        .find_map(|pair| pair.strip_prefix("sslmode="))
        .unwrap_or("prefer")
        .trim_matches('\'')
        .to_owned();
    match mode.as_str() {
        "verify-full" => ok(CHECK, "verify-full"),
        "disable" | "allow" | "prefer" => warning(
            CHECK,
            format!(
                "citus.node_conninfo has sslmode={mode}: traffic between nodes may go unencrypted"
            ),
            "Use sslmode=verify-full with sslrootcert, and certificates that carry the nodes' names.",
        ),
        _ if !facts.ssl => error(
            CHECK,
            format!("citus.node_conninfo has sslmode={mode}, but ssl is off on this server"),
            "Set ssl = on with a certificate on every node.",
        ),
        _ => warning(
            CHECK,
            format!("sslmode={mode} encrypts, but does not prove who answers at an address"),
            "Use sslmode=verify-full with sslrootcert, and certificates that carry the nodes' names.",
        ),
    }
}

fn prepared_transactions(facts: &Configuration) -> Advice {
    const CHECK: &str = "max_prepared_transactions";
    match facts.max_prepared_transactions {
        0 => error(
            CHECK,
            "it is 0, so Citus cannot commit across nodes",
            "Set it to at least max_connections and restart.",
        ),
        count => ok(CHECK, count.to_string()),
    }
}

fn wal_level(facts: &Configuration) -> Advice {
    const CHECK: &str = "wal_level";
    match facts.wal_level.as_str() {
        "logical" => ok(CHECK, "logical"),
        level => warning(
            CHECK,
            format!("it is {level}: shards cannot be moved without blocking writes"),
            "Set wal_level = logical on every node and restart.",
        ),
    }
}

/// Citus moves shards with pgoutput, which is approved by default, and splits them with a plugin of its own.
fn output_plugins(citus: &CitusSettings) -> Advice {
    const CHECK: &str = "output_plugin_libraries";
    let Some(approved) = &citus.output_plugin_libraries else {
        return ok(CHECK, "every library may decode");
    };
    let mut libraries: Vec<&str> = approved.split(',').map(str::trim).collect();
    if libraries.iter().any(|library| library.trim_matches('"') == "citus") {
        return ok(CHECK, approved);
    }
    libraries.retain(|library| !library.is_empty());
    libraries.push("citus");
    warning(
        CHECK,
        format!(
            "it is {approved}: without citus, no shard is split, no tenant isolated and no table distributed by create_distributed_table_concurrently() unless writes are blocked; moving shards works"
        ),
        format!(
            "ALTER SYSTEM SET output_plugin_libraries = {}; SELECT pg_reload_conf(); on every node",
            libraries.join(", ")
        ),
    )
}

fn networks(facts: &Configuration) -> Advice {
    const CHECK: &str = "citus_fleet.allowed_networks";
    if facts.allows_every_network {
        return warning(
            CHECK,
            "every address is allowed: whoever controls DNS can have a server of theirs registered",
            "List the networks that workers live in.",
        );
    }
    ok(CHECK, "limited")
}

fn passwords(facts: &Configuration) -> Advice {
    const CHECK: &str = "citus_fleet.unbound_passwords";
    if facts.unbound_passwords {
        return warning(
            CHECK,
            "it is on: whoever answers at an address that DNS gives can log in elsewhere with the proof that it gets",
            "Use TLS between the nodes, with scram-sha-256, and switch it off; or make sure of the network and of DNS.",
        );
    }
    ok(CHECK, "off")
}

fn versions(facts: &Configuration) -> Vec<Advice> {
    facts
        .extensions
        .iter()
        .map(|(name, installed, packaged)| {
            let check = "extension version";
            if name == "citus_fleet" && *installed != facts.library_version {
                return error(
                    check,
                    format!("citus_fleet {installed} is installed, but the library is {}", facts.library_version),
                    "ALTER EXTENSION citus_fleet UPDATE; restart the server first if the package is newer than the library.",
                );
            }
            if installed != packaged {
                return warning(
                    check,
                    format!("{name} {installed} is installed; the package has {packaged}"),
                    format!("ALTER EXTENSION {name} UPDATE; on every node"),
                );
            }
            ok(check, format!("{name} {installed}"))
        })
        .collect()
}

fn worker_versions(facts: &Configuration) -> Vec<Advice> {
    let ours = |name: &str| {
        facts.extensions.iter().find(|(n, ..)| n == name).map(|(_, version, _)| version)
    };
    facts
        .workers
        .iter()
        .flat_map(|(worker, citus, vector)| {
            [("citus", citus), ("vector", vector)].into_iter().filter_map(move |(name, theirs)| {
                let ours = ours(name)?;
                (theirs.as_ref() != Some(ours)).then(|| {
                    let theirs = theirs.as_deref().unwrap_or("no");
                    error(
                        "version skew",
                        format!("{worker} has {theirs} {name}, the coordinator has {ours}"),
                        format!("ALTER EXTENSION {name} UPDATE TO '{ours}'; on that worker"),
                    )
                })
            })
        })
        .collect()
}

fn sources(facts: &Configuration) -> Vec<Advice> {
    const CHECK: &str = "citus_fleet.workers";
    if facts.sources.is_empty() {
        return vec![warning(
            CHECK,
            "there is no source, so no worker is found",
            "ALTER SYSTEM SET citus_fleet.workers = '<name>';",
        )];
    }
    let failing = facts.dns.iter().map(|complaint| {
        error(
            CHECK,
            complaint.clone(),
            "Check the name server; what the source gave before stays in force.",
        )
    });
    let empty = facts.unresolved_sources.iter().map(|source| {
        warning(
            CHECK,
            format!("source {source} does not resolve to anything"),
            "Check the name, or start a worker that has it.",
        )
    });
    let findings: Vec<Advice> = failing.chain(empty).collect();
    if findings.is_empty() { vec![ok(CHECK, facts.sources.clone())] } else { findings }
}

#[cfg(test)]
mod tests;
