//! Owns what a test may require of the machine, so that it can be skipped by name with the reason.
//! Must not decide what is skipped: the runner does.

use crate::compose;
use crate::install::install;
use crate::kubernetes;
use std::process::{Command, Stdio};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    Citus,
    Vector,
    Fleet,
    OpenSsl,
    Ipv6,
    /// Servers that see another resolv.conf, memory or file system than their host's, and name servers
    /// on port 53.
    Mounts,
    Patroni,
    Prometheus,
    NoCitus,
    Docker,
    Kubectl,
    /// A Kubernetes cluster that is for tests.
    Kubernetes,
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
            Need::Kubectl => lacks_program("kubectl", "help"),
            Need::Kubernetes => std::env::var_os(kubernetes::VARIABLE)
                .is_none()
                .then(|| format!("{} names no cluster that is for tests", kubernetes::VARIABLE)),
            Need::OpenSsl => lacks_program("openssl", "version"),
            Need::Mounts => {
                let mounts = Command::new("unshare").args(["--mount", "true"]).status();
                let is_root = crate::run::account().is_some();
                (!is_root || !mounts.is_ok_and(|status| status.success()))
                    .then(|| "only root can give a server mounts of its own".to_string())
            }
            Need::Patroni => {
                lacks_program("patroni", "--version").or_else(|| lacks_program("etcd", "--version"))
            }
            Need::Docker => compose::missing(),
            Need::Prometheus => lacks_program("promtool", "--version")
                .or_else(|| lacks_program("prometheus", "--version")),
            Need::Ipv6 => std::net::TcpListener::bind("[::1]:0")
                .err()
                .map(|error| format!("IPv6 loopback cannot be used: {error}")),
        }
    }
}

fn lacks_program(name: &str, ask: &str) -> Option<String> {
    let status = Command::new(name).arg(ask).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_err().then(|| format!("the program {name} is not on the PATH"))
}
