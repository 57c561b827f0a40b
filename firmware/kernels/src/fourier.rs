//! Fourier features of coordinates and colours, normalised: what the first convolution sees.

use crate::QueriesWeights;

/// Row, column, red, green, blue.
pub(crate) const SOURCES: usize = 5;
/// The sources whose value is a feature too.
const COLOURS: std::ops::Range<usize> = 2..SOURCES;
/// Values of a source that are remembered: a power of two.
const SLOTS: usize = 1024;

/// How a value of each source becomes features, source by source: sines, cosines, and of a colour
/// the value itself.
#[derive(Debug, Clone)]
pub(crate) struct Fourier {
    frequencies: Vec<f32>,
    /// For each source.
    sine_phases: [Vec<f32>; SOURCES],
    cosine_phases: [Vec<f32>; SOURCES],
    eps: f64,
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Fourier {
    /// From weights whose shapes have been checked.
    pub fn new(w: &QueriesWeights) -> Self {
        let of_source = |phases: &[f32]| {
            std::array::from_fn(|s| phases.iter().skip(s).step_by(SOURCES).copied().collect())
        };
        let frequencies = w.frequencies.len();
        let ours = |of: &[f32]| order(frequencies).map(|i| of[i]).collect();
        Self {
            frequencies: w.frequencies.clone(),
            sine_phases: of_source(&w.sine_phases),
            cosine_phases: of_source(&w.cosine_phases),
            eps: f64::from(w.eps),
            weight: ours(&w.guidance_norm.weight),
            bias: ours(&w.guidance_norm.bias),
        }
    }

    /// Features of a pixel.
    pub fn channels(&self) -> usize {
        self.weight.len()
    }

    /// Factors and offsets after the normalisation.
    pub fn affine(&self) -> (&[f32], &[f32]) {
        (&self.weight, &self.bias)
    }

    /// What is added to the variance.
    pub fn eps(&self) -> f64 {
        self.eps
    }

    /// How many features a value of a source has.
    pub fn features_of(&self, source: usize) -> usize {
        2 * self.frequencies.len() + usize::from(COLOURS.contains(&source))
    }

    /// Features of a value of a source. Product, then sum, each rounded, as trained: the order
    /// matters at frequencies of e^10. The sine is that of the rounded angle.
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

/// Channel of the graph (waves frequency by frequency, then colours) of each of our features.
pub(crate) fn order(frequencies: usize) -> impl Iterator<Item = usize> {
    (0..SOURCES).flat_map(move |s| {
        let waves = (0..2 * frequencies).map(move |k| k * SOURCES + s);
        let colour = COLOURS
            .contains(&s)
            .then(|| 2 * frequencies * SOURCES + s - COLOURS.start);
        waves.chain(colour)
    })
}

/// Features of values seen before: a picture has few rows, columns and levels of a colour.
#[derive(Debug)]
pub(crate) struct Memory {
    sources: Vec<Remembered>,
    /// Features of one pixel.
    pixel: Vec<f32>,
}

#[derive(Debug)]
struct Remembered {
    /// The value in each slot, and whether there is one.
    values: Vec<Option<f32>>,
    /// Sum and sum of squares of the features.
    sums: Vec<[f64; 2]>,
    width: usize,
    features: Vec<f32>,
}

impl Memory {
    pub fn new(fourier: &Fourier) -> Self {
        let sources = (0..SOURCES)
            .map(|s| {
                let width = fourier.features_of(s);
                Remembered {
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

    /// Normalised features of all pixels, each of `stride` values: of pixel i with the values
    /// `values(i)`, times `mask[i]`.
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

    /// Normalised features of a pixel: `out` holds [`Fourier::channels`] values.
    fn pixel(&mut self, fourier: &Fourier, values: [f32; SOURCES], out: &mut [f32]) {
        let mut sums = [0.0; 2];
        let mut rest = self.pixel.as_mut_slice();
        for (s, (value, remembered)) in values.into_iter().zip(&mut self.sources).enumerate() {
            let slot = remembered.slot(fourier, s, value);
            let features = &remembered.features[slot * remembered.width..][..remembered.width];
            let here;
            (here, rest) = rest.split_at_mut(remembered.width);
            here.copy_from_slice(features);
            sums[0] += remembered.sums[slot][0];
            sums[1] += remembered.sums[slot][1];
        }
        let n = fourier.channels() as f64;
        let mean = sums[0] / n;
        // In 64 bit the difference of the two large terms keeps more digits than 32 bit have.
        let variance = (sums[1] / n - mean * mean).max(0.0);
        let scale = (1.0 / (variance + fourier.eps).sqrt()) as f32;
        let mean = mean as f32;
        let affine = fourier.weight.iter().zip(&fourier.bias);
        for ((out, x), (w, b)) in out.iter_mut().zip(&self.pixel).zip(affine) {
            *out = (x - mean) * scale * w + b;
        }
    }
}

impl Remembered {
    /// Where the features of a value are; computes them if they are not there.
    fn slot(&mut self, fourier: &Fourier, source: usize, value: f32) -> usize {
        // Multiplicative hashing: the upper bits are well mixed.
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
