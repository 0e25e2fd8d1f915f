//! Owns how a login is made: as a connection of Citus itself would, except that strangers get no proof of the
//! password that they could pass on.
//! Must not be printed: it holds passwords, so it has no Debug and its errors no values.

use super::login::{NO_CLEARTEXT, NO_PROOF};
use pq_sys as pq;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::net::SocketAddr;

/// The node id under which `pg_dist_authinfo` keeps what holds for any node.
const ANY_NODE: i32 = 0;

/// Keywords and values for libpq; of a keyword that is there twice, the last one counts.
pub type Parameters = Vec<(String, String)>;

/// The login of Citus's connections (connection_configuration.c, `GetConnParams`): the parameters
/// of `citus.node_conninfo`, the node's own, and those of `pg_dist_authinfo`.
#[derive(Clone)]
pub struct Credentials {
    pub user: String,
    pub database: String,
    /// `citus.node_conninfo`; empty without Citus.
    pub node_conninfo: String,
    /// `pg_dist_authinfo` of the user, by node id.
    pub authinfo: BTreeMap<i32, String>,
    /// `citus_fleet.unbound_passwords`.
    pub unbound_passwords: bool,
}

impl Credentials {
    /// How to log in to one server: each way is tried where the server wants a proof that the one before
    /// does not give. `name` is what Citus would connect to and what a certificate is checked against.
    ///
    /// Whoever answers for a registered worker is logged in to as Citus does it all the time. Anybody else
    /// may be at an address that DNS gave, to pass the login on to another server: unless a certificate has
    /// proved who it is, it gets no proof, or one that is bound to this very TLS connection.
    pub fn ways(
        &self,
        name: &str,
        endpoint: SocketAddr,
        nodeid: Option<i32>,
    ) -> Result<Vec<Parameters>, String> {
        let mut parameters = self.parameters(name, endpoint, nodeid)?;
        let sslmode = last(&parameters, "sslmode").unwrap_or_default().to_owned();
        let is_verified = sslmode.starts_with("verify-");
        // A public authority signs for whoever has a name, and DNS may have given us a name of theirs.
        let is_ours = is_verified && last(&parameters, "sslrootcert") != Some("system");
        if is_ours || nodeid.is_some() || self.unbound_passwords {
            if !is_verified {
                push(&mut parameters, "require_auth", NO_CLEARTEXT);
            }
            return Ok(vec![parameters]);
        }
        // A ticket of Kerberos is a proof too, and what is encrypted with it has no channel to bind to.
        push(&mut parameters, "gssencmode", "disable");
        // With `allow`, TLS would be tried only after a login without it had failed.
        if sslmode == "allow" {
            push(&mut parameters, "sslmode", "prefer");
        }
        let is_password_known = last(&parameters, "password").is_some();
        let mut bound = parameters.clone();
        push(&mut bound, "channel_binding", "require");
        push(&mut parameters, "require_auth", NO_PROOF);
        // A password file is known to libpq alone.
        Ok(if is_password_known { vec![bound, parameters] } else { vec![parameters, bound] })
    }

    /// What Citus would log in with, with the address pinned, so that it is not resolved again.
    fn parameters(
        &self,
        name: &str,
        endpoint: SocketAddr,
        nodeid: Option<i32>,
    ) -> Result<Parameters, String> {
        let mut parameters =
            parse(&self.node_conninfo).ok_or("citus.node_conninfo is malformed")?;
        // Citus takes a `host` in node_conninfo for the name that certificates carry.
        if last(&parameters, "host").is_none() {
            push(&mut parameters, "host", name);
        }
        push(&mut parameters, "hostaddr", &endpoint.ip().to_string());
        push(&mut parameters, "port", &endpoint.port().to_string());
        push(&mut parameters, "dbname", &self.database);
        push(&mut parameters, "user", &self.user);
        push(&mut parameters, "client_encoding", "UTF8");
        push(&mut parameters, "application_name", "citus_fleet");
        let authinfo = nodeid
            .and_then(|nodeid| self.authinfo.get(&nodeid))
            .or_else(|| self.authinfo.get(&ANY_NODE));
        if let Some(authinfo) = authinfo {
            parameters.extend(parse(authinfo).ok_or("a row of pg_dist_authinfo is malformed")?);
        }
        Ok(parameters)
    }
}

fn last<'a>(parameters: &'a [(String, String)], key: &str) -> Option<&'a str> {
    parameters.iter().rev().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
}

fn push(parameters: &mut Parameters, key: &str, value: &str) {
    parameters.push((key.to_owned(), value.to_owned()));
}

/// The parameters that a connection string sets; nothing when it is malformed.
fn parse(conninfo: &str) -> Option<Parameters> {
    let conninfo = CString::new(conninfo).ok()?;
    // SAFETY: a NUL-terminated string; no error message is asked for, since it would quote values.
    let options = unsafe { pq::PQconninfoParse(conninfo.as_ptr(), std::ptr::null_mut()) };
    if options.is_null() {
        return None;
    }
    let mut parameters = Vec::new();
    let mut option = options;
    // SAFETY: the array ends with an entry whose keyword is null; strings are copied, then freed.
    unsafe {
        while !(*option).keyword.is_null() {
            if !(*option).val.is_null() {
                let text = |p| CStr::from_ptr(p).to_string_lossy().into_owned();
                parameters.push((text((*option).keyword), text((*option).val)));
            }
            option = option.add(1);
        }
        pq::PQconninfoFree(options);
    }
    Some(parameters)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(node_conninfo: &str, authinfo: &[(i32, &str)]) -> Credentials {
        Credentials {
            user: "postgres".into(),
            database: "app".into(),
            node_conninfo: node_conninfo.into(),
            authinfo: authinfo.iter().map(|(id, info)| (*id, (*info).to_owned())).collect(),
            unbound_passwords: false,
        }
    }

    fn ways(credentials: &Credentials, nodeid: Option<i32>) -> Vec<Parameters> {
        credentials.ways("w1.example", "10.0.0.1:6000".parse().unwrap(), nodeid).unwrap()
    }

    /// The one value that all ways have.
    #[track_caller]
    fn value<'a>(ways: &'a [Parameters], key: &str) -> Option<&'a str> {
        let value = last(&ways[0], key);
        assert!(ways.iter().all(|way| last(way, key) == value), "{key}");
        value
    }

    #[test]
    fn the_address_is_pinned_and_the_name_kept_for_the_certificate() {
        let ways = ways(&credentials("sslmode=verify-full sslrootcert=/tls/ca.crt", &[]), None);
        assert_eq!(ways.len(), 1);
        assert_eq!(value(&ways, "host"), Some("w1.example"));
        assert_eq!(value(&ways, "hostaddr"), Some("10.0.0.1"));
        assert_eq!(value(&ways, "port"), Some("6000"));
        assert_eq!(value(&ways, "sslmode"), Some("verify-full"));
        assert_eq!(value(&ways, "require_auth"), None);
    }

    #[test]
    fn a_node_has_its_own_password_before_the_one_for_any_node() {
        let credentials =
            credentials("sslmode=require", &[(0, "password=any"), (7, "password='its own'")]);
        let password = |nodeid| value(&ways(&credentials, nodeid), "password").map(str::to_owned);
        assert_eq!(password(Some(7)).unwrap(), "its own");
        assert_eq!(password(Some(8)).unwrap(), "any");
        assert_eq!(password(None).unwrap(), "any");
    }

    #[test]
    fn an_unverified_server_is_sent_no_password_in_the_clear() {
        let mut credentials = credentials("sslmode=require", &[]);
        assert_eq!(value(&ways(&credentials, Some(7)), "require_auth"), Some(NO_CLEARTEXT));
        credentials.unbound_passwords = true;
        assert_eq!(value(&ways(&credentials, None), "require_auth"), Some(NO_CLEARTEXT));
    }

    #[test]
    fn a_stranger_gets_no_proof_or_one_that_is_bound() {
        let kinds = |node_conninfo: &str, authinfo: &[(i32, &str)]| -> Vec<String> {
            let ways = ways(&credentials(node_conninfo, authinfo), None);
            assert_eq!(value(&ways, "gssencmode"), Some("disable"));
            let kind = |way: &Parameters| match (
                last(way, "require_auth"),
                last(way, "channel_binding"),
            ) {
                (Some(NO_PROOF), None) => "none".to_owned(),
                (None, Some("require")) => "bound".to_owned(),
                other => format!("{other:?}"),
            };
            ways.iter().map(kind).collect()
        };
        // Most likely the one that will do is tried first.
        assert_eq!(kinds("sslmode=require", &[]), ["none", "bound"]);
        assert_eq!(kinds("sslmode=prefer", &[(0, "password=x")]), ["bound", "none"]);
        assert_eq!(kinds("", &[(0, "sslcert=/c sslkey=/k")]), ["none", "bound"]);
        // What the strictest of two says does not count where the other one is in force.
        assert_eq!(kinds("sslmode=verify-full", &[(0, "sslmode=require")]), ["none", "bound"]);
        // Everybody gets a certificate of a public authority.
        assert_eq!(kinds("sslmode=verify-full sslrootcert=system", &[]), ["none", "bound"]);
        let allowed = ways(&credentials("sslmode=allow", &[]), None);
        assert_eq!(value(&allowed, "sslmode"), Some("prefer"));
    }

    #[test]
    fn a_malformed_string_is_not_quoted() {
        let error = credentials("sslmode", &[(0, "password")])
            .ways("h", "10.0.0.1:1".parse().unwrap(), None)
            .unwrap_err();
        assert_eq!(error, "citus.node_conninfo is malformed");
    }
}
