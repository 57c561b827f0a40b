//! Conversion of graphs to other precisions.
//!
//! Every pass takes a [`Model`] and returns a new one. Precision is explicit in the graph:
//! [`to_half`] and [`half_weights`] write 16-bit floats with explicit `Cast`s, [`to_int8`] writes
//! `QuantizeLinear` and `DequantizeLinear`. Two passes go the other way: [`to_fp32`] returns the
//! 32-bit graph with the rounded weights, which the CPU runs, and [`fake_quantize`] a 32-bit graph
//! that rounds where the quantized one does, to measure the error.

mod fake_quantize;
mod fp32;
mod half;
mod int8;
mod linear;
mod observe;
pub mod tensors;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, attribute_proto::AttributeType,
    tensor_proto::DataLocation, tensor_proto::DataType, type_proto,
};
use prost::Message;

pub use self::{
    fake_quantize::fake_quantize,
    fp32::to_fp32,
    half::{HalfWeights, LARGEST, half_values, half_weights, to_half, weights_in_half},
    int8::{Layer, layers, to_int8},
    linear::{LinearMap, with_linear_map},
};

/// A graph that cannot be rewritten. The message is one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RewriteError {
    /// The bytes are not an ONNX model.
    #[error("not an ONNX model: {0}; convert the bundle again")]
    NotOnnx(String),
    /// Weights are in an external file.
    #[error(
        "tensor {0} is in an external file: save the model as one file (onnx.save with save_as_external_data=False)"
    )]
    External(String),
    /// The graph has branches or loops.
    #[error("node {node} ({op}) contains a subgraph; export the model without branches and loops")]
    ControlFlow {
        /// The node.
        node: String,
        /// Its operator.
        op: String,
    },
    /// A node without the inputs or outputs required by its operator.
    #[error("node {node} ({op}) has missing inputs or outputs; export the model again")]
    Incomplete {
        /// The node.
        node: String,
        /// Its operator.
        op: String,
    },
    /// The opset is too old for the conversion.
    #[error(
        "the graph has opset {found}, but {what} needs {needed}: export it again with opset 17"
    )]
    Opset {
        /// Its opset.
        found: i64,
        /// The conversion.
        what: &'static str,
        /// The minimum opset.
        needed: i64,
    },
    /// An unusable constant.
    #[error("tensor {name}: {what}")]
    Tensor {
        /// The tensor.
        name: String,
        /// What is wrong with it.
        what: String,
    },
}

/// An ONNX model to convert. Its constants are initializers without external data.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    proto: ModelProto,
}

impl Model {
    /// Decodes a serialized model.
    ///
    /// # Errors
    /// `bytes` are not a valid model, weights are external, or the model has branches, loops or
    /// local functions.
    pub fn decode(bytes: &[u8]) -> Result<Self, RewriteError> {
        let mut proto =
            ModelProto::decode(bytes).map_err(|e| RewriteError::NotOnnx(e.to_string()))?;
        if let Some(function) = proto.functions.first() {
            return Err(RewriteError::ControlFlow {
                node: function.name.clone(),
                op: "function".into(),
            });
        }
        let graph = proto
            .graph
            .as_mut()
            .ok_or_else(|| RewriteError::NotOnnx("it has no graph".into()))?;
        hoist_constants(graph);
        let outside =
            |t: &&crate::pb::TensorProto| t.data_location == Some(DataLocation::External as i32);
        if let Some(tensor) = graph.initializer.iter().find(outside) {
            return Err(RewriteError::External(tensor.name.clone()));
        }
        let inner = |a: &AttributeProto| a.g.is_some() || !a.graphs.is_empty();
        if let Some(node) = graph.node.iter().find(|n| n.attribute.iter().any(inner)) {
            return Err(RewriteError::ControlFlow {
                node: label(node).into(),
                op: node.op_type.clone(),
            });
        }
        if let Some(node) = graph.node.iter().find(|n| !is_complete(n)) {
            return Err(RewriteError::Incomplete {
                node: label(node).into(),
                op: node.op_type.clone(),
            });
        }
        // Old files list their weights among the inputs as well.
        let constants: HashSet<String> = graph.initializer.iter().map(|t| t.name.clone()).collect();
        graph.input.retain(|v| !constants.contains(&v.name));
        if let Some(name) = defined_twice(graph) {
            let what = format!("value {name:?} is defined twice");
            return Err(RewriteError::NotOnnx(what));
        }
        Ok(Self { proto })
    }

    /// Serializes the model.
    pub fn encode(&self) -> Vec<u8> {
        self.proto.encode_to_vec()
    }

    /// Number of nodes.
    pub fn nodes(&self) -> usize {
        self.graph().node.len()
    }

    /// Whether anything in the graph has less than 32 bits.
    pub fn is_quantized(&self) -> bool {
        let graph = self.graph();
        let narrow = |kind: i32| kind == DataType::Float16 as i32 || kind == DataType::Int8 as i32;
        graph.initializer.iter().any(|t| narrow(t.data_type))
            || graph.node.iter().any(|n| n.op_type == "QuantizeLinear")
    }

    /// Name and index of the first constant value that is NaN or infinite.
    pub fn not_finite(&self) -> Option<(String, usize)> {
        self.graph().initializer.iter().find_map(|tensor| {
            let values = tensors::floats(tensor)?;
            let index = values.iter().position(|x| !x.is_finite())?;
            Some((tensor.name.clone(), index))
        })
    }

    pub(crate) fn graph(&self) -> &GraphProto {
        // Checked by `decode`; otherwise an empty graph.
        static NONE: std::sync::OnceLock<GraphProto> = std::sync::OnceLock::new();
        self.proto
            .graph
            .as_ref()
            .unwrap_or_else(|| NONE.get_or_init(GraphProto::default))
    }

    /// Returns the model with another graph.
    fn with(&self, mut graph: GraphProto) -> Self {
        // Types of intermediate values are inferred again by readers.
        graph.value_info.clear();
        drop_unused(&mut graph);
        let mut proto = self.proto.clone();
        proto.graph = Some(graph);
        Self { proto }
    }

    /// Version of the standard operator set.
    pub(crate) fn opset(&self) -> i64 {
        let standard = |domain: &str| matches!(domain, "" | "ai.onnx");
        let imports = self.proto.opset_import.iter();
        imports
            .filter(|o| standard(&o.domain))
            .map(|o| o.version)
            .max()
            .unwrap_or(1)
    }

    fn needs_opset(&self, needed: i64, what: &'static str) -> Result<(), RewriteError> {
        let found = self.opset();
        if found < needed {
            return Err(RewriteError::Opset {
                found,
                what,
                needed,
            });
        }
        Ok(())
    }
}

/// Whether a node has the inputs and outputs that the passes rely on.
fn is_complete(node: &NodeProto) -> bool {
    let inputs = match node.op_type.as_str() {
        "Cast" => 1,
        "QuantizeLinear" | "DequantizeLinear" | "Conv" | "MatMul" | "Gemm" => 2,
        _ => 0,
    };
    node.input.len() >= inputs && !node.output.is_empty()
}

/// The name of a value with more than one definition, which ONNX does not allow. The passes
/// identify nodes by their outputs.
fn defined_twice(graph: &GraphProto) -> Option<&str> {
    let inputs = graph.input.iter().map(|v| &v.name);
    let constants = graph.initializer.iter().map(|t| &t.name);
    let outputs = graph.node.iter().flat_map(|n| &n.output);
    let mut defined = HashSet::new();
    inputs
        .chain(constants)
        .chain(outputs)
        .filter(|name| !name.is_empty())
        .find(|name| !defined.insert(name.as_str()))
        .map(String::as_str)
}

/// The name of a node, or else the name of its output.
fn label(node: &NodeProto) -> &str {
    if node.name.is_empty() {
        node.output.first().map_or("", String::as_str)
    } else {
        &node.name
    }
}

/// Converts `Constant` nodes to initializers, as the passes expect.
fn hoist_constants(graph: &mut GraphProto) {
    let outputs: HashSet<String> = graph.output.iter().map(|v| v.name.clone()).collect();
    let nodes = std::mem::take(&mut graph.node);
    for node in nodes {
        let tensor = (node.op_type == "Constant" && node.output.len() == 1)
            .then(|| node.attribute.iter().find(|a| a.name == "value"))
            .flatten()
            .and_then(|a| a.t.clone());
        match tensor {
            Some(mut tensor) if !outputs.contains(&node.output[0]) => {
                tensor.name = node.output[0].clone();
                graph.initializer.push(tensor);
            }
            _ => graph.node.push(node),
        }
    }
}

/// Removes unused initializers.
fn drop_unused(graph: &mut GraphProto) {
    let mut used: HashSet<&str> = graph.output.iter().map(|v| v.name.as_str()).collect();
    used.extend(
        graph
            .node
            .iter()
            .flat_map(|n| n.input.iter().map(String::as_str)),
    );
    let used: HashSet<String> = used.into_iter().map(str::to_owned).collect();
    graph.initializer.retain(|t| used.contains(&t.name));
}

/// Infers the element type of every value from the inputs and constants. The output of an unknown
/// operator is assumed to have the type of its first input.
pub(crate) fn element_types(graph: &GraphProto) -> HashMap<String, i32> {
    let mut types: HashMap<String, i32> = HashMap::new();
    for input in &graph.input {
        if let Some(type_proto::Value::TensorType(t)) =
            input.r#type.as_ref().and_then(|t| t.value.as_ref())
        {
            types.insert(input.name.clone(), t.elem_type);
        }
    }
    for tensor in &graph.initializer {
        types.insert(tensor.name.clone(), tensor.data_type);
    }
    for node in &graph.node {
        let of = |i: usize| node.input.get(i).and_then(|n| types.get(n)).copied();
        let int = |name: &str| node.attribute.iter().find(|a| a.name == name).map(|a| a.i);
        let kind = match node.op_type.as_str() {
            "Shape" | "Size" | "NonZero" | "ArgMax" | "ArgMin" => Some(DataType::Int64 as i32),
            "Cast" => int("to").and_then(|to| i32::try_from(to).ok()),
            "Equal" | "Greater" | "Less" | "GreaterOrEqual" | "LessOrEqual" | "And" | "Or"
            | "Not" | "Xor" | "IsNaN" | "IsInf" => Some(DataType::Bool as i32),
            "ConstantOfShape" => {
                let value = node.attribute.iter().find(|a| a.name == "value");
                let tensor = value.and_then(|a| a.t.as_ref());
                Some(tensor.map_or(DataType::Float as i32, |t| t.data_type))
            }
            "Constant" => {
                let value = node.attribute.iter().find(|a| a.name == "value");
                let tensor = value.and_then(|a| a.t.as_ref());
                let ints = node.attribute.iter().any(|a| a.name.contains("int"));
                tensor.map(|t| t.data_type).or(Some(if ints {
                    DataType::Int64 as i32
                } else {
                    DataType::Float as i32
                }))
            }
            "QuantizeLinear" => of(2).or(Some(DataType::Uint8 as i32)),
            "DequantizeLinear" | "Where" => of(1),
            _ => of(0),
        };
        for output in &node.output {
            if let Some(kind) = kind {
                types.insert(output.clone(), kind);
            }
        }
    }
    types
}

/// Index of the node that computes each value.
fn producers(graph: &GraphProto) -> HashMap<&str, usize> {
    let nodes = graph.node.iter().enumerate();
    nodes
        .flat_map(|(i, n)| n.output.iter().map(move |o| (o.as_str(), i)))
        .collect()
}

/// Indices of the nodes that use each value.
fn consumers(graph: &GraphProto) -> HashMap<&str, BTreeSet<usize>> {
    let mut found: HashMap<&str, BTreeSet<usize>> = HashMap::new();
    for (i, node) in graph.node.iter().enumerate() {
        for input in &node.input {
            found.entry(input).or_default().insert(i);
        }
    }
    found
}

/// The names in use.
pub struct Names(HashSet<String>);

impl Names {
    /// All names in use in the graph.
    pub fn of(graph: &GraphProto) -> Self {
        let mut taken: HashSet<String> = graph.initializer.iter().map(|t| t.name.clone()).collect();
        taken.extend(graph.input.iter().map(|v| v.name.clone()));
        for node in &graph.node {
            taken.insert(node.name.clone());
            taken.extend(node.output.iter().cloned());
        }
        Self(taken)
    }

    /// Returns `name`, with a number appended if it is already in use.
    pub fn fresh(&mut self, name: &str) -> String {
        let mut full = name.to_owned();
        let mut number = 1;
        while !self.0.insert(full.clone()) {
            number += 1;
            full = format!("{name}_{number}");
        }
        full
    }
}

/// A node with one output, named like its output.
pub fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: op.into(),
        name: format!("{output}/{op}"),
        input: inputs.iter().map(|s| (*s).to_owned()).collect(),
        output: vec![output.into()],
        ..Default::default()
    }
}

/// A `Cast` of `input` to `to`, called `output`.
pub fn cast(input: &str, output: &str, to: DataType) -> NodeProto {
    let mut node = node("Cast", &[input], output);
    node.attribute.push(int_attribute("to", to as i64));
    node
}

pub(crate) fn int_attribute(name: &str, i: i64) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        r#type: AttributeType::Int as i32,
        i,
        ..Default::default()
    }
}

/// Constants by name.
fn constants(graph: &GraphProto) -> BTreeMap<&str, &crate::pb::TensorProto> {
    let tensors = graph.initializer.iter();
    tensors.map(|t| (t.name.as_str(), t)).collect()
}
