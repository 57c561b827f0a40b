//! Vectorized `exp`, `erf` and GELU.
//!
//! The polynomials are minimax fits; the tests below measure their errors against 64-bit
//! references.

use crate::simd::{Simd, SimdOp, SupportedIsa, dispatch};

/// `c[0] + c[1] x + ...`
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(x: S::V, c: [f32; N]) -> S::V {
    let mut sum = S::splat(c[N - 1]);
    for i in (0..N - 1).rev() {
        sum = S::fma(sum, x, S::splat(c[i]));
    }
    sum
}

/// `exp(x)` with a relative error below 3e-7. The input is clamped to -87..=88, so that anything
/// below gives a value below 2e-38.
#[inline(always)]
pub(crate) fn exp<S: Simd>(x: S::V) -> S::V {
    // ln 2 in two parts, the first with few enough bits that its product with n is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = S::min(S::max(x, S::splat(-87.0)), S::splat(88.0));
    let n = S::round(S::mul(x, S::splat(std::f32::consts::LOG2_E)));
    let r = S::fma(n, S::splat(-LN2_HIGH), x);
    let r = S::fma(n, S::splat(-LN2_LOW), r);
    let y = polynomial::<S, 7>(
        r,
        [
            1.0,
            1.0,
            0.499_999_9,
            0.166_664_11,
            0.041_668_29,
            0.008_375_636,
            0.001_383_580_2,
        ],
    );
    S::ldexp(y, n)
}

/// SiLU, `x / (1 + exp(-x))`.
#[inline(always)]
pub(crate) fn silu<S: Simd>(x: S::V) -> S::V {
    let one = S::splat(1.0);
    S::div(x, S::add(one, exp::<S>(S::sub(S::splat(0.0), x))))
}

/// `erf(x)` with an absolute error below 3e-7.
#[inline(always)]
pub(crate) fn erf<S: Simd>(x: S::V) -> S::V {
    let zero = S::splat(0.0);
    let abs = S::max(x, S::sub(zero, x));
    // Below 1: a polynomial in odd powers of x. Above: 1 - exp(polynomial). From 4 on erfc is less
    // than half an ulp of 1.
    let low = polynomial::<S, 7>(
        S::mul(x, x),
        [
            std::f32::consts::FRAC_2_SQRT_PI,
            -0.376_126_26,
            0.112_836,
            -0.026_854_444,
            0.005_189_535,
            -8.020_839e-4,
            7.889_113e-5,
        ],
    );
    let low = S::mul(abs, low);
    let high = polynomial::<S, 9>(
        S::min(abs, S::splat(4.0)),
        [
            -1.937_097_1e-4,
            1.129_607_3,
            0.633_156_5,
            0.108_496_56,
            -0.025_267_06,
            0.004_232_391,
            -4.494_045_6e-4,
            2.299_661_7e-5,
            -9.112_818e-8,
        ],
    );
    let high = S::sub(S::splat(1.0), exp::<S>(S::sub(zero, high)));
    let abs_erf = S::select_lt(abs, S::splat(1.0), low, high);
    S::select_lt(x, zero, S::sub(zero, abs_erf), abs_erf)
}

/// `x/2 (1 + erf(x / sqrt 2))`
#[inline(always)]
fn gelu_vector<S: Simd>(x: S::V) -> S::V {
    let e = erf::<S>(S::mul(x, S::splat(std::f32::consts::FRAC_1_SQRT_2)));
    let half = S::mul(x, S::splat(0.5));
    S::fma(half, e, half)
}

/// Defines a function that applies `$function` to all values in place. Their number is a multiple of
/// `LANES`.
macro_rules! elementwise {
    ($(#[$doc:meta])* $name:ident, $op:ident, $function:ident) => {
        $(#[$doc])*
        pub(crate) fn $name(isa: SupportedIsa, values: &mut [f32]) {
            struct $op<'a>(&'a mut [f32]);
            impl SimdOp for $op<'_> {
                type Output = ();
                #[inline(always)]
                fn eval<S: Simd>(self) {
                    let mut vectors = self.0.chunks_exact_mut(S::LANES);
                    for x in &mut vectors {
                        S::store(x, $function::<S>(S::load(x)));
                    }
                    debug_assert!(vectors.into_remainder().is_empty());
                }
            }
            dispatch(isa, $op(values));
        }
    };
}

elementwise!(
    /// Exact (erf) GELU, in place.
    gelu,
    Gelu,
    gelu_vector
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference;

    elementwise!(exponential, Exponential, exp);
    elementwise!(error_function, ErrorFunction, erf);
    elementwise!(sigmoid_linear, SigmoidLinear, silu);

    fn max_error(
        name: &str,
        f: fn(SupportedIsa, &mut [f32]),
        reference: impl Fn(f64) -> f64,
        range: (f64, f64),
        relative: bool,
    ) -> f64 {
        let n = 1 << 18;
        let x: Vec<f32> = (0..n)
            .map(|i| (range.0 + (range.1 - range.0) * f64::from(i) / f64::from(n - 1)) as f32)
            .collect();
        let mut worst: f64 = 0.0;
        for isa in SupportedIsa::all() {
            let mut y = x.clone();
            f(isa, &mut y);
            let error = x
                .iter()
                .zip(&y)
                .map(|(x, y)| {
                    let exact = reference(f64::from(*x));
                    let scale = if relative { exact.abs() } else { 1.0 };
                    (f64::from(*y) - exact).abs() / scale
                })
                .fold(0.0, f64::max);
            println!("{name}, {isa}: maximum error {error:.1e}");
            worst = worst.max(error);
        }
        worst
    }

    #[test]
    fn exp_is_accurate_to_a_few_ulps() {
        assert!(max_error("exp", exponential, f64::exp, (-86.9, 0.0), true) < 3e-7);
        assert!(max_error("exp", exponential, f64::exp, (0.0, 87.9), true) < 3e-7);
        // Far below the range the result must underflow, not wrap.
        assert!(max_error("exp", exponential, f64::exp, (-1e30, -86.0), false) < 1e-37);
    }

    #[test]
    fn erf_is_accurate_to_a_few_ulps() {
        for range in [(-1.1, 1.1), (-6.0, 6.0), (-1e4, 1e4)] {
            assert!(max_error("erf", error_function, reference::erf, range, false) < 3e-7);
        }
    }

    #[test]
    fn gelu_is_accurate_to_a_few_ulps() {
        let exact = |x: f64| 0.5 * x * (1.0 + reference::erf(x / 2f64.sqrt()));
        // One rounding of erf near 1, times x/2, and one of the sum.
        assert!(max_error("gelu", gelu, exact, (-8.0, 8.0), false) < 1e-6);
        assert!(max_error("gelu", gelu, exact, (8.0, 1e6), true) < 3e-7);
    }
    #[test]
    fn silu_is_accurate_to_a_few_ulps() {
        let exact = |x: f64| x / (1.0 + (-x).exp());
        assert!(max_error("silu", sigmoid_linear, exact, (-40.0, 40.0), true) < 6e-7);
        assert!(max_error("silu", sigmoid_linear, exact, (-1e4, -40.0), false) < 1e-15);
        assert!(max_error("silu", sigmoid_linear, exact, (40.0, 1e4), true) < 3e-7);
    }
}
