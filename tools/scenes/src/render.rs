//! Ray casting.

use crate::{
    camera::Camera,
    class::Class,
    hash,
    layout::{SEGMENTS, World},
    shapes::Ray,
    vector::{V3, v3},
};

/// Instance numbers: sky, floor and path, then wall segments, then objects.
pub const SKY: u16 = 0;
const FLOOR: u16 = 1;
const PATH: u16 = 2;
const WALLS: u16 = 3;
pub const BODIES: u16 = WALLS + 4 * SEGMENTS as u16;

/// Peak-to-peak amplitude of the irregular edge of the path, in meters.
const WAVE: f32 = 0.24;

/// Side of the image tiles for which the visible objects are listed, in pixels.
const TILE: usize = 16;

/// Positions of the additional samples of a pixel at an edge, one per eighth of the pixel in x and y.
const EXTRA: [(f32, f32); 8] = [
    (0.0625, 0.4375),
    (0.1875, 0.8125),
    (0.3125, 0.1875),
    (0.4375, 0.6875),
    (0.5625, 0.0625),
    (0.6875, 0.5625),
    (0.8125, 0.9375),
    (0.9375, 0.3125),
];

/// The first hit of a ray.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Instance number.
    pub instance: u16,
    pub class: Class,
    face: u8,
    /// Depth along the optical axis; infinite for the sky.
    pub depth: f32,
    normal: V3,
}

impl Sample {
    fn key(&self, sunny: bool) -> u32 {
        (u32::from(self.instance) << 9) | (u32::from(self.face) << 1) | u32::from(sunny)
    }
}

/// The bit of a key that is set in sunlight.
const SUNNY: u32 = 1;

/// A camera, and the objects that may be visible in each tile.
pub struct Caster<'a> {
    world: &'a World,
    pub camera: Camera,
    pub width: usize,
    pub height: usize,
    columns: usize,
    squares: Vec<Vec<u16>>,
}

impl<'a> Caster<'a> {
    pub fn new(world: &'a World, camera: Camera, width: usize, height: usize) -> Self {
        let (columns, rows) = (width.div_ceil(TILE), height.div_ceil(TILE));
        let mut squares = vec![Vec::new(); columns * rows];
        for (i, body) in world.bodies.iter().enumerate() {
            let Some((x, y)) = in_sight(&camera, body.center, body.radius) else {
                continue;
            };
            let half = (0.5 * width as f32, 0.5 * height as f32);
            let span = |(low, high): (f32, f32), middle: f32, count: usize| {
                let square = |u: f32| (u + middle) / TILE as f32;
                let low = square(low - 1.0).floor().max(0.0) as usize;
                // The cast to usize saturates; an object entirely to the left is -1 here and in no column.
                let high = (square(high + 1.0).floor() + 1.0)
                    .min(count as f32)
                    .max(0.0) as usize;
                low..high
            };
            for row in span(y, half.1, rows) {
                for column in span(x, half.0, columns) {
                    squares[row * columns + column].push(i as u16);
                }
            }
        }
        Self {
            world,
            camera,
            width,
            height,
            columns,
            squares,
        }
    }

    /// The first hit at an image position, which must be inside the image.
    pub fn sample(&self, x: f32, y: f32) -> Sample {
        let ray = Ray {
            from: self.camera.position,
            along: self.camera.direction(x, y),
        };
        let mut best = self.world.surroundings(&ray);
        let square = y as usize / TILE * self.columns + x as usize / TILE;
        for &i in &self.squares[square] {
            let body = &self.world.bodies[usize::from(i)];
            if let Some(hit) = body.hit(&ray)
                && hit.t < best.depth
            {
                best = Sample {
                    instance: BODIES + i,
                    class: Class::ALL[usize::from(body.class)],
                    face: hit.face,
                    depth: hit.t,
                    normal: hit.normal,
                };
            }
        }
        best
    }

    /// Renders the image: linear light, class and instance of each pixel.
    pub fn render(&self) -> (Vec<V3>, Vec<u8>, Vec<u16>) {
        let area = self.width * self.height;
        let mut light = Vec::with_capacity(area);
        let mut classes = Vec::with_capacity(area);
        let mut instances = Vec::with_capacity(area);
        // There is an edge where this differs between neighbors.
        let mut keys = Vec::with_capacity(area);
        for y in 0..self.height {
            for x in 0..self.width {
                let (x, y) = (x as f32 + 0.5, y as f32 + 0.5);
                let sample = self.sample(x, y);
                let (color, sunny) = self.color(&sample, x, y);
                light.push(color);
                classes.push(sample.class as u8);
                instances.push(sample.instance);
                keys.push(sample.key(sunny));
            }
        }
        let centers = light.clone();
        for y in 0..self.height {
            for x in 0..self.width {
                let i = y * self.width + x;
                let mut differs = 0;
                for (there, j) in [
                    (x > 0, i.wrapping_sub(1)),
                    (x + 1 < self.width, i + 1),
                    (y > 0, i.wrapping_sub(self.width)),
                    (y + 1 < self.height, i + self.width),
                ] {
                    if there {
                        differs |= keys[j] ^ keys[i];
                    }
                }
                if differs != 0 {
                    let shadow = differs & SUNNY != 0;
                    light[i] = self.finer(x, y, keys[i], centers[i], shadow);
                }
            }
        }
        (light, classes, instances)
    }

    /// Depth at the center of each pixel.
    pub fn depth(&self) -> Vec<f32> {
        let centers = (0..self.height)
            .flat_map(|y| (0..self.width).map(move |x| (x as f32 + 0.5, y as f32 + 0.5)));
        centers.map(|(x, y)| self.sample(x, y).depth).collect()
    }

    /// Antialiased light of a pixel at an edge.
    fn finer(&self, x: usize, y: usize, key: u32, center: V3, shadow: bool) -> V3 {
        let sum = EXTRA.iter().fold(center, |sum, (dx, dy)| {
            let (x, y) = (x as f32 + dx, y as f32 + dy);
            let sample = self.sample(x, y);
            // On the same side of the edge the light is nearly that of the center.
            let same = !shadow && sample.key(false) == key & !SUNNY;
            sum + if same {
                center
            } else {
                self.color(&sample, x, y).0
            }
        });
        sum * (1.0 / (EXTRA.len() + 1) as f32)
    }

    /// Light of a sample, and whether it is in sunlight.
    fn color(&self, sample: &Sample, x: f32, y: f32) -> (V3, bool) {
        let world = self.world;
        let along = self.camera.direction(x, y);
        let length = along.length();
        if sample.instance == SKY {
            return (
                world.sky_color(along * (1.0 / length), length / self.camera.focal),
                false,
            );
        }
        let p = self.camera.position + along * sample.depth;
        let slant = -along.dot(sample.normal) / length;
        let pixel = sample.depth * length / self.camera.focal / slant.max(0.2);
        let (surface, local) = world.surface(sample, p);
        let albedo = surface.color(local, pixel);
        let mut light = world.lights.without_sun(p, sample.normal);
        if sample.instance == FLOOR || sample.instance == PATH {
            light = light * world.ground.open(p);
        }
        let facing = sample.normal.dot(world.lights.sun);
        let sunny = facing > 0.0 && {
            let ray = Ray {
                from: p + sample.normal * 2e-3,
                along: world.lights.sun,
            };
            world.surroundings(&ray).instance == SKY && !world.shadows.shade(&world.bodies, &ray)
        };
        if sunny {
            light = light + world.lights.sunlight * facing;
        }
        let air = (sample.depth * length * world.lights.haze).min(0.6);
        ((albedo * light).mix(world.sky.horizon, air), sunny)
    }
}

impl World {
    /// Floor, walls and sky.
    fn surroundings(&self, ray: &Ray) -> Sample {
        let (o, d) = (ray.from, ray.along);
        let exit = |o: f32, d: f32| {
            if d > 0.0 {
                (self.half - o) / d
            } else if d < 0.0 {
                (-self.half - o) / d
            } else {
                f32::INFINITY
            }
        };
        let (tx, tz) = (exit(o.x, d.x), exit(o.z, d.z));
        let side = tx.min(tz);
        let down = if d.y < 0.0 { -o.y / d.y } else { f32::INFINITY };
        if down < side {
            let p = ray.at(down);
            let r = (p.x * p.x + p.z * p.z).sqrt();
            // An irregular edge of the path.
            let mut wave = 0.0;
            if (r - self.path.0).abs().min((r - self.path.1).abs()) <= 0.5 * WAVE {
                wave = WAVE * (hash::noise(self.paving.seed, v3(p.x, 3.7, p.z) * 1.3) - 0.5);
            }
            let on_path = r > self.path.0 + wave && r < self.path.1 + wave;
            let (instance, class) = if on_path {
                (PATH, Class::Path)
            } else {
                (FLOOR, Class::Floor)
            };
            return Sample {
                instance,
                class,
                face: 0,
                depth: down,
                normal: v3(0.0, 1.0, 0.0),
            };
        }
        let p = ray.at(side);
        let (wall, along, normal) = if tx < tz {
            (
                usize::from(d.x > 0.0),
                p.z,
                v3(if d.x > 0.0 { -1.0 } else { 1.0 }, 0.0, 0.0),
            )
        } else {
            (
                2 + usize::from(d.z > 0.0),
                p.x,
                v3(0.0, 0.0, if d.z > 0.0 { -1.0 } else { 1.0 }),
            )
        };
        let share = (along + self.half) / (2.0 * self.half);
        let segment = (share * SEGMENTS as f32).clamp(0.0, (SEGMENTS - 1) as f32) as usize;
        let index = wall * SEGMENTS + segment;
        if p.y > self.walls[index].0 {
            let normal = V3::default();
            return Sample {
                instance: SKY,
                class: Class::Sky,
                face: 0,
                depth: f32::INFINITY,
                normal,
            };
        }
        let instance = WALLS + index as u16;
        Sample {
            instance,
            class: Class::Wall,
            face: 0,
            depth: side,
            normal,
        }
    }

    /// The surface of a sample, and the point in the coordinates of the surface.
    fn surface(&self, sample: &Sample, p: V3) -> (&crate::texture::Surface, V3) {
        match sample.instance {
            FLOOR => (&self.floor, v3(p.x, p.z, 0.0)),
            PATH => (&self.paving, v3(p.x, p.z, 0.0)),
            i if i < BODIES => {
                let along = if sample.normal.x == 0.0 { p.x } else { p.z };
                (&self.walls[usize::from(i - WALLS)].1, v3(along, p.y, 0.0))
            }
            i => {
                let body = &self.bodies[usize::from(i - BODIES)];
                (&body.surface, body.local(p))
            }
        }
    }

    fn sky_color(&self, d: V3, pixel: f32) -> V3 {
        let sky = &self.sky;
        let height = d.y.max(0.0);
        let base = sky.horizon.mix(sky.zenith, (2.2 * height).min(1.0));
        let sheet = 1.0 / (height + 0.18);
        let p = v3(d.x * sheet * 1.4, 0.5, d.z * sheet * 1.4);
        let fine = (1.0 - 12.0 * pixel * sheet * sheet).clamp(0.0, 1.0);
        let n = 0.65 * hash::noise(sky.seed, p)
            + 0.35 * fine * hash::noise(sky.seed ^ 7, p * 2.7)
            + 0.175 * (1.0 - fine);
        let cover = ((n - sky.clear) * 4.0).clamp(0.0, 1.0);
        base.mix(sky.cloud, cover)
    }
}

/// Bounds of a projected sphere in x and y, in pixels from the image center.
fn in_sight(camera: &Camera, center: V3, radius: f32) -> Option<((f32, f32), (f32, f32))> {
    let d = center - camera.position;
    let (x, y) = (d.dot(camera.right), d.dot(camera.down));
    let z = d.dot(camera.forward);
    if z < -radius {
        return None;
    }
    let everywhere = (-1e6, 1e6);
    if z < 1.05 * radius {
        return Some((everywhere, everywhere));
    }
    // Slopes of the two tangents to a circle.
    let bounds = |u: f32| {
        let (a, b) = (u * z, radius * (u * u + z * z - radius * radius).sqrt());
        let c = camera.focal / (z * z - radius * radius);
        ((a - b) * c, (a + b) * c)
    };
    Some((bounds(x), bounds(y)))
}
