//! Rigid transforms whose two frames are part of their type.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Mul;

use nalgebra::{Isometry3, Matrix3, Point3, Quaternion, Rotation3, Translation3, UnitQuaternion, Vector3};

use crate::error::{Error, check_finite};

/// How far, in the Frobenius norm of `R^T R - I`, a matrix may be from a rotation and still be repaired.
const ORTHONORMAL_TOLERANCE: f64 = 1e-2;
/// How far the norm of a quaternion may be from one and still be normalized: text files round to four decimals.
const QUATERNION_TOLERANCE: f64 = 1e-2;
/// How far the last row of a 4x4 matrix may be from `[0, 0, 0, 1]`.
const LAST_ROW_TOLERANCE: f64 = 1e-6;

/// A coordinate frame: a name at the type level that no value ever has.
pub trait Frame: 'static {
    /// The name in messages.
    const NAME: &'static str;
}

macro_rules! frames {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {}
        impl Frame for $name {
            const NAME: &'static str = stringify!($name);
        }
    )*};
}

frames! {
    /// The frame of a data set or a map; static.
    World
    /// The frame in which stitched windows accumulate: continuous, drifting, static in between.
    Odom
    /// The body of the robot: x forward, y left, z up (REP 103).
    Base
    /// The camera at frame 0 of a window.
    Anchor
    /// A camera's optical frame: x right, y down, z forward.
    Camera
}

/// The rigid transform that maps points in `From` to points in `To`.
///
/// Call it `to_from_from`. Its translation is the origin of `From` in `To`: for `world_from_camera` the camera centre.
pub struct Transform<To, From> {
    isometry: Isometry3<f64>,
    frames: PhantomData<fn() -> (To, From)>,
}

// By hand: derived implementations would ask the frames for the same traits.
impl<To, From> Clone for Transform<To, From> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<To, From> Copy for Transform<To, From> {}

impl<To, From> PartialEq for Transform<To, From> {
    fn eq(&self, other: &Self) -> bool {
        self.isometry == other.isometry
    }
}

impl<To: Frame, From: Frame> fmt::Debug for Transform<To, From> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}_from_{}", To::NAME, From::NAME)?;
        formatter
            .debug_struct("")
            .field("xyz", &self.isometry.translation.vector.as_slice())
            .field("quaternion_xyzw", &self.to_xyzw())
            .finish()
    }
}

impl<To, From> Default for Transform<To, From> {
    fn default() -> Self {
        Self::identity()
    }
}

impl<To, From> Transform<To, From> {
    /// The identity: the two frames coincide.
    pub fn identity() -> Self {
        Self::from_isometry_unchecked(Isometry3::identity())
    }

    /// Gives an isometry its frames. Nothing is checked.
    pub fn from_isometry_unchecked(isometry: Isometry3<f64>) -> Self {
        Self { isometry, frames: PhantomData }
    }

    /// The isometry without its frames.
    pub fn isometry(&self) -> &Isometry3<f64> {
        &self.isometry
    }

    /// From a nearly orthonormal matrix and a translation in scene units; the nearest rotation is taken.
    ///
    /// # Errors
    /// [`Error::NotFinite`]; [`Error::NotRotation`] where the Frobenius norm of `R^T R - I` is 1e-2 or more, or the
    /// determinant is not positive.
    pub fn from_rotation_translation(rotation: &Matrix3<f64>, translation: &Vector3<f64>) -> Result<Self, Error> {
        check_finite("rotation matrix", rotation)?;
        check_finite("translation", translation)?;
        let got = (rotation.transpose() * rotation - Matrix3::identity()).norm();
        if got >= ORTHONORMAL_TOLERANCE {
            return Err(Error::NotRotation { expected: "a Frobenius norm of R^T R - I below 1e-2", got });
        }
        let got = rotation.determinant();
        if got <= 0.0 {
            return Err(Error::NotRotation { expected: "a positive determinant", got });
        }
        let rotation = nearest_rotation(rotation)?;
        Ok(Self::from_isometry_unchecked(Isometry3::from_parts(Translation3::from(*translation), rotation)))
    }

    /// From a 4x4 homogeneous matrix, row after row.
    ///
    /// # Errors
    /// Those of [`Self::from_rotation_translation`]; [`Error::LastRow`] where the last row is not `[0, 0, 0, 1]`
    /// within 1e-6.
    pub fn from_matrix_row_major(matrix: &[f64; 16]) -> Result<Self, Error> {
        check_finite("4x4 transform", matrix)?;
        let [a, b, c, x, d, e, f, y, g, h, i, z, last @ ..] = *matrix;
        let deviation =
            last.iter().zip([0.0, 0.0, 0.0, 1.0]).map(|(got, expected)| (got - expected).abs()).fold(0.0, f64::max);
        if deviation > LAST_ROW_TOLERANCE {
            return Err(Error::LastRow { got: last });
        }
        Self::from_rotation_translation(&Matrix3::new(a, b, c, d, e, f, g, h, i), &Vector3::new(x, y, z))
    }

    /// The 4x4 homogeneous matrix, row after row.
    pub fn to_matrix_row_major(&self) -> [f64; 16] {
        let matrix = self.isometry.to_homogeneous();
        std::array::from_fn(|k| matrix[(k / 4, k % 4)])
    }

    /// The rotation from `From` to `To`.
    pub fn rotation(&self) -> UnitQuaternion<f64> {
        self.isometry.rotation
    }

    /// The rotation from `From` to `To` as a matrix.
    pub fn rotation_matrix(&self) -> Matrix3<f64> {
        self.isometry.rotation.to_rotation_matrix().into_inner()
    }

    /// The origin of `From` in `To`, in scene units.
    pub fn translation(&self) -> Vector3<f64> {
        self.isometry.translation.vector
    }

    /// The origin of `From` as a point in `To`: for `world_from_camera` the camera centre.
    pub fn origin(&self) -> Point3<f64> {
        Point3::from(self.isometry.translation.vector)
    }

    /// The transform the other way.
    pub fn inverse(&self) -> Transform<From, To> {
        Transform::from_isometry_unchecked(self.isometry.inverse())
    }

    /// A point in `From` as a point in `To`.
    pub fn transform_point(&self, point_in_from: &Point3<f64>) -> Point3<f64> {
        self.isometry.transform_point(point_in_from)
    }

    /// A direction or displacement in `From` as one in `To`: rotated, not translated.
    pub fn transform_vector(&self, vector_in_from: &Vector3<f64>) -> Vector3<f64> {
        self.isometry.transform_vector(vector_in_from)
    }

    /// The same numbers under other names. The one place where a frame changes its name: say why at the call.
    pub fn relabel<T2, F2>(&self) -> Transform<T2, F2> {
        Transform::from_isometry_unchecked(self.isometry)
    }

    /// The same transform with its quaternion normalized again; long products drift by rounding.
    pub fn renormalized(&self) -> Self {
        let mut isometry = self.isometry;
        isometry.rotation.renormalize();
        Self::from_isometry_unchecked(isometry)
    }

    /// The rotation's quaternion, vector first: the order of ROS and TUM files.
    pub fn to_xyzw(&self) -> [f64; 4] {
        let quaternion = self.isometry.rotation.quaternion();
        [quaternion.i, quaternion.j, quaternion.k, quaternion.w]
    }

    /// The rotation's quaternion, scalar first: the order of COLMAP.
    pub fn to_wxyz(&self) -> [f64; 4] {
        let [x, y, z, w] = self.to_xyzw();
        [w, x, y, z]
    }

    /// From a unit quaternion, vector first, and a translation in scene units.
    ///
    /// # Errors
    /// [`Error::NotFinite`]; [`Error::QuaternionNorm`] where the norm is not within 1e-2 of 1.
    pub fn from_xyzw(xyzw: [f64; 4], translation: &Vector3<f64>) -> Result<Self, Error> {
        check_finite("quaternion", &xyzw)?;
        check_finite("translation", translation)?;
        let [x, y, z, w] = xyzw;
        let quaternion = Quaternion::new(w, x, y, z);
        let got = quaternion.norm();
        if (got - 1.0).abs() > QUATERNION_TOLERANCE {
            return Err(Error::QuaternionNorm { expected: 1.0, tolerance: QUATERNION_TOLERANCE, got });
        }
        Ok(Self::from_isometry_unchecked(Isometry3::from_parts(
            Translation3::from(*translation),
            UnitQuaternion::from_quaternion(quaternion),
        )))
    }

    /// From a unit quaternion, scalar first, and a translation in scene units.
    ///
    /// # Errors
    /// Those of [`Self::from_xyzw`].
    pub fn from_wxyz(wxyz: [f64; 4], translation: &Vector3<f64>) -> Result<Self, Error> {
        let [w, x, y, z] = wxyz;
        Self::from_xyzw([x, y, z, w], translation)
    }

    /// `Ok` if no number is NaN or infinite.
    pub(crate) fn check_finite(&self, what: &'static str) -> Result<(), Error> {
        check_finite(what, &self.translation())?;
        check_finite(what, &self.to_xyzw())
    }
}

impl<To, Mid, From> Mul<Transform<Mid, From>> for Transform<To, Mid> {
    type Output = Transform<To, From>;

    fn mul(self, mid_from_from: Transform<Mid, From>) -> Transform<To, From> {
        Transform::from_isometry_unchecked(self.isometry * mid_from_from.isometry)
    }
}

/// The rotation nearest to `matrix` in the Frobenius norm, by SVD: `U diag(1, 1, det(U V^T)) V^T`.
///
/// For any invertible matrix; a reflection becomes the nearest rotation to it, which may be far. The limits of what
/// counts as a rotation are the caller's ([`Transform::from_rotation_translation`] has them).
///
/// # Errors
/// [`Error::NotFinite`]; [`Error::NotRotation`] where the rank is below two, so that no rotation is nearest.
pub fn nearest_rotation(matrix: &Matrix3<f64>) -> Result<UnitQuaternion<f64>, Error> {
    check_finite("rotation matrix", matrix)?;
    let (u, v_t, singular) = crate::svd::svd(matrix);
    if singular[1] <= 1e-12 * singular[0].max(f64::MIN_POSITIVE) {
        return Err(Error::NotRotation {
            expected: "a second singular value above 1e-12 of the first",
            got: singular[1],
        });
    }
    let sign = (u * v_t).determinant().signum();
    let rotation = u * Matrix3::from_diagonal(&Vector3::new(1.0, 1.0, sign)) * v_t;
    Ok(quaternion_from_orthonormal(&rotation))
}

/// The quaternion of a matrix that is orthonormal up to rounding.
pub(crate) fn quaternion_from_orthonormal(rotation: &Matrix3<f64>) -> UnitQuaternion<f64> {
    UnitQuaternion::from_rotation_matrix(&Rotation3::from_matrix_unchecked(*rotation))
}
