//! Owns how a probe logs in: exactly as a connection of Citus itself would.
//! Must not be printed: it holds passwords, so it has no Debug and its errors no values.

use super::login::NO_CLEARTEXT;
use pq_sys as pq;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::net::SocketAddr;

/// The node id under which `pg_dist_authinfo` keeps what holds for any node.
const ANY_NODE: i32 = 0;

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
}

impl Credentials {
    /// libpq keywords and values for one server. `name` is what Citus would connect to and what a
    /// certificate is checked against; the address is pinned, so it is not resolved again.
    pub fn parameters(
        &self,
        name: &str,
        endpoint: SocketAddr,
        nodeid: Option<i32>,
    ) -> Result<Vec<(String, String)>, String> {
        let mut parameters =
            parse(&self.node_conninfo).ok_or("citus.node_conninfo is malformed")?;
        // Citus takes a `host` in node_conninfo for the name that certificates carry.
        if !has(&parameters, "host") {
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
        // Whoever answers at an address that DNS gave gets no password in the clear, unless a
        // certificate has proved who it is.
        let is_verified =
            parameters.iter().any(|(key, value)| key == "sslmode" && value.starts_with("verify-"));
        if !is_verified {
            push(&mut parameters, "require_auth", NO_CLEARTEXT);
        }
        Ok(parameters)
    }
}

fn has(parameters: &[(String, String)], key: &str) -> bool {
    parameters.iter().any(|(known, _)| known == key)
}

fn push(parameters: &mut Vec<(String, String)>, key: &str, value: &str) {
    parameters.push((key.to_owned(), value.to_owned()));
}

/// The parameters that a connection string sets; nothing when it is malformed.
fn parse(conninfo: &str) -> Option<Vec<(String, String)>> {
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
        }
    }

    fn last<'a>(parameters: &'a [(String, String)], key: &str) -> Option<&'a str> {
        parameters.iter().rev().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    #[test]
    fn the_address_is_pinned_and_the_name_kept_for_the_certificate() {
        let parameters = credentials("sslmode=verify-full sslrootcert=/tls/ca.crt", &[])
            .parameters("w1.example", "10.0.0.1:6000".parse().unwrap(), None)
            .unwrap();
        assert_eq!(last(&parameters, "host"), Some("w1.example"));
        assert_eq!(last(&parameters, "hostaddr"), Some("10.0.0.1"));
        assert_eq!(last(&parameters, "port"), Some("6000"));
        assert_eq!(last(&parameters, "sslmode"), Some("verify-full"));
        assert_eq!(last(&parameters, "require_auth"), None);
    }

    #[test]
    fn a_node_has_its_own_password_before_the_one_for_any_node() {
        let credentials =
            credentials("sslmode=require", &[(0, "password=any"), (7, "password='its own'")]);
        let password = |nodeid| {
            let parameters =
                credentials.parameters("h", "10.0.0.1:1".parse().unwrap(), nodeid).unwrap();
            last(&parameters, "password").unwrap().to_owned()
        };
        assert_eq!(password(Some(7)), "its own");
        assert_eq!(password(Some(8)), "any");
        assert_eq!(password(None), "any");
    }

    #[test]
    fn an_unverified_server_is_sent_no_password_in_the_clear() {
        let parameters = credentials("sslmode=require", &[])
            .parameters("h", "10.0.0.1:1".parse().unwrap(), None)
            .unwrap();
        assert_eq!(last(&parameters, "require_auth"), Some(NO_CLEARTEXT));
    }

    #[test]
    fn a_malformed_string_is_not_quoted() {
        let error = credentials("sslmode", &[(0, "password")])
            .parameters("h", "10.0.0.1:1".parse().unwrap(), None)
            .unwrap_err();
        assert_eq!(error, "citus.node_conninfo is malformed");
    }
}
