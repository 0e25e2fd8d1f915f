//! Owns what may be asked of a list: which of its rows, and how many of them at once.
//! Must not read a row, nor guess what somebody may have meant: what is not understood is refused.

/// Rows of an answer where nobody says how many, and at the most.
pub const USUAL: usize = 50;
const MOST: usize = 200;

/// The part after the question mark.
#[derive(Debug, PartialEq, Eq)]
pub struct Query {
    /// A table by its whole name, as the rows have it.
    pub table: Option<String>,
    /// A node as `host:port`.
    pub node: Option<String>,
    /// Part of the name of a table or a node.
    pub find: Option<String>,
    /// Only what is not green.
    pub wrong: bool,
    pub offset: usize,
    pub limit: usize,
}

impl Default for Query {
    fn default() -> Self {
        Self { table: None, node: None, find: None, wrong: false, offset: 0, limit: USUAL }
    }
}

impl Query {
    /// Reads `name=value` between ampersands. An error says what is wrong with which parameter.
    pub fn parse(text: Option<&str>) -> Result<Self, String> {
        let mut query = Self::default();
        let mut known = Vec::new();
        for (name, value) in form_urlencoded::parse(text.unwrap_or_default().as_bytes()) {
            if known.contains(&name) {
                return Err(format!("{name} is given twice"));
            }
            let value = value.as_ref();
            match name.as_ref() {
                "table" => query.table = Some(value.to_owned()),
                "node" => query.node = Some(value.to_owned()),
                "find" => query.find = Some(value.to_lowercase()),
                "wrong" => query.wrong = flag(value)?,
                "offset" => query.offset = number("offset", value, 0, u32::MAX as usize)?,
                "limit" => query.limit = number("limit", value, 1, MOST)?,
                other => {
                    let all = "table, node, find, wrong, offset and limit";
                    return Err(format!("there is no parameter {other:?}; there are {all}"));
                }
            }
            known.push(name);
        }
        Ok(query)
    }
}

fn flag(value: &str) -> Result<bool, String> {
    match value {
        "1" => Ok(true),
        "0" => Ok(false),
        other => Err(format!("wrong is 0 or 1, not {other:?}")),
    }
}

fn number(name: &str, value: &str, least: usize, most: usize) -> Result<usize, String> {
    let number = value.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("{name} is a number from {least} to {most}, not {value:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_understood() {
        assert_eq!(Query::parse(None), Ok(Query::default()));
        assert_eq!(Query::parse(Some("")), Ok(Query::default()));
        let text = "table=public.%22a%26b%22&node=w-1:5432&find=Item+s&wrong=1&offset=40&limit=20";
        let all = Query {
            table: Some("public.\"a&b\"".into()),
            node: Some("w-1:5432".into()),
            find: Some("item s".into()),
            wrong: true,
            offset: 40,
            limit: 20,
        };
        assert_eq!(Query::parse(Some(text)), Ok(all));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (text, named) in [
            ("limit=0", "limit"),
            ("limit=201", "from 1 to 200"),
            ("limit=-1", "\"-1\""),
            ("offset=99999999999", "offset"),
            ("offset=", "\"\""),
            ("wrong=yes", "0 or 1"),
            ("wrong=1&wrong=0", "twice"),
            ("tabel=x", "\"tabel\""),
            ("=", "no parameter"),
        ] {
            let why = Query::parse(Some(text)).unwrap_err();
            assert!(why.contains(named), "{text}: {why}");
        }
    }
}
