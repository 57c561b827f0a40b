//! Observes intermediate values and single layers of a graph.

use std::collections::HashSet;

use crate::pb::{
    GraphProto, TensorShapeProto, TypeProto, ValueInfoProto,
    tensor_proto::DataType,
    tensor_shape_proto::{Dimension, dimension},
    type_proto,
};

use super::{Layer, Model};

impl Model {
    /// The model with `values` as additional outputs.
    pub fn with_outputs(&self, values: &[String]) -> Self {
        let mut graph = self.graph().clone();
        let known: HashSet<String> = graph.output.iter().map(|v| v.name.clone()).collect();
        for name in values.iter().filter(|name| !known.contains(*name)) {
            graph.output.push(float_value(name, None));
        }
        self.with(graph)
    }

    /// A model of only this layer, from its activation with this shape to its output.
    pub fn alone(&self, layer: &Layer, shape: &[usize]) -> Self {
        let whole = self.graph();
        // Its constants may be computed by other nodes, for example dequantized.
        let mut wanted: HashSet<&str> = HashSet::from([layer.output.as_str()]);
        let mut nodes = Vec::new();
        for node in whole.node.iter().rev() {
            if node.output.iter().any(|o| wanted.contains(o.as_str())) {
                let inputs = node.input.iter().map(String::as_str);
                wanted.extend(inputs.filter(|name| *name != layer.activation));
                nodes.push(node.clone());
            }
        }
        nodes.reverse();
        self.with(GraphProto {
            name: layer.name.clone(),
            node: nodes,
            initializer: whole.initializer.clone(),
            input: vec![float_value(&layer.activation, Some(shape))],
            output: vec![float_value(&layer.output, None)],
            ..Default::default()
        })
    }
}

fn float_value(name: &str, shape: Option<&[usize]>) -> ValueInfoProto {
    let shape = shape.map(|shape| TensorShapeProto {
        dim: shape
            .iter()
            .map(|n| Dimension {
                value: Some(dimension::Value::DimValue(*n as i64)),
                ..Default::default()
            })
            .collect(),
    });
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(type_proto::Tensor {
                elem_type: DataType::Float as i32,
                shape,
            })),
            ..Default::default()
        }),
        ..Default::default()
    }
}
