//! Owns a thousand servers that are none: one listener on every loopback address, which lets anybody
//! log in and answers a probe as a healthy worker would, each address with an identity of its own.
//! Must know no more of PostgreSQL's protocol than a probe needs.

use citus_fleet_tests::Server;
use serde_json::json;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// The group of the first of them, once they are registered.
const FIRST_GROUP: u32 = 1000;

pub struct Crowd {
    pub port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    /// What all of them have in common: versions, as the coordinator has them.
    version_num: u32,
    extensions: serde_json::Value,
    registered: AtomicBool,
    stopped: AtomicBool,
}

/// This many addresses of a block of loopback that no server of the harness is at.
pub fn addresses(block: u8, count: usize) -> Vec<IpAddr> {
    (0..count)
        .map(|n| Ipv4Addr::new(127, block, (n / 250) as u8, (n % 250) as u8 + 1).into())
        .collect()
}

fn number(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(ip) => u32::from(ip.octets()[2]) * 250 + u32::from(ip.octets()[3]) - 1,
        IpAddr::V6(_) => 0,
    }
}

/// A port that nothing listens on at any address.
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port()
}

impl Crowd {
    /// Servers that a coordinator would take, since they have its versions.
    pub fn start(coordinator: &Server) -> Crowd {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let extensions = coordinator.value(
            "SELECT json_object_agg(extname, json_build_object('installed', extversion, 'available', true))
             FROM pg_catalog.pg_extension WHERE extname IN ('citus', 'vector', 'citus_fleet')",
        );
        let version = coordinator.value("SHOW server_version_num");
        let shared = Arc::new(Shared {
            version_num: version.parse().expect("a version number"),
            extensions: extensions.parse().expect("JSON"),
            registered: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
        });
        let state = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if state.stopped.load(Ordering::Relaxed) {
                    return;
                }
                let state = state.clone();
                let server = move || drop(state.converse(stream));
                let _ = thread::Builder::new().stack_size(128 << 10).spawn(server);
            }
        });
        Crowd { port, shared }
    }

    /// From now on they say that they are members of the coordinator's cluster, which is told so too.
    pub fn register(&self, coordinator: &Server, addresses: &[IpAddr]) {
        self.shared.registered.store(true, Ordering::Relaxed);
        let rows: Vec<String> = addresses
            .iter()
            .map(|address| {
                let group = FIRST_GROUP + number(*address);
                format!("({group}, {group}, '{address}', {}, true, true, true)", self.port)
            })
            .collect();
        coordinator.run(&format!(
            "INSERT INTO pg_catalog.pg_dist_node
               (nodeid, groupid, nodename, nodeport, hasmetadata, isactive, metadatasynced)
             VALUES {}",
            rows.join(",")
        ));
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

impl Shared {
    fn converse(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.set_nodelay(true)?;
        let number = number(stream.local_addr()?.ip());
        skip_startup(&mut stream)?;
        // AuthenticationOk, ReadyForQuery.
        stream.write_all(&[message(b'R', &[0; 4]), message(b'Z', b"I")].concat())?;
        for answer in [self.server(number), self.membership(number)] {
            until_sync(&mut stream)?;
            stream.write_all(&rows_of(&answer.to_string()))?;
        }
        // Terminate, or the end.
        stream.read_exact(&mut [0; 5])
    }

    fn server(&self, number: u32) -> serde_json::Value {
        json!({
            "system_identifier": 7_000_000_000_000_000_000_i64 + i64::from(number),
            "started_us": 1_700_000_000_000_000_i64 + i64::from(number),
            "in_recovery": false,
            "version_num": self.version_num,
            "max_prepared_transactions": 100,
            "extensions": self.extensions,
            "clashing_relations": [],
        })
    }

    fn membership(&self, number: u32) -> serde_json::Value {
        let registered = self.registered.load(Ordering::Relaxed);
        json!({
            "group_id": if registered { FIRST_GROUP + number } else { 0 },
            "server_id": format!("00000000-0000-4000-8000-{number:012}"),
            "nodes": if registered { 1001 } else { 0 },
            "distributed_tables": 0,
        })
    }
}

/// Reads the start of a conversation, and declines encryption.
fn skip_startup(stream: &mut TcpStream) -> io::Result<()> {
    loop {
        let mut head = [0; 8];
        stream.read_exact(&mut head)?;
        let [a, b, c, d, code @ ..] = head;
        match u32::from_be_bytes(code) {
            80_877_103 | 80_877_104 => stream.write_all(b"N")?,
            _ => {
                let length = u32::from_be_bytes([a, b, c, d]).clamp(8, 10_000);
                return stream.read_exact(&mut vec![0; length as usize - 8]);
            }
        }
    }
}

/// Reads messages up to the one that asks for the answer.
fn until_sync(stream: &mut TcpStream) -> io::Result<()> {
    loop {
        let mut head = [0; 5];
        stream.read_exact(&mut head)?;
        let [kind, length @ ..] = head;
        let length = u32::from_be_bytes(length).clamp(4, 1 << 20);
        stream.read_exact(&mut vec![0; length as usize - 4])?;
        match kind {
            b'S' => return Ok(()),
            b'X' => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ => {}
        }
    }
}

/// The answer to Parse, Bind, Describe, Execute and Sync: one row with one text.
fn rows_of(text: &str) -> Vec<u8> {
    let mut column = b"\0\x01answer\0".to_vec();
    // No table, type text, of any length, in text format.
    column.extend_from_slice(&[
        0, 0, 0, 0, 0, 0, 0, 0, 0, 25, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0,
    ]);
    let mut row = vec![0, 1];
    row.extend_from_slice(&(text.len() as u32).to_be_bytes());
    row.extend_from_slice(text.as_bytes());
    [
        message(b'1', b""),
        message(b'2', b""),
        message(b'T', &column),
        message(b'D', &row),
        message(b'C', b"SELECT 1\0"),
        message(b'Z', b"I"),
    ]
    .concat()
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind];
    message.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    message.extend_from_slice(body);
    message
}
