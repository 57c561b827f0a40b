//! Random numbers from integer hashes.

use crate::vector::V3;

/// A splitmix64 generator.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in 0..1.
    pub fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }

    pub fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// Uniform in `0..n`.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }

    pub fn chance(&mut self, p: f32) -> bool {
        self.unit() < p
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// Hash of a grid cell.
pub fn cell(seed: u32, x: i32, y: i32, z: i32) -> u32 {
    let mut h = seed
        ^ (x as u32).wrapping_mul(0x8da6_b343)
        ^ (y as u32).wrapping_mul(0xd816_3841)
        ^ (z as u32).wrapping_mul(0xcb1a_b31f);
    h ^= h >> 15;
    h = h.wrapping_mul(0x2c1b_3c6d);
    h ^= h >> 12;
    h = h.wrapping_mul(0x297a_2d39);
    h ^ (h >> 15)
}

/// The upper bits of a hash as a value in 0..1.
pub fn unit(h: u32) -> f32 {
    (h >> 8) as f32 / (1u32 << 24) as f32
}

/// Value noise in 0..1: a random value at each corner of a unit grid, smoothly interpolated.
pub fn noise(seed: u32, p: V3) -> f32 {
    let base = p.floor();
    let f = p - base;
    let ease = |t: f32| t * t * (3.0 - 2.0 * t);
    let (fx, fy, fz) = (ease(f.x), ease(f.y), ease(f.z));
    // Far outside any scene the cast saturates, which only makes the noise constant.
    let (x, y, z) = (base.x as i32, base.y as i32, base.z as i32);
    let mix = |a: f32, b: f32, t: f32| a + (b - a) * t;
    let edge = |y: i32, z: i32| {
        mix(
            unit(cell(seed, x, y, z)),
            unit(cell(seed, x.wrapping_add(1), y, z)),
            fx,
        )
    };
    let (y1, z1) = (y.wrapping_add(1), z.wrapping_add(1));
    mix(
        mix(edge(y, z), edge(y1, z), fy),
        mix(edge(y, z1), edge(y1, z1), fy),
        fz,
    )
}
