//! Frames as the network reads them: resized as OpenCV does it, then normalized.

use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};
use image::RgbImage;

/// Side of a patch, pixels.
pub const PATCH: usize = 14;
/// Longest side of a frame that the network was trained for.
pub const LONGEST_SIDE: usize = 504;
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const DEVIATION: [f32; 3] = [0.229, 0.224, 0.225];
/// Sharpness of OpenCV's and torch's cubic; Pillow's is -0.5.
const CUBIC: f64 = -0.75;

/// Inputs of one output and their weights.
pub(super) type Taps = Vec<(usize, f32)>;

/// Cubic interpolation of `input` numbers at `output` places `step` apart, as torch and OpenCV: no smoothing.
pub(super) fn cubic(input: usize, output: usize, step: f64) -> Vec<Taps> {
    let near = |t: f64| ((CUBIC + 2.0) * t - (CUBIC + 3.0)) * t * t + 1.0;
    let far = |t: f64| ((CUBIC * t - 5.0 * CUBIC) * t + 8.0 * CUBIC) * t - 4.0 * CUBIC;
    let taps = |i: usize| -> Taps {
        let place = (i as f64 + 0.5) * step - 0.5;
        let t = place - place.floor();
        let weights = [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)];
        let index = |k: usize| (place.floor() as i64 + k as i64 - 1).clamp(0, input as i64 - 1) as usize;
        weights.iter().enumerate().map(|(k, &weight)| (index(k), weight as f32)).collect()
    };
    (0..output).map(taps).collect()
}

/// Means over the part of the input that each output covers.
fn area(input: usize, output: usize) -> Vec<Taps> {
    let step = input as f64 / output as f64;
    let taps = |i: usize| -> Taps {
        let (first, last) = (i as f64 * step, (i as f64 * step + step).min(input as f64));
        let covered = |k: usize| last.min(k as f64 + 1.0) - first.max(k as f64);
        let inside = first.floor() as usize..(last.ceil() as usize).min(input);
        // OpenCV leaves out slivers.
        inside.filter(|&k| covered(k) > 1e-3).map(|k| (k, (covered(k) / step.min(last - first)) as f32)).collect()
    };
    (0..output).map(taps).collect()
}

/// Rows, then columns; rounded to levels.
fn sampled(frame: &RgbImage, rows: &[Taps], columns: &[Taps], round: fn(f32) -> f32) -> RgbImage {
    let stride = 3 * frame.width() as usize;
    let source = frame.as_raw();
    let mut line = vec![0f32; stride];
    let mut out = RgbImage::new(columns.len() as u32, rows.len() as u32);
    for (row, pixels) in rows.iter().zip(out.chunks_exact_mut(3 * columns.len())) {
        line.fill(0.0);
        for &(y, weight) in row {
            let source = &source[y * stride..(y + 1) * stride];
            line.iter_mut().zip(source).for_each(|(sum, &level)| *sum += weight * f32::from(level));
        }
        for (column, pixel) in columns.iter().zip(pixels.chunks_exact_mut(3)) {
            for (c, level) in pixel.iter_mut().enumerate() {
                let mean = column.iter().map(|&(x, weight)| weight * line[3 * x + c]).sum();
                *level = round(mean).clamp(0.0, 255.0) as u8;
            }
        }
    }
    out
}

fn resize(frame: &RgbImage, height: usize, width: usize) -> RgbImage {
    let (h, w) = (frame.height() as usize, frame.width() as usize);
    if (h, w) == (height, width) {
        frame.clone()
    } else if height > h || width > w {
        let taps = |input: usize, output: usize| cubic(input, output, input as f64 / output as f64);
        sampled(frame, &taps(h, height), &taps(w, width), f32::round_ties_even)
    } else {
        // Halves go up: OpenCV halves a frame in integers.
        sampled(frame, &area(h, height), &area(w, width), |level| (level + 0.5).floor())
    }
}

/// A frame with its longest side brought to `longest`, then each side to the nearest multiple of [`PATCH`]: two steps,
/// as in the public implementation.
pub fn resized(frame: &RgbImage, longest: usize) -> RgbImage {
    let (h, w) = (frame.height() as usize, frame.width() as usize);
    let scale = longest as f64 / h.max(w).max(1) as f64;
    let side = |side: usize| ((side as f64 * scale).round_ties_even() as usize).max(1);
    let frame = resize(frame, side(h), side(w));
    let multiple = |side: usize| {
        let down = side / PATCH * PATCH;
        // The public code makes one pixel of less than half a patch, and then fails on it.
        if down + PATCH - side <= side - down { down + PATCH } else { down.max(PATCH) }
    };
    resize(&frame, multiple(frame.height() as usize), multiple(frame.width() as usize))
}

/// Frames of one size as the network reads them.
///
/// # Shapes
/// `[s, 3, h, w]`
///
/// # Errors
/// No frames, empty ones, or of different sizes.
pub fn processed(frames: &[RgbImage], longest: usize, device: &Device) -> Result<Tensor> {
    ensure!(!frames.is_empty(), "frames: expected at least one, got none");
    let size = frames[0].dimensions();
    ensure!(size.0 > 0 && size.1 > 0, "frames: expected pixels, got {size:?}");
    let mut values = Vec::new();
    let (mut h, mut w) = (0, 0);
    for (k, frame) in frames.iter().enumerate() {
        // The public code crops to the smallest.
        ensure!(frame.dimensions() == size, "frame {k}: expected {size:?} pixels, got {:?}", frame.dimensions());
        let frame = resized(frame, longest);
        (h, w) = (frame.height() as usize, frame.width() as usize);
        for c in 0..3 {
            let normal = |level: u8| (f32::from(level) / 255.0 - MEAN[c]) / DEVIATION[c];
            values.extend(frame.pixels().map(|pixel| normal(pixel.0[c])));
        }
    }
    Ok(Tensor::from_vec(values, (frames.len(), 3, h, w), device)?)
}
