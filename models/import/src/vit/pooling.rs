//! SigLIP's pooling head (MAP: multihead attention pooling), applied to each token.
//!
//! The head attends from a learned probe to all tokens, followed by an MLP. The result is the embedding of
//! the image, in the space of the texts. For a sequence of one token, the attention weight is 1, so the
//! head is `o + mlp(norm(o))` with `o = proj(value(token))`.

use super::{VitError, names::Tower, schemes::Library};
use crate::transformer::{Linear, Mlp, Shape, linear, norm};
use loftup_onnx::{Graph, Value};

/// The names of its layers.
struct Names {
    /// The name of the module, which is unique in the tower.
    module: &'static str,
    /// A matrix whose last rows are the value projection, and its bias.
    qkv: [&'static str; 2],
    /// Number of projections in the matrix: keys and values, and queries in some libraries.
    parts: usize,
    proj: &'static str,
    norm: &'static str,
    fc1: &'static str,
    fc2: &'static str,
}

/// timm, and timm models in open_clip.
const TIMM: Names = Names {
    module: "attn_pool",
    qkv: ["kv.weight", "kv.bias"],
    parts: 2,
    proj: "proj",
    norm: "norm",
    fc1: "mlp.fc1",
    fc2: "mlp.fc2",
};

/// Hugging Face transformers.
const TRANSFORMERS: Names = Names {
    module: "head",
    qkv: ["attention.in_proj_weight", "attention.in_proj_bias"],
    parts: 3,
    proj: "attention.out_proj",
    norm: "layernorm",
    fc1: "mlp.fc1",
    fc2: "mlp.fc2",
};

/// The layers of the head that are needed for a single token.
#[derive(Debug, Clone)]
pub(super) struct PoolingHead {
    value: Linear,
    proj: Linear,
    mlp: Mlp,
}

impl PoolingHead {
    pub fn read(tower: &Tower<'_>, width: usize) -> Result<Self, VitError> {
        let names = match tower.scheme.library {
            Library::Transformers => TRANSFORMERS,
            Library::Timm | Library::OpenAi => TIMM,
        };
        let full = |name: &str| format!("{}.{name}", names.module);
        let [qkv_weight, qkv_bias] = names.qkv.map(full);
        if !tower.has(&qkv_weight) {
            return Err(tower.unsupported(format!(
                "features in the space of texts without the pooling head {}; use the file of the whole model (transformers: SiglipModel or SiglipVisionModel, timm: with global_pool=map)",
                tower.full(names.module)
            )));
        }
        // No published model has them.
        let positions = full("pos_embed");
        if tower.has(&positions) {
            return Err(tower.unsupported(format!(
                "a pooling head with positions ({})",
                tower.full(&positions)
            )));
        }
        let get = |name: &str, shape: &[usize]| tower.tensor(name, shape);
        let layer = |name: &str, out: usize, inputs: usize| -> Result<Linear, VitError> {
            Ok(Linear {
                weight: get(&format!("{}.weight", full(name)), &[out, inputs])?,
                bias: get(&format!("{}.bias", full(name)), &[out])?,
            })
        };
        let (rows, first) = (names.parts * width, (names.parts - 1) * width);
        let fc1 = tower.full(&format!("{}.weight", full(names.fc1)));
        let hidden = tower.checkpoint.shape(&fc1)?.first().copied().unwrap_or(0);
        if hidden == 0 {
            return Err(tower.unsupported(format!("{fc1} has no rows")));
        }
        Ok(Self {
            value: Linear {
                weight: get(&qkv_weight, &[rows, width])?.rows(first, width),
                bias: get(&qkv_bias, &[rows])?.rows(first, width),
            },
            proj: layer(names.proj, width, width)?,
            mlp: Mlp {
                norm: norm(&full(names.norm), width, get)?,
                gate: None,
                fc1: layer(names.fc1, hidden, width)?,
                fc2: layer(names.fc2, width, hidden)?,
            },
        })
    }

    /// Applies the head to each of the tokens `[1, n, width]`.
    pub fn apply(&self, g: &mut Graph, x: &Value, blocks: &Shape) -> Value {
        let y = g.scope("attn", |g| {
            let y = linear(g, x, &self.value);
            linear(g, &y, &self.proj)
        });
        blocks.mlp(g, &y, &self.mlp)
    }
}
