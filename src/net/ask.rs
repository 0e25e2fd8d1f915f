//! Owns a visit to another server, a login and what is asked there, and putting one question to many
//! nodes at the same time. Probes and questions have the same bounds, on both sides.
//! Must not know what is asked, and must not change anything by itself.

use super::credentials::{Credentials, Parameters};
use super::crowd::Crowd;
use super::dns::Dns;
use super::helpers::{self, Errand};
use super::login::Login;
use crate::backend::signals;
use crate::error::Error;
use decide::configuration::names::HostName;
use decide::login::{LoginFailure, LoginFailureKind};
use decide::node::Node;
use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// How long a visit may take.
#[derive(Clone, Copy)]
pub struct Bounds {
    /// For a login: a node that is not there is not waited for as long as one that works.
    pub login: Duration,
    /// For all of it. A server that runs longer is told so by `statement_timeout`, and one that is no
    /// longer listened to notices that by itself.
    pub deadline: Duration,
}

/// Logs in at one address to ask something within the bounds, in the first way that `credentials` know and
/// the server takes.
pub async fn visit(
    name: &str,
    endpoint: SocketAddr,
    nodeid: Option<i32>,
    bounds: Bounds,
    credentials: &Credentials,
) -> Result<Login, LoginFailure> {
    let errand = Errand { at: endpoint, is_stranger: nodeid.is_none() };
    if let Some((kind, message)) = helpers::objection(errand) {
        return Err(failure(kind, &message));
    }
    let ways = credentials
        .ways(name, endpoint, nodeid)
        .map_err(|message| failure(LoginFailureKind::Other, &message))?;
    let logging_in = async {
        let mut result = Err(failure(LoginFailureKind::Other, "no way to log in"));
        for way in ways {
            result = connect(&way, bounds, errand).await;
            let is_next =
                |failure: &LoginFailure| failure.kind == LoginFailureKind::PasswordNotBound;
            if !result.as_ref().is_err_and(is_next) {
                break;
            }
        }
        result
    };
    match tokio::time::timeout(bounds.login, logging_in).await {
        Ok(login) => login,
        Err(_) => Err(late_at(endpoint, bounds.login)),
    }
}

/// With the same bounds for the server.
async fn connect(way: &Parameters, bounds: Bounds, errand: Errand) -> Result<Login, LoginFailure> {
    let ours = format!("-c statement_timeout={} {OUR_OWN}", bounds.deadline.as_millis());
    match Login::connect(&with_options(way, &format!("{ours} {NEWEST}")), errand).await {
        // PostgreSQL 16 says so of what it does not know, and is to say its version.
        Err(failure) if failure.message.contains("transaction_timeout") => {
            Login::connect(&with_options(way, &ours), errand).await
        }
        login => login,
    }
}

/// What an owner of the database or of the role there may have set otherwise, for clients.
const OUR_OWN: &str = "-c role=none -c client_connection_check_interval=200 -c idle_session_timeout=0 \
     -c idle_in_transaction_session_timeout=0 -c default_transaction_read_only=off \
     -c default_transaction_isolation=read\\ committed -c default_transaction_deferrable=off \
     -c row_security=on -c search_path=pg_catalog";

/// Since PostgreSQL 17.
const NEWEST: &str = "-c transaction_timeout=0";

fn with_options(parameters: &Parameters, ours: &str) -> Parameters {
    let mut parameters = parameters.clone();
    match parameters.iter_mut().rev().find(|(key, _)| key == "options") {
        Some((_, options)) => *options = format!("{options} {ours}"),
        None => parameters.push(("options".to_owned(), ours.to_owned())),
    }
    parameters
}

/// One statement that gives one value, for every node the same but for its parameters.
pub struct Question<'a> {
    pub statement: &'a str,
    /// The deadline is for all nodes together.
    pub bounds: Bounds,
    /// More than this is not an answer.
    pub most_bytes: usize,
}

/// What a node said, in the text form of the statement's one value.
pub type Answer = Result<String, LoginFailure>;

/// Asks all nodes, each with parameters of its own, and returns their answers in the same order.
///
/// Returns within the deadline, whatever a node does, and raises a cancel or an end of the process
/// within 50 ms: at that moment every connection is closed, and the statements end on their nodes.
/// An `Err` only when nothing could be asked at all.
pub fn ask(
    nodes: &[(Node, Vec<String>)],
    question: &Question,
    credentials: &Credentials,
) -> Result<Vec<Answer>, Error> {
    let deadline = question.bounds.deadline;
    let dns = Dns::system(deadline);
    let dns = dns.as_ref().map_err(String::as_str);
    let has_entered: Vec<Cell<bool>> = nodes.iter().map(|_| Cell::new(false)).collect();
    let mut crowd = Crowd::new()?;
    for (number, (node, parameters)) in nodes.iter().enumerate() {
        let entered = &has_entered[number];
        crowd.join(async move {
            (number, interview(node, parameters, question, credentials, dns, entered).await)
        });
    }
    let end = Instant::now() + deadline;
    loop {
        let patience = end.saturating_duration_since(Instant::now());
        if let Some(come) = crowd.collect(patience, signals::interrupt_pending) {
            let unheard =
                has_entered.iter().map(|it| if it.get() { busy(deadline) } else { late(deadline) });
            let mut answers: Vec<Answer> = unheard.map(Err).collect();
            for (number, answer) in come {
                answers[number] = answer;
            }
            return Ok(answers);
        }
        // Outside the runtime: an ERROR unwinds from here, and closes every connection.
        pgrx::check_for_interrupts!();
    }
}

async fn interview(
    node: &Node,
    parameters: &[String],
    question: &Question<'_>,
    credentials: &Credentials,
    dns: Result<&Dns, &str>,
    has_entered: &Cell<bool>,
) -> Answer {
    let parameters: Vec<&str> = parameters.iter().map(String::as_str).collect();
    let mut last = failure(LoginFailureKind::Unresolvable, "the name leads nowhere");
    // As libpq does with a name that has several addresses: the first that lets us in.
    for address in addresses(&node.nodename, dns).await? {
        let endpoint = SocketAddr::new(address, node.nodeport);
        let nodeid = Some(node.nodeid);
        match visit(&node.nodename, endpoint, nodeid, question.bounds, credentials).await {
            Ok(mut login) => {
                has_entered.set(true);
                login.allow(question.most_bytes);
                return login.value(question.statement, &parameters).await;
            }
            Err(failure) => last = failure,
        }
    }
    Err(last)
}

async fn addresses(name: &str, dns: Result<&Dns, &str>) -> Result<Vec<IpAddr>, LoginFailure> {
    if let Ok(address) = name.parse() {
        return Ok(vec![address]);
    }
    let unresolvable = |why: &str| failure(LoginFailureKind::Unresolvable, why);
    let name = HostName::parse(name).map_err(|why| unresolvable(&why))?;
    let dns = dns.map_err(unresolvable)?;
    dns.addresses(&name).await.map_err(|(_, why)| unresolvable(&why))
}

/// Of a server that did not let us in in time. What it has us compute goes on.
pub fn late_at(endpoint: SocketAddr, deadline: Duration) -> LoginFailure {
    match helpers::objection(Errand { at: endpoint, is_stranger: false }) {
        Some((kind, message)) => failure(kind, &message),
        None => late(deadline),
    }
}

/// Of a server that did not say anything in time.
pub fn late(deadline: Duration) -> LoginFailure {
    failure(LoginFailureKind::Timeout, &format!("nothing within {} ms", deadline.as_millis()))
}

/// Of a server that let us in, and so does others, and has not answered yet.
fn busy(deadline: Duration) -> LoginFailure {
    let message = format!("it let us in, and has not answered within {} ms", deadline.as_millis());
    failure(LoginFailureKind::Other, &message)
}

fn failure(kind: LoginFailureKind, message: &str) -> LoginFailure {
    LoginFailure { kind, message: crate::error::one_line(message) }
}
