//! Segmentation from clicks: the threshold, and the evaluation by upsampling method.

mod objects;
mod protocol;
mod threshold;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use loftup_bundle::{Bundle, Clicks, Size};
use loftup_runtime::{
    ColorRange, Perceptor,
    click::{ClickSegmenter, MAX_CLICKS},
    image::Orientation,
};
use rayon::prelude::*;
use serde::Serialize;

pub use protocol::{Target, clicks_to_reach};
pub use threshold::ThresholdFit;

use crate::{
    EvalError, Method, Progress,
    bootstrap::Interval,
    heads,
    sampling::{Encoded, Encoder, subsample},
};
use objects::{Item, Objects, items};

/// Settings of the threshold's fit and of the comparison.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// Images with masks of objects; those in `val` are evaluated, or all if there is no `val`.
    pub data: &'a Path,
    /// Images that thresholds are fitted to: `train` in there, or all; `data` if not given.
    pub train: Option<&'a Path>,
    /// Size of images and masks; the backbone's own if not given.
    pub size: Option<Size>,
    /// Color range of the guidance.
    pub range: ColorRange,
    /// Whether EXIF orientation is applied to images. Masks are read as stored.
    pub orientation: Orientation,
    /// Upsampling methods; all that the bundle supports if empty.
    pub methods: Vec<Method>,
    /// Most images per split, evenly spread.
    pub most: Option<usize>,
    /// Objects smaller than this fraction of the image are left out.
    pub min_area: f64,
    /// Clicks per object.
    pub clicks: usize,
    /// Seed of the bootstrap.
    pub seed: u64,
}

/// Default of [`Request::min_area`]: 100 of 224 x 224 pixels.
pub const MIN_AREA: f64 = 0.002;

/// Default of [`Request::clicks`].
pub const CLICKS: usize = 20;

/// A fitted threshold.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Threshold {
    /// The method.
    pub method: Method,
    /// The cosine similarity.
    pub threshold: f32,
    /// Mean IoU after one click, on the objects that it was fitted to.
    pub iou: f64,
}

/// Fitted thresholds.
#[derive(Debug, Clone, Serialize)]
pub struct Fitted {
    /// By method.
    pub thresholds: Vec<Threshold>,
    /// Images with objects.
    pub images: usize,
    /// Objects.
    pub objects: usize,
    /// Why images were skipped.
    pub skipped: Vec<String>,
}

/// Fits the threshold of each method to the objects of the training images: the one with the greatest
/// mean IoU after one click.
///
/// # Errors
/// Where the data cannot be used, or the bundle cannot be run.
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
                // Objects without a pixel that counts are left out.
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

/// Writes a copy of the bundle at `from` to `out` with these thresholds, replacing earlier ones. `out`
/// may be `from` itself, with `replace`.
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

/// Results.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Width of images and masks.
    pub width: usize,
    /// Height.
    pub height: usize,
    /// Images that thresholds were fitted to.
    pub train_images: usize,
    /// Objects in these.
    pub train_objects: usize,
    /// Images that were evaluated.
    pub images: usize,
    /// Objects in these.
    pub objects: usize,
    /// Clicks per object.
    pub clicks: usize,
    /// Why images were skipped.
    pub skipped: Vec<String>,
    /// By method.
    pub results: Vec<Outcome>,
}

/// Scores of one upsampling method.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// The method.
    pub method: Method,
    /// Its threshold.
    pub threshold: f32,
    /// Mean IoU after each click.
    pub iou: Vec<f64>,
    /// Clicks to reach an IoU of 0.80, 0.85 and 0.90.
    pub to_reach: Vec<ToReach>,
    /// Differences from bilinear interpolation, this method minus the other.
    pub minus_bilinear: Option<Differences>,
    /// Differences from joint bilateral upsampling.
    pub minus_jbu: Option<Differences>,
    /// Median milliseconds from a click to its mask; methods run at the same time.
    pub click_milliseconds: f64,
}

/// Clicks to reach an IoU.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ToReach {
    /// The IoU.
    pub iou: f64,
    /// Mean number of clicks over objects; all clicks where it is not reached.
    pub clicks: f64,
    /// Objects for which it is not reached.
    pub never: usize,
}

/// Mean differences over objects, with the bootstrap interval over images.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Differences {
    /// IoU after one click.
    pub iou_1: Interval,
    /// IoU after five clicks, or all if there are fewer.
    pub iou_5: Interval,
    /// Clicks to reach an IoU of 0.80.
    pub clicks_80: Interval,
    /// Clicks to reach an IoU of 0.90.
    pub clicks_90: Interval,
}

/// The IoUs that clicks are counted to.
const REACHED: [f64; 3] = [0.80, 0.85, 0.90];

/// Fits thresholds, and evaluates them with simulated clicks.
///
/// # Errors
/// Where the data cannot be used, or the bundle cannot be run.
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

/// The IoU of an object after each click.
type Curve = Vec<f64>;

/// Results so far of one method.
struct Run {
    threshold: Threshold,
    /// Of each image, the curves of its objects.
    images: Vec<Vec<Curve>>,
    times: Vec<Duration>,
}

impl Run {
    fn new(threshold: Threshold) -> Self {
        Self {
            threshold,
            images: Vec::new(),
            times: Vec::new(),
        }
    }

    fn curves(&self) -> impl Iterator<Item = &Curve> {
        self.images.iter().flatten()
    }

    /// The mean difference of a value of each object's curve.
    fn difference(&self, other: &Self, seed: u64, value: impl Fn(&Curve) -> f64) -> Interval {
        let pairs = self.images.iter().zip(&other.images);
        // Sum and number of the differences in each image.
        let images: Vec<(f64, f64)> = pairs
            .map(|(a, b)| {
                let differences = a.iter().zip(b).map(|(a, b)| value(a) - value(b));
                (differences.sum(), a.len() as f64)
            })
            .collect();
        Interval::bootstrap(images.len(), seed, |chosen| {
            let chosen = chosen.iter().map(|i| images[*i]);
            let (sum, count) = chosen.fold((0.0, 0.0), |(s, n), (sum, count)| (s + sum, n + count));
            sum / count
        })
    }

    fn minus(&self, other: &Self, seed: u64) -> Differences {
        let iou = |k: usize| move |curve: &Curve| curve[(k - 1).min(curve.len() - 1)];
        let clicks = |wanted: f64| move |curve: &Curve| clicks_to_reach(curve, wanted).0 as f64;
        Differences {
            iou_1: self.difference(other, seed, iou(1)),
            iou_5: self.difference(other, seed, iou(5)),
            clicks_80: self.difference(other, seed, clicks(0.80)),
            clicks_90: self.difference(other, seed, clicks(0.90)),
        }
    }

    fn outcome(&self, clicks: usize) -> Outcome {
        let objects = self.curves().count() as f64;
        let mean = |k: usize| self.curves().map(|c| c[k]).sum::<f64>() / objects;
        let to_reach = |iou: f64| {
            let reached = self.curves().map(|curve| clicks_to_reach(curve, iou));
            let add = |(sum, never), (n, not): (usize, bool)| (sum + n, never + usize::from(not));
            let (sum, never) = reached.fold((0, 0), add);
            ToReach {
                iou,
                clicks: sum as f64 / objects,
                never,
            }
        };
        let mut times = self.times.clone();
        times.sort_unstable();
        let median = times.get(times.len() / 2).copied().unwrap_or_default();
        Outcome {
            method: self.threshold.method,
            threshold: self.threshold.threshold,
            iou: (0..clicks).map(mean).collect(),
            to_reach: REACHED.map(to_reach).to_vec(),
            minus_bilinear: None,
            minus_jbu: None,
            click_milliseconds: 1e3 * median.as_secs_f64(),
        }
    }
}

/// Clicks on an object until nothing is wrong, or `clicks` times. The IoU of the last mask stands
/// for clicks that are not needed.
fn segment(
    times: &mut Vec<Duration>,
    target: &Target<'_>,
    segmenter: &mut ClickSegmenter,
    clicks: usize,
) -> Result<Curve, EvalError> {
    let mut curve = Curve::with_capacity(clicks);
    while curve.len() < clicks {
        let Some(click) = target.next_click(segmenter.mask(), segmenter.clicks()) else {
            break;
        };
        let start = Instant::now();
        segmenter.click(click)?;
        times.push(start.elapsed());
        curve.push(target.iou(segmenter.mask()));
    }
    // Without any click, the object has no pixel that counts: nothing is right.
    let last = curve.last().copied().unwrap_or(1.0);
    curve.resize(clicks, last);
    Ok(curve)
}

fn no_objects(dir: &Path, skipped: &[String]) -> EvalError {
    EvalError::Data {
        path: dir.into(),
        what: match skipped.first() {
            Some(first) => format!("no usable image with objects; the first: {first}"),
            None => "no object is large enough".into(),
        },
    }
}

/// Images with objects, and how they are encoded.
struct Images<'a> {
    encoder: Encoder<'a>,
    items: Vec<Item>,
    orientation: Orientation,
    /// Least pixels of an object.
    least: usize,
}

impl<'a> Images<'a> {
    fn open(
        perceptor: &'a Perceptor,
        request: &Request<'_>,
        dir: &Path,
        part: &str,
    ) -> Result<Self, EvalError> {
        let encoder = Encoder::new(perceptor, request.size, request.range, request.orientation)?;
        Ok(Self {
            items: subsample(items(dir, part)?, request.most),
            orientation: request.orientation,
            least: (request.min_area * encoder.size.area() as f64).ceil() as usize,
            encoder,
        })
    }

    /// Calls `work` for each image and method with the state of the method, the objects, and the
    /// features to click on; methods run at the same time. Returns the number of images with objects,
    /// and why others were skipped.
    fn each<S: Send>(
        &self,
        methods: &[Method],
        (stage, progress): (&str, Progress<'_>),
        states: &mut [S],
        work: impl Fn(&mut S, &Objects, &mut ClickSegmenter) -> Result<(), EvalError> + Sync,
    ) -> Result<(usize, Vec<String>), EvalError> {
        let (mut used, mut skipped) = (0, Vec::new());
        for (i, item) in self.items.iter().enumerate() {
            progress(stage, i, self.items.len());
            let opened = item.open(self.encoder.size, self.orientation, self.least);
            let (photo, objects) = match opened {
                Ok(opened) => opened,
                Err(e) => {
                    log::warn!("skipped: {e}");
                    skipped.push(e.to_string());
                    continue;
                }
            };
            if objects.masks.is_empty() {
                continue;
            }
            let encoded = self.encoder.encode(&photo)?;
            let methods = methods.par_iter().zip(states.par_iter_mut());
            methods.try_for_each(|(method, state)| -> Result<(), EvalError> {
                work(state, &objects, &mut self.segmenter(*method, &encoded)?)
            })?;
            used += 1;
        }
        Ok((used, skipped))
    }

    fn segmenter(&self, method: Method, encoded: &Encoded) -> Result<ClickSegmenter, EvalError> {
        let features = self.encoder.map(method, encoded, None)?;
        let (size, dim) = (self.encoder.size, encoded.features.dim);
        Ok(ClickSegmenter::from_features(size, dim, features, 0.0)?)
    }
}

/// The threshold of a bundle for a method; `None` if none was fitted.
pub fn threshold(clicks: Option<&Clicks>, method: Method) -> Option<f32> {
    clicks?.thresholds.get(method.key()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(images: &[&[&[f64]]]) -> Run {
        let curves = |image: &&[&[f64]]| image.iter().map(|c| c.to_vec()).collect();
        Run {
            images: images.iter().map(curves).collect(),
            ..Run::new(Threshold {
                method: Method::Jbu,
                threshold: 0.5,
                iou: 0.0,
            })
        }
    }

    #[test]
    fn curves_are_averaged_over_objects() {
        let run = run(&[&[&[0.5, 0.7, 0.9]], &[&[0.8, 0.85, 0.85], &[0.2, 0.2, 0.8]]]);
        let outcome = run.outcome(3);
        for (found, expected) in outcome.iou.iter().zip([0.5, 1.75 / 3.0, 0.85]) {
            assert!((found - expected).abs() < 1e-12, "{outcome:?}");
        }
        let reach: Vec<_> = outcome
            .to_reach
            .iter()
            .map(|r| (r.clicks, r.never))
            .collect();
        // 0.80: clicks 3, 1, 3. 0.85: 3, 2, never. 0.90: 3, never, never.
        assert_eq!(reach, [(7.0 / 3.0, 0), (8.0 / 3.0, 1), (3.0, 2)]);
    }

    #[test]
    fn differences_are_paired_by_object_and_resampled_by_image() {
        let a = run(&[&[&[0.5, 0.9]], &[&[0.1, 0.2], &[0.3, 0.8]]]);
        let b = run(&[&[&[0.4, 0.8]], &[&[0.0, 0.1], &[0.2, 0.7]]]);
        let same = a.minus(&b, 1);
        for d in [same.iou_1, same.iou_5] {
            for x in [d.low, d.value, d.high] {
                assert!((x - 0.1).abs() < 1e-12, "{d:?}");
            }
        }
        // 0.80 is reached after 2, 2 and 2 clicks, and by the other after 2, never (2) and never (2).
        assert_eq!(same.clicks_80.value, 0.0);
        // One image has the difference 1 once, the other 0 twice: a resampling is one of three.
        let a = run(&[&[&[1.0]], &[&[0.5], &[0.5]]]);
        let b = run(&[&[&[0.0]], &[&[0.5], &[0.5]]]);
        let found = a.minus(&b, 1).iou_1;
        assert_eq!((found.low, found.value, found.high), (0.0, 1.0 / 3.0, 1.0));
    }
}
