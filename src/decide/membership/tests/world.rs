//! Owns random fleets for the properties: machines with addresses, faults and rows, made into an
//! observation. Must not know what a plan makes of them; the model in `properties` says that.

use super::build::*;
use crate::login::LoginFailureKind;
use crate::membership::coordinator::DistNode;
use crate::membership::observation::Hold;
use crate::membership::server::{ExtensionState, Server};
use proptest::prelude::*;
use std::net::IpAddr;
use std::time::Duration;

/// Addresses of a machine, of which the last is barred by `private`.
pub const ADDRESSES: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Recovering,
    CoordinatorItself,
    CoordinatorsStandby,
    OtherMajor,
    NoCitus,
    OtherCitus,
    NoVector,
    OtherGroup,
    OtherCoordinator,
    Clash,
    NoPreparedTransactions,
    /// It is in no cluster; for a machine without a row that is as it should be.
    Blank,
}

#[derive(Clone, Debug)]
pub struct Row {
    pub isactive: bool,
    pub hasmetadata: bool,
    pub metadatasynced: bool,
    /// Which addresses its name leads to.
    pub leads_to: [bool; ADDRESSES],
}

#[derive(Clone, Debug)]
pub struct Machine {
    pub is_up: bool,
    pub fault: Option<Fault>,
    /// It has the system identifier of the machine before it.
    pub is_copy: bool,
    /// Which addresses the sources yield.
    pub listed: [bool; ADDRESSES],
    pub row: Option<Row>,
    /// Seconds since its answers.
    pub age: u64,
    /// Seconds to the next attempt of a registration that failed.
    pub retry_in: Option<i64>,
    /// The addresses that its name leads to, of its own and of the next machine.
    pub named: Option<([bool; ADDRESSES], bool)>,
}

#[derive(Clone, Debug)]
pub struct World {
    pub machines: Vec<Machine>,
    /// A permutation of the candidates.
    pub order: Vec<u16>,
    pub hold: Option<Hold>,
    pub has_citus: bool,
    pub own_host: &'static str,
    pub coordinator_host: Option<&'static str>,
}

/// The address of a machine: two of IPv4, one of IPv6, one that is barred.
pub fn address(machine: usize, number: usize) -> String {
    match number {
        0 => format!("10.0.0.{machine}"),
        1 => format!("10.0.1.{machine}"),
        2 => format!("fd00::{machine}"),
        _ => format!("8.8.8.{machine}"),
    }
}

/// The machine that an address belongs to.
pub fn owner(ip: IpAddr) -> usize {
    match ip {
        IpAddr::V4(v4) => v4.octets()[3].into(),
        IpAddr::V6(v6) => v6.octets()[15].into(),
    }
}

fn chosen(machine: usize, which: &[bool; ADDRESSES]) -> Vec<String> {
    let numbers = (0..ADDRESSES).filter(|number| which[*number]);
    numbers.map(|number| address(machine, number)).collect()
}

impl World {
    pub fn system_identifier(&self, machine: usize) -> i64 {
        match self.machines[machine].fault {
            Some(Fault::CoordinatorItself | Fault::CoordinatorsStandby) => COORDINATOR_ID,
            _ if machine > 0 && self.machines[machine].is_copy => {
                self.system_identifier(machine - 1)
            }
            _ => server(machine as i64).system_identifier,
        }
    }

    pub fn nodeid(machine: usize) -> i32 {
        machine as i32 + 2
    }

    fn server(&self, number: usize) -> Server {
        let machine = &self.machines[number];
        let mut it = match machine.row {
            Some(_) => member(number as i64, row(Self::nodeid(number), "").groupid),
            None => server(number as i64),
        };
        it.system_identifier = self.system_identifier(number);
        let membership = it.membership.as_mut().unwrap();
        membership.coordinator = Some(format!("{}:5432", self.own_host));
        match machine.fault {
            None | Some(Fault::CoordinatorItself) => {}
            Some(Fault::Recovering | Fault::CoordinatorsStandby) => it.in_recovery = true,
            Some(Fault::OtherMajor) => it.version_num = 160_010,
            Some(Fault::NoCitus) => (it.citus, it.membership) = (ExtensionState::default(), None),
            Some(Fault::OtherCitus) => it.citus.installed = Some("13.1-1".into()),
            Some(Fault::NoVector) => it.vector = ExtensionState::default(),
            Some(Fault::OtherGroup) => membership.group_id = 99,
            Some(Fault::OtherCoordinator) => (membership.group_id, membership.nodes) = (0, 3),
            Some(Fault::Clash) => it.relations = vec![relation("public", "docs")],
            Some(Fault::NoPreparedTransactions) => it.max_prepared_transactions = 0,
            Some(Fault::Blank) => it.membership = server(0).membership,
        }
        it
    }

    pub fn fleet(&self) -> Fleet {
        let mut fleet = fleet().registered_as(self.own_host);
        fleet.hold = self.hold.clone();
        if let Some(host) = self.coordinator_host {
            fleet = fleet.coordinator_host(host);
        }
        let mut candidates = Vec::new();
        for (number, machine) in self.machines.iter().enumerate() {
            candidates.extend(chosen(number, &machine.listed));
            if let Some(known) = &machine.row {
                let addresses = chosen(number, &known.leads_to);
                let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
                let it = DistNode {
                    isactive: known.isactive,
                    hasmetadata: known.hasmetadata,
                    metadatasynced: known.metadatasynced,
                    ..row(Self::nodeid(number), &format!("row{number}"))
                };
                fleet = fleet.row(it, &addresses);
            }
            fleet = self.probe(fleet, number, machine);
        }
        let mut order: Vec<usize> = (0..candidates.len()).collect();
        order.sort_by_key(|position| self.order.get(*position));
        for position in order {
            fleet = fleet.candidate(&candidates[position]);
        }
        if !self.has_citus {
            fleet.coordinator.citus = None;
        }
        fleet
    }

    /// What the addresses of a machine answer, of those that somebody has a reason to ask.
    fn probe(&self, mut fleet: Fleet, number: usize, machine: &Machine) -> Fleet {
        for nth in 0..ADDRESSES {
            let of_row = machine.row.as_ref().is_some_and(|row| row.leads_to[nth]);
            if !machine.listed[nth] && !of_row {
                continue;
            }
            let here = address(number, nth);
            if let Some(seconds) = machine.retry_in {
                let retry_at = Duration::from_secs(NOW.saturating_add_signed(seconds));
                fleet = fleet.refused_by_citus(&here, retry_at);
            }
            fleet = match machine.is_up {
                true => fleet.answer(&here, self.server(number)),
                false => fleet.failing(&here, LoginFailureKind::Timeout),
            };
            fleet = fleet.aged(&here, machine.age as f64);
            if let Some((own, next)) = &machine.named {
                let mut leads_to = chosen(number, own);
                leads_to.extend(next.then(|| address((number + 1) % self.machines.len(), 0)));
                let leads_to: Vec<&str> = leads_to.iter().map(String::as_str).collect();
                if leads_to.contains(&here.as_str()) {
                    fleet = fleet.naming(&here, &format!("name{number}"), &leads_to);
                }
            }
        }
        fleet
    }
}

fn fault() -> impl Strategy<Value = Fault> {
    use Fault::*;
    prop::sample::select(vec![
        Recovering,
        CoordinatorItself,
        CoordinatorsStandby,
        OtherMajor,
        NoCitus,
        OtherCitus,
        NoVector,
        OtherGroup,
        OtherCoordinator,
        Clash,
        NoPreparedTransactions,
        Blank,
    ])
}

fn known() -> impl Strategy<Value = Row> {
    let leads_to = prop_oneof![
        4 => any::<[bool; ADDRESSES]>(),
        1 => Just([false; ADDRESSES]),
    ];
    let often = || prop::bool::weighted(0.93);
    (often(), often(), often(), leads_to).prop_map(
        |(isactive, hasmetadata, metadatasynced, leads_to)| Row {
            isactive,
            hasmetadata,
            metadatasynced,
            leads_to,
        },
    )
}

fn machine() -> impl Strategy<Value = Machine> {
    (
        prop::bool::weighted(0.9),
        prop::option::weighted(0.25, fault()),
        prop::bool::weighted(0.1),
        any::<[bool; ADDRESSES]>(),
        prop::option::weighted(0.25, known()),
        prop_oneof![4 => 0..=10u64, 1 => 9..13u64],
        prop::option::weighted(0.15, -2..=2i64),
        prop::option::weighted(0.3, (any::<[bool; ADDRESSES]>(), prop::bool::weighted(0.2))),
    )
        .prop_map(|(is_up, mut fault, is_copy, listed, row, age, retry_in, named)| {
            // Half of what is wrong with a worker keeps everything from joining: less of it.
            if row.is_some() && age % 3 > 0 {
                fault = None;
            }
            Machine {
                is_up: is_up || (row.is_some() && age % 2 > 0),
                fault,
                is_copy,
                listed,
                row,
                age,
                retry_in,
                named,
            }
        })
}

pub fn world() -> impl Strategy<Value = World> {
    (
        prop::collection::vec(machine(), 1..7),
        prop::collection::vec(any::<u16>(), 7 * ADDRESSES),
        prop_oneof![8 => Just(None), 1 => Just(Some(Hold::Paused)), 1 => Just(Some(Hold::Disabled))],
        prop::bool::weighted(0.93),
        prop_oneof![4 => Just("coord"), 1 => Just("localhost")],
        prop_oneof![3 => Just(None), 1 => Just(Some("coord"))],
    )
        .prop_map(
            |(machines, order, hold, has_citus, own_host, coordinator_host)| World {
                machines,
                order,
                hold,
                has_citus,
                own_host,
                coordinator_host,
            },
        )
}
