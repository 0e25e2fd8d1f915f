//! Owns how a node of the cluster is named: what every room calls it by, and in a statement.
//! Must not know anything else of it.

use serde::{Deserialize, Deserializer};

/// A node as `pg_dist_node` names it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Node {
    pub nodeid: i32,
    pub nodename: String,
    #[serde(deserialize_with = "any_port")]
    pub nodeport: u16,
}

/// Citus takes any number as a port: what is none is 0, where nobody answers.
pub fn any_port<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    Ok(u16::try_from(i64::deserialize(from)?).unwrap_or_default())
}

/// A string for a statement: Citus stores host names unchecked, so one may hold anything.
pub fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if text.contains('\\') {
        format!("E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

#[cfg(test)]
mod tests {
    use super::literal;

    #[test]
    fn a_name_is_quoted_whatever_it_holds() {
        assert_eq!(literal("w1"), "'w1'");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\b"), "E'a\\\\b'");
    }
}
