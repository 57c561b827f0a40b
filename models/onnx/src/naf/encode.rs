//! Encodings of pixels, keys of cells, and attention.

use loftup_spec::{
    naf::{
        BranchWeights, EPS, GROUPS, HEAD_WIDTH, HEADS, LAYERS, NafWeights, PERIODS, TAPS, WIDTH,
    },
    weights::{AffineWeights, ConvWeights},
};

use crate::{Attr, Graph, Tensor, Value};

/// The source of the scales and shifts of the group normalizations.
pub(super) enum Norms {
    /// Computed from the image: those of all layers of both branches so far, each `[WIDTH, 1, 1]`.
    Computed(Vec<(Value, Value)>),
    /// From inputs `[2 * LAYERS, WIDTH]`.
    Given { scales: Value, shifts: Value },
}

impl Norms {
    pub fn computed() -> Self {
        Self::Computed(Vec::new())
    }

    /// Returns scale and shift of layer `layer` of branch `branch`, whose input is `x`.
    fn of(
        &mut self,
        g: &mut Graph,
        (branch, layer): (usize, usize),
        x: &Value,
        norm: &AffineWeights,
    ) -> (Value, Value) {
        match self {
            Self::Computed(all) => {
                let pair = statistics(g, x, norm);
                all.push(pair.clone());
                pair
            }
            Self::Given { scales, shifts } => {
                let row = (branch * LAYERS + layer) as i64;
                let mut of = |all: &Value| {
                    let x = g.slice(all, &[0], &[row], &[row + 1]);
                    g.reshape(&x, &[WIDTH as i64, 1, 1])
                };
                (of(scales), of(shifts))
            }
        }
    }
}

/// Cosines and sines, `[2, t, rows or columns, PERIODS]`.
pub(super) struct Rotary {
    pub rows: Value,
    pub columns: Value,
}

/// Computes the encodings of images `[t, 3, H, W]`: `[t, H, W, 256]`.
pub(super) fn encodings(
    g: &mut Graph,
    image: &Value,
    weights: &NafWeights,
    norms: &mut Norms,
    rotary: &Rotary,
) -> Value {
    let mut branches = Vec::new();
    for (i, name) in ["encoder", "sem_encoder"].into_iter().enumerate() {
        let weights = &weights.branches[i];
        branches.push(g.scope(name, |g| branch(g, image, i, weights, norms)));
    }
    let x = g.concat(&[&branches[0], &branches[1]], 1);
    let x = g.transpose(&x, &[0, 2, 3, 1]);
    g.scope("rope", |g| rotated(g, &x, rotary))
}

fn branch(
    g: &mut Graph,
    image: &Value,
    branch: usize,
    weights: &BranchWeights,
    norms: &mut Norms,
) -> Value {
    let mut x = g.scope("0", |g| convolution(g, image, &weights.first, 3));
    for (i, layer) in weights.layers.iter().enumerate() {
        x = g.scope(format!("{}.{}", i / 2 + 1, i % 2 + 1), |g| {
            let (scale, shift) = norms.of(g, (branch, i), &x, &layer.norm);
            let x = g.mul(&x, &scale);
            let x = g.add(&x, &shift);
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
        // With slices instead of `Pad`, which differs between runtimes.
        for axis in [2, 3] {
            let before = g.slice(&x, &[axis], &[1], &[2]);
            let after = g.slice(&x, &[axis], &[-2], &[-1]);
            x = g.concat(&[&before, &x, &after], axis);
        }
    }
    g.conv(&x, &weight, &bias, 1)
}

/// Computes scale and shift of a group normalization of `[1, 128, H, W]`, each `[128, 1, 1]`.
///
/// The variance of a group is the mean of `variance + (mean - mean of the group)^2` over its channels, so
/// there is no cancellation. The image is averaged along rows, then along columns.
fn statistics(g: &mut Graph, x: &Value, norm: &AffineWeights) -> (Value, Value) {
    let over = |axis: i64| [Attr::Ints("axes", vec![axis]), Attr::Int("keepdims", 1)];
    let mean = |g: &mut Graph, x: &Value| {
        let rows = g.op("ReduceMean", &[x], &over(3));
        g.op("ReduceMean", &[&rows], &over(2))
    };
    let groups = [GROUPS as i64, (WIDTH / GROUPS) as i64];
    let channel = mean(g, x);
    let centered = g.op("Sub", &[x, &channel], &[]);
    let square = g.mul(&centered, &centered);
    let variance = mean(g, &square);
    let (channel, variance) = (g.reshape(&channel, &groups), g.reshape(&variance, &groups));
    let group = g.op("ReduceMean", &[&channel], &over(1));
    let between = g.op("Sub", &[&channel, &group], &[]);
    let between = g.mul(&between, &between);
    let variance = g.add(&variance, &between);
    let variance = g.op("ReduceMean", &[&variance], &over(1));
    let eps = g.scalar("eps", EPS);
    let variance = g.add(&variance, &eps);
    let deviation = g.op("Sqrt", &[&variance], &[]);
    let of_channels = |values: &[f32]| Tensor::from_fn([GROUPS, WIDTH / GROUPS], |i| values[i]);
    let weight = g.constant("weight", &of_channels(&norm.weight));
    let bias = g.constant("bias", &of_channels(&norm.bias));
    let scale = g.op("Div", &[&weight, &deviation], &[]);
    let offset = g.mul(&group, &scale);
    let shift = g.op("Sub", &[&bias, &offset], &[]);
    let column = [WIDTH as i64, 1, 1];
    (g.reshape(&scale, &column), g.reshape(&shift, &column))
}

/// Applies the rotary encoding to `[t, H, W, 256]`.
fn rotated(g: &mut Graph, x: &Value, rotary: &Rotary) -> Value {
    // Head, half, axis, period.
    let x = g.reshape(x, &[0, 0, 0, HEADS as i64, 2, 2, PERIODS as i64]);
    let mut halves = [Vec::new(), Vec::new()];
    for (axis, (table, new)) in [
        (&rotary.rows, [2, 3, 4, 5]),
        (&rotary.columns, [1, 3, 4, 5]),
    ]
    .into_iter()
    .enumerate()
    {
        let axis = axis as i64;
        let mut part = |part: i64| {
            let index = g.int("part", part);
            let x = g.op("Gather", &[table, &index], &[Attr::Int("axis", 0)]);
            let axes = g.ints("axes", &new);
            g.op("Unsqueeze", &[&x, &axes], &[])
        };
        let (cos, sin) = (part(0), part(1));
        let of =
            |g: &mut Graph, half: i64| g.slice(&x, &[4, 5], &[half, axis], &[half + 1, axis + 1]);
        let (first, second) = (of(g, 0), of(g, 1));
        let (a, b) = (g.mul(&first, &cos), g.mul(&second, &sin));
        halves[0].push(g.op("Sub", &[&a, &b], &[]));
        let (a, b) = (g.mul(&second, &cos), g.mul(&first, &sin));
        halves[1].push(g.add(&a, &b));
    }
    let halves = halves.map(|axes| g.concat(&[&axes[0], &axes[1]], 5));
    let x = g.concat(&[&halves[0], &halves[1]], 4);
    g.reshape(&x, &[0, 0, 0, (HEADS * HEAD_WIDTH) as i64])
}

/// Computes keys `[cells, 256]` from encodings `[1, H, W, 256]`, times the scale of the scores. `rows` is
/// `[h, H]`, `columns` is `[w, W]`.
pub(super) fn keys(g: &mut Graph, x: &Value, rows: &Value, columns: &Value) -> Value {
    let channels = (HEADS * HEAD_WIDTH) as i64;
    let scale = g.scalar("scale", 1.0 / (HEAD_WIDTH as f32).sqrt());
    // `[1, H, W, 256]` -> `[1, H, W * 256]` -> `[1, h, W * 256]` -> `[1, h, W, 256]`.
    let x = g.reshape(x, &[0, 0, -1]);
    let x = g.matmul(rows, &x);
    let x = g.reshape(&x, &[0, 0, -1, channels]);
    let x = g.matmul(columns, &x);
    let x = g.mul(&x, &scale);
    g.reshape(&x, &[-1, channels])
}

/// Groups of pixels that attend to the same cells: indices, as floats.
pub(super) struct Groups {
    /// `[groups, pixels]`.
    pub pixels: Value,
    /// `[groups, 81]`.
    pub cells: Value,
    /// Position of each output pixel in the groups, `[n]`.
    pub order: Value,
}

/// Computes attention of pixels with encodings `[t, H, W, 256]` to keys `[cells, 256]` and values
/// `[cells, 4 v]`: `[n, 4 v]`.
pub(super) fn attention(
    g: &mut Graph,
    x: &Value,
    keys: &Value,
    values: &Value,
    groups: &Groups,
) -> Value {
    let heads = HEADS as i64;
    let width = HEAD_WIDTH as i64;
    let x = g.reshape(x, &[-1, heads * width]);
    let mut taken = |x: &Value, indices: &Value| {
        // INT32, which all versions of TensorRT support.
        let indices = g.op("Cast", &[indices], &[Attr::Int("to", 6)]);
        g.op("Gather", &[x, &indices], &[Attr::Int("axis", 0)])
    };
    let queries = taken(&x, &groups.pixels);
    let keys = taken(keys, &groups.cells);
    let values = taken(values, &groups.cells);
    let split = |g: &mut Graph, x: &Value, shape: [i64; 4], order: [i64; 4]| {
        let x = g.reshape(x, &shape);
        g.transpose(&x, &order)
    };
    let queries = split(g, &queries, [0, 0, heads, width], [0, 2, 1, 3]);
    let keys = split(g, &keys, [0, TAPS as i64, heads, width], [0, 2, 3, 1]);
    let values = split(g, &values, [0, TAPS as i64, heads, -1], [0, 2, 1, 3]);
    let scores = g.matmul(&queries, &keys);
    let scores = g.softmax(&scores);
    let x = g.matmul(&scores, &values);
    // `[groups, 4, pixels, v]` -> `[groups * pixels, 4 v]`.
    let x = g.transpose(&x, &[0, 2, 1, 3]);
    let x = flattened(g, &x);
    let order = g.op("Cast", &[&groups.order], &[Attr::Int("to", 6)]);
    g.op("Gather", &[&x, &order], &[Attr::Int("axis", 0)])
}

/// Reshapes `[groups, pixels, 4, v]` to `[groups * pixels, 4 v]`.
fn flattened(g: &mut Graph, x: &Value) -> Value {
    // One axis at a time: a shape can have only one unknown.
    let x = g.reshape(x, &[0, 0, -1]);
    g.op("Flatten", &[&x], &[Attr::Int("axis", 2)])
}
