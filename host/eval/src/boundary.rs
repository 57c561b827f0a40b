//! Accuracy of class boundaries.
//!
//! The boundary F-score of Csurka et al., "What is a good evaluation measure for semantic
//! segmentation?" (BMVC 2013), per class: precision is the fraction of predicted boundary pixels
//! with a true boundary pixel of the same class nearby, recall the fraction of true boundary pixels
//! with a predicted one nearby, and F their harmonic mean. F is averaged over the images in which
//! the class has a boundary, true or predicted, and then over classes.

use loftup_bundle::Size;

use crate::{confusion::mean, labels::UNLABELED};

/// Accumulates the boundary F-score over images.
#[derive(Debug, Clone)]
pub struct BoundaryScore {
    offsets: Vec<(isize, isize)>,
    /// Sum of F and number of images, per class.
    sums: Vec<(f64, u32)>,
}

/// Returns the default tolerance for an image of this size: 0.75 % of its diagonal, as in the paper,
/// rounded to whole pixels, at least one.
pub fn usual_tolerance(size: Size) -> usize {
    let diagonal = ((size.width * size.width + size.height * size.height) as f64).sqrt();
    ((0.0075 * diagonal).round() as usize).max(1)
}

impl BoundaryScore {
    /// Creates a score with a tolerance in pixels.
    pub fn new(classes: usize, tolerance: usize) -> Self {
        let r = tolerance as isize;
        let disc = |(y, x): &(isize, isize)| x * x + y * y <= r * r;
        let square = (-r..=r).flat_map(|y| (-r..=r).map(move |x| (y, x)));
        let mut offsets: Vec<_> = square.filter(disc).collect();
        // Sorted by distance, because most searches end early.
        offsets.sort_by_key(|(y, x)| x * x + y * y);
        Self {
            offsets,
            sums: vec![(0.0, 0); classes],
        }
    }

    /// Adds an image. Unlabeled pixels have no boundary, and there is no boundary next to them.
    pub fn count(&mut self, size: Size, truth: &[u8], predicted: &[u8]) {
        let visible = |(t, s): (&u8, &u8)| if *t == UNLABELED { UNLABELED } else { *s };
        let predicted: Vec<u8> = truth.iter().zip(predicted).map(visible).collect();
        let truth = boundaries(size, truth);
        let predicted = boundaries(size, &predicted);
        let precision = self.matches(size, &predicted, &truth);
        let recall = self.matches(size, &truth, &predicted);
        for ((sum, p), r) in self.sums.iter_mut().zip(precision).zip(recall) {
            if p.1 + r.1 == 0 {
                continue;
            }
            // 2pr / (p + r), where 0 / 0 counts as 0.
            let share = |(met, all): (u32, u32)| f64::from(met) / f64::from(all.max(1));
            let (p, r) = (share(p), share(r));
            sum.0 += if p + r > 0.0 {
                2.0 * p * r / (p + r)
            } else {
                0.0
            };
            sum.1 += 1;
        }
    }

    /// F of each class; `None` for a class that never had a boundary.
    pub fn by_class(&self) -> Vec<Option<f64>> {
        self.sums
            .iter()
            .map(|(sum, n)| (*n > 0).then(|| sum / f64::from(*n)))
            .collect()
    }

    /// Mean of [`BoundaryScore::by_class`]; NaN if there is none.
    pub fn mean(&self) -> f64 {
        mean(self.by_class().into_iter().flatten())
    }

    /// Returns, per class, the number of boundary pixels of `a` with a boundary pixel of `b` nearby, and
    /// the number of all boundary pixels of `a`.
    fn matches(&self, size: Size, a: &[u8], b: &[u8]) -> Vec<(u32, u32)> {
        let mut found = vec![(0, 0); self.sums.len()];
        for (i, class) in a.iter().enumerate() {
            let Some(found) = found.get_mut(usize::from(*class)) else {
                continue;
            };
            let (x, y) = ((i % size.width) as isize, (i / size.width) as isize);
            let near = self.offsets.iter().any(|(dy, dx)| {
                let (x, y) = (x + dx, y + dy);
                (0..size.width as isize).contains(&x)
                    && (0..size.height as isize).contains(&y)
                    && b[y as usize * size.width + x as usize] == *class
            });
            found.0 += u32::from(near);
            found.1 += 1;
        }
        found
    }
}

/// Returns the class of each boundary pixel (a pixel with a neighbor of another class), and
/// [`UNLABELED`] elsewhere.
fn boundaries(size: Size, map: &[u8]) -> Vec<u8> {
    let Size { width, height } = size;
    (0..map.len())
        .map(|i| {
            let (x, y) = (i % width, i / width);
            let other = |there: bool, j: usize| there && map[j] != map[i] && map[j] != UNLABELED;
            let edge = other(x > 0, i.wrapping_sub(1))
                || other(x + 1 < width, i + 1)
                || other(y > 0, i.wrapping_sub(width))
                || other(y + 1 < height, i + width);
            if edge { map[i] } else { UNLABELED }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size {
        width: 10,
        height: 6,
    };

    /// Class 1 from column `from` on.
    fn halves(from: usize) -> Vec<u8> {
        (0..SIZE.area())
            .map(|i| u8::from(i % SIZE.width >= from))
            .collect()
    }

    fn score(truth: &[u8], predicted: &[u8], tolerance: usize) -> f64 {
        let mut score = BoundaryScore::new(2, tolerance);
        score.count(SIZE, truth, predicted);
        score.mean()
    }

    #[test]
    fn an_outline_counts_within_the_tolerance_and_not_beyond() {
        assert_eq!(score(&halves(5), &halves(5), 1), 1.0);
        assert_eq!(score(&halves(5), &halves(7), 2), 1.0);
        assert_eq!(score(&halves(5), &halves(8), 2), 0.0);
    }

    #[test]
    fn precision_and_recall_are_weighed() {
        // Two boundaries are predicted instead of one: precision 1/2, recall 1, F 2/3.
        let mut predicted = halves(3);
        for row in predicted.chunks_mut(SIZE.width) {
            row[8] = 0;
            row[9] = 0;
        }
        let f = score(&halves(3), &predicted, 1);
        assert!((f - 2.0 / 3.0).abs() < 1e-12, "{f}");
    }

    #[test]
    fn unlabeled_pixels_have_no_outline() {
        let mut truth = halves(5);
        truth.iter_mut().step_by(10).for_each(|v| *v = UNLABELED);
        // Wrong predictions in the first column, which is unlabeled.
        let mut predicted = halves(5);
        predicted.iter_mut().step_by(20).for_each(|v| *v = 1);
        assert_eq!(score(&truth, &predicted, 1), 1.0);
    }

    #[test]
    fn the_usual_tolerance_is_the_papers() {
        assert_eq!(
            usual_tolerance(Size {
                width: 224,
                height: 224
            }),
            2
        );
        assert_eq!(
            usual_tolerance(Size {
                width: 8,
                height: 8
            }),
            1
        );
    }
}
