//! Angles between the surface normals of predicted and true depth.

use loftup_bundle::Size;
use loftup_runtime::depth::{NormalOptions, Pinhole, normals};
use serde::Serialize;

use super::metrics::jump_band;
use crate::EvalError;

/// For an image of 224 pixels: radius of the windows that planes are fitted to, and of the band around
/// depth jumps that is excluded.
const WINDOW: usize = 4;
const MARGIN: usize = 3;
/// Minimum fraction of a window with true depth on the surface, as numerator and denominator, since measured
/// depth is noisy. The prediction has depth at all pixels.
const LEAST: (usize, usize) = (30, 81);
const WITHIN: f32 = 0.03;

/// Angular errors of normals, as in Eigen and Fergus (2015) and later work. If the prediction has no
/// normal, the error is 90 degrees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct NormalScores {
    /// Mean angle in degrees.
    pub mean_degrees: f64,
    /// Fraction of pixels with an error below 11.25 degrees.
    pub within_11_25: f64,
    /// Fraction of pixels with an error below 22.5 degrees.
    pub within_22_5: f64,
    /// Fraction of pixels with an error below 30 degrees.
    pub within_30: f64,
}

impl NormalScores {
    /// Computes the scores of pixels with true normals; `None` if there are none. Both are `[n, 3]`.
    fn of(predicted: &[f32], truth: &[f32], keep: &[bool]) -> Option<Self> {
        let (mut sum, mut count) = (Self::default(), 0u64);
        let pairs = predicted
            .as_chunks::<3>()
            .0
            .iter()
            .zip(truth.as_chunks::<3>().0);
        for ((p, t), _) in pairs.zip(keep).filter(|(_, keep)| **keep) {
            let degrees = degrees(p.map(f64::from), t.map(f64::from));
            sum.mean_degrees += degrees;
            sum.within_11_25 += f64::from(u8::from(degrees < 11.25));
            sum.within_22_5 += f64::from(u8::from(degrees < 22.5));
            sum.within_30 += f64::from(u8::from(degrees < 30.0));
            count += 1;
        }
        (count > 0).then(|| sum.divided(count as f64))
    }

    /// Returns the mean of each score over images; `None` if there are none.
    pub fn mean(images: &[Self]) -> Option<Self> {
        let mut sum = Self::default();
        for one in images {
            sum.mean_degrees += one.mean_degrees;
            sum.within_11_25 += one.within_11_25;
            sum.within_22_5 += one.within_22_5;
            sum.within_30 += one.within_30;
        }
        (!images.is_empty()).then(|| sum.divided(images.len() as f64))
    }

    fn divided(self, by: f64) -> Self {
        Self {
            mean_degrees: self.mean_degrees / by,
            within_11_25: self.within_11_25 / by,
            within_22_5: self.within_22_5 / by,
            within_30: self.within_30 / by,
        }
    }
}

/// Returns the angle between two directions in degrees; 90 if one is zero.
fn degrees(a: [f64; 3], b: [f64; 3]) -> f64 {
    let cross = [
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    ];
    let dot: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
    let sine = cross.iter().map(|x| x * x).sum::<f64>().sqrt();
    match sine == 0.0 && dot == 0.0 {
        true => 90.0,
        false => sine.atan2(dot).to_degrees(),
    }
}

/// The true normals of an image, where its depth determines them.
pub(super) struct TrueNormals {
    size: Size,
    camera: Pinhole,
    radius: usize,
    normals: Vec<f32>,
    keep: Vec<bool>,
}

impl TrueNormals {
    /// Computes the normals. `scaled` converts pixels of an image of 224 to pixels of this one; `reach` is the
    /// reach of a depth jump.
    pub fn new(
        depth: &[f32],
        size: Size,
        camera: Pinhole,
        scaled: impl Fn(usize) -> usize,
        reach: usize,
    ) -> Result<Self, EvalError> {
        let mut truth = Self {
            size,
            camera,
            radius: scaled(WINDOW).clamp(1, NormalOptions::MOST_RADIUS),
            normals: Vec::new(),
            keep: Vec::new(),
        };
        let window = (2 * truth.radius + 1).pow(2);
        truth.normals = truth.of(depth, (window * LEAST.0).div_ceil(LEAST.1))?;
        let jumps = jump_band(depth, size, reach, scaled(MARGIN).max(1));
        let surface = truth
            .normals
            .as_chunks::<3>()
            .0
            .iter()
            .map(|n| *n != [0.0; 3]);
        truth.keep = surface
            .zip(jumps)
            .map(|(some, jump)| some && !jump)
            .collect();
        Ok(truth)
    }

    fn of(&self, depth: &[f32], least: usize) -> Result<Vec<f32>, EvalError> {
        let options = NormalOptions {
            radius: self.radius,
            within: WITHIN,
            least,
        };
        let mut found = Vec::new();
        normals(depth, self.size, &self.camera, &options, &mut found)
            .map_err(|e| EvalError::Request(e.to_string()))?;
        Ok(found)
    }

    /// Number of pixels with a true normal.
    pub fn count(&self) -> usize {
        self.keep.iter().filter(|keep| **keep).count()
    }

    /// Computes the scores of the normals of a predicted depth; `None` if no pixel has a true normal.
    pub fn scores(&self, predicted: &[f32]) -> Result<Option<NormalScores>, EvalError> {
        if !self.keep.contains(&true) {
            return Ok(None);
        }
        let found = self.of(predicted, 3)?;
        Ok(NormalScores::of(&found, &self.normals, &self.keep))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_the_angles_between_directions() {
        let tilted = |degrees: f32| {
            let radians = degrees.to_radians();
            [radians.sin(), 0.0, -radians.cos()]
        };
        let truth = [[0.0, 0.0, -1.0]; 6].concat();
        let predicted = [
            tilted(0.0),
            tilted(10.0),
            tilted(-20.0),
            tilted(29.0),
            [0.0; 3],
            tilted(170.0),
        ];
        let keep = [true, true, true, true, true, false];
        let scores = NormalScores::of(&predicted.concat(), &truth, &keep).unwrap();
        // (0 + 10 + 20 + 29 + 90) / 5.
        assert!((scores.mean_degrees - 29.8).abs() < 1e-4, "{scores:?}");
        let within = [scores.within_11_25, scores.within_22_5, scores.within_30];
        assert_eq!(within, [0.4, 0.6, 0.8]);
        assert_eq!(NormalScores::of(&truth, &truth, &[false; 6]), None);
        assert_eq!(degrees([0.0, 0.0, -1.0], [0.0, 0.0, 1.0]), 180.0);
        let zero = NormalScores::default();
        let mean = NormalScores::mean(&[zero, scores]).unwrap();
        assert!((mean.mean_degrees - 14.9).abs() < 1e-4 && mean.within_30 == 0.4);
        assert_eq!(NormalScores::mean(&[]), None);
    }

    #[test]
    fn a_shifted_plane_has_the_same_normals_and_jumps_are_left_out() {
        let size = Size {
            width: 40,
            height: 30,
        };
        let camera = Pinhole::with_field_of_view(60.0, size);
        // A wall at 2 m, and in front of its right part another at 1 m; a column without depth.
        let depth: Vec<f32> = (0..1200)
            .map(|i| match i % 40 {
                0 => 0.0,
                x if x < 25 => 2.0,
                _ => 1.0,
            })
            .collect();
        let truth = TrueNormals::new(&depth, size, camera, |n| n, 2).unwrap();
        // The band is around pixels within 2 of farther ones: columns 25 and 26, and 3 on each side.
        let kept = |x: usize| truth.keep[15 * 40 + x];
        let left_out: Vec<usize> = (0..40).filter(|x| !kept(*x)).collect();
        assert_eq!(left_out, [0, 22, 23, 24, 25, 26, 27, 28, 29]);
        let near: Vec<f32> = depth.iter().map(|z| z * 0.5 + 0.1).collect();
        let scores = truth.scores(&near).unwrap().unwrap();
        assert!(scores.mean_degrees < 1e-3 && scores.within_11_25 == 1.0);
        // A plane turned by atan(1 / 4): 1 / z is affine in the column.
        let turned: Vec<f32> = (0..1200)
            .map(|i| 2.0 / (1.0 + 0.25 * ((i % 40) as f32 - camera.cx) / camera.fx))
            .collect();
        let scores = truth.scores(&turned).unwrap().unwrap();
        assert!((scores.mean_degrees - 14.0362).abs() < 1e-2, "{scores:?}");
        let within = [scores.within_11_25, scores.within_22_5, scores.within_30];
        assert_eq!(within, [0.0, 1.0, 1.0]);
        let nothing = TrueNormals::new(&[0.0; 1200], size, camera, |n| n, 2).unwrap();
        assert_eq!(nothing.scores(&near).unwrap(), None);
        let blind = Pinhole { fx: 0.0, ..camera };
        assert!(TrueNormals::new(&depth, size, blind, |n| n, 2).is_err());
    }
}
