//! Finds the threshold with the greatest mean IoU after one click.

use loftup_bundle::Size;
use loftup_runtime::Point;

use super::protocol::Target;

/// Number of steps per unit for thresholds from -1 to 1.
const STEPS: usize = 512;
/// Number of thresholds.
const COUNT: usize = 2 * STEPS + 1;

/// The threshold with index `k`; exact in 32 bits.
fn threshold(k: usize) -> f32 {
    k as f32 / STEPS as f32 - 1.0
}

/// Returns the number of thresholds that `similarity` exceeds.
fn exceeded(similarity: f32) -> usize {
    // In 64 bits the sum is exact.
    let steps = ((f64::from(similarity) + 1.0) * STEPS as f64).ceil();
    (steps.max(0.0) as usize).min(COUNT)
}

/// Sums of IoU over objects, for every threshold.
#[derive(Debug, Clone)]
pub struct ThresholdFit {
    sums: Vec<f64>,
    objects: usize,
    /// Pixels to visit, by the number of thresholds at which they are connected to the click.
    queue: Vec<Vec<u32>>,
}

impl Default for ThresholdFit {
    fn default() -> Self {
        Self {
            sums: vec![0.0; COUNT],
            objects: 0,
            queue: vec![Vec::new(); COUNT + 1],
        }
    }
}

impl ThresholdFit {
    /// Adds an object that was clicked once, at `click`. `similarity` is the similarity of each pixel to
    /// the click.
    pub fn add(&mut self, target: &Target<'_>, click: Point, similarity: &[f32]) {
        for (sum, iou) in self
            .sums
            .iter_mut()
            .zip(ious(target, click, similarity, &mut self.queue))
        {
            *sum += iou;
        }
        self.objects += 1;
    }

    /// Number of objects so far.
    pub fn objects(&self) -> usize {
        self.objects
    }

    /// Returns the best threshold (the smallest of equals) and its mean IoU; `None` without objects.
    pub fn best(&self) -> Option<(f32, f64)> {
        let greatest = self.sums.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let k = self.sums.iter().position(|s| *s == greatest)?;
        (self.objects > 0).then(|| (threshold(k), greatest / self.objects as f64))
    }
}

/// Computes the IoU of the object for each threshold. At a threshold, a pixel is connected to the click if
/// there is a path between them on which all similarities exceed the threshold. Pixels are visited in the
/// order of the best such path.
fn ious(target: &Target<'_>, click: Point, similarity: &[f32], queue: &mut [Vec<u32>]) -> Vec<f64> {
    let Size { width, height } = target.size;
    // The number of thresholds at which a pixel is connected to the click.
    let mut reached = vec![None; similarity.len()];
    let start = click.y * width + click.x;
    let mut level = exceeded(similarity[start]);
    reached[start] = Some(level);
    queue[level].push(start as u32);
    // Numbers of correct and wrong pixels, by level.
    let (mut right, mut wrong) = (vec![0u32; COUNT + 1], vec![0u32; COUNT + 1]);
    loop {
        let Some(i) = queue[level].pop() else {
            if level == 0 {
                break;
            }
            level -= 1;
            continue;
        };
        let i = i as usize;
        if !target.void[i] {
            let counts = if target.truth[i] {
                &mut right
            } else {
                &mut wrong
            };
            counts[level] += 1;
        }
        let (x, y) = (i % width, i / width);
        let neighbors = [
            (x > 0).then(|| i - 1),
            (x + 1 < width).then(|| i + 1),
            (y > 0).then(|| i - width),
            (y + 1 < height).then(|| i + width),
        ];
        for j in neighbors.into_iter().flatten() {
            if reached[j].is_none() {
                let to = level.min(exceeded(similarity[j]));
                reached[j] = Some(to);
                queue[to].push(j as u32);
            }
        }
    }
    let counted = target.truth.iter().zip(target.void);
    let area = counted.filter(|(t, void)| **t && !**void).count() as f64;
    let (mut both, mut outside) = (0, 0);
    let mut ious = vec![0.0; COUNT];
    // Threshold k is exceeded at level k + 1 and above.
    for k in (0..COUNT).rev() {
        both += right[k + 1];
        outside += wrong[k + 1];
        ious[k] = f64::from(both) / (area + f64::from(outside)).max(1.0);
    }
    ious
}

#[cfg(test)]
mod tests {
    use loftup_runtime::click::{Click, ClickSegmenter};

    use super::*;
    use crate::random::Random;

    #[test]
    fn every_threshold_has_the_iou_of_its_mask() {
        let mut random = Random::new(9);
        for (width, height) in [(1, 1), (9, 1), (7, 6), (12, 15)] {
            let size = Size { width, height };
            let mut value = || random.below(2001) as f32 / 1000.0 - 1.0;
            let features: Vec<f32> = (0..3 * size.area())
                .map(|i| value() + if i % 3 == 0 { 1.5 } else { 0.0 })
                .collect();
            let truth: Vec<bool> = (0..size.area()).map(|_| value() > 0.2).collect();
            let void: Vec<bool> = (0..size.area()).map(|_| value() > 0.8).collect();
            let target = Target {
                truth: &truth,
                void: &void,
                size,
            };
            let click = Point {
                x: random.below(width),
                y: random.below(height),
            };
            let mut segmenter = ClickSegmenter::from_features(size, 3, features, 0.0).unwrap();
            segmenter
                .click(Click {
                    point: click,
                    positive: true,
                })
                .unwrap();
            let similarity = segmenter.similarity().to_vec();
            let mut fit = ThresholdFit::default();
            fit.add(&target, click, &similarity);
            let mut best = (0.0, -1.0);
            for k in 0..COUNT {
                segmenter.set_threshold(threshold(k)).unwrap();
                let mut mask = segmenter.mask().to_vec();
                mask.iter_mut()
                    .zip(&void)
                    .filter(|(_, v)| **v)
                    .for_each(|(m, _)| *m = false);
                let expected =
                    if truth.iter().zip(&void).any(|(t, v)| *t && !v) || mask.contains(&true) {
                        target.iou(&mask)
                    } else {
                        0.0
                    };
                assert!((fit.sums[k] - expected).abs() < 1e-12, "{size}, {k}");
                if expected > best.1 {
                    best = (threshold(k), expected);
                }
            }
            assert_eq!(fit.best(), Some(best));
            assert_eq!(fit.objects(), 1);
        }
        assert_eq!(ThresholdFit::default().best(), None);
    }

    #[test]
    fn similarities_count_thresholds() {
        assert_eq!((exceeded(-1.0), exceeded(-2.0)), (0, 0));
        assert_eq!((exceeded(1.0), exceeded(1.0000001)), (COUNT - 1, COUNT));
        assert_eq!((exceeded(0.0), exceeded(1e-7)), (STEPS, STEPS + 1));
        for k in [0, 1, 700, COUNT - 1] {
            assert_eq!(exceeded(threshold(k)), k);
        }
    }
}
