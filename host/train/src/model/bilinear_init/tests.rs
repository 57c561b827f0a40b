use super::*;
use crate::{
    kernels::Grid,
    model::{RangeOver, device_matrix, init},
    rng::{Purpose, Rng},
};

const CHANNELS: usize = 32;
/// Channels that carry positions.
const POSITIONAL: usize = 2 * ANGLES;

/// Two noisy images of 56x72 pixels, and features of 7x9 tokens. Like those of a vision transformer,
/// features are combinations of fewer directions, normalized, and scaled by channel.
fn problem(device: &Device) -> (Tokens, Guidance) {
    const RANK: usize = 8;
    let mut rng = Rng::new(5, Purpose::Step, 0);
    let grid = Grid {
        batch: 2,
        height: 7,
        width: 9,
    };
    let mut normal = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.normal()).collect() };
    let (basis, scale) = (normal(RANK * CHANNELS), normal(CHANNELS));
    let values = (0..grid.pixels()).flat_map(|_| {
        let factors = normal(RANK);
        let of = |c: usize| -> f32 {
            let rows = basis.chunks_exact(CHANNELS);
            factors.iter().zip(rows).map(|(f, row)| f * row[c]).sum()
        };
        let token: Vec<f32> = (0..CHANNELS).map(of).collect();
        let mean = token.iter().sum::<f32>() / CHANNELS as f32;
        let square = token.iter().map(|x| (x - mean).powi(2)).sum::<f32>();
        let deviation = (square / CHANNELS as f32).sqrt();
        let normalized = token.into_iter().map(move |x| (x - mean) / deviation);
        let scaled = normalized
            .zip(&scale)
            .map(|(x, s)| x * (1.0 + 0.3 * s) + 0.5 * s);
        scaled.collect::<Vec<f32>>()
    });
    let lr = Tokens {
        values: device_matrix(values.collect(), grid.pixels(), CHANNELS, device),
        grid,
    };
    let images: Vec<Vec<f32>> = (0..2)
        .map(|_| (0..3 * 56 * 72).map(|_| rng.uniform()).collect())
        .collect();
    let slices: Vec<&[f32]> = images.iter().map(Vec::as_slice).collect();
    (lr, Guidance::new(&slices, 56, 72, RangeOver::Image))
}

fn new(dim: usize, device: &Device) -> LoftUp {
    let config = init::published(dim);
    let start = init::random(&config, &mut Rng::new(0, Purpose::Weights, 0));
    LoftUp::new(config, start, device)
}

/// Root mean square of the difference between the output in use and bilinear interpolation, relative
/// to the deviation of each channel.
fn error(upsampler: &LoftUp, lr: &Tokens, guidance: &Guidance, device: &Device) -> f64 {
    let fit = Fit {
        config: upsampler.config,
        lr,
        guidance,
        examples: None,
        device,
    };
    let output = host_values(&upsampler.forward(lr, guidance, Mode::Eval).features);
    let bilinear = fit.bilinear();
    let (_, deviation) = statistics(&bilinear, CHANNELS);
    let squares = output.iter().zip(&bilinear).enumerate();
    let sum: f64 = squares
        .map(|(i, (a, b))| f64::from((a - b) / deviation[i % CHANNELS]).powi(2))
        .sum();
    (sum / bilinear.len() as f64).sqrt()
}

#[test]
fn a_new_upsampler_is_close_to_bilinear_interpolation() {
    let device = Device::flex();
    let (lr, guidance) = problem(&device);
    let random = new(CHANNELS, &device);
    let mut begun = random.clone();
    assert!(interpolate(&mut begun, &lr, &guidance, None, &device));
    let [before, after] = [&random, &begun].map(|u| error(u, &lr, &guidance, &device));
    println!("off by: random {before:.3}, bilinear init {after:.3}");
    // Neighboring tokens are independent of each other, which is the hardest case. The difference
    // between a Gaussian and bilinear interpolation's triangle alone is 0.10 here.
    assert!(before > 0.9 && after < 0.3);
}

#[test]
fn it_interpolates_at_other_sizes_too() {
    let device = Device::flex();
    let (lr, guidance) = problem(&device);
    let mut begun = new(CHANNELS, &device);
    assert!(interpolate(&mut begun, &lr, &guidance, None, &device));
    let mut rng = Rng::new(6, Purpose::Step, 0);
    let images: Vec<Vec<f32>> = (0..2)
        .map(|_| (0..3 * 112 * 144).map(|_| rng.uniform()).collect())
        .collect();
    let slices: Vec<&[f32]> = images.iter().map(Vec::as_slice).collect();
    let large = Guidance::new(&slices, 112, 144, RangeOver::Image);
    let after = error(&begun, &lr, &large, &device);
    println!("off by {after:.3} at twice the size");
    assert!(after < 0.3);
}

#[test]
fn an_upsampler_without_room_is_left_alone() {
    let device = Device::flex();
    let (lr, guidance) = problem(&device);
    let mut config = init::published(CHANNELS);
    config.frequencies = 4;
    let start = init::random(&config, &mut Rng::new(0, Purpose::Weights, 0));
    let mut narrow = LoftUp::new(config, start, &device);
    let before = narrow.weights.to_host();
    assert!(!interpolate(&mut narrow, &lr, &guidance, None, &device));
    assert_eq!(narrow.weights.to_host(), before);
}

#[test]
fn positional_channels_are_frozen_and_the_rest_is_not() {
    let device = Device::flex();
    let (lr, guidance) = problem(&device);
    let mut upsampler = new(CHANNELS, &device);
    assert!(Frozen::find(&upsampler, &device).is_none());
    assert!(interpolate(&mut upsampler, &lr, &guidance, None, &device));
    let frozen = Frozen::find(&upsampler, &device).expect("positional channels");
    let old = upsampler.weights.clone();
    let moved = old.map(|_, w| w.clone() + 1.0);
    let new = frozen.restore(&old, &moved);
    // They are recognized in trained weights, and not once they have moved.
    upsampler.weights = new.clone();
    assert!(Frozen::find(&upsampler, &device).is_some());
    upsampler.weights = moved.clone();
    assert!(Frozen::find(&upsampler, &device).is_none());
    let (mut kept, mut all) = (0, 0);
    for name in old.names() {
        let values = [&old, &new].map(|p| host_values(&p.get(name)));
        kept += values[0]
            .iter()
            .zip(&values[1])
            .filter(|(a, b)| a == b)
            .count();
        all += values[0].len();
    }
    let inputs = upsampler.config.guidance_channels();
    let e = upsampler.config.width();
    // Two convolutions with bias, two normalizations, four angles of four heads with bias, the
    // phases, and the waves' part of a normalization.
    let expected = POSITIONAL * (9 * inputs + 9 * e + 2 + 4)
        + 4 * ANGLES * (e + 1)
        + 10 * upsampler.config.frequencies
        + 4 * upsampler.config.grid_frequencies
        + (e - CHANNELS);
    assert_eq!(kept, expected, "of {all}");
    // What is frozen really is what carries the position.
    upsampler.weights = new;
    let before = host_values(&old.get("upsampler.first_conv.1.weight"));
    let after = host_values(&upsampler.weights.get("upsampler.first_conv.1.weight"));
    let row = 9 * inputs;
    assert_eq!(before[..POSITIONAL * row], after[..POSITIONAL * row]);
    assert_ne!(before[POSITIONAL * row], after[POSITIONAL * row]);
}

/// Images of vertical stripes of random colors, wider than a token but not aligned with them, and
/// features that are linear in color: those of the tokens, and those of the pixels.
fn stripes(seed: u64, device: &Device) -> (Tokens, Vec<Vec<f32>>, Vec<f32>) {
    const STRIPE: usize = 13;
    let side = SIDE;
    let grid = Grid {
        batch: 4,
        height: 8,
        width: 8,
    };
    let mut rng = Rng::new(9, Purpose::Weights, 0);
    let basis: Vec<f32> = (0..4 * CHANNELS).map(|_| rng.normal()).collect();
    let features = |color: [f32; 3]| -> Vec<f32> {
        let of = |c: usize| {
            let rows = color.iter().zip(basis.chunks_exact(CHANNELS));
            rows.map(|(v, row)| v * row[c]).sum::<f32>() + basis[3 * CHANNELS + c]
        };
        (0..CHANNELS).map(of).collect()
    };
    let mut rng = Rng::new(seed, Purpose::Step, 0);
    let (mut images, mut lr, mut exact) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..grid.batch {
        // Black and white are there, so that the scaled colors are the colors minus a half.
        let mut colors: Vec<[f32; 3]> = (0..side.div_ceil(STRIPE))
            .map(|_| [rng.uniform(), rng.uniform(), rng.uniform()])
            .collect();
        (colors[0], colors[1]) = ([0.0; 3], [1.0; 3]);
        let at = |x: usize| colors[x / STRIPE];
        images.push(
            (0..3 * side * side)
                .map(|i| at(i % side)[i / (side * side)])
                .collect::<Vec<f32>>(),
        );
        for token in 0..grid.height * grid.width {
            let patch = side / grid.width;
            let first = token % grid.width * patch;
            let mean = [0, 1, 2].map(|c| {
                let sum: f32 = (first..first + patch).map(|x| at(x)[c]).sum();
                sum / patch as f32
            });
            lr.extend(features(mean));
        }
        exact.extend((0..side * side).flat_map(|i| features(at(i % side))));
    }
    let lr = Tokens {
        values: device_matrix(lr, grid.pixels(), CHANNELS, device),
        grid,
    };
    (lr, images, exact)
}

/// Side of the images of stripes.
const SIDE: usize = 64;

fn scaled(images: &[Vec<f32>]) -> Guidance {
    let slices: Vec<&[f32]> = images.iter().map(Vec::as_slice).collect();
    Guidance::new(&slices, SIDE, SIDE, RangeOver::Image)
}

#[test]
fn a_bilateral_initialization_follows_edges_of_color() {
    let device = Device::flex();
    let (lr, images, _) = stripes(1, &device);
    let guidance = scaled(&images);
    let examples = Examples {
        lr: lr.clone(),
        guidance: images.chunks(1).map(scaled).collect(),
    };
    let off = |examples: Option<&Examples>| {
        let mut upsampler = new(CHANNELS, &device);
        assert!(interpolate(
            &mut upsampler,
            &lr,
            &guidance,
            examples,
            &device
        ));
        assert!(Frozen::find(&upsampler, &device).is_some());
        // Other images than those of the fit.
        let (lr, images, exact) = stripes(2, &device);
        let output = upsampler.forward(&lr, &scaled(&images), Mode::Eval);
        let output = host_values(&output.features);
        let squares = output.iter().zip(&exact);
        let sum: f64 = squares.map(|(a, b)| f64::from(a - b).powi(2)).sum();
        sum / exact.len() as f64
    };
    let [bilinear, bilateral] = [off(None), off(Some(&examples))];
    println!("squared error: bilinear {bilinear:.4}, bilateral {bilateral:.4}");
    assert!(bilateral < 0.7 * bilinear);
}
