//! What an ONNX file says of itself.

use crate::pb::{
    ModelProto, ValueInfoProto, tensor_proto::DataLocation, tensor_shape_proto::dimension,
    type_proto,
};
use prost::Message;

/// Inputs and outputs of an ONNX graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// What is to be fed: graph inputs that are not initializers.
    pub inputs: Vec<Port>,
    /// What comes out.
    pub outputs: Vec<Port>,
    /// Number of nodes.
    pub nodes: usize,
    /// Whether weights lie in files of their own.
    pub external_data: bool,
}

/// An input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Extents as far as they are known; `None` where the rank is not.
    pub shape: Option<Vec<Option<usize>>>,
}

impl Interface {
    /// Reads the interface of a serialised model. `None` where `bytes` are no ONNX model.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let graph = ModelProto::decode(bytes).ok()?.graph?;
        let fed =
            |v: &&ValueInfoProto| graph.initializer.iter().all(|tensor| tensor.name != v.name);
        let external = Some(DataLocation::External as i32);
        Some(Self {
            inputs: graph.input.iter().filter(fed).map(port).collect(),
            outputs: graph.output.iter().map(port).collect(),
            nodes: graph.node.len(),
            external_data: graph
                .initializer
                .iter()
                .any(|t| t.data_location == external),
        })
    }
}

fn port(info: &ValueInfoProto) -> Port {
    let extents = info
        .r#type
        .as_ref()
        .and_then(|t| t.value.as_ref())
        .and_then(|value| {
            let type_proto::Value::TensorType(tensor) = value else {
                return None;
            };
            let dims = &tensor.shape.as_ref()?.dim;
            let extent = |d: &_| match d {
                Some(dimension::Value::DimValue(n)) => usize::try_from(*n).ok().filter(|n| *n > 0),
                _ => None,
            };
            Some(dims.iter().map(|d| extent(&d.value)).collect())
        });
    Port {
        name: info.name.clone(),
        shape: extents,
    }
}
