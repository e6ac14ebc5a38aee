//! Points that are recognised rather than followed: for steps that no prediction foresees.
//!
//! Corners on five scales with a dominant direction and a histogram of gradients around them (Lowe, "Distinctive image
//! features from scale-invariant keypoints", IJCV 2004, sections 5 and 6), compared by the Hellinger distance (Arandjelovic
//! and Zisserman, CVPR 2012). Places are those of corners, so they are coarse: alignment refines them.

use std::f32::consts::TAU;

use nalgebra::Point2;

use crate::Error;
use crate::corners::corners;
use crate::picture::Picture;

/// Corners on each scale, from the picture's own on.
const COUNTS: [usize; 5] = [500, 350, 250, 150, 100];
/// Numbers of a descriptor: 4 x 4 cells of 8 directions.
const LENGTH: usize = 128;
/// Pixels from one sample to the next of the 16 x 16 around a corner.
const SPACING: f32 = 1.25;
/// Bins that the dominant direction is read off.
const DIRECTIONS: usize = 36;
/// Largest ratio of the distance of the best match to that of the next best.
const RATIO: f32 = 0.8;
/// Shortest side, pixels, of a scale.
const SHORTEST: usize = 48;

/// Recognisable points of a picture.
#[derive(Clone, Debug, Default)]
pub(crate) struct Features {
    /// Pixels of the working grid.
    pub at: Vec<Point2<f32>>,
    descriptors: Vec<[f32; LENGTH]>,
}

/// A smoothed grey image.
struct Smooth {
    width: usize,
    height: usize,
    values: Vec<f32>,
}

impl Smooth {
    fn new(picture: &Picture) -> Self {
        let level = &picture.levels()[0];
        let (width, height) = (level.width, level.height);
        let mut values = vec![0.0; width * height];
        let pad = crate::picture::PAD;
        for y in 0..height {
            let rows = [-1, 0, 1].map(|k| level.row(y as isize + k));
            for (x, out) in values[y * width..][..width].iter_mut().enumerate() {
                let sum = |row: &[u8]| {
                    f32::from(row[x + pad - 1]) + 2.0 * f32::from(row[x + pad]) + f32::from(row[x + pad + 1])
                };
                *out = (sum(rows[0]) + 2.0 * sum(rows[1]) + sum(rows[2])) / 16.0;
            }
        }
        Self { width, height, values }
    }

    fn at(&self, x: f32, y: f32) -> f32 {
        let x = x.clamp(0.0, (self.width - 2) as f32);
        let y = y.clamp(0.0, (self.height - 2) as f32);
        let (column, row) = (x as usize, y as usize);
        let (share_x, share_y) = (x - column as f32, y - row as f32);
        let k = row * self.width + column;
        let above = self.values[k] + share_x * (self.values[k + 1] - self.values[k]);
        let k = k + self.width;
        let below = self.values[k] + share_x * (self.values[k + 1] - self.values[k]);
        above + share_y * (below - above)
    }

    /// The direction of most of the gradients around a place, radians.
    fn direction(&self, at: Point2<f32>) -> f32 {
        let mut bins = [0.0_f32; DIRECTIONS];
        for r in -8..=8_i32 {
            for c in -8..=8_i32 {
                let square = (r * r + c * c) as f32;
                if square > 72.0 {
                    continue;
                }
                let (x, y) = (at.x + c as f32, at.y + r as f32);
                let gx = self.at(x + 1.0, y) - self.at(x - 1.0, y);
                let gy = self.at(x, y + 1.0) - self.at(x, y - 1.0);
                let weight = (-square / 40.0).exp() * gx.hypot(gy);
                let bin = gy.atan2(gx).rem_euclid(TAU) / TAU * DIRECTIONS as f32;
                let (low, share) = (bin.floor(), bin - bin.floor());
                bins[low as usize % DIRECTIONS] += weight * (1.0 - share);
                bins[(low as usize + 1) % DIRECTIONS] += weight * share;
            }
        }
        let smooth: Vec<f32> = (0..DIRECTIONS)
            .map(|k| {
                let near = |d: usize| bins[(k + d) % DIRECTIONS] + bins[(k + DIRECTIONS - d) % DIRECTIONS];
                6.0 * bins[k] + 4.0 * near(1) + near(2)
            })
            .collect();
        let mut best = 0;
        for (k, value) in smooth.iter().enumerate() {
            if *value > smooth[best] {
                best = k;
            }
        }
        let (a, b, c) = (smooth[(best + DIRECTIONS - 1) % DIRECTIONS], smooth[best], smooth[(best + 1) % DIRECTIONS]);
        let curve = a - 2.0 * b + c;
        let shift = if curve.abs() > 1e-9 { 0.5 * (a - c) / curve } else { 0.0 };
        (best as f32 + shift) / DIRECTIONS as f32 * TAU
    }

    fn descriptor(&self, at: Point2<f32>) -> [f32; LENGTH] {
        let (sine, cosine) = self.direction(at).sin_cos();
        let mut samples = [[0.0_f32; 18]; 18];
        for (r, row) in samples.iter_mut().enumerate() {
            for (c, out) in row.iter_mut().enumerate() {
                let (x, y) = ((c as f32 - 8.5) * SPACING, (r as f32 - 8.5) * SPACING);
                *out = self.at(at.x + cosine * x - sine * y, at.y + sine * x + cosine * y);
            }
        }
        let mut out = [0.0_f32; LENGTH];
        for r in 0..16 {
            for c in 0..16 {
                let gx = samples[r + 1][c + 2] - samples[r + 1][c];
                let gy = samples[r + 2][c + 1] - samples[r][c + 1];
                let (x, y) = (c as f32 - 7.5, r as f32 - 7.5);
                let weight = (-(x * x + y * y) / 128.0).exp() * gx.hypot(gy);
                // Each gradient goes to two rows, two columns and two directions of cells.
                let bin = gy.atan2(gx).rem_euclid(TAU) / TAU * 8.0;
                let (column, row) = (x / 4.0 + 1.5, y / 4.0 + 1.5);
                let (bin_low, column_low, row_low) = (bin.floor(), column.floor(), row.floor());
                for (dr, wr) in [(0.0, 1.0 - (row - row_low)), (1.0, row - row_low)] {
                    for (dc, wc) in [(0.0, 1.0 - (column - column_low)), (1.0, column - column_low)] {
                        let (cell_r, cell_c) = (row_low + dr, column_low + dc);
                        if !(0.0..=3.0).contains(&cell_r) || !(0.0..=3.0).contains(&cell_c) {
                            continue;
                        }
                        let cell = (cell_r as usize * 4 + cell_c as usize) * 8;
                        let share = bin - bin_low;
                        out[cell + bin_low as usize % 8] += weight * wr * wc * (1.0 - share);
                        out[cell + (bin_low as usize + 1) % 8] += weight * wr * wc * share;
                    }
                }
            }
        }
        let sum: f32 = out.iter().sum();
        out.map(|value| (value / sum.max(1e-6)).sqrt())
    }
}

impl Features {
    /// The recognisable points of a picture.
    ///
    /// # Errors
    /// [`Error::Resize`].
    pub fn new(picture: &Picture) -> Result<Self, Error> {
        let mut features = Self::default();
        let mut scaled: Option<Picture> = None;
        for (step, count) in COUNTS.into_iter().enumerate() {
            let factor = 0.5_f64.powf(0.5 * step as f64);
            if step > 0 {
                let next = picture.smaller(factor)?;
                if next.levels()[0].width.min(next.levels()[0].height) < SHORTEST {
                    break;
                }
                scaled = Some(next);
            }
            let own = scaled.as_ref().unwrap_or(picture);
            let smooth = Smooth::new(own);
            let (sx, sy) = (
                picture.levels()[0].width as f32 / own.levels()[0].width as f32,
                picture.levels()[0].height as f32 / own.levels()[0].height as f32,
            );
            for corner in corners(own, 0, count, &[]) {
                features.at.push(Point2::new((corner.at.x + 0.5) * sx - 0.5, (corner.at.y + 0.5) * sy - 0.5));
                features.descriptors.push(smooth.descriptor(corner.at));
            }
        }
        Ok(features)
    }
}

/// Products of descriptors, which are of unit length.
#[inline(always)]
fn similarity(a: &[f32; LENGTH], b: &[f32; LENGTH]) -> f32 {
    let mut lanes = [0.0_f32; 16];
    for (a, b) in a.chunks_exact(16).zip(b.chunks_exact(16)) {
        for k in 0..16 {
            lanes[k] += a[k] * b[k];
        }
    }
    lanes.iter().sum()
}

#[inline(always)]
fn mutual(a: &Features, b: &Features) -> Vec<(usize, usize)> {
    let (mut best_of_a, mut best_of_b) =
        (vec![(-1.0_f32, -1.0_f32, usize::MAX); a.at.len()], vec![(-1.0_f32, usize::MAX); b.at.len()]);
    for (i, own) in a.descriptors.iter().enumerate() {
        let best = &mut best_of_a[i];
        for (j, other) in b.descriptors.iter().enumerate() {
            let value = similarity(own, other);
            // The same place on two scales is no rival.
            if value > best.0 {
                if best.2 == usize::MAX || (b.at[best.2] - b.at[j]).norm_squared() > 25.0 {
                    best.1 = best.0;
                }
                (best.0, best.2) = (value, j);
            } else if value > best.1 && (b.at[best.2] - b.at[j]).norm_squared() > 25.0 {
                best.1 = value;
            }
            if value > best_of_b[j].0 {
                best_of_b[j] = (value, i);
            }
        }
    }
    let kept = |(i, &(first, second, j)): (usize, &(f32, f32, usize))| {
        let is_mutual = best_of_b.get(j)?.1 == i;
        (is_mutual && 1.0 - first < RATIO * RATIO * (1.0 - second)).then_some((i, j))
    };
    best_of_a.iter().enumerate().filter_map(kept).collect()
}

/// Pairs of points that recognise each other: mutual nearest neighbours that pass the ratio test.
pub(crate) fn matches(a: &Features, b: &Features) -> Vec<(usize, usize)> {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2")]
        fn wide(a: &Features, b: &Features) -> Vec<(usize, usize)> {
            mutual(a, b)
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the processor was asked for it.
            #[expect(unsafe_code, reason = "the same code for wider registers")]
            return unsafe { wide(a, b) };
        }
    }
    mutual(a, b)
}
