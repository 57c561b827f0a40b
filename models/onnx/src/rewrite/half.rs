//! Conversion to 16-bit floats.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::pb::{GraphProto, NodeProto, TensorProto, tensor_proto::DataType};
use half::f16;

use super::{
    Model, Names, RewriteError, cast, constants, consumers, element_types, fp32::unreadable,
    producers, tensors,
};

/// The largest value stored in 16 bits, half of the maximum (65504): images outside the calibration
/// set may produce values twice as large.
pub const LARGEST: f32 = 32752.0;

/// Operators that move values without changing them.
pub(super) const MOVES: &[&str] = &[
    "Concat",
    "DepthToSpace",
    "Expand",
    "Flatten",
    "Gather",
    "Identity",
    "MaxPool",
    "Pad",
    "Reshape",
    "Slice",
    "SpaceToDepth",
    "Split",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
];

/// Operators for which 16 bits are sufficient. All others stay in 32 bits.
const COMPUTES: &[&str] = &[
    "Abs",
    "Add",
    "AveragePool",
    "Clip",
    "Conv",
    "ConvTranspose",
    "Div",
    "Erf",
    "Gelu",
    "Gemm",
    "HardSigmoid",
    "HardSwish",
    "LeakyRelu",
    "MatMul",
    "Max",
    "Min",
    "Mul",
    "Neg",
    "PRelu",
    "Relu",
    "Sigmoid",
    "Sub",
    "Tanh",
];

/// Matrix products and convolutions, which take most of the time.
const PRODUCTS: &[&str] = &["Conv", "ConvTranspose", "Gemm", "MatMul"];

/// Statistics of weights in 16 bits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HalfWeights {
    /// Number of values.
    pub values: usize,
    /// Nonzero values that lose bits because they are below 6.1e-5, the smallest normal number.
    pub subnormal: usize,
    /// Nonzero values that become 0.
    pub vanishing: usize,
    /// Constants with a value that is too large.
    pub too_large: Vec<String>,
}

/// Statistics of the float constants of `model` in 16 bits.
///
/// # Errors
/// A constant cannot be read.
pub fn weights_in_half(model: &Model) -> Result<HalfWeights, RewriteError> {
    let mut found = HalfWeights::default();
    for tensor in &model.graph().initializer {
        if tensor.data_type != DataType::Float as i32 {
            continue;
        }
        let values = tensors::floats(tensor).ok_or_else(|| unreadable(&tensor.name))?;
        let least = f16::MIN_POSITIVE.to_f32();
        found.values += values.len();
        for x in values.iter().filter(|x| **x != 0.0 && x.abs() < least) {
            found.subnormal += 1;
            found.vanishing += usize::from(f16::from_f32(*x) == f16::ZERO);
        }
        if values.iter().any(|x| x.abs() > f16::MAX.to_f32()) {
            found.too_large.push(tensor.name.clone());
        }
    }
    Ok(found)
}

/// The values that [`to_half`] computes in 16 bits unless they are listed as too large, without
/// constants.
pub fn half_values(model: &Model) -> Vec<String> {
    let graph = model.graph();
    let types = element_types(graph);
    let half = in_half(graph, &types, &BTreeSet::new());
    let mut values = BTreeSet::new();
    let constants = constants(graph);
    for (node, _) in graph.node.iter().zip(half).filter(|(_, half)| *half) {
        let float = |name: &&String| types.get(*name) == Some(&(DataType::Float as i32));
        let all = node.input.iter().chain(&node.output).filter(float);
        values.extend(all.filter(|n| !constants.contains_key(n.as_str())).cloned());
    }
    values.into_iter().collect()
}

/// Returns the graph in mixed precision, strongly typed: every `Cast` is explicit. The following
/// stay in 32 bits: the inputs of sines and cosines, the statistics of normalizations, softmax,
/// graph inputs and outputs, every operator that is not known to be safe, and everything connected
/// to one of the values `too_large`.
///
/// # Errors
/// A constant cannot be read.
pub fn to_half(model: &Model, too_large: &BTreeSet<String>) -> Result<Model, RewriteError> {
    let graph = model.graph();
    let types = element_types(graph);
    let float = |name: &str| types.get(name) == Some(&(DataType::Float as i32));
    let mut avoided = too_large.clone();
    avoided.extend(weights_in_half(model)?.too_large);
    let half = in_half(graph, &types, &avoided);
    let wide_readers: HashSet<&str> = graph
        .node
        .iter()
        .zip(&half)
        .filter(|(_, half)| !**half)
        .flat_map(|(n, _)| n.input.iter().map(String::as_str))
        .chain(graph.output.iter().map(|v| v.name.as_str()))
        .collect();
    let constants = constants(graph);
    let mut names = Names::of(graph);
    let mut out = GraphProto {
        node: Vec::new(),
        ..graph.clone()
    };
    // The 16-bit copy of each value that has one.
    let mut narrow: HashMap<String, String> = HashMap::new();
    for (old, half) in graph.node.iter().zip(half) {
        let mut kept = old.clone();
        if !half {
            out.node.push(kept);
            continue;
        }
        for name in kept.input.iter_mut().filter(|name| float(name)) {
            if let Some(twin) = narrow.get(name) {
                *name = twin.clone();
                continue;
            }
            let twin = names.fresh(&format!("{name}/fp16"));
            match constants.get(name.as_str()) {
                Some(tensor) => match narrow_constant(tensor, &twin)? {
                    Some(tensor) => out.initializer.push(tensor),
                    None => out.node.push(cast(name, &twin, DataType::Float16)),
                },
                None => out.node.push(cast(name, &twin, DataType::Float16)),
            }
            narrow.insert(std::mem::replace(name, twin.clone()), twin);
        }
        let mut casts = Vec::new();
        for name in kept.output.iter_mut().filter(|name| float(name)) {
            if wide_readers.contains(name.as_str()) {
                let twin = names.fresh(&format!("{name}/fp16"));
                casts.push(cast(&twin, name, DataType::Float));
                narrow.insert(std::mem::replace(name, twin.clone()), twin);
            } else {
                narrow.insert(name.clone(), name.clone());
            }
        }
        out.node.push(kept);
        out.node.extend(casts);
    }
    Ok(model.with(out))
}

/// Returns the graph with all non-scalar constants in 16 bits, each followed by a `Cast`: half the
/// file size with the same arithmetic. Constants with values that are too large are unchanged.
///
/// # Errors
/// A constant cannot be read.
pub fn half_weights(model: &Model) -> Result<Model, RewriteError> {
    let graph = model.graph();
    let too_large = weights_in_half(model)?.too_large;
    // The inputs of sines need full precision, and are small.
    let made_by = producers(graph);
    let phases = before_waves(graph, &made_by);
    let precise: HashSet<&str> = phases
        .iter()
        .flat_map(|i| graph.node[*i].input.iter().map(String::as_str))
        .collect();
    let mut names = Names::of(graph);
    let mut out = GraphProto {
        node: Vec::new(),
        initializer: Vec::new(),
        ..graph.clone()
    };
    for tensor in &graph.initializer {
        let narrow = tensor.data_type == DataType::Float as i32
            && tensors::count(tensor).is_some_and(|n| n > 1)
            && !too_large.contains(&tensor.name)
            && !precise.contains(tensor.name.as_str());
        if narrow {
            let values = tensors::floats(tensor).ok_or_else(|| unreadable(&tensor.name))?;
            let twin = names.fresh(&format!("{}/fp16", tensor.name));
            out.initializer
                .push(tensors::from_f16(&twin, &tensor.dims, &values));
            out.node.push(cast(&twin, &tensor.name, DataType::Float));
        } else {
            out.initializer.push(tensor.clone());
        }
    }
    out.node.extend(graph.node.iter().cloned());
    Ok(model.with(out))
}

/// Converts a constant to 16 bits. `None` for a scalar that 16 bits cannot represent exactly: it is
/// cast instead, so that the 32-bit graph can be restored.
fn narrow_constant(tensor: &TensorProto, name: &str) -> Result<Option<TensorProto>, RewriteError> {
    let values = tensors::floats(tensor).ok_or_else(|| unreadable(&tensor.name))?;
    if let [x] = values[..]
        && f16::from_f32(x).to_f32() != x
    {
        return Ok(None);
    }
    Ok(Some(tensors::from_f16(name, &tensor.dims, &values)))
}

/// Returns whether each node computes in 16 bits.
fn in_half(
    graph: &GraphProto,
    types: &HashMap<String, i32>,
    avoided: &BTreeSet<String>,
) -> Vec<bool> {
    let float = |name: &String| types.get(name) == Some(&(DataType::Float as i32));
    let made_by = producers(graph);
    let read_by = consumers(graph);
    let mut half: Vec<bool> = graph
        .node
        .iter()
        .map(|node| {
            let op = node.op_type.as_str();
            matches!(node.domain.as_str(), "" | "ai.onnx")
                && (MOVES.contains(&op) || COMPUTES.contains(&op))
                && node.output.iter().all(float)
                && !node
                    .input
                    .iter()
                    .chain(&node.output)
                    .any(|name| avoided.contains(name))
        })
        .collect();
    for i in before_waves(graph, &made_by) {
        half[i] = false;
    }
    for i in statistics(graph, &made_by, &read_by) {
        half[i] = false;
    }
    // Moving a value whose users need 32 bits is done in 32 bits. So is scaling it, if they need 32
    // bits because a value is too large: otherwise it would have no effect.
    let touches = |node: &NodeProto| {
        let mut names = node.input.iter().chain(&node.output);
        names.any(|name| avoided.contains(name))
    };
    let mut forced: Vec<bool> = graph.node.iter().map(touches).collect();
    for (i, node) in graph.node.iter().enumerate().rev() {
        let op = node.op_type.as_str();
        let readers = node.output.iter().filter_map(|o| read_by.get(o.as_str()));
        let readers: Vec<usize> = readers.flatten().copied().collect();
        if readers.iter().any(|reader| half[*reader]) {
            continue;
        }
        if MOVES.contains(&op) {
            half[i] = false;
        }
        if !PRODUCTS.contains(&op) && readers.iter().any(|reader| forced[*reader]) {
            half[i] = false;
            forced[i] = true;
        }
    }
    half
}

/// Sines and cosines, and the nodes that they depend on.
fn before_waves(graph: &GraphProto, made_by: &HashMap<&str, usize>) -> HashSet<usize> {
    let wave = |node: &NodeProto| matches!(node.op_type.as_str(), "Sin" | "Cos");
    let mut open: Vec<usize> = (0..graph.node.len())
        .filter(|i| wave(&graph.node[*i]))
        .collect();
    let mut found = HashSet::new();
    while let Some(i) = open.pop() {
        if found.insert(i) {
            let inputs = graph.node[i].input.iter();
            open.extend(inputs.filter_map(|name| made_by.get(name.as_str())));
        }
    }
    found
}

/// Nodes that compute mean and standard deviation of a normalization, or divide by the latter.
fn statistics(
    graph: &GraphProto,
    made_by: &HashMap<&str, usize>,
    read_by: &HashMap<&str, BTreeSet<usize>>,
) -> HashSet<usize> {
    let op = |i: usize| graph.node[i].op_type.as_str();
    let makers = |i: usize| {
        let inputs = graph.node[i].input.iter();
        inputs.filter_map(|name| made_by.get(name.as_str()).copied())
    };
    let readers = |i: usize| {
        let outputs = graph.node[i].output.iter();
        outputs
            .filter_map(|name| read_by.get(name.as_str()))
            .flatten()
            .copied()
    };
    let mut found = HashSet::new();
    for root in (0..graph.node.len()).filter(|i| op(*i) == "Sqrt") {
        found.insert(root);
        for divided in readers(root) {
            found.insert(divided);
            if op(divided) == "Reciprocal" {
                found.extend(readers(divided));
            }
        }
        // sqrt(variance + epsilon), where the variance is the mean of the squares of x - mean.
        for sum in makers(root) {
            found.insert(sum);
            for variance in makers(sum).chain([sum]).filter(|i| op(*i) == "ReduceMean") {
                found.insert(variance);
                for square in makers(variance) {
                    found.insert(square);
                    for centered in makers(square).filter(|i| op(*i) == "Sub") {
                        found.insert(centered);
                        found.extend(makers(centered).filter(|i| op(*i) == "ReduceMean"));
                    }
                }
            }
        }
    }
    found
}
