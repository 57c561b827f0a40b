//! Everything after the convolutions: attention, MLP and the output projection, for a block of tokens at
//! a time.

use super::Queries;
use crate::{
    LayerWeights, LinearWeights,
    arithmetic::Formats,
    gemm::{Epilogue, Packed, Scratch, nr},
    math::gelu,
    simd::{SupportedFormat, SupportedIsa},
    stages::{Stage, Stopwatch},
    tokens::{from_panel, normalize, to_panel},
    weights::Dims,
};

/// Number of tokens per block. A block passes through all layers before the next one starts, so that its
/// activations stay in the L2 cache, and each weight read from the L3 cache is used this many times.
pub(super) const BLOCK: usize = 64;

/// The packed weights of one layer.
#[derive(Debug)]
pub(super) struct Layer {
    query: PackedLinear,
    out: PackedLinear,
    mlp_in: PackedLinear,
    mlp_out: PackedLinear,
}

impl Layer {
    pub fn new(isa: SupportedIsa, formats: Formats, weights: &LayerWeights) -> Self {
        let pack = |linear| PackedLinear::new(isa, formats.linear, linear);
        Self {
            query: PackedLinear::new(isa, formats.query, &weights.query),
            out: pack(&weights.out),
            mlp_in: pack(&weights.mlp_in),
            mlp_out: pack(&weights.mlp_out),
        }
    }
}

/// The packed weights of a linear layer.
#[derive(Debug)]
pub(super) struct PackedLinear {
    /// `[outputs][inputs]`.
    weight: Packed,
    bias: Vec<f32>,
    /// Number of columns of a panel.
    columns: usize,
}

impl PackedLinear {
    pub fn new(isa: SupportedIsa, format: Option<SupportedFormat>, linear: &LinearWeights) -> Self {
        let outputs = linear.bias.len();
        let inputs = linear.weight.len() / outputs;
        Self {
            weight: Packed::new(isa, format, outputs, inputs, |o, i| {
                linear.weight[i * outputs + o]
            }),
            bias: linear.bias.clone(),
            columns: nr(isa),
        }
    }
}

/// Activations of a block of tokens, in panels `[panels][channels][NR]`.
#[derive(Debug, Default)]
pub(super) struct TokenBlock {
    x: Vec<f32>,
    normalized: Vec<f32>,
    queries: Vec<f32>,
    scores: Vec<f32>,
    attended: Vec<f32>,
    hidden: Vec<f32>,
    /// One over the softmax denominators of a panel, `[NR]`.
    inverse: Vec<f32>,
    /// Activations rounded for a product.
    rounded: Scratch,
}

impl TokenBlock {
    /// Runs all layers and the output projection on tokens `from` `[n][stride]` and writes to `to` `[n][dim]`.
    /// `tokens` is the number of keys.
    pub fn run<'a>(
        &mut self,
        queries: &Queries,
        tokens: usize,
        keys: impl Iterator<Item = (&'a Vec<Packed>, &'a Vec<Packed>)>,
        from: &[f32],
        stride: usize,
        to: &mut [f32],
    ) {
        let mut stopwatch = Stopwatch::start();
        let isa = queries.isa;
        let Dims {
            dim,
            width,
            heads,
            head_width,
            hidden,
            ..
        } = queries.dims;
        let columns = nr(isa);
        let panels = (from.len() / stride).div_ceil(columns);
        let attended = heads * head_width;
        let resize = |v: &mut Vec<f32>, rows: usize| v.resize(panels * rows * columns, 0.0);
        resize(&mut self.x, width);
        resize(&mut self.normalized, width.max(dim));
        resize(&mut self.queries, attended);
        resize(&mut self.scores, tokens);
        resize(&mut self.attended, attended);
        resize(&mut self.hidden, hidden.max(dim));
        self.inverse.resize(columns, 0.0);

        let panel = width * columns;
        let rows = from.chunks(columns * stride);
        for (x, rows) in self.x.chunks_exact_mut(panel).zip(rows) {
            to_panel(rows, rows.len() / stride, stride, columns, x);
        }
        for (layer, (keys, values)) in queries.layers.iter().zip(keys) {
            stopwatch.lap(Stage::Other);
            self.normalize(isa, panel, queries.eps);
            layer.query.run(
                &self.normalized,
                &mut self.queries,
                panels,
                &mut self.rounded,
            );
            for (h, (key, value)) in keys.iter().zip(values).enumerate() {
                let (offset, step) = (h * head_width * columns, attended * columns);
                let queries = &self.queries[offset..];
                let scores = &mut self.scores;
                let scores_step = tokens * columns;
                let rounded = &mut self.rounded;
                key.multiply(
                    queries,
                    step,
                    scores,
                    scores_step,
                    panels,
                    Epilogue::Store,
                    rounded,
                );
                let heads = &mut self.attended[offset..];
                for (i, scores) in scores.chunks_exact_mut(tokens * columns).enumerate() {
                    let head = &mut heads[i * step..];
                    value.multiply_softmax(scores, &mut self.inverse, head, rounded);
                }
            }
            layer
                .out
                .add(&self.attended, &mut self.x, panels, &mut self.rounded);
            stopwatch.lap(Stage::Attention);
            self.normalize(isa, panel, queries.eps);
            layer.mlp_in.run(
                &self.normalized,
                &mut self.hidden,
                panels,
                &mut self.rounded,
            );
            gelu(isa, &mut self.hidden[..panels * hidden * columns]);
            layer
                .mlp_out
                .add(&self.hidden, &mut self.x, panels, &mut self.rounded);
            stopwatch.lap(Stage::Mlp);
        }
        self.normalize(isa, panel, queries.eps);
        queries.last.run(
            &self.normalized,
            &mut self.hidden,
            panels,
            &mut self.rounded,
        );
        let (weight, bias) = &queries.last_norm;
        let outputs = self.hidden.chunks_exact(dim * columns);
        for (output, to) in outputs.zip(to.chunks_mut(columns * dim)) {
            // `normalized` is large enough: it has `width.max(dim)` rows.
            let normalized = &mut self.normalized[..dim * columns];
            normalize(isa, output, queries.last_eps, normalized);
            from_panel(normalized, to.len() / dim, columns, weight, bias, to);
        }
        stopwatch.lap(Stage::Other);
    }

    fn normalize(&mut self, isa: SupportedIsa, panel: usize, eps: f32) {
        let x = self.x.chunks_exact(panel);
        for (x, out) in x.zip(self.normalized.chunks_exact_mut(panel)) {
            normalize(isa, x, eps, out);
        }
    }
}

impl PackedLinear {
    /// `out = linear(x)` for panels of tokens.
    fn run(&self, x: &[f32], out: &mut [f32], panels: usize, rounded: &mut Scratch) {
        self.multiply(x, out, panels, Epilogue::Bias(&self.bias), rounded);
    }

    /// `out += linear(x)` for panels of tokens.
    fn add(&self, x: &[f32], out: &mut [f32], panels: usize, rounded: &mut Scratch) {
        self.multiply(x, out, panels, Epilogue::Accumulate(&self.bias), rounded);
    }

    fn multiply(
        &self,
        x: &[f32],
        out: &mut [f32],
        panels: usize,
        epilogue: Epilogue<'_>,
        rounded: &mut Scratch,
    ) {
        let (weight, columns) = (&self.weight, self.columns);
        let (x_stride, out_stride) = (weight.depth() * columns, weight.rows() * columns);
        weight.multiply(x, x_stride, out, out_stride, panels, epilogue, rounded);
    }
}
