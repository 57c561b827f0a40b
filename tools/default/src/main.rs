//! `loftup-default` trains the built-in weights.

#![forbid(unsafe_code)]

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use burn::tensor::Device;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use loftup_default::{
    backbone, evaluate, recalibrate::recalibrate_batch_norm, scenes, upsampler, weights,
};

/// Train the built-in weights on generated scenes.
///
/// Trains a small backbone and its LoftUp, writes both to OUT, and evaluates them on scenes that
/// neither was trained on. The same command resumes an interrupted training.
#[derive(Debug, Parser)]
#[command(name = "loftup-default", version)]
struct Args {
    /// Directory for backbone.safetensors and upsampler.safetensors
    #[arg(long)]
    out: PathBuf,
    /// Directory for scenes, checkpoints and other temporary files
    #[arg(long, default_value = "target/default-weights")]
    work: PathBuf,
    /// Only evaluate the weights in OUT
    #[arg(long)]
    evaluate: bool,
    /// Steps of the backbone's training
    #[arg(long, value_name = "N")]
    backbone_steps: Option<u64>,
    /// Steps of the upsampler's training
    #[arg(long, value_name = "N")]
    upsampler_steps: Option<u64>,
    /// Training scenes of the upsampler
    #[arg(long, value_name = "N", default_value_t = 2000)]
    scenes: usize,
    /// Training scenes of the probes
    #[arg(long, value_name = "N", default_value_t = 200)]
    probe_scenes: usize,
    /// Scenes to evaluate the probes on
    #[arg(long, value_name = "N", default_value_t = 100)]
    eval_scenes: usize,
}

/// Scenes for the batch statistics of the upsampler.
const CALIBRATION_SCENES: usize = 32;

fn main() -> ExitCode {
    let args = Args::parse();
    loftup_train::memory::keep_buffers();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(
        "warn,loftup_default=info,tract_core=error,tract_linalg=error,tract_onnx=error",
    ))
    .format_timestamp(None)
    .format_target(false)
    .init();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    for dir in [&args.out, &args.work] {
        std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("stopping after this step; press Ctrl-C again to stop at once");
    })?;
    let started = Instant::now();
    let mut progress = bar();
    let (backbone_file, upsampler_file) = (
        args.out.join("backbone.safetensors"),
        args.out.join("upsampler.safetensors"),
    );
    let work = &args.work;
    let settings = backbone::Settings {
        steps: args
            .backbone_steps
            .unwrap_or(backbone::Settings::default().steps),
        ..Default::default()
    };
    if !args.evaluate {
        let device = Device::flex();
        let tensors = backbone::train(&settings, work, &device, &stop, &mut progress)?;
        weights::write_half(&backbone_file, &tensors)?;
        log::info!("backbone after {:.0} s", started.elapsed().as_secs_f64());

        let data = work.join(format!("scenes-{}", args.scenes));
        scenes::write_with_masks(&data, args.scenes, &mut progress)?;
        let half = work.join("backbone.loftup");
        evaluate::bundle(&settings.shape, &backbone_file, None, &half)?;
        let mut phases = upsampler::PHASES;
        for (phase, steps) in phases.iter_mut().zip(args.upsampler_steps) {
            phase.steps = steps.max(1);
        }
        let trained = upsampler::train_all(&phases, &half, &data, work, &stop, &mut progress)?;
        let tensors =
            recalibrate_batch_norm(&trained, &half, CALIBRATION_SCENES, &device, &mut progress)?;
        weights::write_half(&upsampler_file, &tensors)?;
        log::info!("upsampler after {:.0} s", started.elapsed().as_secs_f64());
    }

    let data = work.join(format!(
        "evaluated-{}-{}",
        args.probe_scenes, args.eval_scenes
    ));
    scenes::write_labeled(&data, args.probe_scenes, args.eval_scenes, &mut progress)?;
    let whole = work.join("default.loftup");
    evaluate::bundle(
        &settings.shape,
        &backbone_file,
        Some(&upsampler_file),
        &whole,
    )?;
    let report = evaluate::evaluate(&whole, &data, &mut progress)?;
    drop(progress);
    println!(
        "Linear probes trained on {} scenes and evaluated on {} others, {}x{}:\n",
        report.train_images, report.val_images, report.width, report.height
    );
    println!(
        "{}\n{}",
        evaluate::table(&report),
        evaluate::classes(&report)
    );
    println!("{:.1} minutes", started.elapsed().as_secs_f64() / 60.0);
    Ok(())
}

/// A progress bar for all stages.
fn bar() -> impl FnMut(&str, u64, u64, &str) {
    let bar = ProgressBar::new(0);
    let style = "{prefix}: {bar:30} {pos}/{len} {msg} {elapsed} elapsed, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    move |stage, done, all, what| {
        if bar.prefix() != stage {
            bar.set_prefix(stage.to_owned());
            bar.reset();
        }
        bar.set_length(all);
        bar.set_position(done);
        bar.set_message(what.to_owned());
    }
}
