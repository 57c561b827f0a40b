//! A trained probe and its scores on validation images.

use loftup_bundle::{HeadKind, Linear, Size};
use loftup_runtime::heads::Head;

use crate::{
    EvalError, bootstrap::Interval, boundary::BoundaryScore, confusion::Confusion, labels::Labels,
};

/// A trained probe and its scores so far.
pub(crate) struct ProbeRun {
    pub head: Head,
    classes: usize,
    /// One for each image.
    confusions: Vec<Confusion>,
    pub boundary: BoundaryScore,
}

impl ProbeRun {
    /// Creates a run without scores. `tolerance` is the boundary tolerance in pixels.
    pub fn new(names: &[String], linear: Linear, tolerance: usize) -> Result<Self, EvalError> {
        Ok(Self {
            head: class_head(names, linear)?,
            classes: names.len(),
            confusions: Vec::new(),
            boundary: BoundaryScore::new(names.len(), tolerance),
        })
    }

    /// Scores the class map of an image.
    pub fn count(&mut self, size: Size, labels: &Labels, map: &[u8]) {
        let mut confusion = Confusion::new(self.classes);
        confusion.count(&labels.values, map);
        self.confusions.push(confusion);
        self.boundary.count(size, &labels.values, map);
    }

    /// The confusion matrix over all images.
    pub fn confusion(&self) -> Confusion {
        Confusion::sum(self.classes, &self.confusions)
    }

    /// Mean IoU minus the mean IoU of `other`, on the same images.
    pub fn minus(&self, other: &Self, seed: u64) -> Interval {
        Confusion::difference(self.classes, &self.confusions, &other.confusions, seed)
    }
}

/// Creates a class head that is not part of a bundle yet.
fn class_head(names: &[String], linear: Linear) -> Result<Head, EvalError> {
    let kind = HeadKind::Classes {
        names: names.to_vec(),
    };
    Ok(Head::new(
        loftup_bundle::Head {
            kind,
            dim: linear.inputs,
            file: String::new(),
        },
        linear,
    )?)
}
