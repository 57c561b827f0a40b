//! Principal components compared with the full eigendecomposition of an explicit covariance matrix
//! by a simple method.

use std::time::Instant;

use loftup_runtime::pca::{CommonBasis, Pca, PcaError};

/// A deterministic sequence of numbers between -1 and 1.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// Samples of `rank` latent factors of decreasing strength, plus noise and an offset.
fn samples(n: usize, d: usize, rank: usize, offset: f32, seed: u64) -> Vec<f32> {
    let mut noise = Noise(seed);
    let factors: Vec<f32> = (0..rank * d).map(|_| noise.next()).collect();
    let mut out = Vec::with_capacity(n * d);
    for _ in 0..n {
        let strengths: Vec<f32> = (0..rank)
            .map(|r| noise.next() * 3.0 / (r + 1) as f32)
            .collect();
        for channel in 0..d {
            let signal: f32 = (0..rank)
                .map(|r| strengths[r] * factors[r * d + channel])
                .sum();
            out.push(signal + 0.05 * noise.next() + offset * (channel % 7) as f32);
        }
    }
    out
}

/// The covariance `[d, d]` of the samples, divided by `n`.
fn covariance(samples: &[f32], d: usize) -> Vec<f64> {
    let n = samples.len() / d;
    let at = |i: usize, c: usize| f64::from(samples[i * d + c]);
    let mean: Vec<f64> = (0..d)
        .map(|c| (0..n).map(|i| at(i, c)).sum::<f64>() / n as f64)
        .collect();
    let mut matrix = vec![0.0; d * d];
    for a in 0..d {
        for b in 0..d {
            matrix[a * d + b] = (0..n)
                .map(|i| (at(i, a) - mean[a]) * (at(i, b) - mean[b]))
                .sum::<f64>()
                / n as f64;
        }
    }
    matrix
}

/// All eigenpairs, by descending eigenvalue: classical Jacobi, which eliminates the largest
/// off-diagonal entry until none is left.
fn eigenpairs(mut a: Vec<f64>, d: usize) -> Vec<(f64, Vec<f64>)> {
    let mut v = vec![0.0; d * d];
    (0..d).for_each(|i| v[i * d + i] = 1.0);
    let trace: f64 = (0..d).map(|i| a[i * d + i].abs()).sum();
    for _ in 0..40 * d * d {
        let (mut p, mut q, mut largest) = (0, 0, 0.0);
        for i in 0..d {
            for j in i + 1..d {
                if a[i * d + j].abs() > largest {
                    (p, q, largest) = (i, j, a[i * d + j].abs());
                }
            }
        }
        if largest <= 1e-15 * trace {
            break;
        }
        let angle = 0.5 * (2.0 * a[p * d + q]).atan2(a[q * d + q] - a[p * d + p]);
        let (s, c) = angle.sin_cos();
        for k in 0..d {
            let (x, y) = (a[k * d + p], a[k * d + q]);
            (a[k * d + p], a[k * d + q]) = (c * x - s * y, s * x + c * y);
        }
        for k in 0..d {
            let (x, y) = (a[p * d + k], a[q * d + k]);
            (a[p * d + k], a[q * d + k]) = (c * x - s * y, s * x + c * y);
            let (x, y) = (v[k * d + p], v[k * d + q]);
            (v[k * d + p], v[k * d + q]) = (c * x - s * y, s * x + c * y);
        }
    }
    let mut pairs: Vec<(f64, Vec<f64>)> = (0..d)
        .map(|j| (a[j * d + j], (0..d).map(|i| v[i * d + j]).collect()))
        .collect();
    pairs.sort_by(|x, y| y.0.total_cmp(&x.0));
    pairs
}

/// The entry of largest magnitude is positive, as documented.
fn oriented(vector: &[f64]) -> Vec<f64> {
    let largest = vector
        .iter()
        .copied()
        .fold(0.0f64, |m, x| if x.abs() > m.abs() { x } else { m });
    vector.iter().map(|x| x * largest.signum()).collect()
}

#[test]
fn components_agree_with_the_whole_spectrum() {
    let (mut worst_value, mut worst_entry) = (0f64, 0f64);
    for (n, d, k) in [
        (200, 5, 3),
        (50, 40, 3),
        (300, 61, 7),
        (9, 48, 3),
        (33, 1, 1),
        (40, 2, 2),
        (100, 8, 8),
        (64, 17, 17),
    ] {
        let samples = samples(n, d, 5, 2.0, (n * d) as u64);
        let pca = Pca::fit(&samples, d, k).unwrap();
        let reference = eigenpairs(covariance(&samples, d), d);
        for j in 0..k {
            let scale = reference[0].0;
            let value = (pca.variances()[j] - reference[j].0).abs() / scale;
            worst_value = worst_value.max(value);
            // Directions of nearly equal eigenvalues are determined by rounding.
            let gap = |other: usize| match reference.get(other) {
                Some(pair) if other != j => (reference[j].0 - pair.0).abs() / scale,
                _ => f64::INFINITY,
            };
            if gap(j.wrapping_sub(1)).min(gap(j + 1)) < 1e-3 {
                continue;
            }
            let expected = oriented(&reference[j].1);
            for (entry, expected) in pca.directions()[j * d..][..d].iter().zip(&expected) {
                worst_entry = worst_entry.max((f64::from(*entry) - expected).abs());
            }
        }
    }
    println!("worst eigenvalue {worst_value:e} of the largest, worst entry {worst_entry:e}");
    // The samples are centered and stored in f32 (6e-8 each, averaged over the samples); the error
    // of a direction is that divided by the gap, which is at least 1e-3 here.
    assert!(worst_value < 1e-6, "{worst_value:e}");
    assert!(worst_entry < 2e-5, "{worst_entry:e}");
}

#[test]
fn equal_eigenvalues_are_all_found() {
    // The vectors ±e0, ±e1, ±e2 with the same length, and ±e3 with half of it: three equal
    // eigenvalues and a smaller one.
    let d = 50;
    let mut samples = vec![0f32; 8 * d];
    for axis in 0..4 {
        let length = if axis == 3 { 0.5 } else { 1.0 };
        samples[2 * axis * d + axis] = length;
        samples[(2 * axis + 1) * d + axis] = -length;
    }
    let pca = Pca::fit(&samples, d, 5).unwrap();
    for (value, expected) in pca.variances().iter().zip([0.25, 0.25, 0.25, 0.0625, 0.0]) {
        // Samples are stored in f32.
        assert!((value - expected).abs() < 1e-7, "{:?}", pca.variances());
    }
    for j in 0..4 {
        for i in 0..=j {
            let (a, b) = (
                &pca.directions()[i * d..][..d],
                &pca.directions()[j * d..][..d],
            );
            let dot: f32 = a.iter().zip(b).map(|(a, b)| a * b).sum();
            let expected = if i == j { 1.0 } else { 0.0 };
            assert!((dot - expected).abs() < 1e-6, "{i} {j}: {dot}");
        }
    }
    assert!(pca.directions()[4 * d..].iter().all(|&entry| entry == 0.0));
}

#[test]
fn projection_is_the_centered_dot_product() {
    for d in [1, 3, 16, 37, 384] {
        let samples = samples(60, d, 4, 100.0, d as u64);
        let k = d.min(3);
        let pca = Pca::fit(&samples, d, k).unwrap();
        let mut out = vec![0f32; 60 * k];
        pca.project(&samples, &mut out).unwrap();
        let mut worst = 0f64;
        for (i, row) in samples.chunks_exact(d).enumerate() {
            for j in 0..k {
                let direction = &pca.directions()[j * d..][..d];
                let centered = row.iter().zip(pca.mean());
                let exact: f64 = centered
                    .zip(direction)
                    .map(|((&x, &m), &v)| (f64::from(x) - f64::from(m)) * f64::from(v))
                    .sum();
                worst = worst.max((exact - f64::from(out[i * k + j])).abs());
            }
        }
        let scale = pca.variances()[0].sqrt();
        println!("d {d}: worst {worst:e} at standard deviation {scale:.2}");
        // Offsets of 600 cause errors of at most 600 * 2^-24 = 4e-5 in the centered values.
        assert!(worst < 1e-4 + 1e-5 * scale, "{worst:e}");
    }
}

#[test]
fn the_same_samples_give_the_same_bits() {
    let samples = samples(300, 96, 6, 1.0, 3);
    let one = Pca::fit(&samples, 96, 3).unwrap();
    let again = Pca::fit(&samples, 96, 3).unwrap();
    assert_eq!(one, again);
    // Mirrored samples have the same directions because of the sign convention.
    let mirrored: Vec<f32> = samples.iter().map(|x| -x).collect();
    let mirrored = Pca::fit(&mirrored, 96, 3).unwrap();
    assert_eq!(one.directions(), mirrored.directions());
}

#[test]
fn constant_samples_and_too_few_have_zero_directions() {
    for value in [0.0, 0.1, -1e30, 3e-39, 12345.678] {
        let pca = Pca::fit(&vec![value; 70 * 11], 11, 3).unwrap();
        assert!(pca.directions().iter().all(|&v| v == 0.0), "{value}");
        let mut out = vec![1f32; 70 * 3];
        pca.project(&vec![value; 70 * 11], &mut out).unwrap();
        assert!(out.iter().all(|&v| v == 0.0), "{value}: {out:?}");
    }
    for n in 1..=3 {
        let pca = Pca::fit(&samples(n, 20, 5, 1.0, 9), 20, 3).unwrap();
        for j in 0..3 {
            let length: f32 = pca.directions()[j * 20..][..20].iter().map(|v| v * v).sum();
            let expected = if j + 1 < n { 1.0 } else { 0.0 };
            assert!((length - expected).abs() < 1e-5, "n {n}, {j}: {length}");
        }
    }
}

#[test]
fn extreme_scales_do_not_matter() {
    let plain = samples(100, 30, 4, 0.0, 5);
    let expected = Pca::fit(&plain, 30, 3).unwrap();
    // Powers of two are exact.
    for power in [-100, 100] {
        let scaled: Vec<f32> = plain.iter().map(|x| x * 2f32.powi(power)).collect();
        let pca = Pca::fit(&scaled, 30, 3).unwrap();
        assert_eq!(pca.directions(), expected.directions(), "2^{power}");
    }
}

#[test]
fn bad_input_is_refused_in_one_line() {
    let good = vec![1f32; 12];
    let mut nan = samples(4, 3, 1, 0.0, 1);
    nan[7] = f32::NAN;
    let mut infinite = samples(4, 3, 1, 0.0, 1);
    infinite[11] = f32::NEG_INFINITY;
    for (result, part) in [
        (Pca::fit(&nan, 3, 2), "sample 2, channel 1 is NaN"),
        (Pca::fit(&infinite, 3, 2), "sample 3, channel 2 is -inf"),
        (Pca::fit(&[], 3, 2), "0 values"),
        (Pca::fit(&good, 5, 2), "12 values"),
        (Pca::fit(&good, 0, 1), "expected 1 to 0"),
        (Pca::fit(&good, 3, 4), "expected 1 to 3"),
        (Pca::fit(&good, 3, 0), "expected 1 to 3"),
    ] {
        let message = result.unwrap_err().to_string();
        assert!(
            message.contains(part) && !message.contains('\n'),
            "{message}"
        );
    }
    let pca = Pca::fit(&good, 3, 2).unwrap();
    assert!(pca.project(&good, &mut [0.0; 7]).is_err());
    assert!(pca.project(&good[..11], &mut [0.0; 6]).is_err());
    let none = CommonBasis::fit(&[], 3, 2);
    assert!(matches!(none, Err(PcaError::NoSets)));
    let second = CommonBasis::fit(&[(&good, 4), (&nan, 4)], 3, 2).unwrap_err();
    assert!(
        second.to_string().starts_with("set 1: sample 2"),
        "{second}"
    );
    assert!(CommonBasis::fit(&[(&good, 5)], 3, 2).is_err());
    assert!(CommonBasis::fit(&[(&good, usize::MAX)], 3, 2).is_err());
}

#[test]
fn the_common_basis_looks_through_offset_and_scale() {
    // The same features twice, the second set with another offset and scale.
    let d = 24;
    let one = samples(200, d, 4, 1.0, 8);
    let two: Vec<f32> = one
        .iter()
        .enumerate()
        .map(|(i, x)| x * 40.0 + (i % d) as f32 * 3.0)
        .collect();
    let basis = CommonBasis::fit(&[(&one, 200), (&two, 200)], d, 3).unwrap();
    let alone = Pca::fit(&one, d, 3).unwrap();
    let mut worst = 0f32;
    for (a, b) in basis.directions().iter().zip(alone.directions()) {
        worst = worst.max((a - b).abs());
    }
    let (mut p, mut q) = (vec![0f32; 600], vec![0f32; 600]);
    basis.project(0, &one, &mut p).unwrap();
    basis.project(1, &two, &mut q).unwrap();
    for (a, b) in p.iter().zip(&q) {
        worst = worst.max((a - b).abs());
    }
    println!("worst {worst:e}");
    // f32 rounding of values of about 100, with a spread of 1 after scaling.
    assert!(worst < 1e-4, "{worst:e}");
    let mut rest = vec![0f32; 3];
    assert!(matches!(
        basis.project(2, &one[..d], &mut rest),
        Err(PcaError::NoSuchSet { set: 2, sets: 2 })
    ));
}

#[test]
fn sets_weigh_the_same_whatever_their_size() {
    // A large set varies mostly along channel 0, a small one only along channel 1: channel 1 wins
    // with equal weight per set, and would lose with equal weight per sample.
    let mut noise = Noise(1);
    let large: Vec<f32> = (0..3000)
        .flat_map(|_| [noise.next(), 0.0, 0.5 * noise.next()])
        .collect();
    let small: Vec<f32> = (0..50).flat_map(|_| [0.0, noise.next(), 0.0]).collect();
    let basis = CommonBasis::fit(&[(&large, 3000), (&small, 50)], 3, 2).unwrap();
    let directions = basis.directions();
    assert!(directions[1] > 0.999, "{directions:?}");
    assert!(directions[3] > 0.999, "{directions:?}");
}

#[test]
fn the_range_spans_the_middle_98_percent() {
    let d = 2;
    // A ramp along channel 0 with one extreme outlier.
    let mut ramp: Vec<f32> = (0..1001).flat_map(|i| [i as f32, 0.0]).collect();
    ramp[2000] = 1e6;
    let basis = CommonBasis::fit(&[(&ramp, 1001)], d, 2).unwrap();
    let mut projected = vec![0f32; 1001 * 2];
    basis.project(0, &ramp, &mut projected).unwrap();
    let range = basis.range();
    let (low, high) = range.ends(0);
    assert_eq!((low, high), (projected[2 * 10], projected[2 * 990]));
    assert_eq!(range.level(0, low), 0);
    assert_eq!(range.level(0, high), 255);
    assert_eq!(range.level(0, (low + high) / 2.0), 128);
    assert_eq!(range.level(0, f32::NEG_INFINITY), 0);
    assert_eq!(range.level(0, f32::INFINITY), 255);
    assert_eq!(range.level(0, f32::NAN), 0);
    // The second component is constant.
    assert_eq!(range.level(1, 0.0), 128);
}

#[test]
fn constant_sets_leave_the_basis_to_the_others() {
    let flat = vec![0.3f32; 40 * 6];
    let varied = samples(90, 6, 3, 1.0, 2);
    let basis = CommonBasis::fit(&[(&flat, 40), (&varied, 90)], 6, 3).unwrap();
    let alone = CommonBasis::fit(&[(&varied, 90)], 6, 3).unwrap();
    for (a, b) in basis.directions().iter().zip(alone.directions()) {
        assert!((a - b).abs() < 1e-6);
    }
    let mut out = vec![1f32; 40 * 3];
    basis.project(0, &flat, &mut out).unwrap();
    assert!(out.iter().all(|&v| v == 0.0));
    let nothing = CommonBasis::fit(&[(&flat, 40)], 6, 3).unwrap();
    assert!(nothing.directions().iter().all(|&v| v == 0.0));
    assert_eq!(nothing.range().level(0, 0.0), 128);
}

#[test]
fn a_wide_set_takes_well_under_a_minute() {
    for (n, d) in [(2000, 768), (2000, 1024)] {
        let samples = samples(n, d, 40, 1.0, 4);
        let start = Instant::now();
        let pca = Pca::fit(&samples, d, 3).unwrap();
        println!("Pca::fit at n {n}, d {d}: {:?}", start.elapsed());
        // Detects the cubic algorithm; not a benchmark. It usually takes a fraction of a second.
        assert!(start.elapsed().as_secs() < 60);
        assert!(pca.variances()[2] > 0.0);
    }
}
