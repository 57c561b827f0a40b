//! Conversion to 8-bit integers, with explicit `QuantizeLinear` and `DequantizeLinear`.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::pb::{GraphProto, NodeProto, TensorProto, tensor_proto::DataType};

use super::{
    Model, Names, RewriteError, constants, element_types, fp32::unreadable, int_attribute, label,
    node, tensors,
};

/// Maximum quantized magnitude; -128 is not used, as TensorRT requires for weights.
const LEVELS: f32 = 127.0;

/// A product with a constant (convolution, matrix product or Gemm) that can run in 8 bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Its name.
    pub name: String,
    /// Its operator: `Conv`, `MatMul` or `Gemm`.
    pub op: String,
    /// Name of the activation.
    pub activation: String,
    /// Name of the constant.
    pub weight: String,
    /// Output axis of the constant.
    pub axis: usize,
    /// Name of the output.
    pub output: String,
}

/// The layers of a graph that can run in 8 bits, in the order of the graph.
pub fn layers(model: &Model) -> Vec<Layer> {
    let graph = model.graph();
    let constants = constants(graph);
    let types = element_types(graph);
    let weight = |name: &str| {
        constants
            .get(name)
            .filter(|t| t.data_type == DataType::Float as i32)
    };
    let layer = |node: &NodeProto| {
        let rank = weight(&node.input[1])?.dims.len();
        let flag = |name: &str| node.attribute.iter().any(|a| a.name == name && a.i != 0);
        let axis = match (node.op_type.as_str(), rank) {
            ("Conv", 3..) => 0,
            ("MatMul", 2..) => rank - 1,
            ("Gemm", 2) if !flag("transA") => usize::from(!flag("transB")),
            _ => return None,
        };
        let activation = &node.input[0];
        let computed = !constants.contains_key(activation.as_str())
            && types.get(activation) == Some(&(DataType::Float as i32));
        (computed && matches!(node.domain.as_str(), "" | "ai.onnx")).then(|| Layer {
            name: label(node).into(),
            op: node.op_type.clone(),
            activation: activation.clone(),
            weight: node.input[1].clone(),
            axis,
            output: node.output[0].clone(),
        })
    };
    let product = |n: &&NodeProto| matches!(n.op_type.as_str(), "Conv" | "MatMul" | "Gemm");
    graph
        .node
        .iter()
        .filter(product)
        .filter_map(layer)
        .collect()
}

/// Returns the graph with the layers whose output is in `chosen` in 8 bits. `ranges` has the
/// largest magnitude of each of their activations; larger values are clipped. Weights are
/// symmetric, with one scale per output channel; activations are symmetric, with one scale; biases
/// and everything else are unchanged.
///
/// # Errors
/// A weight cannot be read, an activation has no range, or the opset is below 13.
pub fn to_int8(
    model: &Model,
    chosen: &HashSet<String>,
    ranges: &BTreeMap<String, f32>,
) -> Result<Model, RewriteError> {
    if chosen.is_empty() {
        return Ok(model.clone());
    }
    model.needs_opset(13, "int8")?;
    let graph = model.graph();
    let constants = constants(graph);
    let layers = layers(model);
    let quantized: HashMap<&str, &Layer> = layers
        .iter()
        .filter(|l| chosen.contains(&l.output))
        .map(|l| (l.output.as_str(), l))
        .collect();
    let mut writer = Writer {
        names: Names::of(graph),
        out: GraphProto {
            node: Vec::new(),
            ..graph.clone()
        },
        done: HashMap::new(),
    };
    for old in &graph.node {
        let mut kept = old.clone();
        if let Some(layer) = quantized.get(old.output[0].as_str()) {
            let range = ranges.get(&layer.activation).copied().unwrap_or(f32::NAN);
            kept.input[0] = writer.activation(&layer.activation, range)?;
            let weight = constants[layer.weight.as_str()];
            kept.input[1] = writer.weight(weight, layer.axis)?;
        }
        writer.out.node.push(kept);
    }
    Ok(model.with(writer.out))
}

struct Writer {
    names: Names,
    out: GraphProto,
    /// The replacement of each value.
    done: HashMap<(String, usize), String>,
}

impl Writer {
    /// Quantizes and dequantizes a value.
    fn activation(&mut self, name: &str, range: f32) -> Result<String, RewriteError> {
        let key = (name.to_owned(), usize::MAX);
        if let Some(done) = self.done.get(&key) {
            return Ok(done.clone());
        }
        let scale = range / LEVELS;
        if !scale.is_normal() || scale < 0.0 {
            return Err(RewriteError::Tensor {
                name: name.into(),
                what: format!("a range of {range} cannot be quantized to 8 bits"),
            });
        }
        let fresh = |names: &mut Names, what: &str| names.fresh(&format!("{name}/{what}"));
        let scale_name = fresh(&mut self.names, "scale");
        let zero = fresh(&mut self.names, "zero");
        let narrow = fresh(&mut self.names, "int8");
        let wide = fresh(&mut self.names, "dequantized");
        let constants = &mut self.out.initializer;
        constants.push(tensors::from_f32(&scale_name, &[], &[scale]));
        constants.push(tensors::from_i8(&zero, &[], &[0]));
        let nodes = &mut self.out.node;
        nodes.push(node("QuantizeLinear", &[name, &scale_name, &zero], &narrow));
        nodes.push(node(
            "DequantizeLinear",
            &[&narrow, &scale_name, &zero],
            &wide,
        ));
        self.done.insert(key, wide.clone());
        Ok(wide)
    }

    /// Quantizes a constant and adds the node that dequantizes it.
    fn weight(&mut self, tensor: &TensorProto, axis: usize) -> Result<String, RewriteError> {
        let key = (tensor.name.clone(), axis);
        if let Some(done) = self.done.get(&key) {
            return Ok(done.clone());
        }
        let (levels, scales) = rounded(tensor, axis)?;
        let fresh = |names: &mut Names, what: &str| names.fresh(&format!("{}/{what}", tensor.name));
        let scale_name = fresh(&mut self.names, "scale");
        let zero = fresh(&mut self.names, "zero");
        let narrow = fresh(&mut self.names, "int8");
        let wide = fresh(&mut self.names, "dequantized");
        let count = scales.len() as i64;
        let constants = &mut self.out.initializer;
        constants.push(tensors::from_f32(&scale_name, &[count], &scales));
        constants.push(tensors::from_i8(&zero, &[count], &vec![0; scales.len()]));
        constants.push(tensors::from_i8(&narrow, &tensor.dims, &levels));
        let mut dequantize = node("DequantizeLinear", &[&narrow, &scale_name, &zero], &wide);
        dequantize
            .attribute
            .push(int_attribute("axis", axis as i64));
        self.out.node.push(dequantize);
        self.done.insert(key, wide.clone());
        Ok(wide)
    }
}

/// Quantized values of a weight and the scale of each output channel.
fn rounded(tensor: &TensorProto, axis: usize) -> Result<(Vec<i8>, Vec<f32>), RewriteError> {
    let wrong = || unreadable(&tensor.name);
    let values = tensors::floats(tensor)
        .filter(|v| !v.is_empty())
        .ok_or_else(wrong)?;
    let extent = |d: &i64| *d as usize;
    let outputs = tensor.dims.get(axis).map(extent).ok_or_else(wrong)?;
    let inner: usize = tensor.dims[axis + 1..].iter().map(extent).product();
    let output = |i: usize| i / inner % outputs;
    let mut largest = vec![0f32; outputs];
    for (i, x) in values.iter().enumerate() {
        if !x.is_finite() {
            return Err(RewriteError::Tensor {
                name: tensor.name.clone(),
                what: format!("it contains {x} at index {i}"),
            });
        }
        let most = &mut largest[output(i)];
        *most = most.max(x.abs());
    }
    // All weights of this output are zero: any scale works.
    let scale = |most: &f32| Some(most / LEVELS).filter(|s| s.is_normal()).unwrap_or(1.0);
    let scales: Vec<f32> = largest.iter().map(scale).collect();
    let level = |(i, x): (usize, &f32)| {
        (x / scales[output(i)])
            .round_ties_even()
            .clamp(-LEVELS, LEVELS) as i8
    };
    Ok((values.iter().enumerate().map(level).collect(), scales))
}
