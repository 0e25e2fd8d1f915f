//! Owns putting one question to many nodes at the same time, each over one connection of its own,
//! within one deadline, from whatever process is asked to do it: a session or a background worker.
//! Must not know what is asked, and must not change anything by itself.

use super::credentials::Credentials;
use super::dns::Dns;
use super::login::Login;
use super::network;
use crate::decide::model::{ProbeFailure, ProbeFailureKind};
use crate::decide::names::HostName;
use crate::error::Error;
use crate::worker::signals;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// A node of `pg_dist_node`.
#[derive(Clone, Debug)]
pub struct Peer {
    pub nodeid: i32,
    pub name: String,
    pub port: u16,
}

/// One statement that gives one value, for every node the same but for its parameters.
pub struct Question<'a> {
    pub statement: &'a str,
    /// For a login: a node that is not there is not waited for as long as one that works.
    pub login: Duration,
    /// For all nodes together. A node that runs longer is told so by `statement_timeout`, and one
    /// that is no longer listened to notices that by itself.
    pub deadline: Duration,
    /// More than this is not an answer.
    pub most_bytes: usize,
}

/// What a node said, in the text form of the statement's one value.
pub type Answer = Result<String, ProbeFailure>;

/// Asks all peers, each with parameters of its own, and returns their answers in the same order.
///
/// Returns within the deadline, whatever a node does, and raises a cancel or an end of the process
/// within 50 ms: at that moment every connection is closed, and the statements end on their nodes.
/// An `Err` only when nothing could be asked at all.
pub fn ask(
    peers: &[(Peer, Vec<String>)],
    question: &Question,
    credentials: &Credentials,
) -> Result<Vec<Answer>, Error> {
    // One thread, this one: PostgreSQL's signal handlers must not run on another.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::Internal(format!("no async runtime: {error}")))?;
    let dns = Dns::system(question.deadline);
    let mut answers: Vec<Answer> = peers.iter().map(|_| Err(late(question.deadline))).collect();
    let mut underway: FuturesUnordered<_> = peers
        .iter()
        .enumerate()
        .map(|(number, (peer, parameters))| {
            let dns = dns.as_ref().map_err(String::as_str);
            async move { (number, interview(peer, parameters, question, credentials, dns).await) }
        })
        .collect();
    let end = std::time::Instant::now() + question.deadline;
    loop {
        let all = async {
            while let Some((number, answer)) = underway.next().await {
                answers[number] = answer;
            }
        };
        let patience = end.saturating_duration_since(std::time::Instant::now());
        let timed = async { drop(tokio::time::timeout(patience, all).await) };
        if network::run(&runtime, signals::interrupt_pending, timed).is_some() {
            return Ok(answers);
        }
        // Outside the runtime: an ERROR unwinds from here, and closes every connection.
        pgrx::check_for_interrupts!();
    }
}

async fn interview(
    peer: &Peer,
    parameters: &[String],
    question: &Question<'_>,
    credentials: &Credentials,
    dns: Result<&Dns, &str>,
) -> Answer {
    let parameters: Vec<&str> = parameters.iter().map(String::as_str).collect();
    let mut last = failure(ProbeFailureKind::Unresolvable, "the name leads nowhere");
    // As libpq does with a name that has several addresses: the first that lets us in.
    for address in addresses(&peer.name, dns).await? {
        let endpoint = SocketAddr::new(address, peer.port);
        let mut login = credentials
            .parameters(&peer.name, endpoint, Some(peer.nodeid))
            .map_err(|message| failure(ProbeFailureKind::Other, &message))?;
        bound(&mut login, question.deadline);
        match tokio::time::timeout(question.login, Login::connect(&login)).await {
            Err(_) => last = late(question.login),
            Ok(Ok(mut session)) => {
                session.allow(question.most_bytes);
                return session.value(question.statement, &parameters).await;
            }
            Ok(Err(failure)) => last = failure,
        }
    }
    Err(last)
}

/// Lets the server itself end a statement that nobody waits for any more: at the deadline, and where
/// the connection has been closed, as a cancel here does.
fn bound(parameters: &mut Vec<(String, String)>, deadline: Duration) {
    let ours = format!(
        "-c statement_timeout={} -c client_connection_check_interval=200",
        deadline.as_millis()
    );
    match parameters.iter_mut().rev().find(|(key, _)| key == "options") {
        Some((_, options)) => *options = format!("{options} {ours}"),
        None => parameters.push(("options".to_owned(), ours)),
    }
}

async fn addresses(name: &str, dns: Result<&Dns, &str>) -> Result<Vec<IpAddr>, ProbeFailure> {
    if let Ok(address) = name.parse() {
        return Ok(vec![address]);
    }
    let unresolvable = |why: &str| failure(ProbeFailureKind::Unresolvable, why);
    let name = HostName::parse(name).map_err(|why| unresolvable(&why))?;
    let dns = dns.map_err(unresolvable)?;
    dns.addresses(&name).await.map_err(|(_, why)| unresolvable(&why))
}

fn late(deadline: Duration) -> ProbeFailure {
    failure(ProbeFailureKind::Timeout, &format!("nothing within {} ms", deadline.as_millis()))
}

fn failure(kind: ProbeFailureKind, message: &str) -> ProbeFailure {
    ProbeFailure { kind, message: crate::error::one_line(message) }
}
