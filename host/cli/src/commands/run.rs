//! `loftup run`

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use loftup_models::bundle::Size;
use loftup_runtime::{
    Perceptor, Picture, Point, Rect, View,
    npy::{self, NpyWriter},
    sinks::{Components, ToNpy},
};
use serde_json::json;

use super::{input::Input, panels::Panels};
use crate::{
    args::{EngineArgs, InputArgs, region},
    output, progress,
};

/// Ask a bundle for the features of a picture: the whole frame, a region or some points.
///
/// The answer is a `.npy` file, float32: [1,d,H,W] for a frame or region, [n,d] for n points, and
/// [1,d,h,w] from a bundle without an upsampler.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  loftup run robot.loftup --image street.jpg --size 448x448 --out features.npy --picture pca.png
  loftup run robot.loftup --image street.jpg --region 80,60,64,64 --out region.npy
  loftup run robot.loftup --image street.jpg --points points.csv --out points.npy
  loftup run up.loftup --features lr.npy --guidance image.npy --out out.npy")]
#[group(id = "answer", required = true, multiple = true)]
pub struct Args {
    /// The bundle
    bundle: PathBuf,
    #[command(flatten)]
    input: InputArgs,
    /// Only this part of the answer, in its pixels
    #[arg(long, value_name = "X,Y,W,H", value_parser = region, conflicts_with = "points")]
    region: Option<Rect>,
    /// Only these pixels of the answer: a CSV file, one `x,y` a line, with or without a heading
    #[arg(long, value_name = "FILE")]
    points: Option<PathBuf>,
    /// Where the features go, as `.npy`
    #[arg(long, value_name = "FILE", group = "answer")]
    out: Option<PathBuf>,
    /// A picture to look at: photograph, backbone features and upsampled features side by side,
    /// the features as three principal components with a common basis
    #[arg(
        long,
        value_name = "FILE.png",
        group = "answer",
        conflicts_with = "points"
    )]
    picture: Option<PathBuf>,
    /// Print sizes and times as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

pub fn run(args: &Args) -> Result<()> {
    let start = Instant::now();
    let points = args.points.as_deref().map(read_points).transpose()?;
    let perceptor = Perceptor::open(&args.bundle, args.engine.options())?;
    let load = start.elapsed().as_secs_f64();
    let bar = progress::spinner();
    bar.set_message("running the backbone");
    let input = Input::read(&args.input, &perceptor)?;
    bar.finish_and_clear();

    let clock = Instant::now();
    let shape = match (&input.guidance, &points) {
        (None, None) => backbone_only(args, &input)?,
        (None, Some(_)) => bail!(lacks_upsampler(args, "--points")),
        (Some(guidance), None) => upsample(args, &perceptor, &input, guidance)?,
        (Some(guidance), Some(points)) => {
            let view = view(args, &perceptor, &input, guidance)?;
            let values = view.points(points)?;
            let shape = vec![points.len(), view.dim()];
            if let Some(out) = &args.out {
                npy::write(out, &shape, &values)?;
            }
            shape
        }
    };
    let answer = clock.elapsed().as_secs_f64();
    let total = start.elapsed().as_secs_f64();
    let threads = args.engine.options().threads;
    if args.json {
        let json = json!({
            "out": args.out,
            "picture": args.picture,
            "shape": shape,
            "backend": perceptor.backend(),
            "threads": threads,
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
    if let Some(out) = &args.out {
        output::line(format!("{}: float32 {shape:?}", out.display()))?;
    }
    if let Some(picture) = &args.picture {
        output::line(format!(
            "{}: photograph, backbone features, upsampled features",
            picture.display()
        ))?;
    }
    let backbone = input
        .backbone_seconds
        .map_or(String::new(), |s| format!("backbone {s:.2} s, "));
    output::line(format!(
        "{total:.2} s: loading {load:.2} s, {backbone}answer {answer:.2} s; {} on {threads} threads",
        perceptor.backend()
    ))?;
    Ok(())
}

fn lacks_upsampler(args: &Args, option: &str) -> String {
    format!(
        "{}: the bundle has no upsampler, and {option} asks for upsampled features; convert it with --upsampler-weights",
        args.bundle.display()
    )
}

/// The backbone's features as they are.
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
    if let Some(out) = &args.out {
        npy::write(out, &shape, &f.data)?;
    }
    Ok(shape)
}

fn view<'a>(
    args: &Args,
    perceptor: &'a Perceptor,
    input: &Input,
    guidance: &Picture,
) -> Result<View<'a>> {
    let range = args
        .input
        .range
        .colour_range(&perceptor.manifest().normalisation);
    Ok(perceptor.view(&input.features, guidance, range)?)
}

/// A frame or a region, streamed to where it is wanted.
fn upsample(
    args: &Args,
    perceptor: &Perceptor,
    input: &Input,
    guidance: &Picture,
) -> Result<Vec<usize>> {
    let view = view(args, perceptor, input, guidance)?;
    let Size { width, height } = view.size();
    let rect = args.region.unwrap_or(Rect {
        x: 0,
        y: 0,
        width,
        height,
    });
    view.check_region(rect)?;
    let shape = vec![1, view.dim(), rect.height, rect.width];
    // Places first: a full disk or a wrong path is then known before the work is done.
    let mut file = match &args.out {
        Some(out) => Some(ToNpy::new(rect, NpyWriter::create(out, &shape)?)),
        None => None,
    };
    let panels = match &args.picture {
        Some(path) => Some((path, Panels::new(&view, &input.features, rect)?)),
        None => None,
    };
    let mut components = panels
        .as_ref()
        .map(|(_, p)| Components::new(rect, p.basis(), Panels::HIGH));

    let bar = progress::pixels(rect.area());
    let mut sink = |tile: &loftup_runtime::TileFeatures<'_>| {
        if let Some(file) = &mut file {
            file.take(tile)?;
        }
        if let Some(components) = &mut components {
            components.take(tile)?;
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
    if let Some(file) = file {
        file.finish()?;
    }
    if let (Some((path, panels)), Some(components)) = (&panels, components) {
        let photo = input.photo.resized(width, height)?;
        panels
            .draw(&photo, &components.into_values())?
            .save_png(path)?;
    }
    Ok(shape)
}

/// `x,y` a line; a first line without numbers is a heading.
fn read_points(path: &Path) -> Result<Vec<Point>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let mut points = Vec::new();
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
            None if i == 0 && !line.contains(|c: char| c.is_ascii_digit()) => {}
            None => bail!(
                "{}: line {}: {line:?} is not a point; write x,y as whole pixels from 0, one point a line",
                path.display(),
                i + 1
            ),
        }
    }
    if points.is_empty() {
        bail!(
            "{}: no points in it; write x,y as whole pixels from 0, one point a line",
            path.display()
        );
    }
    Ok(points)
}
