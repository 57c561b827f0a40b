//! The ONNX graph of a text encoder.

use super::{EMBEDDING, POOL, TOKENS, TextConfig, Weights};
use crate::transformer::linear;
use loftup_onnx::{Graph, Tensor};

/// Added to the scores of masked tokens: their softmax is exactly 0.
const HIDDEN: f32 = -1e9;

/// Builds the graph for `batch` texts of `length` tokens.
pub(super) fn build(
    config: &TextConfig,
    weights: &Weights,
    batch: usize,
    length: usize,
) -> Vec<u8> {
    let mut g = Graph::new("text");
    let shape = config.shape(batch);
    let mut x = g.input(TOKENS, &[batch, length, config.width].map(Into::into));
    let pool = g.input(POOL, &[batch, 1, length].map(Into::into));
    // A token sees itself and the tokens before it.
    let causal = Tensor::from_fn([length, length], |i| match i % length > i / length {
        true => HIDDEN,
        false => 0.0,
    });
    let mask = config.causal.then_some(&causal);
    for (i, block) in weights.blocks.iter().enumerate() {
        x = g.scope(format!("blocks.{i}"), |g| {
            let x = shape.attend(g, &x, block, mask, None);
            shape.mlp(g, &x, &block.mlp)
        });
    }
    // The norm is per token, so only the pooled one needs it. The product with ones and zeros is
    // exact.
    let x = g.matmul(&pool, &x);
    let x = g.reshape(&x, &[batch as i64, config.width as i64]);
    let x = g.scope("norm", |g| shape.layer_norm(g, &x, &weights.norm));
    let x = g.scope("projection", |g| linear(g, &x, &weights.projection));
    g.output(&x, EMBEDDING, &[batch, config.dim].map(Into::into));
    g.finish()
}
