//! Evaluation of a head of a bundle.

use std::path::Path;

use loftup_bundle::Size;
use loftup_runtime::{
    ColorRange, Perceptor, Rect, class_map::ClassMap, heads::Head, image::Orientation,
};
use serde::Serialize;

use crate::{
    EvalError, Progress,
    confusion::Confusion,
    data::{self, Classes},
    sampling::{Encoder, open, subsample},
};

/// Scores of a class head, as fractions from 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HeadScores {
    /// Number of labeled images.
    pub images: usize,
    /// Mean IoU over the classes that occur.
    pub mean_iou: f64,
    /// Pixel accuracy.
    pub accuracy: f64,
}

/// Evaluates head `name` on `dir/val`, or on `dir` if that does not exist, at `size` or the backbone's
/// default size, on at most `most` images. `orientation` applies to images, never to masks.
///
/// # Errors
/// If the head is not a class head or its classes do not match the data, or there is no usable image.
pub fn evaluate(
    perceptor: &Perceptor,
    name: &str,
    dir: &Path,
    size: Option<Size>,
    most: Option<usize>,
    orientation: Orientation,
    progress: Progress<'_>,
) -> Result<HeadScores, EvalError> {
    let head = perceptor.head(name)?;
    let encoder = Encoder::new(perceptor, size, ColorRange::PerImage, orientation)?;
    let pairs = subsample(data::pairs(dir, "val")?, most);
    let classes = Classes::of(dir, &pairs)?;
    let count = classes.names.len();
    match head.kind().class_names() {
        Some(names) if names.len() == count => {}
        Some(names) => {
            let what = format!("{count} classes, and head {name} knows {}", names.len());
            return Err(EvalError::Data {
                path: dir.into(),
                what,
            });
        }
        _ => {
            return Err(EvalError::Request(format!(
                "head {name} does not give classes, and labels are for classes; name another with --head"
            )));
        }
    }
    let mut confusion = Confusion::new(count);
    let mut images = 0;
    for (i, pair) in pairs.iter().enumerate() {
        progress("evaluating on labeled images", i, pairs.len());
        match open(pair, &classes, encoder.size, encoder.orientation) {
            Ok((photo, labels)) => {
                let encoded = encoder.encode(&photo)?;
                let map = class_map(&encoder, &encoded, &head)?;
                confusion.count(&labels.values, &map);
                images += 1;
            }
            Err(e) => log::warn!("skipped: {e}"),
        }
    }
    let mean_iou = confusion.mean_iou();
    if mean_iou.is_nan() {
        return Err(EvalError::Data {
            path: dir.into(),
            what: "no usable image with a labeled pixel".into(),
        });
    }
    Ok(HeadScores {
        images,
        mean_iou,
        accuracy: confusion.accuracy(),
    })
}

/// Computes the class map of a head on upsampled features.
pub(crate) fn class_map(
    encoder: &Encoder<'_>,
    encoded: &crate::sampling::Encoded,
    head: &Head,
) -> Result<Vec<u8>, EvalError> {
    let view = encoder.view(encoded, encoder.range)?.with_head(head)?;
    let mut map = ClassMap::new(Rect::whole(encoder.size));
    view.frame(&mut |tile| map.push(tile))?;
    Ok(map.into_classes())
}
