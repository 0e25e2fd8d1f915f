//! Owns what keeps a change that is wanted from being made: the coordinator, another worker, an
//! operator, a failed attempt. A server that is fit is `ready` meanwhile, and says which it is.
//! Must not hinder by itself: the plan asks what is in the way before each change.

use super::logins::of_login;
use super::row::WayOut::{Do, Wait};
use super::row::{Facts, Row, WayOut, When, given};
use crate::membership::cause::{Cause, Hang, describe};
use crate::membership::evidence::Hindrance as It;
use crate::membership::observation::Hold;
use crate::membership::state::{Action, State};

const OWN_ADDRESS: &str = "The row of this server in pg_dist_node and citus_fleet.coordinator_host both have to lead to it alone: SELECT citus_set_coordinator_host('<name of this host>', <port>); and the setting, where it is set. Nothing is to be done on a server that is to become a worker of the coordinator there.";

/// Each is a row of one shape.
const fn row(
    code: &'static str,
    when: &'static [When],
    reason: &'static str,
    cause: &'static str,
    way_out: WayOut,
) -> Row {
    let (state, action) = (State::Ready, Action::Register);
    Row { code, state, action, when, reason, cause, way_out, next: Some(State::Ready) }
}

fn own(address: &str) -> Facts {
    vec![("own", address.to_owned())]
}

pub(super) const TABLE: &[Row] = &[
    row(
        "citus_not_here",
        &[When::Hindrance(|it| given(*it == It::NoCitus))],
        "Citus is not installed on this coordinator",
        "The extension discovers and probes without Citus, and has nobody to register workers with.",
        Do(
            "Run CREATE EXTENSION citus; citus belongs into shared_preload_libraries before citus_fleet.",
        ),
    ),
    // A removed worker, or a blank one on which the extension was created first, has neither.
    row(
        "no_own_address",
        &[When::Hindrance(|it| given(*it == It::NoOwnAddress))],
        "this server has no row of its own in pg_dist_node, and citus_fleet.coordinator_host is not set: it is not known to be a coordinator",
        "A configuration was copied to a server that is no coordinator, or Citus has not been told the coordinator's name yet.",
        Do(
            "On the coordinator: SELECT citus_set_coordinator_host('<name of this host>'); or set citus_fleet.coordinator_host. On any other server: take citus_fleet.workers out of its configuration.",
        ),
    ),
    // Citus's own placeholder: it refuses to add a node while the row says so.
    row(
        "coordinator_on_localhost",
        &[When::Hindrance(|it| given(*it == It::OnLocalhost))],
        "the coordinator is registered as localhost, where workers cannot reach it",
        "Citus registers the coordinator as localhost until it is told its name.",
        Do(
            "SELECT citus_set_coordinator_host('<name of this host>'); or set citus_fleet.coordinator_host.",
        ),
    ),
    // An add sends the new row to every node that has metadata, and fails when one cannot take it.
    row(
        "worker_in_the_way",
        &[When::Hindrance(|it| match it {
            It::Worker(culprit) => Some(vec![("culprit", culprit.clone())]),
            _ => None,
        })],
        "Citus can add no node while {culprit}",
        "A registered worker is not in order, or its metadata is out of sync.",
        Do(
            "See what fleet.workers says of that worker, and bring it back; this one follows by itself. One that holds no shards may be disabled instead, with citus_disable_node.",
        ),
    ),
    row(
        "nodes_differ_on",
        &[When::Hindrance(|it| match it {
            It::NodesDiffer(worker) => Some(vec![("worker", worker.clone())]),
            _ => None,
        })],
        "the nodes in the metadata of {worker} are not those of this coordinator, so nothing is changed",
        "This coordinator was restored, or a standby of it promoted, without its newest changes, or a change has just not reached that worker yet.",
        Do("See what fleet.workers says of that worker."),
    ),
    row(
        "fleet_paused",
        &[When::Hindrance(|it| given(*it == It::Held(Hold::Paused)))],
        "the fleet is paused",
        "fleet.pause() was called.",
        Do("SELECT fleet.resume();"),
    ),
    row(
        "fleet_disabled",
        &[When::Hindrance(|it| given(*it == It::Held(Hold::Disabled)))],
        "citus_fleet.enabled is off",
        "The setting keeps the controller from changing anything by itself.",
        Do("SELECT * FROM citus_autoregister(); -- or set citus_fleet.enabled to on"),
    ),
    // Nobody else can change the cluster while Citus waits for it.
    row(
        "hangs_joining",
        &[When::Hindrance(|it| match it {
            It::Failed { attempts, cause: Cause::Hung(Hang { took, .. }), reason } => Some(vec![
                ("attempts", attempts.to_string()),
                ("took", took.as_secs().to_string()),
                ("failure", reason.clone()),
            ]),
            _ => None,
        })],
        "attempt {attempts} kept the cluster waiting for {took} s and is repeated, alone and ever more rarely: {failure}",
        "It answers, and lets the coordinator wait once Citus sends it its metadata. Where several were added at once it may have been another of them.",
        Do(
            "On that server, pg_stat_activity and pg_locks say what Citus waits for. SELECT citus_autoregister(); tries it at once.",
        ),
    ),
    row(
        "others_hang",
        &[When::Hindrance(|it| match it {
            It::OthersHang(count) => Some(vec![("count", count.to_string())]),
            _ => None,
        })],
        "{count} servers have hung while they joined, so the cluster is left alone for a while",
        "Each server that hangs keeps everybody else from changing the cluster, and this one may, too.",
        Wait("the pause is over, which doubles with each that hangs"),
    ),
    row(
        "changes_blocked",
        &[When::Hindrance(|it| match it {
            It::Failed { cause: Cause::Blocked(block), .. } => {
                Some(vec![("until", block.until.clone()), ("by", block.by.clone())])
            }
            _ => None,
        })],
        "changes of the cluster are blocked until {until} by {by}",
        "citus_cluster_changes_block() was called, for a backup of the whole cluster.",
        Do("It ends by itself. SELECT citus_cluster_changes_unblock(); ends it at once."),
    ),
    row(
        "lock_held",
        &[When::Hindrance(|it| match it {
            It::Failed { attempts, cause: Cause::Locked(holders), reason }
                if !holders.is_empty() =>
            {
                let (who, ending) = describe(holders);
                let failure = [("attempts", attempts.to_string()), ("failure", reason.clone())];
                Some(failure.into_iter().chain([("who", who), ("ending", ending)]).collect())
            }
            _ => None,
        })],
        "attempt {attempts} failed and is repeated: {failure}; the lock is held by {who}",
        "A session or a prepared transaction holds a lock on Citus's metadata, or on shards of the node.",
        Do("It goes on once that has ended. To end it: {ending}"),
    ),
    row(
        "attempt_failed",
        &[When::Hindrance(|it| match it {
            It::Failed { attempts, reason, .. } => {
                Some(vec![("attempts", attempts.to_string()), ("failure", reason.clone())])
            }
            _ => None,
        })],
        "attempt {attempts} failed and is repeated: {failure}",
        "Citus did not accept the change, or could not make it in time.",
        Wait("the next attempt, after 1, 2, 4, … 60 s"),
    ),
    // Every worker that joins takes whoever is at the coordinator's address for its coordinator.
    row(
        "own_address_unresolved",
        &[When::Hindrance(|it| match it {
            It::OwnUnresolved { own: address, .. } => Some(own(address)),
            _ => None,
        })],
        "the coordinator's address {own} does not resolve at the moment",
        "DNS does not know the name of the coordinator's row or of citus_fleet.coordinator_host.",
        Do(OWN_ADDRESS),
    ),
    row(
        "own_address_unchecked",
        &[When::Hindrance(|it| given(*it == It::OwnUnchecked))],
        "the coordinator's address is checked",
        "The coordinator has not logged in to itself yet.",
        Wait("it has answered"),
    ),
    // To lead the workers here would take the cluster from the other one.
    row(
        "own_address_twin",
        &[When::Hindrance(|it| match it {
            It::OwnElsewhere { own: address, at, is_twin: true, .. } => {
                Some(own(address).into_iter().chain([("at", at.to_string())]).collect())
            }
            _ => None,
        })],
        "the coordinator's address {own} leads to another running server with this one's identity, {at}: one of the two is a copy of the other, and this one changes nothing",
        "A backup of the coordinator, or an old coordinator that a failover has left behind, was started beside the one that there is.",
        Do(
            "Find out which of the two is the coordinator, and stop the other. Where this one is to be it: stop the one at {at} first, then lead the coordinator's address here.",
        ),
    ),
    row(
        "own_address_elsewhere",
        &[When::Hindrance(|it| match it {
            It::OwnElsewhere { own: address, at, system_identifier, is_twin: false } => {
                let identifier = system_identifier.to_string();
                let there = [("at", at.to_string()), ("system_identifier", identifier)];
                Some(own(address).into_iter().chain(there).collect())
            }
            _ => None,
        })],
        "the coordinator's address {own} leads to another server, {at} (system identifier {system_identifier})",
        "The name or address is somebody else's: a copied configuration, a restored copy, an old entry in DNS.",
        Do(OWN_ADDRESS),
    ),
    row(
        "own_address_unreachable",
        &[When::Hindrance(|it| match it {
            It::OwnUnreachable { own: address, failure, .. } => {
                let login = of_login(failure);
                let why = [
                    ("failure", login.reason.unwrap_or_default()),
                    ("login_remedy", login.remedy.unwrap_or_default()),
                ];
                Some(own(address).into_iter().chain(why).collect())
            }
            _ => None,
        })],
        "the coordinator's address {own} cannot be reached: {failure}",
        "The coordinator logs in to itself as to a worker, and nobody lets it in there.",
        Do("{login_remedy}"),
    ),
    row(
        "own_address_checked_once_more",
        &[When::Hindrance(|it| given(*it == It::OwnStale))],
        "the coordinator's address is checked once more",
        "What its name leads to may have changed since it was asked.",
        Wait("it has answered again"),
    ),
];
