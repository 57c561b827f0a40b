use super::*;
use crate::{AffineWeights, ConvWeights, LayerWeights, LinearWeights, reference};

/// Random weights with odd dimensions.
fn weights(dim: usize, width: usize, heads: usize, head_width: usize) -> QueriesWeights {
    let mut seed = 100;
    let mut noise = |n: usize, scale: f32| -> Vec<f32> {
        seed += 1;
        reference::noise(seed, n)
            .iter()
            .map(|x| x * scale)
            .collect()
    };
    // The uniform distribution on +-sqrt(3/n) has variance 1/n, which keeps activations near 1.
    let limit = |inputs: usize| (3.0 / inputs as f32).sqrt();
    let frequencies: Vec<f32> = (0..4).map(|i| (i as f32 * 2.0 - 2.0).exp()).collect();
    let channels = 10 * frequencies.len() + 3;
    let hidden = dim + 1;
    let mut linear = |inputs: usize, outputs: usize| LinearWeights {
        weight: noise(inputs * outputs, limit(inputs)),
        bias: noise(outputs, 0.1),
    };
    let layers = (0..2)
        .map(|_| LayerWeights {
            query: linear(width, heads * head_width),
            out: linear(heads * head_width, width),
            mlp_in: linear(width, hidden),
            mlp_out: linear(hidden, width),
        })
        .collect();
    let last = linear(width, dim);
    let one = |x: Vec<f32>| x.iter().map(|x| 1.0 + x).collect();
    QueriesWeights {
        heads,
        sine_phases: noise(5 * frequencies.len(), 1.7),
        cosine_phases: noise(5 * frequencies.len(), 1.7),
        guidance_norm: AffineWeights {
            weight: one(noise(channels, 0.2)),
            bias: noise(channels, 0.1),
        },
        conv1: ConvWeights {
            weight: noise(width * channels * 9, limit(9 * channels)),
            bias: noise(width, 0.1),
        },
        conv2: ConvWeights {
            weight: noise(width * width * 9, limit(9 * width)),
            bias: noise(width, 0.1),
        },
        layers,
        last,
        last_norm: AffineWeights {
            weight: one(noise(dim, 0.2)),
            bias: noise(dim, 0.1),
        },
        frequencies,
        eps: 1e-5,
        last_eps: 1e-6,
    }
}

/// The inputs for one tile: guidance, coordinates, mask, and the keys and values of len layer.
struct Tile {
    height: usize,
    width: usize,
    guidance: Vec<f32>,
    coords: Vec<f32>,
    mask: Vec<f32>,
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
}

impl Tile {
    /// With `levels` levels per color and regular coordinates, or noise if `levels` is 0.
    fn new(height: usize, width: usize, levels: usize, len: usize) -> Self {
        let (rows, cols) = (height + 2 * HALO, width + 2 * HALO);
        let area = rows * cols;
        let mut guidance = reference::noise(1, 3 * area);
        let mut coords = reference::noise(2, 2 * area);
        if levels > 0 {
            let n = levels as f32 / 2.0;
            guidance.iter_mut().for_each(|x| *x = (*x * n).floor() / n);
            for (i, x) in coords.iter_mut().enumerate() {
                *x = [i % area / cols, i % cols][i / area] as f32 / 50.0 - 0.5;
            }
        }
        // Outside the image, half inside, and inside.
        let mask = reference::noise(3, area).into_iter().map(|x| match x {
            -1.0..-0.8 => 0.0,
            -0.8..-0.7 => 0.5,
            _ => 1.0,
        });
        Self {
            height,
            width,
            guidance,
            coords,
            mask: mask.collect(),
            keys: (0..2).map(|i| reference::noise(4 + i, len)).collect(),
            values: (0..2).map(|i| reference::noise(6 + i, len)).collect(),
        }
    }

    /// A context with its keys and values.
    fn context(&self, queries: &Arc<Queries>, tokens: usize) -> Context {
        let mut context = queries.context(1, self.height, self.width, tokens);
        for layer in 0..2 {
            context.set_keys(layer, &self.keys[layer]).expect("keys");
            let values = context.set_values(layer, &self.values[layer]);
            values.expect("values");
        }
        context
    }

    /// A run, for an output of `len` values.
    fn run(&self, context: &mut Context, len: usize) -> Vec<f32> {
        let mut out = vec![f32::NAN; len];
        let run = context.run(&self.guidance, &self.coords, &self.mask, &mut out);
        run.expect("a run");
        out
    }

    /// The output from the definition, in 64 bit.
    fn expected(&self, w: &QueriesWeights) -> Vec<f64> {
        let (rows, cols) = (self.height + 2 * HALO, self.width + 2 * HALO);
        let area = rows * cols;
        let mut x = Vec::new();
        for i in 0..area {
            let source = |s: usize| match s {
                0 | 1 => self.coords[s * area + i],
                _ => self.guidance[(s - 2) * area + i],
            };
            // The angle is rounded as in the graph.
            let angle =
                |k: usize, phase: f32| f64::from(source(k % 5) * w.frequencies[k / 5] + phase);
            let waves = w.sine_phases.len();
            let mut features: Vec<f64> = (0..waves)
                .map(|k| angle(k, w.sine_phases[k]).sin())
                .collect();
            features.extend((0..waves).map(|k| angle(k, w.cosine_phases[k]).cos()));
            features.extend((2..5).map(|s| f64::from(source(s))));
            let normalized = reference::normalize(&features, f64::from(w.eps));
            let affine = w.guidance_norm.weight.iter().zip(&w.guidance_norm.bias);
            x.extend(
                normalized.iter().zip(affine).map(|(x, (g, b))| {
                    (x * f64::from(*g) + f64::from(*b)) * f64::from(self.mask[i])
                }),
            );
        }
        let mut x = reference::convolution(&x, (rows, cols), &w.conv1.weight, &w.conv1.bias);
        let e = w.conv1.bias.len();
        for (i, pixel) in x.chunks_exact_mut(e).enumerate() {
            let (y, x) = (i / (cols - 2) + 1, i % (cols - 2) + 1);
            let m = f64::from(self.mask[y * cols + x]);
            pixel.iter_mut().for_each(|x| *x *= m);
        }
        let x = reference::convolution(&x, (rows - 2, cols - 2), &w.conv2.weight, &w.conv2.bias);
        x.chunks_exact(e)
            .flat_map(|x| self.token(w, x.to_vec()))
            .collect()
    }

    fn token(&self, w: &QueriesWeights, mut x: Vec<f64>) -> Vec<f64> {
        let eps = f64::from(w.eps);
        for (i, layer) in w.layers.iter().enumerate() {
            let q = reference::normalize(&x, eps);
            let q = reference::linear(&q, &layer.query.weight, &layer.query.bias);
            let width = q.len() / w.heads;
            let tokens = self.keys[i].len() / q.len();
            let mut attended = Vec::new();
            for h in 0..w.heads {
                let key =
                    |j: usize, t: usize| f64::from(self.keys[i][(h * width + j) * tokens + t]);
                let value =
                    |j: usize, t: usize| f64::from(self.values[i][(h * tokens + t) * width + j]);
                let scores: Vec<f64> = (0..tokens)
                    .map(|t| (0..width).map(|j| q[h * width + j] * key(j, t)).sum())
                    .collect();
                let scores = reference::softmax(&scores);
                attended.extend(
                    (0..width).map(|j| (0..tokens).map(|t| scores[t] * value(j, t)).sum::<f64>()),
                );
            }
            let y = reference::linear(&attended, &layer.out.weight, &layer.out.bias);
            x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
            let y = reference::normalize(&x, eps);
            let mut y = reference::linear(&y, &layer.mlp_in.weight, &layer.mlp_in.bias);
            for y in &mut y {
                *y *= 0.5 * (1.0 + reference::erf(*y / 2f64.sqrt()));
            }
            let y = reference::linear(&y, &layer.mlp_out.weight, &layer.mlp_out.bias);
            x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
        }
        let x = reference::normalize(&x, eps);
        let x = reference::linear(&x, &w.last.weight, &w.last.bias);
        let x = reference::normalize(&x, f64::from(w.last_eps));
        let affine = w.last_norm.weight.iter().zip(&w.last_norm.bias);
        x.iter()
            .zip(affine)
            .map(|(x, (g, b))| x * f64::from(*g) + f64::from(*b))
            .collect()
    }
}

#[test]
fn queries_match_the_definition_with_and_without_lookup_tables() {
    let mut worst: f64 = 0.0;
    for isa in SupportedIsa::all().map(SupportedIsa::isa) {
        for (dim, width, heads, head_width, height, columns, tokens) in [
            (7, 12, 2, 5, 1, 1, 1),
            (48, 68, 4, 24, 7, 3, 33),
            (13, 52, 1, 8, 6, 21, 9),
        ] {
            let w = weights(dim, width, heads, head_width);
            let queries = Arc::new(Queries::new(isa, &w).expect("consistent weights"));
            for levels in [0, 5, 40] {
                let tile = Tile::new(height, columns, levels, heads * head_width * tokens);
                let exact = tile.expected(&w);
                let mut context = tile.context(&queries, tokens);
                // The second run uses the caches of the first.
                for _ in 0..2 {
                    let out = tile.run(&mut context, exact.len());
                    for (found, exact) in out.iter().zip(&exact) {
                        let error = (f64::from(*found) - exact).abs();
                        // Layer-normalized outputs near 1 after about twenty matrix products in 32 bit,
                        // two of them Winograd convolutions.
                        assert!(
                            error < 5e-5,
                            "{isa}, width {width}, {levels} levels: {error:.1e}"
                        );
                        worst = worst.max(error);
                    }
                }
            }
        }
    }
    println!("worst error {worst:.1e}");
}

/// The root mean square and the maximum of the error, in standard deviations of the output.
fn relative_error(found: &[f32], exact: &[f64]) -> (f64, f64) {
    let n = exact.len() as f64;
    let mean = exact.iter().sum::<f64>() / n;
    let deviation = (exact.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt();
    let errors = || {
        found
            .iter()
            .zip(exact)
            .map(|(a, b)| (f64::from(*a) - b).abs())
    };
    let rms = (errors().map(|e| e * e).sum::<f64>() / n).sqrt();
    (rms / deviation, errors().fold(0.0, f64::max) / deviation)
}

#[test]
fn narrow_products_are_near_the_definition() {
    // About ten products of rounded operands follow each other. Each adds the rounding error of its operands
    // to what is near 1: 2^-9 for bfloat16, less for 16-bit integers, and 1/127 of the largest value, which is two to four times the
    // root mean square, for 8-bit integers. Errors add up as independent ones do, and the normalizations in
    // between magnify those of tokens that vary little.
    for (arithmetic, limit) in [
        (Arithmetic::Int16, 0.01),
        (Arithmetic::Fp16, 0.01),
        (Arithmetic::Bf16, 0.02),
        (Arithmetic::Int8, 0.06),
    ] {
        let isas = Isa::ALL.into_iter();
        let isas: Vec<Isa> = isas
            .filter(|isa| arithmetic.is_available_in(*isa))
            .collect();
        if isas.is_empty() {
            println!("skipped: {arithmetic} needs {}", arithmetic.needs());
        }
        for (dim, width, heads, head_width, height, columns, tokens) in [
            (7, 12, 2, 5, 1, 1, 1),
            (48, 68, 4, 24, 7, 3, 33),
            (13, 52, 1, 8, 6, 21, 9),
            (64, 84, 4, 21, 20, 12, 256),
            // Too many tokens for sums in 8 bits.
            (7, 12, 1, 5, 1, 2, MAX_INT8_ROWS + 1),
        ] {
            let w = weights(dim, width, heads, head_width);
            for levels in [0, 5, 40] {
                let tile = Tile::new(height, columns, levels, heads * head_width * tokens);
                let exact = tile.expected(&w);
                for isa in &isas {
                    let queries = Queries::with_arithmetic(*isa, arithmetic, &w);
                    let queries = Arc::new(queries.expect("consistent weights"));
                    let mut context = tile.context(&queries, tokens);
                    for _ in 0..2 {
                        let out = tile.run(&mut context, exact.len());
                        let (rms, worst) = relative_error(&out, &exact);
                        let name = format!("{isa} {arithmetic}, width {width}");
                        println!("{name}, {levels} levels: {rms:.4}, {worst:.3}");
                        assert!(rms < limit, "{name}: {rms:.4}");
                    }
                }
            }
        }
    }
}

#[test]
fn narrow_products_need_their_instructions() {
    let w = weights(7, 12, 2, 5);
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        for arithmetic in Arithmetic::ALL {
            let available = match (isa, arithmetic) {
                (_, Arithmetic::Fp32) => true,
                (Isa::Avx2, _) => arithmetic == Arithmetic::Int16,
                (Isa::AvxVnni, _) => matches!(arithmetic, Arithmetic::Int16 | Arithmetic::Int8),
                // Depends on extensions.
                (Isa::Avx512, Arithmetic::Int16 | Arithmetic::Int8 | Arithmetic::Bf16) => {
                    arithmetic.is_available_in(isa)
                }
                _ => cfg!(target_arch = "aarch64") && arithmetic.is_available_in(isa),
            };
            assert_eq!(
                arithmetic.is_available_in(isa),
                available,
                "{isa} {arithmetic}"
            );
            match Queries::with_arithmetic(isa, arithmetic, &w) {
                Ok(queries) => {
                    assert!(available, "{isa} {arithmetic}");
                    assert_eq!((queries.isa(), queries.arithmetic()), (isa, arithmetic));
                }
                Err(e) => {
                    assert!(!available, "{isa} {arithmetic}: {e}");
                    let e = e.to_string();
                    assert!(e.contains(arithmetic.needs()), "{isa} {arithmetic}: {e}");
                    assert_eq!(e.lines().count(), 1, "{isa} {arithmetic}: {e}");
                }
            }
        }
    }
}

#[test]
fn lookup_tables_are_used_for_few_levels_and_not_for_noise() {
    let isa = Isa::detect();
    let w = weights(7, 12, 2, 5);
    let queries = Queries::new(isa, &w).expect("consistent weights");
    for (levels, expected) in [(40, true), (0, false)] {
        let tile = Tile::new(28, 28, levels, 10);
        let (side, area) = (32, 32 * 32);
        let mut workspace = queries.workspace();
        let values = |i: usize| {
            [0, 1, 2, 3, 4].map(|s| match s {
                0 | 1 => tile.coords[s * area + i],
                _ => tile.guidance[(s - 2) * area + i],
            })
        };
        let stride = queries.conv1.output_stride();
        let mut out = vec![f32::NAN; 30 * 30 * stride];
        let (fourier, weights) = (&queries.fourier, &queries.lut);
        let output = (out.as_mut_slice(), stride);
        let used = workspace
            .lut
            .run(weights, fourier, &tile.mask, (side, side), values, output);
        assert_eq!(used, expected, "{levels} levels");
    }
}

#[test]
fn full_lookup_tables_start_over() {
    let w = weights(7, 12, 2, 5);
    let queries = Arc::new(Queries::new(Isa::detect(), &w).expect("consistent weights"));
    // Every shift adds 40 new levels per color, so that seven fill a table.
    for shift in 0..20 {
        let mut tile = Tile::new(12, 12, 40, 10);
        let by = shift as f32 / 1000.0;
        tile.guidance.iter_mut().for_each(|x| *x += by);
        let exact = tile.expected(&w);
        let mut context = tile.context(&queries, 1);
        let out = tile.run(&mut context, exact.len());
        for (found, exact) in out.iter().zip(&exact) {
            assert!((f64::from(*found) - exact).abs() < 5e-5, "shift {shift}");
        }
    }
}

#[test]
fn wrong_shapes_are_rejected_with_a_one_line_error() {
    let mut w = weights(7, 12, 2, 5);
    w.layers[1].out.weight.pop();
    let e = Queries::new(Isa::Generic, &w).expect_err("a short weight");
    let e = e.to_string();
    assert!(
        e.contains("layers.1.out.weight") && e.lines().count() == 1,
        "{e}"
    );

    let w = weights(7, 12, 2, 5);
    let queries = Arc::new(Queries::new(Isa::Generic, &w).expect("consistent weights"));
    let mut context = queries.context(1, 1, 1, 3);
    assert!(context.set_keys(2, &[0.0; 30]).is_err());
    assert!(context.set_keys(0, &[0.0; 31]).is_err());
    assert!(context.set_values(0, &[0.0; 30]).is_ok());
    assert!(
        context
            .run(&[0.0; 75], &[0.0; 50], &[0.0; 24], &mut [0.0; 7])
            .is_err()
    );
    assert!(
        context
            .run(&[0.0; 75], &[0.0; 50], &[0.0; 25], &mut [0.0; 6])
            .is_err()
    );
    assert!(
        context
            .run(&[0.0; 75], &[0.0; 50], &[0.0; 25], &mut [0.0; 7])
            .is_ok()
    );
}
