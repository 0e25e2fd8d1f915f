//! Owns the settings `citus_fleet.*`: their definition, their checks, and one plain value of them all.
//! Must not act on a setting.

use decide::configuration::networks::{NameSuffixes, Networks};
use decide::configuration::policy::{NodeNames, OnAbsent, Policy};
use decide::configuration::sources::{parse_host_port, parse_sources};
use decide::search::vector::fleet::Thresholds;
use pgrx::prelude::*;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, pg_guard};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

static WORKERS: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static DATABASE: GucSetting<Option<CString>> =
    GucSetting::<Option<CString>>::new(Some(c"postgres"));
static ENABLED: GucSetting<bool> = GucSetting::<bool>::new(true);
static INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(5_000);
static PROBE_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(3_000);
static ABSENT_AFTER: GucSetting<i32> = GucSetting::<i32>::new(60);
static MAX_LOST_WAL: GucSetting<i32> = GucSetting::<i32>::new(-1);
static ON_ABSENT: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"report"));
static NODE_NAMES: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"auto"));
static NAMESERVER: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static ALLOWED_NETWORKS: GucSetting<Option<CString>> =
    GucSetting::<Option<CString>>::new(Some(c"private"));
static ALLOWED_NAMES: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static UNBOUND_PASSWORDS: GucSetting<bool> = GucSetting::<bool>::new(false);
static MAX_WORKERS: GucSetting<i32> = GucSetting::<i32>::new(1024);
static COORDINATOR_HOST: GucSetting<Option<CString>> =
    GucSetting::<Option<CString>>::new(Some(c""));
static REBALANCE_ON_JOIN: GucSetting<bool> = GucSetting::<bool>::new(false);
static HTTP_LISTEN: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static HTTP_HOSTS: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static HTTP_TOKEN_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static EVENT_RETENTION: GucSetting<i32> = GucSetting::<i32>::new(30 * 24 * 3600);
static RECALL_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(0);
static RECALL_TARGET: GucSetting<f64> = GucSetting::<f64>::new(0.9);
static HEALTH_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(5_000);
static INDEX_MIN_ROWS: GucSetting<i32> = GucSetting::<i32>::new(10_000);
static STALLED_AFTER: GucSetting<i32> = GucSetting::<i32>::new(600);

/// The largest value of `citus_fleet.max_workers`; the board in shared memory has room for as many.
pub const MOST_WORKERS: i32 = 4096;

/// Every setting at one moment.
#[derive(Clone, Debug)]
pub struct Settings {
    pub policy: Policy,
    pub enabled: bool,
    pub probe_timeout: Duration,
    pub nameserver: Option<SocketAddr>,
    pub event_retention: Duration,
}

impl Settings {
    /// Reads the settings. The check hooks have let nothing through that does not parse; should one
    /// be wrong all the same, the error names it.
    pub fn current() -> Result<Self, String> {
        let own_port = || u16::try_from(own_port()).unwrap_or_default();
        let coordinator_host = match text(&COORDINATOR_HOST).as_str() {
            "" => None,
            host => {
                let (name, port) = parse_host_port(host)?;
                Some((name, port.unwrap_or_else(own_port)))
            }
        };
        Ok(Self {
            policy: Policy {
                sources: parse_sources(&text(&WORKERS))?,
                node_names: parse_node_names(&text(&NODE_NAMES))?,
                networks: Networks::parse(&text(&ALLOWED_NETWORKS))?,
                names: NameSuffixes::parse(&text(&ALLOWED_NAMES))?,
                max_workers: usize::try_from(MAX_WORKERS.get()).unwrap_or_default(),
                coordinator_host,
                interval: millis(&INTERVAL),
                absent_after: seconds(&ABSENT_AFTER),
                on_absent: parse_on_absent(&text(&ON_ABSENT))?,
                max_lost_wal: u64::try_from(MAX_LOST_WAL.get()).ok(),
                rebalance_on_join: REBALANCE_ON_JOIN.get(),
            },
            enabled: ENABLED.get(),
            probe_timeout: millis(&PROBE_TIMEOUT),
            nameserver: parse_nameserver(&text(&NAMESERVER))?,
            event_retention: seconds(&EVENT_RETENTION),
        })
    }
}

/// `citus_fleet.database`: fixed when the server starts.
pub fn database() -> CString {
    DATABASE.get().unwrap_or_default()
}

/// `citus_fleet.unbound_passwords`: whether strangers get a proof of the password that they could pass on.
pub fn unbound_passwords() -> bool {
    UNBOUND_PASSWORDS.get()
}

/// `citus_fleet.health_timeout`: how long a reader of the health views waits for the nodes.
pub fn health_timeout() -> Duration {
    millis(&HEALTH_TIMEOUT)
}

/// What vector-shard health is measured against, where operators may differ.
pub fn health_thresholds() -> Thresholds {
    Thresholds {
        index_min_rows: INDEX_MIN_ROWS.get().into(),
        stalled_after: STALLED_AFTER.get().into(),
        recall_target: RECALL_TARGET.get(),
        recall_lasts: recall_lasts().as_secs_f64(),
    }
}

/// How long a measured recall counts where nothing else tells that it is outdated: a month, or three of the
/// intervals at which it is measured.
fn recall_lasts() -> Duration {
    const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);
    MONTH.max(recall_interval() * 3)
}

/// `citus_fleet.recall_interval`: zero means never.
pub fn recall_interval() -> Duration {
    seconds(&RECALL_INTERVAL)
}

/// The port this server listens on.
pub fn own_port() -> i32 {
    // SAFETY: a plain integer that the postmaster sets before any of our code runs.
    unsafe { pg_sys::PostPortNumber }
}

/// `citus_fleet.http_listen`: fixed when the server starts; none where nothing is served.
pub fn http_listen() -> Option<SocketAddr> {
    text(&HTTP_LISTEN).parse().ok()
}

/// `citus_fleet.http_hosts`: names that callers may know this host by.
pub fn http_hosts() -> Vec<String> {
    let hosts = text(&HTTP_HOSTS);
    hosts.split(',').map(|host| host.trim().to_owned()).filter(|host| !host.is_empty()).collect()
}

/// `citus_fleet.http_token_file`, relative to the data directory; none where no token is needed.
pub fn http_token_file() -> Option<PathBuf> {
    let file = text(&HTTP_TOKEN_FILE);
    (!file.is_empty()).then(|| PathBuf::from(file))
}

fn text(setting: &GucSetting<Option<CString>>) -> String {
    setting.get().map(|value| value.to_string_lossy().trim().to_owned()).unwrap_or_default()
}

fn millis(setting: &GucSetting<i32>) -> Duration {
    Duration::from_millis(setting.get().unsigned_abs().into())
}

fn seconds(setting: &GucSetting<i32>) -> Duration {
    Duration::from_secs(setting.get().unsigned_abs().into())
}

fn parse_on_absent(text: &str) -> Result<OnAbsent, String> {
    match text {
        "report" => Ok(OnAbsent::Report),
        "disable" => Ok(OnAbsent::Disable),
        other => Err(format!("{other:?} is neither report nor disable.")),
    }
}

fn parse_node_names(text: &str) -> Result<NodeNames, String> {
    match text {
        "auto" => Ok(NodeNames::Auto),
        "ptr" => Ok(NodeNames::Ptr),
        "given" => Ok(NodeNames::Given),
        "address" => Ok(NodeNames::Address),
        other => Err(format!("{other:?} is not one of auto, ptr, given and address.")),
    }
}

fn parse_nameserver(text: &str) -> Result<Option<SocketAddr>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    match parse_host_port(text) {
        Ok((host, port)) if host.parse::<std::net::IpAddr>().is_ok() => {
            Ok(host.parse().ok().map(|ip| SocketAddr::new(ip, port.unwrap_or(53))))
        }
        _ => Err(format!("{text:?} is not an address such as 10.0.0.2:53.")),
    }
}

/// Defines all settings. Called once, when the library is loaded: by the postmaster if `preloaded`.
pub fn define(preloaded: bool) {
    let ms = GucFlags::UNIT_MS;
    let s = GucFlags::UNIT_S;
    // Only the postmaster may define what is fixed at its start; a worker on which Citus creates the
    // extension need not have preloaded the library, and has no controller to fix it for.
    let at_start = || if preloaded { GucContext::Postmaster } else { GucContext::Sighup };
    string(c"citus_fleet.workers", c"Where workers are found.",
        c"Sources between commas: name[:port] (A and AAAA records), srv:name (SRV records), name-{n}[:port] (n = 1, 2, ...) or address[:port].",
        &WORKERS, GucContext::Sighup, Some(check_workers));
    string(
        c"citus_fleet.database",
        c"The database whose Citus cluster the controller looks after.",
        c"Takes effect when the server starts.",
        &DATABASE,
        at_start(),
        None,
    );
    GucRegistry::define_bool_guc(c"citus_fleet.enabled", c"Whether the controller changes the cluster by itself.",
        c"When off, it observes and reports; citus_autoregister() still works, as VACUUM does without autovacuum.",
        &ENABLED, GucContext::Sighup, GucFlags::default());
    GucRegistry::define_int_guc(
        c"citus_fleet.interval",
        c"Time between two cycles of the controller.",
        c"Cycles come faster by themselves while a server is starting.",
        &INTERVAL,
        100,
        3_600_000,
        GucContext::Sighup,
        ms,
    );
    GucRegistry::define_int_guc(
        c"citus_fleet.probe_timeout",
        c"Deadline of one DNS lookup and of one login to a worker.",
        c"",
        &PROBE_TIMEOUT,
        100,
        60_000,
        GucContext::Sighup,
        ms,
    );
    GucRegistry::define_int_guc(
        c"citus_fleet.absent_after",
        c"How long a worker may go unnamed by every source before it counts as absent.",
        c"It must also have stopped answering. Nothing is removed.",
        &ABSENT_AFTER,
        0,
        30 * 24 * 3600,
        GucContext::Sighup,
        s,
    );
    GucRegistry::define_int_guc(
        c"citus_fleet.max_lost_wal",
        c"Bytes of WAL that a promoted server may lack and still be followed; -1 = any number.",
        c"Of what was seen: rows of the time since the last probe are not counted. What it lacks is said in any case. Above this, the row stays where it is and the worker is a conflict.",
        &MAX_LOST_WAL,
        -1,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_BYTE,
    );
    string(c"citus_fleet.on_absent", c"What becomes of a worker that is absent: report or disable.",
        c"disable calls citus_disable_node, which refuses where data would be out of reach; the worker is reactivated when it is back.",
        &ON_ABSENT, GucContext::Sighup, Some(check_on_absent));
    string(c"citus_fleet.node_names", c"Which name of a worker is registered: auto, ptr, given or address.",
        c"auto takes the SRV target, the PTR name, the name in the source or the address, the first that leads to this server alone.",
        &NODE_NAMES, GucContext::Sighup, Some(check_node_names));
    string(
        c"citus_fleet.nameserver",
        c"The DNS server to ask for the sources, as address[:port]; empty = the system's resolver.",
        c"",
        &NAMESERVER,
        GucContext::Sighup,
        Some(check_nameserver),
    );
    string(c"citus_fleet.allowed_networks", c"Networks that workers may live in, as CIDR blocks between commas.",
        c"private stands for RFC 1918, 100.64.0.0/10 and fc00::/7. Loopback is allowed where the coordinator is registered on loopback.",
        &ALLOWED_NETWORKS, GucContext::Sighup, Some(check_networks));
    string(
        c"citus_fleet.allowed_names",
        c"Suffixes that the names of workers must have, between commas; empty = any.",
        c"",
        &ALLOWED_NAMES,
        GucContext::Sighup,
        Some(check_names),
    );
    GucRegistry::define_bool_guc(c"citus_fleet.unbound_passwords", c"Whether a server that is not registered may get a password proof that it could relay or crack.",
        c"Needed where nodes log in to each other by password without TLS, or by md5: whoever answers at an address that DNS gives can then log in to other nodes as the superuser.",
        &UNBOUND_PASSWORDS, GucContext::Sighup, GucFlags::default());
    GucRegistry::define_int_guc(
        c"citus_fleet.max_workers",
        c"More endpoints than this in the answers of the sources are refused.",
        c"",
        &MAX_WORKERS,
        1,
        MOST_WORKERS,
        GucContext::Sighup,
        GucFlags::default(),
    );
    string(
        c"citus_fleet.coordinator_host",
        c"The coordinator's own host[:port]; when set, its row in pg_dist_node is kept at it.",
        c"The port is this server's own where none is given.",
        &COORDINATOR_HOST,
        GucContext::Sighup,
        Some(check_coordinator_host),
    );
    GucRegistry::define_bool_guc(c"citus_fleet.rebalance_on_join", c"Whether shards are moved to workers that have joined.",
        c"Starts Citus's background rebalancer once joins have settled and every worker is active; never beside another background job or an index build.",
        &REBALANCE_ON_JOIN, GucContext::Sighup, GucFlags::default());
    GucRegistry::define_int_guc(
        c"citus_fleet.event_retention",
        c"How long rows of fleet.events are kept.",
        c"",
        &EVENT_RETENTION,
        60,
        i32::MAX,
        GucContext::Sighup,
        s,
    );
    GucRegistry::define_int_guc(
        c"citus_fleet.health_timeout",
        c"How long the views and functions of vector-shard health wait for the nodes.",
        c"A node that has not answered by then is reported as such.",
        &HEALTH_TIMEOUT,
        100,
        600_000,
        GucContext::Userset,
        ms,
    );
    GucRegistry::define_int_guc(
        c"citus_fleet.index_min_rows",
        c"A shard with fewer rows needs no vector index.",
        c"Reading all of so few rows is as fast as an index.",
        &INDEX_MIN_ROWS,
        0,
        i32::MAX,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"citus_fleet.stalled_after",
        c"How long an index build may wait for a lock, or a VACUUM be at the indexes, before it counts as stuck.",
        c"",
        &STALLED_AFTER,
        0,
        7 * 24 * 3600,
        GucContext::Userset,
        s,
    );
    GucRegistry::define_int_guc(
        c"citus_fleet.recall_interval",
        c"How often the recall of all vector indexes is sampled by itself; 0 = never.",
        c"A process of its own reads every row of one table after another, within fleet.vector_recall's default budget for each.",
        &RECALL_INTERVAL,
        0,
        365 * 24 * 3600,
        GucContext::Sighup,
        s,
    );
    GucRegistry::define_float_guc(
        c"citus_fleet.recall_target",
        c"The recall that every vector index should have, from 0 to 1.",
        c"Health is yellow where the recall of a table's index is surely below it, and red where surely twice as many neighbours are missed as it allows.",
        &RECALL_TARGET,
        0.0,
        1.0,
        GucContext::Sighup,
        GucFlags::default(),
    );
    string(
        c"citus_fleet.http_listen",
        c"Where metrics, health and the status page are served, as address:port; empty = nowhere.",
        c"Takes effect when the server starts.",
        &HTTP_LISTEN,
        at_start(),
        Some(check_http_listen),
    );
    string(c"citus_fleet.http_hosts", c"Names, between commas, by which callers may address the HTTP server.",
        c"Addresses and localhost always count; other names are refused, so that no foreign web page can lead here.",
        &HTTP_HOSTS, GucContext::Sighup, None);
    string(
        c"citus_fleet.http_token_file",
        c"A file whose content callers have to bring as a bearer token; empty = none is needed.",
        c"Relative to the data directory. It is read at every request.",
        &HTTP_TOKEN_FILE,
        GucContext::Sighup,
        None,
    );
    // SAFETY: the string is static, and the library is being loaded by the only thread there is.
    unsafe { pg_sys::MarkGUCPrefixReserved(c"citus_fleet".as_ptr()) };
}

fn string(
    name: &'static CStr,
    short: &'static CStr,
    long: &'static CStr,
    setting: &'static GucSetting<Option<CString>>,
    context: GucContext,
    check: pg_sys::GucStringCheckHook,
) {
    // SAFETY: every hook passed here is guarded by `#[pg_guard]`.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            name,
            short,
            long,
            setting,
            context,
            GucFlags::default(),
            check,
            None,
            None,
        );
    }
}

/// Defines a check hook that accepts what `$parse` accepts and otherwise shows its error as DETAIL.
macro_rules! check_hook {
    ($name:ident, $parse:expr) => {
        #[pg_guard]
        unsafe extern "C-unwind" fn $name(
            value: *mut *mut c_char,
            _extra: *mut *mut c_void,
            _source: pg_sys::GucSource::Type,
        ) -> bool {
            // SAFETY: the server passes a pointer to a NUL-terminated string, never null for a
            // setting whose default is not null.
            let text = unsafe { CStr::from_ptr(*value) }.to_string_lossy();
            let parse: fn(&str) -> Result<(), String> = $parse;
            parse(text.trim()).map_err(reject).is_ok()
        }
    };
}

check_hook!(check_workers, |text| parse_sources(text).map(drop));
check_hook!(check_node_names, |text| parse_node_names(text).map(drop));
check_hook!(check_on_absent, |text| parse_on_absent(text).map(drop));
check_hook!(check_nameserver, |text| parse_nameserver(text).map(drop));
check_hook!(check_http_listen, |text| match text {
    "" => Ok(()),
    _ => text
        .parse::<SocketAddr>()
        .map(drop)
        .map_err(|_| format!("{text:?} is not an address and port such as 127.0.0.1:9187.")),
});
check_hook!(check_networks, |text| Networks::parse(text).map(drop));
check_hook!(check_names, |text| NameSuffixes::parse(text).map(drop));
check_hook!(check_coordinator_host, |text| match text {
    "" => Ok(()),
    host => parse_host_port(host).map(drop).map_err(|why| format!("{host:?}: {why}.")),
});

/// Tells the server why a value is refused; it becomes the DETAIL of its error.
fn reject(detail: String) {
    let detail = CString::new(detail.replace('\0', "")).unwrap_or_default();
    // SAFETY: pstrdup copies into the current memory context, which outlives the error report.
    unsafe {
        pg_sys::GUC_check_errcode(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE as c_int);
        pg_sys::GUC_check_errdetail_string = pg_sys::pstrdup(detail.as_ptr());
    }
}
