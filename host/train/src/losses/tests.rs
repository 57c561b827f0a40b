use burn::tensor::Device;

use super::*;
use crate::{
    kernels::Grid,
    model::{Params, Tokens, host_values, init},
    resample::{Jitter, JitterRange, resample},
    rng::Purpose,
};

fn normal(seed: u64, n: usize) -> Vec<f32> {
    let mut rng = Rng::new(seed, Purpose::Step, 77);
    (0..n).map(|_| rng.normal()).collect()
}

/// Gradient of `loss` by autodiff and by central differences: the greatest difference, relative
/// to the greatest gradient.
fn gradient_error(x: &[f32], rows: usize, loss: impl Fn(Tensor<2>) -> Tensor<1>) -> f32 {
    const STEP: f32 = 5e-3;
    let device = Device::flex();
    let cols = x.len() / rows;
    let at = |x: Vec<f32>| device_matrix(x, rows, cols, &device);
    let leaf = at(x.to_vec()).autodiff().require_grad();
    let mut found = loss(leaf.clone()).backward();
    let found = host_values(&leaf.grad_remove(&mut found).unwrap());
    let value = |i: usize, step: f32| {
        let mut x = x.to_vec();
        x[i] += step;
        f64::from(host_values(&loss(at(x)))[0])
    };
    let expected: Vec<f32> = (0..x.len())
        .map(|i| ((value(i, STEP) - value(i, -STEP)) / f64::from(2.0 * STEP)) as f32)
        .collect();
    let most = expected.iter().fold(1e-9f32, |m, g| m.max(g.abs()));
    found
        .iter()
        .zip(&expected)
        .fold(0.0, |m, (a, b)| f32::max(m, (a - b).abs() / most))
}

/// Central differences of a loss of about 1 in 32 bit: rounding of 1e-7 over a step of 5e-3 and
/// a gradient of about 1e-2.
const TOLERANCE: f32 = 5e-3;

fn check(name: &str, error: f32) {
    println!("{name}: gradient against finite differences {error:.1e}");
    assert!(error < TOLERANCE, "{name}: {error}");
}

const GRID: Grid = Grid {
    batch: 2,
    height: 6,
    width: 4,
};

#[test]
fn the_gradient_of_a_weighted_difference_is_right() {
    let device = Device::flex();
    let masks = [Mask::new((0..20).collect()), Mask::new((15..18).collect())];
    let (to, weights) = (normal(2, 48 * 3), area_weights(48, &masks, 0.5));
    check(
        "weighted difference",
        gradient_error(&normal(1, 48 * 3), 48, |x| {
            let to = device_matrix(to.clone(), 48, 3, &device);
            mean_square(x, to, Some(device_matrix(weights.clone(), 48, 1, &device)))
        }),
    );
}

#[test]
fn small_regions_count_as_much_as_they_are_told_to() {
    // Of 12 pixels, 2 are in no mask; the second mask takes 2 pixels from the first.
    let masks = [Mask::new((0..10).collect()), Mask::new((8..10).collect())];
    assert_eq!(area_weights(12, &masks, 0.0), [1.0; 12]);
    let weights = area_weights(12, &masks, 1.0);
    for (pixels, area) in [(0..8, 8.0), (8..10, 2.0), (10..12, 2.0)] {
        for pixel in pixels {
            assert!(
                (weights[pixel] - 4.0 / area).abs() < 1e-6,
                "{pixel}: {weights:?}"
            );
        }
    }
    let half = area_weights(12, &masks, 0.5);
    assert!((half[8] / half[0] - 2.0).abs() < 1e-5, "{half:?}");
    assert!((half.iter().sum::<f32>() - 12.0).abs() < 1e-4, "{half:?}");
    assert_eq!(area_weights(4, &[], 0.5), [1.0; 4]);
}

#[test]
fn the_gradient_of_the_total_variation_is_right() {
    check(
        "total variation",
        gradient_error(&normal(1, 48 * 3), 48, |x| total_variation(x, GRID)),
    );
}

#[test]
fn the_gradient_of_gradient_matching_is_right() {
    check(
        "gradient matching",
        gradient_error(&normal(1, 48 * 3), 48, |x| gradient_matching(x, GRID)),
    );
}

#[test]
fn gradient_matching_is_the_mean_over_the_distances_that_fit() {
    // Sides, and the distances below the shorter one.
    for (h, w, distances) in [
        (13, 9, &[1, 2, 4, 8][..]),
        (7, 8, &[1, 2, 4]),
        (6, 4, &[1, 2]),
        (1, 5, &[]),
    ] {
        let (batch, c) = (2, 3);
        let x = normal(7, batch * h * w * c);
        let mut expected = 0.0f64;
        for &d in distances {
            for (i, value) in x.iter().enumerate() {
                let (row, column) = (i / c / w % h, i / c % w);
                if row >= d {
                    expected += f64::from(value - x[i - d * w * c]).powi(2);
                }
                if column >= d {
                    expected += f64::from(value - x[i - d * c]).powi(2);
                }
            }
        }
        expected /= (x.len() * distances.len().max(1)) as f64;
        let grid = Grid {
            batch,
            height: h,
            width: w,
        };
        let tensor = device_matrix(x, grid.pixels(), c, &Device::flex());
        let found = f64::from(host_values(&gradient_matching(tensor, grid))[0]);
        println!("{h}x{w}: {:.1e}", (found - expected).abs());
        // Sums of up to 2000 squares of about 2, in 32 bits.
        assert!((found - expected).abs() <= 1e-5 * expected, "{h}x{w}");
    }
}

#[test]
fn the_gradient_of_the_affinity_loss_is_right_both_ways() {
    let target = || {
        let values = normal(3, 2 * 9 * 4);
        Tensor::<3>::from_data(
            burn::tensor::TensorData::new(values, [2, 9, 4]),
            &Device::flex(),
        )
    };
    let x = normal(2, 2 * 9 * 4);
    let shape = |x: Tensor<2>| x.reshape([2, 9, 4]);
    check(
        "affinity by pairs",
        gradient_error(&x, 18, |x| affinity_by_pairs(shape(x), target())),
    );
}

#[test]
fn affinity_through_gram_matrices_is_that_by_pairs() {
    let device = Device::flex();
    // Just above the number of pairs from which on Gram matrices are used.
    let (n, d) = (2100, 3);
    let tensor = |seed| {
        Tensor::<3>::from_data(
            burn::tensor::TensorData::new(normal(seed, n * d), [1, n, d]),
            &device,
        )
    };
    let run = |f: fn(Tensor<3>, Tensor<3>) -> Tensor<1>| {
        let leaf = tensor(4).autodiff().require_grad();
        let loss = f(leaf.clone(), tensor(5));
        let mut found = loss.backward();
        (
            host_values(&loss.inner())[0],
            host_values(&leaf.grad_remove(&mut found).unwrap()),
        )
    };
    let ((fast, fast_gradient), (slow, slow_gradient)) = (run(affinity), run(affinity_by_pairs));
    assert!((fast / slow - 1.0).abs() < 1e-5, "{fast} {slow}");
    let most = slow_gradient.iter().fold(0.0f32, |m, g| m.max(g.abs()));
    let worst = fast_gradient
        .iter()
        .zip(&slow_gradient)
        .fold(0.0, |m, (a, b)| f32::max(m, (a - b).abs()));
    println!(
        "gram against pairs: loss {:.1e}, gradient {:.1e}",
        (fast / slow - 1.0).abs(),
        worst / most
    );
    assert!(worst < 1e-4 * most);
}

#[test]
fn gradients_through_views_and_projections_are_right() {
    let projection = random_projection(3, 2, &mut Rng::new(1, Purpose::Step, 0));
    let jitter = Jitter {
        pad: 2,
        zoom: 1.2,
        down: 1,
        right: 2,
        mirrored: true,
    };
    let (rows, cols) = jitter.axes((6, 4), 6, 4);
    let weights = normal(9, 48 * 2);
    let loss = |x: Tensor<2>| {
        let seen = resample(
            x.matmul(projection.matrix(&Device::flex())),
            GRID,
            &rows,
            &cols,
        );
        (seen * device_matrix(weights.clone(), 48, 2, &Device::flex())).sum()
    };
    check(
        "view of a projection",
        gradient_error(&normal(6, 48 * 3), 48, loss),
    );
}

fn view() -> View {
    let lr = device_matrix(normal(11, 2 * 3 * 2 * 3), 12, 3, &Device::flex());
    View {
        jitter: Jitter {
            pad: 1,
            zoom: 1.3,
            down: 1,
            right: 0,
            mirrored: false,
        },
        lr: Tokens {
            values: lr,
            grid: Grid {
                batch: 2,
                height: 3,
                width: 2,
            },
        },
        kept: (0..12)
            .map(|i| if i % 5 == 3 { 0.0 } else { 1.0 })
            .collect(),
        projection: random_projection(3, 2, &mut Rng::new(2, Purpose::Step, 0)),
    }
}

fn aux() -> AuxModules {
    let mut weights = init::aux(3, 2, &mut Rng::new(3, Purpose::Step, 0));
    // As they start out, the bias of the logits would have next to no effect.
    for (name, values) in [
        ("downsampler.w", [1.5, 0.5, -0.7, 1.0]),
        ("downsampler.b", [0.3, -0.6, 0.2, 0.0]),
    ] {
        weights.insert(
            name.into(),
            loftup_onnx::Tensor::from_fn([4], |i| values[i]),
        );
    }
    AuxModules {
        weights: Params::new(weights, &Device::flex()),
    }
}

#[test]
fn gradients_of_the_reconstruction_are_right_for_features_and_for_every_weight() {
    let (view, fixed) = (view(), aux());
    let features = normal(12, 48 * 3);
    let constant = device_matrix(features.clone(), 48, 3, &Device::flex());
    let loss = |c: &AuxModules, x: Tensor<2>| {
        let (loss, variation) = reconstruction(c, x, GRID, &view, true);
        loss + variation.unwrap() * 0.1
    };
    check(
        "reconstruction, features",
        gradient_error(&features, 48, |x| loss(&fixed, x)),
    );
    for name in fixed.weights.names() {
        let start = host_values(&fixed.weights.get(name));
        let with = |x: Tensor<2>| AuxModules {
            weights: fixed
                .weights
                .map(|n, w| if n == name { x.clone() } else { w.clone() }),
        };
        check(
            name,
            gradient_error(&start, 1, |x| loss(&with(x), constant.clone())),
        );
    }
}

/// The reconstruction loss by its definition: whole features are transformed, blurred and brought
/// down window by window, and only then projected.
fn slow_reconstruction(c: &AuxModules, features: &[f32], view: &View) -> (f64, f64) {
    let value = |name: &str| host_values(&c.weights.get(name));
    let (a, a_bias) = (
        value("downsampler.attention.weight"),
        value("downsampler.attention.bias")[0],
    );
    let (w, b) = (value("downsampler.w"), value("downsampler.b"));
    let (u, u_bias) = (value("uncertainty.weight"), value("uncertainty.bias")[0]);
    let (d, k) = (3, view.projection.to);
    let lr = host_values(&view.lr.values);
    let (rows, cols) = view.jitter.axes((6, 4), 6, 4);
    let project = |x: &[f32], j: usize| -> f32 {
        (0..d)
            .map(|i| x[i] * view.projection.values[i * k + j])
            .sum()
    };
    let (mut sum, mut variation) = (0.0f64, 0.0f64);
    for image in 0..2 {
        let seen = resample_values(&features[image * 24 * d..][..24 * d], d, &rows, &cols);
        let length = |y: usize, x: usize| -> f64 {
            (0..k)
                .map(|j| f64::from(project(&seen[(y * 4 + x) * d..], j)).powi(2))
                .sum()
        };
        for y in 0..6 {
            for x in 0..4 {
                if y > 0 {
                    variation += (length(y, x) - length(y - 1, x)).powi(2);
                }
                if x > 0 {
                    variation += (length(y, x) - length(y, x - 1)).powi(2);
                }
            }
        }
        let blurred = resample_values(&seen, d, &Axis::blur(6), &Axis::blur(4));
        for window in 0..6 {
            let token = image * 6 + window;
            let pixel = |i: usize| {
                let (y, x) = (window / 2 * 2 + i / 2, window % 2 * 2 + i % 2);
                &blurred[(y * 4 + x) * d..][..d]
            };
            let logits: Vec<f32> = (0..4)
                .map(|i| {
                    let logit: f32 = a_bias + (0..d).map(|c| pixel(i)[c] * a[c]).sum::<f32>();
                    logit * view.kept[token] * w[i] + b[i]
                })
                .collect();
            let total: f32 = logits.iter().map(|l| l.exp()).sum();
            let target = &lr[token * d..][..d];
            let s = (u_bias + 0.1 + (0..d).map(|c| target[c] * u[c]).sum::<f32>())
                .exp()
                .max(1e-4);
            for j in 0..k {
                let down: f32 = (0..4)
                    .map(|i| project(pixel(i), j) * logits[i].exp() / total)
                    .sum();
                let square = (down - project(target, j)).powi(2);
                sum += f64::from(square / (2.0 * s * s) + s.ln());
            }
        }
    }
    ((sum / (12 * k) as f64).max(0.0), variation / 48.0)
}

#[test]
fn reconstruction_is_what_its_definition_says() {
    let (view, fixed, features) = (view(), aux(), normal(13, 48 * 3));
    let tensor = device_matrix(features.clone(), 48, 3, &Device::flex());
    let (loss, variation) = reconstruction(&fixed, tensor, GRID, &view, true);
    let (slow_loss, slow_variation) = slow_reconstruction(&fixed, &features, &view);
    let found = [host_values(&loss)[0], host_values(&variation.unwrap())[0]];
    for (found, slow) in found.into_iter().zip([slow_loss, slow_variation]) {
        assert!(slow > 0.01, "a test of nothing");
        assert!(
            (f64::from(found) / slow - 1.0).abs() < 1e-5,
            "{found} {slow}"
        );
    }
}

#[test]
fn refining_projected_features_is_projecting_refined_ones() {
    let (h, w, d) = (8, 6, 5);
    let lr = normal(20, 4 * 3 * d);
    // Overlapping masks: the second must see what the first did.
    let masks = [
        Mask::new((0..20).collect()),
        Mask::new((10..40).collect()),
        Mask::new(vec![]),
    ];
    let projection = random_projection(d, 3, &mut Rng::new(4, Purpose::Step, 0));
    let fast = pseudo_ground_truth(
        &lr,
        (4, 3),
        (h, w),
        Base::Bicubic,
        &[masks.to_vec()],
        0.8,
        &projection,
    );

    let mut full = resample_values(&lr, d, &Axis::bicubic(4, h), &Axis::bicubic(3, w));
    for mask in &masks[..2] {
        for c in 0..d {
            let inside = mask
                .pixels()
                .iter()
                .map(|&p| f64::from(full[p as usize * d + c]));
            let mean = inside.sum::<f64>() / mask.pixels().len() as f64;
            for &p in mask.pixels() {
                let f = &mut full[p as usize * d + c];
                *f = (0.8 * mean + 0.2 * f64::from(*f)) as f32;
            }
        }
    }
    let slow = projection.apply(&full);
    let worst = fast
        .iter()
        .zip(&slow)
        .fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
    println!("projected before against after: {worst:.1e}");
    assert!(worst < 1e-5, "{worst}");
}

#[test]
fn projections_have_columns_of_unit_length() {
    let p = random_projection(10, 4, &mut Rng::new(5, Purpose::Step, 0));
    for column in 0..4 {
        let square: f32 = p.values[column..].iter().step_by(4).map(|x| x * x).sum();
        assert!((square - 1.0).abs() < 1e-5);
    }
    let same = random_projection(3, 0, &mut Rng::new(5, Purpose::Step, 0));
    assert_eq!(same.apply(&[1.0, 2.0, 3.0]), [1.0, 2.0, 3.0]);
}

#[test]
fn random_views_stay_inside_the_padded_image() {
    let mut rng = Rng::new(6, Purpose::Step, 0);
    let range = JitterRange {
        pad: 8,
        zoom: 0.1,
        mirror: true,
    };
    let mut seen = [false; 4];
    for _ in 0..500 {
        let j = Jitter::random(&mut rng, range, 56, 40);
        for (n, shift) in [(56, j.down), (40, j.right)] {
            assert!(shift + n <= ((n + 16) as f32 * j.zoom) as usize, "{j:?}");
        }
        seen[usize::from(j.mirrored) * 2 + usize::from(j.zoom > 1.0)] = true;
    }
    assert_eq!(seen, [true; 4]);
}

#[test]
fn several_segmentations_are_averaged() {
    let mut rng = Rng::new(4, Purpose::Step, 0);
    let (h, w, c) = (6, 5, 3);
    let start: Vec<f32> = (0..h * w * c).map(|_| rng.normal()).collect();
    let segmentations = [
        vec![Mask::new((0..15).collect()), Mask::new((15..30).collect())],
        vec![Mask::new((0..7).collect())],
        vec![],
    ];
    let mut mean = start.clone();
    refine_mean(&mut mean, c, &segmentations, 0.8);
    let each: Vec<Vec<f32>> = segmentations
        .iter()
        .map(|masks| {
            let mut one = start.clone();
            refine(&mut one, c, masks, 0.8);
            one
        })
        .collect();
    for i in 0..start.len() {
        let expected = each.iter().map(|map| f64::from(map[i])).sum::<f64>() / 3.0;
        // Three values of a few units in 32 bits.
        assert!((f64::from(mean[i]) - expected).abs() < 1e-6);
    }
    // One is what `refine` makes, to the bit; none changes nothing.
    let mut one = start.clone();
    refine_mean(&mut one, c, &segmentations[..1], 0.8);
    assert_eq!(one, each[0]);
    let mut none = start.clone();
    refine_mean(&mut none, c, &[], 0.8);
    assert_eq!(none, start);
    let weights = mean_area_weights(h * w, &segmentations[..2], 1.0);
    let [a, b] = [0, 1].map(|i| area_weights(h * w, &segmentations[i], 1.0));
    assert!((0..h * w).all(|i| (weights[i] - (a[i] + b[i]) / 2.0).abs() < 1e-6));
}

#[test]
fn a_base_is_upsampled_before_or_after_the_projection() {
    let mut rng = Rng::new(5, Purpose::Step, 0);
    let (grid, size, d) = ((3, 4), (13, 17), 6);
    let lr: Vec<f32> = (0..grid.0 * grid.1 * d).map(|_| rng.normal()).collect();
    let colors = (0..size.0 * size.1 * 3).map(|_| rng.below(256) as u8);
    let image = RgbImage::new(size.1, size.0, colors.collect()).unwrap();
    let projection = random_projection(d, 2, &mut rng);
    let identity = random_projection(d, 0, &mut rng);
    let mut maps = Vec::new();
    for base in [Base::Bicubic, Base::Bilinear, Base::Jbu(&image)] {
        let of = |p: &Projection| pseudo_ground_truth(&lr, grid, size, base, &[], 0.8, p);
        let before = of(&projection);
        let after = projection.apply(&of(&identity));
        let worst = before
            .iter()
            .zip(&after)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(worst < 1e-5, "{base:?}: {worst}");
        maps.push(before);
    }
    assert!(maps[0] != maps[1] && maps[1] != maps[2]);
}
