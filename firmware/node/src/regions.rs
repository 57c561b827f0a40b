//! Connected components of a class map, without allocation in the steady state.

use loftup_bundle::Size;
use loftup_runtime::{Rect, heads::NO_CLASS};
use loftup_wire::message;

use crate::output::Region;

/// Finds 4-connected components by union-find over horizontal runs.
#[derive(Debug, Default)]
pub struct RegionFinder {
    runs: Vec<Run>,
}

#[derive(Debug, Clone, Copy)]
struct Run {
    parent: u32,
    row: u32,
    first: u32,
    end: u32,
    class: u8,
    area: Area,
}

#[derive(Debug, Clone, Copy, Default)]
struct Area {
    pixels: u32,
    sum_x: u64,
    sum_y: u64,
    left: u32,
    top: u32,
    right: u32,
    bottom: u32,
}

/// Position of a class map in the camera image.
#[derive(Debug, Clone, Copy)]
pub struct Placement {
    /// The part of the output that the map covers.
    pub rect: Rect,
    /// Size of the whole output.
    pub output: Size,
    /// Size of the camera image.
    pub camera: Size,
}

impl RegionFinder {
    /// Writes the regions of `classes` `[height, width]` with at least `min_area` pixels to `out`, largest
    /// first, at most `max_regions`. Of regions of equal size, the upper one comes first. Pixels without
    /// a class belong to no region.
    pub fn find(
        &mut self,
        classes: &[u8],
        place: &Placement,
        min_area: u32,
        max_regions: usize,
        out: &mut Vec<Region>,
    ) {
        out.clear();
        self.runs.clear();
        let width = place.rect.width.max(1);
        let (mut above, mut here) = (0, 0);
        for (y, row) in classes.chunks_exact(width).enumerate() {
            let start = self.runs.len();
            self.push_runs(row, y as u32);
            // Runs are sorted, so one pass over both rows suffices.
            let mut upper = above;
            for i in start..self.runs.len() {
                let run = self.runs[i];
                while upper < here && self.runs[upper].end <= run.first {
                    upper += 1;
                }
                let mut touching = upper;
                while touching < here && self.runs[touching].first < run.end {
                    if self.runs[touching].class == run.class {
                        self.union(touching, i);
                    }
                    touching += 1;
                }
            }
            (above, here) = (start, self.runs.len());
        }
        self.accumulate();
        let roots = self
            .runs
            .iter()
            .enumerate()
            .filter(|(i, run)| run.parent as usize == *i);
        let wanted =
            roots.filter(|(_, run)| run.class != NO_CLASS && run.area.pixels >= min_area.max(1));
        out.extend(wanted.map(|(_, run)| region(run, place)));
        out.sort_unstable_by_key(|r| {
            (std::cmp::Reverse(r.pixels), r.bounds.y, r.bounds.x, r.class)
        });
        out.truncate(max_regions);
    }

    fn push_runs(&mut self, row: &[u8], y: u32) {
        let mut first = 0;
        while let Some(&class) = row.get(first) {
            let length = row[first..].iter().take_while(|c| **c == class).count();
            let (from, end) = (first as u32, (first + length) as u32);
            let n = length as u64;
            self.runs.push(Run {
                parent: self.runs.len() as u32,
                row: y,
                first: from,
                end,
                class,
                area: Area {
                    pixels: length as u32,
                    sum_x: n * u64::from(from) + n * (n - 1) / 2,
                    sum_y: n * u64::from(y),
                    left: from,
                    top: y,
                    right: end,
                    bottom: y + 1,
                },
            });
            first += length;
        }
    }

    fn root(&mut self, mut i: usize) -> usize {
        while self.runs[i].parent as usize != i {
            let up = self.runs[i].parent as usize;
            self.runs[i].parent = self.runs[up].parent;
            i = up;
        }
        i
    }

    /// The earlier run becomes the root, so that roots precede their members.
    fn union(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        let (low, high) = (a.min(b), a.max(b));
        self.runs[high].parent = low as u32;
    }

    fn accumulate(&mut self) {
        for i in (0..self.runs.len()).rev() {
            let root = self.root(i);
            if root == i {
                continue;
            }
            let part = self.runs[i].area;
            let whole = &mut self.runs[root].area;
            whole.pixels += part.pixels;
            whole.sum_x += part.sum_x;
            whole.sum_y += part.sum_y;
            whole.left = whole.left.min(part.left);
            whole.top = whole.top.min(part.top);
            whole.right = whole.right.max(part.right);
            whole.bottom = whole.bottom.max(part.bottom);
            self.runs[i].area = Area::default();
        }
    }
}

fn region(run: &Run, place: &Placement) -> Region {
    let area = &run.area;
    let clamp = |x: usize| u16::try_from(x).unwrap_or(u16::MAX);
    // Pixel edges of the output to pixel edges of the camera image.
    let x = |at: usize| at * place.camera.width / place.output.width.max(1);
    let y = |at: usize| at * place.camera.height / place.output.height.max(1);
    let (left, top) = (
        place.rect.x + area.left as usize,
        place.rect.y + area.top as usize,
    );
    let (right, bottom) = (
        place.rect.x + area.right as usize,
        place.rect.y + area.bottom as usize,
    );
    let n = u64::from(area.pixels.max(1));
    // Pixel centers are at half-integer coordinates.
    let center = |sum: u64, start: usize, from: usize, to: usize| {
        let twice = 2 * sum + n + 2 * n * start as u64;
        clamp((twice as u128 * to as u128 / (2 * n as u128 * from.max(1) as u128)) as usize)
    };
    debug_assert!(run.row <= area.bottom);
    Region {
        class: run.class,
        pixels: area.pixels,
        bounds: message::Rect {
            x: clamp(x(left)),
            y: clamp(y(top)),
            width: clamp(x(right) - x(left)),
            height: clamp(y(bottom) - y(top)),
        },
        center: message::Point {
            x: center(
                area.sum_x,
                place.rect.x,
                place.output.width,
                place.camera.width,
            ),
            y: center(
                area.sum_y,
                place.rect.y,
                place.output.height,
                place.camera.height,
            ),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(width: usize, height: usize) -> Placement {
        let size = Size { width, height };
        Placement {
            rect: Rect::whole(size),
            output: size,
            camera: size,
        }
    }

    /// Slow reference: flood fill from every pixel.
    fn flood(classes: &[u8], width: usize) -> Vec<(u8, u32, usize, usize, usize, usize)> {
        let mut seen = vec![false; classes.len()];
        let mut found = Vec::new();
        for start in 0..classes.len() {
            if seen[start] || classes[start] == NO_CLASS {
                continue;
            }
            let mut stack = vec![start];
            seen[start] = true;
            let (mut n, mut l, mut t, mut r, mut b) = (0, width, usize::MAX, 0, 0);
            while let Some(i) = stack.pop() {
                let (x, y) = (i % width, i / width);
                n += 1;
                (l, t, r, b) = (l.min(x), t.min(y), r.max(x + 1), b.max(y + 1));
                let mut go = |ok: bool, j: usize| {
                    if ok && j < classes.len() && !seen[j] && classes[j] == classes[i] {
                        seen[j] = true;
                        stack.push(j);
                    }
                };
                go(x > 0, i.wrapping_sub(1));
                go(x + 1 < width, i + 1);
                go(y > 0, i.wrapping_sub(width));
                go(true, i + width);
            }
            found.push((classes[start], n, l, t, r - l, b - t));
        }
        found.sort_unstable();
        found
    }

    #[test]
    fn regions_match_a_flood_fill() {
        let mut seed = 1u32;
        let mut finder = RegionFinder::default();
        let mut out = Vec::new();
        for round in 0..60 {
            let (width, height) = (1 + round % 17, 1 + round % 13);
            let classes: Vec<u8> = (0..width * height)
                .map(|_| {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    [0, 0, 1, NO_CLASS][(seed >> 29) as usize % 4]
                })
                .collect();
            finder.find(&classes, &plain(width, height), 1, usize::MAX, &mut out);
            let mut found: Vec<_> = out
                .iter()
                .map(|r| {
                    let b = r.bounds;
                    let u = usize::from;
                    (r.class, r.pixels, u(b.x), u(b.y), u(b.width), u(b.height))
                })
                .collect();
            found.sort_unstable();
            assert_eq!(
                found,
                flood(&classes, width),
                "{width} x {height}: {classes:?}"
            );
            assert!(out.windows(2).all(|w| w[0].pixels >= w[1].pixels));
        }
    }

    #[test]
    fn coordinates_are_camera_pixels() {
        // The lower right 2 x 2 pixels of a 4 x 4 output of a 40 x 80 image.
        let place = Placement {
            rect: Rect {
                x: 2,
                y: 2,
                width: 2,
                height: 2,
            },
            output: Size {
                width: 4,
                height: 4,
            },
            camera: Size {
                width: 40,
                height: 80,
            },
        };
        let mut out = Vec::new();
        RegionFinder::default().find(&[7, 7, 7, 7], &place, 1, 9, &mut out);
        assert_eq!(out.len(), 1);
        assert_eq!(
            out[0].bounds,
            message::Rect {
                x: 20,
                y: 40,
                width: 20,
                height: 40
            }
        );
        assert_eq!(out[0].center, message::Point { x: 30, y: 60 });
        RegionFinder::default().find(&[7, 7, 7, 7], &place, 5, 9, &mut out);
        assert!(out.is_empty(), "too small");
    }
}
