//! Owns a scripted DNS server on loopback, UDP and TCP on one port, whose records and manners a test
//! changes while it runs.
//! Must not resolve anything itself, and answers each query from what the test said last.

mod reply;
mod zone;

pub use zone::{Behaviour, MOST};

use reply::Transport;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;
use zone::Zone;

/// Between two questions of `Dns::keep`.
const HEALTH_CHECK: Duration = Duration::from_millis(100);

pub struct Dns {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    zone: Mutex<Zone>,
    stopped: AtomicBool,
}

impl Shared {
    fn zone(&self) -> MutexGuard<'_, Zone> {
        self.zone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

impl Dns {
    #[track_caller]
    pub fn start(ip: impl Into<IpAddr>) -> Dns {
        Dns::start_at(ip, 0)
    }

    /// On port 53, where resolv.conf looks for it, which takes `Need::Mounts`; or on any, for 0.
    #[track_caller]
    pub fn start_at(ip: impl Into<IpAddr>, port: u16) -> Dns {
        let ip = ip.into();
        let (udp, tcp) = (0..20)
            .find_map(|_| {
                let tcp = TcpListener::bind((ip, port)).ok()?;
                let udp = UdpSocket::bind(tcp.local_addr().ok()?).ok()?;
                Some((udp, tcp))
            })
            .expect("a port for UDP and TCP");
        let address = tcp.local_addr().expect("an address");
        // Docker's TTL, which must hide nothing.
        let mut zone = Zone::default();
        zone.ttl = 600;
        let shared = Arc::new(Shared { zone: Mutex::new(zone), stopped: AtomicBool::new(false) });
        let state = shared.clone();
        thread::spawn(move || serve_udp(udp, &state));
        let state = shared.clone();
        thread::spawn(move || serve_tcp(tcp, &state));
        Dns { address, shared }
    }

    /// What `citus_fleet.nameserver` is set to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The A and AAAA records of a name; the ones it had are forgotten.
    pub fn addresses(&self, name: &str, addresses: &[IpAddr]) {
        self.shared.zone().set_addresses(name, addresses);
    }

    /// Asks again and again which addresses a name has, as a load balancer asks for its servers'
    /// health; where it hears of none, the name keeps what it had.
    pub fn keep(&self, name: &str, ask: impl Fn() -> Vec<IpAddr> + Send + 'static) {
        let (shared, name) = (self.shared.clone(), name.to_string());
        thread::spawn(move || {
            while !shared.stopped() {
                let addresses = ask();
                if !addresses.is_empty() {
                    shared.zone().set_addresses(&name, &addresses);
                }
                thread::sleep(HEALTH_CHECK);
            }
        });
    }

    /// The SRV records of a name, as port and target.
    pub fn services(&self, name: &str, targets: &[(u16, &str)]) {
        self.shared.zone().set_services(name, targets);
    }

    /// The PTR records of an address.
    pub fn pointers(&self, address: IpAddr, names: &[&str]) {
        self.shared.zone().set_pointers(address, names);
    }

    pub fn alias(&self, name: &str, target: &str) {
        self.shared.zone().set_alias(name, target);
    }

    /// From now on the name does not exist.
    pub fn forget(&self, name: &str) {
        self.shared.zone().forget(name);
    }

    /// The TTL of every answer; 600, as Docker's, unless set.
    pub fn ttl(&self, seconds: u32) {
        self.shared.zone().ttl = seconds;
    }

    /// How every name is answered that has no manners of its own.
    pub fn behave(&self, behaviour: Behaviour) {
        self.shared.zone().behaviour = behaviour;
    }

    /// How one name is answered.
    pub fn behave_for(&self, name: &str, behaviour: Behaviour) {
        self.shared.zone().set_behaviour(name, None, behaviour);
    }

    /// How one type of one name is answered, as "A" or "AAAA".
    #[track_caller]
    pub fn behave_for_type(&self, name: &str, kind: &str, behaviour: Behaviour) {
        let kind = kind.parse().expect("a record type");
        self.shared.zone().set_behaviour(name, Some(kind), behaviour);
    }

    /// How many queries came so far, over UDP and TCP.
    pub fn queries(&self) -> u64 {
        self.shared.zone().queries()
    }

    /// How many queries came for one name, of whatever type.
    pub fn queries_for(&self, name: &str) -> u64 {
        self.shared.zone().queries_for(name)
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_millis(200));
        if let Ok(socket) = UdpSocket::bind((self.address.ip(), 0)) {
            let _ = socket.send_to(&[], self.address);
        }
    }
}

fn serve_udp(socket: UdpSocket, shared: &Arc<Shared>) {
    let mut buffer = [0; 4096];
    while let Ok((length, client)) = socket.recv_from(&mut buffer) {
        if shared.stopped() {
            return;
        }
        let replies = reply::to(&buffer[..length], Transport::Udp, &mut shared.zone());
        if replies.delay.is_zero() {
            for packet in replies.packets {
                let _ = socket.send_to(&packet, client);
            }
        } else if let Ok(socket) = socket.try_clone() {
            thread::spawn(move || {
                thread::sleep(replies.delay);
                for packet in replies.packets {
                    let _ = socket.send_to(&packet, client);
                }
            });
        }
    }
}

fn serve_tcp(listener: TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming().flatten() {
        if shared.stopped() {
            return;
        }
        let shared = shared.clone();
        thread::spawn(move || {
            let _ = serve_stream(stream, &shared);
        });
    }
}

fn serve_stream(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    // An idle client is let go after a while, so that no thread outlives the tests by much.
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    while !shared.stopped() {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut query)?;
        let replies = reply::to(&query, Transport::Tcp, &mut shared.zone());
        thread::sleep(replies.delay);
        for packet in replies.packets {
            let length = u16::try_from(packet.len()).expect("a DNS message fits 65,535 bytes");
            stream.write_all(&length.to_be_bytes())?;
            stream.write_all(&packet)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
