//! Owns a cluster of PostgreSQL servers that Patroni runs: one primary and its standbys, of which one
//! confirms every commit, and the ways in which the primary changes.
//! Must not interfere with Patroni's decisions.

mod configuration;
mod member;

pub use member::Member;

use crate::etcd::Etcd;
use crate::run::{self, Subnet};
use crate::server::Spec;
use crate::wait::until;
use crate::{Dns, http};
use configuration::Configuration;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// How long Patroni may take for one of its steps. The longest is to see that a leader is gone: the
/// lease in etcd, for which Patroni 4 allows no less than 20 s.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Patroni {
    pub members: Vec<Member>,
}

impl Patroni {
    /// A running cluster with a member for each description: the first one is the primary, the second
    /// one its synchronous standby. With `citus_group` Patroni's own handler of Citus is on.
    #[track_caller]
    pub fn start(
        etcd: &Etcd,
        subnet: &Subnet,
        specs: Vec<Spec>,
        citus_group: Option<u32>,
    ) -> Patroni {
        let configuration = Configuration {
            // Patroni keeps the groups of one Citus cluster under one scope.
            scope: match citus_group {
                Some(_) => "citus".to_string(),
                None => format!("cluster-{}", run::unique()),
            },
            etcd: etcd.address,
            citus_group,
        };
        let prepare = |spec| Member::prepare(spec, subnet, &configuration);
        let cluster = Patroni { members: specs.into_iter().map(prepare).collect() };
        let (first, others) = cluster.members.split_first().expect("a first member");
        first.bootstrap();
        first.begin();
        cluster.wait_for_leader(first);
        first.renew_server_id();
        for other in others {
            other.begin();
        }
        if !others.is_empty() {
            cluster.wait_for_synchronous_standby();
        }
        cluster
    }

    /// The member that says of itself that it leads and writes.
    pub fn leader(&self) -> Option<&Member> {
        self.members.iter().find(|member| member.answers_to("/primary"))
    }

    /// Waits until a member leads and takes writes: it has the key before its promotion is done.
    #[track_caller]
    pub fn wait_for_leader(&self, wanted: &Member) {
        until(&format!("{} leads", wanted.server.name), PATIENCE, || match self.leader() {
            Some(leader) if leader.server.name == wanted.server.name => {
                match wanted.server.try_value("SELECT pg_is_in_recovery()")?.as_str() {
                    "f" => Ok(()),
                    _ => Err("in recovery".to_string()),
                }
            }
            Some(leader) => Err(leader.server.name.clone()),
            None => Err("nobody".to_string()),
        });
    }

    /// Waits until a member that was restarted, by whomever, is a standby that answers queries.
    #[track_caller]
    pub fn wait_for_standby(&self, wanted: &Member) {
        until(&format!("{} is a standby", wanted.server.name), PATIENCE, || {
            if wanted.answers_to("/replica") { Ok(()) } else { Err("it is not") }
        });
        wanted.server.forget_session();
    }

    /// Waits until a standby confirms commits and may follow the primary, and gives it.
    #[track_caller]
    pub fn wait_for_synchronous_standby(&self) -> &Member {
        until("a standby confirms commits", PATIENCE, || {
            let found = self.members.iter().find(|member| member.answers_to("/synchronous"));
            found.ok_or("none does")
        })
    }

    /// Lets a name lead to the primary's address, as a Service or a load balancer does that asks
    /// every member for its role.
    pub fn name_leader(&self, dns: &Dns, name: &str) {
        let members: Vec<(SocketAddr, IpAddr)> =
            self.members.iter().map(|member| (member.api, member.server.address)).collect();
        dns.keep(name, move || {
            let leads = |(api, _): &&(SocketAddr, IpAddr)| {
                http::get(*api, "/primary").is_ok_and(|answer| answer.status == 200)
            };
            members.iter().find(leads).map(|(_, address)| *address).into_iter().collect()
        });
    }

    /// Asks for another primary, as `patronictl switchover` does, and waits until it leads.
    #[track_caller]
    pub fn switch_over(&self, to: &Member) {
        let from = self.leader().expect("somebody leads");
        let request =
            format!(r#"{{"leader": "{}", "candidate": "{}"}}"#, from.server.name, to.server.name);
        let answer = http::post(from.api, "/switchover", &request, PATIENCE)
            .unwrap_or_else(|error| panic!("{}: switchover: {error}", from.server.name));
        assert_eq!(answer.status, 200, "switchover: {}", answer.body);
        self.wait_for_leader(to);
    }
}
