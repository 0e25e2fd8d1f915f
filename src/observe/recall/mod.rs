//! Owns measuring recall on the node that holds the rows: one relation after another, one index
//! after another, within one budget.
//! Must not write, nor let one relation's failure cost the others their answer.

pub mod cluster;
mod heap_pass;
mod index;
mod sample;
mod search;
pub mod target;

use crate::backend::guc::with_settings;
use crate::backend::transaction::{as_superuser, contained};
use crate::error::{Error, one_line};
use crate::observe::search_settings;
use decide::search::recall::ask::Ask;
use decide::search::recall::result::Measured;
use decide::search::recall::summary::summarize;
use heap_pass::Pass;
use index::AnnIndex;
use pgrx::pg_sys;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use target::Target;

/// Parts of the time of one index: choosing queries, and asking the index, may take so much; the
/// heap pass, which costs most, has the rest.
const SAMPLING: f64 = 0.2;
const SEARCHING: f64 = 0.5;

/// Measures every hnsw and ivfflat index of the relations, which are given by qualified name.
pub fn measure(relations: &[String], ask: &Ask) -> Vec<Measured> {
    let deadline = Instant::now() + ask.budget;
    // Whoever may read the table need not be one who may read the files of the server.
    let settings = match contained(|| as_superuser(search_settings::of_database)) {
        Ok(settings) => settings,
        Err(why) => {
            return relations.iter().map(|it| Measured::not(it, None, why.to_string())).collect();
        }
    };
    let mut answers = Vec::new();
    let mut targets: Vec<(&str, Target)> = Vec::new();
    for relation in relations {
        match within(deadline, &settings, || target::find(relation)) {
            Ok(found) if found.is_empty() => {
                let why = "it has no hnsw or ivfflat index";
                answers.push(Measured { unindexed: true, ..Measured::not(relation, None, why) });
            }
            Ok(found) => {
                targets.extend(found.into_iter().map(|target| (relation.as_str(), target)))
            }
            Err(error) => answers.push(Measured::not(relation, None, error.to_string())),
        }
    }
    for (place, (relation, target)) in targets.iter().enumerate() {
        let started = Instant::now();
        let left = deadline.saturating_duration_since(started);
        let share = left / u32::try_from(targets.len() - place).unwrap_or(u32::MAX);
        let result = if left.is_zero() {
            Err(Error::Internal("the budget was over before its turn".into()))
        } else {
            within(deadline, &settings, || measure_one(target, ask, started + share))
        };
        let mut answer = match result {
            Ok(measured) => measured,
            Err(error) => Measured::not("", None, one_line(&error.to_string())),
        };
        answer.relation = (*relation).to_owned();
        answer.index = Some(target.index_name.clone());
        answer.duration_ms = Some((started.elapsed().as_secs_f64() * 1e6).round() / 1e3);
        answers.push(answer);
    }
    answers
}

/// Runs `body` contained, by the settings of searches of the database, and lets it wait for no lock longer than
/// until the deadline. What is read by it is no use of the index, nor of the table, by anybody.
fn within<T>(
    deadline: Instant,
    settings: &BTreeMap<String, String>,
    body: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    contained(|| {
        let left = deadline.saturating_duration_since(Instant::now()).as_millis().max(1);
        let mut all = vec![("lock_timeout", format!("{left}ms")), ("track_counts", "off".into())];
        all.extend(settings.iter().map(|(name, value)| (name.as_str(), value.clone())));
        with_settings(&all, body)
    })
}

fn measure_one(target: &Target, ask: &Ask, deadline: Instant) -> Result<Measured, Error> {
    target.open(|index| {
        // Before the snapshot's rows are counted, so that nothing written meanwhile goes unnoticed.
        let (written, counted_since) = (target.written(), target::counted_since()?);
        let mut measured = figures(index, ask, deadline)?;
        (measured.written, measured.counted_since) = (Some(written), counted_since);
        measured.filenode = Some(index.filenode());
        measured.settings = Some(target.settings());
        Ok(measured)
    })
}

fn figures(index: &AnnIndex, ask: &Ask, deadline: Instant) -> Result<Measured, Error> {
    let nothing = |why: &str| Ok(Measured::not("", None, why));
    // SAFETY: the calling statement has a snapshot; both sides see the same rows by it.
    let snapshot = unsafe { pg_sys::GetActiveSnapshot() };
    let mut queries = sample::choose(index, snapshot, ask.sample, part(SAMPLING, deadline));
    if queries.is_empty() {
        return nothing("it has no row to ask with: none, or only NULLs and zero vectors");
    }
    let chosen = queries.len();
    search::ask_index(index, snapshot, &mut queries, ask.k, part(SEARCHING, deadline));
    let answered = queries.len();
    let (scores, rows) = match heap_pass::score(index, snapshot, &queries, ask.k, deadline) {
        Pass::Complete { scores, rows } => (scores, rows),
        Pass::Ended { done } => {
            return nothing(&format!(
                "the budget ended when {:.0} % of the rows had been read",
                done * 100.0
            ));
        }
    };
    let Some(summary) = summarize(&scores) else {
        return nothing("it has no row but the one that is asked with");
    };
    let mut notes = Vec::new();
    if chosen < ask.sample {
        notes.push(format!("{chosen} rows to ask with, {} asked for", ask.sample));
    }
    if scores.len() < chosen {
        let asked = if answered < chosen { "index" } else { "heap pass" };
        notes.push(format!("the budget allowed {} of {chosen} queries ({asked})", scores.len()));
    }
    if rows <= ask.k as u64 {
        notes.push(format!("{rows} rows in the index's reach, fewer than k + 1"));
    }
    let mut measured = Measured { rows: Some(rows), ..Measured::default() }.with(summary);
    measured.note = (!notes.is_empty()).then(|| notes.join("; "));
    Ok(measured)
}

/// The moment at which this part of the time that is left is over.
fn part(share: f64, deadline: Instant) -> Instant {
    let now = Instant::now();
    now + deadline.saturating_duration_since(now).mul_f64(share).max(Duration::from_millis(1))
}
