//! `loftup head`

mod clicks;
mod depth;

use std::path::{Path, PathBuf};

use anyhow::Result;
use loftup_bundle::{HeadKind, Size};
use loftup_eval::{heads, probe};
use loftup_runtime::Perceptor;
use serde_json::json;

use super::head_text;
use crate::{
    args::{EngineArgs, RangeArg, ReadArgs, SampleArgs, count},
    interrupt, output, progress,
};

/// Make a head, trained on upsampled features or from words, and add it to a bundle.
///
/// `loftup run --head NAME` applies the head tile by tile, so that the features of a whole image are
/// never held in memory.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, clap::Subcommand)]
enum Kind {
    Classes(ClassesArgs),
    Clicks(clicks::Args),
    Depth(depth::Args),
    Pca(PcaArgs),
    Text(head_text::Args),
}

/// Train a linear classifier for semantic segmentation.
///
/// The dataset contains images/ and labels/, or train/images and train/labels. Labels are PNG masks
/// of class indices with the same file names as the images; 255 is unlabeled. classes.txt lists the
/// class names, one per line, starting with class 0; void marks an index that is not a class.
/// CamVid's layout is supported, too.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  loftup head classes robot.loftup --data camvid/ --out robot2.loftup
  loftup run robot2.loftup --image street.jpg --head classes --out map.png")]
struct ClassesArgs {
    /// The bundle, with a backbone and an upsampler
    bundle: PathBuf,
    /// The dataset
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Name of the head
    #[arg(long, value_name = "NAME", default_value = "classes")]
    name: String,
    /// Training epochs
    #[arg(long, value_name = "N", default_value_t = probe::Options::default().epochs, value_parser = count)]
    epochs: usize,
    #[command(flatten)]
    common: Common,
}

/// Fit a PCA projection of the features to K channels.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  loftup head pca robot.loftup --images photos/ -k 8 --out robot2.loftup
  loftup run robot2.loftup --image street.jpg --head pca --out descriptors.npy")]
struct PcaArgs {
    /// The bundle, with a backbone and an upsampler
    bundle: PathBuf,
    /// A directory of images
    #[arg(long, value_name = "DIR")]
    images: PathBuf,
    /// Number of principal components
    #[arg(short = 'k', long, value_name = "K", default_value_t = 8)]
    channels: usize,
    /// Name of the head
    #[arg(long, value_name = "NAME", default_value = "pca")]
    name: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
struct Common {
    /// Output bundle; with --force it can be the input bundle
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace an existing bundle
    #[arg(long)]
    force: bool,
    /// Image size [default: the backbone's input size]
    #[arg(long, value_name = "WxH")]
    size: Option<Size>,
    /// Color range of the guidance; use the same in `run`
    #[arg(long, value_name = "RANGE", default_value = "image")]
    range: RangeArg,
    #[command(flatten)]
    samples: SampleArgs,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    read: ReadArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

pub fn run(args: &Args) -> Result<()> {
    match &args.kind {
        Kind::Classes(args) => make(
            &args.bundle,
            &args.name,
            &args.data,
            &args.common,
            |p, mut request| {
                request.probe.epochs = args.epochs;
                heads::classes(p, &args.data, &request, &mut progress::stages())
            },
        ),
        Kind::Clicks(args) => clicks::run(args),
        Kind::Depth(args) => depth::run(args),
        Kind::Pca(args) => make(
            &args.bundle,
            &args.name,
            &args.images,
            &args.common,
            |p, request| {
                heads::pca(
                    p,
                    &args.images,
                    args.channels,
                    &request,
                    &mut progress::stages(),
                )
            },
        ),
        Kind::Text(args) => head_text::run(args),
    }
}

/// Checked before the work starts.
fn check_out(out: &Path, force: bool) -> Result<()> {
    if out.symlink_metadata().is_ok() && !force {
        anyhow::bail!(
            "{}: already exists; choose another --out, or replace the bundle with --force",
            out.display()
        );
    }
    Ok(())
}

fn make(
    bundle: &Path,
    name: &str,
    data: &Path,
    args: &Common,
    head: impl FnOnce(&Perceptor, heads::Request) -> Result<heads::NewHead, loftup_eval::EvalError>,
) -> Result<()> {
    check_out(&args.out, args.force)?;
    let perceptor = args.engine.perceptor(bundle)?;
    let request = heads::Request {
        size: args.size,
        range: args.range.color_range(&perceptor.manifest().normalization),
        orientation: args.read.orientation(),
        samples: args.samples.samples,
        most: args.samples.limit,
        probe: probe::Options {
            seed: args.samples.seed,
            ..probe::Options::default()
        },
    };
    let head = head(&perceptor, request)?;
    {
        let _writing = interrupt::Writing::begin()?;
        heads::add(bundle, name, &head, data, &args.out, args.force)?;
    }
    if args.json {
        let json = json!({
            "out": args.out,
            "head": name,
            "kind": head.kind,
            "images": head.images,
            "pixels": head.pixels,
            "fit": head.fit,
            "skipped": head.skipped,
        });
        return output::line(format!("{json:#}"));
    }
    let (what, fit) = match &head.kind {
        HeadKind::Descriptors { channels } => {
            (format!("{channels} descriptors"), "explained variance")
        }
        HeadKind::Depth {
            min_meters,
            max_meters,
            ..
        } => (
            format!("depth, {min_meters:.2} to {max_meters:.2} m"),
            "explained variance of its logarithm",
        ),
        kind => (format!("{} classes", kind.outputs()), "training accuracy"),
    };
    output::line(format!(
        "{}: head {name}: {what}, {} pixels of {} images, {:.1} % {fit}",
        args.out.display(),
        head.pixels,
        head.images,
        100.0 * head.fit
    ))
}
