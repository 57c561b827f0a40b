//! The picture that shows what upsampling does: photograph, backbone features, upsampled
//! features, side by side.

use crate::image::{self, ImageError, Rgb8};
use crate::pca::Range;

/// The least height of a panel; smaller answers are enlarged by a whole factor.
pub const MIN_PANEL: usize = 224;

/// Color of the gap between panels.
const GAP_COLOR: [u8; 3] = [255; 3];

/// What can be wrong with the parts of a picture. The message is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PictureError {
    /// A map whose values do not fit its size.
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
    /// A range of another number of components than the three colors.
    #[error("a range of {0} components: a picture takes 3, for red, green and blue")]
    BadRange(usize),
    /// The panels or the whole would be too large, or empty.
    #[error("the picture cannot be made: {0}")]
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
    /// An empty map, or another number of values.
    pub fn new(values: &'a [f32], width: usize, height: usize) -> Result<Self, PictureError> {
        let expected = width.checked_mul(height).and_then(|n| n.checked_mul(3));
        if values.is_empty() || expected != Some(values.len()) {
            return Err(PictureError::BadMap {
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

    /// The map as colors, enlarged (or thinned) to `width` x `height` by taking the nearest
    /// value.
    fn colored(&self, range: &Range, width: usize, height: usize) -> Result<Rgb8, PictureError> {
        let mut out = Rgb8::filled(width, height, [0; 3])?;
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

/// The one of `from` cells under the center of cell `index` of `to`.
fn nearest(index: usize, to: usize, from: usize) -> usize {
    (2 * index + 1) * from / (2 * to)
}

/// Width and height of the picture that [`three_panels`] makes of an answer of `width` x `height`:
/// to be asked before hours are spent on the answer.
///
/// # Errors
/// The picture would be wider or higher than pictures can be, or has no pixels.
pub fn panels_size(width: usize, height: usize) -> Result<(usize, usize), PictureError> {
    let factor = MIN_PANEL.div_ceil(height.max(1));
    let (width, height) = (width.saturating_mul(factor), height.saturating_mul(factor));
    let whole = width.saturating_mul(3).saturating_add(2 * gap(height));
    image::check_size(whole, height)?;
    Ok((whole, height))
}

/// Pixels between two panels of that height.
fn gap(height: usize) -> usize {
    (height / 64).max(2)
}

/// Three panels of the same size with a thin white gap: `photograph` (resized), `low` (the
/// backbone's features, each a flat square) and `high` (the upsampled features, whose size is
/// the panels' size). Both maps take their colors from the one `range`. Where `high` is lower
/// than [`MIN_PANEL`], all is enlarged by the smallest whole factor that reaches it.
///
/// Values outside the range are clamped; NaN is black.
///
/// # Errors
/// A range not of three components, or a picture wider or higher than pictures can be.
pub fn three_panels(
    photograph: &Rgb8,
    low: ComponentMap<'_>,
    high: ComponentMap<'_>,
    range: &Range,
) -> Result<Rgb8, PictureError> {
    if range.components() != 3 {
        return Err(PictureError::BadRange(range.components()));
    }
    let (whole_width, height) = panels_size(high.width, high.height)?;
    let width = high.width * (height / high.height);
    let gap = gap(height);
    let mut whole = Rgb8::filled(whole_width, height, GAP_COLOR)?;
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
