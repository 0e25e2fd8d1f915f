//! Owns the newest documents and when they have to be made anew: requests within a few seconds share
//! one collection, and nobody collects while nobody asks.
//! Must not collect anything: the worker does, between two turns of the server.

use super::documents::Documents;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How old an answer may be.
const FRESH: Duration = Duration::from_secs(5);

/// How long a request waits for a collection, which has a deadline of its own.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Default)]
pub struct Shelf {
    newest: RefCell<Option<(Instant, Rc<Documents>)>>,
    is_wanted: Cell<bool>,
    wanted: Notify,
    renewed: Notify,
}

impl Shelf {
    /// Documents that are fresh; waits for them where there are none. `None` after the patience.
    pub async fn documents(&self) -> Option<Rc<Documents>> {
        if let Some(documents) = self.fresh() {
            return Some(documents);
        }
        let renewed = self.renewed.notified();
        self.is_wanted.set(true);
        self.wanted.notify_one();
        tokio::time::timeout(PATIENCE, renewed).await.ok()?;
        self.newest.borrow().as_ref().map(|(_, documents)| Rc::clone(documents))
    }

    fn fresh(&self) -> Option<Rc<Documents>> {
        let newest = self.newest.borrow();
        let (at, documents) = newest.as_ref()?;
        (at.elapsed() < FRESH).then(|| Rc::clone(documents))
    }

    /// Ends when somebody waits for new documents.
    pub async fn wanted(&self) {
        while !self.is_wanted.get() {
            self.wanted.notified().await;
        }
    }

    pub fn is_wanted(&self) -> bool {
        self.is_wanted.get()
    }

    pub fn renew(&self, documents: Documents) {
        self.is_wanted.set(false);
        *self.newest.borrow_mut() = Some((Instant::now(), Rc::new(documents)));
        self.renewed.notify_waiters();
    }
}
