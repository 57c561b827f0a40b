//! Margins of [`probe`] over models with random weights.

use loftup_onnx::{Graph, Tensor, Value};

use super::*;

const PATCH: usize = 8;
/// Rows and columns of the grid, which is square: nothing but the values tells them apart.
const SIDE: usize = 8;
const SIZE: Size = Size {
    width: PATCH * SIDE,
    height: PATCH * SIDE,
};

/// Weights of a normal distribution, nearly.
struct Weights(u64);

impl Weights {
    fn tensor<const N: usize>(&mut self, shape: [usize; N], scale: f32) -> Tensor {
        Tensor::from_fn(shape, |_| {
            let mut sum = 0.0;
            for _ in 0..6 {
                self.0 ^= self.0 << 13;
                self.0 ^= self.0 >> 7;
                self.0 ^= self.0 << 17;
                sum += (self.0 >> 40) as f32 / (1u64 << 24) as f32 - 0.5;
            }
            sum * scale * 2f32.sqrt()
        })
    }
}

fn graph(build: impl FnOnce(&mut Graph, &Value) -> Value) -> Box<dyn Plan> {
    let mut g = Graph::new("random");
    let shape = [1.into(), 3.into(), SIZE.height.into(), SIZE.width.into()];
    let image = g.input("x", &shape);
    let y = build(&mut g, &image);
    g.output(&y, "y", &[1.into(), "a".into(), "b".into()]);
    compile(Path::new("random.onnx"), &g.finish(), "x", "y", SIZE).unwrap()
}

/// What varies from transformer to transformer.
#[derive(Debug, Clone, Copy)]
struct Kind {
    seed: u64,
    depth: usize,
    extra: usize,
    /// Scale of the position embedding against patches of unit variance.
    position: f32,
    /// Scale of the products of attention and MLP against the residual stream.
    gain: f32,
    /// Where the extra tokens are.
    behind: bool,
}

const DIM: usize = 48;

/// A vision transformer with one head and pre-normalization.
fn transformer(kind: Kind) -> Box<dyn Plan> {
    let mut w = Weights(kind.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let pixels = (3 * PATCH * PATCH) as f32;
    let matrix =
        |w: &mut Weights, o: usize, i: usize| w.tensor([o, i], kind.gain / (i as f32).sqrt());
    graph(|g, image| {
        let patches = w.tensor([DIM, 3, PATCH, PATCH], 1.0 / pixels.sqrt());
        let bias = w.tensor([DIM], 0.1);
        let map = g.conv(image, &patches, &bias, PATCH);
        let flat = g.reshape(&map, &[1, DIM as i64, -1]);
        let mut x = g.transpose(&flat, &[0, 2, 1]);
        let position = g.constant("position", &w.tensor([1, SIDE * SIDE, DIM], kind.position));
        x = g.add(&x, &position);
        if kind.extra > 0 {
            let extra = g.constant("extra", &w.tensor([1, kind.extra, DIM], 1.0));
            x = match kind.behind {
                true => g.concat(&[&x, &extra], 1),
                false => g.concat(&[&extra, &x], 1),
            };
        }
        for _ in 0..kind.depth {
            let y = g.normalize(&x, -1, 1e-6);
            let [q, k, v] = [0; 3].map(|_| g.linear(&y, &matrix(&mut w, DIM, DIM), None));
            let k = g.transpose(&k, &[0, 2, 1]);
            let scores = g.matmul(&q, &k);
            let scale = g.scalar("scale", 1.0 / (DIM as f32).sqrt());
            let scores = g.mul(&scores, &scale);
            let weights = g.softmax(&scores);
            let y = g.matmul(&weights, &v);
            let y = g.linear(&y, &matrix(&mut w, DIM, DIM), None);
            x = g.add(&x, &y);
            let y = g.normalize(&x, -1, 1e-6);
            let y = g.linear(&y, &matrix(&mut w, 4 * DIM, DIM), None);
            let y = g.gelu(&y);
            let y = g.linear(&y, &matrix(&mut w, DIM, 4 * DIM), None);
            x = g.add(&x, &y);
        }
        g.normalize(&x, -1, 1e-6)
    })
}

/// Three convolutions of stride 2 and `more` of stride 1, 3 x 3 each.
fn convolutions(seed: u64, more: usize) -> Box<dyn Plan> {
    let mut w = Weights(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    graph(|g, image| {
        let mut x = image.clone();
        let mut channels = 3;
        for layer in 0..3 + more {
            let weight = w.tensor([32, channels, 3, 3], (2.0 / (9 * channels) as f32).sqrt());
            let bias = w.tensor([32], 0.1);
            let stride = if layer < 3 { 2 } else { 1 };
            x = g.padded_conv(&x, &weight, &bias, stride, 1);
            x = g.op("Relu", &[&x], &[]);
            channels = 32;
        }
        x
    })
}

/// Linear functions of the whole image, others for each place.
fn everywhere(seed: u64) -> Box<dyn Plan> {
    let mut w = Weights(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    graph(|g, image| {
        let small = g.conv(
            image,
            &w.tensor([4, 3, PATCH, PATCH], 0.1),
            &w.tensor([4], 0.1),
            PATCH,
        );
        let inputs = 4 * SIDE * SIDE;
        let flat = g.reshape(&small, &[1, inputs as i64]);
        let weight = w.tensor([8 * SIDE * SIDE, inputs], 0.1);
        let y = g.linear(&flat, &weight, None);
        g.reshape(&y, &[1, (SIDE * SIDE) as i64, 8])
    })
}

fn reading(plan: &dyn Plan) -> Reading {
    let readings = layout::readings(plan.output_shape(0), SIZE, PATCH, Wanted::default());
    let [reading] = readings[..] else {
        panic!("{readings:?}")
    };
    reading
}

/// The score of the reading, those of its misreadings, and that of halves.
fn scores(plan: &dyn Plan) -> (f32, Vec<f32>, f32) {
    let reading = reading(plan);
    let probe = Probe::new(plan, SIZE, PATCH, Units::Normalized).unwrap();
    let scattered = probe.scattered().unwrap();
    let of = |strides| probe.follows(&scattered, &reading, strides);
    let wrong = reading.misreadings().into_iter().map(|(_, s)| of(s));
    let halves = probe.halves().unwrap();
    let coarse = halves
        .iter()
        .map(|m| probe.follows(m, &reading, reading.strides()));
    (
        of(reading.strides()),
        wrong.collect(),
        coarse.fold(1.0, f32::min),
    )
}

/// The lowest and highest of many.
fn range(values: impl IntoIterator<Item = f32>) -> (f32, f32) {
    let fold = |(low, high): (f32, f32), x: f32| (low.min(x), high.max(x));
    values.into_iter().fold((f32::MAX, f32::MIN), fold)
}

fn kinds() -> impl Iterator<Item = Kind> {
    (0..48).map(|seed| Kind {
        seed,
        depth: [1, 2, 4, 8][seed as usize % 4],
        extra: [0, 1, 5][seed as usize % 3],
        position: [0.02, 0.3, 1.0, 3.0][seed as usize / 4 % 4],
        gain: [0.1, 0.5, 1.0][seed as usize / 16],
        behind: false,
    })
}

#[test]
fn transformers_with_random_weights_follow_the_image_and_their_misreadings_do_not() {
    let mut right = Vec::new();
    let mut wrong = Vec::new();
    for kind in kinds() {
        let plan = transformer(kind);
        let (score, misread, _) = scores(plan.as_ref());
        right.push(score);
        wrong.extend(misread);
        assert!(score >= FINE, "{kind:?}: {score}");
        if kind.extra > 0 {
            let behind = transformer(Kind {
                behind: true,
                ..kind
            });
            let (score, ..) = scores(behind.as_ref());
            assert!(score < FINE, "{kind:?}, behind: {score}");
            wrong.push(score);
        }
    }
    println!("right {:?}, wrong {:?}", range(right), range(wrong.clone()));
    assert!(wrong.iter().all(|s| *s < FINE));
}

#[test]
fn convolutions_follow_single_patches_or_halves() {
    for more in [0, 1, 2, 4, 8] {
        let mut fine = Vec::new();
        let mut coarse = Vec::new();
        for seed in 1..=8 {
            let plan = convolutions(seed, more);
            let (score, misread, halves) = scores(plan.as_ref());
            assert!(
                score >= FINE || halves >= COARSE,
                "{more}: {score} {halves}"
            );
            assert!(misread.iter().all(|s| *s < FINE), "{misread:?}");
            fine.push(score);
            coarse.push(halves);
        }
        println!(
            "{more} more: patches {:?}, halves {:?}",
            range(fine),
            range(coarse)
        );
    }
}

#[test]
fn features_of_the_whole_image_follow_neither() {
    let all: Vec<_> = (1..=16)
        .map(|seed| scores(everywhere(seed).as_ref()))
        .collect();
    let fine = range(all.iter().map(|s| s.0));
    let coarse = range(all.iter().map(|s| s.2));
    println!("patches {fine:?}, halves {coarse:?}");
    assert!(fine.1 < FINE && coarse.1 < COARSE);
}
