//! `loftup quantize`

mod page;

use std::{
    cell::RefCell,
    num::NonZeroUsize,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use loftup_bundle::{Bundle, HeadKind, Precision, Size};
use loftup_convert::quantize::{self, Report, Request, Score};
use loftup_eval::{data, evaluation};

use crate::{args::ReadArgs, interrupt, output, progress};

/// Make a bundle smaller and faster, and measure what it costs.
///
/// The new graphs are run as they are written, rounding included, on the calibration pictures, and
/// compared with the 32-bit ones. What was measured stands in the manifest, and `loftup verify`
/// holds the bundle to it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  loftup quantize robot.loftup --precision fp16 --calibrate photos/ --out robot-fp16.loftup
  loftup quantize robot.loftup --precision int8 --calibrate photos/ --max-error 0.05 --out robot-int8.loftup --report int8.html
  loftup quantize robot.loftup --precision int8 --calibrate camvid/train/images --labels camvid/ --out robot-int8.loftup")]
pub struct Args {
    /// The bundle, with 32-bit graphs and a backbone
    bundle: PathBuf,
    /// What the graphs are to compute in
    #[arg(long, value_enum)]
    precision: PrecisionArg,
    /// A directory of pictures like those the robot will see
    #[arg(long, value_name = "DIR")]
    calibrate: PathBuf,
    /// Where the new bundle goes: a directory that does not exist yet
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The relative error of the features that is allowed, end to end: the layers that hurt
    /// most are left in fp32 until it is met [default: 0.0075 for fp16,
    /// 0.05 for int8, any for fp16-weights]
    #[arg(long, value_name = "SHARE")]
    max_error: Option<f64>,
    /// Write a report as one HTML page
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write everything that was measured as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Judge a head of the bundle before and after on labelled pictures: images/ and labels/ in
    /// this directory or in its val/, as in `eval segmentation`
    #[arg(long, value_name = "DIR")]
    labels: Option<PathBuf>,
    /// The head that is judged [default: the only one with classes]
    #[arg(long, value_name = "NAME", requires = "labels")]
    head: Option<String>,
    /// Labelled pictures at most, evenly spread
    #[arg(long, value_name = "N", requires = "labels")]
    judge: Option<usize>,
    /// Calibration pictures at most, evenly spread
    #[arg(long, value_name = "N", default_value = "16")]
    limit: NonZeroUsize,
    /// Parts of 32x32 pixels of each picture's answer that are looked at
    #[arg(long, value_name = "N", default_value = "4")]
    tiles: NonZeroUsize,
    /// Size at which pictures are looked at [default: the backbone's]
    #[arg(long, value_name = "WxH")]
    size: Option<Size>,
    /// Put the 32-bit graphs into the new bundle, too
    #[arg(long)]
    keep: bool,
    /// Replace the bundle that is already there
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    read: ReadArgs,
}

/// The relative error that a precision may have where nothing is said.
fn usual_loss(precision: PrecisionArg) -> Option<f64> {
    match precision {
        PrecisionArg::Fp16 => Some(0.0075),
        PrecisionArg::Int8 => Some(0.05),
        PrecisionArg::Fp16Weights => None,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PrecisionArg {
    /// 16-bit floats, and 32-bit ones where those are not enough
    Fp16,
    /// 8-bit products, 32-bit floats for the rest
    Int8,
    /// Weights kept in 16 bits, arithmetic in 32: half the file, the same speed
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
    if let Some(loss) = args.max_error
        && !(loss.is_finite() && loss > 0.0)
    {
        bail!("--max-error {loss}: give a share above 0, as in 0.05");
    }
    let pictures = data::pictures(&args.calibrate)?;
    if pictures.is_empty() {
        bail!(
            "{}: no pictures in it; give a directory of JPEG or PNG files like those the robot will see",
            args.calibrate.display()
        );
    }
    let pictures = spread(pictures, args.limit.into());
    let head = match args.labels {
        Some(_) => Some(class_head(args)?),
        None => None,
    };
    let _writing = interrupt::Writing::begin()?;
    let bar = RefCell::new(progress::stages());
    let mut watch = |stage: &str, done: usize, all: usize| {
        log::debug!("{stage}: {done} of {all}");
        bar.borrow_mut()(stage, done, all);
        if interrupt::pending() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let request = Request {
        bundle: args.bundle.clone(),
        precision: args.precision.into(),
        images: pictures,
        size: args.size,
        orientation: args.read.orientation(),
        tiles: args.tiles.into(),
        max_error: args.max_error.or(usual_loss(args.precision)),
        keep: args.keep,
        out: args.out.clone(),
        replace: args.force,
    };
    let mut judge = |perceptor: &loftup_runtime::Perceptor| {
        let (labels, head) = (args.labels.as_deref(), head.as_deref());
        let (Some(labels), Some(head)) = (labels, head) else {
            return Err("there are no labels".into());
        };
        let watch = &mut |stage: &str, done, all| {
            bar.borrow_mut()(stage, done, all);
            interrupt::unwind_if_pending();
        };
        let judged = evaluation::evaluate(
            perceptor,
            head,
            labels,
            args.size,
            args.judge,
            args.read.orientation(),
            watch,
        )
        .map_err(|e| e.to_string())?;
        Ok(Score {
            head: head.into(),
            images: judged.images as u64,
            mean_iou: judged.mean_iou,
        })
    };
    let judge: Option<quantize::HeadEvaluator<'_>> = head.is_some().then_some(&mut judge);
    let report = quantize::quantize(&request, judge, &mut watch)?;
    drop(bar);
    if let Some(path) = &args.report {
        write(path, &page::page(&report))?;
    }
    if let Some(path) = &args.json {
        write(path, &(serde_json::to_string_pretty(&report)? + "\n"))?;
    }
    print(&report)
}

/// The head that is judged.
fn class_head(args: &Args) -> Result<String> {
    let bundle = Bundle::open(&args.bundle)?;
    if let Some(name) = &args.head {
        bundle.head(name)?;
        return Ok(name.clone());
    }
    let heads = bundle.manifest().heads.iter();
    let classes: Vec<&String> = heads
        .filter(|(_, h)| matches!(h.kind, HeadKind::Classes { .. }))
        .map(|(name, _)| name)
        .collect();
    match classes[..] {
        [name] => Ok(name.clone()),
        [] => bail!(
            "{}: no head with classes to judge with --labels; make one with `loftup head classes`",
            args.bundle.display()
        ),
        _ => bail!(
            "{}: several heads with classes; name one with --head",
            args.bundle.display()
        ),
    }
}

/// At most `most` of them, evenly spread.
fn spread(all: Vec<PathBuf>, most: usize) -> Vec<PathBuf> {
    let count = most.min(all.len());
    (0..count)
        .map(|i| all[i * all.len() / count].clone())
        .collect()
}

/// Writes a file beside its place and renames it.
fn write(path: &Path, text: &str) -> Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let written = std::fs::write(&part, text).and_then(|()| std::fs::rename(&part, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    written.with_context(|| format!("{}: cannot be written", path.display()))
}

fn print(report: &Report) -> Result<()> {
    let q = &report.quantisation;
    let bytes =
        |f: fn(&quantize::FileSize) -> u64| report.files.iter().map(f).sum::<u64>() as f64 / 1e6;
    output::line(format!(
        "{}: {}, graphs of {:.1} MB instead of {:.1}",
        report.out.display(),
        report.precision,
        bytes(|f| f.after),
        bytes(|f| f.before)
    ))?;
    let losses = q.graphs.iter().map(|(name, loss)| (name.as_str(), loss));
    for (name, loss) in losses.chain([("end to end", &q.error)]) {
        output::line(format!(
            "  {name:10} relative error {:.5}, cosine {:.6} (worst {:.5}), {:.3} % outliers",
            loss.relative_error,
            loss.cosine,
            loss.worst_cosine,
            100.0 * loss.outliers
        ))?;
    }
    if let Some(head) = &q.head {
        output::line(format!(
            "  head {}: mIoU {:.2} % in fp32, {:.2} % in {}, on {} pictures",
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
        output::line(format!("  left in fp32: {name}"))?;
    }
    for note in &report.notes {
        output::line(format!("  {note}"))?;
    }
    Ok(())
}
