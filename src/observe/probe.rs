//! Owns one probe: log in to an endpoint, ask what the server is, and bring back its identity.
//! Must not change anything there; both statements only read catalogs.

use crate::error::{Error, one_line};
use crate::net::ask::{self, Bounds, late_at};
use crate::net::credentials::Credentials;
use crate::net::crowd::in_session;
use crate::net::dns::Resolvers;
use crate::net::login::Login;
use crate::settings::Settings;
use decide::login::{LoginFailure, LoginFailureKind};
use decide::membership::coordinator::Coordinator;
use decide::membership::endpoint::ProbeResult;
use decide::membership::lineage::Lsn;
use decide::membership::server::{ExtensionState, MOST_RELATIONS, Membership, Relation, Server};
use futures_util::future::join_all;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// What every probe of a pass asks with.
pub struct Prober {
    pub credentials: Credentials,
    pub resolvers: Resolvers,
    pub deadline: Duration,
    versions: String,
}

/// The newest marks: the one that is looked for is among them, or is not there.
const MARKS: &str = "SELECT COALESCE(pg_catalog.json_agg(m.mark), '[]')::pg_catalog.text FROM (
    SELECT k.mark FROM fleet.marks k ORDER BY k.position DESC LIMIT 32) m";

/// A probe that is to be made.
#[derive(Clone, Debug)]
pub struct Visit {
    pub at: SocketAddr,
    /// The name that Citus uses, or would use, for it.
    pub name: String,
    /// Its row in `pg_dist_node`, where it has one.
    pub nodeid: Option<i32>,
    /// A source yields it: what it has of its own matters.
    pub is_candidate: bool,
}

impl Prober {
    pub fn new(credentials: Credentials, coordinator: &Coordinator, settings: &Settings) -> Self {
        let deadline = settings.probe_timeout;
        let versions = serde_json::json!({
            "citus": coordinator.citus.as_ref().map_or("", |citus| &citus.version),
            "vector": coordinator.vector_version.as_deref().unwrap_or(""),
            "citus_fleet": coordinator.fleet_version,
        });
        Self {
            credentials,
            resolvers: Resolvers::new(settings.nameserver, deadline),
            deadline,
            versions: versions.to_string(),
        }
    }

    /// Probes one endpoint within the deadline.
    pub async fn ask(&self, visit: &Visit) -> ProbeResult {
        tokio::time::timeout(self.deadline, self.interview(visit))
            .await
            .unwrap_or_else(|_| Err(late_at(visit.at, self.deadline)))
    }

    /// Probes endpoints from a session, all at the same time; a cancel ends it.
    pub fn ask_all(&self, visits: &[Visit]) -> Result<Vec<ProbeResult>, Error> {
        in_session(join_all(visits.iter().map(|visit| self.ask(visit))))
    }

    async fn interview(&self, visit: &Visit) -> ProbeResult {
        let Visit { at, name, nodeid, .. } = visit;
        let bounds = Bounds { login: self.deadline, deadline: self.deadline };
        let mut login = ask::visit(name, *at, *nodeid, bounds, &self.credentials).await?;
        self.examine(&mut login, visit.is_candidate).await
    }

    /// Asks a server what it is, over a login that there is already.
    pub async fn examine(&self, login: &mut Login, is_candidate: bool) -> ProbeResult {
        let most = if is_candidate { MOST_RELATIONS + 1 } else { 0 };
        let parameters = [self.versions.as_str(), &most.to_string()];
        let answer = login.value(include_str!("probe_server.sql"), &parameters).await?;
        let mut facts: ServerFacts = parse(&answer)?;
        // A stranger may call its extensions whatever it likes, at any length.
        for extension in facts.extensions.values_mut() {
            extension.installed = extension.installed.take().map(|version| one_line(&version));
        }
        facts.relations.retain(Relation::is_possible);
        facts.relations.truncate(most);
        let citus = facts.extensions.remove("citus").unwrap_or_default();
        let membership: Option<Membership> = match citus.installed {
            Some(_) => {
                let answer = login.value(include_str!("probe_membership.sql"), &[]).await?;
                Some(parse(&answer)?)
            }
            None => None,
        };
        let marks = match facts.has_marks {
            true => Some(parse(&login.value(MARKS, &[]).await?)?),
            false => None,
        };
        Ok(Server {
            system_identifier: facts.system_identifier,
            started_us: facts.started_us,
            timeline: facts.timeline,
            history: facts.history.and_then(|history| history.parse().ok()),
            position: facts.position.unwrap_or_default(),
            marks,
            in_recovery: facts.in_recovery,
            version_num: facts.version_num,
            max_prepared_transactions: facts.max_prepared_transactions,
            wants_password: login.used_password(),
            citus,
            vector: facts.extensions.remove("vector").unwrap_or_default(),
            fleet: facts.extensions.remove("citus_fleet").unwrap_or_default(),
            relations: facts.relations,
            index_builds: facts.index_builds,
            membership,
        })
    }
}

#[derive(Deserialize)]
struct ServerFacts {
    system_identifier: i64,
    started_us: i64,
    timeline: i32,
    history: Option<String>,
    position: Option<Lsn>,
    has_marks: bool,
    in_recovery: bool,
    version_num: u32,
    max_prepared_transactions: u32,
    extensions: BTreeMap<String, ExtensionState>,
    relations: Vec<Relation>,
    index_builds: u32,
}

fn parse<'a, T: Deserialize<'a>>(answer: &'a str) -> Result<T, LoginFailure> {
    serde_json::from_str(answer).map_err(|error| LoginFailure {
        kind: LoginFailureKind::Protocol,
        message: one_line(&format!("unexpected answer: {error}")),
    })
}
