//! Random weights with the shapes of LoftUp's.

use loftup_kernels::{AffineWeights, ConvWeights, LayerWeights, LinearWeights, QueriesWeights};
use loftup_spec::SplitMix64;

pub const HEADS: usize = 4;
const FREQUENCIES: usize = 20;

/// Channels between layers for features of `dim` channels.
pub fn width(dim: usize) -> usize {
    dim + 20
}

/// Channels per head, padded as in a bundle.
pub fn head_width(dim: usize) -> usize {
    (width(dim) / HEADS).next_multiple_of(8)
}

/// Uniform in `-scale..scale`.
pub fn noise(random: &mut SplitMix64, n: usize, scale: f32) -> Vec<f32> {
    (0..n)
        .map(|_| (random.uniform() * 2.0 - 1.0) * scale)
        .collect()
}

/// LoftUp for features of `dim` channels.
pub fn weights(random: &mut SplitMix64, dim: usize) -> QueriesWeights {
    let (width, attended) = (width(dim), HEADS * head_width(dim));
    let channels = 10 * FREQUENCIES + 3;
    // The uniform distribution on +-sqrt(3/n) has variance 1/n, which keeps activations near 1.
    let limit = |inputs: usize| (3.0 / inputs as f32).sqrt();
    let mut linear = |inputs: usize, outputs: usize| LinearWeights {
        weight: noise(random, inputs * outputs, limit(inputs)),
        bias: vec![0.1; outputs],
    };
    let layers = (0..2)
        .map(|_| LayerWeights {
            query: linear(width, attended),
            out: linear(attended, width),
            mlp_in: linear(width, dim),
            mlp_out: linear(dim, width),
        })
        .collect();
    let last = linear(width, dim);
    let affine = |n: usize| AffineWeights {
        weight: vec![1.0; n],
        bias: vec![0.1; n],
    };
    let mut convolution = |inputs: usize| ConvWeights {
        weight: noise(random, width * inputs * 9, limit(9 * inputs)),
        bias: vec![0.1; width],
    };
    QueriesWeights {
        heads: HEADS,
        frequencies: (0..FREQUENCIES)
            .map(|i| (i as f32 * 0.6 - 2.0).exp())
            .collect(),
        sine_phases: vec![0.3; 5 * FREQUENCIES],
        cosine_phases: vec![0.7; 5 * FREQUENCIES],
        guidance_norm: affine(channels),
        conv1: convolution(channels),
        conv2: convolution(width),
        layers,
        last,
        last_norm: affine(dim),
        eps: loftup_spec::EPS,
        last_eps: loftup_spec::FINAL_EPS,
    }
}
