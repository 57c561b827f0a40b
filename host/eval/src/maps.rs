//! Linear probes on feature maps provided by the caller, compared image by image.

use loftup_bundle::Size;
use loftup_runtime::{
    Perceptor,
    heads::{Head, argmax_pixels},
};
use rayon::prelude::*;
use serde::Serialize;

use crate::{
    EvalError, Progress,
    bootstrap::Interval,
    boundary::usual_tolerance,
    labels::UNLABELED,
    probe,
    probe_run::ProbeRun,
    sampling::{Encoder, Photo, places, samples_in_memory},
    segmentation::{Request, Set},
};

/// Computes feature maps of images.
pub trait Map: Sync {
    /// The name in tables.
    fn name(&self) -> String;

    /// Computes the features of every pixel, `[height * width, dim]`.
    ///
    /// # Errors
    /// If the map cannot be computed for this image.
    fn map(&self, photo: &Photo<'_>) -> Result<Vec<f32>, EvalError>;
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
    /// Scores of each map.
    pub results: Vec<Scores>,
}

/// Scores of one kind of map, 0 to 1.
#[derive(Debug, Clone, Serialize)]
pub struct Scores {
    /// Name of the map.
    pub name: String,
    /// Mean intersection over union of the classes that occur.
    pub mean_iou: f64,
    /// Mean boundary F-score of the classes that occur.
    pub boundary_f: f64,
    /// Pixel accuracy.
    pub accuracy: f64,
    /// Mean IoU minus the first map's.
    pub difference: Interval,
}

/// Trains a probe for each map on `train` and evaluates it on `val`. All probes are trained on the same
/// pixels in the same order. The methods of the request are not used.
///
/// # Errors
/// If the data cannot be used, the bundle cannot be run, or a map cannot be computed.
pub fn compare(
    perceptor: &Perceptor,
    request: &Request<'_>,
    maps: &[&dyn Map],
    progress: Progress<'_>,
) -> Result<Report, EvalError> {
    let encoder = Encoder::new(perceptor, request.size, request.range, request.orientation)?;
    let Set {
        train,
        val,
        classes,
    } = Set::open(request.data, request.most)?;
    let count = classes.names.len();
    let tolerance = request
        .tolerance
        .unwrap_or_else(|| usual_tolerance(encoder.size));
    let mut skipped = Vec::new();
    let dim = perceptor.manifest().backbone.as_ref().map_or(0, |b| b.dim);
    let each = samples_in_memory(request.samples, dim, maps.len(), train.len());
    let mut samples: Vec<probe::Samples> = maps.iter().map(|_| Default::default()).collect();
    let mut train_images = 0;
    for (i, pair) in train.iter().enumerate() {
        progress("sampling training images", i, train.len());
        let Some((photo, labels)) = encoder.open_or_skip(pair, &classes, &mut skipped) else {
            continue;
        };
        let chosen = places(&labels, each, request.probe.seed, i);
        if chosen.is_empty() {
            continue;
        }
        let encoded = encoder.encode(&photo)?;
        let photo = encoded.photo(&pair.image, &photo);
        let drawn: Vec<Vec<f32>> = maps
            .par_iter()
            .map(|map| {
                let all = checked(*map, &photo)?;
                let rows = chosen.iter();
                let row = |i: &u32| &all[*i as usize * photo.dim..][..photo.dim];
                Ok(rows.flat_map(row).copied().collect())
            })
            .collect::<Result<_, EvalError>>()?;
        for (samples, features) in samples.iter_mut().zip(drawn) {
            samples.dim = photo.dim;
            samples.features.extend(features);
            let of = chosen.iter().map(|i| labels.values[*i as usize]);
            samples.labels.extend(of);
        }
        train_images += 1;
    }
    let no_images = |part: &str, skipped: &[String]| EvalError::Data {
        path: request.data.join(part),
        what: match skipped.last() {
            Some(last) => format!("no usable image; the last: {last}"),
            None => "no image with a labeled pixel".into(),
        },
    };
    if train_images == 0 {
        return Err(no_images("train", &skipped));
    }
    let train_pixels = samples.first().map_or(0, |s| s.labels.len());
    let mut runs = Vec::new();
    for samples in samples {
        let trained = probe::train(samples, count, &request.probe, progress);
        runs.push(ProbeRun::new(&classes.names, trained.linear, tolerance)?);
    }
    let mut val_images = 0;
    for (i, pair) in val.iter().enumerate() {
        progress("evaluating on validation images", i, val.len());
        let Some((photo, labels)) = encoder.open_or_skip(pair, &classes, &mut skipped) else {
            continue;
        };
        let encoded = encoder.encode(&photo)?;
        let photo = encoded.photo(&pair.image, &photo);
        maps.par_iter()
            .zip(&mut runs)
            .try_for_each(|(map, run)| -> Result<(), EvalError> {
                let classes = class_map(&run.head, &checked(*map, &photo)?, photo.dim);
                run.count(encoder.size, &labels, &classes);
                Ok(())
            })?;
        val_images += 1;
    }
    if val_images == 0 {
        return Err(no_images("val", &skipped));
    }
    let Size { width, height } = encoder.size;
    let results = maps.iter().zip(&runs).map(|(map, run)| {
        let all = run.confusion();
        Scores {
            name: map.name(),
            mean_iou: all.mean_iou(),
            boundary_f: run.boundary.mean(),
            accuracy: all.accuracy(),
            difference: run.minus(&runs[0], request.probe.seed),
        }
    });
    Ok(Report {
        width,
        height,
        train_images,
        train_pixels,
        val_images,
        boundary_tolerance: tolerance,
        skipped,
        results: results.collect(),
        classes: classes.names.clone(),
    })
}

/// Computes a map and checks its size.
fn checked(map: &dyn Map, photo: &Photo<'_>) -> Result<Vec<f32>, EvalError> {
    let values = map.map(photo)?;
    let expected = photo.image.width() * photo.image.height() * photo.dim;
    if values.len() != expected {
        return Err(EvalError::Request(format!(
            "{}: {} values for {}, expected {expected}",
            map.name(),
            values.len(),
            photo.path.display()
        )));
    }
    Ok(values)
}

fn class_map(head: &Head, features: &[f32], dim: usize) -> Vec<u8> {
    const ROWS: usize = 1024;
    let mut map = vec![UNLABELED; features.len() / dim];
    map.par_chunks_mut(ROWS)
        .zip(features.par_chunks(ROWS * dim))
        .for_each_init(Vec::new, |scores, (classes, features)| {
            scores.clear();
            head.apply(features, scores);
            argmax_pixels(scores, head.outputs(), classes);
        });
    map
}
