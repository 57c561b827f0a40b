//! Detects whether an output is a spatial feature map in an assumed layout.
//!
//! Two images are mixed patch by patch according to a mask. At patches from the second image, features
//! must be closer to the second image's features than at other patches.
//! [`Probe::follows`] measures how well the features follow the mask, as a correlation: 1 if every
//! position has the features of its own patch, about 0 if rows and columns are swapped, tokens are
//! shifted, or every position depends on the whole image.

use loftup_bundle::Size;
use loftup_runtime::backend::{BackendError, Plan};

use super::layout::{Reading, Strides};

/// Value range of the images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Units {
    /// Mean 0 and about unit variance.
    Normalized,
    /// 0 to 255.
    Bytes,
}

/// Required correlation with single patches. Random transformers reach 0.99, wrong layouts stay below
/// 0.3 (`docs/onnx.md`).
pub(crate) const FINE: f32 = 0.45;
/// Required correlation with halves of the image, for features with a large receptive field.
pub(crate) const COARSE: f32 = 0.45;

/// A model, two images, and its outputs for them.
pub(crate) struct Probe<'a> {
    plan: &'a dyn Plan,
    size: Size,
    patch: usize,
    images: [Vec<f32>; 2],
    outputs: [Vec<f32>; 2],
}

/// Outputs for a mix of both images and for the complementary mix.
pub(crate) struct Mixed {
    mask: Vec<bool>,
    outputs: [Vec<f32>; 2],
}

impl<'a> Probe<'a> {
    /// Runs the model on the two images.
    pub fn new(
        plan: &'a dyn Plan,
        size: Size,
        patch: usize,
        units: Units,
    ) -> Result<Self, BackendError> {
        let images = [0, 1].map(|seed| image(size, patch, units, seed));
        let outputs = [run(plan, &images[0])?, run(plan, &images[1])?];
        Ok(Self {
            plan,
            size,
            patch,
            images,
            outputs,
        })
    }

    /// Whether both outputs are finite.
    pub fn is_finite(&self) -> bool {
        self.outputs.iter().flatten().all(|x| x.is_finite())
    }

    /// Whether the output is the same for both images.
    pub fn ignores_image(&self) -> bool {
        self.outputs[0] == self.outputs[1]
    }

    /// Mixes half of the patches, chosen at random.
    pub fn scattered(&self) -> Result<Mixed, BackendError> {
        let (rows, columns) = self.grid();
        let mut order: Vec<usize> = (0..rows * columns).collect();
        order.sort_by_key(|i| hash(*i as u32 ^ 0x5bd1));
        let mut mask = vec![false; order.len()];
        order
            .iter()
            .take(order.len() / 2)
            .for_each(|i| mask[*i] = true);
        self.mix(mask)
    }

    /// Mixes the left half, and the upper half, unless the grid has a single column or row.
    pub fn halves(&self) -> Result<Vec<Mixed>, BackendError> {
        let (rows, columns) = self.grid();
        let cells = || (0..rows * columns).map(|i| (i / columns, i % columns));
        let left = cells().map(|(_, x)| x < columns / 2).collect();
        let upper = cells().map(|(y, _)| y < rows / 2).collect();
        [(left, columns), (upper, rows)]
            .into_iter()
            .filter(|(_, length)| *length > 1)
            .map(|(mask, _)| self.mix(mask))
            .collect()
    }

    /// How well the features in this layout follow the mask; see the module.
    pub fn follows(&self, mixed: &Mixed, reading: &Reading, strides: Strides) -> f32 {
        let cells = (0..reading.rows).flat_map(|y| (0..reading.columns).map(move |x| (y, x)));
        let affinity = |output: &[f32], (y, x): (usize, usize)| {
            let at = strides.first + y * strides.row + x * strides.column;
            let mut distances = [0f64; 2];
            for channel in 0..reading.dim {
                let i = at + channel * strides.channel;
                for (distance, pure) in distances.iter_mut().zip(&self.outputs) {
                    *distance += f64::from(output[i] - pure[i]).powi(2);
                }
            }
            let [first, second] = distances.map(f64::sqrt);
            // No change: equally close to both.
            if first + second > 0.0 {
                first / (first + second)
            } else {
                0.5
            }
        };
        // Cancels the bias of each position, which is the same in both mixes.
        let moved =
            cells.map(|cell| affinity(&mixed.outputs[0], cell) - affinity(&mixed.outputs[1], cell));
        let wanted = mixed.mask.iter().map(|m| if *m { 1.0 } else { -1.0 });
        correlation(&moved.zip(wanted).collect::<Vec<_>>())
    }

    fn grid(&self) -> (usize, usize) {
        (self.size.height / self.patch, self.size.width / self.patch)
    }

    fn mix(&self, mask: Vec<bool>) -> Result<Mixed, BackendError> {
        let [a, b] = &self.images;
        let outputs = [
            run(self.plan, &self.mixed(&mask, a, b))?,
            run(self.plan, &self.mixed(&mask, b, a))?,
        ];
        Ok(Mixed { mask, outputs })
    }

    /// `below` with the masked patches of `above`.
    fn mixed(&self, mask: &[bool], below: &[f32], above: &[f32]) -> Vec<f32> {
        let Size { width, height } = self.size;
        let columns = width / self.patch;
        (0..below.len())
            .map(|i| {
                let (y, x) = (i / width % height, i % width);
                let shown = mask[y / self.patch * columns + x / self.patch];
                if shown { above[i] } else { below[i] }
            })
            .collect()
    }
}

/// Pearson correlation; 0 if either side is constant.
fn correlation(pairs: &[(f64, f64)]) -> f32 {
    let n = pairs.len() as f64;
    let mean = |f: fn(&(f64, f64)) -> f64| pairs.iter().map(f).sum::<f64>() / n;
    let (mean_a, mean_b) = (mean(|p| p.0), mean(|p| p.1));
    let (mut aa, mut bb, mut ab) = (0.0, 0.0, 0.0);
    for (a, b) in pairs {
        let (a, b) = (a - mean_a, b - mean_b);
        aa += a * a;
        bb += b * b;
        ab += a * b;
    }
    let scale = (aa * bb).sqrt();
    if scale > 0.0 {
        (ab / scale) as f32
    } else {
        0.0
    }
}

fn run(plan: &dyn Plan, image: &[f32]) -> Result<Vec<f32>, BackendError> {
    let mut session = plan.session()?;
    session.set(0, image)?;
    session.run()?;
    Ok(session.output(0).to_vec())
}

/// An image `[1, 3, H, W]` with a random color, gradient and texture in each patch.
fn image(size: Size, patch: usize, units: Units, seed: u32) -> Vec<f32> {
    let Size { width, height } = size;
    let mut data = Vec::with_capacity(3 * size.area());
    for c in 0..3u32 {
        for y in 0..height {
            for x in 0..width {
                let cell = (y / patch * (width / patch) + x / patch) as u32;
                let of_cell = |k: u32| random((cell * 16 + c * 4 + k) ^ (seed << 30));
                let (u, v) = (
                    (x % patch) as f32 / patch as f32 - 0.5,
                    (y % patch) as f32 / patch as f32 - 0.5,
                );
                let pixel = (y * width + x) as u32 * 4 + c;
                let texture = random(pixel ^ 0x2545_f491 ^ (seed << 30));
                data.push(of_cell(0) + u * of_cell(1) + v * of_cell(2) + 0.3 * texture);
            }
        }
    }
    if units == Units::Bytes {
        data.iter_mut()
            .for_each(|x| *x = (128.0 + 55.0 * *x).round().clamp(0.0, 255.0));
    }
    data
}

/// Uniform in -1.73 to 1.73, with unit variance.
fn random(i: u32) -> f32 {
    ((hash(i) >> 8) as f32 / (1u32 << 23) as f32 - 1.0) * 1.73
}

fn hash(i: u32) -> u32 {
    let x = i.wrapping_add(1).wrapping_mul(0x9E37_79B9);
    let x = (x ^ (x >> 15)).wrapping_mul(0x85EB_CA6B);
    let x = (x ^ (x >> 13)).wrapping_mul(0xC2B2_AE35);
    x ^ (x >> 16)
}
