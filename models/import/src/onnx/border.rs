//! The inputs and outputs that every graph of a bundle has.

use std::collections::HashSet;

use loftup_onnx::pb::{
    AttributeProto, GraphProto, NodeProto, TensorShapeProto, ValueInfoProto,
    attribute_proto::AttributeType,
    tensor_proto::DataType,
    tensor_shape_proto::{Dimension, dimension},
};

use loftup_onnx::{
    Dim, ElementType, Interface,
    rewrite::{Names, cast, node, tensors},
    value_info, walk,
};

/// How to adapt the inputs and outputs of a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Border<'a> {
    /// The image input.
    pub input: &'a str,
    /// Whether that input is `[1, H, W, 3]`.
    pub channels_last: bool,
    /// Height and width in pixels, if the graph has a fixed size.
    pub size: Option<[usize; 2]>,
    /// The feature output. Other outputs are removed.
    pub output: &'a str,
    /// Element type of this output.
    pub element: ElementType,
    /// How the output is rearranged.
    pub arrangement: Arrangement,
    /// Shape of the output after rearranging, as far as known; `None` if the rank is unknown.
    pub shape: Option<Vec<Option<usize>>>,
}

/// How an output is rearranged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrangement {
    /// Not at all.
    Keep,
    /// `[1, d, n]` becomes `[1, n, d]`.
    TokensFirst,
    /// `[1, h, w, d]` becomes `[1, d, h, w]`.
    ChannelsFirst,
}

impl Arrangement {
    /// The `perm` attribute of `Transpose`.
    fn axes(self) -> Option<&'static [i64]> {
        match self {
            Self::Keep => None,
            Self::TokensFirst => Some(&[0, 2, 1]),
            Self::ChannelsFirst => Some(&[0, 3, 1, 2]),
        }
    }
}

impl Border<'_> {
    /// Adapts `graph`. `interface` is that of the file, before its floats were converted to 32
    /// bits.
    pub(super) fn around(&self, mut graph: GraphProto, interface: &Interface) -> GraphProto {
        walk::graphs_mut(&mut graph, &mut |graph| {
            graph.value_info.clear();
            graph.output.iter_mut().for_each(|o| set_shape(o, None));
        });
        // Old files list their weights among the inputs as well.
        graph.input.clear();
        graph.output.clear();
        let mut names = Names::of(&graph);
        self.output_side(&mut graph, &mut names);
        let bytes = interface
            .inputs
            .iter()
            .any(|p| p.name == self.input && p.element == ElementType::UINT8);
        self.input_side(&mut graph, &mut names, bytes);
        graph
    }

    /// Declares the output, and adds the nodes that rearrange it.
    fn output_side(&self, graph: &mut GraphProto, names: &mut Names) {
        let axes = self.arrangement.axes();
        let to_float = !self.element.is_float();
        if axes.is_some() || to_float {
            let mut last = names.fresh(&format!("{}/as_exported", self.output));
            rename(graph, self.output, &last);
            if to_float {
                let to = match axes {
                    Some(_) => names.fresh(&format!("{}/float32", self.output)),
                    None => self.output.to_owned(),
                };
                graph.node.push(cast(&last, &to, DataType::Float));
                last = to;
            }
            if let Some(axes) = axes {
                graph.node.push(transpose(&last, self.output, axes));
            }
        }
        let mut info = value_info(self.output, DataType::Float, &[]);
        set_shape(&mut info, self.shape.as_deref());
        graph.output.push(info);
    }

    /// Declares the input, and adds the nodes that convert it.
    fn input_side(&self, graph: &mut GraphProto, names: &mut Names, bytes: bool) {
        let [height, width] = match self.size {
            Some(size) => size.map(Dim::Fixed),
            None => [Dim::Symbol("height"), Dim::Symbol("width")],
        };
        let shape = [1.into(), 3.into(), height, width];
        graph.input = vec![value_info(self.input, DataType::Float, &shape)];
        if !bytes && !self.channels_last {
            return;
        }
        let inner = names.fresh(&format!("{}/as_exported", self.input));
        rename_uses(graph, self.input, &inner);
        let mut front = Vec::new();
        let mut last = self.input.to_owned();
        if self.channels_last {
            let to = match bytes {
                true => names.fresh(&format!("{}/channels_last", self.input)),
                false => inner.clone(),
            };
            front.push(transpose(&last, &to, &[0, 2, 3, 1]));
            last = to;
        }
        if bytes {
            let mut value = |name: &str, x: f32| {
                let name = names.fresh(&format!("{}/{name}", self.input));
                graph.initializer.push(tensors::from_f32(&name, &[], &[x]));
                name
            };
            // Round and clamp to integers from 0 to 255, with operators of every opset.
            let steps = [
                ("Max", value("lowest", 0.0)),
                ("Min", value("highest", 255.0)),
                ("Add", value("half", 0.5)),
            ];
            for (op, constant) in steps {
                let to = names.fresh(&format!("{}/{op}", self.input));
                front.push(node(op, &[&last, &constant], &to));
                last = to;
            }
            if is_cast_at_once(graph, &inner) {
                // TensorRT supports few operators on bytes; none is needed here.
                front.push(node("Floor", &[&last], &inner));
            } else {
                let whole = names.fresh(&format!("{}/Floor", self.input));
                front.push(node("Floor", &[&last], &whole));
                front.push(cast(&whole, &inner, DataType::Uint8));
            }
        }
        graph.node.splice(0..0, front);
    }
}

/// Whether the uses of `value` only move elements until they reach a `Cast`.
fn is_cast_at_once(graph: &GraphProto, value: &str) -> bool {
    const MOVES: [&str; 7] = [
        "Transpose",
        "Reshape",
        "Squeeze",
        "Unsqueeze",
        "Flatten",
        "Slice",
        "Identity",
    ];
    let mut moved: HashSet<&str> = HashSet::from([value]);
    // Nodes are sorted: inputs are computed before they are used.
    graph.node.iter().all(|n| {
        if captures(n, &moved) || n.input.iter().skip(1).any(|i| moved.contains(i.as_str())) {
            return false;
        }
        if !n.input.first().is_some_and(|i| moved.contains(i.as_str())) || n.op_type == "Cast" {
            return true;
        }
        moved.extend(n.output.iter().map(String::as_str));
        MOVES.contains(&n.op_type.as_str())
    }) && !graph.output.iter().any(|o| moved.contains(o.name.as_str()))
}

/// Whether a subgraph of `node` uses one of `values`.
fn captures(node: &NodeProto, values: &HashSet<&str>) -> bool {
    let mut waiting: Vec<&GraphProto> = walk::inner(node).collect();
    while let Some(graph) = waiting.pop() {
        for n in &graph.node {
            if n.input.iter().any(|i| values.contains(i.as_str())) {
                return true;
            }
            waiting.extend(walk::inner(n));
        }
        if graph
            .output
            .iter()
            .any(|o| values.contains(o.name.as_str()))
        {
            return true;
        }
    }
    false
}

fn transpose(input: &str, output: &str, axes: &[i64]) -> NodeProto {
    let mut node = node("Transpose", &[input], output);
    node.attribute.push(AttributeProto {
        name: "perm".into(),
        r#type: AttributeType::Ints as i32,
        ints: axes.to_vec(),
        ..Default::default()
    });
    node
}

/// Renames a value wherever it is used.
fn rename_uses(graph: &mut GraphProto, from: &str, to: &str) {
    walk::graphs_mut(graph, &mut |graph| {
        let inner_outputs = graph.output.iter_mut().map(|o| &mut o.name);
        let inputs = graph.node.iter_mut().flat_map(|n| &mut n.input);
        for name in inputs.chain(inner_outputs).filter(|name| *name == from) {
            *name = to.to_owned();
        }
    });
}

/// Renames a value everywhere.
fn rename(graph: &mut GraphProto, from: &str, to: &str) {
    rename_uses(graph, from, to);
    let made = graph.node.iter_mut().flat_map(|n| &mut n.output);
    let constants = graph.initializer.iter_mut().map(|t| &mut t.name);
    for name in made.chain(constants).filter(|name| *name == from) {
        *name = to.to_owned();
    }
}

/// Declares the shape of a value, as far as known.
fn set_shape(info: &mut ValueInfoProto, shape: Option<&[Option<usize>]>) {
    use loftup_onnx::pb::type_proto::Value::TensorType;
    let dimension = |extent: &Option<usize>| Dimension {
        value: extent.map(|n| dimension::Value::DimValue(n as i64)),
        ..Default::default()
    };
    if let Some(TensorType(tensor)) = info.r#type.as_mut().and_then(|t| t.value.as_mut()) {
        tensor.shape = shape.map(|extents| TensorShapeProto {
            dim: extents.iter().map(dimension).collect(),
        });
    }
}
