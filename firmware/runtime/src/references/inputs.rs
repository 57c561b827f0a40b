//! The built-in test inputs, whose formulas are in `docs/bundle-format.md`, and the output pixels for which
//! reference values are stored.

use loftup_bundle::{References, Size};

use crate::{Features, ImageTensor, Point, Rect, features::transposed};

/// Size of the guidance image.
pub const GUIDANCE: Size = Size {
    width: 224,
    height: 224,
};
/// Grid of the test features for bundles without a backbone.
pub(super) const GRID: Size = Size {
    width: 16,
    height: 16,
};
/// The region for region queries, which contains the last kept pixels.
pub(super) const REGION: Rect = Rect {
    x: 88,
    y: 88,
    width: 48,
    height: 48,
};
/// Number of kept pixels within [`REGION`].
pub(super) const IN_REGION: usize = 16;

/// A normalized image with edges, gradients and texture, identical on every machine.
pub fn test_image(size: Size) -> ImageTensor {
    let Size { width, height } = size;
    let mut data = Vec::with_capacity(3 * size.area());
    for c in 0..3 {
        for y in 0..height {
            for x in 0..width {
                let (u, v) = (x as f32 / width as f32, y as f32 / height as f32);
                let block = ((x / 7 + y / 5 + c) % 3) as f32 - 1.0;
                let texture = (hash((c * height + y) * width + x) - 0.5) * 0.2;
                data.push(block + u - v + texture);
            }
        }
    }
    ImageTensor { size, data }
}

/// Features with a variance of about 1 on a grid of this size, identical on every machine.
pub fn test_features(dim: usize, grid: Size) -> Features {
    let map: Vec<f32> = (0..dim * grid.area())
        .map(|i| (hash(i) - 0.5) * 3.5)
        .collect();
    Features {
        dim,
        height: grid.height,
        width: grid.width,
        tokens: transposed(&map, dim, grid.area()),
    }
}

/// A pseudorandom value from 0 to 1.
pub(crate) fn hash(i: usize) -> f32 {
    let x = (i as u32).wrapping_add(1).wrapping_mul(0x9E37_79B9);
    let x = (x ^ (x >> 15)).wrapping_mul(0x85EB_CA6B);
    let x = (x ^ (x >> 13)).wrapping_mul(0xC2B2_AE35);
    ((x ^ (x >> 16)) >> 8) as f32 / (1u32 << 24) as f32
}

/// The kept pixels of the output: most are spread over the image, the last are in [`REGION`].
pub(super) fn pixels() -> Vec<Point> {
    let spread = References::PIXELS - IN_REGION;
    let step = GUIDANCE.area() / spread;
    let all = (0..spread).map(|i| {
        let at = i * step + i * 37 % step;
        Point {
            x: at % GUIDANCE.width,
            y: at / GUIDANCE.width,
        }
    });
    let region = (0..IN_REGION).map(|i| Point {
        x: REGION.x + 3 + 13 * (i % 4),
        y: REGION.y + 3 + 13 * (i / 4),
    });
    all.chain(region).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: [u32; 3] = [0xbf68f913, 0xbf7c8b3c, 0xbf73e1fb];
    const IMAGE_SUM: f64 = 23.421800676733255;
    const FEATURES: [u32; 3] = [0x3fc97c98, 0xbe38bd34, 0xbba3fb00];
    const FEATURES_SUM: f64 = 42.381392270326614;

    #[test]
    fn the_test_inputs_are_those_that_the_documentation_gives() {
        // Computed with NumPy from the formulas in docs/bundle-format.md.
        let size = Size {
            width: 42,
            height: 28,
        };
        let sum = |values: &[f32]| values.iter().map(|x| f64::from(*x)).sum::<f64>();
        let image = test_image(size).data;
        assert_eq!(
            image[..3].iter().map(|x| x.to_bits()).collect::<Vec<_>>(),
            IMAGE
        );
        assert_eq!(sum(&image), IMAGE_SUM);
        let features = test_features(3, size).to_map();
        assert_eq!(
            features[..3]
                .iter()
                .map(|x| x.to_bits())
                .collect::<Vec<_>>(),
            FEATURES
        );
        assert_eq!(sum(&features), FEATURES_SUM);
    }

    #[test]
    fn pixels_are_within_the_image_and_the_region_and_no_two_are_the_same() {
        let all = pixels();
        assert_eq!(all.len(), References::PIXELS);
        let places: std::collections::BTreeSet<_> = all.iter().map(|p| (p.y, p.x)).collect();
        assert_eq!(places.len(), all.len());
        assert!(
            all.iter()
                .all(|p| p.x < GUIDANCE.width && p.y < GUIDANCE.height)
        );
        let inside = |p: &Point| {
            (REGION.x..REGION.x + REGION.width).contains(&p.x)
                && (REGION.y..REGION.y + REGION.height).contains(&p.y)
        };
        assert!(all[References::PIXELS - IN_REGION..].iter().all(inside));
    }
}
