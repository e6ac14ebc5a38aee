//! The one error enum of the crate.

use std::path::PathBuf;

/// What can be wrong with an input of this crate. Each variant says what was expected and what came.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A number is NaN or infinite.
    #[error("{what}: expected finite numbers, got {got}")]
    NotFinite {
        /// What the number belongs to.
        what: &'static str,
        /// The offending number.
        got: f64,
    },
    /// A 3x3 matrix is too far from a rotation to be repaired without changing its meaning.
    #[error("rotation: expected {expected}, got {got}")]
    NotRotation {
        /// The condition that fails.
        expected: &'static str,
        /// The number that breaks it: a Frobenius norm or a determinant.
        got: f64,
    },
    /// The last row of a 4x4 matrix is not that of a rigid transform.
    #[error("last row of a 4x4 transform: expected [0, 0, 0, 1], got {got:?}")]
    LastRow {
        /// The last row.
        got: [f64; 4],
    },
    /// A quaternion whose norm is not one.
    #[error("quaternion: expected a norm within {tolerance} of {expected}, got {got}")]
    QuaternionNorm {
        /// The norm of a unit quaternion.
        expected: f64,
        /// How far from it is tolerated.
        tolerance: f64,
        /// The norm.
        got: f64,
    },
    /// A field of a camera matrix is out of bounds, a zero `K` included.
    #[error("intrinsics: {field}: expected {expected}, got {got}")]
    Intrinsics {
        /// The field: `fx`, `fy`, `cx`, `cy`, `width` or `height`.
        field: &'static str,
        /// Its bounds.
        expected: String,
        /// Its value.
        got: f64,
    },
    /// Two sequences that must pair up have different lengths.
    #[error("{what}: expected {expected} elements, got {got}")]
    Length {
        /// Which sequence.
        what: &'static str,
        /// The length of its counterpart.
        expected: usize,
        /// Its length.
        got: usize,
    },
    /// There are too few elements for the problem to have one answer.
    #[error("{what}: expected at least {expected} elements, got {got}")]
    TooFew {
        /// Which sequence.
        what: &'static str,
        /// The smallest number that will do.
        expected: usize,
        /// The number that came.
        got: usize,
    },
    /// A point cloud is (nearly) collinear or a single point: its rotation is not determined.
    #[error("{what}: expected a singular-value ratio s2/s1 above {expected}, got {got}")]
    Degenerate {
        /// Which cloud.
        what: &'static str,
        /// The smallest ratio that is accepted.
        expected: f64,
        /// The ratio; 0 where all points coincide.
        got: f64,
    },
    /// The first pose of a window is not the identity.
    #[error("first pose of a window: expected the identity within {expected}, got a deviation of {got}")]
    NotAnchored {
        /// The tolerance, in scene units and radians.
        expected: f64,
        /// The larger of the translation's norm and the rotation's angle.
        got: f64,
    },
    /// The two cameras share a centre: there is no epipolar geometry.
    #[error("baseline: expected a length above {expected}, got {got}")]
    NoBaseline {
        /// The smallest baseline, in scene units.
        expected: f64,
        /// The baseline.
        got: f64,
    },
    /// A line of a TUM file is not a pose.
    #[error("{file}:{line}: expected {expected}, got {got}")]
    TumLine {
        /// The file.
        file: String,
        /// The line, counted from 1.
        line: usize,
        /// What belongs there.
        expected: String,
        /// What stands there.
        got: String,
    },
    /// A file cannot be read or written.
    #[error("{}: expected to {action} it, got an I/O error", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// `read` or `write`.
        action: &'static str,
        /// Why.
        source: std::io::Error,
    },
}

/// `Ok` if all numbers are finite, else [`Error::NotFinite`] with the first that is not.
pub(crate) fn check_finite<'a>(what: &'static str, numbers: impl IntoIterator<Item = &'a f64>) -> Result<(), Error> {
    match numbers.into_iter().find(|number| !number.is_finite()) {
        Some(&got) => Err(Error::NotFinite { what, got }),
        None => Ok(()),
    }
}
