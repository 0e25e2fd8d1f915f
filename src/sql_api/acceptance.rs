//! Owns the steps of `fleet.accept_server`, and when it refuses.
//! Must not look for the server anywhere but where the controller has found it.

use crate::apply::acceptance::{self, Accepted};
use crate::backend::catalog::{read_one, value};
use crate::error::Error;
use crate::observe::coordinator;
use crate::observe::probe::{Prober, Visit};
use crate::session::{
    autoregister, require_coordinator, require_superuser, require_undisputed, snapshot_json,
    wake_controller_after_commit,
};
use crate::settings::Settings;
use decide::membership::coordinator::Coordinator;
use decide::membership::server::Server;
use decide::node::Node;
use pgrx::prelude::*;
use serde::Deserialize;
use std::net::{IpAddr, SocketAddr};

/// What the controller shows of a worker; see `worker::snapshot`.
#[derive(Deserialize)]
struct Shown {
    nodename: String,
    #[serde(deserialize_with = "decide::node::any_port")]
    nodeport: u16,
    address: Option<IpAddr>,
    nodeid: Option<i32>,
    state: String,
    system_identifier: Option<i64>,
    elsewhere: Vec<SocketAddr>,
}

impl Shown {
    fn endpoint(&self) -> Option<SocketAddr> {
        self.address.map(|address| SocketAddr::new(address, self.nodeport))
    }

    fn is_called(&self, name: &str, port: i32) -> bool {
        let is_name = self.nodename == name
            || self.address.is_some_and(|address| address.to_string() == name);
        is_name && i32::from(self.nodeport) == port
    }
}

/// A worker of `pg_dist_node`.
#[derive(Deserialize)]
struct Worker {
    #[serde(flatten)]
    node: Node,
    groupid: i32,
}

pub fn accept(nodename: &str, nodeport: i32, force: bool) -> Result<(), Error> {
    require_superuser("fleet.accept_server()")?;
    require_coordinator("fleet.accept_server()")?;
    // What there is now, and where.
    autoregister(true)?;
    require_undisputed()?;
    let snapshot = snapshot_json()?.unwrap_or_default();
    let shown: Vec<Shown> = serde_json::from_value(snapshot["workers"].clone())?;
    let workers: Vec<Worker> = workers()?;
    let name = format!("{nodename}:{nodeport}");
    let is_meant =
        |it: &&Worker| it.node.nodename == nodename && i32::from(it.node.nodeport) == nodeport;
    let named = workers.iter().find(is_meant);
    // A candidate's own name means that server alone.
    let candidate = shown.iter().find(|it| it.nodeid.is_none() && it.is_called(nodename, nodeport));
    let visits: Vec<Visit> = match (named, candidate) {
        (Some(worker), _) => places(&shown, worker.node.nodeid)?,
        (None, Some(it)) => it.endpoint().map(|at| stranger(at, it)).into_iter().collect(),
        (None, None) => return Err(Error::NoSuchWorker(name)),
    };
    let settings = Settings::current().map_err(Error::Internal)?;
    let (coordinator, credentials) = coordinator::read(false)?;
    let prober = Prober::new(credentials, &coordinator, &settings);
    let answers = prober.ask_all(&visits)?;
    let mut found: Vec<(&Worker, &Visit, Server)> = Vec::new();
    for (visit, answer) in visits.iter().zip(answers) {
        let Ok(server) = answer else { continue };
        let group = server.membership.as_ref().map(|membership| membership.group_id);
        let its = |worker: &&Worker| group == Some(worker.groupid);
        let worker =
            named.filter(its).or_else(|| workers.iter().find(|it| named.is_none() && its(it)));
        let is_new = found.iter().all(|(.., other)| !other.is_same(&server));
        if let Some(worker) = worker.filter(|_| !server.in_recovery && is_new) {
            found.push((worker, visit, server));
        }
    }
    let (worker, visit, server) = match found.as_slice() {
        [one] => one,
        [] => return Err(Error::NobodyToAccept(name)),
        several => {
            let at: Vec<String> =
                several.iter().map(|(_, visit, _)| visit.at.to_string()).collect();
            return Err(Error::SeveralToAccept { node: name, servers: at.join(", ") });
        }
    };
    let (theirs, ours) = (server.version_num / 10_000, coordinator.version_num / 10_000);
    if theirs != ours {
        return Err(Error::OtherMajor { theirs, ours });
    }
    if !force {
        require_its_own(&worker.node, visit, server, &coordinator, &shown)?;
    }
    let missing = acceptance::missing(worker.groupid, visit, &prober)?;
    if !missing.is_empty() && !force {
        return Err(Error::ShardsMissing { node: name, shards: list(&missing) });
    }
    let known = coordinator.identities.get(&worker.node.nodeid);
    let mark = acceptance::mark(server, visit, known, &prober)?;
    let node = (worker.node.nodename.as_str(), i32::from(worker.node.nodeport));
    let accepted = Accepted { lineage: server.lineage(), mark, missing };
    acceptance::accept(worker.node.nodeid, node, &accepted, known)?;
    wake_controller_after_commit();
    notice!("the server at {} is the worker {}:{} from now on", visit.at, node.0, node.1);
    Ok(())
}

/// That the server is this cluster's own, and does not take the place of one that is in order.
fn require_its_own(
    node: &Node,
    visit: &Visit,
    server: &Server,
    coordinator: &Coordinator,
    shown: &[Shown],
) -> Result<(), Error> {
    let name = format!("{}:{}", node.nodename, node.nodeport);
    let ours = coordinator.own_row().map(ToString::to_string);
    let membership = server.membership.as_ref();
    let theirs = membership.and_then(|it| it.coordinator.clone());
    let takes_itself_for = membership.and_then(|it| it.nodeid);
    if theirs != ours || takes_itself_for.is_some_and(|nodeid| nodeid != node.nodeid) {
        let nodeid = takes_itself_for.map_or("none".to_owned(), |nodeid| nodeid.to_string());
        let coordinator = theirs.unwrap_or_else(|| "none".to_owned());
        let owner = format!(
            "Its metadata name {coordinator} as the coordinator, and itself as node {nodeid}."
        );
        return Err(Error::OtherClusters { node: name, owner });
    }
    let is_in_order = |it: &&Shown| it.nodeid == Some(node.nodeid) && it.state == "active";
    let own = shown.iter().find(is_in_order).and_then(Shown::endpoint);
    match own.filter(|own| *own != visit.at) {
        Some(own) => Err(Error::InOrder { node: name, own, other: visit.at }),
        None => Ok(()),
    }
}

/// Where the server of a node may be: where its row leads, where the controller has seen it besides, and
/// at candidates that have its identity. Only the first is a worker's address, and gets what a worker may.
fn places(shown: &[Shown], nodeid: i32) -> Result<Vec<Visit>, Error> {
    let identity: Option<i64> = read_one(
        "SELECT i.system_identifier FROM fleet.identities i WHERE i.nodeid OPERATOR(pg_catalog.=) $1",
        &[nodeid.into()],
    )?;
    let own: Vec<&Shown> = shown.iter().filter(|it| it.nodeid == Some(nodeid)).collect();
    let home = own.iter().filter_map(|it| {
        let visit = stranger(it.endpoint()?, it);
        Some(Visit { nodeid: Some(nodeid), ..visit })
    });
    let elsewhere = own.iter().flat_map(|it| it.elsewhere.iter().map(|at| stranger(*at, it)));
    let is_kin = |it: &&Shown| it.nodeid.is_none() && it.system_identifier == identity;
    let kin = shown.iter().filter(|_| identity.is_some()).filter(is_kin);
    let kin = kin.filter_map(|it| Some(stranger(it.endpoint()?, it)));
    Ok(home.chain(elsewhere).chain(kin).collect())
}

/// A visit to somebody who gets no proof of a password that could be passed on.
fn stranger(at: SocketAddr, shown: &Shown) -> Visit {
    Visit { at, name: shown.nodename.clone(), nodeid: None, is_candidate: false }
}

fn workers() -> Result<Vec<Worker>, Error> {
    value(
        "SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
           'nodeid', d.nodeid, 'nodename', d.nodename, 'nodeport', d.nodeport,
           'groupid', d.groupid)), '[]')::pg_catalog.text
         FROM pg_catalog.pg_dist_node d
         WHERE d.groupid OPERATOR(pg_catalog.<>) 0
           AND d.noderole::pg_catalog.text OPERATOR(pg_catalog.=) 'primary'",
        &[],
    )
}

fn list(names: &[String]) -> String {
    const MOST: usize = 20;
    let more = names.len().saturating_sub(MOST);
    let more = (more > 0).then(|| format!("and {more} more"));
    names.iter().take(MOST).cloned().chain(more).collect::<Vec<_>>().join(", ")
}
