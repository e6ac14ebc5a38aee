//! Which pattern, colours and scales a surface gets.

use super::draw::Draw;
use super::texture::{Material, Pattern};
use super::vec3::{V3, v3};

/// What a surface is, which decides its patterns, colours and scales.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Role {
    Wall,
    Floor,
    Ceiling,
    Table,
    /// A thing of this size in metres.
    Thing(f32),
    /// A flat picture, screen or sign of this size in metres.
    Poster(f32),
    Bookshelf,
    WoodPanel,
    Window,
    Lamp,
}

#[derive(Debug, Clone, Copy)]
enum Dye {
    Pale,
    Vivid,
    Wood,
    Neutral,
}

fn colour(draw: &mut Draw, dye: Dye) -> V3 {
    let (hue, saturation, value) = match dye {
        Dye::Pale => {
            let value = if draw.chance(0.2) { draw.range32(0.3, 0.6) } else { draw.range32(0.65, 0.97) };
            (draw.range32(0.0, 6.0), draw.range32(0.0, 0.28), value)
        }
        Dye::Vivid => (draw.range32(0.0, 6.0), draw.range32(0.25, 0.95), draw.range32(0.25, 0.98)),
        Dye::Wood => (draw.range32(0.3, 0.75), draw.range32(0.3, 0.72), draw.range32(0.28, 0.85)),
        Dye::Neutral => (draw.range32(0.0, 6.0), draw.range32(0.0, 0.1), draw.range32(0.08, 0.97)),
    };
    // Hue in sixths of the circle, squared for a rough sRGB-to-linear step.
    let channel = |offset: f32| {
        let k = (offset + hue) % 6.0;
        let value = value - value * saturation * k.min(4.0 - k).clamp(0.0, 1.0);
        value * value
    };
    v3(channel(5.0), channel(3.0), channel(1.0))
}

impl Material {
    pub fn random(draw: &mut Draw, role: Role) -> Self {
        use Pattern::{Brick, Checks, Clouds, Dots, Mosaic, Plain, Spines, Stripes, Text, Tiles, Wood};
        let (patterns, dyes): (&[Pattern], &[Dye]) = match role {
            Role::Wall => (&[Plain, Plain, Plain, Clouds, Clouds, Stripes, Brick, Tiles, Wood], &[Dye::Pale]),
            Role::Floor => {
                (&[Wood, Wood, Tiles, Tiles, Checks, Clouds, Plain, Mosaic], &[Dye::Wood, Dye::Neutral, Dye::Pale])
            }
            Role::Ceiling => (&[Plain, Plain, Tiles, Clouds], &[Dye::Pale]),
            Role::Table => (
                &[Wood, Wood, Wood, Clouds, Plain, Checks, Tiles, Stripes, Dots],
                &[Dye::Wood, Dye::Wood, Dye::Neutral, Dye::Pale, Dye::Vivid],
            ),
            Role::Thing(_) => (
                &[Plain, Clouds, Clouds, Checks, Stripes, Text, Text, Mosaic, Mosaic, Dots, Wood, Tiles],
                &[Dye::Vivid, Dye::Vivid, Dye::Neutral, Dye::Wood, Dye::Pale],
            ),
            Role::Poster(_) => (
                &[Clouds, Clouds, Text, Text, Mosaic, Mosaic, Stripes, Dots, Checks],
                &[Dye::Vivid, Dye::Vivid, Dye::Neutral, Dye::Pale],
            ),
            Role::Bookshelf => (&[Spines], &[Dye::Neutral, Dye::Wood, Dye::Vivid]),
            Role::WoodPanel => (&[Wood, Wood, Plain, Tiles], &[Dye::Wood, Dye::Pale]),
            Role::Window => (&[Tiles, Clouds], &[Dye::Pale]),
            Role::Lamp => (&[Plain], &[Dye::Pale]),
        };
        let pattern = draw.pick(patterns);
        let mut colours = [0; 3].map(|_| {
            let dye = draw.pick(dyes);
            colour(draw, dye)
        });
        if matches!(pattern, Wood) && matches!(role, Role::Table | Role::Floor | Role::WoodPanel | Role::Thing(_)) {
            colours = [colour(draw, Dye::Wood), colour(draw, Dye::Wood), v3(0.03, 0.02, 0.015)];
            colours[1] = colours[0].mix(colours[1], 0.5);
        }
        if matches!(pattern, Text) {
            colours[0] = colour(draw, Dye::Pale);
            colours[1] = colour(draw, Dye::Neutral) * 0.2;
        }
        if matches!(role, Role::Wall | Role::Ceiling) {
            // Walls vary around one colour.
            colours[1] = colours[0].mix(colours[1], draw.range32(0.15, 0.6));
            colours[2] = colours[0].mix(colours[2], 0.5);
        }
        let (wavelength, grain) = match role {
            Role::Wall | Role::Ceiling => (draw.range32(0.8, 2.0), draw.range32(0.08, 0.35)),
            Role::Floor => (draw.range32(0.6, 1.6), draw.range32(0.15, 0.5)),
            Role::Table => (draw.range32(0.2, 0.6), draw.range32(0.1, 0.45)),
            Role::Thing(size) | Role::Poster(size) => (size * draw.range32(0.4, 1.2), draw.range32(0.1, 0.55)),
            Role::Bookshelf | Role::WoodPanel => (0.5, draw.range32(0.1, 0.3)),
            Role::Window | Role::Lamp => (0.6, draw.range32(0.1, 0.4)),
        };
        let period = match (pattern, role) {
            (_, Role::Bookshelf) => draw.range32(0.03, 0.05),
            (Text, Role::Thing(size) | Role::Poster(size)) => size * draw.range32(0.03, 0.08),
            (Wood, Role::Wall | Role::Floor | Role::WoodPanel) => draw.range32(0.07, 0.2),
            (Wood, Role::Table) => draw.range32(0.05, 0.25),
            (Clouds, Role::Thing(size) | Role::Poster(size)) => size * draw.range32(0.25, 0.8),
            (_, Role::Thing(size) | Role::Poster(size)) => size * draw.range32(0.1, 0.35),
            (Brick, _) => draw.range32(0.18, 0.4),
            (Clouds, Role::Table) => draw.range32(0.05, 0.3),
            (Clouds, _) => draw.range32(0.35, 0.9),
            (_, Role::Table) => draw.range32(0.03, 0.12),
            _ => draw.range32(0.12, 0.5),
        };
        let upright = matches!(role, Role::Wall | Role::Ceiling | Role::Bookshelf | Role::WoodPanel | Role::Window);
        let angle = match role {
            _ if upright => 0.0,
            Role::Poster(_) => draw.range(-0.03, 0.03),
            Role::Thing(_) if draw.chance(0.6) => 0.0,
            _ if draw.chance(0.5) => std::f64::consts::FRAC_PI_2,
            _ => draw.range(0.0, 3.1),
        };
        let glow = match role {
            Role::Window => draw.range32(0.4, 1.1),
            Role::Lamp => draw.range32(0.8, 1.6),
            _ => 0.0,
        };
        Self {
            pattern,
            colours,
            period,
            wavelength,
            grain,
            tone: draw.count(0, 2),
            turn: (angle.cos() as f32, angle.sin() as f32),
            seed: draw.word(),
            glow,
        }
    }
}
