//! The weights of a text encoder.

use loftup_onnx::Tensor;

use super::{TextConfig, TextError, Weights, tower::Tower};
use crate::transformer::{Block, Linear, Mlp, norm};

impl Tower<'_> {
    /// Reads the weights.
    pub fn weights(&self, config: &TextConfig) -> Result<Weights, TextError> {
        let (s, width) = (self.scheme, config.width);
        let get = |name: &str, shape: &[usize]| self.tensor(name, shape);
        let (projection, axis) = self.projection_name()?;
        let weight = match axis {
            1 => self
                .checkpoint
                .tensor(&projection, &[width, config.dim])?
                .transposed(),
            _ => self.checkpoint.tensor(&projection, &[config.dim, width])?,
        };
        let bias = match self.projection_bias()? {
            Some(bias) => self.checkpoint.tensor(&bias, &[config.dim])?,
            None => Tensor::from_fn([config.dim], |_| 0.0),
        };
        Ok(Weights {
            embedding: get(s.embedding, &[config.vocabulary, width])?,
            positions: get(s.positions, &[config.context, width])?,
            blocks: (0..config.depth)
                .map(|i| self.block(config, i))
                .collect::<Result<_, _>>()?,
            norm: norm(s.norm, width, get)?,
            projection: Linear { weight, bias },
        })
    }

    fn block(&self, config: &TextConfig, block: usize) -> Result<Block, TextError> {
        let (s, width, shape) = (self.scheme, config.width, config.shape(1));
        let stem = format!("{}.{block}.", s.blocks);
        let get = |name: &str, shape: &[usize]| self.tensor(&format!("{stem}{name}"), shape);
        let linear = |name: &str, out: usize, inputs: usize| -> Result<Linear, TextError> {
            Ok(Linear {
                weight: get(&format!("{name}.weight"), &[out, inputs])?,
                bias: get(&format!("{name}.bias"), &[out])?,
            })
        };
        let [q, k, v] = match *s.qkv {
            [q, k, v] => [
                linear(q, width, width)?,
                linear(k, width, width)?,
                linear(v, width, width)?,
            ],
            ref fused => {
                let weight = get(fused[0], &[3 * width, width])?;
                let bias = get(fused[1], &[3 * width])?;
                [0, 1, 2].map(|i| Linear {
                    weight: weight.rows(i * width, width),
                    bias: bias.rows(i * width, width),
                })
            }
        };
        let fc1 = self.full(&format!("{stem}{}.weight", s.fc1));
        let hidden = self.checkpoint.shape(&fc1)?.first().copied().unwrap_or(0);
        if hidden == 0 {
            return Err(self.unsupported(format!("block {block} has an MLP without channels")));
        }
        Ok(Block {
            norm1: norm(s.norm1, width, get)?,
            q: shape.query(q),
            k: shape.padded_rows(k),
            v: shape.padded_rows(v),
            proj: shape.padded_columns(linear(s.proj, width, width)?),
            mlp: Mlp {
                norm: norm(s.norm2, width, get)?,
                gate: None,
                fc1: linear(s.fc1, hidden, width)?,
                fc2: linear(s.fc2, width, hidden)?,
            },
        })
    }
}
