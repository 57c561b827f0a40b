//! `loftup eval`

mod clicks;
mod depth;
mod targets;
mod vos;

use std::path::PathBuf;

use anyhow::Result;
use loftup_bundle::Size;
use loftup_eval::{bootstrap::Interval, segmentation, video};

use crate::{
    args::{EngineArgs, MethodArg, ProbeArgs, RangeArg},
    output, progress,
};

/// Evaluate the features of a bundle.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, clap::Subcommand)]
enum Kind {
    Clicks(clicks::ClicksEvalArgs),
    Depth(depth::DepthEvalArgs),
    Segmentation(SegmentationArgs),
    Targets(targets::TargetsArgs),
    Video(VideoArgs),
    Vos(vos::VosArgs),
}

/// Compare nearest, bilinear and bicubic interpolation, joint bilateral upsampling (JBU) and LoftUp by
/// linear probing for semantic segmentation.
///
/// The probes are trained on DIR/train and evaluated on DIR/val, each with images/ and labels/ (PNG
/// masks of class indices, where 255 is unlabeled; class names in classes.txt). CamVid's layout is
/// supported, too. Reports mean IoU, mean boundary F-score and pixel accuracy in percent.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  loftup eval segmentation robot.loftup --data camvid/ --size 224x224")]
struct SegmentationArgs {
    /// The bundle
    bundle: PathBuf,
    /// Upsampling methods to compare [default: all that the bundle supports]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    methods: Vec<MethodArg>,
    /// Color range of the guidance, as in `run`
    #[arg(long, value_name = "RANGE", default_value = "image")]
    range: RangeArg,
    #[command(flatten)]
    probe: ProbeArgs,
    /// Print all results, including those of each class, as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

/// Measure flicker: the change of the features of a point from frame to frame.
///
/// The frames show a generated scene with exact optical flow. Reports the root mean square change in
/// percent of the standard deviation of the features within a frame, for guidance scaled by the color
/// range of each frame and by a fixed range.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  loftup eval video robot.loftup --scenes 1 --frames 12")]
struct VideoArgs {
    /// The bundle
    bundle: PathBuf,
    /// Seed of the generated scene
    #[arg(long, value_name = "SEED")]
    scenes: u64,
    /// Number of frames
    #[arg(long, value_name = "N", default_value_t = 8)]
    frames: usize,
    /// Frame rate
    #[arg(long, value_name = "RATE", default_value_t = 10.0)]
    rate: f64,
    /// Size of the frames [default: the backbone's input size]
    #[arg(long, value_name = "WxH")]
    size: Option<Size>,
    /// Number of tracked pixels per frame
    #[arg(long, value_name = "N", default_value_t = 4096)]
    samples: usize,
    /// Standard deviation of the sensor noise, in levels from 0 to 255
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
        Kind::Clicks(args) => clicks::run(args),
        Kind::Depth(args) => depth::run(args),
        Kind::Segmentation(args) => segmentation(args),
        Kind::Targets(args) => targets::run(args),
        Kind::Video(args) => video(args),
        Kind::Vos(args) => vos::run(args),
    }
}

fn segmentation(args: &SegmentationArgs) -> Result<()> {
    let perceptor = args.engine.perceptor(&args.bundle)?;
    let range = args.range.color_range(&perceptor.manifest().normalization);
    let methods = args.methods.iter().map(|m| (*m).into()).collect();
    let request = args.probe.request(range, methods);
    let report = segmentation::evaluate(&perceptor, &request, &mut progress::stages())?;
    if args.json {
        return output::line(serde_json::to_string_pretty(&report)?);
    }
    output::line(format!(
        "{} classes at {}x{}: trained on {} pixels of {} images, evaluated on {} images; boundary tolerance {} pixels",
        report.classes.len(),
        report.width,
        report.height,
        report.train_pixels,
        report.train_images,
        report.val_images,
        report.boundary_tolerance
    ))?;
    if !report.skipped.is_empty() {
        output::line(format!("{} images or masks skipped", report.skipped.len()))?;
    }
    output::line(
        "           mIoU  boundary F  accuracy   training   maps      mIoU - bilinear (95 %)  mIoU - JBU (95 %)",
    )?;
    for r in &report.results {
        output::line(format!(
            "{:9} {:5.1} %     {:5.1} %   {:5.1} %   {:6.1} s {:6.1} s   {:22}  {}",
            r.method.name(),
            100.0 * r.mean_iou,
            100.0 * r.boundary_f,
            100.0 * r.accuracy,
            r.train_seconds,
            r.map_seconds,
            minus(r.minus_bilinear),
            minus(r.minus_jbu)
        ))?;
    }
    Ok(())
}

/// A difference in percentage points.
fn minus(difference: Option<Interval>) -> String {
    output::difference(difference, 100.0, 1)
}

fn video(args: &VideoArgs) -> Result<()> {
    let perceptor = args.engine.perceptor(&args.bundle)?;
    anyhow::ensure!(
        (0.0..=255.0).contains(&args.noise),
        "--noise {}: expected 0 to 255",
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
        "scene {}, {} frames of {}x{} at {} per second: {} tracked pixels, mean motion {:.2} pixels",
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
