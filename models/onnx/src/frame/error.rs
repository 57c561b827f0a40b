//! Errors of frame graphs.

use crate::rewrite::RewriteError;

/// Why a frame graph cannot be written. The message is one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A graph of the bundle that cannot be included.
    #[error("{part} graph: {source}")]
    Part {
        /// Which graph.
        part: &'static str,
        /// What is wrong with it.
        source: RewriteError,
    },
    /// A graph with another operator set.
    #[error(
        "{part} graph: it has opset {found}, but a frame graph can only include graphs of opset {} to {}: export it again with opset 17",
        super::part::OPSETS.start(), super::part::OPSETS.end()
    )]
    Opset {
        /// Which graph.
        part: &'static str,
        /// Its opset.
        found: i64,
    },
    /// A node that is not a standard operator.
    #[error(
        "{part} graph: node {node} ({op}) is of the operator set {domain:?}: export the model with standard operators only"
    )]
    Domain {
        /// Which graph.
        part: &'static str,
        /// The node.
        node: String,
        /// Its operator.
        op: String,
        /// Its operator set.
        domain: String,
    },
    /// A missing or unknown input or output.
    #[error("{part} graph: {what} {name:?}; convert the bundle again")]
    Port {
        /// Which graph.
        part: &'static str,
        /// What is wrong.
        what: &'static str,
        /// Name of the input or output.
        name: String,
    },
    /// A graph that does not fit into an ONNX file.
    #[error(
        "the frame graph has {bytes} bytes, but an ONNX file has at most {}: use a smaller backbone, or a bundle with fp16 weights (`loftup quantize`)",
        crate::LARGEST
    )]
    TooLarge {
        /// Its size.
        bytes: u64,
    },
}
