//! `loftup-node node.toml`: the perception node. Configuration and behavior are described in
//! `docs/node.md`.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use clap::{CommandFactory, Parser, ValueEnum};
use clap_complete::Shell;
use loftup_node::{
    assemble,
    config::Config,
    inject::{Plan, UnknownFault},
    pipeline::Node,
    soak,
};

/// Runs a bundle on a robot: images in, outputs out, whatever happens.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// The configuration file
    #[arg(required_unless_present = "generate")]
    config: Option<PathBuf>,
    /// Only check the configuration, and whether the bundle is whole and has its heads
    #[arg(long)]
    check: bool,
    /// Let things go wrong on purpose, as in source.drop=0.01,backend.hang=0.0001,seed=3
    #[arg(long, value_name = "SPEC")]
    inject: Option<String>,
    /// Run for so many seconds on a generated scene with every fault, and say whether all went
    /// well
    #[arg(long, value_name = "SECONDS")]
    soak: Option<u64>,
    /// Write the manual page and shell completions into this directory, for a package
    #[arg(long, value_name = "DIR", hide = true, exclusive = true)]
    generate: Option<PathBuf>,
}

/// A mistake in the command line or the configuration.
const MISTAKE: u8 = 2;

fn main() -> ExitCode {
    let args = Args::parse();
    let level = env_logger::Env::default().default_filter_or("info");
    env_logger::Builder::from_env(level).init();
    match run(&args) {
        Ok(code) => code,
        Err(e) => {
            say(
                std::io::stderr(),
                format_args!("error: {}", e.to_string().replace('\n', " ")),
            );
            let mistake = e.is::<loftup_node::config::ConfigError>() || e.is::<UnknownFault>();
            ExitCode::from(if mistake { MISTAKE } else { 1 })
        }
    }
}

fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if let Some(out) = &args.generate {
        generate(out).map_err(|e| anyhow::anyhow!("{}: {e}", out.display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let path = args.config.as_deref().context("no configuration")?;
    let config = Config::open(path)?;
    let plan = match &args.inject {
        Some(text) => text.parse()?,
        None => Plan::default(),
    };
    if args.check {
        assemble::check_model(&config)?;
        for warning in config.warnings() {
            log::warn!("{warning}");
        }
        say(
            std::io::stdout(),
            format_args!("{}: in order", path.display()),
        );
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(seconds) = args.soak {
        return soak(&config, seconds, plan);
    }
    if !plan.is_empty() {
        log::warn!(
            "faults are injected on purpose: {}",
            args.inject.as_deref().unwrap_or_default()
        );
    }
    let (parts, _) = assemble::parts(config, &plan)?;
    let node = Node::start(parts)?;
    let handle = node.handle();
    ctrlc::set_handler(move || {
        log::info!("asked to stop");
        handle.stop();
    })?;
    node.run()?;
    Ok(ExitCode::SUCCESS)
}

/// Writes a line. That nobody reads it any more is no reason to end.
fn say(mut out: impl Write, line: std::fmt::Arguments<'_>) {
    let _ = writeln!(out, "{line}");
}

fn generate(out: &Path) -> std::io::Result<()> {
    let mut command = Args::command();
    let name = command.get_name().to_owned();
    for shell in Shell::value_variants() {
        clap_complete::generate_to(*shell, &mut command, &name, out)?;
    }
    clap_mangen::generate_to(command, out)
}

fn soak(config: &Config, seconds: u64, plan: Plan) -> anyhow::Result<ExitCode> {
    let mut options = soak::Options::new(Duration::from_secs(seconds), 1);
    if !plan.is_empty() {
        options.plan = plan;
    }
    let outcome = soak::run(config, &options).map_err(|e| anyhow::anyhow!("{e}"))?;
    let out = std::io::stdout();
    say(&out, format_args!("{outcome:#?}"));
    let faults = outcome.faults();
    for fault in &faults {
        say(&out, format_args!("wrong: {fault}"));
    }
    let mib = |n: u64| n as f64 / f64::from(1 << 20);
    let validation = match faults.is_empty() {
        true => "all well",
        false => "not well",
    };
    say(
        &out,
        format_args!(
            "{validation}: {} frames, {} answers, {} compared bit by bit, memory grew by {:.2} MiB",
            outcome.captured,
            outcome.published,
            outcome.compared,
            mib(outcome.growth())
        ),
    );
    Ok(if faults.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
