//! Finds an upsampler among the models of a checkpoint.

use crate::checkpoint::{Checkpoint, CheckpointError, listed, teacher_of};

/// The prefix of the upsampler's names in a checkpoint, where `marker` is one of them: empty, or as
/// added by training (`model.`, `ema_model.`, ...). Of several upsamplers, the one without a prefix is
/// used; of a student and its teacher, the teacher. Empty if there is no upsampler.
///
/// # Errors
/// There are several candidates.
pub(crate) fn upsampler(checkpoint: &Checkpoint, marker: &str) -> Result<String, CheckpointError> {
    let prefixes: Vec<&str> = checkpoint.prefixes(marker).into_iter().collect();
    match prefixes[..] {
        [] => return Ok(checkpoint.prefix().into()),
        ["", ..] => return Ok(String::new()),
        [prefix] => return Ok(prefix.into()),
        _ => {}
    }
    let path = checkpoint.path();
    let all = listed(prefixes.iter().copied());
    match teacher_of(&prefixes) {
        Some(prefix) => {
            log::warn!(
                "{}: found upsamplers at {all}; using the teacher {prefix}*; select another with --prefix",
                path.display()
            );
            Ok(prefix.into())
        }
        None => Err(CheckpointError::Unsupported {
            path: path.to_owned(),
            what: format!("it contains several upsamplers, at {all}"),
            remedy: format!(
                "select one with --prefix, such as --prefix {}",
                prefixes[0].trim_end_matches('.')
            ),
        }),
    }
}
