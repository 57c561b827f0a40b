//! A vision transformer written as in the papers, one scalar at a time and in 64 bits, without
//! folding, padding or fusing. It supports only DINOv2's names, and learned positions only on the
//! training grid.

use loftup_import::vit::Activation;
use loftup_onnx::Tensor;

use crate::support::Tensors;

/// Tokens x channels.
type Matrix = Vec<Vec<f64>>;

pub struct Slow<'a> {
    pub tensors: &'a Tensors,
    pub depth: usize,
    pub heads: usize,
    pub eps: f64,
    pub activation: Activation,
    /// MaskCLIP's last block, and the visual projection.
    pub clip: bool,
    /// Periods of rotary positions, which replace learned ones.
    pub periods: Option<Vec<f64>>,
}

impl Slow<'_> {
    /// The feature map `[1, dim, rows, columns]`.
    pub fn features(&self, image: &Tensor) -> Tensor {
        let (patches, rows, columns) = self.patches(image);
        let width = patches[0].len();
        // Rotary models have a class token, and add nothing to it.
        let positions = match self.periods {
            Some(_) => vec![0.0; (1 + patches.len()) * width],
            None => self.get("pos_embed"),
        };
        let extra = positions.len() / width - patches.len();
        let place = |i: usize, token: &mut Vec<f64>| {
            token
                .iter_mut()
                .zip(&positions[i * width..])
                .for_each(|(x, p)| *x += p);
        };
        let mut x = Matrix::new();
        if extra == 1 {
            x.push(self.get("cls_token"));
            place(0, &mut x[0]);
        }
        if self.tensors.contains_key("register_tokens") {
            x.extend(
                self.get("register_tokens")
                    .chunks_exact(width)
                    .map(<[f64]>::to_vec),
            );
        }
        let prefix = x.len();
        for (i, mut token) in patches.into_iter().enumerate() {
            place(extra + i, &mut token);
            x.push(token);
        }
        if self.clip {
            x = self.norm(&x, "norm_pre");
        }
        let angles = self.angles(prefix, rows, columns);
        for i in 0..self.depth {
            let normed = self.norm(&x, &format!("blocks.{i}.norm1"));
            if self.clip && i + 1 == self.depth {
                let qkv = self.linear(&normed, &format!("blocks.{i}.attn.qkv"));
                let v: Matrix = qkv.iter().map(|t| t[2 * width..].to_vec()).collect();
                x = self.linear(&v, &format!("blocks.{i}.attn.proj"));
                continue;
            }
            let y = self.attention(&normed, i, &angles);
            x = self.residual(x, y, &format!("blocks.{i}.ls1.gamma"));
            let y = self.norm(&x, &format!("blocks.{i}.norm2"));
            let y = self.mlp(&y, i);
            x = self.residual(x, y, &format!("blocks.{i}.ls2.gamma"));
        }
        let mut x = self.norm(&x[prefix..].to_vec(), "norm");
        if self.clip {
            x = self.linear(&x, "projection");
        }
        let n = rows * columns;
        let dim = x[0].len();
        Tensor::from_fn([1, dim, rows, columns], |i| x[i % n][i / n] as f32)
    }

    fn get(&self, name: &str) -> Vec<f64> {
        self.tensors[name]
            .data()
            .iter()
            .map(|&x| x.into())
            .collect()
    }

    fn patches(&self, image: &Tensor) -> (Matrix, usize, usize) {
        let [1, 3, height, width] = image.shape()[..] else {
            panic!()
        };
        let [out, 3, p, _] = self.tensors["patch_embed.proj.weight"].shape()[..] else {
            panic!()
        };
        let (weight, bias) = (
            self.get("patch_embed.proj.weight"),
            self.get("patch_embed.proj.bias"),
        );
        let (rows, columns) = (height / p, width / p);
        let patch = |r: usize, c: usize, o: usize| {
            let mut sum = bias[o];
            for k in 0..3 * p * p {
                let (channel, y, x) = (k / (p * p), k / p % p, k % p);
                let pixel = image.data()[(channel * height + r * p + y) * width + c * p + x];
                sum += weight[o * 3 * p * p + k] * f64::from(pixel);
            }
            sum
        };
        let token = |i: usize| {
            (0..out)
                .map(|o| patch(i / columns, i % columns, o))
                .collect()
        };
        ((0..rows * columns).map(token).collect(), rows, columns)
    }

    fn linear(&self, x: &Matrix, module: &str) -> Matrix {
        let weight = self.get(&format!("{module}.weight"));
        let bias = self.tensors.get(&format!("{module}.bias"));
        let inputs = x[0].len();
        let row = |token: &Vec<f64>, o: usize| {
            let products = token.iter().zip(&weight[o * inputs..]).map(|(x, w)| x * w);
            products.sum::<f64>() + bias.map_or(0.0, |b| b.data()[o].into())
        };
        x.iter()
            .map(|t| (0..weight.len() / inputs).map(|o| row(t, o)).collect())
            .collect()
    }

    fn norm(&self, x: &Matrix, module: &str) -> Matrix {
        let weight = self.get(&format!("{module}.weight"));
        let bias = self.get(&format!("{module}.bias"));
        x.iter()
            .map(|t| {
                let n = t.len() as f64;
                let mean = t.iter().sum::<f64>() / n;
                let variance = t.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
                let scale = 1.0 / (variance + self.eps).sqrt();
                (0..t.len())
                    .map(|i| (t[i] - mean) * scale * weight[i] + bias[i])
                    .collect()
            })
            .collect()
    }

    /// By how much each token's queries and keys are rotated: one angle for each pair of channels of
    /// a head, and none for tokens that are not rotated.
    fn angles(&self, prefix: usize, rows: usize, columns: usize) -> Matrix {
        let mut angles = vec![Vec::new(); prefix + rows * columns];
        for (i, angles) in angles[prefix..].iter_mut().enumerate() {
            for (at, n) in [(i / columns, rows), (i % columns, columns)] {
                let coordinate = 2.0 * (at as f64 + 0.5) / n as f64 - 1.0;
                for period in self.periods.iter().flatten() {
                    angles.push(2.0 * std::f64::consts::PI * coordinate / period);
                }
            }
        }
        angles
    }

    fn attention(&self, x: &Matrix, block: usize, angles: &Matrix) -> Matrix {
        let width = x[0].len();
        let channels = width / self.heads;
        let mut qkv = self.linear(x, &format!("blocks.{block}.attn.qkv"));
        for (token, angles) in qkv.iter_mut().zip(angles) {
            for head in token[..2 * width].chunks_exact_mut(channels) {
                for (c, angle) in angles.iter().enumerate() {
                    let (a, b) = (head[c], head[c + channels / 2]);
                    head[c] = a * angle.cos() - b * angle.sin();
                    head[c + channels / 2] = b * angle.cos() + a * angle.sin();
                }
            }
        }
        let mut y = vec![vec![0.0; width]; x.len()];
        for head in 0..self.heads {
            let at = |part: usize, c: usize| part * width + head * channels + c;
            for (query, out) in qkv.iter().zip(&mut y) {
                let score = |key: &Vec<f64>| -> f64 {
                    (0..channels).map(|c| query[at(0, c)] * key[at(1, c)]).sum()
                };
                let scores = qkv
                    .iter()
                    .map(|key| (score(key) / (channels as f64).sqrt()).exp());
                let scores: Vec<f64> = scores.collect();
                let total: f64 = scores.iter().sum();
                for (token, score) in qkv.iter().zip(&scores) {
                    for c in 0..channels {
                        out[head * channels + c] += score / total * token[at(2, c)];
                    }
                }
            }
        }
        self.linear(&y, &format!("blocks.{block}.attn.proj"))
    }

    fn mlp(&self, x: &Matrix, block: usize) -> Matrix {
        if self.activation == Activation::SwiGlu {
            let mut y = self.linear(x, &format!("blocks.{block}.mlp.w12"));
            for token in &mut y {
                let values = token.split_off(token.len() / 2);
                token
                    .iter_mut()
                    .zip(values)
                    .for_each(|(gate, value)| *gate *= value / (1.0 + (-*gate).exp()));
            }
            return self.linear(&y, &format!("blocks.{block}.mlp.w3"));
        }
        let mut y = self.linear(x, &format!("blocks.{block}.mlp.fc1"));
        y.iter_mut()
            .flatten()
            .for_each(|x| *x = activate(*x, self.activation));
        self.linear(&y, &format!("blocks.{block}.mlp.fc2"))
    }

    fn residual(&self, mut x: Matrix, y: Matrix, scale: &str) -> Matrix {
        let scale = self.tensors.get(scale).map(Tensor::data);
        for (x, y) in x.iter_mut().zip(y) {
            for (c, y) in y.into_iter().enumerate() {
                x[c] += y * scale.map_or(1.0, |s| s[c].into());
            }
        }
        x
    }
}

pub fn activate(x: f64, activation: Activation) -> f64 {
    match activation {
        Activation::Gelu => x / 2.0 * (1.0 + erf(x / 2f64.sqrt())),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
            x / 2.0 * (1.0 + inner.tanh())
        }
        Activation::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
        Activation::SwiGlu => unreachable!("SwiGLU has two inputs"),
    }
}

/// By its Taylor series, which is accurate enough in 64 bits for these arguments.
fn erf(x: f64) -> f64 {
    if x.abs() > 4.0 {
        return x.signum();
    }
    let mut term = x;
    let mut sum = x;
    for n in 1..100 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}
