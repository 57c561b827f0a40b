//! A head for one method, and its scores so far.

use std::time::Instant;

use loftup_bundle::{HeadKind, Linear};
use loftup_runtime::{depth::Depth, heads::Head};

use super::{Differences, Metrics, NormalScores, Scores, aligned, normals::TrueNormals};
use crate::{
    EvalError, Method,
    bootstrap::Interval,
    sampling::{Encoded, Encoder},
};

/// Metrics of each image.
#[derive(Default)]
pub(super) struct PerImage {
    pub absolute: Vec<Metrics>,
    pub aligned: Vec<Metrics>,
}

impl PerImage {
    /// Adds the metrics on the pixels in `keep`, if there are any.
    fn push(&mut self, predicted: &[f32], aligned: &[f32], truth: &[f32], keep: &[bool]) {
        self.absolute.extend(Metrics::of(predicted, truth, keep));
        self.aligned.extend(Metrics::of(aligned, truth, keep));
    }

    pub fn scores(&self) -> Option<Scores> {
        Some(Scores {
            absolute: Metrics::mean(&self.absolute)?,
            aligned: Metrics::mean(&self.aligned)?,
        })
    }

    /// Returns the mean difference of a metric of the predicted depth; `None` without images.
    fn minus(&self, other: &Self, seed: u64, metric: fn(&Metrics) -> f64) -> Option<Interval> {
        paired(&self.absolute, &other.absolute, seed, metric)
    }
}

/// Returns the mean difference of a metric over images; `None` without images.
fn paired<T>(own: &[T], other: &[T], seed: u64, metric: fn(&T) -> f64) -> Option<Interval> {
    let pairs = own.iter().zip(other);
    let differences: Vec<f64> = pairs.map(|(a, b)| metric(a) - metric(b)).collect();
    (!differences.is_empty()).then(|| Interval::of_mean(&differences, seed))
}

/// The ground truth of an image.
pub(super) struct Truth<'a> {
    pub depth: &'a [f32],
    /// Pixels with depth.
    pub keep: &'a [bool],
    /// Pixels near depth jumps.
    pub band: &'a [bool],
    pub normals: &'a TrueNormals,
}

/// A head and its scores so far.
pub(super) struct Run {
    pub method: Method,
    pub head: Head,
    pub depth: Depth,
    pub whole: PerImage,
    pub band: PerImage,
    pub normals: Vec<NormalScores>,
    pub seconds: f64,
}

impl Run {
    pub fn new(method: Method, linear: Linear, kind: &HeadKind) -> Result<Self, EvalError> {
        let entry = loftup_bundle::Head {
            kind: kind.clone(),
            dim: linear.inputs,
            file: String::new(),
        };
        let head = Head::new(entry, linear)?;
        let depth = Depth::of(&head)
            .ok_or_else(|| EvalError::Request("a head of another kind than depth".into()))?;
        Ok(Self {
            method,
            head,
            depth,
            whole: PerImage::default(),
            band: PerImage::default(),
            normals: Vec::new(),
            seconds: 0.0,
        })
    }

    /// Evaluates an image.
    pub fn evaluate(
        &mut self,
        encoder: &Encoder<'_>,
        encoded: &Encoded,
        truth: &Truth<'_>,
    ) -> Result<(), EvalError> {
        let start = Instant::now();
        let outputs = encoder.map(self.method, encoded, Some(&self.head))?;
        let predicted = self.depth.map(&outputs);
        self.seconds += start.elapsed().as_secs_f64();
        let aligned = aligned(&predicted, truth.depth, truth.keep);
        self.whole
            .push(&predicted, &aligned, truth.depth, truth.keep);
        self.band
            .push(&predicted, &aligned, truth.depth, truth.band);
        self.normals.extend(truth.normals.scores(&predicted)?);
        Ok(())
    }

    pub fn minus(&self, other: &Self, seed: u64) -> Option<Differences> {
        let whole = |metric| self.whole.minus(&other.whole, seed, metric);
        let band = |metric| self.band.minus(&other.band, seed, metric);
        Some(Differences {
            d1: whole(|m| m.d1)?,
            abs_rel: whole(|m| m.abs_rel)?,
            band_d1: band(|m| m.d1),
            band_abs_rel: band(|m| m.abs_rel),
            normal_degrees: paired(&self.normals, &other.normals, seed, |n| n.mean_degrees),
        })
    }
}
