use super::*;
use crate::{
    kernels::Grid,
    model::{RangeOver, device_matrix, init},
    rng::{Purpose, Rng},
};

const CHANNELS: usize = 32;

/// Features of two noisy images, 7x9 tokens to 56x72 pixels.
fn problem(device: &Device) -> (Tokens, Guidance) {
    let mut rng = Rng::new(5, Purpose::Step, 0);
    let grid = Grid {
        batch: 2,
        height: 7,
        width: 9,
    };
    let values = (0..grid.pixels() * CHANNELS)
        .map(|_| rng.normal())
        .collect();
    let lr = Tokens {
        values: device_matrix(values, grid.pixels(), CHANNELS, device),
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

/// Mean cosine similarity of the output, in use, to bilinear interpolation.
fn likeness(upsampler: &LoftUp, lr: &Tokens, guidance: &Guidance, device: &Device) -> f64 {
    let fit = Fit {
        config: upsampler.config,
        lr,
        guidance,
        device,
    };
    let output = host_values(&upsampler.forward(lr, guidance, Mode::Eval).features);
    let bilinear = fit.bilinear();
    let rows = output
        .chunks_exact(CHANNELS)
        .zip(bilinear.chunks_exact(CHANNELS))
        .map(|(a, b)| {
            let dot = |a: &[f32], b: &[f32]| -> f64 {
                a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum()
            };
            dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
        });
    rows.sum::<f64>() / guidance.grid().pixels() as f64
}

#[test]
fn a_new_upsampler_is_close_to_bilinear_interpolation() {
    let device = Device::flex();
    let (lr, guidance) = problem(&device);
    let random = new(CHANNELS, &device);
    let mut begun = random.clone();
    assert!(interpolate(&mut begun, &lr, &guidance, &device));
    let [before, after] = [&random, &begun].map(|u| likeness(u, &lr, &guidance, &device));
    println!("cosine to bilinear: random {before:.3}, bilinear init {after:.3}");
    // White noise is the hardest there is: nothing of a neighbor may be mixed in.
    assert!(before < 0.3 && after > 0.85);
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
