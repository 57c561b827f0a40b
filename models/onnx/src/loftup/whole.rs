//! The upsampler as one standard ONNX file, for other tools.

use loftup_spec::{MIN_RANGE, io};

use super::{Linear, LoftUp};
use crate::{Attr, Dim, Graph, Value};

impl LoftUp {
    /// The whole upsampler: inputs [`io::FEATURES`] `[1, d, h, w]` and [`io::GUIDANCE`]
    /// `[1, 3, H, W]` (normalized as for the backbone), output [`io::UPSAMPLED`] `[1, d, H, W]`,
    /// any h, w, H, W. Memory grows with H * W * h * w, since it is not tiled.
    ///
    /// Coordinates are computed in 64 bits, which gives exactly the 32-bit coordinates of training.
    pub fn whole_graph(&self) -> Vec<u8> {
        let d = self.config.dim;
        let mut g = Graph::new("loftup");
        let map = |c: usize, h: &'static str, w: &'static str| {
            [1.into(), c.into(), Dim::from(h), w.into()]
        };
        let features = g.input(io::FEATURES, &map(d, "h", "w"));
        let image = g.input(io::GUIDANCE, &map(3, "H", "W"));

        let guidance = g.scope("min_max", |g| min_max(g, &image));
        let coords = g.scope("coords", |g| coordinates(g, &image));
        let grid = g.scope("grid", |g| {
            let grid = coordinates(g, &features);
            g.reshape(&grid, &[2, -1])
        });
        let tokens = g.reshape(&features, &[d as i64, -1]);
        let tokens = g.transpose(&tokens, &[1, 0]);
        let pairs = self.keys(&mut g, &tokens, &grid);
        let x = g.scope("fourier", |g| self.fourier(g, &guidance, &coords));
        let x = g.scope("conv1", |g| padded_convolution(g, &x, &self.conv1));
        let x = g.scope("conv2", |g| padded_convolution(g, &x, &self.conv2));
        let x = self.per_pixel(&mut g, &x, &pairs);
        let x = g.transpose(&x, &[1, 0]);
        let size = g.op("Shape", &[&image], &[Attr::Int("start", 2)]);
        let channels = g.ints("channels", &[1, d as i64]);
        let shape = g.concat(&[&channels, &size], 0);
        let x = g.op("Reshape", &[&x, &shape], &[]);
        g.output(&x, io::UPSAMPLED, &map(d, "H", "W"));
        g.finish()
    }
}

/// Per channel: `(x - min) / max(max - min, 1e-4) - 0.5`.
pub(crate) fn min_max(g: &mut Graph, x: &Value) -> Value {
    let over = [Attr::Ints("axes", vec![2, 3]), Attr::Int("keepdims", 1)];
    let min = g.op("ReduceMin", &[x], &over);
    let max = g.op("ReduceMax", &[x], &over);
    let range = g.op("Sub", &[&max, &min], &[]);
    let least = g.scalar("least", MIN_RANGE);
    let range = g.op("Max", &[&range, &least], &[]);
    let x = g.op("Sub", &[x, &min], &[]);
    let x = g.op("Div", &[&x, &range], &[]);
    let half = g.scalar("half", 0.5);
    g.op("Sub", &[&x, &half], &[])
}

/// Row and column coordinates of every pixel of `x` `[1, _, H, W]`: `[1, 2, H, W]`, -1 to 1.
fn coordinates(g: &mut Graph, x: &Value) -> Value {
    let shape = g.op("Shape", &[x], &[]);
    let size = g.slice(&shape, &[0], &[2], &[4]);
    let one = g.ints("one", &[1, 1]);
    let shape = g.concat(&[&one, &size], 0);
    let axis = |g: &mut Graph, position: i64, column: &[i64]| {
        let index = g.int("index", position);
        let n = g.op("Gather", &[&size, &index], &[]);
        let line = linspace(g, &n);
        let line = g.reshape(&line, column);
        g.op("Expand", &[&line, &shape], &[])
    };
    let y = axis(g, 0, &[1, 1, -1, 1]);
    let x = axis(g, 1, &[1, 1, 1, -1]);
    g.concat(&[&y, &x], 1)
}

/// [`loftup_spec::linspace`] from -1 to 1, where `n` is a scalar integer of the graph. In 64 bits, product
/// and sum are exact, so the final cast rounds once, like the 32-bit multiply-add.
fn linspace(g: &mut Graph, n: &Value) -> Value {
    let cast = |g: &mut Graph, x: &Value, to: i64| g.op("Cast", &[x], &[Attr::Int("to", to)]);
    const FLOAT: i64 = 1;
    const DOUBLE: i64 = 11;
    let (zero, one, two) = (g.int("zero", 0), g.int("one", 1), g.int("two", 2));
    let last = g.op("Sub", &[n, &one], &[]);
    let intervals = g.op("Max", &[&last, &one], &[]);
    let intervals = cast(g, &intervals, FLOAT);
    let span = g.scalar("span", 2.0);
    let step = g.op("Div", &[&span, &intervals], &[]);
    let step = cast(g, &step, DOUBLE);
    let forward = g.op("Range", &[&zero, n, &one], &[]);
    let backward = g.op("Sub", &[&last, &forward], &[]);
    let middle = g.op("Div", &[n, &two], &[]);
    let middle = g.op("Max", &[&middle, &one], &[]);
    let in_first_half = g.op("Less", &[&forward, &middle], &[]);

    let end = g.scalar_f64("end", 1.0);
    let from_start = cast(g, &forward, DOUBLE);
    let from_start = g.mul(&from_start, &step);
    let from_start = g.op("Sub", &[&from_start, &end], &[]);
    let from_end = cast(g, &backward, DOUBLE);
    let from_end = g.mul(&from_end, &step);
    let from_end = g.op("Sub", &[&end, &from_end], &[]);
    let line = g.op("Where", &[&in_first_half, &from_start, &from_end], &[]);
    cast(g, &line, FLOAT)
}

/// Zero-padded 3x3 convolution and ReLU.
fn padded_convolution(g: &mut Graph, x: &Value, conv: &Linear) -> Value {
    let x = g.padded_conv(x, &conv.weight, &conv.bias, 1, 1);
    g.op("Relu", &[&x], &[])
}
