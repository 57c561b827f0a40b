//! Detects the kind of upsampler in a checkpoint.

use loftup_onnx::loftup::LoftUp;
use loftup_spec::naf::NafWeights;

use crate::{
    checkpoint::{Checkpoint, CheckpointError},
    loftup, naf,
};

/// An upsampler of a supported kind.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)]
pub enum Upsampler {
    /// LoftUp, for features with a fixed number of channels.
    LoftUp(LoftUp),
    /// NAF or DiveUp, for features with any number of channels.
    Naf(NafWeights),
}

/// Reads the upsampler from a checkpoint. Its kind is detected from the tensor names.
///
/// # Errors
/// There are several upsamplers, or a tensor is missing, has a different shape, or contains NaN.
pub fn read(checkpoint: &Checkpoint) -> Result<Upsampler, CheckpointError> {
    let has = |marker| !checkpoint.prefixes(marker).is_empty();
    match (has(loftup::MARKER), has(naf::MARKER)) {
        (true, true) => Err(CheckpointError::Unsupported {
            path: checkpoint.path().to_owned(),
            what: "it contains a LoftUp and a NAF upsampler".into(),
            remedy: "select one with --prefix".into(),
        }),
        (false, true) => Ok(Upsampler::Naf(naf::read(checkpoint)?)),
        // Without an upsampler, the first tensor of LoftUp is reported as missing.
        _ => Ok(Upsampler::LoftUp(loftup::read(checkpoint)?)),
    }
}
