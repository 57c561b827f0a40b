//! A trainable vision transformer, whose weights have DINOv2's names and shapes.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};
use loftup_onnx::Tensor as HostTensor;
use loftup_train::{
    kernels::{Kernel, run},
    model::{Params, device_matrix},
    rng::Rng,
};

/// Epsilon of every layer normalization, as in DINOv2.
const EPS: f32 = 1e-6;

/// The architecture of the transformer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Side of a patch in pixels.
    pub patch: usize,
    /// Patches per side.
    pub grid: usize,
    /// Channels.
    pub width: usize,
    /// Blocks.
    pub depth: usize,
    /// Attention heads.
    pub heads: usize,
}

impl Shape {
    /// The architecture of the shipped weights.
    pub const SHIPPED: Self = Self {
        patch: 14,
        grid: 16,
        width: 64,
        depth: 5,
        heads: loftup_import::builtin::scenes::HEADS,
    };

    /// Patches of an image.
    pub fn tokens(&self) -> usize {
        self.grid * self.grid
    }

    /// Values per patch: color, row, column.
    pub fn patch_values(&self) -> usize {
        3 * self.patch * self.patch
    }
}

/// The transformer.
#[derive(Debug, Clone)]
pub struct Vit {
    /// Its architecture.
    pub shape: Shape,
    /// The trainable weights. The layer scales after attention and MLP stay 1, because they could
    /// only rescale the preceding layers.
    pub weights: Params,
}

impl Vit {
    /// A new transformer on `device`.
    pub fn new(shape: Shape, rng: &mut Rng, device: &Device) -> Self {
        Self {
            shape,
            weights: Params::new(start(&shape, rng), device),
        }
    }

    /// Features of the patches of `batch` images: `[batch * tokens, 3 * patch * patch]` to
    /// `[batch * tokens, width]`.
    ///
    /// # Panics
    /// The shape of `patches` is different.
    pub fn forward(&self, patches: Tensor<2>, batch: usize) -> Tensor<2> {
        let Shape {
            width,
            depth,
            heads,
            ..
        } = self.shape;
        let n = self.shape.tokens();
        let p = &self.weights;
        let map = |kernel: Kernel, x: Tensor<2>, name: &str| {
            let part = |what: &str| p.get(&format!("{name}.{what}"));
            run(kernel, x, part("weight"), part("bias"))
        };
        let norm = Kernel::LayerNorm { eps: EPS };
        let x = map(Kernel::Linear, patches, "patch_embed.proj").reshape([batch, n, width]);
        let class = p.get("cls_token").reshape([1, 1, width]);
        let x = Tensor::cat(vec![class.expand([batch, 1, width]), x], 1);
        let positions = p.get("pos_embed").reshape([1, n + 1, width]);
        let mut x = (x + positions).reshape([batch * (n + 1), width]);
        for i in 0..depth {
            let name = |part: &str| format!("blocks.{i}.{part}");
            let weight = p.get(&name("attn.qkv.weight"));
            let bias = p.get(&name("attn.qkv.bias"));
            let y = map(norm, x.clone(), &name("norm1"));
            let project = |part: usize| {
                let weight = weight.clone().narrow(0, part * width, width);
                let bias = bias.clone().narrow(1, part * width, width);
                run(Kernel::Linear, y.clone(), weight, bias)
            };
            let attention = Kernel::Attention { batch, heads };
            let seen = run(attention, project(0), project(1), project(2));
            x = x + map(Kernel::Linear, seen, &name("attn.proj"));
            let y = map(norm, x.clone(), &name("norm2"));
            let y = map(Kernel::LinearGelu, y, &name("mlp.fc1"));
            x = x + map(Kernel::Linear, y, &name("mlp.fc2"));
        }
        let x = x.reshape([batch, n + 1, width]).narrow(1, 1, n);
        map(norm, x.reshape([batch * n, width]), "norm")
    }

    /// All tensors of the weight file, in their original shapes.
    pub fn tensors(&self) -> BTreeMap<String, HostTensor> {
        let mut all = self.weights.to_host();
        for block in 0..self.shape.depth {
            for scale in ["ls1", "ls2"] {
                let ones = HostTensor::from_fn([self.shape.width], |_| 1.0);
                all.insert(format!("blocks.{block}.{scale}.gamma"), ones);
            }
        }
        all
    }
}

/// The patches of normalized images, each `[3, side, side]`, as rows.
pub fn patches(shape: &Shape, images: &[&[f32]], device: &Device) -> Tensor<2> {
    let Shape { patch, grid, .. } = *shape;
    let (side, values) = (patch * grid, shape.patch_values());
    let mut data = Vec::with_capacity(images.len() * shape.tokens() * values);
    for image in images {
        for token in 0..shape.tokens() {
            let (top, left) = (token / grid * patch, token % grid * patch);
            for c in 0..3 {
                for y in 0..patch {
                    let row = (c * side + top + y) * side + left;
                    data.extend_from_slice(&image[row..row + patch]);
                }
            }
        }
    }
    device_matrix(data, images.len() * shape.tokens(), values, device)
}

/// Initial weights.
fn start(shape: &Shape, rng: &mut Rng) -> BTreeMap<String, HostTensor> {
    let (d, n) = (shape.width, shape.tokens());
    let mut all = BTreeMap::new();
    let mut add = |name: String, dims: &[usize], f: &mut dyn FnMut(usize) -> f32| {
        all.insert(name, HostTensor::from_fn(dims.to_vec(), f));
    };
    let waves = cosines(shape);
    add(
        "patch_embed.proj.weight".into(),
        &[d, 3, shape.patch, shape.patch],
        &mut |i| waves[i],
    );
    add("patch_embed.proj.bias".into(), &[d], &mut |_| 0.0);
    add("cls_token".into(), &[1, 1, d], &mut |_| 0.02 * rng.normal());
    add("pos_embed".into(), &[1, n + 1, d], &mut |i| {
        position(shape, i / d, i % d)
    });
    let mut norms = vec!["norm".to_string()];
    for block in 0..shape.depth {
        let name = |part: &str| format!("blocks.{block}.{part}");
        norms.extend([name("norm1"), name("norm2")]);
        // Residual branches are scaled down with the number of blocks.
        let calm = 1.0 / (2.0 * shape.depth as f32).sqrt();
        for (part, out, inputs, factor) in [
            ("attn.qkv", 3 * d, d, 1.0),
            ("attn.proj", d, d, calm),
            ("mlp.fc1", 4 * d, d, 1.0),
            ("mlp.fc2", d, 4 * d, calm),
        ] {
            let deviation = factor / (inputs as f32).sqrt();
            add(name(&format!("{part}.weight")), &[out, inputs], &mut |_| {
                deviation * rng.normal()
            });
            add(name(&format!("{part}.bias")), &[out], &mut |_| 0.0);
        }
    }
    for norm in norms {
        add(format!("{norm}.weight"), &[d], &mut |_| 1.0);
        add(format!("{norm}.bias"), &[d], &mut |_| 0.0);
    }
    all
}

/// The patch embedding is initialized with cosines over the patch, of brightness and two color
/// differences, low frequencies first; from random filters, training takes long to find them.
fn cosines(shape: &Shape) -> Vec<f32> {
    const COLORS: [[f32; 3]; 3] = [
        [0.577, 0.577, 0.577],
        [0.707, 0.0, -0.707],
        [0.408, -0.816, 0.408],
    ];
    let side = shape.patch;
    let mut waves: Vec<(usize, usize, usize)> = (0..3)
        .flat_map(|c| (0..side).flat_map(move |v| (0..side).map(move |u| (c, v, u))))
        .collect();
    // Colors need less resolution than brightness.
    waves.sort_by_key(|&(c, v, u)| ((u + v + 1) * if c == 0 { 2 } else { 5 }, c, v, u));
    let mut out = Vec::with_capacity(shape.width * shape.patch_values());
    for &(c, v, u) in waves.iter().take(shape.width) {
        let wave = |k: usize, i: usize| {
            let angle = std::f64::consts::PI * k as f64 * (i as f64 + 0.5) / side as f64;
            angle.cos() as f32
        };
        // Images have little energy at high frequencies.
        let scale =
            0.6 * (1.0 + (u + v) as f32) / (side * side) as f32 * if c == 0 { 1.0 } else { 2.0 };
        for color in COLORS[c] {
            for y in 0..side {
                out.extend((0..side).map(|x| scale * color * wave(v, y) * wave(u, x)));
            }
        }
    }
    out
}

/// Sinusoidal position embedding over rows and columns; zero for the class token.
fn position(shape: &Shape, token: usize, channel: usize) -> f32 {
    let Some(token) = token.checked_sub(1) else {
        return 0.0;
    };
    let (row, column) = (token / shape.grid, token % shape.grid);
    let along = if channel.is_multiple_of(2) {
        row
    } else {
        column
    } as f64
        / shape.grid as f64;
    let kind = channel / 2;
    let frequencies = shape.width / 4;
    let frequency = 0.25 * 24f64.powf((kind / 2) as f64 / frequencies as f64);
    let angle = std::f64::consts::TAU * frequency * along;
    0.5 * if kind.is_multiple_of(2) {
        angle.sin()
    } else {
        angle.cos()
    } as f32
}
