//! Segmentation from clicks: fitting the threshold, and comparing upsampling methods.

mod fit;
mod images;
mod objects;
mod protocol;
mod report;
mod threshold;

use std::path::Path;

use loftup_bundle::Size;
use loftup_runtime::{ColorRange, Perceptor, click::MAX_CLICKS, image::Orientation};
use serde::Serialize;

pub use fit::{Fitted, Threshold, fit, store, threshold};
pub use protocol::Target;
pub use report::{Differences, Outcome, ToReach};

use crate::{EvalError, Method, Progress};
use images::{Images, no_objects};
use objects::items;
use report::{Run, segment};

/// Settings for fitting the threshold and for the comparison.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// Images with masks of objects; those in `val` are evaluated, or all if there is no `val`.
    pub data: &'a Path,
    /// Images to fit thresholds to: those in its `train` folder, or all; `data` if not given.
    pub train: Option<&'a Path>,
    /// Size of images and masks; the backbone's default size if not given.
    pub size: Option<Size>,
    /// Color range of the guidance.
    pub range: ColorRange,
    /// Whether EXIF orientation is applied to images. Masks are read as stored.
    pub orientation: Orientation,
    /// Upsampling methods; all that the bundle supports if empty.
    pub methods: Vec<Method>,
    /// Maximum number of images per split, evenly spaced.
    pub most: Option<usize>,
    /// Objects smaller than this fraction of the image are skipped.
    pub min_area: f64,
    /// Number of clicks per object.
    pub clicks: usize,
    /// Seed of the bootstrap.
    pub seed: u64,
}

/// Default of [`Request::min_area`]: 100 pixels of 224 x 224.
pub const MIN_AREA: f64 = 0.002;

/// Default of [`Request::clicks`].
pub const CLICKS: usize = 20;

/// Results.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Width of images and masks in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Number of images that thresholds were fitted to.
    pub train_images: usize,
    /// Number of objects in them.
    pub train_objects: usize,
    /// Number of images that were evaluated.
    pub images: usize,
    /// Number of objects in them.
    pub objects: usize,
    /// Number of clicks per object.
    pub clicks: usize,
    /// Why images were skipped.
    pub skipped: Vec<String>,
    /// Results of each method.
    pub results: Vec<Outcome>,
}

impl Report {
    /// The fitted thresholds, for [`store`].
    pub fn fitted(&self) -> Fitted {
        let threshold = |outcome: &Outcome| Threshold {
            method: outcome.method,
            threshold: outcome.threshold,
            iou: outcome.train_iou,
        };
        Fitted {
            thresholds: self.results.iter().map(threshold).collect(),
            images: self.train_images,
            objects: self.train_objects,
            skipped: Vec::new(),
        }
    }
}

/// Fits thresholds, and evaluates them with simulated clicks.
///
/// # Errors
/// If the data cannot be used, or the bundle cannot be run.
pub fn evaluate(
    perceptor: &Perceptor,
    request: &Request<'_>,
    progress: Progress<'_>,
) -> Result<Report, EvalError> {
    if !(1..=MAX_CLICKS).contains(&request.clicks) {
        return Err(EvalError::Request(format!(
            "{} clicks: expected 1 to {MAX_CLICKS}",
            request.clicks
        )));
    }
    let images = Images::open(perceptor, request, request.data, "val")?;
    let dir = request.train.unwrap_or(request.data);
    let train = items(dir, "train")?;
    if let Some(item) = images.items.iter().find(|item| train.contains(item)) {
        return Err(EvalError::Data {
            path: dir.into(),
            what: format!(
                "thresholds would be fitted to {}, which is evaluated; put other images in train/, or name them with --train",
                item.image.display()
            ),
        });
    }
    let fitted = fit(perceptor, request, progress)?;
    let size = images.encoder.size;
    let methods: Vec<Method> = fitted.thresholds.iter().map(|t| t.method).collect();
    let mut runs: Vec<Run> = fitted.thresholds.iter().map(|t| Run::new(*t)).collect();
    let (used, mut skipped) = images.each(
        &methods,
        ("clicking on objects", progress),
        &mut runs,
        |run, objects, segmenter| {
            segmenter.set_threshold(run.threshold.threshold)?;
            let Run { times, images, .. } = run;
            let targets = objects.targets(size).map(|target| {
                segmenter.clear();
                segment(times, &target, segmenter, request.clicks)
            });
            let curves = targets.collect::<Result<Vec<_>, EvalError>>()?;
            images.push(curves);
            Ok(())
        },
    )?;
    if used == 0 {
        return Err(no_objects(request.data, &skipped));
    }
    skipped.extend(fitted.skipped);
    let rival = |method| runs.iter().find(|run| run.threshold.method == method);
    let (bilinear, jbu) = (rival(Method::Bilinear), rival(Method::Jbu));
    let outcome = |run: &Run| {
        let minus = |other: Option<&Run>| {
            let other = other.filter(|other| other.threshold.method != run.threshold.method)?;
            Some(run.minus(other, request.seed))
        };
        Outcome {
            minus_bilinear: minus(bilinear),
            minus_jbu: minus(jbu),
            ..run.outcome(request.clicks)
        }
    };
    Ok(Report {
        width: size.width,
        height: size.height,
        train_images: fitted.images,
        train_objects: fitted.objects,
        images: used,
        objects: runs
            .first()
            .map_or(0, |run| run.images.iter().map(Vec::len).sum()),
        clicks: request.clicks,
        skipped,
        results: runs.iter().map(outcome).collect(),
    })
}
