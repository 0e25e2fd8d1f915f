//! Owns the async runtime of the controller: everything that talks to the network runs in here,
//! outside any transaction, and gives way to a signal at any moment.
//! Must not call PostgreSQL from inside the runtime, except to see whether a signal has come.

use super::dns::{Dns, Resolvers};
use super::naming;
use super::probe::{Questions, Target};
use crate::decide::discovery::{DnsFailure, SourceAnswer};
use crate::decide::model::{Naming, NodeRow, ProbeResult};
use crate::decide::names::HostName;
use crate::decide::policy::{NameOrigin, Policy};
use crate::worker::signals;
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long a signal may go unnoticed while the network is waited for.
const HEARTBEAT: Duration = Duration::from_millis(50);

/// What DNS gave in one pass.
pub struct Names {
    pub sources: Vec<SourceAnswer>,
    /// Where the names of registered workers lead; those whose lookup failed are left out.
    pub nodes: BTreeMap<i32, Vec<IpAddr>>,
    /// Where the coordinator's own address leads; nowhere where the lookup failed.
    pub own: Vec<SocketAddr>,
}

/// The answer of one endpoint.
pub struct Answered {
    pub endpoint: SocketAddr,
    pub result: ProbeResult,
    /// When the probe was begun: whatever the server said was true no later than at its answer.
    pub asked: Instant,
    pub round_trip: Duration,
    /// The outcome of asking for its name, where that was wanted.
    pub naming: Option<Option<Naming>>,
}

/// The runtime, and the probes that have not come back yet.
pub struct Network {
    runtime: tokio::runtime::Runtime,
    underway: FuturesUnordered<Pin<Box<dyn Future<Output = Answered>>>>,
    asked: BTreeSet<SocketAddr>,
    answers: Vec<Answered>,
}

impl Network {
    pub fn new() -> std::io::Result<Self> {
        // One thread, this one: PostgreSQL's signal handlers must not run on another.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self {
            runtime,
            underway: FuturesUnordered::new(),
            asked: BTreeSet::new(),
            answers: Vec::new(),
        })
    }

    /// Asks all sources, and where the given rows of `pg_dist_node` and the coordinator's own address
    /// lead. `None` on a signal.
    pub fn resolve(
        &self,
        policy: &Policy,
        resolvers: &Resolvers,
        nodes: &[&NodeRow],
        own: Option<(&str, u16)>,
    ) -> Option<Names> {
        let asking = async {
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
            let own = async {
                let (name, port) = own?;
                let addresses = locate(name, system).await?;
                Some(addresses.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
            };
            let (sources, rows, own) = futures_util::join!(sources, rows, own);
            let nodes = rows.into_iter().flatten().collect();
            Names { sources, nodes, own: own.unwrap_or_default() }
        };
        run(&self.runtime, signals::interrupted, asking)
    }

    /// Starts a probe, unless the endpoint's last one is still underway. `origins` says where to
    /// look for a name of the endpoint first, if at all.
    pub fn start(
        &mut self,
        questions: &Rc<Questions>,
        mut target: Target,
        origins: Option<Vec<NameOrigin>>,
    ) {
        if !self.asked.insert(target.endpoint) {
            return;
        }
        let questions = Rc::clone(questions);
        self.underway.push(Box::pin(async move {
            let endpoint = target.endpoint;
            let naming = match origins {
                Some(origins) => {
                    let (resolvers, deadline) = (&questions.resolvers, questions.deadline);
                    Some(naming::find(endpoint.ip(), &origins, resolvers, deadline).await)
                }
                None => None,
            };
            if let Some(Some(naming)) = &naming {
                target.name = naming.name.to_string();
            }
            let started = Instant::now();
            let result = questions.ask(&target).await;
            Answered { endpoint, result, asked: started, round_trip: started.elapsed(), naming }
        }));
    }

    /// Waits for answers until all are in or `patience` is over: a slow endpoint costs the others
    /// no more than that, and is heard later. `None` on a signal.
    pub fn collect(&mut self, patience: Duration) -> Option<Vec<Answered>> {
        let (underway, answers) = (&mut self.underway, &mut self.answers);
        let collecting = async {
            let all = async {
                while let Some(answered) = underway.next().await {
                    answers.push(answered);
                }
            };
            let _ = tokio::time::timeout(patience, all).await;
        };
        let finished = run(&self.runtime, signals::interrupted, collecting);
        finished.map(|()| self.take_answers())
    }

    fn take_answers(&mut self) -> Vec<Answered> {
        let answers = std::mem::take(&mut self.answers);
        for answered in &answers {
            self.asked.remove(&answered.endpoint);
        }
        answers
    }

    /// Does something else that talks to a server. `None` on a signal.
    pub fn perform<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        run(&self.runtime, signals::interrupted, work)
    }

    /// Waits until the time is over, a probe comes back, or somebody wants something.
    pub fn wait(&mut self, time: Duration) {
        if self.underway.is_empty() {
            signals::sleep(time);
            return;
        }
        let (underway, answers) = (&mut self.underway, &mut self.answers);
        let waiting = async {
            if let Ok(Some(answered)) = tokio::time::timeout(time, underway.next()).await {
                answers.push(answered);
            }
        };
        run(&self.runtime, signals::woken, waiting);
    }
}

/// Runs `work` until it is done or `stop` says so.
pub fn run<T>(
    runtime: &tokio::runtime::Runtime,
    stop: fn() -> bool,
    work: impl Future<Output = T>,
) -> Option<T> {
    runtime.block_on(async {
        let stopped = async {
            while !stop() {
                tokio::time::sleep(HEARTBEAT).await;
            }
        };
        tokio::select! {
            biased;
            () = stopped => None,
            done = work => Some(done),
        }
    })
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
