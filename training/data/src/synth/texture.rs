//! Procedural surface colours, band-limited by the size of a pixel on the surface: an octave or a pattern that a pixel
//! cannot resolve fades into its mean, so that one sample a pixel is enough inside a surface.

use super::noise::{floor, fractal, hash, hash_unit, pulse, resolved};
use super::vec3::{V3, high, v3};

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
        let tone = high(1.0 + self.grain * grain, 0.08);
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
                let (p, q) = (2.0 * pulse(x * 0.5, 0.5, w * 0.5) - 1.0, 2.0 * pulse(y * 0.5, 0.5, w * 0.5) - 1.0);
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
                let joint = (1.0 - pulse(y, 0.97, w)) + (1.0 - pulse(x * 0.12 + shift, 0.995, w * 0.12));
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
                let inside = ((radius - (dx * dx + dy * dy).sqrt()) / w.max(0.02) + 0.5).clamp(0.0, 1.0);
                let colour = if hash(cx, cy, self.seed) & 8 == 0 { b } else { c };
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
        let letter = 0.55 + 0.9 * (hash_unit(floor(x * 2.5), row, self.seed ^ 0x21) - 0.5) * resolved(w * 2.5);
        let written = if word < 0.8 { letter } else { 0.0 };
        let mean = 0.42;
        let line = pulse(y, 0.55, w);
        paper.mix(ink, (line * (mean + (written - mean) * resolved(w * 0.7)) * 1.3).clamp(0.0, 1.0))
    }

    /// Book spines on shelves.
    fn spines(&self, x: f32, y: f32, w: f32) -> V3 {
        let [a, b, board] = self.colours;
        let shelf = floor(y * 0.125);
        let within = y * 0.125 - shelf as f32;
        let cell = floor(x);
        let book = if hash(cell, shelf, self.seed) & 3 == 0 { cell - 1 } else { cell };
        let pick = hash(book, shelf, self.seed ^ 0x55);
        let unit = |shift: u32| ((pick >> shift) & 255) as f32 / 255.0;
        let dye = v3(0.15 + 0.85 * unit(0), 0.15 + 0.85 * unit(8), 0.15 + 0.85 * unit(16));
        let spine = a.mix(b, unit(4)).times(dye) * (0.5 + unit(12));
        let title = if within > 0.45 && within < 0.6 && pick & 4 == 0 { 0.5 } else { 0.0 };
        let spine = spine.mix(v3(0.7, 0.68, 0.6), title * resolved(w));
        let mean = (a + b) * 0.28;
        let gap = 1.0 - pulse(y * 0.125, 0.72 + 0.16 * unit(20), w * 0.125);
        mean.mix(spine, resolved(w * 0.7))
            .mix(board * 0.35, gap)
            .mix(board, 1.0 - pulse(y * 0.125 + 0.07, 0.93, w * 0.125))
    }
}
