//! Depth in meters from a depth head, surface normals, and their files.

mod normals;
mod pinhole;

use std::{
    io::{self, BufWriter, Write},
    path::Path,
};

use loftup_bundle::HeadKind;

use crate::{
    Rect, SinkError, TileFeatures,
    heads::Head,
    image::{self, ImageError, atomic::AtomicFile},
    npy,
};

pub use normals::{NormalOptions, NormalsError, normals, save_normals};
pub use pinhole::{Camera, Pinhole};

/// Added to the positive part of each bin's score before normalization, as in AdaBins and DINOv2.
pub const BIN_FLOOR: f32 = 0.1;

/// Converts the outputs of a depth head to meters.
///
/// ```no_run
/// # use std::path::Path;
/// use loftup_bundle::Size;
/// use loftup_runtime::{ExecutionOptions, Frame, Perceptor, Query, depth::Depth};
///
/// let perceptor = Perceptor::open(Path::new("robot.loftup"), ExecutionOptions::default())?;
/// let head = perceptor.head("depth")?;
/// let depth = Depth::of(&head).ok_or("not a depth head")?;
/// # let image = vec![0; 640 * 480 * 3];
/// let frame = Frame::packed(&image, 640, 480);
/// let size = Size { width: 224, height: 224 };
/// let output = perceptor.perceive(&frame, &Query::frame(size).with_head(&head))?;
/// let meters: Vec<f32> = depth.map(&output.values);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Depth {
    min: f32,
    max: f32,
    /// Depth of each bin in meters; empty for a head whose output is the logarithm of the depth.
    bins: Vec<f32>,
}

impl Depth {
    /// Returns the conversion for `head`; `None` if its outputs are not depth.
    pub fn of(head: &Head) -> Option<Self> {
        match *head.kind() {
            HeadKind::Depth {
                min_meters: min,
                max_meters: max,
                bins,
            } => Some(Self {
                min,
                max,
                bins: loftup_spec::linspace(min, max, bins.unwrap_or(0)),
            }),
            _ => None,
        }
    }

    /// The smallest and the greatest depth that the head can output, in meters.
    pub fn range(&self) -> (f32, f32) {
        (self.min, self.max)
    }

    /// Number of outputs of the head per pixel.
    fn outputs(&self) -> usize {
        self.bins.len().max(1)
    }

    /// Depth of one pixel in meters, within the head's range; NaN if an output is NaN.
    pub fn meters(&self, outputs: &[f32]) -> f32 {
        let meters = match (&self.bins[..], outputs) {
            ([], &[log]) => log.exp(),
            (bins, scores) => {
                let (mut sum, mut total) = (0f32, 0f32);
                for (score, bin) in scores.iter().zip(bins) {
                    // `max` would drop NaN.
                    let positive = if *score < 0.0 { 0.0 } else { *score };
                    sum += (positive + BIN_FLOOR) * bin;
                    total += positive + BIN_FLOOR;
                }
                sum / total
            }
        };
        meters.clamp(self.min, self.max)
    }

    /// Writes [`Depth::meters`] of each pixel of `outputs` `[n, k]` to `meters`.
    pub fn pixels(&self, outputs: &[f32], meters: &mut [f32]) {
        let pixels = outputs.chunks_exact(self.outputs());
        for (meters, outputs) in meters.iter_mut().zip(pixels) {
            *meters = self.meters(outputs);
        }
    }

    /// [`Depth::meters`] of each pixel of `outputs` `[n, k]`.
    pub fn map(&self, outputs: &[f32]) -> Vec<f32> {
        let pixels = outputs.chunks_exact(self.outputs());
        pixels.map(|outputs| self.meters(outputs)).collect()
    }
}

/// Collects the depth of each pixel from a depth head's outputs.
#[derive(Debug)]
pub struct DepthMap {
    rect: Rect,
    depth: Depth,
    meters: Vec<f32>,
}

impl DepthMap {
    /// Creates an empty map for the pixels of `rect`.
    pub fn new(rect: Rect, depth: Depth) -> Self {
        Self {
            rect,
            depth,
            meters: vec![f32::NAN; rect.area()],
        }
    }

    /// Adds a tile of outputs.
    pub fn push(&mut self, tile: &TileFeatures<'_>) -> Result<(), SinkError> {
        let x = tile.rect.x - self.rect.x;
        for row in 0..tile.rect.height {
            let y = tile.rect.y - self.rect.y + row;
            let line = &mut self.meters[y * self.rect.width + x..][..tile.rect.width];
            self.depth.pixels(tile.row(row), line);
        }
        Ok(())
    }

    /// The depth in meters, `[H, W]`.
    pub fn into_meters(self) -> Vec<f32> {
        self.meters
    }
}

/// Writes a depth map: as float32 `[height, width]` in meters if `path` ends in `.npy`, otherwise as
/// a 16-bit grayscale PNG in millimeters, where 0 is no depth (NaN) and depths from 65.535 m on are
/// 65535. The write is atomic.
///
/// # Errors
/// `meters` has the wrong number of pixels, or the file cannot be written.
pub fn save_depth(
    path: &Path,
    width: usize,
    height: usize,
    meters: &[f32],
) -> Result<(), ImageError> {
    let io = |source| ImageError::Io {
        path: path.to_owned(),
        source,
    };
    if width.checked_mul(height) != Some(meters.len()) || meters.is_empty() {
        let what = format!("{} depths for {width} x {height} pixels", meters.len());
        return Err(io(io::Error::new(io::ErrorKind::InvalidInput, what)));
    }
    if path
        .extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("npy"))
    {
        return npy::write(path, &[height, width], meters)
            .map_err(|e| io(io::Error::other(e.to_string())));
    }
    // The cast saturates, and NaN becomes 0.
    let level = |m: &f32| (m * 1000.0).round() as u16;
    let levels: Vec<u16> = meters.iter().map(level).collect();
    let file = AtomicFile::create(path).map_err(io)?;
    let mut out = BufWriter::with_capacity(1 << 16, file.file());
    image::encode_gray16_png(&mut out, width, height, &levels)
        .and_then(|()| out.flush())
        .map_err(io)?;
    drop(out);
    file.commit().map_err(io)
}

#[cfg(test)]
mod tests {
    use ::image::{ColorType, open};
    use loftup_bundle::Linear;

    use super::*;

    fn head(kind: HeadKind) -> Head {
        let outputs = kind.outputs();
        let manifest = loftup_bundle::Head {
            kind,
            dim: 1,
            file: String::new(),
        };
        let linear = Linear {
            inputs: 1,
            weight: vec![1.0; outputs],
            bias: vec![0.0; outputs],
        };
        Head::new(manifest, linear).unwrap()
    }

    fn depth(bins: Option<usize>) -> Depth {
        let kind = HeadKind::Depth {
            min_meters: 1.0,
            max_meters: 5.0,
            bins,
        };
        Depth::of(&head(kind)).unwrap()
    }

    #[test]
    fn a_logarithm_becomes_meters_within_the_range() {
        let depth = depth(None);
        assert_eq!(depth.range(), (1.0, 5.0));
        let found = depth.map(&[2f32.ln(), -7.0, 200.0, f32::NAN]);
        assert!((found[0] - 2.0).abs() < 1e-6);
        assert_eq!(found[1..3], [1.0, 5.0]);
        assert!(found[3].is_nan());
        let descriptors = head(HeadKind::Descriptors { channels: 1 });
        assert_eq!(Depth::of(&descriptors), None);
    }

    #[test]
    fn bins_are_weighted_by_their_positive_scores() {
        // Bins at 1, 2, 3, 4 and 5 m. Weights 0.1, 0.1, 0.1, 3.1, 1.6:
        // (0.1 * 1 + 0.1 * 2 + 0.1 * 3 + 3.1 * 4 + 1.6 * 5) / 5 = 21 / 5.
        let depth = depth(Some(5));
        let found = depth.map(&[-9.0, -0.5, 0.0, 3.0, 1.5, -1.0, -1.0, -1.0, -1.0, -1.0]);
        assert!((found[0] - 4.2).abs() < 1e-6, "{found:?}");
        assert!((found[1] - 3.0).abs() < 1e-6, "{found:?}");
        assert!(depth.meters(&[0.0, 0.0, f32::NAN, 0.0, 0.0]).is_nan());
    }

    #[test]
    fn depth_is_written_in_millimeters_or_meters() {
        let dir = tempfile::tempdir().unwrap();
        let meters = [0.001, 1.2344, 1.2346, 65.535, 80.0, f32::NAN];
        let png = dir.path().join("depth.png");
        save_depth(&png, 3, 2, &meters).unwrap();
        let read = open(&png).unwrap();
        assert_eq!((read.color(), read.width()), (ColorType::L16, 3));
        let levels = read.into_luma16().into_raw();
        assert_eq!(levels, [1, 1234, 1235, 65535, 65535, 0]);
        let file = dir.path().join("depth.npy");
        save_depth(&file, 2, 3, &meters[..]).unwrap();
        let bytes = std::fs::read(&file).unwrap();
        let values: Vec<f32> = bytes[bytes.len() - 24..]
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| f32::from_le_bytes(*b))
            .collect();
        assert_eq!(values[..5], meters[..5]);
        assert!(values[5].is_nan());
        assert!(save_depth(&png, 2, 2, &meters).is_err());
    }
}
