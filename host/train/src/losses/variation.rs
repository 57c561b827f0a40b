//! Differences between neighboring pixels.

use burn::tensor::Tensor;

use super::sum;
use crate::kernels::Grid;

/// Total variation: sum of the squared differences between neighboring pixels of maps
/// `[batch * h * w, c]`, divided by the number of values (Mahendran and Vedaldi, 2015).
pub fn total_variation(x: Tensor<2>, grid: Grid) -> Tensor<1> {
    squared_differences(x, grid, 1)
}

/// Distances in pixels at which [`gradient_matching`] compares.
const DISTANCES: [usize; 4] = [1, 2, 4, 8];

/// Gradient matching at several scales: the squared error of differences between pixels, for the
/// error of features `[batch * h * w, c]`. It is the mean of [`total_variation`] at distances of 1, 2,
/// 4 and 8 pixels, as far as they fit into the grid. Li and Snavely (2018) compare absolute values
/// of depth maps in this way.
pub fn gradient_matching(error: Tensor<2>, grid: Grid) -> Tensor<1> {
    let fits = |d: &usize| *d < grid.height.min(grid.width);
    let distances: Vec<usize> = DISTANCES.into_iter().filter(fits).collect();
    let zero = Tensor::zeros([1], &error.device().without_autodiff());
    let sum = distances.iter().fold(zero, |sum, &distance| {
        sum + squared_differences(error.clone(), grid, distance)
    });
    sum / distances.len().max(1) as f32
}

/// Sum of the squared differences between pixels `distance` apart, divided by the number of values.
fn squared_differences(x: Tensor<2>, grid: Grid, distance: usize) -> Tensor<1> {
    let Grid {
        batch,
        height: h,
        width: w,
    } = grid;
    let [n, c] = x.dims();
    let x = x.reshape([batch, h, w * c]);
    let down = x.clone().narrow(1, distance, h - distance) - x.clone().narrow(1, 0, h - distance);
    let x = x.reshape([batch * h, w, c]);
    let right = x.clone().narrow(1, distance, w - distance) - x.narrow(1, 0, w - distance);
    (sum(down.square()) + sum(right.square())) / (n * c) as f32
}
