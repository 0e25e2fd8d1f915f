//! Measures builds of vector indexes against what `decide` says of them beforehand: when a graph spills,
//! what memory and what of /dev/shm a build takes, what a training wants, and the pages of a new index.
//! The baseline is what happens, so a ratio of 1 is the goal.

mod site;

use crate::effort::{Effort, say};
use crate::report::{Figure, Goal};
use crate::spread::Spread;
use decide::search::vector::model::Metapage;
use decide::search::vector::sizes::{
    Allowance, GraphMemory, build_bytes, graph_bytes, shared_bytes, tight_pages, training_bytes,
};
use site::{Site, megabytes};

/// How far a prediction may be off.
const TOLERANCE: f64 = 0.03;

/// One index to build: its column, the options that matter, and how the build may go.
#[derive(Clone, Copy)]
pub struct Case {
    method: &'static str,
    kind: &'static str,
    dimensions: i32,
    /// `m` of hnsw, `lists` of ivfflat.
    option: u32,
    rows: u64,
    /// Megabytes of `maintenance_work_mem`.
    memory: u32,
    workers: u32,
}

impl Case {
    const fn hnsw(kind: &'static str, dimensions: i32, m: u32) -> Case {
        Case { method: "hnsw", kind, dimensions, option: m, rows: 0, memory: 1024, workers: 0 }
    }

    const fn ivfflat(kind: &'static str, dimensions: i32, lists: u32) -> Case {
        Case { method: "ivfflat", option: lists, ..Case::hnsw(kind, dimensions, 0) }
    }

    const fn rows(self, rows: u64) -> Case {
        Case { rows, ..self }
    }

    const fn within(self, memory: u32, workers: u32) -> Case {
        Case { memory, workers, ..self }
    }

    fn allowance(&self) -> Allowance {
        Allowance {
            memory: f64::from(self.memory) * megabytes(1.0),
            workers: self.workers,
            scan_size: megabytes(8.0),
        }
    }

    fn column(&self) -> String {
        let name = if self.method == "hnsw" { "m" } else { "lists" };
        format!("{}({}), {name} = {}", self.kind, self.dimensions, self.option)
    }
}

/// Graphs that do not fit: how many rows it takes is predicted.
const SPILLS: &[Case] = &[
    Case::hnsw("vector", 64, 8).within(16, 0),
    Case::hnsw("vector", 384, 16).within(16, 0),
    Case::hnsw("vector", 384, 64).within(16, 0),
    Case::hnsw("vector", 2000, 16).within(16, 0),
    Case::hnsw("halfvec", 768, 16).within(16, 0),
    Case::hnsw("bit", 768, 16).within(16, 0),
    Case::hnsw("vector", 384, 16).within(32, 2),
    Case::hnsw("vector", 768, 32).within(32, 0),
    Case::hnsw("vector", 384, 16).within(64, 0),
    Case::hnsw("vector", 1536, 16).within(64, 2),
    Case::hnsw("vector", 64, 16).within(64, 2),
    Case::hnsw("vector", 384, 16).within(64, 2),
    Case::hnsw("halfvec", 768, 8).within(96, 2),
];

/// Graphs that fit, and how much memory they take.
const MEMORY: &[Case] = &[
    Case::hnsw("vector", 384, 16).rows(10_000).within(256, 0),
    Case::hnsw("vector", 384, 16).rows(10_000).within(64, 2),
    Case::hnsw("vector", 384, 16).rows(10_000).within(256, 4),
    Case::hnsw("vector", 384, 16).rows(10_000).within(63, 2),
    // Its rows are in TOAST, the table itself is small: no worker helps.
    Case::hnsw("vector", 768, 16).rows(10_000).within(256, 2),
    Case::ivfflat("vector", 384, 100).rows(10_000).within(256, 2),
    Case::ivfflat("vector", 384, 1000).rows(20_000).within(256, 2),
];

const PAGES: &[Case] = &[
    Case::hnsw("vector", 64, 8).rows(20_000),
    Case::hnsw("vector", 64, 16).rows(1_000),
    Case::hnsw("vector", 64, 16).rows(100_000),
    Case::hnsw("vector", 384, 16).rows(20_000),
    Case::hnsw("vector", 384, 32).rows(20_000),
    Case::hnsw("vector", 768, 16).rows(10_000),
    Case::hnsw("vector", 1536, 64).rows(1_000),
    Case::hnsw("vector", 2000, 16).rows(3_000),
    Case::hnsw("halfvec", 768, 32).rows(10_000),
    Case::hnsw("halfvec", 2000, 16).rows(3_000),
    Case::hnsw("bit", 64, 16).rows(20_000),
    Case::hnsw("bit", 1536, 16).rows(20_000),
    Case::ivfflat("vector", 64, 10).rows(50_000),
    Case::ivfflat("vector", 64, 1000).rows(1_000),
    Case::ivfflat("vector", 64, 300).rows(20_000),
    Case::ivfflat("vector", 384, 100).rows(20_000),
    Case::ivfflat("vector", 2000, 10).rows(2_000),
    Case::ivfflat("halfvec", 768, 100).rows(20_000),
    Case::ivfflat("bit", 64, 100).rows(50_000),
];

const TRAININGS: &[Case] = &[
    Case::ivfflat("vector", 64, 10).rows(1_000),
    Case::ivfflat("vector", 384, 100).rows(20_000),
    Case::ivfflat("vector", 64, 1000).rows(20_000),
    Case::ivfflat("vector", 1536, 100).rows(1_000),
    Case::ivfflat("vector", 2000, 10).rows(3_000),
    Case::ivfflat("halfvec", 768, 300).rows(20_000),
    Case::ivfflat("bit", 768, 100).rows(20_000),
];

pub fn measure(effort: Effort) -> Vec<Figure> {
    let mut site = Site::new();
    let mut figures = Vec::new();
    let mut take = |cases: &[Case], measured: fn(&mut Site, &Case) -> Vec<Figure>| {
        for case in cases.iter().step_by(effort.pick(1, 3)) {
            say("builds", &format!("{} {}", case.method, case.column()));
            figures.extend(measured(&mut site, case));
        }
    };
    take(SPILLS, spill);
    take(MEMORY, memory);
    take(TRAININGS, training);
    take(PAGES, pages);
    figures
}

fn figure(what: String, unit: &str, predicted: f64, real: f64) -> Figure {
    let shown = |value: f64| match unit {
        "MB" => format!("{:.1} MB", value / megabytes(1.0)),
        unit => format!("{value:.0} {unit}"),
    };
    let ratio = if predicted == real { 1.0 } else { predicted / real };
    Figure::new(&what)
        .ours(shown(predicted))
        .baseline(shown(real))
        .ratio(&Spread::new([ratio]))
        .goal("0.97–1.03", Goal::AtMost(TOLERANCE), (ratio - 1.0).abs())
        .samples("predicted", &[predicted])
        .samples("real", &[real])
}

/// After how many rows the graph no longer fits.
fn spill(site: &mut Site, case: &Case) -> Vec<Figure> {
    let index = site.index(case);
    let rows = |memory| {
        let wanted = |rows| graph_bytes(&index, rows, memory).expect("a size");
        ((case.allowance().memory - wanted(0.0)) / (wanted(1.0) - wanted(0.0))).round()
    };
    // The two differ by a tenth at the most: with that many more, either spills.
    let enough = rows(GraphMemory::Own).max(rows(GraphMemory::Shared)) * 1.08;
    site.fill(&case.rows(enough as u64));
    let memory = GraphMemory::of(&case.allowance(), site.table_pages());
    let real = site.build(case).spilled_after.expect("the graph does not fit");
    let how = if memory == GraphMemory::Own { "one process" } else { "parallel" };
    let what = format!("Spill: hnsw {}, {} MB, {how}", case.column(), case.memory);
    vec![figure(what, "rows", rows(memory), real)]
}

/// What a build takes of the host's memory and of /dev/shm.
fn memory(site: &mut Site, case: &Case) -> Vec<Figure> {
    site.fill(case);
    let (index, pages) = (site.index(case), site.table_pages());
    let (allowance, rows) = (case.allowance(), case.rows as f64);
    let seen = site.build(case);
    let what = |of: &str| {
        let Case { method, memory, workers, rows, .. } = case;
        let column = case.column();
        format!("{of}: {method} {column}, {rows} rows, {memory} MB, {workers} workers")
    };
    let shared = shared_bytes(&index, &allowance, pages);
    let mut figures = vec![figure(what("/dev/shm"), "MB", shared, seen.shared)];
    if case.method == "hnsw" && shared == 0.0 {
        let predicted = build_bytes(&index, rows, &allowance, pages).expect("a size");
        figures.push(figure(what("Memory"), "MB", predicted, seen.own));
    }
    figures
}

/// The least memory by which an ivfflat index can be built.
fn training(site: &mut Site, case: &Case) -> Vec<Figure> {
    site.fill(case);
    let pages = site.has_sparing_training().then(|| site.table_pages());
    let predicted = training_bytes(&site.index(case), case.rows as f64, pages).expect("a size");
    let real = site.least_training_memory(case, predicted);
    let what = format!("Training: ivfflat {}, {} rows", case.column(), case.rows);
    vec![figure(what, "MB", predicted, real)]
}

fn pages(site: &mut Site, case: &Case) -> Vec<Figure> {
    site.fill(case);
    let mut index = site.index(case);
    let real = site.build(case).pages;
    index.meta = (case.method == "ivfflat").then(|| Metapage::Ivfflat {
        version: 1,
        dimensions: case.dimensions as u32,
        lists: case.option,
        built_pages: None,
        head_pages: Some(site.head_pages()),
    });
    let predicted = tight_pages(&index, case.rows as f64).expect("a size");
    let what = format!("Pages: {} {}, {} rows", case.method, case.column(), case.rows);
    vec![figure(what, "pages", predicted, real)]
}
