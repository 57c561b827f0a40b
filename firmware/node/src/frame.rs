//! Raw frames from a source, and their validation.

use std::sync::Arc;

use loftup_bundle::Size;
use loftup_runtime::image::RgbImage;

use crate::metrics::DropReason;

/// The header of an image from a ROS 2 publisher. It is copied to outputs for ROS 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Nanoseconds since 1970-01-01 UTC.
    pub stamp_ns: u64,
    /// Frame of reference.
    pub frame_id: Arc<str>,
}

/// An unvalidated frame from a source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RawFrame {
    /// Frame number of the source; increases by one with every captured image.
    pub number: u64,
    /// Capture time, microseconds of the node's clock.
    pub stamp_us: u64,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `[height, width, 3]`, RGB.
    pub bytes: Vec<u8>,
    /// Stamp and frame of reference of its sender, if it has them.
    pub header: Option<Header>,
}

/// A frame number that is lower by at most this is an old frame; a larger drop is a restart of the source.
const REORDER_WINDOW: u64 = 1000;

/// Validates frames in order of arrival.
#[derive(Debug)]
pub struct FrameValidator {
    size: Option<Size>,
    max_age_us: u64,
    last: Option<u64>,
    /// Offset of the source's numbers, so that sequence numbers increase across restarts.
    offset: u64,
    /// Minimum sequence number of the next frame.
    next: u64,
}

/// Result of the validation of a frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Validation {
    /// Why the frame is rejected, if it is.
    pub rejected: Option<DropReason>,
    /// Number of frames missing before it.
    pub lost: u64,
    /// Whether its time stamp is implausible.
    pub time_jump: bool,
    /// Whether the source restarted its numbering.
    pub restart: bool,
    /// Sequence number of the node; increases with every frame.
    pub sequence: u64,
    /// Capture time, or the time of arrival if the time stamp is implausible.
    pub captured_us: u64,
}

impl FrameValidator {
    /// Accepts frames of `size`, or of any size. Time stamps in the future or older than
    /// `max_age_us` are implausible.
    pub fn new(size: Option<Size>, max_age_us: u64) -> Self {
        Self {
            size,
            max_age_us,
            last: None,
            offset: 0,
            next: 0,
        }
    }

    /// Call when the source was reopened: its numbering may restart anywhere.
    pub fn reopened(&mut self) {
        self.last = None;
    }

    /// Validates a frame that arrived at `now_us`.
    pub fn validate(&mut self, raw: &RawFrame, now_us: u64) -> Validation {
        let plausible = now_us.saturating_sub(self.max_age_us)..=now_us;
        let time_jump = !plausible.contains(&raw.stamp_us);
        let mut validation = Validation {
            time_jump,
            captured_us: if time_jump { now_us } else { raw.stamp_us },
            ..Validation::default()
        };
        if let Some(last) = self.last {
            if raw.number == last {
                validation.rejected = Some(DropReason::Duplicate);
            } else if raw.number < last && last - raw.number <= REORDER_WINDOW {
                validation.rejected = Some(DropReason::Reordered);
            } else if raw.number < last {
                validation.restart = true;
            } else {
                validation.lost = raw.number - last - 1;
            }
            if validation.rejected.is_some() {
                return validation;
            }
        }
        validation.restart |= self.last.is_none() && self.next > 0;
        if validation.restart {
            self.offset = self.next.saturating_sub(raw.number);
        }
        self.last = Some(raw.number);
        validation.sequence = raw.number.saturating_add(self.offset);
        self.next = validation.sequence.saturating_add(1);
        let wanted = self.size.unwrap_or(Size {
            width: raw.width,
            height: raw.height,
        });
        let needed = raw
            .width
            .checked_mul(raw.height)
            .and_then(|n| n.checked_mul(3));
        validation.rejected = if (raw.width, raw.height) != (wanted.width, wanted.height) {
            Some(DropReason::WrongSize)
        } else if raw.bytes.is_empty() || needed != Some(raw.bytes.len()) {
            Some(DropReason::Truncated)
        } else {
            None
        };
        validation
    }
}

/// Copies a valid frame to an image, which is reallocated only if its size differs.
pub fn copy_into(
    raw: &RawFrame,
    image: &mut RgbImage,
) -> Result<(), loftup_runtime::image::ImageError> {
    if (image.width(), image.height()) != (raw.width, raw.height) {
        *image = RgbImage::new(raw.width, raw.height, raw.bytes.clone())?;
        return Ok(());
    }
    for (y, row) in raw.bytes.chunks_exact(3 * raw.width).enumerate() {
        image.row_mut(y).copy_from_slice(row);
    }
    Ok(())
}

/// An image for [`copy_into`] to replace.
pub(crate) fn placeholder() -> RgbImage {
    RgbImage::filled(1, 1, [0; 3]).expect("1 x 1 is a valid size")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(number: u64) -> RawFrame {
        RawFrame {
            number,
            stamp_us: 1000 + number,
            width: 4,
            height: 2,
            bytes: vec![number as u8; 24],
            header: None,
        }
    }

    fn validator() -> FrameValidator {
        FrameValidator::new(
            Some(Size {
                width: 4,
                height: 2,
            }),
            500,
        )
    }

    #[test]
    fn faults_are_distinguished() {
        let mut validator = validator();
        let mut validate = |raw: &RawFrame| validator.validate(raw, 1200);
        assert_eq!(validate(&raw(0)).rejected, None);
        assert_eq!(validate(&raw(3)).lost, 2);
        assert_eq!(validate(&raw(3)).rejected, Some(DropReason::Duplicate));
        assert_eq!(validate(&raw(2)).rejected, Some(DropReason::Reordered));
        let short = RawFrame {
            bytes: vec![0; 23],
            ..raw(4)
        };
        assert_eq!(validate(&short).rejected, Some(DropReason::Truncated));
        let wide = RawFrame {
            width: 5,
            bytes: vec![0; 30],
            ..raw(5)
        };
        assert_eq!(validate(&wide).rejected, Some(DropReason::WrongSize));
        let good = validate(&raw(6));
        assert_eq!((good.rejected, good.lost, good.sequence), (None, 0, 6));
        assert_eq!((good.time_jump, good.captured_us), (false, 1006));
    }

    #[test]
    fn an_implausible_time_stamp_is_replaced_by_the_time_of_arrival() {
        let mut validator = validator();
        for (number, stamp_us) in [(0, 5000), (1, 0), (2, u64::MAX)] {
            let validation = validator.validate(
                &RawFrame {
                    stamp_us,
                    ..raw(number)
                },
                1200,
            );
            assert!(validation.time_jump && validation.rejected.is_none());
            assert_eq!(validation.captured_us, 1200);
        }
    }

    #[test]
    fn sequence_numbers_increase_across_restarts() {
        let mut validator = validator();
        let mut last = None;
        for number in [0, 1, 5000, 5001, 0, 1, 9000, 3, 4] {
            let validation = validator.validate(&raw(number), 1_000_000);
            assert_eq!(validation.rejected, None);
            assert!(
                Some(validation.sequence) > last,
                "{number}: {validation:?} after {last:?}"
            );
            last = Some(validation.sequence);
        }
    }

    #[test]
    fn frames_of_a_reopened_source_are_in_order() {
        let mut validator = validator();
        assert_eq!(validator.validate(&raw(40), 1200).sequence, 40);
        validator.reopened();
        for number in 0..5 {
            let validation = validator.validate(&raw(number), 1200);
            assert_eq!(
                (validation.rejected, validation.sequence),
                (None, 41 + number)
            );
            assert_eq!((validation.restart, validation.lost), (number == 0, 0));
        }
    }

    #[test]
    fn impossible_sizes_are_rejected_without_overflow() {
        let mut validator = FrameValidator::new(None, 500);
        for (width, height) in [(usize::MAX, 2), (0, 0), (1 << 40, 1 << 40)] {
            let frame = RawFrame {
                width,
                height,
                ..raw(1)
            };
            assert_eq!(
                FrameValidator::new(None, 500).validate(&frame, 0).rejected,
                Some(DropReason::Truncated)
            );
        }
        assert_eq!(validator.validate(&raw(1), 1001).rejected, None);
    }
}
