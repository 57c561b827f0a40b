//! Flicker: how much the features of the same surface point change from frame to frame.
//!
//! In a generated scene the exact position of every pixel in the next frame is known. Features of
//! the next frame are sampled there bilinearly and compared with those of the current frame. Only
//! pixels whose neighborhood is visible in both frames are used, so that no boundary is crossed.

use std::collections::HashMap;

use loftup_bundle::Size;
use loftup_runtime::{
    ColorRange, Perceptor,
    image::{Orientation, RgbImage},
};
use loftup_scenes::{Flow, Frame, Scene};
use serde::Serialize;

use crate::{
    EvalError, Method, Progress,
    random::Random,
    resize::Kernel,
    sampling::{Encoded, Encoder},
};

/// Settings of the measurement.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// Seed of the scene.
    pub seed: u64,
    /// Number of frames, at least 2.
    pub frames: usize,
    /// Frames per second.
    pub rate: f64,
    /// Size of the frames; the backbone's default if not given.
    pub size: Option<Size>,
    /// Number of pixels per frame to track.
    pub samples: usize,
    /// Standard deviation of the sensor noise, in levels of 255.
    pub noise: f32,
}

/// The result.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Seed of the scene.
    pub seed: u64,
    /// Width of a frame.
    pub width: usize,
    /// Height of a frame.
    pub height: usize,
    /// Number of frames.
    pub frames: usize,
    /// Frames per second.
    pub rate: f64,
    /// Mean displacement of a tracked pixel between frames, in pixels.
    pub motion: f64,
    /// Number of tracked pixels, over all pairs of frames.
    pub followed: usize,
    /// Results per type of features.
    pub results: Vec<Outcome>,
}

/// Flicker of one type of features.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Name of the features.
    pub method: &'static str,
    /// RMS change, relative to the spread of the features in a frame (RMS distance from their
    /// mean).
    pub change: f64,
    /// 95th percentile of the change over pixels, in the same units.
    pub change_p95: f64,
    /// Maximum of `change` over single pairs of frames.
    pub worst_pair: f64,
}

/// Tracks pixels through the frames of a scene.
///
/// # Errors
/// The request is invalid, or the bundle cannot be run.
pub fn evaluate(
    perceptor: &Perceptor,
    request: &Request,
    progress: Progress<'_>,
) -> Result<Report, EvalError> {
    let &Request {
        seed,
        frames,
        rate,
        samples,
        ..
    } = request;
    if frames < 2 || samples == 0 || !(rate > 0.0 && rate.is_finite()) {
        return Err(EvalError::Request(format!(
            "{frames} frames at {rate} per second with {samples} pixels: use at least 2 frames, a rate above 0 and at least one pixel"
        )));
    }
    let encoder = Encoder::new(
        perceptor,
        request.size,
        ColorRange::PerImage,
        Orientation::Upright,
    )?;
    let Size { width, height } = encoder.size;
    let scene = Scene::new(seed).with_noise(request.noise);
    let mut kinds = vec![Kind::new("bilinear", Way::Kernel(Kernel::Bilinear))];
    if perceptor.manifest().upsampler.is_some() {
        let fixed = ColorRange::of_levels(0.0, 255.0, &perceptor.manifest().normalization);
        let per_image = Way::LoftUp(ColorRange::PerImage);
        match Method::LoftUp.for_bundle(perceptor.manifest()) {
            // NAF has no color range.
            Method::Naf => kinds.push(Kind::new("NAF", per_image)),
            _ => kinds.extend([
                Kind::new("LoftUp, per-frame range", per_image),
                Kind::new("LoftUp, fixed range", Way::LoftUp(fixed)),
            ]),
        }
    }
    let time = |i: usize| i as f64 / rate;
    let mut before: Vec<Followed> = Vec::new();
    let (mut motion, mut followed) = (0.0, 0);
    let mut frame = scene.frame(0.0, width, height);
    for i in 0..frames {
        progress("tracking pixels", i, frames);
        let photo = RgbImage::new(width, height, frame.rgb.clone())?;
        let encoded = encoder.encode(&photo)?;
        let mut after = Vec::new();
        let mut next = None;
        if i + 1 < frames {
            let coming = scene.frame(time(i + 1), width, height);
            let flow = scene.flow(time(i), time(i + 1), width, height);
            after = follow(&frame, &coming, &flow, samples, seed ^ ((i as u64) << 32));
            motion += after.iter().map(|f| f.way).sum::<f64>();
            followed += after.len();
            next = Some(coming);
        }
        let places = Places::new(&before, &after);
        for kind in &mut kinds {
            let features = kind.way.features(&encoder, &encoded, &places)?;
            kind.compare(&before, &features, &places);
            kind.last = after
                .iter()
                .flat_map(|f| features.at(&places, f.from))
                .copied()
                .collect();
        }
        before = after;
        match next {
            Some(next) => frame = next,
            None => break,
        }
    }
    if followed == 0 {
        return Err(EvalError::Request(format!(
            "no pixel of scene {seed} can be tracked at {rate} frames per second and {width}x{height}; use a higher frame rate or a larger size"
        )));
    }
    Ok(Report {
        seed,
        width,
        height,
        frames,
        rate,
        motion: motion / followed as f64,
        followed,
        results: kinds.into_iter().map(Kind::outcome).collect(),
    })
}

/// A pixel and its position in the next frame.
struct Followed {
    from: u32,
    /// Four pixels of the next frame, and their weights.
    to: [(u32, f32); 4],
    /// Displacement in pixels.
    way: f64,
}

/// Randomly selects pixels whose neighborhood is visible in both frames.
fn follow(frame: &Frame, next: &Frame, flow: &Flow, most: usize, seed: u64) -> Vec<Followed> {
    let (width, height) = (frame.width, frame.height);
    let mut usable = Vec::new();
    for y in 1..height.saturating_sub(1) {
        for x in 1..width.saturating_sub(1) {
            let i = y * width + x;
            let own = frame.instances[i];
            let around =
                (0..9).all(|k| frame.instances[(y + k / 3 - 1) * width + x + k % 3 - 1] == own);
            if !flow.visible[i] || !around {
                continue;
            }
            let [tx, ty] = flow.target(i);
            let (tx, ty) = (tx - 0.5, ty - 0.5);
            if tx < 0.0 || ty < 0.0 || tx >= (width - 1) as f32 || ty >= (height - 1) as f32 {
                continue;
            }
            let (cx, cy) = (tx as usize, ty as usize);
            let (fx, fy) = (tx - cx as f32, ty - cy as f32);
            let corner =
                |dx: usize, dy: usize, weight: f32| (((cy + dy) * width + cx + dx) as u32, weight);
            let to = [
                corner(0, 0, (1.0 - fx) * (1.0 - fy)),
                corner(1, 0, fx * (1.0 - fy)),
                corner(0, 1, (1.0 - fx) * fy),
                corner(1, 1, fx * fy),
            ];
            if to.iter().all(|(j, _)| next.instances[*j as usize] == own) {
                let [dx, dy] = flow.shift[i];
                usable.push(Followed {
                    from: i as u32,
                    to,
                    way: f64::from(dx).hypot(f64::from(dy)),
                });
            }
        }
    }
    Random::new(seed).choose(&mut usable, most);
    usable.truncate(most);
    usable
}

/// The pixels of a frame whose features are needed.
struct Places {
    slots: HashMap<u32, usize>,
}

impl Places {
    fn new(before: &[Followed], after: &[Followed]) -> Self {
        let mut slots = HashMap::new();
        let targets = before.iter().flat_map(|f| f.to.iter().map(|(i, _)| *i));
        for i in targets.chain(after.iter().map(|f| f.from)) {
            let next = slots.len();
            slots.entry(i).or_insert(next);
        }
        Self { slots }
    }
}

/// Features of selected pixels of a frame.
struct SomeFeatures {
    dim: usize,
    /// `[slots, d]`.
    values: Vec<f32>,
}

impl SomeFeatures {
    fn at(&self, places: &Places, pixel: u32) -> &[f32] {
        &self.values[places.slots[&pixel] * self.dim..][..self.dim]
    }
}

/// How the features of a frame are computed.
enum Way {
    Kernel(Kernel),
    LoftUp(ColorRange),
}

impl Way {
    /// Keeps only the needed pixels: the features of a whole frame are never in memory.
    fn features(
        &self,
        encoder: &Encoder<'_>,
        encoded: &Encoded,
        places: &Places,
    ) -> Result<SomeFeatures, EvalError> {
        let dim = encoded.features.dim;
        let width = encoder.size.width;
        let mut values = vec![0.0; places.slots.len() * dim];
        match self {
            Self::Kernel(kernel) => {
                let resizer = encoder.resizer(*kernel, encoded);
                let mut pixel = Vec::with_capacity(dim);
                for (i, slot) in &places.slots {
                    pixel.clear();
                    let place = (*i as usize % width, *i as usize / width);
                    resizer.pixel(&encoded.features.tokens, dim, place, &mut pixel);
                    values[slot * dim..][..dim].copy_from_slice(&pixel);
                }
            }
            Self::LoftUp(range) => {
                let view = encoder.view(encoded, *range)?;
                view.frame(&mut |tile| {
                    for y in 0..tile.rect.height {
                        let row = tile.row(y).chunks_exact(dim);
                        let first = (tile.rect.y + y) * width + tile.rect.x;
                        for (x, pixel) in row.enumerate() {
                            if let Some(slot) = places.slots.get(&((first + x) as u32)) {
                                values[slot * dim..][..dim].copy_from_slice(pixel);
                            }
                        }
                    }
                    Ok(())
                })?;
            }
        }
        Ok(SomeFeatures { dim, values })
    }
}

/// The state of one type of features.
struct Kind {
    name: &'static str,
    way: Way,
    /// Features of the tracked pixels in the previous frame, `[n, d]`.
    last: Vec<f32>,
    /// Sum of squared changes relative to the spread, and their count.
    squares: f64,
    count: usize,
    worst: f64,
    changes: Vec<f32>,
}

impl Kind {
    fn new(name: &'static str, way: Way) -> Self {
        Self {
            name,
            way,
            last: Vec::new(),
            squares: 0.0,
            count: 0,
            worst: 0.0,
            changes: Vec::new(),
        }
    }

    fn compare(&mut self, before: &[Followed], features: &SomeFeatures, places: &Places) {
        if before.is_empty() {
            return;
        }
        let dim = features.dim;
        let spread = spread(&self.last, dim);
        let mut sum = 0.0;
        for (followed, last) in before.iter().zip(self.last.chunks_exact(dim)) {
            let taps = followed
                .to
                .map(|(i, weight)| (features.at(places, i), weight));
            let change: f64 = (0..dim)
                .map(|c| {
                    let now: f32 = taps.iter().map(|(pixel, weight)| weight * pixel[c]).sum();
                    f64::from(now - last[c]).powi(2)
                })
                .sum();
            let change = change / spread;
            sum += change;
            self.changes.push(change.sqrt() as f32);
        }
        self.worst = self.worst.max((sum / before.len() as f64).sqrt());
        self.squares += sum;
        self.count += before.len();
    }

    fn outcome(mut self) -> Outcome {
        let at = self.changes.len().saturating_sub(1) * 95 / 100;
        let (_, p95, _) = self.changes.select_nth_unstable_by(at, f32::total_cmp);
        Outcome {
            method: self.name,
            change: (self.squares / self.count as f64).sqrt(),
            change_p95: f64::from(*p95),
            worst_pair: self.worst,
        }
    }
}

/// Returns the mean squared distance of the rows from their mean, or the smallest positive number if that is zero.
fn spread(rows: &[f32], dim: usize) -> f64 {
    let count = (rows.len() / dim) as f64;
    let mut mean = vec![0f64; dim];
    for row in rows.chunks_exact(dim) {
        mean.iter_mut()
            .zip(row)
            .for_each(|(sum, x)| *sum += f64::from(*x) / count);
    }
    let square = |row: &[f32]| -> f64 {
        row.iter()
            .zip(&mean)
            .map(|(x, m)| (f64::from(*x) - m).powi(2))
            .sum()
    };
    (rows.chunks_exact(dim).map(square).sum::<f64>() / count).max(f64::MIN_POSITIVE)
}
