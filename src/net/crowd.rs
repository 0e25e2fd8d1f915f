//! Owns the async runtime: many conversations with other servers at the same time, on this process's own
//! thread, which gives way to a signal at any moment.
//! Must not call PostgreSQL from inside the runtime, except to see whether a signal has come.

use super::helpers;
use crate::backend::signals;
use crate::error::Error;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::future::{Future, pending};
use std::pin::Pin;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};

/// How long a signal may go unnoticed while the network is waited for.
const HEARTBEAT: Duration = Duration::from_millis(50);

/// Conversations that are under way, and the answers that have come.
pub struct Crowd<'a, T> {
    // Dropped first: what it holds may be registered with the runtime.
    underway: FuturesUnordered<Pin<Box<dyn Future<Output = T> + 'a>>>,
    answers: Vec<T>,
    runtime: Runtime,
}

impl<'a, T> Crowd<'a, T> {
    pub fn new() -> Result<Self, Error> {
        Ok(Self { underway: FuturesUnordered::new(), answers: Vec::new(), runtime: runtime()? })
    }

    /// Adds a conversation, which goes on whenever somebody waits.
    pub fn join(&self, conversation: impl Future<Output = T> + 'a) {
        self.underway.push(Box::pin(conversation));
    }

    /// Waits until all answers are in or `patience` is over, and gives those that have come: a slow
    /// server costs the others no more than that, and is heard later. `None` when `stop` says so.
    pub fn collect(&mut self, patience: Duration, stop: fn() -> bool) -> Option<Vec<T>> {
        let (underway, answers) = (&mut self.underway, &mut self.answers);
        let all = async {
            while let Some(answer) = underway.next().await {
                answers.push(answer);
            }
        };
        run(&self.runtime, stop, async { drop(tokio::time::timeout(patience, all).await) })?;
        Some(std::mem::take(&mut self.answers))
    }

    /// Waits until the time is over, an answer comes that is news, or somebody wants something.
    pub fn wait(&mut self, time: Duration, is_news: impl Fn(&T) -> bool) {
        let end = Instant::now() + time;
        let (underway, answers) = (&mut self.underway, &mut self.answers);
        let waiting = async {
            while let Some(answer) = underway.next().await {
                let is_news = is_news(&answer);
                answers.push(answer);
                if is_news {
                    return true;
                }
            }
            false
        };
        let timed = async { tokio::time::timeout(time, waiting).await };
        // With nobody left to wait for, there is the rest of the time.
        if let Some(Ok(false)) = run(&self.runtime, signals::woken, timed) {
            signals::sleep(end.saturating_duration_since(Instant::now()));
        }
    }

    /// Does something else that talks to servers, and hears whoever answers meanwhile. `None` on a signal.
    pub fn perform<O>(&mut self, work: impl Future<Output = O>) -> Option<O> {
        let (underway, answers) = (&mut self.underway, &mut self.answers);
        let heard = async {
            while let Some(answer) = underway.next().await {
                answers.push(answer);
            }
            pending().await
        };
        let done = async {
            tokio::select! {
                done = work => done,
                done = heard => done,
            }
        };
        run(&self.runtime, signals::interrupted, done)
    }
}

/// Does something that talks to servers in a session, and raises a cancel or an end of the process within
/// 50 ms. The work bounds its own time.
pub fn in_session<O>(work: impl Future<Output = O>) -> Result<O, Error> {
    let runtime = runtime()?;
    let mut work = std::pin::pin!(work);
    loop {
        if let Some(done) = run(&runtime, signals::interrupt_pending, work.as_mut()) {
            return Ok(done);
        }
        // Outside the runtime: an ERROR unwinds from here, and closes every connection.
        pgrx::check_for_interrupts!();
    }
}

fn runtime() -> Result<Runtime, Error> {
    helpers::prepare();
    // One thread, this one: PostgreSQL's signal handlers must not run on another.
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Error::Internal(format!("no async runtime: {error}")))
}

/// Runs `work` until it is done or `stop` says so.
fn run<O>(runtime: &Runtime, stop: fn() -> bool, work: impl Future<Output = O>) -> Option<O> {
    runtime.block_on(async {
        let stopped = async {
            while !stop() {
                tokio::time::sleep(HEARTBEAT).await;
            }
        };
        tokio::select! {
            biased;
            () = stopped => None,
            done = work => Some(done),
        }
    })
}
