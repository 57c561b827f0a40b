//! The teacher of stage 2: a moving average of the student, which processes high-resolution crops of
//! the image.

use burn::tensor::Device;

use loftup_runtime::Features;

use crate::{
    kernels::Grid,
    losses::refine_mean,
    model::{Guidance, LoftUp, Mode, RangeOver, Tokens, device_matrix, host_values},
    optim::ema,
    regions::Mask,
    resample::{Axis, resample_values},
};

/// The position of a part of the high-resolution image in the student's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// First row.
    pub top: usize,
    /// First column.
    pub left: usize,
    /// Rows and columns.
    pub side: usize,
    /// Rows and columns that are ignored at each border.
    pub border: usize,
}

impl Region {
    /// Returns the region of a crop of `side x side` pixels at row `y` and column `x` of an image of
    /// `high x high`, in the output of a student whose image is `side x side`.
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

/// A crop of an image, the teacher's input.
#[derive(Debug, Clone)]
pub struct Part {
    /// The normalized crop, `[3, side, side]`.
    pub image: Vec<f32>,
    /// Its rows and columns.
    pub side: usize,
    /// The backbone's features of it.
    pub lr: Features,
    /// Its regions.
    pub segmentations: Vec<Vec<Mask>>,
}

/// Computes the teacher's features of one crop, refined by masks and resized to the size of `region` without
/// its border, `[inner * inner, d]`.
///
/// Crops are processed one by one, each with its own color range, as in inference.
pub fn encode(
    teacher: &LoftUp,
    part: &Part,
    alpha: f32,
    region: &Region,
    device: &Device,
) -> Vec<f32> {
    let Part {
        image,
        side,
        lr,
        segmentations,
    } = part;
    let side = *side;
    let d = teacher.config.dim;
    let grid = Grid {
        batch: 1,
        height: lr.height,
        width: lr.width,
    };
    let tokens = Tokens {
        values: device_matrix(lr.tokens.clone(), grid.pixels(), d, device),
        grid,
    };
    let guidance = Guidance::new(&[image], side, side, RangeOver::Image);
    let mut features = host_values(&teacher.forward(&tokens, &guidance, Mode::Eval).features);
    refine_mean(&mut features, d, segmentations, alpha);
    let axis = Axis::bilinear(side, region.side).part(region.border, region.inner());
    resample_values(&features, d, &axis, &axis)
}

/// Updates the teacher's weights and statistics, which are exponential moving averages of the student's.
pub fn ema_update(teacher: &mut LoftUp, student: &LoftUp, decay: f64) {
    teacher.weights = ema(&teacher.weights, &student.weights, decay);
    teacher.statistics = ema(&teacher.statistics, &student.statistics, decay);
}
