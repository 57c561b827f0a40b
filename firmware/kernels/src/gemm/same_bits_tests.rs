//! Integer products on all instruction sets of the CPU, compared bit by bit: sums are exact, so only what is
//! computed in 32 bits may differ between instruction sets.

use super::{
    Epilogue, NarrowColumns, Packed, Scratch,
    narrow_tests::{formats, multiply_rows},
    nr,
};
use crate::{
    reference::noise,
    simd::{Format, SupportedFormat},
};

/// Rows, depth and columns; the latter are a multiple of every `NR`.
const SHAPES: [(usize, usize, usize); 4] = [(1, 1, 32), (7, 3, 64), (13, 404, 32), (25, 2001, 96)];

/// `a b` for row-major matrices, from panels of activations and a packed left operand.
fn from_panels(
    format: SupportedFormat,
    a: &[f32],
    b: &[f32],
    (rows, depth, columns): (usize, usize, usize),
) -> Vec<f32> {
    let (isa, width) = (format.isa(), nr(format.isa()));
    let packed = Packed::new(isa, Some(format), rows, depth, |r, k| a[r * depth + k]);
    let panels: Vec<f32> = (0..depth * columns)
        .map(|i| (i / (depth * width) * width + i % width, i / width % depth))
        .map(|(column, k)| b[k * columns + column])
        .collect();
    let mut out = vec![f32::NAN; rows * columns];
    packed.multiply(
        &panels,
        depth * width,
        &mut out,
        rows * width,
        columns / width,
        Epilogue::Store,
        &mut Scratch::default(),
    );
    let place = |(r, c)| (c / width * rows + r) * width + c % width;
    (0..rows * columns)
        .map(|i| out[place((i / columns, i % columns))])
        .collect()
}

/// `a b` for row-major matrices, from rows of activations and a packed right operand.
fn from_rows(
    format: SupportedFormat,
    a: &[f32],
    b: &[f32],
    (rows, depth, columns): (usize, usize, usize),
) -> Vec<f32> {
    let packed = NarrowColumns::new(format, depth, columns, |k, c| b[k * columns + c]);
    let stride = depth.next_multiple_of(32);
    let mut padded = vec![0.0; rows * stride];
    for (to, from) in padded.chunks_exact_mut(stride).zip(a.chunks_exact(depth)) {
        to[..depth].copy_from_slice(from);
    }
    multiply_rows(format, &packed, (&padded, stride), (rows, columns))
}

#[test]
fn integer_products_have_the_same_bits_on_every_instruction_set() {
    for name in [Format::Int16, Format::Int8] {
        let all: Vec<SupportedFormat> = (formats().into_iter())
            .filter_map(|(_, format)| (format.format() == name).then_some(format))
            .collect();
        for shape in SHAPES {
            let (rows, depth, columns) = shape;
            let (a, b) = (noise(10, rows * depth), noise(11, depth * columns));
            let mut expected = [None, None];
            for format in &all {
                let mut found = vec![from_panels(*format, &a, &b, shape)];
                // Rows of activations are implemented for 16 bits.
                if name == Format::Int16 {
                    found.push(from_rows(*format, &a, &b, shape));
                }
                for (expected, found) in expected.iter_mut().zip(found) {
                    assert!(found.iter().all(|x| x.is_finite()));
                    let bits: Vec<u32> = found.iter().map(|x| x.to_bits()).collect();
                    let (first, expected) = expected.get_or_insert((format.isa(), bits.clone()));
                    let isa = format.isa();
                    assert!(
                        bits == *expected,
                        "{name} {shape:?}: {isa} and {first} differ"
                    );
                }
            }
        }
    }
}
