//! Owns what a test may require of the machine, so that it can be skipped by name with the reason.
//! Must not decide what is skipped: the runner does.

use crate::install::install;
use std::process::{Command, Stdio};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    Citus,
    Vector,
    Fleet,
    OpenSsl,
    Ipv6,
    NoCitus,
}

impl Need {
    /// Why the need is not met here, or `None` when it is.
    pub fn missing(self) -> Option<String> {
        let extension = |name: &str| {
            (!install().has_extension(name)).then(|| {
                format!("the extension {name} is not installed for PostgreSQL {}", install().major)
            })
        };
        match self {
            Need::Citus => extension("citus"),
            Need::Vector => extension("vector"),
            Need::Fleet => extension("citus_fleet"),
            Need::NoCitus => install()
                .has_extension("citus")
                .then(|| "the extension citus is installed".to_string()),
            Need::OpenSsl => Command::new("openssl")
                .arg("version")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_err()
                .then(|| "the program openssl is not on the PATH".to_string()),
            Need::Ipv6 => std::net::TcpListener::bind("[::1]:0")
                .err()
                .map(|error| format!("IPv6 loopback cannot be used: {error}")),
        }
    }
}
