//! Coordinates and Fourier frequencies, bit-identical to PyTorch's.

/// `n` points from `start` to `end`, as computed by `torch.linspace` in 32 bits: from both ends
/// toward the middle, each point with one rounding. With frequencies up to e^10 the last bit
/// matters. A single point is `start`.
pub fn linspace(start: f32, end: f32, n: usize) -> Vec<f32> {
    let step = (end - start) / (n.max(2) - 1) as f32;
    let middle = (n / 2).max(1);
    (0..n)
        .map(|i| {
            if i < middle {
                step.mul_add(i as f32, start)
            } else {
                (-step).mul_add((n - 1 - i) as f32, end)
            }
        })
        .collect()
}

/// The `n` Fourier frequencies: from e^-2 to e^10, evenly spaced in the exponent.
pub fn frequencies(n: usize) -> Vec<f32> {
    linspace(-2.0, 10.0, n)
        .into_iter()
        .map(|x| f64::from(x).exp() as f32)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FNV-1a hash over the bits of each value.
    fn fingerprint(values: &[f32]) -> u64 {
        values.iter().fold(0xcbf2_9ce4_8422_2325, |hash, x| {
            (hash ^ u64::from(x.to_bits())).wrapping_mul(0x100_0000_01b3)
        })
    }

    #[test]
    fn linspace_has_the_bits_of_pytorch() {
        let bits = |n| {
            linspace(-1.0, 1.0, n)
                .iter()
                .map(|x| x.to_bits())
                .collect::<Vec<_>>()
        };
        assert!(bits(0).is_empty());
        assert_eq!(bits(1), [0xbf80_0000]);
        assert_eq!(bits(2), [0xbf80_0000, 0x3f80_0000]);
        assert_eq!(
            bits(7),
            [
                0xbf80_0000,
                0xbf2a_aaaa,
                0xbeaa_aaaa,
                0xb300_0000,
                0x3eaa_aaaa,
                0x3f2a_aaaa,
                0x3f80_0000
            ]
        );
        // From torch.linspace(-1, 1, n) in PyTorch 2.7.1.
        for (n, expected) in [
            (43, 0x88dc_e34d_31d6_554f),
            (61, 0x2fe2_79d2_7944_cb8f),
            (180, 0xf45d_b28a_f410_33fd),
            (224, 0x3d28_223c_ccea_54e5),
            (310, 0xf3b8_c9e4_28b9_a757),
            (448, 0x665d_7eaa_4e65_1ccb),
            (1024, 0x1efd_c4d1_ebfb_95d5),
        ] {
            assert_eq!(fingerprint(&linspace(-1.0, 1.0, n)), expected, "{n} points");
        }
    }
}
