//! The backbone (vision foundation model): from an image to one feature vector per patch.

use std::sync::Arc;

use loftup_bundle::{Bundle, FeatureLayout, Precision, Size};

use crate::{
    RuntimeError,
    backend::Backend,
    features::{Features, transposed},
    plan_cache::{PlanCache, SessionPool, Source},
};

/// A backbone loaded into an engine.
pub(crate) struct Backbone {
    manifest: loftup_bundle::Backbone,
    plans: PlanCache,
}

impl Backbone {
    pub fn new(
        bundle: &Arc<Bundle>,
        backend: &Arc<dyn Backend>,
        precision: Precision,
        manifest: loftup_bundle::Backbone,
    ) -> Result<Self, RuntimeError> {
        let file = manifest
            .graphs
            .get(&precision)
            .ok_or_else(|| bundle.lacks("backbone graph in this precision", "convert it again"))?;
        let source = Source {
            file: file.clone(),
            head: false,
            precision,
            inputs: vec![manifest.input.clone()],
            outputs: vec![manifest.output.clone()],
        };
        let plans = PlanCache::new(bundle, backend, source);
        Ok(Self { plans, manifest })
    }

    /// Returns the backbone's input size for an output of size `output`.
    pub fn input_size(&self, output: Size) -> Size {
        if self.manifest.any_size {
            output.rounded_to(self.manifest.patch)
        } else {
            self.manifest.size
        }
    }

    /// Returns the fixed input size, or the default size if the backbone accepts any size.
    pub fn default_size(&self) -> Size {
        self.manifest.size
    }

    /// Returns `(rows, columns)` of the feature grid for an image of this size.
    pub fn grid(&self, size: Size) -> (usize, usize) {
        let patch = self.manifest.patch;
        (size.height / patch, size.width / patch)
    }

    /// Returns the plan for images of this size.
    pub fn plan(&self, size: Size) -> Result<Arc<SessionPool>, RuntimeError> {
        let m = &self.manifest;
        if !m.any_size && size != m.size {
            return Err(RuntimeError::ImageSize {
                found: size,
                expected: m.size,
            });
        }
        let nearest = size.rounded_to(m.patch);
        if size != nearest {
            return Err(RuntimeError::PatchSize {
                found: size,
                patch: m.patch,
                nearest,
            });
        }
        let shape = vec![1, 3, size.height, size.width];
        self.plans.get(&vec![shape], &[])
    }

    /// Computes the features of a normalized image `[1, 3, H, W]`.
    pub fn features(&self, image: &[f32], size: Size) -> Result<Features, RuntimeError> {
        let m = &self.manifest;
        let pool = self.plan(size)?;
        let (height, width) = self.grid(size);
        let expected = match m.layout {
            FeatureLayout::Map => vec![1, m.dim, height, width],
            FeatureLayout::Tokens { extra } => vec![1, extra + height * width, m.dim],
        };
        if pool.output_shape(0) != expected {
            let found = pool.output_shape(0).to_vec();
            return Err(RuntimeError::BackboneOutput { found, expected });
        }
        let session = pool.run(&[image])?;
        let output = session.output(0);
        let tokens = match m.layout {
            FeatureLayout::Map => transposed(output, m.dim, height * width),
            FeatureLayout::Tokens { extra } => output[extra * m.dim..].to_vec(),
        };
        Ok(Features {
            dim: m.dim,
            height,
            width,
            tokens,
        })
    }
}
