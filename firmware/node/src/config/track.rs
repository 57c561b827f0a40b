//! `[words]`, `[track]` and `[[track.object]]`.

use std::path::PathBuf;

use loftup_runtime::track::TrackOptions;
use serde::Deserialize;

use super::arrays;

/// `[words]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Words {
    /// The initial words: a head of the bundle, or a file in `directory`. If missing, there are none until
    /// a command sets them.
    pub head: Option<String>,
    /// Directory of files `NAME.safetensors` with other words.
    pub directory: Option<PathBuf>,
}

/// `[track]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Track {
    /// Columns and rows of the grid on which objects are tracked.
    #[serde(deserialize_with = "arrays::list")]
    pub grid: [usize; 2],
    /// How features are upsampled to the grid.
    pub upsampler: Upsampler,
    /// Maximum motion of an object between frames, in cells.
    pub radius: usize,
    /// Number of previous frames to propagate labels from, in addition to the one in which objects were started.
    pub last_frames: usize,
    /// Number of most similar cells whose labels are averaged.
    pub top_k: usize,
    /// Temperature of the weights.
    pub temperature: f32,
    /// An object whose soft label is nowhere above this is not visible.
    pub min_label: f32,
    /// Maximum number of objects at a time.
    pub max_objects: u8,
    /// Number of threads.
    pub threads: usize,
    /// Objects to start in the first frame.
    pub object: Vec<ObjectEntry>,
}

impl Default for Track {
    /// The radius is the one in DINO's protocol, in proportion to the grid.
    fn default() -> Self {
        let options = TrackOptions::default();
        Self {
            grid: [56, 56],
            upsampler: Upsampler::Jbu,
            radius: 6,
            last_frames: options.last_frames,
            top_k: options.top_k,
            temperature: options.temperature,
            min_label: options.min_label,
            max_objects: 10,
            threads: 1,
            object: Vec::new(),
        }
    }
}

impl Track {
    /// The options of the tracker.
    pub fn options(&self) -> TrackOptions {
        TrackOptions {
            last_frames: self.last_frames,
            radius: self.radius,
            top_k: self.top_k,
            temperature: self.temperature,
            min_label: self.min_label,
            max_objects: self.max_objects.into(),
            threads: self.threads,
            ..TrackOptions::default()
        }
    }
}

/// `[[track.object]]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectEntry {
    /// Its number, from 1.
    pub object: u8,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// `[x, y, width, height]` in the camera image: starts with everything inside.
    #[serde(default, deserialize_with = "arrays::optional")]
    pub region: Option<[u16; 4]>,
    /// `[x, y]` in the camera image: starts with the connected pixels that are similar.
    #[serde(default, deserialize_with = "arrays::optional")]
    pub point: Option<[u16; 2]>,
}

/// How features are upsampled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Upsampler {
    /// The upsampler of the bundle.
    #[default]
    Loftup,
    /// Joint bilateral upsampling.
    Jbu,
}

impl Upsampler {
    /// Its name in the configuration and in logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Loftup => "loftup",
            Self::Jbu => "jbu",
        }
    }
}
