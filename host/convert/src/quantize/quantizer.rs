//! Quantization of one graph.

use loftup_onnx::rewrite::{Layer, Model};

use super::{Calibrator, QuantizeError, graph::Graph};

/// Quantizes one graph to a certain precision.
pub(super) trait Quantizer {
    /// Layers that can be quantized, in graph order, with the range of their activation, if any.
    fn layers(&self, graph: &Graph) -> Vec<(Layer, Option<(Calibrator, f32)>)>;

    /// Quantizes all layers except those in `fp32`.
    fn quantize_except(&self, graph: &Graph, fp32: &[&Layer]) -> Result<Model, QuantizeError>;

    /// Quantizes only this layer.
    fn quantize_only(&self, graph: &Graph, layer: &Layer) -> Result<Model, QuantizeError>;
}
