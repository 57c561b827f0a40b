//! Group normalization: statistics over the whole image, in 64 bits.

use std::sync::Arc;

use loftup_spec::{
    naf::{Branch, EPS, GROUPS, LAYERS, WIDTH},
    weights::AffineWeights,
};

use crate::simd::{Simd, SimdOp, SupportedIsa, dispatch};

/// Sums and sums of squares of each channel, and the number of pixels.
#[derive(Debug, Clone)]
pub(super) struct Sums {
    sums: [f64; WIDTH],
    squares: [f64; WIDTH],
    pixels: usize,
}

impl Sums {
    /// Computes the sums over pixels `[n, 128]`.
    pub fn of(isa: SupportedIsa, pixels: &[f32]) -> Self {
        dispatch(isa, SumOp(pixels))
    }

    /// Adds two sets of sums.
    pub fn merged(mut self, other: &Self) -> Self {
        for c in 0..WIDTH {
            self.sums[c] += other.sums[c];
            self.squares[c] += other.squares[c];
        }
        self.pixels += other.pixels;
        self
    }

    pub fn zero() -> Self {
        Self {
            sums: [0.0; WIDTH],
            squares: [0.0; WIDTH],
            pixels: 0,
        }
    }
}

struct SumOp<'a>(&'a [f32]);

impl SimdOp for SumOp<'_> {
    type Output = Sums;

    #[inline(always)]
    fn eval<S: Simd>(self) -> Sums {
        let mut all = Sums::zero();
        for pixel in self.0.as_chunks::<WIDTH>().0 {
            for (c, x) in pixel.iter().enumerate() {
                let x = f64::from(*x);
                all.sums[c] += x;
                all.squares[c] += x * x;
            }
            all.pixels += 1;
        }
        all
    }
}

/// A group normalization with known statistics: a scale and an offset for each channel.
#[derive(Debug, Clone)]
pub(super) struct Affine {
    pub scale: [f32; WIDTH],
    pub shift: [f32; WIDTH],
}

impl Affine {
    /// The identity.
    pub const IDENTITY: Self = Self {
        scale: [1.0; WIDTH],
        shift: [0.0; WIDTH],
    };

    /// Creates the normalization `norm` with the statistics of `sums`.
    pub fn new(norm: &AffineWeights, sums: &Sums) -> Self {
        const SIZE: usize = WIDTH / GROUPS;
        let mut affine = Self::IDENTITY;
        let count = (sums.pixels * SIZE).max(1) as f64;
        for group in 0..GROUPS {
            let channels = group * SIZE..(group + 1) * SIZE;
            let mean = sums.sums[channels.clone()].iter().sum::<f64>() / count;
            let square = sums.squares[channels.clone()].iter().sum::<f64>() / count;
            let variance = (square - mean * mean).max(0.0);
            for c in channels {
                let scale = f64::from(norm.weight[c]) / (variance + f64::from(EPS)).sqrt();
                affine.scale[c] = scale as f32;
                affine.shift[c] = (f64::from(norm.bias[c]) - mean * scale) as f32;
            }
        }
        affine
    }
}

/// The normalizations of an image, by branch and layer.
#[derive(Debug, Clone)]
pub(super) struct Statistics(Arc<[[Affine; LAYERS]; 2]>);

impl Default for Statistics {
    fn default() -> Self {
        let branch = || std::array::from_fn(|_| Affine::IDENTITY);
        Self(Arc::new([branch(), branch()]))
    }
}

impl Statistics {
    pub fn of(&self, branch: Branch) -> &[Affine; LAYERS] {
        &self.0[branch as usize]
    }

    pub fn of_mut(&mut self, branch: Branch) -> &mut [Affine; LAYERS] {
        &mut Arc::make_mut(&mut self.0)[branch as usize]
    }
}
