//! Owns a server on which indexes are built, and looking at what a build does there.
//! Must not predict anything.

use super::Case;
use crate::process::Usage;
use citus_fleet_tests::server::Session;
use citus_fleet_tests::{Server, Spec};
use decide::search::vector::model::{Index, PAGE};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;
use std::{fs, thread};

/// Differences of two of these vectors are the rows: they are made in no time, and no two are the same.
const POOL: u32 = 330;
/// How often a build is looked at.
const LOOK: Duration = Duration::from_millis(5);

pub struct Site {
    server: Server,
    session: Session,
}

/// What was seen of a build.
pub struct Seen {
    pub spilled_after: Option<f64>,
    /// Bytes of memory of the process that builds, at most, and those it shared with others.
    pub own: f64,
    pub shared: f64,
    pub pages: f64,
}

impl Site {
    pub fn new() -> Site {
        let spec = Spec::new("builds", Ipv4Addr::LOCALHOST)
            .set("shared_buffers", "256MB")
            .set("log_min_messages", "notice");
        let server = Server::start(spec);
        let mut session = session(&server);
        session.run("CREATE EXTENSION vector; CREATE EXTENSION pageinspect");
        Site { server, session }
    }

    /// What the evidence of a node would say of the index.
    pub fn index(&self, case: &Case) -> Index {
        Index {
            method: case.method.into(),
            kind: case.kind.into(),
            dimensions: case.dimensions,
            options: vec![options(case)],
            ..Index::default()
        }
    }

    pub fn fill(&mut self, case: &Case) {
        let Case { kind, dimensions, rows, .. } = case;
        let value = match *kind {
            "bit" => "binary_quantize(a.v - b.v)".to_string(),
            kind => format!("(a.v - b.v)::{kind}({dimensions})"),
        };
        self.session.run(&format!(
            "DROP TABLE IF EXISTS items, pool;
             CREATE UNLOGGED TABLE pool AS SELECT n, (
               SELECT array_agg(random()) FROM generate_series(1, {dimensions}) WHERE n > 0
             )::vector({dimensions}) AS v FROM generate_series(1, {POOL}) n;
             CREATE UNLOGGED TABLE items (id int, v {kind}({dimensions}));
             INSERT INTO items SELECT a.n, {value} FROM pool a JOIN pool b ON a.n <> b.n LIMIT {rows}"
        ));
    }

    pub fn table_pages(&mut self) -> u64 {
        self.number("SELECT pg_relation_size('items')") as u64 / PAGE
    }

    /// From pgvector 0.8.5 on, room is made for no more samples than the table can have.
    pub fn has_sparing_training(&mut self) -> bool {
        let version = "string_to_array(extversion, '.')::int[] >= '{0,8,5}'";
        self.session.value(&format!("SELECT {version} FROM pg_extension WHERE extname = 'vector'"))
            == "t"
    }

    pub fn build(&mut self, case: &Case) -> Seen {
        let Case { memory, workers, .. } = case;
        // What a session shares with its first workers it keeps.
        self.session = session(&self.server);
        self.session.run(&format!(
            "SET maintenance_work_mem = '{memory}MB'; SET max_parallel_maintenance_workers = {workers}"
        ));
        let logged = self.server.log().len();
        let pid = self.session.pid();
        let (before, others) = (Usage::of(pid).anonymous, segments(pid));
        let (mut own, mut shared) = (0, BTreeMap::new());
        let session = &mut self.session;
        thread::scope(|scope| {
            let build = scope.spawn(move || session.run(&statement(case)));
            while !build.is_finished() {
                own = own.max(Usage::of(pid).anonymous.saturating_sub(before));
                shared.extend(segments(pid));
                thread::sleep(LOOK);
            }
            build.join().expect("the index is built");
        });
        shared.retain(|name, _| !others.contains_key(name));
        let pages = self.number("SELECT pg_relation_size('items_idx')") / PAGE as f64;
        Seen {
            spilled_after: spill(&self.server.log()[logged..]),
            own: own as f64 * 1024.0,
            shared: shared.values().sum::<u64>() as f64,
            pages,
        }
    }

    /// Pages in front of the first list: the metapage, and those of the centres.
    pub fn head_pages(&mut self) -> u64 {
        // The first list's first page is what its centre, the first item of page 1, begins with.
        let first = "SELECT get_byte(p, o) + 256 * get_byte(p, o + 1)
             FROM get_raw_page('items_idx', 1) p,
                  LATERAL (SELECT (get_byte(p, 24) + 256 * get_byte(p, 25)) & 32767 AS o) item";
        self.number(first) as u64
    }

    /// Bytes of the least `maintenance_work_mem` by which the training begins, found by halving.
    pub fn least_training_memory(&mut self, case: &Case, about: f64) -> f64 {
        let (mut fails, mut works) = (about * 0.7, about * 1.3);
        assert!(!self.trains(case, fails) && self.trains(case, works), "not even about {about}");
        while works - fails > about * 0.004 {
            let middle = (fails + works) / 2.0;
            if self.trains(case, middle) { works = middle } else { fails = middle }
        }
        (fails + works) / 2.0
    }

    /// Whether a build gets past the question for memory; how long the training takes is not of interest.
    fn trains(&mut self, case: &Case, memory: f64) -> bool {
        self.session.run(&format!(
            "SET statement_timeout = '4s'; SET max_parallel_maintenance_workers = 0;
             SET maintenance_work_mem = '{:.0}kB'",
            memory / 1024.0
        ));
        let built = self.session.try_rows(&statement(case));
        self.session.run("SET statement_timeout = 0; DROP INDEX IF EXISTS items_idx");
        match built {
            Ok(_) => true,
            Err(error) if error.message.contains("memory required") => false,
            Err(error) if error.state == "57014" => true,
            Err(error) => panic!("{error}"),
        }
    }

    fn number(&mut self, sql: &str) -> f64 {
        self.session.value(sql).parse().expect("a number")
    }
}

fn session(server: &Server) -> Session {
    let mut session = server.session();
    session.run("SET statement_timeout = 0");
    session
}

fn options(case: &Case) -> String {
    let name = if case.method == "hnsw" { "m" } else { "lists" };
    format!("{name}={}", case.option)
}

fn statement(case: &Case) -> String {
    let operators = match case.kind {
        "bit" => "bit_hamming_ops".to_string(),
        kind => format!("{kind}_l2_ops"),
    };
    // The less is tried, the sooner it is done; what is measured does not depend on it.
    let effort = match case.method {
        "hnsw" => format!(", ef_construction={}", (2 * case.option).max(4)),
        _ => String::new(),
    };
    format!(
        "CREATE INDEX items_idx ON items USING {} (v {operators}) WITH ({}{effort})",
        case.method,
        options(case)
    )
}

/// Segments of dynamic shared memory that a process has mapped, and their bytes.
fn segments(pid: u32) -> BTreeMap<String, u64> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    maps.lines()
        .filter_map(|line| line.split_once("/dev/shm/PostgreSQL."))
        .filter_map(|(_, name)| {
            let size = fs::metadata(format!("/dev/shm/PostgreSQL.{name}")).ok()?.len();
            Some((name.to_string(), size))
        })
        .collect()
}

fn spill(log: &str) -> Option<f64> {
    let (_, rest) = log.split_once("no longer fits into maintenance_work_mem after ")?;
    rest.split(' ').next()?.parse().ok()
}

/// So many megabytes, in bytes.
pub fn megabytes(count: f64) -> f64 {
    count * 1024.0 * 1024.0
}
