//! The exact Euclidean distance transform (Meijster et al., 2000): two passes in integers.

use loftup_bundle::Size;

/// Returns the squared distance of each pixel to the nearest pixel where `mask` is false. If `bordered`,
/// pixels outside the mask count as false (as if it were padded by one pixel); otherwise they are
/// ignored. `u32::MAX` if there is no such pixel.
pub fn squared_distances(mask: &[bool], size: Size, bordered: bool) -> Vec<u32> {
    let Size { width, height } = size;
    // Distance to the nearest false pixel in the same column.
    let mut column = vec![0u32; mask.len()];
    let far = u32::MAX;
    for x in 0..width {
        let mut distance = if bordered { 0 } else { far };
        for y in 0..height {
            let i = y * width + x;
            distance = if mask[i] {
                distance.saturating_add(1)
            } else {
                0
            };
            column[i] = distance;
        }
        distance = if bordered { 0 } else { far };
        for y in (0..height).rev() {
            let i = y * width + x;
            distance = distance.saturating_add(1).min(column[i]);
            column[i] = distance;
        }
    }
    let mut out = vec![far; mask.len()];
    let mut envelope = Vec::with_capacity(width + 2);
    for (column, out) in column.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        row(column, bordered, &mut envelope, out);
    }
    out
}

/// A parabola `(x - at)^2 + height`, which is the lowest from `first` on.
struct Parabola {
    at: i64,
    height: i64,
    first: i64,
}

/// Computes the lower envelope of the parabolas of a row.
fn row(column: &[u32], bordered: bool, envelope: &mut Vec<Parabola>, out: &mut [u32]) {
    envelope.clear();
    let border = |at: i64| bordered.then_some((at, 0));
    let inside = column.iter().enumerate();
    let inside = inside.filter(|(_, d)| **d != u32::MAX);
    let inside = inside.map(|(x, d)| (x as i64, i64::from(*d).pow(2)));
    let all = border(-1).into_iter().chain(inside);
    for (at, height) in all.chain(border(column.len() as i64)) {
        loop {
            let Some(last) = envelope.last() else {
                envelope.push(Parabola {
                    at,
                    height,
                    first: i64::MIN,
                });
                break;
            };
            // The first position where the new parabola is lower.
            let rise = at * at - last.at * last.at + height - last.height;
            let first = rise.div_euclid(2 * (at - last.at)) + 1;
            if first <= last.first {
                envelope.pop();
                continue;
            }
            envelope.push(Parabola { at, height, first });
            break;
        }
    }
    let mut parabolas = envelope.iter().peekable();
    let Some(mut current) = parabolas.next() else {
        return;
    };
    for (x, out) in out.iter_mut().enumerate() {
        let x = x as i64;
        while let Some(next) = parabolas.next_if(|p| p.first <= x) {
            current = next;
        }
        *out = u32::try_from((x - current.at).pow(2) + current.height).unwrap_or(u32::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// Over all false pixels; a border is a padding by one pixel.
    fn reference(mask: &[bool], Size { width, height }: Size, bordered: bool) -> Vec<u32> {
        let (w, h) = (width as i64, height as i64);
        let outside = |x: i64, y: i64| x < 0 || y < 0 || x >= w || y >= h;
        let zero = |x: i64, y: i64| match outside(x, y) {
            true => bordered,
            false => !mask[(y * w + x) as usize],
        };
        let nearest = |x: i64, y: i64| {
            let all = (-1..=h).flat_map(|v| (-1..=w).map(move |u| (u, v)));
            all.filter(|(u, v)| zero(*u, *v))
                .map(|(u, v)| ((x - u).pow(2) + (y - v).pow(2)) as u32)
                .min()
                .unwrap_or(u32::MAX)
        };
        (0..h)
            .flat_map(|y| (0..w).map(move |x| (x, y)))
            .map(|(x, y)| nearest(x, y))
            .collect()
    }

    #[test]
    fn it_agrees_with_a_search_over_all_pixels() {
        let mut random = Random::new(1);
        let shapes = [(1, 1), (1, 9), (8, 1), (5, 4), (13, 11), (17, 6)];
        for (width, height) in shapes {
            let size = Size { width, height };
            for one_in in [1, 2, 5, 30, 1000] {
                let mask: Vec<bool> = (0..size.area()).map(|_| random.below(one_in) > 0).collect();
                let full = vec![true; size.area()];
                for mask in [mask, full] {
                    for bordered in [false, true] {
                        assert_eq!(
                            squared_distances(&mask, size, bordered),
                            reference(&mask, size, bordered),
                            "{size}, border {bordered}: {mask:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_worked_example() {
        let size = Size {
            width: 5,
            height: 3,
        };
        // Only the middle of the first row is false.
        let mask: Vec<bool> = (0..15).map(|i| i != 2).collect();
        let expected = [4, 1, 0, 1, 4, 5, 2, 1, 2, 5, 8, 5, 4, 5, 8];
        assert_eq!(squared_distances(&mask, size, false), expected);
        let expected = [1, 1, 0, 1, 1, 1, 2, 1, 2, 1, 1, 1, 1, 1, 1];
        assert_eq!(squared_distances(&mask, size, true), expected);
    }
}
