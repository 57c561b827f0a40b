//! Total variation.

use burn::tensor::Tensor;

use super::sum;
use crate::kernels::Grid;

/// Sum of the squared differences between neighboring pixels of maps `[batch * h * w, c]`, over
/// the number of values (Mahendran and Vedaldi, 2015).
pub fn total_variation(x: Tensor<2>, grid: Grid) -> Tensor<1> {
    let Grid {
        batch,
        height: h,
        width: w,
    } = grid;
    let [n, c] = x.dims();
    let x = x.reshape([batch, h, w * c]);
    let down = x.clone().narrow(1, 1, h - 1) - x.clone().narrow(1, 0, h - 1);
    let x = x.reshape([batch * h, w, c]);
    let right = x.clone().narrow(1, 1, w - 1) - x.narrow(1, 0, w - 1);
    (sum(down.square()) + sum(right.square())) / (n * c) as f32
}
