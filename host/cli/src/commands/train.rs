//! `loftup train`

use std::path::PathBuf;

use anyhow::Result;

/// Train an upsampler for the backbone of a bundle, on pictures without labels.
///
/// The settings are described in docs/training.md. Ctrl-C writes a checkpoint after the step that
/// is being done, and a second Ctrl-C ends at once; --resume goes on from the checkpoint, bit for
/// bit.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  loftup train train.toml
  loftup train train.toml --resume
  loftup train train.toml --print-settings
  loftup convert --backbone-onnx vfm.onnx --patch 16 --upsampler-weights runs/stage1/upsampler.safetensors --out robot.loftup")]
#[cfg_attr(not(feature = "train"), allow(dead_code))]
pub struct Args {
    /// The settings
    #[arg(value_name = "TRAIN.TOML")]
    settings: PathBuf,
    /// Go on from the checkpoint in the output folder
    #[arg(long)]
    resume: bool,
    /// Print all settings, with what is left out at its default, and do nothing else
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
    use loftup_train::{Config, Event, Outcome, train};

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
        &mut |event| match event {
            Event::Started {
                step,
                steps,
                pictures,
                with_masks,
                weights,
            } => bar.begin(
                format!(
                    "{pictures} pictures, {with_masks} with masks; {:.2} M weights",
                    weights as f64 / 1e6
                ),
                step,
                steps,
            ),
            Event::Stepped { step, losses, rate } => bar.step(step, losses[0].1, rate),
            Event::Saved(path) | Event::Drawn(path) => log::debug!("{}", path.display()),
        },
    );
    drop(bar);
    drop(resumable);
    match outcome? {
        Outcome::Finished(weights) => output::line(weights.display()),
        Outcome::Stopped(step) => {
            bail!("interrupted after {step} steps; go on from the checkpoint with --resume")
        }
    }
}
