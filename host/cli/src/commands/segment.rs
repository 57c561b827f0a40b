//! `loftup segment`

use std::{path::PathBuf, time::Instant};

use anyhow::{Result, bail};
use loftup_bundle::Size;
use loftup_eval::{Method, clicks, dense};
use loftup_runtime::{
    Point,
    class_map::save_classes,
    click::{Click, ClickSegmenter, DEFAULT_THRESHOLD},
    image::{self, RgbImage},
};
use serde_json::json;

use super::through::{has_extension, shaded};
use crate::{
    args::{BundleArgs, EngineArgs, MethodArg, RangeArg, ReadArgs, pair},
    interrupt, output, progress,
};

/// Segment an object of an image from clicks, without training.
///
/// A pixel belongs to the object if its features are closer to those of a --click than to those of
/// every --not, and closer than the threshold, and if it is connected to a --click through such pixels.
/// The image is encoded once; each click takes milliseconds.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  loftup segment robot.loftup --image desk.jpg --click 320,200 --out mask.png
  loftup segment robot.loftup --image desk.jpg --click 320,200 --click 350,260 --not 100,40 \\
    --out mask.png --overlay overlay.png")]
pub struct Args {
    #[command(flatten)]
    bundle: BundleArgs,
    /// Input image: JPEG, PNG, WebP, BMP, TIFF or PNM
    #[arg(long, value_name = "FILE")]
    image: PathBuf,
    /// A pixel of the object, in pixels of the image; repeat for more
    #[arg(long, value_name = "X,Y", value_parser = pair, required = true)]
    click: Vec<[usize; 2]>,
    /// A pixel that does not belong to the object; repeat for more
    #[arg(long, value_name = "X,Y", value_parser = pair)]
    not: Vec<[usize; 2]>,
    /// The mask at the image's size: 255 inside and 0 outside, as `.png` or as uint8 `.npy` [H,W]
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Write the image with the mask and the clicks drawn over it
    #[arg(long, value_name = "FILE.png")]
    overlay: Option<PathBuf>,
    /// How features are upsampled
    #[arg(long, value_name = "METHOD", value_enum, default_value = "loftup")]
    upsampler: MethodArg,
    /// Cosine similarity from which a pixel can belong to the object, -1 to 1 [default: as fitted by
    /// `loftup head clicks`, or 0.6]
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    threshold: Option<f32>,
    /// Size of the features [default: the backbone's input size]
    #[arg(long, value_name = "WxH")]
    size: Option<Size>,
    /// Color range of the guidance, as in `run`
    #[arg(long, value_name = "RANGE", default_value = "image")]
    range: RangeArg,
    /// Print the result and times as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    read: ReadArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

pub fn run(args: &Args) -> Result<()> {
    if !["png", "npy"].iter().any(|e| has_extension(&args.out, e)) {
        bail!("{}: a mask is written as .png or .npy", args.out.display());
    }
    let bundle = args.bundle.path()?;
    let perceptor = args.engine.perceptor(&bundle)?;
    let photo = image::open_with(&args.image, args.read.orientation())?.image;
    let (width, height) = (photo.width(), photo.height());
    for [x, y] in args.click.iter().chain(&args.not) {
        if *x >= width || *y >= height {
            bail!(
                "click {x},{y}: outside {}, which is {width}x{height}",
                args.image.display()
            );
        }
    }
    let method = Method::from(args.upsampler).for_bundle(perceptor.manifest());
    let fitted = clicks::threshold(perceptor.manifest().clicks.as_ref(), method);
    let threshold = args.threshold.or(fitted).unwrap_or(DEFAULT_THRESHOLD);
    let bar = progress::spinner();
    bar.set_message("encoding the image");
    let start = Instant::now();
    let range = args.range.color_range(&perceptor.manifest().normalization);
    let (size, features) = dense::features(&perceptor, &photo, args.size, range, method)?;
    let dim = features.len() / size.area();
    let mut segmenter = ClickSegmenter::from_features(size, dim, features, threshold)?;
    let encoding = start.elapsed().as_secs_f64();
    bar.finish_and_clear();
    if args.threshold.or(fitted).is_none() {
        log::warn!(
            "{}: no threshold was fitted for {}; using {DEFAULT_THRESHOLD}. Fit one with `loftup head clicks`, or give --threshold",
            bundle.display(),
            method.name()
        );
    }

    let click = |[x, y]: &[usize; 2], positive| Click {
        point: Point {
            x: x * size.width / width,
            y: y * size.height / height,
        },
        positive,
    };
    let all = args.click.iter().map(|p| click(p, true));
    let mut milliseconds = Vec::new();
    for click in all.chain(args.not.iter().map(|p| click(p, false))) {
        let start = Instant::now();
        segmenter.click(click)?;
        milliseconds.push(1e3 * start.elapsed().as_secs_f64());
    }
    let mask = segmenter.mask_at(Size { width, height });
    let pixels = mask.iter().filter(|inside| **inside).count();
    {
        let _writing = interrupt::Writing::begin()?;
        let levels: Vec<u8> = mask.iter().map(|m| 255 * u8::from(*m)).collect();
        save_classes(&args.out, width, height, &levels)?;
        if let Some(path) = &args.overlay {
            overlay(args, &photo, &mask)?.save_png(path)?;
        }
    }
    if args.json {
        let json = json!({
            "out": args.out,
            "overlay": args.overlay,
            "width": width,
            "height": height,
            "pixels": pixels,
            "method": method,
            "threshold": threshold,
            "threshold_from": match (args.threshold, fitted) {
                (Some(_), _) => "command-line",
                (None, Some(_)) => "bundle",
                (None, None) => "default",
            },
            "seconds_encoding": encoding,
            "milliseconds_per_click": milliseconds,
        });
        return output::line(format!("{json:#}"));
    }
    output::line(format!(
        "{}: {pixels} of {width}x{height} pixels ({:.1} %), {} with threshold {threshold:.3}",
        args.out.display(),
        100.0 * pixels as f64 / (width * height) as f64,
        method.name()
    ))?;
    if let Some(path) = &args.overlay {
        output::line(format!("{}: image with mask and clicks", path.display()))?;
    }
    let mean = milliseconds.iter().sum::<f64>() / milliseconds.len() as f64;
    output::line(format!(
        "{encoding:.2} s to encode the image, {mean:.1} ms per click"
    ))
}

const OBJECT: [u8; 3] = [30, 160, 255];
const POSITIVE: [u8; 3] = [40, 220, 60];
const NEGATIVE: [u8; 3] = [230, 40, 40];

/// The photograph with the mask in a color and a square for each click.
fn overlay(args: &Args, photo: &RgbImage, mask: &[bool]) -> Result<RgbImage> {
    let (width, height) = (photo.width(), photo.height());
    let pixels = photo.data().as_chunks::<3>().0.iter().zip(mask);
    let colors = pixels.map(|(pixel, inside)| match inside {
        true => shaded(OBJECT, *pixel),
        false => *pixel,
    });
    let mut image = RgbImage::new(width, height, colors.flatten().collect())?;
    let reach = (width.min(height) / 100).max(1);
    let clicks = [(&args.click, POSITIVE), (&args.not, NEGATIVE)];
    for (clicks, color) in clicks {
        for [x, y] in clicks {
            for row in y.saturating_sub(reach)..=(y + reach).min(height - 1) {
                let columns = x.saturating_sub(reach)..(x + reach + 1).min(width);
                let pixels = image.row_mut(row).as_chunks_mut::<3>().0;
                pixels[columns].fill(color);
            }
        }
    }
    Ok(image)
}
