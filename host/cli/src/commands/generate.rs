//! `loftup generate`: man pages and shell completions for the packages.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use clap::{Command, ValueEnum};
use clap_complete::Shell;

/// Write man pages and shell completions.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Output directory
    out: PathBuf,
}

pub fn run(args: &Args, mut command: Command) -> Result<()> {
    let mut write = || {
        fs::create_dir_all(&args.out)?;
        // Before the completions, which add a `help` subcommand to every command.
        clap_mangen::generate_to(command.clone(), &args.out)?;
        let name = command.get_name().to_owned();
        for shell in Shell::value_variants() {
            clap_complete::generate_to(*shell, &mut command, &name, &args.out)?;
        }
        Ok::<_, std::io::Error>(())
    };
    write().with_context(|| args.out.display().to_string())
}
