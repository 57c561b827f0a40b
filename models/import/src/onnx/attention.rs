//! Makes `Attention` nodes portable. PyTorch's exporter writes them from opset 23 on.

use std::collections::HashSet;

use loftup_onnx::pb::{AttributeProto, GraphProto, NodeProto, tensor_proto::DataType};

use loftup_onnx::{
    rewrite::{Names, node, tensors},
    walk,
};

use super::precision::element_mut;

/// Removes unused trailing outputs of `Attention`: runtimes that do not support them reject the
/// node even if they are unused, and PyTorch's exporter always names all four.
pub fn drop_unread_outputs(graph: &mut GraphProto) {
    let mut read: HashSet<String> = graph.output.iter().map(|o| o.name.clone()).collect();
    let mut nodes: Vec<&NodeProto> = graph.node.iter().collect();
    while let Some(node) = nodes.pop() {
        read.extend(node.input.iter().cloned());
        for inner in walk::inner(node) {
            read.extend(inner.output.iter().map(|o| o.name.clone()));
            nodes.extend(&inner.node);
        }
    }
    for node in graph.node.iter_mut().filter(|n| n.op_type == "Attention") {
        while node.output.len() > 1 && node.output.last().is_some_and(|o| !read.contains(o)) {
            node.output.pop();
        }
    }
}

/// Added to the scores that a mask excludes: their weight becomes 0, and a row where everything is
/// excluded stays finite.
const MASKED: f32 = -1e30;

/// Replaces Boolean masks of `Attention` by additive ones, which every runtime supports. A mask of
/// unknown type is unchanged.
pub fn add_masks(graph: &mut GraphProto) {
    let masked = |n: &NodeProto| n.op_type == "Attention" && n.input.len() > MASK;
    if !graph.node.iter().any(masked) {
        return;
    }
    let booleans = booleans(graph);
    let mut names = Names::of(graph);
    let mut constants = None;
    let nodes = std::mem::take(&mut graph.node);
    for mut attention in nodes {
        if masked(&attention) && booleans.contains(&attention.input[MASK]) {
            let [kept, left_out] = constants.get_or_insert_with(|| {
                [("kept", 0.0), ("left_out", MASKED)].map(|(name, value)| {
                    let name = names.fresh(&format!("attention_mask/{name}"));
                    let constant = tensors::from_f32(&name, &[], &[value]);
                    graph.initializer.push(constant);
                    name
                })
            });
            let mask = names.fresh(&format!("{}/added", attention.input[MASK]));
            let inputs = [attention.input[MASK].as_str(), kept, left_out];
            graph.node.push(node("Where", &inputs, &mask));
            attention.input[MASK] = mask;
        }
        graph.node.push(attention);
    }
}

/// Index of the mask among the inputs of `Attention`.
const MASK: usize = 3;

/// The values of `graph` that are known to be Boolean.
fn booleans(graph: &mut GraphProto) -> HashSet<String> {
    const BOOLEAN: i32 = DataType::Bool as i32;
    let mut found = HashSet::new();
    for info in graph.input.iter_mut().chain(&mut graph.value_info) {
        if element_mut(info).is_some_and(|kind| *kind == BOOLEAN) {
            found.insert(info.name.clone());
        }
    }
    let constants = graph.initializer.iter();
    found.extend(
        constants
            .filter(|t| t.data_type == BOOLEAN)
            .map(|t| t.name.clone()),
    );
    // Nodes are sorted: inputs are computed before they are used.
    for n in &graph.node {
        let reads = |index: usize| n.input.get(index).is_some_and(|i| found.contains(i));
        let names_boolean = |a: &AttributeProto| match a.name.as_str() {
            "to" => a.i == i64::from(BOOLEAN),
            "value" => a.t.as_ref().is_some_and(|t| t.data_type == BOOLEAN),
            _ => false,
        };
        let boolean = match n.op_type.as_str() {
            "Equal" | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual" | "And" | "Or"
            | "Xor" | "Not" | "IsNaN" | "IsInf" => true,
            "Cast" | "Constant" | "ConstantOfShape" => n.attribute.iter().any(names_boolean),
            "Where" => reads(1),
            "Concat" | "Expand" | "Flatten" | "Gather" | "Identity" | "Reshape" | "Slice"
            | "Squeeze" | "Tile" | "Transpose" | "Trilu" | "Unsqueeze" => reads(0),
            _ => false,
        };
        if boolean {
            found.extend(n.output.iter().cloned());
        }
    }
    found
}
