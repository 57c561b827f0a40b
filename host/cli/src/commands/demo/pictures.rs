//! The same features before and after, in the same colors.

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

/// Held-out scenes that are shown.
const SHOWN: [u64; 3] = [0, 3, 7];
/// One of them: photo, backbone's features, bilinear, LoftUp, classes seen, true classes.
const FILE: &str = "features.png";
/// Pixels between two pictures there.
const GAP: usize = 4;
/// Colors.
const COMPONENTS: usize = 3;
/// Sets of the common basis: the backbone's features and the upsampled ones.
const LOW: usize = 0;
const HIGH: usize = 1;

/// A held-out scene in its features and classes.
#[derive(Debug)]
pub struct Panel {
    pub photo: RgbImage,
    /// The backbone's features: a square for each.
    pub backbone: RgbImage,
    pub bilinear: RgbImage,
    pub loftup: RgbImage,
    /// Classes by the head of the bundle.
    pub seen: RgbImage,
    pub truth: RgbImage,
}

/// Draws some held-out scenes with the bundle of the demo, and writes the first into `at`.
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
        let mut answer = VecSink::new(rect, dim)?;
        view.frame(&mut |tile| answer.push(tile))?;
        let upsampled = answer.into_values();

        let basis = CommonBasis::fit(
            &[(tokens, grid.0 * grid.1), (&upsampled, rect.area())],
            dim,
            COMPONENTS,
        )?;
        let mut low = vec![0.0; COMPONENTS * grid.0 * grid.1];
        basis.project(LOW, tokens, &mut low)?;
        let mut high = vec![0.0; COMPONENTS * rect.area()];
        basis.project(HIGH, &upsampled, &mut high)?;
        // PcaSink are an affine map of features, and so enlarge as these do.
        let enlarged = |kernel| enlarge(kernel, &low, grid, size);

        let mut map = ClassMap::new(rect);
        let view = perceptor
            .encode_features(&features, &inputs.guidance, ColorRange::PerImage)?
            .with_head(&head)?;
        view.frame(&mut |tile| map.push(tile))?;
        let colors = |values: &[f32]| colors(values, size, basis.range());
        panels.push(Panel {
            backbone: colors(&enlarged(Kernel::Nearest))?,
            bilinear: colors(&enlarged(Kernel::Bilinear))?,
            loftup: colors(&high)?,
            seen: colored(width, height, &map.into_classes())?,
            truth: colored(width, height, &Labels::open(&labels)?.values)?,
            photo,
        });
    }
    if let Some(p) = panels.first() {
        beside(&[
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

/// Pictures of one size side by side, with white between them.
fn beside(pictures: &[&RgbImage]) -> Result<RgbImage> {
    let Some(first) = pictures.first() else {
        anyhow::bail!("no pictures to put side by side");
    };
    let (width, height) = (first.width(), first.height());
    let whole = pictures.len() * (width + GAP) - GAP;
    let mut out = RgbImage::filled(whole, height, [255; 3])?;
    for (i, picture) in pictures.iter().enumerate() {
        for y in 0..height {
            out.row_mut(y)[3 * i * (width + GAP)..][..3 * width].copy_from_slice(picture.row(y));
        }
    }
    Ok(out)
}

fn enlarge(kernel: Kernel, cells: &[f32], grid: (usize, usize), to: Size) -> Vec<f32> {
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
    fn pictures_stand_beside_each_other_with_a_gap() {
        let red = RgbImage::filled(2, 1, [9, 0, 0]).unwrap();
        let blue = RgbImage::filled(2, 1, [0, 0, 9]).unwrap();
        let both = beside(&[&red, &blue]).unwrap();
        assert_eq!((both.width(), both.height()), (4 + GAP, 1));
        assert_eq!(both.data()[..6], [9, 0, 0, 9, 0, 0]);
        assert!(both.data()[6..6 + 3 * GAP].iter().all(|v| *v == 255));
        assert_eq!(both.data()[6 + 3 * GAP..], [0, 0, 9, 0, 0, 9]);
        assert!(beside(&[]).is_err());
    }

    #[test]
    fn planes_become_rows_and_cells_are_enlarged_as_squares() {
        let cells = [0., 1., 2., 10., 11., 12.];
        let to = Size {
            width: 4,
            height: 1,
        };
        let wide = enlarge(Kernel::Nearest, &cells, (2, 1), to);
        assert_eq!(wide[..6], [0., 1., 2., 0., 1., 2.]);
        assert_eq!(wide[6..], [10., 11., 12., 10., 11., 12.]);
    }
}
