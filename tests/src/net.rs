//! Owns addresses that misbehave below SQL: nobody answers, or somebody says the wrong thing.
//! Must not need root.

use std::io::{Read, Write};
use std::mem;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// What a `Stranger` does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Accepts and never says a word.
    Silent,
    /// Answers with bytes that are not PostgreSQL's.
    Garbage,
    /// Sends one byte of a valid answer every now and then.
    Drip,
    /// Lets the client log in, and then never stops sending notices.
    EndlessNotices,
    /// Lets the client log in, and answers its query with rows without end.
    EndlessRows,
    /// Asks for a SCRAM proof with as many iterations as the protocol can say.
    EndlessScram,
    /// Closes as soon as it has accepted.
    Close,
}

/// A TCP server that is no PostgreSQL.
pub struct Stranger {
    pub address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    stopped: Arc<AtomicBool>,
}

impl Stranger {
    #[track_caller]
    pub fn start(ip: impl Into<IpAddr>, port: u16, manner: Manner) -> Stranger {
        let listener = TcpListener::bind((ip.into(), port)).expect("the address is free");
        let address = listener.local_addr().expect("an address");
        let accepted = Arc::new(AtomicUsize::new(0));
        let stopped = Arc::new(AtomicBool::new(false));
        let (count, stop) = (accepted.clone(), stopped.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                count.fetch_add(1, Ordering::Relaxed);
                let stop = stop.clone();
                thread::spawn(move || {
                    let _ = converse(stream, manner, &stop);
                });
            }
        });
        Stranger { address, accepted, stopped }
    }

    /// How many connections came so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_millis(200));
    }
}

const AUTHENTICATION_OK: &[u8] = b"R\0\0\0\x08\0\0\0\0";
const READY: &[u8] = b"Z\0\0\0\x05I";

fn converse(mut stream: TcpStream, manner: Manner, stop: &AtomicBool) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_millis(100)))?;
    stream.set_write_timeout(Some(Duration::from_secs(1)))?;
    let going = || !stop.load(Ordering::Relaxed);
    match manner {
        Manner::Close => {}
        Manner::Silent => {
            let mut sink = [0; 1024];
            // Zero bytes are the client's end; a time-out is not.
            while going() && !matches!(stream.read(&mut sink), Ok(0)) {}
        }
        Manner::EndlessScram => {
            skip_startup(&mut stream)?;
            stream.write_all(&message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0"))?;
            let mut hello = [0; 1024];
            let length = stream.read(&mut hello)?;
            let hello = String::from_utf8_lossy(&hello[..length]).into_owned();
            let nonce = hello.rsplit("r=").next().unwrap_or_default();
            let mut challenge = vec![0, 0, 0, 11];
            write!(challenge, "r={nonce}more,s=c2FsdHNhbHRzYWx0,i=2147483647")?;
            stream.write_all(&message(b'R', &challenge))?;
            while going() && !matches!(stream.read(&mut [0; 1024]), Ok(0)) {}
        }
        Manner::Garbage => {
            let _ = stream.read(&mut [0; 1024]);
            stream.write_all(
                b"\x00\xff\xfe HTTP/1.1 418 I'm a teapot\r\n\r\n\x80\x81'; DROP TABLE t; --",
            )?;
        }
        Manner::Drip => {
            skip_startup(&mut stream)?;
            for byte in AUTHENTICATION_OK.iter().cycle() {
                if !going() {
                    break;
                }
                stream.write_all(&[*byte])?;
                // Patience is the whole point of a drip; the timed-out read is its clock.
                let _ = stream.read(&mut [0; 64]);
            }
        }
        Manner::EndlessNotices => {
            skip_startup(&mut stream)?;
            stream.write_all(AUTHENTICATION_OK)?;
            let notice = message(b'N', b"SNOTICE\0VNOTICE\0C00000\0Mon and on\0\0");
            let flood = notice.repeat(200);
            while going() {
                stream.write_all(&flood)?;
            }
        }
        Manner::EndlessRows => {
            skip_startup(&mut stream)?;
            stream.write_all(AUTHENTICATION_OK)?;
            stream.write_all(READY)?;
            let _ = stream.read(&mut [0; 65536]);
            let mut column = b"\0\x01identity\0".to_vec();
            column.extend_from_slice(&[0; 6]);
            column.extend_from_slice(&[0, 0, 0, 25, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]);
            stream.write_all(&message(b'1', b""))?;
            stream.write_all(&message(b'2', b""))?;
            stream.write_all(&message(b'T', &column))?;
            let mut value = vec![0, 1, 0, 0, 0x40, 0];
            value.extend_from_slice(&[b'x'; 0x4000]);
            let row = message(b'D', &value);
            while going() {
                stream.write_all(&row)?;
            }
        }
    }
    Ok(())
}

/// Reads the start of a PostgreSQL conversation, and declines encryption.
fn skip_startup(stream: &mut TcpStream) -> std::io::Result<()> {
    loop {
        let mut head = [0; 8];
        stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes(head[..4].try_into().expect("four bytes")) as usize;
        let code = u32::from_be_bytes(head[4..].try_into().expect("four bytes"));
        if code == 80_877_103 || code == 80_877_104 {
            stream.write_all(b"N")?;
            continue;
        }
        let mut rest = vec![0; length.saturating_sub(8).min(10_000)];
        return stream.read_exact(&mut rest);
    }
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind];
    message.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    message.extend_from_slice(body);
    message
}

/// An address whose packets seem to vanish: a listener that never accepts and whose queue is full,
/// so that the kernel drops every further SYN.
pub struct BlackHole {
    pub address: SocketAddr,
    _listener: OwnedFd,
    _fillers: Vec<TcpStream>,
}

impl BlackHole {
    #[track_caller]
    pub fn start(ip: Ipv4Addr, port: u16) -> BlackHole {
        let address = SocketAddr::from((ip, port));
        let listener = listen_without_queue(ip, port);
        let patience = Duration::from_millis(150);
        let mut fillers = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, patience) {
            fillers.push(stream);
            assert!(fillers.len() < 64, "the queue of {address} does not fill up");
        }
        BlackHole { address, _listener: listener, _fillers: fillers }
    }
}

impl BlackHole {
    /// Whether somebody waits for an answer right now: a socket in state SYN_SENT.
    pub fn has_caller(&self) -> bool {
        has_socket(self.address, "02")
    }
}

/// Whether somebody on this machine is connected to an IPv4 address.
pub fn is_connected(to: SocketAddr) -> bool {
    has_socket(to, "01")
}

fn has_socket(to: SocketAddr, state: &str) -> bool {
    let IpAddr::V4(ip) = to.ip() else {
        return false;
    };
    let remote = format!("{:08X}:{:04X}", u32::from_ne_bytes(ip.octets()), to.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    table.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(2);
        fields.next() == Some(remote.as_str()) && fields.next() == Some(state)
    })
}

fn listen_without_queue(ip: Ipv4Addr, port: u16) -> OwnedFd {
    // SAFETY: plain socket calls; the address is fully initialised and outlives the calls.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        assert!(fd >= 0, "no socket");
        let listener = OwnedFd::from_raw_fd(fd);
        let mut name: libc::sockaddr_in = mem::zeroed();
        name.sin_family = libc::AF_INET as u16;
        name.sin_port = port.to_be();
        name.sin_addr.s_addr = u32::from_ne_bytes(ip.octets());
        let bound = libc::bind(fd, (&raw const name).cast(), size_of_val(&name) as u32);
        assert_eq!(bound, 0, "{ip}:{port}: {}", std::io::Error::last_os_error());
        assert_eq!(libc::listen(fd, 0), 0, "listen");
        listener
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{Subnet, port};

    #[test]
    fn a_black_hole_answers_nobody() {
        let hole = BlackHole::start(Subnet::new().address(), port());
        let error = TcpStream::connect_timeout(&hole.address, Duration::from_millis(300));
        assert_eq!(error.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_silent_stranger_accepts_and_says_nothing() {
        let stranger = Stranger::start(Subnet::new().address(), port(), Manner::Silent);
        let mut stream = TcpStream::connect(stranger.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(150))).unwrap();
        stream.write_all(b"hello").unwrap();
        let error = stream.read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
        crate::until("the connection is counted", Duration::from_secs(1), || {
            match stranger.accepted() {
                1 => Ok(()),
                n => Err(n),
            }
        });
    }
}
