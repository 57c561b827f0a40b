//! Fake quantization as a backend.

use std::sync::Arc;

use loftup_bundle::Precision;
use loftup_onnx::rewrite::{self, Model};
use loftup_runtime::backend::{self, Arithmetic, Backend, BackendError, Graph, TractBackend};

/// Runs a quantized graph in tract with its rounding emulated in fp32, so that the measured error
/// does not depend on a particular backend.
#[derive(Debug, Clone, Copy)]
pub struct AsWritten;

impl Backend for AsWritten {
    fn name(&self) -> &'static str {
        "as written"
    }

    fn arithmetic(&self, _: Precision) -> Option<Arithmetic> {
        None
    }

    fn load(&self, graph: &Graph) -> Result<Arc<dyn backend::Model>, BackendError> {
        let fake_quantized =
            Model::decode(&graph.onnx).and_then(|model| rewrite::fake_quantize(&model));
        let onnx = fake_quantized.map_err(|e| graph.rejected(self.name(), e.to_string()))?;
        TractBackend.load(&graph.with_fp32(onnx.encode()))
    }
}
