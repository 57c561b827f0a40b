//! Calibration images and the fp32 reference output.

use std::path::{Path, PathBuf};

use loftup_bundle::{Calibration, Manifest, Size, sha256_hex};
use loftup_runtime::{
    ColorRange, Features, ImageTensor, Perceptor, Rect,
    image::{self, Orientation, RgbImage},
    sinks::VecSink,
};

use super::{
    QuantizeError,
    backends::Recorder,
    error_stats::{ErrorAccumulator, Vectors},
};

/// Side of the compared tiles: as for a whole frame on a CPU.
pub(super) const TILE: usize = 32;

/// A calibration image with its fp32 features and reference tiles.
pub(super) struct Sample {
    pub path: PathBuf,
    pub image: ImageTensor,
    pub features: Features,
    tiles: ReferenceTiles,
}

/// Tiles of the fp32 output.
pub(super) struct ReferenceTiles {
    pub rects: Vec<Rect>,
    /// `[d, h, w]` of each rectangle, in fp32.
    references: Vec<Vec<f32>>,
}

impl ReferenceTiles {
    /// Computes the tiles `rects`.
    pub fn of(
        perceptor: &Perceptor,
        features: &Features,
        image: &ImageTensor,
        rects: Vec<Rect>,
    ) -> Result<Self, QuantizeError> {
        Ok(Self {
            references: upsampled(perceptor, features, image, &rects)?,
            rects,
        })
    }
}

/// All calibration images, and their record for the manifest.
pub(super) struct Samples {
    pub samples: Vec<Sample>,
    pub calibration: Calibration,
}

/// Runs the fp32 bundle on every usable image, with `tiles` tiles of each output.
pub(super) fn load(
    perceptor: &Perceptor,
    recorder: &Recorder,
    paths: &[PathBuf],
    (size, orientation): (Option<Size>, Orientation),
    tiles: usize,
    step: &mut dyn FnMut(usize, usize) -> Result<(), QuantizeError>,
) -> Result<Samples, QuantizeError> {
    let manifest = perceptor.manifest();
    let backbone = manifest
        .backbone
        .as_ref()
        .ok_or(QuantizeError::NoBackbone)?;
    let size = perceptor.backbone_size(size.unwrap_or(backbone.size))?;
    let (mut samples, mut hashes, mut reasons) = (Vec::new(), String::new(), Vec::new());
    for (i, path) in paths.iter().enumerate() {
        step(i, paths.len())?;
        let photo = match usable(path, orientation) {
            Ok(photo) => photo,
            Err(what) => {
                reasons.push(what);
                continue;
            }
        };
        hashes += &sha256_hex(photo.data());
        recorder.begin(samples.len());
        let image = perceptor.to_tensor(&photo, size)?;
        let features = perceptor.features(&image)?;
        let rects = match manifest.upsampler {
            Some(_) => tile_rects(size, TILE, tiles, i),
            None => Vec::new(),
        };
        samples.push(Sample {
            path: path.clone(),
            tiles: ReferenceTiles::of(perceptor, &features, &image, rects)?,
            image,
            features,
        });
    }
    if samples.is_empty() {
        return Err(QuantizeError::Images(match reasons.first() {
            Some(first) => format!("none of {} images can be used; the first: {first}", paths.len()),
            None => "there are no images; give a directory of JPEG or PNG files like those the robot will see".into(),
        }));
    }
    for what in &reasons {
        log::warn!("skipped: {what}");
    }
    let tiles = samples.iter().map(|s| s.tiles.rects.len() as u64).sum();
    Ok(Samples {
        calibration: Calibration {
            images: samples.len() as u64,
            tiles,
            fingerprint: sha256_hex(hashes.as_bytes()),
        },
        samples,
    })
}

/// Reads an image; an image of a single color is an error.
fn usable(path: &Path, orientation: Orientation) -> Result<RgbImage, String> {
    let photo = image::open_with(path, orientation)
        .map_err(|e| e.to_string())?
        .image;
    let (first, _) = photo.data().as_chunks::<3>();
    if first.iter().all(|pixel| *pixel == first[0]) {
        return Err(format!(
            "{}: every pixel has the same color, so it cannot be used for calibration; use photographs",
            path.display()
        ));
    }
    Ok(photo)
}

/// Tiles of a frame, at most `side` pixels on a side: the top left corner with its zero padding,
/// then others spread over the frame, at different positions for each `seed`.
pub(super) fn tile_rects(size: Size, side: usize, count: usize, seed: usize) -> Vec<Rect> {
    let (width, height) = (side.min(size.width), side.min(size.height));
    let (free_x, free_y) = (size.width - width, size.height - height);
    // Irrational steps spread evenly (Roberts' R2 sequence).
    let place = |i: usize, step: f64, free: usize| {
        (((i as f64 * step).fract() * (free + 1) as f64) as usize).min(free)
    };
    (0..count.max(1))
        .map(|i| {
            let at = if i == 0 { 0 } else { seed * count + i };
            Rect {
                x: place(at, 0.754_877_666_246_693, free_x),
                y: place(at, 0.569_840_290_998_053, free_y),
                width,
                height,
            }
        })
        .collect()
}

fn upsampled(
    perceptor: &Perceptor,
    features: &Features,
    image: &ImageTensor,
    rects: &[Rect],
) -> Result<Vec<Vec<f32>>, QuantizeError> {
    if rects.is_empty() {
        return Ok(Vec::new());
    }
    let view = perceptor.encode_features(features, image, ColorRange::PerImage)?;
    let output = |rect: &Rect| {
        let mut sink = VecSink::new(*rect, view.dim())?;
        view.region(*rect, &mut |tile| sink.push(tile))?;
        Ok(sink.into_values())
    };
    rects.iter().map(output).collect()
}

/// End-to-end error of the output of `perceptor`: upsampled features if there is an upsampler,
/// otherwise backbone features.
pub(super) fn end_to_end(
    perceptor: &Perceptor,
    samples: &[Sample],
    step: &mut dyn FnMut(usize, usize) -> Result<(), QuantizeError>,
) -> Result<ErrorAccumulator, QuantizeError> {
    let mut sum = ErrorAccumulator::default();
    for (i, sample) in samples.iter().enumerate() {
        step(i, samples.len())?;
        let features = perceptor.features(&sample.image)?;
        compare(perceptor, sample, &features, &sample.tiles, i, &mut sum)?;
    }
    Ok(sum)
}

/// Accumulates the error of the output of `perceptor` for these features: of some tiles, or of the
/// features themselves if there is no upsampler.
pub(super) fn compare(
    perceptor: &Perceptor,
    sample: &Sample,
    features: &Features,
    tiles: &ReferenceTiles,
    index: usize,
    sum: &mut ErrorAccumulator,
) -> Result<(), QuantizeError> {
    let tokens = Vectors::Rows(features.dim);
    if tiles.rects.is_empty() {
        sum.add(&features.tokens, &sample.features.tokens, tokens, index);
    }
    let references = upsampled(perceptor, features, &sample.image, &tiles.rects)?;
    for (found, reference) in references.iter().zip(&tiles.references) {
        sum.add(found, reference, tokens, index);
    }
    Ok(())
}

/// Seconds per frame: the fastest of three runs, the first of which compiles.
pub(super) fn frame_seconds(perceptor: &Perceptor, sample: &Sample) -> Result<f64, QuantizeError> {
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let start = std::time::Instant::now();
        let features = perceptor.features(&sample.image)?;
        if perceptor.manifest().upsampler.is_some() {
            let view = perceptor.encode_features(&features, &sample.image, ColorRange::PerImage)?;
            view.frame(&mut |_| Ok(()))?;
        }
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best)
}

/// Memory layout of the feature vectors of a graph's output.
pub(super) fn vectors(manifest: &Manifest, file: &str, shape: &[usize]) -> Vectors {
    let last = shape.last().copied().unwrap_or(1);
    match &manifest.backbone {
        Some(b) if b.graphs.values().any(|f| f == file) => match b.layout {
            loftup_bundle::FeatureLayout::Map => Vectors::Planes(b.dim),
            loftup_bundle::FeatureLayout::Tokens { .. } => Vectors::Rows(last),
        },
        _ => Vectors::Rows(last),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_lie_inside_and_begin_in_the_corner() {
        for size in [(224, 224), (32, 40), (28, 56), (1, 1)] {
            let size = Size {
                width: size.0,
                height: size.1,
            };
            for seed in 0..5 {
                let found = tile_rects(size, TILE, 4, seed);
                assert_eq!((found[0].x, found[0].y), (0, 0));
                for r in &found {
                    assert!(
                        r.x + r.width <= size.width && r.y + r.height <= size.height,
                        "{r:?}"
                    );
                    assert!(r.width > 0 && r.height > 0);
                }
            }
        }
    }
}
