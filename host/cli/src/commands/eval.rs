//! `loftup eval`

mod targets;

use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;
use loftup_bundle::Size;
use loftup_eval::{Method, probe, segmentation, video};

use crate::{
    args::{EngineArgs, RangeArg, ReadArgs, count},
    output, progress,
};

/// Measure how good the features of a bundle are.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, clap::Subcommand)]
enum Kind {
    Segmentation(SegmentationArgs),
    Targets(targets::TargetsArgs),
    Video(VideoArgs),
}

/// Train the same linear probe on features upsampled in different ways, and compare the class maps:
/// nearest, bilinear and bicubic interpolation, joint bilateral upsampling (JBU), and LoftUp.
///
/// Probes are trained on DIR/train and judged by DIR/val, each with images/ and labels/ (PNG masks
/// of class indices, 255 unlabeled; classes.txt names the classes; CamVid is known as it is).
/// Printed are the mean intersection over union and the mean boundary F-score, in percent.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  loftup eval segmentation robot.loftup --data camvid/ --size 224x224")]
struct SegmentationArgs {
    /// The bundle
    bundle: PathBuf,
    /// The data set
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Size of pictures and masks [default: the backbone's]
    #[arg(long, value_name = "WxH")]
    size: Option<Size>,
    /// Only these features [default: all that the bundle can make]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    methods: Vec<MethodArg>,
    /// Range of colors of the guidance, as in `run`
    #[arg(long, value_name = "RANGE", default_value = "image")]
    range: RangeArg,
    /// Pixels of each training picture
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = count)]
    samples: usize,
    /// Times that every sample is seen
    #[arg(long, value_name = "N", default_value_t = probe::Options::default().epochs, value_parser = count)]
    epochs: usize,
    /// Pictures of each part at most, evenly spread
    #[arg(long, value_name = "N", value_parser = count)]
    limit: Option<usize>,
    /// Pixels within which an outline is met [default: 0.75 % of the diagonal]
    #[arg(long, value_name = "PIXELS")]
    tolerance: Option<usize>,
    /// Seed of all random choices
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    seed: u64,
    /// Print everything, class by class, as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    read: ReadArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum MethodArg {
    Nearest,
    Bilinear,
    Bicubic,
    Jbu,
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

/// Measure flicker: how much the features of the same spot change from frame to frame of a
/// generated scene, in which the way of every pixel is known.
///
/// Printed is the root mean square of the change, in percent of the spread of the features within
/// a frame, with colors scaled by the range of each frame and by a fixed range.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  loftup eval video robot.loftup --scenes 1 --frames 12")]
struct VideoArgs {
    /// The bundle
    bundle: PathBuf,
    /// Seed of the generated scene
    #[arg(long, value_name = "SEED")]
    scenes: u64,
    /// Frames
    #[arg(long, value_name = "N", default_value_t = 8)]
    frames: usize,
    /// Frames in a second
    #[arg(long, value_name = "RATE", default_value_t = 10.0)]
    rate: f64,
    /// Size of the frames [default: the backbone's]
    #[arg(long, value_name = "WxH")]
    size: Option<Size>,
    /// Pixels that are followed from each frame to the next
    #[arg(long, value_name = "N", default_value_t = 4096)]
    samples: usize,
    /// Noise of the sensor, in levels of 255
    #[arg(long, value_name = "LEVELS", default_value_t = 0.0)]
    noise: f32,
    /// Print as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

pub fn run(args: &Args) -> Result<()> {
    match &args.kind {
        Kind::Segmentation(args) => segmentation(args),
        Kind::Targets(args) => targets::run(args),
        Kind::Video(args) => video(args),
    }
}

fn segmentation(args: &SegmentationArgs) -> Result<()> {
    let perceptor = args.engine.perceptor(&args.bundle)?;
    let request = segmentation::Request {
        data: &args.data,
        size: args.size,
        range: args.range.color_range(&perceptor.manifest().normalization),
        orientation: args.read.orientation(),
        methods: args.methods.iter().map(|m| (*m).into()).collect(),
        samples: args.samples,
        most: args.limit,
        tolerance: args.tolerance,
        probe: probe::Options {
            epochs: args.epochs,
            seed: args.seed,
            ..probe::Options::default()
        },
    };
    let report = segmentation::evaluate(&perceptor, &request, &mut progress::stages())?;
    if args.json {
        return output::line(serde_json::to_string_pretty(&report)?);
    }
    output::line(format!(
        "{} classes at {}x{}: trained on {} pixels of {} pictures, judged by {} pictures; outlines within {} pixels",
        report.classes.len(),
        report.width,
        report.height,
        report.train_pixels,
        report.train_pictures,
        report.val_pictures,
        report.boundary_tolerance
    ))?;
    if !report.left_out.is_empty() {
        output::line(format!(
            "{} pictures or masks left out",
            report.left_out.len()
        ))?;
    }
    output::line("           mIoU  boundary F  accuracy   training   maps")?;
    for r in &report.results {
        output::line(format!(
            "{:9} {:5.1} %     {:5.1} %   {:5.1} %   {:6.1} s {:6.1} s",
            r.method.name(),
            100.0 * r.mean_iou,
            100.0 * r.boundary_f,
            100.0 * r.accuracy,
            r.train_seconds,
            r.map_seconds
        ))?;
    }
    Ok(())
}

fn video(args: &VideoArgs) -> Result<()> {
    let perceptor = args.engine.perceptor(&args.bundle)?;
    anyhow::ensure!(
        (0.0..=255.0).contains(&args.noise),
        "--noise {}: give 0 to 255 levels",
        args.noise
    );
    let request = video::Request {
        seed: args.scenes,
        frames: args.frames,
        rate: args.rate,
        size: args.size,
        samples: args.samples,
        noise: args.noise,
    };
    let report = video::evaluate(&perceptor, &request, &mut progress::stages())?;
    if args.json {
        return output::line(serde_json::to_string_pretty(&report)?);
    }
    output::line(format!(
        "scene {}, {} frames of {}x{} at {} a second: {} pixels followed, which move by {:.2} pixels on average",
        report.seed,
        report.frames,
        report.width,
        report.height,
        report.rate,
        report.followed,
        report.motion
    ))?;
    output::line("                               change  95 % below  worst pair")?;
    for r in &report.results {
        output::line(format!(
            "{:29} {:6.1} %    {:6.1} %    {:6.1} %",
            r.method,
            100.0 * r.change,
            100.0 * r.change_p95,
            100.0 * r.worst_pair
        ))?;
    }
    Ok(())
}
