//! Compares upsampling methods by linear probes for segmentation.

use std::{path::Path, time::Instant};

use loftup_bundle::Size;
use loftup_runtime::{
    ColorRange, Perceptor,
    heads::{Head, argmax_pixels},
    image::Orientation,
};
use rayon::prelude::*;
use serde::Serialize;

use crate::{
    EvalError, Method, Progress,
    bootstrap::Interval,
    boundary::usual_tolerance,
    data::{self, Classes, Pair},
    labels::UNLABELED,
    probe::{self, Options},
    probe_run::ProbeRun,
    sampling::{Encoded, Encoder, sample, subsample},
};

/// Settings of the comparison.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// A data set with splits `train` and `val`.
    pub data: &'a Path,
    /// Size of images and masks; the backbone's default size if not given.
    pub size: Option<Size>,
    /// Color range of the guidance.
    pub range: ColorRange,
    /// Whether EXIF orientation is applied to images. Masks are read as stored.
    pub orientation: Orientation,
    /// Upsampling methods; all that the bundle supports if empty.
    pub methods: Vec<Method>,
    /// Number of pixels sampled per training image.
    pub samples: usize,
    /// Maximum number of images per split, evenly spaced.
    pub most: Option<usize>,
    /// Boundary tolerance in pixels; 0.75 % of the diagonal if not given.
    pub tolerance: Option<usize>,
    /// Training settings of the probes.
    pub probe: Options,
}

/// Results.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Width of images and masks.
    pub width: usize,
    /// Height.
    pub height: usize,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Training images.
    pub train_images: usize,
    /// Training pixels.
    pub train_pixels: usize,
    /// Validation images.
    pub val_images: usize,
    /// Boundary tolerance in pixels.
    pub boundary_tolerance: usize,
    /// Why images were skipped.
    pub skipped: Vec<String>,
    /// Results of each method.
    pub results: Vec<Outcome>,
}

/// Scores of one upsampling method, 0 to 1.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// The method.
    pub method: Method,
    /// Mean intersection over union of the classes that occur.
    pub mean_iou: f64,
    /// Mean boundary F-score of the classes that occur.
    pub boundary_f: f64,
    /// Pixel accuracy.
    pub accuracy: f64,
    /// Intersection over union by class; `None` if the class does not occur.
    pub iou: Vec<Option<f64>>,
    /// Boundary F-score by class.
    pub boundary: Vec<Option<f64>>,
    /// Mean cross-entropy on the training pixels.
    pub train_loss: f64,
    /// Time to train the probe in seconds.
    pub train_seconds: f64,
    /// Time for all class maps in seconds, without the backbone.
    pub map_seconds: f64,
    /// Mean IoU minus bilinear interpolation's; `None` for itself, or if it was not evaluated.
    pub minus_bilinear: Option<Interval>,
    /// Mean IoU minus joint bilateral upsampling's; `None` for itself, or if it was not evaluated.
    pub minus_jbu: Option<Interval>,
}

/// Trains a probe for each method on `train` and evaluates it on `val`.
///
/// Memory is bounded: only sampled pixels of training images are kept, and validation images are
/// processed one at a time.
///
/// # Errors
/// If the data cannot be used, or the bundle cannot be run.
pub fn evaluate(
    perceptor: &Perceptor,
    request: &Request<'_>,
    progress: Progress<'_>,
) -> Result<Report, EvalError> {
    let encoder = Encoder::new(perceptor, request.size, request.range, request.orientation)?;
    let methods = Method::checked(perceptor.manifest(), request.methods.clone())?;
    let dir = request.data;
    let Set {
        train,
        val,
        classes,
    } = Set::open(dir, request.most)?;
    let count = classes.names.len();
    let set = (dir, &train[..], &classes);
    let draw = (request.samples, request.probe.seed);
    let sampled = sample(&encoder, set, &methods, draw, progress)?;
    let train_pixels = sampled.samples.first().map_or(0, |s| s.labels.len());
    let tolerance = request
        .tolerance
        .unwrap_or_else(|| usual_tolerance(encoder.size));

    let mut runs = Vec::new();
    for (method, samples) in methods.iter().zip(sampled.samples) {
        let start = Instant::now();
        let trained = probe::train(samples, count, &request.probe, progress);
        runs.push(MethodRun {
            method: *method,
            train_seconds: start.elapsed().as_secs_f64(),
            train_loss: trained.loss,
            probe: ProbeRun::new(&classes.names, trained.linear, tolerance)?,
            map_seconds: 0.0,
        });
    }
    let mut skipped = sampled.skipped;
    let mut val_images = 0;
    for (i, pair) in val.iter().enumerate() {
        progress("evaluating on validation images", i, val.len());
        let Some((photo, labels)) = encoder.open_or_skip(pair, &classes, &mut skipped) else {
            continue;
        };
        let encoded = encoder.encode(&photo)?;
        for run in &mut runs {
            let start = Instant::now();
            let map = class_map(&encoder, run.method, &encoded, &run.probe.head)?;
            run.map_seconds += start.elapsed().as_secs_f64();
            run.probe.count(encoder.size, &labels, &map);
        }
        val_images += 1;
    }
    if val_images == 0 {
        let what = match skipped.last() {
            Some(last) => format!("no usable validation image; the last: {last}"),
            None => "there are no validation images".into(),
        };
        return Err(EvalError::Data {
            path: dir.into(),
            what,
        });
    }
    Ok(Report {
        width: encoder.size.width,
        height: encoder.size.height,
        classes: classes.names,
        train_images: sampled.images,
        train_pixels,
        val_images,
        boundary_tolerance: tolerance,
        skipped,
        results: (runs.iter())
            .map(|run| run.outcome(&runs, request.probe.seed))
            .collect(),
    })
}

/// A data set with splits `train` and `val`.
pub(crate) struct Set {
    pub train: Vec<Pair>,
    pub val: Vec<Pair>,
    pub classes: Classes,
}

impl Set {
    /// Opens a data set with at most `most` images per split, evenly spaced.
    pub fn open(dir: &Path, most: Option<usize>) -> Result<Self, EvalError> {
        for part in ["train", "val"] {
            if !dir.join(part).is_dir() {
                let what = format!(
                    "has no {part} directory; put images/ and labels/ in train/ and in val/"
                );
                return Err(EvalError::Data {
                    path: dir.into(),
                    what,
                });
            }
        }
        let train = subsample(data::pairs(dir, "train")?, most);
        Ok(Self {
            val: subsample(data::pairs(dir, "val")?, most),
            classes: Classes::of(dir, &train)?,
            train,
        })
    }
}

/// A method, its probe, and their times.
struct MethodRun {
    method: Method,
    probe: ProbeRun,
    train_loss: f64,
    train_seconds: f64,
    map_seconds: f64,
}

impl MethodRun {
    fn outcome(&self, all: &[Self], seed: u64) -> Outcome {
        let confusion = self.probe.confusion();
        let minus = |method: Method| {
            let rival = all.iter().find(|run| run.method == method)?;
            (self.method != method).then(|| self.probe.minus(&rival.probe, seed))
        };
        Outcome {
            method: self.method,
            mean_iou: confusion.mean_iou(),
            boundary_f: self.probe.boundary.mean(),
            accuracy: confusion.accuracy(),
            iou: confusion.iou(),
            boundary: self.probe.boundary.by_class(),
            train_loss: self.train_loss,
            train_seconds: self.train_seconds,
            map_seconds: self.map_seconds,
            minus_bilinear: minus(Method::Bilinear),
            minus_jbu: minus(Method::Jbu),
        }
    }
}

/// Computes the class map of a probe.
fn class_map(
    encoder: &Encoder<'_>,
    method: Method,
    encoded: &Encoded,
    head: &Head,
) -> Result<Vec<u8>, EvalError> {
    let Size { width, height } = encoder.size;
    let Some(weights) = encoder.weights(method, encoded) else {
        return crate::evaluation::class_map(encoder, encoded, head);
    };
    let mut map = vec![UNLABELED; width * height];
    let buffers = || (Vec::new(), Vec::new(), Vec::new());
    map.par_chunks_mut(width).enumerate().for_each_init(
        buffers,
        |(scratch, row, scores), (y, line)| {
            weights.row(
                &encoded.features.tokens,
                encoded.features.dim,
                y,
                scratch,
                row,
            );
            scores.clear();
            head.apply(row, scores);
            argmax_pixels(scores, head.outputs(), line);
        },
    );
    Ok(map)
}
