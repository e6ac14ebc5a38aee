//! Points that can be found again: corners, spread over the picture.
//!
//! Shi and Tomasi, "Good features to track", CVPR 1994: the smaller eigenvalue of the gradients' matrix around a pixel.

use nalgebra::Point2;

use crate::align::{down, up};
use crate::picture::{Level, PAD, Picture};

/// From a pixel to the end of the square that its gradients are summed over.
const REACH: usize = 3;
const SPAN: usize = 2 * REACH + 1;
/// Least corner strength over that of the picture's strongest.
const QUALITY: f32 = 0.002;
/// Least corner strength, squared grey levels of 255 a pixel summed over the square: that of a step of three grey
/// levels; noise is below.
const LEAST: f32 = 150.0;
/// Pixels at the border without corners.
const MARGIN: usize = 8;

/// Strength of every pixel, row-major; 0 on the margin.
#[inline(always)]
fn strengths(level: &Level, out: &mut Vec<f32>) {
    let (width, height) = (level.width, level.height);
    out.clear();
    out.resize(width * height, 0.0);
    if width <= 2 * MARGIN || height <= 2 * MARGIN {
        return;
    }
    // Products of gradients of the last rows, and their sums down the columns.
    let mut ring: Vec<[Vec<i32>; 3]> = (0..SPAN).map(|_| [vec![0; width], vec![0; width], vec![0; width]]).collect();
    let mut sums = [vec![0_i32; width], vec![0_i32; width], vec![0_i32; width]];
    for y in 0..height {
        let slot = &mut ring[y % SPAN];
        let above = &level.row(y as isize - 1)[PAD..][..width];
        let below = &level.row(y as isize + 1)[PAD..][..width];
        let own = &level.row(y as isize)[PAD - 1..][..width + 2];
        let [xx, xy, yy] = slot;
        let [sum_xx, sum_xy, sum_yy] = &mut sums;
        for x in 0..width {
            let gx = i32::from(own[x + 2]) - i32::from(own[x]);
            let gy = i32::from(below[x]) - i32::from(above[x]);
            let products = [gx * gx, gx * gy, gy * gy];
            sum_xx[x] += products[0] - xx[x];
            sum_xy[x] += products[1] - xy[x];
            sum_yy[x] += products[2] - yy[x];
            xx[x] = products[0];
            xy[x] = products[1];
            yy[x] = products[2];
        }
        let Some(centre) = y.checked_sub(REACH) else { continue };
        if centre < MARGIN || centre >= height - MARGIN {
            continue;
        }
        // Slices of one length, so that no access is checked.
        let columns = width - 2 * MARGIN;
        let line = &mut out[centre * width + MARGIN..][..columns];
        #[inline(always)]
        fn spans(sums: &[i32], columns: usize) -> [&[i32]; SPAN] {
            let mut out: [&[i32]; SPAN] = [sums; SPAN];
            for (k, out) in out.iter_mut().enumerate() {
                *out = &sums[MARGIN - REACH + k..][..columns];
            }
            out
        }
        let (xx, xy, yy) = (spans(&sums[0], columns), spans(&sums[1], columns), spans(&sums[2], columns));
        for x in 0..columns {
            let (mut a, mut b, mut c) = (0, 0, 0);
            for k in 0..SPAN {
                a += xx[k][x];
                b += xy[k][x];
                c += yy[k][x];
            }
            let (a, b, c) = (a as f32, b as f32, c as f32);
            // An eighth: half of the trace and the root, and gradients that were taken over two pixels.
            line[x] = 0.125 * ((a + c) - ((a - c) * (a - c) + 4.0 * b * b).sqrt());
        }
    }
}

/// A corner and its strength.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Corner {
    pub at: Point2<f32>,
    pub strength: f32,
}

/// At most about `count` corners of a level of a picture, in pixels of the finest: the strongest of each cell of a grid
/// first; none within half a cell of a place in `taken`. The order is that of strength, and the same for the same picture.
pub(crate) fn corners(picture: &Picture, level: usize, count: usize, taken: &[Point2<f32>]) -> Vec<Corner> {
    let index = level.min(picture.levels().len() - 1);
    let level = &picture.levels()[index];
    let taken: Vec<Point2<f32>> = taken.iter().map(|at| Point2::new(down(at.x, index), down(at.y, index))).collect();
    let mut strength = Vec::new();
    {
        #[cfg(target_arch = "x86_64")]
        {
            #[target_feature(enable = "avx2")]
            fn wide(level: &Level, out: &mut Vec<f32>) {
                strengths(level, out);
            }
            if std::arch::is_x86_feature_detected!("avx2") {
                // SAFETY: the processor was asked for it.
                #[expect(unsafe_code, reason = "the same code for wider registers")]
                unsafe {
                    wide(level, &mut strength);
                }
            } else {
                strengths(level, &mut strength);
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        strengths(level, &mut strength);
    }
    let (width, height) = (level.width, level.height);
    let mut lanes = [0.0_f32; 16];
    for chunk in strength.chunks_exact(16) {
        for k in 0..16 {
            lanes[k] = if chunk[k] > lanes[k] { chunk[k] } else { lanes[k] };
        }
    }
    let strongest = lanes.into_iter().fold(0.0_f32, f32::max);
    let least = (QUALITY * strongest).max(LEAST);
    // Two corners a cell, so that a picture with an empty half has about as many.
    let side = (((width * height) as f64 / count.max(1) as f64).sqrt() as usize).max(4);
    let (columns, rows) = (width.div_ceil(side), height.div_ceil(side));
    let mut cells: Vec<Vec<Corner>> = vec![Vec::new(); columns * rows];
    let apart = (side as f32 / 2.0).max(4.0);
    for y in MARGIN..height.saturating_sub(MARGIN) {
        let line = &strength[y * width..][..width];
        let (above, below) = (&strength[(y - 1) * width..][..width], &strength[(y + 1) * width..][..width]);
        for x in MARGIN..width.saturating_sub(MARGIN) {
            // One comparison throws out half of what is left, without a jump that cannot be foreseen.
            let own = line[x];
            if (own < least) | (own <= line[x + 1]) | (own <= below[x]) {
                continue;
            }
            let is_peak = own >= line[x - 1]
                && own > line[x + 1]
                && own >= above[x - 1].max(above[x]).max(above[x + 1])
                && own > below[x - 1].max(below[x]).max(below[x + 1]);
            if is_peak {
                let corner = Corner { at: Point2::new(x as f32, y as f32), strength: own };
                cells[y / side * columns + x / side].push(corner);
            }
        }
    }
    // Of each cell its strongest, then of each its second, with a distance to what was chosen.
    let mut chosen: Vec<Corner> = Vec::with_capacity(count);
    let mut buckets: Vec<Vec<Point2<f32>>> = vec![Vec::new(); columns * rows];
    let bucket = |p: &Point2<f32>| {
        let column = (p.x.max(0.0) as usize / side).min(columns - 1);
        let row = (p.y.max(0.0) as usize / side).min(rows - 1);
        (column, row)
    };
    for place in taken {
        let (column, row) = bucket(&place);
        buckets[row * columns + column].push(place);
    }
    for cell in &mut cells {
        cell.sort_by(|a, b| {
            b.strength.total_cmp(&a.strength).then(a.at.y.total_cmp(&b.at.y)).then(a.at.x.total_cmp(&b.at.x))
        });
    }
    for turn in 0..2 {
        let mut round: Vec<Corner> = Vec::new();
        for (index, cell) in cells.iter_mut().enumerate() {
            let held = buckets[index].len();
            if held > turn {
                continue;
            }
            let free = |corner: &Corner| {
                let (column, row) = bucket(&corner.at);
                let near = |c: usize, r: usize| {
                    buckets[r * columns + c].iter().any(|p| (p - corner.at).norm_squared() < apart * apart)
                };
                !(column.saturating_sub(1)..=(column + 1).min(columns - 1))
                    .any(|c| (row.saturating_sub(1)..=(row + 1).min(rows - 1)).any(|r| near(c, r)))
            };
            if let Some(k) = cell.iter().position(free) {
                let corner = cell.remove(k);
                buckets[index].push(corner.at);
                round.push(corner);
            }
        }
        round.sort_by(|a, b| {
            b.strength.total_cmp(&a.strength).then(a.at.y.total_cmp(&b.at.y)).then(a.at.x.total_cmp(&b.at.x))
        });
        chosen.extend(round);
    }
    chosen.truncate(count);
    for corner in &mut chosen {
        corner.at = Point2::new(up(corner.at.x, index), up(corner.at.y, index));
    }
    chosen
}
