//! The interface and the operators of the graphs.

use std::collections::BTreeSet;

use loftup_import::vit::{INPUT, OUTPUT};
use loftup_onnx::pb::{
    ModelProto, ValueInfoProto, tensor_shape_proto::dimension::Value::DimValue, type_proto::Value,
};
use prost::Message;

use crate::support::{vit, weights};

fn declared(info: &ValueInfoProto) -> (&str, Vec<i64>) {
    let Some(Value::TensorType(tensor)) = info.r#type.as_ref().unwrap().value.as_ref() else {
        panic!("{info:?}")
    };
    let fixed = |value: &_| match value {
        &DimValue(n) => n,
        other => panic!("{} has a dynamic axis: {other:?}", info.name),
    };
    let shape = &tensor.shape.as_ref().unwrap().dim;
    (
        &info.name,
        shape
            .iter()
            .map(|d| fixed(d.value.as_ref().unwrap()))
            .collect(),
    )
}

#[test]
fn graphs_have_the_documented_names_and_static_shapes() {
    for (file, preset, patch, dim) in [
        ("dinov2_reg.bin", "dinov2-reg", 14, 48),
        ("clip.bin", "clip", 16, 32),
        ("siglip.safetensors", "siglip", 16, 48),
    ] {
        let bytes = vit(weights(file), preset, Some(3))
            .graph(3 * patch, 2 * patch)
            .unwrap();
        let graph = ModelProto::decode(bytes.as_slice()).unwrap().graph.unwrap();
        let [input] = &graph.input[..] else {
            panic!("{} inputs", graph.input.len())
        };
        let [output] = &graph.output[..] else {
            panic!("{} outputs", graph.output.len())
        };
        let side = patch as i64;
        assert_eq!(declared(input), (INPUT, vec![1, 3, 2 * side, 3 * side]));
        assert_eq!(declared(output), (OUTPUT, vec![1, dim, 2, 3]));
    }
}

#[test]
fn graphs_use_only_operators_that_every_tensorrt_knows() {
    let known = BTreeSet::from([
        "Add",
        "Concat",
        "Conv",
        "Div",
        "Erf",
        "Identity",
        "MatMul",
        "Mul",
        "ReduceMean",
        "Reshape",
        "Sigmoid",
        "Slice",
        "Softmax",
        "Sqrt",
        "Sub",
        "Transpose",
    ]);
    for (file, preset) in [
        ("dinov2_reg.bin", "dinov2-reg"),
        ("clip.bin", "clip"),
        ("siglip.safetensors", "siglip"),
    ] {
        let bytes = vit(weights(file), preset, Some(3)).graph(112, 112).unwrap();
        let graph = ModelProto::decode(bytes.as_slice()).unwrap().graph.unwrap();
        let used: BTreeSet<&str> = graph.node.iter().map(|n| n.op_type.as_str()).collect();
        assert!(
            used.is_subset(&known),
            "{preset}: {:?}",
            used.difference(&known)
        );
    }
}

#[test]
fn heads_of_odd_sizes_are_padded_to_a_multiple_of_eight() {
    // Four heads of 12 channels: queries, keys and values have four of 16.
    let bytes = vit(weights("dinov2.bin"), "dinov2", Some(4))
        .graph(98, 98)
        .unwrap();
    let graph = ModelProto::decode(bytes.as_slice()).unwrap().graph.unwrap();
    let shapes = graph.initializer.iter().map(|t| &t.dims[..]);
    assert_eq!(shapes.clone().filter(|s| *s == [48, 64]).count(), 9);
    assert_eq!(shapes.filter(|s| *s == [64, 48]).count(), 3);
}
