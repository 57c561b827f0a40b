//! Simulates the rounding of a quantized graph in 32 bits.

use crate::pb::{NodeProto, tensor_proto::DataType};

use super::{
    Model, Names, RewriteError, cast, constants, element_types,
    fp32::{dequantized, is_float, without_nodes},
    half::MOVES,
    node, tensors,
};

/// Returns a 32-bit graph that rounds where `model` does: the result of a 16-bit node is computed
/// in 32 bits and then rounded to 16, and a quantized activation is divided by its scale, rounded,
/// clamped and multiplied again. This matches hardware that multiplies low-precision numbers and
/// accumulates in high precision. Values keep their names.
///
/// The measurement therefore does not depend on how a runtime implements `QuantizeLinear` or 16-bit
/// products.
///
/// # Errors
/// A constant cannot be read.
pub fn fake_quantize(model: &Model) -> Result<Model, RewriteError> {
    let graph = model.graph();
    let types = element_types(graph);
    let constants = constants(graph);
    let is = |name: &str, kind: DataType| types.get(name) == Some(&(kind as i32));
    let mut names = Names::of(graph);
    let mut wide = without_nodes(graph)?;
    let lowest = names.fresh("int8/lowest");
    let highest = names.fresh("int8/highest");
    wide.initializer
        .push(tensors::from_f32(&lowest, &[], &[-128.0]));
    wide.initializer
        .push(tensors::from_f32(&highest, &[], &[127.0]));
    for old in &graph.node {
        let output = old.output.first().map_or("", String::as_str);
        let float = |name: &String| types.get(name).is_some_and(|t| is_float(*t));
        match old.op_type.as_str() {
            "Cast" if old.input.first().is_some_and(float) && is(output, DataType::Float16) => {
                round(&mut wide.node, &mut names, &old.input[0], output);
            }
            "Cast" if is(&old.input[0], DataType::Float16) && is(output, DataType::Float) => {
                wide.node.push(node("Identity", &[&old.input[0]], output));
            }
            "QuantizeLinear" => {
                let [x, scale] = [&old.input[0], &old.input[1]];
                let step = |names: &mut Names, what: &str| names.fresh(&format!("{output}/{what}"));
                let (divided, rounded) = (step(&mut names, "divided"), step(&mut names, "rounded"));
                wide.node.push(node("Div", &[x, scale], &divided));
                wide.node.push(node("Round", &[&divided], &rounded));
                wide.node
                    .push(node("Clip", &[&rounded, &lowest, &highest], output));
            }
            "DequantizeLinear" => match constants.get(old.input[0].as_str()) {
                Some(weight) => wide.initializer.push(dequantized(old, weight, &constants)?),
                None => wide
                    .node
                    .push(node("Mul", &[&old.input[0], &old.input[1]], output)),
            },
            _ => {
                let mut kept = old.clone();
                let mut rounded = Vec::new();
                if !MOVES.contains(&kept.op_type.as_str()) {
                    for name in &mut kept.output {
                        if is(name, DataType::Float16) {
                            let exact = names.fresh(&format!("{name}/exact"));
                            rounded.push((exact.clone(), std::mem::replace(name, exact)));
                        }
                    }
                }
                wide.node.push(kept);
                for (exact, name) in rounded {
                    round(&mut wide.node, &mut names, &exact, &name);
                }
            }
        }
    }
    Ok(model.with(wide))
}

/// Rounds to 16 bits and back.
fn round(nodes: &mut Vec<NodeProto>, names: &mut Names, from: &str, to: &str) {
    let narrow = names.fresh(&format!("{to}/narrow"));
    nodes.push(cast(from, &narrow, DataType::Float16));
    nodes.push(cast(&narrow, to, DataType::Float));
}
