//! The queries graph: computes the features of tiles from guidance, coordinates and mask.

use std::sync::{Arc, Mutex, PoisonError};

use crate::{
    QueriesWeights,
    arithmetic::{Arithmetic, Formats},
    fourier::{Fourier, FourierCache, channel_order},
    gemm::{MAX_INT8_ROWS, Packed},
    lut::{Lut, LutWeights},
    simd::{Isa, SupportedIsa},
    stages::{Stage, Stopwatch},
    weights::{Dims, KernelError, SOURCES},
    winograd::{self, Convolution},
};
use layers::{BLOCK, Layer, PackedLinear, TokenBlock};

mod layers;

/// Pixels around a tile that its features depend on: two 3x3 convolutions.
use loftup_spec::HALO;

/// The weights of a queries graph, packed for an instruction set. Create it once and share it between all
/// tile shapes and threads.
#[derive(Debug)]
pub struct Queries {
    isa: SupportedIsa,
    arithmetic: Arithmetic,
    formats: Formats,
    dims: Dims,
    fourier: Fourier,
    conv1: Convolution,
    lut: LutWeights,
    conv2: Convolution,
    layers: Vec<Layer>,
    last: PackedLinear,
    last_norm: (Vec<f32>, Vec<f32>),
    eps: f32,
    last_eps: f32,
    /// Idle workspaces.
    idle: Mutex<Vec<Workspace>>,
}

/// Caches and intermediate buffers of one run. The caches are valid for all tile shapes.
#[derive(Debug)]
struct Workspace {
    fourier: FourierCache,
    lut: Lut,
    /// Fourier features `[tiles][height + 4][width + 4][input stride of conv1]`.
    features: Vec<f32>,
    /// `[tiles][height + 2][width + 2][stride]`.
    conv1: Vec<f32>,
    /// `[tiles][height][width][stride]`.
    conv2: Vec<f32>,
    winograd: winograd::Workspace,
    block: TokenBlock,
}

impl Queries {
    /// Packs weights for an instruction set, with products in 32 bits.
    ///
    /// # Errors
    /// If the CPU does not support `isa`, or the shapes of the weights are inconsistent.
    pub fn new(isa: Isa, weights: &QueriesWeights) -> Result<Self, KernelError> {
        Self::with_arithmetic(isa, Arithmetic::Fp32, weights)
    }

    /// Packs weights for an instruction set, and rounds them for an arithmetic of the products.
    ///
    /// # Errors
    /// Same as for [`Queries::new`], and if the instruction set has no instructions for `arithmetic`.
    pub fn with_arithmetic(
        isa: Isa,
        arithmetic: Arithmetic,
        weights: &QueriesWeights,
    ) -> Result<Self, KernelError> {
        let isa = isa.supported().ok_or(KernelError::Isa(isa))?;
        let formats = arithmetic.formats(isa);
        let formats = formats.ok_or(KernelError::Arithmetic(arithmetic))?;
        let dims = Dims::of(weights)?;
        // The input channels of the first convolution, in the order of `Fourier`.
        let order: Vec<usize> = channel_order(dims.frequencies).collect();
        let conv1: Vec<f32> = weights
            .conv1
            .weight
            .chunks_exact(9 * dims.guidance_channels())
            .flat_map(|row| order.iter().flat_map(|c| &row[c * 9..c * 9 + 9]))
            .copied()
            .collect();
        let fourier = Fourier::new(weights);
        Ok(Self {
            lut: LutWeights::new(isa, &fourier, &conv1, weights),
            fourier,
            conv1: Convolution::new(
                isa,
                formats.convolution,
                order.len(),
                &conv1,
                &weights.conv1.bias,
            ),
            conv2: Convolution::new(
                isa,
                formats.convolution,
                dims.width,
                &weights.conv2.weight,
                &weights.conv2.bias,
            ),
            layers: (weights.layers.iter())
                .map(|layer| Layer::new(isa, formats, layer))
                .collect(),
            last: PackedLinear::new(isa, formats.linear, &weights.last),
            last_norm: (
                weights.last_norm.weight.clone(),
                weights.last_norm.bias.clone(),
            ),
            eps: weights.eps,
            last_eps: weights.last_eps,
            dims,
            isa,
            arithmetic,
            formats,
            idle: Mutex::default(),
        })
    }

    /// Takes an idle workspace, or creates one.
    fn workspace(&self) -> Workspace {
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        idle.unwrap_or_else(|| Workspace {
            fourier: FourierCache::new(&self.fourier),
            lut: Lut::new(&self.lut),
            features: Vec::new(),
            conv1: Vec::new(),
            conv2: Vec::new(),
            winograd: winograd::Workspace::default(),
            block: TokenBlock::default(),
        })
    }

    /// Returns a workspace for reuse.
    fn release(&self, workspace: Workspace) {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(workspace);
    }

    /// The dimensions of the graph.
    pub fn dims(&self) -> &Dims {
        &self.dims
    }

    /// The instruction set that the weights are packed for.
    pub fn isa(&self) -> Isa {
        self.isa.isa()
    }

    /// The arithmetic of the products.
    pub fn arithmetic(&self) -> Arithmetic {
        self.arithmetic
    }

    /// Creates an execution context for `tiles` tiles of `height x width` pixels (without halo) and
    /// `tokens` keys, none of them zero. One thread at a time can use it.
    pub fn context(
        self: &Arc<Self>,
        tiles: usize,
        height: usize,
        width: usize,
        tokens: usize,
    ) -> Context {
        let Dims {
            heads, head_width, ..
        } = self.dims;
        let formats = self.formats;
        let pack = |format, rows, depth| -> Vec<Vec<Packed>> {
            let head = |_| Packed::new(self.isa, format, rows, depth, |_, _| 0.0);
            let layers = self.layers.iter();
            layers.map(|_| (0..heads).map(head).collect()).collect()
        };
        let keys = pack(formats.attention, tokens, head_width);
        let values = match tokens <= MAX_INT8_ROWS {
            true => formats.values,
            false => formats.attention,
        };
        let values = pack(values, head_width, tokens);
        Context {
            tiles,
            height,
            width,
            tokens,
            keys,
            values,
            queries: self.clone(),
        }
    }
}

/// An execution context: the keys and values of one frame, for tiles of one shape.
#[derive(Debug)]
pub struct Context {
    queries: Arc<Queries>,
    tiles: usize,
    height: usize,
    width: usize,
    tokens: usize,
    /// For each layer and head, `[tokens][head width]`.
    keys: Vec<Vec<Packed>>,
    /// For each layer and head, `[head width][tokens]`.
    values: Vec<Vec<Packed>>,
}

impl Context {
    /// Sets the keys of a layer, `[heads, head width, tokens]`.
    ///
    /// # Errors
    /// If there is no such layer, or `keys` has the wrong size.
    pub fn set_keys(&mut self, layer: usize, keys: &[f32]) -> Result<(), KernelError> {
        let (tokens, width) = (self.tokens, self.queries.dims.head_width);
        let heads = check_heads(&mut self.keys, layer, keys, tokens * width)?;
        for (packed, head) in heads.iter_mut().zip(keys.chunks_exact(tokens * width)) {
            packed.fill(|token, j| head[j * tokens + token]);
        }
        Ok(())
    }

    /// Sets the values of a layer, `[heads, tokens, head width]`.
    ///
    /// # Errors
    /// Same as for [`Context::set_keys`].
    pub fn set_values(&mut self, layer: usize, values: &[f32]) -> Result<(), KernelError> {
        let (tokens, width) = (self.tokens, self.queries.dims.head_width);
        let heads = check_heads(&mut self.values, layer, values, tokens * width)?;
        for (packed, head) in heads.iter_mut().zip(values.chunks_exact(tokens * width)) {
            packed.fill(|j, token| head[token * width + j]);
        }
        Ok(())
    }

    /// Computes the features of the tiles, `out` `[tiles * height * width, dim]`, from the scaled
    /// guidance `[tiles, 3, height + 4, width + 4]`, the coordinates `[tiles, 2, height + 4, width + 4]`
    /// and the mask `[tiles, 1, height + 4, width + 4]`.
    ///
    /// # Errors
    /// If an input or `out` has the wrong size.
    pub fn run(
        &mut self,
        guidance: &[f32],
        coords: &[f32],
        mask: &[f32],
        out: &mut [f32],
    ) -> Result<(), KernelError> {
        let queries = self.queries.clone();
        let (height, width) = (self.height + 2 * HALO, self.width + 2 * HALO);
        let area = height * width;
        check("guidance", guidance, self.tiles * 3 * area)?;
        check("coords", coords, self.tiles * 2 * area)?;
        check("mask", mask, self.tiles * area)?;
        let pixels = self.tiles * self.height * self.width;
        check("output", out, pixels * queries.dims.dim)?;

        let mut workspace = queries.workspace();
        let Workspace {
            fourier: cache,
            lut,
            features,
            conv1,
            conv2,
            winograd,
            block,
        } = &mut workspace;
        let mut stopwatch = Stopwatch::start();
        let stride = queries.conv1.output_stride();
        let inner = (height - 2, width - 2);
        conv1.resize(self.tiles * inner.0 * inner.1 * stride, 0.0);
        // The source values of a pixel.
        let values = |i: usize| -> [f32; SOURCES] {
            let (tile, at) = (i / area, i % area);
            std::array::from_fn(|s| match s {
                0 | 1 => coords[(tile * 2 + s) * area + at],
                _ => guidance[(tile * 3 + s - 2) * area + at],
            })
        };
        let (fourier, size) = (&queries.fourier, (height, width));
        let output = (conv1.as_mut_slice(), stride);
        if !lut.run(&queries.lut, fourier, mask, size, values, output) {
            cache.pixels(
                fourier,
                mask,
                values,
                features,
                queries.conv1.input_stride(),
            );
            stopwatch.lap(Stage::Fourier);
            queries
                .conv1
                .run(features, self.tiles, size, winograd, conv1);
        }
        // The second convolution is zero-padded outside the image as well.
        let inside = mask
            .chunks_exact(width)
            .enumerate()
            .filter(|(row, _)| (1..=inner.0).contains(&(row % height)))
            .flat_map(|(_, row)| &row[1..=inner.1]);
        for (pixel, m) in conv1.chunks_exact_mut(stride).zip(inside) {
            if *m != 1.0 {
                pixel.iter_mut().for_each(|x| *x *= m);
            }
        }
        stopwatch.lap(Stage::Conv1);
        conv2.resize(pixels * stride, 0.0);
        queries.conv2.run(conv1, self.tiles, inner, winograd, conv2);
        stopwatch.lap(Stage::Conv2);
        let dim = queries.dims.dim;
        for (from, to) in (conv2.chunks(BLOCK * stride)).zip(out.chunks_mut(BLOCK * dim)) {
            let keys = self.keys.iter().zip(&self.values);
            block.run(&queries, self.tokens, keys, from, stride, to);
        }
        queries.release(workspace);
        Ok(())
    }
}

fn check_heads<'a>(
    layers: &'a mut [Vec<Packed>],
    layer: usize,
    data: &[f32],
    len: usize,
) -> Result<&'a mut [Packed], KernelError> {
    let count = layers.len();
    let heads = layers
        .get_mut(layer)
        .ok_or(KernelError::Layer { layer, count })?;
    check("keys or values", data, heads.len() * len)?;
    Ok(heads)
}

fn check(what: &'static str, values: &[f32], expected: usize) -> Result<(), KernelError> {
    if values.len() == expected {
        return Ok(());
    }
    Err(KernelError::Size {
        what,
        expected,
        found: values.len(),
    })
}

#[cfg(test)]
mod tests;
