//! Coding of the mask in a command: the pixels that belong to an object.
//!
//! The pixels of a mask, in row-major order, alternate between background and object.
//! The code has a varint for the length of each run. The first run is background and
//! possibly empty. Pixels after the last run are background.

use crate::error::ContentError;
use crate::varint;

/// Checks a code for a mask of `width * height` pixels; returns the number of pixels of the object.
///
/// # Errors
/// [`ContentError::Code`] if the code ends inside a number; [`ContentError::PixelCount`] if its runs
/// have more pixels than the mask.
pub fn check(code: &[u8], width: u16, height: u16) -> Result<u32, ContentError> {
    let (mut at, mut coded, mut object) = (0, 0u32, 0u32);
    let stated = u32::from(width) * u32::from(height);
    let mut inside = false;
    while at < code.len() {
        let length = varint::read(code, &mut at)?;
        coded = coded.saturating_add(length);
        if coded > stated {
            return Err(ContentError::PixelCount { coded, stated });
        }
        if inside {
            object += length;
        }
        inside = !inside;
    }
    Ok(object)
}

/// Calls `each` with the first pixel and the length of every run of the object.
///
/// # Errors
/// Same as for [`check`], which is called first: an invalid code yields no runs at all.
pub fn runs(
    code: &[u8],
    width: u16,
    height: u16,
    mut each: impl FnMut(u32, u32),
) -> Result<(), ContentError> {
    check(code, width, height)?;
    let (mut at, mut first, mut inside) = (0, 0, false);
    while at < code.len() {
        let length = varint::read(code, &mut at)?;
        if inside && length > 0 {
            each(first, length);
        }
        first += length;
        inside = !inside;
    }
    Ok(())
}

/// Encodes a mask, whose pixels are in row-major order, to the start of `out`. Returns the length of the
/// code, or `None` if it does not fit; use a mask of lower resolution in that case.
pub fn encode(mask: impl IntoIterator<Item = bool>, out: &mut [u8]) -> Option<usize> {
    let (mut used, mut length, mut inside) = (0, 0usize, false);
    let mut write = |length: usize, used: &mut usize| {
        let mut bytes = [0; varint::MAX_BYTES];
        let n = varint::write(length, &mut bytes);
        out.get_mut(*used..*used + n)?.copy_from_slice(&bytes[..n]);
        *used += n;
        Some(())
    };
    for pixel in mask {
        if pixel != inside {
            write(length, &mut used)?;
            (length, inside) = (0, pixel);
        }
        length += 1;
    }
    if inside {
        write(length, &mut used)?;
    }
    Some(used)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::{vec, vec::Vec};

    use super::*;

    fn decode(code: &[u8], width: u16, height: u16) -> Result<Vec<bool>, ContentError> {
        let mut mask = vec![false; usize::from(width) * usize::from(height)];
        runs(code, width, height, |first, length| {
            mask[first as usize..][..length as usize].fill(true);
        })?;
        Ok(mask)
    }

    #[test]
    fn masks_come_back() {
        let mut random = crate::faults::Random::new(3);
        for (width, height) in [(1, 1), (7, 5), (1, 300), (200, 9)] {
            for density in [0, 100_000, 500_000, 1_000_000] {
                let mask: Vec<bool> = (0..usize::from(width) * usize::from(height))
                    .map(|_| random.chance(density))
                    .collect();
                let mut out = [0; 4_096];
                let length = encode(mask.iter().copied(), &mut out).unwrap();
                assert_eq!(decode(&out[..length], width, height), Ok(mask.clone()));
                let pixels = mask.iter().filter(|pixel| **pixel).count();
                assert_eq!(check(&out[..length], width, height), Ok(pixels as u32));
            }
        }
    }

    #[test]
    fn a_code_that_does_not_fit_or_is_invalid_is_refused() {
        let mask = [true, false, true, false];
        assert_eq!(encode(mask, &mut [0; 4]), Some(4));
        assert_eq!(encode(mask, &mut [0; 3]), None);
        let count = |coded| ContentError::PixelCount { coded, stated: 6 };
        for (code, expected) in [
            (&[2, 5][..], count(7)),
            (&[2, 0x80], ContentError::Code { at: 2 }),
            (&[0xFF, 0xFF, 0xFF, 0xFF, 0x0F, 1], count(u32::MAX)),
            (
                &[0xFF, 0xFF, 0xFF, 0xFF, 0x1F],
                ContentError::Code { at: 0 },
            ),
        ] {
            assert_eq!(check(code, 3, 2), Err(expected), "{code:?}");
            assert_eq!(decode(code, 3, 2), Err(expected), "{code:?}");
        }
        assert_eq!(decode(&[], 3, 2), Ok(vec![false; 6]));
        assert_eq!(decode(&[0, 6], 3, 2), Ok(vec![true; 6]));
        // Empty runs are allowed.
        assert_eq!(check(&[1, 0, 1, 2], 3, 2), Ok(2));
    }
}
