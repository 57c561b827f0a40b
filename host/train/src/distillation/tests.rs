use super::*;
use crate::rng::{Purpose, Rng};

const D: usize = 21;

/// Features of 5 dimensions that matter, noise, and a mean.
fn features(n: usize) -> Vec<f32> {
    let mut rng = Rng::new(5, Purpose::Weights, 0);
    let mut normal = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.normal()).collect() };
    let (basis, mean) = (normal(5 * D), normal(D));
    let mut out = Vec::new();
    for _ in 0..n {
        let (f, noise) = (normal(5), normal(D));
        out.extend((0..D).map(|c| {
            let sum: f32 = (0..5).map(|r| f[r] * basis[r * D + c]).sum();
            sum + 3.0 * mean[c] + 0.1 * noise[c]
        }));
    }
    out
}

#[test]
fn channels_hold_what_the_principal_components_hold() {
    let x = features(400);
    let k = 8;
    let channels = PrincipalChannels::fit(&x, D, k, &[]).unwrap();
    // Without kept rows they are the components, which the runtime's tests compare with a full
    // eigendecomposition.
    let pca = Pca::fit(&x, D, k).unwrap();
    assert_eq!(channels.weight(), pca.directions());
    let (_, deviation) = statistics(&x, D);
    let all: f64 = deviation.iter().map(|s| f64::from(*s).powi(2)).sum();
    let share = pca.variances().iter().sum::<f64>() / all;
    assert!((channels.explained_variance(&x) - share).abs() < 1e-4);
    // A plain product, after the mean is subtracted.
    let found = channels.apply(&x);
    for (row, found) in x.chunks_exact(D).zip(found.chunks_exact(k)) {
        for (weights, found) in channels.weight().chunks_exact(D).zip(found) {
            let centered = row.iter().zip(pca.mean()).map(|(x, m)| f64::from(x - m));
            let sum: f64 = weights
                .iter()
                .zip(centered)
                .map(|(w, x)| f64::from(*w) * x)
                .sum();
            assert!((sum - f64::from(*found)).abs() < 1e-3);
        }
    }
}

#[test]
fn a_linear_map_that_is_kept_loses_nothing() {
    let x = features(200);
    let mut rng = Rng::new(9, Purpose::Weights, 0);
    // Three rows, and one that depends on them.
    let mut weight: Vec<f32> = (0..3 * D).map(|_| rng.normal()).collect();
    let sum: Vec<f32> = (0..D).map(|c| weight[c] - 2.0 * weight[D + c]).collect();
    weight.extend(sum);
    let bias = [1.0, -2.0, 0.5, 3.0];
    let error = |kept: &[f32]| {
        let channels = PrincipalChannels::fit(&x, D, 5, kept).unwrap();
        for (i, a) in channels.weight().chunks_exact(D).enumerate() {
            for (j, b) in channels.weight().chunks_exact(D).enumerate() {
                assert!((dot(a, b) - f32::from(u8::from(i == j))).abs() < 1e-4);
            }
        }
        let (w, b) = channels.compose(&weight, &bias);
        let mut worst = 0.0f32;
        for (x, y) in x.chunks_exact(D).zip(channels.apply(&x).chunks_exact(5)) {
            for row in 0..4 {
                let wide = dot(&weight[row * D..][..D], x) + bias[row];
                let compact = dot(&w[row * 5..][..5], y) + b[row];
                worst = worst.max((wide - compact).abs());
            }
        }
        worst
    };
    let (kept, not_kept) = (error(&weight), error(&[]));
    println!("worst error {kept:.1e} where rows are kept, {not_kept:.1e} otherwise");
    assert!(kept < 1e-3);
    assert!(not_kept > 1e-2);
    let error = PrincipalChannels::fit(&x, D, 2, &weight).unwrap_err();
    assert!(error.contains("need 3 channels"), "{error}");
}

#[test]
fn a_file_keeps_them_and_says_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("channels.safetensors");
    let channels = PrincipalChannels::fit(&features(60), D, 6, &[]).unwrap();
    channels.write(&path).unwrap();
    assert_eq!(PrincipalChannels::read(&path, 6, D).unwrap(), channels);
    let error = PrincipalChannels::read(&path, 7, D)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("[7, 21]") && error.contains("channels.safetensors"),
        "{error}"
    );
}

#[test]
fn features_of_fewer_dimensions_have_fewer_channels() {
    let x: Vec<f32> = (0..60 * D).map(|i| (i / D) as f32).collect();
    let error = PrincipalChannels::fit(&x, D, 4, &[]).unwrap_err();
    assert!(error.contains("1 dimensions"), "{error}");
    assert!(PrincipalChannels::fit(&x, D, 0, &[]).is_err());
    assert!(PrincipalChannels::fit(&x, D, D + 1, &[]).is_err());
}
