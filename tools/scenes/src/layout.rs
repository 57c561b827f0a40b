//! Scene layout: a walled square with a circular path for the camera, objects inside and outside the
//! path, and a sky.

use crate::{
    class::Class,
    hash::Random,
    light::{Ground, Lights, Shadows},
    shapes::{Body, Shape},
    texture::{Pattern, Surface, hsv},
    vector::{V3, sin_cos, v3},
};

/// Segments per wall.
pub const SEGMENTS: usize = 12;
/// Number of objects per class to place; fewer if there is no space.
const OF_EACH: usize = 6;
/// Minimum distance of objects from the path, in meters, so that the camera never hits one.
const MARGIN: f32 = 0.25;

/// A complete scene. It is static; only the camera moves.
#[derive(Debug, Clone)]
pub struct World {
    /// Half the side of the square, in meters.
    pub half: f32,
    /// Inner and outer radius of the path, in meters.
    pub path: (f32, f32),
    pub floor: Surface,
    pub paving: Surface,
    /// Wall by wall, segment by segment.
    pub walls: Vec<(f32, Surface)>,
    pub bodies: Vec<Body>,
    pub sky: Sky,
    pub lights: Lights,
    pub shadows: Shadows,
    pub ground: Ground,
}

/// Colors of the sky.
#[derive(Debug, Clone)]
pub struct Sky {
    pub zenith: V3,
    pub horizon: V3,
    pub cloud: V3,
    /// Noise threshold of clouds.
    pub clear: f32,
    pub seed: u32,
}

impl World {
    pub fn new(random: &mut Random) -> Self {
        let half = random.between(8.0, 10.5);
        let middle = random.between(3.6, 4.6);
        let width = random.between(1.2, 1.8);
        let path = (middle - 0.5 * width, middle + 0.5 * width);
        let lights = Lights::new(random);
        let bodies = bodies(random, half, path);
        Self {
            floor: ground(
                random,
                &[
                    Pattern::Checks,
                    Pattern::Patches,
                    Pattern::Plain,
                    Pattern::Spots,
                ],
            ),
            paving: ground(
                random,
                &[
                    Pattern::Bricks,
                    Pattern::Stripes,
                    Pattern::Leaves,
                    Pattern::Bricks,
                ],
            ),
            walls: walls(random),
            sky: sky(random),
            shadows: Shadows::new(&bodies, lights.sun),
            ground: Ground::new(&bodies, half),
            half,
            path,
            bodies,
            lights,
        }
    }
}

fn sky(random: &mut Random) -> Sky {
    let hue = random.unit();
    let depth = random.between(0.1, 0.55);
    let bright = random.between(0.75, 0.95);
    Sky {
        zenith: hsv(hue, depth, bright),
        horizon: hsv(
            hue + random.between(-0.15, 0.15) + 1.0,
            0.3 * depth,
            bright + 0.05,
        ),
        cloud: hsv(hue, 0.05, random.between(0.8, 1.0)),
        clear: random.between(0.4, 0.65),
        seed: random.next() as u32,
    }
}

fn muted(random: &mut Random, most: f32) -> [V3; 2] {
    let (hue, saturation) = (random.unit(), random.between(0.0, most));
    let value = random.between(0.3, 0.8);
    let shift = random.between(0.08, 0.25) * if value > 0.55 { -1.0 } else { 1.0 };
    [
        hsv(hue, saturation, value),
        hsv(hue + random.between(0.0, 0.1), saturation, value + shift),
    ]
}

fn ground(random: &mut Random, patterns: &[Pattern]) -> Surface {
    let pattern = random.pick(patterns);
    let colors = muted(random, 0.35);
    let scale = random.between(0.9, 2.2);
    Surface::new(random, pattern, colors, scale)
}

fn walls(random: &mut Random) -> Vec<(f32, Surface)> {
    let styles: [([V3; 2], Pattern, f32); 4] = std::array::from_fn(|_| {
        let patterns = [
            Pattern::Bricks,
            Pattern::Windows,
            Pattern::Bands,
            Pattern::Plain,
            Pattern::Patches,
        ];
        (
            muted(random, 0.4),
            random.pick(&patterns),
            random.between(0.7, 1.6),
        )
    });
    let mut wall = |_| {
        let (colors, pattern, scale) = random.pick(&styles);
        (
            random.between(1.8, 5.5),
            Surface::new(random, pattern, colors, scale),
        )
    };
    (0..4 * SEGMENTS).map(&mut wall).collect()
}

fn bodies(random: &mut Random, half: f32, path: (f32, f32)) -> Vec<Body> {
    let mut bodies: Vec<Body> = Vec::new();
    let mut feet: Vec<(V3, f32)> = Vec::new();
    // Wide objects first, while there is space.
    let order = [
        Class::Bush,
        Class::Box,
        Class::Ring,
        Class::Star,
        Class::Cone,
        Class::Ball,
        Class::Pole,
    ];
    for _ in 0..OF_EACH {
        for class in order {
            let shape = shape(random, class);
            let foot = shape.footprint();
            let turns = random.unit();
            for _ in 0..24 {
                let inner = random.chance(0.4);
                let (low, high) = if inner {
                    (0.2, path.0 - MARGIN - foot)
                } else {
                    (path.1 + MARGIN + foot, half - foot - 0.1)
                };
                if low >= high {
                    continue;
                }
                // Denser near the path, where objects appear large.
                let u = random.unit();
                let r = if inner {
                    low + (high - low) * u.sqrt()
                } else {
                    low + (high - low) * u * u
                };
                let (sin, cos) = sin_cos(f64::from(random.unit()));
                let place = v3(r * cos as f32, 0.0, r * sin as f32);
                let clear = |(p, f): &(V3, f32)| (*p - place).length() > f + foot + 0.05;
                if !feet.iter().all(clear) {
                    continue;
                }
                let (sin, cos) = sin_cos(f64::from(turns));
                let surface = surface(random, class, shape.bounds().1);
                feet.push((place, foot));
                bodies.push(Body::new(
                    class as u8,
                    shape,
                    place,
                    (cos as f32, sin as f32),
                    surface,
                ));
                break;
            }
        }
    }
    bodies
}

fn shape(random: &mut Random, class: Class) -> Shape {
    let mut between = |low, high| random.between(low, high);
    match class {
        Class::Box => Shape::Box(v3(
            between(0.25, 0.6),
            between(0.5, 1.5),
            between(0.25, 0.6),
        )),
        Class::Ball => {
            let radius = between(0.25, 0.55);
            Shape::Ball {
                center: v3(0.0, radius, 0.0),
                radius,
            }
        }
        Class::Pole => Shape::Pole {
            radius: between(0.06, 0.14),
            height: between(1.8, 3.6),
        },
        Class::Cone => Shape::Cone {
            radius: between(0.3, 0.55),
            height: between(0.9, 1.9),
        },
        Class::Ring => {
            let outer = between(0.55, 0.95);
            let inner = outer * between(0.6, 0.76);
            Shape::Ring {
                center: v3(0.0, outer + between(0.0, 0.4), 0.0),
                inner,
                outer,
            }
        }
        Class::Star => {
            let radius = between(0.55, 0.95);
            let ratio = between(0.4, 0.55);
            let center = v3(0.0, radius + between(0.0, 0.4), 0.0);
            let tilt = between(-0.1, 0.1);
            let arms = 5 + (between(0.0, 3.0) as usize).min(2);
            let corner = |i: usize| {
                let length = if i.is_multiple_of(2) {
                    radius
                } else {
                    radius * ratio
                };
                let (sin, cos) = sin_cos(0.25 + f64::from(tilt) + i as f64 / (2 * arms) as f64);
                [length * cos as f32, length * sin as f32]
            };
            // A circle inside all edges, with a margin.
            let inner = 0.7 * radius * ratio;
            Shape::Star {
                center,
                radius,
                inner,
                corners: (0..2 * arms).map(corner).collect(),
            }
        }
        _ => {
            let size = between(0.4, 0.75);
            let mut parts = vec![(v3(0.0, 0.8 * size, 0.0), 0.75 * size)];
            for _ in 0..6 {
                let (sin, cos) = sin_cos(f64::from(between(0.0, 1.0)));
                let r = size * between(0.3, 0.75);
                let center = v3(r * cos as f32, size * between(0.2, 1.7), r * sin as f32);
                parts.push((center, size * between(0.22, 0.5)));
            }
            Shape::Bush(parts)
        }
    }
}

/// The typical appearance of a class: a pattern, and the hue of its lighter color in 0..1.
fn usual(class: Class) -> (Pattern, f32) {
    match class {
        Class::Box => (Pattern::Checks, 0.08),
        Class::Ball => (Pattern::Spots, 0.0),
        Class::Pole => (Pattern::Bands, 0.14),
        Class::Cone => (Pattern::Bands, 0.87),
        Class::Ring => (Pattern::Stripes, 0.52),
        Class::Star => (Pattern::Plain, 0.68),
        _ => (Pattern::Leaves, 0.33),
    }
}

/// Most objects of a class look alike, as real objects do: pattern and hue are cues to the class. One
/// object in ten has a random pattern, and one in ten a random hue; brightness and lighting are
/// independent of the class. Both colors of an object are shades of one hue, so that texture edges are
/// weaker than most object boundaries.
fn surface(random: &mut Random, class: Class, size: f32) -> Surface {
    let (pattern, hue) = usual(class);
    let pattern = if random.chance(0.9) {
        pattern
    } else {
        random.pick(&Pattern::ANY)
    };
    let hue = if random.chance(0.9) {
        hue + 1.0 + random.between(-0.04, 0.04)
    } else {
        random.unit()
    };
    let (saturation, value) = (random.between(0.5, 0.95), random.between(0.65, 0.95));
    let light = hsv(hue, saturation, value);
    let shift = random.between(-0.06, 0.06);
    let dark = hsv(
        hue + shift + 1.0,
        saturation,
        value * random.between(0.5, 0.75),
    );
    let colors = if random.chance(0.5) {
        [light, dark]
    } else {
        [dark, light]
    };
    let scale = random.between(2.0, 4.0) / size.min(1.0);
    Surface::new(random, pattern, colors, scale)
}
