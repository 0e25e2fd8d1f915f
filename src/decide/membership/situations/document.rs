//! Owns docs/states.md, which says of every situation what the table says.
//! Must not say anything that the table does not.

use super::row::{Row, WayOut};
use super::{at_home, candidates, hindrances, lineage, logins, workers};
use crate::condition::Condition;
use crate::membership::state::State;
use std::collections::BTreeSet;
use std::fmt::Write;

const OPENING: &str = "# States and codes

`fleet.workers` says in which *state* each worker is, and by which *code*, with a reason and, where there is one, a remedy for people. A code is a word that never changes its meaning: scripts and alerts match it, in `fleet.workers` and the metric `citus_fleet_worker_situations`, and never the prose. `fleet.situations()` is this page as rows, with `needs_hands` for those that an operator has to end. `fleet.events` has a row for each change of *state*, with the code by which it was entered.

This page is made from the table that the controller decides by (`src/decide/membership/situations/`): `cargo run -p citus_fleet_tests --bin states > docs/states.md`. As in pg_hba.conf, the first row that matches counts, in the order of this page; words in braces are filled in.

## How one state leads to another

From `discovered` and `active` to whatever can be found, and from there to where the remedy leads. A state is told to be red, yellow or green as `/health` does, of a registered worker.
";

const GROUPS: [(&str, &str, &[Row]); 6] = [
    (
        "Lineage and ownership",
        "A registered worker, or a candidate that has the identity of one.",
        lineage::TABLE,
    ),
    ("Registered workers", "A row of `pg_dist_node`, and what is made of it.", workers::TABLE),
    ("The address of a registered worker", "What answers where its row leads.", at_home::TABLE),
    (
        "Candidates",
        "An endpoint that a source yields and that no row of `pg_dist_node` leads to.",
        candidates::TABLE,
    ),
    ("Logins that fail", "Candidates and registered workers alike.", logins::TABLE),
    (
        "What is in the way",
        "A server that is fit waits for these; a change of a registered worker does too, and its reason says so.",
        hindrances::TABLE,
    ),
];

/// The page, as Markdown.
pub fn document() -> String {
    let mut page = format!("{OPENING}\n{}", diagram());
    for (title, who, table) in GROUPS {
        let _ = write!(
            page,
            "\n## {title}\n\n{who}\n\n| Code | State | Says | Comes about | Leads out |\n|---|---|---|---|---|\n"
        );
        for row in table {
            let says = if row.reason.is_empty() { "–" } else { row.reason };
            let out = match row.way_out {
                WayOut::Nothing => "it is in order".to_owned(),
                WayOut::Wait(what) => format!("*by itself:* {what}"),
                WayOut::Do(what) | WayOut::Tell(what) => what.to_owned(),
            };
            let _ = writeln!(
                page,
                "| `{}` | `{}` | {says} | {} | {out} |",
                row.code, row.state, row.cause
            );
        }
    }
    page
}

/// The states as a diagram: an arrow for each way in and each way out that a row has.
fn diagram() -> String {
    let mut arrows: BTreeSet<(String, String)> = BTreeSet::new();
    for (table, row) in
        GROUPS.iter().flat_map(|(.., table)| table.iter().map(move |row| (table, row)))
    {
        let is_worker = [lineage::TABLE, workers::TABLE, at_home::TABLE]
            .iter()
            .any(|of| of.as_ptr() == table.as_ptr());
        let from = if is_worker { State::Active } else { State::Discovered };
        let next = row.next.map_or("[*]".to_owned(), |next| next.to_string());
        for (from, to) in [(from.to_string(), row.state.to_string()), (row.state.to_string(), next)]
        {
            if from != to {
                arrows.insert((from, to));
            }
        }
    }
    let mut text = "```mermaid\nstateDiagram-v2\n    [*] --> discovered\n".to_owned();
    for (from, to) in arrows {
        let _ = writeln!(text, "    {from} --> {to}");
    }
    for state in State::ALL {
        let colour = match state.condition(true) {
            Condition::Red => "red",
            Condition::Yellow => "yellow",
            _ => "green",
        };
        let _ = writeln!(text, "    class {state} {colour}");
    }
    text.push_str("    classDef red fill:#f8d7da\n    classDef yellow fill:#fff3cd\n    classDef green fill:#d4edda\n```\n");
    text
}
