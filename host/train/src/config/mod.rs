//! `train.toml`.

mod check;
mod renamed;
mod segmentations;

use std::path::PathBuf;

use loftup_bundle::{Size, UpsamplerKind};
use serde::{Deserialize, Serialize, de};

use crate::{model::RangeOver, optim::Method};

pub use crate::regions::{ColorSpace, Segmentation};
pub use segmentations::Segmentations;

/// The settings of a training. Defaults are as published (LoftUp, arXiv 2504.14032);
/// `docs/training.md` lists all settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The bundle with the backbone.
    pub bundle: PathBuf,
    /// The directory for checkpoints, logs and the trained weights.
    pub out: PathBuf,
    /// 1: mask-refined bicubic pseudo ground truth. 2: self-distillation, from a checkpoint of
    /// stage 1.
    pub stage: Stage,
    /// The upsampler to train: `loftup`, for this backbone, or `naf`, for any backbone.
    #[serde(default)]
    pub upsampler: UpsamplerKind,
    /// Seed of all random numbers.
    #[serde(default)]
    pub seed: u64,
    /// Initial weights: a checkpoint of an earlier training, or the authors' files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<PathBuf>,
    /// Initialization if `start` is not given. Channels frozen by `bilinear` are also recognized in the
    /// weights of `start`.
    #[serde(default)]
    pub init: Init,
    /// Additional backbones to train NAF on; each step uses one of all backbones at random.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backbones: Vec<FurtherBackbone>,
    /// The images.
    pub data: Data,
    /// Length of the training, checkpoints and logs.
    #[serde(default)]
    pub run: Run,
    /// The optimizer. Defaults depend on the stage.
    #[serde(default)]
    pub optimizer: OptimizerSettings,
    /// The loss of both stages.
    #[serde(default)]
    pub loss: Loss,
    /// Settings of stage 1.
    #[serde(default)]
    pub stage1: Stage1,
    /// Settings of stage 2.
    #[serde(default)]
    pub stage2: Stage2,
    /// Cache of the backbone's features.
    #[serde(default)]
    pub cache: Cache,
    /// Distillation: stage 1 with the output of another bundle as its target. Not published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distillation: Option<Distillation>,
}

/// The source of a distillation's target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distillation {
    /// The bundle whose LoftUp is distilled.
    pub bundle: PathBuf,
    /// File with the projection of its output to the channels of this backbone
    /// ([`crate::distillation::PrincipalChannels`]).
    pub projection: PathBuf,
}

/// An additional backbone, or the same one at other sizes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FurtherBackbone {
    /// The bundle with the backbone.
    pub bundle: PathBuf,
    /// Size of the guidance; by default as in stage 1.
    #[serde(
        default,
        with = "optional_size",
        skip_serializing_if = "Option::is_none"
    )]
    pub guidance: Option<Size>,
    /// Same as [`Stage1::backbone`].
    #[serde(
        default,
        with = "optional_size",
        skip_serializing_if = "Option::is_none"
    )]
    pub backbone: Option<Size>,
    /// Same as [`Stage1::target`].
    #[serde(
        default,
        with = "optional_size",
        skip_serializing_if = "Option::is_none"
    )]
    pub target: Option<Size>,
}

/// The training stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Mask-refined bicubic pseudo ground truth.
    One,
    /// Self-distillation.
    Two,
}

/// How the weights are initialized without a checkpoint to start from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Init {
    /// Random, as published.
    #[default]
    Random,
    /// The last normalization starts with the mean and standard deviation of each of the backbone's
    /// channels instead of 0 and 1. Not published; for backbones whose features are not normalized,
    /// it saves the steps that only learn their scale.
    Calibrated,
    /// The first layer starts as bilinear interpolation: [`crate::model::bilinear_init`]. Not published;
    /// it saves the thousands of steps that only learn this. The positional channels are frozen, also
    /// in a later training that starts from such weights.
    Bilinear,
    /// Same as `bilinear`, but the first layer also compares colors, so that the upsampler starts as
    /// joint bilateral upsampling. Not published.
    Bilateral,
}

impl Serialize for Stage {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u8(match self {
            Self::One => 1,
            Self::Two => 2,
        })
    }
}

impl<'de> Deserialize<'de> for Stage {
    fn deserialize<D: de::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        match i64::deserialize(d)? {
            1 => Ok(Self::One),
            2 => Ok(Self::Two),
            other => Err(de::Error::custom(format!("stage {other}: write 1 or 2"))),
        }
    }
}

/// Serialization of a size as `"WxH"`.
pub(crate) mod size {
    use super::*;

    pub fn serialize<S: serde::Serializer>(size: &Size, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(size)
    }

    pub fn deserialize<'de, D: de::Deserializer<'de>>(d: D) -> Result<Size, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}

/// Serialization of an optional size as `"WxH"`.
pub(crate) mod optional_size {
    use super::*;

    pub fn serialize<S: serde::Serializer>(size: &Option<Size>, s: S) -> Result<S::Ok, S::Error> {
        match size {
            Some(size) => s.collect_str(size),
            None => s.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: de::Deserializer<'de>>(d: D) -> Result<Option<Size>, D::Error> {
        super::size::deserialize(d).map(Some)
    }
}

/// The images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// Directories, images and tar archives.
    pub paths: Vec<PathBuf>,
    /// Maximum number of images, from the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Whether half of the images are flipped horizontally, at random. Published: no.
    #[serde(default)]
    pub horizontal_flip: bool,
    /// Whether images are center-cropped to the aspect ratio, or stretched.
    #[serde(default = "yes")]
    pub crop: bool,
    /// Whether EXIF orientation is applied to images. Masks are used as stored.
    #[serde(default = "yes")]
    pub exif_orientation: bool,
    /// Maximum number of masks per image.
    #[serde(default = "max_masks")]
    pub max_masks: usize,
    /// Segmentations for images without masks: a table, or an array of tables, whose refined targets
    /// are averaged. Published: one.
    #[serde(default)]
    pub segmentation: Segmentations,
}

fn yes() -> bool {
    true
}

fn max_masks() -> usize {
    150
}

/// Length of the training, checkpoints and logs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Run {
    /// Images per step.
    pub batch_size: usize,
    /// Passes over the data; ignored if `steps` is given.
    pub epochs: f64,
    /// Total number of steps; 0 only writes the initial weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Steps between entries in the log of losses.
    pub log_every: u64,
    /// Steps between visualizations of the features; 0 for none.
    pub preview_every: u64,
    /// The image whose features are visualized; by default the first of the data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preview_image: Option<PathBuf>,
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    pub device: String,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            batch_size: 8,
            epochs: 1.0,
            steps: None,
            checkpoint_every: 500,
            log_every: 10,
            preview_every: 500,
            preview_image: None,
            device: "auto".into(),
        }
    }
}

/// The optimizer.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerSettings {
    /// `nadam` or `adamw`. Published: NAdam in stage 1, AdamW in stage 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
    /// Learning rate. Published: 1e-4 in stage 1, 1e-3 in stage 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// Weight decay. Published: 0 in stage 1, 0.01 in stage 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
    /// Warmup steps of the learning rate. Published: 0.
    pub warmup: u64,
    /// Whether the learning rate decays to 0 along a cosine. Published: no.
    pub cosine: bool,
    /// Whether batch normalization uses the initial running statistics instead of batch statistics.
    /// Published: no. Statistics of small batches are noisy, and those of windows differ from those of
    /// whole images.
    pub freeze_batch_norm: bool,
}

/// The loss of both stages.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Loss {
    /// Number of views of each image; 0 for no multi-view reconstruction. Published: 4 in stage 1, 2 in
    /// stage 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub augmentations: Option<usize>,
    /// Maximum shift of a view in pixels.
    pub pad: usize,
    /// Maximum zoom of a view beyond 1.
    pub zoom: f32,
    /// Whether half of the views are flipped horizontally.
    pub mirror: bool,
    /// Number of channels that features are projected to; 0 for no projection.
    pub projection: usize,
    /// Fraction of the downsampler's windows whose logits are dropped.
    pub dropout: f32,
    /// Weight of the total variation loss. Published: 0.001 in stage 1, 0.05 in stage 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tv_weight: Option<f64>,
    /// Number of steps at the start in which gradients are clipped.
    pub clipped_steps: u64,
    /// Maximum norm of the gradients in these steps.
    pub clip: f64,
    /// Scope of the min-max scaling of the guidance's colors: `batch` or `image`.
    pub range: RangeOver,
}

impl Default for Loss {
    fn default() -> Self {
        Self {
            augmentations: None,
            pad: 8,
            zoom: 0.1,
            mirror: true,
            projection: 64,
            dropout: 0.2,
            tv_weight: None,
            clipped_steps: 10,
            clip: 1e-4,
            range: RangeOver::Batch,
        }
    }
}

/// How features are upsampled for the target of stage 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Upsampling {
    /// Bicubic interpolation, as published.
    #[default]
    Bicubic,
    /// Bilinear interpolation. Not published.
    Bilinear,
    /// Joint bilateral upsampling ([`loftup_runtime::jbu`]). Not published.
    Jbu,
}

/// Stage 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Stage1 {
    /// Size of the guidance and of the output.
    #[serde(with = "size")]
    pub guidance: Size,
    /// Size of a random window of the output that a step computes, at a different position in each
    /// image; by default the whole output. The cost of a step is proportional to its area, so smaller
    /// windows allow larger batches. Not published.
    #[serde(with = "optional_size", skip_serializing_if = "Option::is_none")]
    pub window: Option<Size>,
    /// Input size of the backbone, if it accepts any size; by default the size of the guidance.
    #[serde(with = "optional_size", skip_serializing_if = "Option::is_none")]
    pub backbone: Option<Size>,
    /// With `upsampler = "naf"`: input size of the backbone for the target, which is the backbone's
    /// features at this size; the output has the size of their grid. If not given, the target is the
    /// pseudo ground truth, as for LoftUp. Not published.
    #[serde(with = "optional_size", skip_serializing_if = "Option::is_none")]
    pub target: Option<Size>,
    /// How the backbone's features are upsampled for the target, before they are averaged within
    /// masks. Published: bicubic.
    pub upsampling: Upsampling,
    /// How strongly features are averaged within each mask, 0 to 1.
    pub alpha: f32,
    /// Weighting of small regions: a pixel's weight is its region's area to the power of minus this
    /// value. 0, as published, weights all pixels equally; 1 weights all regions equally.
    pub area_weighting: f32,
    /// Weight of the squared error of features. Published: 1.
    pub mse_weight: f64,
    /// Maximum factor by which a step of NAF scales the coordinates of the rotary encoding. The factor is
    /// log-uniform between its inverse and this value; 1 disables scaling.
    #[serde(skip_serializing_if = "is_one")]
    pub rescale_coords: f32,
    /// With `upsampler = "naf"`: learn from synthetic features instead of a backbone's. Not published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub synthetic: Option<Synthetic>,
    /// Weight of gradient matching: the squared error of differences between pixels. Published: 0.
    /// It makes the output of a short training sharper.
    pub gradient_weight: f64,
}

impl Default for Stage1 {
    fn default() -> Self {
        Self {
            guidance: Size {
                width: 224,
                height: 224,
            },
            window: None,
            backbone: None,
            target: None,
            upsampling: Upsampling::Bicubic,
            alpha: 0.8,
            area_weighting: 0.0,
            rescale_coords: 1.0,
            synthetic: None,
            mse_weight: 1.0,
            gradient_weight: 0.0,
        }
    }
}

/// Synthetic features: constant on the regions of the image, with random values. The upsampler sees
/// their means over patches, blurred and with noise, and learns to restore them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Synthetic {
    /// Number of channels, a multiple of 4.
    pub channels: usize,
    /// Rows and columns of tokens of the random crop that a step computes of each image; at most as many as the grid
    /// has. The cost of a step is proportional to its area.
    pub crop: usize,
    /// Maximum standard deviation of the blur in tokens, 0.1 or more.
    pub blur: f32,
    /// Maximum standard deviation of the noise, relative to that of the tokens.
    pub noise: f32,
}

impl Default for Synthetic {
    fn default() -> Self {
        Self {
            channels: 64,
            crop: 10,
            blur: 1.2,
            noise: 0.5,
        }
    }
}

fn is_one(x: &f32) -> bool {
    *x == 1.0
}

/// Stage 2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Stage2 {
    /// Side of the image that the teacher's crops are taken from, in pixels.
    pub high: usize,
    /// Sides of the student's input image in pixels; each is rounded to a multiple of the patch size.
    pub sizes: Vec<usize>,
    /// Crops begin at multiples of this many pixels.
    pub align: usize,
    /// How strongly the teacher's features are averaged within each mask, 0 to 1.
    pub alpha: f32,
    /// Weight of the affinity loss.
    pub affinity: f64,
    /// Fraction of the region that is ignored at each border.
    pub border: f32,
    /// Decay of the teacher's exponential moving average.
    pub ema_decay: f64,
    /// Steps between updates of the teacher.
    pub update_every: u64,
}

impl Default for Stage2 {
    fn default() -> Self {
        Self {
            high: 896,
            sizes: vec![224, 336, 448, 518],
            align: 16,
            alpha: 0.5,
            affinity: 20.0,
            border: 0.1,
            ema_decay: 0.99,
            update_every: 10,
        }
    }
}

/// Cache of the backbone's features between epochs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cache {
    /// The directory; by default `cache` in the output directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
    /// Maximum size in GiB; 0 for no cache.
    pub gib: f64,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            folder: None,
            gib: 10.0,
        }
    }
}
