//! The expensive operations of the upsampler, with their gradients.
//!
//! All operate on rows: one pixel or token per row, with contiguous channels. Only the convolutions
//! move data; everything else is a matrix product or row-wise. On the CPU the operations are fused
//! and implemented here ([`run`]); on other devices they are composed of the framework's operations
//! ([`composed`]), which are also the reference for the tests.

mod attention;
pub mod composed;
mod convolution;
mod group_norm;
mod linear;
mod matrix;
mod norm;
mod waves;

#[cfg(test)]
mod tests;

use burn::{
    backend::{
        Autodiff, Backend, Dispatch, DispatchDevice, Flex,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
            grads::Gradients,
            ops::{Backward, Ops, OpsKind},
        },
        backend_extension,
        flex::FlexTensor,
        tensor::FloatTensor,
    },
    tensor::Tensor,
};

pub use convolution::Grid;
pub use group_norm::Groups;

/// Which of the three inputs need gradients.
pub(crate) type Needs = [bool; 3];

/// An operation with three inputs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kernel {
    /// Layer normalization of rows: x `[n, c]`, weight `[1, c]`, bias `[1, c]`.
    LayerNorm {
        /// Added to the variance.
        eps: f32,
    },
    /// Batch normalization of columns with batch statistics, followed by ReLU: x `[n, c]`, weight
    /// `[1, c]`, bias `[1, c]`.
    BatchNormRelu {
        /// Added to the variance.
        eps: f32,
    },
    /// Group normalization of each image, followed by SiLU: x `[batch * n, c]`, weight `[1, c]`, bias
    /// `[1, c]`.
    GroupNormSilu {
        /// Images and groups.
        of: Groups,
        /// Added to the variance.
        eps: f32,
    },
    /// `relu(x * a + b)`: x `[n, c]`, a `[1, c]`, b `[1, c]`. Batch normalization with running
    /// statistics, followed by ReLU.
    ScaleShiftRelu,
    /// `[sin(x + a0), cos(x + a1), b]`: x `[n, k]`, a `[2, k]`, b `[n, c]`.
    Waves,
    /// Mean and biased variance of the columns of x `[n, c]`, as `[2, c]`, without gradients. The
    /// other two inputs are ignored.
    BatchStats,
    /// x `[n, in]`, weight `[out, in]`, bias `[1, out]`.
    Linear,
    /// [`Kernel::Linear`] followed by the exact GELU.
    LinearGelu,
    /// 3x3 convolution with zero padding 1: x `[pixels, in]`, weight `[out, in * 9]` in PyTorch's
    /// order, bias `[1, out]`.
    Convolution(Grid),
    /// Attention, scaled by one over the square root of the head width: queries `[batch * n, e]`,
    /// keys and values `[batch * m, e]`.
    Attention {
        /// Batch size; queries only attend to keys of the same image.
        batch: usize,
        /// Number of heads, concatenated in the channels.
        heads: usize,
    },
}

impl Kernel {
    /// The output, and intermediate results for the backward pass.
    fn forward(
        self,
        x: &FlexTensor,
        a: &FlexTensor,
        b: &FlexTensor,
    ) -> (FlexTensor, Vec<FlexTensor>) {
        match self {
            Self::LayerNorm { eps } => {
                let (y, stats) = norm::layer(x, a, b, eps);
                (y, vec![stats])
            }
            Self::BatchNormRelu { eps } => {
                let (y, stats) = norm::batch_relu(x, a, b, eps);
                (y.clone(), vec![stats, y])
            }
            Self::GroupNormSilu { of, eps } => {
                let (y, stats) = group_norm::forward(x, a, b, of, eps);
                (y, vec![stats])
            }
            Self::ScaleShiftRelu => {
                let y = norm::scale_shift_relu(x, a, b);
                (y.clone(), vec![y])
            }
            Self::Waves => {
                let (y, slopes) = waves::forward(x, a, b);
                (y, vec![slopes])
            }
            Self::BatchStats => (norm::batch_stats(x), vec![]),
            Self::Linear => (linear::linear(x, a, b), vec![]),
            Self::LinearGelu => {
                let before = linear::linear(x, a, b);
                (linear::gelu_of(&before), vec![before])
            }
            Self::Convolution(grid) => (convolution::forward(x, a, b, grid), vec![]),
            Self::Attention { batch, heads } => (attention::forward(x, a, b, batch, heads), vec![]),
        }
    }

    fn backward(
        self,
        grad: &FlexTensor,
        inputs: &[FlexTensor; 3],
        saved: &[FlexTensor],
        needs: Needs,
    ) -> [Option<FlexTensor>; 3] {
        let [x, a, b] = inputs;
        match (self, saved) {
            (Self::LayerNorm { .. }, [stats]) => norm::layer_backward(grad, x, a, stats, needs),
            (Self::BatchNormRelu { .. }, [stats, y]) => {
                norm::batch_relu_backward(grad, x, a, stats, y, needs)
            }
            (Self::GroupNormSilu { of, .. }, [stats]) => {
                group_norm::backward(grad, inputs, stats, of, needs)
            }
            (Self::ScaleShiftRelu, [y]) => norm::scale_shift_relu_backward(grad, x, a, y, needs),
            (Self::Waves, [slopes]) => waves::backward(grad, slopes, needs),
            (Self::BatchStats, _) => [None, None, None],
            (Self::LinearGelu, [before]) => {
                linear::linear_backward(&linear::gelu_backward(grad, before), x, a, needs)
            }
            (Self::Convolution(grid), _) => convolution::backward(grad, x, a, grid, needs),
            (Self::Attention { batch, heads }, _) => {
                attention::backward(grad, x, a, b, (batch, heads), needs)
            }
            (_, _) => linear::linear_backward(grad, x, a, needs),
        }
    }
}

/// A backend that supports these operations.
#[backend_extension(Flex, Autodiff)]
trait Kernels: Backend {
    fn kernel(
        kernel: Kernel,
        x: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

impl Kernels for Flex {
    fn kernel(kernel: Kernel, x: FlexTensor, a: FlexTensor, b: FlexTensor) -> FlexTensor {
        kernel
            .forward(&x.to_contiguous(), &a.to_contiguous(), &b.to_contiguous())
            .0
    }
}

/// The backward pass of any [`Kernel`].
#[derive(Debug)]
struct Fused;

impl Backward<Flex, 3> for Fused {
    type State = (Kernel, [FlexTensor; 3], Vec<FlexTensor>);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<Flex>(&ops.node).to_contiguous();
        let (kernel, inputs, saved) = ops.state;
        let needs = ops.parents.each_ref().map(Option::is_some);
        let found = kernel.backward(&grad, &inputs, &saved, needs);
        for (parent, gradient) in ops.parents.into_iter().zip(found) {
            if let (Some(node), Some(gradient)) = (parent, gradient) {
                grads.register::<Flex>(node.id, gradient);
            }
        }
    }
}

impl<C: CheckpointStrategy> Kernels for Autodiff<Flex, C> {
    fn kernel(
        kernel: Kernel,
        x: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let ((x, nx), (a, na), (b, nb)) = (x.into_parts(), a.into_parts(), b.into_parts());
        let inputs = [x.to_contiguous(), a.to_contiguous(), b.to_contiguous()];
        let (y, saved) = kernel.forward(&inputs[0], &inputs[1], &inputs[2]);
        match Fused.prepare::<C>([nx, na, nb]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((kernel, inputs, saved), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}

/// Runs `kernel` on its three inputs, on their device.
///
/// # Panics
/// Shapes do not match, or the inputs are on different devices.
pub fn run(kernel: Kernel, x: Tensor<2>, a: Tensor<2>, b: Tensor<2>) -> Tensor<2> {
    match x.device().without_autodiff().as_dispatch() {
        DispatchDevice::Flex(_) => Tensor::from_dispatch(<Dispatch as Kernels>::kernel(
            kernel,
            x.into_dispatch(),
            a.into_dispatch(),
            b.into_dispatch(),
        )),
        #[allow(unreachable_patterns)]
        _ => composed::run(kernel, x, a, b),
    }
}
