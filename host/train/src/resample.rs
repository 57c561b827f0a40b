//! Separable resampling of images and feature maps: bicubic and bilinear resizing, blurring,
//! and the jitter of the views. Each is a sparse matrix per axis, which is applied to values in host
//! memory, or as a matrix product to tensors with gradients.

use burn::tensor::{Device, Tensor, TensorData};

use loftup_spec::interpolate::{bilinear, cubic_weights};

use crate::{kernels::Grid, rng::Rng};

/// A linear map along one axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    /// Length of the input.
    input: usize,
    /// For every position of the output, input positions and weights.
    taps: Vec<Vec<(usize, f32)>>,
}

/// Reflects `i` into `0..n` without repeating the border, several times if necessary.
fn reflect(i: isize, n: usize) -> usize {
    if n == 1 {
        return 0;
    }
    let period = 2 * (n as isize - 1);
    let i = i.rem_euclid(period);
    i.min(period - i) as usize
}

impl Axis {
    /// Creates a map, merging taps at the same position.
    fn new(input: usize, taps: Vec<Vec<(usize, f32)>>) -> Self {
        let merged = taps.into_iter().map(|mut taps| {
            taps.sort_by_key(|t| t.0);
            taps.dedup_by(|b, a| {
                let same = a.0 == b.0;
                if same {
                    a.1 += b.1;
                }
                same
            });
            taps.retain(|t| t.1 != 0.0);
            taps
        });
        Self {
            input,
            taps: merged.collect(),
        }
    }

    /// Bicubic resizing, as in PyTorch's `interpolate(mode="bicubic", align_corners=False)`.
    pub fn bicubic(from: usize, to: usize) -> Self {
        let scale = from as f32 / to as f32;
        let taps = (0..to).map(|i| {
            let at = (i as f32 + 0.5) * scale - 0.5;
            let first = at.floor();
            let weights = cubic_weights(at - first);
            let place =
                |k: usize| (first as isize - 1 + k as isize).clamp(0, from as isize - 1) as usize;
            (0..4).map(|k| (place(k), weights[k])).collect()
        });
        Self::new(from, taps.collect())
    }

    /// Bilinear resizing, as in PyTorch's `interpolate(mode="bilinear")`, without antialiasing.
    pub fn bilinear(from: usize, to: usize) -> Self {
        let taps = (0..to).map(|i| {
            let (first, t) = bilinear(i, from, to);
            vec![(first, 1.0 - t), ((first + 1).min(from - 1), t)]
        });
        Self::new(from, taps.collect())
    }

    /// Gaussian blur with 5 taps and a standard deviation of 1, reflected at the border.
    pub fn blur(n: usize) -> Self {
        Self::gaussian(n, 1.0, 2)
    }

    /// Gaussian blur with a standard deviation of `sigma` and `2 * radius + 1` taps, reflected at the border.
    pub fn gaussian(n: usize, sigma: f32, radius: usize) -> Self {
        let radius = radius as isize;
        let bell = |k: isize| (-0.5 * (k as f32 / sigma).powi(2)).exp();
        let sum: f32 = (-radius..=radius).map(bell).sum();
        let tap = |i: isize, k: isize| (reflect(i + k, n), bell(k) / sum);
        let taps = (0..n as isize).map(|i| (-radius..=radius).map(|k| tap(i, k)).collect());
        Self::new(n, taps.collect())
    }

    /// Means of `from / to` neighbors.
    ///
    /// # Panics
    /// If `from` is not a multiple of `to`.
    pub fn mean(from: usize, to: usize) -> Self {
        assert!(from.is_multiple_of(to), "{from} to {to}");
        let size = from / to;
        let taps = (0..to).map(|i| (i * size..(i + 1) * size).map(|j| (j, 1.0 / size as f32)));
        Self::new(from, taps.map(Iterator::collect).collect())
    }

    /// Returns the composition: first `self`, then `next`.
    pub fn then(&self, next: &Self) -> Self {
        let taps = next.taps.iter().map(|taps| {
            let spread =
                |&(i, w): &(usize, f32)| self.taps[i].iter().map(move |&(j, v)| (j, v * w));
            taps.iter().flat_map(spread).collect()
        });
        Self::new(self.input, taps.collect())
    }

    /// Restricts the output to positions `start..start + len`.
    pub fn part(&self, start: usize, len: usize) -> Self {
        Self {
            input: self.input,
            taps: self.taps[start..start + len].to_vec(),
        }
    }

    /// Length of the output.
    pub fn output(&self) -> usize {
        self.taps.len()
    }

    /// Returns the dense matrix, `[1, output, input]`.
    fn dense(&self, device: &Device) -> Tensor<3> {
        let mut data = vec![0.0; self.output() * self.input];
        for (row, taps) in data.chunks_exact_mut(self.input).zip(&self.taps) {
            for &(i, w) in taps {
                row[i] += w;
            }
        }
        Tensor::from_data(
            TensorData::new(data, [1, self.output(), self.input]),
            device,
        )
    }
}

/// Resamples maps `[batch * h * w, c]`, with gradients.
pub fn resample(x: Tensor<2>, grid: Grid, rows: &Axis, cols: &Axis) -> Tensor<2> {
    let Grid {
        batch,
        height,
        width,
    } = grid;
    let [_, c] = x.dims();
    let device = x.device().without_autodiff();
    let (h, w) = (rows.output(), cols.output());
    let x = rows
        .dense(&device)
        .matmul(x.reshape([batch, height, width * c]));
    let x = cols.dense(&device).matmul(x.reshape([batch * h, width, c]));
    x.reshape([batch * h * w, c])
}

/// Resamples one map `[h * w, c]` in host memory.
///
/// # Panics
/// If the size of `x` does not match the axes.
pub fn resample_values(x: &[f32], c: usize, rows: &Axis, cols: &Axis) -> Vec<f32> {
    assert_eq!(x.len(), rows.input * cols.input * c, "values of a map");
    let line = cols.output() * c;
    let mut across = vec![0.0; rows.input * line];
    for (out, x) in across
        .chunks_exact_mut(line)
        .zip(x.chunks_exact(cols.input * c))
    {
        for (out, taps) in out.chunks_exact_mut(c).zip(&cols.taps) {
            for &(i, w) in taps {
                for (o, v) in out.iter_mut().zip(&x[i * c..]) {
                    *o += w * v;
                }
            }
        }
    }
    let mut out = vec![0.0; rows.output() * line];
    for (out, taps) in out.chunks_exact_mut(line).zip(&rows.taps) {
        for &(i, w) in taps {
            for (o, v) in out.iter_mut().zip(&across[i * line..]) {
                *o += w * v;
            }
        }
    }
    out
}

/// A random view of an image: reflected at the border, upsampled, shifted, optionally mirrored, and
/// cropped to the size of the image.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Jitter {
    /// Pixels of the guidance that are added on each side by reflection.
    pub pad: usize,
    /// Upsampling factor, at least 1.
    pub zoom: f32,
    /// Number of guidance rows cropped at the top.
    pub down: usize,
    /// Number of guidance columns cropped at the left.
    pub right: usize,
    /// Whether the result is mirrored horizontally.
    pub mirrored: bool,
}

/// Limits of the jitter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct JitterRange {
    /// [`Jitter::pad`], for a guidance of any size.
    pub pad: usize,
    /// Maximum of the upsampling factor minus 1; half of all views are not upsampled.
    pub zoom: f32,
    /// Whether half of all views are mirrored.
    pub mirror: bool,
}

impl Jitter {
    /// Draws a random view of a guidance of `height x width`.
    pub fn random(rng: &mut Rng, range: JitterRange, height: usize, width: usize) -> Self {
        // A single pixel cannot be reflected.
        let pad = range
            .pad
            .min(height.saturating_sub(1))
            .min(width.saturating_sub(1));
        let mirrored = rng.uniform() > 0.5 && range.mirror;
        let zoomed = rng.uniform() > 0.5;
        let zoom = 1.0
            + if zoomed {
                range.zoom * rng.uniform()
            } else {
                0.0
            };
        let free = |n: usize| upsampled(n + 2 * pad, zoom) - n + 1;
        let (down, right) = (rng.below(free(height)), rng.below(free(width)));
        Self {
            pad,
            zoom,
            down,
            right,
            mirrored,
        }
    }

    /// Returns the view along an axis. `guidance` is the length of the guidance, `n` the length of the map to
    /// transform, which may have a different resolution.
    fn axis(&self, guidance: usize, n: usize, shift: usize, mirrored: bool) -> Axis {
        let scale = n as f32 / guidance as f32;
        let (pad, shift) = (self.pad as f32 * scale, shift as f32 * scale);
        // Outer pixels of the padded image, between which upsampling interpolates.
        let (first, last) = (-pad, n as f32 - 1.0 + pad);
        let taps = (0..n).map(|i| {
            let i = if mirrored { n - 1 - i } else { i };
            let at = (i as f32 + shift + 0.5) / self.zoom - 0.5 - pad;
            let at = at.clamp(first, last);
            let (low, t) = (at.floor(), at - at.floor());
            let low = low as isize;
            vec![(reflect(low, n), 1.0 - t), (reflect(low + 1, n), t)]
        });
        Axis::new(n, taps.collect())
    }

    /// Returns the view of a map of `height x width`, for a guidance of size `of`, along rows and columns.
    pub fn axes(&self, of: (usize, usize), height: usize, width: usize) -> (Axis, Axis) {
        (
            self.axis(of.0, height, self.down, false),
            self.axis(of.1, width, self.right, self.mirrored),
        )
    }
}

/// Returns the length after upsampling, rounded as in PyTorch.
fn upsampled(n: usize, zoom: f32) -> usize {
    (n as f64 * f64::from(zoom)).floor() as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Purpose;

    fn values(n: usize) -> Vec<f32> {
        let mut rng = Rng::new(3, Purpose::Step, n as u64);
        (0..n).map(|_| rng.normal()).collect()
    }

    #[test]
    fn a_view_without_enlargement_is_the_shifted_reflected_image() {
        let x = values(9);
        for (down, mirrored) in [(0, false), (3, false), (6, true)] {
            let jitter = Jitter {
                pad: 3,
                zoom: 1.0,
                down: 0,
                right: down,
                mirrored,
            };
            let (rows, cols) = jitter.axes((1, 9), 1, 9);
            // Rows of one pixel reflect onto themselves.
            let got = resample_values(&x, 1, &rows, &cols);
            let mut expected: Vec<f32> = (0..9)
                .map(|i| x[reflect(i + down as isize - 3, 9)])
                .collect();
            if mirrored {
                expected.reverse();
            }
            assert_eq!(got, expected);
        }
    }

    #[test]
    fn weights_of_every_map_add_up_to_1() {
        let jitter = Jitter {
            pad: 8,
            zoom: 1.07,
            down: 4,
            right: 9,
            mirrored: true,
        };
        let (rows, cols) = jitter.axes((56, 56), 224, 224);
        for axis in [
            Axis::bicubic(14, 112),
            Axis::bilinear(64, 23),
            Axis::blur(17),
            rows.then(&Axis::blur(224)),
            cols,
        ] {
            for taps in &axis.taps {
                let sum: f32 = taps.iter().map(|t| t.1).sum();
                assert!((sum - 1.0).abs() < 1e-5, "{sum}");
            }
        }
    }

    #[test]
    fn tensors_and_plain_values_are_resampled_alike() {
        let grid = Grid {
            batch: 1,
            height: 6,
            width: 5,
        };
        let x = values(6 * 5 * 3);
        let (rows, cols) = (
            Axis::bicubic(6, 11).then(&Axis::blur(11)),
            Axis::bilinear(5, 4),
        );
        let tensor = crate::model::device_matrix(x.clone(), 30, 3, &Device::flex());
        let got = crate::model::host_values(&resample(tensor, grid, &rows, &cols));
        let expected = resample_values(&x, 3, &rows, &cols);
        let worst = got
            .iter()
            .zip(&expected)
            .fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(worst < 1e-5, "{worst}");
    }

    #[test]
    fn a_view_is_the_same_at_another_resolution() {
        // An image that varies linearly is shifted and upsampled alike at both, but for the half
        // pixel between the centers of the first pixels.
        let ramp = |n: usize| -> Vec<f32> { (0..n).map(|i| (i as f32 + 0.5) / n as f32).collect() };
        let jitter = Jitter {
            pad: 2,
            zoom: 1.1,
            down: 0,
            right: 5,
            mirrored: false,
        };
        let small = resample_values(
            &ramp(20),
            1,
            &jitter.axis(1, 1, 0, false),
            &jitter.axis(20, 20, 5, false),
        );
        let large = resample_values(
            &ramp(80),
            1,
            &jitter.axis(1, 1, 0, false),
            &jitter.axis(20, 80, 5, false),
        );
        for i in 4..16 {
            let mean = large[i * 4..][..4].iter().sum::<f32>() / 4.0;
            assert!(
                (mean - small[i]).abs() < 0.1 / 20.0,
                "{i}: {mean} {}",
                small[i]
            );
        }
    }
}
