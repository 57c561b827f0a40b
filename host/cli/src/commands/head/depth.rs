//! `loftup head depth`

use std::path::PathBuf;

use anyhow::Result;
use loftup_eval::{Method, depth};
use loftup_runtime::depth::Camera;

use super::{Common, make};
use crate::{commands::data_args::DepthArgs, progress};

/// Fit a linear head for depth in meters.
///
/// Ridge regression of the logarithm of the depth on LoftUp's features, in closed form: the same
/// result every time, in seconds after the features. Or, with --bins 256, a head of bins trained by
/// gradient descent, as in AdaBins and Probe3D. The output is clamped to the range of the training
/// depths.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  loftup head depth robot.loftup --data kitchen/ --out robot2.loftup
  loftup head depth robot.loftup --data depth/index.csv --set kitchen --out robot2.loftup
  loftup run robot2.loftup --image desk.jpg --head depth --out depth.png --picture depth-colors.png")]
pub struct Args {
    /// The bundle, with a backbone and an upsampler
    bundle: PathBuf,
    #[command(flatten)]
    data: DepthArgs,
    /// Name of the head
    #[arg(long, value_name = "NAME", default_value = "depth")]
    name: String,
    #[command(flatten)]
    common: Common,
}

pub fn run(args: &Args) -> Result<()> {
    make(
        &args.bundle,
        &args.name,
        &args.data.data,
        &args.common,
        |perceptor, request| {
            let request = depth::Request {
                data: &args.data.data,
                set: args.data.set.as_deref(),
                size: request.size,
                range: request.range,
                orientation: request.orientation,
                methods: vec![Method::LoftUp],
                samples: request.samples,
                most: request.most,
                max_depth: args.data.max_depth,
                bins: args.data.bins,
                camera: Camera::default(),
                ridge: args.data.ridge,
                seed: request.probe.seed,
            };
            depth::head(perceptor, &request, &mut progress::stages())
        },
    )
}
