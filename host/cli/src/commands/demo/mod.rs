//! `loftup demo`

#[cfg(feature = "train")]
mod camera;
#[cfg(feature = "train")]
mod evaluation;
#[cfg(feature = "train")]
mod model;
#[cfg(feature = "train")]
mod next;
#[cfg(feature = "train")]
mod pictures;
#[cfg(feature = "train")]
mod place;
#[cfg(feature = "train")]
mod report;
#[cfg(feature = "train")]
mod scenes;
#[cfg(feature = "train")]
mod stages;
#[cfg(feature = "train")]
mod training;

use std::path::PathBuf;

use anyhow::Result;

/// Show everything once, in a few minutes and without any files of yours: train, convert, measure,
/// and look through a moving camera.
///
/// The demo makes up scenes with exact labels, trains the built-in upsampler a little further on
/// them, makes a bundle, compares its features with enlarged ones, and gives every pixel of a film
/// a class. report.html in --out shows it all; the bundle beside it can be used like any other.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  loftup demo
  loftup demo --out tour --open")]
#[cfg_attr(not(feature = "train"), allow(dead_code))]
pub struct Args {
    /// Where everything goes: a directory that does not exist yet
    #[arg(long, value_name = "DIR", default_value = "demo")]
    out: PathBuf,
    /// Replace the demo that is already there, with all that lies beside it in its directory
    #[arg(long)]
    force: bool,
    /// Open the report in the browser
    #[arg(long)]
    open: bool,
    /// Steps of the training
    #[arg(long, value_name = "N", default_value_t = 24,
        value_parser = clap::value_parser!(u64).range(1..=100_000))]
    steps: u64,
}

#[cfg(not(feature = "train"))]
pub fn run(_: &Args) -> Result<()> {
    super::without_training("demo")
}

#[cfg(feature = "train")]
pub fn run(args: &Args) -> Result<()> {
    use loftup_bundle::Bundle;

    use report::Report;

    loftup_train::memory::keep_buffers();
    let place = place::Place::begin(&args.out, args.force)?;
    let at = place.work();
    let mut stages = stages::Stages::default();

    stages.run("scenes", |watch| scenes::write(at, watch))?;
    stages.run("built-in model", |watch| model::builtin(at, watch))?;
    let training = stages.run("training", |watch| training::train(at, args.steps, watch))?;
    let checks = stages.run("export", |watch| {
        model::export(at, &training::weights(at), watch)
    })?;
    let evaluation = stages.run("evaluation", |watch| evaluation::measure(at, watch))?;
    let head = stages.run("head", |watch| model::head(at, watch))?;
    let verification = stages.run("verification", |_| model::verify(at))?;
    let shown = stages.run("pictures", |watch| pictures::features(at, watch))?;
    let film = stages.run("moving camera", |watch| camera::film(at, watch))?;
    let flicker = stages.run("flicker", |watch| camera::flicker(at, watch))?;

    let manifest = Bundle::open(&at.join(model::BUNDLE))?.manifest().clone();
    let report = Report {
        about: report::About::of(&manifest, stages.seconds()),
        shown,
        evaluation,
        training,
        film,
        flicker,
        checks: report::Checks {
            head,
            conversion: checks,
            bundle: verification,
        },
        stages: report::Timings::of(&stages),
    };
    report.write(at)?;
    let seconds = stages.seconds();
    place.commit()?;
    next::say(&args.out, seconds)?;
    if args.open {
        next::open(&args.out.join(report::FILE));
    }
    Ok(())
}
