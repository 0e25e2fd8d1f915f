//! Owns the table: one row for each figure, as markdown and as JSON with every single value.
//! Must not measure or judge: a figure comes with its goal and its value.

use crate::effort::say;
use crate::machine::Machine;
use crate::spread::Spread;
use serde_json::{Map, Value, json};
use std::fs;
use std::path::Path;

/// What a figure's value is to be.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

impl Goal {
    fn is_met(self, value: f64) -> bool {
        match self {
            Goal::AtMost(limit) => value <= limit,
            Goal::AtLeast(limit) => value >= limit,
        }
    }
}

/// One row of the table.
#[derive(Debug)]
pub struct Figure {
    measurement: String,
    ours: String,
    baseline: String,
    ratio: String,
    goal: String,
    met: Option<bool>,
    samples: Map<String, Value>,
}

impl Figure {
    pub fn new(measurement: &str) -> Figure {
        Figure {
            measurement: measurement.to_string(),
            ours: String::new(),
            baseline: "–".to_string(),
            ratio: "–".to_string(),
            goal: "–".to_string(),
            met: None,
            samples: Map::new(),
        }
    }

    pub fn rename(mut self, measurement: &str) -> Figure {
        self.measurement = measurement.to_string();
        self
    }

    pub fn ours(mut self, text: impl Into<String>) -> Figure {
        self.ours = text.into();
        self
    }

    pub fn baseline(mut self, text: impl Into<String>) -> Figure {
        self.baseline = text.into();
        self
    }

    /// Ours divided by the baseline.
    pub fn ratio(mut self, ratio: &Spread) -> Figure {
        self.ratio = ratio.show(2);
        self
    }

    /// Ours divided by the baseline, with the middle half of the values instead of all.
    pub fn middle_ratio(mut self, ratio: &Spread) -> Figure {
        self.ratio = ratio.show_middle(3);
        self
    }

    /// The baseline divided by ours.
    pub fn faster(mut self, ratio: &Spread) -> Figure {
        self.ratio = format!("{} times as fast", ratio.show(1));
        self
    }

    /// A difference where the baseline is next to nothing, and a ratio would say nothing.
    pub fn difference(mut self, text: impl Into<String>) -> Figure {
        self.ratio = text.into();
        self
    }

    pub fn goal(mut self, text: &str, goal: Goal, value: f64) -> Figure {
        self.goal = text.to_string();
        self.met = Some(goal.is_met(value));
        self
    }

    /// A second condition of the goal.
    pub fn and(mut self, holds: bool) -> Figure {
        self.met = self.met.map(|met| met && holds);
        self
    }

    pub fn samples(mut self, name: &str, values: &[f64]) -> Figure {
        self.samples.insert(name.to_string(), json!(values));
        self
    }

    fn verdict(&self) -> &'static str {
        match self.met {
            Some(true) => "yes",
            Some(false) => "**no**",
            None => "–",
        }
    }

    /// The figure in one line of progress.
    pub fn line(&self) -> String {
        format!(
            "{}: {} | baseline {} | ratio {} | goal {} | met: {}",
            self.measurement,
            self.ours,
            self.baseline,
            self.ratio,
            self.goal,
            self.verdict()
        )
    }

    fn row(&self) -> String {
        format!(
            "| {} | {} | {} | {} | {} | {} |\n",
            self.measurement,
            self.ours,
            self.baseline,
            self.ratio,
            self.goal,
            self.verdict()
        )
    }

    fn json(&self) -> Value {
        json!({
            "measurement": self.measurement, "ours": self.ours, "baseline": self.baseline,
            "ratio": self.ratio, "goal": self.goal, "met": self.met, "samples": self.samples,
        })
    }
}

pub struct Report {
    machine: Machine,
    quick: bool,
    figures: Vec<Figure>,
    skipped: Vec<(String, String)>,
    failed: Vec<String>,
}

impl Report {
    pub fn new(quick: bool) -> Report {
        let machine = Machine::look();
        say("all", &machine.line());
        for warning in &machine.warnings {
            say("all", warning);
        }
        Report { machine, quick, figures: Vec::new(), skipped: Vec::new(), failed: Vec::new() }
    }

    pub fn add(&mut self, figure: Figure) {
        self.figures.push(figure);
    }

    pub fn skip(&mut self, name: &str, reason: &str) {
        self.skipped.push((name.to_string(), reason.to_string()));
    }

    /// A measurement that could not be made; what went wrong has been printed.
    pub fn fail(&mut self, name: &str) {
        say(name, "failed: it could not be measured");
        self.failed.push(name.to_string());
    }

    pub fn has_failures(&self) -> bool {
        !self.failed.is_empty()
    }

    pub fn markdown(&self) -> String {
        let mut text = String::from(
            "| Measurement | Ours | Baseline | Ratio (spread) | Goal | Met |\n|---|---|---|---|---|---|\n",
        );
        for figure in &self.figures {
            text += &figure.row();
        }
        text += &format!("\n{}", self.machine.line());
        if self.quick {
            text += "; a quick run";
        }
        text += ".\n";
        for warning in &self.machine.warnings {
            text += &format!("\nNote: {warning}.\n");
        }
        for (name, reason) in &self.skipped {
            text += &format!("\nSkipped: {name}: {reason}.\n");
        }
        for name in &self.failed {
            text += &format!("\nNot measured: {name} failed.\n");
        }
        text
    }

    fn json(&self) -> Value {
        json!({
            "machine": self.machine.line(), "warnings": self.machine.warnings, "quick": self.quick,
            "figures": self.figures.iter().map(Figure::json).collect::<Vec<_>>(),
            "skipped": self.skipped, "failed": self.failed,
        })
    }

    /// Writes both forms to bench/results, under the moment's name and as `newest`.
    pub fn write(&self) {
        let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("results");
        let stamp = self.machine.moment.replace([':', ' '], "-");
        let json = format!("{:#}\n", self.json());
        for name in [stamp.as_str(), "newest"] {
            let written = fs::create_dir_all(&results)
                .and_then(|()| fs::write(results.join(format!("{name}.md")), self.markdown()))
                .and_then(|()| fs::write(results.join(format!("{name}.json")), &json));
            if let Err(error) = written {
                eprintln!("bench/results/{name}: not written: {error}");
            }
        }
        println!("Written to bench/results/{stamp}.md and .json.");
    }
}
