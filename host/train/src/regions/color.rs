//! Color spaces in which colors are compared.

use serde::{Deserialize, Serialize};

/// A color space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColorSpace {
    /// sRGB as stored.
    #[default]
    Rgb,
    /// CIELAB with the D65 white point, in which distances are approximately perceptual.
    Lab,
}

/// White of D65, in XYZ.
const WHITE: [f64; 3] = [0.95047, 1.0, 1.08883];

impl ColorSpace {
    /// Converts RGB pixels to this space, `[n, 3]`. CIELAB is scaled to a lightness of 0 to 255, so that
    /// grays have the same contrast in both spaces.
    pub(super) fn colors(self, rgb: &[u8]) -> Vec<f32> {
        match self {
            Self::Rgb => rgb.iter().map(|&v| f32::from(v)).collect(),
            Self::Lab => {
                let linear: Vec<f64> = (0..=255u8).map(to_linear).collect();
                let pixels = rgb.as_chunks::<3>().0.iter();
                pixels
                    .flat_map(|p| {
                        let lab = lab(p.map(|v| linear[usize::from(v)]));
                        lab.map(|v| (2.55 * v) as f32)
                    })
                    .collect()
            }
        }
    }
}

/// Removes the gamma of sRGB (IEC 61966-2-1).
fn to_linear(v: u8) -> f64 {
    let v = f64::from(v) / 255.0;
    if v <= 0.04045 {
        v / 12.92
    } else {
        ((v + 0.055) / 1.055).powf(2.4)
    }
}

/// CIELAB of linear RGB.
fn lab([r, g, b]: [f64; 3]) -> [f64; 3] {
    let xyz = [
        0.412_453 * r + 0.357_580 * g + 0.180_423 * b,
        0.212_671 * r + 0.715_160 * g + 0.072_169 * b,
        0.019_334 * r + 0.119_193 * g + 0.950_227 * b,
    ];
    let root = |i: usize| {
        let t = xyz[i] / WHITE[i];
        if t > 216.0 / 24389.0 {
            t.cbrt()
        } else {
            (24389.0 / 27.0 * t + 16.0) / 116.0
        }
    };
    let [x, y, z] = [root(0), root(1), root(2)];
    [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_colors_are_met() {
        // Common values of sRGB primaries in CIELAB (D65), rounded to a hundredth.
        let cases = [
            ([255, 255, 255], [100.0, 0.0, 0.0]),
            ([0, 0, 0], [0.0, 0.0, 0.0]),
            ([255, 0, 0], [53.24, 80.09, 67.20]),
            ([0, 255, 0], [87.74, -86.18, 83.18]),
            ([0, 0, 255], [32.30, 79.19, -107.86]),
            ([119, 119, 119], [50.03, 0.0, 0.0]),
        ];
        for (rgb, expected) in cases {
            let found = ColorSpace::Lab.colors(&rgb);
            println!("{rgb:?}: {found:?}");
            for (v, e) in found.iter().zip(expected) {
                // White and the matrix are given to six digits; other sources round differently.
                assert!((f64::from(*v) / 2.55 - e).abs() < 0.05, "{rgb:?}");
            }
        }
        assert_eq!(ColorSpace::Rgb.colors(&[0, 7, 255]), [0.0, 7.0, 255.0]);
    }
}
