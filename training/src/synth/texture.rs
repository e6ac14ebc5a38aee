//! Procedural surface colours, band-limited by the size of a pixel on the surface: an octave or a pattern that a pixel
//! cannot resolve fades into its mean, so that one sample a pixel is enough inside a surface.

use super::draw::Draw;
use super::vec3::{V3, v3};
use std::sync::OnceLock;

fn hash(x: i32, y: i32, seed: u32) -> u32 {
    let mut h = (x as u32).wrapping_mul(0x9E37_79B1) ^ (y as u32).wrapping_mul(0x85EB_CA77) ^ seed;
    h = (h ^ (h >> 15)).wrapping_mul(0x2C1B_3C6D);
    h = (h ^ (h >> 12)).wrapping_mul(0x297A_2D39);
    h ^ (h >> 15)
}

/// In [0, 1).
fn hash_unit(x: i32, y: i32, seed: u32) -> f32 {
    (hash(x, y, seed) >> 8) as f32 / 16_777_216.0
}

/// `floor` without the call into the C library that the baseline x86-64 target makes of it.
fn floor(x: f32) -> i32 {
    let i = x as i32;
    i - i32::from((i as f32) > x)
}

/// Value noise with a period of `lattice` cells, [-1, 1].
fn value_noise(x: f32, y: f32, lattice: i32, seed: u32) -> f32 {
    let (ix, iy) = (floor(x), floor(y));
    let (fx, fy) = (x - ix as f32, y - iy as f32);
    let (sx, sy) = (fx * fx * (3.0 - 2.0 * fx), fy * fy * (3.0 - 2.0 * fy));
    let corner =
        |dx: i32, dy: i32| hash_unit((ix + dx) % lattice, (iy + dy) % lattice, seed) * 2.0 - 1.0;
    let top = corner(0, 0) + (corner(1, 0) - corner(0, 0)) * sx;
    let bottom = corner(0, 1) + (corner(1, 1) - corner(0, 1)) * sx;
    top + (bottom - top) * sy
}

/// Side of the tile of baked noise, texels.
const SIDE: usize = 512;
/// Texels of the longest wave; the tile repeats after four of them.
const WAVE: usize = 128;
const LEVELS: usize = 9;
/// Amplitude of an octave over that of the octave above.
const PERSISTENCES: [f32; 3] = [0.5, 0.6, 0.7];

/// Fractal noise in [-127, 127], with a pyramid of its box averages: level k has `SIDE >> k` texels a side.
struct Baked(Vec<Vec<i8>>);

/// One tile per persistence, the same in every process.
fn baked() -> &'static [Baked; 3] {
    static BAKED: OnceLock<[Baked; 3]> = OnceLock::new();
    BAKED.get_or_init(|| PERSISTENCES.map(Baked::new))
}

impl Baked {
    fn new(persistence: f32) -> Self {
        let mut level = vec![0.0f32; SIDE * SIDE];
        let (mut wave, mut gain) = (WAVE, 0.75);
        while wave >= 2 {
            let seed = wave as u32 ^ persistence.to_bits();
            for (at, texel) in level.iter_mut().enumerate() {
                let (x, y) = (
                    (at % SIDE) as f32 / wave as f32,
                    (at / SIDE) as f32 / wave as f32,
                );
                *texel += gain * value_noise(x, y, (SIDE / wave) as i32, seed);
            }
            wave /= 2;
            gain *= persistence;
        }
        let mut levels = Vec::with_capacity(LEVELS);
        for k in 0..LEVELS {
            let side = SIDE >> k;
            levels.push(
                level
                    .iter()
                    .map(|x| (x.clamp(-1.0, 1.0) * 127.0) as i8)
                    .collect(),
            );
            let at = |x: usize, y: usize| level[y * side + x];
            let average = |i: usize| {
                let (x, y) = (2 * (i % (side / 2)), 2 * (i / (side / 2)));
                0.25 * (at(x, y) + at(x + 1, y) + at(x, y + 1) + at(x + 1, y + 1))
            };
            level = (0..side * side / 4).map(average).collect();
        }
        Self(levels)
    }

    /// Bilinear value of a level at texel coordinates of level 0.
    fn sample(&self, level: usize, x: f32, y: f32) -> f32 {
        let texels = &self.0[level];
        let (side, scale) = (SIDE >> level, 1.0 / (1 << level) as f32);
        let (x, y) = (x * scale - 0.5, y * scale - 0.5);
        let (ix, iy) = (floor(x), floor(y));
        let (fx, fy) = (x - ix as f32, y - iy as f32);
        let mask = side - 1;
        let (x0, x1) = (ix as usize & mask, ix.wrapping_add(1) as usize & mask);
        let (y0, y1) = (
            (iy as usize & mask) * side,
            (iy.wrapping_add(1) as usize & mask) * side,
        );
        let at = |i: usize| f32::from(texels[i]);
        let top = at(y0 + x0) + (at(y0 + x1) - at(y0 + x0)) * fx;
        let bottom = at(y1 + x0) + (at(y1 + x1) - at(y1 + x0)) * fx;
        top + (bottom - top) * fy
    }
}

/// Fractal noise, about [-1, 1], with its longest wave at `wavelength` and all that `footprint` (same unit) cannot
/// resolve averaged away. `tone` picks the persistence.
fn fractal(u: f32, v: f32, wavelength: f32, tone: usize, footprint: f32, seed: u32) -> f32 {
    let scale = WAVE as f32 / wavelength;
    // The logarithm to base two from the exponent and, linearly, the mantissa: at most 0.09 off.
    let bits = (footprint * scale).clamp(1.0, 512.0).to_bits();
    let level = (bits >> 23) as usize - 127;
    let share = (bits & 0x007F_FFFF) as f32 / 8_388_608.0;
    if level + 1 >= LEVELS {
        return 0.0;
    }
    let tile = &baked()[tone % 3];
    let (x, y) = (
        u * scale + (seed & 511) as f32,
        v * scale + (seed >> 9 & 511) as f32,
    );
    // Blended over the middle half of a level only: half of the look-ups need one level.
    let sum = if share <= 0.25 {
        tile.sample(level, x, y)
    } else if share >= 0.75 {
        tile.sample(level + 1, x, y)
    } else {
        let fine = tile.sample(level, x, y);
        fine + (tile.sample(level + 1, x, y) - fine) * (2.0 * share - 0.5)
    };
    sum * (1.0 / 127.0)
}

/// Square wave of period 1 that is 1 on [0, duty), seen through a box of width `w` periods.
fn pulse(x: f32, duty: f32, w: f32) -> f32 {
    let w = w.max(1e-3);
    let integral = |x: f32| {
        let i = floor(x) as f32;
        i * duty + (x - i).min(duty)
    };
    (integral(x + 0.5 * w) - integral(x - 0.5 * w)) / w
}

/// 1 where a pattern of period 1 is resolved by a footprint of `w` periods, 0 where it is not.
fn resolved(w: f32) -> f32 {
    (1.4 - 2.0 * w).clamp(0.0, 1.0)
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Pattern {
    Plain,
    Clouds,
    Checks,
    Tiles,
    Stripes,
    Wood,
    Brick,
    Text,
    Mosaic,
    Spines,
    Dots,
}

/// A surface: a pattern in up to three colours under fractal grain.
#[derive(Debug, Clone)]
pub(super) struct Material {
    pub pattern: Pattern,
    /// Linear RGB.
    pub colours: [V3; 3],
    /// Metres of one repetition of the pattern.
    pub period: f32,
    /// Metres of the longest wave of the grain.
    pub wavelength: f32,
    /// Amplitude of the grain, relative to the colour.
    pub grain: f32,
    /// Which persistence the grain has.
    pub tone: usize,
    /// Cosine and sine of the turn of the pattern on the surface.
    pub turn: (f32, f32),
    pub seed: u32,
    /// Share of the colour that glows whatever the light.
    pub glow: f32,
}

impl Material {
    /// Linear albedo at `(u, v)` metres on the surface for a pixel that covers `footprint` metres.
    pub fn albedo(&self, u: f32, v: f32, footprint: f32) -> V3 {
        let (c, s) = self.turn;
        let (u, v) = (c * u - s * v, s * u + c * v);
        let grain = fractal(u, v, self.wavelength, self.tone, footprint, self.seed);
        let tone = (1.0 + self.grain * grain).max(0.08);
        let (x, y, w) = (u / self.period, v / self.period, footprint / self.period);
        self.pattern_colour(x, y, w, grain) * tone
    }

    fn pattern_colour(&self, x: f32, y: f32, w: f32, grain: f32) -> V3 {
        let [a, b, c] = self.colours;
        match self.pattern {
            Pattern::Plain => a,
            Pattern::Clouds => {
                let n = fractal(x, y, 1.0, self.tone, w, self.seed ^ 0xA5A5);
                let m = (0.5 + 0.9 * n).clamp(0.0, 1.0);
                a.mix(b, m).mix(c, ((grain - 0.35) * 3.0).clamp(0.0, 1.0))
            }
            Pattern::Checks => {
                let (p, q) = (
                    2.0 * pulse(x * 0.5, 0.5, w * 0.5) - 1.0,
                    2.0 * pulse(y * 0.5, 0.5, w * 0.5) - 1.0,
                );
                a.mix(b, 0.5 + 0.5 * p * q)
            }
            Pattern::Tiles => {
                let joint = 1.0 - pulse(x, 0.95, w) * pulse(y, 0.95, w);
                let jitter = hash_unit(floor(x), floor(y), self.seed) - 0.5;
                (a * (1.0 + 0.35 * jitter * resolved(w))).mix(b, joint)
            }
            Pattern::Stripes => {
                let broad = pulse(x, 0.45, w);
                a.mix(b, broad).mix(c, pulse(x + 0.2, 0.08, w))
            }
            Pattern::Wood => {
                let row = floor(y);
                let shift = hash_unit(row, 3, self.seed) * 8.0;
                let plank = hash_unit(row, floor(x * 0.12 + shift), self.seed);
                let fade = resolved(w);
                // Grain lines: noise stretched along the plank.
                let line = fractal(x * 0.12 + shift, y * 1.7, 1.0, 1, w * 0.9, self.seed ^ 0x77);
                let joint =
                    (1.0 - pulse(y, 0.97, w)) + (1.0 - pulse(x * 0.12 + shift, 0.995, w * 0.12));
                let tone = 1.0 + 0.4 * (plank - 0.5) * fade;
                (a.mix(b, (0.5 + 0.7 * line).clamp(0.0, 1.0)) * tone).mix(c, (joint * 0.8).min(1.0))
            }
            Pattern::Brick => {
                let row = floor(y * 3.0);
                let bx = x + 0.5 * (row & 1) as f32;
                let joint = 1.0 - pulse(bx, 0.95, w) * pulse(y * 3.0, 0.86, w * 3.0);
                let jitter = hash_unit(floor(bx), row, self.seed);
                (a.mix(b, jitter * resolved(w * 1.5)) * (0.85 + 0.3 * jitter)).mix(c, joint)
            }
            Pattern::Text => self.text(x, y, w),
            Pattern::Mosaic => {
                let row = floor(y);
                let stretch = 0.6 + 0.8 * hash_unit(row, 11, self.seed);
                let cell = floor(x * stretch);
                let pick = hash_unit(cell, row, self.seed);
                let base = if pick < 0.4 {
                    a
                } else if pick < 0.75 {
                    b
                } else {
                    c
                };
                let tone = 0.6 + 0.8 * hash_unit(cell, row, self.seed ^ 0x33);
                let mean = (a + b + c) * (1.0 / 3.0);
                mean.mix(base * tone, resolved(w * 0.7))
            }
            Pattern::Spines => self.spines(x, y, w),
            Pattern::Dots => {
                let (cx, cy) = (floor(x), floor(y));
                let (dx, dy) = (x - cx as f32 - 0.5, y - cy as f32 - 0.5);
                let radius = 0.2 + 0.22 * hash_unit(cx, cy, self.seed);
                let inside =
                    ((radius - (dx * dx + dy * dy).sqrt()) / w.max(0.02) + 0.5).clamp(0.0, 1.0);
                let colour = if hash(cx, cy, self.seed) & 8 == 0 {
                    b
                } else {
                    c
                };
                a.mix(colour, 0.3 + (inside - 0.3) * resolved(w))
            }
        }
    }

    /// A printed page: lines of words, with headings and pictures in coarse blocks.
    fn text(&self, x: f32, y: f32, w: f32) -> V3 {
        let [paper, ink, picture] = self.colours;
        let block = hash(floor(x * 0.09), floor(y * 0.14), self.seed ^ 0x99);
        if block & 7 < 2 {
            let n = fractal(x, y, 5.0, 1, w, self.seed ^ block);
            return picture.mix(paper, (0.4 + 0.8 * n).clamp(0.0, 1.0));
        }
        let scale = if block & 7 == 2 { 0.4 } else { 1.0 };
        let (x, y, w) = (x * scale, y * scale, w * scale);
        let row = floor(y);
        let word = hash_unit(floor(x * 0.45 + 0.37 * (row & 7) as f32), row, self.seed);
        let letter = 0.55
            + 0.9 * (hash_unit(floor(x * 2.5), row, self.seed ^ 0x21) - 0.5) * resolved(w * 2.5);
        let written = if word < 0.8 { letter } else { 0.0 };
        let mean = 0.42;
        let line = pulse(y, 0.55, w);
        paper.mix(
            ink,
            (line * (mean + (written - mean) * resolved(w * 0.7)) * 1.3).clamp(0.0, 1.0),
        )
    }

    /// Book spines on shelves.
    fn spines(&self, x: f32, y: f32, w: f32) -> V3 {
        let [a, b, board] = self.colours;
        let shelf = floor(y * 0.125);
        let within = y * 0.125 - shelf as f32;
        let cell = floor(x);
        let book = if hash(cell, shelf, self.seed) & 3 == 0 {
            cell - 1
        } else {
            cell
        };
        let pick = hash(book, shelf, self.seed ^ 0x55);
        let unit = |shift: u32| ((pick >> shift) & 255) as f32 / 255.0;
        let dye = v3(
            0.15 + 0.85 * unit(0),
            0.15 + 0.85 * unit(8),
            0.15 + 0.85 * unit(16),
        );
        let spine = a.mix(b, unit(4)).times(dye) * (0.5 + unit(12));
        let title = if within > 0.45 && within < 0.6 && pick & 4 == 0 {
            0.5
        } else {
            0.0
        };
        let spine = spine.mix(v3(0.7, 0.68, 0.6), title * resolved(w));
        let mean = (a + b) * 0.28;
        let gap = 1.0 - pulse(y * 0.125, 0.72 + 0.16 * unit(20), w * 0.125);
        mean.mix(spine, resolved(w * 0.7))
            .mix(board * 0.35, gap)
            .mix(board, 1.0 - pulse(y * 0.125 + 0.07, 0.93, w * 0.125))
    }
}

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
            let value = if draw.chance(0.2) {
                draw.range32(0.3, 0.6)
            } else {
                draw.range32(0.65, 0.97)
            };
            (draw.range32(0.0, 6.0), draw.range32(0.0, 0.28), value)
        }
        Dye::Vivid => (
            draw.range32(0.0, 6.0),
            draw.range32(0.25, 0.95),
            draw.range32(0.25, 0.98),
        ),
        Dye::Wood => (
            draw.range32(0.3, 0.75),
            draw.range32(0.3, 0.72),
            draw.range32(0.28, 0.85),
        ),
        Dye::Neutral => (
            draw.range32(0.0, 6.0),
            draw.range32(0.0, 0.1),
            draw.range32(0.08, 0.97),
        ),
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
        use Pattern::{
            Brick, Checks, Clouds, Dots, Mosaic, Plain, Spines, Stripes, Text, Tiles, Wood,
        };
        let (patterns, dyes): (&[Pattern], &[Dye]) = match role {
            Role::Wall => (
                &[
                    Plain, Plain, Plain, Clouds, Clouds, Stripes, Brick, Tiles, Wood,
                ],
                &[Dye::Pale],
            ),
            Role::Floor => (
                &[Wood, Wood, Tiles, Tiles, Checks, Clouds, Plain, Mosaic],
                &[Dye::Wood, Dye::Neutral, Dye::Pale],
            ),
            Role::Ceiling => (&[Plain, Plain, Tiles, Clouds], &[Dye::Pale]),
            Role::Table => (
                &[
                    Wood, Wood, Wood, Clouds, Plain, Checks, Tiles, Stripes, Dots,
                ],
                &[Dye::Wood, Dye::Wood, Dye::Neutral, Dye::Pale, Dye::Vivid],
            ),
            Role::Thing(_) => (
                &[
                    Plain, Clouds, Clouds, Checks, Stripes, Text, Text, Mosaic, Mosaic, Dots, Wood,
                    Tiles,
                ],
                &[Dye::Vivid, Dye::Vivid, Dye::Neutral, Dye::Wood, Dye::Pale],
            ),
            Role::Poster(_) => (
                &[
                    Clouds, Clouds, Text, Text, Mosaic, Mosaic, Stripes, Dots, Checks,
                ],
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
        if matches!(pattern, Wood)
            && matches!(
                role,
                Role::Table | Role::Floor | Role::WoodPanel | Role::Thing(_)
            )
        {
            colours = [
                colour(draw, Dye::Wood),
                colour(draw, Dye::Wood),
                v3(0.03, 0.02, 0.015),
            ];
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
            Role::Thing(size) | Role::Poster(size) => {
                (size * draw.range32(0.4, 1.2), draw.range32(0.1, 0.55))
            }
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
        let upright = matches!(
            role,
            Role::Wall | Role::Ceiling | Role::Bookshelf | Role::WoodPanel | Role::Window
        );
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
