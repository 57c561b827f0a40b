//! The affinity loss of stage 2.

use burn::tensor::Tensor;

use super::sum;

/// Up to so many pairs of pixels are compared one by one; beyond, through Gram matrices.
const MOST_PAIRS: usize = 1 << 22;
/// The least length of a feature vector that is divided by.
const LEAST_LENGTH: f32 = 1e-12;

fn unit(x: Tensor<3>) -> Tensor<3> {
    // The root has no slope at 0: a vector of zeros is kept out of it.
    let length = (x.clone().square().sum_dim(2) + LEAST_LENGTH * LEAST_LENGTH).sqrt();
    x / length
}

/// Mean squared difference between the matrices of cosine similarities of all pairs of pixels of
/// `a` and of `b`, `[batch, pixels, d]` each.
///
/// Where the pixels are many, their matrices are not made: with unit rows F and G,
/// `|F F^T - G G^T|^2 = |F^T F|^2 - 2 |F^T G|^2 + |G^T G|^2`, and those products are `d x d`.
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

/// [`affinity`] with the matrices of similarities made in full.
pub fn affinity_by_pairs(a: Tensor<3>, b: Tensor<3>) -> Tensor<1> {
    let [batch, n, _] = a.dims();
    let similar = |x: Tensor<3>| {
        let x = unit(x);
        x.clone().matmul(x.transpose())
    };
    sum((similar(a) - similar(b)).square()) / (batch * n * n) as f32
}
