//! Things that stand on something: boxes, books, tins, balls, tables.

use super::draw::Draw;
use super::material::Role;
use super::solid::{Decor, Face, Shape, Solid};
use super::texture::Material;
use super::vec3::{V3, v3};

pub(super) fn plain_face(draw: &mut Draw, role: Role) -> Face {
    Face { material: Material::random(draw, role), decors: Vec::new() }
}

fn yaw(draw: &mut Draw) -> (f32, f32) {
    let quarter = std::f64::consts::FRAC_PI_2 * draw.count(0, 3) as f64;
    let angle = if draw.chance(0.6) { quarter + 0.08 * draw.normal() } else { quarter + draw.range(-0.8, 0.8) };
    (angle.cos() as f32, angle.sin() as f32)
}

/// A thing of this shape standing at `(x, y, bottom)`.
pub(super) fn stand(draw: &mut Draw, shape: Shape, at: (f32, f32, f32), role: Role) -> Solid {
    let (cos, sin) = yaw(draw);
    let mut solid = Solid { centre: v3(at.0, at.1, at.2), cos, sin, shape, side: plain_face(draw, role), cap: None };
    let half = solid.half();
    solid.centre.z += half.z;
    if !matches!(shape, Shape::Sphere { .. }) && draw.chance(0.6) {
        solid.cap = Some(plain_face(draw, role));
    }
    // A label or a drawer on the sides, a label on the top.
    if matches!(shape, Shape::Box(_)) && draw.chance(0.6) {
        let small = half.x.min(half.y);
        for _ in 0..draw.count(1, 2) {
            solid.side.decors.push(label(draw, small, half.z));
        }
        if let Some(cap) = &mut solid.cap {
            cap.decors.push(label(draw, half.x, half.y));
        }
    }
    if let Shape::Cylinder { radius, half_height } = shape
        && draw.chance(0.5)
    {
        let material = Material::random(draw, Role::Poster(2.0 * half_height));
        let (low, high) = (draw.range32(-0.8, -0.1), draw.range32(0.1, 0.8));
        solid.side.decors.push(Decor {
            low: (-4.0 * radius, low * half_height),
            high: (4.0 * radius, high * half_height),
            material,
        });
    }
    solid
}

fn label(draw: &mut Draw, half_u: f32, half_v: f32) -> Decor {
    let (cu, cv) = (draw.range32(-0.3, 0.3) * half_u, draw.range32(-0.3, 0.3) * half_v);
    let (hu, hv) = (draw.range32(0.25, 0.65) * half_u, draw.range32(0.25, 0.65) * half_v);
    let material = Material::random(draw, Role::Poster(2.0 * hu.min(hv)));
    Decor { low: (cu - hu, cv - hv), high: (cu + hu, cv + hv), material }
}

/// Free place for a circle among circles `(x, y, radius)`, or none after 12 tries.
pub(super) fn free_place(
    draw: &mut Draw,
    radius: f32,
    taken: &[(f32, f32, f32)],
    area: (V3, V3),
) -> Option<(f32, f32)> {
    let (low, high) = area;
    if high.x - low.x < 2.0 * radius || high.y - low.y < 2.0 * radius {
        return None;
    }
    (0..12).find_map(|_| {
        let (x, y) = (draw.range32(low.x + radius, high.x - radius), draw.range32(low.y + radius, high.y - radius));
        let clear =
            taken.iter().all(|&(ox, oy, r)| (x - ox) * (x - ox) + (y - oy) * (y - oy) > (r + radius) * (r + radius));
        clear.then_some((x, y))
    })
}

/// A box turned into a table: a board and four legs.
pub(super) fn push_table(draw: &mut Draw, body: &Solid, solids: &mut Vec<Solid>) {
    let half = body.half();
    let thick = draw.range32(0.012, 0.03);
    let top = body.centre.z + half.z;
    let material = Material::random(draw, Role::Table);
    let leg_material = Material::random(draw, Role::WoodPanel);
    let part = |centre: V3, half: V3, material: &Material| Solid {
        centre,
        cos: body.cos,
        sin: body.sin,
        shape: Shape::Box(half),
        side: Face { material: material.clone(), decors: Vec::new() },
        cap: None,
    };
    solids.push(part(v3(body.centre.x, body.centre.y, top - thick), v3(half.x, half.y, thick), &material));
    let leg = draw.range32(0.02, 0.04);
    for (sx, sy) in [(-1.0, -1.0), (-1.0, 1.0), (1.0, -1.0), (1.0, 1.0)] {
        let offset = v3(sx * (half.x - leg), sy * (half.y - leg), 0.0).turned(body.cos, body.sin);
        let height = 0.5 * (top - 2.0 * thick);
        solids.push(part(
            v3(body.centre.x + offset.x, body.centre.y + offset.y, height),
            v3(leg, leg, height),
            &leg_material,
        ));
    }
}

/// A thing of `low..high` metres on a level surface at `bottom`, clear of the circles in `taken`.
pub(super) fn small_thing(
    draw: &mut Draw,
    low: f32,
    high: f32,
    taken: &mut Vec<(f32, f32, f32)>,
    area: (V3, V3),
    bottom: f32,
) -> Option<Solid> {
    if high <= low {
        return None;
    }
    let size = draw.range32(low, high);
    let shape = match draw.weighted(&[0.4, 0.2, 0.22, 0.18]) {
        0 => Shape::Box(v3(0.5 * size, 0.5 * size * draw.range32(0.3, 1.0), 0.5 * size * draw.range32(0.3, 1.3))),
        // A book lying flat.
        1 => Shape::Box(v3(0.5 * size, 0.5 * size * draw.range32(0.6, 0.8), draw.range32(0.005, 0.025))),
        2 => Shape::Cylinder { radius: size * draw.range32(0.15, 0.35), half_height: size * draw.range32(0.2, 0.5) },
        _ => Shape::Sphere { radius: size * draw.range32(0.25, 0.4) },
    };
    let radius = match shape {
        Shape::Box(half) => (half.x * half.x + half.y * half.y).sqrt(),
        Shape::Cylinder { radius, .. } | Shape::Sphere { radius } => radius,
    };
    let (x, y) = free_place(draw, radius, taken, area)?;
    taken.push((x, y, radius));
    Some(stand(draw, shape, (x, y, bottom), Role::Thing(size)))
}
