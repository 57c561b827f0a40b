//! Images with objects, encoded and upsampled by each method.

use std::path::Path;

use loftup_runtime::{Perceptor, click::ClickSegmenter, image::Orientation};
use rayon::prelude::*;

use super::{
    Request,
    objects::{Item, Objects, items},
};
use crate::{
    EvalError, Method, Progress,
    error::or_skip,
    sampling::{Encoded, Encoder, subsample},
};

/// Images with objects, and how they are encoded.
pub(super) struct Images<'a> {
    pub encoder: Encoder<'a>,
    pub items: Vec<Item>,
    orientation: Orientation,
    /// Minimum number of pixels of an object.
    least: usize,
}

impl<'a> Images<'a> {
    pub fn open(
        perceptor: &'a Perceptor,
        request: &Request<'_>,
        dir: &Path,
        part: &str,
    ) -> Result<Self, EvalError> {
        let encoder = Encoder::new(perceptor, request.size, request.range, request.orientation)?;
        Ok(Self {
            items: subsample(items(dir, part)?, request.most),
            orientation: request.orientation,
            least: (request.min_area * encoder.size.area() as f64).ceil() as usize,
            encoder,
        })
    }

    /// Calls `work` for each image and method with the state of the method, the objects, and the
    /// features to click on. Methods run in parallel. Returns the number of images with objects, and why
    /// others were skipped.
    pub fn each<S: Send>(
        &self,
        methods: &[Method],
        (stage, progress): (&str, Progress<'_>),
        states: &mut [S],
        work: impl Fn(&mut S, &Objects, &mut ClickSegmenter) -> Result<(), EvalError> + Sync,
    ) -> Result<(usize, Vec<String>), EvalError> {
        let (mut used, mut skipped) = (0, Vec::new());
        for (i, item) in self.items.iter().enumerate() {
            progress(stage, i, self.items.len());
            let opened = item.open(self.encoder.size, self.orientation, self.least);
            let Some((photo, objects)) = or_skip(opened, &mut skipped) else {
                continue;
            };
            if objects.masks.is_empty() {
                continue;
            }
            let encoded = self.encoder.encode(&photo)?;
            let methods = methods.par_iter().zip(states.par_iter_mut());
            methods.try_for_each(|(method, state)| -> Result<(), EvalError> {
                work(state, &objects, &mut self.segmenter(*method, &encoded)?)
            })?;
            used += 1;
        }
        Ok((used, skipped))
    }

    fn segmenter(&self, method: Method, encoded: &Encoded) -> Result<ClickSegmenter, EvalError> {
        let features = self.encoder.map(method, encoded, None)?;
        let (size, dim) = (self.encoder.size, encoded.features.dim);
        Ok(ClickSegmenter::from_features(size, dim, features, 0.0)?)
    }
}

/// Returns the error for a data set without usable objects.
pub(super) fn no_objects(dir: &Path, skipped: &[String]) -> EvalError {
    EvalError::Data {
        path: dir.into(),
        what: match skipped.first() {
            Some(first) => format!("no usable image with objects; the first: {first}"),
            None => "no object is large enough".into(),
        },
    }
}
