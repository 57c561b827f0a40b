//! The layers of a branch, for a rectangle of the image.
//!
//! Convolutions use reflect padding: outside the image, the input of each layer is reflected.

use loftup_spec::{
    naf::{Branch, BranchWeights, WIDTH},
    weights::{AffineWeights, ConvWeights},
};

use super::{
    frame::{Area, Image, Patch, reflected},
    statistics::Affine,
};
use crate::{
    gemm::{GemmPackedB, chunks, nr},
    math::silu,
    simd::{Simd, SimdOp, SupportedIsa, dispatch},
    winograd::{self, Convolution, OUTPUT_TILE},
};

/// Number of rows and maximum number of columns of pixels convolved together: the input of a row of
/// Winograd's tiles, its transform and its products stay in the L2 cache.
const ROWS: usize = OUTPUT_TILE;
const STRIP: usize = 96;
/// Number of pixels per block of a 1x1 convolution.
const BLOCK: usize = 96;
/// Row stride of the left operand in values: 128 channels, a one for the bias, and padding to whole
/// cache lines.
const STRIDE: usize = WIDTH + 16;

/// A linear layer with the bias as weights of an additional input that is one.
#[derive(Debug)]
struct WithBias {
    isa: SupportedIsa,
    depth: usize,
    /// `[panels][depth][NR]`.
    packed: Vec<f32>,
}

impl WithBias {
    fn new(isa: SupportedIsa, ConvWeights { weight, bias }: &ConvWeights) -> Self {
        let columns = nr(isa);
        let inputs = weight.len() / bias.len();
        let depth = inputs + 1;
        let mut packed = vec![0.0; depth * bias.len().next_multiple_of(columns)];
        for (o, (row, bias)) in weight.chunks_exact(inputs).zip(bias).enumerate() {
            for (k, w) in row.iter().chain([bias]).enumerate() {
                packed[(o / columns * depth + k) * columns + o % columns] = *w;
            }
        }
        Self { isa, depth, packed }
    }

    /// Computes `out` `[n, 128]` from `a`, whose rows are `stride` values apart.
    fn run(&self, a: &[f32], stride: usize, out: &mut [f32]) {
        let gemm = GemmPackedB {
            rows: out.len() / WIDTH,
            depth: self.depth,
            cols: WIDTH,
            a,
            a_stride: stride,
            b: &self.packed,
            c: out,
            c_stride: WIDTH,
            scales: None,
        };
        gemm.run(self.isa);
    }
}

#[derive(Debug)]
enum Conv {
    Pointwise(WithBias),
    Spatial(Convolution),
}

/// The weights of a branch, packed.
#[derive(Debug)]
pub(super) struct BranchLayers {
    isa: SupportedIsa,
    branch: Branch,
    first: WithBias,
    layers: Vec<(AffineWeights, Conv)>,
}

/// Buffers of layers.
#[derive(Debug, Default)]
pub(super) struct LayerBuffers {
    /// Inputs of a matrix product.
    rows: Vec<f32>,
    /// A normalized input with padding.
    padded: Vec<f32>,
    winograd: winograd::Workspace,
}

impl BranchLayers {
    pub fn new(isa: SupportedIsa, branch: Branch, weights: &BranchWeights) -> Self {
        let conv = |conv: &ConvWeights| match branch {
            Branch::Pointwise => Conv::Pointwise(WithBias::new(isa, conv)),
            Branch::Spatial => {
                Conv::Spatial(Convolution::new(isa, None, WIDTH, &conv.weight, &conv.bias).linear())
            }
        };
        Self {
            isa,
            branch,
            first: WithBias::new(isa, &weights.first),
            layers: (weights.layers.iter())
                .map(|layer| (layer.norm.clone(), conv(&layer.conv)))
                .collect(),
        }
    }

    /// The normalization of layer `i`.
    pub fn norm(&self, i: usize) -> &AffineWeights {
        &self.layers[i].0
    }

    /// Whether a layer is a 3x3 convolution, which needs neighboring pixels.
    pub fn is_spatial(&self) -> bool {
        self.branch == Branch::Spatial
    }

    /// Computes the first convolution for the pixels of `area`, `[height, width, 128]`.
    pub fn first(&self, image: &Image, area: Area, buffers: &mut LayerBuffers, out: &mut [f32]) {
        let (height, width) = image.size();
        let radius = self.branch.kernel() as isize / 2;
        let stride = self.first.depth;
        for (i, out) in out.chunks_mut(BLOCK * WIDTH).enumerate() {
            let rows = &mut buffers.rows;
            rows.clear();
            for p in i * BLOCK..i * BLOCK + out.len() / WIDTH {
                let (y, x) = (area.y + p / area.width, area.x + p % area.width);
                for plane in image.data.chunks_exact(height * width) {
                    for dy in -radius..=radius {
                        let y = reflected(y as isize + dy, height);
                        for dx in -radius..=radius {
                            let x = reflected(x as isize + dx, width);
                            rows.push(plane[y * width + x]);
                        }
                    }
                }
                rows.push(1.0);
            }
            self.first.run(rows, stride, out);
        }
    }

    /// Computes layer `i` of a 1x1 branch in place, for pixels `[n, 128]`.
    pub fn pointwise(&self, i: usize, norm: &Affine, buffers: &mut LayerBuffers, x: &mut [f32]) {
        let Conv::Pointwise(conv) = &self.layers[i].1 else {
            unreachable!("a 1x1 convolution");
        };
        let rows = &mut buffers.rows;
        for x in x.chunks_mut(BLOCK * WIDTH) {
            let pixels = x.len() / WIDTH;
            rows.resize(pixels * STRIDE, 0.0);
            for (from, to) in x
                .as_chunks::<WIDTH>()
                .0
                .iter()
                .zip(rows.chunks_exact_mut(STRIDE))
            {
                normalize(self.isa, norm, from, &mut to[..WIDTH]);
                to[WIDTH] = 1.0;
            }
            conv.run(rows, STRIDE, x);
        }
    }

    /// Computes layer `i` of a 3x3 branch for the pixels of `area`. `input` has one more pixel on each
    /// side, clipped to the image, whose size is `(height, width)`.
    pub fn spatial(
        &self,
        i: usize,
        norm: &Affine,
        (input, area): (Patch<'_>, Area),
        (height, width): (usize, usize),
        buffers: &mut LayerBuffers,
        out: &mut [f32],
    ) {
        let Conv::Spatial(conv) = &self.layers[i].1 else {
            unreachable!("a 3x3 convolution");
        };
        let LayerBuffers {
            padded, winograd, ..
        } = buffers;
        let Area {
            x,
            y,
            width: w,
            height: h,
        } = area;
        // In strips of columns, from top to bottom.
        for (left, columns) in chunks(w.div_ceil(OUTPUT_TILE), STRIP / OUTPUT_TILE) {
            let left = left * OUTPUT_TILE;
            let columns = (columns * OUTPUT_TILE).min(w - left);
            let across = columns + 2;
            padded.resize((ROWS + 2) * across * WIDTH, 0.0);
            let normalize_row = |row: usize, to: &mut [f32]| {
                let y = reflected((y + row) as isize - 1, height);
                // Only the first and the last pixel can be outside the image; the others are contiguous.
                let (first, rest) = to.split_at_mut(WIDTH);
                let (middle, last) = rest.split_at_mut(columns * WIDTH);
                let before = reflected((x + left) as isize - 1, width);
                let after = reflected((x + left + columns) as isize, width);
                normalize(self.isa, norm, input.row(y, before, 1), first);
                normalize(self.isa, norm, input.row(y, x + left, columns), middle);
                normalize(self.isa, norm, input.row(y, after, 1), last);
            };
            for top in (0..h).step_by(ROWS) {
                let rows = ROWS.min(h - top);
                let mut from = 0;
                if top > 0 {
                    // The last two rows are the first two of the next tiles.
                    padded.copy_within(ROWS * across * WIDTH.., 0);
                    from = 2;
                }
                for row in from..rows + 2 {
                    let to = &mut padded[row * across * WIDTH..][..across * WIDTH];
                    normalize_row(top + row, to);
                }
                let size = (rows + 2, across);
                let padded = &padded[..size.0 * size.1 * WIDTH];
                let out = &mut out[(top * w + left) * WIDTH..];
                conv.run_into(padded, 1, size, winograd, (out, w));
            }
        }
    }
}

/// Computes `silu(x * scale + shift)` of pixels `[n, 128]`.
fn normalize(isa: SupportedIsa, norm: &Affine, from: &[f32], to: &mut [f32]) {
    dispatch(isa, Normalize { norm, from, to });
}

struct Normalize<'a> {
    norm: &'a Affine,
    from: &'a [f32],
    to: &'a mut [f32],
}

impl SimdOp for Normalize<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self) {
        let Affine { scale, shift } = self.norm;
        let from = self.from.as_chunks::<WIDTH>().0;
        for (from, to) in from.iter().zip(self.to.as_chunks_mut::<WIDTH>().0) {
            for c in (0..WIDTH).step_by(S::LANES) {
                let x = S::fma(
                    S::load(&from[c..]),
                    S::load(&scale[c..]),
                    S::load(&shift[c..]),
                );
                S::store(&mut to[c..], silu::<S>(x));
            }
        }
    }
}
