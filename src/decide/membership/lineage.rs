//! Owns whether a server has all that another one had: timelines and where each ended, positions in the
//! WAL, and the marks that the coordinator leaves in a worker's data.
//! Must not look at addresses, nor at anything that a restart changes.
//!
//! A timeline number is no history: two servers on timeline 2 may have parted at different points, which
//! their histories tell, or at the same point with other rows after it, which only a mark tells. It is a
//! row, so it travels with the WAL: a server without the newest mark lacks what was written after it.

use serde::{Deserialize, Deserializer};
use std::fmt;
use std::str::FromStr;

/// A position in the WAL, written as PostgreSQL writes a `pg_lsn`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lsn(pub u64);

impl Lsn {
    /// How many bytes lie between an earlier position and this one; none where it is not earlier.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Whether a record surely ends there. WAL is flushed up to the end of a record or of a page
    /// (XLogBackgroundFlush), and of a record that goes on in the next page a crash leaves nothing.
    pub fn ends_a_record(self) -> bool {
        const SMALLEST_PAGE: u64 = 1024;
        !self.0.is_multiple_of(SMALLEST_PAGE)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

impl FromStr for Lsn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let half = |half: &str| u32::from_str_radix(half, 16).ok().map(u64::from);
        let parsed = text.split_once('/').and_then(|(high, low)| Some((half(high)?, half(low)?)));
        parsed.map(|(high, low)| Self(high << 32 | low)).ok_or_else(|| format!("no LSN: {text:?}"))
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The timelines that a server has left, the oldest first, and where each ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History(Vec<(i32, Lsn)>);

impl History {
    /// Where it left a timeline, if it did.
    pub fn left(&self, timeline: i32) -> Option<Lsn> {
        self.0.iter().find(|(left, _)| *left == timeline).map(|(_, at)| *at)
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(timeline, at)| writeln!(f, "{timeline}\t{at}"))
    }
}

/// Reads a timeline history file, as PostgreSQL writes it for every promotion (access/transam/timeline.c):
/// a line for each timeline that was left, its number, where it ended, and why.
impl FromStr for History {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let entry = |line: &str| {
            let mut words = line.split_whitespace();
            let timeline = words.next().and_then(|word| word.parse().ok());
            let at = words.next().and_then(|word| word.parse().ok());
            timeline.zip(at).ok_or_else(|| "a timeline history file that makes no sense".to_owned())
        };
        lines.filter(|line| !line.starts_with('#')).map(entry).collect::<Result<_, _>>().map(Self)
    }
}

impl<'de> Deserialize<'de> for History {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Whose data a server has, and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lineage {
    pub system_identifier: i64,
    /// When its postmaster started: what one instance has said it still has.
    pub started_us: i64,
    /// The timeline that it writes: every promotion begins a higher one. 0 in recovery.
    pub timeline: i32,
    /// None where its history file could not be read.
    pub history: Option<History>,
    /// What it has flushed, or a standby has replayed.
    pub position: Lsn,
    /// The marks that are in its data; none where it has no table for them.
    pub marks: Option<Vec<String>>,
}

impl Lineage {
    fn has(&self, mark: &Mark) -> bool {
        self.marks.iter().flatten().any(|id| *id == mark.id)
    }
}

/// What was recorded of a worker's server.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Record {
    pub system_identifier: i64,
    /// The highest timeline it was seen at.
    pub timeline: i32,
    /// None where it was recorded by a version that kept none.
    pub history: Option<History>,
    /// The last position that was seen of it: clients have had answers for what comes before.
    pub position: Option<Lsn>,
    pub mark: Option<Mark>,
    /// The instance that was last seen in order, as far as the controller remembers it.
    #[serde(skip)]
    pub started_us: Option<i64>,
}

/// A row that the coordinator has left in a worker's data.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Mark {
    pub id: String,
    pub position: Lsn,
}

/// How a server stands to what was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descent {
    /// It goes on from it. Where it was promoted, the position where it did, and how many bytes of what
    /// had been seen before are not on it.
    Descends { from: Option<Lsn>, lacks: u64 },
    /// It went another way from this position on: that many bytes that were seen are not on it.
    Parted { at: Lsn, lacks: u64 },
    /// It is an older state of the same server, which lacks that much. Nothing tells any more once it has
    /// written as much again.
    Older { at: Lsn, lacks: u64 },
    /// It has no mark at all: its data are from before the first one, or the extension was created anew.
    Unmarked,
    /// It still writes a timeline that a promotion has ended.
    LeftBehind,
    /// Its history could not be read.
    Unknown,
}

impl Record {
    /// How many bytes of WAL were seen that a server in its place does not have; none where nobody can tell.
    pub fn lost_by(&self, server: &Lineage) -> Option<u64> {
        let is_kin = server.system_identifier == self.system_identifier;
        match is_kin.then(|| self.descent(server))? {
            Descent::Descends { lacks, .. }
            | Descent::Parted { lacks, .. }
            | Descent::Older { lacks, .. } => Some(lacks),
            Descent::LeftBehind => {
                let left = self.history.as_ref()?.left(server.timeline)?;
                Some(self.position?.since(left))
            }
            Descent::Unmarked | Descent::Unknown => None,
        }
    }

    pub fn descent(&self, server: &Lineage) -> Descent {
        if server.timeline < self.timeline {
            return Descent::LeftBehind;
        }
        // What it said a moment ago may be older than the record; it runs on, and loses nothing.
        if server.timeline == self.timeline && self.started_us == Some(server.started_us) {
            return Descent::Descends { from: None, lacks: 0 };
        }
        let history = match (&server.history, &self.history) {
            (Some(theirs), _) => theirs,
            (None, Some(ours)) if server.timeline == self.timeline => ours,
            (None, _) => return Descent::Unknown,
        };
        let seen = self.position.unwrap_or_default();
        let parted = |at: Lsn| Descent::Parted { at, lacks: seen.since(at) };
        for (timeline, ended) in self.history.iter().flat_map(|known| &known.0) {
            match history.left(*timeline) {
                Some(left) if left == *ended => {}
                Some(left) => return parted(left.min(*ended)),
                None => return parted(*ended),
            }
        }
        let from = history.left(self.timeline);
        if from.is_none() && server.timeline > self.timeline {
            // It branched off before the recorded timeline began.
            return parted(self.began());
        }
        if self.mark.is_some() && server.marks.as_ref().is_some_and(Vec::is_empty) {
            return Descent::Unmarked;
        }
        if let Some(mark) = self.mark.as_ref().filter(|mark| !server.has(mark)) {
            return parted(from.map_or(mark.position, |from| from.min(mark.position)));
        }
        match from {
            Some(from) => Descent::Descends { from: Some(from), lacks: seen.since(from) },
            None if server.position < seen && seen.ends_a_record() => {
                Descent::Older { at: server.position, lacks: seen.since(server.position) }
            }
            None => Descent::Descends { from: None, lacks: 0 },
        }
    }

    /// Where the recorded timeline began.
    fn began(&self) -> Lsn {
        let last = self.history.as_ref().and_then(|history| history.0.last());
        last.map_or_else(Lsn::default, |(_, at)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(text: &str) -> History {
        text.parse().unwrap()
    }

    /// A server at a timeline, with a history, a position and marks.
    fn server(timeline: i32, left: &str, position: u64, marks: &[&str]) -> Lineage {
        Lineage {
            system_identifier: 1,
            started_us: 5,
            timeline,
            history: Some(history(left)),
            position: Lsn(position),
            marks: Some(marks.iter().map(ToString::to_string).collect()),
        }
    }

    fn record(timeline: i32, left: &str, position: u64, mark: Option<(&str, u64)>) -> Record {
        Record {
            system_identifier: 1,
            timeline,
            history: Some(history(left)),
            position: Some(Lsn(position)),
            mark: mark.map(|(id, at)| Mark { id: id.into(), position: Lsn(at) }),
            started_us: None,
        }
    }

    fn descends(from: Option<u64>, lacks: u64) -> Descent {
        Descent::Descends { from: from.map(Lsn), lacks }
    }

    fn parted(at: u64, lacks: u64) -> Descent {
        Descent::Parted { at: Lsn(at), lacks }
    }

    #[test]
    fn positions_are_written_as_postgresql_writes_them() {
        for text in ["0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF"] {
            assert_eq!(text.parse::<Lsn>().unwrap().to_string(), text);
        }
        for wrong in ["", "0", "0/", "/0", "0/G", "1/123456789"] {
            assert!(wrong.parse::<Lsn>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_history_file_is_read() {
        let file =
            "1\t0/3000148\tno recovery target specified\n\n2\t0/5000000\tbefore 2026-01-01\n";
        assert_eq!(history(file).to_string(), "1\t0/3000148\n2\t0/5000000\n");
        assert_eq!(history(&history(file).to_string()), history(file));
        assert_eq!(history(""), History::default());
        assert!("1 x".parse::<History>().is_err());
    }

    #[test]
    fn a_server_that_goes_on_descends() {
        let known = record(1, "", 100, Some(("m", 50)));
        assert_eq!(known.descent(&server(1, "", 100, &["m"])), descends(None, 0));
        assert_eq!(known.descent(&server(1, "", 900, &["l", "m"])), descends(None, 0));
    }

    #[test]
    fn a_promoted_standby_descends_and_what_it_lacks_is_counted() {
        let known = record(1, "", 100, Some(("m", 50)));
        assert_eq!(known.descent(&server(2, "1 0/64", 200, &["m"])), descends(Some(100), 0));
        assert_eq!(known.descent(&server(2, "1 0/5A", 200, &["m"])), descends(Some(90), 10));
        // Promoted twice, with nobody looking in between.
        let twice = server(3, "1 0/5A\n2 0/C8", 300, &["m"]);
        assert_eq!(known.descent(&twice), descends(Some(90), 10));
    }

    /// Two standbys of one primary, promoted one after the other: each at timeline 2.
    #[test]
    fn one_timeline_number_is_not_one_history() {
        let followed = record(2, "1 0/64", 900, Some(("new", 120)));
        // Parted at another point.
        assert_eq!(followed.descent(&server(2, "1 0/5A", 950, &["old"])), parted(90, 810));
        // At the same point, with other rows after it.
        assert_eq!(followed.descent(&server(2, "1 0/64", 950, &["old"])), parted(120, 780));
        // Somebody has promoted it once more since.
        let once_more = server(3, "1 0/64\n2 0/6E", 950, &["old"]);
        assert_eq!(followed.descent(&once_more), parted(110, 790));
        // It never was at timeline 2: number 2 was taken already when it was promoted.
        assert_eq!(followed.descent(&server(3, "1 0/64", 950, &["old"])), parted(100, 800));
    }

    #[test]
    fn a_primary_that_a_promotion_ended_is_left_behind() {
        let followed = record(2, "1 0/64", 900, Some(("new", 120)));
        assert_eq!(followed.descent(&server(1, "", 5000, &["old"])), Descent::LeftBehind);
    }

    #[test]
    fn an_older_state_of_the_same_server_lacks_what_was_seen_since() {
        let known = record(1, "", 100, Some(("m", 50)));
        let older = Descent::Older { at: Lsn(70), lacks: 30 };
        assert_eq!(known.descent(&server(1, "", 70, &["m"])), older);
        // At the end of a page a record may go on that never got whole to the disk.
        let amid = record(1, "", 8192, Some(("m", 50)));
        assert_eq!(amid.descent(&server(1, "", 8100, &["m"])), descends(None, 0));
        assert_eq!(known.descent(&server(1, "", 40, &["other"])), parted(50, 50));
        // Before the first mark, or with an extension that was created anew: nobody can tell.
        assert_eq!(known.descent(&server(1, "", 120, &[])), Descent::Unmarked);
        // The very instance that was seen: its answer is only older than the record.
        let running = Record { started_us: Some(5), ..known };
        assert_eq!(running.descent(&server(1, "", 40, &[])), descends(None, 0));
    }

    #[test]
    fn what_an_accepted_server_lacks_is_told_as_far_as_it_can_be() {
        let known = record(2, "1 0/64", 900, Some(("new", 120)));
        assert_eq!(known.lost_by(&server(2, "1 0/64", 950, &["new"])), Some(0));
        assert_eq!(known.lost_by(&server(2, "1 0/64", 880, &["new"])), Some(20));
        assert_eq!(known.lost_by(&server(2, "1 0/64", 950, &["old"])), Some(780));
        assert_eq!(known.lost_by(&server(1, "", 5000, &["old"])), Some(800));
        let stranger = Lineage { system_identifier: 9, ..server(1, "", 5000, &[]) };
        assert_eq!(known.lost_by(&stranger), None);
    }

    #[test]
    fn what_is_not_known_is_not_taken_for_granted() {
        let known = record(1, "", 100, None);
        let unreadable = Lineage { history: None, ..server(2, "", 200, &[]) };
        assert_eq!(known.descent(&unreadable), Descent::Unknown);
        let as_it_was = record(2, "1 0/64", 150, None);
        assert_eq!(as_it_was.descent(&unreadable), descends(None, 0));
        let older = Descent::Older { at: Lsn(9), lacks: 141 };
        assert_eq!(as_it_was.descent(&Lineage { position: Lsn(9), ..unreadable }), older);
        // A record of a version that kept neither history nor position nor mark.
        let old = Record { history: None, position: None, mark: None, ..record(2, "", 0, None) };
        assert_eq!(old.descent(&server(2, "1 0/64", 200, &[])), descends(None, 0));
        assert_eq!(old.descent(&server(3, "1 0/64\n2 0/C8", 300, &[])), descends(Some(200), 0));
        assert_eq!(old.descent(&server(1, "", 900, &[])), Descent::LeftBehind);
    }
}
