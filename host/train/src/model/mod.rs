//! The upsampler with gradients: the same arithmetic as the graphs written by `loftup convert`.
//!
//! All tensors are matrices with one pixel or token per row; see [`crate::kernels`].

pub mod bilinear_init;
mod guidance;
pub mod init;
pub(crate) mod least_squares;
mod naf;
mod params;
mod upsampler;

use burn::tensor::{Device, Tensor};
use loftup_spec::{Config, EPS, FINAL_EPS, frequencies, linspace};

pub(crate) use guidance::cut;
pub use guidance::{Guidance, RangeOver};
pub use naf::Naf;
pub use params::{Params, device_matrix, host_values};
pub use upsampler::Upsampler;

use crate::kernels::{Grid, Kernel, run};

/// Momentum of the running statistics, as in PyTorch.
const MOMENTUM: f32 = 0.1;

/// Features of the backbone: one token per row.
#[derive(Debug, Clone)]
pub struct Tokens {
    /// `[batch * height * width, d]`.
    pub values: Tensor<2>,
    /// Number of images, and rows and columns of their grids.
    pub grid: Grid,
}

/// The statistics used by batch normalization.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Those of the batch, as in training.
    Train,
    /// The running statistics, as in inference.
    Eval,
}

/// Batch mean and unbiased variance of the batch normalizations, by the names of the corresponding
/// running statistics; `[1, e]` each.
pub type BatchStats = Vec<(String, Tensor<2>)>;

/// An output of the upsampler.
#[derive(Debug, Clone)]
pub struct Output {
    /// `[batch * H * W, d]`.
    pub features: Tensor<2>,
    /// Empty in [`Mode::Eval`].
    pub batch_stats: BatchStats,
}

/// A LoftUp upsampler.
#[derive(Debug, Clone)]
pub struct LoftUp {
    /// Its dimensions.
    pub config: Config,
    /// Trained weights.
    pub weights: Params,
    /// Running statistics.
    pub statistics: Params,
}

impl LoftUp {
    /// Creates an upsampler on `device`.
    pub fn new(config: Config, start: init::Start, device: &Device) -> Self {
        Self {
            config,
            weights: Params::new(start.weights, device),
            statistics: Params::new(start.statistics, device),
        }
    }

    /// Computes the features of every pixel of the guidance.
    ///
    /// # Panics
    /// If the tokens do not have the upsampler's number of channels, or a different batch size.
    pub fn forward(&self, lr: &Tokens, guidance: &Guidance, mode: Mode) -> Output {
        let mut batch_stats = Vec::new();
        let x = self.transformer(lr, guidance, mode, &mut batch_stats);
        let x = self.linear(Kernel::Linear, x, "upsampler.final_conv.0");
        Output {
            features: self.layer_norm(x, "upsampler.final_conv.1", FINAL_EPS),
            batch_stats,
        }
    }

    fn layer_norm(&self, x: Tensor<2>, name: &str, eps: f32) -> Tensor<2> {
        self.linear(Kernel::LayerNorm { eps }, x, name)
    }

    /// Runs a kernel with the weight and bias of `name`.
    fn linear(&self, kernel: Kernel, x: Tensor<2>, name: &str) -> Tensor<2> {
        let part = |what: &str| self.weights.get(&format!("{name}.{what}"));
        run(kernel, x, part("weight"), part("bias"))
    }

    /// Computes the first queries, `[batch * H * W, e]`: Fourier features of the guidance and the two
    /// convolutions.
    fn stem(
        &self,
        guidance: &Guidance,
        mode: Mode,
        device: &Device,
        batch_stats: &mut BatchStats,
    ) -> Tensor<2> {
        // Everything that is not a weight is constant. Whether it is tracked by autodiff follows from the
        // weights.
        let phases = guidance.phases(self.config.frequencies, device);
        let colors = guidance.colors(device);
        let biases = self.weights.get("upsampler.fourier_feat.1.biases");
        let biases = biases.reshape([2, phases.dims()[1]]);
        let x = run(Kernel::Waves, phases, biases, colors);
        let mut x = self.layer_norm(x, "upsampler.first_conv.0.norm", EPS);
        let convolution = Kernel::Convolution(guidance.grid());
        for index in [1, 4] {
            x = self.linear(convolution, x, &format!("upsampler.first_conv.{index}"));
            let name = format!("upsampler.first_conv.{}", index + 1);
            x = self.batch_norm(x, &name, mode, batch_stats);
        }
        x
    }

    /// Computes the input of the last linear map, `[batch * H * W, e]`.
    fn transformer(
        &self,
        lr: &Tokens,
        guidance: &Guidance,
        mode: Mode,
        batch_stats: &mut BatchStats,
    ) -> Tensor<2> {
        let (p, device) = (&self.weights, lr.values.device());
        assert_eq!(
            lr.grid.batch,
            guidance.grid().batch,
            "images of features and of guidance"
        );
        let layer_norm = |x: Tensor<2>, name: &str| self.layer_norm(x, name, EPS);
        let mut x = self.stem(guidance, mode, &device, batch_stats);
        let kv = self.keys_and_values(lr);
        let attention = Kernel::Attention {
            batch: lr.grid.batch,
            heads: self.config.heads,
        };
        let e = self.config.width();
        for i in 0..self.config.layers {
            let layer = format!("upsampler.ca_transformer.layers.{i}");
            let weight = p.get(&format!("{layer}.0.attention.in_proj_weight"));
            let bias = p.get(&format!("{layer}.0.attention.in_proj_bias"));
            let project = |x: Tensor<2>, part: usize| {
                let weight = weight.clone().narrow(0, part * e, e);
                run(
                    Kernel::Linear,
                    x,
                    weight,
                    bias.clone().narrow(1, part * e, e),
                )
            };
            let keys = layer_norm(kv.clone(), &format!("{layer}.0.norm_kv"));
            let queries = layer_norm(x.clone(), &format!("{layer}.0.norm_q"));
            let seen = run(
                attention,
                project(queries, 0),
                project(keys.clone(), 1),
                project(keys, 2),
            );
            let name = format!("{layer}.0.attention.out_proj");
            x = self.linear(Kernel::Linear, seen, &name) + x;
            let inner = layer_norm(x.clone(), &format!("{layer}.1.net.0"));
            let inner = self.linear(Kernel::LinearGelu, inner, &format!("{layer}.1.net.1"));
            x = self.linear(Kernel::Linear, inner, &format!("{layer}.1.net.4")) + x;
        }
        layer_norm(x, "upsampler.ca_transformer.norm")
    }

    /// Computes the input of each layer's normalization for keys and values: the features and the
    /// sinusoids of the position, `[batch * h * w, e]`.
    fn keys_and_values(&self, lr: &Tokens) -> Tensor<2> {
        let tokens = self.layer_norm(lr.values.clone(), "channelnorm.norm", EPS);
        // For tokens, the sinusoids follow the features; for pixels, they come first.
        let phases = grid_phases(lr.grid, self.config.grid_frequencies, &lr.values.device());
        let biases = self.weights.get("upsampler.lr_pe.biases");
        let biases = biases.reshape([2, phases.dims()[1]]);
        let shifted = |i: usize| phases.clone() + biases.clone().narrow(0, i, 1);
        Tensor::cat(vec![tokens, shifted(0).sin(), shifted(1).cos()], 1)
    }

    /// Computes the input of the first layer's projections to keys and values, `[batch * h * w, e]`.
    fn first_keys(&self, lr: &Tokens) -> Tensor<2> {
        let kv = self.keys_and_values(lr);
        self.layer_norm(kv, "upsampler.ca_transformer.layers.0.0.norm_kv", EPS)
    }

    fn batch_norm(
        &self,
        x: Tensor<2>,
        name: &str,
        mode: Mode,
        batch_stats: &mut BatchStats,
    ) -> Tensor<2> {
        let weight = self.weights.get(&format!("{name}.weight"));
        let bias = self.weights.get(&format!("{name}.bias"));
        let (mean, variance) = (
            format!("{name}.running_mean"),
            format!("{name}.running_var"),
        );
        match mode {
            Mode::Train => {
                let inner = x.clone().without_autodiff();
                let rows = inner.dims()[0] as f32;
                let seen = run(Kernel::BatchStats, inner.clone(), inner.clone(), inner);
                // PyTorch normalizes with the biased variance but stores the unbiased one.
                let unbiased = seen.clone().narrow(0, 1, 1) * (rows / (rows - 1.0).max(1.0));
                batch_stats.extend([(mean, seen.narrow(0, 0, 1)), (variance, unbiased)]);
                run(Kernel::BatchNormRelu { eps: EPS }, x, weight, bias)
            }
            Mode::Eval => {
                let scale = weight / (self.statistics.get(&variance) + EPS).sqrt();
                let shift = bias - self.statistics.get(&mean) * scale.clone();
                run(Kernel::ScaleShiftRelu, x, scale, shift)
            }
        }
    }

    /// Updates the running statistics with those of a batch.
    pub fn update_running_stats(&mut self, batch_stats: &BatchStats) {
        self.statistics = self.statistics.map(|name, running| {
            match batch_stats.iter().find(|(n, _)| n == name) {
                Some((_, seen)) => running.clone() * (1.0 - MOMENTUM) + seen.clone() * MOMENTUM,
                None => running.clone(),
            }
        });
    }
}

/// Computes the phases of the grid of tokens: `[batch * h * w, 2 * frequencies]`, frequency-major, rows
/// before columns.
fn grid_phases(grid: Grid, n: usize, device: &Device) -> Tensor<2> {
    let frequencies = frequencies(n);
    let (rows, cols) = (
        linspace(-1.0, 1.0, grid.height),
        linspace(-1.0, 1.0, grid.width),
    );
    let mut data = Vec::with_capacity(grid.pixels() * 2 * n);
    for _ in 0..grid.batch {
        for y in &rows {
            for x in &cols {
                data.extend(frequencies.iter().flat_map(|f| [f * y, f * x]));
            }
        }
    }
    device_matrix(data, grid.pixels(), 2 * n, device)
}
