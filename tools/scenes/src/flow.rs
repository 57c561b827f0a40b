//! Where everything seen at one moment is seen at another.

use crate::render::{Caster, SKY};

/// For each pixel of a first frame: where what its centre shows lies in a second one.
///
/// Places are in pixels from the left upper corner, pixel `(i, j)` centred at `(i + 0.5, j + 0.5)`.
/// They are exact but for the rounding of `f32` (about 1e-4 of a pixel): nothing in a scene moves
/// but the camera.
#[derive(Debug, Clone, PartialEq)]
pub struct Flow {
    /// Columns of both frames.
    pub width: usize,
    /// Rows of both frames.
    pub height: usize,
    /// How far to go from a pixel's centre, `[dx, dy]`; finite everywhere, 0 for what lies behind
    /// the second camera.
    pub shift: Vec<[f32; 2]>,
    /// Whether the second frame shows it: it is within the frame and nothing stands before it.
    pub visible: Vec<bool>,
}

impl Flow {
    /// The place in the second frame of what pixel `index` of the first shows.
    pub fn target(&self, index: usize) -> [f32; 2] {
        let (x, y) = (index % self.width, index / self.width);
        let [dx, dy] = self.shift[index];
        [x as f32 + 0.5 + dx, y as f32 + 0.5 + dy]
    }
}

/// Relative difference of depth up to which two rays have met the same point.
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
