//! `loftup track`

pub mod overlay;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use loftup_bundle::Size;
use loftup_eval::{dense::Dense, labels::Labels};
use loftup_runtime::{
    Point, Rect,
    class_map::save_palette,
    track::{Seed, TrackOptions, TrackedMask, TrackedObject, Tracker},
    video::VideoWriter,
};
use serde::Serialize;

use super::frames::{FrameArgs, Frames, Pictures};
use crate::{
    args::{BundleArgs, EngineArgs, MethodArg, RangeArg, ReadArgs, TrackArgs, region},
    interrupt, output, progress,
};

/// Follow objects through a video, from a mask, boxes or clicks in its first frame.
///
/// With --out DIR, writes a mask for each frame: a palette PNG of the frame's size, whose values are the objects and 0 the
/// background. Objects of --mask have its values; those of --box and then of --click have the next free
/// ones. Labels are propagated along similar features, without training (docs/tracking.md).
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  loftup track robot.loftup --video clip.mp4 --box 80,60,200,120 --out overlay.mp4
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
    /// The video: a file or stream, which ffmpeg or GStreamer decodes, or a directory of images or a glob,
    /// in the order of their names
    #[arg(long, value_name = "FILE|URL|DIR|GLOB")]
    video: PathBuf,
    #[command(flatten)]
    frames: FrameArgs,
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
    /// Directory for the masks, one PNG for each frame with the frame's name or number; created if needed. Or
    /// a video with the masks overlaid: .mp4, .mkv or .webm, by ffmpeg
    #[arg(long, value_name = "DIR|FILE")]
    out: PathBuf,
    /// Directory or video for the frames with the objects drawn in color
    #[arg(long, value_name = "DIR|FILE")]
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
    /// The image file, or the video.
    image: PathBuf,
    /// Number in the video, and seconds since its start.
    #[serde(skip_serializing_if = "Option::is_none")]
    frame: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mask: Option<PathBuf>,
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
    let mut frames = Frames::open(&args.video, args.frames, args.read.orientation())?;
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

    let masks = (!VideoWriter::writes(&args.out)).then_some(args.out.as_path());
    let drawn = masks.is_none().then_some(&args.out);
    let drawn: Vec<&PathBuf> = drawn.into_iter().chain(&args.overlay).collect();
    let _writing = interrupt::Writing::begin()?;
    let mut progress = progress::stages();
    let mut statistics = args.frames.naf_statistics();
    let mut seen = TrackedMask::default();
    let mut records = Vec::new();
    let mut pictures = Vec::new();
    loop {
        let done = records.len();
        progress("tracking", done, frames.expected().unwrap_or(done));
        let frame = frames.next_frame()?;
        if interrupt::pending() {
            let masks = match masks {
                Some(_) => "; their masks are complete",
                None => "",
            };
            bail!("interrupted after {done} frames{masks}");
        }
        let Some(frame) = frame else {
            break;
        };
        let size = Size {
            width: frame.image.width(),
            height: frame.image.height(),
        };
        let features = dense.features(method, &dense.encode(&frame.image)?, &mut statistics)?;
        tracker.update(&features)?;
        if done == 0 {
            if let (Some(mask), Some(file)) = (&mask, &args.mask)
                && mask.size != size
            {
                bail!(
                    "{}: a mask of {} for the first frame {} of {size}; both must have the same size",
                    file.display(),
                    mask.size,
                    frame.shown
                );
            }
            tracker
                .start(&seeds, size)
                .with_context(|| frame.shown.clone())?;
            // Not before the inputs are known to be right.
            if let Some(dir) = masks {
                std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
            }
            for path in &drawn {
                pictures.push(Pictures::create(path, &frames)?);
            }
        }
        tracker.mask(size, &mut seen)?;
        let out = masks.map(|dir| dir.join(format!("{}.png", frame.name)));
        if let Some(out) = &out {
            save_palette(out, size.width, size.height, &seen.labels)?;
        }
        if !pictures.is_empty() {
            let picture = overlay::draw(&frame.image, &seen.labels)?;
            for pictures in &mut pictures {
                let written = pictures.write(&frame.name, &picture);
                // Ctrl-C in a terminal ends the encoder, too; the next round tells.
                if !interrupt::pending() {
                    written?;
                }
            }
        }
        records.push(FrameRecord {
            image: frame.path,
            frame: frame.number,
            seconds: frame.seconds,
            mask: out,
            objects: seen.objects.iter().map(ObjectRecord::from).collect(),
        });
    }
    drop(progress);
    pictures.into_iter().try_for_each(Pictures::finish)?;
    if args.json {
        return output::line(serde_json::to_string_pretty(&records)?);
    }
    report(args, &records)
}

/// One line, and one for each object.
fn report(args: &Args, records: &[FrameRecord]) -> Result<()> {
    let what = match VideoWriter::writes(&args.out) {
        true => "frames",
        false => "masks",
    };
    output::line(format!("{}: {} {what}", args.out.display(), records.len()))?;
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
