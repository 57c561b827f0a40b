//! `loftup run`

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use loftup_bundle::{HeadKind, Size};
use loftup_runtime::{
    EncodedFrame, ExecutionOptions, ImageTensor, Perceptor, Point, Rect,
    depth::Pinhole,
    jbu::JbuOptions,
    npy::{self, NpyWriter},
    panels::panels_size,
    sinks::{NpySink, PcaSink},
};
use serde_json::json;

use super::{
    input::Input,
    panels::Panels,
    through::{self, Answer},
};
use crate::{
    args::{BundleArgs, CameraArgs, EngineArgs, InputArgs, TuneArgs, region},
    engines, interrupt, output, progress,
};

/// Compute the features of an image: the whole image, a region, or a list of points.
///
/// The output is a float32 `.npy` file of shape [1,d,H,W] for an image or region, [n,d] for n points,
/// or [1,d,h,w] for a bundle without an upsampler.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  loftup run --builtin --image photo.jpg --picture pca.png
  loftup run robot.loftup --image street.jpg --size 448x448 --out features.npy --picture pca.png
  loftup run robot.loftup --image street.jpg --region 80,60,64,64 --out region.npy
  loftup run robot.loftup --image street.jpg --points points.csv --out points.npy
  loftup run backbone.loftup --image street.jpg --upsampler jbu --picture pca.png
  loftup run depth.loftup --image desk.jpg --head depth --out depth.npy --normals normals.png --intrinsics 525,525,319.5,239.5
  loftup run up.loftup --features lr.npy --guidance image.npy --out out.npy")]
#[command(group = clap::ArgGroup::new("input")
    .args(["image", "features"])
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
    /// Output file: `.npy`, or `.png` for a class map or depth
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write a visualization: image, backbone features and upsampled features side by side, with the
    /// first three principal components of the features as colors
    #[arg(long, value_name = "FILE.png", conflicts_with = "points")]
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
    let points = args.points.as_deref().map(read_points).transpose()?;
    let bundle = args.bundle.path()?;
    let perceptor = args.engine.tuned(&bundle, args.tune)?;
    let load = start.elapsed().as_secs_f64();
    let bar = progress::spinner();
    bar.set_message("running the backbone");
    let jbu = args.upsampler == Upsampler::Jbu;
    let input = Input::read(&args.input, &perceptor, jbu)?;
    bar.finish_and_clear();

    let clock = Instant::now();
    let answer = args.head.as_deref().map(|head| Answer {
        head,
        region: args.region,
        out: args.out.as_ref(),
        picture: args.picture.as_ref(),
        normals: args.normals.as_ref(),
        camera: args.camera.camera(),
    });
    let shape = match (&input.guidance, &points) {
        (None, _) if answer.is_some() => bail!(lacks_upsampler(args, "--head")),
        (None, None) => backbone_only(args, &input)?,
        (None, Some(_)) => bail!(lacks_upsampler(args, "--points")),
        (Some(guidance), None) => match &answer {
            Some(answer) => {
                let view = view(args, &perceptor, &input, guidance)?;
                answer.frame(&perceptor, view, &input)?
            }
            None => upsample(args, &perceptor, &input, guidance)?,
        },
        (Some(guidance), Some(points)) => {
            let view = view(args, &perceptor, &input, guidance)?;
            if let Some(answer) = &answer {
                answer
                    .points(&perceptor, view, points)
                    .with_context(|| named(&args.points))?
            } else {
                let values = view.points(points).with_context(|| named(&args.points))?;
                let shape = vec![points.len(), view.dim()];
                write(args, &shape, &values)?;
                shape
            }
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
        let element = match (shape.len(), &points, is_depth) {
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

fn lacks_upsampler(args: &Args, option: &str) -> String {
    format!(
        "{}: {option} needs upsampled features, but the bundle has no upsampler; convert it with --upsampler-weights, or use --upsampler jbu",
        args.bundle
    )
}

/// Writes the backbone's features.
fn backbone_only(args: &Args, input: &Input) -> Result<Vec<usize>> {
    for (given, option) in [
        (args.region.is_some(), "--region"),
        (args.picture.is_some(), "--picture"),
    ] {
        if given {
            bail!(lacks_upsampler(args, option));
        }
    }
    let f = &input.features;
    let shape = vec![1, f.dim, f.height, f.width];
    write(args, &shape, &f.to_map())?;
    Ok(shape)
}

/// Writes an output to --out, if given.
fn write(args: &Args, shape: &[usize], values: &[f32]) -> Result<()> {
    if let Some(out) = &args.out {
        let _writing = interrupt::Writing::begin()?;
        npy::write(out, shape, values)?;
    }
    Ok(())
}

fn named(path: &Option<PathBuf>) -> String {
    path.as_ref()
        .map_or_else(String::new, |path| path.display().to_string())
}

fn view<'a>(
    args: &Args,
    perceptor: &'a Perceptor,
    input: &Input,
    guidance: &ImageTensor,
) -> Result<EncodedFrame<'a>> {
    let range = args
        .input
        .range
        .color_range(&perceptor.manifest().normalization);
    if args.upsampler == Upsampler::Jbu {
        let features = input.features.clone();
        return Ok(perceptor.encode_jbu(features, guidance, JbuOptions::default()));
    }
    Ok(perceptor.encode_features(&input.features, guidance, range)?)
}

/// Streams the features of an image or region to the output files.
fn upsample(
    args: &Args,
    perceptor: &Perceptor,
    input: &Input,
    guidance: &ImageTensor,
) -> Result<Vec<usize>> {
    let view = view(args, perceptor, input, guidance)?;
    let Size { width, height } = view.size();
    let rect = args.region.unwrap_or(Rect::whole(view.size()));
    view.check_region(rect)?;
    let shape = vec![1, view.dim(), rect.height, rect.width];
    let _writing = interrupt::Writing::begin()?;
    if let Some(path) = &args.picture {
        panels_size(rect.width, rect.height).with_context(|| {
            format!(
                "{}: three panels of {}x{} are too large for one image; omit --picture, or choose a --region",
                path.display(),
                rect.width,
                rect.height
            )
        })?;
    }
    // Output files first, so that a full disk or a wrong path is reported before the work starts.
    let mut file = match &args.out {
        Some(out) => Some(NpySink::new(rect, NpyWriter::create(out, &shape)?)),
        None => None,
    };
    let panels = match &args.picture {
        Some(path) if path.is_dir() => bail!(
            "{}: is a directory; --picture needs a file name",
            path.display()
        ),
        Some(path) if !directory(path).is_dir() => bail!(
            "{}: no directory {}; create it, or choose another --picture",
            path.display(),
            directory(path).display()
        ),
        Some(path) => Some((path, Panels::new(&view, &input.features, rect)?)),
        None => None,
    };
    let mut components = panels
        .as_ref()
        .map(|(_, p)| PcaSink::new(rect, p.basis(), Panels::HIGH));

    let bar = progress::pixels(rect.area());
    let mut sink = |tile: &loftup_runtime::TileFeatures<'_>| {
        interrupt::check()?;
        if let Some(file) = &mut file {
            file.push(tile)?;
        }
        if let Some(components) = &mut components {
            components.push(tile)?;
        }
        bar.inc(tile.rect.area() as u64);
        Ok(())
    };
    let result = match args.region {
        Some(rect) => view.region(rect, &mut sink),
        None => view.frame(&mut sink),
    };
    bar.finish_and_clear();
    result?;
    // The visualization first: its disk space is not reserved, so it may fail, and then --out must
    // not appear either.
    if let (Some((path, panels)), Some(components)) = (&panels, components) {
        let photo = input.photo.resized(width, height)?;
        panels
            .draw(&photo, &components.into_values())?
            .save_png(path)?;
    }
    if let Some(file) = file {
        file.finish()?;
    }
    Ok(shape)
}

fn directory(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
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
