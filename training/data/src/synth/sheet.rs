//! Windows side by side, to look at.

use super::{Stratum, SynthConfig, window, window_of};
use image::{RgbImage, imageops};

const CELL: (u32, u32) = (160, 120);
const GAP: u32 = 2;

/// `n` windows of the stream `seed` as rows of five frames of 160 x 120 pixels, two windows to a row.
pub fn contact_sheet(seed: u64, n: u64) -> RgbImage {
    let row_width = 5 * (CELL.0 + GAP);
    let rows = n.div_ceil(2) as u32;
    let mut sheet = RgbImage::new(2 * row_width + 8, rows * (CELL.1 + GAP));
    for index in 0..n {
        let shown = window(seed, index, CELL);
        let y = (index / 2) as u32 * (CELL.1 + GAP);
        for (frame, image) in shown.images.iter().enumerate() {
            let x = (index % 2) as u32 * (row_width + 8) + frame as u32 * (CELL.0 + GAP);
            imageops::replace(&mut sheet, image, i64::from(x), i64::from(y));
        }
    }
    sheet
}

/// `n` windows of a stratum as rows of five frames, each of the size `cell` (width, height, pixels).
pub fn stratum_sheet(stratum: Option<Stratum>, seed: u64, n: u64, cell: (u32, u32)) -> RgbImage {
    let mut sheet = RgbImage::new(5 * (cell.0 + GAP), n as u32 * (cell.1 + GAP));
    for index in 0..n {
        let shown = window_of(&SynthConfig::default(), stratum, seed, index, cell);
        for (frame, image) in shown.images.iter().enumerate() {
            let (x, y) = (frame as u32 * (cell.0 + GAP), index as u32 * (cell.1 + GAP));
            imageops::replace(&mut sheet, image, i64::from(x), i64::from(y));
        }
    }
    sheet
}
