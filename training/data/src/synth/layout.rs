//! Random rooms and table tops.

use super::SceneKind;
use super::draw::Draw;
use super::material::Role;
use super::scene::{Light, Scene};
use super::solid::{Decor, Face, Shape, Solid};
use super::texture::Material;
use super::things::{free_place, plain_face, push_table, small_thing, stand};
use super::vec3::{V3, v3};

/// A scene and the points in it that are worth looking at (world, metres).
pub(super) struct Layout {
    pub scene: Scene,
    pub targets: Vec<V3>,
}

pub(super) fn layout(draw: &mut Draw, kind: SceneKind) -> Layout {
    let room = v3(draw.range32(3.0, 7.0), draw.range32(3.0, 7.0), draw.range32(2.4, 3.0));
    let faces = room_faces(draw, room);
    let mut solids = Vec::new();
    let targets = match kind {
        SceneKind::Room => furnish(draw, room, &mut solids),
        SceneKind::TableTop => lay_table(draw, room, &mut solids),
    };
    let (lights, ambient) = lights(draw, room);
    Layout { scene: Scene { room, faces, solids, lights, ambient }, targets }
}

fn room_faces(draw: &mut Draw, room: V3) -> [Face; 6] {
    let common = Material::random(draw, Role::Wall);
    let skirting = Material::random(draw, Role::WoodPanel);
    let skirted = draw.chance(0.6);
    let skirting_height = draw.range32(0.06, 0.14);
    let mut wall = |width: f32| {
        let material = if draw.chance(0.3) { Material::random(draw, Role::Wall) } else { common.clone() };
        let mut decors = Vec::new();
        if skirted {
            decors.push(Decor { low: (0.0, 0.0), high: (width, skirting_height), material: skirting.clone() });
        }
        let slots = draw.count(2, 4);
        let slot = width / slots as f32;
        for place in 0..slots {
            if draw.chance(0.85) {
                let low = place as f32 * slot + 0.05;
                hang(draw, low, slot - 0.1, room.z, &mut decors);
            }
        }
        Face { material, decors }
    };
    let walls = [wall(room.y), wall(room.y), wall(room.x), wall(room.x)];
    let mut floor = plain_face(draw, Role::Floor);
    if draw.chance(0.5) {
        let (cx, cy) = (draw.range32(0.3, 0.7) * room.x, draw.range32(0.3, 0.7) * room.y);
        let (hx, hy) = (draw.range32(0.5, 1.3), draw.range32(0.5, 1.3));
        let material = Material::random(draw, Role::Poster(hx + hy));
        floor.decors.push(Decor { low: (cx - hx, cy - hy), high: (cx + hx, cy + hy), material });
    }
    let mut ceiling = plain_face(draw, Role::Ceiling);
    for _ in 0..draw.count(1, 3) {
        let (cx, cy) = (draw.range32(0.2, 0.8) * room.x, draw.range32(0.2, 0.8) * room.y);
        let (hx, hy) = (draw.range32(0.1, 0.6), draw.range32(0.1, 0.3));
        let material = Material::random(draw, Role::Lamp);
        ceiling.decors.push(Decor { low: (cx - hx, cy - hy), high: (cx + hx, cy + hy), material });
    }
    let [a, b, c, d] = walls;
    [a, b, c, d, floor, ceiling]
}

/// Door, window, bookshelf or pictures in a stretch of wall that starts at `low` metres.
fn hang(draw: &mut Draw, low: f32, room_left: f32, ceiling: f32, decors: &mut Vec<Decor>) {
    let mut place = |draw: &mut Draw, width: f32, bottom: f32, height: f32, role: Role, frame: Option<f32>| {
        let width = width.min(room_left);
        let start = low + draw.range32(0.0, 1.0) * (room_left - width);
        let high = (start + width, (bottom + height).min(ceiling - 0.05));
        let mut inner = (start, bottom, high.0, high.1);
        if let Some(border) = frame {
            let material = Material::random(draw, Role::WoodPanel);
            decors.push(Decor { low: (start, bottom), high, material });
            inner = (start + border, bottom + border, high.0 - border, high.1 - border);
        }
        let material = Material::random(draw, role);
        decors.push(Decor { low: (inner.0, inner.1), high: (inner.2, inner.3), material });
        inner
    };
    match draw.weighted(&[0.2, 0.2, 0.2, 0.4]) {
        0 => {
            let width = draw.range32(0.75, 1.0);
            place(draw, width, 0.0, 2.05, Role::WoodPanel, Some(0.07));
        }
        1 => {
            let (width, height) = (draw.range32(0.8, 1.6), draw.range32(0.9, 1.4));
            let bottom = draw.range32(0.7, 1.0);
            let (left, low, right, high) = place(draw, width, bottom, height, Role::Window, Some(0.06));
            let bar = Material::random(draw, Role::WoodPanel);
            let middle = 0.5 * (left + right);
            decors.push(Decor { low: (middle - 0.025, low), high: (middle + 0.025, high), material: bar });
        }
        2 => {
            let (width, height) = (draw.range32(0.7, 1.8), draw.range32(1.0, 2.2));
            let bottom = if draw.chance(0.6) { 0.05 } else { draw.range32(0.5, 1.0) };
            place(draw, width, bottom, height, Role::Bookshelf, Some(0.04));
        }
        _ => {
            for _ in 0..draw.count(1, 3) {
                let (width, height) = (draw.range32(0.25, 1.1), draw.range32(0.25, 0.9));
                let bottom = draw.range32(0.8, 1.7);
                let frame = draw.chance(0.4).then_some(0.03);
                place(draw, width, bottom, height, Role::Poster(width), frame);
            }
        }
    }
}

fn lights(draw: &mut Draw, room: V3) -> (Vec<Light>, (V3, V3)) {
    let warm = draw.range32(-0.15, 0.15);
    let tint = |warm: f32, power: f32| v3(power * (1.0 + warm), power, power * (1.0 - warm));
    let mut lights = vec![Light {
        position: v3(
            room.x * draw.range32(0.15, 0.85),
            room.y * draw.range32(0.15, 0.85),
            room.z * draw.range32(0.8, 0.98),
        ),
        colour: tint(warm, draw.range32(0.5, 1.2)),
        reach: draw.range32(1.2, 4.0),
    }];
    if draw.chance(0.7) {
        // Light through a window, from a wall.
        let along = draw.range32(0.2, 0.8);
        let position = match draw.count(0, 3) {
            0 => v3(0.1, along * room.y, 1.5),
            1 => v3(room.x - 0.1, along * room.y, 1.5),
            2 => v3(along * room.x, 0.1, 1.5),
            _ => v3(along * room.x, room.y - 0.1, 1.5),
        };
        lights.push(Light {
            position,
            colour: tint(draw.range32(-0.15, 0.1), draw.range32(0.3, 1.0)),
            reach: draw.range32(1.5, 4.0),
        });
    }
    let sky = draw.range32(0.2, 0.55);
    let ground = sky * draw.range32(0.4, 0.8);
    (lights, (tint(warm * 0.5, sky), tint(warm * 0.5, ground)))
}

fn furnish(draw: &mut Draw, room: V3, solids: &mut Vec<Solid>) -> Vec<V3> {
    let mut targets = Vec::new();
    let mut taken = Vec::new();
    for _ in 0..draw.count(4, 8) {
        let shape = match draw.weighted(&[0.7, 0.2, 0.1]) {
            0 => Shape::Box(v3(draw.range32(0.15, 0.7), draw.range32(0.15, 0.5), draw.range32(0.15, 0.9))),
            1 => Shape::Cylinder { radius: draw.range32(0.1, 0.4), half_height: draw.range32(0.15, 0.8) },
            _ => Shape::Sphere { radius: draw.range32(0.12, 0.4) },
        };
        let radius = match shape {
            Shape::Box(half) => (half.x * half.x + half.y * half.y).sqrt(),
            Shape::Cylinder { radius, .. } | Shape::Sphere { radius } => radius,
        };
        // Furniture keeps to the walls: the middle is for the camera.
        let strip = match draw.count(0, 5) {
            0 => (v3(0.0, 0.0, 0.0), v3(room.x, 2.0 * radius + 0.3, 0.0)),
            1 => (v3(0.0, room.y - 2.0 * radius - 0.3, 0.0), v3(room.x, room.y, 0.0)),
            2 => (v3(0.0, 0.0, 0.0), v3(2.0 * radius + 0.3, room.y, 0.0)),
            3 => (v3(room.x - 2.0 * radius - 0.3, 0.0, 0.0), v3(room.x, room.y, 0.0)),
            _ => (v3(0.0, 0.0, 0.0), room),
        };
        let Some((x, y)) = free_place(draw, radius, &taken, strip) else {
            continue;
        };
        taken.push((x, y, radius));
        let table = matches!(shape, Shape::Box(half) if half.x.min(half.y) > 0.25) && draw.chance(0.4);
        let solid = stand(draw, shape, (x, y, 0.0), Role::Thing(0.8));
        targets.push(solid.centre);
        let top = solid.centre.z + solid.half().z;
        if table {
            push_table(draw, &solid, solids);
        } else {
            solids.push(solid.clone());
        }
        if !matches!(shape, Shape::Sphere { .. }) && top < 1.3 {
            let wide = solid.half().x.min(solid.half().y);
            let mut on_top = Vec::new();
            for _ in 0..draw.count(0, 3) {
                if let Some(small) = small_thing(
                    draw,
                    0.06,
                    0.3f32.min(wide),
                    &mut on_top,
                    (v3(x - wide, y - wide, 0.0), v3(x + wide, y + wide, 0.0)),
                    top,
                ) {
                    targets.push(small.centre);
                    solids.push(small);
                }
            }
        }
    }
    for _ in 0..4 {
        targets.push(v3(draw.range32(0.1, 0.9) * room.x, draw.range32(0.1, 0.9) * room.y, draw.range32(0.3, 1.6)));
    }
    targets
}

fn lay_table(draw: &mut Draw, room: V3, solids: &mut Vec<Solid>) -> Vec<V3> {
    let half = v3(draw.range32(0.4, 0.95), draw.range32(0.35, 0.7), draw.range32(0.34, 0.4));
    let centre = v3(room.x * draw.range32(0.35, 0.65), room.y * draw.range32(0.35, 0.65), half.z);
    let body =
        Solid { centre, cos: 1.0, sin: 0.0, shape: Shape::Box(half), side: plain_face(draw, Role::Table), cap: None };
    push_table(draw, &body, solids);
    if draw.chance(0.5) {
        // A cloth, mat or newspaper on the table top; faces of one box share the decor, and only the top is this wide.
        let (hx, hy) = (half.x * draw.range32(0.3, 0.9), half.y * draw.range32(0.3, 0.9));
        let material = Material::random(draw, Role::Poster(hx + hy));
        let side = &solids[solids.len() - 5].side.material;
        let decors = vec![Decor { low: (-hx, -hy), high: (hx, hy), material }];
        let cap = Face { material: side.clone(), decors };
        let board = solids.len() - 5;
        solids[board].cap = Some(cap);
    }
    let top = 2.0 * half.z;
    let mut taken = Vec::new();
    let mut targets = Vec::new();
    // Things crowd around the middle, where the camera looks.
    let crowd = v3(half.x.min(0.55) - 0.02, half.y.min(0.5) - 0.02, 0.0);
    let area = (centre - crowd, centre + crowd);
    for _ in 0..draw.count(5, 11) {
        if let Some(thing) = small_thing(draw, 0.04, 0.26, &mut taken, area, top) {
            let above = thing.centre.z + thing.half().z;
            targets.push(thing.centre);
            if matches!(thing.shape, Shape::Box(_)) && draw.chance(0.35) {
                let wide = 0.8 * thing.half().x.min(thing.half().y);
                let spot = v3(wide, wide, 0.0);
                if let Some(second) = small_thing(
                    draw,
                    0.03,
                    1.4 * wide,
                    &mut Vec::new(),
                    (thing.centre - spot, thing.centre + spot),
                    above,
                ) {
                    solids.push(second);
                }
            }
            solids.push(thing);
        }
    }
    targets.push(v3(centre.x, centre.y, top));
    // Furniture around the table.
    let mut taken = vec![(centre.x, centre.y, half.norm() + 0.35)];
    for _ in 0..draw.count(2, 5) {
        let half = v3(draw.range32(0.15, 0.5), draw.range32(0.15, 0.4), draw.range32(0.2, 0.9));
        if let Some((x, y)) = free_place(draw, v3(half.x, half.y, 0.0).norm(), &taken, (v3(0.0, 0.0, 0.0), room)) {
            taken.push((x, y, half.x + half.y));
            let solid = stand(draw, Shape::Box(half), (x, y, 0.0), Role::Thing(0.8));
            solids.push(solid);
        }
    }
    targets
}
