//! citus_fleet: finds, checks, registers and follows the workers of a Citus cluster.
//!
//! observe → decide → apply: `observe` looks and changes nothing, `decide` is pure, `apply` alone
//! writes Citus's metadata, `worker` runs the three in a loop, `sql_api` is what SQL sees of it.

mod apply;
mod backend;
mod board;
mod error;
mod http;
mod metrics;
mod net;
mod observe;
mod recall_results;
mod sampler;
mod session;
mod settings;
mod silences;
mod sql_api;
mod worker;

use pgrx::prelude::*;

pgrx::pg_module_magic!(name, version);

extension_sql_file!("../sql/tables.sql", name = "tables", requires = [sql_api::fleet]);
extension_sql_file!(
    "../sql/views.sql",
    name = "views",
    requires = ["tables", sql_api::fleet::snapshot]
);
extension_sql_file!("../sql/recall.sql", name = "recall", requires = ["tables"]);
extension_sql_file!(
    "../sql/vector.sql",
    name = "vector",
    requires = ["tables", sql_api::fleet::vector_evidence, sql_api::fleet::vector_rows]
);
extension_sql_file!("../sql/silences.sql", name = "silences", requires = ["tables"]);
extension_sql_file!(
    "../sql/comments.sql",
    name = "comments",
    requires = [
        "views",
        "vector",
        "recall",
        "silences",
        sql_api::pg_catalog::citus_autoregister,
        sql_api::fleet::metrics,
        sql_api::fleet::vector_health,
        sql_api::fleet::status,
        sql_api::fleet::situations,
        sql_api::fleet::doctor,
        sql_api::fleet::pause,
        sql_api::fleet::resume,
        sql_api::fleet::remove_worker,
        sql_api::fleet::enroll_worker,
        sql_api::fleet::accept_server,
        sql_api::recall::fleet::vector_recall,
        sql_api::recall::fleet::shard_recall,
        sql_api::silence::fleet::silence,
        sql_api::silence::fleet::unsilence,
        sql_api::search_options::fleet::set_search_option,
        sql_api::search_options::fleet::check_search_option
    ]
);
extension_sql_file!("../sql/grants.sql", name = "grants", finalize);

/// Called by the server when it loads the library: by the postmaster where the library is in
/// `shared_preload_libraries`, which gives it shared memory and the controller; else by a session,
/// as on a worker on which Citus creates the extension, where only the settings are defined.
#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    // SAFETY: a flag of the server that only the server sets.
    let preloaded = unsafe { pg_sys::process_shared_preload_libraries_in_progress };
    settings::define(preloaded);
    if preloaded {
        board::reserve();
    }
    // Nothing may be connected to a server that pg_upgrade works on, nor change it.
    // SAFETY: a flag of the postmaster's command line.
    if preloaded && !unsafe { pg_sys::IsBinaryUpgrade } {
        worker::register::controller();
        http::worker::register();
    }
}

#[cfg(test)]
pub mod pg_test {
    //! What pgrx's test framework needs to know to start a server with the extension in it.

    pub fn setup(_options: Vec<&str>) {}

    pub fn postgresql_conf_options() -> Vec<&'static str> {
        vec!["shared_preload_libraries = 'citus_fleet'"]
    }
}
