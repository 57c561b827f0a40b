//! Fake quantization as a backend.

use loftup_onnx::rewrite::{self, Model};
use loftup_runtime::backend::{Arithmetic, Backend, BackendError, GraphSource, Plan, TractOnly};

/// Runs a quantized graph in tract with its rounding emulated in fp32, so that the measured error
/// is that of the graph and not of a particular backend.
#[derive(Debug, Clone, Copy)]
pub struct AsWritten;

impl Backend for AsWritten {
    fn name(&self) -> &'static str {
        "as written"
    }

    fn arithmetic(&self) -> Option<Arithmetic> {
        None
    }

    fn compile(&self, graph: &GraphSource<'_>) -> Result<Box<dyn Plan>, BackendError> {
        let fake_quantized =
            Model::decode(graph.onnx).and_then(|model| rewrite::fake_quantize(&model));
        let onnx = fake_quantized.map_err(|e| BackendError::Load {
            backend: self.name(),
            graph: graph.name.into(),
            what: e.to_string(),
        })?;
        TractOnly.compile(&GraphSource {
            onnx: &onnx.encode(),
            precision: loftup_bundle::Precision::Fp32,
            ..*graph
        })
    }
}
