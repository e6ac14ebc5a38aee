//! Pictures of rooms that were never built: rectangles with random textures, one ray for a quarter of a pixel.
//!
//! No other crate renders them, so that a fault of the odometry is not hidden by one of its own pictures. All is
//! deterministic.

use std::sync::LazyLock;

use geometry::{Camera, Intrinsics, Stamp, Transform, World};
use nalgebra::{Isometry3, Matrix3, Rotation3, Translation3, UnitQuaternion, Vector3};
use odometry::{Grey, Picture};

/// Side of a texture, texels, and of a texel, units of the world.
const SIDE: usize = 512;
const TEXEL: f64 = 0.01;
/// Textures that surfaces take in turns.
const TEXTURES: usize = 3;

/// A number from 0 to 1 that looks random, and is the same for the same arguments.
pub fn random(a: u64, b: u64, c: u64) -> f64 {
    let mut x = a.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ b.wrapping_mul(0xbf58_476d_1ce4_e5b9)
        ^ c.wrapping_mul(0x94d0_49bb_1331_11eb);
    for _ in 0..2 {
        x = (x ^ (x >> 31)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        x ^= x >> 32;
    }
    (x >> 11) as f64 / (1_u64 << 53) as f64
}

/// A rectangle in the world.
struct Surface {
    corner: Vector3<f64>,
    u: Vector3<f64>,
    v: Vector3<f64>,
    normal: Vector3<f64>,
    /// Width and height.
    size: [f64; 2],
    texture: usize,
    /// Where its texture begins, texels.
    offset: [f64; 2],
}

/// How a picture is taken.
#[derive(Clone, Copy)]
pub struct Look {
    /// What grey values are multiplied by.
    pub gain: f64,
    /// Half the width of the noise of a pixel, grey levels.
    pub noise: f64,
    pub seed: u64,
}

impl Default for Look {
    fn default() -> Self {
        Self { gain: 1.0, noise: 1.5, seed: 0 }
    }
}

/// Surfaces and what is painted on them.
pub struct Scene {
    surfaces: Vec<Surface>,
    textures: &'static [Vec<f32>],
}

static PAINT: LazyLock<Vec<Vec<f32>>> = LazyLock::new(|| (0..TEXTURES as u64).map(|k| texture(k + 1)).collect());

/// Smooth noise that repeats: values at random on a grid, cubic in between, halved from octave to octave.
fn texture(seed: u64) -> Vec<f32> {
    let mut out = vec![0.0_f32; SIDE * SIDE];
    for (octave, (cells, share)) in [(8, 28.0), (16, 26.0), (32, 24.0), (64, 22.0), (128, 18.0)].into_iter().enumerate()
    {
        let value = |i: usize, j: usize| random(seed, octave as u64, ((i % cells) * cells + j % cells) as u64) - 0.5;
        let step = cells as f64 / SIDE as f64;
        for y in 0..SIDE {
            let (row, t) = split((y as f64 + 0.5) * step, cells);
            for x in 0..SIDE {
                let (column, s) = split((x as f64 + 0.5) * step, cells);
                let (s, t) = (s * s * (3.0 - 2.0 * s), t * t * (3.0 - 2.0 * t));
                let above = value(row, column) * (1.0 - s) + value(row, column + 1) * s;
                let below = value(row + 1, column) * (1.0 - s) + value(row + 1, column + 1) * s;
                out[y * SIDE + x] += (2.0 * share * (above * (1.0 - t) + below * t)) as f32;
            }
        }
    }
    out.iter().map(|value| 118.0 + value).collect()
}

fn split(place: f64, cells: usize) -> (usize, f64) {
    let whole = place.floor();
    (whole as usize % cells, place - whole)
}

impl Scene {
    fn new(surfaces: Vec<Surface>) -> Self {
        Self { surfaces, textures: &PAINT }
    }

    /// A room of 8 x 3 x 10 with boxes; y is down, and cameras begin near the origin and look along z.
    pub fn room() -> Self {
        Self::new(Self::furniture())
    }

    /// The room with one box more.
    pub fn room_with(centre: Vector3<f64>, size: Vector3<f64>) -> Self {
        let mut surfaces = Self::furniture();
        boxed(&mut surfaces, centre, size);
        Self::new(surfaces)
    }

    fn furniture() -> Vec<Surface> {
        let mut surfaces = Vec::new();
        boxed(&mut surfaces, Vector3::new(0.0, 0.0, 2.0), Vector3::new(8.0, 3.0, 10.0));
        for (centre, size) in [
            ([0.0, 0.9, 3.2], [0.7, 1.2, 0.7]),
            ([-1.7, 0.7, 4.0], [0.9, 1.6, 0.6]),
            ([1.7, 0.3, 4.6], [0.6, 2.4, 0.9]),
            ([0.9, -0.9, 5.6], [1.4, 0.5, 0.5]),
            ([-2.9, 1.0, 1.6], [0.8, 1.0, 1.0]),
            ([2.9, 0.9, 2.0], [0.9, 1.2, 0.8]),
            ([-0.6, 0.3, 6.2], [0.5, 2.4, 0.5]),
        ] {
            boxed(&mut surfaces, Vector3::from(centre), Vector3::from(size));
        }
        surfaces
    }

    /// One wall, two units away.
    pub fn plane() -> Self {
        let (u, v) = (Vector3::new(0.97, 0.0, 0.2).normalize(), Vector3::y());
        let corner = Vector3::new(0.0, 0.0, 2.0) - 6.0 * u - 6.0 * v;
        Self::new(vec![surface(corner, u, v, [12.0, 12.0], 0)])
    }

    /// The grey value that a ray meets among some surfaces and how far along the ray; 20 where it meets nothing.
    fn cast(&self, surfaces: &[&Surface], eye: &Vector3<f64>, ray: &Vector3<f64>) -> (f64, f64) {
        let (mut nearest, mut hit) = (f64::INFINITY, None);
        for surface in surfaces {
            let along = ray.dot(&surface.normal);
            let from_eye = surface.corner - eye;
            let depth = from_eye.dot(&surface.normal) / along;
            if !(depth > 1e-3 && depth < nearest) {
                continue;
            }
            let at = ray * depth - from_eye;
            let (u, v) = (at.dot(&surface.u), at.dot(&surface.v));
            if u >= 0.0 && v >= 0.0 && u <= surface.size[0] && v <= surface.size[1] {
                (nearest, hit) = (depth, Some((*surface, u, v)));
            }
        }
        let Some((surface, u, v)) = hit else { return (20.0, nearest) };
        let (column, s) = split(u / TEXEL + surface.offset[0], SIDE);
        let (row, t) = split(v / TEXEL + surface.offset[1], SIDE);
        let texture = &self.textures[surface.texture];
        let value = |row: usize, column: usize| f64::from(texture[(row % SIDE) * SIDE + column % SIDE]);
        let above = value(row, column) * (1.0 - s) + value(row, column + 1) * s;
        let below = value(row + 1, column) * (1.0 - s) + value(row + 1, column + 1) * s;
        (above * (1.0 - t) + below * t, nearest)
    }

    /// The surfaces that rays within an angle of `axis` (of length 1) may meet.
    fn near(&self, eye: &Vector3<f64>, axis: &Vector3<f64>, angle: f64) -> Vec<&Surface> {
        let may = |surface: &&Surface| {
            let half = (surface.u * surface.size[0] + surface.v * surface.size[1]) / 2.0;
            let (to, radius) = (surface.corner + half - eye, half.norm());
            let distance = to.norm();
            distance <= radius
                || (axis.dot(&to) / distance).clamp(-1.0, 1.0).acos() <= angle + (radius / distance).asin()
        };
        self.surfaces.iter().filter(may).collect()
    }

    /// Grey values before noise and rounding.
    fn light(&self, camera: &Intrinsics, world_from_camera: &Isometry3<f64>) -> Vec<f64> {
        const TILE: usize = 16;
        let eye = world_from_camera.translation.vector;
        let rotation: Matrix3<f64> = world_from_camera.rotation.to_rotation_matrix().into_inner();
        let ray =
            |x: f64, y: f64| rotation * Vector3::new((x - camera.cx) / camera.fx, (y - camera.cy) / camera.fy, 1.0);
        let (width, height) = (camera.width as usize, camera.height as usize);
        let mut out = vec![0.0; width * height];
        for top in (0..height).step_by(TILE) {
            for left in (0..width).step_by(TILE) {
                let (x, y) = ((left + TILE / 2) as f64, (top + TILE / 2) as f64);
                let axis = ray(x, y).normalize();
                let reach = TILE as f64 / 2.0 + 1.0;
                let angle = reach * std::f64::consts::SQRT_2 / camera.fx.min(camera.fy);
                let near = self.near(&eye, &axis, angle);
                for y in top..height.min(top + TILE) {
                    for x in left..width.min(left + TILE) {
                        let shot = |(dx, dy): (f64, f64)| self.cast(&near, &eye, &ray(x as f64 + dx, y as f64 + dy)).0;
                        let shots = [(-0.25, -0.25), (0.25, -0.25), (-0.25, 0.25), (0.25, 0.25)].map(shot);
                        out[y * width + x] = shots.iter().sum::<f64>() / 4.0;
                    }
                }
            }
        }
        out
    }

    /// A picture.
    pub fn shown(&self, camera: &Intrinsics, world_from_camera: &Transform<World, Camera>, look: Look) -> Grey {
        grey(camera, &self.light(camera, world_from_camera.isometry()), look)
    }

    /// A picture that was exposed while the camera went from one pose to another.
    pub fn blurred(
        &self,
        camera: &Intrinsics,
        from: &Transform<World, Camera>,
        to: &Transform<World, Camera>,
        look: Look,
    ) -> Grey {
        const SHOTS: usize = 6;
        let mut sum = vec![0.0; (camera.width * camera.height) as usize];
        for k in 0..SHOTS {
            let pose = from.isometry().lerp_slerp(to.isometry(), k as f64 / (SHOTS - 1) as f64);
            for (sum, light) in sum.iter_mut().zip(self.light(camera, &pose)) {
                *sum += light / SHOTS as f64;
            }
        }
        grey(camera, &sum, look)
    }

    /// The median depth of a coarse grid of pixels.
    pub fn median_depth(&self, camera: &Intrinsics, world_from_camera: &Transform<World, Camera>) -> f64 {
        let eye = world_from_camera.translation();
        let all: Vec<&Surface> = self.surfaces.iter().collect();
        let mut depths = Vec::new();
        for y in (0..camera.height).step_by(16) {
            for x in (0..camera.width).step_by(16) {
                let ray =
                    Vector3::new((f64::from(x) - camera.cx) / camera.fx, (f64::from(y) - camera.cy) / camera.fy, 1.0);
                depths.push(self.cast(&all, &eye, &world_from_camera.transform_vector(&ray)).1);
            }
        }
        depths.sort_by(f64::total_cmp);
        depths[depths.len() / 2]
    }
}

fn grey(camera: &Intrinsics, light: &[f64], look: Look) -> Grey {
    let pixel = |(k, light): (usize, &f64)| {
        let noise = random(look.seed + 100, k as u64, 7) + random(look.seed + 100, k as u64, 8) - 1.0;
        (light * look.gain + 2.0 * look.noise * noise).round().clamp(0.0, 255.0) as u8
    };
    let pixels = light.iter().enumerate().map(pixel).collect();
    Grey::new(camera.width as usize, camera.height as usize, pixels).unwrap()
}

fn surface(corner: Vector3<f64>, u: Vector3<f64>, v: Vector3<f64>, size: [f64; 2], index: usize) -> Surface {
    let k = index as u64;
    let offset = [random(k, 1, 0) * SIDE as f64, random(k, 2, 0) * SIDE as f64];
    Surface { corner, u, v, normal: u.cross(&v), size, texture: index % TEXTURES, offset }
}

fn boxed(surfaces: &mut Vec<Surface>, centre: Vector3<f64>, size: Vector3<f64>) {
    let low = centre - size / 2.0;
    for axis in 0..3 {
        let (next, last) = ((axis + 1) % 3, (axis + 2) % 3);
        let (u, v) = (Vector3::ith(next, 1.0), Vector3::ith(last, 1.0));
        for far in [0.0, size[axis]] {
            let corner = low + Vector3::ith(axis, far);
            surfaces.push(surface(corner, u, v, [size[next], size[last]], surfaces.len()));
        }
    }
}

/// A camera whose horizontal field of view has this tangent from the middle to the border.
pub fn camera_with(width: u32, height: u32, tangent: f64) -> Intrinsics {
    let focal = f64::from(width.max(height)) / 2.0 / tangent;
    let (cx, cy) = (f64::from(width) / 2.0 - 0.5, f64::from(height) / 2.0 - 0.5);
    Intrinsics::new(focal, focal, cx, cy, width, height).unwrap()
}

/// A camera that sees 65 degrees along its longer side.
pub fn camera(width: u32, height: u32) -> Intrinsics {
    camera_with(width, height, 0.64)
}

/// A camera at `eye` that looks at `target`, y down.
pub fn looking(eye: Vector3<f64>, target: Vector3<f64>) -> Transform<World, Camera> {
    let z = (target - eye).normalize();
    let x = Vector3::y().cross(&z).normalize();
    let rotation = Rotation3::from_matrix_unchecked(Matrix3::from_columns(&[x, z.cross(&x), z]));
    Transform::from_isometry_unchecked(Isometry3::from_parts(
        Translation3::from(eye),
        UnitQuaternion::from_rotation_matrix(&rotation),
    ))
}

/// A pose that is turned (rotation vector, radians) and moved, in its own axes.
pub fn moved(pose: &Transform<World, Camera>, turn: [f64; 3], way: [f64; 3]) -> Transform<World, Camera> {
    let step = Isometry3::from_parts(Vector3::from(way).into(), UnitQuaternion::from_scaled_axis(Vector3::from(turn)));
    Transform::from_isometry_unchecked(pose.isometry() * step)
}

/// The stamp of frame `k` of a film at 30 Hz.
pub fn stamp(k: usize) -> Stamp {
    Stamp::from_nanos(1_000_000_000 + k as i64 * 33_333_333)
}

pub fn picture(k: usize, camera: &Intrinsics, grey: &Grey) -> Picture {
    Picture::new(stamp(k), camera, grey).unwrap()
}

/// The same grey value everywhere.
pub fn even(camera: &Intrinsics, value: u8) -> Grey {
    let (width, height) = (camera.width as usize, camera.height as usize);
    Grey::new(width, height, vec![value; width * height]).unwrap()
}

/// Nothing but noise, other for each seed.
pub fn noise(camera: &Intrinsics, seed: u64) -> Grey {
    let (width, height) = (camera.width as usize, camera.height as usize);
    let pixels = (0..width * height).map(|k| (random(seed + 5000, k as u64, 3) * 255.0) as u8).collect();
    Grey::new(width, height, pixels).unwrap()
}

/// An orbit of 60 frames around the box in the middle, then a walk through the room, turning; 3 cm a frame.
pub fn orbit_and_walk(k: usize) -> Transform<World, Camera> {
    const ORBIT: usize = 60;
    let centre = Vector3::new(0.0, 0.2, 3.2);
    let orbit = |k: usize| {
        let angle = -0.45 + 0.0125 * k as f64;
        centre + Vector3::new(-2.4 * angle.sin(), -0.3 + 0.003 * k as f64, -2.4 * angle.cos())
    };
    if k <= ORBIT {
        return looking(orbit(k), centre);
    }
    let along = (k - ORBIT) as f64;
    let begin = orbit(ORBIT);
    let eye = begin + along * Vector3::new(-0.022, 0.0005, 0.015) + Vector3::new(0.0, 0.03 * (along * 0.2).sin(), 0.0);
    let target = centre + along * Vector3::new(-0.01, 0.0, 0.03);
    looking(eye, target)
}

/// The film of these frames.
pub fn film(scene: &Scene, camera: &Intrinsics, poses: &[Transform<World, Camera>]) -> Vec<Grey> {
    let shown = |(k, pose): (usize, &Transform<World, Camera>)| {
        scene.shown(camera, pose, Look { seed: k as u64, ..Look::default() })
    };
    poses.iter().enumerate().map(shown).collect()
}
