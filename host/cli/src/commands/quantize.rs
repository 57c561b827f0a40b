//! `loftup quantize`

mod page;

use std::{cell::RefCell, num::NonZeroUsize, path::PathBuf};

use anyhow::{Result, bail};
use clap::ValueEnum;
use loftup_bundle::{Bundle, Precision, Size};
use loftup_convert::quantize::{self, Report, Request, Score};
use loftup_eval::{data, evaluation};

use crate::{args::ReadArgs, interrupt, output, progress};

/// Quantize a bundle and measure the error.
///
/// The quantized graphs are run on the calibration images, rounding included, and compared with the
/// fp32 graphs. The manifest records the measured errors, and `loftup verify` enforces them.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  loftup quantize robot.loftup --precision fp16 --calibrate photos/ --out robot-fp16.loftup
  loftup quantize robot.loftup --precision int8 --calibrate photos/ --max-error 0.05 --out robot-int8.loftup --report int8.html
  loftup quantize robot.loftup --precision int8 --calibrate camvid/train/images --labels camvid/ --out robot-int8.loftup")]
pub struct Args {
    /// The bundle, with fp32 graphs and a backbone
    bundle: PathBuf,
    /// Target precision
    #[arg(long, value_enum)]
    precision: PrecisionArg,
    /// A directory of images like those the robot will see
    #[arg(long, value_name = "DIR")]
    calibrate: PathBuf,
    /// Destination: a directory that does not exist yet
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Largest allowed relative error of the features, end to end: the most sensitive layers stay
    /// in fp32 until it is met [default: 0.0075 for fp16,
    /// 0.05 for int8, any for fp16-weights]
    #[arg(long, value_name = "SHARE")]
    max_error: Option<f64>,
    /// Write a report as one HTML page
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write all measurements as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Evaluate a head of the bundle before and after on labeled images: images/ and labels/ in
    /// this directory or in its val/, as in `eval segmentation`
    #[arg(long, value_name = "DIR")]
    labels: Option<PathBuf>,
    /// The head to evaluate [default: the only one with classes]
    #[arg(long, value_name = "NAME", requires = "labels")]
    head: Option<String>,
    /// Most labeled images, evenly spread
    #[arg(long, value_name = "N", requires = "labels")]
    label_limit: Option<usize>,
    /// Most calibration images, evenly spread
    #[arg(long, value_name = "N", default_value = "16")]
    limit: NonZeroUsize,
    /// Tiles of 32x32 pixels compared per image
    #[arg(long, value_name = "N", default_value = "4")]
    tiles: NonZeroUsize,
    /// Input size [default: the backbone's]
    #[arg(long, value_name = "WxH")]
    size: Option<Size>,
    /// Keep the fp32 graphs in the new bundle
    #[arg(long)]
    keep: bool,
    /// Replace an existing bundle
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    read: ReadArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PrecisionArg {
    /// 16-bit floats, with 32-bit floats where those are not enough
    Fp16,
    /// 8-bit products, and 32-bit floats otherwise
    Int8,
    /// 16-bit weights, 32-bit arithmetic: half the file size, the same speed
    Fp16Weights,
}

impl From<PrecisionArg> for Precision {
    fn from(precision: PrecisionArg) -> Self {
        match precision {
            PrecisionArg::Fp16 => Self::Fp16,
            PrecisionArg::Int8 => Self::Int8,
            PrecisionArg::Fp16Weights => Self::Fp16Weights,
        }
    }
}

pub fn run(args: &Args) -> Result<()> {
    if let Some(limit) = args.max_error
        && !(limit.is_finite() && limit > 0.0)
    {
        bail!("--max-error {limit}: give a fraction above 0, as in 0.05");
    }
    let images = data::image_files(&args.calibrate)?;
    if images.is_empty() {
        bail!(
            "{}: no images in it; give a directory of JPEG or PNG files like those the robot will see",
            args.calibrate.display()
        );
    }
    let images = quantize::spread(images, args.limit.into());
    let head = match args.labels {
        Some(_) => Some(class_head(args)?),
        None => None,
    };
    let _writing = interrupt::Writing::begin()?;
    let bar = RefCell::new(progress::stages());
    let mut watch = |stage: &str, done: usize, all: usize| {
        log::debug!("{stage}: {done} of {all}");
        bar.borrow_mut()(stage, done, all);
        interrupt::flow()
    };
    let precision = args.precision.into();
    let request = Request {
        bundle: args.bundle.clone(),
        precision,
        images,
        size: args.size,
        orientation: args.read.orientation(),
        tiles: args.tiles.into(),
        max_error: args.max_error.or(quantize::default_max_error(precision)),
        keep: args.keep,
        out: args.out.clone(),
        replace: args.force,
    };
    let mut evaluate = |perceptor: &loftup_runtime::Perceptor| {
        let (labels, head) = (args.labels.as_deref(), head.as_deref());
        let (Some(labels), Some(head)) = (labels, head) else {
            return Err("there are no labels".into());
        };
        let watch = &mut |stage: &str, done, all| {
            bar.borrow_mut()(stage, done, all);
            interrupt::unwind_if_pending();
        };
        let scores = evaluation::evaluate(
            perceptor,
            head,
            labels,
            args.size,
            args.label_limit,
            args.read.orientation(),
            watch,
        )
        .map_err(|e| e.to_string())?;
        Ok(Score {
            head: head.into(),
            images: scores.images as u64,
            mean_iou: scores.mean_iou,
        })
    };
    let evaluate: Option<quantize::HeadEvaluator<'_>> = head.is_some().then_some(&mut evaluate);
    let report = quantize::quantize(&request, evaluate, &mut watch)?;
    drop(bar);
    if let Some(path) = &args.report {
        output::write(path, page::page(&report))?;
    }
    if let Some(path) = &args.json {
        output::write(path, serde_json::to_string_pretty(&report)? + "\n")?;
    }
    print(&report)
}

/// The head to evaluate.
fn class_head(args: &Args) -> Result<String> {
    let bundle = Bundle::open(&args.bundle)?;
    if let Some(name) = &args.head {
        bundle.head(name)?;
        return Ok(name.clone());
    }
    let heads = bundle.manifest().heads.iter();
    let classes: Vec<&String> = heads
        .filter(|(_, h)| h.kind.class_names().is_some())
        .map(|(name, _)| name)
        .collect();
    match classes[..] {
        [name] => Ok(name.clone()),
        [] => bail!(
            "{}: no head with classes to evaluate with --labels; make one with `loftup head classes`",
            args.bundle.display()
        ),
        _ => bail!(
            "{}: several heads with classes; name one with --head",
            args.bundle.display()
        ),
    }
}

fn print(report: &Report) -> Result<()> {
    let q = &report.quantization;
    let bytes =
        |f: fn(&quantize::FileSize) -> u64| report.files.iter().map(f).sum::<u64>() as f64 / 1e6;
    output::line(format!(
        "{}: {}, graphs of {:.1} MB instead of {:.1}",
        report.out.display(),
        report.precision,
        bytes(|f| f.after),
        bytes(|f| f.before)
    ))?;
    let errors = q.graphs.iter().map(|(name, error)| (name.as_str(), error));
    for (name, error) in errors.chain([("end to end", &q.error)]) {
        output::line(format!(
            "  {name:10} relative error {:.5}, cosine {:.6} (worst {:.5}), {:.3} % outliers",
            error.relative_error,
            error.cosine,
            error.worst_cosine,
            100.0 * error.outliers
        ))?;
    }
    if let Some(head) = &q.head {
        output::line(format!(
            "  head {}: mIoU {:.2} % in fp32, {:.2} % in {}, on {} images",
            head.name,
            100.0 * head.mean_iou_before,
            100.0 * head.mean_iou_after,
            report.precision,
            head.images
        ))?;
    }
    for t in &report.timings {
        output::line(format!(
            "  a frame on {}: {:.1} ms in fp32, {:.1} ms in {}",
            t.engine,
            1e3 * t.before,
            1e3 * t.after,
            report.precision
        ))?;
    }
    for name in &q.fp32_layers {
        output::line(format!("  stays in fp32: {name}"))?;
    }
    for note in &report.notes {
        output::line(format!("  {note}"))?;
    }
    Ok(())
}
