//! Reads NAF from a checkpoint. DiveUp has the same network and the same names.

use loftup_spec::naf::NafWeights;

use crate::{
    checkpoint::{Checkpoint, CheckpointError},
    prefix,
};

/// A tensor that only NAF checkpoints have.
pub(crate) const MARKER: &str = "image_encoder.sem_encoder.0.weight";

/// Reads NAF from a checkpoint with the published names, under any prefix.
///
/// # Errors
/// A tensor is missing, has a different shape, or contains NaN, or a period is not positive.
pub fn read(checkpoint: &Checkpoint) -> Result<NafWeights, CheckpointError> {
    let prefix = prefix::upsampler(checkpoint, MARKER)?;
    let weights = NafWeights::read(|name, shape| {
        let name = format!("{prefix}{name}");
        Ok::<_, CheckpointError>(checkpoint.tensor(&name, shape)?.into_data())
    })?;
    if let Some(period) = weights.periods.iter().find(|p| **p <= 0.0) {
        return Err(CheckpointError::Unsupported {
            path: checkpoint.path().to_owned(),
            what: format!(
                "{prefix}{} contains {period}, which is no period",
                loftup_spec::naf::PERIODS_NAME
            ),
            remedy: "use a checkpoint as it was published".into(),
        });
    }
    Ok(weights)
}
