//! Lighting: sun, sky and lamp, shadows and ambient occlusion.

use crate::{
    hash::Random,
    shapes::{Body, Ray},
    texture::hsv,
    vector::{V3, sin_cos, v3},
};

/// The lights of a scene.
#[derive(Debug, Clone)]
pub struct Lights {
    /// Unit vector toward the sun.
    pub sun: V3,
    pub sunlight: V3,
    /// Light of the sky, from above.
    pub ambient: V3,
    pub lamp: V3,
    pub lamplight: V3,
    /// Haze: the fraction of the sky's color added per meter.
    pub haze: f32,
}

impl Lights {
    pub fn new(random: &mut Random) -> Self {
        let (sin, cos) = sin_cos(f64::from(random.unit()));
        let (up, out) = sin_cos(f64::from(random.between(0.09, 0.19)));
        let strength = random.between(0.9, 1.5);
        let lamp = v3(
            random.between(-7.0, 7.0),
            random.between(1.5, 3.5),
            random.between(-7.0, 7.0),
        );
        Self {
            sun: v3((out * cos) as f32, up as f32, (out * sin) as f32),
            sunlight: hsv(random.between(0.05, 0.17), random.between(0.0, 0.3), 1.0) * strength,
            ambient: hsv(random.unit(), random.between(0.0, 0.2), 1.0) * random.between(0.3, 0.55),
            lamp,
            lamplight: hsv(random.unit(), random.between(0.1, 0.4), 1.0) * random.between(0.5, 2.0),
            haze: random.between(0.002, 0.02),
        }
    }

    /// Light on a point with this normal, without the sun.
    pub fn without_sun(&self, p: V3, normal: V3) -> V3 {
        let to = self.lamp - p;
        let square = to.dot(to);
        let slant = (normal.dot(to) / square.sqrt().max(1e-3)).max(0.0);
        self.ambient * (0.7 + 0.3 * normal.y) + self.lamplight * (slant / (1.0 + square))
    }
}

/// Candidate occluders of the sun, in a grid perpendicular to its rays.
#[derive(Debug, Clone)]
pub struct Shadows {
    right: V3,
    up: V3,
    low: (f32, f32),
    cells: Vec<Vec<u16>>,
}

/// Cells along each side of the grid, and cells per meter.
const SIDE: usize = 64;
const FINE: f32 = 2.5;

impl Shadows {
    pub fn new(bodies: &[Body], sun: V3) -> Self {
        let right = v3(sun.z, 0.0, -sun.x).normalized();
        let up = sun.cross(right);
        let reach = SIDE as f32 / FINE / 2.0;
        let mut shadows = Self {
            right,
            up,
            low: (-reach, -reach),
            cells: vec![Vec::new(); SIDE * SIDE],
        };
        for (i, body) in bodies.iter().enumerate() {
            let (x, y) = shadows.across(body.center);
            let span = |u: f32| {
                let cell = |u: f32| (u * FINE).floor().clamp(0.0, (SIDE - 1) as f32) as usize;
                cell(u - body.radius)..=cell(u + body.radius)
            };
            for row in span(y) {
                for column in span(x) {
                    shadows.cells[row * SIDE + column].push(i as u16);
                }
            }
        }
        shadows
    }

    fn across(&self, p: V3) -> (f32, f32) {
        (p.dot(self.right) - self.low.0, p.dot(self.up) - self.low.1)
    }

    /// Whether an object shades the point.
    pub fn shade(&self, bodies: &[Body], ray: &Ray) -> bool {
        let (x, y) = self.across(ray.from);
        // Clamped in the same way as the objects, so that none outside the grid is missed.
        let cell = |u: f32| (u * FINE).floor().clamp(0.0, (SIDE - 1) as f32) as usize;
        let candidates = &self.cells[cell(y) * SIDE + cell(x)];
        candidates
            .iter()
            .any(|i| bodies[usize::from(*i)].hit(ray).is_some())
    }
}

/// Ambient occlusion of the floor near objects.
#[derive(Debug, Clone)]
pub struct Ground {
    half: f32,
    light: Vec<f32>,
}

/// Samples along each side of the floor.
const SAMPLES: usize = 160;

impl Ground {
    pub fn new(bodies: &[Body], half: f32) -> Self {
        let mut light = vec![1.0f32; SAMPLES * SAMPLES];
        let step = 2.0 * half / (SAMPLES - 1) as f32;
        for body in bodies {
            let foot = body.shape.footprint().min(0.6);
            let reach = 2.0 * foot + 0.15;
            let index = |u: f32| ((u + half) / step).clamp(0.0, (SAMPLES - 1) as f32) as usize;
            for row in index(body.place.z - reach)..=index(body.place.z + reach) {
                for column in index(body.place.x - reach)..=index(body.place.x + reach) {
                    let p = v3(column as f32 * step - half, 0.0, row as f32 * step - half);
                    let near = 1.0 - (p - body.place).length() / reach;
                    if near > 0.0 {
                        light[row * SAMPLES + column] *=
                            1.0 - 0.75 * near * near * (3.0 - 2.0 * near);
                    }
                }
            }
        }
        Self { half, light }
    }

    /// Fraction of the sky light that reaches the floor at `p`.
    pub fn open(&self, p: V3) -> f32 {
        let scale = (SAMPLES - 1) as f32 / (2.0 * self.half);
        let place = |u: f32| {
            let u = ((u + self.half) * scale).clamp(0.0, (SAMPLES - 1) as f32 - 1e-3);
            (u as usize, u - u as usize as f32)
        };
        let ((x, fx), (z, fz)) = (place(p.x), place(p.z));
        let row = |z: usize| {
            let row = &self.light[z * SAMPLES + x..][..2];
            row[0] + (row[1] - row[0]) * fx
        };
        row(z) + (row(z + 1) - row(z)) * fz
    }
}
