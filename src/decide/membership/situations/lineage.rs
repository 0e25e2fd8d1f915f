//! Owns the situations of servers that have a worker's identity: whether they have all its rows, and whose
//! they are. Must not take a server for the worker because its timeline number is high enough.

use super::row::WayOut::Do;
use super::row::When::{AtHome, Candidate, Worker};
use super::row::{Facts, ROW, Row};
use super::workers::name;
use crate::membership::coordinator::{DistNode, Identity};
use crate::membership::evidence::{AtHome as There, Newcomer, Twin};
use crate::membership::lineage::Descent;
use crate::membership::server::Server;
use crate::membership::state::State::{Active, Conflict, Standby};
use crate::membership::whereabouts::Whereabouts::Moved;

/// What is not followed, and nobody is routed to on purpose.
const CONFLICT: Row = Row { state: Conflict, ..ROW };

pub(super) const TABLE: &[Row] = &[
    // Rows may have been written to either since: a restart of one must not decide between them.
    Row {
        code: "diverged",
        when: &[Worker(|it| {
            let rival = it.identity?.rival.clone().filter(|_| it.row.isactive)?;
            Some(vec![("rival", rival), ("node", name(it.row))])
        })],
        reason: "there are two of this worker, and each may have rows that the other lacks: {rival}",
        cause: "A standby was promoted, or a copy started, while the worker ran, or an older state of its data directory was restored. Each may have rows that the other lacks, so this stays until an operator decides, whatever is restarted.",
        way_out: Do(
            "Find out which of the two has the rows, save what the other has, and leave only one: in the place of an older state, bring back the server with all rows, if it is still to be had. The one that answers then is this worker: SELECT fleet.accept_server({node});",
        ),
        ..CONFLICT
    },
    // Each is one answer of Record::descent().
    Row {
        code: "left_behind",
        when: &[
            Candidate(|it| of_candidate(it, |descent| *descent == Descent::LeftBehind)),
            AtHome(|it| of_worker(it, |descent| *descent == Descent::LeftBehind)),
        ],
        reason: "the server there was left behind at timeline {timeline} when a standby of it was promoted; this worker is at timeline {newest}",
        cause: "A standby of a worker was promoted, and the primary that it replaced has come back.",
        way_out: Do(
            "{lost}Make it a standby of the promoted server with pg_rewind or pg_basebackup, and bring that one back if it is gone: rows written since the promotion are not here. If this one is to be the worker without them, stop the promoted one, then: SELECT fleet.accept_server({node});",
        ),
        next: Some(Standby),
        ..CONFLICT
    },
    Row {
        code: "parted",
        when: &[
            // Beside its worker, which runs, it is a copy, and called one.
            Candidate(|it| {
                of_candidate(it, has_parted).filter(|_| !matches!(it.twin, Some(Twin::Runs(_))))
            }),
            AtHome(|it| of_worker(it, has_parted)),
        ],
        reason: "the server there does not go on from what was seen of this worker: it parted at {at}, timeline {timeline}, and lacks {lacks} bytes of WAL that were seen after that (timeline {newest}, up to {seen})",
        cause: "A standby that never saw the last primary's rows was promoted, or an older state of the data directory was restored.",
        way_out: Do(
            "Bring the server with the rows back, and make this one its standby with pg_rewind or pg_basebackup. If it is to be the worker without them: SELECT fleet.accept_server({node});",
        ),
        next: Some(Standby),
        ..CONFLICT
    },
    Row {
        code: "mark_missing",
        when: &[
            Candidate(|it| of_candidate(it, |descent| *descent == Descent::Unmarked)),
            AtHome(|it| of_worker(it, |descent| *descent == Descent::Unmarked)),
        ],
        reason: "the server there has no mark of the coordinator (fleet.marks is empty), so whether it has all rows is not known",
        cause: "The extension citus_fleet was dropped and created anew on it, or its data directory was taken back to a time before the worker was first marked.",
        way_out: Do(
            "Where only the extension was created anew: SELECT fleet.accept_server({node}); Where an older state was restored, bring the server with the rows back first.",
        ),
        ..CONFLICT
    },
    Row {
        code: "history_unreadable",
        when: &[
            Candidate(|it| of_candidate(it, |descent| *descent == Descent::Unknown)),
            AtHome(|it| of_worker(it, |descent| *descent == Descent::Unknown)),
        ],
        reason: "whether the server there has all rows is not known: it is at timeline {timeline}, this worker was at {newest}, and its history of timelines cannot be read",
        cause: "The file pg_wal/*.history of its timeline is missing there.",
        way_out: Do(
            "Copy the history file of its timeline into its pg_wal from the WAL archive or from another server of the group. If it is to be the worker as it is: SELECT fleet.accept_server({node});",
        ),
        ..CONFLICT
    },
    // It could be followed, but an operator has to decide first, or DNS has not said where the row leads.
    Row {
        code: "heir",
        when: &[Candidate(|it| {
            of_candidate(it, |descent| matches!(descent, Descent::Descends { .. }))
                .filter(|_| it.twin.is_none())
        })],
        reason: "it has the identity and the history of the worker {node}, whose row is not to follow it at the moment",
        cause: "A server with a worker's data, while the worker is in a conflict or where its row leads is not known.",
        way_out: Do(
            "See what fleet.workers says of that worker. Where this server is to be it, and no other runs: SELECT fleet.accept_server({node});",
        ),
        ..CONFLICT
    },
    Row {
        code: "lacks_too_much",
        when: &[
            Worker(|it| {
                let Moved(there) = &it.whereabouts else { return None };
                let at = there.to.endpoint.to_string();
                let most = it.max_lost_wal.filter(|most| there.lacks > *most)?;
                Some(vec![
                    ("at", at),
                    ("node", name(it.row)),
                    lacking(there.lacks),
                    ("most", most.to_string()),
                ])
            }),
            AtHome(|it| {
                let (.., Descent::Descends { lacks, .. }) = it.descent()? else { return None };
                let most = it.max_lost_wal.filter(|most| lacks > *most)?;
                let at = ("at", "its address".to_owned());
                Some(vec![at, ("node", name(it.row)), lacking(lacks), ("most", most.to_string())])
            }),
        ],
        reason: "the server that was promoted, at {at}, lacks {lacks} bytes of WAL that were seen of this worker; citus_fleet.max_lost_wal is {most}",
        cause: "A standby was promoted that had not received everything.",
        way_out: Do(
            "Bring back the server that has the rows. If the promoted one is to be the worker without them: SELECT fleet.accept_server({node});",
        ),
        ..CONFLICT
    },
    Row {
        code: "followed_with_loss",
        state: Active,
        when: &[Worker(|it| {
            let lost = it.identity.map(|known| known.lost_wal).filter(|lost| *lost > 0)?;
            it.is_quiet().then(|| vec![lacking(lost), ("node", name(it.row))])
        })],
        reason: "the server that was promoted in its place lacks {lacks} bytes of WAL that had been seen before",
        cause: "A standby was promoted that had not received everything: rows that clients had answers for may be missing.",
        way_out: Do(
            "Look for the missing rows, if need be on the old primary's data directory. What is there is accepted by SELECT fleet.accept_server({node});",
        ),
        ..ROW
    },
];

fn has_parted(descent: &Descent) -> bool {
    matches!(descent, Descent::Parted { .. } | Descent::Older { .. })
}

fn lacking(bytes: u64) -> (&'static str, String) {
    ("lacks", bytes.to_string())
}

fn of_candidate(it: &Newcomer<'_>, is_so: fn(&Descent) -> bool) -> Option<Facts> {
    let (server, row, identity, descent) = it.kin()?;
    is_so(&descent).then(|| facts(server, row, identity, descent))
}

fn of_worker(it: &There<'_>, is_so: fn(&Descent) -> bool) -> Option<Facts> {
    let (server, identity, descent) = it.descent()?;
    is_so(&descent).then(|| facts(server, it.row, identity, descent))
}

fn facts(server: &Server, row: &DistNode, identity: &Identity, descent: Descent) -> Facts {
    let record = &identity.record;
    // What the promoted server lacks may be on this one alone.
    let lost = match identity.lost_wal {
        0 => String::new(),
        bytes => format!(
            "First save its rows: the promoted server lacks {bytes} bytes of WAL that were seen. "
        ),
    };
    let (at, lacks) = match descent {
        Descent::Parted { at, lacks } | Descent::Older { at, lacks } => (at, lacks),
        _ => Default::default(),
    };
    vec![
        ("timeline", server.timeline.to_string()),
        ("newest", record.timeline.to_string()),
        ("at", at.to_string()),
        lacking(lacks),
        ("seen", record.position.unwrap_or_default().to_string()),
        ("node", name(row)),
        ("lost", lost),
    ]
}
