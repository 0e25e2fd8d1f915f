//! Owns the state machine of one endpoint: whether it answers, since when, and what it said last.
//! Must not ask, and must not judge what was said.
//!
//! ```text
//! unknown ─► asked ─┬─► answering ◄─┐
//!                   └─► failing ────┴─► silent        forget(): back to unknown
//! ```

use super::server::Server;
use crate::configuration::names::HostName;
use crate::login::LoginFailure;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// How long an endpoint fails before it is silent: a restart of a primary must not look like its end.
const SILENCE: Duration = Duration::from_secs(5);

pub type ProbeResult = Result<Server, LoginFailure>;

/// How long after a server has come back from behind another one they count as taking turns.
const TURNS: Duration = Duration::from_secs(60);

/// What is known of whether an endpoint answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    #[default]
    Unknown,
    /// Its first question is under way. One that has answered before stays what it is meanwhile.
    Asked,
    Answering,
    /// Somebody is there who does not let us in, or not yet; or nobody has answered for a moment.
    Failing,
    /// Nobody has answered for [`SILENCE`].
    Silent,
}

/// The newest answer.
#[derive(Clone, Debug)]
pub struct Probe {
    /// When it was asked for, on the monotonic clock: what it said may have changed ever since.
    pub at: Duration,
    pub round_trip: Duration,
    pub result: ProbeResult,
}

/// A server that was seen as a primary, and since when. One that is a primary at two moments, started
/// once, has been one all the time in between.
#[derive(Clone, Copy, Debug)]
struct Primary {
    system_identifier: i64,
    started_us: i64,
    since: Duration,
}

/// A name that Citus could reach an endpoint by, and all that the system's resolver gives for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Naming {
    pub name: HostName,
    pub addresses: Vec<IpAddr>,
}

/// An endpoint. Times are on the monotonic clock unless they say otherwise.
#[derive(Clone, Debug, Default)]
pub struct Endpoint {
    phase: Phase,
    /// When the phase began; of a failing or silent one, when it first failed.
    since: Duration,
    /// Since when it has failed in the same way: another way is news.
    alike_since: Duration,
    /// The question that is under way.
    asked: Option<Duration>,
    /// What was asked before then was asked of it in another life.
    not_before: Duration,
    wanted: bool,
    sought: Option<Duration>,
    primary: Option<Primary>,
    /// The server that answered last, and the other one that answered before it, by identity and start.
    last_two: [Option<(i64, i64)>; 2],
    /// When one of them was back after the other had answered.
    turned_at: Option<Duration>,
    /// Since when it has known the nodes of its cluster that it knows now.
    nodes_since: Duration,
    pub probe: Option<Probe>,
    /// When it last let us in, on the wall clock.
    pub last_seen_us: Option<i64>,
    /// The name to register it under; none where it is to be known by its address.
    pub naming: Option<Naming>,
    /// When its name was last looked for.
    pub named_at: Option<Duration>,
}

/// What a server says of the nodes of its cluster.
fn rows(server: &Server) -> Option<&BTreeMap<i32, String>> {
    server.membership.as_ref().map(|membership| &membership.rows)
}

impl Endpoint {
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The server that answered last, if the last answer was one.
    pub fn server(&self) -> Option<&Server> {
        self.probe.as_ref()?.result.as_ref().ok()
    }

    pub fn failure(&self) -> Option<&LoginFailure> {
        self.probe.as_ref()?.result.as_ref().err()
    }

    /// A question goes out.
    pub fn ask(&mut self, now: Duration) {
        self.asked.get_or_insert(now);
        if self.phase == Phase::Unknown {
            (self.phase, self.since) = (Phase::Asked, now);
        }
    }

    pub fn is_asked(&self) -> bool {
        self.asked.is_some()
    }

    /// The answer to what was asked at `probe.at` has come; one from another life is not taken in.
    /// Says whether it is from an earlier moment of the very server that answered before: a machine can be
    /// taken back to a snapshot, memory and all, and nothing but the position in the WAL tells.
    pub fn learn(&mut self, probe: Probe, wall_us: i64) -> bool {
        self.asked = None;
        if probe.at < self.not_before {
            return false;
        }
        let has_gone_back =
            self.server().zip(probe.result.as_ref().ok()).is_some_and(|(it, now)| {
                it.is_same(now) && now.position < it.position && it.position.ends_a_record()
            });
        self.wanted = false;
        let at = probe.at;
        if let Ok(server) = &probe.result {
            self.primary = self.as_primary(server, at + probe.round_trip);
            self.take_turns(server, at);
            if self.server().map(rows) != Some(rows(server)) {
                self.nodes_since = at + probe.round_trip;
            }
        }
        let (phase, since) = self.after(&probe);
        if !self.fails_like(&probe.result) {
            self.alike_since = at;
        }
        (self.phase, self.since) = (phase, since);
        if probe.result.is_ok() {
            self.last_seen_us = Some(wall_us);
        }
        self.probe = Some(probe);
        has_gone_back
    }

    fn take_turns(&mut self, server: &Server, at: Duration) {
        let now = Some((server.system_identifier, server.started_us));
        let [last, other] = self.last_two;
        if last != now {
            if other == now {
                self.turned_at = Some(at);
            }
            self.last_two = [now, last];
        }
    }

    /// Whether two servers that both run answer by turns, as behind a balancer.
    pub fn is_shared(&self, now: Duration) -> bool {
        self.turned_at.is_some_and(|turned_at| now.saturating_sub(turned_at) < TURNS)
    }

    fn as_primary(&self, server: &Server, answered_at: Duration) -> Option<Primary> {
        let Server { system_identifier, started_us, .. } = *server;
        let is_it = |known: &Primary| {
            (known.system_identifier, known.started_us) == (system_identifier, started_us)
        };
        let known = self.primary.filter(is_it);
        let since = known.map_or(answered_at, |known| known.since);
        (!server.in_recovery).then_some(Primary { system_identifier, started_us, since })
    }

    /// Since when the server that answered last is known to be a primary, if it is one.
    pub fn primary_since(&self) -> Option<Duration> {
        self.server().filter(|server| !server.in_recovery).and(self.primary).map(|it| it.since)
    }

    /// Since when its answers have named the same nodes of its cluster.
    pub fn nodes_since(&self) -> Duration {
        self.nodes_since
    }

    /// The question is not answered, and nobody is to blame: it is to be asked again.
    pub fn excuse(&mut self) {
        self.asked = None;
    }

    /// Where an answer leads to.
    fn after(&self, probe: &Probe) -> (Phase, Duration) {
        let was_failing = matches!(self.phase, Phase::Failing | Phase::Silent);
        let since = if was_failing { self.since } else { probe.at };
        match &probe.result {
            Ok(_) if self.phase == Phase::Answering => (Phase::Answering, self.since),
            Ok(_) => (Phase::Answering, probe.at),
            Err(failure) if !failure.kind.is_silence() => (Phase::Failing, since),
            Err(_) if probe.at.saturating_sub(since) >= SILENCE => (Phase::Silent, since),
            Err(_) => (Phase::Failing, since),
        }
    }

    fn fails_like(&self, result: &ProbeResult) -> bool {
        let now = result.as_ref().err();
        now.is_some_and(|now| self.failure().is_some_and(|last| last.kind == now.kind))
    }

    /// Whether an answer says more than was known: not that it still fails as it did.
    pub fn is_news(&self, probe: &Probe) -> bool {
        !self.fails_like(&probe.result) || self.after(probe).0 != self.phase
    }

    /// Who was there has come or gone: what was said, and what is still about to be, counts no more.
    pub fn forget(&mut self, now: Duration) {
        *self = Self { asked: self.asked, not_before: now, wanted: self.wanted, ..Self::default() };
    }

    /// It is to be asked in the next cycle, which is to come at once.
    pub fn want(&mut self) {
        self.wanted = true;
    }

    /// Whether it is to be asked at once; one that is being asked is waited for.
    pub fn is_wanted(&self) -> bool {
        self.wanted && self.asked.is_none()
    }

    /// It is, or is no longer, one of those of which a worker's next primary may be one.
    pub fn seek(&mut self, is_sought: bool, now: Duration) {
        self.sought = is_sought.then(|| self.sought.unwrap_or(now));
    }

    /// Since when it has been waited for: to answer, or to become a worker's primary.
    pub fn awaited_since(&self) -> Option<Duration> {
        match self.phase {
            Phase::Failing | Phase::Silent => Some(self.alike_since),
            _ => self.sought,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::lineage::Lsn;
    use super::super::tests::build::server;
    use super::*;
    use crate::login::LoginFailureKind;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn probe(at: u64, result: Result<(), LoginFailureKind>) -> Probe {
        let failed = |kind| LoginFailure { kind, message: String::new() };
        let result = result.map(|()| server(1)).map_err(failed);
        Probe { at: secs(at), round_trip: Duration::ZERO, result }
    }

    /// Asks and answers at those seconds; gives the phase after each.
    fn walk(
        endpoint: &mut Endpoint,
        answers: &[(u64, Result<(), LoginFailureKind>)],
    ) -> Vec<Phase> {
        let each = answers.iter().map(|(at, result)| {
            endpoint.ask(secs(*at));
            endpoint.learn(probe(*at, *result), 0);
            endpoint.phase()
        });
        each.collect()
    }

    use LoginFailureKind::{Refused, StartingUp, Timeout, TooManyConnections};

    #[test]
    fn a_server_that_is_taken_back_in_time_is_noticed() {
        let mut it = Endpoint::default();
        let mut at = |second, position| {
            let result = Ok(Server { position: Lsn(position), ..server(1) });
            it.learn(Probe { at: secs(second), round_trip: Duration::ZERO, result }, 0)
        };
        assert_eq!(
            [at(1, 100), at(2, 300), at(3, 200), at(4, 8192), at(5, 8000)],
            [false, false, true, false, false]
        );
    }

    #[test]
    fn servers_that_take_turns_are_noticed_and_a_switch_over_is_none() {
        let mut it = Endpoint::default();
        let mut at = |second, n| {
            let result = Ok(server(n));
            it.learn(Probe { at: secs(second), round_trip: Duration::ZERO, result }, 0);
            it.is_shared(secs(second))
        };
        assert_eq!(
            [at(1, 1), at(2, 1), at(3, 2), at(4, 3), at(5, 2)],
            [false, false, false, false, true]
        );
        assert_eq!([at(64, 2), at(65, 2), at(66, 4)], [true, false, false]);
    }

    #[test]
    fn silence_is_five_seconds_without_a_sign_of_life() {
        use Phase::{Answering, Failing, Silent};
        let mut it = Endpoint::default();
        assert_eq!(it.phase(), Phase::Unknown);
        it.ask(secs(9));
        assert_eq!(it.phase(), Phase::Asked);
        let walked = walk(
            &mut it,
            &[
                (10, Ok(())),
                (11, Err(Refused)),
                (15, Err(Timeout)),
                (16, Err(Refused)),
                (17, Err(StartingUp)),
                (18, Err(Refused)),
                (19, Err(TooManyConnections)),
                (20, Ok(())),
                (21, Err(Refused)),
            ],
        );
        let phases =
            [Answering, Failing, Failing, Silent, Failing, Silent, Failing, Answering, Failing];
        assert_eq!(walked, phases);
    }

    #[test]
    fn a_question_keeps_what_is_known_until_it_is_answered() {
        let mut it = Endpoint::default();
        walk(&mut it, &[(1, Ok(()))]);
        it.ask(secs(6));
        assert_eq!((it.phase(), it.is_asked()), (Phase::Answering, true));
        it.ask(secs(7));
        it.want();
        assert!(!it.is_wanted(), "it is being asked");
        it.learn(probe(6, Ok(())), 0);
        assert!(!it.is_asked() && !it.is_wanted());
    }

    #[test]
    fn an_answer_from_before_it_was_forgotten_is_not_taken_in() {
        let mut it = Endpoint::default();
        walk(&mut it, &[(1, Ok(()))]);
        it.ask(secs(5));
        it.forget(secs(6));
        assert_eq!((it.phase(), it.is_asked()), (Phase::Unknown, true));
        it.learn(probe(5, Ok(())), 0);
        assert!(it.server().is_none() && !it.is_asked());
        assert_eq!(walk(&mut it, &[(7, Ok(()))]), [Phase::Answering]);
    }

    #[test]
    fn to_fail_as_before_is_no_news() {
        let mut it = Endpoint::default();
        assert!(it.is_news(&probe(1, Err(Timeout))));
        walk(&mut it, &[(1, Err(Timeout))]);
        assert!(!it.is_news(&probe(2, Err(Timeout))));
        assert!(it.is_news(&probe(6, Err(Timeout))), "it is silent now");
        assert!(it.is_news(&probe(2, Err(Refused))));
        assert!(it.is_news(&probe(2, Ok(()))));
        walk(&mut it, &[(6, Err(Timeout)), (7, Err(Refused))]);
        assert_eq!(it.awaited_since(), Some(secs(7)), "patience begins anew");
    }
}
