//! A session on a thread of its own, waited for with a limit.
//!
//! A call that hangs in a driver cannot be stopped from outside. So the session is handed to a
//! worker for each run and handed back after it; when it does not come back in time, it is left
//! there with its worker, and nobody waits for either again. Handing over moves a pointer: no
//! values are copied and nothing is allocated.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{BackendError, Session};

/// Makes a session, on the worker.
pub(super) type Make = Box<dyn FnOnce() -> Result<Box<dyn Session>, BackendError> + Send>;

/// A session and the worker that runs it. Dropping it never waits.
pub(super) struct WatchedSession {
    mailbox: Arc<Mailbox>,
    /// Here between runs; with the worker while one is under way, and for ever after a time-out.
    session: Option<Box<dyn Session>>,
}

/// Where session and worker meet.
struct Mailbox {
    about: About,
    slot: Mutex<Slot>,
    changed: Condvar,
    /// Workers of the whole engine that were given up and have not come back.
    stuck: Arc<AtomicU64>,
}

/// What messages say.
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
    /// To be run.
    Ready(Box<dyn Session>),
    /// The worker has it.
    Taken,
    /// Made or run; the session is missing where it panicked or was not made.
    Done(Option<Box<dyn Session>>, Result<(), BackendError>),
    /// Nobody waits for the worker any more.
    Abandoned,
    /// The session is to be dropped by the worker: in a bad driver even that may hang.
    Closed(Option<Box<dyn Session>>),
}

impl WatchedSession {
    /// Starts a worker that makes the session. [`WatchedSession::made`] waits for it.
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
            .map_err(|e| mailbox.about.failed(format!("no thread for it: {e}")))?;
        Ok(Self {
            mailbox,
            session: None,
        })
    }

    /// Waits for the session to be made; with a limit of zero only looks. `None` where it takes
    /// longer: it can be waited for again, or given up with [`WatchedSession::abandon`].
    pub fn made(&mut self, limit: Duration) -> Option<Result<(), BackendError>> {
        if self.session.is_some() {
            return Some(Ok(()));
        }
        let (session, result) = self.mailbox.collect(limit)?;
        self.session = session;
        Some(result)
    }

    /// The session, where it is made and at home.
    pub fn session(&mut self) -> Option<&mut (dyn Session + 'static)> {
        self.session.as_deref_mut()
    }

    /// An output of the last run.
    pub fn output(&self, index: usize) -> &[f32] {
        self.session.as_ref().map_or(&[], |s| s.output(index))
    }

    /// Runs the session and waits at most `limit`. After a time-out it is gone.
    pub fn run(&mut self, limit: Duration) -> Result<(), BackendError> {
        let Some(session) = self.session.take() else {
            return Err(self.mailbox.about.failed("its session is gone"));
        };
        *self.mailbox.lock() = Slot::Ready(session);
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

    /// The error that says that `limit` has passed.
    pub fn timeout(&self, limit: Duration) -> BackendError {
        BackendError::Timeout {
            backend: self.mailbox.about.backend,
            graph: self.mailbox.about.graph.to_string(),
            after: limit,
        }
    }

    /// Gives up a worker that does not come back.
    pub fn abandon(&mut self) {
        let mut slot = self.mailbox.lock();
        match std::mem::replace(&mut *slot, Slot::Abandoned) {
            // Counted under the lock: the worker takes it back when it returns.
            Slot::Taken => {
                self.mailbox.stuck.fetch_add(1, Ordering::SeqCst);
            }
            // The worker has not even woken up: nothing hangs, and it can clean up when it does.
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
        let mut slot = self.mailbox.lock();
        if !matches!(*slot, Slot::Abandoned | Slot::Closed(_)) {
            let before = std::mem::replace(&mut *slot, Slot::Closed(session));
            if let Slot::Done(Some(made), _) = before {
                *slot = Slot::Closed(Some(made));
            }
        }
        self.mailbox.changed.notify_all();
    }
}

/// What a worker gives back: its session, unless that was lost, and how the work went.
type Finished = (Option<Box<dyn Session>>, Result<(), BackendError>);

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the worker to be done.
    fn collect(&self, limit: Duration) -> Option<Finished> {
        let start = Instant::now();
        let mut slot = self.lock();
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
            slot = self
                .changed
                .wait_timeout(slot, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// The worker's life.
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
            let mut slot = self.lock();
            let mut session = loop {
                match std::mem::replace(&mut *slot, Slot::Taken) {
                    Slot::Ready(session) => break session,
                    Slot::Closed(session) => {
                        // Not taken: who gives up what is closed must not count it as stuck.
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
                slot = self
                    .changed
                    .wait(slot)
                    .unwrap_or_else(PoisonError::into_inner);
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

    /// Whether somebody still waits for it.
    fn hand_back(
        &self,
        session: Option<Box<dyn Session>>,
        result: Result<(), BackendError>,
    ) -> bool {
        let mut slot = self.lock();
        match *slot {
            Slot::Abandoned => {
                drop(slot);
                // Late, and perhaps slow to be dropped: until then this thread counts as stuck.
                drop(session);
                self.stuck.fetch_sub(1, Ordering::SeqCst);
                log::warn!(
                    "{} came back from {} after it was given up",
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
        let what = what.unwrap_or_else(|| "for no reason that it gave".into());
        self.about
            .failed(format!("it panicked: {}", what.replace('\n', " ")))
    }
}

#[cfg(test)]
mod tests;
