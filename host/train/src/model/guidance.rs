//! The guidance images, scaled for the upsampler.

use burn::tensor::{Device, Tensor};
use loftup_bundle::UpsamplerKind;
use loftup_spec::{frequencies, linspace, min_max_scale};

use super::device_matrix;
use crate::kernels::Grid;

/// Scope of the minimum and maximum of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RangeOver {
    /// All images of a batch, as published.
    #[default]
    Batch,
    /// Each image separately, as in the runtime.
    Image,
}

/// Images of one size, scaled to -0.5..0.5 per channel.
#[derive(Debug, Clone)]
pub struct Guidance {
    grid: Grid,
    /// `[batch * H * W, 3]`; for NAF not scaled.
    scaled: Vec<f32>,
    /// Coordinates of the rows of each image, `[batch * H]`.
    rows: Vec<f32>,
    /// Coordinates of the columns of each image, `[batch * W]`.
    columns: Vec<f32>,
}

impl Guidance {
    /// Scales normalized images, each `[3, height, width]`.
    ///
    /// # Panics
    /// If an image has a different size, or there are no images.
    pub fn new(images: &[&[f32]], height: usize, width: usize, range: RangeOver) -> Self {
        let area = height * width;
        check(images, height, width);
        let limits = |images: &[&[f32]], c: usize| {
            let values = images.iter().flat_map(|p| &p[c * area..][..area]);
            values.fold((f32::INFINITY, f32::NEG_INFINITY), |(lo, hi), &x| {
                (lo.min(x), hi.max(x))
            })
        };
        let mut scaled = vec![0.0; images.len() * area * 3];
        for (b, image) in images.iter().enumerate() {
            for c in 0..3 {
                let (min, max) = match range {
                    RangeOver::Batch => limits(images, c),
                    RangeOver::Image => limits(&images[b..=b], c),
                };
                let channel = scaled[b * area * 3..][..area * 3]
                    .iter_mut()
                    .skip(c)
                    .step_by(3);
                for (s, x) in channel.zip(&image[c * area..]) {
                    *s = min_max_scale(*x, min, max);
                }
            }
        }
        Self::with_colors(scaled, height, width)
    }

    /// Prepares normalized images for an upsampler of this kind: scaled for LoftUp, unchanged for NAF.
    ///
    /// # Panics
    /// Same as [`Self::new`].
    pub fn of(
        kind: UpsamplerKind,
        images: &[&[f32]],
        height: usize,
        width: usize,
        range: RangeOver,
    ) -> Self {
        match kind {
            UpsamplerKind::LoftUp => Self::new(images, height, width, range),
            UpsamplerKind::Naf => {
                let area = height * width;
                check(images, height, width);
                let pixels = |image: &&[f32]| {
                    let at = |i| image[i % 3 * area + i / 3];
                    (0..3 * area).map(at).collect::<Vec<_>>()
                };
                Self::with_colors(images.iter().flat_map(pixels).collect(), height, width)
            }
        }
    }

    /// Creates images from colors `[batch * H * W, 3]`.
    fn with_colors(scaled: Vec<f32>, height: usize, width: usize) -> Self {
        let batch = scaled.len() / (3 * height * width);
        Self {
            grid: Grid {
                batch,
                height,
                width,
            },
            scaled,
            rows: linspace(-1.0, 1.0, height).repeat(batch),
            columns: linspace(-1.0, 1.0, width).repeat(batch),
        }
    }

    /// Returns a window of each image with `height` rows and `width` columns, starting at its
    /// `(row, column)` in `corners`. Colors and coordinates remain those of the whole image.
    ///
    /// # Panics
    /// If a window reaches outside its image, or there is not one corner for each image.
    pub fn windows(&self, corners: &[(usize, usize)], height: usize, width: usize) -> Self {
        assert_eq!(corners.len(), self.grid.batch, "corners and images");
        let whole = self.grid;
        let part = |all: &[f32], extent: usize, image: usize, first: usize, len: usize| {
            all[image * extent..][first..first + len].to_vec()
        };
        let images = || corners.iter().enumerate();
        Self {
            grid: Grid {
                batch: whole.batch,
                height,
                width,
            },
            scaled: cut(
                &self.scaled,
                3,
                (whole.height, whole.width),
                corners,
                (height, width),
            ),
            rows: images()
                .flat_map(|(i, &(row, _))| part(&self.rows, whole.height, i, row, height))
                .collect(),
            columns: images()
                .flat_map(|(i, &(_, column))| part(&self.columns, whole.width, i, column, width))
                .collect(),
        }
    }

    /// Number and size of the images.
    pub fn grid(&self) -> Grid {
        self.grid
    }

    /// The colors, `[batch * H * W, 3]`.
    pub(super) fn colors(&self, device: &Device) -> Tensor<2> {
        device_matrix(self.scaled.clone(), self.grid.pixels(), 3, device)
    }

    /// Phases of row, column and the three colors, `[batch * H * W, 5 * frequencies]`,
    /// frequency-major.
    pub(super) fn phases(&self, n: usize, device: &Device) -> Tensor<2> {
        let frequencies = frequencies(n);
        let Grid { height, width, .. } = self.grid;
        let mut data = Vec::with_capacity(self.grid.pixels() * 5 * n);
        for (i, rgb) in self.scaled.as_chunks::<3>().0.iter().enumerate() {
            let channels = [
                self.rows[i / width],
                self.columns[i / (width * height) * width + i % width],
                rgb[0],
                rgb[1],
                rgb[2],
            ];
            data.extend(frequencies.iter().flat_map(|f| channels.map(|c| f * c)));
        }
        device_matrix(data, self.grid.pixels(), 5 * n, device)
    }
}

/// # Panics
/// If an image has a different size, or there are no images.
fn check(images: &[&[f32]], height: usize, width: usize) {
    assert!(
        !images.is_empty() && images.iter().all(|p| p.len() == 3 * height * width),
        "images of 3x{height}x{width}"
    );
}

/// Cuts a window out of each map of `[batch * H * W, channels]`, starting at its `(row, column)` in
/// `corners`: `[batch * height * width, channels]`.
pub(crate) fn cut(
    maps: &[f32],
    channels: usize,
    (rows, columns): (usize, usize),
    corners: &[(usize, usize)],
    (height, width): (usize, usize),
) -> Vec<f32> {
    let mut out = Vec::with_capacity(corners.len() * height * width * channels);
    for (map, &(top, left)) in maps.chunks_exact(rows * columns * channels).zip(corners) {
        for row in map.chunks_exact(columns * channels).skip(top).take(height) {
            out.extend_from_slice(&row[left * channels..][..width * channels]);
        }
    }
    out
}
