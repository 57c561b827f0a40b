//! Objects segmented by one click.

use std::path::Path;

use anyhow::{Context, Result};
use loftup_eval::{
    clicks::{self, Target},
    dense,
    labels::Labels,
};
use loftup_runtime::{
    ColorRange,
    click::{Click, ClickSegmenter},
    image::{self, Orientation, RgbImage},
};
use serde::Serialize;

use super::{model, scenes, stages::Watch};
use crate::commands::track::overlay;

/// Held-out scene in the report.
const SHOWN: u64 = 3;
/// Scenes for the thresholds and for the evaluation, each.
const SCENES: usize = 6;
/// Half of the side of the cross that marks the click, in pixels.
const CROSS: usize = 5;
/// Its color.
const RED: [u8; 3] = [255, 0, 0];

/// Scores after one click, and the masks of one object.
#[derive(Debug, Serialize)]
pub struct Clicks {
    pub report: clicks::Report,
    /// Captions and images.
    #[serde(skip)]
    pub shown: Vec<(String, RgbImage)>,
}

/// Fits thresholds, evaluates them with one click for each object, and adds them to the bundle.
pub fn segment(at: &Path, watch: Watch<'_>) -> Result<Clicks> {
    let bundle = at.join(model::BUNDLE);
    let request = clicks::Request {
        data: &at.join(scenes::FOLDER),
        train: None,
        size: Some(scenes::SIZE),
        range: ColorRange::PerImage,
        orientation: Orientation::Upright,
        methods: model::COMPARED.to_vec(),
        most: Some(SCENES),
        min_area: clicks::MIN_AREA,
        clicks: 1,
        seed: 0,
    };
    let report = clicks::evaluate(&model::open(at, model::BUNDLE)?, &request, watch)?;
    clicks::store(&bundle, &report.fitted(), &bundle, true)?;
    let shown = one_object(at, &report)?;
    Ok(Clicks { report, shown })
}

/// The masks of the largest object of a scene after a click in its middle.
fn one_object(at: &Path, report: &clicks::Report) -> Result<Vec<(String, RgbImage)>> {
    let perceptor = model::open(at, model::BUNDLE)?;
    let photo = image::open(&scenes::held_out_as(at, SHOWN, "images"))?;
    let labels = Labels::open(&scenes::held_out_as(at, SHOWN, "masks"))?;
    let mut areas = [0usize; 256];
    labels
        .values
        .iter()
        .for_each(|l| areas[usize::from(*l)] += 1);
    let largest = (1..=254u8).max_by_key(|label| areas[usize::from(*label)]);
    let truth: Vec<bool> = labels.values.iter().map(|l| Some(*l) == largest).collect();
    let target = Target {
        truth: &truth,
        void: &vec![false; truth.len()],
        size: labels.size,
    };
    let click = target.next_click(&vec![false; truth.len()], &[]);
    let click = click.context("the scene in the report has no object")?;
    let drawn = |mask: &[bool]| {
        let labels: Vec<u8> = mask.iter().map(|m| u8::from(*m)).collect();
        overlay::draw(&photo, &labels)
    };
    let mut shown = vec![
        ("the click".to_owned(), marked(photo.clone(), click)),
        ("truth".to_owned(), drawn(&truth)?),
    ];
    for outcome in &report.results {
        let (range, size) = (ColorRange::PerImage, Some(labels.size));
        let (size, features) = dense::features(&perceptor, &photo, size, range, outcome.method)?;
        let dim = features.len() / size.area();
        let mut segmenter = ClickSegmenter::from_features(size, dim, features, outcome.threshold)?;
        let mask = segmenter.click(click)?;
        let iou = 100.0 * target.iou(mask);
        shown.push((
            format!("{}, IoU {iou:.0} %", outcome.method.name()),
            drawn(mask)?,
        ));
    }
    Ok(shown)
}

/// The image with a cross at the click.
fn marked(mut image: RgbImage, click: Click) -> RgbImage {
    let (width, height) = (image.width(), image.height());
    let (x, y) = (click.point.x, click.point.y);
    for x in x.saturating_sub(CROSS)..(x + CROSS + 1).min(width) {
        image.row_mut(y)[3 * x..][..3].copy_from_slice(&RED);
    }
    for y in y.saturating_sub(CROSS)..(y + CROSS + 1).min(height) {
        image.row_mut(y)[3 * x..][..3].copy_from_slice(&RED);
    }
    image
}

#[cfg(test)]
mod tests {
    use loftup_runtime::Point;

    use super::*;

    #[test]
    fn a_cross_is_cut_at_the_edge_of_the_image() {
        let image = RgbImage::filled(9, 8, [7; 3]).unwrap();
        let click = Click {
            point: Point { x: 1, y: 7 },
            positive: true,
        };
        let image = marked(image, click);
        let red = |x: usize, y: usize| image.row(y)[3 * x..][..3] == RED;
        let found: Vec<_> = (0..8)
            .map(|y| (0..9).filter(|x| red(*x, y)).count())
            .collect();
        assert_eq!(found, [0, 0, 1, 1, 1, 1, 1, 7]);
    }
}
