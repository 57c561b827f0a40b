//! Pieces back into a whole, for receivers that have room for one.
//!
//! Memory is bounded by the const generics; nothing is allocated. Pieces may
//! come in any order, twice, or not at all. A piece of a newer frame takes the
//! place of what has been gathered; a piece of an older one is refused.

use crate::error::ContentError;
use crate::features::Features;
use crate::message::Band;

/// Gaps that an assembler can note. Pieces come in order, so that there is one
/// gap at most for each frame lost.
pub const MAX_GAPS: usize = 32;

/// Which of `0..total` have come: ranges in rising order that do not touch.
#[derive(Debug, Clone, Default)]
pub struct Coverage {
    ranges: heapless::Vec<(u32, u32), MAX_GAPS>,
    covered: u32,
}

impl Coverage {
    /// Nothing covered.
    #[must_use]
    pub const fn new() -> Self {
        Coverage {
            ranges: heapless::Vec::new(),
            covered: 0,
        }
    }

    /// How many are covered.
    #[must_use]
    pub const fn covered(&self) -> u32 {
        self.covered
    }

    /// The ranges covered, each with its first and the one after its last.
    pub fn ranges(&self) -> impl Iterator<Item = core::ops::Range<u32>> + '_ {
        self.ranges.iter().map(|&(first, end)| first..end)
    }

    /// Adds `first..end`.
    ///
    /// # Errors
    /// [`ContentError::TooManyGaps`]; nothing is added then.
    pub fn add(&mut self, mut first: u32, mut end: u32) -> Result<(), ContentError> {
        if first >= end {
            return Ok(());
        }
        // Ranges `from..to` touch the new one and are swallowed by it.
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

/// What became of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Taken; more is missing.
    Partial,
    /// Taken, and now the whole is there. Said once for each whole.
    Complete,
}

/// What makes pieces belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    frame: u32,
    /// Width and height, or vectors and channels.
    shape: (u32, u16),
}

/// Room for one whole of `N` items, and what has come of it.
#[derive(Debug, Clone)]
struct Room<T, const N: usize> {
    items: [T; N],
    identity: Option<Identity>,
    coverage: Coverage,
    /// Wholes given up because a newer frame came.
    abandoned: u32,
}

impl<T: Copy, const N: usize> Room<T, N> {
    const fn new(empty: T) -> Self {
        Room {
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

    /// Notes a piece `first + count` of the whole `identity`, and gives the
    /// place for it, which the caller fills. `empty` fills a new whole. Nothing
    /// changes where the piece is refused.
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

/// Gathers the bands of one class map of at most `N` pixels. Keep one for each
/// slot. It is as large as its map: on a small machine, a `static`.
#[derive(Debug, Clone)]
pub struct MapAssembler<const N: usize> {
    room: Room<u8, N>,
}

/// A class map, whole or not.
#[derive(Debug, Clone, Copy)]
pub struct ClassMap<'a> {
    /// Number of the camera frame.
    pub frame: u32,
    /// Width.
    pub width: u16,
    /// Height.
    pub height: u16,
    /// Class of each pixel, row after row; [`MISSING`] where none has come.
    pub classes: &'a [u8],
    /// Which pixels have come.
    pub coverage: &'a Coverage,
}

/// Stands for a pixel that has not come. A head may use this class number too:
/// then only the coverage tells them apart.
pub const MISSING: u8 = u8::MAX;

impl<const N: usize> Default for MapAssembler<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> MapAssembler<N> {
    /// An empty one.
    #[must_use]
    pub const fn new() -> Self {
        MapAssembler {
            room: Room::new(MISSING),
        }
    }

    /// Takes a band.
    ///
    /// # Errors
    /// [`ContentError`]: the band contradicts itself, or what came before, or
    /// is too old, or its map is too large. What was gathered stays.
    pub fn push(&mut self, band: &Band<'_>) -> Result<Progress, ContentError> {
        band.check()?;
        let identity = Identity {
            frame: band.frame,
            shape: (u32::from(band.width), band.height),
        };
        let (place, progress) = self.room.open(identity, band.first, band.count, MISSING)?;
        for run in band.runs()? {
            let from = (run.first - band.first) as usize;
            if let Some(pixels) = place.get_mut(from..from + run.length as usize) {
                pixels.fill(run.class);
            }
        }
        Ok(progress)
    }

    /// What has been gathered of the newest frame.
    #[must_use]
    pub fn map(&self) -> Option<ClassMap<'_>> {
        let identity = self.room.identity?;
        Some(ClassMap {
            frame: identity.frame,
            width: u16::try_from(identity.shape.0).ok()?,
            height: identity.shape.1,
            classes: self.room.items.get(..self.room.total())?,
            coverage: &self.room.coverage,
        })
    }

    /// Maps of which something was still missing when a newer one came.
    #[must_use]
    pub const fn abandoned(&self) -> u32 {
        self.room.abandoned
    }
}

/// Gathers the blocks of one feature answer of at most `N` values.
#[derive(Debug, Clone)]
pub struct FeatureAssembler<const N: usize> {
    room: Room<f32, N>,
}

/// A feature answer, whole or not.
#[derive(Debug, Clone, Copy)]
pub struct FeatureVectors<'a> {
    /// Number of the camera frame.
    pub frame: u32,
    /// Number of vectors.
    pub vectors: u32,
    /// Values per vector.
    pub channels: u16,
    /// The values, vector after vector; NaN where none has come.
    pub values: &'a [f32],
    /// Which values have come.
    pub coverage: &'a Coverage,
}

impl<const N: usize> Default for FeatureAssembler<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> FeatureAssembler<N> {
    /// An empty one.
    #[must_use]
    pub const fn new() -> Self {
        FeatureAssembler {
            room: Room::new(f32::NAN),
        }
    }

    /// Takes a block.
    ///
    /// # Errors
    /// As [`MapAssembler::push`].
    pub fn push(&mut self, block: &Features<'_>) -> Result<Progress, ContentError> {
        let count = block.check()?;
        let identity = Identity {
            frame: block.frame,
            shape: (block.vectors, block.channels),
        };
        let (place, progress) = self.room.open(identity, block.first, count, f32::NAN)?;
        for (value, found) in place.iter_mut().zip(block.values.iter()) {
            *value = found;
        }
        Ok(progress)
    }

    /// What has been gathered of the newest frame.
    #[must_use]
    pub fn features(&self) -> Option<FeatureVectors<'_>> {
        let identity = self.room.identity?;
        Some(FeatureVectors {
            frame: identity.frame,
            vectors: identity.shape.0,
            channels: identity.shape.1,
            values: self.room.items.get(..self.room.total())?,
            coverage: &self.room.coverage,
        })
    }

    /// Answers of which something was still missing when a newer one came.
    #[must_use]
    pub const fn abandoned(&self) -> u32 {
        self.room.abandoned
    }
}

#[cfg(test)]
mod tests;
