//! The guidance image at output resolution, as inputs of the queries graph.
//!
//! Scaling and coordinates follow PyTorch's order of operations in 32-bit arithmetic: with
//! frequencies up to e^10 in the graph, one ulp here moves a phase by 1e-3.

use loftup_bundle::Normalization;
use loftup_spec::{HALO, linspace, min_max_scale};

use crate::tiles::Rect;

/// How the guidance is scaled.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum ColorRange {
    /// By the minimum and maximum of each channel of the image, as in LoftUp's training.
    #[default]
    PerImage,
    /// By the same range for every image, in normalized units per channel: in video, a single bright
    /// pixel then does not change the scaling of all others.
    Fixed {
        /// Maps to -0.5.
        min: [f32; 3],
        /// Maps to 0.5.
        max: [f32; 3],
    },
}

impl ColorRange {
    /// Returns a fixed range, given in levels of 0 to 255.
    pub fn of_levels(low: f32, high: f32, n: &Normalization) -> Self {
        let normalized =
            |level: f32| std::array::from_fn(|c| (level / 255.0 - n.mean[c]) / n.std[c]);
        Self::Fixed {
            min: normalized(low),
            max: normalized(high),
        }
    }
}

/// A scaled guidance image with the coordinates of its rows and columns.
#[derive(Debug, Clone)]
pub struct Guidance {
    width: usize,
    height: usize,
    /// `[3, H, W]`.
    scaled: Vec<f32>,
    rows: Vec<f32>,
    cols: Vec<f32>,
}

impl Guidance {
    /// Scales a normalized image `[3, height, width]`.
    ///
    /// # Panics
    /// If `image` has the wrong size or is empty.
    pub fn new(image: &[f32], width: usize, height: usize, range: ColorRange) -> Self {
        let area = width * height;
        assert!(
            area > 0 && image.len() == 3 * area,
            "an image of 3x{height}x{width}"
        );
        let mut scaled = Vec::with_capacity(3 * area);
        for (c, channel) in image.chunks_exact(area).enumerate() {
            let (min, max) = match range {
                ColorRange::PerImage => channel
                    .iter()
                    .fold((f32::INFINITY, f32::NEG_INFINITY), |(lo, hi), &x| {
                        (lo.min(x), hi.max(x))
                    }),
                ColorRange::Fixed { min, max } => (min[c], max[c]),
            };
            scaled.extend(channel.iter().map(|&x| min_max_scale(x, min, max)));
        }
        let (rows, cols) = (linspace(-1.0, 1.0, height), linspace(-1.0, 1.0, width));
        Self {
            width,
            height,
            scaled,
            rows,
            cols,
        }
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Whether all inputs of the tile `rect` are bit-identical in `other`, which has the same size.
    pub(crate) fn same_tile(&self, other: &Self, rect: Rect) -> bool {
        let span = |start: usize, len: usize, end: usize| {
            start.saturating_sub(HALO)..(start + len + HALO).min(end)
        };
        let cols = span(rect.x, rect.width, self.width);
        let channels = 0..self.scaled.len() / (self.width * self.height);
        channels
            .flat_map(|c| span(rect.y, rect.height, self.height).map(move |y| c * self.height + y))
            .all(|row| {
                let row = row * self.width + cols.start..row * self.width + cols.end;
                bit_eq(&self.scaled[row.clone()], &other.scaled[row])
            })
    }

    /// Appends the tile `rect` with its halo to the three inputs of the queries graph: colors
    /// `[3, h + 4, w + 4]`, coordinates `[2, h + 4, w + 4]`, mask `[1, h + 4, w + 4]`.
    pub(crate) fn cut(&self, rect: Rect, tile: &mut TileInputs) {
        // Source index of each row and column, `None` outside the image.
        let span = |start: usize, len: usize, end: usize| {
            (start..start + len + 2 * HALO).map(move |i| i.checked_sub(HALO).filter(|i| *i < end))
        };
        let rows = || span(rect.y, rect.height, self.height);
        let cols = || span(rect.x, rect.width, self.width);
        for channel in self.scaled.chunks_exact(self.width * self.height) {
            for y in rows() {
                let row = y.map(|y| &channel[y * self.width..][..self.width]);
                tile.colors
                    .extend(cols().map(|x| row.zip(x).map_or(0.0, |(row, x)| row[x])));
            }
        }
        // Outside the image the mask is 0, and the coordinates may be any finite value.
        for y in rows() {
            tile.coords
                .extend(cols().map(|_| y.map_or(0.0, |y| self.rows[y])));
        }
        for _ in rows() {
            tile.coords
                .extend(cols().map(|x| x.map_or(0.0, |x| self.cols[x])));
        }
        for y in rows() {
            tile.mask
                .extend(cols().map(|x| if y.is_some() && x.is_some() { 1.0 } else { 0.0 }));
        }
    }
}

/// Whether two slices have the same bits: 0 and -0 compare equal, but a graph can give different
/// outputs for them.
pub(crate) fn bit_eq(a: &[f32], b: &[f32]) -> bool {
    bytemuck::cast_slice::<f32, u8>(a) == bytemuck::cast_slice::<f32, u8>(b)
}

/// Inputs of the queries graph for a batch of tiles.
#[derive(Debug, Default)]
pub(crate) struct TileInputs {
    pub colors: Vec<f32>,
    pub coords: Vec<f32>,
    pub mask: Vec<f32>,
}

impl TileInputs {
    /// Clears the inputs but keeps their memory.
    pub fn clear(&mut self) {
        self.colors.clear();
        self.coords.clear();
        self.mask.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDTH: usize = 5;
    const HEIGHT: usize = 3;

    fn image() -> Vec<f32> {
        (0..3 * WIDTH * HEIGHT)
            .map(|i| (i * 7 % 11) as f32)
            .collect()
    }

    #[test]
    fn each_channel_is_scaled_by_its_own_range() {
        let guidance = Guidance::new(&image(), WIDTH, HEIGHT, ColorRange::PerImage);
        for channel in guidance.scaled.chunks_exact(WIDTH * HEIGHT) {
            let ends = channel
                .iter()
                .fold((f32::MAX, f32::MIN), |(a, b), x| (a.min(*x), b.max(*x)));
            assert_eq!(ends, (-0.5, 0.5));
        }
    }

    #[test]
    fn an_image_of_one_color_is_not_divided_by_zero() {
        let flat = vec![0.25; 3 * WIDTH * HEIGHT];
        let guidance = Guidance::new(&flat, WIDTH, HEIGHT, ColorRange::PerImage);
        assert!(guidance.scaled.iter().all(|x| *x == -0.5));
    }

    #[test]
    fn a_fixed_range_makes_a_pixel_independent_of_the_others() {
        let range = ColorRange::Fixed {
            min: [-1.0; 3],
            max: [12.0; 3],
        };
        let mut other = image();
        other[0] = 11.9;
        let a = Guidance::new(&image(), WIDTH, HEIGHT, range).scaled;
        let b = Guidance::new(&other, WIDTH, HEIGHT, range).scaled;
        assert_ne!(a[0], b[0]);
        assert_eq!(a[1..], b[1..]);
    }

    #[test]
    fn a_tile_is_cut_with_its_halo_coordinates_and_mask() {
        let guidance = Guidance::new(&image(), WIDTH, HEIGHT, ColorRange::PerImage);
        // Every tile of every shape, at every border.
        for (width, height) in [(1, 1), (2, 3), (5, 3), (4, 1)] {
            for y in 0..=HEIGHT - height {
                for x in 0..=WIDTH - width {
                    let mut tile = TileInputs::default();
                    let rect = Rect {
                        x,
                        y,
                        width,
                        height,
                    };
                    guidance.cut(rect, &mut tile);
                    let (rows, cols) = (height + 2 * HALO, width + 2 * HALO);
                    assert_eq!(tile.colors.len(), 3 * rows * cols);
                    assert_eq!(tile.coords.len(), 2 * rows * cols);
                    assert_eq!(tile.mask.len(), rows * cols);
                    for i in 0..rows * cols {
                        let source = (y + i / cols)
                            .checked_sub(HALO)
                            .zip((x + i % cols).checked_sub(HALO))
                            .filter(|(y, x)| *y < HEIGHT && *x < WIDTH);
                        let Some((row, col)) = source else {
                            assert_eq!(tile.mask[i], 0.0);
                            continue;
                        };
                        assert_eq!(tile.mask[i], 1.0);
                        assert_eq!(tile.coords[i], guidance.rows[row]);
                        assert_eq!(tile.coords[rows * cols + i], guidance.cols[col]);
                        for c in 0..3 {
                            let expected = guidance.scaled[(c * HEIGHT + row) * WIDTH + col];
                            assert_eq!(tile.colors[c * rows * cols + i], expected);
                        }
                    }
                }
            }
        }
    }
}
