//! The upsampler with gradients: the same arithmetic as the graphs that `convert` writes.
//!
//! Everything is kept as rows, one pixel or token per row: see [`crate::kernels`].

pub mod bilinear_init;
mod guidance;
pub mod init;
pub(crate) mod least_squares;
mod params;

use burn::tensor::{Device, Tensor};
use loftup_spec::{Config, EPS, FINAL_EPS, frequencies, linspace};

pub use guidance::{Guidance, RangeOver};
pub use params::{Params, device_matrix, host_values};

use crate::kernels::{Grid, Kernel, run};

/// How far a running statistic moves towards that of a batch.
const MOMENTUM: f32 = 0.1;

/// Features of the backbone: one token per row.
#[derive(Debug, Clone)]
pub struct Tokens {
    /// `[batch * height * width, d]`.
    pub values: Tensor<2>,
    /// Images, rows and columns of their grids.
    pub grid: Grid,
}

/// Where batch normalization takes its statistics from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// From the batch, as in training.
    Train,
    /// From the running statistics, as in use.
    Eval,
}

/// Mean and unbiased variance that the batch normalizations saw, by the names of the running
/// statistics they belong to; `[1, e]` each.
pub type BatchStats = Vec<(String, Tensor<2>)>;

/// An output of the upsampler.
#[derive(Debug, Clone)]
pub struct Output {
    /// `[batch * H * W, d]`.
    pub features: Tensor<2>,
    /// Empty in [`Mode::Eval`].
    pub batch_stats: BatchStats,
}

/// A place in the upsampler, `[batch * H * W, e]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// What the first layer projects to queries.
    Queries,
    /// What the last linear map takes.
    Last,
}

/// A LoftUp upsampler.
#[derive(Debug, Clone)]
pub struct LoftUp {
    /// What shapes it.
    pub config: Config,
    /// What is trained.
    pub weights: Params,
    /// Running statistics.
    pub statistics: Params,
}

impl LoftUp {
    /// An upsampler on `device`.
    pub fn new(config: Config, start: init::Start, device: &Device) -> Self {
        Self {
            config,
            weights: Params::new(start.weights, device),
            statistics: Params::new(start.statistics, device),
        }
    }

    /// Features for every pixel of the guidance.
    ///
    /// # Panics
    /// Where the tokens are not of the upsampler's channels, or of another batch.
    pub fn forward(&self, lr: &Tokens, guidance: &Guidance, mode: Mode) -> Output {
        self.forward_watched(lr, guidance, mode, &mut |_, _| {})
    }

    /// [`Self::forward`], showing what passes [`Place`]s on the way.
    fn forward_watched(
        &self,
        lr: &Tokens,
        guidance: &Guidance,
        mode: Mode,
        watch: &mut dyn FnMut(Place, &Tensor<2>),
    ) -> Output {
        let (p, device) = (&self.weights, lr.values.device());
        assert_eq!(
            lr.grid.batch,
            guidance.grid().batch,
            "images of features and of guidance"
        );
        let layer_norm = |x: Tensor<2>, name: &str, eps: f32| {
            let part = |what: &str| p.get(&format!("{name}.{what}"));
            run(Kernel::LayerNorm { eps }, x, part("weight"), part("bias"))
        };
        let linear = |kernel: Kernel, x: Tensor<2>, name: &str| {
            let part = |what: &str| p.get(&format!("{name}.{what}"));
            run(kernel, x, part("weight"), part("bias"))
        };
        // Everything that is not a weight is constant, and follows the weights into the graph of
        // operations, or not.
        let phases = guidance.phases(self.config.frequencies, &device);
        let colors = guidance.colors(&device);
        let biases = p.get("upsampler.fourier_feat.1.biases");
        let biases = biases.reshape([2, phases.dims()[1]]);
        let x = run(Kernel::Waves, phases, biases, colors);
        let x = layer_norm(x, "upsampler.first_conv.0.norm", EPS);
        let mut batch_stats = Vec::new();
        let convolution = Kernel::Convolution(guidance.grid());
        let mut x = x;
        for index in [1, 4] {
            x = linear(convolution, x, &format!("upsampler.first_conv.{index}"));
            x = self.batch_norm(
                x,
                &format!("upsampler.first_conv.{}", index + 1),
                mode,
                &mut batch_stats,
            );
        }

        let tokens = layer_norm(lr.values.clone(), "channelnorm.norm", EPS);
        // Few tokens, and behind them where the pixels have their waves first.
        let phases = grid_phases(lr.grid, self.config.grid_frequencies, &device);
        let biases = p.get("upsampler.lr_pe.biases");
        let biases = biases.reshape([2, phases.dims()[1]]);
        let shifted = |i: usize| phases.clone() + biases.clone().narrow(0, i, 1);
        let kv = Tensor::cat(vec![tokens, shifted(0).sin(), shifted(1).cos()], 1);
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
            let keys = layer_norm(kv.clone(), &format!("{layer}.0.norm_kv"), EPS);
            let queries = layer_norm(x.clone(), &format!("{layer}.0.norm_q"), EPS);
            if i == 0 {
                watch(Place::Queries, &queries);
            }
            let seen = run(
                attention,
                project(queries, 0),
                project(keys.clone(), 1),
                project(keys, 2),
            );
            x = linear(
                Kernel::Linear,
                seen,
                &format!("{layer}.0.attention.out_proj"),
            ) + x;
            let inner = layer_norm(x.clone(), &format!("{layer}.1.net.0"), EPS);
            let inner = linear(Kernel::LinearGelu, inner, &format!("{layer}.1.net.1"));
            x = linear(Kernel::Linear, inner, &format!("{layer}.1.net.4")) + x;
        }
        let x = layer_norm(x, "upsampler.ca_transformer.norm", EPS);
        watch(Place::Last, &x);
        let x = linear(Kernel::Linear, x, "upsampler.final_conv.0");
        Output {
            features: layer_norm(x, "upsampler.final_conv.1", FINAL_EPS),
            batch_stats,
        }
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
                // PyTorch normalizes by the biased variance and remembers the unbiased one.
                let unbiased = seen.clone().narrow(0, 1, 1) * (rows / (rows - 1.0).max(1.0));
                batch_stats.extend([(mean, seen.narrow(0, 0, 1)), (variance, unbiased)]);
                run(Kernel::BatchNormRelu { eps: EPS }, x, weight, bias)
            }
            Mode::Eval => {
                let scale = weight / (self.statistics.get(&variance) + EPS).sqrt();
                let shift = bias - self.statistics.get(&mean) * scale.clone();
                burn::tensor::activation::relu(x * scale + shift)
            }
        }
    }

    /// Moves the running statistics towards what a batch showed.
    pub fn update_running_stats(&mut self, batch_stats: &BatchStats) {
        self.statistics = self.statistics.map(|name, running| {
            match batch_stats.iter().find(|(n, _)| n == name) {
                Some((_, seen)) => running.clone() * (1.0 - MOMENTUM) + seen.clone() * MOMENTUM,
                None => running.clone(),
            }
        });
    }
}

/// Phases of the grid of tokens: `[batch * h * w, 2 * frequencies]`, frequency-major, rows before
/// columns.
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
