//! The teacher of stage 2: an average of past students that looks at parts of the picture in high
//! resolution.

use burn::tensor::Device;

use crate::{
    backbone::TokenValues,
    kernels::Grid,
    losses::refine,
    model::{Guidance, LoftUp, Mode, RangeOver, Tokens, device_matrix, host_values},
    optim::average,
    regions::Mask,
    resample::{Axis, resample_values},
};

/// Where a part of the high-resolution picture lies in the student's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// First row.
    pub top: usize,
    /// First column.
    pub left: usize,
    /// Rows and columns.
    pub side: usize,
    /// Rows and columns at each border of it that are not compared.
    pub border: usize,
}

impl Region {
    /// The region of a crop of `side` pixels at row `y` and column `x` of a picture of
    /// `high x high`, in the answer of a student that sees it at `side x side`.
    pub fn new(x: usize, y: usize, side: usize, high: usize, border: f32) -> Self {
        let covered = (side * side / high).max(1);
        let border = (border * covered as f32) as usize;
        // At least one pixel is compared.
        let border = border.min((covered - 1) / 2);
        Self {
            top: y * side / high,
            left: x * side / high,
            side: covered,
            border,
        }
    }

    /// Rows and columns that are compared.
    pub fn inner(&self) -> usize {
        self.side - 2 * self.border
    }
}

/// A crop of a picture, as the teacher is shown it.
#[derive(Debug, Clone)]
pub struct Part {
    /// The normalised crop, `[3, side, side]`.
    pub picture: Vec<f32>,
    /// Its rows and columns.
    pub side: usize,
    /// The backbone's features of it.
    pub lr: TokenValues,
    /// Its regions.
    pub masks: Vec<Mask>,
}

/// What the teacher makes of one crop: refined by masks, brought to the size of `region`, its
/// border left out, `[inner * inner, d]`.
///
/// Crops are seen one by one, each with its own range of colours, as in use.
pub fn look(
    teacher: &LoftUp,
    part: &Part,
    alpha: f32,
    region: &Region,
    device: &Device,
) -> Vec<f32> {
    let Part {
        picture,
        side,
        lr,
        masks,
    } = part;
    let side = *side;
    let d = teacher.config.dim;
    let grid = Grid {
        batch: 1,
        height: lr.height,
        width: lr.width,
    };
    let tokens = Tokens {
        values: device_matrix(lr.values.clone(), grid.pixels(), d, device),
        grid,
    };
    let guidance = Guidance::new(&[picture], side, side, RangeOver::Image);
    let mut features = host_values(&teacher.forward(&tokens, &guidance, Mode::Eval).features);
    refine(&mut features, d, masks, alpha);
    let axis = Axis::bilinear(side, region.side).part(region.border, region.inner());
    resample_values(&features, d, &axis, &axis)
}

/// Moves the teacher's weights and statistics towards the student's.
pub fn follow(teacher: &mut LoftUp, student: &LoftUp, keep: f64) {
    teacher.weights = average(&teacher.weights, &student.weights, keep);
    teacher.statistics = average(&teacher.statistics, &student.statistics, keep);
}
