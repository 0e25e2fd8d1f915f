//! Owns when: which endpoints are probed in this cycle, and how long the next one may wait.
//! Must not probe or sleep.

use super::model::Probe;
use crate::login::{LoginFailure, LoginFailureKind};
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
    /// How many endpoints there are.
    pub endpoints: usize,
}

impl Pace {
    fn at_rate(self, per_second: u32) -> Duration {
        (Duration::from_secs(1) / per_second) * u32::try_from(self.endpoints).unwrap_or(u32::MAX)
    }

    fn wait(self, probe: &Probe) -> Duration {
        match wanted_since(probe) {
            Some(since) => {
                let longest = LONGEST_RETRY.max(self.at_rate(RETRIES_PER_SECOND));
                (probe.at.saturating_sub(since) / PATIENCE).clamp(SHORTEST_RETRY, longest)
            }
            None => self.interval.max(self.at_rate(STEADY_LOGINS_PER_SECOND)),
        }
    }

    /// Whether an endpoint is to be probed now. One that is nearly due is, so that endpoints that
    /// fail together are tried together.
    pub fn is_due(self, probe: &Probe, now: Duration) -> bool {
        probe.at + self.wait(probe) * 4 / 5 <= now
    }

    /// When an endpoint that is waited for wants a cycle of its own; none where the regular one is soon enough,
    /// so that a thousand dead endpoints do not make every cycle a short one.
    fn hurry(self, probe: &Probe) -> Option<Duration> {
        wanted_since(probe)?;
        let wait = self.wait(probe);
        (wait < self.interval).then(|| probe.at + wait)
    }

    /// How long to wait for the next cycle: the interval, or less where a server or a change that
    /// failed is to be tried before.
    pub fn next_cycle<'a>(
        self,
        now: Duration,
        probes: impl Iterator<Item = &'a Probe>,
        changes: impl Iterator<Item = Duration>,
    ) -> Duration {
        probes
            .filter_map(|probe| self.hurry(probe))
            .chain(changes)
            .map(|at| at.saturating_sub(now))
            .min()
            .unwrap_or(self.interval)
            .clamp(SHORTEST_CYCLE, self.interval.max(SHORTEST_CYCLE))
    }
}

/// Since when an endpoint has been waited for: to answer, or to become a worker's primary.
fn wanted_since(probe: &Probe) -> Option<Duration> {
    probe.failing_since.or(probe.sought_since)
}

/// Whether a candidate's name is to be asked for again along with its next probe. Where none was found,
/// as while DNS fails, and the certificate is not for the address, it is, at the pace of the probes.
pub fn naming_is_due(probe: Option<&Probe>, now: Duration) -> bool {
    const KEPT: Duration = Duration::from_secs(60);
    let lacks_a_name = |probe: &Probe| {
        let is_tls = |failure: &LoginFailure| failure.kind == LoginFailureKind::Tls;
        probe.naming.is_none() && probe.result.as_ref().is_err_and(is_tls)
    };
    let is_old = |at| now.saturating_sub(at) >= KEPT;
    probe.is_none_or(|probe| lacks_a_name(probe) || probe.named_at.is_none_or(is_old))
}

/// How long a change that Citus did not accept waits for its next attempt.
pub fn change_retry(attempts: u32) -> Duration {
    const FIRST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(60);
    FIRST.saturating_mul(2u32.saturating_pow(attempts.saturating_sub(1))).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::configuration::names::HostName;
    use crate::membership::model::Naming;

    fn failing(since: u64, at: u64) -> Probe {
        Probe {
            at: Duration::from_secs(at),
            round_trip: Duration::ZERO,
            result: Err(LoginFailure { kind: LoginFailureKind::Refused, message: String::new() }),
            failing_since: Some(Duration::from_secs(since)),
            silent_since: Some(Duration::from_secs(since)),
            sought_since: None,
            last_seen_us: None,
            naming: None,
            named_at: None,
        }
    }

    const INTERVAL: Duration = Duration::from_secs(5);

    fn pace(endpoints: usize) -> Pace {
        Pace { interval: INTERVAL, endpoints }
    }

    fn healthy(at: u64) -> Probe {
        Probe { failing_since: None, ..failing(0, at) }
    }

    #[test]
    fn a_starting_server_is_tried_often_and_a_dead_one_rarely() {
        assert_eq!(pace(3).wait(&failing(10, 10)), SHORTEST_RETRY);
        assert_eq!(pace(3).wait(&failing(0, 8)), Duration::from_secs(1));
        assert_eq!(pace(3).wait(&failing(0, 10_000)), LONGEST_RETRY);
        assert!(pace(1000).wait(&failing(0, 10_000)) > Duration::from_secs(29));
    }

    #[test]
    fn a_name_that_a_certificate_may_be_for_is_asked_for_until_it_is_found() {
        let named = |kind, naming| {
            let result = Err(LoginFailure { kind, message: String::new() });
            let at = Duration::from_secs(100);
            let probe = Probe { result, naming, named_at: Some(at), ..failing(100, 100) };
            naming_is_due(Some(&probe), at + Duration::from_secs(1))
        };
        let name = HostName::parse("w1").unwrap();
        assert!(named(LoginFailureKind::Tls, None));
        assert!(!named(LoginFailureKind::Tls, Some(Naming { name, addresses: Vec::new() })));
        assert!(!named(LoginFailureKind::Refused, None));
    }

    #[test]
    fn healthy_servers_cost_the_same_however_many() {
        assert_eq!(pace(3).wait(&healthy(100)), INTERVAL);
        assert_eq!(pace(1000).wait(&healthy(100)), Duration::from_secs(250));
    }

    #[test]
    fn a_standby_whose_primary_is_gone_is_watched_like_a_starting_server() {
        let sought =
            |since: u64| Probe { sought_since: Some(Duration::from_secs(since)), ..healthy(100) };
        assert_eq!(pace(3).wait(&sought(100)), SHORTEST_RETRY);
        assert_eq!(pace(3).wait(&sought(92)), Duration::from_secs(1));
        assert_eq!(pace(3).wait(&sought(0)), LONGEST_RETRY);
        let now = Duration::from_secs(100);
        let next = pace(3).next_cycle(now, [sought(92)].iter(), [].into_iter());
        assert_eq!(next, Duration::from_secs(1));
    }

    #[test]
    fn what_is_nearly_due_is_due() {
        let probe = healthy(100);
        assert!(!pace(1).is_due(&probe, Duration::from_millis(103_900)));
        assert!(pace(1).is_due(&probe, Duration::from_millis(104_000)));
    }

    #[test]
    fn the_next_cycle_comes_after_the_interval_or_earlier() {
        let at = Duration::from_secs;
        let next = |endpoints, probes: &[Probe], changes: &[Duration]| {
            pace(endpoints).next_cycle(at(100), probes.iter(), changes.iter().copied())
        };
        assert_eq!(next(1, &[], &[]), INTERVAL);
        assert_eq!(next(1, &[healthy(98)], &[]), INTERVAL);
        assert_eq!(next(1, &[failing(92, 100)], &[]), at(1));
        assert_eq!(next(1000, &[failing(0, 100)], &[]), INTERVAL);
        assert_eq!(next(1, &[], &[at(103), at(130)]), at(3));
        assert_eq!(next(1, &[], &[at(1)]), SHORTEST_CYCLE);
    }

    #[test]
    fn a_refused_change_is_retried_less_and_less_often() {
        let waits: Vec<u64> = (1..=8).map(|n| change_retry(n).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(change_retry(u32::MAX).as_secs(), 60);
    }
}
