//! Absolute and relative pose errors of whole trajectories, as the public tool `evo` computes them.
//!
//! Sturm et al., "A Benchmark for the Evaluation of RGB-D SLAM Systems", IROS 2012. Agreement with evo 1.38.1 is kept by
//! the golden numbers in `tests/fixtures`. Association by time is left to the caller: pose k of one trajectory belongs
//! to pose k of the other.

use nalgebra::{Isometry3, Point3};
use serde::Serialize;

use super::bootstrap::median;
use crate::error::Error;
use crate::frame::Transform;
use crate::procrustes::{Similarity, kabsch, umeyama};

/// How the estimate is brought into the frame of the reference before it is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alignment {
    /// Not at all.
    None,
    /// By the rigid transform that is best for all centres.
    Se3,
    /// By the similarity that is best for all centres.
    Sim3,
}

/// Which pairs of poses a relative error compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairs {
    /// `(0, d), (d, 2d), ...`: evo's default.
    Consecutive {
        /// The step `d` in poses, at least 1.
        delta: usize,
    },
    /// `(k, k + d)` for every k: evo's `--all_pairs`.
    All {
        /// The step `d` in poses, at least 1.
        delta: usize,
    },
}

/// Statistics of a list of errors, in the unit of the list.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Statistics {
    /// Root of the mean square.
    pub rmse: f64,
    /// Mean.
    pub mean: f64,
    /// Median.
    pub median: f64,
    /// Largest.
    pub max: f64,
}

impl Statistics {
    /// Of at least one value.
    fn new(mut values: Vec<f64>) -> Self {
        let count = values.len() as f64;
        Self {
            rmse: (values.iter().map(|value| value * value).sum::<f64>() / count).sqrt(),
            mean: values.iter().sum::<f64>() / count,
            max: values.iter().copied().fold(0.0, f64::max),
            median: median(&mut values),
        }
    }
}

/// The errors of a trajectory.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PoseErrors {
    /// Poses, or pairs of poses, compared.
    pub count: usize,
    /// Norm of the translation of the error pose, scene units.
    pub translation: Statistics,
    /// Angle of the rotation of the error pose, degrees.
    pub rotation_deg: Statistics,
}

/// The absolute pose error (APE) of each pose, after alignment.
///
/// # Errors
/// [`Error::Length`], [`Error::TooFew`] (no pose), [`Error::NotFinite`]; with an alignment those of [`kabsch`] and
/// [`umeyama`].
pub fn ape<R, E, C>(
    reference: &[Transform<R, C>],
    estimate: &[Transform<E, C>],
    alignment: Alignment,
) -> Result<PoseErrors, Error> {
    let (reference, estimate) = prepare(reference, estimate, alignment)?;
    check_poses(1, reference.len())?;
    let errors = reference.iter().zip(&estimate).map(|(reference, estimate)| reference.inv_mul(estimate));
    Ok(statistics(errors))
}

/// The RMSE of the translation part of [`ape`], in scene units: the ATE of a trajectory.
///
/// # Errors
/// Those of [`ape`].
pub fn ape_rmse<R, E, C>(
    reference: &[Transform<R, C>],
    estimate: &[Transform<E, C>],
    alignment: Alignment,
) -> Result<f64, Error> {
    Ok(ape(reference, estimate, alignment)?.translation.rmse)
}

/// The relative pose error (RPE) of each pair of poses, after alignment; only the scale of the alignment matters.
///
/// # Errors
/// Those of [`ape`]; [`Error::TooFew`] where there is no pair.
pub fn rpe<R, E, C>(
    reference: &[Transform<R, C>],
    estimate: &[Transform<E, C>],
    alignment: Alignment,
    pairs: Pairs,
) -> Result<PoseErrors, Error> {
    let (reference, estimate) = prepare(reference, estimate, alignment)?;
    let (delta, stride) = match pairs {
        Pairs::Consecutive { delta } => (delta.max(1), delta.max(1)),
        Pairs::All { delta } => (delta.max(1), 1),
    };
    check_poses(delta.saturating_add(1), reference.len())?;
    let starts = (0..reference.len().saturating_sub(delta)).step_by(stride);
    let errors = starts.map(|k| {
        let reference = reference[k].inv_mul(&reference[k + delta]);
        let estimate = estimate[k].inv_mul(&estimate[k + delta]);
        reference.inv_mul(&estimate)
    });
    Ok(statistics(errors))
}

fn statistics(errors: impl Iterator<Item = Isometry3<f64>>) -> PoseErrors {
    let (translation, rotation_deg): (Vec<_>, Vec<_>) = errors
        .map(|error| {
            let angle = error.rotation.angle().to_degrees();
            (error.translation.vector.norm(), angle)
        })
        .unzip();
    PoseErrors {
        count: translation.len(),
        translation: Statistics::new(translation),
        rotation_deg: Statistics::new(rotation_deg),
    }
}

fn check_poses(expected: usize, got: usize) -> Result<(), Error> {
    if got >= expected {
        return Ok(());
    }
    Err(Error::TooFew { what: "poses of a trajectory", expected, got })
}

type Poses = Vec<Isometry3<f64>>;

fn prepare<R, E, C>(
    reference: &[Transform<R, C>],
    estimate: &[Transform<E, C>],
    alignment: Alignment,
) -> Result<(Poses, Poses), Error> {
    if reference.len() != estimate.len() {
        return Err(Error::Length { what: "estimated poses", expected: reference.len(), got: estimate.len() });
    }
    for pose in reference {
        pose.check_finite("reference pose")?;
    }
    for pose in estimate {
        pose.check_finite("estimated pose")?;
    }
    let to: Vec<Point3<f64>> = reference.iter().map(Transform::origin).collect();
    let from: Vec<Point3<f64>> = estimate.iter().map(Transform::origin).collect();
    let similarity = match alignment {
        Alignment::None => Similarity::identity(),
        Alignment::Se3 => kabsch(&from, &to).map(|rigid| Similarity {
            scale: 1.0,
            rotation: rigid.rotation,
            translation: rigid.translation.vector,
        })?,
        Alignment::Sim3 => umeyama(&from, &to)?,
    };
    let reference = reference.iter().map(|pose| *pose.isometry()).collect();
    let estimate = estimate.iter().map(|pose| similarity.transform_pose(pose.isometry())).collect();
    Ok((reference, estimate))
}
