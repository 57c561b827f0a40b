//! How one graph gets another precision.

use loftup_onnx::rewrite::{Layer, Model};

use super::{Calibrator, QuantizeError, graph::Graph};

/// A graph on its way to another precision.
pub(super) trait Quantizer {
    /// Layers that can be left in 32 bits, in the order of the graph, and the range of their
    /// activation where they have one.
    fn layers(&self, graph: &Graph) -> Vec<(Layer, Option<(Calibrator, f32)>)>;

    /// The graph with all but these layers rounded.
    fn quantize_except(&self, graph: &Graph, fp32: &[&Layer]) -> Result<Model, QuantizeError>;

    /// The graph with this layer alone rounded.
    fn quantize_only(&self, graph: &Graph, layer: &Layer) -> Result<Model, QuantizeError>;
}
