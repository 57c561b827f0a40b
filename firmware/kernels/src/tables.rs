//! The first convolution as look-ups.
//!
//! What it sees is a layer normalisation of functions of single values: of the row, the column and
//! three colours. Per tap and output channel, the product of the weights with those functions is a
//! sum of five terms, each of which depends on one value alone; so is the mean that the
//! normalisation subtracts. A picture has few rows, columns and levels of a colour: the terms stand
//! in tables, and a pixel of the answer is 45 rows of them, each pixel's scaled by one over its
//! deviation. The result is exact for any values; it is fast where they repeat.

use std::collections::HashMap;

use crate::{
    QueriesWeights,
    fourier::{Fourier, SOURCES},
    gemm::{Packed, Then, block_cols, product},
    simd::{Isa, Kernel, Simd, dispatch},
};

const TAPS: usize = 9;
/// Vectors of output channels that are worked on at once.
const VECTORS: usize = 4;
/// Values of each source that are kept.
const KEPT: usize = 256;

/// The weights of the first convolution, as tables are made of them.
#[derive(Debug)]
pub(crate) struct TableWeights {
    isa: Isa,
    /// Output channels that are worked on at once, and how many times.
    block: usize,
    blocks: usize,
    /// For each source, rows `[blocks][taps][block]`; the last input is minus the mean.
    maps: Vec<Packed>,
    /// What the offsets of the normalisation add at each tap, `[blocks][taps][block]`.
    offsets: Vec<f32>,
    bias: Vec<f32>,
    /// The bias and all offsets.
    whole: Vec<f32>,
}

impl TableWeights {
    /// From the convolution `[outputs][channels][taps]` with channels in the order of `fourier`.
    pub fn new(isa: Isa, fourier: &Fourier, conv: &[f32], w: &QueriesWeights) -> Self {
        let block = VECTORS * block_cols(isa) / 2;
        let outputs = w.conv1.bias.len();
        let blocks = outputs.div_ceil(block);
        let channels = fourier.channels();
        let (gain, offset) = fourier.affine();
        let weight = |o: usize, c: usize, t: usize| conv[(o * channels + c) * TAPS + t];
        // Row of a map -> output channel and tap.
        let row = |r: usize| {
            let o = r / (TAPS * block) * block + r % block;
            (o, r / block % TAPS)
        };
        let rows = blocks * TAPS * block;
        let sum = |r: usize, factors: &[f32]| {
            let (o, t) = row(r);
            if o >= outputs {
                return 0.0;
            }
            let terms = factors.iter().enumerate();
            let sum: f64 = terms
                .map(|(c, f)| f64::from(weight(o, c, t)) * f64::from(*f))
                .sum();
            sum as f32
        };
        let gains: Vec<f32> = (0..rows).map(|r| sum(r, gain)).collect();
        let offsets: Vec<f32> = (0..rows).map(|r| sum(r, offset)).collect();
        let mut first = 0;
        let maps = (0..SOURCES)
            .map(|s| {
                let width = fourier.features_of(s);
                let map = Packed::new(isa, rows, width + 1, |r, k| {
                    let (o, t) = row(r);
                    if o >= outputs {
                        0.0
                    } else if k == width {
                        gains[r]
                    } else {
                        weight(o, first + k, t) * gain[first + k]
                    }
                });
                first += width;
                map
            })
            .collect();
        let mut bias = w.conv1.bias.clone();
        bias.resize(blocks * block, 0.0);
        let whole = (0..blocks * block)
            .map(|o| {
                let at = o / block * TAPS * block + o % block;
                let offsets: f64 = (0..TAPS).map(|t| f64::from(offsets[at + t * block])).sum();
                (f64::from(bias[o]) + offsets) as f32
            })
            .collect();
        Self {
            isa,
            block,
            blocks,
            maps,
            offsets,
            bias,
            whole,
        }
    }
}

/// Tables of the values seen last.
#[derive(Debug)]
pub(crate) struct Tables {
    known: [Known; SOURCES],
    /// `[blocks][sources][KEPT][taps][block]`.
    rows: Vec<f32>,
    pixels: Vec<Pixel>,
    whole: Vec<bool>,
    inputs: Vec<f32>,
    product: Vec<f32>,
}

/// The values of a source that there are rows for.
#[derive(Debug, Default)]
struct Known {
    /// Bits of a value to its row.
    row: HashMap<u32, usize>,
    /// Of each row, sum and sum of squares of the features.
    sums: Vec<[f64; 2]>,
}

/// A pixel of the input.
#[derive(Debug, Clone, Copy)]
struct Pixel {
    /// Where its rows start in each block.
    at: [usize; SOURCES],
    /// Mask, and mask by deviation.
    mask: f32,
    scale: f32,
}

impl Tables {
    pub fn new(weights: &TableWeights) -> Self {
        let size = weights.blocks * SOURCES * KEPT * TAPS * weights.block;
        Self {
            known: Default::default(),
            rows: vec![0.0; size],
            pixels: Vec::new(),
            whole: Vec::new(),
            inputs: Vec::new(),
            product: Vec::new(),
        }
    }

    /// The first convolution of `pictures` pictures of `height x width`, whose pixel i has the five
    /// values `values(i)` and the mask `mask[i]`, to `out`, pixels of `stride` values.
    /// `false`, and nothing done, where the values are too many for tables to pay.
    pub fn run(
        &mut self,
        weights: &TableWeights,
        fourier: &Fourier,
        mask: &[f32],
        (height, width): (usize, usize),
        values: impl Fn(usize) -> [f32; SOURCES],
        (out, stride): (&mut [f32], usize),
    ) -> bool {
        if !self.learn(weights, fourier, mask, &values) {
            return false;
        }
        let n = fourier.channels() as f64;
        let row = TAPS * weights.block;
        self.pixels.clear();
        self.pixels.extend(mask.iter().enumerate().map(|(i, m)| {
            let mut pixel = Pixel {
                at: [0; SOURCES],
                mask: *m,
                scale: 0.0,
            };
            if *m == 0.0 {
                return pixel;
            }
            let mut sums = [0.0; 2];
            for (s, (value, known)) in values(i).into_iter().zip(&self.known).enumerate() {
                // `learn` has put every value in.
                let entry = known.row.get(&value.to_bits()).copied().unwrap_or(0);
                pixel.at[s] = (s * KEPT + entry) * row;
                sums[0] += known.sums[entry][0];
                sums[1] += known.sums[entry][1];
            }
            let mean = sums[0] / n;
            let variance = (sums[1] / n - mean * mean).max(0.0);
            pixel.scale = (f64::from(*m) / (variance + fourier.eps()).sqrt()) as f32;
            pixel
        }));
        let (rows, cols) = (height - 2, width - 2);
        let pixels = &self.pixels;
        self.whole.clear();
        self.whole.extend((0..out.len() / stride).map(|i| {
            let first = (i / (rows * cols) * height + i / cols % rows) * width + i % cols;
            (0..TAPS).all(|t| pixels[first + t / 3 * width + t % 3].mask == 1.0)
        }));
        let size = SOURCES * KEPT * row;
        for block in 0..weights.blocks {
            dispatch(
                weights.isa,
                LookUp {
                    rows: &self.rows[block * size..][..size],
                    offsets: &weights.offsets[block * row..][..row],
                    bias: &weights.bias[block * weights.block..][..weights.block],
                    total: &weights.whole[block * weights.block..][..weights.block],
                    pixels,
                    whole: &self.whole,
                    size: (rows, cols),
                    out: &mut *out,
                    stride,
                    first: block * weights.block,
                },
            );
        }
        true
    }

    /// Makes rows for all values that have none; `false` where that costs more than it saves.
    fn learn(
        &mut self,
        weights: &TableWeights,
        fourier: &Fourier,
        mask: &[f32],
        values: &impl Fn(usize) -> [f32; SOURCES],
    ) -> bool {
        let mut new: [Vec<f32>; SOURCES] = Default::default();
        let mut seen: [HashMap<u32, ()>; SOURCES] = Default::default();
        // Few values change from one pixel to the next.
        let mut last = [None; SOURCES];
        for i in (0..mask.len()).filter(|i| mask[*i] != 0.0) {
            for (s, value) in values(i).into_iter().enumerate() {
                let bits = value.to_bits();
                if last[s] == Some(bits) {
                    continue;
                }
                last[s] = Some(bits);
                if seen[s].insert(bits, ()).is_none() {
                    if seen[s].len() > KEPT {
                        return false;
                    }
                    if !self.known[s].row.contains_key(&bits) {
                        new[s].push(value);
                    }
                }
            }
        }
        // A row costs about as much as a pixel of the convolution that it replaces. Rows that are
        // there already do not count: the same picture has to be computed in the same way, whatever
        // came before it, since the two ways round differently.
        if seen.iter().map(HashMap::len).sum::<usize>() > mask.len() {
            return false;
        }
        for s in 0..SOURCES {
            if self.known[s].sums.len() + new[s].len() > KEPT {
                // Start again, with all values of this picture.
                self.known[s] = Known::default();
                new[s] = seen[s].keys().map(|bits| f32::from_bits(*bits)).collect();
            }
            for values in new[s].chunks(block_cols(weights.isa)) {
                self.add(weights, fourier, s, values);
            }
        }
        true
    }

    /// Makes rows for a panel of new values of a source.
    fn add(&mut self, weights: &TableWeights, fourier: &Fourier, source: usize, values: &[f32]) {
        let columns = block_cols(weights.isa);
        let map = &weights.maps[source];
        let depth = map.depth();
        self.inputs.clear();
        self.inputs.resize(depth * columns, 0.0);
        self.product.resize(map.rows() * columns, 0.0);
        let known = &mut self.known[source];
        let first = known.sums.len();
        let mut features = vec![0.0; depth - 1];
        for (column, value) in values.iter().enumerate() {
            fourier.features(source, *value, &mut features);
            let wide = features.iter().map(|x| f64::from(*x));
            let sums: [f64; 2] = [wide.clone().sum(), wide.map(|x| x * x).sum()];
            let mean = (-sums[0] / fourier.channels() as f64) as f32;
            for (k, x) in features.iter().chain([&mean]).enumerate() {
                self.inputs[k * columns + column] = *x;
            }
            known.row.insert(value.to_bits(), first + column);
            known.sums.push(sums);
        }
        product(map, &self.inputs, 0, &mut self.product, 0, 1, Then::Store);
        let row = TAPS * weights.block;
        for (block, product) in self.product.chunks_exact(row * columns).enumerate() {
            for column in 0..values.len() {
                let at = ((block * SOURCES + source) * KEPT + first + column) * row;
                let from = product[column..].iter().step_by(columns);
                for (to, x) in self.rows[at..at + row].iter_mut().zip(from) {
                    *to = *x;
                }
            }
        }
    }
}

/// The first vectors of `from`.
#[inline(always)]
fn vectors<S: Simd>(from: &[f32]) -> [S::V; VECTORS] {
    let from = &from[..VECTORS * S::LANES];
    let mut vectors = [S::splat(0.0); VECTORS];
    for (vector, from) in vectors.iter_mut().zip(from.chunks_exact(S::LANES)) {
        *vector = S::get(from);
    }
    vectors
}

/// One block of output channels of all pixels.
struct LookUp<'a> {
    /// `[sources][KEPT][taps][block]`.
    rows: &'a [f32],
    /// `[taps][block]`.
    offsets: &'a [f32],
    bias: &'a [f32],
    total: &'a [f32],
    pixels: &'a [Pixel],
    /// Of each pixel of the answer, whether nothing near it is masked.
    whole: &'a [bool],
    size: (usize, usize),
    out: &'a mut [f32],
    stride: usize,
    first: usize,
}

impl Kernel for LookUp<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let block = VECTORS * S::LANES;
        let (rows, cols) = self.size;
        let width = cols + 2;
        let answers = self.out.chunks_exact_mut(self.stride).zip(self.whole);
        for (i, (out, whole)) in answers.enumerate() {
            let top = (i / (rows * cols) * (rows + 2) + i / cols % rows) * width + i % cols;
            let mut sums = vectors::<S>(if *whole { self.total } else { self.bias });
            for t in 0..TAPS {
                let pixel = &self.pixels[top + t / 3 * width + t % 3];
                if pixel.mask == 0.0 {
                    continue;
                }
                let mut row = vectors::<S>(&self.rows[pixel.at[0] + t * block..]);
                for at in &pixel.at[1..] {
                    let other = vectors::<S>(&self.rows[at + t * block..]);
                    for (a, b) in row.iter_mut().zip(other) {
                        *a = S::add(*a, b);
                    }
                }
                let scale = S::splat(pixel.scale);
                for (sum, row) in sums.iter_mut().zip(row) {
                    *sum = S::fma(scale, row, *sum);
                }
                if !whole {
                    let mask = S::splat(pixel.mask);
                    let offset = vectors::<S>(&self.offsets[t * block..]);
                    for (sum, offset) in sums.iter_mut().zip(offset) {
                        *sum = S::fma(mask, offset, *sum);
                    }
                }
            }
            // The last block may reach beyond the pixel.
            for (out, sum) in out[self.first..].chunks_exact_mut(S::LANES).zip(sums) {
                S::put(out, S::max(sum, S::splat(0.0)));
            }
        }
    }
}
