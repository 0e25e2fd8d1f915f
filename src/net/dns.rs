//! Owns asking DNS: what the sources yield now, and which names lead to an address.
//! Must not remember: a resolver lives for one pass, so no TTL can hide a new worker.

use crate::error::one_line;
use decide::configuration::names::HostName;
use decide::configuration::sources::Source;
use decide::membership::discovery::{DnsFailure, Lookup, SourceAnswer, Yield};
use futures_util::future::join_all;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::lookup::Lookup as HickoryLookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::{Hosts, Resolver, TokioResolver, system_conf};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

type Failure = (DnsFailure, String);
/// An answer for each lookup, by a label that stays the same from one pass to the next.
type Lookups = BTreeMap<String, Lookup>;
/// The answer section and the additional section.
type Records = (Vec<Record>, Vec<Record>);

/// As many name servers as glibc asks (MAXNS).
const MOST_SERVERS: usize = 3;

/// How many names of a pattern are asked for at once.
const PATTERN_STRIDE: usize = 16;

/// The resolvers of one pass, for all that is asked in it.
pub struct Resolvers {
    /// What Citus's connections use, whatever the sources are asked of.
    pub system: Result<Dns, String>,
    nameserver: Option<Result<Dns, String>>,
}

impl Resolvers {
    pub fn new(nameserver: Option<SocketAddr>, deadline: Duration) -> Self {
        let nameserver = nameserver.map(|server| Dns::nameserver(server, deadline));
        Self { system: Dns::system(deadline), nameserver }
    }

    /// What the sources are asked of, or why they cannot be.
    pub fn of_sources(&self) -> Result<&Dns, &String> {
        self.nameserver.as_ref().unwrap_or(&self.system).as_ref()
    }
}

/// A resolver for one pass.
pub struct Dns {
    /// One for each name server, in the order in which they are asked.
    servers: Vec<TokioResolver>,
    /// Suffixes to try, and how many dots a name needs to be tried as it is first (resolv.conf(5)).
    search: Vec<Name>,
    ndots: usize,
    hosts: Hosts,
    deadline: Duration,
}

impl Dns {
    /// The resolver of the system: resolv.conf and the hosts file, as Citus's connections use it.
    pub fn system(deadline: Duration) -> Result<Self, String> {
        let (config, options) =
            system_conf::read_system_conf().map_err(|error| error.to_string())?;
        let search = match config.search() {
            [] => config.domain().into_iter().cloned().collect(),
            search => search.to_vec(),
        };
        let ndots = options.ndots;
        let hosts = Hosts::from_system().unwrap_or_default();
        Self::new(config, options, search, ndots, hosts, deadline)
    }

    /// One name server, for fully qualified names.
    pub fn nameserver(server: SocketAddr, deadline: Duration) -> Result<Self, String> {
        let connections =
            [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                connection.port = server.port();
                connection
            });
        let server = NameServerConfig::new(server.ip(), true, connections.into());
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
        Self::new(config, ResolverOpts::default(), Vec::new(), 1, Hosts::default(), deadline)
    }

    fn new(
        config: ResolverConfig,
        mut options: ResolverOpts,
        search: Vec<Name>,
        ndots: usize,
        hosts: Hosts,
        deadline: Duration,
    ) -> Result<Self, String> {
        let servers: Vec<NameServerConfig> =
            config.name_servers().iter().take(MOST_SERVERS).cloned().collect();
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        // All of them have their turn within the deadline; packets are sent again meanwhile.
        (options.attempts, options.timeout) = match servers.len() {
            1 => (2, deadline / 3),
            count => (0, deadline / (count as u32 + 1)),
        };
        let resolver = |server| {
            let alone = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
            let mut builder = Resolver::builder_with_config(alone, TokioRuntimeProvider::default());
            *builder.options_mut() = options.clone();
            builder.build().map_err(|error| error.to_string())
        };
        let servers = servers.into_iter().map(resolver).collect::<Result<_, _>>()?;
        Ok(Self { servers, search, ndots, hosts, deadline })
    }

    /// Asks the name servers as glibc does: one after the other until one says something, be it that
    /// there is no such name. The library would ask two at once and believe the first that says so.
    async fn query(&self, name: &Name, kind: RecordType) -> Result<HickoryLookup, NetError> {
        let mut failure = NetError::NoConnections;
        for server in &self.servers {
            match server.lookup(name.clone(), kind).await {
                Err(error) if classify(&error).is_some() => failure = error,
                answer => return answer,
            }
        }
        Err(failure)
    }

    /// Asks every source, all at the same time.
    pub async fn ask(&self, sources: &[Source], max_workers: usize) -> Vec<SourceAnswer> {
        join_all(sources.iter().map(|source| self.ask_one(source, max_workers))).await
    }

    async fn ask_one(&self, source: &Source, max_workers: usize) -> SourceAnswer {
        let mut failed = None;
        let mut complete = true;
        let names = match source {
            Source::Address(endpoint) => {
                let found = Yield { endpoint: *endpoint, given: None };
                BTreeMap::from([(endpoint.to_string(), Lookup::Yield(vec![found]))])
            }
            Source::Host { name, port } => self.host(name, *port).await,
            Source::Pattern { before, after, port } => {
                let names;
                (names, complete) = self.pattern(before, after, *port, max_workers).await;
                names
            }
            Source::Srv { name } => self.srv(name).await.unwrap_or_else(|failure| {
                failed = Some(failure);
                BTreeMap::new()
            }),
        };
        SourceAnswer { source: source.to_string(), failed, complete, names }
    }

    /// What a name gives, IPv4 and IPv6 apart: one may fail while the other is answered.
    async fn host(&self, name: &HostName, port: u16) -> Lookups {
        let found = |addresses: Vec<IpAddr>| {
            let found = |address| Yield {
                endpoint: SocketAddr::new(address, port),
                given: Some(name.clone()),
            };
            Lookup::Yield(addresses.into_iter().map(found).collect())
        };
        let listed = self.listed(name);
        if !listed.is_empty() {
            return BTreeMap::from([(name.to_string(), found(listed))]);
        }
        let answer = |lookup: Result<Vec<IpAddr>, Failure>| match lookup {
            Ok(addresses) if addresses.is_empty() => Lookup::Nothing,
            Ok(addresses) => found(addresses),
            Err((failure, message)) => Lookup::Failed(failure, message),
        };
        let (v4, v6) = self.both_families(name).await;
        BTreeMap::from([(format!("{name} A"), answer(v4)), (format!("{name} AAAA"), answer(v6))])
    }

    /// Lookups with n = 1, 2, … until [`Source::PATTERN_GAP`] in a row are not found, and whether they
    /// are known not to exist: a lookup that failed is no sign of that.
    async fn pattern(
        &self,
        before: &str,
        after: &str,
        port: u16,
        max_workers: usize,
    ) -> (Lookups, bool) {
        let mut names = BTreeMap::new();
        let started = Instant::now();
        let (mut gap, mut complete) = (0, true);
        let mut next = 1;
        while next <= max_workers + Source::PATTERN_GAP {
            let stride: Vec<HostName> = (next..next + PATTERN_STRIDE)
                .filter_map(|n| Source::numbered(before, n, after).ok())
                .collect();
            for answers in join_all(stride.iter().map(|name| self.host(name, port))).await {
                let any = |is: fn(&Lookup) -> bool| answers.values().any(is);
                if any(|answer| matches!(answer, Lookup::Yield(_))) {
                    (gap, complete) = (0, true);
                } else {
                    gap += 1;
                    complete &= !any(|answer| matches!(answer, Lookup::Failed(..)));
                }
                names.extend(answers);
                if gap == Source::PATTERN_GAP {
                    return (names, complete);
                }
            }
            // Lookups that have not been asked for in time are not known to be gone.
            if started.elapsed() > self.deadline {
                return (names, false);
            }
            next += PATTERN_STRIDE;
        }
        (names, complete)
    }

    /// The targets of an SRV record. Their addresses come with the answer where the server adds
    /// them (RFC 2782), so that a thousand targets need not be a thousand queries.
    async fn srv(&self, name: &HostName) -> Result<Lookups, Failure> {
        let Some((answers, additionals)) = self.lookup(name, RecordType::SRV).await? else {
            return Ok(BTreeMap::from([(name.to_string(), Lookup::Nothing)]));
        };
        let mut enclosed: BTreeMap<String, BTreeSet<IpAddr>> = BTreeMap::new();
        for record in &additionals {
            if let Some(address) = record.data.ip_addr() {
                enclosed.entry(record.name.to_lowercase().to_utf8()).or_default().insert(address);
            }
        }
        let targets = answers.iter().filter_map(|record| match &record.data {
            RData::SRV(srv) => Some((srv.target.to_lowercase().to_utf8(), srv.port)),
            _ => None,
        });
        let answered = targets.map(|(target, port)| {
            let addresses = enclosed.get(&target).cloned();
            self.target(target, port, addresses)
        });
        Ok(join_all(answered).await.into_iter().flatten().collect())
    }

    async fn target(
        &self,
        target: String,
        port: u16,
        enclosed: Option<BTreeSet<IpAddr>>,
    ) -> Lookups {
        let label = one_line(&format!("{target}:{port}"));
        let only = |answer| BTreeMap::from([(label.clone(), answer)]);
        // RFC 2782: "." means that the service is decidedly not available.
        if target == "." {
            return only(Lookup::Nothing);
        }
        let name = match HostName::parse(&target) {
            Ok(_) if port == 0 => {
                return only(Lookup::Failed(DnsFailure::Malformed, "port 0".into()));
            }
            Ok(name) => name,
            Err(why) => return only(Lookup::Failed(DnsFailure::Malformed, why)),
        };
        let Some(addresses) = enclosed else { return self.host(&name, port).await };
        let found =
            |address| Yield { endpoint: SocketAddr::new(address, port), given: Some(name.clone()) };
        only(Lookup::Yield(addresses.into_iter().map(found).collect()))
    }

    /// Every address of a name; none when it does not exist or has none. The hosts file comes first.
    pub async fn addresses(&self, name: &HostName) -> Result<Vec<IpAddr>, Failure> {
        let listed = self.listed(name);
        if !listed.is_empty() {
            return Ok(listed);
        }
        match self.both_families(name).await {
            (Ok(v4), Ok(v6)) => Ok([v4, v6].concat()),
            (Ok(some), Err(_)) | (Err(_), Ok(some)) if !some.is_empty() => Ok(some),
            (Err(failure), _) | (_, Err(failure)) => Err(failure),
        }
    }

    async fn both_families(
        &self,
        name: &HostName,
    ) -> (Result<Vec<IpAddr>, Failure>, Result<Vec<IpAddr>, Failure>) {
        let addresses = |lookup: Result<Option<Records>, Failure>| {
            let (records, _) = lookup?.unwrap_or_default();
            let unique: BTreeSet<IpAddr> =
                records.iter().filter_map(|record| record.data.ip_addr()).collect();
            Ok(unique.into_iter().collect())
        };
        let (v4, v6) = futures_util::join!(
            self.lookup(name, RecordType::A),
            self.lookup(name, RecordType::AAAA)
        );
        (addresses(v4), addresses(v6))
    }

    /// The name that an address says it has, when it is a host name at all.
    pub async fn pointer(&self, address: IpAddr) -> Option<HostName> {
        let name = Name::from(address);
        let lookup = self.query(&name, RecordType::PTR);
        let lookup = tokio::time::timeout(self.deadline, lookup).await.ok()?.ok()?;
        lookup.answers().iter().find_map(|record| match &record.data {
            RData::PTR(name) => HostName::parse(&name.0.to_utf8()).ok(),
            _ => None,
        })
    }

    /// What the hosts file says of a name.
    fn listed(&self, name: &HostName) -> Vec<IpAddr> {
        let Ok(mut full) = Name::from_ascii(name.as_str()) else {
            return Vec::new();
        };
        full.set_fqdn(true);
        [RecordType::A, RecordType::AAAA]
            .into_iter()
            .filter_map(|kind| self.hosts.lookup_static_host(&Query::query(full.clone(), kind)))
            .flat_map(|lookup| {
                lookup.answers().iter().filter_map(|r| r.data.ip_addr()).collect::<Vec<_>>()
            })
            .collect()
    }

    async fn lookup(&self, name: &HostName, kind: RecordType) -> Result<Option<Records>, Failure> {
        tokio::time::timeout(self.deadline, self.search_lookup(name, kind))
            .await
            .unwrap_or_else(|_| Err((DnsFailure::Timeout, "no answer in time".into())))
    }

    /// Looks a name up with the search list, as getaddrinfo(3) does, except that a failure on the
    /// way is not forgotten when a later suffix turns out not to exist.
    async fn search_lookup(
        &self,
        name: &HostName,
        kind: RecordType,
    ) -> Result<Option<Records>, Failure> {
        let mut failure = None;
        for full in self.full_names(name)? {
            match self.query(&full, kind).await {
                Ok(lookup) if lookup.answers().iter().any(|r| r.record_type() == kind) => {
                    let records = (lookup.answers().to_vec(), lookup.additionals().to_vec());
                    return Ok(Some(records));
                }
                Ok(_) => {}
                // The resolver gives up on a loop of aliases as if there were no such record.
                Err(error) if kind == RecordType::A && is_nodata(&error) => {
                    if self.is_alias_loop(full).await {
                        let why = "its CNAME records form a loop".to_owned();
                        failure = Some((DnsFailure::Malformed, why));
                    }
                }
                Err(error) => failure = classify(&error).or(failure),
            }
        }
        failure.map_or(Ok(None), Err)
    }

    /// Whether following the CNAME records from `name` comes back to where it has been.
    async fn is_alias_loop(&self, name: Name) -> bool {
        let mut seen = BTreeSet::from([name.to_lowercase()]);
        let mut at = name;
        while let Ok(lookup) = self.query(&at, RecordType::CNAME).await {
            let alias = lookup.answers().iter().find_map(|record| match &record.data {
                RData::CNAME(alias) if record.name == at => Some(alias.0.clone()),
                _ => None,
            });
            match alias {
                None => return false,
                Some(alias) if !seen.insert(alias.to_lowercase()) => return true,
                Some(alias) => at = alias,
            }
        }
        false
    }

    /// A name with the search list applied: fully qualified names in the order to try them.
    fn full_names(&self, name: &HostName) -> Result<Vec<Name>, Failure> {
        let malformed =
            |error: &dyn std::fmt::Display| (DnsFailure::Malformed, one_line(&error.to_string()));
        let mut bare = Name::from_ascii(name.as_str()).map_err(|error| malformed(&error))?;
        bare.set_fqdn(false);
        let mut names: Vec<Name> = self
            .search
            .iter()
            .filter_map(|suffix| bare.clone().append_domain(suffix).ok())
            .collect();
        let dots = name.as_str().matches('.').count();
        let mut full = bare;
        full.set_fqdn(true);
        let position = if dots >= self.ndots { 0 } else { names.len() };
        names.insert(position, full);
        names.iter_mut().for_each(|name| name.set_fqdn(true));
        names.dedup();
        Ok(names)
    }
}

/// Whether the name exists, but has no record of the type that was asked for.
fn is_nodata(error: &NetError) -> bool {
    matches!(error, NetError::Dns(DnsError::NoRecordsFound(none)) if none.response_code == ResponseCode::NoError)
}

/// What a failed lookup means; nothing for NXDOMAIN and NODATA, which are answers.
fn classify(error: &NetError) -> Option<Failure> {
    let kind = match error {
        NetError::Timeout => DnsFailure::Timeout,
        NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => return None,
            code => of_code(code),
        },
        NetError::Dns(DnsError::ResponseCode(code)) => of_code(*code),
        NetError::Proto(_) => DnsFailure::Malformed,
        NetError::Truncated => DnsFailure::Truncated,
        _ => DnsFailure::Other,
    };
    Some((kind, one_line(&error.to_string())))
}

fn of_code(code: ResponseCode) -> DnsFailure {
    match code {
        ResponseCode::ServFail => DnsFailure::ServFail,
        ResponseCode::Refused => DnsFailure::Refused,
        ResponseCode::FormErr => DnsFailure::Malformed,
        _ => DnsFailure::Other,
    }
}
