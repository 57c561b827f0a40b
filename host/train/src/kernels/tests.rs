use burn::tensor::Device;

use super::*;
use crate::{
    model::{device_matrix, host_values},
    rng::{Purpose, Rng},
};

/// Kernels with the shapes of their inputs: odd sizes, several images, more than one block.
fn cases() -> Vec<(Kernel, [[usize; 2]; 3])> {
    let grid = |batch, height, width| {
        Kernel::Convolution(Grid {
            batch,
            height,
            width,
        })
    };
    let group_norm = |batch, groups| Kernel::GroupNormSilu {
        of: Groups { batch, groups },
        eps: 1e-5,
    };
    vec![
        (
            Kernel::LayerNorm { eps: 1e-5 },
            [[700, 13], [1, 13], [1, 13]],
        ),
        (Kernel::LayerNorm { eps: 1e-6 }, [[3, 16], [1, 16], [1, 16]]),
        (
            Kernel::BatchNormRelu { eps: 1e-5 },
            [[1100, 7], [1, 7], [1, 7]],
        ),
        (group_norm(2, 3), [[14, 6], [1, 6], [1, 6]]),
        (group_norm(1, 1), [[2, 3], [1, 3], [1, 3]]),
        (group_norm(3, 2), [[3 * 700, 8], [1, 8], [1, 8]]),
        (Kernel::ScaleShiftRelu, [[1100, 7], [1, 7], [1, 7]]),
        (Kernel::ScaleShiftRelu, [[3, 17], [1, 17], [1, 17]]),
        (Kernel::Waves, [[700, 5], [2, 5], [700, 3]]),
        (Kernel::Waves, [[3, 1], [2, 1], [3, 2]]),
        (Kernel::Linear, [[65, 12], [9, 12], [1, 9]]),
        (Kernel::LinearGelu, [[65, 12], [9, 12], [1, 9]]),
        (grid(2, 5, 7), [[70, 3], [4, 27], [1, 4]]),
        (grid(1, 1, 1), [[1, 3], [4, 27], [1, 4]]),
        (grid(1, 40, 37), [[1480, 2], [3, 18], [1, 3]]),
        (
            Kernel::Attention { batch: 2, heads: 4 },
            [[60, 12], [10, 12], [10, 12]],
        ),
        (
            Kernel::Attention { batch: 1, heads: 1 },
            [[5000, 5], [3, 5], [3, 5]],
        ),
    ]
}

fn random(rng: &mut Rng, [rows, cols]: [usize; 2], device: &Device) -> Tensor<2> {
    device_matrix(
        (0..rows * cols).map(|_| rng.normal()).collect(),
        rows,
        cols,
        device,
    )
}

/// The output and the gradients of `sum(output * probe)`.
fn output_and_gradients(
    f: impl Fn(Tensor<2>, Tensor<2>, Tensor<2>) -> Tensor<2>,
    inputs: &[Tensor<2>; 3],
    probe: &Tensor<2>,
) -> Vec<Vec<f32>> {
    let leaves = inputs.clone().map(|t| t.autodiff().require_grad());
    let y = f(leaves[0].clone(), leaves[1].clone(), leaves[2].clone());
    let mut found = (y.clone() * probe.clone()).sum().backward();
    let mut all = vec![host_values(&y.inner())];
    all.extend(
        leaves
            .iter()
            .map(|l| host_values(&l.grad_remove(&mut found).unwrap())),
    );
    all
}

/// Maximum difference, relative to the maximum magnitude.
fn difference(a: &[f32], b: &[f32]) -> f32 {
    let most = b.iter().fold(1e-6f32, |m, x| m.max(x.abs()));
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .fold(0.0, |m, (a, b)| f32::max(m, (a - b).abs() / most))
}

#[test]
fn fused_kernels_agree_with_the_composed_reference() {
    let device = Device::flex();
    let mut worst = 0.0f32;
    for (index, (kernel, shapes)) in cases().into_iter().enumerate() {
        let mut rng = Rng::new(1, Purpose::Step, index as u64);
        let inputs = shapes.map(|s| random(&mut rng, s, &device));
        let out = composed::run(
            kernel,
            inputs[0].clone(),
            inputs[1].clone(),
            inputs[2].clone(),
        );
        let probe = random(&mut rng, out.dims(), &device);
        let fused = output_and_gradients(|x, a, b| run(kernel, x, a, b), &inputs, &probe);
        let slow = output_and_gradients(|x, a, b| composed::run(kernel, x, a, b), &inputs, &probe);
        for (i, (fused, slow)) in fused.iter().zip(&slow).enumerate() {
            let found = difference(fused, slow);
            worst = worst.max(found);
            // Sums of several thousand products in a different order, in 32 bits.
            assert!(
                found < 2e-5,
                "{kernel:?}, {}: {found}",
                ["output", "dx", "da", "db"][i]
            );
        }
    }
    println!("fused against composed: worst {worst:.1e}");
}

#[test]
fn moments_agree_with_the_composed_reference() {
    let device = Device::flex();
    let mut rng = Rng::new(3, Purpose::Step, 0);
    for shape in [[1, 1], [3, 5], [1100, 7]] {
        let x = random(&mut rng, shape, &device);
        let of = |f: fn(Kernel, Tensor<2>, Tensor<2>, Tensor<2>) -> Tensor<2>| {
            host_values(&f(Kernel::BatchStats, x.clone(), x.clone(), x.clone()))
        };
        let found = difference(&of(run), &of(composed::run));
        println!("{shape:?}: {found:.1e}");
        assert!(found < 1e-5, "{shape:?}: {found}");
    }
}

#[test]
fn gradients_agree_with_finite_differences() {
    let device = Device::flex();
    let mut worst = 0.0f32;
    for (index, (kernel, shapes)) in cases().into_iter().enumerate() {
        // The reference runs the kernel twice per element, so shapes are small.
        if shapes[0][0] > 100 {
            continue;
        }
        let mut rng = Rng::new(2, Purpose::Step, index as u64);
        let inputs = shapes.map(|s| random(&mut rng, s, &device));
        let out = run(
            kernel,
            inputs[0].clone(),
            inputs[1].clone(),
            inputs[2].clone(),
        );
        let probe = random(&mut rng, out.dims(), &device);
        let found = output_and_gradients(|x, a, b| run(kernel, x, a, b), &inputs, &probe);
        let weights = host_values(&probe);
        let loss = |which: usize, element: usize, step: f32| -> f64 {
            let mut changed = inputs.clone();
            let [rows, cols] = changed[which].dims();
            let mut values = host_values(&changed[which]);
            values[element] += step;
            changed[which] = device_matrix(values, rows, cols, &device);
            let [x, a, b] = changed;
            let y = host_values(&run(kernel, x, a, b));
            y.iter()
                .zip(&weights)
                .map(|(y, w)| f64::from(*y) * f64::from(*w))
                .sum()
        };
        for which in 0..3 {
            const STEP: f32 = 4e-3;
            let expected: Vec<f32> = (0..found[which + 1].len())
                .map(|i| {
                    ((loss(which, i, STEP) - loss(which, i, -STEP)) / f64::from(2.0 * STEP)) as f32
                })
                .collect();
            let error = difference(&found[which + 1], &expected);
            worst = worst.max(error);
            // The error of central differences is the third derivative times the squared step, plus
            // rounding divided by the step: both are about 1e-4 here.
            assert!(error < 3e-3, "{kernel:?}, input {which}: {error}");
        }
    }
    println!("gradients against finite differences: worst {worst:.1e}");
}
