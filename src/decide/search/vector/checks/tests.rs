//! Owns the tests of the checks: a healthy cluster of three nodes, and for each check what has to
//! change for it to say something.

mod cases;
mod world;

use super::*;
use crate::condition::Condition;
use crate::login::LoginFailureKind;
use crate::search::vector::health::report;
use std::collections::BTreeSet;
use world::World;

#[test]
fn a_healthy_cluster_has_no_findings() {
    let world = World::new();
    let found: Vec<_> = run(&world.fleet()).iter().map(|one| one.finding.symptom.clone()).collect();
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn every_check_says_something_when_it_should() {
    let mut seen = BTreeSet::new();
    for (id, status, change) in cases::CASES {
        let mut world = World::new();
        change(&mut world);
        let found = run(&world.fleet());
        let about: Vec<&Found> = found.iter().filter(|one| one.check.id == *id).collect();
        let worst = about.iter().map(|one| one.finding.status).max();
        assert_eq!(worst, Some(*status), "{id}: {:?}", symptoms(&found));
        seen.insert(*id);
    }
    let all: BTreeSet<&str> = CHECKS.iter().map(|check| check.id).collect();
    assert_eq!(seen, all, "a check without a case, or a case without a check");
}

#[test]
fn near_misses_are_left_alone() {
    for (id, change) in cases::NEAR_MISSES {
        let mut world = World::new();
        change(&mut world);
        let found = run(&world.fleet());
        let about: Vec<&Found> = found
            .iter()
            .filter(|one| one.check.id == *id && one.finding.status != Condition::Green)
            .collect();
        assert!(
            about.is_empty(),
            "{id}: {:?}",
            about.iter().map(|one| &one.finding.symptom).collect::<Vec<_>>()
        );
    }
}

fn symptoms(found: &[Found]) -> Vec<String> {
    found.iter().map(|one| format!("{}: {}", one.check.id, one.finding.symptom)).collect()
}

#[test]
fn the_same_evidence_gives_the_same_findings() {
    for (_, _, change) in cases::CASES {
        let mut world = World::new();
        change(&mut world);
        assert_eq!(symptoms(&run(&world.fleet())), symptoms(&run(&world.fleet())));
    }
}

#[test]
fn one_build_that_is_too_much_is_given_less() {
    let mut world = World::new();
    cases::set(&mut world, "maintenance_work_mem", 100 << 30);
    let found = run(&world.fleet());
    let one = found.into_iter().find(|one| one.check.id == "build_oom").unwrap();
    let remedy = one.finding.remedy.unwrap();
    assert_eq!(remedy.run_on, "w1:5432");
    assert_eq!(remedy.sql[0], "ALTER SYSTEM SET maintenance_work_mem = '16384MB'");
}

#[test]
fn what_all_shards_have_is_mended_from_the_coordinator() {
    let remedy = |world: &World| {
        let found = run(&world.fleet());
        let one = found.into_iter().find(|one| one.check.id == "dead_tuples").unwrap();
        one.finding.remedy.unwrap()
    };
    let mut world = World::new();
    world.shard(0).dead = 30_000;
    let alone = remedy(&world);
    assert_eq!(alone.run_on, "w1:5432");
    assert_eq!(
        alone.sql,
        ["REINDEX INDEX CONCURRENTLY public.items_v_idx_100", "VACUUM public.items_100"]
    );
    world.shard(1).dead = 30_000;
    let together = remedy(&world);
    assert_eq!(together.run_on, "coordinator");
    assert_eq!(
        together.sql,
        ["REINDEX INDEX CONCURRENTLY public.items_v_idx", "VACUUM public.items"]
    );
}

/// What no statement mends is one thing for each that it is about.
#[test]
fn two_nodes_that_are_down_are_two_diagnoses() {
    let mut world = World::new();
    world.silence(1, LoginFailureKind::Timeout);
    world.silence(2, LoginFailureKind::Timeout);
    let fleet = world.fleet();
    let report = report(&fleet, &run(&fleet), false);
    let diagnoses = report["indicators"]["nodes"]["diagnosis"].as_array().unwrap();
    let about = |one: &serde_json::Value| one["affected_resources"]["nodes"].clone();
    let down = diagnoses.iter().filter(|one| one["id"] == "node_unreachable");
    let down: Vec<_> = down.map(about).collect();
    assert_eq!(down, [serde_json::json!(["w1:5432"]), serde_json::json!(["w2:5432"])]);
}

#[test]
fn every_check_belongs_to_an_indicator_and_is_described() {
    let indicators: Vec<&str> = INDICATORS.iter().map(|(name, _)| *name).collect();
    let mut ids = BTreeSet::new();
    for check in CHECKS {
        assert!(indicators.contains(&check.indicator), "{}", check.id);
        assert!(ids.insert(check.id), "{} is there twice", check.id);
        for text in [check.impact, check.cause, check.action] {
            assert!(text.ends_with('.'), "{}: {text}", check.id);
        }
    }
}

/// docs/vector-health.md has one section for each check, with what the code says of it.
#[test]
fn the_document_and_the_code_agree() {
    let document = include_str!("../../../../../docs/vector-health.md");
    let sections: BTreeSet<&str> =
        document.lines().filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`')).collect();
    let ids: BTreeSet<&str> = CHECKS.iter().map(|check| check.id).collect();
    assert_eq!(sections, ids);
    for check in CHECKS {
        for text in [check.impact, check.cause, check.action] {
            assert!(document.contains(text), "{}: the document does not say: {text}", check.id);
        }
    }
}

#[test]
fn low_recall_is_mended_by_more_effort_and_then_by_a_better_index() {
    let remedy = |settings: &str| {
        let mut world = World::new();
        world.measure(0.5, 0.6).settings = settings.into();
        // The node has the settings that it was measured by.
        let now = settings.split_once('=').unwrap().1.to_owned();
        world.worker(1).settings.get_mut("hnsw.ef_search").unwrap().value = now;
        let found = run(&world.fleet());
        let low = found.into_iter().find(|one| one.check.id == "recall_low").unwrap();
        low.finding.remedy.unwrap()
    };
    let harder = remedy("hnsw.ef_search=600");
    assert_eq!(harder.run_on, "coordinator");
    assert_eq!(
        harder.sql,
        [
            "SELECT fleet.set_search_option('hnsw.ef_search', '1000')",
            "SELECT * FROM fleet.vector_recall('public.items')"
        ]
    );
    let better = remedy("hnsw.ef_search=1000");
    assert_eq!(better.run_on, "w1:5432");
    assert_eq!(better.sql, ["REINDEX INDEX CONCURRENTLY public.items_v_idx_100"]);
}
