//! `loftup`: train upsamplers, and convert, inspect, run and verify bundles.

#![forbid(unsafe_code)]
// Doc comments on options are help texts. Brackets in them are shapes, not links.
#![allow(rustdoc::broken_intra_doc_links)]

mod args;
mod commands;
mod energy;
mod engines;
mod html;
mod interrupt;
mod output;
mod progress;
mod spread;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// Dense, pixel-accurate features of vision foundation models.
///
/// A bundle contains a backbone (DINOv2, CLIP, SigLIP, or any ONNX model that outputs a feature map),
/// the LoftUp upsampler, or both. `convert` creates a bundle from checkpoints. `run` computes the
/// features of an image, a region or a list of points.
#[derive(Debug, Parser)]
#[command(name = "loftup", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Log more to standard error; repeat for debug messages.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Command {
    Bench(commands::bench::Args),
    Compact(commands::compact::Args),
    Convert(commands::convert::Args),
    Demo(commands::demo::Args),
    Engine(commands::engine::Args),
    Eval(commands::eval::Args),
    Export(commands::export::Args),
    #[command(hide = true)]
    Generate(commands::generate::Args),
    Head(commands::head::Args),
    Inspect(commands::inspect::Args),
    Quantize(commands::quantize::Args),
    Run(commands::run::Args),
    Segment(commands::segment::Args),
    Track(commands::track::Args),
    Train(commands::train::Args),
    Verify(commands::verify::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let level = ["warn", "info", "debug"][usize::from(cli.verbose.min(2))];
    // tract's own messages are hidden by default. RUST_LOG overrides the filter.
    let filter = format!("{level},tract_core=error,tract_linalg=error,tract_onnx=error");
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(filter))
        .format_timestamp(None)
        .format_target(false)
        .init();
    interrupt::install();
    // A panic is reported in one line, like any error, and unwinding removes temporary files.
    std::panic::set_hook(Box::new(|panic| log::debug!("{panic}")));
    let work = || match &cli.command {
        Command::Bench(args) => commands::bench::run(args),
        Command::Compact(args) => commands::compact::run(args),
        Command::Convert(args) => commands::convert::run(args),
        Command::Demo(args) => commands::demo::run(args),
        Command::Engine(args) => commands::engine::run(args),
        Command::Eval(args) => commands::eval::run(args),
        Command::Export(args) => commands::export::run(args),
        Command::Generate(args) => commands::generate::run(args, Cli::command()),
        Command::Head(args) => commands::head::run(args),
        Command::Inspect(args) => commands::inspect::run(args),
        Command::Quantize(args) => commands::quantize::run(args),
        Command::Run(args) => commands::run::run(args),
        Command::Segment(args) => commands::segment::run(args),
        Command::Track(args) => commands::track::run(args),
        Command::Train(args) => commands::train::run(args),
        Command::Verify(args) => commands::verify::run(args),
    };
    let result = std::panic::catch_unwind(work).unwrap_or_else(|panic| {
        Err(match panic.downcast::<interrupt::Interrupted>() {
            Ok(interrupted) => (*interrupted).into(),
            Err(_) => anyhow::anyhow!("internal error; please report it with the output of -vv"),
        })
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let text = one_line(&e);
            interrupt::tell(format_args!("error: {text}"));
            if interrupt::pending() {
                ExitCode::from(interrupt::EXIT_CODE)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

/// An error and its causes on one line. A message that already ends with its cause is not followed by
/// it again.
fn one_line(error: &anyhow::Error) -> String {
    let text = error.chain().fold(String::new(), |text, cause| {
        let cause = cause.to_string();
        if text.is_empty() {
            cause
        } else if text.ends_with(&cause) {
            text
        } else {
            format!("{text}: {cause}")
        }
    });
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
