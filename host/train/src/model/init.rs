//! Initial weights: random with the distributions of PyTorch's modules, or from a checkpoint.

use std::collections::BTreeMap;

use loftup_import::{
    checkpoint::{Checkpoint, CheckpointError},
    loftup::upsampler_prefix,
};
use loftup_onnx::Tensor;
use loftup_spec::Config;

use crate::rng::Rng;

/// PyTorch's initialization of one kind of tensor.
#[derive(Debug, Clone, Copy)]
enum Draw {
    Constant(f32),
    Normal { mean: f32, deviation: f32 },
    Uniform { bound: f32 },
}

/// A tensor of the model: name, shape, initialization.
struct Spec {
    name: String,
    shape: Vec<usize>,
    draw: Draw,
}

/// The list of tensors of a model.
#[derive(Default)]
struct Specs(Vec<Spec>);

impl Specs {
    fn add(&mut self, name: impl Into<String>, shape: &[usize], draw: Draw) {
        self.0.push(Spec {
            name: name.into(),
            shape: shape.to_vec(),
            draw,
        });
    }

    fn norm(&mut self, name: &str, channels: usize) {
        self.add(format!("{name}.weight"), &[channels], Draw::Constant(1.0));
        self.add(format!("{name}.bias"), &[channels], Draw::Constant(0.0));
    }

    /// Adds a linear map or convolution: `[out, in, ...]`.
    fn linear(&mut self, name: &str, shape: &[usize]) {
        let bound = 1.0 / (shape[1..].iter().product::<usize>() as f32).sqrt();
        self.add(format!("{name}.weight"), shape, Draw::Uniform { bound });
        self.add(format!("{name}.bias"), &shape[..1], Draw::Uniform { bound });
    }
}

/// Returns the trained tensors of the upsampler, with the authors' names and shapes.
fn upsampler(config: &Config) -> Specs {
    let (d, e, f) = (config.dim, config.width(), config.guidance_channels());
    let unit = Draw::Normal {
        mean: 0.0,
        deviation: 1.0,
    };
    let mut specs = Specs::default();
    specs.norm("channelnorm.norm", d);
    specs.add(
        "upsampler.fourier_feat.1.biases",
        &[2, 5, config.frequencies],
        unit,
    );
    specs.add(
        "upsampler.lr_pe.biases",
        &[2, 2, config.grid_frequencies],
        unit,
    );
    specs.norm("upsampler.first_conv.0.norm", f);
    specs.linear("upsampler.first_conv.1", &[e, f, 3, 3]);
    specs.norm("upsampler.first_conv.2", e);
    specs.linear("upsampler.first_conv.4", &[e, e, 3, 3]);
    specs.norm("upsampler.first_conv.5", e);
    for i in 0..config.layers {
        let layer = format!("upsampler.ca_transformer.layers.{i}");
        specs.norm(&format!("{layer}.0.norm_q"), e);
        specs.norm(&format!("{layer}.0.norm_kv"), e);
        let attention = format!("{layer}.0.attention");
        let bound = (6.0 / (4 * e) as f32).sqrt();
        specs.add(
            format!("{attention}.in_proj_weight"),
            &[3 * e, e],
            Draw::Uniform { bound },
        );
        specs.add(
            format!("{attention}.in_proj_bias"),
            &[3 * e],
            Draw::Constant(0.0),
        );
        let bound = 1.0 / (e as f32).sqrt();
        specs.add(
            format!("{attention}.out_proj.weight"),
            &[e, e],
            Draw::Uniform { bound },
        );
        specs.add(
            format!("{attention}.out_proj.bias"),
            &[e],
            Draw::Constant(0.0),
        );
        specs.norm(&format!("{layer}.1.net.0"), e);
        specs.linear(&format!("{layer}.1.net.1"), &[d, e]);
        specs.linear(&format!("{layer}.1.net.4"), &[e, d]);
    }
    specs.norm("upsampler.ca_transformer.norm", e);
    specs.linear("upsampler.final_conv.0", &[d, e, 1, 1]);
    specs.norm("upsampler.final_conv.1", d);
    specs
}

/// Running statistics of the two batch normalizations.
fn statistics(config: &Config) -> Specs {
    let mut specs = Specs::default();
    for index in [2, 5] {
        let name = format!("upsampler.first_conv.{index}");
        specs.add(
            format!("{name}.running_mean"),
            &[config.width()],
            Draw::Constant(0.0),
        );
        specs.add(
            format!("{name}.running_var"),
            &[config.width()],
            Draw::Constant(1.0),
        );
    }
    specs
}

fn draw(specs: Specs, rng: &mut Rng) -> BTreeMap<String, Tensor> {
    specs
        .0
        .into_iter()
        .map(|Spec { name, shape, draw }| {
            let tensor = Tensor::from_fn(shape, |_| match draw {
                Draw::Constant(x) => x,
                Draw::Normal { mean, deviation } => mean + deviation * rng.normal(),
                Draw::Uniform { bound } => (2.0 * rng.uniform() - 1.0) * bound,
            });
            (name, tensor)
        })
        .collect()
}

/// Trained weights and running statistics of an upsampler.
#[derive(Debug, Clone)]
pub struct Start {
    /// Trained weights.
    pub weights: BTreeMap<String, Tensor>,
    /// Running mean and variance of the batch normalizations.
    pub statistics: BTreeMap<String, Tensor>,
}

/// Creates a new upsampler with random weights.
pub fn random(config: &Config, rng: &mut Rng) -> Start {
    Start {
        weights: draw(upsampler(config), rng),
        statistics: draw(statistics(config), rng),
    }
}

/// Reads the upsampler of a checkpoint with the authors' names, from a released or a training file.
///
/// # Errors
/// Names the tensor that is missing, has a different shape, or contains NaN.
pub fn from_checkpoint(checkpoint: &Checkpoint, config: &Config) -> Result<Start, CheckpointError> {
    let prefix = upsampler_prefix(checkpoint)?;
    let training = checkpoint.contains(&format!("{prefix}model.1.norm.weight"));
    let take = |specs: Specs| {
        let each = specs.0.into_iter().map(|Spec { name, shape, .. }| {
            let source = match name.strip_prefix("channelnorm.") {
                Some(rest) if training => format!("model.1.{rest}"),
                _ => name.clone(),
            };
            let source = format!("{prefix}{source}");
            Ok((name, checkpoint.tensor(&source, &shape)?))
        });
        each.collect::<Result<_, CheckpointError>>()
    };
    Ok(Start {
        weights: take(upsampler(config))?,
        statistics: take(statistics(config))?,
    })
}

/// Initializes the auxiliary modules trained together with the upsampler: the attention downsampler with
/// windows of `window x window` pixels, and the predicted uncertainty.
pub fn aux(dim: usize, window: usize, rng: &mut Rng) -> BTreeMap<String, Tensor> {
    let mut specs = Specs::default();
    specs.linear("downsampler.attention", &[1, dim]);
    let near = |mean| Draw::Normal {
        mean,
        deviation: 0.01,
    };
    specs.add("downsampler.w", &[window * window], near(1.0));
    specs.add("downsampler.b", &[window * window], near(0.0));
    // A tenth of the usual bound, so that the uncertainty is almost constant at the start.
    let bound = 0.1 / (dim as f32).sqrt();
    specs.add("uncertainty.weight", &[1, dim], Draw::Uniform { bound });
    specs.add("uncertainty.bias", &[1], Draw::Uniform { bound });
    draw(specs, rng)
}

/// Returns the published configuration of LoftUp for features of `dim` channels.
pub fn published(dim: usize) -> Config {
    Config {
        dim,
        layers: 2,
        heads: 4,
        frequencies: 20,
        grid_frequencies: 5,
    }
}
