//! Checks shared by chunks of class maps and depth maps.

use crate::error::ContentError;

/// Checks that the pixels of a chunk are within a map of `(width, height)`, and that the code contains
/// the stated number of pixels: `coded` returns the numbers piece by piece.
pub fn check(
    (width, height): (u16, u16),
    first: u32,
    count: u32,
    coded: impl Iterator<Item = Result<u32, ContentError>>,
) -> Result<(), ContentError> {
    let total = u64::from(width) * u64::from(height);
    if u64::from(first) + u64::from(count) > total {
        return Err(ContentError::Range {
            first,
            count,
            total,
        });
    }
    let mut sum: u32 = 0;
    for pixels in coded {
        sum = sum.saturating_add(pixels?);
    }
    if sum != count {
        return Err(ContentError::PixelCount {
            coded: sum,
            stated: count,
        });
    }
    Ok(())
}

/// Checks that the number of pixels matches a map of `(width, height)`.
pub fn check_whole((width, height): (u16, u16), pixels: usize) -> Result<(), ContentError> {
    let total = u64::from(width) * u64::from(height);
    if pixels as u64 == total {
        return Ok(());
    }
    Err(ContentError::Range {
        first: 0,
        count: u32::try_from(pixels).unwrap_or(u32::MAX),
        total,
    })
}
