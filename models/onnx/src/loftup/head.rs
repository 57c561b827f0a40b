//! A head at the end of a queries graph.
//!
//! An engine then returns the `k` outputs of a head for each pixel instead of `d` channels. The
//! weights of the head are inputs of the graph instead of constants, so that one engine, which may
//! take minutes to build, serves every head, and heads can be replaced in a running program.

use loftup_spec::io;
use prost::Message;

use crate::{
    Dim,
    graph::value_info,
    pb::{
        AttributeProto, GraphProto, ModelProto, NodeProto, attribute_proto::AttributeType,
        tensor_proto::DataType, tensor_shape_proto::dimension, type_proto,
    },
    rewrite::{Names, RewriteError, int_attribute, node},
};

/// Symbol of the number of outputs.
const OUTPUTS: &str = "head_outputs";

/// The queries graph `onnx`, in any precision, with a head: inputs [`io::HEAD_SCALE`] and
/// [`io::HEAD_OFFSET`] `[d]`, [`io::HEAD_WEIGHT`] `[k, d]` and [`io::HEAD_BIAS`] `[k]`, outputs
/// [`io::HEAD`] and [`io::MOMENTS`]. With `x = upsampled * scale + offset`, the head is
/// `x @ weight.T + bias`, and the moments are the means of `x` and `x * x` over the channels. All of
/// it has 32 bits. The output [`io::UPSAMPLED`] remains.
///
/// # Errors
/// `onnx` is not an ONNX model, lacks that output or its number of channels is not fixed, or it
/// already has values with these names.
pub fn with_head(onnx: &[u8]) -> Result<Vec<u8>, RewriteError> {
    let mut model = ModelProto::decode(onnx).map_err(|e| RewriteError::NotOnnx(e.to_string()))?;
    let graph =
        (model.graph.as_mut()).ok_or_else(|| RewriteError::NotOnnx("it has no graph".into()))?;
    let channels = channels(graph).ok_or_else(|| RewriteError::Tensor {
        name: io::UPSAMPLED.into(),
        what: "not an output of shape [pixels, channels] of the graph; convert the bundle again"
            .into(),
    })?;
    let mut names = Names::of(graph);
    for name in io::HEAD_INPUTS.into_iter().chain([io::HEAD, io::MOMENTS]) {
        if names.fresh(name) != name {
            return Err(RewriteError::Tensor {
                name: name.into(),
                what: "the graph already has a value of this name".into(),
            });
        }
    }

    let outputs = Dim::Symbol(OUTPUTS);
    let shapes = [
        vec![outputs.clone(), channels.into()],
        vec![outputs],
        vec![channels.into()],
        vec![channels.into()],
    ];
    for (name, shape) in io::HEAD_INPUTS.into_iter().zip(shapes) {
        graph.input.push(value_info(name, DataType::Float, &shape));
    }

    let [scaled, x, mean, square, mean_square] =
        ["scaled", "shifted", "mean", "square", "mean_square"]
            .map(|name| names.fresh(&format!("head/{name}")));
    let over = || [ints("axes", &[-1]), int_attribute("keepdims", 1)];
    let mut add = |op: &str, inputs: &[&str], output: &str, attributes: &[AttributeProto]| {
        graph.node.push(NodeProto {
            attribute: attributes.to_vec(),
            ..node(op, inputs, output)
        });
    };
    add("Mul", &[io::UPSAMPLED, io::HEAD_SCALE], &scaled, &[]);
    add("Add", &[&scaled, io::HEAD_OFFSET], &x, &[]);
    let head = [&*x, io::HEAD_WEIGHT, io::HEAD_BIAS];
    add("Gemm", &head, io::HEAD, &[int_attribute("transB", 1)]);
    add("ReduceMean", &[&x], &mean, &over());
    add("Mul", &[&x, &x], &square, &[]);
    add("ReduceMean", &[&square], &mean_square, &over());
    let moments = [&*mean, &*mean_square];
    add("Concat", &moments, io::MOMENTS, &[int_attribute("axis", 1)]);

    for (name, width) in [(io::HEAD, Dim::Symbol(OUTPUTS)), (io::MOMENTS, 2.into())] {
        let shape = [Dim::Symbol("pixels"), width];
        graph.output.push(value_info(name, DataType::Float, &shape));
    }
    Ok(model.encode_to_vec())
}

/// Channels of the output [`io::UPSAMPLED`].
fn channels(graph: &GraphProto) -> Option<usize> {
    let output = graph.output.iter().find(|v| v.name == io::UPSAMPLED)?;
    let Some(type_proto::Value::TensorType(tensor)) = &output.r#type.as_ref()?.value else {
        return None;
    };
    match tensor.shape.as_ref()?.dim[..] {
        [_, ref channels] => match channels.value.as_ref()? {
            dimension::Value::DimValue(n) => usize::try_from(*n).ok(),
            dimension::Value::DimParam(_) => None,
        },
        _ => None,
    }
}

fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        r#type: AttributeType::Ints as i32,
        ints: values.to_vec(),
        ..Default::default()
    }
}
