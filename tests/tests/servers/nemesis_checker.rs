//! Owns the judgement after the nemesis: what the clients were promised, what there is, and what the
//! fleet has said of the difference.
//! Must not change anything.

use crate::nemesis_world::World;
use citus_fleet_tests::history::History;
use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The event is written after the change that it is about, in a transaction of its own.
const GRACE: f64 = 3.0;

/// What the fleet has said of rows that are not there.
enum Said {
    /// So many bytes of WAL are not on the server that the row has followed.
    Lost(u64),
    /// An operator has accepted the server that there is.
    Accepted,
    /// The server there is not the one that it should be: what is read there is nobody's promise.
    Conflict,
}

struct Word {
    at: f64,
    said: Said,
}

impl Word {
    fn told(&self) -> String {
        match self.said {
            Said::Lost(bytes) => format!("; {bytes} bytes lost at {:.3}", self.at),
            Said::Accepted => format!("; accepted at {:.3}", self.at),
            Said::Conflict => format!("; conflict at {:.3}", self.at),
        }
    }

    /// Whether it may be about the loss of this key: it came after the key was in, and an operator's word
    /// covers no more than what only the servers had that were given up.
    fn counts(&self, key: u64, written: f64, given_up: &BTreeSet<u64>) -> bool {
        let covers = match self.said {
            Said::Lost(_) => true,
            Said::Accepted => given_up.contains(&key),
            Said::Conflict => false,
        };
        covers && self.at > written
    }

    /// Whether it may be about a read that has not found this key.
    fn counts_for_read(&self, key: u64, written: f64, read: f64, given_up: &BTreeSet<u64>) -> bool {
        let is_conflict = matches!(self.said, Said::Conflict) && self.at > written;
        (is_conflict || self.counts(key, written, given_up)) && self.at < read + GRACE
    }
}

fn seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64()
}

/// Everything that is wrong; nothing where all is well.
pub fn check(world: &World, histories: &[History]) -> Vec<String> {
    let coordinator = &world.cluster.coordinator;
    let mut wrong = Vec::new();
    let rows = coordinator.session().rows("SELECT id FROM items");
    let found: BTreeSet<u64> =
        rows.iter().map(|row| row["id"].parse().expect("a number")).collect();
    if found.len() != rows.len() {
        wrong.push(format!("{} rows with {} keys", rows.len(), found.len()));
    }
    for ((node, history), given_up) in world.nodes.iter().zip(histories).zip(&world.given_up) {
        let words = words(world, node);
        let lost: Vec<(u64, f64)> = history
            .acknowledged
            .iter()
            .filter(|(key, _)| !found.contains(key))
            .map(|(key, at)| (*key, seconds(*at)))
            .collect();
        world.say(&format!(
            "node {node}: {} rows acknowledged, {} of them lost, {} errors, {} reads missed{}",
            history.acknowledged.len(),
            lost.len(),
            history.errors,
            history.misses.len(),
            words.iter().map(Word::told).collect::<String>()
        ));
        let unmeasured: Vec<&(u64, f64)> = lost
            .iter()
            .filter(|(key, at)| !words.iter().any(|word| word.counts(*key, *at, given_up)))
            .collect();
        if let (Some(first), Some(last)) = (unmeasured.first(), unmeasured.last()) {
            wrong.push(format!(
                "node {node}: {} acknowledged rows are gone and no event has measured it, from key {} \
                 (at {:.3}) to {} (at {:.3})",
                unmeasured.len(),
                first.0,
                first.1,
                last.0,
                last.1
            ));
        }
        for miss in &history.misses {
            let (read, written) = (seconds(miss.at), seconds(history.acknowledged[&miss.key]));
            let is_told = |word: &Word| word.counts_for_read(miss.key, written, read, given_up);
            if !words.iter().any(is_told) {
                let end = if found.contains(&miss.key) { "there" } else { "gone" };
                wrong.push(format!(
                    "node {node}: key {}, written at {written:.3}, was not read at {read:.3}; it is {end} \
                     in the end",
                    miss.key
                ));
            }
        }
    }
    wrong.extend(rows_and_strangers(world));
    wrong
}

fn words(world: &World, node: &str) -> Vec<Word> {
    let sql = format!(
        "SELECT extract(epoch FROM at) AS at, event, detail->>'lost_bytes' AS bytes FROM fleet.events
         WHERE nodeid = {node} AND event IN ('followed', 'accepted', 'conflict') ORDER BY id"
    );
    let rows = world.cluster.coordinator.session().rows(&sql);
    let said = |event: &str, bytes: &str| match event {
        "accepted" => Some(Said::Accepted),
        "conflict" => Some(Said::Conflict),
        _ => bytes.parse().ok().filter(|bytes| *bytes > 0).map(Said::Lost),
    };
    rows.iter()
        .filter_map(|row| {
            let at = row["at"].parse().expect("a time");
            said(&row["event"], &row["bytes"]).map(|said| Word { at, said })
        })
        .collect()
}

fn rows_and_strangers(world: &World) -> Vec<String> {
    let mut wrong = Vec::new();
    let shared = world.cluster.coordinator.session().rows(
        "SELECT nodename, nodeport, count(*) FROM pg_dist_node GROUP BY 1, 2 HAVING count(*) > 1",
    );
    if !shared.is_empty() {
        wrong.push(format!("two rows lead to one server: {shared:?}"));
    }
    let rows = world.cluster.nodes();
    if rows.len() != world.nodes.len() {
        wrong.push(format!("{} rows instead of {}: {rows:?}", rows.len(), world.nodes.len()));
    }
    let stranger = &world.stranger;
    let theirs = stranger.try_value("SELECT string_agg(note, ' ') FROM items");
    if theirs != Ok("mine".to_owned()) {
        wrong.push(format!("the stranger's table holds {theirs:?}"));
    }
    let told = stranger.try_value("SELECT count(*) FROM pg_dist_node");
    if told != Ok("0".to_owned()) {
        wrong.push(format!("the stranger has {told:?} rows in pg_dist_node"));
    }
    wrong
}
