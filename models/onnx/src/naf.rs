//! NAF as one ONNX graph of standard operators, for one size.

use loftup_spec::{
    io,
    naf::{
        BranchWeights, CHANNELS, EPS, GROUPS, HEAD_WIDTH, HEADS, NafWeights, PERIODS, TAPS, WIDTH,
        fits, window,
    },
    rotary::rotation,
    weights::{AffineWeights, ConvWeights},
};

use crate::{Attr, Graph, Tensor, Value};

/// The sizes of a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NafShape {
    /// Channels of the features, a multiple of 4.
    pub dim: usize,
    /// Rows and columns of the grid.
    pub grid: (usize, usize),
    /// Rows and columns of the output, multiples of those of the grid.
    pub size: (usize, usize),
}

impl NafShape {
    /// Whether there is a graph for it: pixels of a patch must share the patches that they attend to.
    pub fn is_supported(&self) -> bool {
        let axis =
            |cells: usize, pixels: usize| fits(cells, pixels) && pixels.is_multiple_of(cells);
        self.dim > 0
            && self.dim.is_multiple_of(HEADS)
            && axis(self.grid.0, self.size.0)
            && axis(self.grid.1, self.size.1)
    }

    /// The patches that the pixels of each patch attend to, `[patches * TAPS]`.
    fn windows(&self) -> Vec<i64> {
        let axis = |cells: usize, pixels: usize| {
            (0..cells).map(move |i| window(i * (pixels / cells), cells, pixels))
        };
        let mut all = Vec::with_capacity(self.grid.0 * self.grid.1 * TAPS);
        for rows in axis(self.grid.0, self.size.0) {
            for columns in axis(self.grid.1, self.size.1) {
                let across = self.grid.1;
                let cells = rows
                    .iter()
                    .flat_map(|r| columns.iter().map(move |c| r * across + c));
                all.extend(cells.map(|cell| cell as i64));
            }
        }
        all
    }
}

/// The whole upsampler: inputs [`io::FEATURES`] `[1, d, h, w]` and [`io::GUIDANCE`] `[1, 3, H, W]`, with
/// ImageNet's normalization, output [`io::UPSAMPLED`] `[1, d, H, W]`. `None` if the shape is not
/// [supported](NafShape::is_supported).
pub fn whole_graph(weights: &NafWeights, shape: NafShape) -> Option<Vec<u8>> {
    if !shape.is_supported() {
        return None;
    }
    let NafShape { dim, grid, size } = shape;
    let map = |channels: usize, (rows, columns): (usize, usize)| {
        [1.into(), channels.into(), rows.into(), columns.into()]
    };
    let mut g = Graph::new("naf");
    let features = g.input(io::FEATURES, &map(dim, grid));
    let image = g.input(io::GUIDANCE, &map(3, size));
    let names = ["encoder", "sem_encoder"];
    let branches: Vec<Value> = weights
        .branches
        .iter()
        .zip(names)
        .map(|(weights, name)| g.scope(name, |g| branch(g, &image, weights, size)))
        .collect();
    let x = g.concat(&[&branches[0], &branches[1]], 1);
    let x = g.scope("rope", |g| rotated(g, &x, &weights.periods, size));
    let x = g.scope("attention", |g| attention(g, &x, &features, shape));
    g.output(&x, io::UPSAMPLED, &map(dim, size));
    Some(g.finish())
}

fn branch(g: &mut Graph, image: &Value, weights: &BranchWeights, size: (usize, usize)) -> Value {
    let mut x = g.scope("0", |g| convolution(g, image, &weights.first, 3));
    for (i, layer) in weights.layers.iter().enumerate() {
        x = g.scope(format!("{}.{}", i / 2 + 1, i % 2 + 1), |g| {
            let x = group_norm(g, &x, &layer.norm, size);
            let x = g.silu(&x);
            convolution(g, &x, &layer.conv, WIDTH)
        });
    }
    x
}

/// A convolution with reflect padding.
fn convolution(g: &mut Graph, x: &Value, conv: &ConvWeights, inputs: usize) -> Value {
    let side = if conv.weight.len() == WIDTH * inputs {
        1
    } else {
        3
    };
    let weight = Tensor::from_fn([WIDTH, inputs, side, side], |i| conv.weight[i]);
    let bias = Tensor::from_fn([WIDTH], |i| conv.bias[i]);
    let mut x = x.clone();
    if side == 3 {
        // Not `Pad`: slices are the same in all runtimes.
        for axis in [2, 3] {
            let before = g.slice(&x, &[axis], &[1], &[2]);
            let after = g.slice(&x, &[axis], &[-2], &[-1]);
            x = g.concat(&[&before, &x, &after], axis);
        }
    }
    g.conv(&x, &weight, &bias, 1)
}

fn group_norm(g: &mut Graph, x: &Value, norm: &AffineWeights, size: (usize, usize)) -> Value {
    let groups = g.reshape(x, &[1, GROUPS as i64, -1]);
    let normalized = g.normalize(&groups, 2, EPS);
    let x = g.reshape(
        &normalized,
        &[1, WIDTH as i64, size.0 as i64, size.1 as i64],
    );
    let column = |values: &[f32]| Tensor::from_fn([WIDTH, 1, 1], |i| values[i]);
    g.affine(&x, &column(&norm.weight), &column(&norm.bias))
}

/// The rotary encoding of `[1, 256, H, W]`.
fn rotated(g: &mut Graph, x: &Value, periods: &[f32], size: (usize, usize)) -> Value {
    let (rows, columns) = (size.0 as i64, size.1 as i64);
    // Head, half, axis, period.
    let x = g.reshape(x, &[HEADS as i64, 2, 2, PERIODS as i64, rows, columns]);
    let mut halves = [Vec::new(), Vec::new()];
    for (axis, pixels) in [(0, size.0), (1, size.1)] {
        let angles: Vec<[f32; 2]> = (0..pixels)
            .flat_map(|i| rotation(i, pixels, periods))
            .collect();
        let shape = match axis {
            0 => [PERIODS, pixels, 1],
            _ => [PERIODS, 1, pixels],
        };
        let table = |part: usize| {
            Tensor::from_fn(shape, |i| angles[i % pixels * PERIODS + i / pixels][part])
        };
        let (cos, sin) = (g.constant("cos", &table(0)), g.constant("sin", &table(1)));
        let part =
            |g: &mut Graph, half: i64| g.slice(&x, &[1, 2], &[half, axis], &[half + 1, axis + 1]);
        let (first, second) = (part(g, 0), part(g, 1));
        let (a, b) = (g.mul(&first, &cos), g.mul(&second, &sin));
        halves[0].push(g.op("Sub", &[&a, &b], &[]));
        let (a, b) = (g.mul(&second, &cos), g.mul(&first, &sin));
        halves[1].push(g.add(&a, &b));
    }
    let halves = halves.map(|axes| g.concat(&[&axes[0], &axes[1]], 2));
    let x = g.concat(&[&halves[0], &halves[1]], 1);
    g.reshape(&x, &[1, CHANNELS as i64, rows, columns])
}

/// Attention of the queries `[1, 256, H, W]`, for the pixels of each patch to its window.
fn attention(g: &mut Graph, queries: &Value, features: &Value, shape: NafShape) -> Value {
    let int = |n: usize| n as i64;
    let NafShape { dim, grid, size } = shape;
    let (heads, taps, cells) = (int(HEADS), int(TAPS), int(grid.0 * grid.1));
    let (down, across) = (int(size.0 / grid.0), int(size.1 / grid.1));
    let (h, w) = (int(grid.0), int(grid.1));
    let windows = g.ints("windows", &shape.windows());
    // `[1, channels, h, w]` -> the patches of each window, `[cells, 81, heads, channels / heads]`.
    let gathered = |g: &mut Graph, x: &Value, channels: usize| {
        let x = g.reshape(x, &[int(channels), cells]);
        let x = g.transpose(&x, &[1, 0]);
        let x = g.op("Gather", &[&x, &windows], &[Attr::Int("axis", 0)]);
        g.reshape(&x, &[cells, taps, heads, int(channels / HEADS)])
    };
    let pool = [
        Attr::Ints("kernel_shape", vec![down, across]),
        Attr::Ints("strides", vec![down, across]),
    ];
    let keys = g.op("AveragePool", &[queries], &pool);
    let scale = g.scalar("scale", 1.0 / (HEAD_WIDTH as f32).sqrt());
    let keys = g.mul(&keys, &scale);
    let keys = gathered(g, &keys, CHANNELS);
    let keys = g.transpose(&keys, &[0, 2, 3, 1]);
    let values = gathered(g, features, dim);
    let values = g.transpose(&values, &[0, 2, 1, 3]);
    let queries = g.reshape(queries, &[heads, int(HEAD_WIDTH), h, down, w, across]);
    let queries = g.transpose(&queries, &[2, 4, 0, 3, 5, 1]);
    let queries = g.reshape(&queries, &[cells, heads, down * across, int(HEAD_WIDTH)]);
    let scores = g.matmul(&queries, &keys);
    let scores = g.softmax(&scores);
    let x = g.matmul(&scores, &values);
    let x = g.reshape(&x, &[h, w, heads, down, across, int(dim / HEADS)]);
    let x = g.transpose(&x, &[2, 5, 0, 3, 1, 4]);
    g.reshape(&x, &[1, int(dim), int(size.0), int(size.1)])
}
