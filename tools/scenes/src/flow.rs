//! Optical flow between two frames.

use crate::render::{Caster, SKY};

/// Optical flow from the pixel centers of a first frame to positions in a second frame.
///
/// Positions are in pixels from the top left corner; the center of pixel `(i, j)` is
/// `(i + 0.5, j + 0.5)`. They are exact up to the rounding of `f32` (about 1e-4 of a pixel), since only
/// the camera moves.
#[derive(Debug, Clone, PartialEq)]
pub struct Flow {
    /// Columns of both frames.
    pub width: usize,
    /// Rows of both frames.
    pub height: usize,
    /// Displacement `[dx, dy]` of each pixel; always finite, 0 for points behind the second camera.
    pub shift: Vec<[f32; 2]>,
    /// Whether the point is visible in the second frame: inside the frame and not occluded.
    pub visible: Vec<bool>,
}

impl Flow {
    /// The position in the second frame that corresponds to pixel `index` of the first.
    pub fn target(&self, index: usize) -> [f32; 2] {
        let (x, y) = (index % self.width, index / self.width);
        let [dx, dy] = self.shift[index];
        [x as f32 + 0.5 + dx, y as f32 + 0.5 + dy]
    }
}

/// Maximum relative difference in depth of two rays that hit the same point.
const SAME: f32 = 1e-3;

pub(crate) fn flow(from: &Caster<'_>, to: &Caster<'_>) -> Flow {
    let (width, height) = (from.width, from.height);
    let mut shift = Vec::with_capacity(width * height);
    let mut visible = Vec::with_capacity(width * height);
    for y in 0..height {
        for x in 0..width {
            let (x, y) = (x as f32 + 0.5, y as f32 + 0.5);
            let sample = from.sample(x, y);
            let along = from.camera.direction(x, y);
            let d = if sample.instance == SKY {
                along
            } else {
                from.camera.position + along * sample.depth - to.camera.position
            };
            let (u, v, depth) = to.camera.project(d);
            if depth <= 1e-3 {
                shift.push([0.0; 2]);
                visible.push(false);
                continue;
            }
            shift.push([u - x, v - y]);
            let inside = u >= 0.0 && v >= 0.0 && u < width as f32 && v < height as f32;
            visible.push(
                inside && {
                    let there = to.sample(u, v);
                    there.instance == sample.instance
                        && (sample.instance == SKY || (there.depth - depth).abs() <= SAME * depth)
                },
            );
        }
    }
    Flow {
        width,
        height,
        shift,
        visible,
    }
}
