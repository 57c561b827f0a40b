//! Quantization of one graph.

use loftup_onnx::rewrite::{Layer, Model};

use super::{Calibrator, QuantizeError, graph::Graph};

/// Quantizes one graph to a certain precision.
pub(super) trait Quantizer {
    /// Layers that can be quantized, in graph order, with the range of their activation if it has
    /// one.
    fn layers(&self, graph: &Graph) -> Vec<(Layer, Option<(Calibrator, f32)>)>;

    /// The graph with all layers but those in `fp32` quantized.
    fn quantize_except(&self, graph: &Graph, fp32: &[&Layer]) -> Result<Model, QuantizeError>;

    /// The graph with only this layer quantized.
    fn quantize_only(&self, graph: &Graph, layer: &Layer) -> Result<Model, QuantizeError>;
}
