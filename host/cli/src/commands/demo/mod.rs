//! `loftup demo`

#[cfg(feature = "train")]
mod camera;
#[cfg(feature = "train")]
mod clicks;
#[cfg(feature = "train")]
mod depth;
#[cfg(feature = "train")]
mod evaluation;
#[cfg(feature = "train")]
mod images;
#[cfg(feature = "train")]
mod model;
#[cfg(feature = "train")]
mod next;
#[cfg(feature = "train")]
mod place;
#[cfg(feature = "train")]
mod report;
#[cfg(feature = "train")]
mod scenes;
#[cfg(feature = "train")]
mod stages;
#[cfg(feature = "train")]
mod tracking;
#[cfg(feature = "train")]
mod training;

use std::path::PathBuf;

use anyhow::Result;

/// Default number of training steps.
const STEPS: u64 = 150;

/// Run an end-to-end demo: train, convert, evaluate, segment a video, track, click, and depth.
///
/// Takes two minutes or so and needs no input files. The demo generates scenes with exact labels and
/// creates a bundle of the built-in model. It trains an upsampler for a short time from a bilateral
/// initialization, compares its features and those of the built-in one with interpolated features,
/// segments a video, tracks objects, segments objects by one click, and measures depth. --out gets
/// report.html with all results and demo.loftup, which can be used like any other bundle.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  loftup demo
  loftup demo --out tour --open")]
#[cfg_attr(not(feature = "train"), allow(dead_code))]
pub struct Args {
    /// Output directory; must not exist yet
    #[arg(long, value_name = "DIR", default_value = "demo")]
    out: PathBuf,
    /// Replace the directory of an earlier demo, with everything in it
    #[arg(long)]
    force: bool,
    /// Open the report in the browser
    #[arg(long)]
    open: bool,
    /// Training steps
    #[arg(long, value_name = "N", default_value_t = STEPS,
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
    let checks = stages.run("built-in model", |watch| model::builtin(at, watch))?;
    let training = stages.run("training", |watch| training::train(at, args.steps, watch))?;
    stages.run("export", |watch| {
        model::export(at, &training::start(at), &training::weights(at), watch)
    })?;
    let evaluation = stages.run("evaluation", |watch| evaluation::measure(at, watch))?;
    let head = stages.run("head", |watch| model::head(at, watch))?;
    let distances = stages.run("depth", |watch| depth::measure(at, watch))?;
    let clicks = stages.run("clicks", |watch| clicks::segment(at, watch))?;
    let tracking = stages.run("tracking", |watch| tracking::track(at, watch))?;
    let verification = stages.run("verification", |_| model::verify(at))?;
    let shown = stages.run("images", |watch| images::features(at, watch))?;
    let film = stages.run("video", |watch| camera::film(at, watch))?;
    let flicker = stages.run("flicker", |watch| camera::flicker(at, watch))?;

    let manifest = Bundle::open(&at.join(model::BUNDLE))?.manifest().clone();
    let report = Report {
        about: report::About::of(&manifest, stages.seconds()),
        shown,
        evaluation,
        training,
        film,
        flicker,
        tracking,
        clicks,
        distances,
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
    next::print(&args.out, seconds)?;
    if args.open {
        next::open(&args.out.join(report::FILE));
    }
    Ok(())
}
