//! Segmentation of a video, with timing.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;
use loftup_eval::{confusion::Confusion, video};
use loftup_runtime::{ColorRange, Rect, class_map::ClassMap, image::RgbImage};
use loftup_scenes::{CLASSES, PALETTE, Scene};
use serde::Serialize;

use super::{model, scenes, stages::Watch};
use crate::{interrupt, spread::Spread};

/// Frames of the video, and of the first part, in which flicker is measured.
const FRAMES: usize = 24;
const FLICKER_FRAMES: usize = 5;
/// Frame rate.
const RATE: f64 = 10.0;
/// Frames in the report.
const SHOWN: [usize; 4] = [0, 8, 16, 23];
/// Tracked pixels per frame.
const TRACKED: usize = 2048;

/// Latency and accuracy on the video.
#[derive(Debug, Serialize)]
pub struct Film {
    pub frames: usize,
    pub rate: f64,
    /// Milliseconds per frame: backbone, upsampler with the head, and everything.
    pub backbone: Spread,
    pub classes: Spread,
    pub whole: Spread,
    pub mean_iou: f64,
    pub accuracy: f64,
    /// Threads that compute tiles.
    pub threads: usize,
    pub engine: String,
    #[serde(skip)]
    pub shown: Vec<Shown>,
}

/// A frame in the report.
#[derive(Debug)]
pub struct Shown {
    pub seconds: f64,
    pub photo: RgbImage,
    pub seen: RgbImage,
    pub truth: RgbImage,
    /// Pixel accuracy.
    pub right: f64,
}

/// Processes every frame as on a robot: the head runs inside the tile loop, and no feature map is
/// stored.
pub fn film(at: &Path, watch: Watch<'_>) -> Result<Film> {
    let perceptor = model::open(at, model::BUNDLE)?;
    let head = perceptor.head(model::HEAD)?;
    let size = scenes::SIZE;
    let frame_of = Rect::whole(size);
    perceptor.compile(size, (1, 1))?;
    let scene = Scene::new(scenes::FILM);
    let mut confusion = Confusion::new(CLASSES.len());
    let (mut backbone, mut classes, mut whole) = (Vec::new(), Vec::new(), Vec::new());
    let mut shown = Vec::new();
    let mut engine = String::new();
    // A warm-up run, which is not counted.
    for i in std::iter::once(0).chain(0..FRAMES) {
        watch("segmenting", whole.len(), FRAMES);
        let seconds = i as f64 / RATE;
        let frame = scene.frame(seconds, size.width, size.height);
        let photo = RgbImage::new(frame.width, frame.height, frame.rgb)?;

        let start = Instant::now();
        let inputs = perceptor.preprocess(&photo, size)?;
        let features = perceptor.features(inputs.backbone())?;
        let middle = Instant::now();
        let view = perceptor
            .encode_features(&features, &inputs.guidance, ColorRange::PerImage)?
            .with_head(&head)?;
        let mut map = ClassMap::new(frame_of);
        view.frame(&mut |tile| map.push(tile))?;
        let seen = map.into_classes();
        let end = Instant::now();

        if engine.is_empty() {
            engine = perceptor.engine();
            continue;
        }
        backbone.push(milliseconds(middle - start));
        classes.push(milliseconds(end - middle));
        whole.push(milliseconds(end - start));
        confusion.count(&frame.classes, &seen);
        if SHOWN.contains(&i) {
            let right = seen
                .iter()
                .zip(&frame.classes)
                .filter(|(a, b)| a == b)
                .count();
            shown.push(Shown {
                seconds,
                right: right as f64 / seen.len() as f64,
                seen: colored(size.width, size.height, &seen)?,
                truth: colored(size.width, size.height, &frame.classes)?,
                photo,
            });
        }
    }
    interrupt::check()?;
    Ok(Film {
        frames: FRAMES,
        rate: RATE,
        backbone: Spread::of(backbone),
        classes: Spread::of(classes),
        whole: Spread::of(whole),
        mean_iou: confusion.mean_iou(),
        accuracy: confusion.accuracy(),
        threads: loftup_runtime::ExecutionOptions::default().threads,
        engine,
        shown,
    })
}

fn milliseconds(time: Duration) -> f64 {
    1e3 * time.as_secs_f64()
}

/// Measures the change of the features of a point from frame to frame.
pub fn flicker(at: &Path, watch: Watch<'_>) -> Result<video::Report> {
    let request = video::Request {
        seed: scenes::FILM,
        frames: FLICKER_FRAMES,
        rate: RATE,
        size: Some(scenes::SIZE),
        samples: TRACKED,
        noise: 0.0,
    };
    Ok(video::evaluate(
        &model::open(at, model::BUNDLE)?,
        &request,
        watch,
    )?)
}

/// Classes as colors; black where there is none.
pub fn colored(width: usize, height: usize, classes: &[u8]) -> Result<RgbImage> {
    let color = |class: &u8| {
        PALETTE
            .get(usize::from(*class))
            .copied()
            .unwrap_or_default()
    };
    let data = classes.iter().flat_map(color).collect();
    Ok(RgbImage::new(width, height, data)?)
}
