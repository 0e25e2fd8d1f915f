//! Owns what a test is: a name, what it needs, a function that panics when something is wrong.
//! Must not know any test.

use citus_fleet_tests::{Need, run};
use libtest_mimic::{Completion, Trial};
use std::panic::PanicHookInfo;

pub struct Test {
    pub name: String,
    pub needs: &'static [Need],
    pub body: fn(),
}

impl Test {
    pub fn trial(self) -> Trial {
        let Test { name, needs, body } = self;
        Trial::ignorable_test(name.clone(), move || {
            if let Some(reason) = needs.iter().find_map(|need| need.missing()) {
                return Ok(Completion::ignored_with(reason));
            }
            run::enter_test(&name);
            body();
            Ok(Completion::Completed)
        })
    }
}

/// One line where it went wrong; the runner prints the message again at the end.
pub fn report_panic(panic: &PanicHookInfo<'_>) {
    let test = run::current_test().unwrap_or_default();
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    eprintln!("{test}: {place}: {}", panic.payload_as_str().unwrap_or("panic"));
}

/// The tests of one module, each named `module::function`, with what all of them need.
macro_rules! suite {
    ($module:literal, $needs:expr; $($test:ident),+ $(,)?) => {
        vec![$(crate::suite::Test {
            name: concat!($module, "::", stringify!($test)).to_string(),
            needs: $needs,
            body: $test,
        }),+]
    };
}
pub(crate) use suite;
