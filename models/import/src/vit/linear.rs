//! A linear layer.

use loftup_onnx::Tensor;

/// `x W + b`: weight `[out, in]`, bias `[out]`.
#[derive(Debug, Clone)]
pub(super) struct Linear {
    pub weight: Tensor,
    pub bias: Tensor,
}
