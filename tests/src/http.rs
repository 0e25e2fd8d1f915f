//! Owns asking an HTTP server on loopback one thing.
//! Must not follow, keep, retry or hide anything.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const CONNECT: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(20);

/// What a server answered.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// The status line and the headers.
    pub head: String,
    pub body: String,
}

pub fn get(server: SocketAddr, path: &str) -> io::Result<Answer> {
    request(server, "GET", path, &[])
}

/// Sends JSON, and waits for the answer for at most `limit`.
pub fn post(server: SocketAddr, path: &str, json: &str, limit: Duration) -> io::Result<Answer> {
    let head = format!(
        "POST {path} HTTP/1.0\r\nHost: {server}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{json}",
        json.len()
    );
    send(server, head.as_bytes(), limit)
}

/// A request with these headers; the host is the address unless one of them says otherwise.
pub fn request(
    server: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> io::Result<Answer> {
    let mut text = format!("{method} {path} HTTP/1.0\r\n");
    if headers.iter().all(|(name, _)| *name != "Host") {
        text.push_str(&format!("Host: {server}\r\n"));
    }
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    send(server, text.as_bytes(), PATIENCE)
}

/// Sends bytes, and reads all that comes back within `limit`.
pub fn send(server: SocketAddr, bytes: &[u8], limit: Duration) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&server, CONNECT)?;
    stream.set_read_timeout(Some(limit))?;
    stream.write_all(bytes)?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("no HTTP: {head}")))?;
    Ok(Answer { status, head: head.to_string(), body: body.to_string() })
}
