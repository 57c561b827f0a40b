//! Panics of the inference backend as errors.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Runs a backend on a graph of unknown origin. A backend may panic on a graph that violates the
/// ONNX specification; that is reported as an error of the graph.
pub(crate) fn guarded<T, E: fmt::Display>(
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, String> {
    // State that `work` left incomplete is dropped with it.
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(panic) => {
            let what = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no reason given");
            Err(format!(
                "the inference engine failed on the graph ({what}); check it with onnx.checker"
            ))
        }
    }
}
