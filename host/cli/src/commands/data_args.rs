//! Arguments for datasets of depth and of objects.

use std::path::{Path, PathBuf};

use loftup_bundle::Size;
use loftup_eval::{clicks, depth};
use loftup_runtime::Perceptor;

use crate::args::{MethodArg, RangeArg, ReadArgs, count};

/// Images with depth.
#[derive(Debug, clap::Args)]
pub struct DepthArgs {
    /// A directory with images/ and depth/ (16-bit PNGs in millimeters, 0 where unknown), or these in
    /// train/ and val/; or a CSV file with the columns image and depth, and optionally split (train;
    /// val or test), units (per meter), kind and set
    #[arg(long, value_name = "DIR|CSV")]
    pub data: PathBuf,
    /// Use only the rows of the CSV file with this value in the column set
    #[arg(long, value_name = "NAME")]
    pub set: Option<String>,
    /// Ignore depths beyond this many meters [default: none are ignored]
    #[arg(long, value_name = "METERS", value_parser = positive::<f32>)]
    pub max_depth: Option<f32>,
    /// Train a head of this many bins of depth with the loss of Probe3D, instead of the ridge regression
    #[arg(long, value_name = "N", value_parser = count)]
    pub bins: Option<usize>,
    /// Regularization of the ridge regression: weight of the squared norm of the weights of standardized features
    #[arg(long, value_name = "WEIGHT", default_value_t = depth::RIDGE, conflicts_with = "bins", value_parser = positive::<f64>)]
    pub ridge: f64,
}

/// Images with objects.
#[derive(Debug, clap::Args)]
pub struct ObjectArgs {
    /// Size of images and masks [default: the backbone's input size]
    #[arg(long, value_name = "WxH")]
    size: Option<Size>,
    /// Color range of the guidance, as in `run`
    #[arg(long, value_name = "RANGE", default_value = "image")]
    range: RangeArg,
    /// Upsampling methods [default: all that the bundle supports]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    methods: Vec<MethodArg>,
    /// Leave out objects smaller than this fraction of the image
    #[arg(long, value_name = "FRACTION", default_value_t = clicks::MIN_AREA, value_parser = fraction)]
    min_area: f64,
    /// Maximum number of images (per split), evenly spaced
    #[arg(long, value_name = "N", value_parser = count)]
    limit: Option<usize>,
    /// Random seed of the bootstrap
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    read: ReadArgs,
}

impl ObjectArgs {
    /// For the images in `data`.
    pub fn request<'a>(&self, perceptor: &Perceptor, data: &'a Path) -> clicks::Request<'a> {
        clicks::Request {
            data,
            train: None,
            size: self.size,
            range: self.range.color_range(&perceptor.manifest().normalization),
            orientation: self.read.orientation(),
            methods: self.methods.iter().map(|m| (*m).into()).collect(),
            most: self.limit,
            min_area: self.min_area,
            clicks: clicks::CLICKS,
            seed: self.seed,
        }
    }
}

fn positive<T: std::str::FromStr + Into<f64> + Copy>(s: &str) -> Result<T, String> {
    s.parse()
        .ok()
        .filter(|x: &T| (*x).into() > 0.0 && (*x).into().is_finite())
        .ok_or_else(|| "expected a positive number".into())
}

fn fraction(s: &str) -> Result<f64, String> {
    s.parse()
        .ok()
        .filter(|x| (0.0..=1.0).contains(x))
        .ok_or_else(|| "expected a number from 0 to 1".into())
}
