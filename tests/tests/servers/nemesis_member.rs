//! Owns one server of the nemesis and the relay that may stand before it, and what is known of both.
//! Must not choose what happens to it.

use citus_fleet_tests::{Partition, Server, Shutdown};
use std::net::IpAddr;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    Up,
    Frozen,
    Down,
}

/// One server with the data of a worker: the worker, a standby of it, or what has become of either.
pub struct Member {
    pub server: Server,
    pub group: usize,
    pub condition: Condition,
    /// It has been promoted, or never was a standby.
    pub primary: bool,
    /// Where everybody but its standbys meets it.
    pub relay: Option<Partition>,
}

impl Member {
    pub fn new(server: Server, group: usize, primary: bool) -> Member {
        Member { server, group, condition: Condition::Up, primary, relay: None }
    }

    /// The address that DNS names.
    pub fn address(&self) -> IpAddr {
        self.relay.as_ref().map_or(self.server.address, |relay| relay.address)
    }

    fn ended(&mut self) {
        self.condition = Condition::Down;
        self.relay.iter().for_each(|relay| relay.open(false));
    }

    pub fn kill(&mut self) {
        self.server.kill();
        self.ended();
    }

    pub fn stop(&mut self, how: Shutdown) {
        self.server.stop(how);
        self.ended();
    }

    pub fn begin(&mut self) {
        self.relay.iter().for_each(|relay| relay.open(true));
        self.server.begin();
        self.condition = Condition::Up;
    }

    pub fn thaw(&mut self) {
        self.server.thaw();
        self.condition = Condition::Up;
    }

    pub fn cut(&mut self, cut: bool) {
        self.relay.iter().for_each(|relay| relay.cut(cut));
    }

    pub fn is_cut(&self) -> bool {
        self.relay.as_ref().is_some_and(Partition::is_cut)
    }

    /// Gives it another address: a server behind a relay need not even be stopped for it.
    pub fn move_to(&mut self, address: IpAddr) {
        let Some(relay) = &mut self.relay else { return self.server.move_to(address) };
        relay.open(false);
        *relay = Partition::start(address, self.server.port, self.server.address);
        relay.open(self.condition != Condition::Down);
    }
}
