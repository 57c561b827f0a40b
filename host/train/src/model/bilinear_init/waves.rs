//! Approximates sines and cosines of any low frequency by those of the guidance.

use crate::model::least_squares::solve;

/// Range of the frequencies that are combined.
const COMBINED: std::ops::Range<f32> = 0.2..8.0;
/// Added to the diagonal of the normal equations, relative to the number of points: keeps the
/// coefficients small.
const RIDGE: f64 = 1e-6;
/// Number of points for the fit.
const POINTS: usize = 401;

/// Returns the factor from pixel to token coordinates. Both are -1 and 1 at the centers of the first and
/// the last one.
pub(super) fn scale(tokens: usize, pixels: usize) -> f64 {
    let (tokens, pixels) = (tokens as f64, pixels as f64);
    (tokens - tokens / pixels) / (tokens - 1.0).max(1.0)
}

/// Returns indices of frequencies, and coefficients with which their sinusoids add up to `wave(wanted * x)`
/// for x in -1 to 1. `None` if there are too few low frequencies, or they include the lowest one, which is
/// used for something else.
pub(super) fn combine(
    frequencies: &[f32],
    wanted: f64,
    wave: fn(f64) -> f64,
) -> Option<Vec<(usize, f32)>> {
    let chosen: Vec<usize> = (0..frequencies.len())
        .filter(|&k| COMBINED.contains(&frequencies[k]))
        .collect();
    if chosen.len() < 4 || chosen[0] == 0 {
        return None;
    }
    let n = chosen.len();
    let (mut gram, mut right) = (vec![0.0; n * n], vec![0.0; n]);
    for point in 0..POINTS {
        let x = 2.0 * point as f64 / (POINTS - 1) as f64 - 1.0;
        let waves: Vec<f64> = chosen
            .iter()
            .map(|&k| wave(f64::from(frequencies[k]) * x))
            .collect();
        for (i, a) in waves.iter().enumerate() {
            for (g, b) in gram[i * n..][..n].iter_mut().zip(&waves) {
                *g += a * b;
            }
            right[i] += a * wave(wanted * x);
        }
    }
    for i in 0..n {
        gram[i * (n + 1)] += RIDGE * POINTS as f64;
    }
    solve(&mut gram, n, &mut right, 1)?;
    Some(
        chosen
            .into_iter()
            .zip(right.iter().map(|c| *c as f32))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use loftup_spec::frequencies;

    #[test]
    fn waves_of_other_frequencies_are_met() {
        let all = frequencies(20);
        // 1.33 is the scale of four tokens, 1.02 that of sixty-four; 2.72 the keys' frequency.
        for wanted in [2.72 * 1.02, 2.72 * 1.06, 2.72 * 1.33] {
            for wave in [f64::sin, f64::cos] {
                let found = combine(&all, wanted, wave).unwrap();
                let worst = (0..=1000)
                    .map(|i| f64::from(i) / 500.0 - 1.0)
                    .map(|x| {
                        let sum: f64 = found
                            .iter()
                            .map(|&(k, c)| f64::from(c) * wave(f64::from(all[k]) * x))
                            .sum();
                        (sum - wave(wanted * x)).abs()
                    })
                    .fold(0.0, f64::max);
                let most = found.iter().map(|(_, c)| c.abs()).fold(0.0, f32::max);
                println!("{wanted:.2}: off by {worst:.1e}, coefficients up to {most:.1}");
                // A sixteenth of the image is an angle of 0.36.
                assert!(worst < 0.01 && most < 4.0);
            }
        }
        assert!(combine(&frequencies(4), 2.72, f64::sin).is_none());
    }
}
