//! The upsampler's queries: from guidance, coordinates and mask of tiles to their features.

use std::sync::{Arc, Mutex, PoisonError};

use crate::{
    KernelError, QueriesWeights, Shape,
    fourier::{Fourier, Memory, SOURCES, order},
    gemm::Packed,
    simd::Isa,
    stages::{Clock, Stage},
    tables::{TableWeights, Tables},
    winograd::{self, Convolution},
};
use layers::{Block, Layer, Map, TOKENS};

mod layers;

/// Pixels around a tile that its features depend on.
use loftup_spec::HALO;

/// The weights of a queries graph, packed for an instruction set: made once, shared by all plans
/// and threads.
#[derive(Debug)]
pub struct Queries {
    isa: Isa,
    shape: Shape,
    fourier: Fourier,
    conv1: Convolution,
    tables: TableWeights,
    conv2: Convolution,
    layers: Vec<Layer>,
    last: Map,
    last_norm: (Vec<f32>, Vec<f32>),
    eps: f32,
    last_eps: f32,
    /// Rooms that no run is in.
    idle: Mutex<Vec<Room>>,
}

/// Room for the intermediate results of one run. What it remembers holds for all plans.
#[derive(Debug)]
struct Room {
    memory: Memory,
    tables: Tables,
    features: Vec<f32>,
    first: Vec<f32>,
    second: Vec<f32>,
    winograd: winograd::Scratch,
    block: Block,
}

impl Queries {
    /// Packs weights for an instruction set.
    ///
    /// # Errors
    /// Where the machine lacks the instructions, or the shapes of the weights do not go together.
    pub fn new(isa: Isa, weights: &QueriesWeights) -> Result<Self, KernelError> {
        if !isa.is_available() {
            return Err(KernelError::Isa(isa));
        }
        let shape = Shape::of(weights)?;
        // The first convolution with its channels in the order of our features.
        let order: Vec<usize> = order(shape.frequencies).collect();
        let conv1: Vec<f32> = weights
            .conv1
            .weight
            .chunks_exact(9 * shape.guidance_channels())
            .flat_map(|row| order.iter().flat_map(|c| &row[c * 9..c * 9 + 9]))
            .copied()
            .collect();
        let fourier = Fourier::new(weights);
        Ok(Self {
            tables: TableWeights::new(isa, &fourier, &conv1, weights),
            fourier,
            conv1: Convolution::new(isa, order.len(), &conv1, &weights.conv1.bias),
            conv2: Convolution::new(isa, shape.width, &weights.conv2.weight, &weights.conv2.bias),
            layers: (weights.layers.iter())
                .map(|layer| Layer::new(isa, layer))
                .collect(),
            last: Map::new(isa, &weights.last),
            last_norm: (
                weights.last_norm.weight.clone(),
                weights.last_norm.bias.clone(),
            ),
            eps: weights.eps,
            last_eps: weights.last_eps,
            shape,
            isa,
            idle: Mutex::default(),
        })
    }

    /// A room for one run.
    fn room(&self) -> Room {
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        idle.unwrap_or_else(|| Room {
            memory: Memory::new(&self.fourier),
            tables: Tables::new(&self.tables),
            features: Vec::new(),
            first: Vec::new(),
            second: Vec::new(),
            winograd: winograd::Scratch::default(),
            block: Block::default(),
        })
    }

    /// Gives a room back.
    fn leave(&self, room: Room) {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(room);
    }

    /// What shapes it.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The instruction set it is packed for.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// A state in which one thread at a time can run it, for `tiles` tiles of `height x width`
    /// pixels (without halo) and `tokens` keys. No extent may be zero.
    pub fn state(
        self: &Arc<Self>,
        tiles: usize,
        height: usize,
        width: usize,
        tokens: usize,
    ) -> State {
        let Shape {
            heads, head_width, ..
        } = self.shape;
        let isa = self.isa;
        let heads = || 0..heads;
        let keys = self
            .layers
            .iter()
            .map(|_| {
                heads()
                    .map(|_| Packed::new(isa, tokens, head_width, |_, _| 0.0))
                    .collect()
            })
            .collect();
        let values = self
            .layers
            .iter()
            .map(|_| {
                heads()
                    .map(|_| Packed::new(isa, head_width, tokens, |_, _| 0.0))
                    .collect()
            })
            .collect();
        State {
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

/// One thread's keys, values and room for intermediate results.
#[derive(Debug)]
pub struct State {
    queries: Arc<Queries>,
    tiles: usize,
    height: usize,
    width: usize,
    tokens: usize,
    /// Of each layer and head: `[tokens][head width]`.
    keys: Vec<Vec<Packed>>,
    /// Of each layer and head: `[head width][tokens]`.
    values: Vec<Vec<Packed>>,
}

impl State {
    /// Sets the keys of a layer, `[heads, head width, tokens]`.
    ///
    /// # Errors
    /// Where there is no such layer, or `keys` are of another size.
    pub fn set_keys(&mut self, layer: usize, keys: &[f32]) -> Result<(), KernelError> {
        let (tokens, width) = (self.tokens, self.queries.shape.head_width);
        let heads = check_heads(&mut self.keys, layer, keys, tokens * width)?;
        for (packed, head) in heads.iter_mut().zip(keys.chunks_exact(tokens * width)) {
            packed.fill(|token, j| head[j * tokens + token]);
        }
        Ok(())
    }

    /// Sets the values of a layer, `[heads, tokens, head width]`.
    ///
    /// # Errors
    /// As [`State::set_keys`].
    pub fn set_values(&mut self, layer: usize, values: &[f32]) -> Result<(), KernelError> {
        let (tokens, width) = (self.tokens, self.queries.shape.head_width);
        let heads = check_heads(&mut self.values, layer, values, tokens * width)?;
        for (packed, head) in heads.iter_mut().zip(values.chunks_exact(tokens * width)) {
            packed.fill(|j, token| head[token * width + j]);
        }
        Ok(())
    }

    /// Features of the tiles, `[tiles * height * width, d]`, from their scaled guidance
    /// `[tiles, 3, height + 4, width + 4]`, coordinates `[tiles, 2, ..]` and mask `[tiles, 1, ..]`.
    ///
    /// # Errors
    /// Where an input or `out` is of another size.
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
        check("output", out, pixels * queries.shape.dim)?;

        let mut room = queries.room();
        let Room {
            memory,
            tables,
            features,
            first,
            second,
            winograd,
            block,
        } = &mut room;
        let mut clock = Clock::start();
        let stride = queries.conv1.output_stride();
        let inner = (height - 2, width - 2);
        first.resize(self.tiles * inner.0 * inner.1 * stride, 0.0);
        // The five values of a pixel.
        let values = |i: usize| -> [f32; SOURCES] {
            let (tile, at) = (i / area, i % area);
            std::array::from_fn(|s| match s {
                0 | 1 => coords[(tile * 2 + s) * area + at],
                _ => guidance[(tile * 3 + s - 2) * area + at],
            })
        };
        let (fourier, size) = (&queries.fourier, (height, width));
        let answer = (first.as_mut_slice(), stride);
        if !tables.run(&queries.tables, fourier, mask, size, values, answer) {
            memory.pixels(
                fourier,
                mask,
                values,
                features,
                queries.conv1.input_stride(),
            );
            clock.lap(Stage::Fourier);
            queries
                .conv1
                .run(features, self.tiles, size, winograd, first);
        }
        // Zero is what lies outside the picture, for the second convolution too.
        let inside = mask
            .chunks_exact(width)
            .enumerate()
            .filter(|(row, _)| (1..=inner.0).contains(&(row % height)))
            .flat_map(|(_, row)| &row[1..=inner.1]);
        for (pixel, m) in first.chunks_exact_mut(stride).zip(inside) {
            if *m != 1.0 {
                pixel.iter_mut().for_each(|x| *x *= m);
            }
        }
        clock.lap(Stage::First);
        second.resize(pixels * stride, 0.0);
        queries
            .conv2
            .run(first, self.tiles, inner, winograd, second);
        clock.lap(Stage::Second);
        let d = queries.shape.dim;
        for (from, to) in (second.chunks(TOKENS * stride)).zip(out.chunks_mut(TOKENS * d)) {
            let keys = self.keys.iter().zip(&self.values);
            block.run(&queries, self.tokens, keys, from, stride, to);
        }
        queries.leave(room);
        Ok(())
    }
}

fn check_heads<'a>(
    layers: &'a mut [Vec<Packed>],
    layer: usize,
    data: &[f32],
    each: usize,
) -> Result<&'a mut [Packed], KernelError> {
    let count = layers.len();
    let heads = layers
        .get_mut(layer)
        .ok_or(KernelError::Layer { layer, count })?;
    check("keys or values", data, heads.len() * each)?;
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
