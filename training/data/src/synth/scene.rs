//! What there is to see, and where a ray meets it. World: z up, metres, the floor at z = 0, the room's corner at the origin.

use super::solid::{Face, Solid, axis};
use super::vec3::{V3, high, low, v3};

/// Faces of a box and of the room: -x, +x, -y, +y, -z, +z.
pub(super) const FACES: usize = 6;
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
    /// What stands on each solid, and last what stands on the floor.
    feet: Vec<Vec<Foot>>,
}

impl<'a> View<'a> {
    pub fn new(scene: &'a Scene, origin: V3) -> Self {
        Self {
            scene,
            origin,
            local_origins: scene.solids.iter().map(|solid| solid.to_local(origin)).collect(),
            feet: Foot::all(scene),
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
            let (u, v) = (if face < 2 { p.y } else { p.x }, if face < 4 { p.z } else { p.y });
            (axis(face) * -1.0, u, v, &self.scene.faces[usize::from(face)])
        } else {
            let other = &self.scene.solids[usize::from(solid)];
            let p = self.local_origins[usize::from(solid)] + direction.turned(other.cos, -other.sin) * t;
            let (normal, u, v) = other.surface(p, face);
            (normal, u, v, other.face(face))
        };
        let decor = surface.decors.iter().rposition(|decor| decor.contains(u, v)).map_or(0, |i| i as u8 + 1);
        Hit { t, solid, face, decor, normal, u, v }
    }

    fn meet_room(&self, direction: V3) -> (f32, u8) {
        let wall = |origin: f32, direction: f32, size: f32| {
            if direction > 0.0 { (size - origin) / direction } else { -origin / direction }
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
                light = light + lamp.colour * (facing / square.sqrt() / (1.0 + square / (lamp.reach * lamp.reach)));
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
        let gaps = [low(point.x, room.x - point.x), low(point.y, room.y - point.y), low(point.z, room.z - point.z)];
        let mut open = 1.0;
        for (axis, gap) in gaps.into_iter().enumerate() {
            if axis != usize::from(hit.face / 2) {
                let closed = high(1.0 - gap * 1.6, 0.0);
                open *= 1.0 - 0.35 * closed * closed;
            }
        }
        open
    }

    /// Soft shade under and beside the things that stand on a level surface, drawn out away from the first light.
    fn contact_shade(&self, on: u16, point: V3) -> f32 {
        let mut shade = 1.0;
        let feet = if on == ROOM { self.feet.last() } else { self.feet.get(usize::from(on)) };
        for foot in feet.into_iter().flatten() {
            let (dx, dy) = (point.x - foot.x, point.y - foot.y);
            if dx * dx + dy * dy > foot.reach * foot.reach {
                continue;
            }
            let solid = &self.scene.solids[usize::from(foot.solid)];
            let mut towards = v3(0.0, 0.0, 0.0);
            if let Some(lamp) = self.scene.lights.first() {
                let to = lamp.position - point;
                let slope = (foot.soft * 0.6) / to.norm();
                towards = v3(to.x * slope, to.y * slope, 0.0);
            }
            let gap = low(solid.outline_distance(point + towards), solid.outline_distance(point) * 1.5);
            let near = high(1.0 - gap / foot.soft, 0.0);
            shade *= 1.0 - 0.6 * near * near;
        }
        shade
    }
}

/// Where a solid stands, for its contact shade.
struct Foot {
    x: f32,
    y: f32,
    /// Width of the shade and the largest distance from the centre that it reaches, metres.
    soft: f32,
    reach: f32,
    solid: u16,
}

impl Foot {
    fn all(scene: &Scene) -> Vec<Vec<Self>> {
        let tops = scene.solids.iter().map(|solid| solid.centre.z + solid.half().z);
        tops.chain(std::iter::once(0.0))
            .map(|top| {
                let standing = |solid: &Solid| (solid.centre.z - solid.half().z - top).abs() < 0.02;
                let solids = scene.solids.iter().enumerate();
                solids.filter(|(_, solid)| standing(solid)).map(|(index, solid)| Self::new(index, solid)).collect()
            })
            .collect()
    }

    fn new(index: usize, solid: &Solid) -> Self {
        let half = solid.half();
        let soft = 0.25 * (half.x + half.y) + 0.3 * half.z;
        let reach = half.x + half.y + soft;
        Self { x: solid.centre.x, y: solid.centre.y, soft, reach, solid: index as u16 }
    }
}
