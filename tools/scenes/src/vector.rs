//! Vectors of three floats.
//!
//! Only sums, products, quotients and square roots are used, which every machine rounds alike:
//! pictures are the same everywhere to the bit.

use std::ops::{Add, Mul, Sub};

/// A point, a direction or a colour in linear light.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct V3 {
    pub x: f32,
    pub y: f32,
    pub z: f32,
}

pub const fn v3(x: f32, y: f32, z: f32) -> V3 {
    V3 { x, y, z }
}

impl V3 {
    pub fn dot(self, o: V3) -> f32 {
        self.x * o.x + self.y * o.y + self.z * o.z
    }

    pub fn cross(self, o: V3) -> V3 {
        v3(
            self.y * o.z - self.z * o.y,
            self.z * o.x - self.x * o.z,
            self.x * o.y - self.y * o.x,
        )
    }

    pub fn length(self) -> f32 {
        self.dot(self).sqrt()
    }

    pub fn normalised(self) -> V3 {
        self * (1.0 / self.length())
    }

    /// Of each part.
    pub fn floor(self) -> V3 {
        v3(floor(self.x), floor(self.y), floor(self.z))
    }

    /// From `self` (at 0) to `o` (at 1).
    pub fn mix(self, o: V3, t: f32) -> V3 {
        self * (1.0 - t) + o * t
    }

    /// About the vertical axis, by the angle with this cosine and sine.
    pub fn turned(self, (cos, sin): (f32, f32)) -> V3 {
        v3(
            cos * self.x - sin * self.z,
            self.y,
            sin * self.x + cos * self.z,
        )
    }
}

/// The largest whole number not above `x`, for `x` that an `i32` can hold: many times faster than
/// the library's where the processor's own instruction must not be assumed.
pub fn floor(x: f32) -> f32 {
    let towards_zero = x as i32 as f32;
    if towards_zero > x {
        towards_zero - 1.0
    } else {
        towards_zero
    }
}

impl Add for V3 {
    type Output = V3;
    fn add(self, o: V3) -> V3 {
        v3(self.x + o.x, self.y + o.y, self.z + o.z)
    }
}

impl Sub for V3 {
    type Output = V3;
    fn sub(self, o: V3) -> V3 {
        v3(self.x - o.x, self.y - o.y, self.z - o.z)
    }
}

impl Mul<f32> for V3 {
    type Output = V3;
    fn mul(self, s: f32) -> V3 {
        v3(self.x * s, self.y * s, self.z * s)
    }
}

/// Channel by channel.
impl Mul for V3 {
    type Output = V3;
    fn mul(self, o: V3) -> V3 {
        v3(self.x * o.x, self.y * o.y, self.z * o.z)
    }
}

/// Sine and cosine of an angle in turns, by polynomials: library functions differ between
/// machines in the last bit, and a last bit can move a label.
pub fn sin_cos(turns: f64) -> (f64, f64) {
    (sine(turns), sine(turns + 0.25))
}

fn sine(turns: f64) -> f64 {
    let t = turns - (turns + 0.5).floor();
    // Folded to a quarter turn to either side, where the series is short.
    let t = if t > 0.25 {
        0.5 - t
    } else if t < -0.25 {
        -0.5 - t
    } else {
        t
    };
    let x = t * std::f64::consts::TAU;
    let s = x * x;
    let mut sum = 0.0;
    for n in [15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0] {
        sum = (1.0 + sum) * (-s / (n * (n - 1.0)));
    }
    x * (1.0 + sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sine_agrees_with_the_library() {
        let mut worst = 0f64;
        for i in -4000..4000 {
            let turns = f64::from(i) / 777.0;
            let (s, c) = sin_cos(turns);
            let (ls, lc) = (turns * std::f64::consts::TAU).sin_cos();
            worst = worst.max((s - ls).abs()).max((c - lc).abs());
        }
        println!("worst difference {worst:e}");
        assert!(worst < 1e-11, "{worst:e}"); // the series' first term left out is 6e-12
    }
}
