//! The ONNX graph of a vision transformer.

use super::{
    Family, INPUT, OUTPUT, PositionEmbedding, VitConfig,
    position::{Method, resample},
    rotary,
    weights::{Positions, Weights},
};
use crate::transformer::{Block, Rotary, Shape, linear};
use loftup_onnx::{Graph, Value};

/// Builds the graph for a grid of `columns` x `rows` patches.
pub(super) fn build(config: &VitConfig, weights: &Weights, columns: usize, rows: usize) -> Vec<u8> {
    let mut g = Graph::new("backbone");
    let (width, patch) = (config.width, config.patch);
    let blocks = config.shape();
    let shape = [1, 3, rows * patch, columns * patch].map(Into::into);
    let image = g.input(INPUT, &shape);

    let mut x = g.scope("patch_embed", |g| {
        let x = g.conv(&image, &weights.patch.weight, &weights.patch.bias, patch);
        let x = g.reshape(&x, &[1, width as i64, -1]);
        let x = g.transpose(&x, &[0, 2, 1]);
        let PositionEmbedding::Learned { resampling, .. } = config.position else {
            return x;
        };
        let Positions::Learned(positions) = &weights.positions else {
            return x;
        };
        let method = Method::of(resampling.value, config.family(), config.registers);
        let positions = resample(positions, rows, columns, method);
        let positions = g.constant("positions", &positions.reshaped([1, rows * columns, width]));
        g.add(&x, &positions)
    });
    let rotary = match &weights.positions {
        Positions::Learned(_) => None,
        Positions::Rotary(periods) => g.scope("rope", |g| {
            let prefix = weights.prefix.as_ref().map_or(0, |p| p.shape()[1]);
            let (cos, sin) = rotary::factors(periods, prefix, rows, columns);
            Some(Rotary {
                cos: g.constant("cos", &cos),
                sin: g.constant("sin", &sin),
            })
        }),
    };
    if let Some(prefix) = &weights.prefix {
        let prefix = g.constant("prefix", prefix);
        x = g.concat(&[&prefix, &x], 1);
    }
    if let Some(norm) = &weights.pre_norm {
        x = g.scope("pre_norm", |g| blocks.layer_norm(g, &x, norm));
    }

    for (i, block) in weights.blocks.iter().enumerate() {
        let last = i + 1 == weights.blocks.len();
        x = g.scope(format!("blocks.{i}"), |g| match config.family() {
            Family::Clip if last => {
                let x = patches(g, &x, weights);
                value_path(g, &x, block, &blocks)
            }
            _ => {
                let x = blocks.attend(g, &x, block, None, rotary.as_ref());
                let x = blocks.mlp(g, &x, &block.mlp);
                if last { patches(g, &x, weights) } else { x }
            }
        });
    }

    let x = g.scope("norm", |g| blocks.layer_norm(g, &x, &weights.norm));
    let x = match &weights.projection {
        Some(projection) => g.scope("projection", |g| linear(g, &x, projection)),
        None => x,
    };
    let x = match &weights.pooling {
        Some(pooling) => g.scope("pooling", |g| pooling.apply(g, &x, &blocks)),
        None => x,
    };
    let x = g.transpose(&x, &[0, 2, 1]);
    let shape = [1, config.dim, rows, columns];
    let x = g.reshape(&x, &shape.map(|n| n as i64));
    g.output(&x, OUTPUT, &shape.map(Into::into));
    g.finish()
}

/// The patch tokens only.
fn patches(g: &mut Graph, x: &Value, weights: &Weights) -> Value {
    match &weights.prefix {
        Some(prefix) => g.slice(x, &[1], &[prefix.shape()[1] as i64], &[i64::MAX]),
        None => x.clone(),
    }
}

/// MaskCLIP's last block: the value projection of each token, without attention, residual and MLP.
fn value_path(g: &mut Graph, x: &Value, block: &Block, blocks: &Shape) -> Value {
    let y = g.scope("norm1", |g| blocks.layer_norm(g, x, &block.norm1));
    g.scope("attn", |g| {
        let y = linear(g, &y, &block.v);
        linear(g, &y, &block.proj)
    })
}
