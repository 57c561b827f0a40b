//! How good a head of a bundle is.

use std::path::Path;

use loftup_bundle::{HeadKind, Size};
use loftup_runtime::{
    ColourRange, Perceptor, Rect,
    heads::{ClassMap, Head},
    image::Orientation,
};
use serde::Serialize;

use crate::{
    EvalError, Progress,
    confusion::Confusion,
    data::{self, Classes},
    sampling::{Looker, open, thin},
};

/// What a head of classes sees. Shares, 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Judged {
    /// Labelled pictures.
    pub pictures: usize,
    /// Mean intersection over union of the classes that occur.
    pub mean_iou: f64,
    /// Share of labelled pixels that are right.
    pub accuracy: f64,
}

/// Judges the head called `name` on `dir/val`, or `dir` where there is none, at the backbone's size
/// or `size`, on at most `most` pictures, read upright or as stored. Masks are taken as stored.
///
/// # Errors
/// Where the head gives no classes or others than the data has, or nothing can be judged.
pub fn judge(
    perceptor: &Perceptor,
    name: &str,
    dir: &Path,
    size: Option<Size>,
    most: Option<usize>,
    orientation: Orientation,
    progress: Progress<'_>,
) -> Result<Judged, EvalError> {
    let head = perceptor.head(name)?;
    let looker = Looker::new(perceptor, size, ColourRange::PerImage, orientation)?;
    let pairs = thin(data::pairs(dir, "val")?, most);
    let classes = Classes::of(dir, &pairs)?;
    let count = classes.names.len();
    match perceptor.manifest().heads.get(name).map(|h| &h.kind) {
        Some(HeadKind::Classes { names }) if names.len() == count => {}
        Some(HeadKind::Classes { names }) => {
            let what = format!("{count} classes, and head {name} knows {}", names.len());
            return Err(EvalError::Data {
                path: dir.into(),
                what,
            });
        }
        _ => {
            return Err(EvalError::Request(format!(
                "head {name} gives descriptors, and labels are for classes; name another with --head"
            )));
        }
    }
    let mut confusion = Confusion::new(count);
    let mut judged = 0;
    for (i, pair) in pairs.iter().enumerate() {
        progress("judging by labelled pictures", i, pairs.len());
        match open(pair, &classes, looker.size, looker.orientation) {
            Ok((photo, labels)) => {
                let seen = looker.look(&photo)?;
                let map = class_map(&looker, &seen, &head)?;
                confusion.count(&labels.values, &map);
                judged += 1;
            }
            Err(e) => log::warn!("left out: {e}"),
        }
    }
    let mean_iou = confusion.mean_iou();
    if mean_iou.is_nan() {
        return Err(EvalError::Data {
            path: dir.into(),
            what: "no picture with a labelled pixel could be used".into(),
        });
    }
    Ok(Judged {
        pictures: judged,
        mean_iou,
        accuracy: confusion.accuracy(),
    })
}

/// The classes that a head sees in upsampled features.
pub(crate) fn class_map(
    looker: &Looker<'_>,
    seen: &crate::sampling::Seen,
    head: &Head,
) -> Result<Vec<u8>, EvalError> {
    let view = looker.view(seen, looker.range)?.through(head)?;
    let mut map = ClassMap::new(Rect::whole(looker.size));
    view.frame(&mut |tile| map.take(tile))?;
    Ok(map.into_classes())
}
