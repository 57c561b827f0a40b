//! The confusion matrix.

use crate::{bootstrap::Interval, labels::UNLABELED};

/// Pixel counts by true class and predicted class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    classes: usize,
    /// `[true, predicted]`, with an additional column for invalid predictions.
    counts: Vec<u64>,
}

impl Confusion {
    /// Creates an empty matrix.
    pub fn new(classes: usize) -> Self {
        Self {
            classes,
            counts: vec![0; classes * (classes + 1)],
        }
    }

    /// Sums several matrices.
    pub(crate) fn sum<'a>(classes: usize, all: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut sum = Self::new(classes);
        for one in all {
            let counts = sum.counts.iter_mut().zip(&one.counts);
            counts.for_each(|(sum, n)| *sum += n);
        }
        sum
    }

    /// Returns the mean IoU of `a` minus the mean IoU of `b`, each with one matrix per image, in the same order.
    pub(crate) fn difference(classes: usize, a: &[Self], b: &[Self], seed: u64) -> Interval {
        let iou = |all: &[Self], chosen: &[usize]| {
            Self::sum(classes, chosen.iter().map(|i| &all[*i])).mean_iou()
        };
        Interval::bootstrap(a.len(), seed, |chosen| iou(a, chosen) - iou(b, chosen))
    }

    /// Adds the pixels of an image, except unlabeled ones.
    ///
    /// # Panics
    /// If a label is neither a class nor [`UNLABELED`].
    pub fn count(&mut self, truth: &[u8], predicted: &[u8]) {
        for (truth, predicted) in truth.iter().zip(predicted) {
            if *truth != UNLABELED {
                let predicted = usize::from(*predicted).min(self.classes);
                self.counts[usize::from(*truth) * (self.classes + 1) + predicted] += 1;
            }
        }
    }

    /// Intersection over union of each class; `None` if the class does not occur in the ground
    /// truth.
    pub fn iou(&self) -> Vec<Option<f64>> {
        let row = self.classes + 1;
        let sum = |values: &mut dyn Iterator<Item = &u64>| values.sum::<u64>();
        (0..self.classes)
            .map(|c| {
                let truth = sum(&mut self.counts[c * row..][..row].iter());
                let predicted = sum(&mut self.counts.iter().skip(c).step_by(row));
                let both = self.counts[c * row + c];
                (truth > 0).then(|| both as f64 / (truth + predicted - both) as f64)
            })
            .collect()
    }

    /// Mean of [`Confusion::iou`] over the classes that occur; NaN if there are none.
    pub fn mean_iou(&self) -> f64 {
        mean(self.iou().into_iter().flatten())
    }

    /// Pixel accuracy: the fraction of labeled pixels with the correct prediction.
    pub fn accuracy(&self) -> f64 {
        let right: u64 = (0..self.classes)
            .map(|c| self.counts[c * (self.classes + 2)])
            .sum();
        right as f64 / self.counts.iter().sum::<u64>() as f64
    }
}

/// Returns the mean; NaN if there are no values.
pub(crate) fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0u32), |(sum, n), x| (sum + x, n + 1));
    sum / f64::from(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_paired() {
        // Image i is right in all but i % 4 of its 10 pixels; b is right in one more.
        let image = |wrong: usize| {
            let mut confusion = Confusion::new(2);
            let seen: Vec<u8> = (0..10).map(|p| u8::from(p < wrong)).collect();
            confusion.count(&[0; 10], &seen);
            confusion
        };
        let a: Vec<_> = (0..40).map(|i| image(1 + i % 4)).collect();
        let b: Vec<_> = (0..40).map(|i| image(i % 4)).collect();
        let same = Confusion::difference(2, &a, &a, 0);
        assert_eq!((same.value, same.low, same.high), (0.0, 0.0, 0.0));
        // A tenth of the pixels, whichever images are chosen.
        let found = Confusion::difference(2, &b, &a, 0);
        for v in [found.value, found.low, found.high] {
            assert!((v - 0.1).abs() < 1e-12, "{found:?}");
        }
    }

    #[test]
    fn a_worked_example() {
        let mut confusion = Confusion::new(3);
        // Class 0: 2 of 3 in the ground truth, 3 predicted (one of them is actually 1): 2 / 4.
        // Class 1: 1 / 2.
        confusion.count(&[0, 0, 0, 1, 1, 255], &[0, 0, 255, 1, 0, 1]);
        assert_eq!(confusion.iou(), [Some(0.5), Some(0.5), None]);
        assert_eq!(confusion.mean_iou(), 0.5);
        assert_eq!(confusion.accuracy(), 0.6);
    }

    #[test]
    fn nothing_counted_is_not_a_number() {
        assert!(Confusion::new(4).mean_iou().is_nan());
    }
}
