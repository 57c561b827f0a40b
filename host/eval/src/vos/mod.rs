//! Semi-supervised video object segmentation on DAVIS: objects are marked in the first frame and tracked
//! by [`loftup_runtime::track`].
//!
//! The scores are computed as in the benchmark's own evaluation code: J and F of each object and frame at the
//! size of its masks, without the first and the last frame of a clip. Unlike in the original, whose indices
//! have 8 bits, decay is correct for clips of any length.

mod clips;
pub mod measures;
mod scores;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use loftup_bundle::Size;
use loftup_runtime::{
    ColorRange, NafStatistics, Perceptor,
    track::{TrackOptions, TrackedMask, Tracker},
};
use serde::Serialize;

use crate::{EvalError, Method, Progress, bootstrap::Interval, dense::Dense};
use clips::{Clip, Images, clips, read};
use scores::Scoring;
pub use scores::{ClipScores, ObjectScores, Scores};

/// Settings of the comparison.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// A data set in DAVIS's layout.
    pub data: &'a Path,
    /// Names of the clips; all if empty.
    pub clips: Vec<String>,
    /// Maximum number of frames per clip, from the first.
    pub max_frames: Option<usize>,
    /// Upsampling methods; all that the bundle supports if empty.
    pub methods: Vec<Method>,
    /// The grid on which labels are propagated.
    pub grid: Size,
    /// Color range of the guidance.
    pub range: ColorRange,
    /// NAF's statistics are those of every n-th frame of a clip.
    pub naf_statistics_interval: u32,
    /// How labels are propagated. The maximum number of objects is raised to that of the clip if necessary.
    pub track: TrackOptions,
    /// Seed of the bootstrap.
    pub seed: u64,
}

/// Results.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Columns of the grid.
    pub grid_width: usize,
    /// Rows of the grid.
    pub grid_height: usize,
    /// Clips.
    pub clips: usize,
    /// Objects in all clips.
    pub objects: usize,
    /// Frames in all clips.
    pub frames: usize,
    /// Results of each method.
    pub results: Vec<MethodScores>,
}

/// Results of one method.
#[derive(Debug, Clone, Serialize)]
pub struct MethodScores {
    /// The method.
    pub method: Method,
    /// Its scores, 0 to 1.
    #[serde(flatten)]
    pub scores: Scores,
    /// J&F minus bilinear interpolation's: the mean over clips, and its 95 % bootstrap interval. `None`
    /// for a single clip.
    pub to_bilinear: Option<Interval>,
    /// J&F minus joint bilateral upsampling's.
    pub to_jbu: Option<Interval>,
    /// Time per frame for the features in milliseconds, without the backbone.
    pub features_ms: f64,
    /// Time per frame for propagating labels in milliseconds, without the mask.
    pub propagation_ms: f64,
}

/// One method's tracker of a clip.
struct Run {
    method: Method,
    tracker: Tracker,
    scoring: Scoring,
}

/// Time spent by a method so far.
#[derive(Debug, Clone, Copy, Default)]
struct Times {
    features: Duration,
    propagation: Duration,
}

/// Receives the mask of each scored frame: method, clip, and index of the frame.
pub type Watcher<'a> = &'a mut dyn FnMut(Method, &str, usize, &TrackedMask);

/// Tracks the objects of each clip with each method, and scores the masks.
///
/// # Errors
/// If the data cannot be used, or the bundle cannot be run.
pub fn evaluate(
    perceptor: &Perceptor,
    request: &Request<'_>,
    progress: Progress<'_>,
) -> Result<Report, EvalError> {
    evaluate_watched(perceptor, request, progress, &mut |_, _, _, _| {})
}

/// Same as [`evaluate`], and passes the masks to a watcher.
///
/// # Errors
/// Same as [`evaluate`].
pub fn evaluate_watched(
    perceptor: &Perceptor,
    request: &Request<'_>,
    progress: Progress<'_>,
    watcher: Watcher<'_>,
) -> Result<Report, EvalError> {
    let methods = request.methods.clone();
    let dense = Dense::new(perceptor, request.grid, request.range, methods)?;
    let clips = clips(request.data, &request.clips, request.max_frames)?;
    let frames: usize = clips.iter().map(|c| c.frames.len()).sum();
    let count = dense.methods().len();
    let mut times = vec![Times::default(); count];
    let mut scores: Vec<Vec<ClipScores>> = vec![Vec::new(); count];
    let mut done = 0;
    for clip in &clips {
        let mut each = |frame: usize| progress(&clip.name, done + frame, frames);
        let watched = (
            &mut each as &mut dyn FnMut(usize),
            &mut *watcher as Watcher<'_>,
        );
        let runs = track(&dense, request, clip, &mut times, watched)?;
        for (run, scores) in runs.into_iter().zip(&mut scores) {
            scores.push(run.scoring.finish(&clip.name));
        }
        done += clip.frames.len();
    }
    let scores: Vec<Scores> = scores.into_iter().map(Scores::of).collect();
    let of = |method: Method| {
        dense
            .methods()
            .iter()
            .position(|m| *m == method)
            .map(|i| &scores[i])
    };
    let (bilinear, jbu) = (of(Method::Bilinear), of(Method::Jbu));
    let milliseconds = |time: Duration| 1e3 * time.as_secs_f64() / frames as f64;
    let results = dense.methods().iter().zip(&times).zip(&scores);
    let results = results.map(|((method, times), scores)| MethodScores {
        method: *method,
        to_bilinear: bilinear.and_then(|other| difference(scores, other, request.seed)),
        to_jbu: jbu.and_then(|other| difference(scores, other, request.seed)),
        features_ms: milliseconds(times.features),
        propagation_ms: milliseconds(times.propagation),
        scores: scores.clone(),
    });
    Ok(Report {
        grid_width: request.grid.width,
        grid_height: request.grid.height,
        clips: clips.len(),
        objects: scores
            .first()
            .map_or(0, |s| s.clips.iter().map(|c| c.objects.len()).sum()),
        frames,
        results: results.collect(),
    })
}

/// Tracks the objects of a clip with each method.
fn track(
    dense: &Dense<'_>,
    request: &Request<'_>,
    clip: &Clip,
    times: &mut [Times],
    (each, watcher): (&mut dyn FnMut(usize), Watcher<'_>),
) -> Result<Vec<Run>, EvalError> {
    let first = read(&clip.frames[0].mask, None)?;
    let (size, objects) = (first.size, objects(clip, &first.values)?);
    let grid = (dense.grid().width, dense.grid().height);
    let options = TrackOptions {
        max_objects: objects.max(request.track.max_objects),
        ..request.track
    };
    let mut runs = Vec::new();
    let mut statistics = NafStatistics::every(request.naf_statistics_interval);
    for method in dense.methods() {
        runs.push(Run {
            method: *method,
            tracker: Tracker::new(grid, dense.dim(), options)?,
            scoring: Scoring::new(size, objects),
        });
    }
    let mut mask = TrackedMask::default();
    let mut images = Images::open(clip)?;
    for (i, frame) in clip.frames.iter().enumerate() {
        each(i);
        let image = images.next()?;
        let encoded = dense.encode(&image)?;
        let scored = i > 0 && i + 1 < clip.frames.len();
        let truth = scored.then(|| read(&frame.mask, Some(size))).transpose()?;
        for (run, times) in runs.iter_mut().zip(&mut *times) {
            let start = Instant::now();
            let features = dense.features(run.method, &encoded, &mut statistics)?;
            let middle = Instant::now();
            run.tracker.update(&features)?;
            times.propagation += middle.elapsed();
            times.features += middle - start;
            if i == 0 {
                run.tracker.start_mask(&first.values, size)?;
            } else if let Some(truth) = &truth {
                run.tracker.mask(size, &mut mask)?;
                run.scoring.add(&truth.values, &mask.labels);
                watcher(run.method, &clip.name, i, &mask);
            }
        }
    }
    Ok(runs)
}

/// Scores masks in files, `DIR/CLIP/00000.png`, written by this or another program.
///
/// # Errors
/// If the data cannot be used, or a mask is missing, has a different size, or has more objects.
pub fn score(
    request: &Request<'_>,
    masks: &Path,
    progress: Progress<'_>,
) -> Result<Scores, EvalError> {
    let clips = clips(request.data, &request.clips, request.max_frames)?;
    let frames: usize = clips.iter().map(|c| c.frames.len()).sum();
    let mut scores = Vec::new();
    let mut done = 0;
    for clip in &clips {
        let first = read(&clip.frames[0].mask, None)?;
        let (size, objects) = (first.size, objects(clip, &first.values)?);
        let mut scoring = Scoring::new(size, objects);
        for (i, frame) in clip.frames[..clip.frames.len() - 1]
            .iter()
            .enumerate()
            .skip(1)
        {
            progress(&clip.name, done + i, frames);
            let path = masks.join(&clip.name).join(&frame.name);
            let predicted = read(&path, Some(size))?;
            let most = predicted.values.iter().copied().max().unwrap_or(0);
            if usize::from(most) > objects {
                return Err(EvalError::Labels {
                    path,
                    what: format!("object {most}, but the first mask of the clip has {objects}"),
                });
            }
            scoring.add(&read(&frame.mask, Some(size))?.values, &predicted.values);
        }
        scores.push(scoring.finish(&clip.name));
        done += clip.frames.len();
    }
    Ok(Scores::of(scores))
}

/// Returns the number of objects in the first mask of the clip.
fn objects(clip: &Clip, first: &[u8]) -> Result<usize, EvalError> {
    match first.iter().copied().max().unwrap_or(0) {
        0 => Err(EvalError::Labels {
            path: clip.frames[0].mask.clone(),
            what: "no object in the first mask of the clip".into(),
        }),
        most => Ok(usize::from(most)),
    }
}

/// Returns the mean over clips of `a` minus `b`.
fn difference(a: &Scores, b: &Scores, seed: u64) -> Option<Interval> {
    let pairs = a.clips.iter().zip(&b.clips);
    let differences: Vec<f64> = pairs.map(|(a, b)| a.j_and_f - b.j_and_f).collect();
    // A single clip has no interval.
    (differences.len() > 1).then(|| Interval::of_mean(&differences, seed))
}
