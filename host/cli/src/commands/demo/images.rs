//! Visualization of features before and after upsampling, with a common color basis.

use std::path::Path;

use anyhow::Result;
use loftup_bundle::Size;
use loftup_eval::{
    labels::Labels,
    resize::{Kernel, Resizer},
};
use loftup_runtime::{
    ColorRange, Rect,
    class_map::ClassMap,
    image::{self, RgbImage},
    pca::{CommonBasis, Range},
    sinks::VecSink,
};

use super::{camera::colored, model, scenes, stages::Watch};

/// Held-out scenes in the report.
const SHOWN: [u64; 3] = [0, 3, 7];
/// The first of them: photo, backbone features, bilinear, LoftUp, predicted and true classes.
const FILE: &str = "features.png";
/// Pixels between two images.
const GAP: usize = 4;
/// Principal components, shown as colors.
const COMPONENTS: usize = 3;
/// Indices of the backbone's and of the upsampled features in the common basis.
const LOW: usize = 0;
const HIGH: usize = 1;

/// Features and classes of a held-out scene.
#[derive(Debug)]
pub struct Panel {
    pub photo: RgbImage,
    /// The backbone's features, upsampled by nearest neighbor.
    pub backbone: RgbImage,
    pub bilinear: RgbImage,
    pub loftup: RgbImage,
    /// Predicted classes.
    pub seen: RgbImage,
    pub truth: RgbImage,
}

/// Visualizes some held-out scenes with the demo's bundle, and writes the first to `at`.
pub fn features(at: &Path, watch: Watch<'_>) -> Result<Vec<Panel>> {
    let perceptor = model::open(at, model::BUNDLE)?;
    let head = perceptor.head(model::HEAD)?;
    let size = scenes::SIZE;
    let Size { width, height } = size;
    let rect = Rect::whole(size);
    let mut panels = Vec::new();
    for i in SHOWN {
        watch("drawing", panels.len(), SHOWN.len());
        let (photo, labels) = scenes::held_out(at, i);
        let photo = image::open(&photo)?;
        let inputs = perceptor.preprocess(&photo, size)?;
        let features = perceptor.features(inputs.backbone())?;
        let (dim, grid) = (features.dim, (features.width, features.height));
        let tokens = &features.tokens;
        let view = perceptor.encode_features(&features, &inputs.guidance, ColorRange::PerImage)?;
        let mut output = VecSink::new(rect, dim)?;
        view.frame(&mut |tile| output.push(tile))?;
        let upsampled = output.into_values();

        let basis = CommonBasis::fit(
            &[(tokens, grid.0 * grid.1), (&upsampled, rect.area())],
            dim,
            COMPONENTS,
        )?;
        let mut low = vec![0.0; COMPONENTS * grid.0 * grid.1];
        basis.project(LOW, tokens, &mut low)?;
        let mut high = vec![0.0; COMPONENTS * rect.area()];
        basis.project(HIGH, &upsampled, &mut high)?;
        // The projection is affine, so it commutes with interpolation.
        let interpolated = |kernel| interpolate(kernel, &low, grid, size);

        let mut map = ClassMap::new(rect);
        let view = perceptor
            .encode_features(&features, &inputs.guidance, ColorRange::PerImage)?
            .with_head(&head)?;
        view.frame(&mut |tile| map.push(tile))?;
        let colors = |values: &[f32]| colors(values, size, basis.range());
        panels.push(Panel {
            backbone: colors(&interpolated(Kernel::Nearest))?,
            bilinear: colors(&interpolated(Kernel::Bilinear))?,
            loftup: colors(&high)?,
            seen: colored(width, height, &map.into_classes())?,
            truth: colored(width, height, &Labels::open(&labels)?.values)?,
            photo,
        });
    }
    if let Some(p) = panels.first() {
        side_by_side(&[
            &p.photo,
            &p.backbone,
            &p.bilinear,
            &p.loftup,
            &p.seen,
            &p.truth,
        ])?
        .save_png(&at.join(FILE))?;
    }
    Ok(panels)
}

/// Images of one size side by side, separated by white.
fn side_by_side(images: &[&RgbImage]) -> Result<RgbImage> {
    let Some(first) = images.first() else {
        anyhow::bail!("no images to put side by side");
    };
    let (width, height) = (first.width(), first.height());
    let whole = images.len() * (width + GAP) - GAP;
    let mut out = RgbImage::filled(whole, height, [255; 3])?;
    for (i, image) in images.iter().enumerate() {
        for y in 0..height {
            out.row_mut(y)[3 * i * (width + GAP)..][..3 * width].copy_from_slice(image.row(y));
        }
    }
    Ok(out)
}

fn interpolate(kernel: Kernel, cells: &[f32], grid: (usize, usize), to: Size) -> Vec<f32> {
    let resizer = Resizer::new(kernel, grid, (to.width, to.height));
    let (mut scratch, mut row, mut all) = (Vec::new(), Vec::new(), Vec::new());
    for y in 0..to.height {
        resizer.row(cells, COMPONENTS, y, &mut scratch, &mut row);
        all.extend_from_slice(&row);
    }
    all
}

fn colors(values: &[f32], size: Size, range: &Range) -> Result<RgbImage> {
    let data = values
        .iter()
        .enumerate()
        .map(|(i, value)| range.level(i % COMPONENTS, *value))
        .collect();
    Ok(RgbImage::new(size.width, size.height, data)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_placed_side_by_side_with_a_gap() {
        let red = RgbImage::filled(2, 1, [9, 0, 0]).unwrap();
        let blue = RgbImage::filled(2, 1, [0, 0, 9]).unwrap();
        let both = side_by_side(&[&red, &blue]).unwrap();
        assert_eq!((both.width(), both.height()), (4 + GAP, 1));
        assert_eq!(both.data()[..6], [9, 0, 0, 9, 0, 0]);
        assert!(both.data()[6..6 + 3 * GAP].iter().all(|v| *v == 255));
        assert_eq!(both.data()[6 + 3 * GAP..], [0, 0, 9, 0, 0, 9]);
        assert!(side_by_side(&[]).is_err());
    }

    #[test]
    fn nearest_repeats_cells() {
        let cells = [0., 1., 2., 10., 11., 12.];
        let to = Size {
            width: 4,
            height: 1,
        };
        let wide = interpolate(Kernel::Nearest, &cells, (2, 1), to);
        assert_eq!(wide[..6], [0., 1., 2., 0., 1., 2.]);
        assert_eq!(wide[6..], [10., 11., 12., 10., 11., 12.]);
    }
}
