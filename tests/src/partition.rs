//! Owns an address that leads to a server elsewhere and that can be cut off: what is sent through it then
//! stays on its way, in both directions, until it is healed.
//! Must not look at what it hands on, nor break a connection that is cut off.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// How soon a change of the state is noticed.
const POLL: Duration = Duration::from_millis(10);

pub struct Partition {
    pub address: IpAddr,
    state: Arc<State>,
}

struct State {
    cut: AtomicBool,
    /// Somebody listens: where the server does not run, its host refuses connections.
    open: AtomicBool,
    ended: AtomicBool,
    /// The listener is bound, or is not any more.
    is_open: AtomicBool,
}

impl Partition {
    #[track_caller]
    pub fn start(at: impl Into<IpAddr>, port: u16, to: IpAddr) -> Partition {
        let address = at.into();
        let state = Arc::new(State {
            cut: AtomicBool::new(false),
            open: AtomicBool::new(true),
            ended: AtomicBool::new(false),
            is_open: AtomicBool::new(false),
        });
        let its = state.clone();
        thread::spawn(move || listen(address, port, to, &its));
        let partition = Partition { address, state };
        partition.wait();
        partition
    }

    pub fn cut(&self, cut: bool) {
        self.state.cut.store(cut, Ordering::Relaxed);
    }

    pub fn is_cut(&self) -> bool {
        self.state.cut.load(Ordering::Relaxed)
    }

    /// Lets the address answer, or refuse, connections.
    #[track_caller]
    pub fn open(&self, open: bool) {
        self.state.open.store(open, Ordering::Relaxed);
        self.wait();
    }

    #[track_caller]
    fn wait(&self) {
        let wanted = self.state.open.load(Ordering::Relaxed);
        crate::until("the relay has changed", Duration::from_secs(10), || {
            if self.state.is_open.load(Ordering::Relaxed) == wanted {
                Ok(())
            } else {
                Err("not yet")
            }
        });
    }
}

impl Drop for Partition {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::Relaxed);
    }
}

fn listen(at: IpAddr, port: u16, to: IpAddr, state: &Arc<State>) {
    let mut listener: Option<TcpListener> = None;
    while !state.ended.load(Ordering::Relaxed) {
        let open = state.open.load(Ordering::Relaxed);
        if !open {
            listener = None;
        } else if listener.is_none() {
            listener = TcpListener::bind((at, port)).ok();
            if let Some(listener) = &listener {
                listener.set_nonblocking(true).expect("a socket takes non-blocking mode");
            }
        }
        state.is_open.store(listener.is_some(), Ordering::Relaxed);
        match listener.as_ref().map(TcpListener::accept) {
            Some(Ok((client, _))) => {
                let state = state.clone();
                thread::spawn(move || serve(client, (to, port), &state));
            }
            _ => thread::sleep(POLL),
        }
    }
}

fn serve(client: TcpStream, to: (IpAddr, u16), state: &Arc<State>) {
    if client.set_nonblocking(false).is_err() || !state.passes() {
        return;
    }
    let Ok(server) = TcpStream::connect(to) else { return };
    let (Ok(from), Ok(back)) = (client.try_clone(), server.try_clone()) else { return };
    let its = state.clone();
    thread::spawn(move || hand_on(back, from, &its));
    hand_on(client, server, state);
}

impl State {
    /// Waits while nothing passes; false once nothing ever will.
    fn passes(&self) -> bool {
        while self.cut.load(Ordering::Relaxed) && !self.ended.load(Ordering::Relaxed) {
            thread::sleep(POLL);
        }
        !self.ended.load(Ordering::Relaxed)
    }
}

/// In one direction, until either side hangs up.
fn hand_on(mut from: TcpStream, mut to: TcpStream, state: &State) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if !state.passes() || to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    // That somebody has hung up is news, too, and stays on its way.
    state.passes();
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{Subnet, port};
    use std::io::ErrorKind;

    #[test]
    fn what_is_cut_off_arrives_once_it_is_healed() {
        let subnet = Subnet::new();
        let server = TcpListener::bind((subnet.address(), port())).unwrap();
        let to = server.local_addr().unwrap().ip();
        let relay = Partition::start(subnet.address(), port(), to);
        let mut client = TcpStream::connect((relay.address, port())).unwrap();
        let (mut heard, _) = server.accept().unwrap();
        relay.cut(true);
        client.write_all(b"x").unwrap();
        heard.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let mut byte = [0];
        assert_eq!(heard.read(&mut byte).unwrap_err().kind(), ErrorKind::WouldBlock);
        relay.cut(false);
        heard.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        heard.read_exact(&mut byte).unwrap();
        relay.open(false);
        let refused = TcpStream::connect((relay.address, port())).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    }
}
