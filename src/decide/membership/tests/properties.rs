//! Owns what holds of every plan: random fleets against a model that knows which machine is which,
//! where the planner has only addresses and answers.

use super::build::*;
use super::world::{ADDRESSES, Fault, Machine, World, owner, world};
use crate::membership::change::Change;
use crate::membership::endpoint::Probe;
use crate::membership::plan::{Plan, Worker};
use crate::membership::state::State;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::collections::BTreeSet;

/// The last address of every machine is barred.
const BARRED: usize = ADDRESSES - 1;

/// Whether Citus can add no node because of this machine's row.
fn blocks(machine: &Machine) -> bool {
    let Some(row) = &machine.row else {
        return false;
    };
    let answers = machine.is_up && row.leads_to.contains(&true);
    let is_wrong = matches!(
        machine.fault,
        Some(
            Fault::Recovering
                | Fault::CoordinatorsStandby
                | Fault::NoCitus
                | Fault::OtherGroup
                | Fault::OtherCoordinator
                | Fault::Blank
        )
    );
    row.isactive && row.hasmetadata && (!row.metadatasynced || !answers || is_wrong)
}

fn is_recovering(machine: &Machine) -> bool {
    matches!(machine.fault, Some(Fault::Recovering | Fault::CoordinatorsStandby))
}

fn is_a_candidate(machine: &Machine) -> bool {
    machine.is_up && machine.listed[..BARRED].contains(&true)
}

/// Whether another machine that can be seen runs on a copy of this one's data directory.
fn has_a_copy(world: &World, number: usize) -> bool {
    let mut others = world.machines.iter().enumerate();
    others.any(|(other, machine)| {
        let has_row = machine.row.as_ref().is_some_and(|row| row.leads_to.contains(&true));
        other != number
            && world.system_identifier(other) == world.system_identifier(number)
            && (is_a_candidate(machine) || machine.is_up && has_row)
            && !is_recovering(machine)
    })
}

fn is_fit(world: &World, number: usize) -> bool {
    matches!(world.machines[number].fault, None | Some(Fault::Blank))
        && world.system_identifier(number) != COORDINATOR_ID
}

/// Whether this machine is a worker already, as far as anybody can tell: one that lost its data
/// and that its row does not lead to is as good as new.
fn is_registered(machine: &Machine) -> bool {
    let leads_there = |row: &super::world::Row| row.leads_to.contains(&true);
    let is_blank = machine.fault == Some(Fault::Blank);
    machine.row.as_ref().is_some_and(|row| leads_there(row) || !is_blank)
}

/// The model: the machines that one plan is to register.
fn joiners(world: &World) -> BTreeSet<usize> {
    let localhost = world.own_host == "localhost" && world.coordinator_host.is_none();
    if world.hold.is_some() || !world.has_citus || localhost || world.machines.iter().any(blocks) {
        return BTreeSet::new();
    }
    let joins = |number: &usize| {
        let machine = &world.machines[*number];
        is_a_candidate(machine)
            && is_fit(world, *number)
            && !is_registered(machine)
            && !has_a_copy(world, *number)
            && machine.age <= 10
            && machine.retry_in.is_none_or(|seconds| seconds <= 0)
    };
    (0..world.machines.len()).filter(joins).collect()
}

/// The machines that a plan registers; one for each change, in order of the machines.
fn registered(plan: &Plan) -> Vec<usize> {
    let mut machines: Vec<usize> =
        plan.registers().iter().map(|(_, address)| owner(ip(address))).collect();
    machines.sort_unstable();
    machines
}

/// The fleet after Citus has accepted a plan, with every machine asked anew.
fn accepted(world: &World, plan: &Plan) -> Fleet {
    let mut fleet = world.fleet();
    for change in &plan.changes {
        match change {
            Change::SetCoordinatorHost { nodename, .. } => {
                fleet = fleet.registered_as(nodename);
                // Citus tells the workers.
                for endpoint in fleet.endpoints.values_mut() {
                    if let Some(Probe { result: Ok(server), .. }) = &mut endpoint.probe
                        && let Some(membership) = &mut server.membership
                    {
                        membership.coordinator = Some(format!("{nodename}:5432"));
                    }
                }
            }
            Change::Register { nodename, endpoint, .. } => {
                let machine = owner(endpoint.ip());
                let new = row(World::nodeid(machine) + 100, nodename);
                for endpoint in fleet.endpoints.values_mut() {
                    if let Some(Probe { result: Ok(server), .. }) = &mut endpoint.probe
                        && server.started_us == machine as i64 * 1_000_000
                    {
                        server.membership = member(0, new.groupid).membership;
                    }
                }
                fleet = fleet.row(new, &[&endpoint.ip().to_string()]);
            }
            other => panic!("no identity is recorded, so nothing can be followed: {other}"),
        }
    }
    fleet
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// The whole of what may and must be registered: fit, not registered, not a copy, not barred,
    /// fresh, and each machine once; none while anything holds changes back.
    #[test]
    fn a_plan_registers_exactly_what_the_model_says(world in world()) {
        let plan = world.fleet().plan();
        let expected: Vec<usize> = joiners(&world).into_iter().collect();
        prop_assert_eq!(registered(&plan), expected, "{:#?}", plan);
    }

    #[test]
    fn registrations_are_at_addresses_and_under_names_of_their_own(world in world()) {
        let fleet = world.fleet();
        let plan = fleet.plan();
        let mut names = BTreeSet::new();
        for (name, address) in plan.registers() {
            prop_assert!(!address.starts_with("8."), "{} is barred", address);
            prop_assert!(fleet.candidates.iter().any(|c| c.endpoint == at(&address)));
            if name != address {
                let naming = fleet.endpoints[&at(&address)].naming.as_ref().unwrap();
                prop_assert_eq!(naming.name.as_str(), name.as_str());
                for leads_to in &naming.addresses {
                    prop_assert_eq!(owner(*leads_to), owner(ip(&address)), "{} of {}", leads_to, &name);
                }
            }
            prop_assert!(names.insert(name));
        }
    }

    #[test]
    fn the_coordinators_host_comes_first_and_only_if_it_is_wrong(world in world()) {
        let plan = world.fleet().plan();
        let hosts: Vec<usize> = (0..plan.changes.len())
            .filter(|n| matches!(plan.changes[*n], Change::SetCoordinatorHost { .. }))
            .collect();
        let is_wrong = world.coordinator_host.is_some_and(|host| host != world.own_host);
        let is_due = is_wrong && world.has_citus && world.hold.is_none();
        // It would be written to every worker, strangers in their place included.
        let is_strange = |it: &Worker| matches!(it.state, State::Blank | State::Conflict);
        if plan.workers.iter().any(|it| it.nodeid.is_some() && is_strange(it)) {
            prop_assert!(hosts.is_empty() || is_due);
        } else {
            prop_assert_eq!(hosts, if is_due { vec![0] } else { vec![] });
        }
    }

    #[test]
    fn every_worker_that_is_not_active_has_a_reason(world in world()) {
        for worker in world.fleet().plan().workers {
            let has_reason = worker.reason.as_ref().is_some_and(|reason| !reason.is_empty());
            prop_assert!(worker.state == State::Active || has_reason, "{:#?}", worker);
        }
    }

    /// A row is one worker, and so is a server that joins, however many addresses lead to it.
    #[test]
    fn nothing_is_listed_twice(world in world()) {
        let plan = world.fleet().plan();
        let rows = plan.workers.iter().filter(|worker| worker.nodeid.is_some()).count();
        let with_rows = world.machines.iter().filter(|m| m.row.is_some()).count();
        prop_assert_eq!(rows, if world.has_citus { with_rows } else { 0 });
        let mut endpoints = BTreeSet::new();
        for endpoint in plan.workers.iter().filter_map(|worker| worker.endpoint) {
            prop_assert!(endpoints.insert(endpoint), "{} is listed twice", endpoint);
        }
        for number in registered(&plan) {
            let of_machine = |endpoint: &&std::net::SocketAddr| {
                owner(endpoint.ip()) == number && !endpoint.ip().to_string().starts_with("8.")
            };
            prop_assert_eq!(endpoints.iter().filter(of_machine).count(), 1);
        }
    }

    /// Nothing that a source yields goes unmentioned, unless it is a server that is listed.
    #[test]
    fn every_candidate_that_is_silent_or_barred_is_listed(world in world()) {
        let fleet = world.fleet();
        let plan = fleet.plan();
        for candidate in &fleet.candidates {
            let ip = candidate.endpoint.ip();
            let machine = &world.machines[owner(ip)];
            if machine.row.is_none() && (!machine.is_up || ip.to_string().starts_with("8.")) {
                let worker = plan.at(&ip.to_string());
                let barred = ip.to_string().starts_with("8.");
                let expected = if barred { State::Refused } else { State::Unreachable };
                prop_assert_eq!(worker.state, expected);
            }
        }
    }

    #[test]
    fn the_order_of_the_candidates_does_not_matter(world in world(), order in any::<[u16; 28]>()) {
        let another = World { order: order.to_vec(), ..world.clone() };
        prop_assert_eq!(registered(&world.fleet().plan()), registered(&another.fleet().plan()));
    }

    #[test]
    fn one_observation_gives_one_plan(world in world()) {
        prop_assert_eq!(world.fleet().plan(), world.fleet().plan());
    }

    #[test]
    fn a_plan_that_was_accepted_leaves_nothing_to_change(world in world()) {
        let plan = world.fleet().plan();
        let next = accepted(&world, &plan).plan();
        prop_assert_eq!(&next.changes, &[]);
        for number in registered(&plan) {
            let nodeid = World::nodeid(number) + 100;
            let worker = next.workers.iter().find(|worker| worker.nodeid == Some(nodeid));
            prop_assert_eq!(worker.map(|worker| worker.state), Some(State::Active));
            let candidates = next.workers.iter().filter(|worker| worker.nodeid.is_none());
            let mut endpoints = candidates.filter_map(|worker| worker.endpoint);
            let stray = endpoints.find(|e| owner(e.ip()) == number && !e.ip().to_string().starts_with("8."));
            prop_assert_eq!(stray, None, "listed beside its row");
        }
    }
}

/// The properties say nothing of fleets that nobody joins, so most may not be of that kind.
#[test]
fn the_random_fleets_are_worth_looking_at() {
    let mut runner = TestRunner::deterministic();
    let worlds: Vec<World> =
        (0..1000).map(|_| world().new_tree(&mut runner).unwrap().current()).collect();
    let share = |is: &dyn Fn(&World) -> bool| worlds.iter().filter(|world| is(world)).count();
    assert!(share(&|world| !joiners(world).is_empty()) > 300);
    assert!(share(&|world| joiners(world).len() > 1) > 100);
    assert!(share(&|world| world.machines.iter().any(blocks)) > 200);
    let joins_beside_a_worker =
        |world: &World| !joiners(world).is_empty() && world.machines.iter().any(is_registered);
    assert!(share(&joins_beside_a_worker) > 100);
    let has_copies = |world: &World| (0..world.machines.len()).any(|n| has_a_copy(world, n));
    assert!(share(&has_copies) > 100);
}
