//! Coding of depth maps: millimeters from 0 to 65535, where 0 is no depth.
//!
//! A map is a sequence of depths in row-major order. The code of a chunk has a varint
//! for each pixel: the difference to the pixel before it, modulo 2^16, in zigzag
//! order (0, -1, 1, -2, 2 become 0, 1, 2, 3, 4). The pixel before the first is 0. A
//! difference of up to 63 mm takes one byte, none takes more than three.

pub use crate::message::DepthChunk;

use crate::bounded::Bytes;
use crate::chunk;
use crate::error::ContentError;
use crate::message::{MAX_DATA, payload_within};
use crate::schema::Schema;
use crate::varint;

/// The depth of a pixel that has none.
pub const NO_DEPTH: u16 = 0;

/// Converts meters to the millimeters of a depth map. Depth from 65.535 m on becomes 65535; NaN and
/// negative values become [`NO_DEPTH`].
#[must_use]
pub fn millimeters(meters: f32) -> u16 {
    // The cast saturates, and takes NaN to 0.
    (meters * 1000.0 + 0.5) as u16
}

impl DepthChunk<'_> {
    /// Checks that the pixels are within the map and that the code holds as many as
    /// stated.
    ///
    /// # Errors
    /// [`ContentError::Range`], [`ContentError::Code`], [`ContentError::PixelCount`].
    pub fn check(&self) -> Result<(), ContentError> {
        let size = (self.width, self.height);
        let coded = self.raw().map(|depth| depth.map(|_| 1));
        chunk::check(size, self.first, self.count, coded)
    }

    /// The depths of the chunk in millimeters, from pixel `first` on.
    ///
    /// # Errors
    /// Same as for [`check`](Self::check), which is called first: an invalid chunk yields
    /// no depths at all.
    pub fn depths(&self) -> Result<impl Iterator<Item = u16> + '_, ContentError> {
        self.check()?;
        Ok(self.raw().map_while(Result::ok))
    }

    fn raw(&self) -> Depths<'_> {
        Depths {
            code: &self.code,
            at: 0,
            last: 0,
        }
    }
}

#[derive(Debug, Clone)]
struct Depths<'a> {
    code: &'a [u8],
    at: usize,
    last: u16,
}

impl Iterator for Depths<'_> {
    type Item = Result<u16, ContentError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.code.len() {
            return None;
        }
        let at = self.at;
        let number = varint::read(self.code, &mut self.at)
            .and_then(|n| u16::try_from(n).map_err(|_| ContentError::Code { at }));
        Some(match number {
            Ok(number) => {
                self.last = self.last.wrapping_add(unzigzag(number));
                Ok(self.last)
            }
            Err(error) => {
                self.at = self.code.len();
                Err(error)
            }
        })
    }
}

/// Converts a difference modulo 2^16 to its zigzag code.
const fn zigzag(difference: u16) -> u16 {
    let sign = (difference as i16) >> 15;
    (difference << 1) ^ sign as u16
}

const fn unzigzag(number: u16) -> u16 {
    (number >> 1) ^ (number & 1).wrapping_neg()
}

/// Splits a depth map into chunks.
#[derive(Debug, Clone)]
pub struct DepthWriter<'m> {
    depths: &'m [u16],
    frame: u32,
    slot: u8,
    width: u16,
    height: u16,
    next: usize,
    /// Payload of a chunk, in bytes.
    payload: usize,
}

impl<'m> DepthWriter<'m> {
    /// A writer for `depths`, `[height][width]`.
    ///
    /// # Errors
    /// [`ContentError::Range`] if their number is not `width * height`.
    pub fn new(
        frame: u32,
        slot: u8,
        width: u16,
        height: u16,
        depths: &'m [u16],
    ) -> Result<Self, ContentError> {
        chunk::check_whole((width, height), depths.len())?;
        Ok(DepthWriter {
            depths,
            frame,
            slot,
            width,
            height,
            next: 0,
            payload: MAX_DATA,
        })
    }

    /// Limits the body of a chunk to `bytes`, but not below
    /// [`MIN_BODY`](crate::MIN_BODY): the limit that the other side announced.
    #[must_use]
    pub const fn with_max_body(mut self, bytes: usize) -> Self {
        self.payload = payload_within(bytes, <DepthChunk<'static> as Schema>::MAX_SIZE);
        self
    }

    /// The next chunk, encoded in `scratch`; `None` after the last.
    pub fn next_chunk<'s>(&mut self, scratch: &'s mut [u8; MAX_DATA]) -> Option<DepthChunk<'s>> {
        let rest = self.depths.get(self.next..).unwrap_or_default();
        let (mut pixels, mut used, mut last) = (0, 0, 0u16);
        for &depth in rest {
            let mut bytes = [0; varint::MAX_BYTES];
            let length = varint::write(usize::from(zigzag(depth.wrapping_sub(last))), &mut bytes);
            let place = scratch
                .get_mut(..self.payload)?
                .get_mut(used..used + length);
            let Some(place) = place else { break };
            place.copy_from_slice(&bytes[..length]);
            (pixels, used, last) = (pixels + 1, used + length, depth);
        }
        if pixels == 0 {
            return None;
        }
        let chunk = DepthChunk {
            frame: self.frame,
            slot: self.slot,
            width: self.width,
            height: self.height,
            first: u32::try_from(self.next).ok()?,
            count: u32::try_from(pixels).ok()?,
            code: Bytes::new(scratch.get(..used)?).ok()?,
        };
        self.next += pixels;
        Some(chunk)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;

    #[test]
    fn every_difference_comes_back_and_small_ones_are_small() {
        for difference in 0..=u16::MAX {
            let number = zigzag(difference);
            assert_eq!(unzigzag(number), difference);
            let magnitude = (difference as i16).unsigned_abs();
            assert_eq!(number < 128, magnitude < 64 || difference as i16 == -64);
        }
        let first: Vec<u16> = [0, u16::MAX, 1, u16::MAX - 1, 2].map(zigzag).to_vec();
        assert_eq!(first, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn meters_become_millimeters() {
        for (meters, expected) in [
            (0.0, 0),
            (1.2344, 1234),
            (1.2346, 1235),
            (65.535, 65535),
            (80.0, 65535),
            (-3.0, 0),
            (f32::NAN, 0),
            (f32::INFINITY, 65535),
        ] {
            assert_eq!(millimeters(meters), expected, "{meters}");
        }
    }

    fn chunk<'a>(code: &'a [u8], first: u32, count: u32) -> DepthChunk<'a> {
        DepthChunk {
            frame: 0,
            slot: 0,
            width: 3,
            height: 2,
            first,
            count,
            code: Bytes::new(code).unwrap(),
        }
    }

    #[test]
    fn malformed_chunks_are_rejected_completely() {
        let depths = |chunk: &DepthChunk<'_>| chunk.depths().map(|d| d.collect::<Vec<_>>());
        assert_eq!(depths(&chunk(&[2, 1, 0], 3, 3)), Ok(std::vec![1, 0, 0]));
        let range = ContentError::Range {
            first: 4,
            count: 3,
            total: 6,
        };
        let count = |coded, stated| ContentError::PixelCount { coded, stated };
        for (code, first, stated, expected) in [
            (&[2, 1, 0][..], 4, 3, range),
            (&[2, 1, 0], 3, 2, count(3, 2)),
            (&[], 0, 1, count(0, 1)),
            // Ends inside a pixel.
            (&[2, 0x80], 0, 2, ContentError::Code { at: 2 }),
            // 65536.
            (&[2, 0x80, 0x80, 0x04], 0, 2, ContentError::Code { at: 1 }),
            (&[0x80; 6], 0, 1, ContentError::Code { at: 0 }),
        ] {
            assert_eq!(
                depths(&chunk(code, first, stated)),
                Err(expected),
                "{code:?}"
            );
        }
        // An overlong varint of the same value is accepted.
        assert_eq!(depths(&chunk(&[0x82, 0x00], 0, 1)), Ok(std::vec![1]));
    }

    #[test]
    fn a_map_comes_back_from_chunks_of_any_size() {
        let mut random = crate::faults::Random::new(7);
        let noise: Vec<u16> = (0..37 * 23).map(|_| random.next() as u16).collect();
        let smooth: Vec<u16> = (0..37 * 23).map(|i| 800 + i % 37 * 3 + i / 37).collect();
        for map in [&noise, &smooth] {
            for body in [0, 128, 200, 512] {
                let writer = DepthWriter::new(9, 2, 37, 23, map).unwrap();
                let mut writer = writer.with_max_body(body);
                let (mut scratch, mut back) = ([0; MAX_DATA], Vec::new());
                while let Some(chunk) = writer.next_chunk(&mut scratch) {
                    assert_eq!(chunk.first as usize, back.len());
                    let mut out = [0; crate::MAX_BODY];
                    let message = crate::Message::from(chunk);
                    assert!(message.encode_body(&mut out).unwrap() <= body.max(128));
                    back.extend(chunk.depths().unwrap());
                }
                assert_eq!(&back, map, "{body}");
            }
        }
        assert!(DepthWriter::new(9, 2, 37, 22, &noise).is_err());
        let mut empty = DepthWriter::new(0, 0, 0, 5, &[]).unwrap();
        assert_eq!(empty.next_chunk(&mut [0; MAX_DATA]), None);
    }
}
