//! Feature vectors: two bytes per value (binary16), or one byte with a scale and
//! an offset per chunk.

pub use crate::message::{Features, Values};

use crate::bounded::Bytes;
use crate::error::ContentError;
use crate::message::{MAX_DATA, payload_within};
use crate::schema::Schema;

impl<'a> Values<'a> {
    /// Number of values; an incomplete binary16 value does not count.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Values::F16(data) => data.len() / 2,
            Values::U8 { data, .. } => data.len(),
        }
    }

    /// Whether there are no values.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values.
    pub fn iter(&self) -> impl Iterator<Item = f32> + 'a {
        let (data, step, coding) = match *self {
            Values::F16(data) => (data.get(), 2, None),
            Values::U8 {
                scale,
                offset,
                data,
            } => (data.get(), 1, Some((scale, offset))),
        };
        data.chunks_exact(step)
            .map(move |bytes| match (bytes, coding) {
                (&[byte], Some((scale, offset))) => offset + scale * f32::from(byte),
                (&[low, high], None) => f16_to_f32(u16::from_le_bytes([low, high])),
                _ => f32::NAN,
            })
    }
}

impl Features<'_> {
    /// Checks that the chunk is consistent; returns its number of values.
    ///
    /// # Errors
    /// [`ContentError::HalfValue`], [`ContentError::NotFinite`],
    /// [`ContentError::Range`].
    pub fn check(&self) -> Result<u32, ContentError> {
        match &self.values {
            Values::F16(data) if data.len() % 2 != 0 => {
                return Err(ContentError::HalfValue(data.len()));
            }
            Values::U8 { scale, offset, .. } if !(scale.is_finite() && offset.is_finite()) => {
                return Err(ContentError::NotFinite);
            }
            _ => {}
        }
        // A frame holds far fewer than 2^32 values.
        let count = u32::try_from(self.values.len()).unwrap_or(u32::MAX);
        let total = u64::from(self.vectors) * u64::from(self.channels);
        let end = u64::from(self.first) + u64::from(count);
        if end > total || end > u64::from(u32::MAX) {
            return Err(ContentError::Range {
                first: self.first,
                count,
                total,
            });
        }
        Ok(count)
    }

    /// The values with their indices: `(vector, channel, value)`.
    ///
    /// # Errors
    /// Same as for [`check`](Self::check).
    pub fn entries(&self) -> Result<impl Iterator<Item = (u32, u16, f32)> + '_, ContentError> {
        self.check()?;
        // `check` has passed: if there are values, `channels` is not zero.
        let channels = u32::from(self.channels.max(1));
        Ok(self
            .values
            .iter()
            .zip(self.first..)
            .map(move |(value, index)| {
                let channel = u16::try_from(index % channels).unwrap_or(u16::MAX);
                (index / channels, channel, value)
            }))
    }
}

/// Encoding of feature values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// binary16: relative error at most 2^-11 for magnitudes from 2^-14 to 65504;
    /// larger values become infinite.
    F16,
    /// One byte, scaled to the range of the finite values of the chunk: the error
    /// is at most the range / 510. Values that are not finite are clamped to the
    /// range, NaN to its lower end.
    U8,
}

/// Splits feature vectors into chunks.
#[derive(Debug, Clone)]
pub struct FeatureWriter<'v> {
    values: &'v [f32],
    frame: u32,
    slot: u8,
    channels: u16,
    vectors: u32,
    coding: Coding,
    next: usize,
    /// Payload of a chunk, in bytes.
    payload: usize,
}

impl<'v> FeatureWriter<'v> {
    /// A writer for `values`, `[vectors][channels]`.
    ///
    /// # Errors
    /// [`ContentError::Range`] if they are not a whole number of vectors, or 2^32
    /// values or more.
    pub fn new(
        frame: u32,
        slot: u8,
        channels: u16,
        values: &'v [f32],
        coding: Coding,
    ) -> Result<Self, ContentError> {
        let count = u32::try_from(values.len()).unwrap_or(u32::MAX);
        let vectors = count.checked_div(u32::from(channels)).unwrap_or(0);
        let total = u64::from(vectors) * u64::from(channels);
        if values.len() as u64 != total {
            return Err(ContentError::Range {
                first: 0,
                count,
                total,
            });
        }
        Ok(FeatureWriter {
            values,
            frame,
            slot,
            channels,
            vectors,
            coding,
            next: 0,
            payload: MAX_DATA,
        })
    }

    /// Limits the body of a chunk to `bytes`, but not below
    /// [`MIN_BODY`](crate::MIN_BODY): the limit that the other side announced.
    #[must_use]
    pub const fn with_max_body(mut self, bytes: usize) -> Self {
        self.payload = payload_within(bytes, <Features<'static> as Schema>::MAX_SIZE);
        self
    }

    /// The next chunk, encoded in `scratch`; `None` after the last.
    pub fn next_chunk<'s>(&mut self, scratch: &'s mut [u8; MAX_DATA]) -> Option<Features<'s>> {
        let rest = self.values.get(self.next..).unwrap_or_default();
        if rest.is_empty() {
            return None;
        }
        let width = match self.coding {
            Coding::F16 => 2,
            Coding::U8 => 1,
        };
        let part = rest.get(..self.payload / width).unwrap_or(rest);
        let first = u32::try_from(self.next).ok()?;
        self.next += part.len();
        let data = scratch.get_mut(..part.len() * width)?;
        let values = match self.coding {
            Coding::F16 => {
                for (place, value) in data.chunks_exact_mut(2).zip(part) {
                    place.copy_from_slice(&f32_to_f16(*value).to_le_bytes());
                }
                Values::F16(Bytes::new(data).ok()?)
            }
            Coding::U8 => {
                let (scale, offset) = range(part);
                for (place, value) in data.iter_mut().zip(part) {
                    // A cast from float saturates, and takes NaN to 0.
                    let level = (f64::from(*value) - f64::from(offset)) / f64::from(scale);
                    *place = (level + 0.5) as u8;
                }
                Values::U8 {
                    scale,
                    offset,
                    data: Bytes::new(data).ok()?,
                }
            }
        };
        Some(Features {
            frame: self.frame,
            slot: self.slot,
            channels: self.channels,
            vectors: self.vectors,
            first,
            values,
        })
    }
}

/// The scale and offset that map the finite `values` to 0..=255.
fn range(values: &[f32]) -> (f32, f32) {
    let (mut low, mut high) = (f32::INFINITY, f32::NEG_INFINITY);
    for &value in values.iter().filter(|value| value.is_finite()) {
        low = low.min(value);
        high = high.max(value);
    }
    if low > high {
        return (1.0, 0.0);
    }
    let scale = ((f64::from(high) - f64::from(low)) / 255.0) as f32;
    // All values are equal: any scale except 0 works.
    (if scale > 0.0 { scale } else { 1.0 }, low)
}

/// Converts binary16 to binary32, exactly. NaN stays NaN.
#[must_use]
pub fn f16_to_f32(half: u16) -> f32 {
    let sign = u32::from(half & 0x8000) << 16;
    let exponent = u32::from(half >> 10) & 0x1F;
    let fraction = u32::from(half & 0x3FF);
    let magnitude = match exponent {
        // Subnormal: the fraction counts steps of 2^-24.
        0 => return f32::from_bits(sign | (fraction as f32 / 16_777_216.0).to_bits()),
        31 => 0x7F80_0000 | fraction << 13,
        _ => (exponent + 112) << 23 | fraction << 13,
    };
    f32::from_bits(sign | magnitude)
}

/// Converts binary32 to the nearest binary16, ties to even. Values that are too
/// large become infinite; NaN becomes the quiet NaN of its sign.
#[must_use]
pub fn f32_to_f16(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let magnitude = bits & 0x7FFF_FFFF;
    if magnitude > 0x7F80_0000 {
        return sign | 0x7E00;
    }
    // 65520 is the first value that rounds to infinity.
    if magnitude >= 0x477F_F000 {
        return sign | 0x7C00;
    }
    let (kept, shift) = if magnitude >= 0x3880_0000 {
        // Normal: lower the exponent's bias by 112, drop 13 bits of fraction.
        (magnitude - (112 << 23), 13)
    } else {
        // Subnormal: in steps of 2^-24. Less than half a step rounds to zero.
        let exponent = magnitude >> 23;
        if exponent < 102 {
            return sign;
        }
        ((magnitude & 0x007F_FFFF) | 0x0080_0000, 126 - exponent)
    };
    let half_step = 1u32 << (shift - 1);
    let even = kept >> shift & 1;
    sign | ((kept + half_step - 1 + even) >> shift) as u16
}

#[cfg(test)]
mod tests;
