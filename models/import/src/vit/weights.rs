//! The weights of a vision transformer, independent of the naming scheme and with constants folded.

use super::{
    Activation, Family, PositionEmbedding, VitConfig, VitError,
    names::{MlpForm, Tower},
    pooling::PoolingHead,
    schemes::Qkv,
};
use crate::transformer::{Block, Linear, Mlp, Norm, norm, scaled};
use loftup_onnx::Tensor;
use loftup_spec::rotary::periods;

/// Maximum number of weights in an ONNX file, which is limited to 2 GiB.
const MAX_WEIGHTS: usize = (1 << 29) - (1 << 20);

/// All weights.
#[derive(Debug, Clone)]
pub(super) struct Weights {
    /// The patch embedding's convolution, `[width, 3, patch, patch]`, and its bias `[width]`.
    pub patch: Linear,
    /// The tokens before the patch tokens, with positions added: `[1, prefix, width]`. Class token,
    /// then registers.
    pub prefix: Option<Tensor>,
    pub positions: Positions,
    pub pre_norm: Option<Norm>,
    pub blocks: Vec<Block>,
    pub norm: Norm,
    /// CLIP's visual projection.
    pub projection: Option<Linear>,
    /// SigLIP's pooling head, for features in the space of its texts.
    pub pooling: Option<PoolingHead>,
}

/// Positions of the patches.
#[derive(Debug, Clone)]
pub(super) enum Positions {
    /// Embeddings on the training grid, `[grid, grid, width]`.
    Learned(Tensor),
    /// The periods of rotary ones, a quarter of a head's channels.
    Rotary(Vec<f32>),
}

impl Weights {
    pub fn read(tower: &Tower<'_>, config: &VitConfig) -> Result<Self, VitError> {
        let s = tower.scheme;
        let width = config.width;
        check_size(tower, config, MAX_WEIGHTS)?;
        let shape = [width, 3, config.patch, config.patch];
        let patch_bias = format!("{}.bias", s.patch);
        let patch = Linear {
            weight: tower.tensor(&format!("{}.weight", s.patch), &shape)?,
            // CLIP has none.
            bias: match config.family() == Family::Clip && !tower.has(&patch_bias) {
                true => Tensor::from_fn([width], |_| 0.0),
                false => tower.tensor(&patch_bias, &[width])?,
            },
        };
        let (prefix, positions) = tokens(tower, config)?;
        Ok(Self {
            patch,
            prefix,
            positions,
            pre_norm: match config.family() {
                Family::Clip => Some(norm(s.pre_norm, width, |n, d| tower.tensor(n, d))?),
                _ => None,
            },
            blocks: (0..config.depth)
                .map(|i| block(tower, config, i))
                .collect::<Result<_, _>>()?,
            norm: norm(s.norm, width, |n, d| tower.tensor(n, d))?,
            projection: match config.family() {
                Family::Clip => Some(tower.projection(config.dim, width)?),
                _ => None,
            },
            pooling: match config.text_space {
                true => Some(PoolingHead::read(tower, width)?),
                false => None,
            },
        })
    }
}

/// The tokens before the patch tokens, and the positions of the patches.
fn tokens(tower: &Tower<'_>, config: &VitConfig) -> Result<(Option<Tensor>, Positions), VitError> {
    let width = config.width;
    // The learned position of the class token, if it has one.
    let mut class_position = None;
    let positions = match config.position {
        PositionEmbedding::Learned { grid, .. } => {
            let (count, patches) = (tower.positions(width)?, grid * grid);
            let positions = tower.squeezed(tower.position_name(), &[count, width])?;
            class_position = (count > patches).then(|| positions.rows(0, 1));
            let patches = positions.rows(count - patches, patches);
            Positions::Learned(patches.reshaped([grid, grid, width]))
        }
        PositionEmbedding::Rotary { theta, .. } => Positions::Rotary(match theta {
            Some(theta) => periods(theta.into(), config.shape().head_dim() / 4),
            None => stored_periods(tower, config)?,
        }),
    };
    let s = tower.scheme;
    if !tower.has(s.class) {
        return Ok((None, positions));
    }
    let mut prefix = tower.squeezed(s.class, &[width])?.into_data();
    if let Some(position) = class_position {
        prefix
            .iter_mut()
            .zip(position.data())
            .for_each(|(x, p)| *x += p);
    }
    if let Some(name) = tower.registers_name().filter(|_| config.registers > 0) {
        prefix.extend(
            tower
                .squeezed(name, &[config.registers, width])?
                .into_data(),
        );
    }
    let rows = 1 + config.registers;
    let prefix = Tensor::from_fn([1, rows, width], |i| prefix[i]);
    Ok((Some(prefix), positions))
}

fn stored_periods(tower: &Tower<'_>, config: &VitConfig) -> Result<Vec<f32>, VitError> {
    let name = tower.position_name();
    let periods = tower.tensor(name, &[config.shape().head_dim() / 4])?;
    if let Some(period) = periods.data().iter().find(|p| **p <= 0.0) {
        return Err(VitError::Unsupported {
            path: tower.path(),
            what: format!("{name} has the period {period}, which is not positive"),
        });
    }
    Ok(periods.into_data())
}

fn block(tower: &Tower<'_>, config: &VitConfig, block: usize) -> Result<Block, VitError> {
    let s = tower.scheme;
    let shape = config.shape();
    let width = config.width;
    let get = |name: &str, shape: &[usize]| tower.block_tensor(block, name, shape);
    let linear = |name: &str, out: usize, inn: usize| -> Result<Linear, VitError> {
        Ok(Linear {
            weight: get(&format!("{name}.weight"), &[out, inn])?,
            bias: get(&format!("{name}.bias"), &[out])?,
        })
    };
    // A bias that no block has is zero.
    let optional = |name: &str, rows: usize| match tower.any_block_has(name) {
        true => get(name, &[rows]),
        false => Ok(Tensor::from_fn([rows], |_| 0.0)),
    };
    let thirds = |weight: Tensor, bias: [Tensor; 3]| {
        let mut part = 0;
        bias.map(|bias| {
            part += 1;
            let weight = weight.rows((part - 1) * width, width);
            Linear { weight, bias }
        })
    };
    let third = |bias: &Tensor| [0, 1, 2].map(|i| bias.rows(i * width, width));
    let [q, k, v] = match s.qkv {
        Qkv::Fused(weight, bias) => {
            let weight = get(weight, &[3 * width, width])?;
            thirds(weight, third(&get(bias, &[3 * width])?))
        }
        Qkv::Masked(weight, [bias, mask]) => {
            let weight = get(weight, &[3 * width, width])?;
            let mut bias = optional(bias, 3 * width)?;
            if tower.any_block_has(mask) {
                let mask = get(mask, &[3 * width])?;
                bias = bias.map(|i, x| x * mask.data()[i]);
            }
            thirds(weight, third(&bias))
        }
        Qkv::Biased(weight, [q, v]) => {
            let weight = get(weight, &[3 * width, width])?;
            let k = Tensor::from_fn([width], |_| 0.0);
            thirds(weight, [optional(q, width)?, k, optional(v, width)?])
        }
        Qkv::Split(names) => {
            let rotary = config.position.grid().is_none();
            let part = |name: &str| match rotary {
                true => Ok(Linear {
                    weight: get(&format!("{name}.weight"), &[width, width])?,
                    bias: optional(&format!("{name}.bias"), width)?,
                }),
                false => linear(name, width, width),
            };
            [part(names[0])?, part(names[1])?, part(names[2])?]
        }
    };
    let mut proj = linear(s.proj, width, width)?;
    let (mlp, hidden) = tower.mlp(block)?;
    if matches!(mlp, MlpForm::Plain(_)) == (config.activation.value == Activation::SwiGlu) {
        let what = format!("block {block} has another form of MLP than block 0");
        return Err(VitError::Unsupported {
            path: tower.path(),
            what,
        });
    }
    let (gate, fc1, mut fc2) = match mlp {
        MlpForm::Plain([fc1, fc2]) => (
            None,
            linear(fc1, hidden, width)?,
            linear(fc2, width, hidden)?,
        ),
        MlpForm::Fused([first, second]) => {
            let both = linear(first, 2 * hidden, width)?;
            let half = |i: usize| Linear {
                weight: both.weight.rows(i * hidden, hidden),
                bias: both.bias.rows(i * hidden, hidden),
            };
            (Some(half(0)), half(1), linear(second, width, hidden)?)
        }
        MlpForm::Split([gate, values, second]) => (
            Some(linear(gate, hidden, width)?),
            linear(values, hidden, width)?,
            linear(second, width, hidden)?,
        ),
    };
    if matches!(config.family(), Family::DinoV2 | Family::DinoV3) {
        proj = scaled(proj, &get(s.scale1, &[width])?);
        fc2 = scaled(fc2, &get(s.scale2, &[width])?);
    }
    Ok(Block {
        norm1: norm(s.norm1, width, get)?,
        q: shape.query(q),
        k: shape.padded_rows(k),
        v: shape.padded_rows(v),
        proj: shape.padded_columns(proj),
        mlp: Mlp {
            norm: norm(s.norm2, width, get)?,
            gate,
            fc1,
            fc2,
        },
    })
}

/// Rejects empty layers, and more weights than `limit`.
fn check_size(tower: &Tower<'_>, config: &VitConfig, limit: usize) -> Result<(), VitError> {
    let padded = config
        .heads
        .value
        .saturating_mul(config.shape().padded_head());
    let mut total = 0usize;
    for block in 0..config.depth {
        let (mlp, hidden) = tower.mlp(block)?;
        let layers = if matches!(mlp, MlpForm::Plain(_)) {
            2
        } else {
            3
        };
        if hidden == 0 {
            let what = format!("block {block} has an MLP without channels");
            return Err(VitError::Unsupported {
                path: tower.path(),
                what,
            });
        }
        let channels = padded
            .saturating_mul(4)
            .saturating_add(hidden.saturating_mul(layers));
        total = total.saturating_add(channels.saturating_mul(config.width));
    }
    if total > limit {
        let (family, dimensions) = (config.family(), config.dimensions());
        let smaller = match family {
            Family::DinoV2 if config.registers > 0 => "dinov2-l14-reg",
            Family::DinoV2 => "dinov2-l14",
            Family::DinoV3 => "dinov3-l16-plus",
            Family::Clip => "clip-l14",
            Family::SigLip => "siglip2-so400m14",
        };
        let what = format!(
            "{family} with {dimensions} has {total} weights in its blocks, and an ONNX file holds at most {limit} of 32 bits (2 GiB); weights outside of the ONNX file are not supported; use a smaller model: {smaller} is the largest {family} that fits"
        );
        return Err(VitError::Unsupported {
            path: tower.path(),
            what,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        checkpoint::Checkpoint,
        vit::{ConfigFiles, Preset, VitOptions, search},
    };

    #[test]
    fn more_weights_than_fit_are_refused() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/openai_clip.pt");
        let checkpoint = Checkpoint::open(&path).unwrap();
        let preset = Preset::parse("clip").unwrap();
        let options = VitOptions {
            heads: Some(1),
            ..VitOptions::default()
        };
        let tower = search::find(&checkpoint, Some(preset)).unwrap();
        let config = VitConfig::read(&tower, preset, &options, &ConfigFiles::default()).unwrap();
        // One block of width 4: four projections of 8 channels, including padding, and an MLP of 4.
        let count = (4 * 8 + 2 * 4) * 4;
        assert!(check_size(&tower, &config, count).is_ok());
        let message = check_size(&tower, &config, count - 1)
            .unwrap_err()
            .to_string();
        for part in ["openai_clip.pt", "width 4", "has 160 weights", "clip-l14"] {
            assert!(message.contains(part), "{part}: {message}");
        }
    }
}
