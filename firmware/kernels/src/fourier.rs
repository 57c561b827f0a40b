//! Layer-normalized Fourier features of coordinates and colors, the input of the first convolution.
//!
//! A pixel has five source values: row, column, red, green, blue. Features are stored source by source:
//! sines, cosines, and for a color the value itself.

use crate::{QueriesWeights, weights::SOURCES};

/// The sources whose value is also a feature.
const COLORS: std::ops::Range<usize> = 2..SOURCES;
/// Cache slots per source, a power of two.
const SLOTS: usize = 1024;

/// The parameters of the Fourier features and of the normalization after them.
#[derive(Debug, Clone)]
pub(crate) struct Fourier {
    frequencies: Vec<f32>,
    /// `[sources][frequencies]`.
    sine_phases: [Vec<f32>; SOURCES],
    cosine_phases: [Vec<f32>; SOURCES],
    eps: f64,
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Fourier {
    /// Copies the parameters. `w` must have passed the shape check.
    pub fn new(w: &QueriesWeights) -> Self {
        let by_source = |phases: &[f32]| {
            std::array::from_fn(|s| phases.iter().skip(s).step_by(SOURCES).copied().collect())
        };
        let frequencies = w.frequencies.len();
        let reorder = |x: &[f32]| channel_order(frequencies).map(|i| x[i]).collect();
        Self {
            frequencies: w.frequencies.clone(),
            sine_phases: by_source(&w.sine_phases),
            cosine_phases: by_source(&w.cosine_phases),
            eps: f64::from(w.eps),
            weight: reorder(&w.guidance_norm.weight),
            bias: reorder(&w.guidance_norm.bias),
        }
    }

    /// Features per pixel.
    pub fn channels(&self) -> usize {
        self.weight.len()
    }

    /// Weight and bias of the normalization, `[channels]` each.
    pub fn affine(&self) -> (&[f32], &[f32]) {
        (&self.weight, &self.bias)
    }

    /// Epsilon of the normalization.
    pub fn eps(&self) -> f64 {
        self.eps
    }

    /// Features per value of a source.
    pub fn features_per_value(&self, source: usize) -> usize {
        2 * self.frequencies.len() + usize::from(COLORS.contains(&source))
    }

    /// Writes the features of one value of a source to `out`. The product and the sum of the angle are
    /// rounded separately, as in PyTorch: with frequencies up to e^10 the rounding is visible.
    pub fn features(&self, source: usize, value: f32, out: &mut [f32]) {
        let n = self.frequencies.len();
        let waves = [
            (&self.sine_phases[source], f32::sin as fn(f32) -> f32),
            (&self.cosine_phases[source], f32::cos),
        ];
        for (out, (phases, wave)) in out.chunks_exact_mut(n).zip(waves) {
            for ((out, f), phase) in out.iter_mut().zip(&self.frequencies).zip(phases) {
                *out = wave(value * f + phase);
            }
        }
        if let Some(last) = out.get_mut(2 * n) {
            *last = value;
        }
    }
}

/// Returns the channel in the graph of each feature in the order of [`Fourier`]. In the graph, sinusoids
/// are grouped by frequency, and the colors are last.
pub(crate) fn channel_order(frequencies: usize) -> impl Iterator<Item = usize> {
    (0..SOURCES).flat_map(move |s| {
        let waves = (0..2 * frequencies).map(move |k| k * SOURCES + s);
        let color = COLORS
            .contains(&s)
            .then(|| 2 * frequencies * SOURCES + s - COLORS.start);
        waves.chain(color)
    })
}

/// Caches the features of recent values: an image has few distinct rows, columns and color levels.
#[derive(Debug)]
pub(crate) struct FourierCache {
    sources: Vec<SourceCache>,
    /// Features of one pixel before normalization.
    pixel: Vec<f32>,
}

/// A direct-mapped cache for one source.
#[derive(Debug)]
struct SourceCache {
    /// The value in each slot.
    values: Vec<Option<f32>>,
    /// Sum and sum of squares of the features in each slot.
    sums: Vec<[f64; 2]>,
    /// Features per value.
    width: usize,
    features: Vec<f32>,
}

impl FourierCache {
    pub fn new(fourier: &Fourier) -> Self {
        let sources = (0..SOURCES)
            .map(|s| {
                let width = fourier.features_per_value(s);
                SourceCache {
                    values: vec![None; SLOTS],
                    sums: vec![[0.0; 2]; SLOTS],
                    width,
                    features: vec![0.0; SLOTS * width],
                }
            })
            .collect();
        Self {
            sources,
            pixel: vec![0.0; fourier.channels()],
        }
    }

    /// Writes the normalized features of pixels with source values `values(i)`, times `mask[i]`, to `out`
    /// `[pixels][stride]`.
    pub fn pixels(
        &mut self,
        fourier: &Fourier,
        mask: &[f32],
        values: impl Fn(usize) -> [f32; SOURCES],
        out: &mut Vec<f32>,
        stride: usize,
    ) {
        out.resize(mask.len() * stride, 0.0);
        for (i, (out, m)) in out.chunks_exact_mut(stride).zip(mask).enumerate() {
            let out = &mut out[..fourier.channels()];
            if *m == 0.0 {
                out.fill(0.0);
                continue;
            }
            self.pixel(fourier, values(i), out);
            if *m != 1.0 {
                out.iter_mut().for_each(|x| *x *= m);
            }
        }
    }

    /// Writes the normalized features of one pixel to `out` `[channels]`.
    fn pixel(&mut self, fourier: &Fourier, values: [f32; SOURCES], out: &mut [f32]) {
        let mut sums = [0.0; 2];
        let mut rest = self.pixel.as_mut_slice();
        for (s, (value, cache)) in values.into_iter().zip(&mut self.sources).enumerate() {
            let slot = cache.slot(fourier, s, value);
            let features = &cache.features[slot * cache.width..][..cache.width];
            let part;
            (part, rest) = rest.split_at_mut(cache.width);
            part.copy_from_slice(features);
            sums[0] += cache.sums[slot][0];
            sums[1] += cache.sums[slot][1];
        }
        let n = fourier.channels() as f64;
        let mean = sums[0] / n;
        // In 64 bits because of cancellation.
        let variance = (sums[1] / n - mean * mean).max(0.0);
        let scale = (1.0 / (variance + fourier.eps).sqrt()) as f32;
        let mean = mean as f32;
        let affine = fourier.weight.iter().zip(&fourier.bias);
        for ((out, x), (w, b)) in out.iter_mut().zip(&self.pixel).zip(affine) {
            *out = (x - mean) * scale * w + b;
        }
    }
}

impl SourceCache {
    /// Returns the slot of a value, and computes its features on a miss.
    fn slot(&mut self, fourier: &Fourier, source: usize, value: f32) -> usize {
        // Multiplicative hashing: the upper bits are the well-mixed ones.
        let slot = (value.to_bits().wrapping_mul(0x9E37_79B1) >> (32 - SLOTS.ilog2())) as usize;
        if self.values[slot].map(f32::to_bits) != Some(value.to_bits()) {
            let features = &mut self.features[slot * self.width..][..self.width];
            fourier.features(source, value, features);
            let wide = features.iter().map(|x| f64::from(*x));
            self.sums[slot] = [wide.clone().sum(), wide.map(|x| x * x).sum()];
            self.values[slot] = Some(value);
        }
        slot
    }
}
