//! `loftup-node node.toml`: the perception node. The manual is `docs/node.md`.

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

/// Run a bundle on the camera stream of a robot, within deadlines
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Configuration file
    #[arg(required_unless_present = "generate")]
    config: Option<PathBuf>,
    /// Check the configuration and the bundle, then exit
    #[arg(long)]
    check: bool,
    /// Inject faults, for example source.drop=0.01,backend.hang=0.0001,seed=3
    #[arg(long, value_name = "SPEC")]
    inject: Option<String>,
    /// Run a soak test: a generated scene with all kinds of injected faults
    #[arg(long, value_name = "SECONDS")]
    soak: Option<u64>,
    /// Write the manual page and shell completions to this directory, for packaging
    #[arg(long, value_name = "DIR", hide = true, exclusive = true)]
    generate: Option<PathBuf>,
}

/// Exit code for errors in the command line or the configuration.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let args = Args::parse();
    // zenoh repeats messages every second that the node logs once.
    let level = env_logger::Env::default().default_filter_or("info,zenoh=error");
    env_logger::Builder::from_env(level).init();
    match run(&args) {
        Ok(code) => code,
        Err(e) => {
            print(
                std::io::stderr(),
                format_args!("error: {}", e.to_string().replace('\n', " ")),
            );
            let usage = e.is::<loftup_node::config::ConfigError>() || e.is::<UnknownFault>();
            ExitCode::from(if usage { EXIT_USAGE } else { 1 })
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
        print(std::io::stdout(), format_args!("{}: OK", path.display()));
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(seconds) = args.soak {
        return soak(&config, seconds, plan);
    }
    if !plan.is_empty() {
        log::warn!(
            "injecting faults: {}",
            args.inject.as_deref().unwrap_or_default()
        );
    }
    let (parts, _) = assemble::parts(config, &plan)?;
    let node = Node::start(parts)?;
    let handle = node.handle();
    ctrlc::set_handler(move || {
        log::info!("stopping");
        handle.stop();
    })?;
    node.run()?;
    Ok(ExitCode::SUCCESS)
}

/// Prints a line. A closed pipe is not an error.
fn print(mut out: impl Write, line: std::fmt::Arguments<'_>) {
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
    print(&out, format_args!("{outcome:#?}"));
    let failures = outcome.failures();
    for failure in &failures {
        print(&out, format_args!("failure: {failure}"));
    }
    let mib = |n: u64| n as f64 / f64::from(1 << 20);
    let verdict = match failures.is_empty() {
        true => "passed",
        false => "FAILED",
    };
    print(
        &out,
        format_args!(
            "{verdict}: {} frames, {} outputs, {} compared bit by bit, memory grew by {:.2} MiB",
            outcome.captured,
            outcome.published,
            outcome.compared,
            mib(outcome.growth())
        ),
    );
    Ok(if failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
