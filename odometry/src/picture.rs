//! A grey picture on a bounded grid, with its pyramid.

use fast_image_resize as fir;
use geometry::{Intrinsics, Stamp};
use nalgebra::{Point2, Vector2};

use crate::Error;

/// Longest side, pixels, that a picture is worked on at as it is.
const LARGEST_SIDE: u32 = 800;
/// Longest side, pixels, that larger pictures are brought to: more resolves no more than tracks are precise to, and costs
/// time in proportion.
const WORKING_SIDE: u32 = 640;
/// Longest side, pixels, below which a picture is worked on at twice its size: a patch covers a bounded share of it.
const SMALL_SIDE: u32 = 512;
/// Shortest side, pixels, of a picture, and of the coarsest level of a pyramid.
const SMALLEST_SIDE: usize = 24;
/// Pixels around each level that repeat its border, so that a patch whose centre is inside can be read without asking.
pub(crate) const PAD: usize = 20;
/// Most levels.
const LEVELS: usize = 6;

/// Grey values, row after row without gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grey {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Grey {
    /// A picture of `width * height` bytes.
    ///
    /// # Errors
    /// [`Error::Bytes`].
    pub fn new(width: usize, height: usize, pixels: Vec<u8>) -> Result<Self, Error> {
        if width.checked_mul(height) != Some(pixels.len()) {
            return Err(Error::Bytes { width, height, channels: 1, got: pixels.len() });
        }
        Ok(Self { width, height, pixels })
    }

    /// The luma (ITU-R BT.601) of RGB bytes.
    ///
    /// # Errors
    /// [`Error::Bytes`].
    pub fn from_rgb(width: usize, height: usize, rgb: &[u8]) -> Result<Self, Error> {
        let luma = |p: &[u8]| ((77 * u32::from(p[0]) + 150 * u32::from(p[1]) + 29 * u32::from(p[2]) + 128) >> 8) as u8;
        if width.checked_mul(height).and_then(|pixels| pixels.checked_mul(3)) != Some(rgb.len()) {
            return Err(Error::Bytes { width, height, channels: 3, got: rgb.len() });
        }
        Self::new(width, height, rgb.chunks_exact(3).map(luma).collect())
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// The bytes.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The same field of view on another grid, each pixel the mean of what it covers where it is coarser.
    fn resized(&self, width: u32, height: u32) -> Result<Self, Error> {
        let wrong = |why: String| Error::Resize { width, height, why };
        // The typed calls: `resize` would compile every kind of pixel into this crate, which takes a minute and a half.
        let source = fir::images::TypedImageRef::<fir::pixels::U8>::from_buffer(
            self.width as u32,
            self.height as u32,
            &self.pixels,
        )
        .map_err(|e| wrong(e.to_string()))?;
        let mut out = fir::images::TypedImage::<fir::pixels::U8>::new(width, height);
        let finer = width as usize > self.width;
        let filter = if finer { fir::FilterType::CatmullRom } else { fir::FilterType::Bilinear };
        let options = fir::ResizeOptions::new().resize_alg(fir::ResizeAlg::Convolution(filter));
        fir::Resizer::new().resize_typed(&source, &mut out, &options).map_err(|e| wrong(e.to_string()))?;
        let out = out.pixels().iter().map(|pixel| pixel.0).collect();
        Self::new(width as usize, height as usize, out)
    }
}

/// One level of a pyramid, with a border that repeats its outermost pixels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Level {
    pub width: usize,
    pub height: usize,
    stride: usize,
    pixels: Vec<u8>,
}

impl Level {
    fn new(width: usize, height: usize, fill: impl Fn(usize, &mut [u8])) -> Self {
        let stride = width + 2 * PAD;
        let mut pixels = vec![0; stride * (height + 2 * PAD)];
        for y in 0..height {
            let row = &mut pixels[(y + PAD) * stride..][..stride];
            fill(y, &mut row[PAD..PAD + width]);
            let (first, last) = (row[PAD], row[PAD + width - 1]);
            row[..PAD].fill(first);
            row[PAD + width..].fill(last);
        }
        let (top, bottom) = (PAD * stride, (PAD + height - 1) * stride);
        for y in 0..PAD {
            pixels.copy_within(top..top + stride, y * stride);
            pixels.copy_within(bottom..bottom + stride, (PAD + height + y) * stride);
        }
        Self { width, height, stride, pixels }
    }

    fn halved(&self) -> Self {
        let (width, height) = (self.width / 2, self.height / 2);
        Self::new(width, height, |y, out| {
            let above = &self.row(2 * y as isize)[PAD..][..2 * width];
            let below = &self.row(2 * y as isize + 1)[PAD..][..2 * width];
            for (out, (a, b)) in out.iter_mut().zip(above.chunks_exact(2).zip(below.chunks_exact(2))) {
                let sum = u16::from(a[0]) + u16::from(a[1]) + u16::from(b[0]) + u16::from(b[1]);
                *out = ((sum + 2) >> 2) as u8;
            }
        })
    }

    /// Row `y` with its border: column `x` is at index `x + PAD`. Rows go from `-PAD` to `height + PAD - 1`.
    #[inline(always)]
    pub fn row(&self, y: isize) -> &[u8] {
        let at = (y + PAD as isize) as usize * self.stride;
        &self.pixels[at..at + self.stride]
    }

    /// Whether a patch around this place can be read: the place is on the picture.
    #[inline(always)]
    pub fn contains(&self, x: f32, y: f32) -> bool {
        x >= 0.0 && y >= 0.0 && x <= (self.width - 1) as f32 && y <= (self.height - 1) as f32
    }
}

/// A picture ready to be tracked: grey, on a grid of bounded size, with its pyramid. Make it once for each frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    stamp: Stamp,
    /// Of the picture as it came.
    given: Intrinsics,
    /// Of the grid that is worked on.
    intrinsics: Intrinsics,
    /// The finest first.
    levels: Vec<Level>,
}

impl Picture {
    /// A picture without distortion, as its intrinsics say.
    ///
    /// # Errors
    /// [`Error::Size`] where the intrinsics are for another size, [`Error::TooSmall`].
    pub fn new(stamp: Stamp, given: &Intrinsics, grey: &Grey) -> Result<Self, Error> {
        let got = [grey.width as u32, grey.height as u32];
        if got != [given.width, given.height] {
            return Err(Error::Size { expected: [given.width, given.height], got });
        }
        if grey.width.min(grey.height) < SMALLEST_SIDE {
            return Err(Error::TooSmall { expected: SMALLEST_SIDE, width: grey.width, height: grey.height });
        }
        let (width, height) = working_size(given.width, given.height);
        let smaller = if [width, height] == got { None } else { Some(grey.resized(width, height)?) };
        let grey = smaller.as_ref().unwrap_or(grey);
        let finest = Level::new(grey.width, grey.height, |y, out| {
            out.copy_from_slice(&grey.pixels[y * grey.width..][..grey.width]);
        });
        let mut levels = vec![finest];
        while levels.len() < LEVELS {
            let last = &levels[levels.len() - 1];
            if last.width.min(last.height) / 2 < SMALLEST_SIDE {
                break;
            }
            levels.push(last.halved());
        }
        Ok(Self { stamp, given: *given, intrinsics: given.rescale(width, height), levels })
    }

    /// The same picture on a coarser grid, for points that are recognised at any size.
    pub(crate) fn smaller(&self, factor: f64) -> Result<Self, Error> {
        let level = &self.levels[0];
        let rows = (0..level.height).flat_map(|y| level.row(y as isize)[PAD..PAD + level.width].iter().copied());
        let grey = Grey { width: level.width, height: level.height, pixels: rows.collect() };
        let fit = |length: usize| ((length as f64 * factor).round() as u32).max(SMALLEST_SIDE as u32);
        let (width, height) = (fit(level.width), fit(level.height));
        let grey = grey.resized(width, height)?;
        let finest = Level::new(grey.width, grey.height, |y, out| {
            out.copy_from_slice(&grey.pixels[y * grey.width..][..grey.width]);
        });
        let intrinsics = self.intrinsics.rescale(width, height);
        Ok(Self { stamp: self.stamp, given: self.given, intrinsics, levels: vec![finest] })
    }

    /// When it was taken.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// The camera of the picture as it came.
    pub fn given_intrinsics(&self) -> &Intrinsics {
        &self.given
    }

    /// The camera of the grid that is worked on: pixels of tracks and residuals are of this one.
    pub fn intrinsics(&self) -> &Intrinsics {
        &self.intrinsics
    }

    /// Normalised image coordinates of a pixel of the working grid.
    pub fn normalised(&self, pixel: &Point2<f32>) -> Vector2<f64> {
        let k = &self.intrinsics;
        Vector2::new((f64::from(pixel.x) - k.cx) / k.fx, (f64::from(pixel.y) - k.cy) / k.fy)
    }

    pub(crate) fn levels(&self) -> &[Level] {
        &self.levels
    }
}

/// Width and height of the grid that a picture of this size is worked on.
fn working_size(width: u32, height: u32) -> (u32, u32) {
    let longest = width.max(height);
    if longest < SMALL_SIDE {
        return (2 * width, 2 * height);
    }
    let side = if longest > LARGEST_SIDE { WORKING_SIDE } else { return (width, height) };
    let fit = |length: u32| {
        let fitted = (f64::from(length) * f64::from(side) / f64::from(longest)).round() as u32;
        fitted.max(SMALLEST_SIDE as u32)
    };
    (fit(width), fit(height))
}
