//! A queue of one or two between stages, in which the newest wins.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// A bounded queue. Putting into a full one takes out the oldest, so that a slow reader always
/// finds what is newest. Allocates nothing after its making.
#[derive(Debug)]
pub struct Mailbox<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    capacity: usize,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    closed: bool,
}

/// What [`Mailbox::recv`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum RecvResult<T> {
    /// The oldest of what is there.
    Item(T),
    /// Nothing came in time.
    Timeout,
    /// Nothing is there, and nothing will come.
    Closed,
}

impl<T> Mailbox<T> {
    /// An empty one for `capacity` items, one at least.
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        Self {
            state: Mutex::new(State {
                items: VecDeque::with_capacity(capacity),
                closed: false,
            }),
            changed: Condvar::new(),
            capacity,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts `item` in. Gives back what had to go: the oldest of a full queue, or `item` itself
    /// where the queue is closed.
    pub fn send(&self, item: T) -> Option<T> {
        let mut state = self.lock();
        if state.closed {
            return Some(item);
        }
        let displaced = match state.items.len() == self.capacity {
            true => state.items.pop_front(),
            false => None,
        };
        state.items.push_back(item);
        drop(state);
        self.changed.notify_one();
        displaced
    }

    /// Waits at most `limit` for an item.
    pub fn recv(&self, limit: Duration) -> RecvResult<T> {
        let end = Instant::now() + limit;
        let mut state = self.lock();
        loop {
            if let Some(item) = state.items.pop_front() {
                return RecvResult::Item(item);
            }
            if state.closed {
                return RecvResult::Closed;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return RecvResult::Timeout;
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Lets nothing more in. What is there can still be taken.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Items waiting.
    pub fn len(&self) -> usize {
        self.lock().items.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(5);

    #[test]
    fn the_oldest_goes_when_it_is_full() {
        let mailbox = Mailbox::new(2);
        assert_eq!(mailbox.send(1), None);
        assert_eq!(mailbox.send(2), None);
        assert_eq!(mailbox.send(3), Some(1));
        assert_eq!(mailbox.recv(SOON), RecvResult::Item(2));
        assert_eq!(mailbox.recv(SOON), RecvResult::Item(3));
        assert_eq!(mailbox.recv(SOON), RecvResult::Timeout);
    }

    #[test]
    fn a_closed_one_is_emptied_and_takes_nothing() {
        let mailbox = Mailbox::new(1);
        mailbox.send(1);
        mailbox.close();
        assert_eq!(mailbox.send(2), Some(2));
        assert_eq!(mailbox.recv(SOON), RecvResult::Item(1));
        assert_eq!(mailbox.recv(SOON), RecvResult::Closed);
    }

    #[test]
    fn a_reader_that_waits_is_woken() {
        let mailbox = Mailbox::new(1);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| mailbox.recv(Duration::from_secs(10)));
            std::thread::sleep(SOON);
            mailbox.send(7);
            assert_eq!(reader.join().unwrap(), RecvResult::Item(7));
        });
    }
}
