//! Numbers for images, from those that `rmw_zenoh` sends with messages.

use super::Attachment;

/// A larger gap is not one of lost messages.
const MAX_GAP: i64 = 1_000_000;
/// A message whose number is lower by at most this is late; otherwise the publisher counts anew.
const REORDER_WINDOW: i64 = 1000;

/// Numbers the messages of a topic in order of arrival, so that numbers are left out for lost messages, and
/// repeated for repeated ones.
#[derive(Debug, Default)]
pub struct Numbering {
    last: Option<(u64, Option<Attachment>)>,
}

impl Numbering {
    /// The number of the message that has just arrived.
    pub fn next(&mut self, attachment: Option<Attachment>) -> u64 {
        let Some((number, before)) = self.last else {
            self.last = Some((0, attachment));
            return 0;
        };
        let step = match (before, attachment) {
            (Some(before), Some(now)) if before.publisher == now.publisher => {
                now.sequence.saturating_sub(before.sequence)
            }
            // Another publisher, or one that does not count.
            _ => 1,
        };
        let step = match (-REORDER_WINDOW..=MAX_GAP).contains(&step) {
            true => step,
            false => 1,
        };
        let next = number.saturating_add_signed(step);
        // What comes after a late message follows the newest one.
        if step > 0 {
            self.last = Some((next, attachment));
        }
        next
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
    fn lost_repeated_and_late_messages_have_the_numbers_of_their_publisher() {
        let mut numbering = Numbering::default();
        let mut number = |attachment| numbering.next(attachment);
        assert_eq!(number(attachment(1, 1)), 0);
        assert_eq!(number(attachment(1, 2)), 1);
        // Two are lost.
        assert_eq!(number(attachment(1, 5)), 4);
        assert_eq!(number(attachment(1, 5)), 4);
        // A late one.
        assert_eq!(number(attachment(1, 4)), 3);
        assert_eq!(number(attachment(1, 6)), 5);
        // Another publisher.
        assert_eq!(number(attachment(2, 900)), 6);
        assert_eq!(number(attachment(2, 902)), 8);
        // Without a number.
        assert_eq!(number(None), 9);
        assert_eq!(number(None), 10);
        assert_eq!(number(attachment(2, 903)), 11);
    }

    #[test]
    fn a_publisher_that_counts_anew_or_lies_does_not_stop_the_numbers() {
        let mut numbering = Numbering::default();
        let mut last = numbering.next(attachment(1, 50_000));
        for sequence in [1, 2, i64::MAX, i64::MIN, 0, i64::MAX - 1, -5000, -4999] {
            let number = numbering.next(attachment(1, sequence));
            assert_eq!(number, last + 1, "{sequence}");
            last = number;
        }
    }

    #[test]
    fn numbers_are_never_negative() {
        let mut numbering = Numbering::default();
        numbering.next(attachment(1, 0));
        assert_eq!(numbering.next(attachment(1, -1000)), 0);
    }
}
