//! Owns when: which endpoints are probed in this cycle, and how long the next one may wait.
//! Must not probe or sleep.

use super::endpoint::Endpoint;
use crate::login::LoginFailureKind;
use std::time::Duration;

/// A server that keeps failing is tried again after an eighth of the time that it has been failing,
/// so one that starts late costs an eighth more at the most; and so is a standby whose primary fails.
const PATIENCE: u32 = 8;
const SHORTEST_RETRY: Duration = Duration::from_millis(300);
/// However long a server has been failing, it is not left alone for longer than this, so that one
/// that comes back is seen at once; with many endpoints the wait grows, and the load does not.
const LONGEST_RETRY: Duration = Duration::from_secs(2);
const RETRIES_PER_SECOND: u32 = 33;

/// Logins per second that watching healthy servers may cost, whatever their number: a SCRAM login
/// takes the coordinator about 2 ms, so this is under 1 % of a core.
const STEADY_LOGINS_PER_SECOND: u32 = 4;

/// No two cycles follow each other faster than this.
const SHORTEST_CYCLE: Duration = Duration::from_millis(100);

/// How often the endpoints of a fleet are probed.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub interval: Duration,
    /// How many endpoints let us in, and how many do not: each kind shares its own rate, so that dead names
    /// do not slow down the watch over those that live.
    answering: usize,
    failing: usize,
}

impl Pace {
    pub fn new<'a>(interval: Duration, endpoints: impl Iterator<Item = &'a Endpoint>) -> Self {
        let (answering, failing): (Vec<_>, Vec<_>) =
            endpoints.partition(|endpoint| endpoint.failure().is_none());
        Self { interval, answering: answering.len(), failing: failing.len() }
    }

    /// How long an endpoint is left alone after it was last asked; nothing where it never was.
    fn wait(self, endpoint: &Endpoint) -> Duration {
        let Some(probe) = &endpoint.probe else {
            return Duration::ZERO;
        };
        match endpoint.awaited_since() {
            Some(_) if hangs(endpoint) => {
                self.interval.max(at_rate(self.failing, RETRIES_PER_SECOND))
            }
            Some(since) => {
                let longest = LONGEST_RETRY.max(at_rate(self.failing, RETRIES_PER_SECOND));
                (probe.at.saturating_sub(since) / PATIENCE).clamp(SHORTEST_RETRY, longest)
            }
            None => self.interval.max(at_rate(self.answering, STEADY_LOGINS_PER_SECOND)),
        }
    }

    fn asked_at(endpoint: &Endpoint) -> Duration {
        endpoint.probe.as_ref().map_or(Duration::ZERO, |probe| probe.at)
    }

    /// Whether an endpoint is to be probed now; not while it is being. One that is nearly due is, so
    /// that endpoints that fail together are tried together.
    pub fn is_due(self, endpoint: &Endpoint, now: Duration) -> bool {
        let is_time = || Self::asked_at(endpoint) + self.wait(endpoint) * 4 / 5 <= now;
        !endpoint.is_asked() && (endpoint.is_wanted() || is_time())
    }

    /// When an endpoint wants a cycle of its own; none where the regular one is soon enough, so that a
    /// thousand dead endpoints do not make every cycle a short one, nor one that is being asked.
    fn hurry(self, endpoint: &Endpoint, now: Duration) -> Option<Duration> {
        if endpoint.is_asked() {
            return None;
        }
        if endpoint.is_wanted() {
            return Some(now);
        }
        endpoint.awaited_since().filter(|_| !hangs(endpoint))?;
        let wait = self.wait(endpoint);
        (wait < self.interval).then(|| Self::asked_at(endpoint) + wait)
    }

    /// How long to wait for the next cycle: the interval, or less where a server or a change that
    /// failed is to be tried before.
    pub fn next_cycle<'a>(
        self,
        now: Duration,
        endpoints: impl Iterator<Item = &'a Endpoint>,
        changes: impl Iterator<Item = Duration>,
    ) -> Duration {
        endpoints
            .filter_map(|endpoint| self.hurry(endpoint, now))
            // One whose time has passed is not wanted any more, or would have been made.
            .chain(changes.filter(|at| *at > now))
            .map(|at| at.saturating_sub(now))
            .min()
            .unwrap_or(self.interval)
            .clamp(SHORTEST_CYCLE, self.interval.max(SHORTEST_CYCLE))
    }
}

fn at_rate(endpoints: usize, per_second: u32) -> Duration {
    (Duration::from_secs(1) / per_second) * u32::try_from(endpoints).unwrap_or(u32::MAX)
}

/// Whether the last question ran into its deadline, or into a computation that goes on. Asking again sooner
/// would bring nothing: the answer takes longer than the patience with one that fails.
fn hangs(endpoint: &Endpoint) -> bool {
    use LoginFailureKind::{Computing, Crowded, Timeout};
    endpoint.failure().is_some_and(|failure| matches!(failure.kind, Timeout | Computing | Crowded))
}

/// Whether a candidate's name is to be asked for again along with its next probe. Where none was found,
/// as while DNS fails, and the certificate is not for the address, it is, at the pace of the probes.
pub fn naming_is_due(endpoint: &Endpoint, now: Duration) -> bool {
    const KEPT: Duration = Duration::from_secs(60);
    let is_tls = endpoint.failure().is_some_and(|failure| failure.kind == LoginFailureKind::Tls);
    let is_old = |at| now.saturating_sub(at) >= KEPT;
    endpoint.is_wanted()
        || (endpoint.naming.is_none() && is_tls)
        || endpoint.named_at.is_none_or(is_old)
}

/// How long Citus may take to send a node the metadata of so many tables. Measured on two cores: 2.3 ms
/// for each of 500 tables, 2.9 ms of 5,000, 8.6 ms of 20,000.
pub fn sync_time(tables: u64) -> Duration {
    const OF_MANY: u64 = 10_000;
    let millis = if tables < OF_MANY { 3 } else { 9 };
    Duration::from_millis(tables.saturating_mul(millis))
}

/// How long a change that sends it to so many nodes may take in all, and how long it may go on without
/// getting on. A slower machine, or a network, takes several times as long.
pub fn sync_bounds(tables: u64, nodes: u64) -> (Duration, Duration) {
    const ANY_CHANGE: Duration = Duration::from_secs(15);
    const MARGIN: u32 = 4;
    let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
    let in_all = sync_time(tables).saturating_mul(MARGIN).saturating_mul(nodes);
    // At the end the node prepares and commits all of it in one step.
    (ANY_CHANGE.saturating_add(in_all), ANY_CHANGE + Duration::from_millis(tables))
}

/// How many nodes are sent it in one transaction: other adds, and changes of tables, wait for it.
pub fn sync_batch(tables: u64) -> usize {
    const MOST: usize = 32;
    const PATIENCE: Duration = Duration::from_secs(10);
    let each = sync_time(tables).as_millis().max(1);
    usize::try_from(PATIENCE.as_millis() / each).unwrap_or(MOST).clamp(1, MOST)
}

/// How long a change that Citus did not accept waits for its next attempt.
pub fn change_retry(attempts: u32) -> Duration {
    const FIRST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(60);
    FIRST.saturating_mul(2u32.saturating_pow(attempts.saturating_sub(1))).min(LONGEST)
}

/// How many times as long as a registration hung the cluster is left alone afterwards: its DDL waits for
/// one that hangs less than 1 % of the time.
const REST: u32 = 100;

/// How long one that hung while it joined waits for its next attempt.
pub fn hang_retry(attempts: u32, took: Duration) -> Duration {
    const LONGEST: Duration = Duration::from_secs(3600);
    let rest = took * REST;
    rest.saturating_mul(2u32.saturating_pow(attempts.saturating_sub(1))).min(LONGEST.max(rest))
}

/// When the next of those that have hung may be tried: all of them together cost no more than one. Each
/// is given by when its attempt ended, and how long that had taken.
pub fn rested_at(hangs: &[(Duration, Duration)]) -> Duration {
    hangs.iter().map(|(at, took)| *at + *took * REST).max().unwrap_or_default()
}

/// When servers that have not hung yet may join. One that hangs costs the others nothing; each further
/// one makes it likelier that the next will, too, and doubles the pause.
pub fn calm_at(now: Duration, hangs: &[(Duration, Duration)]) -> Duration {
    let recent = hangs.iter().filter(|(at, took)| *at + *took * REST > now);
    let count = u32::try_from(recent.clone().count()).unwrap_or(u32::MAX);
    let factor = 2u32.saturating_pow(count.saturating_sub(1)).saturating_sub(1).min(REST);
    recent.max().map_or(Duration::ZERO, |(at, took)| *at + *took * factor)
}

#[cfg(test)]
mod tests {
    use super::super::endpoint::{Naming, Probe};
    use super::super::tests::build::server;
    use super::*;
    use crate::configuration::names::HostName;
    use crate::login::LoginFailure;

    const INTERVAL: Duration = Duration::from_secs(5);

    /// Of so many endpoints of each kind.
    fn pace(endpoints: usize) -> Pace {
        Pace { interval: INTERVAL, answering: endpoints, failing: endpoints }
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn learn(endpoint: &mut Endpoint, at: u64, failure: Option<LoginFailureKind>) {
        let result = match failure {
            Some(kind) => Err(LoginFailure { kind, message: String::new() }),
            None => Ok(server(1)),
        };
        endpoint.learn(Probe { at: secs(at), round_trip: Duration::ZERO, result }, 0);
    }

    /// One that has failed in that way since a second, and was last asked at another.
    fn failing_with(kind: LoginFailureKind, since: u64, at: u64) -> Endpoint {
        let mut endpoint = Endpoint::default();
        learn(&mut endpoint, since, Some(kind));
        learn(&mut endpoint, at, Some(kind));
        endpoint
    }

    fn failing(since: u64, at: u64) -> Endpoint {
        failing_with(LoginFailureKind::Refused, since, at)
    }

    fn healthy(at: u64) -> Endpoint {
        let mut endpoint = Endpoint::default();
        learn(&mut endpoint, at, None);
        endpoint
    }

    fn next(endpoints: usize, probed: &[Endpoint], changes: &[Duration]) -> Duration {
        pace(endpoints).next_cycle(secs(100), probed.iter(), changes.iter().copied())
    }

    #[test]
    fn a_starting_server_is_tried_often_and_a_dead_one_rarely() {
        assert_eq!(pace(3).wait(&failing(10, 10)), SHORTEST_RETRY);
        assert_eq!(pace(3).wait(&failing(0, 8)), secs(1));
        assert_eq!(pace(3).wait(&failing(0, 10_000)), LONGEST_RETRY);
        assert!(pace(1000).wait(&failing(0, 10_000)) > secs(29));
    }

    #[test]
    fn one_that_hangs_does_not_quicken_the_cycle() {
        let mut hung = failing_with(LoginFailureKind::Timeout, 97, 100);
        assert_eq!(pace(3).wait(&hung), INTERVAL);
        assert_eq!(next(3, &[hung.clone()], &[]), INTERVAL);
        // Nor while it is being asked, however late it is with its answer.
        hung.ask(secs(50));
        assert!(!pace(3).is_due(&hung, secs(1000)));
        let mut slow = failing(92, 99);
        slow.want();
        slow.ask(secs(99));
        assert_eq!(next(3, &[hung, slow], &[]), INTERVAL);
    }

    #[test]
    fn dead_names_do_not_slow_down_the_watch_over_the_living() {
        let dead: Vec<Endpoint> = (0..1000).map(|_| failing(0, 1000)).collect();
        let living = healthy(100);
        let pace = Pace::new(INTERVAL, dead.iter().chain([&living]));
        assert_eq!(pace.wait(&living), INTERVAL);
        assert!(pace.wait(&dead[0]) > secs(29));
        // Nor is a host that drops packets forgotten among them.
        assert!(pace.wait(&failing_with(LoginFailureKind::Timeout, 90, 100)) < secs(31));
    }

    #[test]
    fn a_name_that_a_certificate_may_be_for_is_asked_for_until_it_is_found() {
        let named = |kind, naming| {
            let mut endpoint = failing_with(kind, 100, 100);
            (endpoint.naming, endpoint.named_at) = (naming, Some(secs(100)));
            naming_is_due(&endpoint, secs(101))
        };
        let name = HostName::parse("w1").unwrap();
        assert!(named(LoginFailureKind::Tls, None));
        assert!(!named(LoginFailureKind::Tls, Some(Naming { name, addresses: Vec::new() })));
        assert!(!named(LoginFailureKind::Refused, None));
    }

    #[test]
    fn healthy_servers_cost_the_same_however_many() {
        assert_eq!(pace(3).wait(&healthy(100)), INTERVAL);
        assert_eq!(pace(1000).wait(&healthy(100)), secs(250));
    }

    #[test]
    fn a_standby_whose_primary_is_gone_is_watched_like_a_starting_server() {
        let sought = |since: u64| {
            let mut endpoint = healthy(100);
            endpoint.seek(true, secs(since));
            endpoint
        };
        assert_eq!(pace(3).wait(&sought(100)), SHORTEST_RETRY);
        assert_eq!(pace(3).wait(&sought(92)), secs(1));
        assert_eq!(pace(3).wait(&sought(0)), LONGEST_RETRY);
        assert_eq!(next(3, &[sought(92)], &[]), secs(1));
    }

    #[test]
    fn what_is_nearly_due_is_due() {
        let endpoint = healthy(100);
        assert!(!pace(1).is_due(&endpoint, Duration::from_millis(103_900)));
        assert!(pace(1).is_due(&endpoint, Duration::from_millis(104_000)));
        assert!(pace(1).is_due(&Endpoint::default(), Duration::ZERO), "nobody has asked it");
    }

    #[test]
    fn the_next_cycle_comes_after_the_interval_or_earlier() {
        assert_eq!(next(1, &[], &[]), INTERVAL);
        assert_eq!(next(1, &[healthy(98)], &[]), INTERVAL);
        assert_eq!(next(1, &[failing(92, 100)], &[]), secs(1));
        assert_eq!(next(1000, &[failing(0, 100)], &[]), INTERVAL);
        assert_eq!(next(1, &[], &[secs(103), secs(130)]), secs(3));
        assert_eq!(next(1, &[], &[Duration::from_millis(100_001)]), SHORTEST_CYCLE);
        assert_eq!(next(1, &[], &[secs(1)]), INTERVAL, "nobody wants that change any more");
        let mut wanted = healthy(99);
        wanted.want();
        assert_eq!(next(1, &[wanted], &[]), SHORTEST_CYCLE);
    }

    #[test]
    fn what_is_sent_to_a_node_takes_its_time() {
        assert_eq!(sync_bounds(0, 3), (secs(15), secs(15)));
        let (in_all, patience) = sync_bounds(20_000, 1);
        assert!(in_all > secs(171) * 3, "it took 171 s");
        assert_eq!(patience, secs(35));
        assert_eq!([0, 100, 500, 20_000].map(sync_batch), [32, 32, 6, 1]);
    }

    #[test]
    fn a_refused_change_is_retried_less_and_less_often() {
        let waits: Vec<u64> = (1..=8).map(|n| change_retry(n).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(change_retry(u32::MAX).as_secs(), 60);
    }

    #[test]
    fn ddl_waits_for_a_server_that_hangs_less_than_a_hundredth_of_the_time() {
        let took = secs(15);
        let waits: Vec<u64> = (1..=4).map(|n| hang_retry(n, took).as_secs()).collect();
        assert_eq!(waits, [1500, 3000, 3600, 3600]);
        for (attempts, took) in [(1, secs(15)), (9, secs(15)), (1, secs(120)), (9, secs(120))] {
            let share = took.as_secs_f64() / (took + hang_retry(attempts, took)).as_secs_f64();
            assert!(share < 0.01, "{share}");
        }
        // However many there are.
        assert_eq!(rested_at(&[(secs(10), took), (secs(900), took)]), secs(900 + 1500));
        assert_eq!(rested_at(&[]), Duration::ZERO);
    }

    #[test]
    fn many_that_hang_in_a_row_slow_all_down_and_one_does_not() {
        let hung = |count: u64| -> Vec<(Duration, Duration)> {
            (0..count).map(|n| (secs(100 + n), secs(15))).collect()
        };
        let waits = |count| calm_at(secs(150), &hung(count)).saturating_sub(secs(100 + count - 1));
        assert_eq!(waits(1), secs(0));
        assert_eq!([2, 3, 4].map(waits), [15, 45, 105].map(secs));
        assert_eq!(waits(32), secs(1500));
        assert_eq!(calm_at(secs(9000), &hung(32)), Duration::ZERO, "it is long ago");
    }
}
