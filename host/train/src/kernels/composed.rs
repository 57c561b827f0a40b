//! The same operations composed of the framework's operations: the reference for tests of the CPU
//! kernels, and the implementation for GPUs.

use burn::tensor::{
    Tensor,
    activation::{gelu, relu, silu, softmax},
    module::conv2d,
    ops::ConvOptions,
};

use super::Kernel;

/// Runs `kernel`; shapes are as in [`super::run`].
pub fn run(kernel: Kernel, x: Tensor<2>, a: Tensor<2>, b: Tensor<2>) -> Tensor<2> {
    match kernel {
        Kernel::LayerNorm { eps } => {
            let centered = x.clone() - x.mean_dim(1);
            let variance = centered.clone().square().mean_dim(1);
            centered / (variance + eps).sqrt() * a + b
        }
        Kernel::BatchNormRelu { eps } => {
            let centered = x.clone() - x.mean_dim(0);
            let variance = centered.clone().square().mean_dim(0);
            relu(centered / (variance + eps).sqrt() * a + b)
        }
        Kernel::GroupNormSilu { of, eps } => {
            let [n, c] = x.dims();
            let [rows, width] = [n / of.batch, c / of.groups];
            let x = x.reshape([of.batch, rows, of.groups, width]);
            let mean = |x: Tensor<4>| x.mean_dim(1).mean_dim(3);
            let centered = x.clone() - mean(x);
            let variance = mean(centered.clone().square());
            let normalized = centered / (variance + eps).sqrt();
            silu(normalized.reshape([n, c]) * a + b)
        }
        Kernel::ScaleShiftRelu => relu(x * a + b),
        Kernel::Waves => {
            let shifted = |i: usize| x.clone() + a.clone().narrow(0, i, 1);
            Tensor::cat(vec![shifted(0).sin(), shifted(1).cos(), b], 1)
        }
        Kernel::BatchStats => {
            let x = x.without_autodiff();
            let mean = x.clone().mean_dim(0);
            let variance = (x - mean.clone()).square().mean_dim(0);
            Tensor::cat(vec![mean, variance], 0)
        }
        Kernel::Linear => x.matmul(a.transpose()) + b,
        Kernel::LinearGelu => gelu(x.matmul(a.transpose()) + b),
        Kernel::Convolution(grid) => {
            let [_, c] = x.dims();
            let [out, _] = a.dims();
            let x = x
                .reshape([grid.batch, grid.height, grid.width, c])
                .permute([0, 3, 1, 2]);
            let options = ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
            let y = conv2d(
                x,
                a.reshape([out, c, 3, 3]),
                Some(b.reshape([out])),
                options,
            );
            y.permute([0, 2, 3, 1]).reshape([grid.pixels(), out])
        }
        Kernel::Attention { batch, heads } => {
            let [n, e] = x.dims();
            let [m, _] = a.dims();
            let width = e / heads;
            let split = |t: Tensor<2>, rows: usize| {
                t.reshape([batch, rows / batch, heads, width])
                    .swap_dims(1, 2)
            };
            let scale = (1.0 / width as f64).sqrt();
            let scores = split(x, n).matmul(split(a, m).transpose()) * scale;
            let mixed = softmax(scores, 3).matmul(split(b, m));
            mixed.swap_dims(1, 2).reshape([n, e])
        }
    }
}
