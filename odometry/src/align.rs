//! Where a patch of one picture is in another, to a few hundredths of a pixel.
//!
//! Inverse-compositional alignment of a translation with gain and offset (Baker and Matthews, "Lucas-Kanade 20 years
//! on", IJCV 2004; part 3, section 2.3, for appearance projected out). The patch's gradients are made orthogonal to a
//! constant and to the patch itself; what a step needs of the other picture is then three sums of products with
//! it, whatever its gain and offset. Fixed lanes and no fused operations: the same bits on every processor.

use nalgebra::{Matrix2, Point2, Vector2};

use crate::picture::{Level, PAD, Picture};

/// Side of a patch, pixels of its level.
pub(crate) const SIDE: usize = 16;
/// Pixels of a patch.
const AREA: usize = SIDE * SIDE;
/// Steps on a level.
const STEPS: usize = 10;
/// A step shorter than this, pixels of the level, is the last one: on the finest level, on the others.
const FINE_STEP: f32 = 0.01;
const COARSE_STEP: f32 = 0.1;
/// Farthest that a level may move what the level above it found, pixels of the level.
const REACH: f32 = 8.0;
/// Least contrast of the other picture over the patch's own.
const LEAST_GAIN: f32 = 0.2;
/// Least deviation of a patch, grey levels of 255: below, it is noise.
const LEAST_DEVIATION: f32 = 1.0;

/// A patch on one level, prepared to be found.
#[derive(Clone)]
struct Template {
    /// Grey values without their mean.
    values: [f32; AREA],
    /// Gradients, orthogonal to a constant and to `values`.
    along_x: [f32; AREA],
    along_y: [f32; AREA],
    /// Inverse of the gradients' 2 x 2 matrix: xx, xy, yy.
    inverse: [f32; 3],
    /// Sum of squares of `values`.
    energy: f32,
}

/// A point's patches on the levels of a picture, the finest first; `None` where a level shows nothing there.
pub(crate) struct Patch {
    levels: Vec<Option<Template>>,
}

/// Where a patch was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Found {
    /// Pixel of the finest level.
    pub at: Point2<f32>,
    /// Normalised cross-correlation on the finest level that was used.
    pub correlation: f32,
}

/// Bilinear weights of a place, and its whole pixel.
#[inline(always)]
fn split(value: f32) -> (isize, f32) {
    let whole = value.floor();
    (whole as isize, value - whole)
}

/// Lanes that sums are kept in: their number fixes the order of additions, and with it the last bits.
const LANES: usize = 16;

/// Weights of a patch's pixels along one side: a Gaussian, so that what only just enters a patch moves nothing.
const fn weights() -> [f32; AREA] {
    // exp(-x^2 / (2 * 4.5^2)) at 0.5, 1.5, ... 7.5 pixels from the centre.
    const SIDEWAYS: [f32; SIDE / 2] = [0.993846, 0.945959, 0.856997, 0.738991, 0.606531, 0.473827, 0.352322, 0.249352];
    let mut out = [0.0; AREA];
    let mut k = 0;
    while k < AREA {
        let (r, c) = (k / SIDE, k % SIDE);
        let (r, c) = (
            if r < SIDE / 2 { SIDE / 2 - 1 - r } else { r - SIDE / 2 },
            if c < SIDE / 2 { SIDE / 2 - 1 - c } else { c - SIDE / 2 },
        );
        out[k] = SIDEWAYS[r] * SIDEWAYS[c];
        k += 1;
    }
    out
}

/// Their sum.
const WEIGHT_SUM: f32 = 108.9028;

static WEIGHT: [f32; AREA] = weights();

/// The sum of products of two lists of pixels.
#[inline(always)]
fn dot(a: &[f32; AREA], b: &[f32; AREA]) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    for (a, b) in a.chunks_exact(LANES).zip(b.chunks_exact(LANES)) {
        for k in 0..LANES {
            lanes[k] += a[k] * b[k];
        }
    }
    lanes.iter().sum()
}

/// The weighted sum of squares.
#[inline(always)]
fn weighted_square(a: &[f32; AREA]) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    for (a, w) in a.chunks_exact(LANES).zip(WEIGHT.chunks_exact(LANES)) {
        for k in 0..LANES {
            lanes[k] += a[k] * a[k] * w[k];
        }
    }
    lanes.iter().sum()
}

// Functions and not closures: those would not be compiled for wider registers.

/// `W` pixels of a row from `column` on, blended with their neighbours.
#[inline(always)]
fn blended<const W: usize>(level: &Level, y: isize, column: usize, share: f32) -> [f32; W] {
    let pixels = &level.row(y)[column..column + W + 1];
    let mut out = [0.0_f32; W];
    for k in 0..W {
        let (a, b) = (f32::from(pixels[k]), f32::from(pixels[k + 1]));
        out[k] = a + share * (b - a);
    }
    out
}

/// The patch of a level around a place, bilinear, of `W` by `W` pixels.
#[inline(always)]
fn sample<const W: usize>(level: &Level, x: f32, y: f32) -> [[f32; W]; W] {
    let half = (W as f32 - 1.0) / 2.0;
    let ((x, share_x), (y, share_y)) = (split(x - half), split(y - half));
    let column = (x + PAD as isize) as usize;
    let mut out = [[0.0_f32; W]; W];
    let mut above: [f32; W] = blended(level, y, column, share_x);
    for (r, out) in out.iter_mut().enumerate() {
        let below: [f32; W] = blended(level, y + r as isize + 1, column, share_x);
        for c in 0..W {
            out[c] = above[c] + share_y * (below[c] - above[c]);
        }
        above = below;
    }
    out
}

#[inline(always)]
fn flat(rows: &[[f32; SIDE]; SIDE]) -> &[f32; AREA] {
    // The same numbers in the same order.
    rows.as_flattened().first_chunk().unwrap_or(&WEIGHT)
}

/// Side of a patch with the pixel more on each side that its gradients take.
const WIDE: usize = SIDE + 2;

/// The patch that another picture will show: each of its pixels is taken from `level` at `at` plus `source_from_target`
/// times its offset. Places are of `level`.
#[inline(always)]
fn warped(level: &Level, at: Point2<f32>, source_from_target: &Matrix2<f32>) -> [[f32; WIDE]; WIDE] {
    let half = (WIDE as f32 - 1.0) / 2.0;
    let (low, high_x, high_y) = (1.0 - PAD as f32, (level.width + PAD - 3) as f32, (level.height + PAD - 3) as f32);
    let mut out = [[0.0_f32; WIDE]; WIDE];
    for (r, out) in out.iter_mut().enumerate() {
        for (c, out) in out.iter_mut().enumerate() {
            let place = at + source_from_target * Vector2::new(c as f32 - half, r as f32 - half);
            let ((x, share_x), (y, share_y)) = (split(place.x.clamp(low, high_x)), split(place.y.clamp(low, high_y)));
            let column = (x + PAD as isize) as usize;
            let ([above], [below]) = (blended(level, y, column, share_x), blended(level, y + 1, column, share_x));
            *out = above + share_y * (below - above);
        }
    }
    out
}

#[inline(always)]
fn weighted(list: &[f32; AREA]) -> [f32; AREA] {
    let mut out = *list;
    for (out, weight) in out.iter_mut().zip(&WEIGHT) {
        *out *= weight;
    }
    out
}

impl Template {
    #[inline(always)]
    fn new(level: &Level, x: f32, y: f32) -> Option<Self> {
        Self::of(&sample(level, x, y))
    }

    #[inline(always)]
    fn of(wide: &[[f32; WIDE]; WIDE]) -> Option<Self> {
        let (mut values, mut along_x, mut along_y) = ([0.0_f32; AREA], [0.0_f32; AREA], [0.0_f32; AREA]);
        for r in 0..SIDE {
            for c in 0..SIDE {
                let k = r * SIDE + c;
                values[k] = wide[r + 1][c + 1];
                along_x[k] = 0.5 * (wide[r + 1][c + 2] - wide[r + 1][c]);
                along_y[k] = 0.5 * (wide[r + 2][c + 1] - wide[r][c + 1]);
            }
        }
        let total: f32 = WEIGHT_SUM;
        for list in [&mut values, &mut along_x, &mut along_y] {
            let mean = dot(list, &WEIGHT) / total;
            for value in list.iter_mut() {
                *value -= mean;
            }
        }
        let weighted_values = weighted(&values);
        let energy = dot(&values, &weighted_values);
        if energy < total * LEAST_DEVIATION * LEAST_DEVIATION {
            return None;
        }
        for list in [&mut along_x, &mut along_y] {
            let share = dot(list, &weighted_values) / energy;
            for (out, value) in list.iter_mut().zip(&values) {
                *out -= share * value;
            }
        }
        let (weighted_x, weighted_y) = (weighted(&along_x), weighted(&along_y));
        let (xx, xy, yy) = (dot(&along_x, &weighted_x), dot(&along_x, &weighted_y), dot(&along_y, &weighted_y));
        let determinant = xx * yy - xy * xy;
        // A straight edge has no second direction.
        if determinant <= 1e-4 * (xx + yy) * (xx + yy) {
            return None;
        }
        let inverse = [yy / determinant, -xy / determinant, xx / determinant];
        Some(Self { values: weighted_values, along_x: weighted_x, along_y: weighted_y, inverse, energy })
    }

    /// Normalised cross-correlation with another patch; `own` is its product with this one.
    #[inline(always)]
    fn correlation(&self, other: &[f32; AREA], own: f32) -> f32 {
        let sum = dot(other, &WEIGHT);
        let variance = weighted_square(other) - sum * sum / WEIGHT_SUM;
        own / (self.energy * variance.max(1e-6)).sqrt()
    }

    /// From a place near it to the patch's place on a level; `None` where it does not come to rest.
    #[inline(always)]
    fn find(&self, level: &Level, start: (f32, f32), last_step: f32) -> Option<(f32, f32, f32)> {
        let (mut x, mut y) = start;
        for step in 0..STEPS {
            if !level.contains(x, y) {
                return None;
            }
            let other: [[f32; SIDE]; SIDE] = sample(level, x, y);
            let other = flat(&other);
            let own = dot(&self.values, other);
            let (sum_x, sum_y) = (dot(&self.along_x, other), dot(&self.along_y, other));
            let gain = own / self.energy;
            if gain.is_nan() || gain <= LEAST_GAIN {
                return None;
            }
            let dx = -(self.inverse[0] * sum_x + self.inverse[1] * sum_y) / gain;
            let dy = -(self.inverse[1] * sum_x + self.inverse[2] * sum_y) / gain;
            // A step of a patch's half is a guess, no measurement.
            let (dx, dy) = (dx.clamp(-3.0, 3.0), dy.clamp(-3.0, 3.0));
            x += dx;
            y += dy;
            if (x - start.0).abs().max((y - start.1).abs()) > REACH {
                return None;
            }
            if dx * dx + dy * dy < last_step * last_step || step + 1 == STEPS {
                return level.contains(x, y).then_some((x, y, self.correlation(other, own)));
            }
        }
        None
    }
}

/// Pixel of a level of a pixel of the finest one: centres of pixels are whole numbers on each.
#[inline(always)]
pub(crate) fn down(value: f32, level: usize) -> f32 {
    (value + 0.5) / (1_u32 << level) as f32 - 0.5
}

#[inline(always)]
pub(crate) fn up(value: f32, level: usize) -> f32 {
    (value + 0.5) * (1_u32 << level) as f32 - 0.5
}

impl Patch {
    #[inline(always)]
    fn prepare(picture: &Picture, at: Point2<f32>, levels: usize) -> Self {
        let count = picture.levels().len().min(levels);
        let mut prepared = Vec::with_capacity(count);
        // A loop and no closure, which would not be compiled for wider registers.
        for (index, level) in picture.levels()[..count].iter().enumerate() {
            prepared.push(Template::new(level, down(at.x, index), down(at.y, index)));
        }
        Self { levels: prepared }
    }

    #[inline(always)]
    fn seek(&self, picture: &Picture, guess: Point2<f32>, coarsest: usize) -> Option<Found> {
        let mut at = guess;
        let mut found = None;
        for index in (0..self.levels.len().min(picture.levels().len()).min(coarsest.saturating_add(1))).rev() {
            let level = &picture.levels()[index];
            let Some(template) = &self.levels[index] else {
                // A level that shows nothing here decides nothing; without the finest there is no sub-pixel.
                if index == 0 {
                    return None;
                }
                continue;
            };
            let last_step = if index == 0 { FINE_STEP } else { COARSE_STEP };
            match template.find(level, (down(at.x, index), down(at.y, index)), last_step) {
                Some((x, y, correlation)) => {
                    at = Point2::new(up(x, index), up(y, index));
                    found = Some(Found { at, correlation });
                }
                None if index == 0 => return None,
                // What a coarse level cannot follow, a finer one may from where it was.
                None => (),
            }
        }
        found
    }

    /// The patches of a point on the first `levels` levels; the point must be on the picture.
    pub fn new(picture: &Picture, at: Point2<f32>, levels: usize) -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            #[target_feature(enable = "avx2")]
            fn wide(picture: &Picture, at: Point2<f32>, levels: usize) -> Patch {
                Patch::prepare(picture, at, levels)
            }
            if std::arch::is_x86_feature_detected!("avx2") {
                // SAFETY: the processor was asked for it.
                #[expect(unsafe_code, reason = "the same code for wider registers")]
                return unsafe { wide(picture, at, levels) };
            }
        }
        Self::prepare(picture, at, levels)
    }

    /// The patch as another picture shows it, on the finest `levels` levels of that one: `target_from_source` takes small
    /// offsets from the point to offsets there. `None` where the change of shape is too large to be told.
    pub fn warped(
        picture: &Picture,
        at: Point2<f32>,
        target_from_source: &Matrix2<f32>,
        levels: usize,
    ) -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        {
            #[target_feature(enable = "avx2")]
            fn wide(picture: &Picture, at: Point2<f32>, shape: &Matrix2<f32>, levels: usize) -> Option<Patch> {
                Patch::prepare_warped(picture, at, shape, levels)
            }
            if std::arch::is_x86_feature_detected!("avx2") {
                // SAFETY: the processor was asked for it.
                #[expect(unsafe_code, reason = "the same code for wider registers")]
                return unsafe { wide(picture, at, target_from_source, levels) };
            }
        }
        Self::prepare_warped(picture, at, target_from_source, levels)
    }

    #[inline(always)]
    fn prepare_warped(
        picture: &Picture,
        at: Point2<f32>,
        target_from_source: &Matrix2<f32>,
        levels: usize,
    ) -> Option<Self> {
        let source_from_target = target_from_source.try_inverse()?;
        // Where the other picture shows it smaller, it is taken from a coarser level, as a camera would have averaged it.
        let smaller = source_from_target.determinant().abs().sqrt();
        if !(0.2..5.0).contains(&smaller) {
            return None;
        }
        let coarser = smaller.log2().round().max(0.0) as usize;
        let mut prepared = Vec::with_capacity(levels);
        for index in 0..levels {
            let source = (index + coarser).min(picture.levels().len() - 1);
            let step = (1_u32 << index) as f32 / (1_u32 << source) as f32;
            let place = Point2::new(down(at.x, source), down(at.y, source));
            prepared.push(Template::of(&warped(&picture.levels()[source], place, &(source_from_target * step))));
        }
        Some(Self { levels: prepared })
    }

    /// Where the point is in another picture, from the coarsest of the levels on to the finest, starting at a guess.
    pub fn find(&self, picture: &Picture, guess: Point2<f32>, coarsest: usize) -> Option<Found> {
        #[cfg(target_arch = "x86_64")]
        {
            #[target_feature(enable = "avx2")]
            fn wide(patch: &Patch, picture: &Picture, guess: Point2<f32>, coarsest: usize) -> Option<Found> {
                patch.seek(picture, guess, coarsest)
            }
            if std::arch::is_x86_feature_detected!("avx2") {
                // SAFETY: the processor was asked for it.
                #[expect(unsafe_code, reason = "the same code for wider registers")]
                return unsafe { wide(self, picture, guess, coarsest) };
            }
        }
        self.seek(picture, guess, coarsest)
    }
}
