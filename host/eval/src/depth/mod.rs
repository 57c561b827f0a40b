//! Depth: a linear head on the features, and a comparison of upsampling methods.

mod bins;
mod data;
mod fit;
mod metrics;
mod normals;
mod run;

use std::path::Path;

use loftup_bundle::Size;
use loftup_runtime::{ColorRange, Perceptor, depth::Camera, image::Orientation};
use serde::Serialize;

pub use data::{DepthImage, DepthPair, MILLIMETERS, pairs};
pub use metrics::{Metrics, aligned, jump_band};
pub use normals::NormalScores;

use self::{
    normals::TrueNormals,
    run::{Run, Truth},
};
use crate::{
    EvalError, Method, Progress,
    bootstrap::Interval,
    heads::NewHead,
    sampling::{Encoder, subsample},
};

/// Settings of a depth head, or of the comparison.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// A directory or an index; see [`pairs`].
    pub data: &'a Path,
    /// Uses the rows of the index with this `set`; all if not given.
    pub set: Option<&'a str>,
    /// Size of the output; the backbone's default size if not given.
    pub size: Option<Size>,
    /// Color range of the guidance.
    pub range: ColorRange,
    /// Whether EXIF orientation is applied to images. Depth is read as stored.
    pub orientation: Orientation,
    /// Upsampling methods to compare; all that the bundle supports if empty.
    pub methods: Vec<Method>,
    /// Number of pixels sampled per training image.
    pub samples: usize,
    /// Maximum number of images per split, evenly spaced.
    pub most: Option<usize>,
    /// Depths beyond this many meters are ignored.
    pub max_depth: Option<f32>,
    /// Number of bins of a head trained with Probe3D's loss; ridge regression if not given.
    pub bins: Option<usize>,
    /// The camera of the images, for surface normals in the comparison.
    pub camera: Camera,
    /// L2 regularization of the ridge regression: weight of the squared norm of the weights for standardized features.
    pub ridge: f64,
    /// Seed of the samples and of the bootstrap.
    pub seed: u64,
}

/// Default of [`Request::ridge`].
pub const RIDGE: f64 = 1e-3;

/// Fits a linear head on upsampled features to the training images: ridge regression of the logarithm of
/// depth, or bins.
///
/// # Errors
/// If the data cannot be used, or the bundle lacks a part.
pub fn head(
    perceptor: &Perceptor,
    request: &Request<'_>,
    progress: Progress<'_>,
) -> Result<NewHead, EvalError> {
    let encoder = Encoder::new(perceptor, request.size, request.range, request.orientation)?;
    let methods = Method::checked(perceptor.manifest(), vec![Method::LoftUp])?;
    let train = subsample(pairs(request.data, true, request.set)?, request.most);
    let mut fitted = fit::fit(&encoder, &train, &methods, request, progress)?;
    Ok(NewHead {
        kind: fitted.kind,
        linear: fitted.linears.swap_remove(0),
        images: fitted.images,
        pixels: fitted.pixels,
        fit: fitted.r_squared[0],
        skipped: fitted.skipped,
    })
}

/// Results.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Width of images and depth.
    pub width: usize,
    /// Height.
    pub height: usize,
    /// Training images.
    pub train_images: usize,
    /// Training pixels.
    pub train_pixels: usize,
    /// The smallest and the greatest depth of the training pixels, to which predictions are clamped.
    pub range_meters: (f32, f32),
    /// Validation images.
    pub val_images: usize,
    /// Validation images with a depth jump.
    pub band_images: usize,
    /// Fraction of the pixels with depth that are in the band around depth jumps.
    pub band_fraction: f64,
    /// Fraction of the pixels with depth that have a true surface normal, away from depth jumps.
    pub normal_fraction: f64,
    /// Radius of the band in pixels.
    pub band_radius: usize,
    /// Why images were skipped.
    pub skipped: Vec<String>,
    /// Results of each method.
    pub results: Vec<Outcome>,
}

/// Scores of one upsampling method.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// The method.
    pub method: Method,
    /// Scores on all pixels with depth.
    pub whole: Scores,
    /// Scores in the band around depth jumps; `None` if no image has one.
    pub band: Option<Scores>,
    /// Scores of the surface normals of the predicted depth; `None` if no pixel has a true normal.
    pub normals: Option<NormalScores>,
    /// This method minus bilinear interpolation.
    pub minus_bilinear: Option<Differences>,
    /// This method minus joint bilateral upsampling.
    pub minus_jbu: Option<Differences>,
    /// R² of the logarithm of depth on the training pixels.
    pub train_r_squared: f64,
    /// Time for all depth maps in seconds, without the backbone.
    pub map_seconds: f64,
}

/// Metrics, each computed for every image and averaged over images.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Scores {
    /// Metrics of the predicted depth ("scale-aware").
    pub absolute: Metrics,
    /// Metrics after least-squares alignment of scale and shift per image ("scale-invariant").
    pub aligned: Metrics,
}

/// Differences of the mean over images, with the bootstrap interval over images.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Differences {
    /// d1 on all pixels.
    pub d1: Interval,
    /// Absolute relative error on all pixels.
    pub abs_rel: Interval,
    /// d1 in the band.
    pub band_d1: Option<Interval>,
    /// Absolute relative error in the band.
    pub band_abs_rel: Option<Interval>,
    /// Mean angle of surface normals in degrees.
    pub normal_degrees: Option<Interval>,
}

/// Reach of a jump and radius of the band, in pixels of an image of 224 pixels.
const JUMP: (usize, usize) = (2, 4);

/// Fits a head for each method on the training images and evaluates it on the validation images.
/// All methods use the same pixels.
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
    let split = |train| pairs(request.data, train, request.set);
    let (train, val) = (split(true)?, split(false)?);
    if let Some(pair) = val.iter().find(|pair| train.contains(pair)) {
        return Err(EvalError::Data {
            path: request.data.into(),
            what: format!(
                "{} is in both splits; use train/ and val/, or a column split with train and test",
                pair.image.display()
            ),
        });
    }
    let (train, val) = (subsample(train, request.most), subsample(val, request.most));
    let mut fitted = fit::fit(&encoder, &train, &methods, request, progress)?;
    let linears = methods.iter().zip(fitted.linears);
    let mut runs = linears
        .map(|(method, linear)| Run::new(*method, linear, &fitted.kind))
        .collect::<Result<Vec<_>, _>>()?;
    let Size { width, height } = encoder.size;
    let scaled = |pixels: usize| (pixels * width.min(height) + 112) / 224;
    let (reach, radius) = (scaled(JUMP.0).max(1), scaled(JUMP.1).max(1));
    let (mut val_images, mut with_depth, mut in_band, mut with_normal) = (0, 0, 0, 0);
    for (i, pair) in val.iter().enumerate() {
        progress("evaluating on validation images", i, val.len());
        let opened = fit::open_or_skip(&encoder, pair, request, &mut fitted.skipped);
        let Some((photo, truth)) = opened else {
            continue;
        };
        let keep: Vec<bool> = truth.iter().map(|m| *m > 0.0).collect();
        let band = jump_band(&truth, encoder.size, reach, radius);
        let band: Vec<bool> = keep.iter().zip(band).map(|(a, b)| *a && b).collect();
        if !keep.contains(&true) {
            continue;
        }
        let count = |pixels: &[bool]| pixels.iter().filter(|p| **p).count();
        with_depth += count(&keep);
        in_band += count(&band);
        let photo_size = Size {
            width: photo.width(),
            height: photo.height(),
        };
        let camera = request.camera.of_map(photo_size, encoder.size);
        let normals = TrueNormals::new(&truth, encoder.size, camera, scaled, reach)?;
        with_normal += normals.count();
        let encoded = encoder.encode(&photo)?;
        let truth = Truth {
            depth: &truth,
            keep: &keep,
            band: &band,
            normals: &normals,
        };
        for run in &mut runs {
            run.evaluate(&encoder, &encoded, &truth)?;
        }
        val_images += 1;
    }
    if val_images == 0 {
        return Err(EvalError::Data {
            path: request.data.into(),
            what: match fitted.skipped.last() {
                Some(last) => format!("no usable validation image; the last: {last}"),
                None => "no depth in any validation image".into(),
            },
        });
    }
    let rival = |method| runs.iter().find(|run| run.method == method);
    let (bilinear, jbu) = (rival(Method::Bilinear), rival(Method::Jbu));
    let outcome = |(run, r_squared): (&Run, &f64)| {
        let minus = |other: Option<&Run>| {
            let other = other.filter(|other| other.method != run.method)?;
            run.minus(other, request.seed)
        };
        Some(Outcome {
            method: run.method,
            whole: run.whole.scores()?,
            band: run.band.scores(),
            normals: NormalScores::mean(&run.normals),
            minus_bilinear: minus(bilinear),
            minus_jbu: minus(jbu),
            train_r_squared: *r_squared,
            map_seconds: run.seconds,
        })
    };
    Ok(Report {
        width,
        height,
        train_images: fitted.images,
        train_pixels: fitted.pixels,
        range_meters: fitted.range,
        val_images,
        band_images: runs.first().map_or(0, |run| run.band.absolute.len()),
        band_fraction: in_band as f64 / with_depth as f64,
        normal_fraction: with_normal as f64 / with_depth as f64,
        band_radius: radius,
        skipped: fitted.skipped,
        results: runs
            .iter()
            .zip(&fitted.r_squared)
            .filter_map(outcome)
            .collect(),
    })
}
