//! Appends a linear map to an output.

use crate::pb::{
    AttributeProto, ValueInfoProto, attribute_proto::AttributeType, tensor_shape_proto::dimension,
    type_proto,
};

use super::{Model, Names, RewriteError, node, tensors};

/// A linear map of channels: `weight` `[outputs, inputs]` and `bias` `[outputs]`.
#[derive(Debug, Clone, Copy)]
pub struct LinearMap<'a> {
    /// Row-major.
    pub weight: &'a [f32],
    /// One for each output channel.
    pub bias: &'a [f32],
}

/// Appends a linear map of the channels to the output `output` of a model. Channels are axis 1 of a
/// `map`, `[1, d, h, w]`, and the last axis otherwise. Also returns the name of the new output, which
/// is the only one.
///
/// # Errors
/// There is no such output, or the weights are not `[outputs, inputs]`.
pub fn with_linear_map(
    model: &Model,
    output: &str,
    linear: LinearMap<'_>,
    map: bool,
) -> Result<(Model, String), RewriteError> {
    let unusable = |name: &str, what: &str| RewriteError::Tensor {
        name: name.into(),
        what: what.into(),
    };
    let LinearMap { weight, bias } = linear;
    let outputs = bias.len();
    if outputs == 0 || weight.is_empty() || !weight.len().is_multiple_of(outputs) {
        return Err(unusable("weight", "is not [outputs, inputs]"));
    }
    let inputs = weight.len() / outputs;
    let mut graph = model.graph().clone();
    let info = graph.output.iter().find(|o| o.name == output).cloned();
    let info = info.ok_or_else(|| unusable(output, "is not an output of the graph"))?;
    let mut names = Names::of(&graph);
    let [w, b, product, result] = ["weight", "bias", "product", "features"]
        .map(|what| names.fresh(&format!("principal_channels/{what}")));
    let (k, d) = (outputs as i64, inputs as i64);
    if map {
        let dims = [k, d, 1, 1];
        graph.initializer.push(tensors::from_f32(&w, &dims, weight));
        graph.initializer.push(tensors::from_f32(&b, &[k], bias));
        let mut convolution = node("Conv", &[output, &w, &b], &result);
        convolution.attribute.push(AttributeProto {
            name: "kernel_shape".into(),
            r#type: AttributeType::Ints as i32,
            ints: vec![1, 1],
            ..Default::default()
        });
        graph.node.push(convolution);
    } else {
        let transposed: Vec<f32> = (0..weight.len())
            .map(|i| weight[i % outputs * inputs + i / outputs])
            .collect();
        let dims = [d, k];
        graph
            .initializer
            .push(tensors::from_f32(&w, &dims, &transposed));
        graph.initializer.push(tensors::from_f32(&b, &[k], bias));
        graph.node.push(node("MatMul", &[output, &w], &product));
        graph.node.push(node("Add", &[&product, &b], &result));
    }
    graph.output = vec![renamed(info, &result, k, map)];
    Ok((model.with(graph), result))
}

/// Returns the description of an output with another name and `channels` channels.
fn renamed(mut info: ValueInfoProto, name: &str, channels: i64, map: bool) -> ValueInfoProto {
    info.name = name.into();
    if let Some(type_proto::Value::TensorType(tensor)) =
        info.r#type.as_mut().and_then(|t| t.value.as_mut())
        && let Some(shape) = &mut tensor.shape
        && let Some(axis) = match map {
            true => shape.dim.get_mut(1),
            false => shape.dim.last_mut(),
        }
    {
        axis.value = Some(dimension::Value::DimValue(channels));
    }
    info
}
