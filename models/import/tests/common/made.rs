//! The tensors of fixtures that `tools/make_text_fixtures.py` makes, which does not store them.

use std::collections::BTreeMap;

use loftup_onnx::Tensor;

/// As in the script: the value of an index, in [0, 1).
pub fn hash(i: usize) -> f32 {
    let x = (i as u32 + 1).wrapping_mul(0x9E37_79B9);
    let x = (x ^ x >> 15).wrapping_mul(0x85EB_CA6B);
    let x = (x ^ x >> 13).wrapping_mul(0xC2B2_AE35);
    ((x ^ x >> 16) >> 8) as f32 / (1 << 24) as f32
}

/// The tensors with these names and shapes, and the number of their elements.
pub fn tensors(listed: &[(String, Vec<usize>)]) -> (BTreeMap<String, Tensor>, usize) {
    let mut first = 0;
    let tensors = listed.iter().map(|(name, shape)| {
        let norm = shape.len() == 1 && name.ends_with("weight");
        let tensor = Tensor::from_fn(shape.clone(), |i| match hash(first + i) - 0.5 {
            v if norm => v * 0.5 + 1.0,
            v => v * 0.75,
        });
        first += tensor.data().len();
        (name.clone(), tensor)
    });
    (tensors.collect(), first)
}
