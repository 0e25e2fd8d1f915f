//! Owns which addresses and names the fleet may talk to and register.
//! Must not look anything up: it is given addresses that were resolved already.

use super::names::HostName;
use ipnet::IpNet;
use std::net::IpAddr;

/// What `private` stands for: RFC 1918, shared address space (RFC 6598) and ULA (RFC 4193).
const PRIVATE: [&str; 5] =
    ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"];

/// `citus_fleet.allowed_networks`.
#[derive(Clone, Debug, Default)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// Parses CIDR blocks, single addresses and the word `private`, between commas.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut networks = Vec::new();
        for part in text.split(',').map(str::trim) {
            if part == "private" {
                networks.extend(PRIVATE.iter().filter_map(|net| net.parse::<IpNet>().ok()));
                continue;
            }
            let network = part
                .parse::<IpNet>()
                .or_else(|_| part.parse::<IpAddr>().map(IpNet::from))
                .map_err(|_| format!("{part:?} is neither a network such as 10.0.0.0/8, nor an address, nor \"private\"."))?;
            networks.push(network);
        }
        Ok(Self(networks))
    }

    /// Why a worker may not live at `address`, or nothing when it may.
    ///
    /// Loopback is another machine's idea of itself, so unless a network of the list names it, it
    /// is allowed only where the coordinator is on loopback too. Link-local, multicast, unspecified
    /// and IPv4-mapped addresses are refused whatever the list says.
    pub fn refusal(&self, address: IpAddr, coordinator_on_loopback: bool) -> Option<String> {
        let kind = match address {
            IpAddr::V4(v4) if v4.is_link_local() => Some("link-local"),
            IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("link-local"),
            IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Some("IPv4-mapped"),
            IpAddr::V4(v4) if v4.is_broadcast() => Some("broadcast"),
            ip if ip.is_unspecified() => Some("unspecified"),
            ip if ip.is_multicast() => Some("multicast"),
            _ => None,
        };
        if let Some(kind) = kind {
            return Some(format!("{address} is a {kind} address"));
        }
        if self.0.iter().any(|network| network.contains(&address)) {
            return None;
        }
        if address.is_loopback() {
            return (!coordinator_on_loopback).then(|| {
                format!("{address} is a loopback address and the coordinator is not registered on loopback")
            });
        }
        Some(format!("{address} is outside citus_fleet.allowed_networks"))
    }

    /// Whether every address is allowed, which `fleet.doctor()` warns of.
    pub fn is_everything(&self) -> bool {
        self.0.iter().any(|network| network.prefix_len() == 0)
    }
}

/// `citus_fleet.allowed_names`: suffixes; none = any name.
#[derive(Clone, Debug, Default)]
pub struct NameSuffixes(Vec<HostName>);

impl NameSuffixes {
    /// Parses suffixes between commas; a leading dot is allowed and means the same.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        text.split(',')
            .map(str::trim)
            .map(|part| {
                HostName::parse(part.strip_prefix('.').unwrap_or(part))
                    .map_err(|why| format!("name suffix {part:?}: {why}."))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether a worker may be known under `name`.
    pub fn allows(&self, name: &HostName) -> bool {
        self.0.is_empty() || self.0.iter().any(|suffix| name.is_within(suffix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_is_the_default_and_says_why_not() {
        let private = Networks::parse("private").unwrap();
        for allowed in ["10.1.2.3", "172.31.0.1", "192.168.7.7", "100.64.0.1", "fd12::1"] {
            assert_eq!(private.refusal(allowed.parse().unwrap(), false), None, "{allowed}");
        }
        for (refused, why) in [
            ("8.8.8.8", "allowed_networks"),
            ("172.32.0.1", "allowed_networks"),
            ("127.0.0.1", "loopback"),
            ("::1", "loopback"),
            ("169.254.169.254", "link-local"),
            ("fe80::1", "link-local"),
            ("224.0.0.1", "multicast"),
            ("ff02::1", "multicast"),
            ("0.0.0.0", "unspecified"),
            ("::", "unspecified"),
            ("::ffff:10.0.0.1", "IPv4-mapped"),
            ("255.255.255.255", "broadcast"),
        ] {
            let reason = private.refusal(refused.parse().unwrap(), false).unwrap();
            assert!(reason.contains(why), "{refused}: {reason}");
        }
    }

    #[test]
    fn loopback_follows_the_coordinator_or_an_explicit_network() {
        let loopback: IpAddr = "127.0.0.5".parse().unwrap();
        assert_eq!(Networks::parse("private").unwrap().refusal(loopback, true), None);
        assert_eq!(Networks::parse("127.0.0.0/8").unwrap().refusal(loopback, false), None);
    }

    #[test]
    fn even_everything_leaves_out_what_is_never_a_worker() {
        let everything = Networks::parse("0.0.0.0/0, ::/0").unwrap();
        assert!(everything.is_everything());
        assert_eq!(everything.refusal("8.8.8.8".parse().unwrap(), false), None);
        assert!(everything.refusal("169.254.169.254".parse().unwrap(), false).is_some());
        assert!(everything.refusal("::ffff:10.0.0.1".parse().unwrap(), false).is_some());
    }

    #[test]
    fn bad_parts_are_named() {
        for text in ["10.0.0.0/33", "10.0.0", "", "private,x"] {
            let part = text.rsplit(',').next().unwrap();
            assert!(Networks::parse(text).unwrap_err().contains(&format!("{part:?}")));
        }
        assert!(NameSuffixes::parse("a.b,c d").unwrap_err().contains("\"c d\""));
    }

    #[test]
    fn suffixes() {
        let suffixes = NameSuffixes::parse(".svc.cluster.local, example").unwrap();
        let allows = |name| suffixes.allows(&HostName::parse(name).unwrap());
        assert!(allows("w.ns.svc.cluster.local") && allows("w.example") && allows("example"));
        assert!(!allows("w.example.evil") && !allows("notexample"));
        assert!(NameSuffixes::default().allows(&HostName::parse("any").unwrap()));
    }
}
