//! `loftup verify`

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use loftup_bundle::{Bundle, Size};
use loftup_convert::{Check, compare::Tolerance};
use loftup_runtime::{Perceptor, Rect, backend::Backend, npy, sinks::VecSink};
use serde_json::json;

use super::input::Input;
use crate::{
    args::{EngineArgs, InputArgs},
    engines, output, progress,
};

/// Verify a bundle.
///
/// Checks that the files match their checksums, that every graph runs, and that tiles, regions and
/// points match the output of the whole graph. With --against, the output for an input is also
/// compared with a reference.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  loftup verify robot.loftup
  loftup verify up.loftup --features lr.npy --guidance image.npy --against reference.npy
  loftup verify robot.loftup --image image.npy --against reference.npy --json")]
pub struct Args {
    /// The bundle
    bundle: PathBuf,
    /// Reference output for the same input, a `.npy` of shape [1,d,H,W]
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    #[command(flatten)]
    input: Option<InputArgs>,
    /// Maximum absolute error against the reference [default: 1e-4 for a backbone, 5e-3 for an
    /// upsampler]
    #[arg(long, value_name = "X", requires = "against")]
    max: Option<f64>,
    /// Maximum mean absolute error [default: 1e-4 for a backbone, 2e-4 for an upsampler]
    #[arg(long, value_name = "X", requires = "against")]
    mean: Option<f64>,
    /// Minimum cosine similarity of any pixel [default: 0.99999]
    #[arg(long, value_name = "X", requires = "against")]
    cosine: Option<f64>,
    /// Print the checks as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

pub fn run(args: &Args) -> Result<()> {
    if args.against.is_some() != args.input.is_some() {
        bail!(
            "--against and an input require each other: give --against with --image, or with --features and --guidance"
        );
    }
    let bundle = Bundle::open(&args.bundle)?;
    let backend = args.engine.open()?;
    let bar = progress::spinner();
    bar.set_message("verifying");
    let mut checks = loftup_convert::verify_with(bundle, backend.clone())?;
    if let (Some(reference), Some(input)) = (&args.against, &args.input) {
        bar.set_message("comparing with the reference");
        checks.push(against(args, &backend, input, reference)?);
    }
    bar.finish_and_clear();
    let health = backend.health();
    let passed = checks.iter().all(|c| c.passed);
    if args.json {
        output::line(format!(
            "{:#}",
            json!({
                "bundle": args.bundle,
                "passed": passed,
                "checks": checks,
                "backend": health.answering,
                "engine": backend.describe(),
                "degraded": health.reason(),
                "runs": engines::runs(&health),
            })
        ))?;
    } else {
        for check in &checks {
            output::line(format!("{check}"))?;
        }
        output::line(engines::summary(&health, &backend.describe()))?;
    }
    match checks.iter().find(|c| !c.passed) {
        Some(failed) => bail!("{}: failed: {failed}", args.bundle.display()),
        None => Ok(()),
    }
}

fn against(
    args: &Args,
    backend: &Arc<dyn Backend>,
    input: &InputArgs,
    reference: &Path,
) -> Result<Check> {
    let array = npy::read(reference)?;
    let perceptor = Perceptor::with_backend(
        Bundle::open(&args.bundle)?,
        backend.clone(),
        args.engine.options(),
    )?;
    let range = input.range.color_range(&perceptor.manifest().normalization);
    let input = Input::read(input, &perceptor, false)?;
    let (shape, output, default) = match &input.guidance {
        Some(guidance) => {
            let view = perceptor.encode_features(&input.features, guidance, range)?;
            let Size { width, height } = view.size();
            let mut sink = VecSink::new(Rect::whole(view.size()), view.dim())?;
            view.frame(&mut |tile| sink.push(tile))?;
            (
                vec![1, view.dim(), height, width],
                sink.to_map(),
                Tolerance::UPSAMPLER,
            )
        }
        None => {
            let f = input.features;
            (
                vec![1, f.dim, f.height, f.width],
                f.to_map(),
                Tolerance::BACKBONE,
            )
        }
    };
    if array.shape != shape {
        bail!(
            "{}: shape {:?}, but the output for this input has shape {shape:?}",
            reference.display(),
            array.shape
        );
    }
    let tolerance = Tolerance {
        max: args.max.unwrap_or(default.max),
        mean: args.mean.unwrap_or(default.mean),
        cosine: args.cosine.unwrap_or(default.cosine),
    };
    let dim = *shape.get(1).context("a shape of four axes")?;
    Ok(loftup_convert::against(
        &output,
        &array.data,
        dim,
        tolerance,
    ))
}
