//! Reads the interface of an ONNX file.

use std::{collections::BTreeSet, fmt};

use crate::pb::{
    GraphProto, ModelProto, ValueInfoProto, tensor_proto::DataType, tensor_shape_proto::dimension,
    type_proto,
};
use prost::Message;

use super::walk;

/// Inputs and outputs of an ONNX graph, and its origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Graph inputs that are not initializers.
    pub inputs: Vec<Port>,
    /// Graph outputs.
    pub outputs: Vec<Port>,
    /// Number of nodes.
    pub nodes: usize,
    /// Operator sets: domain (empty for the standard one) and version.
    pub opsets: Vec<(String, i64)>,
    /// The tool that wrote the file and its version, if known.
    pub producer: String,
    /// Names of the files with external weights.
    pub external_files: Vec<String>,
}

/// An input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Type of its elements.
    pub element: ElementType,
    /// Its shape, as far as known; `None` if the rank is unknown.
    pub shape: Option<Vec<Option<usize>>>,
}

/// Element type of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ElementType(i32);

impl From<DataType> for ElementType {
    fn from(kind: DataType) -> Self {
        Self(kind as i32)
    }
}

impl ElementType {
    /// 32-bit float.
    pub const FLOAT32: Self = Self(DataType::Float as i32);
    /// IEEE 754 16-bit float.
    pub const FLOAT16: Self = Self(DataType::Float16 as i32);
    /// 16-bit float with the exponent range of 32 bits.
    pub const BFLOAT16: Self = Self(DataType::Bfloat16 as i32);
    /// 64-bit float.
    pub const FLOAT64: Self = Self(DataType::Double as i32);
    /// Unsigned byte.
    pub const UINT8: Self = Self(DataType::Uint8 as i32);

    /// Whether it is a float with 16, 32 or 64 bits.
    pub fn is_float(self) -> bool {
        [Self::FLOAT32, Self::FLOAT16, Self::BFLOAT16, Self::FLOAT64].contains(&self)
    }
}

impl fmt::Display for ElementType {
    /// The name in NumPy and PyTorch.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DataType::try_from(self.0) {
            Ok(DataType::Float) => f.write_str("float32"),
            Ok(DataType::Double) => f.write_str("float64"),
            Ok(DataType::Undefined) => f.write_str("undefined"),
            Ok(known) => write!(f, "{}", format!("{known:?}").to_lowercase()),
            Err(_) => write!(f, "element type {}", self.0),
        }
    }
}

impl Interface {
    /// Reads the interface of a serialized model. `None` if `bytes` are not an ONNX model.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let model = ModelProto::decode(bytes).ok()?;
        Some(Self::of_graph(&model, model.graph.as_ref()?))
    }

    /// The interface of `graph`, the main graph of `model`.
    pub fn of_graph(model: &ModelProto, graph: &GraphProto) -> Self {
        let constants = graph.initializer.iter().map(|t| t.name.as_str());
        let constants: BTreeSet<&str> = constants.collect();
        let fed = |v: &&ValueInfoProto| !constants.contains(v.name.as_str());
        let mut files = BTreeSet::new();
        walk::tensors(graph, &mut |tensor| {
            if tensor.is_external() {
                files.insert(tensor.external_entry("location").unwrap_or("").to_owned());
            }
        });
        Self {
            inputs: graph.input.iter().filter(fed).map(port).collect(),
            outputs: graph.output.iter().map(port).collect(),
            nodes: graph.node.len(),
            opsets: model
                .opset_import
                .iter()
                .map(|o| (o.domain.clone(), o.version))
                .collect(),
            producer: format!("{} {}", model.producer_name, model.producer_version)
                .trim()
                .to_owned(),
            external_files: files.into_iter().collect(),
        }
    }
}

fn port(info: &ValueInfoProto) -> Port {
    let tensor = info.r#type.as_ref().and_then(|t| t.value.as_ref());
    let tensor = tensor.and_then(|value| match value {
        type_proto::Value::TensorType(tensor) => Some(tensor),
        _ => None,
    });
    let extent = |d: &_| match d {
        Some(dimension::Value::DimValue(n)) => usize::try_from(*n).ok().filter(|n| *n > 0),
        _ => None,
    };
    Port {
        name: info.name.clone(),
        element: ElementType(tensor.map_or(DataType::Undefined as i32, |t| t.elem_type)),
        shape: tensor
            .and_then(|t| t.shape.as_ref())
            .map(|s| s.dim.iter().map(|d| extent(&d.value)).collect()),
    }
}
