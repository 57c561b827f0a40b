//! Scores of one upsampling method.

use std::time::{Duration, Instant};

use loftup_runtime::click::ClickSegmenter;
use serde::Serialize;

use super::{
    fit::Threshold,
    protocol::{Target, clicks_to_reach},
};
use crate::{EvalError, Method, bootstrap::Interval};

/// Scores of one upsampling method.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// The method.
    pub method: Method,
    /// Its threshold.
    pub threshold: f32,
    /// Mean IoU after one click, on the objects used to fit the threshold.
    pub train_iou: f64,
    /// Mean IoU after each click.
    pub iou: Vec<f64>,
    /// Clicks to reach an IoU of 0.80, 0.85 and 0.90.
    pub to_reach: Vec<ToReach>,
    /// This method minus bilinear interpolation.
    pub minus_bilinear: Option<Differences>,
    /// This method minus joint bilateral upsampling.
    pub minus_jbu: Option<Differences>,
    /// Median time from a click to its mask in milliseconds; methods run in parallel.
    pub click_milliseconds: f64,
}

/// Clicks to reach an IoU.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ToReach {
    /// The IoU.
    pub iou: f64,
    /// Mean number of clicks over objects; an object that never reaches the IoU counts with all its clicks.
    pub clicks: f64,
    /// Number of objects that never reach it.
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

/// The IoUs for [`ToReach`].
const REACHED: [f64; 3] = [0.80, 0.85, 0.90];

/// The IoU of an object after each click.
pub(super) type Curve = Vec<f64>;

/// Results so far of one method.
pub(super) struct Run {
    pub threshold: Threshold,
    /// For each image, the curves of its objects.
    pub images: Vec<Vec<Curve>>,
    pub times: Vec<Duration>,
}

impl Run {
    pub fn new(threshold: Threshold) -> Self {
        Self {
            threshold,
            images: Vec::new(),
            times: Vec::new(),
        }
    }

    fn curves(&self) -> impl Iterator<Item = &Curve> {
        self.images.iter().flatten()
    }

    /// Returns the mean difference over objects of a value of their curves.
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

    pub fn minus(&self, other: &Self, seed: u64) -> Differences {
        let iou = |k: usize| move |curve: &Curve| curve[(k - 1).min(curve.len() - 1)];
        let clicks = |wanted: f64| move |curve: &Curve| clicks_to_reach(curve, wanted).0 as f64;
        Differences {
            iou_1: self.difference(other, seed, iou(1)),
            iou_5: self.difference(other, seed, iou(5)),
            clicks_80: self.difference(other, seed, clicks(0.80)),
            clicks_90: self.difference(other, seed, clicks(0.90)),
        }
    }

    pub fn outcome(&self, clicks: usize) -> Outcome {
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
            train_iou: self.threshold.iou,
            iou: (0..clicks).map(mean).collect(),
            to_reach: REACHED.map(to_reach).to_vec(),
            minus_bilinear: None,
            minus_jbu: None,
            click_milliseconds: 1e3 * median.as_secs_f64(),
        }
    }
}

/// Clicks on an object until the mask is correct, or `clicks` times. The remaining entries repeat the
/// IoU of the last mask.
pub(super) fn segment(
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
