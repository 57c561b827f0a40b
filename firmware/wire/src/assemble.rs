//! Reassembles chunks, for receivers that can hold a complete result.
//!
//! Memory is bounded by the const generics; nothing is allocated. Chunks may
//! arrive in any order, repeatedly, or not at all. A chunk of a newer frame
//! replaces what has been received; a chunk of an older frame is rejected.

use crate::depth::{DepthChunk, NO_DEPTH};
use crate::error::ContentError;
use crate::features::Features;
use crate::message::MapChunk;

/// Gaps that an assembler can track. Chunks normally arrive in order, which makes
/// at most one gap per lost frame.
pub const MAX_GAPS: usize = 32;

/// The received part of `0..total`, as sorted ranges that do not touch.
#[derive(Debug, Clone, Default)]
pub struct Coverage {
    ranges: heapless::Vec<(u32, u32), MAX_GAPS>,
    covered: u32,
}

impl Coverage {
    /// An empty coverage.
    #[must_use]
    pub const fn new() -> Self {
        Coverage {
            ranges: heapless::Vec::new(),
            covered: 0,
        }
    }

    /// Number of elements covered.
    #[must_use]
    pub const fn covered(&self) -> u32 {
        self.covered
    }

    /// The ranges covered, in ascending order.
    pub fn ranges(&self) -> impl Iterator<Item = core::ops::Range<u32>> + '_ {
        self.ranges.iter().map(|&(first, end)| first..end)
    }

    /// Adds `first..end`.
    ///
    /// # Errors
    /// [`ContentError::TooManyGaps`], without any change.
    pub fn add(&mut self, mut first: u32, mut end: u32) -> Result<(), ContentError> {
        if first >= end {
            return Ok(());
        }
        // Ranges `from..to` touch the new range and are merged into it.
        let from = self.ranges.partition_point(|range| range.1 < first);
        let to = self.ranges.partition_point(|range| range.0 <= end);
        for &(a, b) in self.ranges.get(from..to).unwrap_or_default() {
            first = first.min(a);
            end = end.max(b);
        }
        match self.ranges.get_mut(from..to) {
            Some([one, ..]) => {
                *one = (first, end);
                for _ in from + 1..to {
                    self.ranges.remove(from + 1);
                }
            }
            _ => self
                .ranges
                .insert(from, (first, end))
                .map_err(|_| ContentError::TooManyGaps(MAX_GAPS))?,
        }
        self.covered = self.ranges.iter().map(|&(a, b)| b - a).sum();
        Ok(())
    }
}

/// The result of adding a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Added; some chunks are still missing.
    Partial,
    /// Added, and the result is now complete. Returned once per result.
    Complete,
}

/// Identifies the result that a chunk belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    frame: u32,
    /// Width and height, or vectors and channels.
    shape: (u32, u16),
}

/// A buffer for one result of at most `N` items, and the part received.
#[derive(Debug, Clone)]
struct Buffer<T, const N: usize> {
    items: [T; N],
    identity: Option<Identity>,
    coverage: Coverage,
    /// Incomplete results that were replaced by a newer frame.
    abandoned: u32,
}

impl<T: Copy, const N: usize> Buffer<T, N> {
    const fn new(empty: T) -> Self {
        Buffer {
            items: [empty; N],
            identity: None,
            coverage: Coverage::new(),
            abandoned: 0,
        }
    }

    fn total(&self) -> usize {
        self.identity
            .map_or(0, |id| id.shape.0 as usize * usize::from(id.shape.1))
    }

    /// Records a chunk `first..first + count` of the result `identity` and returns
    /// the slice that the caller must fill. A new result is initialized with
    /// `empty`. Nothing changes if the chunk is rejected.
    fn open(
        &mut self,
        identity: Identity,
        first: u32,
        count: u32,
        empty: T,
    ) -> Result<(&mut [T], Progress), ContentError> {
        let total = u64::from(identity.shape.0) * u64::from(identity.shape.1);
        let range = ContentError::Range {
            first,
            count,
            total,
        };
        let end = first.checked_add(count).ok_or(range)?;
        if u64::from(end) > total {
            return Err(range);
        }
        let too_large = ContentError::TooLarge {
            needed: total,
            capacity: N,
        };
        let total = usize::try_from(total).map_err(|_| too_large)?;
        if total > N {
            return Err(too_large);
        }
        if let Some(current) = self.identity {
            // Frame numbers wrap around.
            let age = current.frame.wrapping_sub(identity.frame);
            if age == 0 && current != identity {
                return Err(ContentError::ShapeChanged);
            }
            if age != 0 && age < 1 << 31 {
                return Err(ContentError::Stale {
                    frame: identity.frame,
                    current: current.frame,
                });
            }
        }
        if self.identity != Some(identity) {
            if (self.coverage.covered() as usize) < self.total() {
                self.abandoned = self.abandoned.saturating_add(1);
            }
            self.identity = Some(identity);
            self.coverage = Coverage::new();
            self.items.get_mut(..total).ok_or(range)?.fill(empty);
        }
        let before = self.coverage.covered() as usize;
        self.coverage.add(first, end)?;
        let complete = before < total && self.coverage.covered() as usize == total;
        let place = self.items.get_mut(first as usize..end as usize);
        let progress = if complete {
            Progress::Complete
        } else {
            Progress::Partial
        };
        Ok((place.ok_or(range)?, progress))
    }
}

/// Reassembles a class map of at most `N` pixels. Use one per slot. Its size is
/// about `N` bytes: on a microcontroller, make it a `static`.
#[derive(Debug, Clone)]
pub struct MapAssembler<const N: usize> {
    buffer: Buffer<u8, N>,
}

/// A class map, complete or not.
#[derive(Debug, Clone, Copy)]
pub struct ClassMap<'a> {
    /// Number of the camera frame.
    pub frame: u32,
    /// Width.
    pub width: u16,
    /// Height.
    pub height: u16,
    /// Class of each pixel, `[height][width]`; [`MISSING`] for pixels not received.
    pub classes: &'a [u8],
    /// The pixels received.
    pub coverage: &'a Coverage,
}

/// The class of a pixel that has not been received. A head may also use this
/// class number; then only the coverage distinguishes them.
pub const MISSING: u8 = u8::MAX;

impl<const N: usize> Default for MapAssembler<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> MapAssembler<N> {
    /// An empty assembler.
    #[must_use]
    pub const fn new() -> Self {
        MapAssembler {
            buffer: Buffer::new(MISSING),
        }
    }

    /// Adds a chunk.
    ///
    /// # Errors
    /// [`ContentError`] if the chunk is invalid, inconsistent with earlier chunks,
    /// or too old, or its map is too large. What was received is kept.
    pub fn push(&mut self, chunk: &MapChunk<'_>) -> Result<Progress, ContentError> {
        chunk.check()?;
        let identity = Identity {
            frame: chunk.frame,
            shape: (u32::from(chunk.width), chunk.height),
        };
        let (place, progress) = self
            .buffer
            .open(identity, chunk.first, chunk.count, MISSING)?;
        for run in chunk.runs()? {
            let from = (run.first - chunk.first) as usize;
            if let Some(pixels) = place.get_mut(from..from + run.length as usize) {
                pixels.fill(run.class);
            }
        }
        Ok(progress)
    }

    /// The part received of the newest frame.
    #[must_use]
    pub fn map(&self) -> Option<ClassMap<'_>> {
        let identity = self.buffer.identity?;
        Some(ClassMap {
            frame: identity.frame,
            width: u16::try_from(identity.shape.0).ok()?,
            height: identity.shape.1,
            classes: self.buffer.items.get(..self.buffer.total())?,
            coverage: &self.buffer.coverage,
        })
    }

    /// Number of incomplete maps that were replaced by a newer one.
    #[must_use]
    pub const fn abandoned(&self) -> u32 {
        self.buffer.abandoned
    }
}

/// Reassembles a depth map of at most `N` pixels. Use one per slot. Its size is about
/// `2 * N` bytes.
#[derive(Debug, Clone)]
pub struct DepthAssembler<const N: usize> {
    buffer: Buffer<u16, N>,
}

/// A depth map, complete or not.
#[derive(Debug, Clone, Copy)]
pub struct DepthMap<'a> {
    /// Number of the camera frame.
    pub frame: u32,
    /// Width, or the number of points.
    pub width: u16,
    /// Height; 1 for points.
    pub height: u16,
    /// Depth of each pixel in millimeters, `[height][width]`; [`NO_DEPTH`] for pixels
    /// without depth or not received.
    pub millimeters: &'a [u16],
    /// The pixels received.
    pub coverage: &'a Coverage,
}

impl<const N: usize> Default for DepthAssembler<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> DepthAssembler<N> {
    /// An empty assembler.
    #[must_use]
    pub const fn new() -> Self {
        DepthAssembler {
            buffer: Buffer::new(NO_DEPTH),
        }
    }

    /// Adds a chunk.
    ///
    /// # Errors
    /// Same as for [`MapAssembler::push`].
    pub fn push(&mut self, chunk: &DepthChunk<'_>) -> Result<Progress, ContentError> {
        let depths = chunk.depths()?;
        let identity = Identity {
            frame: chunk.frame,
            shape: (u32::from(chunk.width), chunk.height),
        };
        let (place, progress) = self
            .buffer
            .open(identity, chunk.first, chunk.count, NO_DEPTH)?;
        for (place, depth) in place.iter_mut().zip(depths) {
            *place = depth;
        }
        Ok(progress)
    }

    /// The part received of the newest frame.
    #[must_use]
    pub fn map(&self) -> Option<DepthMap<'_>> {
        let identity = self.buffer.identity?;
        Some(DepthMap {
            frame: identity.frame,
            width: u16::try_from(identity.shape.0).ok()?,
            height: identity.shape.1,
            millimeters: self.buffer.items.get(..self.buffer.total())?,
            coverage: &self.buffer.coverage,
        })
    }

    /// Number of incomplete maps that were replaced by a newer one.
    #[must_use]
    pub const fn abandoned(&self) -> u32 {
        self.buffer.abandoned
    }
}

/// Reassembles a feature result of at most `N` values.
#[derive(Debug, Clone)]
pub struct FeatureAssembler<const N: usize> {
    buffer: Buffer<f32, N>,
}

/// A feature result, complete or not.
#[derive(Debug, Clone, Copy)]
pub struct FeatureVectors<'a> {
    /// Number of the camera frame.
    pub frame: u32,
    /// Number of vectors.
    pub vectors: u32,
    /// Values per vector.
    pub channels: u16,
    /// The values, `[vectors][channels]`; NaN for values not received.
    pub values: &'a [f32],
    /// The values received.
    pub coverage: &'a Coverage,
}

impl<const N: usize> Default for FeatureAssembler<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> FeatureAssembler<N> {
    /// An empty assembler.
    #[must_use]
    pub const fn new() -> Self {
        FeatureAssembler {
            buffer: Buffer::new(f32::NAN),
        }
    }

    /// Adds a chunk.
    ///
    /// # Errors
    /// Same as for [`MapAssembler::push`].
    pub fn push(&mut self, chunk: &Features<'_>) -> Result<Progress, ContentError> {
        let count = chunk.check()?;
        let identity = Identity {
            frame: chunk.frame,
            shape: (chunk.vectors, chunk.channels),
        };
        let (place, progress) = self.buffer.open(identity, chunk.first, count, f32::NAN)?;
        for (value, found) in place.iter_mut().zip(chunk.values.iter()) {
            *value = found;
        }
        Ok(progress)
    }

    /// The part received of the newest frame.
    #[must_use]
    pub fn features(&self) -> Option<FeatureVectors<'_>> {
        let identity = self.buffer.identity?;
        Some(FeatureVectors {
            frame: identity.frame,
            vectors: identity.shape.0,
            channels: identity.shape.1,
            values: self.buffer.items.get(..self.buffer.total())?,
            coverage: &self.buffer.coverage,
        })
    }

    /// Number of incomplete results that were replaced by a newer one.
    #[must_use]
    pub const fn abandoned(&self) -> u32 {
        self.buffer.abandoned
    }
}

#[cfg(test)]
mod tests;
