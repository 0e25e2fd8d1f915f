//! Measures a worker whose primary changes under Patroni: the time from the moment at which the
//! promoted server accepts connections to the commit that points its row there, against Patroni's own
//! handler of Citus on a cluster of its own.

use crate::effort::{Effort, phase, say};
use crate::fleet;
use crate::report::Figure;
use crate::spread::Spread;
use citus_fleet_tests::patroni::{Member, PATIENCE};
use citus_fleet_tests::run::port;
use citus_fleet_tests::{Dns, Etcd, Patroni, Server, Spec, Subnet, until};
use std::process::Command;
use std::thread;
use std::time::Duration;

pub fn measure(effort: Effort) -> Vec<Figure> {
    let ours = Pair::with_fleet();
    let theirs = Pair::with_handler();
    let rounds = effort.pick(6, 2);
    let ways: [(&str, Way); 2] = [("switch-over", Pair::switch_over), ("kill -9", Pair::fail_over)];
    ways.map(|(what, way)| compare(what, way, &ours, &theirs, rounds)).into()
}

fn compare(what: &str, way: Way, ours: &Pair, theirs: &Pair, rounds: usize) -> Figure {
    let (mut fleet, mut handler) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let mut sides = [(ours, &mut fleet), (theirs, &mut handler)];
        // Which of the two comes first changes from round to round.
        if round % 2 == 1 {
            sides.reverse();
        }
        for (pair, taken) in sides {
            // Anywhere between two looks of the controller, and of Patroni.
            thread::sleep(Duration::from_secs_f64(5.0 * phase(round)));
            taken.push(pair.seconds_to_follow(way));
        }
        let round_text = format!("{what}, round {} of {rounds}", round + 1);
        say(
            "follow",
            &format!("{round_text}: {:.2} s, Patroni {:.2} s", fleet[round], handler[round]),
        );
    }
    Figure::new(&format!("Promoted server accepts connections → row updated, {what}"))
        .ours(format!("{} s", Spread::new(fleet.clone()).show(2)))
        .baseline(format!(
            "{} s: Citus handler of {}",
            Spread::new(handler.clone()).show(2),
            version()
        ))
        .difference(format!(
            "{:.2}, of the medians",
            Spread::new(fleet.clone()).median() / Spread::new(handler.clone()).median()
        ))
        .samples("ours_s", &fleet)
        .samples("baseline_s", &handler)
}

fn version() -> String {
    let output = Command::new("patroni").arg("--version").output().expect("Patroni is installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    format!("Patroni {}", text.split_whitespace().last().unwrap_or_default())
}

/// Makes the second member the primary.
type Way = fn(&Pair, &Member, &Member);

/// A coordinator with one worker, which is a primary and its standby under Patroni.
struct Pair {
    coordinator: Coordinator,
    worker: Patroni,
    // Dropped last: without them the others would be busy finding out that they are alone.
    _dns: Dns,
    _etcd: Etcd,
}

enum Coordinator {
    Plain(Box<Server>),
    UnderPatroni(Patroni),
}

impl Pair {
    /// The fleet is told both addresses, and sees for itself where the primary is.
    fn with_fleet() -> Pair {
        let cluster = fleet::at_defaults(0)
            .set("citus_fleet.workers", &format!("pair:{}", port()))
            .set("track_commit_timestamp", "on")
            .start();
        let etcd = Etcd::start(&cluster.subnet);
        let worker = Patroni::start(&etcd, &cluster.subnet, members(&cluster.subnet), None);
        let addresses: Vec<_> = worker.members.iter().map(|m| m.server.address).collect();
        cluster.dns.addresses("pair", &addresses);
        let coordinator = Coordinator::Plain(Box::new(cluster.coordinator));
        let pair = Pair { coordinator, worker, _dns: cluster.dns, _etcd: etcd };
        pair.distribute();
        pair
    }

    /// Patroni runs the coordinator, too: group 0 of the Citus cluster whose group 1 is the worker.
    fn with_handler() -> Pair {
        let subnet = Subnet::new();
        let (etcd, dns) = (Etcd::start(&subnet), Dns::start(subnet.address()));
        let coordinator = Spec::new("coordinator", subnet.address()).citus();
        let coordinator = coordinator.set("track_commit_timestamp", "on");
        let coordinator = Patroni::start(&etcd, &subnet, vec![coordinator], Some(0));
        let server = &coordinator.members[0].server;
        server.run(&format!(
            "SELECT citus_set_coordinator_host('{}', {})",
            server.address, server.port
        ));
        let worker = Patroni::start(&etcd, &subnet, members(&subnet), Some(1));
        let coordinator = Coordinator::UnderPatroni(coordinator);
        let pair = Pair { coordinator, worker, _dns: dns, _etcd: etcd };
        pair.distribute();
        pair
    }

    fn coordinator(&self) -> &Server {
        match &self.coordinator {
            Coordinator::Plain(server) => server,
            Coordinator::UnderPatroni(patroni) => &patroni.members[0].server,
        }
    }

    /// A table whose shards are on the worker, once that is registered.
    fn distribute(&self) {
        until("the worker is registered", PATIENCE, || {
            let sql = "SELECT count(*) FROM pg_dist_node WHERE groupid <> 0 AND metadatasynced";
            match self.coordinator().try_value(sql)?.as_str() {
                "1" => Ok(()),
                count => Err(count.to_string()),
            }
        });
        self.coordinator().run(
            "CREATE TABLE t (id bigint PRIMARY KEY, body text);
             SELECT create_distributed_table('t', 'id', shard_count := 32)",
        );
    }

    fn switch_over(&self, _from: &Member, to: &Member) {
        self.worker.switch_over(to);
    }

    fn fail_over(&self, from: &Member, to: &Member) {
        from.kill();
        self.worker.wait_for_leader(to);
        from.begin();
    }

    /// The primary changes; two clocks of one machine, and no polling in between.
    fn seconds_to_follow(&self, way: Way) -> f64 {
        let [first, second] = &self.worker.members[..] else { unreachable!() };
        let (from, to) =
            if first.answers_to("/primary") { (first, second) } else { (second, first) };
        let promotions = accepted(&to.server).len();
        way(self, from, to);
        let moment = until("the promoted server says so", PATIENCE, || {
            accepted(&to.server).into_iter().nth(promotions).ok_or("not yet")
        });
        let sql = format!(
            "SELECT extract(epoch FROM pg_catalog.pg_xact_commit_timestamp(xmin) - '{moment}')
             FROM pg_catalog.pg_dist_node WHERE groupid <> 0 AND nodename = '{}'",
            to.server.address
        );
        let seconds = until("the row follows", PATIENCE, || {
            let seconds = self.coordinator().try_value(&sql)?;
            seconds.parse::<f64>().map_err(|_| seconds)
        });
        self.worker.wait_for_standby(from);
        self.worker.wait_for_synchronous_standby();
        self.settle(to);
        seconds
    }

    /// Waits until every copy of the row is in step, so that the next round starts from rest.
    fn settle(&self, leader: &Member) {
        until("the metadata is in sync", PATIENCE, || {
            let sql = format!(
                "SELECT count(*) FROM pg_dist_node WHERE metadatasynced AND nodename = '{}'",
                leader.server.address
            );
            match self.coordinator().try_value(&sql)?.as_str() {
                "1" => Ok(()),
                count => Err(count.to_string()),
            }
        });
    }
}

fn members(subnet: &Subnet) -> Vec<Spec> {
    ["pair-1", "pair-2"].map(|name| Spec::new(name, subnet.address()).citus()).into()
}

/// The moments at which a server said that it accepts connections that write.
fn accepted(server: &Server) -> Vec<String> {
    server
        .log()
        .lines()
        .filter(|line| line.contains("database system is ready to accept connections"))
        // `%m` of log_line_prefix: date, time with milliseconds, time zone.
        .map(|line| line.split(' ').take(3).collect::<Vec<_>>().join(" "))
        .collect()
}
