//! Run-length encoded masks of COCO, as SA-1B has them.
//!
//! Pixels go down the columns, runs of 0 and of 1 in turn, beginning with 0. In the compressed
//! form each length is written in groups of 5 bits, least first, one character each from '0' on:
//! bit 5 says that more follow, bit 4 of the last is the sign; from the third length on it is the
//! difference to the length before last.

use crate::{Mask, Window};

/// A run-length encoded mask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rle {
    height: usize,
    width: usize,
    /// Lengths of runs, of 0 first. They add up to `height * width`.
    runs: Vec<u32>,
}

/// What can be wrong with a mask.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RleError {
    /// A character outside the code.
    #[error("character {0:?} at position {1} is not part of a run length")]
    Character(char, usize),
    /// A number that ends in the middle or is too long.
    #[error("a run length is cut off or too long at position {0}")]
    Number(usize),
    /// A run of less than no pixels.
    #[error("run {0} has length {1}")]
    Length(usize, i64),
    /// Runs that do not fill the mask.
    #[error("runs of {runs} pixels in a mask of {width}x{height}")]
    Size {
        /// Pixels of all runs.
        runs: u64,
        /// Columns.
        width: usize,
        /// Rows.
        height: usize,
    },
}

impl Rle {
    /// A mask of `height x width` from the lengths of its runs.
    ///
    /// # Errors
    /// Where they do not add up.
    pub fn new(height: usize, width: usize, runs: Vec<u32>) -> Result<Self, RleError> {
        let sum: u64 = runs.iter().map(|&r| u64::from(r)).sum();
        if (height as u64).checked_mul(width as u64) != Some(sum) {
            return Err(RleError::Size {
                runs: sum,
                width,
                height,
            });
        }
        Ok(Self {
            height,
            width,
            runs,
        })
    }

    /// A mask from the compressed form.
    ///
    /// # Errors
    /// Where the text is damaged, or the runs do not add up.
    pub fn parse(height: usize, width: usize, text: &str) -> Result<Self, RleError> {
        let mut runs: Vec<u32> = Vec::new();
        let mut bytes = text.bytes().enumerate().peekable();
        while bytes.peek().is_some() {
            let (mut value, mut shift) = (0i64, 0);
            loop {
                let Some((at, byte)) = bytes.next() else {
                    return Err(RleError::Number(text.len()));
                };
                let Some(code) = byte.checked_sub(48).filter(|c| *c < 64) else {
                    return Err(RleError::Character(char::from(byte), at));
                };
                if shift > 35 {
                    return Err(RleError::Number(at));
                }
                value |= i64::from(code & 31) << shift;
                shift += 5;
                if code & 32 == 0 {
                    if code & 16 != 0 {
                        value -= 1 << shift;
                    }
                    break;
                }
            }
            if let Some(before) = runs.len().checked_sub(2).filter(|i| *i > 0) {
                value += i64::from(runs[before]);
            }
            let length = u32::try_from(value).map_err(|_| RleError::Length(runs.len(), value))?;
            runs.push(length);
        }
        Self::new(height, width, runs)
    }

    /// Rows and columns.
    pub fn size(&self) -> (usize, usize) {
        (self.height, self.width)
    }

    /// The mask through a window, by nearest neighbor. The mask itself is not unpacked.
    ///
    /// # Panics
    /// Where the window reaches outside the mask.
    pub fn seen(&self, window: &Window) -> Mask {
        assert!(
            window.x + window.width <= self.width && window.y + window.height <= self.height,
            "a window inside the mask"
        );
        let mut pixels = Vec::new();
        let mut runs = self.runs.iter().map(|&r| r as usize);
        // The run that is looked at: where it ends, and whether it is of ones.
        let (mut end, mut ones) = (runs.next().unwrap_or(0), false);
        for x in 0..window.out_width {
            let column = window.column(x) * self.height;
            // Several columns of the output may show one of the mask: start again if so.
            if x > 0 && window.column(x) == window.column(x - 1) {
                let before: Vec<u32> = pixels
                    .iter()
                    .rev()
                    .take_while(|&&p| p as usize % window.out_width == x - 1)
                    .map(|p| p + 1)
                    .collect();
                pixels.extend(before.into_iter().rev());
                continue;
            }
            for y in 0..window.out_height {
                let index = column + window.row(y);
                while index >= end {
                    let Some(run) = runs.next() else { break };
                    end += run;
                    ones = !ones;
                }
                if ones {
                    pixels.push((y * window.out_width + x) as u32);
                }
            }
        }
        pixels.sort_unstable();
        Mask::new(pixels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loftup_spec::SplitMix64;

    /// The mask unpacked, row-major.
    fn unpacked(rle: &Rle) -> Vec<bool> {
        let mut down = Vec::new();
        for (i, &run) in rle.runs.iter().enumerate() {
            down.extend(std::iter::repeat_n(i % 2 == 1, run as usize));
        }
        (0..rle.height * rle.width)
            .map(|i| down[i % rle.width * rle.height + i / rle.width])
            .collect()
    }

    /// The compressed form, written from its description.
    fn compressed(runs: &[u32]) -> String {
        let mut text = String::new();
        for (i, &run) in runs.iter().enumerate() {
            let mut x = i64::from(run) - if i > 2 { i64::from(runs[i - 2]) } else { 0 };
            loop {
                let low = x & 31;
                x >>= 5;
                let done = if low & 16 != 0 { x == -1 } else { x == 0 };
                text.push(char::from(48 + low as u8 + if done { 0 } else { 32 }));
                if done {
                    break;
                }
            }
        }
        text
    }

    fn random_runs(rng: &mut SplitMix64, mut pixels: usize) -> Vec<u32> {
        let mut runs = Vec::new();
        while pixels > 0 {
            let run = (rng.below(200) * rng.below(2) + rng.below(5)).min(pixels);
            runs.push(run as u32);
            pixels -= run;
        }
        runs
    }

    #[test]
    fn compressed_runs_are_read_back() {
        let mut rng = SplitMix64::new(5);
        for _ in 0..50 {
            let runs = random_runs(&mut rng, 37 * 53);
            let rle = Rle::parse(37, 53, &compressed(&runs)).unwrap();
            assert_eq!(rle.runs, runs);
        }
    }

    #[test]
    fn a_mask_written_by_hand_is_read() {
        // Rows 1 to 2 of columns 1 to 3 of a mask of 4x6: runs 5 2 2 2 2 2 9, of which those from
        // the fourth on are differences: 5 2 2 0 0 0 7.
        let rle = Rle::parse(4, 6, "5220007").unwrap();
        let expected: Vec<bool> = (0..24)
            .map(|i| (1..3).contains(&(i / 6)) && (1..4).contains(&(i % 6)))
            .collect();
        assert_eq!(unpacked(&rle), expected);
    }

    #[test]
    fn a_window_shows_what_the_unpacked_mask_has() {
        let mut rng = SplitMix64::new(6);
        for case in 0..60 {
            let (h, w) = (20 + rng.below(30), 20 + rng.below(30));
            let rle = Rle::new(h, w, random_runs(&mut rng, h * w)).unwrap();
            let (width, height) = (1 + rng.below(w), 1 + rng.below(h));
            let window = Window {
                x: rng.below(w - width + 1),
                y: rng.below(h - height + 1),
                width,
                height,
                out_width: 1 + rng.below(60),
                out_height: 1 + rng.below(60),
            };
            let full = unpacked(&rle);
            let expected: Vec<u32> = (0..window.out_height * window.out_width)
                .filter(|i| {
                    full[window.row(i / window.out_width) * w + window.column(i % window.out_width)]
                })
                .map(|i| i as u32)
                .collect();
            assert_eq!(
                rle.seen(&window).pixels(),
                expected,
                "case {case}: {window:?}"
            );
        }
    }

    #[test]
    fn damaged_masks_are_refused_by_name() {
        let errors = [
            (Rle::parse(2, 2, "4\u{7}"), "'\\u{7}'"),
            (Rle::parse(2, 2, "P"), "cut off"),
            (Rle::parse(2, 2, &"o".repeat(99)), "too long"),
            (Rle::parse(2, 2, "5"), "runs of 5 pixels in a mask of 2x2"),
            (Rle::parse(2, 2, "M"), "length -3"),
            (Rle::new(usize::MAX, 2, vec![1]), "runs of 1 pixels"),
        ];
        for (result, part) in errors {
            let message = result.unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
    }
}
