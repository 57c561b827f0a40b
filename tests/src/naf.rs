//! Inputs for NAF.

use loftup_bundle::Size;
use loftup_runtime::{Features, ImageTensor};
use loftup_spec::SplitMix64;

/// Uniform in `-spread..spread`.
pub fn around(random: &mut SplitMix64, spread: f32, count: usize) -> Vec<f32> {
    let value = |_| spread * (2.0 * random.uniform() - 1.0);
    (0..count).map(value).collect()
}

/// Features of `dim` channels on a grid of `(rows, columns)`, and an image of `(rows, columns)`: those of
/// `tools/make_naf_fixtures.py`.
///
/// # Panics
/// If `dim` or the grid is empty.
pub fn inputs(
    seed: u64,
    dim: usize,
    (height, width): (usize, usize),
    (rows, columns): (usize, usize),
) -> (Features, ImageTensor) {
    let mut random = SplitMix64::new(seed);
    let image = ImageTensor {
        size: Size {
            width: columns,
            height: rows,
        },
        data: around(&mut random, 2.0, 3 * rows * columns),
    };
    let map = around(&mut random, 1.0, dim * height * width);
    let features = Features::from_map(&[1, dim, height, width], &map, dim);
    (features.expect("a map"), image)
}
