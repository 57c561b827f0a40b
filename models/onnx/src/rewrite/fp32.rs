//! Converts a quantized graph to 32 bits.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::pb::{GraphProto, NodeProto, TensorProto, tensor_proto::DataType};

use super::{Model, RewriteError, constants, element_types, node, producers, tensors};

/// Returns the 32-bit graph with the rounded weights of `model`: 16-bit constants are converted to
/// 32 bits, `Cast`s between 16 and 32 bits and the quantization of activations are removed, and
/// 8-bit weights are multiplied by their scales. Nodes keep their order and names, so a graph that
/// was quantized by this crate becomes the original one again, except for the values.
///
/// # Errors
/// A constant cannot be read.
pub fn to_fp32(model: &Model) -> Result<Model, RewriteError> {
    let graph = model.graph();
    let types = element_types(graph);
    let made_by = producers(graph);
    let constants = constants(graph);
    let outputs: Vec<&str> = graph.output.iter().map(|v| v.name.as_str()).collect();
    let float = |name: &str| types.get(name).is_some_and(|t| is_float(*t));

    let mut wide = without_nodes(graph)?;
    let mut instead: HashMap<String, String> = HashMap::new();
    for old in &graph.node {
        let source = |i: usize| old.input.get(i).map_or("", String::as_str);
        let passed = match old.op_type.as_str() {
            "Cast" if float(source(0)) && float(&old.output[0]) => Some(source(0)),
            "DequantizeLinear" => {
                if let Some(weight) = constants.get(source(0)) {
                    let tensor = dequantized(old, weight, &constants)?;
                    wide.initializer.push(tensor);
                    continue;
                }
                let maker = made_by.get(source(0)).map(|i| &graph.node[*i]);
                maker
                    .filter(|maker| maker.op_type == "QuantizeLinear")
                    .map(|maker| maker.input[0].as_str())
            }
            _ => None,
        };
        let resolve = |name: &str| instead.get(name).cloned().unwrap_or_else(|| name.into());
        match passed {
            Some(from) => {
                let from = resolve(from);
                let to = &old.output[0];
                if outputs.contains(&to.as_str()) {
                    wide.node.push(node("Identity", &[&from], to));
                }
                instead.insert(to.clone(), from);
            }
            None => {
                let mut kept = old.clone();
                kept.input.iter_mut().for_each(|name| *name = resolve(name));
                if kept.op_type == "Cast" && float(&kept.output[0]) {
                    let to = kept.attribute.iter_mut().filter(|a| a.name == "to");
                    to.for_each(|a| a.i = DataType::Float as i64);
                }
                wide.node.push(kept);
            }
        }
    }
    drop_quantizers(&mut wide);
    Ok(model.with(wide))
}

/// Whether a type is a 16- or 32-bit float.
pub(super) fn is_float(kind: i32) -> bool {
    kind == DataType::Float as i32 || kind == DataType::Float16 as i32
}

/// The graph with 16-bit constants converted to 32 bits, and without nodes.
pub(super) fn without_nodes(graph: &GraphProto) -> Result<GraphProto, RewriteError> {
    Ok(GraphProto {
        node: Vec::new(),
        initializer: graph
            .initializer
            .iter()
            .map(wide_constant)
            .collect::<Result<_, _>>()?,
        ..graph.clone()
    })
}

/// Converts a 16-bit constant to 32 bits.
fn wide_constant(tensor: &TensorProto) -> Result<TensorProto, RewriteError> {
    if tensor.data_type != DataType::Float16 as i32 {
        return Ok(tensor.clone());
    }
    let values = tensors::floats(tensor).ok_or_else(|| unreadable(&tensor.name))?;
    Ok(tensors::from_f32(&tensor.name, &tensor.dims, &values))
}

/// The result of a `DequantizeLinear` of a constant, with the name of its output.
pub(super) fn dequantized(
    node: &NodeProto,
    weight: &TensorProto,
    constants: &BTreeMap<&str, &TensorProto>,
) -> Result<TensorProto, RewriteError> {
    let wrong = || unreadable(&weight.name);
    let values = tensors::bytes(weight).ok_or_else(wrong)?;
    if values.is_empty() {
        return Err(wrong());
    }
    let scales = node
        .input
        .get(1)
        .and_then(|name| constants.get(name.as_str()));
    let scales = scales.and_then(|t| tensors::floats(t)).ok_or_else(wrong)?;
    let zero = node
        .input
        .get(2)
        .and_then(|name| constants.get(name.as_str()));
    if zero.is_some_and(|t| tensors::bytes(t).is_none_or(|z| z.iter().any(|z| *z != 0))) {
        return Err(RewriteError::Tensor {
            name: weight.name.clone(),
            what: "its zero point is not 0, but only symmetric weights are supported".into(),
        });
    }
    let axis = node.attribute.iter().find(|a| a.name == "axis");
    let axis = usize::try_from(axis.map_or(1, |a| a.i)).map_err(|_| wrong())?;
    let per_channel = scales.len() != 1;
    if per_channel && weight.dims.get(axis).map(|d| *d as usize) != Some(scales.len()) {
        return Err(wrong());
    }
    // Number of values between neighbors along the axis.
    let inner = match per_channel {
        true => weight.dims[axis + 1..]
            .iter()
            .map(|d| *d as usize)
            .product::<usize>(),
        false => values.len(),
    };
    let wide: Vec<f32> = values
        .iter()
        .enumerate()
        .map(|(i, v)| f32::from(*v) * scales[i / inner % scales.len()])
        .collect();
    Ok(tensors::from_f32(&node.output[0], &weight.dims, &wide))
}

/// Removes `QuantizeLinear` nodes whose output is not used.
fn drop_quantizers(graph: &mut GraphProto) {
    let mut read: HashSet<String> = HashSet::new();
    read.extend(graph.node.iter().flat_map(|n| n.input.iter().cloned()));
    read.extend(graph.output.iter().map(|v| v.name.clone()));
    graph
        .node
        .retain(|n| n.op_type != "QuantizeLinear" || read.contains(&n.output[0]));
}

pub(super) fn unreadable(name: &str) -> RewriteError {
    RewriteError::Tensor {
        name: name.into(),
        what: "its values do not match its shape or type; convert the bundle again".into(),
    }
}
