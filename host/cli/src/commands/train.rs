//! `loftup train`

use std::path::PathBuf;

use anyhow::Result;

/// Train an upsampler for the backbone of a bundle on unlabeled images.
///
/// docs/training.md describes the settings. Ctrl-C writes a checkpoint after the current step, and a
/// second Ctrl-C exits at once. --resume continues from the checkpoint with bit-identical results.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  loftup train train.toml
  loftup train train.toml --resume
  loftup train train.toml --print-settings
  loftup convert --backbone-onnx vfm.onnx --patch 16 --upsampler-weights runs/stage1/upsampler.safetensors --out robot.loftup")]
#[cfg_attr(not(feature = "train"), allow(dead_code))]
pub struct Args {
    /// Settings file
    #[arg(value_name = "TRAIN.TOML")]
    settings: PathBuf,
    /// Continue from the checkpoint in the output directory
    #[arg(long)]
    resume: bool,
    /// Print all settings, including defaults, and exit
    #[arg(long, conflicts_with = "resume")]
    print_settings: bool,
}

#[cfg(not(feature = "train"))]
pub fn run(_: &Args) -> Result<()> {
    super::without_training("train")
}

#[cfg(feature = "train")]
pub fn run(args: &Args) -> Result<()> {
    use anyhow::bail;
    use loftup_train::{Config, Outcome, train};

    use crate::{interrupt, output, progress};

    let config = Config::open(&args.settings)?;
    if args.print_settings {
        return output::line(config.complete().trim_end());
    }
    loftup_train::memory::keep_buffers();
    let resumable = interrupt::Resumable::begin()?;
    let mut bar = progress::Steps::new();
    let outcome = train(
        &config,
        &args.settings,
        args.resume,
        interrupt::flag(),
        &mut |event| bar.show(&event),
    );
    drop(bar);
    drop(resumable);
    match outcome? {
        Outcome::Finished(weights) => output::line(weights.display()),
        Outcome::Stopped(step) => {
            bail!("interrupted after {step} steps; continue from the checkpoint with --resume")
        }
    }
}
