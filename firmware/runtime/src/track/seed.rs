//! The initial position of an object.

use loftup_bundle::Size;

use super::{TrackError, context::Grid};
use crate::{Point, Rect, dot::dot, panels::nearest};

/// The position of an object in an image, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seed<'a> {
    /// The pixels of `values` (row by row) that equal `value`.
    Mask {
        /// One value for each pixel.
        values: &'a [u8],
        /// The value of the object's pixels.
        value: u8,
    },
    /// Everything inside a box.
    Box(Rect),
    /// The connected cells around a pixel that are similar to its cell: the cosine similarity exceeds
    /// Otsu's threshold over the whole frame.
    Click(Point),
}

impl Seed<'_> {
    /// The cells of the object. `tokens` are the normalized features.
    pub(super) fn cells(
        &self,
        label: u8,
        size: Size,
        grid: &Grid,
        tokens: &[f32],
    ) -> Result<Vec<usize>, TrackError> {
        match *self {
            Self::Mask { values, value } => {
                if size.area() == 0 || values.len() != size.area() {
                    let found = values.len();
                    return Err(TrackError::MaskLength { found, size });
                }
                let inside = |x: usize, y: usize| values[y * size.width + x] == value;
                covered(grid, size, Rect::whole(size), inside).ok_or(TrackError::EmptyMask(label))
            }
            Self::Box(rect) => {
                let fits = |start: usize, len: usize, end: usize| {
                    len > 0 && start.checked_add(len).is_some_and(|stop| stop <= end)
                };
                if !fits(rect.x, rect.width, size.width) || !fits(rect.y, rect.height, size.height)
                {
                    return Err(TrackError::BoxOutside { label, rect, size });
                }
                Ok(covered(grid, size, rect, |_, _| true).unwrap_or_default())
            }
            Self::Click(Point { x, y }) => {
                if x >= size.width || y >= size.height {
                    return Err(TrackError::ClickOutside { label, x, y, size });
                }
                Ok(similar(grid, tokens, cell_of(grid, size, x, y)))
            }
        }
    }
}

fn cell_of(grid: &Grid, size: Size, x: usize, y: usize) -> usize {
    y * grid.height / size.height * grid.width + x * grid.width / size.width
}

/// Returns the cells whose center is inside an object or, if there are none, the cells that it touches.
/// `None` if it has no pixels. All its pixels are in `rect`.
fn covered(
    grid: &Grid,
    size: Size,
    rect: Rect,
    inside: impl Fn(usize, usize) -> bool,
) -> Option<Vec<usize>> {
    let within = |x: usize, y: usize| {
        (rect.x..rect.x + rect.width).contains(&x) && (rect.y..rect.y + rect.height).contains(&y)
    };
    let centers = (0..grid.cells()).filter(|cell| {
        let x = nearest(cell % grid.width, grid.width, size.width);
        let y = nearest(cell / grid.width, grid.height, size.height);
        within(x, y) && inside(x, y)
    });
    let mut cells: Vec<usize> = centers.collect();
    if cells.is_empty() {
        for y in rect.y..rect.y + rect.height {
            let pixels = (rect.x..rect.x + rect.width).filter(|x| inside(*x, y));
            cells.extend(pixels.map(|x| cell_of(grid, size, x, y)));
        }
        cells.sort_unstable();
        cells.dedup();
    }
    (!cells.is_empty()).then_some(cells)
}

/// Returns the connected cells around `start` whose similarity to it is above Otsu's threshold.
fn similar(grid: &Grid, tokens: &[f32], start: usize) -> Vec<usize> {
    let token = |cell: usize| &tokens[cell * grid.dim..][..grid.dim];
    let similarity: Vec<f32> = (0..grid.cells())
        .map(|c| dot(token(start), token(c)))
        .collect();
    let Some(threshold) = otsu(&similarity) else {
        return vec![start];
    };
    let mut found = vec![false; grid.cells()];
    found[start] = true;
    let mut cells = vec![start];
    let mut next = 0;
    while let Some(cell) = cells.get(next).copied() {
        next += 1;
        let (x, y) = (cell % grid.width, cell / grid.width);
        let around = [
            (x > 0).then(|| cell - 1),
            (x + 1 < grid.width).then_some(cell + 1),
            (y > 0).then(|| cell - grid.width),
            (y + 1 < grid.height).then_some(cell + grid.width),
        ];
        for other in around.into_iter().flatten() {
            if similarity[other] > threshold && !std::mem::replace(&mut found[other], true) {
                cells.push(other);
            }
        }
    }
    cells
}

/// Returns the threshold that maximizes the between-class variance (Otsu, 1979), to a 256th of the range
/// of the values. `None` if all are equal.
fn otsu(values: &[f32]) -> Option<f32> {
    const BINS: usize = 256;
    let (low, high) = values
        .iter()
        .fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), v| {
            (l.min(*v), h.max(*v))
        });
    let width = (high - low) / BINS as f32;
    if width.partial_cmp(&0.0) != Some(std::cmp::Ordering::Greater) {
        return None;
    }
    let mut counts = [0usize; BINS];
    for value in values {
        counts[(((value - low) / width) as usize).min(BINS - 1)] += 1;
    }
    let sum = |counts: &[usize], first: usize| -> f64 {
        (first..)
            .zip(counts)
            .map(|(i, n)| i as f64 * *n as f64)
            .sum()
    };
    let (total, all) = (values.len() as f64, sum(&counts, 0));
    let (mut below, mut sum_below) = (0.0, 0.0);
    let mut best = (0.0, 0);
    for (i, count) in counts[..BINS - 1].iter().enumerate() {
        below += *count as f64;
        sum_below += i as f64 * *count as f64;
        let above = total - below;
        if below > 0.0 && above > 0.0 {
            let difference = sum_below / below - (all - sum_below) / above;
            let variance = below * above * difference * difference;
            if variance > best.0 {
                best = (variance, i + 1);
            }
        }
    }
    Some(low + width * best.1 as f32)
}
