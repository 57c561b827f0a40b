//! What is done per pixel: attention, MLP and the last map, for a block of tokens at a time.

use super::{Queries, Shape};
use crate::{
    LayerWeights, Linear,
    gemm::{Packed, Then, block_cols, product},
    math::gelu,
    simd::Isa,
    stages::{Clock, Stage},
    tokens::{exponentials, from_panel, normalise, scale_columns, to_panel},
};

/// Tokens that go through all layers before the next ones do: their activations stay in the
/// second-level cache, and each weight read from further away serves so many.
pub(super) const TOKENS: usize = 64;

/// One layer, packed.
#[derive(Debug)]
pub(super) struct Layer {
    query: Map,
    out: Map,
    mlp_in: Map,
    mlp_out: Map,
}

impl Layer {
    pub fn new(isa: Isa, weights: &LayerWeights) -> Self {
        let map = |linear| Map::new(isa, linear);
        Self {
            query: map(&weights.query),
            out: map(&weights.out),
            mlp_in: map(&weights.mlp_in),
            mlp_out: map(&weights.mlp_out),
        }
    }
}

/// A linear map, packed.
#[derive(Debug)]
pub(super) struct Map {
    weight: Packed,
    bias: Vec<f32>,
}

impl Map {
    pub fn new(isa: Isa, linear: &Linear) -> Self {
        let outputs = linear.bias.len();
        let inputs = linear.weight.len() / outputs;
        Self {
            weight: Packed::new(isa, outputs, inputs, |o, i| linear.weight[i * outputs + o]),
            bias: linear.bias.clone(),
        }
    }
}

/// Activations of some tokens, in panels.
#[derive(Debug, Default)]
pub(super) struct Block {
    x: Vec<f32>,
    normalised: Vec<f32>,
    queries: Vec<f32>,
    scores: Vec<f32>,
    attended: Vec<f32>,
    hidden: Vec<f32>,
    inverse: Vec<f32>,
}

impl Block {
    /// Tokens `[n][stride]` through all layers to `[n][d]`.
    pub fn run<'a>(
        &mut self,
        queries: &Queries,
        tokens: usize,
        keys: impl Iterator<Item = (&'a Vec<Packed>, &'a Vec<Packed>)>,
        from: &[f32],
        stride: usize,
        to: &mut [f32],
    ) {
        let mut clock = Clock::start();
        let isa = queries.isa;
        let Shape {
            dim,
            width,
            heads,
            head_width,
            hidden,
            ..
        } = queries.shape;
        let columns = block_cols(isa);
        let panels = (from.len() / stride).div_ceil(columns);
        let attended = heads * head_width;
        let room = |v: &mut Vec<f32>, rows: usize| v.resize(panels * rows * columns, 0.0);
        room(&mut self.x, width);
        room(&mut self.normalised, width.max(dim));
        room(&mut self.queries, attended);
        room(&mut self.scores, tokens);
        room(&mut self.attended, attended);
        room(&mut self.hidden, hidden.max(dim));
        self.inverse.resize(columns, 0.0);

        let panel = width * columns;
        let rows = from.chunks(columns * stride);
        for (x, rows) in self.x.chunks_exact_mut(panel).zip(rows) {
            to_panel(rows, rows.len() / stride, stride, columns, x);
        }
        for (layer, (keys, values)) in queries.layers.iter().zip(keys) {
            clock.lap(Stage::Rest);
            self.normalise(isa, panel, queries.eps);
            apply(&layer.query, &self.normalised, &mut self.queries, panels);
            for (h, (key, value)) in keys.iter().zip(values).enumerate() {
                let (offset, step) = (h * head_width * columns, attended * columns);
                let queries = &self.queries[offset..];
                let scores = &mut self.scores;
                product(
                    key,
                    queries,
                    step,
                    scores,
                    tokens * columns,
                    panels,
                    Then::Store,
                );
                let heads = &mut self.attended[offset..];
                for (i, scores) in scores.chunks_exact_mut(tokens * columns).enumerate() {
                    exponentials(isa, scores, &mut self.inverse);
                    let head = &mut heads[i * step..];
                    product(value, scores, 0, head, 0, 1, Then::Store);
                    scale_columns(isa, &mut head[..head_width * columns], &self.inverse);
                }
            }
            accumulate(&layer.out, &self.attended, &mut self.x, panels);
            clock.lap(Stage::Attention);
            self.normalise(isa, panel, queries.eps);
            apply(&layer.mlp_in, &self.normalised, &mut self.hidden, panels);
            gelu(isa, &mut self.hidden[..panels * hidden * columns]);
            accumulate(&layer.mlp_out, &self.hidden, &mut self.x, panels);
            clock.lap(Stage::Mlp);
        }
        self.normalise(isa, panel, queries.eps);
        apply(&queries.last, &self.normalised, &mut self.hidden, panels);
        let (weight, bias) = &queries.last_norm;
        let answer = self.hidden.chunks_exact(dim * columns);
        for (answer, to) in answer.zip(to.chunks_mut(columns * dim)) {
            // The scores are done with; the answer of a panel fits where tokens or width do.
            let normalised = &mut self.normalised[..dim * columns];
            normalise(isa, answer, queries.last_eps, normalised);
            from_panel(normalised, to.len() / dim, columns, weight, bias, to);
        }
        clock.lap(Stage::Rest);
    }

    fn normalise(&mut self, isa: Isa, panel: usize, eps: f32) {
        let x = self.x.chunks_exact(panel);
        for (x, out) in x.zip(self.normalised.chunks_exact_mut(panel)) {
            normalise(isa, x, eps, out);
        }
    }
}

/// `out = map(x)` for panels of tokens.
fn apply(map: &Map, x: &[f32], out: &mut [f32], panels: usize) {
    linear(map, x, out, panels, Then::Bias(&map.bias));
}

/// `out += map(x)` for panels of tokens.
fn accumulate(map: &Map, x: &[f32], out: &mut [f32], panels: usize) {
    linear(map, x, out, panels, Then::Accumulate(&map.bias));
}

fn linear(map: &Map, x: &[f32], out: &mut [f32], panels: usize, then: Then<'_>) {
    let columns = block_cols(map.weight.isa());
    let (from, to) = (map.weight.depth() * columns, map.weight.rows() * columns);
    product(&map.weight, x, from, out, to, panels, then);
}
