//! Seconds of a training step: forward, backward of a mean squared error, AdamW.
//!
//! `training_speed CHANNELS SIDE BATCH STEPS` prints one line for each step after the first.
//! `tools/bench_training.py` compares it with PyTorch.

use std::time::Instant;

use burn::tensor::Device;
use loftup_train::{
    kernels::Grid,
    model::{Guidance, LoftUp, Mode, RangeOver, Tokens, device_matrix, host_values, init},
    optim::{Method, Optimizer, Settings},
    rng::{Purpose, Rng},
};

fn main() {
    loftup_train::memory::keep_buffers();
    let numbers: Vec<usize> = std::env::args()
        .skip(1)
        .filter_map(|a| a.parse().ok())
        .collect();
    let [d, side, batch, steps] = numbers[..] else {
        eprintln!("usage: training_speed CHANNELS SIDE BATCH STEPS");
        std::process::exit(2);
    };
    let device = Device::flex();
    let mut rng = Rng::new(0, Purpose::Weights, 0);
    let config = init::published(d);
    let mut upsampler = LoftUp::new(config, init::random(&config, &mut rng), &device);
    let grid = Grid {
        batch,
        height: side / 14,
        width: side / 14,
    };
    let mut normal = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.normal()).collect() };
    let lr = Tokens {
        values: device_matrix(normal(grid.pixels() * d), grid.pixels(), d, &device),
        grid,
    };
    let images: Vec<Vec<f32>> = (0..batch).map(|_| normal(3 * side * side)).collect();
    let slices: Vec<&[f32]> = images.iter().map(Vec::as_slice).collect();
    let target = device_matrix(
        normal(batch * side * side * d),
        batch * side * side,
        d,
        &device,
    );
    let settings = Settings {
        method: Method::AdamW,
        learning_rate: 1e-3,
        weight_decay: 0.01,
    };
    let mut optimizer = Optimizer::new(settings, &upsampler.weights);
    let mut weights = upsampler.weights.clone();
    for step in 0..=steps {
        let start = Instant::now();
        let guidance = Guidance::new(&slices, side, side, RangeOver::Batch);
        upsampler.weights = weights.tracked();
        let output = upsampler.forward(&lr, &guidance, Mode::Train);
        let forward = start.elapsed().as_secs_f64();
        let loss = (output.features - target.clone()).square().mean();
        let value = host_values(&loss)[0];
        let gradients = upsampler.weights.gradients(&mut loss.backward());
        let backward = start.elapsed().as_secs_f64();
        weights = optimizer.step(&weights, &gradients);
        upsampler.update_running_stats(&output.batch_stats);
        let all = start.elapsed().as_secs_f64();
        if step > 0 {
            println!(
                "{all:.4} forward {forward:.4} backward {:.4} update {:.4} loss {value:.5}",
                backward - forward,
                all - backward
            );
        }
    }
}
