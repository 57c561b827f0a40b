//! The two graphs of the tiled upsampler.

use loftup_spec::{Config, EPS, FINAL_EPS, HALO, frequencies, io};

use super::{Affine, Layer, Linear, LoftUp};
use crate::{Dim, Graph, Tensor, Value};

impl LoftUp {
    /// Keys and values of every layer from the backbone's features: inputs [`io::FEATURES`]
    /// `[1, n, d]` and [`io::GRID`] `[2, n]`, outputs [`io::key`] and [`io::value`] for each layer.
    pub fn keys_graph(&self) -> Vec<u8> {
        let config = &self.config;
        let mut g = Graph::new("loftup-keys");
        let features = g.input(
            io::FEATURES,
            &[1.into(), "tokens".into(), config.dim.into()],
        );
        let grid = g.input(io::GRID, &[2.into(), "tokens".into()]);
        let tokens = g.reshape(&features, &[-1, config.dim as i64]);
        let pairs = self.keys(&mut g, &tokens, &grid);
        let (heads, width) = (
            Dim::from(config.heads),
            Dim::from(config.padded_head_width()),
        );
        for (i, (key, value)) in pairs.iter().enumerate() {
            g.output(
                key,
                &io::key(i),
                &[heads.clone(), width.clone(), "tokens".into()],
            );
            g.output(
                value,
                &io::value(i),
                &[heads.clone(), "tokens".into(), width.clone()],
            );
        }
        g.finish()
    }

    /// Features of `t` tiles: inputs [`io::GUIDANCE`], [`io::COORDS`], [`io::MASK`] and the outputs
    /// of the keys graph, output [`io::UPSAMPLED`].
    pub fn queries_graph(&self) -> Vec<u8> {
        let config = &self.config;
        let mut g = Graph::new("loftup-queries");
        let tile = |channels: usize| {
            [
                Dim::from("tiles"),
                channels.into(),
                "rows_with_halo".into(),
                "cols_with_halo".into(),
            ]
        };
        let guidance = g.input(io::GUIDANCE, &tile(3));
        let coords = g.input(io::COORDS, &tile(2));
        let mask = g.input(io::MASK, &tile(1));
        let (heads, width) = (
            Dim::from(config.heads),
            Dim::from(config.padded_head_width()),
        );
        let pairs: Vec<_> = (0..config.layers)
            .map(|i| {
                let key = g.input(
                    &io::key(i),
                    &[heads.clone(), width.clone(), "tokens".into()],
                );
                let value = g.input(
                    &io::value(i),
                    &[heads.clone(), "tokens".into(), width.clone()],
                );
                (key, value)
            })
            .collect();

        let x = g.scope("fourier", |g| self.fourier(g, &guidance, &coords));
        let x = g.scope("conv1", |g| {
            // After the normalization, as in training: pixels outside the image are zero.
            let x = g.mul(&x, &mask);
            let x = g.conv(&x, &self.conv1.weight, &self.conv1.bias, 1);
            g.op("Relu", &[&x], &[])
        });
        let x = g.scope("conv2", |g| {
            let inner = HALO as i64 / 2;
            let mask = g.slice(&mask, &[2, 3], &[inner, inner], &[-inner, -inner]);
            let x = g.mul(&x, &mask);
            let x = g.conv(&x, &self.conv2.weight, &self.conv2.bias, 1);
            g.op("Relu", &[&x], &[])
        });
        let x = self.per_pixel(&mut g, &x, &pairs);
        g.output(&x, io::UPSAMPLED, &["pixels".into(), config.dim.into()]);
        g.finish()
    }

    /// Keys `[heads, width, n]` and values `[heads, n, width]` of each layer, from the features
    /// `[n, d]` and the grid `[2, n]` of their coordinates.
    pub(super) fn keys(&self, g: &mut Graph, tokens: &Value, grid: &Value) -> Vec<(Value, Value)> {
        let config = &self.config;
        let normalized = g.scope("tokens", |g| {
            let x = g.layer_norm(
                tokens,
                &self.channel_norm.weight,
                &self.channel_norm.bias,
                EPS,
            );
            let waves = waves(
                g,
                grid,
                2,
                &frequencies(config.grid_frequencies),
                &self.grid_phases,
                0,
            );
            let waves = g.concat(&[&waves.0, &waves.1], 0);
            let waves = g.transpose(&waves, &[1, 0]);
            let x = g.concat(&[&x, &waves], 1);
            g.normalize(&x, -1, EPS)
        });
        let mut pairs = Vec::new();
        for (i, layer) in self.layers.iter().enumerate() {
            pairs.push(g.scope(format!("layers.{i}"), |g| {
                let key = split_heads(g, "key", &normalized, &layer.key, config, &[1, 2, 0]);
                let value = split_heads(g, "value", &normalized, &layer.value, config, &[1, 0, 2]);
                (key, value)
            }));
        }
        pairs
    }

    /// Fourier features of coordinates and scaled colors, normalized: `[t, channels, H, W]`.
    pub(super) fn fourier(&self, g: &mut Graph, guidance: &Value, coords: &Value) -> Value {
        let config = &self.config;
        let channels = g.concat(&[coords, guidance], 1);
        let waves = waves(
            g,
            &channels,
            5,
            &frequencies(config.frequencies),
            &self.phases,
            1,
        );
        let x = g.concat(&[&waves.0, &waves.1, guidance], 1);
        let x = g.normalize(&x, 1, EPS);
        let column = |t: &Tensor| t.clone().reshaped([config.guidance_channels(), 1, 1]);
        let Affine { weight, bias } = &self.guidance_norm;
        g.affine(&x, &column(weight), &column(bias))
    }

    /// All layers that process each pixel separately: `[t, e, H, W]` -> `[t * H * W, d]`.
    pub(super) fn per_pixel(&self, g: &mut Graph, x: &Value, keys: &[(Value, Value)]) -> Value {
        let x = g.transpose(x, &[0, 2, 3, 1]);
        let mut x = g.reshape(&x, &[-1, self.config.width() as i64]);
        for (i, (layer, (key, value))) in self.layers.iter().zip(keys).enumerate() {
            x = g.scope(format!("layers.{i}"), |g| {
                self.layer(g, &x, layer, key, value)
            });
        }
        g.scope("final", |g| {
            let x = g.normalize(&x, -1, EPS);
            let x = linear(g, &x, &self.last);
            g.layer_norm(&x, &self.last_norm.weight, &self.last_norm.bias, FINAL_EPS)
        })
    }

    fn layer(&self, g: &mut Graph, x: &Value, layer: &Layer, key: &Value, value: &Value) -> Value {
        let config = &self.config;
        let x = g.scope("attention", |g| {
            let q = g.normalize(x, -1, EPS);
            let q = split_heads(g, "query", &q, &layer.query, config, &[1, 0, 2]);
            let scores = g.matmul(&q, key);
            let scores = g.softmax(&scores);
            let y = g.matmul(&scores, value);
            let y = g.transpose(&y, &[1, 0, 2]);
            let y = g.reshape(
                &y,
                &[-1, (config.heads * config.padded_head_width()) as i64],
            );
            let y = linear(g, &y, &layer.out);
            g.add(x, &y)
        });
        g.scope("mlp", |g| {
            let y = g.normalize(&x, -1, EPS);
            let y = linear(g, &y, &layer.mlp_in);
            let y = g.gelu(&y);
            let y = linear(g, &y, &layer.mlp_out);
            g.add(&x, &y)
        })
    }
}

fn linear(g: &mut Graph, x: &Value, linear: &Linear) -> Value {
    g.linear(x, &linear.weight, Some(&linear.bias))
}

/// Projects `[n, e]` and splits it into heads, with axes (n, heads, width) in the given order.
fn split_heads(
    g: &mut Graph,
    name: &str,
    x: &Value,
    projection: &Linear,
    config: &Config,
    order: &[i64],
) -> Value {
    g.scope(name, |g| {
        let x = linear(g, x, projection);
        let shape = [-1, config.heads as i64, config.padded_head_width() as i64];
        let x = g.reshape(&x, &shape);
        g.transpose(&x, order)
    })
}

/// Sines and cosines of `channels` values at every frequency, frequency-major along `axis`.
/// `phases` is `[2, frequencies * channels]`. Product and sum are separate, as in training, since
/// rounding matters at frequencies of e^10.
fn waves(
    g: &mut Graph,
    x: &Value,
    channels: usize,
    frequencies: &[f32],
    phases: &Tensor,
    axis: i64,
) -> (Value, Value) {
    let n = channels * frequencies.len();
    // Broadcast over the axes after the channels: one axis of tokens, or rows and columns.
    let shape = if axis == 0 { vec![n, 1] } else { vec![n, 1, 1] };
    let frequency = Tensor::from_fn(shape.clone(), |i| frequencies[i / channels]);
    let repeated = g.concat(&vec![x; frequencies.len()], axis);
    let frequency = g.constant("frequency", &frequency);
    let turned = g.mul(&repeated, &frequency);
    let mut wave = |op: &str, row: usize| {
        let phase = g.constant("phase", &phases.rows(row, 1).reshaped(shape.clone()));
        let angle = g.add(&turned, &phase);
        g.op(op, &[&angle], &[])
    };
    let sine = wave("Sin", 0);
    (sine, wave("Cos", 1))
}
