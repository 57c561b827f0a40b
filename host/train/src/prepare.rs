//! Prepares the inputs of a step in host memory: images, features, masks, random numbers. They depend
//! only on the settings, the data and the step number, so they can be computed ahead of time on
//! another thread.

use std::sync::{Mutex, PoisonError};

use burn::tensor::Device;
use loftup_bundle::{Size, UpsamplerKind};
use loftup_runtime::{Rect, image::RgbImage};

pub use crate::host_batch::HostBatch;
use crate::{
    backbone::Backbone,
    config::{Config, Init, Stage},
    data::{Dataset, Sample, part},
    distillation::WideTeacher,
    error::TrainError,
    host_batch::{HostCrop, HostTarget, HostView, Windows, tokens},
    inputs::Inputs,
    losses::{Base, Projection, mean_area_weights, pseudo_ground_truth, random_projection},
    model::{
        Guidance, LoftUp,
        bilinear_init::{Examples, interpolate},
        cut,
        least_squares::statistics,
    },
    resample::Jitter,
    rng::{Purpose, Rng},
    synthetic,
    teacher::{Part, Region},
};

/// Maximum number of images that a new upsampler is fitted to.
const FITTED: usize = 128;
/// Maximum number of guidance pixels that it is fitted to.
const FITTED_PIXELS: usize = 1 << 18;
/// Maximum number of images for measuring the standard deviation of the channels.
const MEASURED: usize = 32;

/// Prepares batches.
pub struct Preparer<'a> {
    config: &'a Config,
    data: &'a Dataset,
    backbones: &'a [Backbone],
    wide: Option<&'a WideTeacher>,
    /// The inputs, one of which each step draws.
    inputs: Vec<Inputs>,
    /// The epoch that was used last, and its order of images.
    order: Mutex<(u64, Vec<usize>)>,
}

fn square(side: usize) -> Size {
    Size {
        width: side,
        height: side,
    }
}

impl<'a> Preparer<'a> {
    /// Checks that the sizes are compatible. The backbones are those of `bundle` and `backbones`.
    ///
    /// # Errors
    /// Names the setting with an incompatible size, and a size that works.
    pub fn new(
        config: &'a Config,
        path: &std::path::Path,
        data: &'a Dataset,
        backbones: &'a [Backbone],
        wide: Option<&'a WideTeacher>,
    ) -> Result<Self, TrainError> {
        let mut preparer = Self {
            config,
            data,
            backbones,
            wide,
            inputs: Inputs::of(config, path, backbones)?,
            order: Mutex::new((u64::MAX, Vec::new())),
        };
        if config.upsampler == UpsamplerKind::Naf && config.stage1.synthetic.is_none() {
            for i in 0..preparer.inputs.len() {
                preparer.inputs[i].scales = preparer.channel_scales(&preparer.inputs[i])?;
            }
        }
        Ok(preparer)
    }

    /// Computes one over the standard deviation of each channel, so that all have the same weight.
    fn channel_scales(&self, inputs: &Inputs) -> Result<Vec<f32>, TrainError> {
        let backbone = &self.backbones[inputs.backbone];
        let mut tokens = Vec::new();
        for index in 0..MEASURED.min(self.data.len()) {
            let sample = self.photo(index, inputs)?;
            let small = sample.resized(inputs.seen)?;
            let features = backbone.kept_features(&sample.identity(), &small)?;
            tokens.extend(features.tokens);
        }
        let (_, deviation) = statistics(&tokens, backbone.dim());
        Ok(deviation.iter().map(|s| 1.0 / s.max(1e-6)).collect())
    }

    /// Draws a random projection of features for the loss.
    fn projection(&self, inputs: &Inputs, rng: &mut Rng) -> Projection {
        let dim = self.backbones[inputs.backbone].dim();
        let mut projection = random_projection(dim, self.config.loss.projection, rng);
        let rows = projection.values.chunks_exact_mut(projection.to);
        for (row, scale) in rows.zip(&inputs.scales) {
            row.iter_mut().for_each(|p| *p *= scale);
        }
        projection
    }

    /// Side of the downsampler's windows in pixels.
    pub fn window(&self) -> usize {
        let (size, seen) = self.first_size();
        (size.width * self.backbones[0].patch() / seen.width).max(1)
    }

    /// The first size of the guidance, and the backbone's input size for it.
    pub fn first_size(&self) -> (Size, Size) {
        (self.inputs[0].guidance, self.inputs[0].seen)
    }

    /// Initializes a new upsampler with the method in the settings, from a few images. Errors name
    /// `path`.
    ///
    /// # Errors
    /// If no image can be read, the backbone fails, or this upsampler does not support the method.
    pub fn initialize(
        &self,
        path: &std::path::Path,
        upsampler: &mut LoftUp,
        device: &Device,
    ) -> Result<(), TrainError> {
        let init = self.config.init;
        if init == Init::Random {
            return Ok(());
        }
        let (size, seen) = self.first_size();
        let backbone = &self.backbones[0];
        let fitted = (FITTED_PIXELS / size.area()).clamp(1, FITTED);
        let most = match init {
            Init::Bilinear => fitted,
            _ => FITTED,
        };
        let (mut images, mut lr) = (Vec::new(), Vec::new());
        for index in 0..most.min(self.data.len()) {
            let sample = self.photo(index, &self.inputs[0])?;
            let small = sample.resized(seen)?;
            lr.push(backbone.kept_features(&sample.identity(), &small)?);
            images.push(backbone.normalized(&sample.resized(size)?));
        }
        if matches!(init, Init::Bilinear | Init::Bilateral) {
            let slices: Vec<&[f32]> = images.iter().map(Vec::as_slice).collect();
            let range = self.config.loss.range;
            let guidance = |n: usize| Guidance::new(&slices[..n], size.height, size.width, range);
            let few = lr.len().min(fitted);
            let examples = (init == Init::Bilateral).then(|| Examples {
                lr: tokens(&lr, device),
                guidance: slices
                    .iter()
                    .map(|image| Guidance::new(&[image], size.height, size.width, range))
                    .collect(),
            });
            let lr = tokens(&lr[..few], device);
            return match interpolate(upsampler, &lr, &guidance(few), examples.as_ref(), device) {
                true => Ok(()),
                false => Err(TrainError::Config {
                    path: path.into(),
                    key: "init".into(),
                    what: "this upsampler has too few channels for that; write \"calibrated\" or \"random\"".into(),
                }),
            };
        }
        let d = backbone.dim();
        let values: Vec<f32> = lr.into_iter().flat_map(|t| t.tokens).collect();
        let (mean, deviation) = statistics(&values, d);
        for (name, values) in [("weight", deviation), ("bias", mean)] {
            upsampler.weights.insert(
                format!("upsampler.final_conv.1.{name}"),
                &loftup_onnx::Tensor::from_fn([d], |i| values[i]),
                device,
            );
        }
        Ok(())
    }

    /// Returns the index of image number `place`, in the order of its epoch.
    fn image(&self, place: u64) -> usize {
        let n = self.data.len();
        let epoch = place / n as u64;
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        if order.0 != epoch {
            *order = (
                epoch,
                Rng::new(self.config.seed, Purpose::Order, epoch).permutation(n),
            );
        }
        order.1[(place % n as u64) as usize]
    }

    fn photo(&self, index: usize, inputs: &Inputs) -> Result<Sample, TrainError> {
        let size = match self.config.stage {
            Stage::One => inputs.guidance,
            Stage::Two => square(self.config.stage2.high),
        };
        self.data.sample(index, size)
    }

    /// Prepares the batch of step `step`, counted from 0.
    ///
    /// # Errors
    /// If no image can be read, or the backbone fails.
    pub fn prepare(&self, step: u64) -> Result<HostBatch, TrainError> {
        let config = self.config;
        let mut rng = Rng::new(config.seed, Purpose::Step, step);
        let inputs = &self.inputs[rng.below(self.inputs.len())];
        let (size, seen) = (inputs.guidance, inputs.seen);
        let backbone = &self.backbones[inputs.backbone];
        let batch = config.run.batch_size as u64;
        let mut samples: Vec<Sample> = (step * batch..(step + 1) * batch)
            .map(|place| self.photo(self.image(place), inputs))
            .collect::<Result<_, _>>()?;
        if config.data.horizontal_flip {
            for sample in &mut samples {
                if rng.uniform() < 0.5 {
                    sample.flip();
                }
            }
        }
        if let Some(settings) = &config.stage1.synthetic {
            let normalized = |image: &RgbImage| backbone.guidance(config.upsampler, image);
            let grid = backbone.grid(seen);
            return synthetic::batch(settings, (size, grid), &samples, &normalized, &mut rng);
        }
        let windows = self.windows(samples.len(), size, &mut rng);
        let (mut photos, mut images) = (Vec::new(), Vec::new());
        let (mut lr, mut looked_at) = (Vec::new(), Vec::new());
        for sample in &samples {
            let guidance = sample.resized(size)?;
            let small = sample.resized(seen)?;
            lr.push(backbone.kept_features(&sample.identity(), &small)?);
            looked_at.push(backbone.normalized(&small));
            images.push(backbone.guidance(config.upsampler, &guidance));
            photos.push(guidance);
        }
        let of = (size.height, size.width);
        let cells: usize = lr.iter().map(|t| t.height * t.width).sum();
        let mut views = Vec::new();
        for _ in 0..config.augmentations() {
            let jitter = Jitter::random(&mut rng, config.jitter_range(), size.height, size.width);
            let lr = looked_at
                .iter()
                .map(|p| backbone.view(p, seen, &jitter, of));
            views.push(HostView {
                jitter,
                lr: lr.collect::<Result<_, _>>()?,
                kept: (0..cells)
                    .map(|_| {
                        if rng.uniform() < config.loss.dropout {
                            0.0
                        } else {
                            1.0
                        }
                    })
                    .collect(),
                projection: random_projection(backbone.dim(), config.loss.projection, &mut rng),
            });
        }
        let mut output = None;
        let target = match (config.stage, inputs.target, self.wide) {
            (Stage::One, Some(size), _) => {
                let mut values = Vec::new();
                let projection = self.projection(inputs, &mut rng);
                for sample in &samples {
                    let image = sample.resized(size)?;
                    let features = backbone.kept_features(&sample.identity(), &image)?;
                    output = Some((features.height, features.width));
                    values.extend(projection.apply(&features.tokens));
                }
                HostTarget::MaskBicubic {
                    values,
                    projection,
                    weights: Vec::new(),
                }
            }
            (Stage::One, None, Some(wide)) => {
                let projection = self.projection(inputs, &mut rng);
                let mut values = Vec::new();
                for (i, (sample, image)) in samples.iter().zip(&photos).enumerate() {
                    let part = windows.as_ref().map_or(Rect::whole(size), |w| w.rect(i));
                    values.extend(projection.apply(&wide.target(sample, image, seen, part)?));
                }
                HostTarget::MaskBicubic {
                    values,
                    projection,
                    weights: windows.as_ref().map_or(Vec::new(), |w| w.weights(size)),
                }
            }
            (Stage::One, None, None) => {
                let projection = self.projection(inputs, &mut rng);
                let (alpha, exponent) = (config.stage1.alpha, config.stage1.area_weighting);
                let (mut values, mut weights) = (Vec::new(), Vec::new());
                for ((sample, image), lr) in samples.iter().zip(&photos).zip(&lr) {
                    let segmentations = if alpha > 0.0 || exponent > 0.0 {
                        sample.segmentations(image)
                    } else {
                        Vec::new()
                    };
                    values.extend(pseudo_ground_truth(
                        &lr.tokens,
                        (lr.height, lr.width),
                        of,
                        Base::new(config.stage1.upsampling, image),
                        &segmentations,
                        alpha,
                        &projection,
                    ));
                    if exponent > 0.0 {
                        weights.extend(mean_area_weights(size.area(), &segmentations, exponent));
                    }
                }
                if let Some(windows) = &windows {
                    let (corners, part) =
                        (&windows.corners, (windows.size.height, windows.size.width));
                    values = cut(&values, projection.to, of, corners, part);
                    let mut inside = windows.weights(size);
                    if exponent > 0.0 {
                        weights = cut(&weights, 1, of, corners, part);
                        inside.iter_mut().zip(&weights).for_each(|(i, w)| *i *= w);
                    }
                    weights = inside;
                }
                HostTarget::MaskBicubic {
                    values,
                    projection,
                    weights,
                }
            }
            (Stage::Two, ..) => HostTarget::Crops(self.crops(&samples, size, seen, &mut rng)?),
        };
        let most = config.stage1.rescale_coords;
        let coordinate_scale = match most > 1.0 {
            true => most.powf(2.0 * rng.uniform() - 1.0),
            false => 1.0,
        };
        Ok(HostBatch {
            size,
            output,
            coordinate_scale,
            windows,
            images,
            lr,
            views,
            target,
        })
    }

    /// Draws random windows of outputs of `size`, if the settings have a window.
    fn windows(&self, images: usize, size: Size, rng: &mut Rng) -> Option<Windows> {
        let window = self
            .config
            .stage1
            .window
            .filter(|_| self.config.stage == Stage::One)?;
        let mut corner = || {
            let row = rng.below(size.height - window.height + 1);
            (row, rng.below(size.width - window.width + 1))
        };
        Some(Windows {
            size: window,
            corners: (0..images).map(|_| corner()).collect(),
        })
    }

    /// Draws high-resolution crops of the images, one for every view and at least one.
    fn crops(
        &self,
        samples: &[Sample],
        size: Size,
        seen: Size,
        rng: &mut Rng,
    ) -> Result<Vec<HostCrop>, TrainError> {
        let two = &self.config.stage2;
        let backbone = &self.backbones[0];
        let side = size.width;
        let mut crops = Vec::new();
        for _ in 0..self.config.augmentations().max(1) {
            let mut place = || rng.below(two.high - side + 1) / two.align * two.align;
            let (x, y) = (place(), place());
            let region = Region::new(x, y, side, two.high, two.border);
            let mut parts = Vec::new();
            for sample in samples {
                let high = sample.resized(square(two.high))?;
                let crop =
                    part(&high, x, y, side, side).map_err(loftup_runtime::RuntimeError::from)?;
                let small = crop
                    .resized(seen.width, seen.height)
                    .map_err(loftup_runtime::RuntimeError::from)?;
                parts.push(Part {
                    side,
                    lr: backbone.features(backbone.normalized(&small), seen)?,
                    segmentations: match two.alpha > 0.0 {
                        true => sample.segmentations_of_part((x, y, side), two.high, &crop),
                        false => Vec::new(),
                    },
                    image: backbone.normalized(&crop),
                });
            }
            crops.push(HostCrop { region, parts });
        }
        Ok(crops)
    }
}
