//! Procedurally generated scenes with exact ground truth: textured, lit and occluding objects in a
//! walled square, seen by a moving camera.
//!
//! A [`Scene`] is determined by its seed, a [`Frame`] by scene, time and size. Frames are bit-identical
//! on every machine, because only exactly rounded arithmetic and integer hashes are used. Hue and
//! pattern are each typical of the class in nine of ten objects; textures have edges that are not
//! object boundaries. Pixels at edges are antialiased with nine rays; labels are those of the ray
//! through the pixel center.
//!
//! Only the camera moves, so the optical flow between two times is known exactly: [`Scene::flow`].

#![forbid(unsafe_code)]

mod camera;
mod class;
mod flow;
mod frame;
mod hash;
mod layout;
mod light;
mod masks;
mod render;
mod shapes;
mod texture;
mod vector;

pub use camera::Camera;
pub use class::{CLASSES, OBJECTS, PALETTE};
pub use flow::Flow;
pub use frame::Frame;

use camera::CameraPath;
use hash::Random;
use layout::World;
use render::Caster;

/// A generated scene.
#[derive(Debug, Clone)]
pub struct Scene {
    seed: u64,
    world: World,
    path: CameraPath,
    noise: f32,
}

impl Scene {
    /// Generates the scene of a seed, without sensor noise.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x6c6f_6674_7570);
        let world = World::new(&mut random);
        let path = CameraPath::new(&mut random, world.path);
        Self {
            seed,
            world,
            path,
            noise: 0.0,
        }
    }

    /// Adds sensor noise with a standard deviation of `sigma` levels (of 255), different in every
    /// frame.
    pub fn with_noise(self, sigma: f32) -> Self {
        Self {
            noise: sigma,
            ..self
        }
    }

    /// The seed of the scene.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Renders the frame at `time`, any finite number of seconds. The camera speed suits 10 to 60
    /// frames per second.
    ///
    /// # Panics
    /// If `width` or `height` is 0 or above 65536.
    pub fn frame(&self, time: f64, width: usize, height: usize) -> Frame {
        let (light, classes, instances) = self.caster(time, width, height).render();
        let mut rgb = Vec::with_capacity(3 * light.len());
        // Gamma 2 instead of sRGB: the square root is exactly rounded on every machine.
        for c in &light {
            rgb.extend([c.x, c.y, c.z].map(|c| level(255.0 * c.max(0.0).sqrt())));
        }
        if self.noise > 0.0 {
            self.add_noise(&mut rgb, time);
        }
        Frame {
            width,
            height,
            rgb,
            classes,
            instances,
        }
    }

    /// The depth at the center of each pixel of the frame at `time`: the distance to the camera along
    /// its optical axis, in meters, infinite for the sky.
    ///
    /// # Panics
    /// As for [`Scene::frame`].
    pub fn depth(&self, time: f64, width: usize, height: usize) -> Vec<f32> {
        self.caster(time, width, height).depth()
    }

    /// The optical flow from the frame at `t0` to the frame at `t1`: sampling the latter at
    /// [`Flow::target`] reproduces the former wherever it is visible.
    ///
    /// # Panics
    /// As for [`Scene::frame`].
    pub fn flow(&self, t0: f64, t1: f64, width: usize, height: usize) -> Flow {
        flow::flow(
            &self.caster(t0, width, height),
            &self.caster(t1, width, height),
        )
    }

    /// The camera at `time`, for images of this size.
    pub fn camera(&self, time: f64, width: usize, height: usize) -> Camera {
        self.path.camera(time, width, height)
    }

    fn caster(&self, time: f64, width: usize, height: usize) -> Caster<'_> {
        let sides = 1..=65536;
        assert!(
            sides.contains(&width) && sides.contains(&height),
            "a frame of {width}x{height}"
        );
        Caster::new(
            &self.world,
            self.path.camera(time, width, height),
            width,
            height,
        )
    }

    fn add_noise(&self, rgb: &mut [u8], time: f64) {
        let bits = time.to_bits();
        let seed = (bits ^ (bits >> 32) ^ self.seed) as u32;
        // The sum of four uniform values is nearly normal, with a standard deviation of 1/sqrt(3).
        let scale = self.noise * 3f32.sqrt();
        for (i, value) in rgb.iter_mut().enumerate() {
            let h = hash::cell(seed, i as i32, 0, 0);
            let sum: f32 = (0..4).map(|k| ((h >> (8 * k)) & 255) as f32 / 255.0).sum();
            *value = level(f32::from(*value) + scale * (sum - 2.0));
        }
    }
}

/// Rounds to 8 bits; the cast saturates.
fn level(x: f32) -> u8 {
    (x + 0.5) as u8
}
