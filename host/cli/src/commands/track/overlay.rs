//! Objects drawn on a frame.

use anyhow::Result;
use loftup_runtime::{class_map::PALETTE, image::RgbImage};

/// The image with each object half covered by its color, and outlined by it.
pub fn draw(image: &RgbImage, labels: &[u8]) -> Result<RgbImage> {
    let (width, height) = (image.width(), image.height());
    let mut data = image.data().to_vec();
    let pixels = data.as_chunks_mut::<3>().0.iter_mut().zip(labels);
    for (i, (pixel, label)) in pixels.enumerate().filter(|(_, (_, label))| **label != 0) {
        let (x, y) = (i % width, i / width);
        let around = [
            (x > 0).then(|| i - 1),
            (x + 1 < width).then_some(i + 1),
            (y > 0).then(|| i - width),
            (y + 1 < height).then_some(i + width),
        ];
        let edge = around.into_iter().flatten().any(|j| labels[j] != *label);
        // The palette is dark.
        let color = PALETTE[usize::from(*label)].map(|c| c.saturating_mul(2));
        for (value, color) in pixel.iter_mut().zip(color) {
            *value = match edge {
                true => color,
                false => value.midpoint(color),
            };
        }
    }
    Ok(RgbImage::new(width, height, data)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_tinted_inside_and_outlined() {
        let image = RgbImage::filled(5, 5, [100; 3]).unwrap();
        let inside = |i: usize| (1..4).contains(&(i % 5)) && (1..4).contains(&(i / 5));
        let labels: Vec<u8> = (0..25).map(|i| u8::from(inside(i))).collect();
        let drawn = draw(&image, &labels).unwrap();
        let at = |x: usize, y: usize| drawn.row(y)[3 * x..][..3].to_vec();
        assert_eq!(at(0, 0), [100; 3]);
        assert_eq!(at(2, 1), [255, 0, 0]);
        assert_eq!(at(2, 2), [177, 50, 50]);
    }
}
