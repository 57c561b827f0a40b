//! Scores of the objects of a clip.

use loftup_bundle::Size;
use rayon::prelude::*;
use serde::Serialize;

use super::measures::{Statistics, contour_accuracy, region_similarity};

/// Scores of one object.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ObjectScores {
    /// The object's value in masks.
    pub label: usize,
    /// Region similarity.
    pub j: Statistics,
    /// Contour accuracy.
    pub f: Statistics,
    /// J of each frame except the first and the last.
    pub j_frames: Vec<f64>,
    /// F of each frame except the first and the last.
    pub f_frames: Vec<f64>,
}

/// Scores of one clip.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClipScores {
    /// Name of the clip.
    pub clip: String,
    /// Mean of J and F over its objects.
    pub j_and_f: f64,
    /// By object.
    pub objects: Vec<ObjectScores>,
}

/// Scores of one clip so far.
#[derive(Debug)]
pub(super) struct Scoring {
    size: Size,
    /// J and F by object and frame.
    values: Vec<(Vec<f64>, Vec<f64>)>,
}

impl Scoring {
    /// Creates empty scores for this many objects.
    pub fn new(size: Size, objects: usize) -> Self {
        Self {
            size,
            values: vec![(Vec::new(), Vec::new()); objects],
        }
    }

    /// Adds a frame.
    pub fn add(&mut self, truth: &[u8], predicted: &[u8]) {
        let size = self.size;
        self.values
            .par_iter_mut()
            .enumerate()
            .for_each(|(i, (j, f))| {
                let of = |map: &[u8]| -> Vec<bool> {
                    map.iter().map(|v| usize::from(*v) == i + 1).collect()
                };
                let (truth, predicted) = (of(truth), of(predicted));
                j.push(region_similarity(&truth, &predicted));
                f.push(contour_accuracy(size, &truth, &predicted));
            });
    }

    /// The scores of the clip.
    pub fn finish(self, clip: &str) -> ClipScores {
        let objects: Vec<ObjectScores> = (1..)
            .zip(self.values)
            .map(|(label, (j, f))| ObjectScores {
                label,
                j: Statistics::of(&j),
                f: Statistics::of(&f),
                j_frames: j,
                f_frames: f,
            })
            .collect();
        let sum: f64 = objects.iter().map(|o| o.j.mean + o.f.mean).sum();
        ClipScores {
            clip: clip.into(),
            j_and_f: sum / (2 * objects.len()) as f64,
            objects,
        }
    }
}

/// Scores of a method over all clips.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scores {
    /// Mean of J and F over all objects.
    pub j_and_f: f64,
    /// Region similarity, the mean over objects.
    pub j: Statistics,
    /// Contour accuracy, the mean over objects.
    pub f: Statistics,
    /// By clip.
    pub clips: Vec<ClipScores>,
}

impl Scores {
    /// Computes the means over the objects of these clips.
    pub fn of(clips: Vec<ClipScores>) -> Self {
        let objects = clips.iter().flat_map(|c| &c.objects);
        let j = Statistics::over(objects.clone().map(|o| &o.j));
        let f = Statistics::over(objects.map(|o| &o.f));
        Self {
            j_and_f: (j.mean + f.mean) / 2.0,
            j,
            f,
            clips,
        }
    }
}
