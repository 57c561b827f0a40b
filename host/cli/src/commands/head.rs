//! `loftup head`

use std::path::{Path, PathBuf};

use anyhow::Result;
use loftup_bundle::{HeadKind, Size};
use loftup_eval::{heads, probe};
use loftup_runtime::Perceptor;
use serde_json::json;

use crate::{
    args::{EngineArgs, RangeArg, ReadArgs, count},
    interrupt, output, progress,
};

/// Make a head and put it into a bundle: classes or short descriptors from the upsampled features.
///
/// `loftup run --head NAME` then answers with it, tile by tile: the features of a whole picture are
/// never in memory.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, clap::Subcommand)]
enum Kind {
    Classes(ClassesArgs),
    Pca(PcaArgs),
}

/// Train a linear probe that gives each pixel a class.
///
/// The data set holds images/ and labels/, or train/images and train/labels. Labels are PNG masks
/// with the index of the class, named as the picture; 255 is unlabeled. classes.txt names the
/// classes, one a line, from 0 (a line that says void is no class). CamVid is known as it is.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  loftup head classes robot.loftup --data camvid/ --out robot2.loftup
  loftup run robot2.loftup --image street.jpg --head classes --out map.png")]
struct ClassesArgs {
    /// The bundle, with a backbone and an upsampler
    bundle: PathBuf,
    /// The data set
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// What to call the head
    #[arg(long, value_name = "NAME", default_value = "classes")]
    name: String,
    /// Times that every sample is seen
    #[arg(long, value_name = "N", default_value_t = probe::Options::default().epochs, value_parser = count)]
    epochs: usize,
    #[command(flatten)]
    common: Common,
}

/// Fit the principal components of the features: K numbers for each pixel.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  loftup head pca robot.loftup --images photos/ -k 8 --out robot2.loftup
  loftup run robot2.loftup --image street.jpg --head pca --out descriptors.npy")]
struct PcaArgs {
    /// The bundle, with a backbone and an upsampler
    bundle: PathBuf,
    /// A directory of pictures
    #[arg(long, value_name = "DIR")]
    images: PathBuf,
    /// Numbers for each pixel
    #[arg(short = 'k', long, value_name = "K", default_value_t = 8)]
    channels: usize,
    /// What to call the head
    #[arg(long, value_name = "NAME", default_value = "pca")]
    name: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
struct Common {
    /// Where the bundle with the head goes; the bundle itself with --force
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace the bundle that is already there
    #[arg(long)]
    force: bool,
    /// Size at which pictures are looked at [default: the backbone's]
    #[arg(long, value_name = "WxH")]
    size: Option<Size>,
    /// Range of colors of the guidance, as in `run`: use the same there
    #[arg(long, value_name = "RANGE", default_value = "image")]
    range: RangeArg,
    /// Pixels of each picture that are used
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = count)]
    samples: usize,
    /// Pictures that are used at most, evenly spread
    #[arg(long, value_name = "N", value_parser = count)]
    limit: Option<usize>,
    /// Seed of all random choices
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    seed: u64,
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
    }
}

fn make(
    bundle: &Path,
    name: &str,
    data: &Path,
    args: &Common,
    head: impl FnOnce(&Perceptor, heads::Request) -> Result<heads::NewHead, loftup_eval::EvalError>,
) -> Result<()> {
    // Known before the work and not after it.
    if args.out.symlink_metadata().is_ok() && !args.force {
        anyhow::bail!(
            "{}: already exists; choose another --out, or replace the bundle with --force",
            args.out.display()
        );
    }
    let perceptor = args.engine.perceptor(bundle)?;
    let request = heads::Request {
        size: args.size,
        range: args.range.color_range(&perceptor.manifest().normalization),
        orientation: args.read.orientation(),
        samples: args.samples,
        most: args.limit,
        probe: probe::Options {
            seed: args.seed,
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
            "pictures": head.pictures,
            "pixels": head.pixels,
            "fit": head.fit,
            "left_out": head.left_out,
        });
        return output::line(format!("{json:#}"));
    }
    let (what, fit) = match &head.kind {
        HeadKind::Classes { names } => (format!("{} classes", names.len()), "of them right"),
        HeadKind::Descriptors { channels } => {
            (format!("{channels} descriptors"), "of their variance kept")
        }
    };
    output::line(format!(
        "{}: head {name} of {what}, from {} pixels of {} pictures, {:.1} % {fit}",
        args.out.display(),
        head.pixels,
        head.pictures,
        100.0 * head.fit
    ))
}
