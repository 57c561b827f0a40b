//! Checkpoints written by PyTorch and safetensors, and malformed ones.
//!
//! The files in `tests/data` are real, written by `tools/make_checkpoint_fixtures.py`.

mod archive;
mod hostile;
mod real;
mod shards;
mod unusual;
mod upsampler;

use std::path::{Path, PathBuf};

use loftup_import::checkpoint::{Checkpoint, CheckpointError};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

/// Element i of the tensor with this seed, as defined by the script that creates the fixtures.
fn value(seed: usize, i: usize) -> f32 {
    ((7 * i + 13 * seed) % 31) as f32 / 8.0 - 15.0 / 8.0
}

fn values(seed: usize, n: usize) -> Vec<f32> {
    (0..n).map(|i| value(seed, i)).collect()
}

/// Writes the bytes to a file and opens it.
fn open_bytes(bytes: &[u8]) -> Result<Checkpoint, CheckpointError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let opened = Checkpoint::open(file.path());
    if let Err(error) = &opened {
        let message = error.to_string();
        assert!(
            !message.contains('\n') && message.len() < 700,
            "{message:?}"
        );
        assert!(
            message.starts_with(&*file.path().to_string_lossy()),
            "{message}"
        );
    }
    opened
}
