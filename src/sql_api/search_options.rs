//! Owns `fleet.set_search_option`: who may call it and where, and its rows.
//! Must not change anything before every node has agreed.

use crate::apply::search_options as apply;
use crate::backend::catalog;
use crate::error::Error;
use crate::observe::search_option::{self, OptionValue, Primary};
use crate::session;
use decide::search::options::option;
use pgrx::prelude::*;

#[pg_schema]
pub mod fleet {
    use super::{checked, set};
    use crate::backend::encoding::Json;
    use crate::error::{Error, given};
    use pgrx::prelude::*;

    /// Sets an option of vector searches or index builds for the database, on every node and, by
    /// Citus's own hand, on every node that is added later; NULL resets it. It says what new
    /// sessions start with on each node, before and after; sessions that are open keep what they
    /// have, the connections to workers that they hold included.
    ///
    /// The value is checked by the pgvector of every active node before any is changed, and the
    /// change is part of the caller's transaction, which Citus commits on all nodes in two phases: a
    /// node that fails before the commit undoes it everywhere, one that fails in the middle of it
    /// has it as soon as Citus has recovered the transaction. A disabled node shows NULLs: it gets
    /// the setting when it is activated.
    ///
    /// Errors: 42501 unless superuser; 22023 for what is no such option, and what SET says of a
    /// value; 55000 on a worker, and naming the node that does not answer or does not accept it.
    #[allow(clippy::type_complexity)]
    #[pg_extern(volatile, parallel_unsafe)]
    pub fn set_search_option(
        name: Option<String>,
        value: Option<String>,
    ) -> TableIterator<
        'static,
        (
            name!(nodename, String),
            name!(nodeport, i32),
            name!(before, Option<String>),
            name!(after, Option<String>),
        ),
    > {
        let rows = set(&given(name, "name"), value.as_deref())
            .unwrap_or_else(|error: Error| error.raise());
        TableIterator::new(rows.into_iter().map(|(nodename, nodeport, setting)| {
            (nodename, i32::from(nodeport), setting.before, setting.after)
        }))
    }

    /// Whether this node would take a value for an option, and what new sessions start with before
    /// and after; `fleet.set_search_option` asks every node. Sets nothing.
    ///
    /// Errors: 42501 unless superuser; 22023 for what is no such option, and what SET says.
    #[pg_extern(volatile, parallel_unsafe)]
    pub fn check_search_option(name: Option<String>, value: Option<String>) -> Json {
        let setting = checked(&given(name, "name"), value.as_deref())
            .unwrap_or_else(|error: Error| error.raise());
        Json(serde_json::json!(setting))
    }
}

fn checked(name: &str, value: Option<&str>) -> Result<OptionValue, Error> {
    session::require_superuser("fleet.check_search_option()")?;
    let option = option(name).ok_or_else(|| Error::NoSuchOption(name.to_owned()))?;
    search_option::check(option, value)
}

fn set(name: &str, value: Option<&str>) -> Result<Vec<(String, u16, OptionValue)>, Error> {
    session::require_superuser("fleet.set_search_option()")?;
    session::require_primary("fleet.set_search_option()")?;
    catalog::require_no_worker()?;
    let option = option(name).ok_or_else(|| Error::NoSuchOption(name.to_owned()))?;
    let (own, others) = search_option::nodes()?;
    let (name, port) = match own {
        Some(own) => (own.node.nodename, own.node.nodeport),
        None => ("localhost".to_owned(), crate::settings::own_port() as u16),
    };
    let mut rows = vec![(name, port, search_option::check(option, value)?)];
    let (active, disabled): (Vec<_>, Vec<_>) =
        others.into_iter().partition(|primary| primary.isactive);
    let answers =
        search_option::check_on(&active, option, value, crate::settings::health_timeout())?;
    for (Primary { node, .. }, answer) in active.into_iter().zip(answers) {
        let setting = answer.map_err(|message| Error::NodeDeclines {
            node: format!("{}:{}", node.nodename, node.nodeport),
            message,
        })?;
        rows.push((node.nodename, node.nodeport, setting));
    }
    rows.extend(
        disabled
            .into_iter()
            .map(|Primary { node, .. }| (node.nodename, node.nodeport, OptionValue::default())),
    );
    apply::set(option, value)?;
    Ok(rows)
}
