//! Owns an address that leads to a server elsewhere, as a load balancer's does, and that can be
//! taken away without a harm to those who are connected.
//! Must not look at what it hands on.

use crate::wait::until;
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

pub struct Relay {
    pub address: SocketAddr,
    closed: Arc<AtomicBool>,
}

impl Relay {
    #[track_caller]
    pub fn start(at: impl Into<IpAddr>, port: u16, to: IpAddr) -> Relay {
        let listener = TcpListener::bind((at.into(), port)).expect("the address is free");
        let address = listener.local_addr().expect("an address");
        let closed = Arc::new(AtomicBool::new(false));
        let is_closed = closed.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if is_closed.load(Ordering::Relaxed) {
                    break;
                }
                // A server that is not there looks like one that hangs up.
                if let Ok(server) = TcpStream::connect((to, port)) {
                    let _ = connect(&client, &server).and_then(|()| connect(&server, &client));
                }
            }
        });
        Relay { address, closed }
    }

    /// Lets nobody in any more; whoever is connected stays connected.
    #[track_caller]
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        until("the relay refuses connections", Duration::from_secs(5), || {
            match TcpStream::connect_timeout(&self.address, Duration::from_secs(1)) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_millis(200));
    }
}

/// Hands on in one direction until either side hangs up.
fn connect(from: &TcpStream, to: &TcpStream) -> io::Result<()> {
    let (mut from, mut to) = (from.try_clone()?, to.try_clone()?);
    thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    });
    Ok(())
}
