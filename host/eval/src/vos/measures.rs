//! Region similarity J and contour accuracy F of DAVIS (Perazzi et al., CVPR 2016), computed as in the
//! benchmark's own evaluation code.

use loftup_bundle::Size;
use serde::Serialize;

/// Tolerance of contours, as a fraction of the diagonal.
const TOLERANCE: f64 = 0.008;

/// J: intersection over union; 1 if both masks are empty.
pub fn region_similarity(truth: &[bool], predicted: &[bool]) -> f64 {
    let (mut both, mut any) = (0usize, 0usize);
    for (a, b) in truth.iter().zip(predicted) {
        both += usize::from(*a && *b);
        any += usize::from(*a || *b);
    }
    if any == 0 {
        1.0
    } else {
        both as f64 / any as f64
    }
}

/// F: harmonic mean of precision and recall of contour pixels, which match within 0.8 % of the
/// diagonal.
pub fn contour_accuracy(size: Size, truth: &[bool], predicted: &[bool]) -> f64 {
    let diagonal = ((size.width * size.width + size.height * size.height) as f64).sqrt();
    let radius = (TOLERANCE * diagonal).ceil() as usize;
    let (truth, predicted) = (contour(size, truth), contour(size, predicted));
    let count = |map: &[bool]| map.iter().filter(|p| **p).count();
    let (in_truth, in_predicted) = (count(&truth), count(&predicted));
    let (precision, recall) = match (in_truth, in_predicted) {
        (0, 0) => (1.0, 1.0),
        (0, _) => (0.0, 1.0),
        (_, 0) => (1.0, 0.0),
        _ => {
            let near = |map: &[bool], other: &[bool]| {
                let wide = dilated(size, other, radius);
                map.iter().zip(&wide).filter(|(a, b)| **a && **b).count() as f64
            };
            (
                near(&predicted, &truth) / in_predicted as f64,
                near(&truth, &predicted) / in_truth as f64,
            )
        }
    };
    if precision + recall == 0.0 {
        0.0
    } else {
        2.0 * precision * recall / (precision + recall)
    }
}

/// Returns the pixels that differ from their right, lower, or lower right neighbor. Pixels of the last row
/// and column have one neighbor, the last pixel none.
fn contour(size: Size, mask: &[bool]) -> Vec<bool> {
    let Size { width, height } = size;
    (0..mask.len())
        .map(|i| {
            let (right, below) = (i % width + 1 < width, i / width + 1 < height);
            right && mask[i] != mask[i + 1]
                || below && mask[i] != mask[i + width]
                || right && below && mask[i] != mask[i + width + 1]
        })
        .collect()
}

/// Returns the pixels within `radius` of a pixel in the map.
fn dilated(size: Size, map: &[bool], radius: usize) -> Vec<bool> {
    let Size { width, height } = size;
    let r = radius as isize;
    // Half the width of the disk in each of its rows.
    let halves: Vec<(isize, usize)> = (-r..=r)
        .map(|dy| {
            (
                dy,
                (0..=r).rfind(|dx| dx * dx + dy * dy <= r * r).unwrap_or(0) as usize,
            )
        })
        .collect();
    let mut wide = vec![false; map.len()];
    for i in (0..map.len()).filter(|i| map[*i]) {
        let (x, y) = (i % width, i / width);
        for (dy, half) in &halves {
            let Some(y) = y.checked_add_signed(*dy).filter(|y| *y < height) else {
                continue;
            };
            let row = &mut wide[y * width..][..width];
            row[x.saturating_sub(*half)..(x + half + 1).min(width)].fill(true);
        }
    }
    wide
}

/// Statistics over the frames of an object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Statistics {
    /// Mean.
    pub mean: f64,
    /// Fraction of frames above 0.5.
    pub recall: f64,
    /// Mean of the first quarter of the frames minus the mean of the last.
    pub decay: f64,
}

impl Statistics {
    /// Computes the statistics of at least one value.
    ///
    /// # Panics
    /// If there is none.
    pub fn of(values: &[f64]) -> Self {
        assert!(!values.is_empty(), "statistics of no frames");
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let last = values.len() - 1;
        // Bounds of the quarters. Adjacent quarters share a frame.
        let bound = |i: usize| (last as f64 * i as f64 / 4.0 + 1e-10).round_ties_even() as usize;
        Self {
            mean: mean(values),
            recall: values.iter().filter(|v| **v > 0.5).count() as f64 / values.len() as f64,
            decay: mean(&values[..=bound(1)]) - mean(&values[bound(3)..]),
        }
    }

    /// Returns the mean over objects.
    pub fn over<'a>(all: impl Iterator<Item = &'a Self> + Clone) -> Self {
        let count = all.clone().count().max(1) as f64;
        let mean = |of: fn(&Self) -> f64| all.clone().map(of).sum::<f64>() / count;
        Self {
            mean: mean(|s| s.mean),
            recall: mean(|s| s.recall),
            decay: mean(|s| s.decay),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size {
        width: 6,
        height: 4,
    };

    fn mask(picture: [&str; 4]) -> Vec<bool> {
        picture.join("").chars().map(|c| c == '#').collect()
    }

    #[test]
    fn j_is_intersection_over_union() {
        let a = mask(["......", ".##...", ".##...", "......"]);
        let b = mask(["......", "..##..", "..##..", "......"]);
        let none = [false; 24];
        for (truth, predicted, expected) in [
            (&a[..], &a[..], 1.0),
            (&a, &b, 2.0 / 6.0),
            (&a, &none, 0.0),
            (&none, &a, 0.0),
            (&none, &none, 1.0),
        ] {
            assert_eq!(region_similarity(truth, predicted), expected);
        }
    }

    #[test]
    fn contours_are_above_and_left_of_the_edge() {
        let found = contour(SIZE, &mask(["......", ".##...", ".##...", "......"]));
        assert_eq!(found, mask(["###...", "#.#...", "###...", "......"]));
        // At the borders there is no neighbor to differ from.
        let found = contour(SIZE, &mask(["....##", "....##", "....##", "######"]));
        assert_eq!(found, mask(["...#..", "...#..", "####..", "......"]));
        let found = contour(SIZE, &mask(["......", "......", "......", ".....#"]));
        assert_eq!(found, mask(["......", "......", "....##", "....#."]));
    }

    #[test]
    fn discs_are_round_and_end_at_the_border() {
        let dot = mask(["......", "......", "..#...", "......"]);
        assert_eq!(
            dilated(SIZE, &dot, 1),
            mask(["......", "..#...", ".###..", "..#..."])
        );
        assert_eq!(
            dilated(SIZE, &dot, 2),
            mask(["..#...", ".###..", "#####.", ".###.."])
        );
    }

    #[test]
    fn f_weighs_precision_and_recall_within_the_tolerance() {
        // 0.8 % of the diagonal of 60 x 40 is 0.58, so the tolerance is 1.
        let size = Size {
            width: 60,
            height: 40,
        };
        let left_of = |edge: usize| -> Vec<bool> { (0..2400).map(|i| i % 60 < edge).collect() };
        let none = vec![false; 2400];
        let two: Vec<bool> = (0..2400).map(|i| i % 60 < 20 || i % 60 >= 50).collect();
        for (truth, predicted, expected) in [
            (&left_of(20), &left_of(20), 1.0),
            (&left_of(20), &left_of(21), 1.0),
            (&left_of(20), &left_of(22), 0.0),
            // Half of the predicted contour is right, and all of the true one found.
            (&left_of(20), &two, 2.0 / 3.0),
            (&left_of(20), &none, 0.0),
            (&none, &left_of(20), 0.0),
            (&none, &none, 1.0),
        ] {
            assert!((contour_accuracy(size, truth, predicted) - expected).abs() < 1e-15);
        }
    }

    #[test]
    fn statistics_are_those_of_the_benchmark() {
        // Bounds round(linspace(1, 9, 5)) - 1 = 0, 2, 4, 6, 8: the first quarter is frames 0 to 2.
        let found = Statistics::of(&[0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]);
        assert!((found.mean - 0.5).abs() < 1e-15);
        assert_eq!(found.recall, 4.0 / 9.0);
        assert!((found.decay - 0.6).abs() < 1e-15);
        // 1, 2.25, 3.5, 4.75, 6 become 1, 2, 4, 5, 6: halves are rounded up.
        let found = Statistics::of(&[1.0, 0.0, 0.0, 0.0, 0.5, 0.25]);
        assert!((found.decay - (0.5 - 0.375)).abs() < 1e-15);
        assert_eq!(Statistics::of(&[0.7]).decay, 0.0);
        let over = Statistics::over([found, Statistics::of(&[0.7])].iter());
        assert!((over.mean - (1.75 / 6.0 + 0.7) / 2.0).abs() < 1e-15);
    }
}
