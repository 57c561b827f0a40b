//! `loftup compact`

#[cfg(feature = "train")]
mod distill;
#[cfg(feature = "train")]
mod report;

use std::{num::NonZeroUsize, path::PathBuf};

use anyhow::Result;
use loftup_bundle::Size;

/// Make a smaller, faster bundle: fewer channels, and a LoftUp distilled for them.
///
/// The backbone's features are projected to their principal channels, as a last layer of its graph,
/// and a LoftUp of that width learns the output of the bundle's own, projected alike. Needs no labels.
/// Heads have to be trained again, or kept with --head. docs/compact.md says what it costs and gains.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  loftup compact robot.loftup --channels 64 --images photos/ --out small.loftup
  loftup compact robot.loftup --channels 32 --head street --images photos/ --out small.loftup
  loftup compact robot.loftup --channels 32 --images photos/ --out small.loftup --resume")]
#[cfg_attr(not(feature = "train"), allow(dead_code))]
pub struct Args {
    /// The bundle, with a backbone and a LoftUp in fp32
    bundle: PathBuf,
    /// Channels of the new bundle
    #[arg(long, value_name = "K", default_value = "32")]
    channels: NonZeroUsize,
    /// A directory of images like those the robot will see. One in ten is held out for the report
    #[arg(long, value_name = "DIR")]
    images: PathBuf,
    /// A head of the bundle to keep: the channels hold all that it reads, and it is projected with
    /// them. Repeatable
    #[arg(long = "head", value_name = "NAME")]
    heads: Vec<String>,
    /// Training steps
    #[arg(long, value_name = "N", default_value = "600")]
    steps: u64,
    /// Size of the output in training [default: the backbone's input size]
    #[arg(long, value_name = "WxH")]
    size: Option<Size>,
    /// Destination: a directory that does not exist yet
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Directory for the training, which is kept [default: next to --out, deleted at the end]
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
    /// Continue an interrupted training, with the same options
    #[arg(long)]
    resume: bool,
    /// Replace an existing bundle
    #[arg(long)]
    force: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

#[cfg(not(feature = "train"))]
pub fn run(_: &Args) -> Result<()> {
    super::without_training("compact")
}

#[cfg(feature = "train")]
pub fn run(args: &Args) -> Result<()> {
    distill::run(args)
}
