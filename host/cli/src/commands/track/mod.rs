//! `loftup track`

pub mod overlay;
mod video;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use loftup_bundle::Size;
use loftup_eval::{dense::Dense, labels::Labels};
use loftup_runtime::{
    Point, Rect,
    class_map::save_palette,
    image,
    track::{Seed, TrackOptions, TrackedMask, TrackedObject, Tracker},
};
use serde::Serialize;

use crate::{
    args::{BundleArgs, EngineArgs, MethodArg, RangeArg, ReadArgs, TrackArgs, region},
    interrupt, output, progress,
};

/// Follow objects through a video, from a mask, boxes or clicks in its first frame.
///
/// Writes a mask for each frame: a palette PNG of the frame's size, whose values are the objects and 0 the
/// background. Objects of --mask have its values; those of --box and then of --click have the next free
/// ones. Labels are propagated along similar features, without training (docs/tracking.md).
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  loftup track robot.loftup --video frames/ --mask first.png --out masks/ --overlay seen/
  loftup track robot.loftup --video 'frames/*.jpg' --box 80,60,200,120 --click 400,300 --out masks/
  loftup track backbone.loftup --video frames/ --box 80,60,200,120 --upsampler jbu --out masks/")]
#[command(group = clap::ArgGroup::new("objects")
    .args(["mask", "boxes", "clicks"])
    .required(true)
    .multiple(true))]
pub struct Args {
    #[command(flatten)]
    bundle: BundleArgs,
    /// The frames: a directory of images, or a glob, in the order of their names
    #[arg(long, value_name = "DIR|GLOB")]
    video: PathBuf,
    /// Objects in the first frame: a grayscale or palette PNG of its size, whose values 1 to 254 are
    /// objects
    #[arg(long, value_name = "FILE.png")]
    mask: Option<PathBuf>,
    /// Everything inside a box of the first frame is an object, in pixels; repeatable
    #[arg(long = "box", value_name = "X,Y,W,H", value_parser = region)]
    boxes: Vec<Rect>,
    /// The object at a pixel of the first frame: the connected cells around it that are similar to it;
    /// repeatable. Look at the first mask, because it may be more or less than the object
    #[arg(long = "click", value_name = "X,Y", value_parser = point)]
    clicks: Vec<Point>,
    /// Directory for the masks, one PNG for each frame with the frame's name; created if needed
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Directory for the frames with the objects drawn in color
    #[arg(long, value_name = "DIR")]
    overlay: Option<PathBuf>,
    /// How features are upsampled to the grid
    #[arg(long, value_name = "METHOD", value_enum, default_value_t = MethodArg::Loftup)]
    upsampler: MethodArg,
    /// Color range of the guidance, as in `run`
    #[arg(long, value_name = "RANGE", default_value = "image")]
    range: RangeArg,
    #[command(flatten)]
    track: TrackArgs,
    /// Print area, box and confidence of the objects in each frame as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    read: ReadArgs,
    // Last, because it ends with a help heading.
    #[command(flatten)]
    engine: EngineArgs,
}

/// The objects in one frame.
#[derive(Debug, Serialize)]
struct FrameRecord {
    image: PathBuf,
    mask: PathBuf,
    objects: Vec<ObjectRecord>,
}

#[derive(Debug, Serialize)]
struct ObjectRecord {
    label: u8,
    /// Pixels.
    area: usize,
    /// X, Y, width and height.
    #[serde(rename = "box")]
    bounds: Option<[usize; 4]>,
    confidence: f32,
}

impl From<&TrackedObject> for ObjectRecord {
    fn from(object: &TrackedObject) -> Self {
        Self {
            label: object.label,
            area: object.area,
            bounds: object.bounds.map(|r| [r.x, r.y, r.width, r.height]),
            confidence: object.confidence,
        }
    }
}

pub fn run(args: &Args) -> Result<()> {
    let frames = video::frames(&args.video)?;
    let mask = args.mask.as_deref().map(Labels::open).transpose()?;
    let perceptor = args.engine.perceptor(&args.bundle.path()?)?;
    let range = args.range.color_range(&perceptor.manifest().normalization);
    let method = args.upsampler.into();
    let dense = Dense::new(&perceptor, args.track.grid, range, vec![method])
        .with_context(|| args.bundle.to_string())?;
    let seeds = seeds(args, mask.as_ref())?;
    let options = args.track.options(&args.engine);
    let most = seeds.iter().map(|(label, _)| usize::from(*label)).max();
    let options = TrackOptions {
        max_objects: most.unwrap_or(1),
        ..options
    };
    let grid = (dense.grid().width, dense.grid().height);
    let mut tracker = Tracker::new(grid, dense.dim(), options)?;

    let _writing = interrupt::Writing::begin()?;
    let mut progress = progress::stages();
    let mut seen = TrackedMask::default();
    let mut records = Vec::new();
    for (i, (path, name)) in frames.iter().enumerate() {
        progress("tracking", i, frames.len());
        if interrupt::pending() {
            bail!(
                "interrupted after {i} of {} frames; their masks are complete",
                frames.len()
            );
        }
        let image = image::open_with(path, args.read.orientation())?.image;
        let size = Size {
            width: image.width(),
            height: image.height(),
        };
        let features = dense.features(method, &dense.encode(&image)?)?;
        tracker.update(&features)?;
        if i == 0 {
            if let (Some(mask), Some(file)) = (&mask, &args.mask)
                && mask.size != size
            {
                bail!(
                    "{}: a mask of {} for the first frame {} of {size}; both must have the same size",
                    file.display(),
                    mask.size,
                    path.display()
                );
            }
            tracker
                .start(&seeds, size)
                .with_context(|| path.display().to_string())?;
            // Not before the inputs are known to be right.
            for dir in [Some(&args.out), args.overlay.as_ref()]
                .into_iter()
                .flatten()
            {
                std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
            }
        }
        tracker.mask(size, &mut seen)?;
        let out = args.out.join(name);
        save_palette(&out, size.width, size.height, &seen.labels)?;
        if let Some(dir) = &args.overlay {
            overlay::draw(&image, &seen.labels)?.save_png(&dir.join(name))?;
        }
        records.push(FrameRecord {
            image: path.clone(),
            mask: out,
            objects: seen.objects.iter().map(ObjectRecord::from).collect(),
        });
    }
    drop(progress);
    if args.json {
        return output::line(serde_json::to_string_pretty(&records)?);
    }
    report(args, &records)
}

/// One line, and one for each object.
fn report(args: &Args, records: &[FrameRecord]) -> Result<()> {
    output::line(format!("{}: {} masks", args.out.display(), records.len()))?;
    if let Some(dir) = &args.overlay {
        output::line(format!("{}: overlays", dir.display()))?;
    }
    let labels = records
        .first()
        .into_iter()
        .flat_map(|r| r.objects.iter().map(|o| o.label));
    for label in labels {
        let of = |r: &'_ FrameRecord| {
            let object = r.objects.iter().find(|o| o.label == label && o.area > 0);
            object.map(|o| (o.area, o.confidence))
        };
        let visible: Vec<(usize, f32)> = records.iter().filter_map(of).collect();
        let least = visible
            .iter()
            .map(|(_, c)| *c)
            .fold(f32::INFINITY, f32::min);
        let area = visible.iter().map(|(a, _)| a).sum::<usize>() / visible.len().max(1);
        output::line(match visible.is_empty() {
            true => format!("object {label}: not visible in any frame"),
            false => format!(
                "object {label}: visible in {} of {} frames, {area} pixels on average, confidence at least {least:.2}",
                visible.len(),
                records.len()
            ),
        })?;
    }
    Ok(())
}

/// The objects of the first frame with their labels.
fn seeds<'a>(args: &Args, mask: Option<&'a Labels>) -> Result<Vec<(u8, Seed<'a>)>> {
    let mut taken = [false; 255];
    taken[0] = true;
    let mut seeds = Vec::new();
    if let (Some(mask), Some(file)) = (mask, &args.mask) {
        for value in &mask.values {
            if let Some(taken) = taken.get_mut(usize::from(*value)) {
                *taken = true;
            }
        }
        let values = &mask.values;
        let objects = (1..=254).filter(|v| taken[usize::from(*v)]);
        seeds.extend(objects.map(|value| (value, Seed::Mask { values, value })));
        if seeds.is_empty() {
            bail!(
                "{}: no object; values 1 to 254 are objects, 0 and 255 the background",
                file.display()
            );
        }
    }
    let marked = args.boxes.iter().map(|rect| Seed::Box(*rect));
    let marked = marked.chain(args.clicks.iter().map(|point| Seed::Click(*point)));
    for seed in marked {
        let Some(label) = taken.iter().position(|t| !t) else {
            bail!("more than 254 objects");
        };
        taken[label] = true;
        seeds.push((label as u8, seed));
    }
    Ok(seeds)
}

/// `X,Y`.
fn point(s: &str) -> Result<Point, String> {
    s.split_once(',')
        .and_then(|(x, y)| {
            Some(Point {
                x: x.trim().parse().ok()?,
                y: y.trim().parse().ok()?,
            })
        })
        .ok_or_else(|| "expected X,Y in pixels, as in 320,240".into())
}
