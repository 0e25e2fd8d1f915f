//! Owns what SQL sees of vector-shard health: who may ask, and JSON for the views.
//! Must not judge: `decide::vector` does.

use crate::backend::catalog::read_one;
use crate::error::Error;
use crate::observe::vector::{collect, node};
use crate::settings;
use decide::search::vector::fleet::Fleet;
use decide::search::vector::rows::Judged;
use decide::search::vector::sources::Sources;
use decide::search::vector::{checks, health, progress, told};
use serde_json::{Value, json};

/// The answer of `fleet.vector_evidence()`.
pub fn evidence() -> Result<Value, Error> {
    Ok(serde_json::to_value(node::collect()?)?)
}

/// Collects the evidence of all nodes once, judges it, and gives the rows of one view: `shards`,
/// `indexes`, `tables`, `nodes`, `recalls`, `findings` or `progress`; or `all` that the page and the metrics are
/// made of, of one moment: without the indexes, which are half of everything.
pub fn rows(view: &str) -> Result<Value, Error> {
    let collected = collect::collect(settings::health_timeout())?;
    let fleet = Fleet::new(sources(&collected), settings::health_thresholds());
    let found = checks::run(&fleet);
    let judged = Judged::new(&fleet, &found);
    Ok(match view {
        "shards" => json!(judged.shards()),
        "indexes" => json!(judged.indexes()),
        "tables" => json!(judged.tables()),
        "nodes" => json!(judged.nodes()),
        "recalls" => json!(judged.recalls()),
        "findings" => json!(told::rows(&found)),
        "progress" => json!(progress::rows(&fleet)),
        "all" => json!({
            "observed_at": fleet.observed_at,
            "health": health::report(&fleet, &found, false),
            "shards": judged.shards(),
            "tables": judged.tables(),
            "nodes": judged.nodes(),
            "progress": progress::rows(&fleet),
            "recall": judged.recalls(),
            "findings": told::counts(&found),
            "silences": told::silences(&fleet, &found),
        }),
        other => return Err(Error::NoSuchView(other.to_owned())),
    })
}

/// The answer of `fleet.vector_health()`.
pub fn health(verbose: bool) -> Result<Value, Error> {
    let collected = collect::collect(settings::health_timeout())?;
    let fleet = Fleet::new(sources(&collected), settings::health_thresholds());
    let mut report = health::report(&fleet, &checks::run(&fleet), verbose);
    // For people and for casts to timestamptz, as PostgreSQL writes it in JSON.
    let observed_at: Option<String> = read_one(
        "SELECT pg_catalog.to_json(pg_catalog.to_timestamp($1)) OPERATOR(pg_catalog.#>>) '{}'",
        &[fleet.observed_at.into()],
    )?;
    report["observed_at"] = json!(observed_at);
    Ok(report)
}

fn sources(collected: &collect::Collected) -> Sources<'_> {
    Sources {
        own_port: collected.own_port,
        own: &collected.own,
        catalogs: collected.catalogs.as_ref(),
        answers: &collected.answers,
        recalls: &collected.recalls,
        silences: &collected.silences,
    }
}
