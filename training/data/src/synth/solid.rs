//! Things with surfaces: where a ray meets them, and what is there.

use super::texture::Material;
use super::vec3::{V3, high, low, v3};

const SIDE_FACE: u8 = 0;
const TOP_FACE: u8 = 5;
const BOTTOM_FACE: u8 = 4;

/// A rectangle on a face with a surface of its own, metres in the face's (u, v).
#[derive(Debug, Clone)]
pub(super) struct Decor {
    pub low: (f32, f32),
    pub high: (f32, f32),
    pub material: Material,
}

impl Decor {
    pub fn contains(&self, u: f32, v: f32) -> bool {
        u >= self.low.0 && u <= self.high.0 && v >= self.low.1 && v <= self.high.1
    }
}

#[derive(Debug, Clone)]
pub(super) struct Face {
    pub material: Material,
    pub decors: Vec<Decor>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Shape {
    /// Half sizes.
    Box(V3),
    /// Upright; `z` of the half sizes.
    Cylinder {
        radius: f32,
        half_height: f32,
    },
    Sphere {
        radius: f32,
    },
}

/// A thing in the room, turned about the vertical only.
#[derive(Debug, Clone)]
pub(super) struct Solid {
    pub centre: V3,
    pub cos: f32,
    pub sin: f32,
    pub shape: Shape,
    /// Sides, and where `cap` is absent top and bottom too.
    pub side: Face,
    pub cap: Option<Face>,
}

impl Solid {
    pub fn half(&self) -> V3 {
        match self.shape {
            Shape::Box(half) => half,
            Shape::Cylinder { radius, half_height } => v3(radius, radius, half_height),
            Shape::Sphere { radius } => v3(radius, radius, radius),
        }
    }

    pub fn to_local(&self, point: V3) -> V3 {
        (point - self.centre).turned(self.cos, -self.sin)
    }

    /// Distance from a point in the world to the surface, metres; at most 0 inside.
    pub fn distance(&self, point: V3) -> f32 {
        let p = self.to_local(point);
        match self.shape {
            Shape::Box(half) => {
                let q = v3(p.x.abs() - half.x, p.y.abs() - half.y, p.z.abs() - half.z);
                v3(q.x.max(0.0), q.y.max(0.0), q.z.max(0.0)).norm() + q.x.max(q.y).max(q.z).min(0.0)
            }
            Shape::Cylinder { radius, half_height } => {
                let (r, z) = ((p.x * p.x + p.y * p.y).sqrt() - radius, p.z.abs() - half_height);
                v3(r.max(0.0), z.max(0.0), 0.0).norm() + r.max(z).min(0.0)
            }
            Shape::Sphere { radius } => p.norm() - radius,
        }
    }

    /// Distance in the plane from `(x, y)` of the world to the outline seen from above; 0 inside.
    pub fn outline_distance(&self, point: V3) -> f32 {
        let p = self.to_local(point);
        match self.shape {
            Shape::Box(half) => v3((p.x.abs() - half.x).max(0.0), (p.y.abs() - half.y).max(0.0), 0.0).norm(),
            Shape::Cylinder { radius, .. } => ((p.x * p.x + p.y * p.y).sqrt() - radius).max(0.0),
            // A ball touches in one point: its shade is soft.
            Shape::Sphere { radius } => ((p.x * p.x + p.y * p.y).sqrt() - 0.4 * radius).max(0.0),
        }
    }

    /// First meeting of `origin + t * direction` (both in the solid's own axes) with the surface, and the face.
    pub fn meet(&self, origin: V3, direction: V3) -> Option<(f32, u8)> {
        match self.shape {
            Shape::Box(half) => {
                let inv = v3(1.0 / direction.x, 1.0 / direction.y, 1.0 / direction.z);
                let (ax, bx) = ((-half.x - origin.x) * inv.x, (half.x - origin.x) * inv.x);
                let (ay, by) = ((-half.y - origin.y) * inv.y, (half.y - origin.y) * inv.y);
                let (az, bz) = ((-half.z - origin.z) * inv.z, (half.z - origin.z) * inv.z);
                let (nx, ny, nz) = (low(ax, bx), low(ay, by), low(az, bz));
                let near = high(high(nx, ny), nz);
                let far = low(low(high(ax, bx), high(ay, by)), high(az, bz));
                if !(near > 0.0 && near <= far) {
                    return None;
                }
                let face = if near <= nx {
                    u8::from(direction.x < 0.0)
                } else if near <= ny {
                    2 + u8::from(direction.y < 0.0)
                } else {
                    4 + u8::from(direction.z < 0.0)
                };
                Some((near, face))
            }
            Shape::Cylinder { radius, half_height } => {
                let a = direction.x * direction.x + direction.y * direction.y;
                let b = origin.x * direction.x + origin.y * direction.y;
                let c = origin.x * origin.x + origin.y * origin.y - radius * radius;
                let under = b * b - a * c;
                if under > 0.0 && a > 0.0 {
                    let t = (-b - under.sqrt()) / a;
                    if t > 0.0 && (origin.z + t * direction.z).abs() <= half_height {
                        return Some((t, SIDE_FACE));
                    }
                }
                let face = if direction.z < 0.0 { TOP_FACE } else { BOTTOM_FACE };
                let plane = if direction.z < 0.0 { half_height } else { -half_height };
                let t = (plane - origin.z) / direction.z;
                let (x, y) = (origin.x + t * direction.x, origin.y + t * direction.y);
                (t > 0.0 && x * x + y * y <= radius * radius).then_some((t, face))
            }
            Shape::Sphere { radius } => {
                let a = direction.dot(direction);
                let b = origin.dot(direction);
                let under = b * b - a * (origin.dot(origin) - radius * radius);
                let t = (-b - under.max(0.0).sqrt()) / a;
                (under > 0.0 && t > 0.0).then_some((t, SIDE_FACE))
            }
        }
    }

    /// Normal in the world and (u, v) metres at a point of the surface given in the solid's axes.
    pub fn surface(&self, p: V3, face: u8) -> (V3, f32, f32) {
        let (normal, u, v) = match self.shape {
            Shape::Box(_) => (axis(face), if face < 2 { p.y } else { p.x }, if face < 4 { p.z } else { p.y }),
            Shape::Cylinder { radius, .. } if face == SIDE_FACE => {
                let inv = 1.0 / radius;
                (v3(p.x * inv, p.y * inv, 0.0), arc(p.y, p.x) * radius, p.z)
            }
            Shape::Cylinder { .. } => (axis(face), p.x, p.y),
            // Poles on the horizontal x axis, where a camera above does not look.
            Shape::Sphere { radius } => (p * (1.0 / radius), arc(p.z, p.y) * radius, p.x),
        };
        (normal.turned(self.cos, self.sin), u, v)
    }

    pub fn face(&self, face: u8) -> &Face {
        match &self.cap {
            Some(cap) if face >= BOTTOM_FACE => cap,
            _ => &self.side,
        }
    }
}

pub(super) fn axis(face: u8) -> V3 {
    let side = if face & 1 == 0 { -1.0 } else { 1.0 };
    match face / 2 {
        0 => v3(side, 0.0, 0.0),
        1 => v3(0.0, side, 0.0),
        _ => v3(0.0, 0.0, side),
    }
}

/// `atan2` within 0.3 mrad: enough to place a texture, and the same on every machine.
fn arc(y: f32, x: f32) -> f32 {
    let (ax, ay) = (x.abs().max(1e-12), y.abs());
    let ratio = ax.min(ay) / ax.max(ay);
    let square = ratio * ratio;
    let base = ratio
        * (0.999_866 + square * (-0.330_299_5 + square * (0.180_141 + square * (-0.085_133 + square * 0.020_835_1))));
    let half = if ay > ax { std::f32::consts::FRAC_PI_2 - base } else { base };
    let full = if x < 0.0 { std::f32::consts::PI - half } else { half };
    if y < 0.0 { -full } else { full }
}
