//! The nemesis: a seeded sequence of everything that can happen to servers, their addresses and DNS, while
//! clients write; then an operator who follows the remedies, and a checker who goes through the history.
//! NEMESIS_SEED and NEMESIS_STEPS choose another sequence than the one of `make test`.

use crate::nemesis_checker::check;
use crate::nemesis_operator::end;
use crate::nemesis_world::World;
use crate::suite::{Test, suite};
use citus_fleet_tests::history::Client;
use citus_fleet_tests::{Need, until};
use std::time::Duration;

pub fn suite() -> Vec<Test> {
    suite!("nemesis", &[Need::Fleet, Need::Citus, Need::Vector];
        every_acknowledged_row_is_there_or_its_loss_was_measured,
    )
}

/// The sequence of `make test`, which fits into a minute.
const SEED: u64 = 3;
const STEPS: u64 = 10;

fn given(name: &str, otherwise: u64) -> u64 {
    let text = std::env::var(name);
    text.map_or(otherwise, |text| {
        text.parse().unwrap_or_else(|_| panic!("{name}={text}: no number"))
    })
}

/// Says how to have it once more, whatever ends it.
struct Told(u64, u64);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("nemesis: failed with NEMESIS_SEED={} NEMESIS_STEPS={}", self.0, self.1);
        }
    }
}

fn every_acknowledged_row_is_there_or_its_loss_was_measured() {
    let (seed, steps) = (given("NEMESIS_SEED", SEED), given("NEMESIS_STEPS", STEPS));
    let _told = Told(seed, steps);
    println!("nemesis: NEMESIS_SEED={seed} NEMESIS_STEPS={steps}");
    let (mut world, clients) = World::start(seed);
    wait_for_rows(&world, &clients);
    let mut done = 0;
    while done < steps {
        if let Some(what) = world.step() {
            done += 1;
            world.say(&format!("step {done}: {what}"));
            let pause = world.random.below(2000) as u64;
            std::thread::sleep(Duration::from_millis(pause));
        }
    }
    if let Err(stuck) = end(&mut world) {
        show(&world);
        panic!("nemesis {seed}: {stuck}");
    }
    let rows: Vec<_> = (0..world.nodes.len()).map(|group| world.row(group)).collect();
    world.say(&format!("every worker is active: {rows:?}"));
    wait_for_rows(&world, &clients);
    let histories: Vec<_> = clients.into_iter().map(Client::finish).collect();
    let wrong = check(&world, &histories);
    if !wrong.is_empty() {
        show(&world);
        panic!("nemesis {seed}:\n  {}", wrong.join("\n  "));
    }
    world.say("all is well");
}

/// Waits until every client has had rows in that it has begun to insert since.
#[track_caller]
fn wait_for_rows(world: &World, clients: &[Client]) {
    for (node, client) in world.nodes.iter().zip(clients) {
        let wanted = client.acknowledged() + 20;
        until(&format!("rows get to node {node}"), Duration::from_secs(60), || {
            match client.acknowledged() {
                now if now >= wanted => Ok(()),
                now => Err(format!("{now} of {wanted}, {}", client.last_error())),
            }
        });
    }
}

/// What an operator would look at, for the log of a failure.
fn show(world: &World) {
    for sql in [
        "SELECT nodeid, groupid, nodename, isactive, metadatasynced FROM pg_dist_node",
        "SELECT nodename, address, nodeid, state, code, reason FROM fleet.workers",
        "SELECT nodeid, timeline, history, position, mark_position, rival, lost_wal FROM fleet.identities",
        "SELECT id, extract(epoch FROM at) AS at, nodename, nodeid, event, code, detail FROM fleet.events
         ORDER BY id",
    ] {
        println!("{sql}");
        for row in world.cluster.coordinator.try_rows(sql).unwrap_or_default() {
            println!("  {row:?}");
        }
    }
}
