//! Clock synchronization with the four timestamps of NTP (RFC 5905, section 8).

use crate::message::{TimeReply, TimeRequest};

/// The result of one exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// The other side's clock minus this side's, in microseconds.
    pub offset_us: i64,
    /// Round-trip time on the link, in microseconds. The error of the offset is
    /// at most half of it.
    pub delay_us: u64,
}

impl Timing {
    /// Computes the timing from a reply that arrived at `arrived_us` of this
    /// side's clock. Returns `None` if the timestamps are inconsistent.
    #[must_use]
    pub fn new(reply: &TimeReply, arrived_us: u64) -> Option<Self> {
        let away = arrived_us.checked_sub(reply.sent_us)?;
        let held = reply.replied_us.checked_sub(reply.received_us)?;
        let delay_us = away.checked_sub(held)?;
        let there = i128::from(reply.received_us) - i128::from(reply.sent_us);
        let back = i128::from(reply.replied_us) - i128::from(arrived_us);
        Some(Timing {
            offset_us: i64::try_from((there + back) / 2).ok()?,
            delay_us,
        })
    }
}

impl TimeRequest {
    /// The reply, given the times at which the request arrived and the reply is
    /// sent.
    #[must_use]
    pub const fn reply(&self, received_us: u64, replied_us: u64) -> TimeReply {
        TimeReply {
            sent_us: self.sent_us,
            received_us,
            replied_us,
        }
    }
}

/// Keeps the last eight exchanges and uses the one with the shortest delay,
/// whose offset has the smallest error bound.
#[derive(Debug, Clone, Default)]
pub struct ClockFilter {
    kept: heapless::Deque<Timing, 8>,
}

impl ClockFilter {
    /// A filter without any exchange.
    #[must_use]
    pub const fn new() -> Self {
        ClockFilter {
            kept: heapless::Deque::new(),
        }
    }

    /// Adds an exchange.
    pub fn add(&mut self, timing: Timing) {
        if self.kept.is_full() {
            self.kept.pop_front();
        }
        // There is space now.
        let _ = self.kept.push_back(timing);
    }

    /// The exchange with the shortest delay among those kept.
    #[must_use]
    pub fn best(&self) -> Option<Timing> {
        self.kept
            .iter()
            .copied()
            .min_by_key(|timing| timing.delay_us)
    }

    /// The other side's time when this side's clock shows `here_us`.
    #[must_use]
    pub fn there_us(&self, here_us: u64) -> Option<u64> {
        here_us.checked_add_signed(self.best()?.offset_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The other clock is 5 s ahead; the delays are `there` and `back`.
    fn exchange(there: u64, back: u64) -> Timing {
        let request = TimeRequest { sent_us: 1_000 };
        let received = 1_000 + there + 5_000_000;
        let reply = request.reply(received, received + 40);
        Timing::new(&reply, 1_000 + there + 40 + back).unwrap()
    }

    #[test]
    fn the_offset_is_exact_on_an_even_cable_and_off_by_half_the_delay_at_most() {
        assert_eq!(
            exchange(300, 300),
            Timing {
                offset_us: 5_000_000,
                delay_us: 600
            }
        );
        for (there, back) in [(0, 1_000), (900, 100), (7, 0)] {
            let timing = exchange(there, back);
            let error = timing.offset_us.abs_diff(5_000_000);
            assert!(error <= timing.delay_us.div_ceil(2), "{timing:?}");
        }
    }

    #[test]
    fn the_quickest_of_the_last_eight_exchanges_counts() {
        let mut filter = ClockFilter::new();
        assert_eq!(filter.there_us(7), None);
        filter.add(exchange(10, 10));
        for _ in 0..7 {
            filter.add(exchange(900, 100));
        }
        assert_eq!(filter.there_us(7), Some(5_000_007));
        filter.add(exchange(900, 100));
        assert_eq!(
            filter.best(),
            Some(exchange(900, 100)),
            "the first one is dropped"
        );
    }

    #[test]
    fn stamps_that_run_backwards_give_nothing() {
        let reply = TimeRequest { sent_us: 100 }.reply(50, 49);
        assert_eq!(Timing::new(&reply, 200), None);
        let reply = TimeRequest { sent_us: 100 }.reply(50, 51);
        assert_eq!(Timing::new(&reply, 99), None);
        assert_eq!(
            Timing::new(&reply, 100),
            None,
            "processing took longer than the round trip"
        );
    }
}
