//! Owns certificates for servers, made with the openssl program.
//! Must not be asked for where `Need::OpenSsl` is not stated.

use crate::run;
use crate::server::process::run_program;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A certificate authority of one test.
pub struct Authority {
    directory: PathBuf,
}

/// A certificate and its key, as files.
#[derive(Clone, Debug)]
pub struct Certificate {
    certificate: PathBuf,
    key: PathBuf,
}

impl Authority {
    #[allow(clippy::new_without_default)] // each is another authority
    pub fn new() -> Authority {
        let directory = run::directory().join(format!("authority-{}", run::unique()));
        run::make_directory(&directory);
        let authority = Authority { directory };
        authority.make("ca", "/CN=citus_fleet test authority", &[]);
        authority
    }

    /// The root certificate, for `sslrootcert`.
    pub fn root(&self) -> PathBuf {
        self.directory.join("ca.crt")
    }

    /// A server certificate that is good for `address` and for nothing else.
    pub fn issue(&self, address: IpAddr) -> Certificate {
        self.sign(&address.to_string(), &format!("subjectAltName=IP:{address}"))
    }

    /// For a host that is known by a name alone.
    pub fn issue_to(&self, name: &str) -> Certificate {
        self.sign(name, &format!("subjectAltName=DNS:{name}"))
    }

    /// A certificate that proves to a server who the client is; servers may read its key.
    pub fn issue_to_client(&self, role: &str) -> Certificate {
        let certificate = self.sign(role, "extendedKeyUsage=clientAuth");
        run::give_to_servers(&certificate.key);
        certificate
    }

    fn sign(&self, common_name: &str, extension: &str) -> Certificate {
        let name = format!("leaf-{}", run::unique());
        let (ca, key) = (self.root(), self.directory.join("ca.key"));
        self.make(
            &name,
            &format!("/CN={common_name}"),
            &["-addext", extension, "-CA", &ca.to_string_lossy(), "-CAkey", &key.to_string_lossy()],
        );
        Certificate {
            certificate: self.directory.join(format!("{name}.crt")),
            key: self.directory.join(format!("{name}.key")),
        }
    }

    fn make(&self, name: &str, subject: &str, more: &[&str]) {
        let mut openssl = Command::new("openssl");
        openssl.current_dir(&self.directory);
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
        openssl.args(["-nodes", "-days", "2", "-subj", subject]);
        openssl.args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.crt")]);
        openssl.args(more);
        run_program(openssl);
    }
}

impl Certificate {
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    pub fn key(&self) -> &Path {
        &self.key
    }

    /// Copies both files to where a server may read them, and says where.
    pub(crate) fn copy_to(&self, directory: &Path) -> (PathBuf, PathBuf) {
        let (certificate, key) = (directory.join("server.crt"), directory.join("server.key"));
        for (from, to) in [(&self.certificate, &certificate), (&self.key, &key)] {
            fs::copy(from, to).expect("a certificate can be copied");
            fs::set_permissions(to, fs::Permissions::from_mode(0o600)).expect("chmod");
            run::give_to_servers(to);
        }
        (certificate, key)
    }
}
