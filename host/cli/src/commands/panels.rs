//! Visualization of backbone features and upsampled features.

use anyhow::Result;
use loftup_bundle::Size;
use loftup_runtime::{
    EncodedFrame, Features, Point, Rect,
    image::RgbImage,
    panels::{ComponentMap, three_panels},
    pca::CommonBasis,
};

/// Output pixels that the colors are fitted to.
const SAMPLES: usize = 1024;

/// A common color basis, and the backbone's features projected to it.
pub struct Panels {
    basis: CommonBasis,
    rect: Rect,
    /// Components of the backbone's features at each pixel of `rect`.
    low: Vec<f32>,
}

impl Panels {
    /// Index of the upsampled features in the common basis.
    pub const HIGH: usize = 1;
    const LOW: usize = 0;

    /// With the colors in `kept`, or fitted to the backbone's features and a sample of upsampled features, and
    /// kept.
    pub fn new(
        view: &EncodedFrame<'_>,
        features: &Features,
        rect: Rect,
        kept: &mut Option<CommonBasis>,
    ) -> Result<Self> {
        let dim = features.dim;
        let cells = features.width * features.height;
        let tokens = &features.tokens;
        let basis = match kept {
            Some(basis) => basis.clone(),
            None => {
                let samples = view.points(&spread(rect))?;
                let sets = [
                    (tokens.as_slice(), cells),
                    (samples.as_slice(), samples.len() / dim),
                ];
                let basis = CommonBasis::fit(&sets, dim, 3.min(dim))?;
                kept.insert(basis).clone()
            }
        };
        let mut components = vec![0.0; 3 * cells];
        basis.project(Self::LOW, tokens, &mut components)?;
        let Size { width, height } = view.size();
        let mut low = Vec::with_capacity(3 * rect.area());
        for y in rect.y..rect.y + rect.height {
            for x in rect.x..rect.x + rect.width {
                let cell =
                    y * features.height / height * features.width + x * features.width / width;
                low.extend_from_slice(&components[3 * cell..][..3]);
            }
        }
        Ok(Self { basis, rect, low })
    }

    /// The basis to project upsampled features with, as set [`Self::HIGH`].
    pub fn basis(&self) -> &CommonBasis {
        &self.basis
    }

    /// Image, backbone features and upsampled features side by side. `photo` has the size of the whole
    /// output; `high` are the components of `rect`.
    pub fn draw(&self, photo: &RgbImage, high: &[f32]) -> Result<RgbImage> {
        let Rect { width, height, .. } = self.rect;
        let photo = cropped(photo, self.rect)?;
        let low = ComponentMap::new(&self.low, width, height)?;
        let high = ComponentMap::new(high, width, height)?;
        Ok(three_panels(&photo, low, high, self.basis.range())?)
    }
}

/// The pixels of `rect`.
pub fn cropped(photo: &RgbImage, rect: Rect) -> Result<RgbImage> {
    let rows = (rect.y..rect.y + rect.height).map(|y| photo.row(y));
    let data = rows.flat_map(|row| row[3 * rect.x..][..3 * rect.width].iter().copied());
    Ok(RgbImage::new(rect.width, rect.height, data.collect())?)
}

/// At most [`SAMPLES`] pixels on a regular grid in `rect`.
fn spread(rect: Rect) -> Vec<Point> {
    let side = (SAMPLES as f64).sqrt();
    let aspect = (rect.width as f64 / rect.height as f64).sqrt();
    let columns = ((side * aspect) as usize).clamp(1, rect.width);
    let rows = (SAMPLES / columns).clamp(1, rect.height);
    let at = |i: usize, of: usize, start: usize, len: usize| start + (2 * i + 1) * len / (2 * of);
    (0..rows)
        .flat_map(|r| (0..columns).map(move |c| (r, c)))
        .map(|(r, c)| Point {
            x: at(c, columns, rect.x, rect.width),
            y: at(r, rows, rect.y, rect.height),
        })
        .collect()
}
