//! Objects of a scene and their ray intersections.

use crate::{
    texture::Surface,
    vector::{V3, v3},
};

/// A ray `from + t * along`. `along` need not be a unit vector.
#[derive(Debug, Clone, Copy)]
pub struct Ray {
    pub from: V3,
    pub along: V3,
}

impl Ray {
    pub fn at(&self, t: f32) -> V3 {
        self.from + self.along * t
    }
}

/// Intersection of a ray and an object.
#[derive(Debug, Clone, Copy)]
pub struct Hit {
    pub t: f32,
    /// Unit normal on the side of the ray origin.
    pub normal: V3,
    /// Index of the smooth part of the object.
    pub face: u8,
}

/// A shape in object coordinates, standing on the origin, `y` up.
#[derive(Debug, Clone)]
pub enum Shape {
    /// Half the width, the height, half the depth.
    Box(V3),
    /// A sphere with a center.
    Ball { center: V3, radius: f32 },
    /// A vertical cylinder.
    Pole { radius: f32, height: f32 },
    /// A vertical cone.
    Cone { radius: f32, height: f32 },
    /// A flat star in the xy plane, given by its corners.
    Star {
        center: V3,
        radius: f32,
        inner: f32,
        corners: Vec<[f32; 2]>,
    },
    /// A flat ring in the xy plane.
    Ring { center: V3, inner: f32, outer: f32 },
    /// A union of spheres.
    Bush(Vec<(V3, f32)>),
}

impl Shape {
    /// Bounding sphere.
    pub fn bounds(&self) -> (V3, f32) {
        match self {
            Shape::Box(half) => {
                let center = v3(0.0, 0.5 * half.y, 0.0);
                (center, v3(half.x, 0.5 * half.y, half.z).length())
            }
            Shape::Ball { center, radius } | Shape::Star { center, radius, .. } => {
                (*center, *radius)
            }
            Shape::Ring { center, outer, .. } => (*center, *outer),
            Shape::Pole { radius, height } | Shape::Cone { radius, height } => {
                let center = v3(0.0, 0.5 * height, 0.0);
                (center, v3(*radius, 0.5 * height, 0.0).length())
            }
            Shape::Bush(parts) => {
                let sum = parts.iter().fold(V3::default(), |sum, (c, _)| sum + *c);
                let center = sum * (1.0 / parts.len() as f32);
                let reach = parts.iter().map(|(c, r)| (*c - center).length() + r);
                (center, reach.fold(0.0, f32::max))
            }
        }
    }

    /// Maximum distance from the vertical axis.
    pub fn footprint(&self) -> f32 {
        match self {
            Shape::Box(half) => v3(half.x, 0.0, half.z).length(),
            Shape::Ball { radius, .. }
            | Shape::Pole { radius, .. }
            | Shape::Cone { radius, .. } => *radius,
            Shape::Star { radius, .. } => *radius,
            Shape::Ring { outer, .. } => *outer,
            Shape::Bush(parts) => {
                let reach = parts.iter().map(|(c, r)| v3(c.x, 0.0, c.z).length() + r);
                reach.fold(0.0, f32::max)
            }
        }
    }

    /// The first intersection with a ray in object coordinates, with `t > 0`.
    pub fn hit(&self, ray: &Ray) -> Option<Hit> {
        match self {
            Shape::Box(half) => hit_box(*half, ray),
            Shape::Ball { center, radius } => hit_ball(*center, *radius, 0, ray),
            Shape::Pole { radius, height } => hit_pole(*radius, *height, ray),
            Shape::Cone { radius, height } => hit_cone(*radius, *height, ray),
            Shape::Star {
                center,
                radius,
                inner,
                corners,
            } => hit_flat(*center, *radius, ray, |x, y| {
                x * x + y * y < inner * inner || inside(corners, x, y)
            }),
            Shape::Ring {
                center,
                inner,
                outer,
            } => hit_flat(*center, *outer, ray, |x, y| x * x + y * y > inner * inner),
            Shape::Bush(parts) => {
                let hits = parts.iter().enumerate();
                let hits = hits.filter_map(|(i, (c, r))| hit_ball(*c, *r, i as u8, ray));
                hits.min_by(|a, b| a.t.total_cmp(&b.t))
            }
        }
    }
}

fn hit_box(half: V3, ray: &Ray) -> Option<Hit> {
    let (o, d) = (ray.from, ray.along);
    let axes = [
        (o.x, d.x, -half.x, half.x),
        (o.y, d.y, 0.0, half.y),
        (o.z, d.z, -half.z, half.z),
    ];
    let (mut enter, mut leave, mut axis) = (0.0f32, f32::INFINITY, 3);
    for (i, (o, d, low, high)) in axes.into_iter().enumerate() {
        if d == 0.0 {
            if o < low || o > high {
                return None;
            }
            continue;
        }
        let (a, b) = ((low - o) / d, (high - o) / d);
        let (near, far) = if a < b { (a, b) } else { (b, a) };
        if near > enter {
            (enter, axis) = (near, i);
        }
        leave = leave.min(far);
    }
    if enter > leave {
        return None;
    }
    let towards = |d: f32| if d > 0.0 { -1.0 } else { 1.0 };
    let normal = match axis {
        0 => v3(towards(d.x), 0.0, 0.0),
        1 => v3(0.0, towards(d.y), 0.0),
        2 => v3(0.0, 0.0, towards(d.z)),
        _ => return None,
    };
    let positive = normal.x + normal.y + normal.z > 0.0;
    Some(Hit {
        t: enter,
        normal,
        face: 2 * axis as u8 + u8::from(positive),
    })
}

fn hit_ball(center: V3, radius: f32, face: u8, ray: &Ray) -> Option<Hit> {
    let o = ray.from - center;
    let a = ray.along.dot(ray.along);
    let b = o.dot(ray.along);
    // Relative to the point of the ray closest to the center: precise at any distance.
    let nearest = o - ray.along * (b / a);
    let room = radius * radius - nearest.dot(nearest);
    if room < 0.0 {
        return None;
    }
    let t = -b / a - (room / a).sqrt();
    (t > 0.0).then(|| Hit {
        t,
        normal: (o + ray.along * t) * (1.0 / radius),
        face,
    })
}

fn hit_pole(radius: f32, height: f32, ray: &Ray) -> Option<Hit> {
    let (o, d) = (ray.from, ray.along);
    let a = d.x * d.x + d.z * d.z;
    let b = o.x * d.x + o.z * d.z;
    if a > 0.0 {
        let near = v3(o.x - d.x * (b / a), 0.0, o.z - d.z * (b / a));
        let room = radius * radius - near.dot(near);
        if room < 0.0 {
            return None;
        }
        let t = -b / a - (room / a).sqrt();
        let p = ray.at(t);
        if t > 0.0 && (0.0..=height).contains(&p.y) {
            return Some(Hit {
                t,
                normal: v3(p.x, 0.0, p.z) * (1.0 / radius),
                face: 0,
            });
        }
    }
    if d.y < 0.0 {
        let t = (height - o.y) / d.y;
        let p = ray.at(t);
        if t > 0.0 && p.x * p.x + p.z * p.z <= radius * radius {
            return Some(Hit {
                t,
                normal: v3(0.0, 1.0, 0.0),
                face: 1,
            });
        }
    }
    None
}

fn hit_cone(radius: f32, height: f32, ray: &Ray) -> Option<Hit> {
    // x^2 + z^2 = (k * down)^2, where `down` is measured from the apex.
    let k = radius / height;
    let (o, d) = (ray.from, ray.along);
    let (od, dd) = (k * (height - o.y), -k * d.y);
    let a = d.x * d.x + d.z * d.z - dd * dd;
    let b = o.x * d.x + o.z * d.z - od * dd;
    let c = o.x * o.x + o.z * o.z - od * od;
    let room = b * b - a * c;
    if room < 0.0 || a == 0.0 {
        return None;
    }
    let root = room.sqrt();
    let (t0, t1) = ((-b - root) / a, (-b + root) / a);
    let (t0, t1) = if t0 < t1 { (t0, t1) } else { (t1, t0) };
    for t in [t0, t1] {
        let p = ray.at(t);
        if t > 0.0 && p.y >= 0.0 && p.y <= height {
            let normal = v3(p.x, k * k * (height - p.y), p.z);
            if normal.dot(normal) > 0.0 && normal.dot(d) < 0.0 {
                return Some(Hit {
                    t,
                    normal: normal.normalized(),
                    face: 0,
                });
            }
        }
    }
    None
}

fn hit_flat(c: V3, radius: f32, ray: &Ray, inside: impl Fn(f32, f32) -> bool) -> Option<Hit> {
    let d = ray.along.z;
    if d == 0.0 {
        return None;
    }
    let t = -ray.from.z / d;
    if t <= 0.0 {
        return None;
    }
    let p = ray.at(t) - c;
    if p.x * p.x + p.y * p.y > radius * radius || !inside(p.x, p.y) {
        return None;
    }
    Some(Hit {
        t,
        normal: v3(0.0, 0.0, if d > 0.0 { -1.0 } else { 1.0 }),
        face: u8::from(d > 0.0),
    })
}

/// Whether a point is inside a polygon, by the even-odd rule.
fn inside(corners: &[[f32; 2]], x: f32, y: f32) -> bool {
    let mut odd = false;
    let mut last = corners[corners.len() - 1];
    for &corner in corners {
        if (corner[1] > y) != (last[1] > y) {
            let cross = last[0] + (y - last[1]) / (corner[1] - last[1]) * (corner[0] - last[0]);
            odd ^= x < cross;
        }
        last = corner;
    }
    odd
}

/// A shape with its pose and surface.
#[derive(Debug, Clone)]
pub struct Body {
    /// Index into [`crate::CLASSES`].
    pub class: u8,
    pub shape: Shape,
    /// Its origin in world coordinates, on the floor.
    pub place: V3,
    /// Cosine and sine of its yaw.
    pub turn: (f32, f32),
    pub surface: Surface,
    /// Bounding sphere in world coordinates.
    pub center: V3,
    pub radius: f32,
}

impl Body {
    pub fn new(class: u8, shape: Shape, place: V3, turn: (f32, f32), surface: Surface) -> Self {
        let (center, radius) = shape.bounds();
        // Slightly larger, so that rounding never clips a silhouette.
        let radius = radius * 1.001 + 1e-4;
        Self {
            class,
            center: center.rotated(turn) + place,
            radius,
            shape,
            place,
            turn,
            surface,
        }
    }

    /// Transforms a ray from world to object coordinates.
    pub fn local(&self, p: V3) -> V3 {
        (p - self.place).rotated((self.turn.0, -self.turn.1))
    }

    pub fn hit(&self, ray: &Ray) -> Option<Hit> {
        // The bounding sphere first: most rays miss it.
        let o = ray.from - self.center;
        let b = o.dot(ray.along);
        let a = ray.along.dot(ray.along);
        if o.dot(o) * a - b * b > self.radius * self.radius * a {
            return None;
        }
        let local = Ray {
            from: self.local(ray.from),
            along: ray.along.rotated((self.turn.0, -self.turn.1)),
        };
        let hit = self.shape.hit(&local)?;
        Some(Hit {
            normal: hit.normal.rotated(self.turn),
            ..hit
        })
    }
}
