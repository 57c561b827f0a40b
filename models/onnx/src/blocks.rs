//! Building blocks shared by the upsampler and the backbones.

use std::f32::consts::{FRAC_2_SQRT_PI, SQRT_2};

use super::{Attr, Graph, Value};
use crate::{Tensor, pb::tensor_proto::DataType};

impl Graph {
    /// `a + b`, broadcast.
    pub fn add(&mut self, a: &Value, b: &Value) -> Value {
        self.op("Add", &[a, b], &[])
    }

    /// `a * b`, broadcast.
    pub fn mul(&mut self, a: &Value, b: &Value) -> Value {
        self.op("Mul", &[a, b], &[])
    }

    /// Matrix product over the last two axes, broadcast over the others.
    pub fn matmul(&mut self, a: &Value, b: &Value) -> Value {
        self.op("MatMul", &[a, b], &[])
    }

    /// Converts the elements of `x` to another type.
    pub fn cast(&mut self, x: &Value, to: DataType) -> Value {
        self.op("Cast", &[x], &[Attr::Int("to", to as i64)])
    }

    /// Reshapes `x`: -1 is inferred, 0 copies the dimension of x.
    pub fn reshape(&mut self, x: &Value, shape: &[i64]) -> Value {
        let shape = self.ints("shape", shape);
        self.op("Reshape", &[x, &shape], &[])
    }

    /// Permutes the axes of `x`.
    pub fn transpose(&mut self, x: &Value, order: &[i64]) -> Value {
        self.op("Transpose", &[x], &[Attr::Ints("perm", order.to_vec())])
    }

    /// Concatenates `xs` along `axis`.
    pub fn concat(&mut self, xs: &[&Value], axis: i64) -> Value {
        self.op("Concat", xs, &[Attr::Int("axis", axis)])
    }

    /// `x[start..end]` along each of `axes`; negative bounds count from the end, `i64::MAX` is the
    /// end.
    pub fn slice(&mut self, x: &Value, axes: &[i64], start: &[i64], end: &[i64]) -> Value {
        let start = self.ints("start", start);
        let end = self.ints("end", end);
        let axes = self.ints("axes", axes);
        self.op("Slice", &[x, &start, &end, &axes], &[])
    }

    /// Softmax over the last axis.
    pub fn softmax(&mut self, x: &Value) -> Value {
        self.op("Softmax", &[x], &[Attr::Int("axis", -1)])
    }

    /// `x W + b` on the last axis. `weight` is `[out, in]` as in PyTorch, `bias` `[out]`.
    pub fn linear(&mut self, x: &Value, weight: &Tensor, bias: Option<&Tensor>) -> Value {
        let weight = self.constant("weight", &weight.transposed());
        let y = self.matmul(x, &weight);
        match bias {
            Some(bias) => {
                let bias = self.constant("bias", bias);
                self.add(&y, &bias)
            }
            None => y,
        }
    }

    /// Convolution with bias, without padding. `weight` is `[out, in, kh, kw]`.
    pub fn conv(&mut self, x: &Value, weight: &Tensor, bias: &Tensor, stride: usize) -> Value {
        self.padded_conv(x, weight, bias, stride, 0)
    }

    /// Convolution with bias and zero padding of `pad` on each side.
    pub fn padded_conv(
        &mut self,
        x: &Value,
        weight: &Tensor,
        bias: &Tensor,
        stride: usize,
        pad: usize,
    ) -> Value {
        let kernel = vec![weight.shape()[2] as i64, weight.shape()[3] as i64];
        let weight = self.constant("weight", weight);
        let bias = self.constant("bias", bias);
        let attrs = [
            Attr::Ints("kernel_shape", kernel),
            Attr::Ints("strides", vec![stride as i64; 2]),
            Attr::Ints("pads", vec![pad as i64; 4]),
        ];
        self.op("Conv", &[x, &weight, &bias], &attrs)
    }

    /// Depthwise convolution with bias, and zero padding that keeps the size. `weight` is
    /// `[channels, 1, k, k]` with an odd `k`.
    pub fn depthwise_conv(&mut self, x: &Value, weight: &Tensor, bias: &Tensor) -> Value {
        let [channels, side] = [0, 2].map(|axis| weight.shape()[axis] as i64);
        let weight = self.constant("weight", weight);
        let bias = self.constant("bias", bias);
        let attrs = [
            Attr::Ints("kernel_shape", vec![side; 2]),
            Attr::Ints("pads", vec![side / 2; 4]),
            Attr::Int("group", channels),
        ];
        self.op("Conv", &[x, &weight, &bias], &attrs)
    }

    /// `(x - mean) / sqrt(var + eps)` over `axis`, with the biased variance.
    pub fn normalize(&mut self, x: &Value, axis: i64, eps: f32) -> Value {
        let over = [Attr::Ints("axes", vec![axis]), Attr::Int("keepdims", 1)];
        let mean = self.op("ReduceMean", &[x], &over);
        let centered = self.op("Sub", &[x, &mean], &[]);
        let square = self.mul(&centered, &centered);
        let variance = self.op("ReduceMean", &[&square], &over);
        let eps = self.scalar("eps", eps);
        let variance = self.add(&variance, &eps);
        let deviation = self.op("Sqrt", &[&variance], &[]);
        self.op("Div", &[&centered, &deviation], &[])
    }

    /// Layer normalization over the last axis; `weight` and `bias` are `[channels]`.
    pub fn layer_norm(&mut self, x: &Value, weight: &Tensor, bias: &Tensor, eps: f32) -> Value {
        let x = self.normalize(x, -1, eps);
        self.affine(&x, weight, bias)
    }

    /// `x * weight + bias`, broadcast.
    pub fn affine(&mut self, x: &Value, weight: &Tensor, bias: &Tensor) -> Value {
        let weight = self.constant("weight", weight);
        let bias = self.constant("bias", bias);
        let x = self.mul(x, &weight);
        self.add(&x, &bias)
    }

    /// The exact (erf) GELU, in the form that runtimes recognize and fuse.
    pub fn gelu(&mut self, x: &Value) -> Value {
        let root = self.scalar("sqrt2", std::f32::consts::SQRT_2);
        let one = self.scalar("one", 1.0);
        let half = self.scalar("half", 0.5);
        let y = self.op("Div", &[x, &root], &[]);
        let y = self.op("Erf", &[&y], &[]);
        let y = self.add(&y, &one);
        let y = self.mul(x, &y);
        self.mul(&y, &half)
    }

    /// The tanh approximation of GELU: `x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`.
    pub fn gelu_tanh(&mut self, x: &Value) -> Value {
        let cubic = self.scalar("cubic", 0.044_715);
        let root = self.scalar("sqrt_2_pi", FRAC_2_SQRT_PI / SQRT_2);
        let one = self.scalar("one", 1.0);
        let half = self.scalar("half", 0.5);
        let square = self.mul(x, x);
        let y = self.mul(&square, &cubic);
        let y = self.add(&y, &one);
        let y = self.mul(x, &y);
        let y = self.mul(&y, &root);
        let y = self.op("Tanh", &[&y], &[]);
        let y = self.add(&y, &one);
        let y = self.mul(x, &y);
        self.mul(&y, &half)
    }

    /// `x sigmoid(x)`, the gate of SwiGLU.
    pub fn silu(&mut self, x: &Value) -> Value {
        let y = self.op("Sigmoid", &[x], &[]);
        self.mul(x, &y)
    }

    /// `x sigmoid(1.702 x)`, the approximation of GELU in OpenAI's CLIP.
    pub fn quick_gelu(&mut self, x: &Value) -> Value {
        let slope = self.scalar("slope", 1.702);
        let y = self.mul(x, &slope);
        let y = self.op("Sigmoid", &[&y], &[]);
        self.mul(x, &y)
    }
}
