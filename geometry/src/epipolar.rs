//! Epipolar geometry of two posed cameras: how far a pair of pixels is from being a possible match, in pixels.
//!
//! Hartley and Zisserman, Multiple View Geometry, 2nd ed., section 9.2. Without a baseline there is no epipolar line;
//! the transfer error of the rotation's homography stands in for it (section 13.4.1).

use nalgebra::{Matrix3, Point2, Vector3};

use crate::camera::Intrinsics;
use crate::error::Error;
use crate::frame::{Camera, Transform};

/// The shortest baseline, in scene units, that has epipolar lines.
pub const MIN_BASELINE: f64 = 1e-9;

/// The matrix F with `x_b^T F x_a = 0` for the pixels of one point in cameras a and b:
/// `F = K_b^-T [t]_x R K_a^-1` with `camera_b_from_camera_a = [R | t]`, scaled to Frobenius norm 1.
///
/// The poses share one world, of any name: world, anchor or odom.
///
/// # Errors
/// [`Error::NoBaseline`] where the centres are less than [`MIN_BASELINE`] apart, or a pose is not finite.
pub fn fundamental<W>(
    world_from_camera_a: &Transform<W, Camera>,
    world_from_camera_b: &Transform<W, Camera>,
    intrinsics_a: &Intrinsics,
    intrinsics_b: &Intrinsics,
) -> Result<Matrix3<f64>, Error> {
    let b_from_a = world_from_camera_b.inverse() * *world_from_camera_a;
    let t = b_from_a.translation();
    let got = t.norm();
    if !(got.is_finite() && got > MIN_BASELINE) {
        return Err(Error::NoBaseline { expected: MIN_BASELINE, got });
    }
    let f = intrinsics_b.inverse_matrix().transpose()
        * t.cross_matrix()
        * b_from_a.rotation_matrix()
        * intrinsics_a.inverse_matrix();
    Ok(f / f.norm())
}

/// The mean of the distances of each pixel to the epipolar line of the other, in pixels.
///
/// `None` where a line is undefined: a pixel that is an epipole, or one that is not finite.
pub fn symmetric_distance(
    fundamental: &Matrix3<f64>,
    pixel_in_a: &Point2<f64>,
    pixel_in_b: &Point2<f64>,
) -> Option<f64> {
    let (a, b) = (pixel_in_a.to_homogeneous(), pixel_in_b.to_homogeneous());
    let line_in_b = fundamental * a;
    let line_in_a = fundamental.transpose() * b;
    let distance = 0.5 * (point_to_line(&b, &line_in_b)? + point_to_line(&a, &line_in_a)?);
    distance.is_finite().then_some(distance)
}

/// The homography `H = K_b R K_a^-1` that takes pixels of camera a to camera b where only the rotation differs.
pub fn rotation_homography<W>(
    world_from_camera_a: &Transform<W, Camera>,
    world_from_camera_b: &Transform<W, Camera>,
    intrinsics_a: &Intrinsics,
    intrinsics_b: &Intrinsics,
) -> Matrix3<f64> {
    let b_from_a = world_from_camera_b.inverse() * *world_from_camera_a;
    intrinsics_b.matrix() * b_from_a.rotation_matrix() * intrinsics_a.inverse_matrix()
}

/// The mean of the distances of each pixel to the other's image under the homography, in pixels: the error for pairs
/// without baseline. `None` where a transferred point is at infinity or behind the camera, or H is singular.
pub fn symmetric_transfer_distance(
    homography: &Matrix3<f64>,
    pixel_in_a: &Point2<f64>,
    pixel_in_b: &Point2<f64>,
) -> Option<f64> {
    let inverse = homography.try_inverse()?;
    let transfer = |h: &Matrix3<f64>, from: &Point2<f64>, to: &Point2<f64>| {
        let moved = h * from.to_homogeneous();
        (moved.z > 0.0).then(|| (moved.xy() / moved.z - to.coords).norm())
    };
    let distance = 0.5 * (transfer(homography, pixel_in_a, pixel_in_b)? + transfer(&inverse, pixel_in_b, pixel_in_a)?);
    distance.is_finite().then_some(distance)
}

fn point_to_line(point: &Vector3<f64>, line: &Vector3<f64>) -> Option<f64> {
    let slope = line.xy().norm();
    (slope > 0.0).then(|| point.dot(line).abs() / slope)
}
