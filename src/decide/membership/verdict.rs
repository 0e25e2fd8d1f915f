//! Owns the shape of a judgement: what a situation is called, the state it is, and what is said of it.
//! Must not judge: the table in `situations` does.

use super::state::{Action, State};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub code: &'static str,
    pub state: State,
    pub action: Action,
    pub reason: Option<String>,
    pub remedy: Option<String>,
}

impl Verdict {
    /// The same, while what is wanted cannot be done: nothing is, and the reason says why.
    pub fn held(self, why: &Self) -> Self {
        let reasons: Vec<String> = self.reason.into_iter().chain(why.reason.clone()).collect();
        Self {
            reason: Some(reasons.join("; ")),
            remedy: why.remedy.clone().or(self.remedy),
            ..self
        }
    }
}
