//! Owns the grammar of `citus_fleet.workers`: text in, sources out, or the part that is wrong.
//! Must not ask DNS; `observe::dns` does, and `discovery` keeps what it answered.

use super::names::HostName;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

/// The port a source without one means, as in libpq.
pub const DEFAULT_PORT: u16 = 5432;

/// One entry of `citus_fleet.workers`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `worker` or `worker:5433`: every A and AAAA record is a candidate.
    Host { name: HostName, port: u16 },
    /// `srv:_postgresql._tcp.citus-workers`: every SRV record is a candidate with its own port.
    Srv { name: HostName },
    /// `citus-worker-{n}`: n = 1, 2, … until [`Source::PATTERN_GAP`] names in a row do not exist.
    Pattern { before: String, after: String, port: u16 },
    /// `10.0.0.7:5432` or `[::1]:5432`.
    Address(SocketAddr),
}

impl Source {
    /// How many names of a pattern in a row may be missing before the search ends.
    pub const PATTERN_GAP: usize = 3;

    /// The n-th name of a pattern; `parse` has made sure that it is a host name.
    pub fn numbered(before: &str, n: usize, after: &str) -> Result<HostName, String> {
        HostName::parse(&format!("{before}{n}{after}"))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host { name, port } => write!(f, "{name}:{port}"),
            Self::Srv { name } => write!(f, "srv:{name}"),
            Self::Pattern { before, after, port } => write!(f, "{before}{{n}}{after}:{port}"),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

/// Parses the whole setting: sources between commas, white space around them, none at all for `''`.
/// The error names the source that is wrong and says why.
pub fn parse_sources(text: &str) -> Result<Vec<Source>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let mut sources: Vec<Source> = Vec::new();
    for part in text.split(',').map(str::trim) {
        let source = parse_source(part).map_err(|why| format!("source {part:?}: {why}."))?;
        if sources.contains(&source) {
            return Err(format!("source {part:?} is listed twice."));
        }
        sources.push(source);
    }
    Ok(sources)
}

fn parse_source(part: &str) -> Result<Source, String> {
    if part.is_empty() {
        return Err("there is nothing between two commas".into());
    }
    if let Some(name) = part.strip_prefix("srv:") {
        return Ok(Source::Srv { name: HostName::parse(name)? });
    }
    if let Some(address) = parse_address(part)? {
        return Ok(Source::Address(address));
    }
    let (name, port) = split_port(part)?;
    if name.contains(['{', '}']) {
        let (before, after) = name
            .split_once("{n}")
            .filter(|(before, after)| !format!("{before}{after}").contains(['{', '}']))
            .ok_or("a pattern has {n} in it exactly once and no other braces")?;
        Source::numbered(before, 1, after)?;
        return Ok(Source::Pattern { before: before.into(), after: after.into(), port });
    }
    Ok(Source::Host { name: HostName::parse(name)?, port })
}

/// An address with or without a port; `None` when the text is not meant as an address.
fn parse_address(text: &str) -> Result<Option<SocketAddr>, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Some(SocketAddr::new(address, DEFAULT_PORT)));
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']').ok_or("the bracket is not closed")?;
        let address: IpAddr =
            address.parse().map_err(|_| format!("{address:?} is not an IPv6 address"))?;
        let port = match port.strip_prefix(':') {
            Some(port) => parse_port(port)?,
            None if port.is_empty() => DEFAULT_PORT,
            None => return Err(format!("{port:?} follows the bracket where a port may be")),
        };
        return Ok(Some(SocketAddr::new(address, port)));
    }
    match text.rsplit_once(':') {
        Some((address, port)) => match address.parse::<IpAddr>() {
            Ok(address) if address.is_ipv4() => {
                Ok(Some(SocketAddr::new(address, parse_port(port)?)))
            }
            _ => Ok(None),
        },
        None => Ok(None),
    }
}

fn split_port(text: &str) -> Result<(&str, u16), String> {
    match text.rsplit_once(':') {
        Some((name, port)) => Ok((name, parse_port(port)?)),
        None => Ok((text, DEFAULT_PORT)),
    }
}

fn parse_port(text: &str) -> Result<u16, String> {
    text.parse::<NonZeroU16>()
        .ok()
        .filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
        .map(NonZeroU16::get)
        .ok_or_else(|| format!("{text:?} is not a port from 1 to 65535"))
}

/// Parses `citus_fleet.coordinator_host`: a host name or an address, and a port where one is given.
pub fn parse_host_port(text: &str) -> Result<(String, Option<u16>), String> {
    if let Some(address) = parse_address(text)? {
        let given =
            text.ends_with(&format!(":{}", address.port())) && text.parse::<IpAddr>().is_err();
        return Ok((address.ip().to_string(), given.then_some(address.port())));
    }
    let (name, port) = split_port(text)?;
    let name = HostName::parse(name)?;
    Ok((name.to_string(), text.contains(':').then_some(port)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(text: &str) -> Source {
        let mut sources = parse_sources(text).unwrap();
        assert_eq!(sources.len(), 1);
        sources.remove(0)
    }

    #[test]
    fn every_kind_of_source() {
        let host = |name: &str, port| Source::Host { name: HostName::parse(name).unwrap(), port };
        assert_eq!(parse_sources("  ").unwrap(), vec![]);
        assert_eq!(one("worker"), host("worker", 5432));
        assert_eq!(one("worker:5433"), host("worker", 5433));
        assert_eq!(one("10.0.0.7:6000"), Source::Address("10.0.0.7:6000".parse().unwrap()));
        assert_eq!(one("10.0.0.7"), Source::Address("10.0.0.7:5432".parse().unwrap()));
        assert_eq!(one("fd00::7"), Source::Address("[fd00::7]:5432".parse().unwrap()));
        assert_eq!(one("[fd00::7]:6000"), Source::Address("[fd00::7]:6000".parse().unwrap()));
        assert_eq!(
            one("srv:_postgresql._tcp.citus-workers"),
            Source::Srv { name: HostName::parse("_postgresql._tcp.citus-workers").unwrap() }
        );
        assert_eq!(
            one("citus-worker-{n}.ns:6000"),
            Source::Pattern { before: "citus-worker-".into(), after: ".ns".into(), port: 6000 }
        );
        assert_eq!(parse_sources("a, b:1 ,c").unwrap().len(), 3);
    }

    #[test]
    fn the_error_names_the_part() {
        for (text, part) in [
            ("a,,b", "\"\""),
            ("a,b c", "\"b c\""),
            ("a:0", "\"0\""),
            ("a:70000", "\"70000\""),
            ("a:+1", "\"+1\""),
            ("a:", "\"\""),
            ("w-{n}-{n}", "{n}"),
            ("w-{m}", "{n}"),
            ("a,b,a", "twice"),
            ("srv:", "empty"),
            ("[::1", "bracket"),
            ("a/b", "'/'"),
            ("10.0.0.256:1", "number"),
        ] {
            let error = parse_sources(text).unwrap_err();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_coordinator_host_keeps_whether_a_port_was_given() {
        assert_eq!(parse_host_port("coord").unwrap(), ("coord".into(), None));
        assert_eq!(parse_host_port("coord:6000").unwrap(), ("coord".into(), Some(6000)));
        assert_eq!(parse_host_port("10.0.0.1").unwrap(), ("10.0.0.1".into(), None));
        assert_eq!(parse_host_port("10.0.0.1:5432").unwrap(), ("10.0.0.1".into(), Some(5432)));
        assert_eq!(parse_host_port("fd00::5432").unwrap(), ("fd00::5432".into(), None));
        assert_eq!(parse_host_port("[fd00::1]:5432").unwrap(), ("fd00::1".into(), Some(5432)));
        assert!(parse_host_port("a,b").is_err());
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_to_the_same(text in "[a-z{}n:.0-9\\[\\],_-]{0,30}") {
            if let Ok(sources) = parse_sources(&text) {
                let printed = sources.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
                prop_assert_eq!(parse_sources(&printed).unwrap(), sources);
            }
        }
    }
}
