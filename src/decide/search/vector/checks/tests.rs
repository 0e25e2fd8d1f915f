//! Owns the tests of the checks: a healthy cluster of three nodes, and for each check what has to
//! change for it to say something.

mod cases;
mod near_misses;
mod world;

use super::*;
use crate::condition::Condition;
use crate::login::LoginFailureKind;
use crate::search::vector::finding::Remedy;
use crate::search::vector::health::report;
use crate::search::vector::model::{NodeEvidence, RecallResult, RoleSetting};
use crate::search::vector::rows::Judged;
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
    for (id, change) in near_misses::NEAR_MISSES {
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

fn only(world: &World, check: &str) -> Vec<Finding> {
    let found = run(&world.fleet());
    found.into_iter().filter(|one| one.check.id == check).map(|one| one.finding).collect()
}

#[test]
fn low_recall_is_mended_by_more_effort_and_then_by_a_better_index() {
    let remedy = |settings: &str| {
        let mut world = World::new();
        world.recalls_of_items(|it| (it.recall, it.settings) = (0.5, settings.into()));
        // The nodes have the settings that it was measured by.
        let now = settings.split_once('=').unwrap().1.to_owned();
        for worker in [1, 2] {
            world.worker(worker).settings.get_mut("hnsw.ef_search").unwrap().value = now.clone();
        }
        let [low] = &only(&world, "recall_low")[..] else { panic!("one finding") };
        low.remedy.clone().unwrap()
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
    assert_eq!(better.run_on, "coordinator");
    assert_eq!(better.sql, ["REINDEX INDEX CONCURRENTLY public.items_v_idx"]);
}

/// What is wrong with one shard is not mended by more effort for all.
#[test]
fn one_bad_graph_is_rebuilt() {
    let mut world = World::new();
    world.recall(0).recall = 0.3;
    let [low] = &only(&world, "recall_low")[..] else { panic!("one finding") };
    assert_eq!(low.subject.shardid, Some(100));
    let remedy = low.remedy.clone().unwrap();
    assert_eq!(remedy.run_on, "w1:5432");
    assert_eq!(remedy.sql, ["REINDEX INDEX CONCURRENTLY public.items_v_idx_100"]);
}

/// Of two thousand shards whose searches all reach the target, some measure less by chance.
#[test]
fn chance_is_no_finding() {
    let mut world = World::new();
    let sample = world.recalls[0].clone();
    for shard in 1000..3000 {
        world.add_shard(shard);
        // The middle of 100 queries of deviation 0.15 lies within 3.5 standard errors.
        let off = 0.015 * 3.5 * f64::from(shard as u32 % 21) / 10.0 - 0.0525;
        let (placement, index) = (format!("public.items_{shard}"), format!("items_v_idx_{shard}"));
        let (recall, deviation) = (0.9 + off, 0.15);
        let one = RecallResult { placement, index, recall, deviation, ..sample.clone() };
        world.recalls.push(one);
    }
    let low = only(&world, "recall_low");
    assert_eq!(low.iter().map(|one| &one.symptom).collect::<Vec<_>>(), Vec::<&String>::new());
}

#[test]
fn what_is_silenced_worsens_nothing_and_is_still_told() {
    let mut world = World::new();
    world.tables(|table| table.indexes.clear());
    let silence = Silence {
        check: "index_missing".into(),
        table_name: Some("public.items".into()),
        relations: vec!["public.items".into()],
        why: "exact search".into(),
        silenced_by: "ann".into(),
        ..Silence::default()
    };
    world.silences = vec![silence];
    let fleet = world.fleet();
    let found = run(&fleet);
    let short = report(&fleet, &found, false);
    assert_eq!(short["status"], "green", "{short:#}");
    assert_eq!(
        (&short["silenced"], short["indicators"]["indexes"]["diagnosis"].as_array().map(Vec::len)),
        (&serde_json::json!(2), Some(0))
    );
    let long = report(&fleet, &found, true);
    let diagnosis = &long["indicators"]["indexes"]["diagnosis"][0];
    assert_eq!(diagnosis["silenced"]["by"], "ann", "{diagnosis:#}");
    let judged = Judged::new(&fleet, &found);
    let green = serde_json::json!(judged.tables());
    assert_eq!(
        (&green[0]["status"], &green[0]["findings"]),
        (&"green".into(), &serde_json::json!([]))
    );
    // Of another table it says nothing.
    world.silences[0].relations = vec!["public.tags".into()];
    let fleet = world.fleet();
    assert_eq!(report(&fleet, &run(&fleet), false)["status"], "yellow");
}

/// What is wrong with a table as a whole is wrong with each of its placements.
#[test]
fn a_finding_about_a_table_reaches_its_shards() {
    let mut world = World::new();
    world.shell().indexes[0].valid = false;
    let fleet = world.fleet();
    let found = run(&fleet);
    let shards = serde_json::json!(Judged::new(&fleet, &found).shards());
    assert_eq!(shards[0]["findings"], serde_json::json!(["shell_invalid"]), "{shards:#}");
}

/// What all nodes have is reset from the coordinator, whence Citus takes it to all; else where it is.
#[test]
fn settings_of_a_role_are_reset_where_they_are() {
    let give = |node: &mut NodeEvidence| {
        node.role_settings.push(RoleSetting {
            role: "app".into(),
            in_database: true,
            name: "hnsw.ef_search".into(),
            value: "1".into(),
        });
    };
    let reset = "ALTER ROLE app IN DATABASE postgres RESET hnsw.ef_search";
    let mut world = World::new();
    world.nodes(give);
    let [everywhere] = &only(&world, "role_settings")[..] else { panic!("one finding") };
    assert_eq!(everywhere.remedy, Some(Remedy::on_coordinator(reset)));
    let mut world = World::new();
    give(world.worker(1));
    let [alone] = &only(&world, "role_settings")[..] else { panic!("one finding") };
    let remedy = alone.remedy.clone().unwrap();
    assert_eq!(remedy.run_on, "w1:5432");
    assert_eq!(remedy.sql, ["SET citus.enable_alter_role_set_propagation = off", reset]);
}
