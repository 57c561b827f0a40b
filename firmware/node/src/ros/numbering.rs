//! Numbers images by the sequence numbers that `rmw_zenoh` sends with messages.

use super::Attachment;

/// Maximum number of lost messages; a larger gap has another cause.
const MAX_GAP: i64 = 1_000_000;

/// Numbers the messages of a topic in order of arrival, with gaps for lost messages.
///
/// Zenoh delivers the messages of a publisher in order. So if a number does not increase, the publisher has
/// restarted, or does not number its messages.
#[derive(Debug, Default)]
pub struct Numbering {
    last: Option<(u64, Option<Attachment>)>,
}

impl Numbering {
    /// Returns the number of the message that has just arrived.
    pub fn next(&mut self, attachment: Option<Attachment>) -> u64 {
        let next = match self.last {
            None => 0,
            Some((number, before)) => number.saturating_add(step(before, attachment)),
        };
        self.last = Some((next, attachment));
        next
    }
}

/// Returns the increase of the number.
fn step(before: Option<Attachment>, now: Option<Attachment>) -> u64 {
    let step = match (before, now) {
        (Some(before), Some(now)) if before.publisher == now.publisher => {
            now.sequence.saturating_sub(before.sequence)
        }
        _ => 1,
    };
    match step {
        1..=MAX_GAP => step.unsigned_abs(),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(publisher: u8, sequence: i64) -> Option<Attachment> {
        Some(Attachment {
            sequence,
            sent_ns: 0,
            publisher: [publisher; 16],
        })
    }

    #[test]
    fn numbers_of_lost_messages_are_left_out() {
        let mut numbering = Numbering::default();
        let mut number = |attachment| numbering.next(attachment);
        assert_eq!(number(attachment(1, 1)), 0);
        assert_eq!(number(attachment(1, 2)), 1);
        // Two are lost.
        assert_eq!(number(attachment(1, 5)), 4);
        // Another publisher.
        assert_eq!(number(attachment(2, 900)), 5);
        assert_eq!(number(attachment(2, 902)), 7);
        // Without a number.
        assert_eq!(number(None), 8);
        assert_eq!(number(None), 9);
        assert_eq!(number(attachment(2, 903)), 10);
    }

    #[test]
    fn a_publisher_that_starts_over_or_does_not_count_is_received() {
        let mut numbering = Numbering::default();
        let mut last = numbering.next(attachment(1, 50_000));
        let sequences = [
            49_990,
            1,
            2,
            2,
            2,
            i64::MAX,
            i64::MIN,
            0,
            0,
            i64::MAX - 1,
            -5000,
            -4999,
        ];
        for sequence in sequences {
            let number = numbering.next(attachment(1, sequence));
            assert_eq!(number, last + 1, "{sequence}");
            last = number;
        }
    }
}
