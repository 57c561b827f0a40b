//! Builder for ONNX graphs.

use crate::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto,
    attribute_proto::AttributeType,
    tensor_proto::DataType,
    tensor_shape_proto::{Dimension, dimension},
    type_proto,
};
use prost::Message;

use crate::Tensor;

/// The operator set of all graphs written here.
pub(crate) const OPSET: i64 = 17;
/// The IR version for this operator set.
const IR_VERSION: i64 = 8;

/// A value of the graph: an input, an initializer or the output of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value(String);

impl Value {
    /// The value called `name`.
    pub(crate) fn named(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The name in the ONNX file.
    pub fn name(&self) -> &str {
        &self.0
    }
}

/// Size of an axis: fixed, or a named symbol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dim {
    /// A fixed size.
    Fixed(usize),
    /// Determined at run time; equal names mean equal sizes.
    Symbol(&'static str),
}

impl From<usize> for Dim {
    fn from(n: usize) -> Self {
        Self::Fixed(n)
    }
}

impl From<&'static str> for Dim {
    fn from(name: &'static str) -> Self {
        Self::Symbol(name)
    }
}

/// A named attribute of a node.
#[derive(Debug, Clone)]
pub enum Attr {
    /// One integer.
    Int(&'static str, i64),
    /// A list of integers.
    Ints(&'static str, Vec<i64>),
    /// One float.
    Float(&'static str, f32),
}

/// A graph under construction. Values can be used only in the graph that created them.
#[derive(Debug)]
pub struct Graph {
    pub(crate) proto: GraphProto,
    scope: Vec<String>,
}

impl Graph {
    /// An empty graph.
    pub fn new(name: &str) -> Self {
        Self {
            proto: GraphProto {
                name: name.into(),
                ..Default::default()
            },
            scope: Vec::new(),
        }
    }

    /// Runs `f` with `name` as a prefix of all names that it adds, so that error messages and layer
    /// reports of a runtime resemble the checkpoint's names.
    pub fn scope<T>(&mut self, name: impl Into<String>, f: impl FnOnce(&mut Self) -> T) -> T {
        self.scope.push(name.into());
        let result = f(self);
        self.scope.pop();
        result
    }

    /// Declares a 32-bit float input.
    pub fn input(&mut self, name: &str, shape: &[Dim]) -> Value {
        self.input_of(name, DataType::Float, shape)
    }

    /// Declares an input of any type.
    pub fn input_of(&mut self, name: &str, dtype: DataType, shape: &[Dim]) -> Value {
        self.proto.input.push(value_info(name, dtype, shape));
        Value(name.into())
    }

    /// Declares `value` as the output `name`.
    pub fn output(&mut self, value: &Value, name: &str, shape: &[Dim]) {
        self.declare("Identity", Vec::new(), value, name);
        let info = value_info(name, DataType::Float, shape);
        self.proto.output.push(info);
    }

    /// Declares `value`, converted to `dtype`, as the output `name`. The conversion is the last node, as
    /// TensorRT requires for an output of 8-bit unsigned integers.
    pub fn output_as(&mut self, value: &Value, name: &str, dtype: DataType, shape: &[Dim]) {
        let to = attribute(&Attr::Int("to", dtype as i64));
        self.declare("Cast", vec![to], value, name);
        self.proto.output.push(value_info(name, dtype, shape));
    }

    fn declare(&mut self, op: &str, attribute: Vec<AttributeProto>, value: &Value, name: &str) {
        self.proto.node.push(NodeProto {
            op_type: op.into(),
            name: format!("output/{name}"),
            input: vec![value.0.clone()],
            output: vec![name.into()],
            attribute,
            ..Default::default()
        });
    }

    /// A constant tensor.
    pub fn constant(&mut self, name: &str, tensor: &Tensor) -> Value {
        let raw = tensor.data().iter().flat_map(|x| x.to_le_bytes()).collect();
        self.initializer(name, DataType::Float, tensor.shape(), raw)
    }

    /// A constant scalar.
    pub fn scalar(&mut self, name: &str, x: f32) -> Value {
        self.initializer(name, DataType::Float, &[], x.to_le_bytes().to_vec())
    }

    /// A constant 64-bit float scalar.
    pub fn scalar_f64(&mut self, name: &str, x: f64) -> Value {
        self.initializer(name, DataType::Double, &[], x.to_le_bytes().to_vec())
    }

    /// A constant list of integers, such as a shape or axes.
    pub fn ints(&mut self, name: &str, values: &[i64]) -> Value {
        let raw = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.initializer(name, DataType::Int64, &[values.len()], raw)
    }

    /// A constant integer scalar.
    pub fn int(&mut self, name: &str, value: i64) -> Value {
        self.initializer(name, DataType::Int64, &[], value.to_le_bytes().to_vec())
    }

    /// Adds a node with one output.
    pub fn op(&mut self, op_type: &str, inputs: &[&Value], attrs: &[Attr]) -> Value {
        let name = self.unique(op_type);
        self.proto.node.push(NodeProto {
            op_type: op_type.into(),
            name: name.clone(),
            input: inputs.iter().map(|v| v.0.clone()).collect(),
            output: vec![name.clone()],
            attribute: attrs.iter().map(attribute).collect(),
            ..Default::default()
        });
        Value(name)
    }

    /// The finished model, serialized.
    pub fn finish(self) -> Vec<u8> {
        self.finish_model().encode_to_vec()
    }

    /// The finished model.
    pub(crate) fn finish_model(self) -> ModelProto {
        ModelProto {
            ir_version: IR_VERSION,
            opset_import: vec![OperatorSetIdProto {
                domain: String::new(),
                version: OPSET,
            }],
            producer_name: "loftup-edge".into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            graph: Some(self.proto),
            ..Default::default()
        }
    }

    fn initializer(&mut self, name: &str, dtype: DataType, shape: &[usize], raw: Vec<u8>) -> Value {
        let name = self.unique(name);
        self.proto.initializer.push(TensorProto {
            name: name.clone(),
            data_type: dtype as i32,
            dims: shape.iter().map(|&d| d as i64).collect(),
            raw_data: raw,
            ..Default::default()
        });
        Value(name)
    }

    /// Returns `a/b/name` with a number, which is unique for each node and initializer.
    fn unique(&self, name: &str) -> String {
        let number = self.proto.node.len() + self.proto.initializer.len();
        let mut full = self.scope.join("/");
        if !full.is_empty() {
            full.push('/');
        }
        format!("{full}{name}_{number}")
    }
}

/// Name, element type and shape of an input or output.
pub fn value_info(name: &str, dtype: DataType, shape: &[Dim]) -> ValueInfoProto {
    let dim = |d: &Dim| Dimension {
        value: Some(match d {
            Dim::Fixed(n) => dimension::Value::DimValue(*n as i64),
            Dim::Symbol(s) => dimension::Value::DimParam((*s).into()),
        }),
        ..Default::default()
    };
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(type_proto::Tensor {
                elem_type: dtype as i32,
                shape: Some(TensorShapeProto {
                    dim: shape.iter().map(dim).collect(),
                }),
            })),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn attribute(attr: &Attr) -> AttributeProto {
    match attr {
        Attr::Int(name, i) => AttributeProto {
            name: (*name).into(),
            r#type: AttributeType::Int as i32,
            i: *i,
            ..Default::default()
        },
        Attr::Ints(name, ints) => AttributeProto {
            name: (*name).into(),
            r#type: AttributeType::Ints as i32,
            ints: ints.clone(),
            ..Default::default()
        },
        Attr::Float(name, f) => AttributeProto {
            name: (*name).into(),
            r#type: AttributeType::Float as i32,
            f: *f,
            ..Default::default()
        },
    }
}
