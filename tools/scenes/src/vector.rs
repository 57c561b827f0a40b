//! 3D vectors.
//!
//! Only sums, products, quotients and square roots are used, which are exactly rounded on every
//! machine, so that images are bit-identical everywhere.

use std::ops::{Add, Mul, Sub};

/// A point, a direction, or a color in linear light.
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

    pub fn normalized(self) -> V3 {
        self * (1.0 / self.length())
    }

    /// Floor of each component.
    pub fn floor(self) -> V3 {
        v3(floor(self.x), floor(self.y), floor(self.z))
    }

    /// Linear interpolation from `self` (0) to `o` (1).
    pub fn mix(self, o: V3, t: f32) -> V3 {
        self * (1.0 - t) + o * t
    }

    /// Rotation about the vertical axis by the angle with this cosine and sine.
    pub fn rotated(self, (cos, sin): (f32, f32)) -> V3 {
        v3(
            cos * self.x - sin * self.z,
            self.y,
            sin * self.x + cos * self.z,
        )
    }
}

/// Floor of `x`, for `x` in the range of an `i32`. Much faster than `f32::floor` for targets whose
/// baseline has no floor instruction.
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

/// Component-wise product.
impl Mul for V3 {
    type Output = V3;
    fn mul(self, o: V3) -> V3 {
        v3(self.x * o.x, self.y * o.y, self.z * o.z)
    }
}

/// Sine and cosine of an angle in turns, by polynomials: library functions differ between machines in
/// the last bit, which can change a label.
pub fn sin_cos(turns: f64) -> (f64, f64) {
    (sine(turns), sine(turns + 0.25))
}

fn sine(turns: f64) -> f64 {
    let t = turns - (turns + 0.5).floor();
    // Reduced to a quarter turn around 0, where few terms are enough.
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
        assert!(worst < 1e-11, "{worst:e}"); // the first omitted term of the series is 6e-12
    }
}
