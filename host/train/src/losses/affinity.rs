//! The affinity loss of stage 2.

use burn::tensor::Tensor;

use super::sum;

/// Maximum number of pixel pairs for computing all similarities; beyond, Gram matrices are used.
const MOST_PAIRS: usize = 1 << 22;
/// Minimum length of a feature vector in the division.
const LEAST_LENGTH: f32 = 1e-12;

fn unit(x: Tensor<3>) -> Tensor<3> {
    // The square root is not differentiable at 0, so zero vectors get a small length.
    let length = (x.clone().square().sum_dim(2) + LEAST_LENGTH * LEAST_LENGTH).sqrt();
    x / length
}

/// Computes the mean squared difference between the pairwise cosine similarity matrices of the pixels of
/// `a` and `b`, each `[batch, pixels, d]`.
///
/// For many pixels, these matrices are not computed: with unit rows F and G,
/// `|F F^T - G G^T|^2 = |F^T F|^2 - 2 |F^T G|^2 + |G^T G|^2`, whose products are only `d x d`.
pub fn affinity(a: Tensor<3>, b: Tensor<3>) -> Tensor<1> {
    let [_, n, d] = a.dims();
    if n * n <= MOST_PAIRS || n <= d {
        return affinity_by_pairs(a, b);
    }
    let (f, g) = (unit(a), unit(b));
    let gram = |x: &Tensor<3>, y: &Tensor<3>| x.clone().transpose().matmul(y.clone()) / n as f32;
    let square = |x: Tensor<3>| x.square().sum_dim(2).sum_dim(1);
    let terms = square(gram(&f, &f)) - square(gram(&f, &g)) * 2.0 + square(gram(&g, &g));
    terms.mean()
}

/// Same as [`affinity`], with full similarity matrices.
pub fn affinity_by_pairs(a: Tensor<3>, b: Tensor<3>) -> Tensor<1> {
    let [batch, n, _] = a.dims();
    let similar = |x: Tensor<3>| {
        let x = unit(x);
        x.clone().matmul(x.transpose())
    };
    sum((similar(a) - similar(b)).square()) / (batch * n * n) as f32
}
