//! Settings of the tracker.

use super::TrackError;

/// How labels are propagated. The defaults are those of DINO's protocol for DAVIS, which LoftUp also
/// uses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrackOptions {
    /// Number of previous frames to propagate labels from, in addition to the frame in which objects were started.
    pub last_frames: usize,
    /// Maximum motion between frames in cells of the grid: cells whose row and column differ by at most
    /// this are compared.
    pub radius: usize,
    /// Number of most similar cells, over all frames together, whose labels are averaged. Ties with the
    /// last of them count, too.
    pub top_k: usize,
    /// The weight of a cell is exp(cosine similarity / `temperature`).
    pub temperature: f32,
    /// Multiple of the grid to which labels are interpolated before the largest is taken. The result is
    /// resized to the image by nearest neighbor.
    pub output_scale: usize,
    /// An object whose soft label is nowhere above this is not visible. With 0, as in the protocol, every
    /// object with a nonzero label gets pixels, because labels are scaled by their maximum.
    pub min_label: f32,
    /// The largest label, and thus the maximum number of objects at a time; at most 254.
    pub max_objects: usize,
    /// Threads.
    pub threads: usize,
}

impl Default for TrackOptions {
    fn default() -> Self {
        Self {
            last_frames: 7,
            radius: 12,
            top_k: 5,
            temperature: 0.1,
            output_scale: 2,
            min_label: 0.0,
            max_objects: 10,
            threads: crate::ExecutionOptions::default().threads,
        }
    }
}

/// Upper limit of options that count context frames, cells or objects.
const MOST: usize = 254;

impl TrackOptions {
    pub(super) fn check(&self) -> Result<(), TrackError> {
        let counts = [
            ("last_frames", self.last_frames, 0..=MOST, "0 to 254"),
            ("radius", self.radius, 0..=1024, "0 to 1024 cells"),
            ("top_k", self.top_k, 1..=MOST, "1 to 254"),
            ("output_scale", self.output_scale, 1..=64, "1 to 64"),
            ("max_objects", self.max_objects, 1..=MOST, "1 to 254"),
        ];
        for (name, value, range, expected) in counts {
            if !range.contains(&value) {
                return Err(TrackError::Option {
                    name,
                    value: value.to_string(),
                    expected,
                });
            }
        }
        // Below 0.01, exp(-2 / temperature) underflows in 32 bits.
        let floats = [
            ("temperature", self.temperature, 0.01..=100.0, "0.01 to 100"),
            ("min_label", self.min_label, 0.0..=1.0, "0 to 1"),
        ];
        for (name, value, range, expected) in floats {
            if !range.contains(&value) {
                return Err(TrackError::Option {
                    name,
                    value: value.to_string(),
                    expected,
                });
            }
        }
        Ok(())
    }
}
