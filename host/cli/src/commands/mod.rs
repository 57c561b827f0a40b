//! One module for each command.

pub mod bench;
pub mod convert;
pub mod demo;
pub mod engine;
pub mod eval;
pub mod generate;
pub mod head;
pub mod inspect;
pub mod quantize;
pub mod run;
pub mod train;
pub mod verify;

mod input;
mod panels;
mod through;

/// What a build without training says of a command that trains.
#[cfg(not(feature = "train"))]
fn without_training(command: &str) -> anyhow::Result<()> {
    anyhow::bail!(
        "this build of loftup is without training, which `loftup {command}` needs; build it without --no-default-features, or with --features train"
    )
}
