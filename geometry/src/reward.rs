//! The GRPO reward of one answer: a pure function of its poses and the ground truth.
//!
//! `0.2 format + 0.1 valid + 0.35 exp(-RRE / 5 deg) + 0.35 (0.5 exp(-TDE / 15 deg) + 0.5 exp(-mag_log / 0.5))`, and -1 in
//! place of the sum where the answer does not parse. RRE, TDE and mag_log are those of [`WindowErrors`], the same
//! numbers that an evaluation prints. A still window has neither TDE nor mag_log: `exp(-norm(t_est) / still threshold)`
//! takes the place of their sum.

use serde::Serialize;

use crate::frame::Transform;
use crate::metrics::{SceneScale, WindowErrors};
use crate::stated::StatedPose;
use crate::trajectory::{WINDOW, WindowTrajectory};

/// The reward of an answer that does not parse.
pub const PARSE_FAILURE: f64 = -1.0;
/// Weights of format, validity, rotation and translation.
const WEIGHTS: [f64; 4] = [0.2, 0.1, 0.35, 0.35];
/// Scale of the rotation error, degrees.
const RRE_SCALE_DEG: f64 = 5.0;
/// Scale of the direction error, degrees.
const TDE_SCALE_DEG: f64 = 15.0;
/// Scale of the log ratio of lengths.
const MAG_LOG_SCALE: f64 = 0.5;
/// The Frobenius norm of `R^T R - I` up to which a rotation is fully valid, and that from which it is not at all.
const VALID_RANGE: [f64; 2] = [1e-2, 0.1];

/// A reward and its parts, each before its weight, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Reward {
    /// The weighted sum, or -1 for a parse failure.
    pub total: f64,
    /// 1 where the answer parsed.
    pub format: f64,
    /// 1 where all rotations are valid, fading to 0: see [`validity`].
    pub valid: f64,
    /// `exp(-RRE / 5 deg)`.
    pub rotation: f64,
    /// `exp(-TDE / 15 deg)`; `None` for a still window.
    pub direction: Option<f64>,
    /// `exp(-mag_log / 0.5)`, or the closeness to no motion for a still window.
    pub magnitude: f64,
}

impl Reward {
    /// The reward of five stated poses; `None` is an answer that does not parse.
    ///
    /// Poses that no rotation is near (NaN, rank below two) earn the format's part alone. The answer is anchored at its
    /// own first pose before it is compared.
    pub fn new(answer: Option<&[StatedPose; WINDOW]>, ground_truth: &WindowTrajectory, scale: SceneScale) -> Self {
        let mut reward =
            Self { total: PARSE_FAILURE, format: 0.0, valid: 0.0, rotation: 0.0, direction: None, magnitude: 0.0 };
        let Some(answer) = answer else {
            return reward;
        };
        reward.format = 1.0;
        reward.valid = validity(answer);
        let mut translation = 0.0;
        if let Some(estimate) = orthonormalized(answer) {
            let errors = WindowErrors::new(ground_truth, &estimate, scale);
            reward.rotation = (-errors.rre_deg / RRE_SCALE_DEG).exp();
            if let (Some(tde), Some(mag_log)) = (errors.tde_deg, errors.mag_log) {
                let direction = (-tde / TDE_SCALE_DEG).exp();
                reward.direction = Some(direction);
                reward.magnitude = (-mag_log / MAG_LOG_SCALE).exp();
                translation = 0.5 * direction + 0.5 * reward.magnitude;
            } else {
                reward.magnitude = (-errors.estimate_norm / scale.still_threshold()).exp();
                translation = reward.magnitude;
            }
        }
        let parts = [reward.format, reward.valid, reward.rotation, translation];
        reward.total = WEIGHTS.iter().zip(parts).map(|(w, part)| w * part).sum();
        reward
    }
}

/// How valid the rotations of an answer are: that of the worst pose. 1 where it is finite, its determinant is positive
/// and the Frobenius norm of `R^T R - I` is below 1e-2, fading linearly to 0 at 0.1.
pub fn validity(answer: &[StatedPose; WINDOW]) -> f64 {
    let [full, none] = VALID_RANGE;
    let of_pose = |pose: &StatedPose| ((none - pose.defect()) / (none - full)).clamp(0.0, 1.0);
    answer.iter().map(of_pose).fold(1.0, f64::min)
}

/// The answer with each rotation replaced by the nearest one, anchored at its first pose.
fn orthonormalized(answer: &[StatedPose; WINDOW]) -> Option<WindowTrajectory> {
    let mut poses = [Transform::identity(); WINDOW];
    for (pose, stated) in poses.iter_mut().zip(answer) {
        *pose = stated.nearest().ok()?;
    }
    let window = WindowTrajectory::from_world(&poses);
    // A translation near the largest f64 overflows in the product, hence a check after it as well.
    WindowTrajectory::new(*window.anchor_from_camera()).ok()
}
