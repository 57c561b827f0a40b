//! The first convolution, with lookup tables.
//!
//! The input of the convolution is a layer normalization of features, each of which is a function of a
//! single source value: row, column, red, green or blue. So for each tap and output channel, the
//! product of weights and features is a sum of five terms that depend on one value each, and so is the
//! mean that the normalization subtracts. An image has few distinct rows, columns and color levels, so
//! the terms are stored in tables. An output pixel is the sum of 9 x 5 table rows, scaled for each tap
//! by one over the standard deviation of the input pixel. This is correct for any input, and fast if
//! values repeat.

use std::collections::HashMap;

use crate::{
    QueriesWeights,
    fourier::Fourier,
    gemm::{Epilogue, PackedA, gemm, nr},
    simd::{Simd, SimdOp, SupportedIsa, dispatch},
    weights::SOURCES,
};

const TAPS: usize = 9;
/// Vectors of output channels per block.
const VECTORS: usize = 4;
/// Capacity of the table of a source, in values.
const CAPACITY: usize = 256;

/// The weights of the first convolution, prepared for filling tables.
#[derive(Debug)]
pub(crate) struct LutWeights {
    isa: SupportedIsa,
    /// Output channels per block, and the number of blocks.
    block: usize,
    blocks: usize,
    /// For each source, a matrix with rows `[blocks][taps][block]` and one column per feature, plus one
    /// column for minus the mean.
    matrices: Vec<PackedA>,
    /// Contribution of the bias of the normalization at each tap, `[blocks][taps][block]`.
    offsets: Vec<f32>,
    /// `[blocks][block]`.
    bias: Vec<f32>,
    /// The bias plus the offsets of all taps, `[blocks][block]`.
    full_bias: Vec<f32>,
}

impl LutWeights {
    /// Prepares weights `[outputs][channels][taps]` with channels in the order of `fourier`.
    pub fn new(isa: SupportedIsa, fourier: &Fourier, conv: &[f32], w: &QueriesWeights) -> Self {
        let block = VECTORS * nr(isa) / 2;
        let outputs = w.conv1.bias.len();
        let blocks = outputs.div_ceil(block);
        let channels = fourier.channels();
        let (gain, offset) = fourier.affine();
        let weight = |o: usize, c: usize, t: usize| conv[(o * channels + c) * TAPS + t];
        // Row of a matrix -> output channel and tap.
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
        let matrices = (0..SOURCES)
            .map(|s| {
                let width = fourier.features_per_value(s);
                let matrix = PackedA::new(isa, rows, width + 1, |r, k| {
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
                matrix
            })
            .collect();
        let mut bias = w.conv1.bias.clone();
        bias.resize(blocks * block, 0.0);
        let full_bias = (0..blocks * block)
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
            matrices,
            offsets,
            bias,
            full_bias,
        }
    }
}

/// The tables, and buffers of a run.
#[derive(Debug)]
pub(crate) struct Lut {
    index: [Index; SOURCES],
    /// `[blocks][sources][CAPACITY][taps][block]`.
    rows: Vec<f32>,
    pixels: Vec<Pixel>,
    /// For each output pixel, whether the mask is 1 in its whole window.
    unmasked: Vec<bool>,
    inputs: Vec<f32>,
    product: Vec<f32>,
}

/// The values of a source that are in its table.
#[derive(Debug, Default)]
struct Index {
    /// Bits of a value -> its row.
    row: HashMap<u32, usize>,
    /// Sum and sum of squares of the features of each row.
    sums: Vec<[f64; 2]>,
}

/// An input pixel.
#[derive(Debug, Clone, Copy)]
struct Pixel {
    /// Offsets of its rows within a block.
    rows: [usize; SOURCES],
    mask: f32,
    /// Mask divided by the standard deviation of the features.
    scale: f32,
}

impl Lut {
    pub fn new(weights: &LutWeights) -> Self {
        let size = weights.blocks * SOURCES * CAPACITY * TAPS * weights.block;
        Self {
            index: Default::default(),
            rows: vec![0.0; size],
            pixels: Vec::new(),
            unmasked: Vec::new(),
            inputs: Vec::new(),
            product: Vec::new(),
        }
    }

    /// Computes the first convolution with ReLU of a batch of `height x width` images, whose pixel i has
    /// the source values `values(i)` and the mask `mask[i]`, and writes it to `out` `[pixels][stride]`.
    ///
    /// Returns `false`, without touching `out`, if there are too many distinct values for tables to pay
    /// off.
    pub fn run(
        &mut self,
        weights: &LutWeights,
        fourier: &Fourier,
        mask: &[f32],
        (height, width): (usize, usize),
        values: impl Fn(usize) -> [f32; SOURCES],
        (out, stride): (&mut [f32], usize),
    ) -> bool {
        if !self.update(weights, fourier, mask, &values) {
            return false;
        }
        let n = fourier.channels() as f64;
        let row = TAPS * weights.block;
        self.pixels.clear();
        self.pixels.extend(mask.iter().enumerate().map(|(i, m)| {
            let mut pixel = Pixel {
                rows: [0; SOURCES],
                mask: *m,
                scale: 0.0,
            };
            if *m == 0.0 {
                return pixel;
            }
            let mut sums = [0.0; 2];
            for (s, (value, index)) in values(i).into_iter().zip(&self.index).enumerate() {
                // `update` has inserted every value.
                let entry = index.row.get(&value.to_bits()).copied().unwrap_or(0);
                pixel.rows[s] = (s * CAPACITY + entry) * row;
                sums[0] += index.sums[entry][0];
                sums[1] += index.sums[entry][1];
            }
            let mean = sums[0] / n;
            let variance = (sums[1] / n - mean * mean).max(0.0);
            pixel.scale = (f64::from(*m) / (variance + fourier.eps()).sqrt()) as f32;
            pixel
        }));
        let (rows, cols) = (height - 2, width - 2);
        let pixels = &self.pixels;
        self.unmasked.clear();
        self.unmasked.extend((0..out.len() / stride).map(|i| {
            let first = (i / (rows * cols) * height + i / cols % rows) * width + i % cols;
            (0..TAPS).all(|t| pixels[first + t / 3 * width + t % 3].mask == 1.0)
        }));
        let size = SOURCES * CAPACITY * row;
        for block in 0..weights.blocks {
            dispatch(
                weights.isa,
                LutConv {
                    rows: &self.rows[block * size..][..size],
                    offsets: &weights.offsets[block * row..][..row],
                    bias: &weights.bias[block * weights.block..][..weights.block],
                    full_bias: &weights.full_bias[block * weights.block..][..weights.block],
                    pixels,
                    unmasked: &self.unmasked,
                    size: (rows, cols),
                    out: &mut *out,
                    stride,
                    first: block * weights.block,
                },
            );
        }
        true
    }

    /// Adds all missing values to the tables; `false` if that costs more than it saves.
    fn update(
        &mut self,
        weights: &LutWeights,
        fourier: &Fourier,
        mask: &[f32],
        values: &impl Fn(usize) -> [f32; SOURCES],
    ) -> bool {
        let mut new: [Vec<f32>; SOURCES] = Default::default();
        let mut seen: [HashMap<u32, ()>; SOURCES] = Default::default();
        // Most values are the same as those of the previous pixel.
        let mut last = [None; SOURCES];
        for i in (0..mask.len()).filter(|i| mask[*i] != 0.0) {
            for (s, value) in values(i).into_iter().enumerate() {
                let bits = value.to_bits();
                if last[s] == Some(bits) {
                    continue;
                }
                last[s] = Some(bits);
                if seen[s].insert(bits, ()).is_none() {
                    if seen[s].len() > CAPACITY {
                        return false;
                    }
                    if !self.index[s].row.contains_key(&bits) {
                        new[s].push(value);
                    }
                }
            }
        }
        // Filling a row costs about as much as convolving a pixel. The decision does not consider which
        // rows exist already, because the two methods round differently and the result for an image must
        // not depend on earlier images.
        if seen.iter().map(HashMap::len).sum::<usize>() > mask.len() {
            return false;
        }
        for s in 0..SOURCES {
            if self.index[s].sums.len() + new[s].len() > CAPACITY {
                // The table is full: start over with the values of this image.
                self.index[s] = Index::default();
                new[s] = seen[s].keys().map(|bits| f32::from_bits(*bits)).collect();
            }
            for values in new[s].chunks(nr(weights.isa)) {
                self.add(weights, fourier, s, values);
            }
        }
        true
    }

    /// Adds up to one panel of new values of a source.
    fn add(&mut self, weights: &LutWeights, fourier: &Fourier, source: usize, values: &[f32]) {
        let columns = nr(weights.isa);
        let matrix = &weights.matrices[source];
        let depth = matrix.depth();
        self.inputs.clear();
        self.inputs.resize(depth * columns, 0.0);
        self.product.resize(matrix.rows() * columns, 0.0);
        let index = &mut self.index[source];
        let first = index.sums.len();
        let mut features = vec![0.0; depth - 1];
        for (column, value) in values.iter().enumerate() {
            fourier.features(source, *value, &mut features);
            let wide = features.iter().map(|x| f64::from(*x));
            let sums: [f64; 2] = [wide.clone().sum(), wide.map(|x| x * x).sum()];
            let mean = (-sums[0] / fourier.channels() as f64) as f32;
            for (k, x) in features.iter().chain([&mean]).enumerate() {
                self.inputs[k * columns + column] = *x;
            }
            index.row.insert(value.to_bits(), first + column);
            index.sums.push(sums);
        }
        gemm(
            matrix,
            &self.inputs,
            0,
            &mut self.product,
            0,
            1,
            Epilogue::Store,
        );
        let row = TAPS * weights.block;
        for (block, product) in self.product.chunks_exact(row * columns).enumerate() {
            for column in 0..values.len() {
                let at = ((block * SOURCES + source) * CAPACITY + first + column) * row;
                let from = product[column..].iter().step_by(columns);
                for (to, x) in self.rows[at..at + row].iter_mut().zip(from) {
                    *to = *x;
                }
            }
        }
    }
}

/// Loads the first `VECTORS` vectors of `from`.
#[inline(always)]
fn load_vectors<S: Simd>(from: &[f32]) -> [S::V; VECTORS] {
    let from = &from[..VECTORS * S::LANES];
    let mut vectors = [S::splat(0.0); VECTORS];
    for (vector, from) in vectors.iter_mut().zip(from.chunks_exact(S::LANES)) {
        *vector = S::load(from);
    }
    vectors
}

/// Computes one block of output channels for all output pixels.
struct LutConv<'a> {
    /// `[sources][CAPACITY][taps][block]`.
    rows: &'a [f32],
    /// `[taps][block]`.
    offsets: &'a [f32],
    /// `[block]`.
    bias: &'a [f32],
    /// `[block]`.
    full_bias: &'a [f32],
    pixels: &'a [Pixel],
    /// For each output pixel, whether the mask is 1 in its whole window.
    unmasked: &'a [bool],
    /// Rows and columns of an output image.
    size: (usize, usize),
    out: &'a mut [f32],
    stride: usize,
    /// First output channel of the block.
    first: usize,
}

impl SimdOp for LutConv<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self) {
        let block = VECTORS * S::LANES;
        let (rows, cols) = self.size;
        let width = cols + 2;
        let outputs = self.out.chunks_exact_mut(self.stride).zip(self.unmasked);
        for (i, (out, unmasked)) in outputs.enumerate() {
            let top = (i / (rows * cols) * (rows + 2) + i / cols % rows) * width + i % cols;
            let mut sums = load_vectors::<S>(if *unmasked { self.full_bias } else { self.bias });
            for t in 0..TAPS {
                let pixel = &self.pixels[top + t / 3 * width + t % 3];
                if pixel.mask == 0.0 {
                    continue;
                }
                let mut row = load_vectors::<S>(&self.rows[pixel.rows[0] + t * block..]);
                for at in &pixel.rows[1..] {
                    let other = load_vectors::<S>(&self.rows[at + t * block..]);
                    for (a, b) in row.iter_mut().zip(other) {
                        *a = S::add(*a, b);
                    }
                }
                let scale = S::splat(pixel.scale);
                for (sum, row) in sums.iter_mut().zip(row) {
                    *sum = S::fma(scale, row, *sum);
                }
                if !unmasked {
                    let mask = S::splat(pixel.mask);
                    let offset = load_vectors::<S>(&self.offsets[t * block..]);
                    for (sum, offset) in sums.iter_mut().zip(offset) {
                        *sum = S::fma(mask, offset, *sum);
                    }
                }
            }
            // The last block may be wider than what is left of the pixel.
            for (out, sum) in out[self.first..].chunks_exact_mut(S::LANES).zip(sums) {
                S::store(out, S::max(sum, S::splat(0.0)));
            }
        }
    }
}
