//! The pinhole camera.
//!
//! Pixels follow OpenCV: the centre of the first pixel is (0, 0), so the image covers [-0.5, width - 0.5). Lens
//! distortion is left out: images are undistorted before they come here.

use nalgebra::{Matrix3, Point2, Point3};
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// The intrinsics of a pinhole camera, all in pixels of its image.
///
/// Deserializing checks them as [`Intrinsics::new`] does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Raw")]
pub struct Intrinsics {
    /// Focal length along the rows, pixels.
    pub fx: f64,
    /// Focal length along the columns, pixels.
    pub fy: f64,
    /// Principal point, pixels from the centre of the first pixel.
    pub cx: f64,
    /// Principal point, pixels from the centre of the first pixel.
    pub cy: f64,
    /// Width of the image, pixels.
    pub width: u32,
    /// Height of the image, pixels.
    pub height: u32,
}

/// [`Intrinsics`] as they are written, before any check.
#[derive(Deserialize)]
struct Raw {
    fx: f64,
    fy: f64,
    cx: f64,
    cy: f64,
    width: u32,
    height: u32,
}

impl TryFrom<Raw> for Intrinsics {
    type Error = Error;

    fn try_from(raw: Raw) -> Result<Self, Error> {
        Self::new(raw.fx, raw.fy, raw.cx, raw.cy, raw.width, raw.height)
    }
}

/// Focal lengths that a camera may have, pixels: far beyond any lens, and still numbers on whatever grid they are scaled to.
const FOCAL_LENGTHS: std::ops::RangeInclusive<f64> = 1e-3..=1e9;

impl Intrinsics {
    /// Intrinsics in pixels.
    ///
    /// # Errors
    /// [`Error::Intrinsics`] naming the field: focal lengths from 1e-3 to 1e9 (an uncalibrated camera publishes
    /// `K = 0`), sizes positive, principal point within one image size of the image: `[-w, 2w]`, `[-h, 2h]`.
    pub fn new(fx: f64, fy: f64, cx: f64, cy: f64, width: u32, height: u32) -> Result<Self, Error> {
        for (field, got) in [("width", width), ("height", height)] {
            if got == 0 {
                return Err(Error::Intrinsics { field, expected: "a positive size".to_owned(), got: f64::from(got) });
            }
        }
        for (field, got) in [("fx", fx), ("fy", fy)] {
            if !FOCAL_LENGTHS.contains(&got) {
                let (least, most) = (FOCAL_LENGTHS.start(), FOCAL_LENGTHS.end());
                return Err(Error::Intrinsics {
                    field,
                    expected: format!(
                        "a focal length from {least} to {most:e} pixels (an uncalibrated camera has K = 0)"
                    ),
                    got,
                });
            }
        }
        for (field, got, size) in [("cx", cx, width), ("cy", cy, height)] {
            let size = f64::from(size);
            if !(-size..=2.0 * size).contains(&got) {
                return Err(Error::Intrinsics {
                    field,
                    expected: format!("a value in [{}, {}]", -size, 2.0 * size),
                    got,
                });
            }
        }
        Ok(Self { fx, fy, cx, cy, width, height })
    }

    /// The same, where a camera is likely to have them. A matrix of another size, or in other units, passes [`Self::new`]
    /// and fails here.
    ///
    /// # Errors
    /// [`Error::Intrinsics`] naming the field: focal lengths of 0.1 to 50 times the longer side, principal point in the
    /// middle half of the width and of the height. A part that was cut out of an image may be otherwise.
    pub fn plausible(self) -> Result<Self, Error> {
        let longer = f64::from(self.width.max(self.height));
        for (field, got) in [("fx", self.fx), ("fy", self.fy)] {
            if !(0.1..=50.0).contains(&(got / longer)) {
                let expected = format!(
                    "0.1 to 50 times the longer side, which is {longer} pixels (is this the camera matrix of another \
                     size, or in other units?)"
                );
                return Err(Error::Intrinsics { field, expected, got });
            }
        }
        for (field, got, size) in [("cx", self.cx, self.width), ("cy", self.cy, self.height)] {
            let size = f64::from(size);
            if !(0.25..=0.75).contains(&((got + 0.5) / size)) {
                let expected = format!(
                    "a principal point near the middle of the {size} pixels (is this the camera matrix of another size?)"
                );
                return Err(Error::Intrinsics { field, expected, got });
            }
        }
        Ok(self)
    }

    /// The pixel of a point in the camera frame; `None` on or behind the plane of the camera (z <= 0). The pixel may
    /// lie outside the image: see [`Self::contains`].
    pub fn project(&self, point_in_camera: &Point3<f64>) -> Option<Point2<f64>> {
        if point_in_camera.z.is_nan() || point_in_camera.z <= 0.0 {
            return None;
        }
        let pixel = Point2::new(
            self.fx * point_in_camera.x / point_in_camera.z + self.cx,
            self.fy * point_in_camera.y / point_in_camera.z + self.cy,
        );
        pixel.iter().all(|value| value.is_finite()).then_some(pixel)
    }

    /// The point in the camera frame at a pixel and a depth along z: `X = d K^-1 [u v 1]^T`.
    pub fn back_project(&self, pixel: &Point2<f64>, depth: f64) -> Point3<f64> {
        Point3::new((pixel.x - self.cx) / self.fx * depth, (pixel.y - self.cy) / self.fy * depth, depth)
    }

    /// The intrinsics of the same image resized to `width` x `height`.
    ///
    /// With pixel centres at integers a pixel moves to `u' = (u + 0.5) s - 0.5`, so the principal point does too,
    /// and focal lengths scale by `s`. A size of zero is taken as one.
    pub fn rescale(&self, width: u32, height: u32) -> Self {
        let (width, height) = (width.max(1), height.max(1));
        let sx = f64::from(width) / f64::from(self.width);
        let sy = f64::from(height) / f64::from(self.height);
        Self {
            fx: self.fx * sx,
            fy: self.fy * sy,
            cx: (self.cx + 0.5) * sx - 0.5,
            cy: (self.cy + 0.5) * sy - 0.5,
            width,
            height,
        }
    }

    /// The intrinsics of a `width` x `height` cut-out whose first pixel is at column `left`, row `top`.
    ///
    /// # Errors
    /// Those of [`Self::new`], for the cut-out.
    pub fn crop(&self, left: i64, top: i64, width: u32, height: u32) -> Result<Self, Error> {
        Self::new(self.fx, self.fy, self.cx - left as f64, self.cy - top as f64, width, height)
    }

    /// The 3x3 camera matrix K.
    pub fn matrix(&self) -> Matrix3<f64> {
        Matrix3::new(
            self.fx, 0.0, self.cx, //
            0.0, self.fy, self.cy, //
            0.0, 0.0, 1.0,
        )
    }

    /// The inverse of K, exact up to rounding.
    pub fn inverse_matrix(&self) -> Matrix3<f64> {
        Matrix3::new(1.0 / self.fx, 0.0, -self.cx / self.fx, 0.0, 1.0 / self.fy, -self.cy / self.fy, 0.0, 0.0, 1.0)
    }

    /// Whether a pixel lies on the image: `-0.5 <= u < width - 0.5`, and so for v.
    pub fn contains(&self, pixel: &Point2<f64>) -> bool {
        (-0.5..f64::from(self.width) - 0.5).contains(&pixel.x)
            && (-0.5..f64::from(self.height) - 0.5).contains(&pixel.y)
    }
}
