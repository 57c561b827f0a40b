//! Raw frames from a source, and their validation.

use loftup_bundle::Size;
use loftup_runtime::image::RgbImage;

use crate::metrics::DropReason;

/// What a source gives: not yet believed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RawFrame {
    /// The source's own count, rising by one for each image it takes.
    pub number: u64,
    /// When the image was taken, microseconds of the node's clock.
    pub stamp_us: u64,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `[height, width, 3]`, RGB.
    pub bytes: Vec<u8>,
}

/// Numbers this far back or less are old images; from further back, the source has begun again.
const REORDER_WINDOW: u64 = 1000;

/// Checks frames as they come.
#[derive(Debug)]
pub struct FrameValidator {
    size: Option<Size>,
    max_age_us: u64,
    last: Option<u64>,
    /// Added to the source's numbers, so that frames are numbered without a step back.
    offset: u64,
    /// The least number that the next frame may get.
    next: u64,
}

/// What is to be made of a frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Validation {
    /// Why it is refused, where it is.
    pub refused: Option<DropReason>,
    /// Frames missing before it.
    pub lost: u64,
    /// Whether its time stamp could not be true.
    pub time_jump: bool,
    /// Whether the source began again.
    pub restart: bool,
    /// The node's number of it, always rising.
    pub sequence: u64,
    /// When it was taken, as far as can be believed.
    pub captured_us: u64,
}

impl FrameValidator {
    /// For frames of this size; `None` takes any. A time stamp that is in the future or further
    /// back than `max_age_us` counts as wrong.
    pub fn new(size: Option<Size>, max_age_us: u64) -> Self {
        Self {
            size,
            max_age_us,
            last: None,
            offset: 0,
            next: 0,
        }
    }

    /// The source was opened again: it may count from anywhere.
    pub fn reopened(&mut self) {
        self.last = None;
    }

    /// Judges a frame that came at `now_us`.
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
                validation.refused = Some(DropReason::Duplicate);
            } else if raw.number < last && last - raw.number <= REORDER_WINDOW {
                validation.refused = Some(DropReason::Reordered);
            } else if raw.number < last {
                validation.restart = true;
            } else {
                validation.lost = raw.number - last - 1;
            }
            if validation.refused.is_some() {
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
        validation.refused = if (raw.width, raw.height) != (wanted.width, wanted.height) {
            Some(DropReason::WrongSize)
        } else if raw.bytes.is_empty() || needed != Some(raw.bytes.len()) {
            Some(DropReason::Truncated)
        } else {
            None
        };
        validation
    }
}

/// Copies a frame that passed into an image, which is made again only where its size is another.
pub fn copy(
    raw: &RawFrame,
    picture: &mut RgbImage,
) -> Result<(), loftup_runtime::image::ImageError> {
    if (picture.width(), picture.height()) != (raw.width, raw.height) {
        *picture = RgbImage::new(raw.width, raw.height, raw.bytes.clone())?;
        return Ok(());
    }
    for (y, row) in raw.bytes.chunks_exact(3 * raw.width).enumerate() {
        picture.row_mut(y).copy_from_slice(row);
    }
    Ok(())
}

/// An image to be grown into another.
pub(crate) fn one_pixel() -> RgbImage {
    // One pixel is a size that every image may have.
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
    fn each_fault_is_told_apart() {
        let mut validator = validator();
        let mut judge = |raw: &RawFrame| validator.validate(raw, 1200);
        assert_eq!(judge(&raw(0)).refused, None);
        assert_eq!(judge(&raw(3)).lost, 2);
        assert_eq!(judge(&raw(3)).refused, Some(DropReason::Duplicate));
        assert_eq!(judge(&raw(2)).refused, Some(DropReason::Reordered));
        let short = RawFrame {
            bytes: vec![0; 23],
            ..raw(4)
        };
        assert_eq!(judge(&short).refused, Some(DropReason::Truncated));
        let wide = RawFrame {
            width: 5,
            bytes: vec![0; 30],
            ..raw(5)
        };
        assert_eq!(judge(&wide).refused, Some(DropReason::WrongSize));
        let good = judge(&raw(6));
        assert_eq!((good.refused, good.lost, good.sequence), (None, 0, 6));
        assert_eq!((good.time_jump, good.captured_us), (false, 1006));
    }

    #[test]
    fn a_stamp_that_cannot_be_true_gives_way_to_the_time_of_arrival() {
        let mut validator = validator();
        for (number, stamp_us) in [(0, 5000), (1, 0), (2, u64::MAX)] {
            let validation = validator.validate(
                &RawFrame {
                    stamp_us,
                    ..raw(number)
                },
                1200,
            );
            assert!(validation.time_jump && validation.refused.is_none());
            assert_eq!(validation.captured_us, 1200);
        }
    }

    #[test]
    fn numbers_go_on_rising_when_the_source_begins_anew() {
        let mut validator = validator();
        let mut last = None;
        for number in [0, 1, 5000, 5001, 0, 1, 9000, 3, 4] {
            let validation = validator.validate(&raw(number), 1_000_000);
            assert_eq!(validation.refused, None);
            assert!(
                Some(validation.sequence) > last,
                "{number}: {validation:?} after {last:?}"
            );
            last = Some(validation.sequence);
        }
    }

    #[test]
    fn a_source_that_was_opened_anew_is_not_out_of_order() {
        let mut validator = validator();
        assert_eq!(validator.validate(&raw(40), 1200).sequence, 40);
        validator.reopened();
        for number in 0..5 {
            let validation = validator.validate(&raw(number), 1200);
            assert_eq!(
                (validation.refused, validation.sequence),
                (None, 41 + number)
            );
            assert_eq!((validation.restart, validation.lost), (number == 0, 0));
        }
    }

    #[test]
    fn impossible_sizes_are_refused_without_overflow() {
        let mut validator = FrameValidator::new(None, 500);
        for (width, height) in [(usize::MAX, 2), (0, 0), (1 << 40, 1 << 40)] {
            let frame = RawFrame {
                width,
                height,
                ..raw(1)
            };
            assert_eq!(
                FrameValidator::new(None, 500).validate(&frame, 0).refused,
                Some(DropReason::Truncated)
            );
        }
        assert_eq!(validator.validate(&raw(1), 1001).refused, None);
    }
}
