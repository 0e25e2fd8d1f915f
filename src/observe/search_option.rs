//! Owns what an option of searches is on a node, and whether the node would take another value.
//! Must not set anything.

use crate::backend::catalog;
use crate::backend::transaction::contained;
use crate::error::Error;
use crate::net::ask::{Answer, Bounds, Question, ask};
use crate::observe::coordinator::credentials;
use crate::observe::search_settings::{Stored, stored};
use decide::node::Node;
use decide::search::options::is_of_vector;
use pgrx::{PgLogLevel, pg_sys};
use serde::{Deserialize, Serialize};
use std::ffi::CString;
use std::time::Duration;

/// What new sessions start with.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct OptionValue {
    pub before: Option<String>,
    pub after: Option<String>,
}

/// A primary of `pg_dist_node`.
#[derive(Clone, Debug, Deserialize)]
pub struct Primary {
    #[serde(flatten)]
    pub node: Node,
    pub isactive: bool,
}

/// Checks a value by this server's pgvector, and says what it is here.
///
/// Errors: those of SET for a value that is not accepted, or a setting that is not known; 58P01
/// where the library of pgvector is not there.
pub fn check(option: &str, value: Option<&str>) -> Result<OptionValue, Error> {
    let c_string =
        |text: &str| CString::new(text).map_err(|_| Error::Internal("a zero byte".into()));
    // Contained, because pgrx would add its own to the DETAIL of an ERROR that passes it.
    // SAFETY: loading and checking raise when they fail; nothing is set.
    contained(|| unsafe {
        if is_of_vector(option) {
            pg_sys::load_file(c"$libdir/vector".as_ptr(), false);
        }
        if let Some(value) = value {
            pg_sys::set_config_option(
                c_string(option)?.as_ptr(),
                c_string(value)?.as_ptr(),
                pg_sys::GucContext::PGC_USERSET,
                pg_sys::GucSource::PGC_S_SESSION,
                pg_sys::GucAction::GUC_ACTION_SET,
                false,
                PgLogLevel::ERROR as i32,
                false,
            );
        }
        Ok(())
    })?;
    let Some(Stored { own, beneath }) = stored()?.remove(option) else {
        return Ok(OptionValue::default());
    };
    let after = value.map_or_else(|| beneath.clone(), str::to_owned);
    Ok(OptionValue { before: Some(own.unwrap_or(beneath)), after: Some(after) })
}

/// The other nodes of the cluster, and the name of this one.
pub fn nodes() -> Result<(Option<Primary>, Vec<Primary>), Error> {
    if !catalog::is_installed(c"citus") {
        return Ok((None, Vec::new()));
    }
    #[derive(Deserialize)]
    struct Row {
        groupid: i32,
        #[serde(flatten)]
        primary: Primary,
    }
    let rows: Vec<Row> = catalog::value(
        "SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
           'groupid', d.groupid, 'nodeid', d.nodeid, 'nodename', d.nodename,
           'nodeport', d.nodeport, 'isactive', d.isactive) ORDER BY d.nodeid), '[]')::pg_catalog.text
         FROM pg_catalog.pg_dist_node d
         WHERE d.noderole::pg_catalog.text OPERATOR(pg_catalog.=) 'primary'",
        &[],
    )?;
    let (own, others): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(|row| row.groupid == 0);
    let own = own.into_iter().next().map(|row| row.primary);
    Ok((own, others.into_iter().map(|row| row.primary).collect()))
}

/// Lets other nodes check, all at the same time.
pub fn check_on(
    nodes: &[Primary],
    option: &str,
    value: Option<&str>,
    deadline: Duration,
) -> Result<Vec<Result<OptionValue, String>>, Error> {
    // The question's parameters are never NULL.
    let statement = match value {
        Some(_) => "SELECT fleet.check_search_option($1, $2)::pg_catalog.text",
        None => "SELECT fleet.check_search_option($1, NULL)::pg_catalog.text",
    };
    let parameters: Vec<String> =
        [Some(option), value].into_iter().flatten().map(str::to_owned).collect();
    let nodes: Vec<(Node, Vec<String>)> =
        nodes.iter().map(|primary| (primary.node.clone(), parameters.clone())).collect();
    let question =
        Question { statement, bounds: Bounds { login: deadline, deadline }, most_bytes: 1 << 20 };
    let answers = ask(&nodes, &question, &credentials()?)?;
    let understood = |answer: Answer| {
        let text = answer.map_err(|failure| failure.message)?;
        serde_json::from_str(&text).map_err(|error| format!("unexpected answer: {error}"))
    };
    Ok(answers.into_iter().map(understood).collect())
}
