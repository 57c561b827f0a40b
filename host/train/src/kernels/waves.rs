//! Sines and cosines of the Fourier features, concatenated with other features.

use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::{
    Needs,
    matrix::{elements, extent, for_rows, matrix, reduce},
};

/// `[sin(x + a0), cos(x + a1), b]`, and the derivatives of the first two parts, `[n, 2k]`.
pub(super) fn forward(x: &FlexTensor, a: &FlexTensor, b: &FlexTensor) -> (FlexTensor, FlexTensor) {
    let ((n, k), (_, c)) = (extent(x), extent(b));
    let (xs, bs) = (elements(x), elements(b));
    let (for_sine, for_cosine) = elements(a).split_at(k);
    let cols = 2 * k + c;
    let (mut out, mut slopes) = (vec![0.0; n * cols], vec![0.0; n * 2 * k]);
    out.par_chunks_mut(cols)
        .zip(slopes.par_chunks_mut(2 * k))
        .zip(xs.par_chunks(k).zip(bs.par_chunks(c)))
        .with_min_len(64)
        .for_each(|((out, slopes), (x, b))| {
            let (waves, rest) = out.split_at_mut(2 * k);
            let (sines, cosines) = waves.split_at_mut(k);
            let (of_sines, of_cosines) = slopes.split_at_mut(k);
            for (((y, d), x), shift) in sines.iter_mut().zip(of_sines).zip(x).zip(for_sine) {
                (*y, *d) = (x + shift).sin_cos();
            }
            for (((y, d), x), shift) in cosines.iter_mut().zip(of_cosines).zip(x).zip(for_cosine) {
                let (sine, cosine) = (x + shift).sin_cos();
                (*y, *d) = (cosine, -sine);
            }
            rest.copy_from_slice(b);
        });
    (matrix(out, n, cols), matrix(slopes, n, 2 * k))
}

/// Gradients of [`forward`] for x, a and b.
pub(super) fn backward(
    grad: &FlexTensor,
    slopes: &FlexTensor,
    needs: Needs,
) -> [Option<FlexTensor>; 3] {
    let ((n, cols), (_, both)) = (extent(grad), extent(slopes));
    let (k, c) = (both / 2, cols - both);
    let (g, slopes) = (elements(grad), elements(slopes));
    let dx = needs[0].then(|| {
        let mut dx = vec![0.0; n * k];
        for_rows(&mut dx, k, |i, dx| {
            let ((g0, g1), (s0, s1)) = (
                g[i * cols..][..both].split_at(k),
                slopes[i * both..][..both].split_at(k),
            );
            for ((((d, g0), s0), g1), s1) in dx.iter_mut().zip(g0).zip(s0).zip(g1).zip(s1) {
                *d = g0 * s0 + g1 * s1;
            }
        });
        matrix(dx, n, k)
    });
    let da = needs[1].then(|| {
        let sums = reduce(n, both, |i, acc| {
            for ((a, g), s) in acc.iter_mut().zip(&g[i * cols..]).zip(&slopes[i * both..]) {
                *a += g * s;
            }
        });
        matrix(sums, 2, k)
    });
    let db = needs[2].then(|| {
        let mut db = vec![0.0; n * c];
        for_rows(&mut db, c, |i, db| {
            db.copy_from_slice(&g[i * cols + both..][..c]);
        });
        matrix(db, n, c)
    });
    [dx, da, db]
}
