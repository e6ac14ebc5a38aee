//! A pose as an answer states it, before any check.

use nalgebra::{Isometry3, Matrix3, Translation3, Vector3};

use crate::error::{Error, check_finite};
use crate::frame::{Transform, nearest_rotation};

/// Twelve numbers that claim to be a pose: the "rotation" may be any matrix.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StatedPose {
    /// The rotation as stated.
    pub rotation: Matrix3<f64>,
    /// The translation, scene units.
    pub translation: Vector3<f64>,
}

impl StatedPose {
    /// How far the matrix is from a rotation: the Frobenius norm of `R^T R - I`. Infinite for a mirror image and where a
    /// number of the pose is not finite.
    pub fn defect(&self) -> f64 {
        let finite = self.rotation.iter().chain(&self.translation).all(|v| v.is_finite());
        if !finite || self.rotation.determinant() <= 0.0 {
            return f64::INFINITY;
        }
        (self.rotation.transpose() * self.rotation - Matrix3::identity()).norm()
    }

    /// The rigid transform with the rotation that is nearest to the matrix ([`nearest_rotation`]), however far that is:
    /// what counts as a rotation is the caller's to say, by [`Self::defect`].
    ///
    /// # Errors
    /// [`Error::NotFinite`]; [`Error::NotRotation`] where the rank is below two, so that no rotation is nearest.
    pub fn nearest<To, From>(&self) -> Result<Transform<To, From>, Error> {
        check_finite("translation", &self.translation)?;
        let rotation = nearest_rotation(&self.rotation)?;
        Ok(Transform::from_isometry_unchecked(Isometry3::from_parts(Translation3::from(self.translation), rotation)))
    }
}

/// A pose without an error of its own.
impl<A, B> From<&Transform<A, B>> for StatedPose {
    fn from(pose: &Transform<A, B>) -> Self {
        Self { rotation: pose.rotation_matrix(), translation: pose.translation() }
    }
}
