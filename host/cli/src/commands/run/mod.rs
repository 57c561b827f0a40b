//! `loftup run`

mod job;
mod video;

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use loftup_bundle::HeadKind;
use loftup_runtime::{ExecutionOptions, Point, Rect, depth::Pinhole};
use serde_json::json;

use super::{
    frames::FrameArgs,
    input::Input,
    through::{self, Shown},
};
use crate::{
    args::{BundleArgs, CameraArgs, EngineArgs, InputArgs, TuneArgs, region},
    engines, output, progress,
};
use job::Job;

/// Compute the features of an image: the whole image, a region, or a list of points; or of each frame of a
/// video.
///
/// The output is a float32 `.npy` file of shape [1,d,H,W] for an image or region, [n,d] for n points,
/// or [1,d,h,w] for a bundle without an upsampler. For a video, it is a directory with such a file for each
/// frame, or a video.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  loftup run --builtin --image photo.jpg --picture pca.png
  loftup run robot.loftup --image street.jpg --size 448x448 --out features.npy --picture pca.png
  loftup run robot.loftup --image street.jpg --region 80,60,64,64 --out region.npy
  loftup run robot.loftup --image street.jpg --points points.csv --out points.npy
  loftup run backbone.loftup --image street.jpg --upsampler jbu --picture pca.png
  loftup run depth.loftup --image desk.jpg --head depth --out depth.npy --normals normals.png --intrinsics 525,525,319.5,239.5
  loftup run seg.loftup --video clip.mp4 --head classes --out classes/ --picture overlay.mp4
  loftup run up.loftup --features lr.npy --guidance image.npy --out out.npy")]
#[command(group = clap::ArgGroup::new("input")
    .args(["image", "features", "video"])
    .required(true))]
#[command(group = clap::ArgGroup::new("answer")
    .args(["out", "picture", "normals"])
    .required(true)
    .multiple(true))]
pub struct Args {
    #[command(flatten)]
    bundle: BundleArgs,
    #[command(flatten)]
    input: InputArgs,
    /// A video: a file or stream, which ffmpeg or GStreamer decodes, or a directory of images or a glob, in
    /// the order of their names
    #[arg(
        long,
        value_name = "FILE|URL|DIR|GLOB",
        conflicts_with_all = ["points", "normals", "guidance"]
    )]
    video: Option<PathBuf>,
    #[command(flatten)]
    frames: FrameArgs,
    /// Region of the output to compute, in output pixels
    #[arg(long, value_name = "X,Y,W,H", value_parser = region, conflicts_with = "points")]
    region: Option<Rect>,
    /// Output pixels to compute: a CSV file with one `x,y` per line, with or without a header
    #[arg(long, value_name = "FILE")]
    points: Option<PathBuf>,
    /// Apply a head of the bundle, or one in a file of its own (`loftup head text`). Output: a class
    /// map (--out FILE.png or FILE.npy, uint8 [H,W], 255 where there is no class), a depth map (.png,
    /// 16 bits in millimeters, or .npy, float32 [H,W] in meters) or descriptors (.npy, float32
    /// [1,k,H,W]); at points, its k outputs as float32 [n,k], or a depth in meters [n,1]
    #[arg(long, value_name = "NAME|FILE")]
    head: Option<String>,
    /// Output file: `.npy`, or `.png` for a class map or depth. For a video, a directory for the files of the
    /// frames, `.npy` or `.png` for a class map or depth; or a video with classes or depths
    /// overlaid on the frames (.mp4, .mkv or .webm, by ffmpeg)
    #[arg(long, value_name = "FILE|DIR")]
    out: Option<PathBuf>,
    /// Write a visualization: image, backbone features and upsampled features side by side, with the
    /// first three principal components of the features as colors; with a head, image and classes or depths.
    /// For a video, a directory or a video file
    #[arg(long, value_name = "FILE|DIR", conflicts_with = "points")]
    picture: Option<PathBuf>,
    /// Write the surface normals of a depth map, which face the camera: x right, y down, z forward, as
    /// float32 [H,W,3] (.npy), or as colors (n + 1) / 2 (.png). No normal: zeros, gray in a PNG. Give the
    /// camera, or a horizontal field of view of 60 degrees is assumed
    #[arg(
        long,
        value_name = "FILE",
        requires = "head",
        conflicts_with = "points"
    )]
    normals: Option<PathBuf>,
    #[command(flatten)]
    camera: CameraArgs,
    /// How features are upsampled: with the bundle's LoftUp or NAF, or by joint bilateral upsampling (jbu),
    /// which needs no training. JBU keeps the backbone's feature space; heads made for LoftUp's
    /// features do not fit
    #[arg(long, value_name = "METHOD", value_enum, default_value_t = Upsampler::Loftup)]
    upsampler: Upsampler,
    /// Print sizes and times as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    tune: TuneArgs,
    // Last, because it ends with a help heading.
    #[command(flatten)]
    engine: EngineArgs,
}

/// `--upsampler`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Upsampler {
    Loftup,
    Jbu,
}

pub fn run(args: &Args) -> Result<()> {
    let start = Instant::now();
    if args.normals.is_none() && !args.camera.is_assumed() {
        bail!("--intrinsics and --field-of-view are for --normals FILE; add it, or omit them");
    }
    if args.video.is_none() {
        args.frames.refuse()?;
    }
    let points = args.points.as_deref().map(read_points).transpose()?;
    let bundle = args.bundle.path()?;
    let perceptor = args.engine.tuned(&bundle, args.tune)?;
    let load = start.elapsed().as_secs_f64();
    let mut job = Job::new(args, &perceptor, points);
    if let Some(video) = &args.video {
        return video::run(args, &perceptor, job, video);
    }
    let bar = progress::spinner();
    bar.set_message("running the backbone");
    let input = Input::read(&args.input, &perceptor, job.is_jbu())?;
    bar.finish_and_clear();

    let clock = Instant::now();
    let shape = match &args.picture {
        None => job.answer(&input, args.out.as_deref(), None)?,
        Some(path) => {
            let mut save = |shown: Shown<'_>| Ok(shown.beside()?.save_png(path)?);
            job.check_picture(path)?;
            job.answer(&input, args.out.as_deref(), Some(&mut save))?
        }
    };
    let answer = clock.elapsed().as_secs_f64();
    let total = start.elapsed().as_secs_f64();
    let ExecutionOptions { threads, tile } = perceptor.options();
    let health = perceptor.health();
    if args.json {
        let json = json!({
            "out": args.out,
            "picture": args.picture,
            "normals": args.normals,
            "shape": shape,
            "backend": health.answering,
            "engine": perceptor.engine(),
            "degraded": health.reason(),
            "runs": engines::runs(&health),
            "threads": threads,
            "tile": tile,
            "seconds": {
                "load": load,
                "backbone": input.backbone_seconds,
                "answer": answer,
                "total": total,
            },
        });
        output::line(format!("{json:#}"))?;
        return Ok(());
    }
    let head = args.head.as_ref();
    let head = head.and_then(|name| perceptor.manifest().heads.get(name));
    let is_depth = head.is_some_and(|head| matches!(head.kind, HeadKind::Depth { .. }));
    if let Some(out) = &args.out {
        // A class map has no channel axis.
        let element = match (shape.len(), &args.points, is_depth) {
            (2, None, false) => "uint8",
            (2, None, true) if !through::has_extension(out, "npy") => "uint16, millimeters",
            (_, _, true) => "float32, meters",
            _ => "float32",
        };
        output::line(format!("{}: {element} {shape:?}", out.display()))?;
    }
    if let Some(picture) = &args.picture {
        let shown = match args.head {
            Some(_) if is_depth => "image, depth from near (yellow) to far (blue)",
            Some(_) => "image, classes",
            None => "image, backbone features, upsampled features",
        };
        output::line(format!("{}: {shown}", picture.display()))?;
    }
    if let Some(normals) = &args.normals {
        let assumed = match args.camera.is_assumed() {
            true => format!(
                ", with an assumed horizontal field of view of {} degrees",
                Pinhole::FIELD_OF_VIEW
            ),
            false => String::new(),
        };
        output::line(format!("{}: surface normals{assumed}", normals.display()))?;
    }
    let backbone = input
        .backbone_seconds
        .map_or(String::new(), |s| format!("backbone {s:.2} s, "));
    output::line(format!(
        "{total:.2} s: loading {load:.2} s, {backbone}output {answer:.2} s; {} on {threads} threads",
        health.answering
    ))?;
    if engines::is_noteworthy(&health) {
        output::line(engines::summary(&health, &perceptor.engine()))?;
    }
    Ok(())
}

/// Reads one `x,y` per line. A first line without digits is a header.
fn read_points(path: &Path) -> Result<Vec<Point>> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    let Ok(text) = String::from_utf8(bytes) else {
        bail!(
            "{}: not a text file; expected one x,y per line, in pixels from 0",
            path.display()
        );
    };
    // Spreadsheets write a byte order mark.
    let text = text.trim_start_matches('\u{feff}');
    let mut points = Vec::new();
    let mut header_allowed = true;
    for (i, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let numbers = line
            .split_once(',')
            .and_then(|(x, y)| Some((x.trim().parse().ok()?, y.trim().parse().ok()?)));
        match numbers {
            Some((x, y)) => points.push(Point { x, y }),
            None if header_allowed && !line.contains(|c: char| c.is_ascii_digit()) => {}
            None => bail!(
                "{}: line {}: {line:?} is not a point; expected x,y in pixels from 0",
                path.display(),
                i + 1
            ),
        }
        header_allowed = false;
    }
    if points.is_empty() {
        bail!(
            "{}: contains no points; expected one x,y per line, in pixels from 0",
            path.display()
        );
    }
    Ok(points)
}
