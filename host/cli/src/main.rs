//! `loftup`: convert, inspect, run and verify bundles.

#![forbid(unsafe_code)]

mod args;
mod commands;
mod output;
mod progress;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Dense, pixel-accurate features of vision foundation models.
///
/// A bundle holds a backbone (DINOv2, CLIP, SigLIP or any ONNX with a feature map), the LoftUp
/// upsampler, or both. `convert` makes one from checkpoints, `run` asks it for the features of a
/// frame, a region or some points.
#[derive(Debug, Parser)]
#[command(name = "loftup", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Say more on standard error; twice for everything.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Command {
    Convert(commands::convert::Args),
    Inspect(commands::inspect::Args),
    Run(commands::run::Args),
    Verify(commands::verify::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let level = ["warn", "info", "debug"][usize::from(cli.verbose.min(2))];
    // Quiet by default about engines' own messages; RUST_LOG overrides it all.
    let filter = format!("{level},tract_core=error,tract_linalg=error,tract_onnx=error");
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(filter))
        .format_timestamp(None)
        .format_target(false)
        .init();
    let result = match cli.command {
        Command::Convert(args) => commands::convert::run(&args),
        Command::Inspect(args) => commands::inspect::run(&args),
        Command::Run(args) => commands::run::run(&args),
        Command::Verify(args) => commands::verify::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            // One line, whatever the causes are made of.
            let text = format!("{e:#}");
            eprintln!(
                "error: {}",
                text.split_whitespace().collect::<Vec<_>>().join(" ")
            );
            ExitCode::FAILURE
        }
    }
}
