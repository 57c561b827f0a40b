//! Fits thresholds to images with objects.

use std::path::Path;

use loftup_bundle::{Bundle, Clicks};
use loftup_runtime::Perceptor;
use serde::Serialize;

use super::{
    Request,
    images::{Images, no_objects},
    threshold::ThresholdFit,
};
use crate::{EvalError, Method, Progress, heads};

/// A fitted threshold.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Threshold {
    /// The method.
    pub method: Method,
    /// The cosine similarity.
    pub threshold: f32,
    /// Mean IoU after one click, on the objects used for the fit.
    pub iou: f64,
}

/// Fitted thresholds.
#[derive(Debug, Clone, Serialize)]
pub struct Fitted {
    /// The threshold of each method.
    pub thresholds: Vec<Threshold>,
    /// Number of images with objects.
    pub images: usize,
    /// Number of objects.
    pub objects: usize,
    /// Why images were skipped.
    pub skipped: Vec<String>,
}

/// Fits the threshold of each method to the objects of the training images, to maximize the mean IoU
/// after one click.
///
/// # Errors
/// If the data cannot be used, or the bundle cannot be run.
pub fn fit(
    perceptor: &Perceptor,
    request: &Request<'_>,
    progress: Progress<'_>,
) -> Result<Fitted, EvalError> {
    let methods = Method::checked(perceptor.manifest(), request.methods.clone())?;
    let dir = request.train.unwrap_or(request.data);
    let mut fits = vec![ThresholdFit::default(); methods.len()];
    let images = Images::open(perceptor, request, dir, "train")?;
    let size = images.encoder.size;
    let (used, skipped) = images.each(
        &methods,
        ("fitting thresholds", progress),
        &mut fits,
        |fit, objects, segmenter| {
            for target in objects.targets(size) {
                let nothing = vec![false; target.truth.len()];
                // Objects whose pixels are all void are skipped.
                let Some(click) = target.next_click(&nothing, &[]) else {
                    continue;
                };
                segmenter.clear();
                segmenter.click(click)?;
                fit.add(&target, click.point, segmenter.similarity());
            }
            Ok(())
        },
    )?;
    let thresholds = methods.iter().zip(&fits).map(|(method, fit)| {
        let (threshold, iou) = fit.best().ok_or_else(|| no_objects(dir, &skipped))?;
        Ok(Threshold {
            method: *method,
            threshold,
            iou,
        })
    });
    Ok(Fitted {
        thresholds: thresholds.collect::<Result<_, EvalError>>()?,
        images: used,
        objects: fits.first().map_or(0, ThresholdFit::objects),
        skipped,
    })
}

/// Writes a copy of the bundle at `from` to `out` with these thresholds, replacing existing ones. With
/// `replace`, `out` may be `from` itself.
///
/// # Errors
/// A bundle cannot be read or written; no partial output remains.
pub fn store(from: &Path, fitted: &Fitted, out: &Path, replace: bool) -> Result<(), EvalError> {
    let (mut writer, mut manifest) = heads::copy(from, out, replace, |_, _| true)?;
    let each = fitted.thresholds.iter();
    manifest.clicks = Some(Clicks {
        thresholds: each
            .map(|t| (t.method.key().to_owned(), t.threshold))
            .collect(),
        images: fitted.images,
        objects: fitted.objects,
    });
    Bundle::open(writer.seal(manifest)?)?;
    Ok(writer.commit()?)
}

/// Returns the threshold of a bundle for a method; `None` if none was fitted.
pub fn threshold(clicks: Option<&Clicks>, method: Method) -> Option<f32> {
    clicks?.thresholds.get(method.key()).copied()
}
