//! The tables of the configuration file.

use std::{net::SocketAddr, path::PathBuf};

use loftup_runtime::backend;
use serde::Deserialize;

use super::exact;

/// All of it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The bundle and its engine.
    pub model: Model,
    /// TensorRT settings.
    #[serde(default)]
    pub tensorrt: super::TensorRt,
    /// Image source.
    pub source: Source,
    /// Queues and deadlines.
    #[serde(default)]
    pub pipeline: Pipeline,
    /// Graceful degradation.
    #[serde(default)]
    pub degrade: Degrade,
    /// Thermometers.
    #[serde(default)]
    pub thermal: Option<Thermal>,
    /// What happens to what hangs.
    #[serde(default)]
    pub watchdog: Watchdog,
    /// Metrics over HTTP; off where missing.
    #[serde(default)]
    pub metrics: Option<MetricsServer>,
    /// Which connected regions are reported.
    #[serde(default)]
    pub regions: Regions,
    /// What is asked of every frame from the start. Nothing stands for the class map of the frame
    /// in slot 0.
    #[serde(default)]
    pub query: Vec<QueryEntry>,
    /// Output sinks.
    #[serde(default)]
    pub sink: Vec<Sink>,
}

/// `[model]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// The bundle.
    pub bundle: PathBuf,
    /// Its head of kind classes.
    pub head: String,
    /// Its head that describes points; without, features of the upsampler are reported.
    pub descriptors: Option<String>,
    /// `auto`, `tensorrt` or `tract`.
    #[serde(default)]
    pub backend: BackendName,
    /// Threads that compute tiles; 0 is one for each core.
    #[serde(default)]
    pub threads: usize,
    /// Whether the fastest tile size and, unless given, number of threads are measured at the
    /// first start and kept in the user's cache directory.
    #[serde(default)]
    pub tune: bool,
    /// Columns and rows of a whole output.
    #[serde(deserialize_with = "exact::list")]
    pub size: [usize; 2],
    /// The range of colors of all images, normalized, `[min, max]` for each channel; without,
    /// each image has its own.
    #[serde(default, deserialize_with = "exact::nested")]
    pub color_range: Option<[[f32; 2]; 3]>,
    /// The backbone runs on every n-th frame; in between its features are reused, and of class
    /// maps only the tiles that changed are computed.
    #[serde(default = "one")]
    pub backbone_interval: u32,
    /// A pixel keeps its previous color until it changes by more than this many levels.
    #[serde(default)]
    pub noise_threshold: u8,
}

fn one() -> u32 {
    1
}

/// An engine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendName {
    /// TensorRT where it works, else tract.
    #[default]
    Auto,
    /// TensorRT alone.
    Tensorrt,
    /// tract alone.
    Tract,
}

impl From<BackendName> for backend::Choice {
    fn from(name: BackendName) -> Self {
        match name {
            BackendName::Auto => Self::Auto,
            BackendName::Tensorrt => Self::TensorRt,
            BackendName::Tract => Self::Tract,
        }
    }
}

/// `[source]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// What it is.
    pub kind: SourceKind,
    /// A folder or glob of images, a recording, or a camera's device.
    pub path: Option<PathBuf>,
    /// Elements of GStreamer that give raw video.
    pub pipeline: Option<String>,
    /// Number of the generated scene.
    #[serde(default)]
    pub seed: u64,
    /// Columns and rows of its images; others are refused.
    #[serde(default, deserialize_with = "exact::optional")]
    pub size: Option<[usize; 2]>,
    /// Images per second.
    #[serde(default = "defaults::source_rate")]
    pub rate_hz: f64,
    /// Whether it begins again at its end.
    #[serde(default)]
    pub repeat: bool,
    /// Whether image files are turned as their EXIF orientation says.
    #[serde(default = "defaults::yes")]
    pub exif_orientation: bool,
    /// A source without an image for this long is reopened.
    #[serde(default = "defaults::source_timeout")]
    pub timeout_ms: u64,
}

/// Kind of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// Image files in the order of their names.
    Images,
    /// A made-up scene and a camera that moves through it.
    Scenes,
    /// What a sink of kind `recording` wrote.
    Recording,
    /// A pipeline of GStreamer, in a process of its own.
    Gstreamer,
    /// A camera of Video4Linux; needs the feature `v4l`.
    V4l,
}

/// `[pipeline]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pipeline {
    /// From picture to answer.
    pub deadline_ms: u64,
    /// A frame older than this is not worked on any more.
    pub max_age_ms: u64,
    /// Frames between two stages: 1 or 2.
    pub queue: usize,
    /// Most frames a second that are processed; 0 is all.
    pub rate_hz: f64,
}

impl Default for Pipeline {
    fn default() -> Self {
        Self {
            deadline_ms: 200,
            max_age_ms: 1000,
            queue: 1,
            rate_hz: 0.0,
        }
    }
}

/// `[degrade]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Degrade {
    /// Missed deadlines in a row before a step down.
    pub miss_limit: u32,
    /// Early outputs in a row before a step up.
    pub recover_after: u32,
    /// An output is early that takes less than this part of the deadline.
    pub early: f64,
    /// The steps, each in addition to those before it.
    pub step: Vec<Step>,
}

impl Default for Degrade {
    fn default() -> Self {
        Self {
            miss_limit: 5,
            recover_after: 50,
            early: 0.6,
            step: Vec::new(),
        }
    }
}

/// `[[degrade.step]]`: what changes on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Columns and rows of a whole output.
    #[serde(default, deserialize_with = "exact::optional")]
    pub size: Option<[usize; 2]>,
    /// No class map of the whole frame any more.
    #[serde(default)]
    pub regions_only: bool,
    /// Most frames a second that are processed.
    pub rate_hz: Option<f64>,
}

/// `[thermal]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thermal {
    /// Files with thousandths of a degree; the hottest counts.
    #[serde(default = "defaults::zones")]
    pub zones: Vec<PathBuf>,
    /// At this temperature the output degrades, degrees Celsius.
    #[serde(default = "defaults::hot")]
    pub hot_c: f64,
    /// At this temperature processing pauses.
    #[serde(default = "defaults::critical")]
    pub critical_c: f64,
    /// How far below its limit a state ends.
    #[serde(default = "defaults::hysteresis")]
    pub hysteresis_c: f64,
    /// Between two readings.
    #[serde(default = "defaults::thermal_period")]
    pub period_ms: u64,
    /// Between two steps down while it is hot.
    #[serde(default = "defaults::heat_step")]
    pub step_ms: u64,
}

/// `[watchdog]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Watchdog {
    /// A stage that works on one frame for so long hangs.
    pub hang_ms: u64,
    /// The longest that opening and compiling the bundle may take.
    pub start_ms: u64,
    /// More restarts than this within `window_s` end the program.
    pub most_restarts: u32,
    /// See `most_restarts`.
    pub window_s: u64,
    /// Failures of a stage in a row after which its model is started again.
    pub failures: u32,
    /// The longest that frames on their way are waited for at the end.
    pub drain_ms: u64,
}

impl Default for Watchdog {
    fn default() -> Self {
        Self {
            hang_ms: 5000,
            start_ms: 600_000,
            most_restarts: 5,
            window_s: 60,
            failures: 10,
            drain_ms: 3000,
        }
    }
}

/// `[metrics]`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsServer {
    /// A local address.
    pub listen: SocketAddr,
}

/// `[regions]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Regions {
    /// Smallest region reported, in pixels of the output.
    pub min_area_px: u32,
    /// Most regions reported.
    pub max_regions: usize,
}

impl Default for Regions {
    fn default() -> Self {
        Self {
            min_area_px: 16,
            max_regions: 64,
        }
    }
}

/// `[[query]]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryEntry {
    /// 0 to 7.
    pub slot: u8,
    /// Kind of output.
    pub want: WantName,
    /// `[x, y, width, height]` in the camera's image.
    #[serde(default, deserialize_with = "exact::optional")]
    pub region: Option<[u16; 4]>,
    /// `[[x, y], ...]` in the camera's image.
    #[serde(default, deserialize_with = "exact::many")]
    pub points: Option<Vec<[u16; 2]>>,
}

/// What a query tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WantName {
    /// The class of each pixel.
    Classes,
    /// Connected areas.
    Regions,
    /// Features, two bytes a value.
    FeaturesF16,
    /// Features, one byte a value.
    FeaturesU8,
}

/// `[[sink]]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sink {
    /// What it is.
    pub kind: SinkKind,
    /// The device, file or folder.
    pub path: Option<PathBuf>,
    /// Speed of a serial line.
    #[serde(default = "defaults::baud")]
    pub baud: u32,
    /// Local address of a UDP socket.
    pub bind: Option<SocketAddr>,
    /// The other side of a UDP socket.
    pub peer: Option<SocketAddr>,
    /// Where zenoh's router is.
    pub endpoint: Option<String>,
    /// Number of the ROS domain.
    #[serde(default)]
    pub domain: u32,
    /// Only every n-th output.
    #[serde(default = "defaults::one")]
    pub every: u64,
    /// Most images of this start kept in a folder; older ones are deleted. 0 keeps all.
    #[serde(default)]
    pub keep: u64,
    /// Size after which a file ends and the next begins; 0 is no limit.
    #[serde(default)]
    pub max_mib: u64,
    /// Outputs waiting for it: 1 or 2.
    #[serde(default = "defaults::queue")]
    pub queue: usize,
}

/// Kind of a sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SinkKind {
    /// A serial line, `docs/wire-format.md`.
    Serial,
    /// The same over UDP.
    Udp,
    /// PNG files in a folder.
    Pictures,
    /// A file for Foxglove and other viewers.
    Mcap,
    /// The camera's images, for replay.
    Recording,
    /// ZenohSink for subscribers of ROS 2 through zenoh; needs the feature `zenoh`.
    Zenoh,
}

mod defaults {
    use std::path::PathBuf;

    pub fn yes() -> bool {
        true
    }
    pub fn source_rate() -> f64 {
        10.0
    }
    pub fn source_timeout() -> u64 {
        2000
    }
    pub fn zones() -> Vec<PathBuf> {
        vec!["/sys/class/thermal/thermal_zone0/temp".into()]
    }
    pub fn hot() -> f64 {
        80.0
    }
    pub fn critical() -> f64 {
        95.0
    }
    pub fn hysteresis() -> f64 {
        5.0
    }
    pub fn thermal_period() -> u64 {
        1000
    }
    pub fn heat_step() -> u64 {
        10_000
    }
    pub fn baud() -> u32 {
        921_600
    }
    pub fn one() -> u64 {
        1
    }
    pub fn queue() -> usize {
        1
    }
}
