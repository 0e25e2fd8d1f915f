//! Owns what the controller asks the network: the names of one pass, and the probes that are under way
//! from one cycle to the next.
//! Must not be used inside a transaction.

use super::naming;
use super::probe::{Prober, Visit};
use crate::backend::signals;
use crate::error::Error;
use crate::net::crowd::Crowd;
use crate::net::dns::{Dns, Resolvers};
use decide::configuration::names::HostName;
use decide::configuration::policy::{NameOrigin, Policy};
use decide::login::LoginFailureKind;
use decide::membership::coordinator::{DistNode, OwnAddress, port as port_of};
use decide::membership::discovery::{DnsFailure, SourceAnswer};
use decide::membership::endpoint::{Naming, ProbeResult};
use futures_util::future::join_all;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// What DNS gave in one pass.
pub struct Names {
    pub sources: Vec<SourceAnswer>,
    /// Where the names of registered workers lead; those whose lookup failed are left out.
    pub nodes: BTreeMap<i32, Vec<IpAddr>>,
    /// Where the coordinator's own addresses lead.
    pub own: Vec<OwnAddress>,
}

/// The answer of one endpoint.
pub struct Answered {
    pub at: SocketAddr,
    pub result: ProbeResult,
    /// When the probe was begun: whatever the server said was true no later than at its answer.
    pub asked: Instant,
    pub round_trip: Duration,
    /// What it had.
    deadline: Duration,
    /// The outcome of asking for its name, where that was wanted.
    pub naming: Option<Option<Naming>>,
}

impl Answered {
    /// What a server has just said over a login that goes on.
    pub fn just_now(at: SocketAddr, result: ProbeResult) -> Self {
        let (asked, round_trip, deadline) = (Instant::now(), Duration::ZERO, Duration::MAX);
        Self { at, result, asked, round_trip, deadline, naming: None }
    }

    /// Whether its time was over because this process did something else meanwhile.
    pub fn is_unheard(&self) -> bool {
        const LATE: Duration = Duration::from_millis(200);
        let is_timeout =
            self.result.as_ref().is_err_and(|failure| failure.kind == LoginFailureKind::Timeout);
        is_timeout && self.round_trip.saturating_sub(LATE) > self.deadline
    }
}

/// The probes that have not come back yet, and whatever else the controller asks the network.
pub struct Network {
    crowd: Crowd<'static, Answered>,
    asked: BTreeSet<SocketAddr>,
}

impl Network {
    pub fn new() -> Result<Self, Error> {
        Ok(Self { crowd: Crowd::new()?, asked: BTreeSet::new() })
    }

    /// Asks all sources, and where the given rows of `pg_dist_node` and the coordinator's own address
    /// lead. `None` on a signal.
    pub fn resolve(
        &mut self,
        policy: &Policy,
        resolvers: &Resolvers,
        nodes: &[&DistNode],
        own: &[(&str, i32)],
    ) -> Option<Names> {
        self.crowd.perform(async {
            let sources = async {
                match resolvers.of_sources() {
                    Ok(dns) => dns.ask(&policy.sources, policy.max_workers).await,
                    Err(why) => policy
                        .sources
                        .iter()
                        .map(|source| unasked(source.to_string(), why))
                        .collect(),
                }
            };
            let system = resolvers.system.as_ref().ok();
            let rows = join_all(
                nodes
                    .iter()
                    .map(async |row| Some((row.nodeid, locate(&row.nodename, system).await?))),
            );
            let own = join_all(own.iter().map(async |(name, nodeport)| {
                let addresses = locate(name, system).await.unwrap_or_default();
                let at = |ip| Some(SocketAddr::new(ip, port_of(*nodeport)?));
                let endpoints = addresses.into_iter().filter_map(at);
                OwnAddress {
                    nodename: (*name).to_owned(),
                    nodeport: *nodeport,
                    endpoints: endpoints.collect(),
                }
            }));
            let (sources, rows, own) = futures_util::join!(sources, rows, own);
            let nodes = rows.into_iter().flatten().collect();
            Names { sources, nodes, own }
        })
    }

    /// Starts a probe, unless the endpoint's last one is still underway. `origins` says where to
    /// look for a name of the endpoint first, if at all.
    pub fn start(
        &mut self,
        prober: &Rc<Prober>,
        mut visit: Visit,
        origins: Option<Vec<NameOrigin>>,
    ) {
        if !self.asked.insert(visit.at) {
            return;
        }
        let prober = Rc::clone(prober);
        self.crowd.join(async move {
            let at = visit.at;
            let naming = match origins {
                Some(origins) => {
                    let (resolvers, deadline) = (&prober.resolvers, prober.deadline);
                    Some(naming::find(at.ip(), &origins, resolvers, deadline).await)
                }
                None => None,
            };
            if let Some(Some(naming)) = &naming {
                visit.name = naming.name.to_string();
            }
            let started = Instant::now();
            let result = prober.ask(&visit).await;
            let (round_trip, deadline) = (started.elapsed(), prober.deadline);
            Answered { at, result, asked: started, round_trip, deadline, naming }
        });
    }

    /// Waits for answers until all are in or `patience` is over. `None` on a signal.
    pub fn collect(&mut self, patience: Duration) -> Option<Vec<Answered>> {
        let answers = self.crowd.collect(patience, signals::interrupted)?;
        for answered in &answers {
            self.asked.remove(&answered.at);
        }
        Some(answers)
    }

    /// Does something else that talks to a server. `None` on a signal.
    pub fn perform<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        self.crowd.perform(work)
    }

    /// Waits until the time is over, a probe brings news, or somebody wants something.
    pub fn wait(&mut self, time: Duration, is_news: impl Fn(&Answered) -> bool) {
        self.crowd.wait(time, is_news);
    }
}

fn unasked(source: String, why: &str) -> SourceAnswer {
    SourceAnswer {
        source,
        failed: Some((DnsFailure::Other, why.to_owned())),
        complete: false,
        names: BTreeMap::new(),
    }
}

/// Where the name of a node leads; nothing when DNS failed, an empty list when it leads nowhere.
async fn locate(nodename: &str, dns: Option<&Dns>) -> Option<Vec<IpAddr>> {
    match nodename.parse::<IpAddr>() {
        Ok(address) => Some(vec![address]),
        Err(_) => match HostName::parse(nodename) {
            Ok(name) => dns?.addresses(&name).await.ok(),
            Err(_) => Some(Vec::new()),
        },
    }
}
