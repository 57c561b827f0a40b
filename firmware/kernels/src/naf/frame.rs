//! Images, areas, and what encodings are computed from.

use std::sync::Arc;

use loftup_spec::{
    interpolate::pooled,
    naf::{self, WIDTH},
    rotary,
};

use super::{Naf, statistics::Statistics};
use crate::KernelError;

/// A rectangle of pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Area {
    /// First column.
    pub x: usize,
    /// First row.
    pub y: usize,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl Area {
    /// Number of pixels.
    pub fn pixels(&self) -> usize {
        self.width * self.height
    }

    /// Expands the area by `halo` pixels on each side, clipped to the image.
    pub(super) fn expanded(&self, halo: usize, (height, width): (usize, usize)) -> Self {
        let span = |start: usize, len: usize, end: usize| {
            let first = start.saturating_sub(halo);
            (first, (start + len + halo).min(end) - first)
        };
        let (y, height) = span(self.y, self.height, height);
        let (x, width) = span(self.x, self.width, width);
        Self {
            x,
            y,
            width,
            height,
        }
    }

    /// Returns the index of pixel (`y`, `x`) of the image in an array of these pixels.
    #[inline(always)]
    pub(super) fn at(&self, y: usize, x: usize) -> usize {
        (y - self.y) * self.width + x - self.x
    }
}

/// Reflects an index at the border: -1 becomes 1, `n` becomes `n - 2`. At most one pixel outside.
#[inline(always)]
pub(super) fn reflected(i: isize, n: usize) -> usize {
    let last = n as isize - 1;
    (last - (last - i.abs()).abs()) as usize
}

/// An image, normalized with ImageNet's mean and standard deviation, at the size of the output.
#[derive(Debug, Clone)]
pub struct Image {
    /// `[3, height, width]`.
    pub data: Vec<f32>,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Image {
    pub(super) fn size(&self) -> (usize, usize) {
        (self.height, self.width)
    }

    /// Whether the pixels of `area` have the same bits in `other`, which has the same size.
    pub(super) fn same(&self, other: &Self, area: Area) -> bool {
        let starts = (0..3 * self.height).filter(|row| {
            let y = row % self.height;
            (area.y..area.y + area.height).contains(&y)
        });
        starts
            .map(|row| row * self.width + area.x)
            .map(|start| start..start + area.width)
            .all(|row| {
                let bits = |x: &f32| x.to_bits();
                let (a, b) = (&self.data[row.clone()], &other.data[row]);
                a.iter().map(bits).eq(b.iter().map(bits))
            })
    }

    pub(super) fn whole(&self) -> Area {
        Area {
            x: 0,
            y: 0,
            width: self.width,
            height: self.height,
        }
    }
}

/// Cosine and sine of the angles of a row or column, for each period.
#[derive(Debug, Clone)]
pub(super) struct Rotation {
    pub cos: [f32; naf::PERIODS],
    pub sin: [f32; naf::PERIODS],
}

impl Rotation {
    fn new(angles: impl Iterator<Item = [f32; 2]>) -> Self {
        let mut all = Self {
            cos: [0.0; naf::PERIODS],
            sin: [0.0; naf::PERIODS],
        };
        for (i, [cos, sin]) in angles.enumerate() {
            (all.cos[i], all.sin[i]) = (cos, sin);
        }
        all
    }
}

/// The cells along one axis.
#[derive(Debug)]
pub(super) struct Axis {
    pub cells: usize,
    pub pixels: usize,
    /// The rotation of each pixel.
    pub rotation: Vec<Rotation>,
    /// The cells that each pixel attends to.
    pub windows: Vec<[usize; naf::WINDOW]>,
}

impl Axis {
    pub fn new(cells: usize, pixels: usize, periods: &[f32]) -> Self {
        let all = 0..pixels;
        Self {
            cells,
            pixels,
            rotation: (all.clone())
                .map(|i| Rotation::new(rotary::rotation(i, pixels, periods)))
                .collect(),
            windows: all.map(|i| naf::window(i, cells, pixels)).collect(),
        }
    }

    /// Returns the first and last pixel (exclusive) of a cell.
    pub fn pooled(&self, cell: usize) -> (usize, usize) {
        pooled(cell, self.cells, self.pixels)
    }

    /// Splits pixels `start..start + len` into runs that attend to the same cells.
    pub fn runs(&self, start: usize, len: usize) -> impl Iterator<Item = (usize, usize)> + '_ {
        let end = start + len;
        let mut at = start;
        std::iter::from_fn(move || {
            let first = at;
            let window = self.windows.get(first).filter(|_| first < end)?;
            while at < end && self.windows[at] == *window {
                at += 1;
            }
            Some((first, at - first))
        })
    }
}

/// An image, its grid, and the statistics of its layers: everything that encodings are computed from.
#[derive(Debug)]
pub(super) struct Frame {
    pub naf: Arc<Naf>,
    pub image: Arc<Image>,
    pub rows: Axis,
    pub columns: Axis,
    pub statistics: Statistics,
}

impl Frame {
    /// Rows and columns of the grid.
    pub fn grid(&self) -> (usize, usize) {
        (self.rows.cells, self.columns.cells)
    }

    /// The rows and the columns.
    pub fn axes(&self) -> (&Axis, &Axis) {
        (&self.rows, &self.columns)
    }

    pub fn check_area(&self, area: Area) -> Result<(), KernelError> {
        let inside =
            area.x + area.width <= self.image.width && area.y + area.height <= self.image.height;
        if inside {
            return Ok(());
        }
        Err(KernelError::Size {
            what: "the last row and column of an area",
            expected: self.image.height.min(self.image.width),
            found: (area.y + area.height).max(area.x + area.width),
        })
    }
}

/// Encodings of one branch for a rectangle of the image, `[height, width, 128]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patch<'a> {
    pub area: Area,
    pub data: &'a [f32],
}

impl<'a> Patch<'a> {
    /// Returns `count` pixels of a row, starting at (`y`, `x`).
    #[inline(always)]
    pub fn row(&self, y: usize, x: usize, count: usize) -> &'a [f32] {
        &self.data[self.area.at(y, x) * WIDTH..][..count * WIDTH]
    }
}
