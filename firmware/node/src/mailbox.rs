//! A short queue between stages that drops the oldest item when it is full.

use std::{collections::VecDeque, time::Duration};

use parking_lot::{Condvar, Mutex};

/// A bounded queue. Sending to a full queue removes its oldest item, so that a slow receiver gets
/// the newest items. Allocates only when it is created.
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

/// Result of [`Mailbox::recv`].
#[derive(Debug, PartialEq, Eq)]
pub enum RecvResult<T> {
    /// The oldest item.
    Item(T),
    /// No item arrived in time.
    Timeout,
    /// The queue is empty and closed.
    Closed,
}

impl<T> Mailbox<T> {
    /// Creates an empty queue for `capacity` items, at least one.
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

    /// Adds `item`. Returns the item that was removed, if any: the oldest item of a full queue, or `item`
    /// itself if the queue is closed.
    pub fn send(&self, item: T) -> Option<T> {
        let mut state = self.state.lock();
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

    /// Waits at most `timeout` for an item.
    pub fn recv(&self, timeout: Duration) -> RecvResult<T> {
        let mut state = self.state.lock();
        let empty = |state: &mut State<T>| state.items.is_empty() && !state.closed;
        self.changed.wait_while_for(&mut state, empty, timeout);
        match state.items.pop_front() {
            Some(item) => RecvResult::Item(item),
            None if state.closed => RecvResult::Closed,
            None => RecvResult::Timeout,
        }
    }

    /// Closes the queue to new items. Items in it can still be received.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.state.lock().items.len()
    }

    /// Whether the queue is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(5);

    #[test]
    fn a_full_queue_drops_its_oldest_item() {
        let mailbox = Mailbox::new(2);
        assert_eq!(mailbox.send(1), None);
        assert_eq!(mailbox.send(2), None);
        assert_eq!(mailbox.send(3), Some(1));
        assert_eq!(mailbox.recv(SOON), RecvResult::Item(2));
        assert_eq!(mailbox.recv(SOON), RecvResult::Item(3));
        assert_eq!(mailbox.recv(SOON), RecvResult::Timeout);
    }

    #[test]
    fn a_closed_queue_can_be_drained_but_not_filled() {
        let mailbox = Mailbox::new(1);
        mailbox.send(1);
        mailbox.close();
        assert_eq!(mailbox.send(2), Some(2));
        assert_eq!(mailbox.recv(SOON), RecvResult::Item(1));
        assert_eq!(mailbox.recv(SOON), RecvResult::Closed);
    }

    #[test]
    fn a_waiting_receiver_is_woken() {
        let mailbox = Mailbox::new(1);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| mailbox.recv(Duration::from_secs(10)));
            std::thread::sleep(SOON);
            mailbox.send(7);
            assert_eq!(reader.join().unwrap(), RecvResult::Item(7));
        });
    }
}
