//! Retransmission of commands until the reply arrives.

use crate::command::{Outcome, Reply};

/// A command is still waiting for its reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("command {0} is still waiting for its reply")]
pub struct Busy(pub u16);

/// The next action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing to do yet.
    Wait,
    /// Send or retransmit the command with this number.
    Send(u16),
    /// All attempts have timed out; the command with this number is dropped.
    GiveUp(u16),
}

#[derive(Debug, Clone, Copy)]
struct Pending {
    id: u16,
    attempts: u8,
    due_ms: u64,
}

/// Tracks the number, deadline and attempts of one command at a time. The caller
/// keeps the command itself.
#[derive(Debug, Clone)]
pub struct Requester {
    next: u16,
    timeout_ms: u32,
    attempts: u8,
    pending: Option<Pending>,
}

impl Requester {
    /// Retransmits after `timeout_ms` milliseconds without a reply, and sends at
    /// most `attempts` times.
    #[must_use]
    pub const fn new(timeout_ms: u32, attempts: u8) -> Self {
        Requester {
            next: 0,
            timeout_ms,
            attempts,
            pending: None,
        }
    }

    /// Starts a new command at time `now_ms` and returns its number.
    /// [`poll`](Self::poll) tells when to send it.
    ///
    /// # Errors
    /// [`Busy`] while another command is pending.
    pub fn begin(&mut self, now_ms: u64) -> Result<u16, Busy> {
        if let Some(pending) = self.pending {
            return Err(Busy(pending.id));
        }
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        self.pending = Some(Pending {
            id,
            attempts: 0,
            due_ms: now_ms,
        });
        Ok(id)
    }

    /// The action to take at time `now_ms`.
    pub fn poll(&mut self, now_ms: u64) -> Step {
        match &mut self.pending {
            Some(pending) if now_ms >= pending.due_ms => {
                if pending.attempts >= self.attempts {
                    let id = pending.id;
                    self.pending = None;
                    return Step::GiveUp(id);
                }
                pending.attempts += 1;
                pending.due_ms = now_ms.saturating_add(u64::from(self.timeout_ms));
                Step::Send(pending.id)
            }
            _ => Step::Wait,
        }
    }

    /// Processes a reply. Returns its outcome if it belongs to the pending command,
    /// which is then complete.
    pub fn receive(&mut self, reply: &Reply) -> Option<Outcome> {
        let pending = self.pending?;
        if pending.id != reply.id {
            return None;
        }
        self.pending = None;
        Some(reply.outcome)
    }

    /// Drops the pending command; a later reply to it is ignored.
    pub const fn cancel(&mut self) {
        self.pending = None;
    }

    /// Whether a command is pending.
    #[must_use]
    pub const fn is_busy(&self) -> bool {
        self.pending.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_repeated_and_then_given_up() {
        let mut requester = Requester::new(100, 2);
        let id = requester.begin(1_000).unwrap();
        assert_eq!(requester.begin(1_000), Err(Busy(id)));
        assert_eq!(requester.poll(1_000), Step::Send(id));
        assert_eq!(requester.poll(1_099), Step::Wait);
        assert_eq!(requester.poll(1_100), Step::Send(id));
        assert_eq!(requester.poll(1_200), Step::GiveUp(id));
        assert_eq!(requester.poll(9_000), Step::Wait);
        assert_ne!(requester.begin(9_000), Ok(id));
    }

    #[test]
    fn only_the_reply_of_the_same_number_counts_and_only_once() {
        let mut requester = Requester::new(100, 3);
        let id = requester.begin(0).unwrap();
        let reply = |id| Reply {
            id,
            outcome: Outcome::Done,
        };
        assert_eq!(requester.receive(&reply(id + 1)), None);
        assert_eq!(requester.receive(&reply(id)), Some(Outcome::Done));
        assert_eq!(requester.receive(&reply(id)), None);
        assert!(!requester.is_busy());
        let id = requester.begin(0).unwrap();
        requester.cancel();
        assert_eq!(requester.receive(&reply(id)), None);
    }
}
