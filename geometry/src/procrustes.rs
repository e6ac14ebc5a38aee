//! Rigid and similarity alignment of point clouds with known correspondences.
//!
//! Kabsch (1976, 1978) and Umeyama, "Least-squares estimation of transformation parameters between two point patterns",
//! IEEE PAMI 13(4), 1991. Step 4 of the reasoning chain and every aligned metric call this one solver.

use nalgebra::{Isometry3, Matrix3, Point3, Translation3, UnitQuaternion, Vector3};

use crate::error::{Error, check_finite};
use crate::frame::quaternion_from_orthonormal;
use crate::svd::svd;

/// The smallest ratio s2/s1 of a centred cloud's singular values at which its rotation counts as determined.
pub const RANK_RATIO: f64 = 1e-3;
/// Fewest correspondences that determine a rotation.
const MIN_POINTS: usize = 3;

/// A similarity: `point_in_to = scale * rotation * point_in_from + translation`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Similarity {
    /// The scale, positive; units of `to` per unit of `from`.
    pub scale: f64,
    /// The rotation.
    pub rotation: UnitQuaternion<f64>,
    /// The translation, in units of `to`.
    pub translation: Vector3<f64>,
}

impl Similarity {
    /// The similarity that changes nothing.
    pub fn identity() -> Self {
        Self { scale: 1.0, rotation: UnitQuaternion::identity(), translation: Vector3::zeros() }
    }

    /// `scale * rotation * point + translation`.
    pub fn transform_point(&self, point: &Point3<f64>) -> Point3<f64> {
        Point3::from(self.scale * (self.rotation * point.coords) + self.translation)
    }

    /// The pose of a camera after its world went through the similarity: the centre is scaled, rotated and moved, the
    /// orientation rotated.
    pub fn transform_pose(&self, world_from_camera: &Isometry3<f64>) -> Isometry3<f64> {
        let centre = Point3::from(world_from_camera.translation.vector);
        Isometry3::from_parts(
            Translation3::from(self.transform_point(&centre).coords),
            self.rotation * world_from_camera.rotation,
        )
    }
}

/// The isometry that takes `from` to `to` with the least sum of squared distances.
///
/// Always a proper rotation: a mirrored cloud gives the best rotation, never the reflection. Coplanar clouds are fine.
///
/// # Errors
/// [`Error::Length`], [`Error::TooFew`] (below three), [`Error::NotFinite`], and [`Error::Degenerate`] where one of
/// the clouds, or what they have in common, is collinear: see [`RANK_RATIO`].
pub fn kabsch(from: &[Point3<f64>], to: &[Point3<f64>]) -> Result<Isometry3<f64>, Error> {
    let solution = solve(from, to)?;
    let translation = solution.to_mean - solution.rotation * solution.from_mean;
    Ok(Isometry3::from_parts(Translation3::from(translation), solution.rotation))
}

/// The similarity that takes `from` to `to` with the least sum of squared distances (Umeyama 1991, eq. 40 to 43).
///
/// # Errors
/// Those of [`kabsch`]; [`Error::Degenerate`] also where the best scale is not positive.
pub fn umeyama(from: &[Point3<f64>], to: &[Point3<f64>]) -> Result<Similarity, Error> {
    let solution = solve(from, to)?;
    let scale = solution.trace / solution.from_variance; // eq. 42
    if scale.is_nan() || scale <= 0.0 {
        return Err(Error::Degenerate { what: "scale of a similarity", expected: 0.0, got: scale });
    }
    Ok(Similarity {
        scale,
        rotation: solution.rotation,
        translation: solution.to_mean - scale * (solution.rotation * solution.from_mean), // eq. 41
    })
}

/// The ratio s2/s1 of the two largest singular values of the centred cloud: 0 for a line or a single point, 1 for a
/// cloud as wide as it is long.
///
/// # Errors
/// [`Error::TooFew`] (below two), [`Error::NotFinite`].
pub fn singular_ratio(points: &[Point3<f64>]) -> Result<f64, Error> {
    if points.len() < 2 {
        return Err(Error::TooFew { what: "point cloud", expected: 2, got: points.len() });
    }
    check_finite("point cloud", points.iter().flat_map(|point| point.iter()))?;
    let mean = mean(points);
    // The triangular factor has the singular values of the cloud without squaring them, as a scatter matrix would.
    let rows = nalgebra::OMatrix::<f64, nalgebra::Dyn, nalgebra::U3>::from_fn(points.len().max(3), |row, column| {
        points.get(row).map_or(0.0, |point| point[column] - mean[column])
    });
    let r = rows.qr().r();
    let (_, _, singular) = svd(&r.fixed_view::<3, 3>(0, 0).into_owned());
    let reach = points.iter().map(|point| point.coords.norm()).fold(0.0, f64::max);
    // Points that differ by rounding only are one point.
    if singular[0] <= 64.0 * f64::EPSILON * reach {
        return Ok(0.0);
    }
    Ok(singular[1] / singular[0])
}

struct Solution {
    rotation: UnitQuaternion<f64>,
    from_mean: Vector3<f64>,
    to_mean: Vector3<f64>,
    /// Mean squared distance of `from` to its mean, eq. 36.
    from_variance: f64,
    /// tr(D S), eq. 42.
    trace: f64,
}

fn solve(from: &[Point3<f64>], to: &[Point3<f64>]) -> Result<Solution, Error> {
    if from.len() != to.len() {
        return Err(Error::Length { what: "target points", expected: from.len(), got: to.len() });
    }
    if from.len() < MIN_POINTS {
        return Err(Error::TooFew { what: "correspondences", expected: MIN_POINTS, got: from.len() });
    }
    for (what, cloud) in [("source cloud", from), ("target cloud", to)] {
        check_rank(what, singular_ratio(cloud)?, RANK_RATIO)?;
    }
    let (from_mean, to_mean) = (mean(from), mean(to)); // eq. 34, 35
    let count = from.len() as f64;
    let mut covariance = Matrix3::zeros(); // eq. 38
    let mut from_variance = 0.0; // eq. 36
    for (from, to) in from.iter().zip(to) {
        let from = from.coords - from_mean;
        covariance += (to.coords - to_mean) * from.transpose() / count;
        from_variance += from.norm_squared() / count;
    }
    let (u, v_t, singular) = svd(&covariance);
    // Two clouds of rank two can share a covariance of rank one. The ratio of an exact pair is that of a cloud squared.
    let ratio = if singular[0] > 0.0 { singular[1] / singular[0] } else { 0.0 };
    check_rank("cross-covariance", ratio, 0.1 * RANK_RATIO * RANK_RATIO)?;
    let sign = (u * v_t).determinant().signum(); // eq. 43
    let s = Vector3::new(1.0, 1.0, sign);
    Ok(Solution {
        rotation: quaternion_from_orthonormal(&(u * Matrix3::from_diagonal(&s) * v_t)), // eq. 40
        from_mean,
        to_mean,
        from_variance,
        trace: singular.dot(&s),
    })
}

fn check_rank(what: &'static str, got: f64, expected: f64) -> Result<(), Error> {
    if got > expected {
        return Ok(());
    }
    Err(Error::Degenerate { what, expected, got })
}

fn mean(points: &[Point3<f64>]) -> Vector3<f64> {
    points.iter().map(|point| point.coords).sum::<Vector3<f64>>() / points.len() as f64
}
