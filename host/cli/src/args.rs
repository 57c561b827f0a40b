//! Arguments shared by several commands.

mod builtin;
mod camera;
mod track;

use std::{
    num::{NonZeroU64, NonZeroUsize},
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use anyhow::Result;
use clap::{Args, ValueEnum};
use loftup_bundle::{Bundle, Normalization};
use loftup_eval::{Method, probe, segmentation};
use loftup_runtime::{
    ColorRange, ExecutionOptions, Perceptor, Rect,
    backend::{self, Backend, CpuPrecision, Settings, engine_cache::EngineCache},
    image::Orientation,
    tuning::{Tuning, TuningCache},
};

pub use builtin::{BuiltinArg, BundleArgs};
pub use camera::CameraArgs;
pub use track::TrackArgs;

use crate::engines;

/// Backend and parallelism.
#[derive(Debug, Clone, Args)]
pub struct EngineArgs {
    /// Inference backend
    #[arg(long, value_enum, default_value_t = BackendChoice::Auto)]
    pub backend: BackendChoice,
    /// Matrix products of LoftUp on a CPU: `fp32`, `int16`, `fp16`, `bf16`, `int8`, or `auto`, that of the
    /// bundle's graphs. Faster and less precise; not if TensorRT is used
    #[arg(long, value_name = "PRECISION", default_value_t)]
    pub cpu_precision: CpuPrecision,
    /// Threads that compute tiles in parallel [default: one per core]
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// Side of a tile in pixels. Larger tiles need more memory; results are the same except for
    /// rounding [default: 32 for frames and 64 for regions on a CPU, 224 on a GPU]
    #[arg(long, value_name = "PIXELS")]
    pub tile: Option<NonZeroUsize>,
    #[command(flatten)]
    pub tensorrt: TensorRtArgs,
}

/// Autotuning.
#[derive(Debug, Clone, Copy, Args)]
pub struct TuneArgs {
    /// Find the fastest tile size and number of threads on this machine's CPU. Takes about a second;
    /// the result is cached in the user's cache directory. --threads and --tile take precedence
    #[arg(long)]
    pub tune: bool,
}

/// TensorRT options.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "TensorRT")]
pub struct TensorRtArgs {
    /// Engine cache [default: loftup-edge/engines in the user's cache directory]
    #[arg(long, value_name = "DIR")]
    pub engine_cache: Option<PathBuf>,
    /// Maximum GPU workspace per layer, in MiB [default: 1024]
    #[arg(long, value_name = "MIB")]
    pub workspace: Option<NonZeroU64>,
    /// DLA core for supported layers; the others run on the GPU
    #[arg(long, value_name = "N")]
    pub dla_core: Option<u32>,
    /// Capture each inference in a CUDA graph
    #[arg(long)]
    pub cuda_graph: bool,
}

impl TensorRtArgs {
    pub fn cache(&self) -> EngineCache {
        match &self.engine_cache {
            Some(directory) => EngineCache::at(directory),
            None => EngineCache::of_user(),
        }
    }

    pub fn options(&self) -> backend::tensorrt::Options {
        let defaults = backend::tensorrt::Options::default();
        backend::tensorrt::Options {
            workspace: self
                .workspace
                .map_or(defaults.workspace, |mib| mib.get().saturating_mul(1 << 20)),
            dla_core: self.dla_core,
            cuda_graph: self.cuda_graph,
            cache: self.cache(),
            watch: Arc::new(engines::Watch::default()),
            ..defaults
        }
    }
}

impl EngineArgs {
    pub fn options(&self) -> ExecutionOptions {
        let defaults = ExecutionOptions::default();
        ExecutionOptions {
            threads: self.threads.map_or(defaults.threads, usize::from),
            tile: self.tile.map(usize::from),
        }
    }

    /// Opens the bundle at `path` and, with `--tune`, applies the tuned tile size and number of threads
    /// where they are not given.
    pub fn tuned(&self, path: &Path, tune: TuneArgs) -> Result<Perceptor> {
        let mut perceptor = self.perceptor(path)?;
        if tune.tune && (self.threads.is_none() || self.tile.is_none()) {
            let tuning = perceptor.tuning(&TuningCache::of_user())?;
            if let Some(Tuning { tile, threads }) = tuning {
                perceptor.set_execution_options(ExecutionOptions {
                    threads: self.threads.map_or(threads, usize::from),
                    tile: Some(self.tile.map_or(tile, usize::from)),
                });
            }
        }
        Ok(perceptor)
    }

    /// Opens the selected backend.
    pub fn open(&self) -> Result<Arc<dyn Backend>> {
        let settings = Settings {
            cpu_precision: self.cpu_precision,
            tensorrt: self.tensorrt.options(),
            ..Settings::default()
        };
        let choice = match self.backend {
            BackendChoice::Auto => backend::Choice::Auto,
            BackendChoice::Tensorrt => backend::Choice::TensorRt,
            BackendChoice::Tract => backend::Choice::Tract,
        };
        Ok(backend::open(choice, &settings)?)
    }

    /// Opens the bundle at `path` on that backend.
    pub fn perceptor(&self, path: &Path) -> Result<Perceptor> {
        let bundle = Bundle::open(path)?;
        Ok(Perceptor::with_backend(
            bundle,
            self.open()?,
            self.options(),
        )?)
    }
}

/// `--backend`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BackendChoice {
    /// TensorRT, with tract as the fallback if it is unavailable or fails
    Auto,
    /// TensorRT on an NVIDIA GPU; an error if it is unavailable
    Tensorrt,
    /// tract on the CPU
    Tract,
}

/// Inputs of a bundle.
#[derive(Debug, Clone, Args)]
pub struct InputArgs {
    /// Input image: JPEG, PNG, WebP, BMP, TIFF or PNM; or a normalized float32 `.npy` of shape
    /// [1,3,H,W], which is used without resizing. Regions and points refer to the image after its
    /// EXIF orientation is applied
    #[arg(long, value_name = "FILE", conflicts_with_all = ["features", "guidance"])]
    pub image: Option<PathBuf>,
    /// Backbone features as a `.npy` of shape [1,d,h,w], instead of running the backbone
    #[arg(long, value_name = "FILE", requires = "guidance")]
    pub features: Option<PathBuf>,
    /// Image that guides the upsampling of --features, in the same formats as --image
    #[arg(long, value_name = "FILE", requires = "features")]
    pub guidance: Option<PathBuf>,
    /// Output size [default: the backbone's input size, or the size of --guidance]
    #[arg(long, value_name = "WxH")]
    pub size: Option<loftup_bundle::Size>,
    /// Color range for min-max scaling of the guidance: `image` (the range of each image, as in
    /// LoftUp's training), `full` (0 to 255), or LOW,HIGH within 0 to 255. A fixed range avoids
    /// flicker in video
    #[arg(long, value_name = "RANGE", default_value = "image")]
    pub range: RangeArg,
    // Not `ReadArgs` flattened: `Option<InputArgs>` would then never be `None`.
    /// Ignore the EXIF orientation of images
    #[arg(long)]
    pub no_exif_orientation: bool,
}

impl InputArgs {
    /// How image files are oriented.
    pub fn orientation(&self) -> Orientation {
        Orientation::exif(!self.no_exif_orientation)
    }
}

/// The samples that a probe or a head is fitted to.
#[derive(Debug, Clone, Copy, Args)]
pub struct SampleArgs {
    /// Pixels sampled from each training image
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = count)]
    pub samples: usize,
    /// Maximum number of images (per split), evenly spaced
    #[arg(long, value_name = "N", value_parser = count)]
    pub limit: Option<usize>,
    /// Random seed
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub seed: u64,
}

/// Linear probes on a labeled dataset.
#[derive(Debug, Args)]
pub struct ProbeArgs {
    /// The dataset
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Size of images and masks [default: the backbone's input size]
    #[arg(long, value_name = "WxH")]
    pub size: Option<loftup_bundle::Size>,
    /// Training epochs of the probe
    #[arg(long, value_name = "N", default_value_t = probe::Options::default().epochs, value_parser = count)]
    pub epochs: usize,
    #[command(flatten)]
    pub samples: SampleArgs,
    /// Boundary tolerance in pixels [default: 0.75 % of the diagonal]
    #[arg(long, value_name = "PIXELS")]
    pub tolerance: Option<usize>,
    #[command(flatten)]
    pub read: ReadArgs,
}

impl ProbeArgs {
    /// The comparison of these methods; of all if there are none.
    pub fn request(&self, range: ColorRange, methods: Vec<Method>) -> segmentation::Request<'_> {
        segmentation::Request {
            data: &self.data,
            size: self.size,
            range,
            orientation: self.read.orientation(),
            methods,
            samples: self.samples.samples,
            most: self.samples.limit,
            tolerance: self.tolerance,
            probe: probe::Options {
                epochs: self.epochs,
                seed: self.samples.seed,
                ..probe::Options::default()
            },
        }
    }
}

/// How image files are read.
#[derive(Debug, Clone, Copy, Args)]
pub struct ReadArgs {
    /// Ignore the EXIF orientation of images. Labels and masks are always read as stored
    #[arg(long)]
    pub no_exif_orientation: bool,
}

impl ReadArgs {
    /// How image files are oriented.
    pub fn orientation(self) -> Orientation {
        Orientation::exif(!self.no_exif_orientation)
    }
}

/// An upsampling method.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum MethodArg {
    Nearest,
    Bilinear,
    Bicubic,
    Jbu,
    /// The bundle's upsampler, LoftUp or NAF
    Loftup,
}

impl From<MethodArg> for Method {
    fn from(method: MethodArg) -> Self {
        match method {
            MethodArg::Nearest => Self::Nearest,
            MethodArg::Bilinear => Self::Bilinear,
            MethodArg::Bicubic => Self::Bicubic,
            MethodArg::Jbu => Self::Jbu,
            MethodArg::Loftup => Self::LoftUp,
        }
    }
}

/// `--range`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RangeArg {
    Image,
    Levels(f32, f32),
}

impl FromStr for RangeArg {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "image" => Ok(Self::Image),
            "full" => Ok(Self::Levels(0.0, 255.0)),
            _ => numbers::<f32, 2>(s)
                .filter(|[low, high]| low < high && *low >= 0.0 && *high <= 255.0)
                .map(|[low, high]| Self::Levels(low, high))
                .ok_or_else(|| {
                    "expected image, full, or LOW,HIGH with 0 <= LOW < HIGH <= 255".into()
                }),
        }
    }
}

impl RangeArg {
    /// Converts levels to the units of a normalized image.
    pub fn color_range(self, n: &Normalization) -> ColorRange {
        match self {
            Self::Image => ColorRange::PerImage,
            Self::Levels(low, high) => ColorRange::of_levels(low, high, n),
        }
    }
}

/// `X,Y,W,H`.
pub fn region(s: &str) -> Result<Rect, String> {
    numbers::<usize, 4>(s)
        .map(|[x, y, width, height]| Rect {
            x,
            y,
            width,
            height,
        })
        .ok_or_else(|| "expected X,Y,WIDTH,HEIGHT in pixels, as in 80,60,64,64".into())
}

/// `X,Y`.
pub fn pair(s: &str) -> Result<[usize; 2], String> {
    numbers::<usize, 2>(s).ok_or_else(|| "expected X,Y in pixels, as in 320,200".into())
}

/// A positive integer.
pub fn count(s: &str) -> Result<usize, String> {
    s.parse()
        .ok()
        .filter(|n| *n > 0)
        .ok_or_else(|| "expected a positive integer".into())
}

/// `R,G,B`.
pub fn triple(s: &str) -> Result<[f32; 3], String> {
    numbers::<f32, 3>(s)
        .filter(|t| t.iter().all(|x| x.is_finite()))
        .ok_or_else(|| "expected three numbers R,G,B, as in 0.485,0.456,0.406".into())
}

/// Numbers separated by commas.
fn numbers<T: FromStr, const N: usize>(s: &str) -> Option<[T; N]> {
    let values: Vec<T> = s
        .split(',')
        .map(|n| n.trim().parse().ok())
        .collect::<Option<_>>()?;
    values.try_into().ok()
}
