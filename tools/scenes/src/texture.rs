//! Procedural textures, filtered to the pixel footprint to avoid aliasing.

use crate::{
    hash::{self, Random},
    vector::{V3, floor, v3},
};

/// A pattern of two colors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// Stripes across the first axis.
    Stripes,
    /// Stripes along the second axis.
    Bands,
    /// A checkerboard in all three axes.
    Checks,
    /// Soft patches.
    Patches,
    /// Small patches with hard edges.
    Leaves,
    /// Round spots.
    Spots,
    /// Bricks in the plane of the first two axes.
    Bricks,
    /// Windows in the plane of the first two axes.
    Windows,
    /// Only grain.
    Plain,
}

impl Pattern {
    pub const ANY: [Pattern; 7] = [
        Pattern::Stripes,
        Pattern::Bands,
        Pattern::Checks,
        Pattern::Patches,
        Pattern::Leaves,
        Pattern::Spots,
        Pattern::Plain,
    ];
}

/// Colors and pattern of a surface.
#[derive(Debug, Clone)]
pub struct Surface {
    pub pattern: Pattern,
    /// Colors in linear light.
    pub colors: [V3; 2],
    /// Pattern cells per meter.
    pub scale: f32,
    /// Strength of the fine grain.
    pub grain: f32,
    pub phase: V3,
    pub seed: u32,
}

impl Surface {
    pub fn new(random: &mut Random, pattern: Pattern, colors: [V3; 2], scale: f32) -> Self {
        let mut phase = || random.between(0.15, 0.85);
        let phase = v3(phase(), phase(), phase());
        let grain = random.between(0.1, 0.3);
        Self {
            pattern,
            colors,
            scale,
            grain,
            phase,
            seed: random.next() as u32,
        }
    }

    /// The color at `p`, in meters in surface coordinates, averaged over about `width` meters.
    pub fn color(&self, p: V3, width: f32) -> V3 {
        let w = width * self.scale;
        let q = p * self.scale + self.phase;
        let share = match self.pattern {
            Pattern::Stripes => 0.5 + 0.5 * square(q.x + 0.4 * q.z, w),
            Pattern::Bands => 0.5 + 0.5 * square(q.y, w),
            Pattern::Checks => 0.5 + 0.5 * square(q.x, w) * square(q.y, w) * square(q.z, w),
            Pattern::Patches => step(self.octaves(q, w), 0.5, 0.12 + 0.3 * w),
            Pattern::Leaves => step(self.octaves(q * 2.5, 2.5 * w), 0.52, 0.02 + w),
            Pattern::Spots => self.spots(q, w),
            Pattern::Bricks => bricks(q, w),
            Pattern::Windows => windows(q, w),
            Pattern::Plain => 0.0,
        };
        let color = self.colors[0].mix(self.colors[1], share);
        let frequency = 9.0;
        let grain = fade(width * frequency) * self.grain;
        if grain > 0.0 {
            color * (1.0 + grain * (hash::noise(self.seed ^ 0x5bd1, p * frequency) - 0.5) * 2.0)
        } else {
            color
        }
    }

    fn octaves(&self, q: V3, w: f32) -> f32 {
        let coarse = hash::noise(self.seed, q) - 0.5;
        let fine = fade(2.2 * w);
        if fine == 0.0 {
            return 0.5 + fade(w) * coarse;
        }
        let fine = fine * (hash::noise(self.seed ^ 0x9e37, q * 2.2) - 0.5);
        0.5 + fade(w) * (coarse + 0.6 * fine)
    }

    /// One spot at a random position in each cell.
    fn spots(&self, q: V3, w: f32) -> f32 {
        let base = q.floor();
        let h = hash::cell(self.seed, base.x as i32, base.y as i32, base.z as i32);
        let radius = 0.28 + 0.16 * ((h & 255) as f32 / 255.0);
        let shift = |bits: u32| ((h >> bits) & 255) as f32 / 255.0 * (1.0 - 2.0 * radius) + radius;
        let d = q - base - v3(shift(8), shift(16), shift(24));
        fade(0.5 * w) * step(radius - d.length(), 0.0, 0.02 + 0.5 * w)
    }
}

/// A square wave between -1 and 1 with period 2, averaged over `width`.
fn square(u: f32, width: f32) -> f32 {
    let w = width.max(1e-3);
    // Its integral is a triangle wave.
    let integral = |u: f32| 1.0 - (u - 2.0 * floor(u * 0.5) - 1.0).abs();
    ((integral(u + 0.5 * w) - integral(u - 0.5 * w)) / w).clamp(-1.0, 1.0)
}

/// A linear step from 0 to 1 at `edge`, of width `width`.
fn step(x: f32, edge: f32, width: f32) -> f32 {
    ((x - edge) / width + 0.5).clamp(0.0, 1.0)
}

/// Contrast of a detail of size 1 in a pixel of size `w`: from 1 if it is resolved to 0.
fn fade(w: f32) -> f32 {
    (1.4 - w).clamp(0.0, 1.0)
}

/// Fraction of mortar.
fn bricks(q: V3, w: f32) -> f32 {
    let course = floor(2.0 * q.y);
    let along = q.x + 0.5 * (course - 2.0 * floor(course * 0.5));
    let joint = |u: f32, half: f32| {
        let d = (u - floor(u + 0.5)).abs();
        step(-d, -half, 0.02 + w) * fade(0.7 * w) + (1.0 - fade(0.7 * w)) * 2.0 * half
    };
    joint(along, 0.04).max(joint(2.0 * q.y, 0.07))
}

/// Fraction of glass.
fn windows(q: V3, w: f32) -> f32 {
    let pane = |u: f32| {
        let d = (u - floor(u) - 0.5).abs();
        step(-d, -0.28, 0.03 + w) * fade(0.7 * w) + (1.0 - fade(0.7 * w)) * 0.56
    };
    pane(q.x) * pane(0.8 * q.y)
}

/// Converts hue, saturation and value, all in 0..=1, to linear light.
pub fn hsv(hue: f32, saturation: f32, value: f32) -> V3 {
    let channel = |offset: f32| {
        let k = (hue * 6.0 + offset) % 6.0;
        let ramp = k.min(4.0 - k).clamp(0.0, 1.0);
        let x = value * (1.0 - saturation * ramp);
        x * x
    };
    v3(channel(5.0), channel(3.0), channel(1.0))
}
