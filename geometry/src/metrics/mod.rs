//! Errors of estimated poses: of one window, over windows, and of whole trajectories.
//!
//! | column | definition |
//! | --- | --- |
//! | `rre_deg` | angle of `R_gt^T R_est`, degrees |
//! | `rte_abs` | norm of `t_est - t_gt`, scene units |
//! | `rte_rel` | the same over the norm of `t_gt`; undefined for still pairs |
//! | `mag_log` | absolute log of the ratio of the norms, capped at [`MAG_LOG_CAP`]; undefined for still pairs |
//! | `tde_deg` | angle between `t_est` and `t_gt`, degrees, signs not folded; undefined for still pairs |
//! | `ate` | RMSE of the five centres after SE(3) alignment, scene units |
//! | `ate_sim3` | the same after Sim(3) alignment |
//! | `ate_first_frame` | the same with the first frames put on each other |
//! | `auc_5`, `auc_10`, `auc_30` | area under the recall of `max(RRE, TDE)` over all ten pairs, 0 to 1 |
//!
//! A pair is **still** where the norm of `t_gt` is below [`SceneScale::still_threshold`]: its direction would be noise.

mod bootstrap;
mod path;
mod summary;
mod window;

pub use bootstrap::{Interval, bootstrap};
pub use path::{Alignment, Pairs, PoseErrors, Statistics, ape, ape_rmse, rpe};
pub use summary::{AUC_THRESHOLDS_DEG, Statistic, Summary};
pub use window::{ConsecutiveErrors, PAIRS, PairErrors, WindowErrors, log_length};

use nalgebra::{UnitQuaternion, Vector3};
use serde::{Deserialize, Serialize};

/// The largest `mag_log`: a length wrong by a factor of 1000. An estimate of length zero has this error, which keeps
/// means finite, and an estimate shorter than this has no direction, so its `tde_deg` is [`NO_DIRECTION_TDE_DEG`].
pub const MAG_LOG_CAP: f64 = 6.907_755_278_982_137;
/// The `tde_deg` of an estimate without a direction where the ground truth moves: that of a random one on average.
pub const NO_DIRECTION_TDE_DEG: f64 = 90.0;
/// The TDE up to which a direction counts as found, degrees.
pub const TDE_FOUND_DEG: f64 = 15.0;

/// What is known of the unit of a scene; it decides below which length a motion has no direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SceneScale {
    /// Whether a scene unit is a metre.
    pub metric: bool,
    /// The median depth of the scene, in scene units, where it is known.
    pub median_depth: Option<f64>,
}

impl SceneScale {
    /// The length, in scene units, below which a ground-truth translation is still: the largest of 1e-3 scene units,
    /// 1 cm if metric, and 0.5 % of the median depth. A median depth that is not finite is taken as unknown.
    pub fn still_threshold(&self) -> f64 {
        let metric = if self.metric { 1e-2 } else { 0.0 };
        let depth = self.median_depth.filter(|depth| depth.is_finite()).map_or(0.0, |depth| 5e-3 * depth);
        1e-3_f64.max(metric).max(depth)
    }
}

/// The angle of `R_gt^T R_est`, in degrees, 0 to 180. The same for a quaternion and its negative.
pub fn rotation_error_deg(ground_truth: &UnitQuaternion<f64>, estimate: &UnitQuaternion<f64>) -> f64 {
    (ground_truth.inverse() * estimate).angle().to_degrees()
}

/// The angle between two vectors, in degrees, 0 to 180; signs are not folded. `None` where one has no direction: zero
/// or not finite.
pub fn direction_error_deg(ground_truth: &Vector3<f64>, estimate: &Vector3<f64>) -> Option<f64> {
    let has_direction = |vector: &Vector3<f64>| {
        let size = vector.amax();
        vector.iter().all(|value| value.is_finite()) && size > 0.0
    };
    if !(has_direction(ground_truth) && has_direction(estimate)) {
        return None;
    }
    // Scaled, so that tiny and huge vectors keep their direction; atan2, so that small angles keep their digits.
    let a = (ground_truth / ground_truth.amax()).normalize();
    let b = (estimate / estimate.amax()).normalize();
    Some(((a - b).norm()).atan2((a + b).norm()).to_degrees() * 2.0)
}

/// The absolute log of the ratio of two lengths, capped at [`MAG_LOG_CAP`]. The ground truth must be positive.
pub fn magnitude_log_error(ground_truth_norm: f64, estimate_norm: f64) -> f64 {
    (estimate_norm / ground_truth_norm).ln().abs().min(MAG_LOG_CAP)
}
