//! Owns whom the HTTP server lets in: whoever asks for a host that it goes by, with the token where
//! there is one.
//! Must not tell a caller more than that it was not let in, nor ever show the token.

use crate::settings;
use std::net::{IpAddr, Ipv6Addr};
use subtle::ConstantTimeEq;

/// What callers have to bring. It has no Debug: it holds the token.
pub struct Gate {
    /// Names of this host, besides its addresses and `localhost`.
    hosts: Vec<String>,
    token: Option<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A page of somebody else's has its own name lead here (DNS rebinding), or a name is missing in
    /// `citus_fleet.http_hosts`.
    OtherHost,
    NoToken,
}

impl Gate {
    /// By the settings and the token file as they are now: a token is exchanged by writing the file.
    pub fn current() -> Self {
        Self { hosts: settings::http_hosts(), token: token() }
    }

    /// Judges a request by its Host header. An address cannot be rebound, and is always let in.
    pub fn admits_host(&self, host: Option<&str>) -> Result<(), Refusal> {
        let name = host.and_then(without_port).ok_or(Refusal::OtherHost)?;
        let is_address = name.parse::<IpAddr>().is_ok()
            || name
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'))
                .is_some_and(|rest| rest.parse::<Ipv6Addr>().is_ok());
        let name = name.strip_suffix('.').unwrap_or(name);
        let is_ours = name.eq_ignore_ascii_case("localhost")
            || self.hosts.iter().any(|ours| ours.eq_ignore_ascii_case(name));
        if is_address || is_ours { Ok(()) } else { Err(Refusal::OtherHost) }
    }

    /// Judges a request by its Authorization header, in a time that tells nothing of the token.
    pub fn admits_bearer(&self, authorization: Option<&[u8]>) -> Result<(), Refusal> {
        let Some(token) = &self.token else {
            return Ok(());
        };
        let given = authorization.and_then(|value| {
            let (scheme, given) = value.split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"bearer ").then_some(given)
        });
        match given {
            Some(given) if !token.is_empty() && bool::from(given.ct_eq(token)) => Ok(()),
            _ => Err(Refusal::NoToken),
        }
    }
}

/// What callers have to bring, where `citus_fleet.http_token_file` is set. A file that cannot be read
/// is as good as an empty one, which lets nobody in.
pub fn token() -> Option<Vec<u8>> {
    let text = std::fs::read(settings::http_token_file()?).unwrap_or_default();
    Some(text.trim_ascii().to_vec())
}

/// The host of a Host header; none where what follows its colon is no port.
fn without_port(host: &str) -> Option<&str> {
    let after_address = host.rfind(']').map_or(0, |end| end + 1);
    match host[after_address..].find(':') {
        None => Some(host),
        Some(colon) => {
            let (name, port) = host.split_at(after_address + colon);
            port[1..].parse::<u16>().is_ok().then_some(name)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_localhost_and_named_hosts_are_let_in() {
        let gate = Gate { hosts: vec!["coordinator".into()], token: None };
        for host in [
            "127.0.0.1:9187",
            "10.1.2.3",
            "[::1]:9187",
            "[fd00::1]",
            "localhost:1",
            "LOCALHOST",
            "coordinator:9187",
            "Coordinator.",
        ] {
            assert_eq!(gate.admits_host(Some(host)), Ok(()), "{host}");
        }
        for host in [
            "evil.example:9187",
            "coordinator.evil.example",
            "",
            "127.0.0.1.evil.example",
            "localhost:x",
            "[evil]",
            "coordinator:1:2",
        ] {
            assert_eq!(gate.admits_host(Some(host)), Err(Refusal::OtherHost), "{host}");
        }
        assert_eq!(gate.admits_host(None), Err(Refusal::OtherHost));
    }

    #[test]
    fn a_token_has_to_be_the_whole_token() {
        let gate = Gate { hosts: Vec::new(), token: Some(b"s3cret".to_vec()) };
        for given in ["Bearer s3cret", "bearer s3cret", "BEARER s3cret"] {
            assert_eq!(gate.admits_bearer(Some(given.as_bytes())), Ok(()), "{given}");
        }
        for given in
            ["", "Bearer", "Bearer ", "Bearer s3cre", "Bearer s3crett", "Basic s3cret", "s3cret"]
        {
            assert_eq!(
                gate.admits_bearer(Some(given.as_bytes())),
                Err(Refusal::NoToken),
                "{given}"
            );
        }
        assert_eq!(gate.admits_bearer(None), Err(Refusal::NoToken));
        let open = Gate { hosts: Vec::new(), token: None };
        assert_eq!(open.admits_bearer(None), Ok(()));
        let empty = Gate { hosts: Vec::new(), token: Some(Vec::new()) };
        for given in [None, Some(&b"Bearer "[..]), Some(b"Bearer x")] {
            assert_eq!(empty.admits_bearer(given), Err(Refusal::NoToken));
        }
    }
}
