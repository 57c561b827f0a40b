use super::*;
use crate::{
    kernels::Grid,
    model::{RangeOver, device_matrix, init},
    rng::{Purpose, Rng},
};

const CHANNELS: usize = 32;

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
    assert!(interpolate(&mut begun, &lr, &guidance, &device));
    let [before, after] = [&random, &begun].map(|u| error(u, &lr, &guidance, &device));
    println!("off by: random {before:.3}, bilinear init {after:.3}");
    // Neighboring tokens are independent of each other, so this includes the whole difference
    // between the Gaussian and bilinear interpolation's triangle: about 0.15.
    assert!(before > 0.9 && after < 0.25);
}

#[test]
fn it_interpolates_at_other_sizes_too() {
    let device = Device::flex();
    let (lr, guidance) = problem(&device);
    let mut begun = new(CHANNELS, &device);
    assert!(interpolate(&mut begun, &lr, &guidance, &device));
    let mut rng = Rng::new(6, Purpose::Step, 0);
    let images: Vec<Vec<f32>> = (0..2)
        .map(|_| (0..3 * 112 * 144).map(|_| rng.uniform()).collect())
        .collect();
    let slices: Vec<&[f32]> = images.iter().map(Vec::as_slice).collect();
    let large = Guidance::new(&slices, 112, 144, RangeOver::Image);
    let after = error(&begun, &lr, &large, &device);
    println!("off by {after:.3} at twice the size");
    assert!(after < 0.25);
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
    assert!(!interpolate(&mut narrow, &lr, &guidance, &device));
    assert_eq!(narrow.weights.to_host(), before);
}

#[test]
fn positional_channels_are_frozen_and_the_rest_is_not() {
    let device = Device::flex();
    let (lr, guidance) = problem(&device);
    let mut upsampler = new(CHANNELS, &device);
    assert!(Frozen::find(&upsampler, &device).is_none());
    assert!(interpolate(&mut upsampler, &lr, &guidance, &device));
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
    let expected = POSITIONAL_CHANNELS * (9 * inputs + 9 * e + 2 + 4)
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
    assert_eq!(
        before[..POSITIONAL_CHANNELS * row],
        after[..POSITIONAL_CHANNELS * row]
    );
    assert_ne!(
        before[POSITIONAL_CHANNELS * row],
        after[POSITIONAL_CHANNELS * row]
    );
}
