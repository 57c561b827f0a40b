//! A side-by-side image of the input, the backbone's features and the upsampled features.

use crate::image::{self, ImageError, RgbImage};
use crate::pca::Range;

/// Minimum height of a panel; smaller outputs are scaled up by an integer factor.
pub const MIN_PANEL: usize = 224;

/// Color of the gap between panels.
const GAP_COLOR: [u8; 3] = [255; 3];

/// Why panels cannot be drawn. The message is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PanelsError {
    /// The number of values of a map does not match its size.
    #[error(
        "a map of {height} x {width} pixels with {values} values: expected {height} * {width} * 3, three components per pixel"
    )]
    BadMap {
        /// The height given.
        height: usize,
        /// The width given.
        width: usize,
        /// The values given.
        values: usize,
    },
    /// A range that does not have three components.
    #[error("a range of {0} components: panels take 3, for red, green and blue")]
    BadRange(usize),
    /// A panel or the whole image would be too large, or empty.
    #[error("the panels cannot be drawn: {0}")]
    Image(#[from] ImageError),
}

/// Features already projected to three components.
#[derive(Debug, Clone, Copy)]
pub struct ComponentMap<'a> {
    values: &'a [f32],
    width: usize,
    height: usize,
}

impl<'a> ComponentMap<'a> {
    /// A map of `values`, row-major `[height, width, 3]`.
    ///
    /// # Errors
    /// The map is empty, or the number of values does not match its size.
    pub fn new(values: &'a [f32], width: usize, height: usize) -> Result<Self, PanelsError> {
        let expected = width.checked_mul(height).and_then(|n| n.checked_mul(3));
        if values.is_empty() || expected != Some(values.len()) {
            return Err(PanelsError::BadMap {
                height,
                width,
                values: values.len(),
            });
        }
        Ok(Self {
            values,
            width,
            height,
        })
    }

    /// The map as colors, resized to `width` x `height` with nearest-neighbor sampling.
    fn colored(&self, range: &Range, width: usize, height: usize) -> Result<RgbImage, PanelsError> {
        let mut out = RgbImage::filled(width, height, [0; 3])?;
        let columns: Vec<usize> = (0..width).map(|x| nearest(x, width, self.width)).collect();
        let (pixels, _) = self.values.as_chunks::<3>();
        let mut colors = vec![[0u8; 3]; self.width];
        let mut colored = None;
        for y in 0..height {
            let from = nearest(y, height, self.height);
            if colored != Some(from) {
                let row = &pixels[from * self.width..][..self.width];
                for (color, value) in colors.iter_mut().zip(row) {
                    *color = std::array::from_fn(|j| range.level(j, value[j]));
                }
                colored = Some(from);
            }
            let row = out.row_mut(y).as_chunks_mut::<3>().0;
            for (pixel, &column) in row.iter_mut().zip(&columns) {
                *pixel = colors[column];
            }
        }
        Ok(out)
    }
}

/// Returns the cell of `from` under the center of cell `index` of `to`, as in Pillow's nearest-neighbor resize.
pub(crate) fn nearest(index: usize, to: usize, from: usize) -> usize {
    (2 * index + 1) * from / (2 * to)
}

/// Returns width and height of the image that [`three_panels`] makes for an output of `width` x `height`.
/// Useful to check the size before a long computation.
///
/// # Errors
/// The image would be too large or empty.
pub fn panels_size(width: usize, height: usize) -> Result<(usize, usize), PanelsError> {
    let factor = MIN_PANEL.div_ceil(height.max(1));
    let (width, height) = (width.saturating_mul(factor), height.saturating_mul(factor));
    let whole = width.saturating_mul(3).saturating_add(2 * gap(height));
    image::check_size(whole, height)?;
    Ok((whole, height))
}

/// Returns the width of the gap between two panels of this height.
fn gap(height: usize) -> usize {
    (height / 64).max(2)
}

/// Draws three panels of the same size with a thin white gap: `photograph` (resized), `low` (the
/// backbone's features, one flat square per cell) and `high` (the upsampled features, whose size is
/// the size of a panel). Both maps are colored with the same `range`. If `high` is lower than
/// [`MIN_PANEL`], all panels are scaled up by the smallest integer factor that reaches it.
///
/// Values outside the range are clamped; NaN is black.
///
/// # Errors
/// The range does not have three components, or the image would be too large.
pub fn three_panels(
    photograph: &RgbImage,
    low: ComponentMap<'_>,
    high: ComponentMap<'_>,
    range: &Range,
) -> Result<RgbImage, PanelsError> {
    if range.components() != 3 {
        return Err(PanelsError::BadRange(range.components()));
    }
    let (whole_width, height) = panels_size(high.width, high.height)?;
    let width = high.width * (height / high.height);
    let gap = gap(height);
    let mut whole = RgbImage::filled(whole_width, height, GAP_COLOR)?;
    let panels = [
        photograph.resized(width, height)?,
        low.colored(range, width, height)?,
        high.colored(range, width, height)?,
    ];
    for (index, panel) in panels.iter().enumerate() {
        let left = index * (width + gap) * 3;
        for y in 0..height {
            whole.row_mut(y)[left..left + width * 3].copy_from_slice(panel.row(y));
        }
    }
    Ok(whole)
}
