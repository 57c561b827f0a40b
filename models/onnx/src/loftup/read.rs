//! Reads the weights from a queries graph, and the channel norm from a keys graph, if the graphs are
//! exactly as written by this crate.
//!
//! The graph is read node by node in the order in which it was written. Every operator, input,
//! attribute and constant must be the expected one, and none may be left over. Otherwise it is not a
//! queries graph, and the general engine runs it.

use std::collections::HashMap;

use loftup_spec::{
    HALO, io,
    weights::{AffineWeights, ConvWeights, LayerWeights, LinearWeights, QueriesWeights},
};
use prost::Message;

use crate::pb::{
    AttributeProto, ModelProto, NodeProto, TensorProto,
    tensor_proto::{DataLocation, DataType},
};

/// Reads the weights of a serialized queries graph with `layers` layers. Returns `None` for any other
/// graph.
pub fn read_queries(onnx: &[u8], layers: usize) -> Option<QueriesWeights> {
    read(onnx, layers, false)
}

/// Same as [`read_queries`], for a graph with a head from [`super::with_head`].
pub fn read_queries_with_head(onnx: &[u8], layers: usize) -> Option<QueriesWeights> {
    read(onnx, layers, true)
}

fn read(onnx: &[u8], layers: usize, head: bool) -> Option<QueriesWeights> {
    let model = ModelProto::decode(onnx).ok()?;
    let graph = model.graph.as_ref()?;
    let mut walk = Walk {
        nodes: graph.node.iter(),
        constants: graph
            .initializer
            .iter()
            .map(|t| (t.name.as_str(), t))
            .collect(),
    };
    let (weights, features) = walk.queries(layers)?;
    if head {
        walk.head(features)?;
    }
    walk.nodes.next().is_none().then_some(weights)
}

/// Reads the normalization of the backbone's features at the start of a serialized keys graph for `dim`
/// channels, and its epsilon. Returns `None` if the graph starts with anything else.
pub fn read_channel_norm(onnx: &[u8], dim: usize) -> Option<(AffineWeights, f32)> {
    let model = ModelProto::decode(onnx).ok()?;
    let graph = model.graph.as_ref()?;
    let mut walk = Walk {
        nodes: graph.node.iter(),
        constants: (graph.initializer.iter())
            .map(|t| (t.name.as_str(), t))
            .collect(),
    };
    let tokens = walk.reshape(io::FEATURES, &[-1, i64::try_from(dim).ok()?])?;
    let (normalized, eps) = walk.normalize(tokens, -1)?;
    let (_, affine) = walk.affine(normalized, &[dim])?;
    Some((affine, eps))
}

struct Walk<'a> {
    nodes: std::slice::Iter<'a, NodeProto>,
    constants: HashMap<&'a str, &'a TensorProto>,
}

/// An attribute that a node must have.
enum Is<'s> {
    Int(&'s str, i64),
    Ints(&'s str, &'s [i64]),
}

impl Is<'_> {
    fn of(&self, attribute: &AttributeProto) -> bool {
        match *self {
            Self::Int(name, i) => attribute.name == name && attribute.i == i,
            Self::Ints(name, ints) => attribute.name == name && attribute.ints == ints,
        }
    }
}

impl<'a> Walk<'a> {
    /// Reads the weights, and the name of the features before the output.
    fn queries(&mut self, layers: usize) -> Option<(QueriesWeights, &'a str)> {
        let mut w = QueriesWeights::default();
        let x = self.fourier(&mut w)?;
        let x = self.op("Mul", &[x, io::MASK], &[])?;
        let (x, conv) = self.convolution(x, w.guidance_norm.weight.len())?;
        w.conv1 = conv;
        let width = w.conv1.bias.len();
        let inside = self.inner_mask()?;
        let x = self.op("Mul", &[x, inside], &[])?;
        let (mut x, conv) = self.convolution(x, width)?;
        w.conv2 = conv;
        x = self.op("Transpose", &[x], &[Is::Ints("perm", &[0, 2, 3, 1])])?;
        x = self.reshape(x, &[-1, i64::try_from(width).ok()?])?;
        for i in 0..layers {
            let (y, layer, heads) = self.layer(x, i, width, w.eps)?;
            if i > 0 && heads != w.heads {
                return None;
            }
            w.heads = heads;
            w.layers.push(layer);
            x = y;
        }
        x = self.normalized(x, w.eps)?;
        (x, w.last) = self.linear(x, width)?;
        (x, w.last_eps) = self.normalize(x, -1)?;
        (x, w.last_norm) = self.affine(x, &[w.last.bias.len()])?;
        let output = self.op("Identity", &[x], &[])?;
        (output == io::UPSAMPLED).then_some((w, x))
    }

    /// Reads a head on the output, or on `features`, which the output is a copy of.
    fn head(&mut self, features: &str) -> Option<()> {
        let (y, [from, scale]) = self.node("Mul", &[])?;
        let x = self.op("Add", &[y, io::HEAD_OFFSET], &[])?;
        let gemm = [Is::Int("transB", 1)];
        let head = self.op("Gemm", &[x, io::HEAD_WEIGHT, io::HEAD_BIAS], &gemm)?;
        let over = [Is::Ints("axes", &[-1]), Is::Int("keepdims", 1)];
        let mean = self.op("ReduceMean", &[x], &over)?;
        let square = self.op("Mul", &[x, x], &[])?;
        let mean_square = self.op("ReduceMean", &[square], &over)?;
        let moments = self.op("Concat", &[mean, mean_square], &[Is::Int("axis", 1)])?;
        let whole = (from == io::UPSAMPLED || from == features)
            && scale == io::HEAD_SCALE
            && (head, moments) == (io::HEAD, io::MOMENTS);
        whole.then_some(())
    }

    /// Reads the slicing of the mask to its inner pixels.
    fn inner_mask(&mut self) -> Option<&'a str> {
        let inner = i64::try_from(HALO / 2).ok()?;
        let (output, [mask, start, end, axes]) = self.node("Slice", &[])?;
        let bounds = self.ints(start)? == [inner, inner]
            && self.ints(end)? == [-inner, -inner]
            && self.ints(axes)? == [2, 3];
        (mask == io::MASK && bounds).then_some(output)
    }

    fn fourier(&mut self, w: &mut QueriesWeights) -> Option<&'a str> {
        let axis = [Is::Int("axis", 1)];
        let channels = self.op("Concat", &[io::COORDS, io::GUIDANCE], &axis)?;
        let node = self.nodes.next()?;
        let count = node.input.len();
        let repeated = is(node, "Concat", &axis)?;
        let (turned, [from, frequency]) = self.node("Mul", &[])?;
        let per_channel = self.floats(frequency, &[5 * count, 1, 1])?;
        let (groups, _) = per_channel.as_chunks::<5>();
        if node.input.iter().any(|name| name != channels)
            || from != repeated
            || groups.iter().any(|g| g.iter().any(|f| *f != g[0]))
        {
            return None;
        }
        w.frequencies = groups.iter().map(|g| g[0]).collect();
        let mut wave = |op: &str| {
            let (angle, [from, phase]) = self.node("Add", &[])?;
            let phases = self.floats(phase, &[5 * count, 1, 1])?;
            let wave = self.op(op, &[angle], &[])?;
            (from == turned).then_some((wave, phases))
        };
        let (sine, sine_phases) = wave("Sin")?;
        let (cosine, cosine_phases) = wave("Cos")?;
        (w.sine_phases, w.cosine_phases) = (sine_phases, cosine_phases);
        let x = self.op("Concat", &[sine, cosine, io::GUIDANCE], &axis)?;
        let (x, eps) = self.normalize(x, 1)?;
        w.eps = eps;
        let (x, affine) = self.affine(x, &[10 * count + 3, 1, 1])?;
        w.guidance_norm = affine;
        Some(x)
    }

    fn convolution(&mut self, x: &str, channels: usize) -> Option<(&'a str, ConvWeights)> {
        let attributes = [
            Is::Ints("kernel_shape", &[3, 3]),
            Is::Ints("strides", &[1, 1]),
            Is::Ints("pads", &[0, 0, 0, 0]),
        ];
        let (y, [from, weight, bias]) = self.node("Conv", &attributes)?;
        let outputs = self.extent(bias)?;
        let conv = ConvWeights {
            weight: self.floats(weight, &[outputs, channels, 3, 3])?,
            bias: self.floats(bias, &[outputs])?,
        };
        let y = self.op("Relu", &[y], &[])?;
        (from == x).then_some((y, conv))
    }

    /// Reads one layer. Also returns its number of heads.
    fn layer(
        &mut self,
        x: &'a str,
        i: usize,
        width: usize,
        eps: f32,
    ) -> Option<(&'a str, LayerWeights, usize)> {
        let q = self.normalized(x, eps)?;
        let (q, query) = self.linear(q, width)?;
        let (heads, q) = {
            let (y, [from, shape]) = self.node("Reshape", &[])?;
            let [-1, heads, head_width] = self.ints(shape)?[..] else {
                return None;
            };
            let heads = usize::try_from(heads).ok()?;
            let whole = heads.checked_mul(usize::try_from(head_width).ok()?)?;
            (from == q && whole == query.bias.len()).then_some((heads, y))?
        };
        let attended = query.bias.len();
        let order = [Is::Ints("perm", &[1, 0, 2])];
        let q = self.op("Transpose", &[q], &order)?;
        let scores = self.op("MatMul", &[q, &io::key(i)], &[])?;
        let scores = self.op("Softmax", &[scores], &[Is::Int("axis", -1)])?;
        let y = self.op("MatMul", &[scores, &io::value(i)], &[])?;
        let y = self.op("Transpose", &[y], &order)?;
        let y = self.reshape(y, &[-1, attended as i64])?;
        let (y, out) = self.linear(y, attended)?;
        let x = self.op("Add", &[x, y], &[])?;

        let y = self.normalized(x, eps)?;
        let (y, mlp_in) = self.linear(y, width)?;
        let y = self.gelu(y)?;
        let (y, mlp_out) = self.linear(y, mlp_in.bias.len())?;
        let x = self.op("Add", &[x, y], &[])?;
        let layer = LayerWeights {
            query,
            out,
            mlp_in,
            mlp_out,
        };
        Some((x, layer, heads))
    }

    fn gelu(&mut self, x: &'a str) -> Option<&'a str> {
        let y = self.with_scalar("Div", x, std::f32::consts::SQRT_2)?;
        let y = self.op("Erf", &[y], &[])?;
        let y = self.with_scalar("Add", y, 1.0)?;
        let y = self.op("Mul", &[x, y], &[])?;
        self.with_scalar("Mul", y, 0.5)
    }

    fn linear(&mut self, x: &str, inputs: usize) -> Option<(&'a str, LinearWeights)> {
        let (y, [from, weight]) = self.node("MatMul", &[])?;
        let (sum, [product, bias]) = self.node("Add", &[])?;
        let outputs = self.extent(bias)?;
        let linear = LinearWeights {
            weight: self.floats(weight, &[inputs, outputs])?,
            bias: self.floats(bias, &[outputs])?,
        };
        (from == x && product == y).then_some((sum, linear))
    }

    fn affine(&mut self, x: &str, shape: &[usize]) -> Option<(&'a str, AffineWeights)> {
        let (y, [from, weight]) = self.node("Mul", &[])?;
        let (sum, [product, bias]) = self.node("Add", &[])?;
        let affine = AffineWeights {
            weight: self.floats(weight, shape)?,
            bias: self.floats(bias, shape)?,
        };
        (from == x && product == y).then_some((sum, affine))
    }

    /// Reads a normalization over `axis`, and its epsilon.
    fn normalize(&mut self, x: &str, axis: i64) -> Option<(&'a str, f32)> {
        let axes = [axis];
        let over = [Is::Ints("axes", &axes), Is::Int("keepdims", 1)];
        let mean = self.op("ReduceMean", &[x], &over)?;
        let centered = self.op("Sub", &[x, mean], &[])?;
        let square = self.op("Mul", &[centered, centered], &[])?;
        let variance = self.op("ReduceMean", &[square], &over)?;
        let (sum, [from, eps]) = self.node("Add", &[])?;
        let eps = self.floats(eps, &[])?[0];
        let deviation = self.op("Sqrt", &[sum], &[])?;
        let y = self.op("Div", &[centered, deviation], &[])?;
        (from == variance).then_some((y, eps))
    }

    /// Reads a normalization over the last axis with this epsilon.
    fn normalized(&mut self, x: &str, eps: f32) -> Option<&'a str> {
        let (y, found) = self.normalize(x, -1)?;
        (found == eps).then_some(y)
    }

    fn reshape(&mut self, x: &str, to: &[i64]) -> Option<&'a str> {
        let (y, [from, shape]) = self.node("Reshape", &[])?;
        (from == x && self.ints(shape)? == to).then_some(y)
    }

    fn with_scalar(&mut self, op: &str, x: &str, scalar: f32) -> Option<&'a str> {
        let (y, [from, constant]) = self.node(op, &[])?;
        (from == x && self.floats(constant, &[])? == [scalar]).then_some(y)
    }

    /// Reads the next node, which must be exactly this. Returns its output.
    fn op(&mut self, op: &str, inputs: &[&str], attributes: &[Is<'_>]) -> Option<&'a str> {
        let node = self.nodes.next()?;
        (node.input == inputs).then(|| is(node, op, attributes))?
    }

    /// Reads the next node, which must be an `op` with `N` inputs. Returns its output and inputs.
    fn node<const N: usize>(
        &mut self,
        op: &str,
        attributes: &[Is<'_>],
    ) -> Option<(&'a str, [&'a str; N])> {
        let node = self.nodes.next()?;
        let inputs: Vec<&str> = node.input.iter().map(String::as_str).collect();
        Some((is(node, op, attributes)?, inputs.try_into().ok()?))
    }

    /// Length of a constant with one axis.
    fn extent(&self, name: &str) -> Option<usize> {
        match self.constants.get(name)?.dims[..] {
            [n] => usize::try_from(n).ok(),
            _ => None,
        }
    }

    fn floats(&self, name: &str, shape: &[usize]) -> Option<Vec<f32>> {
        let raw = self.raw(name, DataType::Float, shape, 4)?;
        let values = raw.as_chunks::<4>().0.iter();
        Some(values.map(|b| f32::from_le_bytes(*b)).collect())
    }

    /// Values of a constant list.
    fn ints(&self, name: &str) -> Option<Vec<i64>> {
        let raw = self.raw(name, DataType::Int64, &[self.extent(name)?], 8)?;
        let values = raw.as_chunks::<8>().0.iter();
        Some(values.map(|b| i64::from_le_bytes(*b)).collect())
    }

    /// Bytes of a constant of this type and shape.
    fn raw(&self, name: &str, dtype: DataType, shape: &[usize], size: usize) -> Option<&'a [u8]> {
        let tensor = *self.constants.get(name)?;
        let inside = tensor.data_location != Some(DataLocation::External as i32);
        let bytes = shape
            .iter()
            .try_fold(size, |bytes, extent| bytes.checked_mul(*extent));
        let same = tensor.dims.len() == shape.len()
            && tensor
                .dims
                .iter()
                .zip(shape)
                .all(|(a, b)| usize::try_from(*a) == Ok(*b));
        (inside && same && tensor.data_type == dtype as i32 && Some(tensor.raw_data.len()) == bytes)
            .then_some(tensor.raw_data.as_slice())
    }
}

/// Returns the output of `node` if it is a standard `op` with exactly these attributes.
fn is<'n>(node: &'n NodeProto, op: &str, attributes: &[Is<'_>]) -> Option<&'n str> {
    let [output] = &node.output[..] else {
        return None;
    };
    let same = node.op_type == op
        && matches!(node.domain.as_str(), "" | "ai.onnx")
        && node.attribute.len() == attributes.len()
        && attributes
            .iter()
            .all(|a| node.attribute.iter().any(|found| a.of(found)));
    same.then_some(output)
}
