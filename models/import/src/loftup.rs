//! Reads the LoftUp upsampler from a checkpoint, and folds constants that do not depend on the
//! image.

use loftup_onnx::{
    Tensor,
    loftup::{Affine, Layer, Linear, LoftUp},
};
use loftup_spec::{Config, EPS, HEADS};

use crate::{
    checkpoint::{Checkpoint, CheckpointError},
    prefix,
};

/// A tensor that only LoftUp checkpoints have.
pub(crate) const MARKER: &str = "upsampler.lr_pe.biases";

/// Reads the upsampler from a checkpoint with the original names, under any prefix
/// ([`upsampler_prefix`]).
///
/// # Errors
/// A tensor is missing, has a different shape, or contains NaN.
pub fn read(checkpoint: &Checkpoint) -> Result<LoftUp, CheckpointError> {
    let prefix = upsampler_prefix(checkpoint)?;
    let source = Source { checkpoint, prefix };
    let config = source.config()?;
    let (d, e) = (config.dim, config.width());
    let channel_norm = source.affine(source.channel_norm_name(), &[d])?;
    let guidance_norm =
        source.affine("upsampler.first_conv.0.norm", &[config.guidance_channels()])?;
    let layers = (0..config.layers)
        .map(|i| source.layer(i, &config))
        .collect::<Result<_, _>>()?;
    let last_norm = source.affine("upsampler.ca_transformer.norm", &[e])?;
    let last = source.affine("upsampler.final_conv.0", &[d, e, 1, 1])?;
    let last = Linear {
        weight: last.weight.reshaped([d, e]),
        bias: last.bias,
    };
    let phases = |name: &str, channels: usize, frequencies: usize| {
        let phases = source.tensor(name, &[2, channels, frequencies])?;
        // The original code reinterprets the flat memory as [2, frequencies, channels], without a
        // transpose.
        Ok(phases.reshaped([2, channels * frequencies]))
    };
    Ok(LoftUp {
        channel_norm,
        grid_phases: phases("upsampler.lr_pe.biases", 2, config.grid_frequencies)?,
        phases: phases("upsampler.fourier_feat.1.biases", 5, config.frequencies)?,
        guidance_norm,
        conv1: source.convolution(1, &[e, config.guidance_channels(), 3, 3])?,
        conv2: source.convolution(4, &[e, e, 3, 3])?,
        layers,
        last: fold_norm(&last_norm, &last),
        last_norm: source.affine("upsampler.final_conv.1", &[d])?,
        config,
    })
}

/// The prefix of the upsampler's names in a checkpoint: empty, or as added by training (`model.`,
/// `ema_model.`, ...). Of several upsamplers, the one without a prefix is used; of a student and
/// its teacher, the teacher. Empty if there is no upsampler.
///
/// # Errors
/// There are several candidates.
pub fn upsampler_prefix(checkpoint: &Checkpoint) -> Result<String, CheckpointError> {
    prefix::upsampler(checkpoint, MARKER)
}

/// A checkpoint accessed by the original names.
struct Source<'a> {
    checkpoint: &'a Checkpoint,
    /// The prefix of the names.
    prefix: String,
}

impl Source<'_> {
    fn contains(&self, name: &str) -> bool {
        self.checkpoint.contains(&format!("{}{name}", self.prefix))
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, CheckpointError> {
        let name = format!("{}{name}", self.prefix);
        self.checkpoint.tensor(&name, shape)
    }

    /// In training checkpoints, the channel norm is the second member of a sequence.
    fn channel_norm_name(&self) -> &'static str {
        if self.contains("model.1.norm.weight") {
            "model.1.norm"
        } else {
            "channelnorm.norm"
        }
    }

    fn config(&self) -> Result<Config, CheckpointError> {
        let extent = |name: &str, axis: usize| {
            let shape = self.checkpoint.shape(&format!("{}{name}", self.prefix))?;
            Ok(shape.get(axis).copied().unwrap_or(0))
        };
        let layers = (0..)
            .take_while(|&i| self.contains(&attention_name(i, "in_proj_weight")))
            .count()
            // A checkpoint without any layer is then reported as missing the first one.
            .max(1);
        let config = Config {
            dim: extent(&format!("{}.weight", self.channel_norm_name()), 0)?,
            layers,
            heads: HEADS,
            frequencies: extent("upsampler.fourier_feat.1.biases", 2)?,
            grid_frequencies: extent("upsampler.lr_pe.biases", 2)?,
        };
        if config.dim == 0 || !config.width().is_multiple_of(config.heads) {
            return Err(CheckpointError::Unsupported {
                path: self.checkpoint.path().to_owned(),
                what: format!(
                    "{}.weight has {} channels, which is not divisible by {HEADS} attention heads",
                    self.channel_norm_name(),
                    config.dim
                ),
                remedy: "use a LoftUp checkpoint whose channels are a multiple of 4".into(),
            });
        }
        Ok(config)
    }

    /// `name.weight` with this shape, and `name.bias` with its first dimension.
    fn affine(&self, name: &str, shape: &[usize]) -> Result<Affine, CheckpointError> {
        Ok(Affine {
            weight: self.tensor(&format!("{name}.weight"), shape)?,
            bias: self.tensor(&format!("{name}.bias"), &shape[..1])?,
        })
    }

    /// Convolution `first_conv.index`, with the following batch normalization folded in.
    fn convolution(&self, index: usize, shape: &[usize]) -> Result<Linear, CheckpointError> {
        let conv = self.affine(&format!("upsampler.first_conv.{index}"), shape)?;
        let name = format!("upsampler.first_conv.{}", index + 1);
        let norm = self.affine(&name, &shape[..1])?;
        let stat = |stat: &str| self.tensor(&format!("{name}.{stat}"), &shape[..1]);
        let (mean, variance) = (stat("running_mean")?, stat("running_var")?);
        let at = |t: &Tensor, o: usize| f64::from(t.data()[o]);
        let scale: Vec<f64> = (0..shape[0])
            .map(|o| at(&norm.weight, o) / (at(&variance, o) + f64::from(EPS)).sqrt())
            .collect();
        let per_out = conv.weight.data().len() / shape[0];
        Ok(Linear {
            bias: Tensor::from_fn([shape[0]], |o| {
                ((at(&conv.bias, o) - at(&mean, o)) * scale[o] + at(&norm.bias, o)) as f32
            }),
            weight: conv
                .weight
                .map(|i, w| (f64::from(w) * scale[i / per_out]) as f32),
        })
    }

    fn layer(&self, i: usize, config: &Config) -> Result<Layer, CheckpointError> {
        let (d, e) = (config.dim, config.width());
        let block = format!("upsampler.ca_transformer.layers.{i}");
        let weight = self.tensor(&attention_name(i, "in_proj_weight"), &[3 * e, e])?;
        let bias = self.tensor(&attention_name(i, "in_proj_bias"), &[3 * e])?;
        let packed = |part: usize, norm: &Affine| {
            let part = Linear {
                weight: weight.rows(part * e, e),
                bias: bias.rows(part * e, e),
            };
            fold_norm(norm, &part)
        };
        let norm_q = self.affine(&format!("{block}.0.norm_q"), &[e])?;
        let norm_kv = self.affine(&format!("{block}.0.norm_kv"), &[e])?;
        let mlp_norm = self.affine(&format!("{block}.1.net.0"), &[e])?;
        let scale = 1.0 / (config.head_width() as f64).sqrt();
        let scaled = |t: Tensor| t.map(|_, x| (f64::from(x) * scale) as f32);
        let query = packed(0, &norm_q);
        let query = Linear {
            weight: scaled(query.weight),
            bias: scaled(query.bias),
        };
        let out = self.affine(&attention_name(i, "out_proj"), &[e, e])?;
        Ok(Layer {
            query: pad_heads(&query, config),
            key: pad_heads(&packed(1, &norm_kv), config),
            value: pad_heads(&packed(2, &norm_kv), config),
            out: Linear {
                weight: pad_head_inputs(&out.weight, config),
                bias: out.bias,
            },
            mlp_in: fold_norm(
                &mlp_norm,
                &self.affine(&format!("{block}.1.net.1"), &[d, e])?,
            ),
            mlp_out: self.affine(&format!("{block}.1.net.4"), &[e, d])?,
        })
    }
}

fn attention_name(layer: usize, tensor: &str) -> String {
    format!("upsampler.ca_transformer.layers.{layer}.0.attention.{tensor}")
}

/// `linear(norm(x))` as one linear map of the normalized x, before scale and shift.
fn fold_norm(norm: &Affine, linear: &Linear) -> Linear {
    let inputs = norm.weight.data().len();
    let bias = Tensor::from_fn(linear.bias.shape(), |o| {
        let row = &linear.weight.data()[o * inputs..][..inputs];
        let shift: f64 = row
            .iter()
            .zip(norm.bias.data())
            .map(|(&w, &b)| f64::from(w) * f64::from(b))
            .sum();
        (f64::from(linear.bias.data()[o]) + shift) as f32
    });
    let weight = linear
        .weight
        .clone()
        .map(|i, w| w * norm.weight.data()[i % inputs]);
    Linear { weight, bias }
}

/// Adds rows of zeros after the rows of each head.
fn pad_heads(linear: &Linear, config: &Config) -> Linear {
    let (width, padded) = (config.head_width(), config.padded_head_width());
    let inputs = linear.weight.shape()[1];
    // Row of the padded layer -> row of the original one.
    let row = |r: usize| (r % padded < width).then(|| r / padded * width + r % padded);
    let rows = config.heads * padded;
    Linear {
        weight: Tensor::from_fn([rows, inputs], |i| {
            row(i / inputs).map_or(0.0, |r| linear.weight.data()[r * inputs + i % inputs])
        }),
        bias: Tensor::from_fn([rows], |i| row(i).map_or(0.0, |r| linear.bias.data()[r])),
    }
}

/// Adds columns of zeros after the columns of each head.
fn pad_head_inputs(weight: &Tensor, config: &Config) -> Tensor {
    let padded = Linear {
        weight: weight.transposed(),
        bias: Tensor::from_fn([weight.shape()[1]], |_| 0.0),
    };
    pad_heads(&padded, config).weight.transposed()
}
