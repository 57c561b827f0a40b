//! Made-up scenes with exact labels: textured, lit and overlapping bodies in a walled square, and a
//! camera that moves among them.
//!
//! A [`Scene`] follows from its seed, a [`Frame`] from the scene, a time and a size: the same on
//! every machine to the bit, because nothing but exactly rounded arithmetic and integer hashes
//! enter. Hues and patterns hint at a class, nine times in ten each; every surface has edges that
//! belong to no outline. Pixels on an edge are averaged over nine rays, labels are those of the
//! ray through the centre.
//!
//! Only the camera moves, so the way of every pixel from one moment to another is known exactly:
//! [`Scene::flow`].

#![forbid(unsafe_code)]

mod camera;
mod flow;
mod hash;
mod layout;
mod light;
mod masks;
mod render;
mod shapes;
mod texture;
mod vector;

pub use camera::Camera;
pub use flow::Flow;

use camera::Way;
use hash::Random;
use layout::World;
use render::Caster;

/// Names of the classes, by index.
pub const CLASSES: [&str; 11] = [
    "sky", "wall", "floor", "path", "box", "ball", "pole", "cone", "star", "ring", "bush",
];

/// A colour for each class, to look at.
pub const PALETTE: [[u8; 3]; 11] = [
    [135, 190, 235],
    [150, 110, 90],
    [190, 185, 175],
    [90, 90, 105],
    [230, 120, 40],
    [215, 50, 70],
    [250, 215, 60],
    [150, 70, 180],
    [245, 245, 120],
    [60, 190, 190],
    [70, 150, 60],
];

/// A class; its number is the index into [`CLASSES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Class {
    Sky,
    Wall,
    Floor,
    Path,
    Box,
    Ball,
    Pole,
    Cone,
    Star,
    Ring,
    Bush,
}

impl Class {
    pub const ALL: [Class; 11] = [
        Class::Sky,
        Class::Wall,
        Class::Floor,
        Class::Path,
        Class::Box,
        Class::Ball,
        Class::Pole,
        Class::Cone,
        Class::Star,
        Class::Ring,
        Class::Bush,
    ];
}

/// A picture and what is on it. All row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Three bytes a pixel.
    pub rgb: Vec<u8>,
    /// Class of the centre of each pixel, an index into [`CLASSES`].
    pub classes: Vec<u8>,
    /// Which thing the centre of each pixel shows. The same number means the same thing in every
    /// frame of a scene; there are gaps between numbers.
    pub instances: Vec<u16>,
}

/// A scene.
#[derive(Debug, Clone)]
pub struct Scene {
    seed: u64,
    world: World,
    way: Way,
    noise: f32,
}

impl Scene {
    /// The scene of a seed, without sensor noise.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x6c6f_6674_7570);
        let world = World::new(&mut random);
        let way = Way::new(&mut random, world.path);
        Self {
            seed,
            world,
            way,
            noise: 0.0,
        }
    }

    /// The same with a sensor's noise: `sigma` levels (of 255) in mid grey, changing from frame
    /// to frame.
    pub fn with_noise(self, sigma: f32) -> Self {
        Self {
            noise: sigma,
            ..self
        }
    }

    /// Which scene it is.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// What the camera sees at `time`, in seconds, any finite number. Meant to be played at 10 to
    /// 60 frames a second.
    ///
    /// # Panics
    /// If `width` or `height` is 0 or above 65536.
    pub fn frame(&self, time: f64, width: usize, height: usize) -> Frame {
        let (light, classes, instances) = self.caster(time, width, height).picture();
        let mut rgb = Vec::with_capacity(3 * light.len());
        // A gamma of 2 in place of sRGB's: a square root is exactly rounded everywhere.
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

    /// Where what frame `t0` shows lies in frame `t1`: sampling frame `t1` at
    /// [`Flow::target`] gives frame `t0` again wherever it is visible.
    ///
    /// # Panics
    /// As [`Scene::frame`].
    pub fn flow(&self, t0: f64, t1: f64, width: usize, height: usize) -> Flow {
        flow::flow(
            &self.caster(t0, width, height),
            &self.caster(t1, width, height),
        )
    }

    /// The camera at `time`, for pictures of this size.
    pub fn camera(&self, time: f64, width: usize, height: usize) -> Camera {
        self.way.camera(time, width, height)
    }

    fn caster(&self, time: f64, width: usize, height: usize) -> Caster<'_> {
        let sides = 1..=65536;
        assert!(
            sides.contains(&width) && sides.contains(&height),
            "a frame of {width}x{height}"
        );
        Caster::new(
            &self.world,
            self.way.camera(time, width, height),
            width,
            height,
        )
    }

    fn add_noise(&self, rgb: &mut [u8], time: f64) {
        let bits = time.to_bits();
        let seed = (bits ^ (bits >> 32) ^ self.seed) as u32;
        // A sum of four has a standard deviation of 1/sqrt(3) and is nearly normal.
        let scale = self.noise * 3f32.sqrt();
        for (i, value) in rgb.iter_mut().enumerate() {
            let h = hash::cell(seed, i as i32, 0, 0);
            let sum: f32 = (0..4).map(|k| ((h >> (8 * k)) & 255) as f32 / 255.0).sum();
            *value = level(f32::from(*value) + scale * (sum - 2.0));
        }
    }
}

/// Rounded; a cast to `u8` saturates.
fn level(x: f32) -> u8 {
    (x + 0.5) as u8
}
