//! The ONNX graph of a vision transformer.

use super::{
    Activation, Family, INPUT, OUTPUT, VitConfig,
    linear::Linear,
    position::{Method, resample},
    weights::{Block, Norm, Weights, padded_head},
};
use loftup_onnx::{Graph, Value};

/// Builds the graph for a grid of `columns` x `rows` patches.
pub(super) fn build(config: &VitConfig, weights: &Weights, columns: usize, rows: usize) -> Vec<u8> {
    let mut g = Graph::new("backbone");
    let (width, patch) = (config.width, config.patch);
    let shape = [1, 3, rows * patch, columns * patch].map(Into::into);
    let image = g.input(INPUT, &shape);

    let mut x = g.scope("patch_embed", |g| {
        let x = g.conv(&image, &weights.patch.weight, &weights.patch.bias, patch);
        let x = g.reshape(&x, &[1, width as i64, -1]);
        let x = g.transpose(&x, &[0, 2, 1]);
        let method = Method::of(config.positions.value, config.family(), config.registers);
        let positions = resample(&weights.positions, rows, columns, method);
        let positions = g.constant("positions", &positions.reshaped([1, rows * columns, width]));
        g.add(&x, &positions)
    });
    if let Some(prefix) = &weights.prefix {
        let prefix = g.constant("prefix", prefix);
        x = g.concat(&[&prefix, &x], 1);
    }
    if let Some(norm) = &weights.pre_norm {
        x = g.scope("pre_norm", |g| layer_norm(g, &x, norm, config));
    }

    for (i, block) in weights.blocks.iter().enumerate() {
        let last = i + 1 == weights.blocks.len();
        x = g.scope(format!("blocks.{i}"), |g| match config.family() {
            Family::Clip if last => {
                let x = patches(g, &x, weights);
                value_path(g, &x, block, config)
            }
            _ => {
                let x = attend(g, &x, block, config);
                let x = mlp(g, &x, block, config);
                if last { patches(g, &x, weights) } else { x }
            }
        });
    }

    let x = g.scope("norm", |g| layer_norm(g, &x, &weights.norm, config));
    let x = match &weights.projection {
        Some(projection) => g.scope("projection", |g| linear(g, &x, projection)),
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

fn layer_norm(g: &mut Graph, x: &Value, norm: &Norm, config: &VitConfig) -> Value {
    g.layer_norm(x, &norm.weight, &norm.bias, config.eps)
}

fn linear(g: &mut Graph, x: &Value, layer: &Linear) -> Value {
    g.linear(x, &layer.weight, Some(&layer.bias))
}

/// `x + proj(attention(norm1(x)))` on tokens `[1, n, width]`.
///
/// The batch axis and three separate projections are fastest in tract: 122 ms for ViT-S with 257
/// tokens, compared with 134 ms without the batch axis and 141 ms or more with one split
/// projection.
fn attend(g: &mut Graph, x: &Value, block: &Block, config: &VitConfig) -> Value {
    let (heads, channels) = (config.heads.value as i64, padded_head(config) as i64);
    let y = g.scope("norm1", |g| layer_norm(g, x, &block.norm1, config));
    let y = g.scope("attn", |g| {
        let mut heads_of = |layer: &Linear, order: [i64; 4]| {
            let z = linear(g, &y, layer);
            let z = g.reshape(&z, &[1, -1, heads, channels]);
            g.transpose(&z, &order)
        };
        let q = heads_of(&block.q, [0, 2, 1, 3]);
        let k = heads_of(&block.k, [0, 2, 3, 1]);
        let v = heads_of(&block.v, [0, 2, 1, 3]);
        let scores = g.matmul(&q, &k);
        let scores = g.softmax(&scores);
        let y = g.matmul(&scores, &v);
        let y = g.transpose(&y, &[0, 2, 1, 3]);
        let y = g.reshape(&y, &[1, -1, heads * channels]);
        linear(g, &y, &block.proj)
    });
    g.add(x, &y)
}

/// `x + fc2(activation(fc1(norm2(x))))`, or `x + fc2(silu(gate(norm2(x))) fc1(norm2(x)))`.
fn mlp(g: &mut Graph, x: &Value, block: &Block, config: &VitConfig) -> Value {
    let y = g.scope("norm2", |g| layer_norm(g, x, &block.norm2, config));
    let y = g.scope("mlp", |g| {
        let z = linear(g, &y, &block.fc1);
        let z = match &block.gate {
            Some(gate) => {
                let gate = linear(g, &y, gate);
                let gate = g.silu(&gate);
                g.mul(&gate, &z)
            }
            None => match config.activation.value {
                Activation::Gelu => g.gelu(&z),
                Activation::GeluTanh => g.gelu_tanh(&z),
                Activation::QuickGelu => g.quick_gelu(&z),
                Activation::SwiGlu => unreachable!("blocks with SwiGLU are read with a gate"),
            },
        };
        linear(g, &z, &block.fc2)
    });
    g.add(x, &y)
}

/// MaskCLIP's last block: the value projection of each token, without attention, residual and MLP.
fn value_path(g: &mut Graph, x: &Value, block: &Block, config: &VitConfig) -> Value {
    let y = g.scope("norm1", |g| layer_norm(g, x, &block.norm1, config));
    g.scope("attn", |g| {
        let y = linear(g, &y, &block.v);
        linear(g, &y, &block.proj)
    })
}
