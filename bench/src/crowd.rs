//! Owns a thousand servers that are none: one listener on every loopback address, which lets anybody
//! log in and answers as one real worker does, except that each address has an identity of its own.
//! Must not know what is asked: the real worker is asked the same, once.

use citus_fleet_tests::server::{Server, Spec};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// The group of the first of them, once they are registered.
const FIRST_GROUP: u32 = 1000;

pub struct Crowd {
    pub port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    /// The worker that all of them are like.
    model: Server,
    /// What it said, by question.
    answers: Mutex<HashMap<String, Value>>,
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
    /// Servers like the one that is described, which is to be at an address of its own.
    pub fn like(model: Spec) -> Crowd {
        allow_many_files();
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared {
            model: Server::start(model),
            answers: Mutex::default(),
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
                let _ = thread::Builder::new().stack_size(256 << 10).spawn(server);
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

/// A thousand logins at once are a thousand files of this process; a shell often allows fewer.
fn allow_many_files() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls get a valid struct; a limit that cannot be raised stays as it is.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
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
        loop {
            let question = question(&mut stream)?;
            let answer = self.answer(&question, number)?;
            stream.write_all(&rows_of(&answer.to_string()))?;
        }
    }

    /// What the model answers, with the identity of this one.
    fn answer(&self, question: &str, number: u32) -> io::Result<Value> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if !answers.contains_key(question) {
            let text = self.model.try_value(question).map_err(io::Error::other)?;
            answers.insert(question.to_string(), text.parse()?);
        }
        let mut answer = answers[question].clone();
        let number = i64::from(number);
        let mut own = vec![
            ("system_identifier", json!(7_000_000_000_000_000_000 + number)),
            ("started_us", json!(1_700_000_000_000_000 + number)),
            ("server_id", json!(format!("00000000-0000-4000-8000-{number:012}"))),
        ];
        if self.registered.load(Ordering::Relaxed) {
            own.extend([
                ("group_id", json!(i64::from(FIRST_GROUP) + number)),
                ("nodes", json!(1001)),
            ]);
        }
        for (key, value) in own {
            if let Some(fact) = answer.get_mut(key) {
                *fact = value;
            }
        }
        Ok(answer)
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

/// Reads messages up to the one that asks for the answer: the statement of Parse, with the
/// parameters of Bind in their places.
fn question(stream: &mut TcpStream) -> io::Result<String> {
    let mut statement = String::new();
    loop {
        let mut head = [0; 5];
        stream.read_exact(&mut head)?;
        let [kind, length @ ..] = head;
        let length = u32::from_be_bytes(length).clamp(4, 1 << 20);
        let mut body = vec![0; length as usize - 4];
        stream.read_exact(&mut body)?;
        let mut body = body.as_slice();
        match kind {
            b'P' => {
                text(&mut body)?;
                statement = text(&mut body)?;
            }
            b'B' => {
                text(&mut body)?;
                text(&mut body)?;
                let formats = integer::<2>(&mut body)?;
                body.read_exact(&mut vec![0; formats * 2])?;
                for number in 1..=integer::<2>(&mut body)? {
                    let mut value = vec![0; integer::<4>(&mut body)?];
                    body.read_exact(&mut value)?;
                    let value = String::from_utf8_lossy(&value).replace('\'', "''");
                    statement = statement.replace(&format!("${number}"), &format!("'{value}'"));
                }
            }
            b'S' => return Ok(statement),
            b'X' => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ => {}
        }
    }
}

fn text(body: &mut &[u8]) -> io::Result<String> {
    let end = body.iter().position(|byte| *byte == 0).ok_or(io::ErrorKind::InvalidData)?;
    let text = String::from_utf8_lossy(&body[..end]).into_owned();
    *body = &body[end + 1..];
    Ok(text)
}

fn integer<const BYTES: usize>(body: &mut &[u8]) -> io::Result<usize> {
    let mut bytes = [0; BYTES];
    body.read_exact(&mut bytes)?;
    Ok(bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
}

/// The answer to Parse, Bind, Describe, Execute and Sync: one row with one text.
fn rows_of(text: &str) -> Vec<u8> {
    let mut column = b"\0\x01answer\0".to_vec();
    // No table, type text, of any length, in text format.
    column.extend_from_slice(&[0; 6]);
    column.extend_from_slice(&[0, 0, 0, 25, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]);
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
