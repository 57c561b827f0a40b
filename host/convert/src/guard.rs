//! Panics of the inference backend as errors.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Lets an engine work on a graph of unknown origin. Where the graph breaks the rules of ONNX,
/// engines may panic; that is an error of the graph like any other.
pub(crate) fn guarded<T, E: fmt::Display>(
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, String> {
    // What `work` leaves half-done is dropped with it.
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(panic) => {
            let what = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no reason given");
            Err(format!(
                "the engine gave up on a graph ({what}); check it with onnx.checker"
            ))
        }
    }
}
