//! Multi-view reconstruction (FeatUp, arXiv 2403.10516, as used by LoftUp): the upsampled features,
//! transformed to a random view and downsampled, should match the backbone's features of that view of
//! the image.

use burn::tensor::{
    Tensor,
    activation::{relu, softmax},
};

use crate::{
    kernels::Grid,
    losses::{Projection, sum, total_variation},
    model::{Params, Tokens, device_matrix},
    resample::{Axis, Jitter, resample},
};

/// Added to the logarithm of the uncertainty.
const OFFSET: f32 = 0.1;
/// Minimum uncertainty.
const LEAST: f32 = 1e-4;

/// The attention downsampler and the uncertainty, which are trained together with the upsampler.
#[derive(Debug, Clone, Default)]
pub struct AuxModules {
    /// See [`crate::model::init::aux`].
    pub weights: Params,
}

/// A view of the images of a batch.
#[derive(Debug, Clone)]
pub struct View {
    /// The view, the same for all images of the batch.
    pub jitter: Jitter,
    /// The backbone's features of the view.
    pub lr: Tokens,
    /// For each window of the downsampler, whether it keeps its logits (1) or not (0).
    pub kept: Vec<f32>,
    /// The projection in which features are compared.
    pub projection: Projection,
}

impl AuxModules {
    /// Downsamples projected features by attention within each window of pixels.
    ///
    /// `x` is `[batch * H * W, k + 1]`: `k` channels, and the logit without its bias.
    fn down(&self, x: Tensor<2>, from: Grid, to: Grid, kept: &[f32]) -> Tensor<2> {
        let [_, channels] = x.dims();
        let (h, w) = (to.height, to.width);
        let (wh, ww) = (from.height / h, from.width / w);
        let device = x.device().without_autodiff();
        let windows = x
            .reshape([to.batch * h, wh, w, ww * channels])
            .swap_dims(1, 2)
            .reshape([to.pixels(), wh * ww, channels]);
        let values = windows.clone().narrow(2, 0, channels - 1);
        let logits = windows
            .narrow(2, channels - 1, 1)
            .reshape([to.pixels(), wh * ww]);
        let logits = logits + self.weights.get("downsampler.attention.bias");
        let kept = device_matrix(kept.to_vec(), to.pixels(), 1, &device);
        let logits = logits * kept * self.by_position("w", wh, ww) + self.by_position("b", wh, ww);
        let attention = softmax(logits, 1).unsqueeze_dim::<3>(1);
        attention
            .matmul(values)
            .reshape([to.pixels(), channels - 1])
    }

    /// Returns the downsampler's learned values for each position of a window, `[1, height * width]`,
    /// interpolated if they were learned at another size.
    fn by_position(&self, name: &str, height: usize, width: usize) -> Tensor<2> {
        let learned = self.weights.get(&format!("downsampler.{name}"));
        let [_, n] = learned.dims();
        if n == height * width {
            return learned;
        }
        let side = n.isqrt();
        let grid = Grid {
            batch: 1,
            height: side,
            width: side,
        };
        let (rows, cols) = (Axis::bilinear(side, height), Axis::bilinear(side, width));
        resample(learned.reshape([n, 1]), grid, &rows, &cols).reshape([1, height * width])
    }

    /// Uncertainty for each token, `[tokens, 1]`.
    fn uncertainty(&self, lr: Tensor<2>) -> Tensor<2> {
        let log = lr.matmul(self.weights.get("uncertainty.weight").transpose())
            + self.weights.get("uncertainty.bias")
            + OFFSET;
        log.exp().clamp_min(LEAST)
    }
}

/// Computes the reconstruction loss of one view of `features` `[batch * H * W, d]`, at least 0, and with
/// `with_variation` the total variation of the squared length of the projected view.
///
/// # Panics
/// If the sides of the guidance are not multiples of the grid's.
pub fn reconstruction(
    aux: &AuxModules,
    features: Tensor<2>,
    grid: Grid,
    view: &View,
    with_variation: bool,
) -> (Tensor<1>, Option<Tensor<1>>) {
    let View {
        jitter,
        lr,
        kept,
        projection,
    } = view;
    let to = lr.grid;
    assert!(
        grid.height.is_multiple_of(to.height) && grid.width.is_multiple_of(to.width),
        "windows of {}x{} pixels on a grid of {}x{}",
        grid.height,
        grid.width,
        to.height,
        to.width
    );
    let device = features.device().without_autodiff();
    let matrix = projection.matrix(&device);
    // One more column for the downsampler's logits: they are linear in the features, so they can also be
    // computed before the view is applied.
    let logits = aux.weights.get("downsampler.attention.weight").transpose();
    let projected = features.matmul(Tensor::cat(vec![matrix.clone(), logits], 1));
    let (rows, cols) = jitter.axes((grid.height, grid.width), grid.height, grid.width);
    let (blur_rows, blur_cols) = (Axis::blur(grid.height), Axis::blur(grid.width));
    let (variation, blurred) = if with_variation {
        let seen = resample(projected, grid, &rows, &cols);
        let length = seen.clone().narrow(1, 0, projection.to).square().sum_dim(1);
        (
            Some(total_variation(length, grid)),
            resample(seen, grid, &blur_rows, &blur_cols),
        )
    } else {
        (
            None,
            resample(
                projected,
                grid,
                &rows.then(&blur_rows),
                &cols.then(&blur_cols),
            ),
        )
    };
    let down = aux.down(blurred, grid, to, kept);
    let s = aux.uncertainty(lr.values.clone());
    let difference = (down - lr.values.clone().matmul(matrix)).square();
    let loss = difference / (s.clone().square() * 2.0) + s.log();
    let [n, k] = loss.dims();
    (relu(sum(loss) / (n * k) as f32), variation)
}
