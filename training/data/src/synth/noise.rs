//! Hashes, baked fractal noise and square waves that know the size of a pixel.

use super::vec3::{high, low};
use std::sync::OnceLock;

pub(super) fn hash(x: i32, y: i32, seed: u32) -> u32 {
    let mut h = (x as u32).wrapping_mul(0x9E37_79B1) ^ (y as u32).wrapping_mul(0x85EB_CA77) ^ seed;
    h = (h ^ (h >> 15)).wrapping_mul(0x2C1B_3C6D);
    h = (h ^ (h >> 12)).wrapping_mul(0x297A_2D39);
    h ^ (h >> 15)
}

/// In [0, 1).
pub(super) fn hash_unit(x: i32, y: i32, seed: u32) -> f32 {
    (hash(x, y, seed) >> 8) as f32 / 16_777_216.0
}

/// `floor` without the call into the C library that the baseline x86-64 target makes of it.
pub(super) fn floor(x: f32) -> i32 {
    let i = x as i32;
    i - i32::from((i as f32) > x)
}

/// Value noise with a period of `lattice` cells, [-1, 1].
fn value_noise(x: f32, y: f32, lattice: i32, seed: u32) -> f32 {
    let (ix, iy) = (floor(x), floor(y));
    let (fx, fy) = (x - ix as f32, y - iy as f32);
    let (sx, sy) = (fx * fx * (3.0 - 2.0 * fx), fy * fy * (3.0 - 2.0 * fy));
    let corner = |dx: i32, dy: i32| hash_unit((ix + dx) % lattice, (iy + dy) % lattice, seed) * 2.0 - 1.0;
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
                let (x, y) = ((at % SIDE) as f32 / wave as f32, (at / SIDE) as f32 / wave as f32);
                *texel += gain * value_noise(x, y, (SIDE / wave) as i32, seed);
            }
            wave /= 2;
            gain *= persistence;
        }
        let mut levels = Vec::with_capacity(LEVELS);
        for k in 0..LEVELS {
            let side = SIDE >> k;
            levels.push(level.iter().map(|x| (x.clamp(-1.0, 1.0) * 127.0) as i8).collect());
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
        let (y0, y1) = ((iy as usize & mask) * side, (iy.wrapping_add(1) as usize & mask) * side);
        let at = |i: usize| f32::from(texels[i]);
        let top = at(y0 + x0) + (at(y0 + x1) - at(y0 + x0)) * fx;
        let bottom = at(y1 + x0) + (at(y1 + x1) - at(y1 + x0)) * fx;
        top + (bottom - top) * fy
    }
}

/// Fractal noise, about [-1, 1], with its longest wave at `wavelength` and all that `footprint` (same unit) cannot
/// resolve averaged away. `tone` picks the persistence.
pub(super) fn fractal(u: f32, v: f32, wavelength: f32, tone: usize, footprint: f32, seed: u32) -> f32 {
    let scale = WAVE as f32 / wavelength;
    // The logarithm to base two from the exponent and, linearly, the mantissa: at most 0.09 off.
    let bits = (footprint * scale).clamp(1.0, 512.0).to_bits();
    let level = (bits >> 23) as usize - 127;
    let share = (bits & 0x007F_FFFF) as f32 / 8_388_608.0;
    if level + 1 >= LEVELS {
        return 0.0;
    }
    let tile = &baked()[tone % 3];
    let (x, y) = (u * scale + (seed & 511) as f32, v * scale + (seed >> 9 & 511) as f32);
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
pub(super) fn pulse(x: f32, duty: f32, w: f32) -> f32 {
    let w = high(w, 1e-3);
    let integral = |x: f32| {
        let i = floor(x) as f32;
        i * duty + low(x - i, duty)
    };
    (integral(x + 0.5 * w) - integral(x - 0.5 * w)) / w
}

/// 1 where a pattern of period 1 is resolved by a footprint of `w` periods, 0 where it is not.
pub(super) fn resolved(w: f32) -> f32 {
    (1.4 - 2.0 * w).clamp(0.0, 1.0)
}
