//! Owns the question which PostgreSQL is under test and what is installed beside it.
//! Must not start anything.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

pub struct Install {
    pub bin: PathBuf,
    pub share: PathBuf,
    pub library: PathBuf,
    pub major: u32,
}

/// The installation that `$PG_CONFIG` names, else PostgreSQL 17 where Debian puts it, else the PATH's.
pub fn install() -> &'static Install {
    static INSTALL: OnceLock<Install> = OnceLock::new();
    INSTALL.get_or_init(|| {
        let debian = Path::new("/usr/lib/postgresql/17/bin/pg_config");
        let pg_config = match std::env::var_os("PG_CONFIG") {
            Some(path) => PathBuf::from(path),
            None if debian.exists() => debian.to_path_buf(),
            None => PathBuf::from("pg_config"),
        };
        let ask = |what: &str| {
            let output = Command::new(&pg_config)
                .arg(what)
                .output()
                .unwrap_or_else(|error| panic!("cannot run {}: {error}", pg_config.display()));
            String::from_utf8_lossy(&output.stdout).trim().to_string()
        };
        let version = ask("--version");
        let major = version
            .split(|c: char| !c.is_ascii_digit())
            .find(|part| !part.is_empty())
            .and_then(|digits| digits.parse().ok())
            .unwrap_or_else(|| panic!("pg_config tells no version: {version:?}"));
        Install {
            bin: ask("--bindir").into(),
            share: ask("--sharedir").into(),
            library: ask("--pkglibdir").into(),
            major,
        }
    })
}

impl Install {
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// Whether an extension's control file and library are both there.
    pub fn has_extension(&self, name: &str) -> bool {
        self.share.join("extension").join(format!("{name}.control")).exists()
            && self.library.join(format!("{name}.so")).exists()
    }
}
