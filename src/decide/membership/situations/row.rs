//! Owns the shape of a row of the table, and how its texts are filled in.
//! Must not hold a row: the files beside it do.

use crate::login::LoginFailureKind;
use crate::membership::evidence::{AtHome, Hindrance, Member, Newcomer};
use crate::membership::state::{Action, State};
use crate::membership::verdict::Verdict;

/// What a row's texts are filled with: `{name}` stands for the value of that name.
pub type Facts = Vec<(&'static str, String)>;

/// What a row is about, and whether it matches: with the facts for its texts.
#[derive(Clone, Copy)]
pub(super) enum When {
    /// Whoever cannot be logged in to in this way.
    Login(LoginFailureKind),
    /// What keeps something that is wanted from being done.
    Hindrance(fn(&Hindrance) -> Option<Facts>),
    /// An endpoint that a source yields and no row of `pg_dist_node` leads to.
    Candidate(fn(&Newcomer<'_>) -> Option<Facts>),
    /// The server at the address that a row of `pg_dist_node` has.
    AtHome(fn(&AtHome<'_>) -> Option<Facts>),
    /// A row of `pg_dist_node`, with all that is known of its server.
    Worker(fn(&Member<'_>) -> Option<Facts>),
    /// Found by whoever compares the workers with each other.
    Compared,
}

/// What leads out of a situation.
#[derive(Clone, Copy)]
pub(super) enum WayOut {
    /// It is in order.
    Nothing,
    /// It ends by itself, when this happens.
    Wait(&'static str),
    /// What an operator is told who need do nothing: it is meant to be so, or ends by itself.
    Tell(&'static str),
    /// What an operator can do.
    Do(&'static str),
}

/// One situation.
#[derive(Clone, Copy)]
pub struct Row {
    /// The word that scripts and alerts match. It never changes its meaning.
    pub code: &'static str,
    pub state: State,
    pub action: Action,
    pub(super) when: &'static [When],
    /// What an operator reads; empty where there is nothing to say.
    pub(super) reason: &'static str,
    /// How it comes about, for docs/states.md.
    pub(super) cause: &'static str,
    pub(super) way_out: WayOut,
    /// What it is once that has happened; none where it is not listed any more.
    pub(super) next: Option<State>,
}

/// What rows are made from: a worker that is in order, of which there is nothing to say.
pub(super) const ROW: Row = Row {
    code: "",
    state: State::Active,
    action: Action::None,
    when: &[],
    reason: "",
    cause: "",
    way_out: WayOut::Nothing,
    next: Some(State::Active),
};

impl Row {
    /// What the row says of this case.
    pub fn verdict(&self, facts: &Facts) -> Verdict {
        let text = |template| Some(fill(template, facts)).filter(|text| !text.is_empty());
        let remedy = match self.way_out {
            WayOut::Do(remedy) | WayOut::Tell(remedy) => text(remedy),
            WayOut::Nothing | WayOut::Wait(_) => None,
        };
        let reason = text(self.reason);
        Verdict { code: self.code, state: self.state, action: self.action, reason, remedy }
    }
}

/// Values are put in as they are: nothing in them is taken for a name of another one.
pub(super) fn fill(template: &str, facts: &Facts) -> String {
    let mut parts = template.split('{');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once('}').unwrap_or_default();
        let value = facts.iter().find(|(known, _)| *known == name);
        debug_assert!(value.is_some(), "{template}: nothing is called {name}");
        text.push_str(value.map_or("", |(_, value)| value));
        text.push_str(rest);
    }
    text
}

/// The facts of a row that has none to fill in.
pub(super) fn given(is_so: bool) -> Option<Facts> {
    is_so.then(Vec::new)
}
