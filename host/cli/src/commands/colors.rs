//! Colors of maps.

use loftup_runtime::heads::NO_CLASS;

/// Colors that follow each other far apart on the circle of hues.
pub fn of_class(class: u8) -> [u8; 3] {
    if class == NO_CLASS {
        return [0; 3];
    }
    let hue = f32::from(class) * 0.618_034 % 1.0 * 6.0;
    let value = 255.0 - 40.0 * f32::from(class % 3);
    let channel = |offset: f32| {
        let k = (hue + offset) % 6.0;
        (value * (1.0 - 0.75 * k.min(4.0 - k).clamp(0.0, 1.0))) as u8
    };
    [channel(5.0), channel(3.0), channel(1.0)]
}

/// From near to far.
const DEPTHS: [[f32; 3]; 5] = [
    [252.0, 240.0, 150.0],
    [246.0, 150.0, 60.0],
    [196.0, 60.0, 100.0],
    [96.0, 30.0, 120.0],
    [14.0, 10.0, 50.0],
];

/// A color for each depth: from yellow for the nearest to dark blue for the farthest of these, in equal
/// ratios of depth. Pixels without depth are black.
pub fn of_depth(meters: &[f32]) -> Vec<[u8; 3]> {
    let known = meters.iter().filter(|m| m.is_finite() && **m > 0.0);
    let (near, far) = known.fold((f32::INFINITY, f32::NEG_INFINITY), |(near, far), m| {
        (near.min(m.ln()), far.max(m.ln()))
    });
    let color = |m: &f32| {
        let part = (m.ln() - near) / (far - near).max(1e-6);
        if !part.is_finite() {
            return [0; 3];
        }
        let at = part.clamp(0.0, 1.0) * (DEPTHS.len() - 1) as f32;
        let first = (at as usize).min(DEPTHS.len() - 2);
        let t = at - first as f32;
        std::array::from_fn(|c| {
            ((1.0 - t) * DEPTHS[first][c] + t * DEPTHS[first + 1][c]).round() as u8
        })
    };
    meters.iter().map(color).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_and_farthest_depths_have_the_ends_of_the_scale() {
        let colors = of_depth(&[1.0, 4.0, 2.0, f32::NAN, 0.0]);
        let end = |i: usize| DEPTHS[i].map(|c| c as u8);
        assert_eq!(colors, [end(0), end(4), end(2), [0; 3], [0; 3]]);
        // Below a meter, the logarithm is negative.
        assert_eq!(of_depth(&[0.25, 0.5]), [end(0), end(4)]);
        assert_eq!(of_depth(&[2.0, 2.0]), [end(0), end(0)]);
    }
}
