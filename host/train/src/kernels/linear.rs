//! Linear layers, optionally followed by the exact GELU.

use burn::backend::flex::FlexTensor;

use super::{
    Needs,
    matrix::{by_rows, column_sums, elements, extent, for_rows, matrix, product},
};

/// The error function, and the `e^(-x^2)` in it. Abramowitz and Stegun, Handbook of Mathematical
/// Functions, 7.1.26: maximum error 1.5e-7, using only operations that the compiler can vectorize.
pub(crate) fn erf(x: f32) -> (f32, f32) {
    let z = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let p = t
        * (0.254_829_6
            + t * (-0.284_496_74 + t * (1.421_413_7 + t * (-1.453_152 + t * 1.061_405_4))));
    let bell = exp(-z * z);
    ((1.0 - p * bell).copysign(x), bell)
}

/// e^x for x up to 88 without branches: 2^n in the exponent bits, and a series for the rest.
pub(crate) fn exp(x: f32) -> f32 {
    let x = x.clamp(-87.0, 88.0);
    // Adding and subtracting 1.5 * 2^23 rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // ln 2 in two parts, so that the remainder is exact.
    let r = (x - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let series = 1.0
        + r * (1.0
            + r * (0.5
                + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0))))));
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    series * power
}

/// `x * Phi(x)`, with the exact normal distribution.
fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2).0)
}

fn gelu_slope(x: f32) -> f32 {
    const DENSITY: f32 = 0.398_942_3;
    let (erf, bell) = erf(x * std::f32::consts::FRAC_1_SQRT_2);
    0.5 * (1.0 + erf) + x * DENSITY * bell
}

/// `x * weight^T + bias`; weight `[out, in]`, bias `[1, out]`.
pub(super) fn linear(x: &FlexTensor, weight: &FlexTensor, bias: &FlexTensor) -> FlexTensor {
    let ((n, inputs), cols) = (extent(x), extent(weight).0);
    let weight = by_rows(elements(weight), inputs);
    let mut y = product(by_rows(elements(x), inputs), weight.transposed());
    let bias = elements(bias);
    for_rows(&mut y, cols, |_, row| {
        for (y, b) in row.iter_mut().zip(bias) {
            *y += b;
        }
    });
    matrix(y, n, cols)
}

/// GELU of each element.
pub(super) fn gelu_of(x: &FlexTensor) -> FlexTensor {
    let (n, c) = extent(x);
    let xs = elements(x);
    let mut out = vec![0.0; n * c];
    for_rows(&mut out, c, |i, out| {
        for (o, &x) in out.iter_mut().zip(&xs[i * c..]) {
            *o = gelu(x);
        }
    });
    matrix(out, n, c)
}

/// The gradient of a GELU's input, given the gradient of its output.
pub(super) fn gelu_backward(grad: &FlexTensor, x: &FlexTensor) -> FlexTensor {
    let (n, c) = extent(x);
    let (g, xs) = (elements(grad), elements(x));
    let mut out = vec![0.0; n * c];
    for_rows(&mut out, c, |i, out| {
        for ((o, &x), g) in out.iter_mut().zip(&xs[i * c..]).zip(&g[i * c..]) {
            *o = g * gelu_slope(x);
        }
    });
    matrix(out, n, c)
}

/// Gradients of [`linear`] for x, weight and bias.
pub(super) fn linear_backward(
    grad: &FlexTensor,
    x: &FlexTensor,
    weight: &FlexTensor,
    needs: Needs,
) -> [Option<FlexTensor>; 3] {
    let ((n, cols), inputs) = (extent(grad), extent(x).1);
    let g = by_rows(elements(grad), cols);
    let (weight, x) = (
        by_rows(elements(weight), inputs),
        by_rows(elements(x), inputs),
    );
    [
        needs[0].then(|| matrix(product(g, weight), n, inputs)),
        needs[1].then(|| matrix(product(g.transposed(), x), cols, inputs)),
        needs[2].then(|| matrix(column_sums(elements(grad), cols), 1, cols)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The error function by its series, in 64 bits.
    fn slow_erf(x: f64) -> f64 {
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    }

    #[test]
    fn erf_is_within_5e_7_of_its_series() {
        let worst = (-400..=400)
            .map(|i| f64::from(i) * 0.01)
            .map(|x| (f64::from(erf(x as f32).0) - slow_erf(x)).abs())
            .fold(0.0, f64::max);
        println!("worst error of erf: {worst:.1e}");
        // 1.5e-7 from the formula, plus rounding of a few operations near 1.
        assert!(worst < 5e-7);
        assert_eq!(erf(30.0).0, 1.0);
        assert_eq!(erf(-30.0).0, -1.0);
    }

    #[test]
    fn exp_is_within_3e_7_of_the_true_value_relative_to_it() {
        let worst = (-8600..=8700)
            .map(|i| i as f32 * 0.01)
            .map(|x| (f64::from(exp(x)) / f64::from(x).exp() - 1.0).abs())
            .fold(0.0, f64::max);
        println!("worst relative error of exp: {worst:.1e}");
        assert!(worst < 3e-7);
        assert!(exp(-1e9) < 1e-37);
    }
}
