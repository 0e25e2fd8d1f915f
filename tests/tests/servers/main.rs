//! Runs the suites against real servers. `cargo test -p citus_fleet_tests -- NAME` filters, `--list`
//! lists; what a machine lacks is reported as ignored, by name and with the reason.

mod allowed;
mod clones;
mod commands;
mod compose;
mod controller;
mod discovery;
mod field;
mod field_coordinators;
mod field_servers;
mod hanging;
mod harness;
mod holders;
mod hostile;
mod http;
mod http_size;
mod kubernetes_cluster;
mod kubernetes_ha;
mod kubernetes_manifests;
mod kubernetes_simple;
mod lifecycle;
mod lifecycle_absence;
mod lifecycle_failover;
mod lifecycle_faults;
mod nemesis;
mod nemesis_checker;
mod nemesis_member;
mod nemesis_operator;
mod nemesis_world;
mod odd;
mod patroni;
mod preflight;
mod probe;
mod rebalance;
mod registration;
mod removal;
mod removal_faults;
mod resolver;
mod search_options;
mod settings;
mod silences;
mod size;
mod sql_surface;
mod stopping;
mod strangers;
mod strangers_computing;
mod suite;
mod truth;
mod truth_builds;
mod truth_columns;
mod truth_healthy;
mod truth_indexes;
mod truth_lists;
mod truth_memory;
mod truth_nodes;
mod truth_recall;
mod truth_settings;
mod truth_shared_memory;
mod truth_spread;
mod truth_upkeep;
mod upgrades;
mod vector_cluster;
mod vector_indexes;
mod vector_kinds;
mod vector_recall;
mod vector_recall_figures;
mod vector_recall_schedule;
mod vector_upkeep;
mod vector_views;
mod without_citus;

use libtest_mimic::Arguments;

/// Each test starts servers of its own: more at once only makes all of them late on small machines.
const THREADS: usize = 3;

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    std::panic::set_hook(Box::new(suite::report_panic));
    let suites = [
        harness::suite(),
        discovery::suite(),
        field::suite(),
        field_coordinators::suite(),
        field_servers::suite(),
        nemesis::suite(),
        resolver::suite(),
        probe::suite(),
        registration::suite(),
        commands::suite(),
        preflight::suite(),
        silences::suite(),
        size::suite(),
        allowed::suite(),
        controller::suite(),
        stopping::suite(),
        strangers::suite(),
        strangers_computing::suite(),
        sql_surface::suite(),
        settings::suite(),
        hostile::suite(),
        odd::suite(),
        hanging::suite(),
        holders::suite(),
        removal_faults::suite(),
        clones::suite(),
        upgrades::suite(),
        http::suite(),
        http_size::suite(),
        lifecycle::suite(),
        lifecycle_failover::suite(),
        lifecycle_absence::suite(),
        lifecycle_faults::suite(),
        removal::suite(),
        rebalance::suite(),
        patroni::suite(),
        truth::suite(),
        vector_indexes::suite(),
        vector_upkeep::suite(),
        vector_cluster::suite(),
        vector_views::suite(),
        vector_kinds::suite(),
        vector_recall::suite(),
        vector_recall_figures::suite(),
        vector_recall_schedule::suite(),
        search_options::suite(),
        kubernetes_manifests::suite(),
        kubernetes_ha::suite(),
        kubernetes_simple::suite(),
        kubernetes_cluster::suite(),
        without_citus::suite(),
        compose::suite(),
    ];
    let trials = suites.into_iter().flatten().map(suite::Test::trial).collect();
    // exit() runs the harness's clean-up, as every other end of the process does.
    libtest_mimic::run(&arguments, trials).exit();
}
