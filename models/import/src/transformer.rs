//! Transformer blocks, shared by image and text encoders: their weights and their part of a graph.

use loftup_bundle::Activation;
use loftup_onnx::{Graph, Tensor, Value};

/// Head widths are padded with zeros to a multiple of this, as required by fused attention kernels.
pub(crate) const HEAD_MULTIPLE: usize = 8;

/// `x W + b`: weight `[out, in]`, bias `[out]`.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    pub weight: Tensor,
    pub bias: Tensor,
}

/// Scale and offset of a layer norm, `[width]` each.
#[derive(Debug, Clone)]
pub(crate) struct Norm {
    pub weight: Tensor,
    pub bias: Tensor,
}

/// A transformer block. The attention scale is folded into `q`, LayerScale into `proj` and `fc2`;
/// heads are padded, so that q, k and v have `heads * padded` channels.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    pub norm1: Norm,
    pub q: Linear,
    pub k: Linear,
    pub v: Linear,
    pub proj: Linear,
    pub mlp: Mlp,
}

/// An MLP with a residual connection.
#[derive(Debug, Clone)]
pub(crate) struct Mlp {
    pub norm: Norm,
    /// The gate layer of SwiGLU: the output of `fc1` is multiplied by its SiLU.
    pub gate: Option<Linear>,
    pub fc1: Linear,
    pub fc2: Linear,
}

/// Rotary position embeddings: factors `[1, n, 1, head]` for queries and keys, and for the same with
/// the two halves of each head's channels swapped.
#[derive(Debug, Clone)]
pub(crate) struct Rotary {
    pub cos: Value,
    pub sin: Value,
}

impl Rotary {
    /// Rotates heads `[batch, n, heads, channels]`.
    fn apply(&self, g: &mut Graph, x: &Value, channels: i64) -> Value {
        let half = channels / 2;
        let first = g.slice(x, &[3], &[0], &[half]);
        let second = g.slice(x, &[3], &[half], &[channels]);
        let swapped = g.concat(&[&second, &first], 3);
        let x = g.mul(x, &self.cos);
        let swapped = g.mul(&swapped, &self.sin);
        g.add(&x, &swapped)
    }
}

/// The dimensions and settings shared by all blocks of a transformer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// Batch size.
    pub batch: usize,
    /// Channels.
    pub width: usize,
    /// Attention heads.
    pub heads: usize,
    /// Activation of the MLPs.
    pub activation: Activation,
    /// Epsilon of all layer norms.
    pub eps: f32,
}

impl Shape {
    /// Channels of an attention head.
    pub fn head_dim(&self) -> usize {
        self.width / self.heads
    }

    /// Channels of an attention head, padded.
    pub fn padded_head(&self) -> usize {
        self.head_dim().next_multiple_of(HEAD_MULTIPLE)
    }

    /// The query layer, with the attention scale and padded heads.
    pub fn query(&self, layer: Linear) -> Linear {
        let scale = 1.0 / (self.head_dim() as f32).sqrt();
        let rows = layer.bias.shape()[0];
        self.padded_rows(scaled(layer, &Tensor::from_fn([rows], |_| scale)))
    }

    /// The layer with zero channels added after those of each head.
    pub fn padded_rows(&self, layer: Linear) -> Linear {
        let (real, padded, inputs) = (self.head_dim(), self.padded_head(), self.width);
        if real == padded {
            return layer;
        }
        let out = self.heads * padded;
        let source = |row: usize| (row % padded < real).then(|| row / padded * real + row % padded);
        let at =
            |row, column| source(row).map_or(0.0, |r| layer.weight.data()[r * inputs + column]);
        Linear {
            weight: Tensor::from_fn([out, inputs], |i| at(i / inputs, i % inputs)),
            bias: Tensor::from_fn([out], |row| {
                source(row).map_or(0.0, |r| layer.bias.data()[r])
            }),
        }
    }

    /// The layer for inputs with padded heads.
    pub fn padded_columns(&self, layer: Linear) -> Linear {
        let rows = Linear {
            weight: layer.weight.transposed(),
            bias: layer.bias.clone(),
        };
        let weight = self.padded_rows(rows).weight.transposed();
        Linear {
            weight,
            bias: layer.bias,
        }
    }

    /// `x + proj(attention(norm1(x)))` on tokens `[batch, n, width]`. `mask` is added to the scores;
    /// `rotary` needs heads that are not padded.
    ///
    /// The batch axis and three separate projections are fastest in tract: 122 ms for ViT-S with 257
    /// tokens, compared with 134 ms without the batch axis and 141 ms or more with one split
    /// projection.
    pub fn attend(
        &self,
        g: &mut Graph,
        x: &Value,
        block: &Block,
        mask: Option<&Tensor>,
        rotary: Option<&Rotary>,
    ) -> Value {
        let (heads, channels) = (self.heads as i64, self.padded_head() as i64);
        let batch = self.batch as i64;
        let y = g.scope("norm1", |g| self.layer_norm(g, x, &block.norm1));
        let y = g.scope("attn", |g| {
            let mut heads_of = |layer: &Linear, rotary: Option<&Rotary>, order: [i64; 4]| {
                let z = linear(g, &y, layer);
                let z = g.reshape(&z, &[batch, -1, heads, channels]);
                let z = rotary.map_or(z.clone(), |rotary| rotary.apply(g, &z, channels));
                g.transpose(&z, &order)
            };
            let q = heads_of(&block.q, rotary, [0, 2, 1, 3]);
            let k = heads_of(&block.k, rotary, [0, 2, 3, 1]);
            let v = heads_of(&block.v, None, [0, 2, 1, 3]);
            let mut scores = g.matmul(&q, &k);
            if let Some(mask) = mask {
                let mask = g.constant("mask", mask);
                scores = g.add(&scores, &mask);
            }
            let scores = g.softmax(&scores);
            let y = g.matmul(&scores, &v);
            let y = g.transpose(&y, &[0, 2, 1, 3]);
            let y = g.reshape(&y, &[batch, -1, heads * channels]);
            linear(g, &y, &block.proj)
        });
        g.add(x, &y)
    }

    /// `x + fc2(activation(fc1(norm(x))))`, or `x + fc2(silu(gate(norm(x))) fc1(norm(x)))`.
    pub fn mlp(&self, g: &mut Graph, x: &Value, mlp: &Mlp) -> Value {
        let y = g.scope("norm2", |g| self.layer_norm(g, x, &mlp.norm));
        let y = g.scope("mlp", |g| {
            let z = linear(g, &y, &mlp.fc1);
            let z = match &mlp.gate {
                Some(gate) => {
                    let gate = linear(g, &y, gate);
                    let gate = g.silu(&gate);
                    g.mul(&gate, &z)
                }
                None => match self.activation {
                    Activation::Gelu => g.gelu(&z),
                    Activation::GeluTanh => g.gelu_tanh(&z),
                    Activation::QuickGelu => g.quick_gelu(&z),
                    Activation::SwiGlu => unreachable!("blocks with SwiGLU are read with a gate"),
                },
            };
            linear(g, &z, &mlp.fc2)
        });
        g.add(x, &y)
    }

    /// A layer norm over the channels.
    pub fn layer_norm(&self, g: &mut Graph, x: &Value, norm: &Norm) -> Value {
        g.layer_norm(x, &norm.weight, &norm.bias, self.eps)
    }
}

/// A linear layer; a bias of zeros is not added.
pub(crate) fn linear(g: &mut Graph, x: &Value, layer: &Linear) -> Value {
    let biased = layer.bias.data().iter().any(|b| *b != 0.0);
    g.linear(x, &layer.weight, biased.then_some(&layer.bias))
}

/// `name.weight` and `name.bias`, both `[width]`.
pub(crate) fn norm<E>(
    name: &str,
    width: usize,
    get: impl Fn(&str, &[usize]) -> Result<Tensor, E>,
) -> Result<Norm, E> {
    Ok(Norm {
        weight: get(&format!("{name}.weight"), &[width])?,
        bias: get(&format!("{name}.bias"), &[width])?,
    })
}

/// The layer with each output channel multiplied by a factor.
pub(crate) fn scaled(layer: Linear, by: &Tensor) -> Linear {
    let inputs = layer.weight.shape()[1];
    Linear {
        weight: layer.weight.map(|i, x| x * by.data()[i / inputs]),
        bias: layer.bias.map(|i, x| x * by.data()[i]),
    }
}
