//! The camera and its path.

use crate::{
    hash::Random,
    vector::{V3, sin_cos, v3},
};

/// Focal length relative to the longer side of the image: a field of view of 61 degrees.
const FOCAL: f32 = 0.85;

/// A pinhole camera at one time. Pixel `(i, j)` is the square from `(i, j)` to `(i + 1, j + 1)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Camera {
    pub(crate) position: V3,
    pub(crate) right: V3,
    pub(crate) down: V3,
    pub(crate) forward: V3,
    width: f32,
    height: f32,
    pub(crate) focal: f32,
}

impl Camera {
    /// Position, in meters; y is up.
    pub fn position(&self) -> [f32; 3] {
        [self.position.x, self.position.y, self.position.z]
    }

    /// Unit axes in world coordinates: right, down, forward.
    pub fn axes(&self) -> [[f32; 3]; 3] {
        [self.right, self.down, self.forward].map(|v| [v.x, v.y, v.z])
    }

    /// Focal length in pixels; the principal point is the image center.
    pub fn focal(&self) -> f32 {
        self.focal
    }

    /// Direction of the ray through an image position, with a component of 1 along `forward`.
    pub(crate) fn direction(&self, x: f32, y: f32) -> V3 {
        let (u, v) = (
            (x - 0.5 * self.width) / self.focal,
            (y - 0.5 * self.height) / self.focal,
        );
        self.forward + self.right * u + self.down * v
    }

    /// Image position and depth of the point at `d` relative to the camera.
    pub(crate) fn project(&self, d: V3) -> (f32, f32, f32) {
        let depth = d.dot(self.forward);
        let scale = self.focal / depth;
        let x = d.dot(self.right) * scale + 0.5 * self.width;
        let y = d.dot(self.down) * scale + 0.5 * self.height;
        (x, y, depth)
    }
}

/// The motion of a camera: around the path, with sway, looking ahead and inward.
#[derive(Debug, Clone)]
pub struct CameraPath {
    radius: f64,
    start: f64,
    /// Revolutions per second around the path; the sign is the direction.
    pace: f64,
    height: f64,
    /// Yaw from straight ahead, inward, in turns.
    inwards: f64,
    /// Pitch below the horizon, in turns.
    downwards: f64,
    /// Phases of the sway.
    phases: [f64; 5],
}

impl CameraPath {
    pub fn new(random: &mut Random, path: (f32, f32)) -> Self {
        let mut between = |low, high| f64::from(random.between(low, high));
        let radius = 0.5 * f64::from(path.0 + path.1);
        let meters_per_second = between(0.5, 1.0);
        let side = if between(0.0, 1.0) < 0.5 { -1.0 } else { 1.0 };
        Self {
            radius,
            start: between(0.0, 1.0),
            pace: side * meters_per_second / (radius * std::f64::consts::TAU),
            height: between(0.8, 1.4),
            inwards: between(0.07, 0.17),
            downwards: between(0.01, 0.035),
            phases: std::array::from_fn(|_| between(0.0, 1.0)),
        }
    }

    pub fn camera(&self, time: f64, width: usize, height: usize) -> Camera {
        // Frequencies of the sway components, in hertz.
        let sway = |i: usize, pace: f64| sin_cos(time * pace + self.phases[i]).0;
        let angle = self.start + self.pace * time;
        let (sin, cos) = sin_cos(angle);
        let radius = self.radius + 0.15 * sway(0, 0.11);
        let up = self.height + 0.04 * sway(1, 0.45);
        let position = v3((radius * cos) as f32, up as f32, (radius * sin) as f32);

        let ahead = if self.pace < 0.0 { -0.25 } else { 0.25 };
        let inwards = self.inwards + 0.045 * sway(2, 0.07);
        let (yaw_sin, yaw_cos) = sin_cos(angle + ahead + inwards * ahead.signum());
        let (pitch_sin, pitch_cos) = sin_cos(self.downwards + 0.006 * sway(3, 0.19));
        let forward = v3(
            (yaw_cos * pitch_cos) as f32,
            -pitch_sin as f32,
            (yaw_sin * pitch_cos) as f32,
        );
        let level = v3(-yaw_sin as f32, 0.0, yaw_cos as f32);
        let below = level.cross(forward) * -1.0;
        let below = if below.y > 0.0 { below * -1.0 } else { below };
        let right = below.cross(forward);
        let (roll_sin, roll_cos) = sin_cos(0.006 * sway(4, 0.23));
        let (s, c) = (roll_sin as f32, roll_cos as f32);
        Camera {
            position,
            right: right * c + below * s,
            down: below * c - right * s,
            forward,
            width: width as f32,
            height: height as f32,
            focal: FOCAL * width.max(height) as f32,
        }
    }
}
