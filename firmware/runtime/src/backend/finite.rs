//! A check for NaN and infinities that costs little more than reading the values.

/// Values per block. There is no branch within a block, so that the loop is vectorized.
const BLOCK: usize = 4096;

/// Exponent bits of NaN and infinities.
const EXPONENT: u32 = 0x7f80_0000;

/// Flat index and value of the first value that is not finite.
pub(super) fn first_not_finite(values: &[f32]) -> Option<(usize, f32)> {
    for (i, block) in values.chunks(BLOCK).enumerate() {
        let bad = block.iter().fold(0u32, |bad, x| {
            bad | u32::from(x.to_bits() & EXPONENT == EXPONENT)
        });
        if bad != 0 {
            let at = block.iter().position(|x| !x.is_finite())?;
            return Some((i * BLOCK + at, block[at]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_finds_what_the_plain_search_finds() {
        let plain = |values: &[f32]| {
            let at = values.iter().position(|x| !x.is_finite())?;
            Some((at, values[at].to_bits()))
        };
        let mut values: Vec<f32> = (0..3 * BLOCK + 17).map(|i| i as f32 - 5e3).collect();
        values[7] = f32::MAX;
        values[8] = f32::MIN_POSITIVE / 4.0;
        assert_eq!(first_not_finite(&values), None);
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [3 * BLOCK + 16, 2 * BLOCK, 2 * BLOCK - 1, BLOCK + 1, 9, 0] {
                let kept = std::mem::replace(&mut values[at], bad);
                let found = first_not_finite(&values).map(|(i, x)| (i, x.to_bits()));
                assert_eq!(found, plain(&values));
                assert_eq!(found, Some((at, bad.to_bits())));
                values[at] = kept;
            }
        }
        assert_eq!(first_not_finite(&[]), None);
    }
}
