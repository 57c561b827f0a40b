//! Random numbers that depend only on a seed and a position in the training.
//!
//! Every step uses its own stream, identified by the seed, a purpose and the step number, so there
//! is no state to save: a resumed training draws the same numbers as an uninterrupted one.

use loftup_spec::SplitMix64;

/// A random number generator.
#[derive(Debug, Clone)]
pub struct Rng {
    stream: SplitMix64,
    spare: Option<f32>,
}

/// The purpose of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// Initial weights.
    Weights = 1,
    /// Order of the images in an epoch.
    Order = 2,
    /// Random choices of a training step.
    Step = 3,
}

impl Rng {
    /// Creates the stream for a purpose.
    pub fn new(seed: u64, purpose: Purpose, index: u64) -> Self {
        let (mix, gamma) = (SplitMix64::mix, SplitMix64::GAMMA);
        let state = mix(mix(seed.wrapping_add(gamma)) ^ (purpose as u64).wrapping_mul(gamma));
        Self {
            stream: SplitMix64::new(mix(state ^ index.wrapping_mul(gamma))),
            spare: None,
        }
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.stream.next_u64()
    }

    /// Uniform in 0..1, 24 bits.
    pub fn uniform(&mut self) -> f32 {
        self.stream.uniform()
    }

    /// Uniform in `0..n`; 0 if `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        self.stream.below(n)
    }

    /// Normal with mean 0 and standard deviation 1 (Box-Muller).
    pub fn normal(&mut self) -> f32 {
        if let Some(x) = self.spare.take() {
            return x;
        }
        let radius = (-2.0 * f64::from(1.0 - self.uniform()).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * f64::from(self.uniform())).sin_cos();
        self.spare = Some((radius * sin) as f32);
        (radius * cos) as f32
    }

    /// A random permutation of `0..n` (Fisher-Yates).
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_repeat_and_differ_by_name() {
        let first = |seed, purpose, index| Rng::new(seed, purpose, index).bits();
        assert_eq!(first(1, Purpose::Step, 5), first(1, Purpose::Step, 5));
        assert_ne!(first(1, Purpose::Step, 5), first(1, Purpose::Step, 6));
        assert_ne!(first(1, Purpose::Step, 5), first(2, Purpose::Step, 5));
        assert_ne!(first(1, Purpose::Step, 5), first(1, Purpose::Order, 5));
    }

    #[test]
    fn normal_has_mean_0_and_deviation_1() {
        let mut rng = Rng::new(0, Purpose::Step, 0);
        let x: Vec<f64> = (0..100_000).map(|_| f64::from(rng.normal())).collect();
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / x.len() as f64;
        // Four standard errors: 4 / sqrt(1e5), 4 * sqrt(2 / 1e5).
        assert!(
            mean.abs() < 0.0127 && (variance - 1.0).abs() < 0.018,
            "{mean} {variance}"
        );
    }

    #[test]
    fn a_permutation_has_each_once_and_below_keeps_below() {
        let mut rng = Rng::new(7, Purpose::Order, 0);
        let mut order = rng.permutation(100);
        assert_ne!(order, (0..100).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
        assert!((0..1000).all(|_| rng.below(3) < 3));
    }
}
