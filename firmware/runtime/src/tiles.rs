//! Splits an output into tiles of one shape.

use loftup_bundle::Size;

/// A rectangle of output pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rect {
    /// Left column.
    pub x: usize,
    /// Top row.
    pub y: usize,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl Rect {
    /// Returns the rectangle of a whole output of this size.
    pub fn whole(Size { width, height }: Size) -> Self {
        Self {
            x: 0,
            y: 0,
            width,
            height,
        }
    }

    /// Number of pixels.
    pub fn area(&self) -> usize {
        self.width * self.height
    }
}

/// A tile: the graph runs on `compute`; `keep` is the part that no earlier tile has computed;
/// `group` is the union of the kept parts of its group of tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tile {
    pub compute: Rect,
    pub keep: Rect,
    pub group: Rect,
}

/// Approximate width of a group of tiles, in columns.
const GROUP_WIDTH: usize = 256;

/// A rectangle split into tiles of one shape, near-equal and at most `longest` per side. The last
/// tile of a row or column is moved back to stay inside, so that one shape and one plan suffice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tiling {
    whole: Rect,
    width: usize,
    height: usize,
    columns: usize,
    count: usize,
}

impl Tiling {
    pub fn new(whole: Rect, longest: usize) -> Self {
        let cut = |side: usize| side.div_ceil(side.div_ceil(longest.max(1)).max(1)).max(1);
        let (width, height) = (cut(whole.width), cut(whole.height));
        let columns = whole.width.div_ceil(width);
        let count = columns * whole.height.div_ceil(height);
        Self {
            whole,
            width,
            height,
            columns,
            count,
        }
    }

    /// Width and height of every tile.
    pub fn shape(&self) -> (usize, usize) {
        (self.width, self.height)
    }

    /// Number of tiles.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Tile `i`, in row-major order.
    pub fn tile(&self, i: usize) -> Tile {
        let along = |i: usize, step: usize, start: usize, side: usize| {
            let keep = i * step;
            let compute = keep.min(side - step);
            (start + compute, start + keep, step.min(side - keep))
        };
        let in_group = (GROUP_WIDTH / self.width).max(1);
        let first = i % self.columns / in_group * in_group * self.width;
        let group_width = (in_group * self.width).min(self.whole.width - first);
        let (x, keep_x, keep_width) =
            along(i % self.columns, self.width, self.whole.x, self.whole.width);
        let (y, keep_y, keep_height) = along(
            i / self.columns,
            self.height,
            self.whole.y,
            self.whole.height,
        );
        Tile {
            compute: Rect {
                x,
                y,
                width: self.width,
                height: self.height,
            },
            keep: Rect {
                x: keep_x,
                y: keep_y,
                width: keep_width,
                height: keep_height,
            },
            group: Rect {
                x: self.whole.x + first,
                y: keep_y,
                width: group_width,
                height: keep_height,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn tiles_keep_every_pixel_once_and_stay_inside() {
        for (width, height) in [(1, 1), (1, 7), (224, 224), (310, 180), (43, 61), (65, 33)] {
            for longest in [1, 5, 16, 32, 56, 1000] {
                let whole = Rect {
                    x: 3,
                    y: 11,
                    width,
                    height,
                };
                let tiling = Tiling::new(whole, longest);
                let mut seen = vec![0; width * height];
                let mut groups = HashMap::new();
                for i in 0..tiling.len() {
                    let Tile {
                        compute,
                        keep,
                        group,
                    } = tiling.tile(i);
                    assert!(compute.width <= longest && compute.height <= longest);
                    assert!(compute.x >= whole.x && compute.x + compute.width <= whole.x + width);
                    assert!(compute.y >= whole.y && compute.y + compute.height <= whole.y + height);
                    assert!(keep.x >= compute.x && keep.y >= compute.y);
                    assert_eq!(keep.x + keep.width, compute.x + compute.width);
                    assert_eq!(keep.y + keep.height, compute.y + compute.height);
                    assert!(group.x <= keep.x && keep.x + keep.width <= group.x + group.width);
                    assert_eq!((group.y, group.height), (keep.y, keep.height));
                    *groups.entry((group.x, group.y)).or_insert(group.area()) -= keep.area();
                    for y in keep.y..keep.y + keep.height {
                        for x in keep.x..keep.x + keep.width {
                            seen[(y - whole.y) * width + x - whole.x] += 1;
                        }
                    }
                }
                assert!(
                    seen.iter().all(|n| *n == 1),
                    "{width}x{height} by {longest}"
                );
                assert!(
                    groups.values().all(|left| *left == 0),
                    "{width}x{height} by {longest}"
                );
            }
        }
    }
}
