//! The vision foundation model: a picture to features on a grid of patches.

use std::sync::Arc;

use loftup_bundle::{Bundle, FeatureLayout, Precision, Size};

use crate::{
    RuntimeError,
    backend::Backend,
    error::check_finite,
    plans::{Plans, SessionPool, Source},
};

/// Features on a grid, `[1, d, h, w]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Features {
    /// Channels, `d`.
    pub dim: usize,
    /// Rows of the grid.
    pub height: usize,
    /// Columns of the grid.
    pub width: usize,
    /// `dim * height * width` values, columns fastest, channels slowest.
    pub data: Vec<f32>,
}

impl Features {
    /// Takes an array `[1, d, h, w]`.
    ///
    /// # Errors
    /// Where it has another shape or holds NaN.
    pub fn from_array(shape: &[usize], data: Vec<f32>, dim: usize) -> Result<Self, RuntimeError> {
        match *shape {
            [1, d, height, width]
                if d == dim && height > 0 && width > 0 && data.len() == d * height * width =>
            {
                check_finite("the features", &data)?;
                Ok(Self {
                    dim,
                    height,
                    width,
                    data,
                })
            }
            _ => Err(RuntimeError::FeatureShape {
                found: shape.to_vec(),
                dim,
            }),
        }
    }
}

/// A backbone in an engine.
pub(crate) struct Backbone {
    manifest: loftup_bundle::Backbone,
    plans: Plans,
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
            precision,
            inputs: vec![manifest.input.clone()],
            outputs: vec![manifest.output.clone()],
        };
        let plans = Plans::new(bundle, backend, source);
        Ok(Self { plans, manifest })
    }

    /// The size it looks at where the answer is to be of size `answer`.
    pub fn input_size(&self, answer: Size) -> Size {
        if self.manifest.any_size {
            answer.rounded_to(self.manifest.patch)
        } else {
            self.manifest.size
        }
    }

    /// The size of its input, or the default one where it takes any.
    pub fn default_size(&self) -> Size {
        self.manifest.size
    }

    /// Extents of the grid of features of a picture of this size: rows, columns.
    pub fn grid(&self, size: Size) -> (usize, usize) {
        let patch = self.manifest.patch;
        (size.height / patch, size.width / patch)
    }

    /// The plan for pictures of this size.
    pub fn plan(&self, size: Size) -> Result<Arc<SessionPool>, RuntimeError> {
        let m = &self.manifest;
        if !m.any_size && size != m.size {
            return Err(RuntimeError::PictureSize {
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

    /// Features of a normalized picture `[1, 3, H, W]`.
    pub fn features(&self, picture: &[f32], size: Size) -> Result<Features, RuntimeError> {
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
        let mut session = pool.session()?;
        session.set(0, picture)?;
        if let Err(e) = session.run() {
            session.discard();
            return Err(e.into());
        }
        let output = session.output(0);
        let data = match m.layout {
            FeatureLayout::Map => output.to_vec(),
            FeatureLayout::Tokens { extra } => {
                let tokens = &output[extra * m.dim..];
                (0..m.dim)
                    .flat_map(|c| tokens.iter().skip(c).step_by(m.dim).copied())
                    .collect()
            }
        };
        Ok(Features {
            dim: m.dim,
            height,
            width,
            data,
        })
    }
}
