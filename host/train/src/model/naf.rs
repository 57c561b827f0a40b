//! NAF with gradients, for outputs that are multiples of the grid of tokens.
//!
//! [`loftup_spec::naf`] defines the model. All operations except convolutions and normalizations are
//! the framework's: attention over 81 tokens is a small part of a step.

use std::{collections::BTreeMap, convert::Infallible};

use burn::tensor::{Device, Int, Tensor, TensorData, activation::softmax};
use loftup_onnx::Tensor as HostTensor;
use loftup_spec::{
    naf::{
        Branch, CHANNELS, EPS, GROUPS, HEAD_WIDTH, HEADS, LAYERS, NafWeights, PERIODS_NAME, TAPS,
        fits, periods, window,
    },
    rotary,
};

use super::{Params, Tokens, device_matrix};
use crate::{
    kernels::{Grid, Groups, Kernel, run},
    rng::Rng,
};

/// A NAF upsampler.
#[derive(Debug, Clone)]
pub struct Naf {
    /// Trained weights.
    pub weights: Params,
    /// Periods of the rotary encoding.
    periods: Vec<f32>,
}

impl Naf {
    /// Creates a NAF with these weights on a device.
    pub fn new(weights: &NafWeights, device: &Device) -> Self {
        let trained = weights.tensors().into_iter();
        let trained = trained.filter(|(name, ..)| name != PERIODS_NAME);
        Self {
            weights: Params::new(
                trained
                    .map(|(name, shape, values)| (name, HostTensor::from_fn(shape, |i| values[i]))),
                device,
            ),
            periods: weights.periods.clone(),
        }
    }

    /// Draws random weights as PyTorch does.
    pub fn random(rng: &mut Rng) -> NafWeights {
        // A bias has the bound of the weight before it.
        let mut bound = 0.0;
        let drawn: Result<_, Infallible> = NafWeights::read(|name, shape| {
            let count = shape.iter().product();
            if name == PERIODS_NAME {
                return Ok(periods());
            }
            if name.contains(".norm") {
                return Ok(vec![f32::from(name.ends_with("weight")); count]);
            }
            if let [_, inputs @ ..] = shape
                && !inputs.is_empty()
            {
                bound = 1.0 / (inputs.iter().product::<usize>() as f32).sqrt();
            }
            let value = |_| bound * (2.0 * rng.uniform() - 1.0);
            Ok((0..count).map(value).collect())
        });
        match drawn {
            Ok(weights) => weights,
            Err(never) => match never {},
        }
    }

    /// Multiplies the coordinates of the rotary encoding by `factor`.
    pub fn scale_coordinates(&mut self, factor: f32) {
        // An angle is 2 pi times a coordinate over a period.
        self.periods.iter_mut().for_each(|p| *p /= factor);
    }

    /// The tensors of a checkpoint.
    pub fn tensors(&self) -> BTreeMap<String, HostTensor> {
        let mut all = self.weights.to_host();
        let periods = HostTensor::from_fn([self.periods.len()], |i| self.periods[i]);
        all.insert(PERIODS_NAME.into(), periods);
        all
    }

    /// Whether training supports an output of `size` (rows, columns) from `cells` and an image of `image`:
    /// `size` must be a multiple of `cells`, and `image` of `size`.
    pub fn accepts(cells: (usize, usize), size: (usize, usize), image: (usize, usize)) -> bool {
        let axis = |cells: usize, size: usize, image: usize| {
            fits(cells, size) && size.is_multiple_of(cells) && image.is_multiple_of(size)
        };
        axis(cells.0, size.0, image.0) && axis(cells.1, size.1, image.1)
    }

    /// Computes upsampled features, `[batch * H * W, d]`, for an output of `size` (rows, columns), from
    /// images `[batch * rows * columns, 3]` with ImageNet's normalization.
    ///
    /// # Panics
    /// If the sizes are not supported, or `d` is not a multiple of the number of heads.
    pub fn forward(
        &self,
        lr: &Tokens,
        colors: Tensor<2>,
        image: Grid,
        size: (usize, usize),
    ) -> Tensor<2> {
        let cells = lr.grid;
        assert!(
            Self::accepts(
                (cells.height, cells.width),
                size,
                (image.height, image.width)
            ),
            "{cells:?} to {size:?} with {image:?}"
        );
        let output = Grid {
            batch: image.batch,
            height: size.0,
            width: size.1,
        };
        let branches = Branch::ALL.map(|b| self.branch(b, colors.clone(), image));
        let encoded = pool(Tensor::cat(branches.to_vec(), 1), image, output);
        let queries = self.rotated(encoded, output);
        let keys = pool(queries.clone(), output, cells);
        attention(queries, keys, lr.values.clone(), output, cells)
    }

    /// Computes a branch of the encoder, `[pixels, 128]`.
    fn branch(&self, branch: Branch, colors: Tensor<2>, grid: Grid) -> Tensor<2> {
        let prefix = branch.prefix();
        let mut x = self.convolution(branch, colors, grid, &format!("{prefix}.0"));
        let of = Groups {
            batch: grid.batch,
            groups: GROUPS,
        };
        for i in 0..LAYERS {
            let (block, n) = (i / 2 + 1, i % 2 + 1);
            let part = |what: &str| {
                self.weights
                    .get(&format!("{prefix}.{block}.norm{n}.{what}"))
            };
            let norm = Kernel::GroupNormSilu { of, eps: EPS };
            let normalized = run(norm, x, part("weight"), part("bias"));
            let name = format!("{prefix}.{block}.conv{n}");
            x = self.convolution(branch, normalized, grid, &name);
        }
        x
    }

    /// A convolution with reflect padding.
    fn convolution(&self, branch: Branch, x: Tensor<2>, grid: Grid, name: &str) -> Tensor<2> {
        let part = |what: &str| self.weights.get(&format!("{name}.{what}"));
        let (weight, bias) = (part("weight"), part("bias"));
        match branch {
            Branch::Pointwise => run(Kernel::Linear, x, weight, bias),
            Branch::Spatial => {
                let (padded, larger) = reflected(x, grid);
                let y = run(Kernel::Convolution(larger), padded, weight, bias);
                inside(y, larger, grid)
            }
        }
    }

    /// Applies the rotary encoding to the pixels of `grid`.
    fn rotated(&self, x: Tensor<2>, grid: Grid) -> Tensor<2> {
        let device = x.device().without_autodiff();
        let (half, pixels) = (HEAD_WIDTH / 2, grid.height * grid.width);
        let axis = |n: usize| -> Vec<Vec<[f32; 2]>> {
            let rotation = |i| rotary::rotation(i, n, &self.periods).collect();
            (0..n).map(rotation).collect()
        };
        let (rows, columns) = (axis(grid.height), axis(grid.width));
        let table = |part: usize| {
            let angles = rows.iter().flat_map(|row| {
                let of_pixels = columns.iter();
                of_pixels.flat_map(move |column| row.iter().chain(column))
            });
            let values = angles.map(|rotation| rotation[part]).collect();
            device_matrix(values, pixels, half, &device).reshape([1, pixels, 1, half])
        };
        let (cos, sin) = (table(0), table(1));
        let halves = x.reshape([grid.batch, pixels * HEADS, 2, half]);
        let part = |i: usize| {
            let half_of_heads = halves.clone().narrow(2, i, 1);
            half_of_heads.reshape([grid.batch, pixels, HEADS, half])
        };
        let (a, b) = (part(0), part(1));
        let first = a.clone() * cos.clone() - b.clone() * sin.clone();
        let second = b * cos + a * sin;
        Tensor::cat(vec![first, second], 3).reshape([grid.pixels(), CHANNELS])
    }
}

/// Pads `x` by one reflected pixel on each side.
fn reflected(x: Tensor<2>, grid: Grid) -> (Tensor<2>, Grid) {
    let [_, c] = x.dims();
    let mut x = x.reshape([grid.batch, grid.height, grid.width, c]);
    for (axis, extent) in [(1, grid.height), (2, grid.width)] {
        // The second pixel from each edge.
        let (near, far) = (1.min(extent - 1), extent.saturating_sub(2));
        let before = x.clone().narrow(axis, near, 1);
        let after = x.clone().narrow(axis, far, 1);
        x = Tensor::cat(vec![before, x, after], axis);
    }
    let larger = Grid {
        batch: grid.batch,
        height: grid.height + 2,
        width: grid.width + 2,
    };
    (x.reshape([larger.pixels(), c]), larger)
}

/// Removes the pixels at the edge of `x`.
fn inside(x: Tensor<2>, larger: Grid, grid: Grid) -> Tensor<2> {
    let [_, c] = x.dims();
    x.reshape([larger.batch, larger.height, larger.width, c])
        .narrow(1, 1, grid.height)
        .narrow(2, 1, grid.width)
        .reshape([grid.pixels(), c])
}

/// Computes the mean of the pixels of each cell.
fn pool(x: Tensor<2>, from: Grid, to: Grid) -> Tensor<2> {
    let [_, c] = x.dims();
    let (down, across) = (from.height / to.height, from.width / to.width);
    if (down, across) == (1, 1) {
        return x;
    }
    let columns = x.reshape([from.batch * from.height * to.width, across, c]);
    let columns: Tensor<2> = columns
        .mean_dim(1)
        .reshape([from.batch * from.height * to.width, c]);
    let rows = columns.reshape([from.batch * to.height, down, to.width * c]);
    rows.mean_dim(1).reshape([to.pixels(), c])
}

/// Returns the cells that the pixels of each cell attend to, as row indices of tokens.
fn neighbors(cells: Grid, output: Grid, device: &Device) -> Tensor<1, Int> {
    let along = |i: usize, n: usize, of: usize| window(i * (of / n), n, of);
    let mut all = Vec::with_capacity(cells.pixels() * TAPS);
    for image in 0..cells.batch {
        for row in 0..cells.height {
            for column in 0..cells.width {
                for r in along(row, cells.height, output.height) {
                    let first = (image * cells.height + r) * cells.width;
                    let columns = along(column, cells.width, output.width);
                    all.extend(columns.map(|c| (first + c) as i64));
                }
            }
        }
    }
    let count = all.len();
    Tensor::from_data(TensorData::new(all, [count]), device)
}

/// Computes each pixel's weighted mean of the values of its 81 cells, per head.
fn attention(
    queries: Tensor<2>,
    keys: Tensor<2>,
    values: Tensor<2>,
    output: Grid,
    cells: Grid,
) -> Tensor<2> {
    let [_, d] = values.dims();
    let count = cells.pixels();
    let (down, across) = (output.height / cells.height, output.width / cells.width);
    let index = neighbors(cells, output, &queries.device().without_autodiff());
    let gathered = |x: Tensor<2>, width: usize| {
        x.select(0, index.clone())
            .reshape([count, TAPS, HEADS, width])
            .swap_dims(1, 2)
    };
    // Pixels in the order of their cells.
    let by_cell = queries
        .reshape([
            cells.batch * cells.height,
            down,
            cells.width,
            across,
            CHANNELS,
        ])
        .swap_dims(1, 2)
        .reshape([count, down * across, HEADS, HEAD_WIDTH])
        .swap_dims(1, 2);
    let scale = 1.0 / (HEAD_WIDTH as f64).sqrt();
    let scores = by_cell.matmul(gathered(keys, HEAD_WIDTH).transpose()) * scale;
    softmax(scores, 3)
        .matmul(gathered(values, d / HEADS))
        .swap_dims(1, 2)
        .reshape([cells.batch * cells.height, cells.width, down, across, d])
        .swap_dims(1, 2)
        .reshape([output.pixels(), d])
}

#[cfg(test)]
mod tests;
