//! 3x3 convolution by Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray, 2015): 36
//! multiplications for a 4x4 output tile instead of 144.
//!
//! Images are `[height][width][channels]`, with the channels zero-padded to a multiple of the GEMM
//! panel width.

use crate::{
    gemm::{GemmPackedB, NarrowColumns, chunks, nr, round_row},
    simd::{
        Narrow, NarrowOp, Simd, SimdOp, SupportedFormat, SupportedIsa, dispatch, dispatch_narrow,
    },
};

/// Side of an output tile, in pixels.
pub(crate) const OUTPUT_TILE: usize = 4;
/// Side of an input tile, in pixels.
const INPUT_TILE: usize = OUTPUT_TILE + 2;
/// Multiplications per tile and channel pair; one GEMM each.
const PRODUCTS: usize = INPUT_TILE * INPUT_TILE;
/// Maximum number of tiles per batch.
const MAX_TILES: usize = 96;

/// The interpolation points of the algorithm: 0, +-`P`, +-`Q` and infinity.
///
/// The transforms follow from them: rows of the output transform `A^T` are powers of the points, rows of
/// the input transform `B^T` are products of `x` minus the other points, and rows of the weight transform
/// `G` are powers divided by the value of that product at the point.
trait Points: 'static {
    const P: f64;
    const Q: f64;
}

/// Points whose transforms are exact in 32 bits.
struct Integers;

impl Points for Integers {
    const P: f64 = 1.0;
    const Q: f64 = 2.0;
}

/// Points with the least magnification of rounding errors of the operands, half that of [`Integers`]; for
/// narrow operands.
struct Balanced;

impl Points for Balanced {
    const P: f64 = 2.0 / 3.0;
    const Q: f64 = 3.0 / 2.0;
}

/// The weight transform, from 3 taps to 6 points.
fn weight_transform<T: Points>() -> [[f64; 3]; INPUT_TILE] {
    let (p2, q2) = (T::P * T::P, T::Q * T::Q);
    let finite = |x: f64, value: f64| [1.0 / value, x / value, x * x / value];
    let (p, q) = (2.0 * p2 * (p2 - q2), 2.0 * q2 * (q2 - p2));
    [
        finite(0.0, p2 * q2),
        finite(T::P, p),
        finite(-T::P, p),
        finite(T::Q, q),
        finite(-T::Q, q),
        [0.0, 0.0, 1.0],
    ]
}

/// A 3x3 convolution without padding, followed by bias and, unless it is linear, ReLU.
#[derive(Debug, Clone)]
pub(crate) struct Convolution {
    isa: SupportedIsa,
    channels: usize,
    /// Output channels, padded.
    outputs: usize,
    weights: Weights,
    bias: Vec<f32>,
    relu: bool,
}

/// Transformed weights in the format of the products.
#[derive(Debug, Clone)]
enum Weights {
    /// `[product][panel][channels][panel width]`, in panels of output channels.
    Fp32(Vec<f32>),
    /// A matrix for each product.
    Narrow(Vec<NarrowColumns>),
}

/// Intermediate buffers of a convolution.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    transformed: Vec<f32>,
    /// The same, rounded, with the scale of each tile: `[product][tiles]`.
    rounded: Vec<u32>,
    scales: Vec<f32>,
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
    /// Prepares `weight` `[outputs][channels][3][3]` and `bias` `[outputs]`. With a 16-bit `format`, the
    /// operands of the products are rounded.
    pub fn new(
        isa: SupportedIsa,
        format: Option<SupportedFormat>,
        channels: usize,
        weight: &[f32],
        bias: &[f32],
    ) -> Self {
        let columns = nr(isa);
        let outputs = bias.len().next_multiple_of(columns);
        let size = channels * outputs;
        let g = match format {
            None => weight_transform::<Integers>(),
            Some(_) => weight_transform::<Balanced>(),
        };
        let mut weights = vec![0.0; PRODUCTS * size];
        for (o, row) in weight.chunks_exact(channels * 9).enumerate() {
            for (c, taps) in row.as_chunks::<9>().0.iter().enumerate() {
                let at = (o / columns * channels + c) * columns + o % columns;
                for (i, u) in transform_weight(&g, taps).into_iter().enumerate() {
                    weights[i * size + at] = u;
                }
            }
        }
        let weights = match format {
            None => Weights::Fp32(weights),
            Some(format) => {
                let product = |weights: &[f32]| {
                    NarrowColumns::new(format, channels, outputs, |c, o| {
                        weights[(o / columns * channels + c) * columns + o % columns]
                    })
                };
                Weights::Narrow(weights.chunks_exact(size).map(product).collect())
            }
        };
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

    /// Returns the convolution without ReLU.
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
        let (rows, cols) = (height - 2, width - 2);
        assert_eq!(out.len(), images * rows * cols * self.outputs);
        self.run_into(x, images, (height, width), workspace, (out, cols));
    }

    /// Same as [`Self::run`], with rows of the output `pitch` pixels apart.
    pub fn run_into(
        &self,
        x: &[f32],
        images: usize,
        (height, width): (usize, usize),
        workspace: &mut Workspace,
        (out, pitch): (&mut [f32], usize),
    ) {
        let stride = self.input_stride();
        let (rows, cols) = (height - 2, width - 2);
        assert_eq!(x.len(), images * height * width * stride);
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
            rounded,
            scales,
            products,
        } = workspace;
        products.resize(PRODUCTS * plane_stride(max, self.outputs), 0.0);
        match self.weights {
            Weights::Fp32(_) => transformed.resize(PRODUCTS * plane_stride(max, stride), 0.0),
            Weights::Narrow(_) => {
                transformed.resize(PRODUCTS * stride, 0.0);
                rounded.resize(PRODUCTS * plane_stride(max, stride / 2), 0);
                scales.resize(PRODUCTS * max, 1.0);
            }
        }
        for (first, n) in chunks(count, MAX_TILES) {
            let to = plane_stride(n, self.outputs);
            let input = InputTransform { tiles, x, stride };
            let planes = products.chunks_exact_mut(to).take(PRODUCTS).enumerate();
            match &self.weights {
                Weights::Fp32(weights) => {
                    let from = plane_stride(n, stride);
                    let transform = TransformFp32 {
                        input,
                        first,
                        n,
                        plane: from,
                        out: transformed,
                    };
                    dispatch(self.isa, transform);
                    let size = self.channels * self.outputs;
                    for (i, products) in planes {
                        let gemm = GemmPackedB {
                            rows: n,
                            depth: self.channels,
                            cols: self.outputs,
                            a: &transformed[i * from..],
                            a_stride: stride,
                            b: &weights[i * size..][..size],
                            c: products,
                            c_stride: self.outputs,
                            scales: None,
                        };
                        gemm.run(self.isa);
                    }
                }
                Weights::Narrow(weights) => {
                    let from = plane_stride(n, stride / 2);
                    let transform = TransformNarrow {
                        input,
                        first,
                        n,
                        plane: from,
                        limit: weights[0].limit(),
                        tile: transformed,
                        out: rounded,
                        scales,
                    };
                    dispatch_narrow(weights[0].format(), transform);
                    for (i, products) in planes {
                        let a = (&rounded[i * from..], stride / 2);
                        let c = (products, self.outputs);
                        weights[i].multiply(n, a, &scales[i * n..], c);
                    }
                }
            }
            let output = OutputTransform {
                tiles,
                first,
                n,
                products,
                plane: to,
                bias: &self.bias,
                relu: self.relu,
                out,
                pitch,
            };
            match self.weights {
                Weights::Fp32(_) => dispatch(self.isa, OutputOf::<Integers>::new(output)),
                Weights::Narrow(_) => dispatch(self.isa, OutputOf::<Balanced>::new(output)),
            }
        }
    }
}

/// `G w G^T`
fn transform_weight(g: &[[f64; 3]; INPUT_TILE], taps: &[f32; 9]) -> [f32; PRODUCTS] {
    std::array::from_fn(|i| {
        let (a, b) = (i / INPUT_TILE, i % INPUT_TILE);
        let mut sum = 0.0;
        for y in 0..3 {
            for x in 0..3 {
                sum += g[a][y] * g[b][x] * f64::from(taps[y * 3 + x]);
            }
        }
        sum as f32
    })
}

/// The division of images into tiles.
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
    /// Returns the image, row and column of the first pixel of a tile.
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
fn input_transform<S: Simd, T: Points>(d: [S::V; INPUT_TILE]) -> [S::V; INPUT_TILE] {
    let constant = |x: f64| S::splat(x as f32);
    let (p, q) = (constant(T::P), constant(T::Q));
    let (minus_p2, minus_q2) = (constant(-T::P * T::P), constant(-T::Q * T::Q));
    let product = constant(T::P * T::P * T::Q * T::Q);
    let minus_sum = constant(-T::P * T::P - T::Q * T::Q);
    let even = S::fma(minus_q2, d[2], d[4]);
    let odd = S::mul(p, S::fma(minus_q2, d[1], d[3]));
    let even2 = S::fma(minus_p2, d[2], d[4]);
    let odd2 = S::mul(q, S::fma(minus_p2, d[1], d[3]));
    [
        S::fma(product, d[0], S::fma(minus_sum, d[2], d[4])),
        S::add(even, odd),
        S::sub(even, odd),
        S::add(even2, odd2),
        S::sub(even2, odd2),
        S::fma(product, d[1], S::fma(minus_sum, d[3], d[5])),
    ]
}

/// `A^T m`, from 6 values to 4.
#[inline(always)]
fn output_transform<S: Simd, T: Points>(m: [S::V; INPUT_TILE]) -> [S::V; OUTPUT_TILE] {
    let constant = |x: f64| S::splat(x as f32);
    let [p, p2, p3] = [T::P, T::P * T::P, T::P * T::P * T::P].map(constant);
    let [q, q2, q3] = [T::Q, T::Q * T::Q, T::Q * T::Q * T::Q].map(constant);
    let (sum, difference) = (S::add(m[1], m[2]), S::sub(m[1], m[2]));
    let (sum2, difference2) = (S::add(m[3], m[4]), S::sub(m[3], m[4]));
    [
        S::add(S::add(m[0], sum), sum2),
        S::fma(q, difference2, S::mul(p, difference)),
        S::fma(q2, sum2, S::mul(p2, sum)),
        S::add(S::fma(q3, difference2, S::mul(p3, difference)), m[5]),
    ]
}

#[inline(always)]
fn column<V: Copy, const N: usize>(rows: &[[V; N]; INPUT_TILE], x: usize) -> [V; INPUT_TILE] {
    [
        rows[0][x], rows[1][x], rows[2][x], rows[3][x], rows[4][x], rows[5][x],
    ]
}

/// `B^T d B` of input tiles.
struct InputTransform<'a> {
    tiles: Tiles,
    x: &'a [f32],
    stride: usize,
}

impl InputTransform<'_> {
    /// Transforms a tile to `out`, where products are `plane` apart.
    #[inline(always)]
    fn tile<S: Simd, T: Points>(&self, tile: usize, plane: usize, out: &mut [f32]) {
        let Tiles { height, width, .. } = self.tiles;
        let (image, top, left) = self.tiles.origin(tile);
        let first = ((image * height + top) * width + left) * self.stride;
        // Pixels outside the image are read as zero; only discarded outputs depend on them.
        let (down, across) = (INPUT_TILE.min(height - top), INPUT_TILE.min(width - left));
        for c in (0..self.stride).step_by(S::LANES) {
            let at = first + c;
            // The same call with constants, for most tiles: no branch for a pixel.
            let half = if (down, across) == (INPUT_TILE, INPUT_TILE) {
                self.rows::<S, T>(at, INPUT_TILE, INPUT_TILE)
            } else {
                self.rows::<S, T>(at, down, across)
            };
            for x in 0..INPUT_TILE {
                let column = column(&half, x);
                for (y, v) in input_transform::<S, T>(column).into_iter().enumerate() {
                    S::store(&mut out[(y * INPUT_TILE + x) * plane + c..], v);
                }
            }
        }
    }

    /// Transforms the rows of a tile of `down` by `across` pixels whose first value is at `at`.
    #[inline(always)]
    fn rows<S: Simd, T: Points>(
        &self,
        at: usize,
        down: usize,
        across: usize,
    ) -> [[S::V; INPUT_TILE]; INPUT_TILE] {
        let mut half = [[S::splat(0.0); INPUT_TILE]; INPUT_TILE];
        for (y, row) in half.iter_mut().enumerate() {
            let mut d = [S::splat(0.0); INPUT_TILE];
            for (x, d) in d.iter_mut().enumerate() {
                if y < down && x < across {
                    *d = S::load(&self.x[at + (y * self.tiles.width + x) * self.stride..]);
                }
            }
            *row = input_transform::<S, T>(d);
        }
        half
    }
}

/// Transforms `n` tiles from `first`, to `[product][tile][channels]` with products `plane` apart.
struct TransformFp32<'a> {
    input: InputTransform<'a>,
    first: usize,
    n: usize,
    plane: usize,
    out: &'a mut [f32],
}

impl SimdOp for TransformFp32<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self) {
        for i in 0..self.n {
            let out = &mut self.out[i * self.input.stride..];
            self.input
                .tile::<S, Integers>(self.first + i, self.plane, out);
        }
    }
}

/// Same as [`TransformFp32`], rounded to words.
struct TransformNarrow<'a> {
    input: InputTransform<'a>,
    first: usize,
    n: usize,
    plane: usize,
    /// Largest magnitude of integers.
    limit: f32,
    /// A transformed tile, `[product][channels]`.
    tile: &'a mut [f32],
    out: &'a mut [u32],
    /// `[product][tiles]`.
    scales: &'a mut [f32],
}

impl NarrowOp for TransformNarrow<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<N: Narrow>(self) {
        let stride = self.input.stride;
        let words = stride / N::FORMAT.group();
        for i in 0..self.n {
            (self.input).tile::<N::S, Balanced>(self.first + i, stride, self.tile);
            for (product, row) in self.tile.chunks_exact(stride).enumerate() {
                let out = &mut self.out[product * self.plane + i * words..][..words];
                self.scales[product * self.n + i] = round_row::<N>(row, self.limit, out);
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
    /// Distance between rows of `out` in pixels.
    pitch: usize,
}

/// An output transform with the interpolation points of the products.
struct OutputOf<'a, T>(OutputTransform<'a>, std::marker::PhantomData<T>);

impl<'a, T> OutputOf<'a, T> {
    fn new(transform: OutputTransform<'a>) -> Self {
        Self(transform, std::marker::PhantomData)
    }
}

impl<T: Points> SimdOp for OutputOf<'_, T> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self) {
        self.0.run::<S, T>();
    }
}

impl OutputTransform<'_> {
    /// Loads row `y` of the products of a tile, which are at `at` in each plane.
    #[inline(always)]
    fn products<S: Simd>(&self, at: usize, y: usize) -> [S::V; INPUT_TILE] {
        let first = y * INPUT_TILE * self.plane + at;
        let product = |x: usize| S::load(&self.products[first + x * self.plane..]);
        [
            product(0),
            product(1),
            product(2),
            product(3),
            product(4),
            product(5),
        ]
    }

    #[inline(always)]
    fn run<S: Simd, T: Points>(self) {
        let outputs = self.bias.len();
        let (rows, cols) = (self.tiles.height - 2, self.tiles.width - 2);
        for tile in 0..self.n {
            let (image, top, left) = self.tiles.origin(self.first + tile);
            for (c, bias) in self.bias.chunks_exact(S::LANES).enumerate() {
                let c = c * S::LANES;
                let row = tile * outputs + c;
                let half = [
                    output_transform::<S, T>(self.products::<S>(row, 0)),
                    output_transform::<S, T>(self.products::<S>(row, 1)),
                    output_transform::<S, T>(self.products::<S>(row, 2)),
                    output_transform::<S, T>(self.products::<S>(row, 3)),
                    output_transform::<S, T>(self.products::<S>(row, 4)),
                    output_transform::<S, T>(self.products::<S>(row, 5)),
                ];
                let bias = S::load(bias);
                let store = |out: &mut [f32], v: S::V| {
                    let v = S::add(v, bias);
                    S::store(
                        out,
                        if self.relu {
                            S::max(v, S::splat(0.0))
                        } else {
                            v
                        },
                    );
                };
                let columns: [[S::V; OUTPUT_TILE]; OUTPUT_TILE] = [
                    output_transform::<S, T>(column(&half, 0)),
                    output_transform::<S, T>(column(&half, 1)),
                    output_transform::<S, T>(column(&half, 2)),
                    output_transform::<S, T>(column(&half, 3)),
                ];
                let (down, across) = (OUTPUT_TILE.min(rows - top), OUTPUT_TILE.min(cols - left));
                let first = ((image * rows + top) * self.pitch + left) * outputs + c;
                // The same with constants for most tiles.
                if (down, across) == (OUTPUT_TILE, OUTPUT_TILE) {
                    let [a, b, c, d] = columns;
                    let rows = a.into_iter().zip(b).zip(c.into_iter().zip(d));
                    for (y, ((a, b), (c, d))) in rows.enumerate() {
                        let row = &mut self.out[first + y * self.pitch * outputs..];
                        store(row, a);
                        store(&mut row[outputs..], b);
                        store(&mut row[2 * outputs..], c);
                        store(&mut row[3 * outputs..], d);
                    }
                    continue;
                }
                for (x, column) in columns.iter().enumerate().take(across) {
                    for (y, v) in column.iter().enumerate().take(down) {
                        store(&mut self.out[first + (y * self.pitch + x) * outputs..], *v);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{reference, simd::Format};

    #[test]
    fn convolutions_match_the_definition() {
        for isa in SupportedIsa::all() {
            // The transforms magnify rounding errors by up to about 100; inputs and outputs are near 1.
            compare(isa, None, 5e-5);
        }
    }

    #[test]
    fn rounded_convolutions_are_near_the_definition() {
        for (format, limit) in [
            // As 16-bit integers; sums of up to 32 products round to 2^-11.
            (Format::Fp16, 2e-2),
            // Operands have a relative error of 2^-9 at most, which the transforms magnify by about 5 in the
            // root mean square; the worst of 70,000 outputs is five times as far away.
            (Format::Bf16, 8e-2),
            // Steps are 1/2300 of the largest of 404 values or less, which is about four times the root mean
            // square: a quarter of the error of bfloat16.
            (Format::Int16, 2e-2),
        ] {
            let supported = |isa| Some((isa, format.supported(isa)?));
            let all: Vec<_> = SupportedIsa::all().filter_map(supported).collect();
            if all.is_empty() {
                println!("skipped: this CPU has no instructions for {format}");
            }
            for (isa, format) in all {
                compare(isa, Some(format), limit);
            }
        }
    }

    fn compare(isa: SupportedIsa, format: Option<SupportedFormat>, limit: f64) {
        let mut worst: f64 = 0.0;
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
            let scale = (3.0 / (9 * c) as f32).sqrt();
            let weight: Vec<f32> = reference::noise(2, o * c * 9)
                .iter()
                .map(|w| w * scale)
                .collect();
            let bias = reference::noise(3, o);
            let conv = Convolution::new(isa, format, c, &weight, &bias);
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
                    assert!(
                        error < limit,
                        "{isa} {images}x{height}x{width} {c}->{o}: {error:.1e}"
                    );
                    worst = worst.max(error);
                }
                assert!(found[o..].iter().all(|x| *x == 0.0));
            }
        }
        let format = format.map(|f| f.format().to_string()).unwrap_or_default();
        println!("{isa} {format}: worst error {worst:.1e}");
    }
}
