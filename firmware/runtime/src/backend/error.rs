//! What can go wrong in an engine.

use std::time::Duration;

/// A failure of an engine. The message is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// The engine is not there, or cannot work on this machine.
    #[error("{backend} cannot be used: {what}")]
    Unavailable {
        /// The engine.
        backend: &'static str,
        /// Why, with the remedy.
        what: String,
        /// Whether nothing that belongs to it is on this machine, so that nobody expects it.
        absent: bool,
    },
    /// The graph cannot be loaded.
    #[error("{backend} cannot load {graph}: {what}")]
    Load {
        /// The engine.
        backend: &'static str,
        /// The graph.
        graph: String,
        /// What it said.
        what: String,
    },
    /// The graph failed while it ran.
    #[error("{backend} failed in {graph}: {what}")]
    Run {
        /// The engine.
        backend: &'static str,
        /// The graph.
        graph: String,
        /// What it said.
        what: String,
    },
    /// The engine did not answer in time.
    #[error(
        "{backend} did not answer within {} ms in {graph}; the GPU may be hung or overloaded",
        .after.as_millis()
    )]
    Timeout {
        /// The engine.
        backend: &'static str,
        /// The graph.
        graph: String,
        /// How long was waited.
        after: Duration,
    },
    /// The engine made NaN or an infinity out of finite inputs.
    #[error("{backend} put {value} at flat index {index} of output {output} of {graph}")]
    NotFinite {
        /// The engine.
        backend: &'static str,
        /// The graph.
        graph: String,
        /// Number of the output.
        output: usize,
        /// Flat index of the first such value.
        index: usize,
        /// The value.
        value: f32,
    },
    /// What the engine computes is not what the graph says.
    #[error(
        "{engine} computes {graph} wrongly: {what} (against the bundle's reference outputs); use another version of it, or --backend tract"
    )]
    Wrong {
        /// Product, version and device.
        engine: String,
        /// The graph.
        graph: String,
        /// The error that was found, and the one that is allowed.
        what: String,
    },
    /// Somebody asked to stop while an engine was being built.
    #[error("{graph}: the engine build was cancelled; start it again to finish it")]
    Cancelled {
        /// The graph.
        graph: String,
    },
    /// A buffer does not fit the input or output it is for.
    #[error("{graph}: {tensor} holds {expected} values, got {found}")]
    Size {
        /// The graph.
        graph: String,
        /// The input or output.
        tensor: String,
        /// Values it holds.
        expected: usize,
        /// Values that were given.
        found: usize,
    },
}
