//! Simulated clicks, placed as in RITM and iSegProbe.

use loftup_bundle::Size;
use loftup_runtime::{Point, click::Click};

use crate::distance::squared_distances;

/// The object to segment.
pub struct Target<'a> {
    /// Its pixels.
    pub truth: &'a [bool],
    /// Pixels that are ignored.
    pub void: &'a [bool],
    /// Size of both.
    pub size: Size,
}

impl Target<'_> {
    /// Returns the next click: on the innermost pixel (the one farthest from the outside of the region or
    /// image) of the false-negative or false-positive region, whichever is farther inside; the
    /// false-positive region if equal. Of several such pixels, it is the first in row-major order that was
    /// not clicked before. Positive if the prediction misses the pixel. `None` if nothing is left to click.
    pub fn next_click(&self, predicted: &[bool], clicks: &[Click]) -> Option<Click> {
        let missed = self.innermost(predicted, clicks, true);
        let wrong = self.innermost(predicted, clicks, false);
        let positive = missed.0 > wrong.0;
        let (distance, i) = if positive { missed } else { wrong };
        let width = self.size.width;
        (distance > 0).then_some(Click {
            point: Point {
                x: i % width,
                y: i / width,
            },
            positive,
        })
    }

    /// Returns the squared distance to the outside and the index of the innermost pixel of an error region.
    fn innermost(&self, predicted: &[bool], clicks: &[Click], missed: bool) -> (u32, usize) {
        let error = |i: usize| self.truth[i] == missed && predicted[i] != missed && !self.void[i];
        let region: Vec<bool> = (0..self.truth.len()).map(error).collect();
        if !region.contains(&true) {
            return (0, 0);
        }
        let mut distances = squared_distances(&region, self.size, true);
        for click in clicks {
            distances[click.point.y * self.size.width + click.point.x] = 0;
        }
        let mut best = (0, 0);
        for (i, distance) in distances.into_iter().enumerate() {
            if distance > best.0 {
                best = (distance, i);
            }
        }
        best
    }

    /// Intersection over union; 1 if both are empty.
    pub fn iou(&self, predicted: &[bool]) -> f64 {
        let (mut both, mut either) = (0u32, 0u32);
        for ((t, p), void) in self.truth.iter().zip(predicted).zip(self.void) {
            both += u32::from(*t && *p && !void);
            either += u32::from((*t || *p) && !void);
        }
        if either == 0 {
            return 1.0;
        }
        f64::from(both) / f64::from(either)
    }
}

/// Returns the number of clicks to reach an IoU of `wanted`, and whether it was never reached; it is then
/// the number of all clicks. `iou` has one value per click.
pub fn clicks_to_reach(iou: &[f64], wanted: f64) -> (usize, bool) {
    match iou.iter().position(|x| *x >= wanted) {
        Some(i) => (i + 1, false),
        None => (iou.len(), true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(rows: &[&str]) -> (Size, Vec<bool>) {
        let size = Size {
            width: rows[0].len(),
            height: rows.len(),
        };
        (size, rows.concat().chars().map(|c| c == '#').collect())
    }

    fn next(truth: &[&str], predicted: &[&str], clicks: &[Click]) -> Option<(usize, usize, bool)> {
        let (size, truth) = mask(truth);
        let target = Target {
            truth: &truth,
            void: &vec![false; truth.len()],
            size,
        };
        let click = target.next_click(&mask(predicted).1, clicks)?;
        Some((click.point.x, click.point.y, click.positive))
    }

    fn at(x: usize, y: usize) -> Click {
        Click {
            point: Point { x, y },
            positive: true,
        }
    }

    #[test]
    fn the_first_click_is_in_the_middle_of_the_object() {
        let truth = [".......", ".#####.", ".#####.", ".#####.", "......."];
        let nothing = ["......."; 5];
        // Three pixels are two away from the outside: columns 2 to 4 of the middle row.
        assert_eq!(next(&truth, &nothing, &[]), Some((2, 2, true)));
        assert_eq!(next(&truth, &nothing, &[at(2, 2)]), Some((3, 2, true)));
        // The edge of the image is an edge of the region.
        assert_eq!(next(&["#####"; 5], &["....."; 5], &[]), Some((2, 2, true)));
        assert_eq!(next(&["###"], &["..."], &[]), Some((0, 0, true)));
    }

    #[test]
    fn the_larger_error_is_clicked_and_a_tie_is_negative() {
        let truth = ["###....", "###....", "###...."];
        let wrong = [".......", ".......", "......#"];
        assert_eq!(next(&truth, &wrong, &[]), Some((1, 1, true)));
        let wrong = ["###.###", "###.###", "###.###"];
        assert_eq!(next(&truth, &wrong, &[]), Some((5, 1, false)));
        let tie = ["....###", "....###", "....###"];
        assert_eq!(next(&truth, &tie, &[]), Some((5, 1, false)));
        assert_eq!(next(&truth, &truth, &[]), None);
        // Every wrong pixel was clicked.
        assert_eq!(next(&["#."], &[".."], &[at(0, 0)]), None);
    }

    #[test]
    fn void_pixels_do_not_count() {
        let (size, truth) = mask(&["##..", "##.."]);
        let (_, void) = mask(&["...#", "...#"]);
        let target = Target {
            truth: &truth,
            void: &void,
            size,
        };
        let (_, predicted) = mask(&["##.#", "#..#"]);
        assert_eq!(target.iou(&predicted), 0.75);
        let click = target.next_click(&predicted, &[]).unwrap();
        assert_eq!((click.point, click.positive), (Point { x: 1, y: 1 }, true));
        assert_eq!(target.iou(&truth), 1.0);
    }

    #[test]
    fn clicks_are_counted_until_the_iou_is_reached() {
        let iou = [0.5, 0.8, 0.79, 0.9];
        assert_eq!(clicks_to_reach(&iou, 0.8), (2, false));
        assert_eq!(clicks_to_reach(&iou, 0.85), (4, false));
        assert_eq!(clicks_to_reach(&iou, 0.95), (4, true));
        assert_eq!(clicks_to_reach(&iou, 0.3), (1, false));
    }
}
