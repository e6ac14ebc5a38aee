//! What there is to see, and where a ray meets it. World: z up, metres, the floor at z = 0, the room's corner at the origin.

use super::texture::Material;
use super::vec3::{V3, v3};

/// Faces of a box and of the room: -x, +x, -y, +y, -z, +z.
pub(super) const FACES: usize = 6;
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
    fn contains(&self, u: f32, v: f32) -> bool {
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
            Shape::Cylinder {
                radius,
                half_height,
            } => v3(radius, radius, half_height),
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
            Shape::Cylinder {
                radius,
                half_height,
            } => {
                let (r, z) = (
                    (p.x * p.x + p.y * p.y).sqrt() - radius,
                    p.z.abs() - half_height,
                );
                v3(r.max(0.0), z.max(0.0), 0.0).norm() + r.max(z).min(0.0)
            }
            Shape::Sphere { radius } => p.norm() - radius,
        }
    }

    /// Distance in the plane from `(x, y)` of the world to the outline seen from above; 0 inside.
    fn outline_distance(&self, point: V3) -> f32 {
        let p = self.to_local(point);
        match self.shape {
            Shape::Box(half) => v3(
                (p.x.abs() - half.x).max(0.0),
                (p.y.abs() - half.y).max(0.0),
                0.0,
            )
            .norm(),
            Shape::Cylinder { radius, .. } => ((p.x * p.x + p.y * p.y).sqrt() - radius).max(0.0),
            // A ball touches in one point: its shade is soft.
            Shape::Sphere { radius } => ((p.x * p.x + p.y * p.y).sqrt() - 0.4 * radius).max(0.0),
        }
    }

    /// First meeting of `origin + t * direction` (both in the solid's own axes) with the surface, and the face.
    fn meet(&self, origin: V3, direction: V3) -> Option<(f32, u8)> {
        match self.shape {
            Shape::Box(half) => {
                let inv = v3(1.0 / direction.x, 1.0 / direction.y, 1.0 / direction.z);
                let (ax, bx) = ((-half.x - origin.x) * inv.x, (half.x - origin.x) * inv.x);
                let (ay, by) = ((-half.y - origin.y) * inv.y, (half.y - origin.y) * inv.y);
                let (az, bz) = ((-half.z - origin.z) * inv.z, (half.z - origin.z) * inv.z);
                let (nx, ny, nz) = (ax.min(bx), ay.min(by), az.min(bz));
                let near = nx.max(ny).max(nz);
                let far = ax.max(bx).min(ay.max(by)).min(az.max(bz));
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
            Shape::Cylinder {
                radius,
                half_height,
            } => {
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
                let face = if direction.z < 0.0 {
                    TOP_FACE
                } else {
                    BOTTOM_FACE
                };
                let plane = if direction.z < 0.0 {
                    half_height
                } else {
                    -half_height
                };
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
    fn surface(&self, p: V3, face: u8) -> (V3, f32, f32) {
        let (normal, u, v) = match self.shape {
            Shape::Box(_) => (
                axis(face),
                if face < 2 { p.y } else { p.x },
                if face < 4 { p.z } else { p.y },
            ),
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

fn axis(face: u8) -> V3 {
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
        * (0.999_866
            + square
                * (-0.330_299_5
                    + square * (0.180_141 + square * (-0.085_133 + square * 0.020_835_1))));
    let half = if ay > ax {
        std::f32::consts::FRAC_PI_2 - base
    } else {
        base
    };
    let full = if x < 0.0 {
        std::f32::consts::PI - half
    } else {
        half
    };
    if y < 0.0 { -full } else { full }
}

#[derive(Debug, Clone)]
pub(super) struct Light {
    pub position: V3,
    pub colour: V3,
    /// Distance in metres at which the light has halved.
    pub reach: f32,
}

#[derive(Debug, Clone)]
pub(super) struct Scene {
    /// Width (x), depth (y), height (z) of the room, metres.
    pub room: V3,
    pub faces: [Face; FACES],
    pub solids: Vec<Solid>,
    pub lights: Vec<Light>,
    /// Light from above and from below.
    pub ambient: (V3, V3),
}

/// Where a ray ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hit {
    /// Ray parameter: the z-depth in metres where directions have camera z = 1.
    pub t: f32,
    /// Solid, or `ROOM`.
    pub solid: u16,
    pub face: u8,
    /// Index of the face's decor plus one.
    pub decor: u8,
    pub normal: V3,
    pub u: f32,
    pub v: f32,
}

pub(super) const ROOM: u16 = u16::MAX;

impl Hit {
    /// The same for two pixels on one smooth surface.
    pub fn surface_id(&self) -> u32 {
        u32::from(self.solid) << 16 | u32::from(self.face) << 8 | u32::from(self.decor)
    }
}

/// A scene seen from one point: the point in every solid's own axes.
pub(super) struct View<'a> {
    pub scene: &'a Scene,
    pub origin: V3,
    local_origins: Vec<V3>,
    feet: Vec<Foot>,
}

impl<'a> View<'a> {
    pub fn new(scene: &'a Scene, origin: V3) -> Self {
        Self {
            scene,
            origin,
            local_origins: scene
                .solids
                .iter()
                .map(|solid| solid.to_local(origin))
                .collect(),
            feet: scene
                .solids
                .iter()
                .enumerate()
                .map(|(index, solid)| Foot::new(index, solid))
                .collect(),
        }
    }

    /// The first surface along `direction`, testing these solids only.
    pub fn trace(&self, direction: V3, candidates: &[u16]) -> Hit {
        let (mut t, mut face) = self.meet_room(direction);
        let mut solid = ROOM;
        for &index in candidates {
            let other = &self.scene.solids[usize::from(index)];
            let local = direction.turned(other.cos, -other.sin);
            if let Some((near, side)) = other.meet(self.local_origins[usize::from(index)], local)
                && near < t
            {
                (t, face, solid) = (near, side, index);
            }
        }
        let (normal, u, v, surface) = if solid == ROOM {
            let p = self.origin + direction * t;
            let (u, v) = (
                if face < 2 { p.y } else { p.x },
                if face < 4 { p.z } else { p.y },
            );
            (
                axis(face) * -1.0,
                u,
                v,
                &self.scene.faces[usize::from(face)],
            )
        } else {
            let other = &self.scene.solids[usize::from(solid)];
            let p = self.local_origins[usize::from(solid)]
                + direction.turned(other.cos, -other.sin) * t;
            let (normal, u, v) = other.surface(p, face);
            (normal, u, v, other.face(face))
        };
        let decor = surface
            .decors
            .iter()
            .rposition(|decor| decor.contains(u, v))
            .map_or(0, |i| i as u8 + 1);
        Hit {
            t,
            solid,
            face,
            decor,
            normal,
            u,
            v,
        }
    }

    fn meet_room(&self, direction: V3) -> (f32, u8) {
        let wall = |origin: f32, direction: f32, size: f32| {
            if direction > 0.0 {
                (size - origin) / direction
            } else {
                -origin / direction
            }
        };
        let room = self.scene.room;
        let x = wall(self.origin.x, direction.x, room.x);
        let y = wall(self.origin.y, direction.y, room.y);
        let z = wall(self.origin.z, direction.z, room.z);
        let (t, first) = if x <= y && x <= z {
            (x, 0)
        } else if y <= z {
            (y, 2)
        } else {
            (z, 4)
        };
        let forward = match first {
            0 => direction.x,
            2 => direction.y,
            _ => direction.z,
        };
        (t, first + u8::from(forward > 0.0))
    }

    /// Linear colour that leaves the surface; `footprint` is the size of a pixel on it, metres.
    pub fn shade(&self, hit: &Hit, point: V3, footprint: f32) -> V3 {
        let scene = self.scene;
        let surface = match hit.solid {
            ROOM => &scene.faces[usize::from(hit.face)],
            solid => scene.solids[usize::from(solid)].face(hit.face),
        };
        let material = match hit.decor {
            0 => &surface.material,
            decor => &surface.decors[usize::from(decor) - 1].material,
        };
        let albedo = material.albedo(hit.u, hit.v, footprint);
        let up = 0.5 + 0.5 * hit.normal.z;
        let mut light = scene.ambient.1.mix(scene.ambient.0, up) * self.openness(hit, point);
        for lamp in &scene.lights {
            let to = lamp.position - point;
            let square = to.dot(to);
            let facing = to.dot(hit.normal);
            if facing > 0.0 {
                light = light
                    + lamp.colour
                        * (facing / square.sqrt() / (1.0 + square / (lamp.reach * lamp.reach)));
            }
        }
        if hit.normal.z > 0.9 {
            light = light * self.contact_shade(hit.solid, point);
        }
        albedo.times(light + v3(material.glow, material.glow, material.glow))
    }

    /// Room corners get less light.
    fn openness(&self, hit: &Hit, point: V3) -> f32 {
        if hit.solid != ROOM {
            return 1.0;
        }
        let room = self.scene.room;
        let gaps = [
            point.x.min(room.x - point.x),
            point.y.min(room.y - point.y),
            point.z.min(room.z - point.z),
        ];
        let mut open = 1.0;
        for (axis, gap) in gaps.into_iter().enumerate() {
            if axis != usize::from(hit.face / 2) {
                let closed = (1.0 - gap * 1.6).max(0.0);
                open *= 1.0 - 0.35 * closed * closed;
            }
        }
        open
    }

    /// Soft shade under and beside the things that stand on a level surface, drawn out away from the first light.
    fn contact_shade(&self, on: u16, point: V3) -> f32 {
        let mut shade = 1.0;
        for foot in &self.feet {
            let (dx, dy) = (point.x - foot.x, point.y - foot.y);
            if dx * dx + dy * dy > foot.reach * foot.reach
                || (foot.bottom - point.z).abs() > 0.02
                || foot.solid == on
            {
                continue;
            }
            let solid = &self.scene.solids[usize::from(foot.solid)];
            let mut towards = v3(0.0, 0.0, 0.0);
            if let Some(lamp) = self.scene.lights.first() {
                let to = lamp.position - point;
                let slope = (foot.soft * 0.6) / to.norm();
                towards = v3(to.x * slope, to.y * slope, 0.0);
            }
            let gap = solid
                .outline_distance(point + towards)
                .min(solid.outline_distance(point) * 1.5);
            let near = (1.0 - gap / foot.soft).max(0.0);
            shade *= 1.0 - 0.6 * near * near;
        }
        shade
    }
}

/// Where a solid stands, for its contact shade.
struct Foot {
    x: f32,
    y: f32,
    bottom: f32,
    /// Width of the shade and the largest distance from the centre that it reaches, metres.
    soft: f32,
    reach: f32,
    solid: u16,
}

impl Foot {
    fn new(index: usize, solid: &Solid) -> Self {
        let half = solid.half();
        let soft = 0.25 * (half.x + half.y) + 0.3 * half.z;
        let reach = half.x + half.y + soft;
        Self {
            x: solid.centre.x,
            y: solid.centre.y,
            bottom: solid.centre.z - half.z,
            soft,
            reach,
            solid: index as u16,
        }
    }
}
