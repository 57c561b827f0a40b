//! 3x3 convolution by Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray, 2015): 36
//! multiplications for a 4x4 output tile instead of 144.
//!
//! Images are `[height][width][channels]`, with the channels zero-padded to a multiple of the GEMM
//! panel width.

use crate::{
    gemm::{GemmPackedB, chunks, nr},
    simd::{Simd, SimdOp, SupportedIsa, dispatch},
};

/// Side of an output tile, in pixels.
const OUTPUT_TILE: usize = 4;
/// Side of an input tile, in pixels.
const INPUT_TILE: usize = OUTPUT_TILE + 2;
/// Multiplications per tile and channel pair; one GEMM each.
const PRODUCTS: usize = INPUT_TILE * INPUT_TILE;
/// Maximum number of tiles per batch.
const MAX_TILES: usize = 96;

/// The weight transform, from 3 taps to 6 points.
const G: [[f64; 3]; INPUT_TILE] = [
    [1.0 / 4.0, 0.0, 0.0],
    [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
    [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
    [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
    [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
    [0.0, 0.0, 1.0],
];

/// A 3x3 convolution without padding, followed by bias and, unless it is linear, ReLU.
#[derive(Debug, Clone)]
pub(crate) struct Convolution {
    isa: SupportedIsa,
    channels: usize,
    /// Output channels, padded.
    outputs: usize,
    /// `[product][panel][channels][panel width]`, in panels of output channels.
    weights: Vec<f32>,
    bias: Vec<f32>,
    relu: bool,
}

/// Intermediate buffers of a convolution.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    transformed: Vec<f32>,
    products: Vec<f32>,
}

/// Distance in values between the planes of two products: an odd number of cache lines, which avoids
/// cache set conflicts between planes.
fn plane_stride(tiles: usize, stride: usize) -> usize {
    const LINE: usize = 16;
    let lines = (tiles * stride).div_ceil(LINE);
    (lines | 1) * LINE
}

impl Convolution {
    /// From `weight` `[outputs][channels][3][3]` and `bias` `[outputs]`.
    pub fn new(isa: SupportedIsa, channels: usize, weight: &[f32], bias: &[f32]) -> Self {
        let columns = nr(isa);
        let outputs = bias.len().next_multiple_of(columns);
        let mut weights = vec![0.0; PRODUCTS * channels * outputs];
        for (o, row) in weight.chunks_exact(channels * 9).enumerate() {
            for (c, taps) in row.as_chunks::<9>().0.iter().enumerate() {
                let at = (o / columns * channels + c) * columns + o % columns;
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
            relu: true,
        }
    }

    /// The same without ReLU.
    pub fn linear(self) -> Self {
        Self {
            relu: false,
            ..self
        }
    }

    /// Values per input pixel, including padding.
    pub fn input_stride(&self) -> usize {
        self.channels.next_multiple_of(nr(self.isa))
    }

    /// Values per output pixel, including padding.
    pub fn output_stride(&self) -> usize {
        self.outputs
    }

    /// Convolves `x` `[images][height][width][input_stride]` to `out`
    /// `[images][height - 2][width - 2][output_stride]`.
    pub fn run(
        &self,
        x: &[f32],
        images: usize,
        (height, width): (usize, usize),
        workspace: &mut Workspace,
        out: &mut [f32],
    ) {
        let stride = self.input_stride();
        let (rows, cols) = (height - 2, width - 2);
        assert_eq!(x.len(), images * height * width * stride);
        assert_eq!(out.len(), images * rows * cols * self.outputs);
        let tiles = Tiles {
            down: rows.div_ceil(OUTPUT_TILE),
            across: cols.div_ceil(OUTPUT_TILE),
            height,
            width,
        };
        let count = images * tiles.down * tiles.across;
        let max = count.min(MAX_TILES);
        let Workspace {
            transformed,
            products,
        } = workspace;
        transformed.resize(PRODUCTS * plane_stride(max, stride), 0.0);
        products.resize(PRODUCTS * plane_stride(max, self.outputs), 0.0);
        for (first, n) in chunks(count, MAX_TILES) {
            let (from, to) = (plane_stride(n, stride), plane_stride(n, self.outputs));
            dispatch(
                self.isa,
                InputTransform {
                    tiles,
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
                let gemm = GemmPackedB {
                    rows: n,
                    depth: self.channels,
                    cols: self.outputs,
                    a: &transformed[i * from..],
                    a_stride: stride,
                    b: &self.weights[i * size..][..size],
                    c: products,
                    c_stride: self.outputs,
                };
                gemm.run(self.isa);
            }
            dispatch(
                self.isa,
                OutputTransform {
                    tiles,
                    first,
                    n,
                    products,
                    plane: to,
                    bias: &self.bias,
                    relu: self.relu,
                    out,
                },
            );
        }
    }
}

/// `G w G^T`
fn transform_weight(taps: &[f32; 9]) -> [f32; PRODUCTS] {
    std::array::from_fn(|i| {
        let (a, b) = (i / INPUT_TILE, i % INPUT_TILE);
        let mut sum = 0.0;
        for y in 0..3 {
            for x in 0..3 {
                sum += G[a][y] * G[b][x] * f64::from(taps[y * 3 + x]);
            }
        }
        sum as f32
    })
}

/// How images are divided into tiles.
#[derive(Debug, Clone, Copy)]
struct Tiles {
    /// Tiles per column and per row of an image.
    down: usize,
    across: usize,
    /// Size of an input image.
    height: usize,
    width: usize,
}

impl Tiles {
    /// Image, row and column of the first pixel of a tile.
    fn origin(&self, tile: usize) -> (usize, usize, usize) {
        let (image, within) = (
            tile / (self.down * self.across),
            tile % (self.down * self.across),
        );
        (
            image,
            within / self.across * OUTPUT_TILE,
            within % self.across * OUTPUT_TILE,
        )
    }
}

/// `B^T d`, from 6 values to 6.
#[inline(always)]
fn input_transform<S: Simd>(d: [S::V; INPUT_TILE]) -> [S::V; INPUT_TILE] {
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

/// `A^T m`, from 6 values to 4.
#[inline(always)]
fn output_transform<S: Simd>(m: [S::V; INPUT_TILE]) -> [S::V; OUTPUT_TILE] {
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
fn column<V: Copy, const N: usize>(rows: &[[V; N]; INPUT_TILE], x: usize) -> [V; INPUT_TILE] {
    [
        rows[0][x], rows[1][x], rows[2][x], rows[3][x], rows[4][x], rows[5][x],
    ]
}

/// `B^T d B` of `n` input tiles, to `out` `[product][tile][channels]` with products `plane` apart.
struct InputTransform<'a> {
    tiles: Tiles,
    first: usize,
    n: usize,
    x: &'a [f32],
    stride: usize,
    plane: usize,
    out: &'a mut [f32],
}

impl SimdOp for InputTransform<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self) {
        let Tiles { height, width, .. } = self.tiles;
        let plane = self.plane;
        for tile in 0..self.n {
            let (image, top, left) = self.tiles.origin(self.first + tile);
            // Pixels outside the image are read as zero; only discarded outputs depend on them.
            let pixels: [Option<&[f32]>; PRODUCTS] = std::array::from_fn(|i| {
                let (y, x) = (top + i / INPUT_TILE, left + i % INPUT_TILE);
                (y < height && x < width).then(|| {
                    &self.x[((image * height + y) * width + x) * self.stride..][..self.stride]
                })
            });
            for c in (0..self.stride).step_by(S::LANES) {
                let mut half = [[S::splat(0.0); INPUT_TILE]; INPUT_TILE];
                for (y, row) in half.iter_mut().enumerate() {
                    let mut d = [S::splat(0.0); INPUT_TILE];
                    for (x, d) in d.iter_mut().enumerate() {
                        if let Some(pixel) = pixels[y * INPUT_TILE + x] {
                            *d = S::load(&pixel[c..]);
                        }
                    }
                    *row = input_transform::<S>(d);
                }
                for x in 0..INPUT_TILE {
                    let column = column(&half, x);
                    for (y, v) in input_transform::<S>(column).into_iter().enumerate() {
                        let at = (y * INPUT_TILE + x) * plane + tile * self.stride + c;
                        S::store(&mut self.out[at..], v);
                    }
                }
            }
        }
    }
}

/// `A^T m A` of products `[product][tile][outputs]`, plus bias, with or without ReLU, to output pixels.
struct OutputTransform<'a> {
    tiles: Tiles,
    first: usize,
    n: usize,
    products: &'a [f32],
    plane: usize,
    bias: &'a [f32],
    relu: bool,
    out: &'a mut [f32],
}

impl SimdOp for OutputTransform<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self) {
        let outputs = self.bias.len();
        let plane = self.plane;
        let (rows, cols) = (self.tiles.height - 2, self.tiles.width - 2);
        for tile in 0..self.n {
            let (image, top, left) = self.tiles.origin(self.first + tile);
            for (c, bias) in self.bias.chunks_exact(S::LANES).enumerate() {
                let c = c * S::LANES;
                let mut half = [[S::splat(0.0); OUTPUT_TILE]; INPUT_TILE];
                for (y, row) in half.iter_mut().enumerate() {
                    let mut m = [S::splat(0.0); INPUT_TILE];
                    for (x, m) in m.iter_mut().enumerate() {
                        let at = (y * INPUT_TILE + x) * plane + tile * outputs + c;
                        *m = S::load(&self.products[at..]);
                    }
                    *row = output_transform::<S>(m);
                }
                let bias = S::load(bias);
                for x in 0..OUTPUT_TILE.min(cols - left) {
                    let column = column(&half, x);
                    let column = output_transform::<S>(column);
                    for (y, v) in column.into_iter().enumerate().take(rows - top) {
                        let at = ((image * rows + top + y) * cols + left + x) * outputs + c;
                        let v = S::add(v, bias);
                        let v = if self.relu {
                            S::max(v, S::splat(0.0))
                        } else {
                            v
                        };
                        S::store(&mut self.out[at..], v);
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
    fn convolutions_match_the_definition() {
        let mut worst: f64 = 0.0;
        for isa in SupportedIsa::all() {
            for (images, height, width, c, o) in [
                (1, 3, 3, 1, 1),
                (3, 3, 3, 5, 7),
                (1, 3, 9, 52, 32),
                (1, 6, 3, 16, 68),
                (2, 7, 11, 203, 52),
                (70, 5, 5, 20, 9),
                (1, 34, 36, 9, 33),
                (1, 10, 12, 404, 404),
            ] {
                let x = reference::noise(1, images * height * width * c);
                let limit = (3.0 / (9 * c) as f32).sqrt();
                let weight: Vec<f32> = reference::noise(2, o * c * 9)
                    .iter()
                    .map(|w| w * limit)
                    .collect();
                let bias = reference::noise(3, o);
                let conv = Convolution::new(isa, c, &weight, &bias);
                let stride = conv.input_stride();
                let mut padded = vec![0.0; images * height * width * stride];
                for (to, from) in padded.chunks_exact_mut(stride).zip(x.chunks_exact(c)) {
                    to[..c].copy_from_slice(from);
                }
                let kept = images * (height - 2) * (width - 2);
                let mut out = vec![f32::NAN; kept * conv.output_stride()];
                let mut workspace = Workspace::default();
                conv.run(&padded, images, (height, width), &mut workspace, &mut out);
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
                        // The transforms magnify rounding errors by up to about 100; inputs and outputs
                        // are near 1.
                        assert!(
                            error < 5e-5,
                            "{isa} {images}x{height}x{width} {c}->{o}: {error:.1e}"
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
