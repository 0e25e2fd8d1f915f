//! Owns what an operator does when the nemesis has ended: starts what there is, and follows the remedies
//! that the fleet shows until every worker is in order.
//! Must not do anything that no remedy says, and nothing before the fleet has had its time.

use crate::nemesis_member::Condition;
use crate::nemesis_world::World;
use citus_fleet_tests::server::{Row, Session};
use citus_fleet_tests::{Behaviour, Server, Shutdown, until};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How long a code that needs hands is watched before there are any: longer than a server has to be
/// silent before its row may follow another.
const REFLECTION: Duration = Duration::from_secs(7);
/// How long anything else may take to end by itself: the longest pause between attempts, and a change.
const BY_ITSELF: Duration = Duration::from_secs(100);
/// How long everything has to be in order before it counts: what is shown may be a cycle old.
const STEADY: Duration = Duration::from_secs(4);
/// For everything, the operator's work included.
const WHOLE: Duration = Duration::from_secs(300);

/// Heals everything and plays the operator; `Err` says what did not end.
pub fn end(world: &mut World) -> Result<(), String> {
    heal(world);
    let hands = needing_hands(&world.cluster.coordinator);
    let started = Instant::now();
    let mut standing: Vec<Option<(String, Instant)>> = vec![None; world.nodes.len()];
    let mut refusals = vec![0; world.nodes.len()];
    let mut in_order: Option<Instant> = None;
    loop {
        let mut all_active = true;
        for group in 0..world.nodes.len() {
            let Ok(row) = shown(world, group) else {
                all_active = false;
                continue;
            };
            let code = format!("{} {}", &row["state"], &row["code"]);
            if &row["state"] == "active" && &row["code"] != "out_of_sync" {
                standing[group] = None;
                continue;
            }
            all_active = false;
            let since = match &standing[group] {
                Some((known, since)) if *known == code => *since,
                _ => {
                    world
                        .say(&format!("node {} is {code}: {}", world.nodes[group], &row["reason"]));
                    standing[group] = Some((code.clone(), Instant::now()));
                    continue;
                }
            };
            if hands.contains(&row["code"]) && since.elapsed() >= REFLECTION {
                decide(world, group, &row, &mut refusals[group])?;
                standing[group] = None;
            } else if since.elapsed() >= BY_ITSELF {
                return Err(format!("node {} stays {code}: {row:?}", world.nodes[group]));
            }
        }
        if !all_active {
            in_order = None;
        } else if in_order.get_or_insert_with(Instant::now).elapsed() >= STEADY {
            return Ok(());
        }
        if started.elapsed() >= WHOLE {
            return Err(format!("not everything is active after {WHOLE:?}: {standing:?}"));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn heal(world: &mut World) {
    world.cluster.dns.behave(Behaviour::Answer);
    world.announce();
    if let Some(copy) = world.copy.take() {
        copy.stop(Shutdown::Immediate);
    }
    for at in 0..world.members.len() {
        let member = &mut world.members[at];
        member.cut(false);
        match member.condition {
            Condition::Up => {}
            Condition::Frozen => member.thaw(),
            Condition::Down => member.begin(),
        }
    }
    until("the coordinator answers", Duration::from_secs(60), || {
        world.cluster.coordinator.try_value("SELECT fleet.status()->>'cycles'").map(drop)
    });
    world.say("healed: DNS answers, and every server runs");
}

fn needing_hands(coordinator: &Server) -> BTreeSet<String> {
    let rows = coordinator.rows("SELECT code FROM fleet.situations() WHERE needs_hands");
    rows.iter().map(|row| row["code"].to_string()).collect()
}

fn shown(world: &World, group: usize) -> Result<Row, String> {
    let sql = format!("SELECT * FROM fleet.workers WHERE nodeid = {}", world.nodes[group]);
    let mut rows = world.cluster.coordinator.try_rows(&sql).map_err(|error| error.to_string())?;
    rows.pop().ok_or_else(|| "it is not shown".to_owned())
}

/// Keeps the server that has most rows, stops whoever else writes, and gives the fleet the word.
fn decide(world: &mut World, group: usize, row: &Row, refused: &mut u32) -> Result<(), String> {
    let node = world.nodes[group].clone();
    world.say(&format!(
        "operator: node {node}, {}: {} / {}",
        &row["code"], &row["reason"], &row["remedy"]
    ));
    let writes = |at: &usize| {
        let it = &world.members[*at];
        it.group == group
            && it.condition == Condition::Up
            && it.server.try_value("SELECT pg_is_in_recovery()").is_ok_and(|text| text == "f")
    };
    let writers: Vec<usize> = (0..world.members.len()).filter(writes).collect();
    let keys: Vec<(BTreeSet<u64>, usize)> =
        writers.iter().map(|&at| (keys_of(&world.members[at].server), at)).collect();
    let Some((theirs, kept)) = keys.iter().max_by_key(|(keys, _)| keys.len()) else {
        return Err(format!(
            "node {node}: no server of it writes, and none may be promoted: {row:?}"
        ));
    };
    let (rows, kept) = (theirs.len(), *kept);
    for (fewer, at) in keys.iter().filter(|(_, at)| *at != kept) {
        let (at, given_up) = (*at, fewer.difference(theirs));
        world.given_up[group].extend(given_up);
        let fewer = fewer.len();
        world.say(&format!("operator: stops {}, which has {fewer} rows", world.name(at)));
        world.members[at].stop(Shutdown::Immediate);
    }
    world.say(&format!("operator: keeps {}, which has {rows} rows", world.name(kept)));
    let (name, port) = (&row["nodename"], &row["nodeport"]);
    let accept = |force: bool| {
        let sql = format!("SELECT fleet.accept_server('{name}', {port}, {force})");
        world.cluster.coordinator.try_rows(&sql).map(drop)
    };
    let waited = Instant::now();
    // Whoever was stopped may have been the hindrance.
    while waited.elapsed() < REFLECTION {
        if shown(world, group).is_ok_and(|row| &row["state"] == "active") {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    match accept(*refused >= 2) {
        Ok(()) => world.say(&format!("operator: node {node} accepted")),
        Err(error) => {
            *refused += 1;
            world.say(&format!("operator: node {node} not accepted: {error}"));
            if *refused > 5 {
                return Err(format!("node {node}: fleet.accept_server does not help: {error}"));
            }
        }
    }
    Ok(())
}

/// The keys of the table that are in the shards that a server has.
fn keys_of(server: &Server) -> BTreeSet<u64> {
    let read = || -> Option<BTreeSet<u64>> {
        let mut session: Session = server.try_session("postgres", "postgres").ok()?;
        let shards = session
            .try_rows(
                "SET citus.override_table_visibility = off;
                 SELECT relname FROM pg_class WHERE relname ~ '^items_[0-9]+$' AND relkind = 'r'",
            )
            .ok()?;
        let mut keys = BTreeSet::new();
        for shard in shards {
            let rows =
                session.try_rows(&format!("SELECT id FROM public.{}", &shard["relname"])).ok()?;
            keys.extend(rows.iter().filter_map(|row| row.first().parse::<u64>().ok()));
        }
        Some(keys)
    };
    read().unwrap_or_default()
}
