//! The dot product.

/// Returns the dot product of two vectors, up to the shorter length. It is computed in eight interleaved
/// sums, which the compiler vectorizes.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a8, a_rest) = a.as_chunks::<8>();
    let (b8, b_rest) = b.as_chunks::<8>();
    let mut sums = [0f32; 8];
    for (a, b) in a8.iter().zip(b8) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

/// Appends the outputs of a linear layer `[k, d]` for one pixel `[d]`.
pub(crate) fn linear(weight: &[f32], bias: &[f32], pixel: &[f32], out: &mut Vec<f32>) {
    let rows = weight.chunks_exact(pixel.len()).zip(bias);
    out.extend(rows.map(|(row, bias)| dot(row, pixel) + bias));
}
