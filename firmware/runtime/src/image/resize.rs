//! Pillow's bilinear resize for 8-bit images, bit for bit.
//!
//! Two passes, horizontal and then vertical, with 8-bit pixels in between. Each output pixel is a
//! weighted sum over a window of input pixels, in fixed point: weights are multiples of 2^-22. The
//! algorithm is that of Pillow, `src/libImaging/Resample.c`; the code is independent.

use super::RgbImage;

/// Fraction bits of a weight: 32, minus 8 for the pixel and 2 for sign and overshoot.
const FRACTION_BITS: u32 = 22;
const HALF: i32 = 1 << (FRACTION_BITS - 1);

/// The input pixels of an output pixel, and the start of their weights.
struct Window {
    first: usize,
    len: usize,
    weights: usize,
}

/// The windows of all output pixels along one axis.
struct Windows {
    windows: Vec<Window>,
    weights: Vec<i32>,
}

impl Windows {
    fn new(from: usize, to: usize) -> Self {
        let mut windows = Vec::with_capacity(to);
        let mut weights = Vec::new();
        for index in 0..to {
            let start = weights.len();
            let first = window(from, to, index, |weight| {
                // Pillow rounds half away from zero; the triangle filter has no negative weights.
                weights.push((0.5 + weight * f64::from(1 << FRACTION_BITS)) as i32);
            });
            windows.push(Window {
                first,
                len: weights.len() - start,
                weights: start,
            });
        }
        Self { windows, weights }
    }

    fn iter(&self) -> impl Iterator<Item = (usize, &[i32])> {
        self.windows
            .iter()
            .map(|w| (w.first, &self.weights[w.weights..][..w.len]))
    }
}

/// The weight of each of `from` input pixels for each of `to` output pixels, `[to, from]`, times 2^22.
pub(super) fn weights(from: usize, to: usize) -> Vec<i32> {
    let mut all = vec![0; to * from];
    for (row, (first, weights)) in all
        .chunks_exact_mut(from)
        .zip(Windows::new(from, to).iter())
    {
        row[first..first + weights.len()].copy_from_slice(weights);
    }
    all
}

/// The window of output pixel `index` of `to`, from `from` input pixels: returns the first input
/// pixel and passes the normalized weights to `push`. In f64 and in Pillow's order of operations.
fn window(from: usize, to: usize, index: usize, mut push: impl FnMut(f64)) -> usize {
    let scale = from as f64 / to as f64;
    // Upscaling interpolates between neighbors; downscaling widens the triangle.
    let widening = scale.max(1.0);
    let support = widening;
    let center = (index as f64 + 0.5) * scale;
    // The casts truncate, as in C, and map negative numbers to 0.
    let first = (center - support + 0.5) as usize;
    let last = ((center + support + 0.5) as usize).min(from);
    let inverse = 1.0 / widening;
    let triangle = |pixel: usize| {
        // (offset in the window + first - center + 0.5), summed in that order.
        let distance = ((pixel as f64 - center + 0.5) * inverse).abs();
        if distance < 1.0 { 1.0 - distance } else { 0.0 }
    };
    let total: f64 = (first..last).map(triangle).sum();
    for pixel in first..last {
        let weight = triangle(pixel);
        push(if total == 0.0 { weight } else { weight / total });
    }
    first
}

fn level(sum: i32) -> u8 {
    (sum >> FRACTION_BITS).clamp(0, 255) as u8
}

/// Resizes an image to `width` x `height`, both at least 1.
pub(super) fn bilinear(image: &RgbImage, width: usize, height: usize) -> RgbImage {
    if image.width == width {
        return if image.height == height {
            image.clone()
        } else {
            down(image, height)
        };
    }
    let narrowed = across(image, width);
    if image.height == height {
        narrowed
    } else {
        down(&narrowed, height)
    }
}

/// Rows per step of the horizontal pass: each weight is loaded once for all of them.
const ROWS: usize = 4;

fn across(image: &RgbImage, width: usize) -> RgbImage {
    let windows = Windows::new(image.width, width);
    let mut data = vec![0u8; width * image.height * 3];
    let input = image.data.chunks(image.width * 3 * ROWS);
    for (rows_in, rows_out) in input.zip(data.chunks_mut(width * 3 * ROWS)) {
        if rows_in.len() == image.width * 3 * ROWS {
            across_rows::<ROWS>(&windows, rows_in, rows_out);
        } else {
            for (row_in, row_out) in rows_in
                .chunks_exact(image.width * 3)
                .zip(rows_out.chunks_exact_mut(width * 3))
            {
                across_rows::<1>(&windows, row_in, row_out);
            }
        }
    }
    RgbImage {
        width,
        height: image.height,
        data,
    }
}

/// `N` rows at once; both slices hold exactly `N` rows.
fn across_rows<const N: usize>(windows: &Windows, rows_in: &[u8], rows_out: &mut [u8]) {
    let stride_in = rows_in.len() / N;
    let stride_out = rows_out.len() / N;
    for (x, (first, weights)) in windows.iter().enumerate() {
        let taps: [&[[u8; 3]]; N] = std::array::from_fn(|row| {
            let start = row * stride_in + first * 3;
            rows_in[start..start + weights.len() * 3].as_chunks::<3>().0
        });
        let mut sums = [[HALF; 3]; N];
        for (tap, &weight) in weights.iter().enumerate() {
            for (sum, taps) in sums.iter_mut().zip(&taps) {
                for (sum, &value) in sum.iter_mut().zip(&taps[tap]) {
                    *sum += i32::from(value) * weight;
                }
            }
        }
        for (row, sum) in sums.iter().enumerate() {
            let out = &mut rows_out[row * stride_out + x * 3..][..3];
            out.copy_from_slice(&sum.map(level));
        }
    }
}

fn down(image: &RgbImage, height: usize) -> RgbImage {
    let windows = Windows::new(image.height, height);
    let stride = image.width * 3;
    let mut data = Vec::with_capacity(stride * height);
    let mut sums = vec![0i32; stride];
    for (first, weights) in windows.iter() {
        sums.fill(HALF);
        let rows = image.data[first * stride..].chunks_exact(stride);
        for (row, &weight) in rows.zip(weights) {
            for (sum, &value) in sums.iter_mut().zip(row) {
                *sum += i32::from(value) * weight;
            }
        }
        data.extend(sums.iter().map(|&sum| level(sum)));
    }
    RgbImage {
        width: image.width,
        height,
        data,
    }
}

#[cfg(test)]
mod tests;
