//! The same probe on differently enlarged features.

use std::{path::Path, time::Instant};

use loftup_bundle::{HeadKind, Linear, Size};
use loftup_runtime::{
    ColourRange, Perceptor,
    heads::{Head, best},
    image::Orientation,
};
use rayon::prelude::*;
use serde::Serialize;

use crate::{
    EvalError, Method, Progress,
    boundary::{BoundaryScore, usual_tolerance},
    confusion::Confusion,
    data::{self, Classes},
    labels::UNLABELLED,
    probe::{self, Options},
    sampling::{Looker, Seen, open, sample, thin},
};

/// What to compare.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// A data set with `train` and `val`.
    pub data: &'a Path,
    /// Size of pictures and masks; the backbone's own if not given.
    pub size: Option<Size>,
    /// Range of colours of the guidance.
    pub range: ColourRange,
    /// Which way up pictures are read. Masks are taken as stored.
    pub orientation: Orientation,
    /// Which features; all that the bundle can make if empty.
    pub methods: Vec<Method>,
    /// Pixels of each training picture.
    pub samples: usize,
    /// Pictures of each part at most, evenly spread.
    pub most: Option<usize>,
    /// Pixels within which an outline is met; the usual share of the diagonal if not given.
    pub tolerance: Option<usize>,
    /// How probes are trained.
    pub probe: Options,
}

/// What came out.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Columns of pictures and masks.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Pictures that were trained on.
    pub train_pictures: usize,
    /// Pixels that were trained on.
    pub train_pixels: usize,
    /// Pictures that were judged by.
    pub val_pictures: usize,
    /// Pixels within which an outline is met.
    pub boundary_tolerance: usize,
    /// Why some pictures were left out.
    pub left_out: Vec<String>,
    /// Method by method.
    pub results: Vec<Outcome>,
}

/// How good one kind of features is. Shares, 0 to 1.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Where the features come from.
    pub method: Method,
    /// Mean intersection over union of the classes that occur.
    pub mean_iou: f64,
    /// Mean boundary F-score of the classes that occur.
    pub boundary_f: f64,
    /// Share of pixels that are right.
    pub accuracy: f64,
    /// Intersection over union by class; none where the class does not occur.
    pub iou: Vec<Option<f64>>,
    /// Boundary F-score by class.
    pub boundary: Vec<Option<f64>>,
    /// Cross-entropy of the training pixels.
    pub train_loss: f64,
    /// Seconds to train the probe.
    pub train_seconds: f64,
    /// Seconds for all maps of classes, backbone left out.
    pub map_seconds: f64,
}

/// Trains a probe for each method on `train`, and judges it on `val`.
///
/// Memory is bounded: of training pictures only sampled pixels are kept, pictures of `val` are
/// looked at one at a time.
///
/// # Errors
/// Where the data cannot be used, or the bundle cannot be run.
pub fn evaluate(
    perceptor: &Perceptor,
    request: &Request<'_>,
    progress: Progress<'_>,
) -> Result<Report, EvalError> {
    let looker = Looker::new(perceptor, request.size, request.range, request.orientation)?;
    let able = Method::of(perceptor.manifest());
    let methods = if request.methods.is_empty() {
        able.clone()
    } else {
        request.methods.clone()
    };
    if let Some(method) = methods.iter().find(|m| !able.contains(m)) {
        return Err(EvalError::Request(format!(
            "the bundle has no upsampler for {}; convert it with --upsampler-weights",
            method.name()
        )));
    }
    let dir = request.data;
    for part in ["train", "val"] {
        if !dir.join(part).is_dir() {
            let what =
                format!("has no {part} directory; put images/ and labels/ in train/ and in val/");
            return Err(EvalError::Data {
                path: dir.into(),
                what,
            });
        }
    }
    let train = thin(data::pairs(dir, "train")?, request.most);
    let val = thin(data::pairs(dir, "val")?, request.most);
    let classes = Classes::of(dir, &train)?;
    let count = classes.names.len();
    let set = (dir, &train[..], &classes);
    let draw = (request.samples, request.probe.seed);
    let sampled = sample(&looker, set, &methods, draw, progress)?;
    let train_pixels = sampled.samples.first().map_or(0, |s| s.labels.len());
    let tolerance = request
        .tolerance
        .unwrap_or_else(|| usual_tolerance(looker.size));

    let mut judged = Vec::new();
    for (method, samples) in methods.iter().zip(sampled.samples) {
        let start = Instant::now();
        let trained = probe::train(samples, count, &request.probe, progress);
        judged.push(Judged {
            method: *method,
            train_seconds: start.elapsed().as_secs_f64(),
            train_loss: trained.loss,
            head: class_head(&classes.names, trained.linear)?,
            confusion: Confusion::new(count),
            boundary: BoundaryScore::new(count, tolerance),
            map_seconds: 0.0,
        });
    }
    let mut left_out = sampled.left_out;
    let mut val_pictures = 0;
    for (i, pair) in val.iter().enumerate() {
        progress("judging by validation pictures", i, val.len());
        let (photo, labels) = match open(pair, &classes, looker.size, looker.orientation) {
            Ok(opened) => opened,
            Err(e) => {
                log::warn!("left out: {e}");
                left_out.push(e.to_string());
                continue;
            }
        };
        let seen = looker.look(&photo)?;
        for judged in &mut judged {
            let start = Instant::now();
            let map = class_map(&looker, judged.method, &seen, &judged.head)?;
            judged.map_seconds += start.elapsed().as_secs_f64();
            judged.confusion.count(&labels.values, &map);
            judged.boundary.count(looker.size, &labels.values, &map);
        }
        val_pictures += 1;
    }
    if val_pictures == 0 {
        let what = match left_out.last() {
            Some(last) => format!("no validation picture could be used; the last: {last}"),
            None => "there are no validation pictures".into(),
        };
        return Err(EvalError::Data {
            path: dir.into(),
            what,
        });
    }
    Ok(Report {
        width: looker.size.width,
        height: looker.size.height,
        classes: classes.names,
        train_pictures: sampled.pictures,
        train_pixels,
        val_pictures,
        boundary_tolerance: tolerance,
        left_out,
        results: judged.into_iter().map(Judged::outcome).collect(),
    })
}

/// A probe on its way through the validation pictures.
struct Judged {
    method: Method,
    head: Head,
    confusion: Confusion,
    boundary: BoundaryScore,
    train_loss: f64,
    train_seconds: f64,
    map_seconds: f64,
}

impl Judged {
    fn outcome(self) -> Outcome {
        Outcome {
            method: self.method,
            mean_iou: self.confusion.mean_iou(),
            boundary_f: self.boundary.mean(),
            accuracy: self.confusion.accuracy(),
            iou: self.confusion.iou(),
            boundary: self.boundary.by_class(),
            train_loss: self.train_loss,
            train_seconds: self.train_seconds,
            map_seconds: self.map_seconds,
        }
    }
}

/// A head of classes that is in no bundle yet.
pub(crate) fn class_head(names: &[String], linear: Linear) -> Result<Head, EvalError> {
    let kind = HeadKind::Classes {
        names: names.to_vec(),
    };
    Ok(Head::new(
        loftup_bundle::Head {
            kind,
            dim: linear.inputs,
            file: String::new(),
        },
        linear,
    )?)
}

/// The classes that a probe sees.
fn class_map(
    looker: &Looker<'_>,
    method: Method,
    seen: &Seen,
    head: &Head,
) -> Result<Vec<u8>, EvalError> {
    let Size { width, height } = looker.size;
    let Some(kernel) = method.kernel() else {
        return crate::judging::class_map(looker, seen, head);
    };
    let resizer = looker.resizer(kernel, seen);
    let mut map = vec![UNLABELLED; width * height];
    let buffers = || (Vec::new(), Vec::new(), Vec::new());
    map.par_chunks_mut(width).enumerate().for_each_init(
        buffers,
        |(scratch, row, scores), (y, line)| {
            resizer.row(&seen.tokens, seen.features.dim, y, scratch, row);
            scores.clear();
            head.apply(row, scores);
            for (class, scores) in line.iter_mut().zip(scores.chunks_exact(head.outputs())) {
                *class = best(scores);
            }
        },
    );
    Ok(map)
}
