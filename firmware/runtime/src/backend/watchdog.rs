//! Runs a session on its own thread, with a time limit.
//!
//! A call that hangs in a driver cannot be stopped from outside. So the session is handed to a
//! worker thread for each run and handed back afterwards. If it does not come back in time, session
//! and worker are abandoned. Handing over moves a pointer: no values are copied and nothing is
//! allocated.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use super::{BackendError, Session};

/// Creates a session, on the worker.
pub(super) type Make = Box<dyn FnOnce() -> Result<Box<dyn Session>, BackendError> + Send>;

/// A session and the worker that runs it. Dropping it never blocks.
pub(super) struct WatchedSession {
    mailbox: Arc<Mailbox>,
    /// `Some` between runs; held by the worker during a run, and lost after a timeout.
    session: Option<Box<dyn Session>>,
}

/// Shared by session and worker.
struct Mailbox {
    about: About,
    slot: Mutex<Slot>,
    changed: Condvar,
    /// Number of abandoned workers of the backend that have not returned.
    stuck: Arc<AtomicU64>,
}

/// Names for messages.
#[derive(Clone)]
pub(super) struct About {
    pub backend: &'static str,
    pub graph: Arc<str>,
}

impl About {
    pub fn failed(&self, what: impl Into<String>) -> BackendError {
        BackendError::Run {
            backend: self.backend,
            graph: self.graph.to_string(),
            what: what.into(),
        }
    }
}

enum Slot {
    /// Nothing to do.
    Free,
    /// A session to run.
    Ready(Box<dyn Session>),
    /// The worker is using the session.
    Taken,
    /// Created or run; the session is missing if it panicked or could not be created.
    Done(Option<Box<dyn Session>>, Result<(), BackendError>),
    /// The worker has been abandoned.
    Abandoned,
    /// The worker is to drop the session, since even that can hang in a faulty driver.
    Closed(Option<Box<dyn Session>>),
}

impl WatchedSession {
    /// Starts a worker that creates the session. [`WatchedSession::made`] waits for it.
    pub fn start(about: About, stuck: &Arc<AtomicU64>, make: Make) -> Result<Self, BackendError> {
        let mailbox = Arc::new(Mailbox {
            about,
            slot: Mutex::new(Slot::Taken),
            changed: Condvar::new(),
            stuck: stuck.clone(),
        });
        let worker = mailbox.clone();
        thread::Builder::new()
            .name("engine".into())
            .spawn(move || worker.work(make))
            .map_err(|e| mailbox.about.failed(format!("cannot start a thread: {e}")))?;
        Ok(Self {
            mailbox,
            session: None,
        })
    }

    /// Waits for the session to be created; polls if the limit is zero. Returns `None` if it takes
    /// longer: call it again, or give up with [`WatchedSession::abandon`].
    pub fn made(&mut self, limit: Duration) -> Option<Result<(), BackendError>> {
        if self.session.is_some() {
            return Some(Ok(()));
        }
        let (session, result) = self.mailbox.collect(limit)?;
        self.session = session;
        Some(result)
    }

    /// The session, if it has been created and is not in use.
    pub fn session(&mut self) -> Option<&mut (dyn Session + 'static)> {
        self.session.as_deref_mut()
    }

    /// An output of the last run.
    pub fn output(&self, index: usize) -> &[f32] {
        self.session.as_ref().map_or(&[], |s| s.output(index))
    }

    /// An output of bytes of the last run.
    pub fn output_bytes(&self, index: usize) -> &[u8] {
        self.session.as_ref().map_or(&[], |s| s.output_bytes(index))
    }

    /// Runs the session and waits at most `limit`. After a timeout the session is lost.
    pub fn run(&mut self, limit: Duration) -> Result<(), BackendError> {
        let Some(session) = self.session.take() else {
            return Err(self.mailbox.about.failed("its session is lost"));
        };
        *self.mailbox.slot.lock() = Slot::Ready(session);
        self.mailbox.changed.notify_all();
        match self.mailbox.collect(limit) {
            Some((session, result)) => {
                self.session = session;
                result
            }
            None => {
                self.abandon();
                Err(self.timeout(limit))
            }
        }
    }

    /// The timeout error for `limit`.
    pub fn timeout(&self, limit: Duration) -> BackendError {
        BackendError::Timeout {
            backend: self.mailbox.about.backend,
            graph: self.mailbox.about.graph.to_string(),
            after: limit,
        }
    }

    /// Abandons a worker that does not return.
    pub fn abandon(&mut self) {
        let mut slot = self.mailbox.slot.lock();
        match std::mem::replace(&mut *slot, Slot::Abandoned) {
            // Counted under the lock: the worker decrements it when it returns.
            Slot::Taken => {
                self.mailbox.stuck.fetch_add(1, Ordering::SeqCst);
            }
            // The worker has not started: nothing hangs, and it cleans up when it does.
            Slot::Ready(session) => *slot = Slot::Closed(Some(session)),
            other => *slot = other,
        }
    }
}

impl Drop for WatchedSession {
    fn drop(&mut self) {
        let session = self.session.take();
        if session.is_none() {
            self.abandon();
        }
        let mut slot = self.mailbox.slot.lock();
        if !matches!(*slot, Slot::Abandoned | Slot::Closed(_)) {
            let before = std::mem::replace(&mut *slot, Slot::Closed(session));
            if let Slot::Done(Some(made), _) = before {
                *slot = Slot::Closed(Some(made));
            }
        }
        self.mailbox.changed.notify_all();
    }
}

/// The worker's result: the session, unless it was lost, and the result of the run.
type Finished = (Option<Box<dyn Session>>, Result<(), BackendError>);

impl Mailbox {
    /// Waits for the worker to finish.
    fn collect(&self, limit: Duration) -> Option<Finished> {
        let start = Instant::now();
        let mut slot = self.slot.lock();
        loop {
            if matches!(*slot, Slot::Done(..)) {
                let Slot::Done(session, result) = std::mem::replace(&mut *slot, Slot::Free) else {
                    return None;
                };
                return Some((session, result));
            }
            let left = limit.checked_sub(start.elapsed())?;
            if left.is_zero() {
                return None;
            }
            self.changed.wait_for(&mut slot, left);
        }
    }

    /// The worker's main loop.
    fn work(&self, make: Make) {
        let made = catch_unwind(AssertUnwindSafe(make)).unwrap_or_else(|p| Err(self.panicked(p)));
        let (session, result) = match made {
            Ok(session) => (Some(session), Ok(())),
            Err(e) => (None, Err(e)),
        };
        if !self.hand_back(session, result) {
            return;
        }
        loop {
            let mut slot = self.slot.lock();
            let mut session = loop {
                match std::mem::replace(&mut *slot, Slot::Taken) {
                    Slot::Ready(session) => break session,
                    Slot::Closed(session) => {
                        // Not `Taken`: a closed slot must not be counted as stuck.
                        *slot = Slot::Closed(None);
                        drop(slot);
                        drop(session);
                        return;
                    }
                    Slot::Abandoned => {
                        *slot = Slot::Abandoned;
                        self.stuck.fetch_sub(1, Ordering::SeqCst);
                        return;
                    }
                    other => *slot = other,
                }
                self.changed.wait(&mut slot);
            };
            drop(slot);
            let (session, result) = match catch_unwind(AssertUnwindSafe(|| session.run())) {
                Ok(result) => (Some(session), result),
                Err(panic) => (None, Err(self.panicked(panic))),
            };
            if !self.hand_back(session, result) {
                return;
            }
        }
    }

    /// Hands a result back, if it is still waited for.
    fn hand_back(
        &self,
        session: Option<Box<dyn Session>>,
        result: Result<(), BackendError>,
    ) -> bool {
        let mut slot = self.slot.lock();
        match *slot {
            Slot::Abandoned => {
                drop(slot);
                // Too late, and dropping may be slow: until it is done this thread counts as stuck.
                drop(session);
                self.stuck.fetch_sub(1, Ordering::SeqCst);
                log::warn!(
                    "{} returned from {} after it had been abandoned",
                    self.about.backend,
                    self.about.graph
                );
                false
            }
            Slot::Closed(_) => false,
            _ => {
                *slot = Slot::Done(session, result);
                self.changed.notify_all();
                true
            }
        }
    }

    fn panicked(&self, panic: Box<dyn Any + Send>) -> BackendError {
        let what = panic
            .downcast_ref::<&str>()
            .map(|s| (*s).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned());
        let what = what.unwrap_or_else(|| "no message".into());
        self.about
            .failed(format!("it panicked: {}", what.replace('\n', " ")))
    }
}

#[cfg(test)]
mod tests;
