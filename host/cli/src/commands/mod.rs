//! One module per command.

pub mod bench;
pub mod compact;
pub mod convert;
pub mod demo;
pub mod engine;
pub mod eval;
pub mod export;
pub mod generate;
pub mod head;
pub mod inspect;
pub mod quantize;
pub mod run;
pub mod segment;
pub mod track;
pub mod train;
pub mod verify;

mod colors;
mod data_args;
mod frames;
mod head_text;
mod input;
mod panels;
mod through;

/// Opens the head of a `--head` option: a name is one of the bundle, anything else a file.
fn open_head(
    perceptor: &loftup_runtime::Perceptor,
    name: &str,
) -> Result<loftup_runtime::heads::Head, loftup_runtime::RuntimeError> {
    match loftup_bundle::Head::is_name(name) {
        true => perceptor.head(name),
        false => perceptor.head_from_file(name.as_ref()),
    }
}

/// The error of a command that needs training, in a build without it.
#[cfg(not(feature = "train"))]
fn without_training(command: &str) -> anyhow::Result<()> {
    anyhow::bail!(
        "`loftup {command}` is not available in this build of loftup; build it with --features train"
    )
}
