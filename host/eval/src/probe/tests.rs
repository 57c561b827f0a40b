use super::*;

/// Points around `classes` centers.
fn clouds(count: usize, dim: usize, classes: usize, width: f32) -> Samples {
    let mut random = Random::new(3);
    let mut unit = || random.below(1 << 20) as f32 / (1 << 19) as f32 - 1.0;
    let centers: Vec<f32> = (0..classes * dim).map(|_| unit()).collect();
    let mut samples = Samples {
        dim,
        ..Samples::default()
    };
    for i in 0..count {
        let label = i % classes;
        samples.labels.push(label as u8);
        for c in 0..dim {
            // Channels of very different size and offset.
            let x = centers[label * dim + c] + width * unit();
            samples
                .features
                .push(x * 10f32.powi(c as i32 % 5 - 2) + 100.0 * (c % 3) as f32);
        }
    }
    samples
}

fn silent() -> impl FnMut(&str, usize, usize) {
    |_: &str, _: usize, _: usize| {}
}

fn score(linear: &Linear, x: &[f32], k: usize) -> f64 {
    let row = &linear.weight[k * linear.inputs..][..linear.inputs];
    let dot: f64 = row
        .iter()
        .zip(x)
        .map(|(w, x)| f64::from(*w) * f64::from(*x))
        .sum();
    dot + f64::from(linear.bias[k])
}

#[test]
fn separable_clouds_are_told_apart() {
    let samples = clouds(2000, 12, 5, 0.3);
    let trained = train(samples.clone(), 5, &Options::default(), &mut silent());
    let right = samples
        .features
        .chunks(12)
        .zip(&samples.labels)
        .filter(|(x, label)| {
            let best = (0..5).max_by(|a, b| {
                score(&trained.linear, x, *a).total_cmp(&score(&trained.linear, x, *b))
            });
            best == Some(usize::from(**label))
        });
    let share = right.count() as f64 / 2000.0;
    println!(
        "{share} right, loss {:.4}, training accuracy {}",
        trained.loss, trained.accuracy
    );
    assert!(share > 0.99 && trained.accuracy > 0.98);
}

/// Newton's method finds the one minimum; Adam must come near it. Two classes that overlap, so
/// that the minimum is finite.
#[test]
fn the_minimum_is_that_of_newtons_method() {
    let samples = clouds(3000, 3, 2, 2.0);
    let options = Options {
        epochs: 60,
        decay: 0.0,
        ..Options::default()
    };
    let trained = train(samples.clone(), 2, &options, &mut silent());

    let mut standard = samples.clone();
    let _ = standardize(&mut standard.features, standard.dim);
    // p(class 1) = s(w * x + b), four unknowns.
    let mut w = [0f64; 4];
    let mut loss = 0.0;
    for _ in 0..30 {
        let (mut gradient, mut hessian) = ([0f64; 4], [[0f64; 4]; 4]);
        loss = 0.0;
        for (x, label) in standard.features.chunks(3).zip(&standard.labels) {
            let x = [f64::from(x[0]), f64::from(x[1]), f64::from(x[2]), 1.0];
            let z: f64 = w.iter().zip(x).map(|(w, x)| w * x).sum();
            let p = 1.0 / (1.0 + (-z).exp());
            loss -= if *label == 1 { p.ln() } else { (1.0 - p).ln() };
            for i in 0..4 {
                gradient[i] += (p - f64::from(*label)) * x[i];
                for j in 0..4 {
                    hessian[i][j] += p * (1.0 - p) * x[i] * x[j];
                }
            }
        }
        loss /= 3000.0;
        // Gauss-Jordan.
        for i in 0..4 {
            let pivot = hessian[i][i];
            hessian[i].iter_mut().for_each(|h| *h /= pivot);
            gradient[i] /= pivot;
            for j in (0..4).filter(|j| *j != i) {
                let factor = hessian[j][i];
                let row = hessian[i];
                hessian[j]
                    .iter_mut()
                    .zip(row)
                    .for_each(|(h, r)| *h -= factor * r);
                gradient[j] -= factor * gradient[i];
            }
        }
        w.iter_mut().zip(gradient).for_each(|(w, g)| *w -= g);
    }
    // The difference of the two scores is Newton's score.
    let mut worst = 0f64;
    for (raw, x) in samples.features.chunks(3).zip(standard.features.chunks(3)) {
        let own = score(&trained.linear, raw, 1) - score(&trained.linear, raw, 0);
        let newton = w[3] + x.iter().zip(w).map(|(x, w)| w * f64::from(*x)).sum::<f64>();
        worst = worst.max((own - newton).abs());
    }
    println!(
        "loss {:.6} against {loss:.6}, worst difference of scores {worst:.4}",
        trained.loss
    );
    // Batches leave noise that the falling rate takes out; scores are of the order of 1.
    assert!((trained.loss - loss).abs() < 1e-3 && worst < 0.03);
}

#[test]
fn the_gradient_is_that_of_the_loss() {
    let mut samples = clouds(40, 4, 3, 1.0);
    let _ = standardize(&mut samples.features, samples.dim);
    let chosen: Vec<u32> = (0..40).collect();
    let mut random = Random::new(8);
    let parameters: Vec<f32> = (0..15)
        .map(|_| random.below(2000) as f32 / 1000.0 - 1.0)
        .collect();
    let part = Part::of(&samples, &chosen, &parameters, 3);
    let mut worst = 0f64;
    for i in 0..parameters.len() {
        let loss = |step: f32| {
            let mut moved = parameters.clone();
            moved[i] += step;
            Part::of(&samples, &chosen, &moved, 3).loss
        };
        // A step of 2^-7 balances curvature against the rounding of 32-bit scores.
        let slope = (loss(0.0078125) - loss(-0.0078125)) / 0.015625;
        worst = worst.max((slope - f64::from(part.gradient[i])).abs());
    }
    println!(
        "worst difference {worst:e} of gradients up to {:?}",
        part.gradient.iter().fold(0f32, |a, g| a.max(g.abs()))
    );
    assert!(worst < 5e-3);
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let options = Options {
        epochs: 3,
        ..Options::default()
    };
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| train(clouds(1500, 9, 4, 0.8), 4, &options, &mut silent()).linear)
    };
    assert_eq!(on(1), on(3));
}

#[test]
fn a_constant_channel_gets_no_weight() {
    let mut samples = clouds(300, 3, 2, 0.5);
    samples
        .features
        .iter_mut()
        .skip(1)
        .step_by(3)
        .for_each(|x| *x = 7.25);
    let linear = train(samples, 2, &Options::default(), &mut silent()).linear;
    assert!(linear.weight.iter().all(|w| w.is_finite()));
    assert_eq!((linear.weight[1], linear.weight[4]), (0.0, 0.0));
}
