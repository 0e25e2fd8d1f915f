//! Owns asking an HTTP server on loopback one thing.
//! Must not follow, keep or retry anything.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// What a server answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

pub fn get(server: SocketAddr, path: &str) -> io::Result<Answer> {
    ask(server, "GET", path, "", Duration::from_secs(2))
}

/// Sends JSON, and waits for the answer for at most `limit`.
pub fn post(server: SocketAddr, path: &str, json: &str, limit: Duration) -> io::Result<Answer> {
    ask(server, "POST", path, json, limit)
}

fn ask(
    server: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
    limit: Duration,
) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&server, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(limit))?;
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: {server}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("no HTTP: {head}")))?;
    Ok(Answer { status, body: body.to_string() })
}
