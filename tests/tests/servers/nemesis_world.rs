//! Owns the servers that the nemesis plays with, and what can happen to them.
//! Must not judge what comes of it, and destroys no data that the coordinator leads to.

use crate::lifecycle_failover::wait_until_replayed;
use crate::nemesis_member::{Condition, Member};
use citus_fleet_tests::cluster::Plan;
use citus_fleet_tests::history::{Client, Target};
use citus_fleet_tests::random::Random;
use citus_fleet_tests::writer::ITEMS;
use citus_fleet_tests::{Behaviour, Cluster, Partition, Server, Shutdown, until};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How many keys there are; the clients run out of them after some twenty minutes.
const KEYS: u64 = 120_000;

/// A copy of a worker's data, and how far the worker had come when it was made.
struct Backup {
    server: Server,
    at: String,
}

pub struct World {
    pub cluster: Cluster,
    pub members: Vec<Member>,
    /// Of each group, the id of its row in `pg_dist_node`.
    pub nodes: Vec<String>,
    pub stranger: Server,
    /// Of each group, the keys that only a server has had that the operator has given up.
    pub given_up: Vec<BTreeSet<u64>>,
    /// Of each group, a data directory that was copied at one time, whose server does not run.
    backups: Vec<Option<Backup>>,
    /// A copy of the coordinator that runs.
    pub copy: Option<Server>,
    /// A standby of the coordinator, which has everything that was committed there.
    heir: Option<Server>,
    /// Where the clients go.
    target: Target,
    pub random: Random,
    seed: u64,
    started: Instant,
    number: usize,
}

impl World {
    /// Two workers with standbys, a stranger with a table in the way, and the clients, one for each worker.
    #[track_caller]
    pub fn start(seed: u64) -> (World, Vec<Client>) {
        let mut random = Random::new(seed);
        let mut cluster = Plan::workers(2).unannounced().start();
        let mut workers: Vec<Member> = cluster
            .workers
            .drain(..)
            .enumerate()
            .map(|(group, it)| Member::new(it, group, true))
            .collect();
        for worker in workers.iter_mut().filter(|_| random.chance(50)) {
            let server = &worker.server;
            let relay = Partition::start(cluster.subnet.address(), server.port, server.address);
            worker.relay = Some(relay);
        }
        let addresses: Vec<IpAddr> = workers.iter().map(Member::address).collect();
        cluster.announce(&addresses);
        for address in addresses {
            cluster.wait_for_state(address, "active");
        }
        cluster.coordinator.run(ITEMS);
        cluster.coordinator.run("SELECT create_distributed_table('items', 'id', shard_count := 4)");
        let stranger = Server::start(cluster.worker_spec("stranger"));
        stranger.run("CREATE TABLE items (a int, note text); INSERT INTO items VALUES (1, 'mine')");
        let nodes: Vec<String> = workers
            .iter()
            .map(|it| crate::lifecycle::node_id_of(&cluster, &it.address().to_string()))
            .collect();
        let mut members = Vec::new();
        for worker in workers {
            let (primary, group) = (&worker.server, worker.group);
            for number in 0..1 + random.below(2) {
                let name = format!("standby-{group}-{number}");
                let spec = primary.twin(&name, cluster.subnet.address());
                let server = Server::standby_of(primary, spec);
                wait_until_replayed(primary, &server);
                members.push(Member::new(server, group, false));
            }
            members.push(worker);
        }
        let heir = random.chance(50).then(|| heir_of(&cluster));
        let target = Target::new(&cluster.coordinator);
        let clients = nodes
            .iter()
            .map(|node| Client::start(&target, keys_of(&cluster, node), seed))
            .collect();
        let given_up = nodes.iter().map(|_| BTreeSet::new()).collect();
        let backups = nodes.iter().map(|_| None).collect();
        let world = World {
            cluster,
            members,
            nodes,
            stranger,
            given_up,
            backups,
            copy: None,
            heir,
            target,
            random,
            seed,
            started: Instant::now(),
            number: 0,
        };
        world.announce();
        (world, clients)
    }

    pub fn say(&self, what: &str) {
        println!("nemesis {} +{:.1}s: {what}", self.seed, self.started.elapsed().as_secs_f64());
    }

    /// DNS names all that there is, the stranger too.
    pub fn announce(&self) {
        let all: Vec<IpAddr> = self.members.iter().map(Member::address).collect();
        let all: Vec<IpAddr> = all.into_iter().chain([self.stranger.address]).collect();
        self.cluster.announce(&all);
    }

    fn which(&self, wanted: impl Fn(&Member) -> bool) -> Vec<usize> {
        (0..self.members.len()).filter(|&at| wanted(&self.members[at])).collect()
    }

    pub fn name(&self, at: usize) -> String {
        let it = &self.members[at];
        let role = if it.primary { "primary" } else { "standby" };
        format!("{} ({role} of {}, {})", it.server.name, self.nodes[it.group], it.address())
    }

    /// The address that a group's row has, and its state.
    pub fn row(&self, group: usize) -> Result<(IpAddr, String), String> {
        let sql = format!(
            "SELECT d.nodename, coalesce(w.state, '') AS state FROM pg_dist_node d
             LEFT JOIN fleet.workers w USING (nodeid) WHERE d.nodeid = {}",
            self.nodes[group]
        );
        let rows = self.cluster.coordinator.try_rows(&sql).map_err(|error| error.to_string())?;
        let row = rows.first().ok_or("its row is gone")?;
        let address = row["nodename"].parse().map_err(|_| format!("{row:?}"))?;
        Ok((address, row["state"].to_string()))
    }

    /// The running server that the row of a healthy group leads to.
    fn leader(&self, group: usize) -> Option<usize> {
        let (address, state) = self.row(group).ok()?;
        let is_it = |it: &Member| {
            it.group == group
                && it.address() == address
                && it.primary
                && it.condition == Condition::Up
        };
        (state == "active").then(|| self.which(is_it).first().copied()).flatten()
    }

    /// One thing that happens; none where the dice name what is not possible now.
    pub fn step(&mut self) -> Option<String> {
        match self.random.below(31) {
            0 | 1 => self.kill(),
            2 => self.stop(),
            3..=6 => self.begin(),
            7 | 8 => self.freeze(),
            9..=11 => self.thaw(),
            12 | 13 => self.promote_instead(),
            14 => self.promote_beside(),
            15 | 16 => self.readdress(),
            17 => self.trouble_dns(),
            18 | 19 => self.heal_dns(),
            20 => self.hurt_controller(),
            21 => self.rebuild(),
            22 => self.back_up_or_restore(),
            23 => self.copy_coordinator(),
            24 | 25 => self.cut_off(),
            26 => self.replace_coordinator(),
            27 | 28 => self.begin_at_another_time(),
            _ => self.connect(),
        }
    }

    fn any(&mut self, condition: Condition) -> Option<usize> {
        let all = self.which(|it| it.condition == condition);
        self.random.pick(&all)
    }

    fn kill(&mut self) -> Option<String> {
        let at = self.any(Condition::Up)?;
        self.members[at].kill();
        Some(format!("kill {}", self.name(at)))
    }

    /// A server that is stopped in peace waits for its standbys and for Citus's daemon, which asks the
    /// other workers; and so for ever while one hangs.
    fn shutdown(&mut self, at: usize) -> Shutdown {
        let hangs = self.which(|it| it.condition == Condition::Frozen || it.is_cut());
        let how = if hangs.is_empty() { Shutdown::Fast } else { Shutdown::Immediate };
        self.members[at].stop(how);
        how
    }

    fn stop(&mut self) -> Option<String> {
        let at = self.any(Condition::Up)?;
        let how = self.shutdown(at);
        Some(format!("stop ({how:?}) {}", self.name(at)))
    }

    fn begin(&mut self) -> Option<String> {
        let at = self.any(Condition::Down)?;
        self.members[at].begin();
        Some(format!("start {}", self.name(at)))
    }

    /// Its clock has jumped meanwhile, forwards or back; where that cannot be had, it is only started.
    fn begin_at_another_time(&mut self) -> Option<String> {
        const JUMPS: [i64; 6] = [-259_200, -3_600, -20, 20, 3_600, 259_200];
        let at = self.any(Condition::Down)?;
        let seconds = self.random.pick(&JUMPS)?;
        let has_jumped = self.members[at].server.shift_clock(seconds);
        self.members[at].begin();
        let how =
            if has_jumped { format!("its clock off by {seconds} s") } else { "as it is".into() };
        Some(format!("start {}, {how}", self.name(at)))
    }

    fn freeze(&mut self) -> Option<String> {
        let at = self.any(Condition::Up)?;
        self.members[at].server.freeze();
        self.members[at].condition = Condition::Frozen;
        Some(format!("freeze {}", self.name(at)))
    }

    fn thaw(&mut self) -> Option<String> {
        let at = self.any(Condition::Frozen)?;
        self.members[at].thaw();
        Some(format!("thaw {}", self.name(at)))
    }

    fn cut_off(&mut self) -> Option<String> {
        let all = self.which(|it| it.relay.is_some() && !it.is_cut());
        let at = self.random.pick(&all)?;
        self.members[at].cut(true);
        Some(format!("cut off {}", self.name(at)))
    }

    fn connect(&mut self) -> Option<String> {
        let all = self.which(Member::is_cut);
        let at = self.random.pick(&all)?;
        self.members[at].cut(false);
        Some(format!("connect {}", self.name(at)))
    }

    fn a_standby(&mut self) -> Option<usize> {
        let all = self.which(|it| it.condition == Condition::Up && !it.primary);
        self.random.pick(&all)
    }

    fn promote_instead(&mut self) -> Option<String> {
        let at = self.a_standby()?;
        let group = self.members[at].group;
        let gently = self.random.chance(30);
        let mut ended = Vec::new();
        for old in
            self.which(|it| it.group == group && it.primary && it.condition != Condition::Down)
        {
            if gently && self.members[old].condition == Condition::Up {
                self.shutdown(old);
            } else {
                self.members[old].kill();
            }
            ended.push(self.name(old));
        }
        let name = self.name(at);
        self.members[at].server.promote();
        self.members[at].primary = true;
        let how = if gently { "stopped" } else { "killed" };
        Some(format!("promote {name} instead of {ended:?}, {how}"))
    }

    fn promote_beside(&mut self) -> Option<String> {
        let at = self.a_standby()?;
        let name = self.name(at);
        self.members[at].server.promote();
        self.members[at].primary = true;
        Some(format!("promote {name} beside whoever runs"))
    }

    fn readdress(&mut self) -> Option<String> {
        let all = self.which(|it| it.condition != Condition::Frozen);
        let at = self.random.pick(&all)?;
        let runs = self.members[at].condition == Condition::Up;
        let (name, ran) = (self.name(at), runs && self.members[at].relay.is_none());
        if ran {
            self.shutdown(at);
        }
        let address = self.cluster.subnet.address();
        self.members[at].move_to(address.into());
        let before = self.random.chance(50);
        if before {
            self.announce();
        }
        if ran {
            self.members[at].begin();
        }
        self.announce();
        let order = if before { "before" } else { "after" };
        Some(format!("move {name} to {address}, told to DNS {order} it starts"))
    }

    fn trouble_dns(&mut self) -> Option<String> {
        let dns = &self.cluster.dns;
        let troubles =
            [Behaviour::ServFail, Behaviour::NxDomain, Behaviour::Silent, Behaviour::Refused];
        if self.random.chance(60) {
            let trouble = self.random.pick(&troubles)?;
            dns.behave(trouble);
            return Some(format!("DNS: {trouble:?}"));
        }
        // A lie: only the stranger, or some of the servers.
        let some: Vec<IpAddr> = self
            .members
            .iter()
            .map(Member::address)
            .filter(|_| self.random.chance(30))
            .chain([self.stranger.address])
            .collect();
        self.cluster.announce(&some);
        Some(format!("DNS names only {some:?}"))
    }

    fn heal_dns(&mut self) -> Option<String> {
        self.cluster.dns.behave(Behaviour::Answer);
        self.announce();
        Some("DNS says all there is".to_owned())
    }

    fn hurt_controller(&mut self) -> Option<String> {
        match self.random.below(3) {
            0 => {
                let sql = "SELECT pg_catalog.pg_terminate_backend(pid)
                           FROM pg_catalog.pg_stat_activity
                           WHERE backend_type = 'citus_fleet controller'";
                // It may still recover from what was done to it before.
                self.cluster.coordinator.try_rows(sql).ok()?;
                Some("the controller is terminated".to_owned())
            }
            1 => {
                let pid = self.cluster.controller();
                citus_fleet_tests::server::process::send(pid, libc::SIGKILL);
                self.cluster.coordinator.forget_session();
                Some("the controller is killed, and the coordinator recovers".to_owned())
            }
            _ => {
                self.cluster.coordinator.stop(Shutdown::Immediate);
                self.cluster.coordinator.begin();
                Some("the coordinator is stopped at once and started".to_owned())
            }
        }
    }

    /// What nobody leads to becomes a standby of the group's worker, as an operator makes it.
    fn rebuild(&mut self) -> Option<String> {
        let group = self.random.below(self.nodes.len());
        let leader = self.leader(group)?;
        let others = self.which(|it| it.group == group && it.condition == Condition::Down);
        let victim = self.random.pick(&others).filter(|&it| it != leader)?;
        let name = self.name(victim);
        self.number += 1;
        let primary = &self.members[leader].server;
        let spec = primary.twin(&format!("rebuilt-{}", self.number), self.cluster.subnet.address());
        let server = Server::standby_of(primary, spec);
        self.members[victim] = Member::new(server, group, false);
        self.announce();
        Some(format!("{name} is made anew as {}", self.name(victim)))
    }

    /// Takes a copy of a worker's data, or brings the one that was taken to the worker's address.
    fn back_up_or_restore(&mut self) -> Option<String> {
        let group = self.random.below(self.nodes.len());
        let leader = self.leader(group)?;
        let address = self.members[leader].address();
        let Some(mut backup) = self.backups[group].take() else {
            self.number += 1;
            let primary = &self.members[leader].server;
            let spec =
                primary.twin(&format!("backup-{}", self.number), self.cluster.subnet.address());
            let backup = Server::clone_of(primary, spec);
            backup.stop(Shutdown::Immediate);
            let at = primary.try_value("SELECT pg_current_wal_insert_lsn()").ok()?;
            self.backups[group] = Some(Backup { server: backup, at });
            return Some(format!("back up {}", self.name(leader)));
        };
        // Rows that nobody has seen nobody can miss: the server with them has to have been probed, and
        // the copy writes a little itself whenever it starts.
        let is_seen = format!(
            "SELECT position - '{}' > 8192 FROM fleet.identities WHERE nodeid = {}",
            backup.at, self.nodes[group]
        );
        if self.cluster.coordinator.try_value(&is_seen) != Ok("t".to_owned()) {
            self.backups[group] = Some(backup);
            return None;
        }
        let name = self.name(leader);
        self.members[leader].kill();
        let aside = self.cluster.subnet.address();
        self.members[leader].move_to(aside.into());
        backup.server.move_to(address);
        backup.server.begin();
        self.members.push(Member::new(backup.server, group, true));
        self.announce();
        Some(format!("a backup runs where {name} was, which is to have {aside}"))
    }

    /// The standby takes the coordinator's place and its address.
    fn replace_coordinator(&mut self) -> Option<String> {
        if self.copy.is_some() {
            return None;
        }
        let mut heir = self.heir.take()?;
        let address = self.cluster.coordinator.address;
        self.cluster.coordinator.kill();
        heir.stop(Shutdown::Immediate);
        heir.move_to(address);
        heir.begin();
        heir.promote();
        self.target.lead_to(&heir);
        self.cluster.coordinator = heir;
        Some("the coordinator is killed, and its standby promoted at its address".to_owned())
    }

    fn copy_coordinator(&mut self) -> Option<String> {
        // A copy of a server that waits for its standby would wait for one, too.
        if self.heir.is_some() {
            return None;
        }
        if let Some(copy) = self.copy.take() {
            copy.stop(Shutdown::Immediate);
            return Some("the copy of the coordinator is stopped".to_owned());
        }
        let original = &self.cluster.coordinator;
        let spec = original.twin("copy", self.cluster.subnet.address());
        self.copy = Some(Server::clone_of(original, spec));
        Some("a copy of the coordinator runs".to_owned())
    }
}

/// A standby of the coordinator that confirms what is committed there.
fn heir_of(cluster: &Cluster) -> Server {
    let coordinator = &cluster.coordinator;
    let heir = Server::standby_of(coordinator, coordinator.twin("heir", cluster.subnet.address()));
    coordinator.set("synchronous_standby_names", "heir");
    until("the heir confirms", Duration::from_secs(30), || {
        let sql = "SELECT sync_state FROM pg_stat_replication";
        match coordinator.try_value(sql)?.as_str() {
            "sync" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
    heir
}

/// The keys whose shard is on a node.
#[track_caller]
fn keys_of(cluster: &Cluster, nodeid: &str) -> Vec<u64> {
    let text = cluster.coordinator.session().value(&format!(
        "SELECT string_agg(k::text, ' ' ORDER BY k) FROM generate_series(1, {KEYS}) k
         JOIN pg_dist_placement p ON p.shardid = get_shard_id_for_distribution_column('items', k)
         JOIN pg_dist_node d ON d.groupid = p.groupid WHERE d.nodeid = {nodeid}"
    ));
    text.split(' ').map(|key| key.parse().expect("a number")).collect()
}
