//! The tables of the configuration file.

use std::{net::SocketAddr, path::PathBuf};

use loftup_runtime::backend::{self, CpuPrecision};
use serde::Deserialize;

use super::{HeadNames, JbuHeads, Track, Upsampler, Words, arrays, engine};
use crate::ros::Distro;

/// The configuration.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Bundle and engine.
    pub model: Model,
    /// TensorRT.
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
    /// Temperature sensors.
    #[serde(default)]
    pub thermal: Option<Thermal>,
    /// Restarts of stages that hang or keep failing.
    #[serde(default)]
    pub watchdog: Watchdog,
    /// Metrics over HTTP; off if missing.
    #[serde(default)]
    pub metrics: Option<MetricsServer>,
    /// Limits of regions.
    #[serde(default)]
    pub regions: Regions,
    /// Words to find; off if missing.
    #[serde(default)]
    pub words: Option<Words>,
    /// Tracked objects; off if missing.
    #[serde(default)]
    pub track: Option<Track>,
    /// Initial queries; if empty, the class map of the whole frame in slot 0.
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
    /// The head for class maps.
    pub head: String,
    /// The head for features at points; if missing, they are the upsampler's features.
    pub descriptors: Option<String>,
    /// The head for depth maps.
    pub depth: Option<String>,
    /// How features are upsampled to the resolution of the output.
    #[serde(default)]
    pub upsampler: Upsampler,
    /// The heads for a degradation step with `upsampler = "jbu"`.
    pub jbu: Option<JbuHeads>,
    /// `auto`, `tensorrt` or `tract`.
    #[serde(default)]
    pub backend: BackendName,
    /// Precision of the upsampler's matrix products on a CPU: `fp32`, `auto`, `int16`, `fp16`, `bf16` or `int8`.
    #[serde(default, deserialize_with = "engine::cpu_precision")]
    pub cpu_precision: CpuPrecision,
    /// Number of threads that compute tiles; 0 is one per core.
    #[serde(default)]
    pub threads: usize,
    /// Whether to measure the fastest tile size and, unless set, number of threads at first start.
    /// The result is kept in the user's cache directory.
    #[serde(default)]
    pub tune: bool,
    /// Columns and rows of a full-frame output.
    #[serde(deserialize_with = "arrays::list")]
    pub size: [usize; 2],
    /// Range of normalized colors, `[min, max]` per channel; if missing, the range of each image.
    #[serde(default, deserialize_with = "arrays::nested")]
    pub color_range: Option<[[f32; 2]; 3]>,
    /// NAF's normalization statistics are those of every n-th frame.
    #[serde(default = "one")]
    pub naf_statistics_interval: u32,
    /// The backbone runs on every n-th frame. In between, its features are reused, and only changed
    /// tiles of class maps are computed.
    #[serde(default = "one")]
    pub backbone_interval: u32,
    /// A pixel keeps its previous color until it changes by more than this many levels.
    #[serde(default)]
    pub noise_threshold: u8,
}

impl Model {
    /// The heads for features of the bundle's upsampler.
    pub fn heads(&self) -> HeadNames<'_> {
        HeadNames {
            classes: Some(&self.head),
            descriptors: self.descriptors.as_deref(),
            depth: self.depth.as_deref(),
            plain_features: true,
        }
    }

    /// The heads for features of JBU in degradation steps, if configured.
    pub fn jbu_heads(&self) -> Option<HeadNames<'_>> {
        let jbu = self.jbu.as_ref()?;
        Some(HeadNames {
            classes: jbu.head.as_deref(),
            descriptors: jbu.descriptors.as_deref(),
            depth: jbu.depth.as_deref(),
            plain_features: false,
        })
    }
}

fn one() -> u32 {
    1
}

/// The engine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendName {
    /// TensorRT if it works, else tract.
    #[default]
    Auto,
    /// TensorRT only.
    Tensorrt,
    /// tract only.
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
    /// Its kind.
    pub kind: SourceKind,
    /// A directory or glob of images, a recording, a video file or stream, or a camera device.
    pub path: Option<PathBuf>,
    /// GStreamer elements that output raw video.
    pub pipeline: Option<String>,
    /// Seed of the generated scene.
    #[serde(default)]
    pub seed: u64,
    /// Columns and rows of its images; others are rejected.
    #[serde(default, deserialize_with = "arrays::optional")]
    pub size: Option<[usize; 2]>,
    /// Images per second; if missing, the rate of a video file, or 10.
    pub rate_hz: Option<f64>,
    /// Whether to start over at the end.
    #[serde(default)]
    pub repeat: bool,
    /// Whether to apply the EXIF orientation of image files.
    #[serde(default = "defaults::yes")]
    pub exif_orientation: bool,
    /// A source without a frame for this long is reopened.
    #[serde(default = "defaults::source_timeout")]
    pub timeout_ms: u64,
    /// Name of the ROS 2 topic.
    pub topic: Option<String>,
    /// How images are sent on the topic.
    pub transport: Option<ImageTransport>,
    /// Endpoint of the zenoh router.
    pub endpoint: Option<String>,
    /// ROS domain ID.
    pub domain: Option<u32>,
    /// ROS 2 distribution of the other nodes.
    pub distro: Option<Distro>,
    /// Maximum number of waiting messages; the newest are kept.
    pub queue: Option<usize>,
}

/// How images are sent on a ROS 2 topic, as in `image_transport`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageTransport {
    /// `sensor_msgs/msg/Image`.
    Raw,
    /// `sensor_msgs/msg/CompressedImage`.
    Compressed,
}

impl Source {
    /// Whether its topic has compressed images; by default derived from the topic's name.
    pub fn is_compressed(&self) -> bool {
        let named = || {
            self.topic
                .as_ref()
                .is_some_and(|topic| topic.ends_with("/compressed"))
        };
        let transport = self.transport;
        transport.map_or_else(named, |t| t == ImageTransport::Compressed)
    }

    /// Images per second, for a source without its own rate.
    pub fn rate(&self) -> f64 {
        self.rate_hz.unwrap_or(10.0)
    }
}

/// Kind of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// Image files, in the order of their names.
    Images,
    /// A generated scene with a moving camera.
    Scenes,
    /// A file that a sink of kind `recording` wrote.
    Recording,
    /// A GStreamer pipeline in a separate process.
    Gstreamer,
    /// A video file or a stream, decoded by ffmpeg or GStreamer in a separate process.
    Video,
    /// A Video4Linux camera; needs the feature `v4l`.
    V4l,
    /// A ROS 2 topic; needs the feature `zenoh`.
    Ros2,
}

/// `[pipeline]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pipeline {
    /// Latency limit from capture to publication, in milliseconds.
    pub deadline_ms: u64,
    /// Maximum age of a frame in milliseconds; older frames are dropped.
    pub max_age_ms: u64,
    /// Length of the queues between stages: 1 or 2.
    pub queue: usize,
    /// Maximum frame rate; 0 is no limit.
    pub rate_hz: f64,
    /// Maximum CPU use of the process, in busy cores on average; 0 is no limit.
    pub max_cpus: f64,
}

impl Default for Pipeline {
    fn default() -> Self {
        Self {
            deadline_ms: 200,
            max_age_ms: 1000,
            queue: 1,
            rate_hz: 0.0,
            max_cpus: 0.0,
        }
    }
}

/// `[degrade]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Degrade {
    /// Consecutive missed deadlines before a step down.
    pub miss_limit: u32,
    /// Consecutive early outputs before a step up.
    pub recover_after: u32,
    /// An output is early if it takes less than this fraction of the deadline.
    pub early: f64,
    /// The steps. Each adds to those before it.
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

/// `[[degrade.step]]`: the settings that it changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Columns and rows of a full-frame output.
    #[serde(default, deserialize_with = "arrays::optional")]
    pub size: Option<[usize; 2]>,
    /// Skips maps of the whole frame.
    #[serde(default)]
    pub regions_only: bool,
    /// How features are upsampled to the resolution of the output.
    pub upsampler: Option<Upsampler>,
    /// Maximum frame rate.
    pub rate_hz: Option<f64>,
}

/// `[thermal]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thermal {
    /// Files with the temperature in thousandths of a degree; the hottest counts.
    #[serde(default = "defaults::zones")]
    pub zones: Vec<PathBuf>,
    /// Temperature at which the output degrades, in degrees Celsius.
    #[serde(default = "defaults::hot")]
    pub hot_c: f64,
    /// Temperature at which processing pauses, in degrees Celsius.
    #[serde(default = "defaults::critical")]
    pub critical_c: f64,
    /// A state ends this many degrees below its limit.
    #[serde(default = "defaults::hysteresis")]
    pub hysteresis_c: f64,
    /// Interval between two readings in milliseconds.
    #[serde(default = "defaults::thermal_period")]
    pub period_ms: u64,
    /// Interval between two steps down while it is hot, in milliseconds.
    #[serde(default = "defaults::heat_step")]
    pub step_ms: u64,
}

/// `[watchdog]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Watchdog {
    /// A stage that takes longer than this for one frame counts as hung, in milliseconds.
    pub hang_ms: u64,
    /// Time limit for opening and compiling the bundle, in milliseconds.
    pub start_ms: u64,
    /// More restarts than this within `window_s` end the program.
    pub max_restarts: u32,
    /// Window of `max_restarts` in seconds.
    pub window_s: u64,
    /// Consecutive failures after which the model is reopened.
    pub failures: u32,
    /// Time limit for finishing the frames in the pipeline at shutdown, in milliseconds.
    pub drain_ms: u64,
}

impl Default for Watchdog {
    fn default() -> Self {
        Self {
            hang_ms: 5000,
            start_ms: 600_000,
            max_restarts: 5,
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
    /// A loopback address.
    pub listen: SocketAddr,
}

/// `[regions]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Regions {
    /// Minimum area of a region, in output pixels.
    pub min_area_px: u32,
    /// Maximum number of regions per query.
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
    /// `[x, y, width, height]` in the camera image.
    #[serde(default, deserialize_with = "arrays::optional")]
    pub region: Option<[u16; 4]>,
    /// `[[x, y], ...]` in the camera image.
    #[serde(default, deserialize_with = "arrays::many")]
    pub points: Option<Vec<[u16; 2]>>,
}

/// Kind of output of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WantName {
    /// The class of each pixel.
    Classes,
    /// Connected regions.
    Regions,
    /// Features, two bytes per value.
    FeaturesF16,
    /// Features, one byte per value.
    FeaturesU8,
    /// The depth of each pixel.
    Depth,
    /// The tracked objects and their masks.
    Objects,
    /// The word of each pixel.
    Words,
}

/// `[[sink]]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sink {
    /// Its kind.
    pub kind: SinkKind,
    /// The device, file or directory.
    pub path: Option<PathBuf>,
    /// Baud rate of a serial line.
    #[serde(default = "defaults::baud")]
    pub baud: u32,
    /// Local address of a UDP socket.
    pub bind: Option<SocketAddr>,
    /// Remote address of a UDP socket.
    pub peer: Option<SocketAddr>,
    /// Endpoint of the zenoh router.
    pub endpoint: Option<String>,
    /// ROS domain ID.
    #[serde(default)]
    pub domain: u32,
    /// ROS 2 distribution of the other nodes.
    #[serde(default)]
    pub distro: Distro,
    /// Only every n-th output is written.
    #[serde(default = "defaults::one")]
    pub every: u64,
    /// Maximum number of images of this run; older ones are deleted. 0 keeps all.
    #[serde(default)]
    pub keep: u64,
    /// File size in MiB after which a new file begins; 0 is no limit.
    #[serde(default)]
    pub max_mib: u64,
    /// Length of its queue: 1 or 2.
    #[serde(default = "defaults::queue")]
    pub queue: usize,
}

/// Kind of a sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SinkKind {
    /// The wire format over a serial line.
    Serial,
    /// The wire format over UDP.
    Udp,
    /// Class maps as PNG files in a directory.
    Images,
    /// MCAP files for Foxglove and other viewers.
    Mcap,
    /// The camera images, for replay.
    Recording,
    /// Outputs for ROS 2 subscribers; needs the feature `zenoh`.
    Zenoh,
}

mod defaults {
    use std::path::PathBuf;

    pub fn yes() -> bool {
        true
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
