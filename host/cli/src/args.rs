//! Spellings that several commands share.

use std::{
    num::{NonZeroU64, NonZeroUsize},
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use anyhow::Result;
use clap::{Args, ValueEnum};
use loftup_bundle::{Bundle, Normalization};
use loftup_runtime::{
    ColorRange, ExecutionOptions, Perceptor, Rect,
    backend::{self, Backend, Settings, engine_cache::EngineCache},
    image::Orientation,
    tuning::{Tuning, TuningCache},
};

use crate::engines;

/// How a bundle is run.
#[derive(Debug, Clone, Args)]
pub struct EngineArgs {
    /// Inference engine
    #[arg(long, value_enum, default_value_t = BackendChoice::Auto)]
    pub backend: BackendChoice,
    /// Threads that compute tiles [default: one per core]
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// Longest side of a tile in pixels; it changes memory and speed, not the answer [default: 32
    /// for frames and 64 for regions on a CPU, 224 on a GPU]
    #[arg(long, value_name = "PIXELS")]
    pub tile: Option<NonZeroUsize>,
    #[command(flatten)]
    pub tensorrt: TensorRtArgs,
}

/// Whether the division of work is measured.
#[derive(Debug, Clone, Copy, Args)]
pub struct TuneArgs {
    /// Measure which tile size and how many threads are fastest on this machine's CPU, in about a
    /// second, and keep the result in the user's cache directory for the next time; --threads and
    /// --tile are left as they are given. Another tile size changes answers by rounding
    #[arg(long)]
    pub tune: bool,
}

/// How engines of TensorRT are built, kept and run.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "TensorRT")]
pub struct TensorRtArgs {
    /// Directory that built engines are kept in [default: loftup-edge/engines in the user's cache
    /// directory]
    #[arg(long, value_name = "DIR")]
    pub engine_cache: Option<PathBuf>,
    /// The most memory of the GPU that a layer may use for scratch, in MiB [default: 1024]
    #[arg(long, value_name = "MIB")]
    pub workspace: Option<NonZeroU64>,
    /// DLA core for the layers that it can run; the rest stays on the GPU
    #[arg(long, value_name = "N")]
    pub dla_core: Option<u32>,
    /// Launch each run as one CUDA graph
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

    /// The bundle at `path` in the engine, with tile size and threads as measured where that is
    /// wanted and they are not given.
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

    /// The engine that is wanted.
    pub fn open(&self) -> Result<Arc<dyn Backend>> {
        let settings = Settings {
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

    /// The bundle at `path` in that engine.
    pub fn perceptor(&self, path: &Path) -> Result<Perceptor> {
        let bundle = Bundle::open(path)?;
        Ok(Perceptor::with_backend(
            bundle,
            self.open()?,
            self.options(),
        )?)
    }
}

/// An inference engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BackendChoice {
    /// TensorRT, and tract where that is missing or fails
    Auto,
    /// TensorRT, on an NVIDIA GPU, or an error
    Tensorrt,
    /// tract, on the CPU
    Tract,
}

/// What is fed to a bundle.
#[derive(Debug, Clone, Args)]
pub struct InputArgs {
    /// A picture for the backbone and the guidance: JPEG, PNG, WebP, BMP, TIFF or PNM; or a `.npy`
    /// of shape [1,3,H,W], float32, already normalized, which is taken as it is. Regions and points
    /// refer to the upright picture
    #[arg(long, value_name = "FILE", conflicts_with_all = ["features", "guidance"])]
    pub image: Option<PathBuf>,
    /// Backbone features [1,d,h,w] in a `.npy`, instead of running a backbone
    #[arg(long, value_name = "FILE", requires = "guidance")]
    pub features: Option<PathBuf>,
    /// The picture that guides the upsampling of --features, a picture file or `.npy` as --image
    #[arg(long, value_name = "FILE", requires = "features")]
    pub guidance: Option<PathBuf>,
    /// Size of the answer, WIDTHxHEIGHT [default: the backbone's size, or the guidance's own]
    #[arg(long, value_name = "WxH")]
    pub size: Option<loftup_bundle::Size>,
    /// Range of colors that the guidance is scaled by: `image` (of each picture, as LoftUp was
    /// trained), `full` (0 to 255), or LOW,HIGH in 0 to 255. A fixed range keeps video from
    /// flickering
    #[arg(long, value_name = "RANGE", default_value = "image")]
    pub range: RangeArg,
    // Not flattened: arguments in here would no longer make this optional as a whole.
    /// Read pictures as their pixels are stored. By default they are turned and mirrored as their
    /// EXIF orientation says. `.npy` files are always taken as stored
    #[arg(long)]
    pub no_exif_orientation: bool,
}

impl InputArgs {
    /// Which way up pictures are read.
    pub fn orientation(&self) -> Orientation {
        Orientation::exif(!self.no_exif_orientation)
    }
}

/// How picture files are read.
#[derive(Debug, Clone, Copy, Args)]
pub struct ReadArgs {
    /// Read pictures as their pixels are stored. By default they are turned and mirrored as their
    /// EXIF orientation says. Labels, masks and `.npy` files are always taken as stored
    #[arg(long)]
    pub no_exif_orientation: bool,
}

impl ReadArgs {
    /// Which way up pictures are read.
    pub fn orientation(self) -> Orientation {
        Orientation::exif(!self.no_exif_orientation)
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
                .ok_or_else(|| "write image, full, or LOW,HIGH with 0 <= LOW < HIGH <= 255".into()),
        }
    }
}

impl RangeArg {
    /// In the units of a normalized picture.
    pub fn color_range(self, n: &Normalization) -> ColorRange {
        match self {
            Self::Image => ColorRange::PerImage,
            Self::Levels(low, high) => {
                let normalized =
                    |level: f32| std::array::from_fn(|c| (level / 255.0 - n.mean[c]) / n.std[c]);
                ColorRange::Fixed {
                    min: normalized(low),
                    max: normalized(high),
                }
            }
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
        .ok_or_else(|| "write X,Y,WIDTH,HEIGHT in pixels, as in 80,60,64,64".into())
}

/// How many, at least one.
pub fn count(s: &str) -> Result<usize, String> {
    s.parse()
        .ok()
        .filter(|n| *n > 0)
        .ok_or_else(|| "write a whole number from 1 on".into())
}

/// Three numbers, one per color.
pub fn triple(s: &str) -> Result<[f32; 3], String> {
    numbers::<f32, 3>(s)
        .filter(|t| t.iter().all(|x| x.is_finite()))
        .ok_or_else(|| "write three numbers R,G,B, as in 0.485,0.456,0.406".into())
}

fn numbers<T: FromStr, const N: usize>(s: &str) -> Option<[T; N]> {
    let values: Vec<T> = s
        .split(',')
        .map(|n| n.trim().parse().ok())
        .collect::<Option<_>>()?;
    values.try_into().ok()
}
