//! Owns what a host name may look like before it reaches libpq, SQL or a log.
//! Must not resolve anything: a name that parses here may still not exist.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A host name in lower case, without a trailing dot, of letters, digits, `-`, `_` and `.` only.
///
/// libpq splits `host` at commas and takes a leading `/` or `@` for a socket directory, and Citus
/// stores whatever it is given (research: `citus_add_inactive_node` accepts `x' OR 1=1 --`), so
/// everything outside this alphabet is refused. Internationalised labels are names in their coded form
/// (`xn--…`), in which two that would look alike do not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName(String);

impl HostName {
    /// Parses a name; the error says which rule it breaks.
    pub fn parse(text: &str) -> Result<Self, String> {
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.is_empty() {
            return Err("the host name is empty".into());
        }
        if name.len() > 253 {
            return Err(format!("the host name has {} characters; 253 are allowed", name.len()));
        }
        for label in name.split('.') {
            check_label(label)?;
        }
        if name.split('.').all(is_number) {
            return Err("the host name is all numbers: it would be taken for an address".into());
        }
        Ok(Self(name.to_ascii_lowercase()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the name is `suffix` or lies below it: `a.b.c` is within `b.c`, `ab.c` is not.
    pub fn is_within(&self, suffix: &HostName) -> bool {
        self.0
            .strip_suffix(suffix.as_str())
            .is_some_and(|head| head.is_empty() || head.ends_with('.'))
    }
}

fn check_label(label: &str) -> Result<(), String> {
    if label.is_empty() || label.len() > 63 {
        return Err("each part of a host name has 1 to 63 characters".into());
    }
    if let Some(bad) =
        label.chars().find(|c| !(c.is_ascii_alphanumeric() || *c == '-' || *c == '_'))
    {
        return Err(format!("the character {bad:?} is not allowed in a host name"));
    }
    if label.starts_with('-') || label.ends_with('-') {
        return Err("a part of a host name may not begin or end with a hyphen".into());
    }
    Ok(())
}

/// As inet_aton(3), and so getaddrinfo(3), reads a part of an address.
fn is_number(label: &str) -> bool {
    let hexadecimal = label.strip_prefix("0x").or_else(|| label.strip_prefix("0X"));
    match hexadecimal {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => label.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for HostName {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<HostName> for String {
    fn from(name: HostName) -> String {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn accepts_what_docker_and_kubernetes_hand_out() {
        for name in [
            "worker",
            "my_project-worker-3.my_project_default",
            "citus-worker-0.citus-workers.default.svc.cluster.local",
            "10-244-1-5.citus-workers.ns.svc.cluster.local",
            "xn--wrker-jua",
            "w.1",
            "10-0-0-7.3",
            "0xg.1",
        ] {
            assert_eq!(HostName::parse(name).unwrap().as_str(), name);
        }
        assert_eq!(HostName::parse("Worker.Example.").unwrap().as_str(), "worker.example");
    }

    #[test]
    fn refuses_what_libpq_or_sql_could_read_otherwise() {
        for name in [
            "",
            ".",
            "a..b",
            "a,b",
            "/run/postgresql",
            "@abstract",
            "a b",
            "a\tb",
            "a'b",
            "a\"b",
            "a;b",
            "a\0b",
            "-a",
            "a-",
            "w\u{f6}rker",
            "10.0.0.999",
            "1",
            "10.1",
            "0x7f.1",
            &"a".repeat(64),
            &vec!["a"; 128].join("."),
        ] {
            assert!(HostName::parse(name).is_err(), "{name:?} was accepted");
        }
    }

    #[test]
    fn a_suffix_ends_at_a_dot() {
        let name = |text| HostName::parse(text).unwrap();
        assert!(name("a.b.c").is_within(&name("b.c")));
        assert!(name("b.c").is_within(&name("b.c")));
        assert!(!name("ab.c").is_within(&name("b.c")));
    }

    proptest! {
        #[test]
        fn nothing_outside_the_alphabet_survives(text in "\\PC*") {
            if let Ok(name) = HostName::parse(&text) {
                prop_assert!(name.as_str().bytes().all(|b|
                    b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b)));
                prop_assert_eq!(HostName::parse(name.as_str()).unwrap(), name);
            }
        }
    }
}
