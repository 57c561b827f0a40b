//! From a step's number to what the step needs, in ordinary memory: images, features, masks,
//! random draws. It depends on the settings, the data and the number alone, so that it can be done
//! ahead of time and on another thread.

use std::sync::{Mutex, PoisonError};

use burn::tensor::Device;
use loftup_bundle::{Size, UpsamplerKind};
use loftup_runtime::Rect;

pub use crate::host_batch::HostBatch;
use crate::{
    backbone::Backbone,
    config::{Config, Init, Stage},
    data::{Dataset, Sample, part},
    distillation::WideTeacher,
    error::TrainError,
    host_batch::{HostCrop, HostTarget, HostView, Windows, tokens},
    losses::{Base, Projection, mean_area_weights, pseudo_ground_truth, random_projection},
    model::{
        Guidance, LoftUp, Naf,
        bilinear_init::{Examples, interpolate},
        cut,
        least_squares::statistics,
    },
    resample::Jitter,
    rng::{Purpose, Rng},
    teacher::{Part, Region},
};

/// Images that a new upsampler is fitted to, at most.
const FITTED: usize = 128;
/// Pixels of the guidance that it is fitted to, at most.
const FITTED_PIXELS: usize = 1 << 18;
/// Images that the standard deviation of the channels is measured on, at most.
const MEASURED: usize = 32;

/// Makes batches.
pub struct Preparer<'a> {
    config: &'a Config,
    data: &'a Dataset,
    backbone: &'a Backbone,
    wide: Option<&'a WideTeacher>,
    /// Sizes of the guidance, and at each that of the backbone.
    sizes: Vec<(Size, Size)>,
    /// What features are multiplied by in the loss, by channel; nothing if all are alike.
    scales: Vec<f32>,
    /// The order of the epoch that was asked for last.
    order: Mutex<(u64, Vec<usize>)>,
}

fn square(side: usize) -> Size {
    Size {
        width: side,
        height: side,
    }
}

impl<'a> Preparer<'a> {
    /// Checks that the sizes go together.
    ///
    /// # Errors
    /// Names the setting and a size that does.
    pub fn new(
        config: &'a Config,
        path: &std::path::Path,
        data: &'a Dataset,
        backbone: &'a Backbone,
        wide: Option<&'a WideTeacher>,
    ) -> Result<Self, TrainError> {
        let problem = |key: &str, what: String| TrainError::Config {
            path: path.into(),
            key: key.into(),
            what,
        };
        let (key, wanted) = match config.stage {
            Stage::One => ("stage1.guidance", vec![config.stage1.guidance]),
            Stage::Two => {
                let sides = config
                    .stage2
                    .sizes
                    .iter()
                    .map(|&s| square(s).rounded_to(backbone.patch()));
                ("stage2.sizes", sides.collect())
            }
        };
        let mut sizes = Vec::new();
        for size in wanted {
            let asked = match config.stage {
                Stage::One => config.stage1.backbone.unwrap_or(size),
                Stage::Two => size,
            };
            let seen = backbone.size(asked)?;
            if config.stage == Stage::One && config.stage1.backbone.is_some_and(|s| s != seen) {
                return Err(problem(
                    "stage1.backbone",
                    format!("the backbone takes {seen}: write that, or leave it out"),
                ));
            }
            let grid = backbone.grid(seen);
            let fits =
                size.width.is_multiple_of(grid.width) && size.height.is_multiple_of(grid.height);
            if config.augmentations() > 0 && !fits {
                let nearest = |n: usize, of: usize| ((n + of / 2) / of).max(1) * of;
                let better = Size {
                    width: nearest(size.width, grid.width),
                    height: nearest(size.height, grid.height),
                };
                return Err(problem(
                    key,
                    format!(
                        "{size} is not a multiple of the backbone's grid of {grid}, over which the downsampler's windows are laid; write {better}, or loss.augmentations = 0"
                    ),
                ));
            }
            sizes.push((size, seen));
        }
        if config.stage == Stage::Two
            && let Some((size, _)) = sizes.iter().find(|(s, _)| s.width > config.stage2.high)
        {
            return Err(problem(
                "stage2.sizes",
                format!("{size} after rounding to the patch is more than stage2.high"),
            ));
        }
        let mut preparer = Self {
            config,
            data,
            backbone,
            wide,
            sizes,
            scales: Vec::new(),
            order: Mutex::new((u64::MAX, Vec::new())),
        };
        if config.upsampler == UpsamplerKind::Naf {
            preparer.check_naf(&problem)?;
            preparer.scales = preparer.channel_scales()?;
        }
        Ok(preparer)
    }

    /// Checks that NAF can make an output of the size of the target.
    fn check_naf(&self, problem: &dyn Fn(&str, String) -> TrainError) -> Result<(), TrainError> {
        let (guidance, seen) = self.first_size();
        let tokens = self.backbone.grid(seen);
        let mut output = guidance;
        if let Some(target) = self.config.stage1.target {
            let possible = self.backbone.size(target)?;
            if possible != target {
                let what = format!("the backbone takes {possible}: write that");
                return Err(problem("stage1.target", what));
            }
            output = self.backbone.grid(target);
        }
        let rows = |s: Size| (s.height, s.width);
        if Naf::accepts(rows(tokens), rows(output), rows(guidance)) {
            return Ok(());
        }
        Err(problem(
            "stage1.guidance",
            format!(
                "NAF is trained with a grid of at least 9x9 tokens, an output that is a multiple of it, and an image that is a multiple of that; the settings have {tokens}, {output} and {guidance}"
            ),
        ))
    }

    /// One over the standard deviation of each channel, so that all count alike.
    fn channel_scales(&self) -> Result<Vec<f32>, TrainError> {
        let (_, seen) = self.first_size();
        let mut tokens = Vec::new();
        for index in 0..MEASURED.min(self.data.len()) {
            let sample = self.photo(index)?;
            let features = self
                .backbone
                .kept_features(&sample.identity(), &sample.resized(seen)?)?;
            tokens.extend(features.tokens);
        }
        let (_, deviation) = statistics(&tokens, self.backbone.dim());
        Ok(deviation.iter().map(|s| 1.0 / s.max(1e-6)).collect())
    }

    /// A random projection of features for the loss.
    fn projection(&self, rng: &mut Rng) -> Projection {
        let mut projection =
            random_projection(self.backbone.dim(), self.config.loss.projection, rng);
        let rows = projection.values.chunks_exact_mut(projection.to);
        for (row, scale) in rows.zip(&self.scales) {
            row.iter_mut().for_each(|p| *p *= scale);
        }
        projection
    }

    /// Pixels along a side of the downsampler's windows.
    pub fn window(&self) -> usize {
        let (size, seen) = self.sizes[0];
        (size.width * self.backbone.patch() / seen.width).max(1)
    }

    /// The first size of the guidance, and that of the backbone there.
    pub fn first_size(&self) -> (Size, Size) {
        self.sizes[0]
    }

    /// Initializes a new upsampler with the method in the settings, from a few images. Errors name
    /// `path`.
    ///
    /// # Errors
    /// If no image can be read, the backbone fails, or this upsampler cannot be initialized so.
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
        let fitted = (FITTED_PIXELS / size.area()).clamp(1, FITTED);
        let most = match init {
            Init::Bilinear => fitted,
            _ => FITTED,
        };
        let (mut images, mut lr) = (Vec::new(), Vec::new());
        for index in 0..most.min(self.data.len()) {
            let sample = self.photo(index)?;
            let small = sample.resized(seen)?;
            lr.push(self.backbone.kept_features(&sample.identity(), &small)?);
            images.push(self.backbone.normalized(&sample.resized(size)?));
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
        let d = self.backbone.dim();
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

    /// Image `place` in the order of its epoch.
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

    fn photo(&self, index: usize) -> Result<Sample, TrainError> {
        let size = match self.config.stage {
            Stage::One => self.config.stage1.guidance,
            Stage::Two => square(self.config.stage2.high),
        };
        self.data.sample(index, size)
    }

    /// What step `step` needs, counted from 0.
    ///
    /// # Errors
    /// Where no image can be read, or the backbone fails.
    pub fn prepare(&self, step: u64) -> Result<HostBatch, TrainError> {
        let config = self.config;
        let mut rng = Rng::new(config.seed, Purpose::Step, step);
        let (size, seen) = self.sizes[rng.below(self.sizes.len())];
        let batch = config.run.batch_size as u64;
        let mut samples: Vec<Sample> = (step * batch..(step + 1) * batch)
            .map(|place| self.photo(self.image(place)))
            .collect::<Result<_, _>>()?;
        if config.data.horizontal_flip {
            for sample in &mut samples {
                if rng.uniform() < 0.5 {
                    sample.flip();
                }
            }
        }
        let windows = self.windows(samples.len(), size, &mut rng);
        let (mut photos, mut images) = (Vec::new(), Vec::new());
        let (mut lr, mut looked_at) = (Vec::new(), Vec::new());
        for sample in &samples {
            let guidance = sample.resized(size)?;
            let small = sample.resized(seen)?;
            lr.push(self.backbone.kept_features(&sample.identity(), &small)?);
            looked_at.push(self.backbone.normalized(&small));
            images.push(self.backbone.guidance(config.upsampler, &guidance));
            photos.push(guidance);
        }
        let of = (size.height, size.width);
        let cells: usize = lr.iter().map(|t| t.height * t.width).sum();
        let mut views = Vec::new();
        for _ in 0..config.augmentations() {
            let jitter = Jitter::random(&mut rng, config.jitter_range(), size.height, size.width);
            let lr = looked_at
                .iter()
                .map(|p| self.backbone.view(p, seen, &jitter, of));
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
                projection: random_projection(
                    self.backbone.dim(),
                    config.loss.projection,
                    &mut rng,
                ),
            });
        }
        let mut output = None;
        let target = match (config.stage, config.stage1.target, self.wide) {
            (Stage::One, Some(size), _) => {
                let mut values = Vec::new();
                let projection = self.projection(&mut rng);
                for sample in &samples {
                    let image = sample.resized(size)?;
                    let features = self.backbone.kept_features(&sample.identity(), &image)?;
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
                let projection = self.projection(&mut rng);
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
                let projection = self.projection(&mut rng);
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
        Ok(HostBatch {
            size,
            output,
            windows,
            images,
            lr,
            views,
            target,
        })
    }

    /// Random windows of outputs of `size`, if the settings have any.
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

    /// Parts of the images in high resolution, one for every view and at least one.
    fn crops(
        &self,
        samples: &[Sample],
        size: Size,
        seen: Size,
        rng: &mut Rng,
    ) -> Result<Vec<HostCrop>, TrainError> {
        let two = &self.config.stage2;
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
                    lr: self
                        .backbone
                        .features(self.backbone.normalized(&small), seen)?,
                    segmentations: match two.alpha > 0.0 {
                        true => sample.segmentations_of_part((x, y, side), two.high, &crop),
                        false => Vec::new(),
                    },
                    image: self.backbone.normalized(&crop),
                });
            }
            crops.push(HostCrop { region, parts });
        }
        Ok(crops)
    }
}
