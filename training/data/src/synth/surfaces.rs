//! What strata make of a scene: weaker or stronger surfaces, or one plane alone.

use super::SceneKind;
use super::draw::Draw;
use super::material::Role;
use super::motion::Start;
use super::scene::{FACES, Light, Scene};
use super::solid::{Decor, Face, Shape};
use super::texture::{Material, Pattern};
use super::vec3::{V3, v3};
use nalgebra::Vector3;
use std::f64::consts::TAU;

/// Side of the hall in which a plane is looked at, metres: its other walls are out of view.
const HALL: f32 = 24.0;
/// Faces of the room: a wall, and the floor.
const WALL: u8 = 0;
const FLOOR: u8 = 4;

/// Takes the contrast out of all surfaces, and most of what hangs on walls away.
pub(super) fn weaken(draw: &mut Draw, scene: &mut Scene, kind: SceneKind) {
    let base = pale(draw);
    let (contrast, own) = (draw.range32(0.04, 0.12), draw.range32(0.06, 0.2));
    let weak = |material: &mut Material| {
        // The other patterns vary in brightness whatever their colours are.
        if !matches!(material.pattern, Pattern::Plain | Pattern::Clouds) {
            material.pattern = if material.seed & 1 == 0 { Pattern::Plain } else { Pattern::Clouds };
        }
        let mean = (material.colours[0] + material.colours[1] + material.colours[2]) * (1.0 / 3.0);
        let around = base.mix(mean, own);
        material.colours = material.colours.map(|colour| positive(around + (colour - mean) * contrast));
        material.grain *= 0.15;
        material.glow = 0.0;
    };
    for face in &mut scene.faces {
        face.decors.retain(|_| draw.chance(0.25));
    }
    if kind == SceneKind::Room && draw.chance(0.4) {
        scene.solids.clear();
    }
    materials(scene, weak);
    // Light from everywhere: edges show little.
    for light in &mut scene.lights {
        light.colour = light.colour * 0.6;
    }
}

fn pale(draw: &mut Draw) -> V3 {
    let value = draw.range32(0.35, 0.8);
    v3(value * draw.range32(0.9, 1.0), value * draw.range32(0.9, 1.0), value * draw.range32(0.85, 1.0))
}

fn positive(colour: V3) -> V3 {
    v3(colour.x.max(0.02), colour.y.max(0.02), colour.z.max(0.02))
}

/// Every material of a scene.
fn materials(scene: &mut Scene, mut change: impl FnMut(&mut Material)) {
    let sides = scene.solids.iter_mut().flat_map(|solid| std::iter::once(&mut solid.side).chain(&mut solid.cap));
    for face in scene.faces.iter_mut().chain(sides) {
        change(&mut face.material);
        face.decors.iter_mut().for_each(|decor| change(&mut decor.material));
    }
}

/// Gives every surface a strong texture that doesn't repeat itself.
pub(super) fn enrich(draw: &mut Draw, scene: &mut Scene) {
    fn face(draw: &mut Draw, face: &mut Face, size: f32) {
        face.material = rich(draw, size);
        for decor in &mut face.decors {
            let size = (decor.high.0 - decor.low.0).min(decor.high.1 - decor.low.1).clamp(0.05, 1.5);
            decor.material = rich(draw, size);
        }
    }
    for wall in &mut scene.faces {
        let size = draw.range32(0.7, 1.4);
        face(draw, wall, size);
    }
    for solid in &mut scene.solids {
        let half = solid.half();
        let size = (half.x + half.y).max(half.z).clamp(0.05, 1.5);
        face(draw, &mut solid.side, size);
        if let Some(cap) = &mut solid.cap {
            face(draw, cap, size);
        }
        // A ball's texture is squeezed at its poles: a plain one would be a gap in the view.
        if matches!(solid.shape, Shape::Sphere { .. }) {
            solid.side.material.period *= 1.5;
        }
    }
}

/// A picture of about `size` metres with strong contrasts that doesn't repeat itself.
fn rich(draw: &mut Draw, size: f32) -> Material {
    loop {
        let mut material = Material::random(draw, Role::Poster(size));
        let [a, b, c] = material.colours.map(V3::luminance);
        let strong = match material.pattern {
            Pattern::Clouds => (a - b).abs() > 0.35,
            Pattern::Mosaic => a.max(b).max(c) - a.min(b).min(c) > 0.35,
            Pattern::Text => a > 0.4,
            _ => false,
        };
        if strong {
            material.grain = draw.range32(0.5, 0.9);
            material.tone = draw.count(1, 2);
            return material;
        }
    }
}

/// A wall or a floor of a wide hall, and where the camera begins: the target is on the plane.
pub(super) struct Facing {
    pub scene: Scene,
    pub face: u8,
    pub start: Start,
}

/// One plane to look at: textured, or of one colour under the same light everywhere.
pub(super) fn facing(draw: &mut Draw, kind: SceneKind, textured: bool) -> Facing {
    let face = if draw.chance(0.65) { WALL } else { FLOOR };
    let middle = f64::from(0.5 * HALL);
    let (foot, normal, along) = match face {
        WALL => (Vector3::new(0.0, middle, middle), Vector3::x(), [Vector3::y(), Vector3::z()]),
        _ => (Vector3::new(middle, middle, 0.0), Vector3::z(), [Vector3::x(), Vector3::y()]),
    };
    let distance = match kind {
        SceneKind::TableTop => draw.range(0.45, 1.1),
        SceneKind::Room => draw.range(0.9, 2.4),
    };
    // Never straight down, where the camera's yaw has no meaning.
    let slant = if face == FLOOR { draw.range(0.25, 0.6) } else { draw.range(0.0, 0.6) };
    let around = draw.range(0.0, TAU);
    let aside = along[0] * around.cos() + along[1] * around.sin();
    let position = foot + (normal * slant.cos() + aside * slant.sin()) * distance;
    let lamp = position + normal * draw.range(0.2, 1.5) + aside * draw.range(-1.0, 1.0);
    let plain = Material { pattern: Pattern::Plain, grain: 0.0, ..Material::random(draw, Role::Wall) };
    let plain = Face { material: Material { colours: [pale(draw); 3], glow: 0.0, ..plain }, decors: Vec::new() };
    let mut faces: [Face; FACES] = std::array::from_fn(|_| plain.clone());
    let sky = draw.range32(0.25, 0.5);
    let ambient = v3(sky, sky, sky);
    let mut lights = Vec::new();
    if textured {
        let surface = &mut faces[usize::from(face)];
        let reach = distance as f32;
        surface.material = rich(draw, 0.8 * reach);
        for _ in 0..draw.count(30, 50) {
            let at = |draw: &mut Draw| 0.5 * HALL + 2.0 * reach * draw.range32(-1.0, 1.0);
            let (u, v) = (at(draw), at(draw));
            let (width, height) = (reach * draw.range32(0.15, 0.7), reach * draw.range32(0.15, 0.7));
            let material = rich(draw, width.min(height));
            surface.decors.push(Decor { low: (u, v), high: (u + width, v + height), material });
        }
        let colour = draw.range32(0.4, 1.0);
        lights.push(Light {
            position: V3::from_f64(lamp.into()),
            colour: v3(colour, colour, colour),
            reach: draw.range32(1.5, 4.0),
        });
    }
    let scene = Scene { room: v3(HALL, HALL, HALL), faces, solids: Vec::new(), lights, ambient: (ambient, ambient) };
    Facing { scene, face, start: Start { position, target: foot } }
}
