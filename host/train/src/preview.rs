//! A preview of the training on one image: the image, the backbone's features and the upsampled
//! features, colored by their common principal components.

use std::path::Path;

use burn::tensor::Device;
use loftup_bundle::{Size, UpsamplerKind};
use loftup_runtime::{
    Features,
    image::{self, RgbImage},
    panels::{ComponentMap, three_panels},
    pca::CommonBasis,
};

use crate::{
    backbone::Backbone,
    config::Config,
    data::Dataset,
    error::TrainError,
    kernels::Grid,
    model::{Guidance, Mode, RangeOver, Tokens, Upsampler, device_matrix, host_values},
};

/// Number of output pixels that the colors are computed from.
const SAMPLES: usize = 1024;

/// The preview image and its features.
pub(crate) struct Preview {
    photo: RgbImage,
    /// Kind of the upsampler that `image` is normalized for.
    kind: UpsamplerKind,
    image: Vec<f32>,
    lr: Features,
}

impl Preview {
    /// Opens the preview image in the settings, or the first image of the data, unless it is disabled.
    pub fn open(
        config: &Config,
        data: &Dataset,
        backbone: &Backbone,
        (size, seen): (Size, Size),
    ) -> Result<Option<Self>, TrainError> {
        if config.run.preview_every == 0 {
            return Ok(None);
        }
        let photo = match &config.run.preview_image {
            Some(path) => {
                image::open_with(path, config.preparation().orientation)
                    .map_err(loftup_runtime::RuntimeError::from)?
                    .image
            }
            None => data.sample(0, size)?.photo,
        };
        Self::new(&photo, backbone, config.upsampler, size, seen).map(Some)
    }

    /// Creates a preview of an image, with a backbone input of size `seen`, upsampled to `size`.
    fn new(
        photo: &RgbImage,
        backbone: &Backbone,
        kind: UpsamplerKind,
        size: Size,
        seen: Size,
    ) -> Result<Self, TrainError> {
        let resized = |s: Size| {
            photo
                .resized(s.width, s.height)
                .map_err(loftup_runtime::RuntimeError::from)
        };
        let photo = resized(size)?;
        let image = backbone.guidance(kind, &photo);
        let lr = backbone.features(backbone.normalized(&resized(seen)?), seen)?;
        Ok(Self {
            photo,
            kind,
            image,
            lr,
        })
    }

    /// Writes the panels to `path` as PNG. Returns their width and height.
    pub fn draw(
        &self,
        upsampler: &Upsampler,
        device: &Device,
        path: &Path,
    ) -> Result<(usize, usize), TrainError> {
        let d = self.lr.dim;
        let (height, width) = (self.photo.height(), self.photo.width());
        let Features {
            tokens: low,
            height: h,
            width: w,
            ..
        } = &self.lr;
        let grid = Grid {
            batch: 1,
            height: *h,
            width: *w,
        };
        let tokens = Tokens {
            values: device_matrix(low.clone(), h * w, d, device),
            grid,
        };
        let guidance = Guidance::of(self.kind, &[&self.image], height, width, RangeOver::Image);
        let output = upsampler.forward(&tokens, &guidance, (height, width), Mode::Eval);
        let high = host_values(&output.features);
        let every = (height * width / SAMPLES).max(1);
        let samples: Vec<f32> = high
            .chunks_exact(d)
            .step_by(every)
            .flatten()
            .copied()
            .collect();
        let failed =
            |e: &dyn std::fmt::Display| TrainError::io(path)(std::io::Error::other(e.to_string()));
        let sets = [
            (low.as_slice(), h * w),
            (samples.as_slice(), samples.len() / d),
        ];
        let basis = CommonBasis::fit(&sets, d, 3.min(d)).map_err(|e| failed(&e))?;
        let components = |set: usize, x: &[f32]| {
            let mut out = vec![0.0; x.len() / d * 3.min(d)];
            basis
                .project(set, x, &mut out)
                .map(|()| out)
                .map_err(|e| failed(&e))
        };
        let (low, high) = (components(0, low)?, components(1, &high)?);
        let low = ComponentMap::new(&low, *w, *h).map_err(|e| failed(&e))?;
        let high = ComponentMap::new(&high, width, height).map_err(|e| failed(&e))?;
        let panels = three_panels(&self.photo, low, high, basis.range()).map_err(|e| failed(&e))?;
        panels
            .save_png(path)
            .map_err(loftup_runtime::RuntimeError::from)?;
        Ok((panels.width(), panels.height()))
    }
}
