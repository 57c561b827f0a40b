//! Includes a graph in another one.

use std::{collections::HashMap, ops::RangeInclusive};

use super::FrameError;
use crate::{
    Graph, Value,
    graph::OPSET,
    pb::{GraphProto, tensor_proto::DataType},
    rewrite::{Model, element_types},
};

/// The operator sets whose operators mean the same in the set of the graphs written here.
pub(super) const OPSETS: RangeInclusive<i64> = 13..=OPSET;

/// A graph to include, once or several times with the same constants.
pub(super) struct Part {
    name: &'static str,
    graph: GraphProto,
    types: HashMap<String, i32>,
    copies: usize,
}

impl Part {
    /// Decodes a graph and adds its constants to `g`.
    pub fn new(g: &mut Graph, name: &'static str, onnx: &[u8]) -> Result<Self, FrameError> {
        let failed = |source| FrameError::Part { part: name, source };
        let model = Model::decode(onnx).map_err(failed)?;
        let found = model.opset();
        if !OPSETS.contains(&found) {
            return Err(FrameError::Opset { part: name, found });
        }
        let mut graph = model.graph().clone();
        // RoiAlign is the only operator whose defaults differ between these operator sets.
        let standard = |n: &crate::pb::NodeProto| {
            matches!(n.domain.as_str(), "" | "ai.onnx") && n.op_type != "RoiAlign"
        };
        if let Some(node) = graph.node.iter().find(|n| !standard(n)) {
            return Err(FrameError::Domain {
                part: name,
                node: node.name.clone(),
                op: node.op_type.clone(),
                domain: node.domain.clone(),
            });
        }
        let types = element_types(&graph);
        for mut tensor in std::mem::take(&mut graph.initializer) {
            tensor.name = format!("{name}/{}", tensor.name);
            g.proto.initializer.push(tensor);
        }
        Ok(Self {
            name,
            graph,
            types,
            copies: 0,
        })
    }

    /// Adds the nodes with these inputs, all of them 32-bit floats, and returns the outputs, also as 32-bit
    /// floats.
    pub fn call(
        &mut self,
        g: &mut Graph,
        inputs: &[(&str, &Value)],
        outputs: &[&str],
    ) -> Result<Vec<Value>, FrameError> {
        let prefix = match self.copies {
            0 => self.name.to_owned(),
            n => format!("{}.{n}", self.name),
        };
        self.copies += 1;
        let mut names: HashMap<&str, String> = HashMap::new();
        for input in &self.graph.input {
            let value = inputs.iter().find(|(name, _)| *name == input.name);
            let (_, value) =
                value.ok_or_else(|| self.port("nothing to connect to", &input.name))?;
            let value = match self.is_half(&input.name) {
                true => g.cast(value, DataType::Float16),
                false => (*value).clone(),
            };
            names.insert(&input.name, value.name().to_owned());
        }
        let inner = self.graph.node.iter().flat_map(|node| &node.output);
        for name in inner.filter(|name| !name.is_empty()) {
            names.insert(name, format!("{prefix}/{name}"));
        }
        for node in &self.graph.node {
            let mut copy = node.clone();
            copy.name = format!("{prefix}/{}", node.name);
            for name in copy.input.iter_mut().filter(|name| !name.is_empty()) {
                *name = match names.get(name.as_str()) {
                    Some(inside) => inside.clone(),
                    None => format!("{}/{name}", self.name),
                };
            }
            for name in copy.output.iter_mut().filter(|name| !name.is_empty()) {
                *name = format!("{prefix}/{name}");
            }
            g.proto.node.push(copy);
        }
        let known = |name: &&str| self.graph.output.iter().any(|v| v.name == **name);
        if let Some(missing) = outputs.iter().find(|name| !known(name)) {
            return Err(self.port("it has no output", missing));
        }
        let output = |name: &&str| {
            let value = Value::named(names.get(name).cloned().unwrap_or_default());
            match self.is_half(name) {
                true => g.cast(&value, DataType::Float),
                false => value,
            }
        };
        Ok(outputs.iter().map(output).collect())
    }

    fn is_half(&self, name: &str) -> bool {
        self.types.get(name) == Some(&(DataType::Float16 as i32))
    }

    fn port(&self, what: &'static str, name: &str) -> FrameError {
        FrameError::Port {
            part: self.name,
            what,
            name: name.into(),
        }
    }
}
