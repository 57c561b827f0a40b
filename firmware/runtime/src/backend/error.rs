//! Errors of backends.

use std::time::Duration;

/// A backend error. The message is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// The backend is missing, or does not work on this machine.
    #[error("{backend} cannot be used: {what}")]
    Unavailable {
        /// Name of the backend.
        backend: &'static str,
        /// The reason, with a hint.
        what: String,
        /// Whether nothing of the backend is installed, so that its absence is expected.
        absent: bool,
    },
    /// The graph cannot be loaded.
    #[error("{backend} cannot load {graph}: {what}")]
    Load {
        /// Name of the backend.
        backend: &'static str,
        /// Name of the graph.
        graph: String,
        /// Description of the error.
        what: String,
    },
    /// The graph failed during a run.
    #[error("{backend} failed in {graph}: {what}")]
    Run {
        /// Name of the backend.
        backend: &'static str,
        /// Name of the graph.
        graph: String,
        /// Description of the error.
        what: String,
    },
    /// The backend did not finish in time.
    #[error(
        "{backend} timed out after {} ms in {graph}; the GPU may be hung or overloaded",
        .after.as_millis()
    )]
    Timeout {
        /// Name of the backend.
        backend: &'static str,
        /// Name of the graph.
        graph: String,
        /// The time limit.
        after: Duration,
    },
    /// The backend returned NaN or infinity for finite inputs.
    #[error("{backend} returned {value} at flat index {index} of output {output} of {graph}")]
    NotFinite {
        /// Name of the backend.
        backend: &'static str,
        /// Name of the graph.
        graph: String,
        /// Index of the output.
        output: usize,
        /// Flat index of the first such value.
        index: usize,
        /// The value.
        value: f32,
    },
    /// The backend's outputs differ from the reference outputs.
    #[error(
        "{engine} computes wrong outputs for {graph}: {what} (compared with the bundle's reference outputs); use another version of it, --backend tract, or on a CPU --cpu-precision fp32"
    )]
    Wrong {
        /// Product, version and device.
        engine: String,
        /// Name of the graph.
        graph: String,
        /// The error found and the error allowed.
        what: String,
    },
    /// An engine build was cancelled.
    #[error("{graph}: the engine build was cancelled")]
    Cancelled {
        /// Name of the graph.
        graph: String,
    },
    /// A buffer has the wrong size for an input or output.
    #[error("{graph}: {tensor} has {expected} values, got {found}")]
    Size {
        /// Name of the graph.
        graph: String,
        /// Name of the input or output.
        tensor: String,
        /// Expected number of values.
        expected: usize,
        /// Actual number of values.
        found: usize,
    },
}
