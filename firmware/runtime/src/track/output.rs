//! From soft labels to a mask at the size of the image.

use loftup_bundle::Size;
use loftup_spec::interpolate::bilinear;

use super::context::Grid;
use crate::{Rect, panels::nearest};

/// The mask and the positions of all objects. Its memory is reused from frame to frame.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TrackedMask {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// The label of each pixel, row by row; 0 is the background.
    pub labels: Vec<u8>,
    /// By label.
    pub objects: Vec<TrackedObject>,
}

/// An object in one frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrackedObject {
    /// Its label, which does not change until it is removed.
    pub label: u8,
    /// Pixels in the mask; 0 while it is not visible.
    pub area: usize,
    /// The smallest box around its pixels.
    pub bounds: Option<Rect>,
    /// The mean of its soft label over its pixels, 0 to 1, before labels are scaled by their maximum;
    /// 0 while it is not visible. It is low if the object's cells also resemble something else.
    pub confidence: f32,
}

/// Turns soft labels into masks.
#[derive(Debug)]
pub(super) struct Masks {
    /// Multiple of the grid at which the largest label is taken.
    scale: usize,
    min_label: f32,
    /// One row of interpolated labels, `[width, channels]`.
    row: Vec<f32>,
    /// Minimum and scale of each channel's labels.
    ranges: Vec<Range>,
    /// Labels at the multiple of the grid.
    labels: Vec<u8>,
    /// Pixels and sum of soft labels of each channel, at the multiple of the grid.
    sums: Vec<(usize, f64)>,
    boxes: Vec<Extent>,
    /// Column of `labels` of each column of the mask.
    columns: Vec<usize>,
}

/// Minimum and maximum of a channel.
#[derive(Debug, Clone, Copy)]
struct Range {
    low: f32,
    high: f32,
}

impl Range {
    const EMPTY: Self = Self {
        low: f32::INFINITY,
        high: f32::NEG_INFINITY,
    };

    /// Scales a value to 0 to 1. A channel that is 0 everywhere stays 0; any other constant becomes 1.
    fn scale(&self, value: f32, min_label: f32) -> f32 {
        let Self { low, high } = *self;
        if high <= min_label {
            0.0
        } else if high > low {
            (value - low) / (high - low)
        } else {
            1.0
        }
    }
}

/// First and last column and row, and pixels.
#[derive(Debug, Clone, Copy)]
struct Extent {
    area: usize,
    x: (usize, usize),
    y: (usize, usize),
}

impl Extent {
    const EMPTY: Self = Self {
        area: 0,
        x: (usize::MAX, 0),
        y: (usize::MAX, 0),
    };

    fn add(&mut self, x: usize, y: usize) {
        self.area += 1;
        self.x = (self.x.0.min(x), self.x.1.max(x));
        self.y = (self.y.0.min(y), self.y.1.max(y));
    }

    fn rect(&self) -> Option<Rect> {
        (self.area > 0).then(|| Rect {
            x: self.x.0,
            y: self.y.0,
            width: self.x.1 - self.x.0 + 1,
            height: self.y.1 - self.y.0 + 1,
        })
    }
}

impl Masks {
    pub fn new(grid: &Grid, scale: usize, min_label: f32) -> Self {
        Self {
            scale,
            min_label,
            row: vec![0.0; grid.width * scale * grid.channels],
            ranges: vec![Range::EMPTY; grid.channels],
            labels: vec![0; grid.cells() * scale * scale],
            sums: vec![(0, 0.0); grid.channels],
            boxes: vec![Extent::EMPTY; grid.channels],
            columns: Vec::new(),
        }
    }

    /// Writes the mask at `size`. `used` channels of `soft` are not 0; `objects` are the labels.
    pub fn write(
        &mut self,
        grid: &Grid,
        soft: &[f32],
        used: usize,
        size: Size,
        objects: impl Iterator<Item = u8>,
        out: &mut TrackedMask,
    ) {
        let (width, height) = (grid.width * self.scale, grid.height * self.scale);
        self.ranges.fill(Range::EMPTY);
        for y in 0..height {
            self.interpolate(grid, soft, used, y);
            for pixel in self.row.chunks_exact(used).take(width) {
                for (range, value) in self.ranges.iter_mut().zip(pixel) {
                    range.low = range.low.min(*value);
                    range.high = range.high.max(*value);
                }
            }
        }
        self.sums.fill((0, 0.0));
        for y in 0..height {
            self.interpolate(grid, soft, used, y);
            let labels = &mut self.labels[y * width..][..width];
            for (pixel, label) in self.row.chunks_exact(used).zip(labels) {
                let mut best = (0, f32::NEG_INFINITY);
                for (i, (value, range)) in pixel.iter().zip(&self.ranges).enumerate() {
                    // The background is always visible.
                    let min_label = if i == 0 { 0.0 } else { self.min_label };
                    let value = range.scale(*value, min_label);
                    if value > best.1 {
                        best = (i, value);
                    }
                }
                *label = best.0 as u8;
                let sum = &mut self.sums[best.0];
                *sum = (sum.0 + 1, sum.1 + f64::from(pixel[best.0]));
            }
        }
        self.resize(width, height, size, out);
        out.objects.clear();
        out.objects.extend(objects.map(|label| {
            let extent = self.boxes[usize::from(label)];
            let (count, sum) = self.sums[usize::from(label)];
            TrackedObject {
                label,
                area: extent.area,
                bounds: extent.rect(),
                confidence: if extent.area > 0 {
                    (sum / count as f64) as f32
                } else {
                    0.0
                },
            }
        }));
    }

    /// Interpolates row `y` of the soft labels at the multiple of the grid, bilinearly, `[width, used]`.
    fn interpolate(&mut self, grid: &Grid, soft: &[f32], used: usize, y: usize) {
        let (width, height) = (grid.width * self.scale, grid.height * self.scale);
        let line = grid.width * grid.channels;
        let (top, v) = bilinear(y, grid.height, height);
        let bottom = (top + 1).min(grid.height - 1);
        let (top, bottom) = (&soft[top * line..][..line], &soft[bottom * line..][..line]);
        for (x, pixel) in self.row.chunks_exact_mut(used).take(width).enumerate() {
            let (left, u) = bilinear(x, grid.width, width);
            let right = (left + 1).min(grid.width - 1);
            for (c, value) in pixel.iter_mut().enumerate() {
                let (l, r) = (left * grid.channels + c, right * grid.channels + c);
                *value = (1.0 - v) * ((1.0 - u) * top[l] + u * top[r])
                    + v * ((1.0 - u) * bottom[l] + u * bottom[r]);
            }
        }
    }

    /// Resizes the labels to the size of the image by nearest neighbor.
    fn resize(&mut self, width: usize, height: usize, size: Size, out: &mut TrackedMask) {
        (out.width, out.height) = (size.width, size.height);
        out.labels.clear();
        out.labels.reserve(size.area());
        self.boxes.fill(Extent::EMPTY);
        self.columns.clear();
        self.columns
            .extend((0..size.width).map(|x| nearest(x, size.width, width)));
        for y in 0..size.height {
            let row = &self.labels[nearest(y, size.height, height) * width..][..width];
            for (x, column) in self.columns.iter().enumerate() {
                let label = row[*column];
                out.labels.push(label);
                self.boxes[usize::from(label)].add(x, y);
            }
        }
    }
}
