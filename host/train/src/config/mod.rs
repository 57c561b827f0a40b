//! `train.toml`.

mod check;

use std::path::PathBuf;

use loftup_bundle::Size;
use serde::{Deserialize, Serialize, de};

use crate::{model::RangeOver, optim::Method};

/// What to train, on what, and how. Everything that is left out is as published (LoftUp, arXiv
/// 2504.14032); `docs/training.md` lists it all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The bundle whose backbone is trained for.
    pub bundle: PathBuf,
    /// The folder for checkpoints, logs and the trained weights.
    pub out: PathBuf,
    /// 1: mask-refined bicubic pseudo ground truth. 2: self-distillation, from a checkpoint of
    /// stage 1.
    pub stage: Stage,
    /// Seed of every random draw.
    #[serde(default)]
    pub seed: u64,
    /// A checkpoint to start from: of a training here, or the authors'. Without, random weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<PathBuf>,
    /// Which weights to begin with, without `start`. What `interpolating` holds is known again in
    /// weights to start from.
    #[serde(default)]
    pub begin: Begin,
    /// The pictures.
    pub data: Data,
    /// What happens over the steps.
    #[serde(default)]
    pub run: Run,
    /// The optimiser. What is left out depends on the stage.
    #[serde(default)]
    pub optimizer: OptimizerSettings,
    /// The loss of both stages.
    #[serde(default)]
    pub loss: Loss,
    /// Stage 1 alone.
    #[serde(default)]
    pub stage1: Stage1,
    /// Stage 2 alone.
    #[serde(default)]
    pub stage2: Stage2,
    /// Where features of the backbone are kept.
    #[serde(default)]
    pub cache: Cache,
}

/// Which of the two stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Mask-refined bicubic pseudo ground truth.
    One,
    /// Self-distillation.
    Two,
}

/// Weights to begin with, where there is no checkpoint to start from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Begin {
    /// Random ones, as published.
    #[default]
    Random,
    /// The last normalisation begins with the mean and deviation of each of the backbone's
    /// channels instead of 0 and 1. Not published; where the backbone's features are not
    /// normalised it saves the steps in which only their scale is learnt.
    Fitted,
    /// The first layer interpolates: [`crate::model::interpolating`]. Not published; it saves the
    /// thousands of steps in which only that is learnt. What carries the position is not trained,
    /// also where a `start` goes on from such a training.
    Interpolating,
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

/// A size, written `"WxH"`.
pub(crate) mod size {
    use super::*;

    pub fn serialize<S: serde::Serializer>(size: &Size, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(size)
    }

    pub fn deserialize<'de, D: de::Deserializer<'de>>(d: D) -> Result<Size, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}

/// A size or nothing, written `"WxH"`.
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

/// The pictures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// Folders, pictures and tar archives.
    pub paths: Vec<PathBuf>,
    /// Use only the first so many pictures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Cut out the middle in the shape that is wanted, or distort the whole picture to it.
    #[serde(default = "yes")]
    pub crop: bool,
    /// Turn pictures as their EXIF orientation says. Masks are taken as stored.
    #[serde(default = "yes")]
    pub exif_orientation: bool,
    /// Masks kept of each picture.
    #[serde(default = "most_masks")]
    pub most_masks: usize,
    /// Regions of pictures without masks.
    #[serde(default)]
    pub segmentation: Segments,
}

fn yes() -> bool {
    true
}

fn most_masks() -> usize {
    150
}

/// The segmentation of pictures without masks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Segments {
    /// Deviation of the blur beforehand, in pixels of the guidance.
    pub sigma: f32,
    /// Larger makes larger regions.
    pub scale: f32,
    /// The least region, as a part of the picture.
    pub least: f32,
}

impl Default for Segments {
    fn default() -> Self {
        Self {
            sigma: 0.8,
            scale: 150.0,
            least: 0.002,
        }
    }
}

/// What happens over the steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Run {
    /// Pictures per step.
    pub batch: usize,
    /// Times that every picture is seen; ignored where `steps` is given.
    pub epochs: f64,
    /// Steps of the whole training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Steps between entries in the log of losses.
    pub log_every: u64,
    /// Steps between pictures of the features; 0 for none.
    pub picture_every: u64,
    /// The picture whose features are shown; without, the first of the data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub picture: Option<PathBuf>,
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    pub device: String,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            batch: 8,
            epochs: 1.0,
            steps: None,
            checkpoint_every: 500,
            log_every: 10,
            picture_every: 500,
            picture: None,
            device: "auto".into(),
        }
    }
}

/// The optimiser.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerSettings {
    /// `nadam` or `adamw`. Published: NAdam in stage 1, AdamW in stage 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
    /// Learning rate. Published: 1e-4 in stage 1, 1e-3 in stage 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Weight decay. Published: 0 in stage 1, 0.01 in stage 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
    /// Steps over which the rate rises from 0; published without.
    pub warmup: u64,
    /// Whether the rate falls to 0 over the training, along half a cosine; published without.
    pub cosine: bool,
}

/// The loss of both stages.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Loss {
    /// Views of each picture; 0 for no multi-view reconstruction. Published: 4 in stage 1, 2 in
    /// stage 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitters: Option<usize>,
    /// Pixels by which a view may be shifted.
    pub pad: usize,
    /// How much a view may be enlarged, beyond 1.
    pub zoom: f32,
    /// Whether half of the views are mirrored.
    pub mirror: bool,
    /// Channels that features are projected to; 0 for no projection.
    pub projection: usize,
    /// Part of the downsampler's windows whose logits are dropped.
    pub dropout: f32,
    /// Weight of the total variation. Published: 0.001 in stage 1, 0.05 in stage 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variation: Option<f64>,
    /// Steps in which gradients are clipped.
    pub clipped_steps: u64,
    /// The norm that they are clipped to.
    pub clip: f64,
    /// Over what the colours of the guidance are scaled: `batch` or `image`.
    pub range: RangeOver,
}

impl Default for Loss {
    fn default() -> Self {
        Self {
            jitters: None,
            pad: 8,
            zoom: 0.1,
            mirror: true,
            projection: 64,
            dropout: 0.2,
            variation: None,
            clipped_steps: 10,
            clip: 1e-4,
            range: RangeOver::Batch,
        }
    }
}

/// Stage 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Stage1 {
    /// Size of the guidance and of the answer.
    #[serde(with = "size")]
    pub guidance: Size,
    /// Size at which the backbone looks, where it takes any; without, that of the guidance.
    #[serde(with = "optional_size", skip_serializing_if = "Option::is_none")]
    pub backbone: Option<Size>,
    /// How strongly features are drawn together inside a mask.
    pub alpha: f32,
    /// How much small regions count: a pixel counts in proportion to the area of its region to the
    /// power of minus this. 0, as published, lets every pixel count alike, so that large regions
    /// decide; 1 lets every region count alike.
    pub balance: f32,
}

impl Default for Stage1 {
    fn default() -> Self {
        Self {
            guidance: Size {
                width: 224,
                height: 224,
            },
            backbone: None,
            alpha: 0.8,
            balance: 0.0,
        }
    }
}

/// Stage 2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Stage2 {
    /// Side of the picture that crops are taken from.
    pub high: usize,
    /// Sides at which the student sees the picture; each is rounded to a multiple of the patch.
    pub sizes: Vec<usize>,
    /// Crops begin at multiples of so many pixels.
    pub align: usize,
    /// How strongly the teacher's features are drawn together inside a mask.
    pub alpha: f32,
    /// Weight of the affinity loss.
    pub affinity: f64,
    /// Part of the region that is left out at each border.
    pub border: f32,
    /// How much the teacher keeps of itself.
    pub keep: f64,
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
            keep: 0.99,
            update_every: 10,
        }
    }
}

/// Where features of the backbone are kept between epochs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cache {
    /// The folder; without, `cache` in the output folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
    /// The most that it may hold, in GiB; 0 for no cache.
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
