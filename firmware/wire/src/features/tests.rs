extern crate std;

use std::vec;
use std::vec::Vec;

use super::*;

#[test]
fn every_binary16_reads_as_in_the_half_crate() {
    for bits in 0..=u16::MAX {
        let ours = f16_to_f32(bits);
        let theirs = half::f16::from_bits(bits).to_f32();
        assert!(
            ours.to_bits() == theirs.to_bits() || (ours.is_nan() && theirs.is_nan()),
            "{bits:#06x}: {ours} {theirs}"
        );
    }
}

#[test]
fn binary32_rounds_as_in_the_half_crate() {
    // Every sign and exponent, all values of the top 12 fraction bits, and the
    // low bits on both sides of every tie.
    for high in 0..=(u32::MAX >> 11) {
        for low in [0, 1, 0x3FF, 0x400, 0x401, 0x7FF] {
            let value = f32::from_bits(high << 11 | low);
            let (ours, theirs) = (f32_to_f16(value), half::f16::from_f32(value));
            assert!(
                ours == theirs.to_bits() || (f16_to_f32(ours).is_nan() && theirs.is_nan()),
                "{value:e}: {ours:#06x} {theirs}"
            );
        }
    }
}

fn through_u8(values: &[f32]) -> Vec<f32> {
    let mut writer = FeatureWriter::new(0, 0, 1, values, Coding::U8).unwrap();
    let mut scratch = [0; MAX_DATA];
    let mut back = Vec::new();
    while let Some(block) = writer.next_chunk(&mut scratch) {
        back.extend(block.values.iter());
    }
    back
}

#[test]
fn one_byte_coding_keeps_the_ends_of_the_range_and_constants() {
    for values in [
        vec![-3.5, 9.25, 0.0],
        vec![7.5; 9],
        vec![0.0],
        vec![1e-42, 3e-42],
    ] {
        let span = values.iter().copied().fold(f32::MIN, f32::max)
            - values.iter().copied().fold(f32::MAX, f32::min);
        for (back, sent) in through_u8(&values).iter().zip(&values) {
            assert!((back - sent).abs() <= span / 510.0 * 1.001 + sent.abs() * 1e-6 + 1e-42);
        }
    }
}

#[test]
fn values_that_are_not_finite_are_clamped_into_the_range() {
    let back = through_u8(&[f32::NEG_INFINITY, -1.0, f32::NAN, 1.0, f32::INFINITY]);
    let near = |a: f32, b: f32| (a - b).abs() < 1e-6;
    assert!(near(back[0], -1.0) && near(back[2], -1.0) && near(back[4], 1.0));
    assert_eq!(through_u8(&[f32::NAN]), [0.0]);
}

#[test]
fn no_whole_number_of_vectors_is_refused() {
    assert!(FeatureWriter::new(0, 0, 3, &[0.0; 7], Coding::F16).is_err());
    assert!(FeatureWriter::new(0, 0, 0, &[0.0; 7], Coding::F16).is_err());
    assert!(FeatureWriter::new(0, 0, 0, &[], Coding::F16).is_ok());
}
