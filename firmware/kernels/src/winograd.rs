//! 3x3 convolutions by Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray, 2015): 36
//! products give 16 pixels that take 144 directly.
//!
//! Pictures are `[height][width][channels]`, the channels padded with zeros to a multiple of the
//! register block.

use crate::{
    gemm::{ByPanels, block_cols, chunks},
    simd::{Isa, Kernel, Simd, dispatch},
};

/// Pixels of the answer along a side of a square.
const SIDE: usize = 4;
/// Pixels of the input along a side of a square.
const REACH: usize = SIDE + 2;
/// Products for a square.
const PRODUCTS: usize = REACH * REACH;
/// Squares that are worked on at once, at most.
const SQUARES: usize = 96;

/// The transform of the weights, from three taps to six products.
const G: [[f64; 3]; REACH] = [
    [1.0 / 4.0, 0.0, 0.0],
    [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
    [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
    [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
    [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
    [0.0, 0.0, 1.0],
];

/// A 3x3 convolution without padding, with bias and ReLU.
#[derive(Debug, Clone)]
pub(crate) struct Convolution {
    isa: Isa,
    channels: usize,
    /// Channels of the answer, padded.
    outputs: usize,
    /// For each product, panels of output channels: `[panel][channels][panel width]`.
    weights: Vec<f32>,
    bias: Vec<f32>,
}

/// Room for a convolution's intermediate values.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    transformed: Vec<f32>,
    products: Vec<f32>,
}

/// Distance between the planes of two products: an odd number of cache lines, so that the planes do
/// not all fall into the same few sets of a cache.
fn plane(squares: usize, stride: usize) -> usize {
    const LINE: usize = 16;
    let lines = (squares * stride).div_ceil(LINE);
    (lines | 1) * LINE
}

impl Convolution {
    /// From weights `[outputs][channels][3][3]`.
    pub fn new(isa: Isa, channels: usize, weight: &[f32], bias: &[f32]) -> Self {
        let wide = block_cols(isa);
        let outputs = bias.len().next_multiple_of(wide);
        let mut weights = vec![0.0; PRODUCTS * channels * outputs];
        for (o, row) in weight.chunks_exact(channels * 9).enumerate() {
            for (c, taps) in row.as_chunks::<9>().0.iter().enumerate() {
                let at = (o / wide * channels + c) * wide + o % wide;
                for (i, u) in transform_weight(taps).into_iter().enumerate() {
                    weights[i * channels * outputs + at] = u;
                }
            }
        }
        let mut padded = bias.to_vec();
        padded.resize(outputs, 0.0);
        Self {
            isa,
            channels,
            outputs,
            weights,
            bias: padded,
        }
    }

    /// Values of a pixel of the input, its padding among them.
    pub fn input_stride(&self) -> usize {
        self.channels.next_multiple_of(block_cols(self.isa))
    }

    /// Values of a pixel of the answer, its padding among them.
    pub fn output_stride(&self) -> usize {
        self.outputs
    }

    /// `pictures` pictures of `height x width`, one after another, to as many that are two pixels
    /// shorter either way.
    pub fn run(
        &self,
        x: &[f32],
        pictures: usize,
        (height, width): (usize, usize),
        scratch: &mut Scratch,
        out: &mut [f32],
    ) {
        let stride = self.input_stride();
        let (rows, cols) = (height - 2, width - 2);
        assert_eq!(x.len(), pictures * height * width * stride);
        assert_eq!(out.len(), pictures * rows * cols * self.outputs);
        let squares = Squares {
            down: rows.div_ceil(SIDE),
            across: cols.div_ceil(SIDE),
            height,
            width,
        };
        let count = pictures * squares.down * squares.across;
        let most = count.min(SQUARES);
        let Scratch {
            transformed,
            products,
        } = scratch;
        transformed.resize(PRODUCTS * plane(most, stride), 0.0);
        products.resize(PRODUCTS * plane(most, self.outputs), 0.0);
        for (first, n) in chunks(count, SQUARES) {
            let (from, to) = (plane(n, stride), plane(n, self.outputs));
            dispatch(
                self.isa,
                Forward {
                    squares,
                    first,
                    n,
                    x,
                    stride,
                    plane: from,
                    out: transformed,
                },
            );
            let size = self.channels * self.outputs;
            for (i, products) in products.chunks_exact_mut(to).take(PRODUCTS).enumerate() {
                let product = ByPanels {
                    rows: n,
                    depth: self.channels,
                    cols: self.outputs,
                    left: &transformed[i * from..],
                    left_row: stride,
                    right: &self.weights[i * size..][..size],
                    out: products,
                    out_row: self.outputs,
                };
                product.compute(self.isa);
            }
            dispatch(
                self.isa,
                Backward {
                    squares,
                    first,
                    n,
                    products,
                    plane: to,
                    bias: &self.bias,
                    out,
                },
            );
        }
    }
}

/// `G w G^T`
fn transform_weight(taps: &[f32; 9]) -> [f32; PRODUCTS] {
    std::array::from_fn(|i| {
        let (a, b) = (i / REACH, i % REACH);
        let mut sum = 0.0;
        for y in 0..3 {
            for x in 0..3 {
                sum += G[a][y] * G[b][x] * f64::from(taps[y * 3 + x]);
            }
        }
        sum as f32
    })
}

/// How pictures are cut into squares.
#[derive(Debug, Clone, Copy)]
struct Squares {
    down: usize,
    across: usize,
    /// Of the input.
    height: usize,
    width: usize,
}

impl Squares {
    /// Picture, row and column of the first pixel of a square.
    fn origin(&self, square: usize) -> (usize, usize, usize) {
        let (picture, within) = (
            square / (self.down * self.across),
            square % (self.down * self.across),
        );
        (
            picture,
            within / self.across * SIDE,
            within % self.across * SIDE,
        )
    }
}

/// Six values in, six out: `B^T d`.
#[inline(always)]
fn forward<S: Simd>(d: [S::V; REACH]) -> [S::V; REACH] {
    let (two, four, minus_four, minus_five) =
        (S::splat(2.0), S::splat(4.0), S::splat(-4.0), S::splat(-5.0));
    let even = S::fma(minus_four, d[2], d[4]);
    let odd = S::fma(minus_four, d[1], d[3]);
    let (even2, odd2) = (S::sub(d[4], d[2]), S::mul(two, S::sub(d[3], d[1])));
    [
        S::fma(four, d[0], S::fma(minus_five, d[2], d[4])),
        S::add(even, odd),
        S::sub(even, odd),
        S::add(even2, odd2),
        S::sub(even2, odd2),
        S::fma(four, d[1], S::fma(minus_five, d[3], d[5])),
    ]
}

/// Six values in, four out: `A^T m`.
#[inline(always)]
fn backward<S: Simd>(m: [S::V; REACH]) -> [S::V; SIDE] {
    let (two, four, eight) = (S::splat(2.0), S::splat(4.0), S::splat(8.0));
    let (sum, difference) = (S::add(m[1], m[2]), S::sub(m[1], m[2]));
    let (sum2, difference2) = (S::add(m[3], m[4]), S::sub(m[3], m[4]));
    [
        S::add(S::add(m[0], sum), sum2),
        S::fma(two, difference2, difference),
        S::fma(four, sum2, sum),
        S::add(S::fma(eight, difference2, difference), m[5]),
    ]
}

#[inline(always)]
fn column<V: Copy, const N: usize>(rows: &[[V; N]; REACH], x: usize) -> [V; REACH] {
    [
        rows[0][x], rows[1][x], rows[2][x], rows[3][x], rows[4][x], rows[5][x],
    ]
}

/// Squares of pictures to what the products are made of: `[product][square][channels]`, the products
/// `plane` apart.
struct Forward<'a> {
    squares: Squares,
    first: usize,
    n: usize,
    x: &'a [f32],
    stride: usize,
    plane: usize,
    out: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Squares { height, width, .. } = self.squares;
        let plane = self.plane;
        for square in 0..self.n {
            let (picture, top, left) = self.squares.origin(self.first + square);
            // Pixels beyond the picture count as zero: they are part of no pixel that is kept.
            let pixels: [Option<&[f32]>; PRODUCTS] = std::array::from_fn(|i| {
                let (y, x) = (top + i / REACH, left + i % REACH);
                (y < height && x < width).then(|| {
                    &self.x[((picture * height + y) * width + x) * self.stride..][..self.stride]
                })
            });
            for c in (0..self.stride).step_by(S::LANES) {
                let mut half = [[S::splat(0.0); REACH]; REACH];
                for (y, row) in half.iter_mut().enumerate() {
                    let mut d = [S::splat(0.0); REACH];
                    for (x, d) in d.iter_mut().enumerate() {
                        if let Some(pixel) = pixels[y * REACH + x] {
                            *d = S::get(&pixel[c..]);
                        }
                    }
                    *row = forward::<S>(d);
                }
                for x in 0..REACH {
                    let column = column(&half, x);
                    for (y, v) in forward::<S>(column).into_iter().enumerate() {
                        let at = (y * REACH + x) * plane + square * self.stride + c;
                        S::put(&mut self.out[at..], v);
                    }
                }
            }
        }
    }
}

/// Products `[product][square][outputs]` to pixels, with bias and ReLU.
struct Backward<'a> {
    squares: Squares,
    first: usize,
    n: usize,
    products: &'a [f32],
    plane: usize,
    bias: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let outputs = self.bias.len();
        let plane = self.plane;
        let (rows, cols) = (self.squares.height - 2, self.squares.width - 2);
        for square in 0..self.n {
            let (picture, top, left) = self.squares.origin(self.first + square);
            for (c, bias) in self.bias.chunks_exact(S::LANES).enumerate() {
                let c = c * S::LANES;
                let mut half = [[S::splat(0.0); SIDE]; REACH];
                for (y, row) in half.iter_mut().enumerate() {
                    let mut m = [S::splat(0.0); REACH];
                    for (x, m) in m.iter_mut().enumerate() {
                        let at = (y * REACH + x) * plane + square * outputs + c;
                        *m = S::get(&self.products[at..]);
                    }
                    *row = backward::<S>(m);
                }
                let bias = S::get(bias);
                for x in 0..SIDE.min(cols - left) {
                    let column = column(&half, x);
                    let column = backward::<S>(column);
                    for (y, v) in column.into_iter().enumerate().take(rows - top) {
                        let at = ((picture * rows + top + y) * cols + left + x) * outputs + c;
                        let v = S::max(S::add(v, bias), S::splat(0.0));
                        S::put(&mut self.out[at..], v);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference;

    #[test]
    fn convolutions_of_awkward_shapes_are_those_of_the_definition() {
        let mut worst: f64 = 0.0;
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            for (pictures, height, width, c, o) in [
                (1, 3, 3, 1, 1),
                (3, 3, 3, 5, 7),
                (1, 3, 9, 52, 32),
                (1, 6, 3, 16, 68),
                (2, 7, 11, 203, 52),
                (70, 5, 5, 20, 9),
                (1, 34, 36, 9, 33),
                (1, 10, 12, 404, 404),
            ] {
                let x = reference::noise(1, pictures * height * width * c);
                let limit = (3.0 / (9 * c) as f32).sqrt();
                let weight: Vec<f32> = reference::noise(2, o * c * 9)
                    .iter()
                    .map(|w| w * limit)
                    .collect();
                let bias = reference::noise(3, o);
                let conv = Convolution::new(isa, c, &weight, &bias);
                let stride = conv.input_stride();
                let mut padded = vec![0.0; pictures * height * width * stride];
                for (to, from) in padded.chunks_exact_mut(stride).zip(x.chunks_exact(c)) {
                    to[..c].copy_from_slice(from);
                }
                let kept = pictures * (height - 2) * (width - 2);
                let mut out = vec![f32::NAN; kept * conv.output_stride()];
                let mut scratch = Scratch::default();
                conv.run(&padded, pictures, (height, width), &mut scratch, &mut out);
                let x: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
                let exact: Vec<f64> = x
                    .chunks_exact(height * width * c)
                    .flat_map(|x| reference::convolution(x, (height, width), &weight, &bias))
                    .collect();
                for (found, exact) in out
                    .chunks_exact(conv.output_stride())
                    .zip(exact.chunks_exact(o))
                {
                    for (a, b) in found.iter().zip(exact) {
                        let error = (f64::from(*a) - b).abs();
                        // The transforms multiply rounding errors by up to about 100; inputs and
                        // outputs are near 1.
                        assert!(
                            error < 5e-5,
                            "{isa} {pictures}x{height}x{width} {c}->{o}: {error:.1e}"
                        );
                        worst = worst.max(error);
                    }
                    assert!(found[o..].iter().all(|x| *x == 0.0));
                }
            }
        }
        println!("worst error {worst:.1e}");
    }
}
