//! The errors of one window.

use nalgebra::{Isometry3, Point3};
use serde::Serialize;

use super::{
    MAG_LOG_CAP, NO_DIRECTION_TDE_DEG, SceneScale, TDE_FOUND_DEG, direction_error_deg, magnitude_log_error,
    rotation_error_deg,
};
use crate::procrustes::{kabsch, umeyama};
use crate::trajectory::{WINDOW, WindowTrajectory};

/// Pairs of frames `i < j` in a window.
pub const PAIRS: usize = WINDOW * (WINDOW - 1) / 2;

/// Motion over the longest of a window, from which the length to a frame counts for [`log_length`].
const LEAST_SHARE: f64 = 0.3;

/// Median of `log(length in a / length in b)` of the ways from the first frame, over those that are not short in b; `None` where
/// there is none, or `a` stands still.
pub fn log_length(a: &WindowTrajectory, b: &WindowTrajectory) -> Option<f64> {
    let length = |window: &WindowTrajectory, i: usize| window.anchor_from_camera()[i].translation().norm();
    let longest = (1..WINDOW).map(|i| length(b, i)).fold(0.0, f64::max);
    let mut logs: Vec<f64> = (1..WINDOW)
        .filter(|i| length(b, *i) > LEAST_SHARE * longest)
        .map(|i| (length(a, i) / length(b, i)).ln())
        .filter(|log| log.is_finite())
        .collect();
    (!logs.is_empty()).then(|| super::bootstrap::median(&mut logs))
}

/// The errors of the relative pose `camera_i_from_camera_j`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PairErrors {
    /// The earlier frame.
    pub i: usize,
    /// The later frame.
    pub j: usize,
    /// Rotation error, degrees.
    pub rre_deg: f64,
    /// Translation error, scene units.
    pub rte_abs: f64,
    /// Translation error over the ground truth's length; `None` for a still pair.
    pub rte_rel: Option<f64>,
    /// Absolute log of the ratio of lengths, at most [`MAG_LOG_CAP`]; `None` for a still pair.
    pub mag_log: Option<f64>,
    /// Direction error, degrees; `None` for a still pair.
    pub tde_deg: Option<f64>,
    /// Length of the estimated translation, scene units: the error in motion of a still pair.
    pub estimate_norm: f64,
}

impl PairErrors {
    /// Whether the ground truth of the pair is too short to have a direction.
    pub fn is_still(&self) -> bool {
        self.tde_deg.is_none()
    }

    /// `max(RRE, TDE)` in degrees, the error under AUC; RRE alone for a still pair.
    pub fn pose_error_deg(&self) -> f64 {
        self.rre_deg.max(self.tde_deg.unwrap_or(0.0))
    }

    fn new(
        (i, j): (usize, usize),
        ground_truth: &WindowTrajectory,
        estimate: &WindowTrajectory,
        still_threshold: f64,
    ) -> Self {
        let ground_truth = ground_truth.relative(i, j);
        let estimate = estimate.relative(i, j);
        let (t_gt, t_est) = (ground_truth.translation(), estimate.translation());
        let (norm_gt, norm_est) = (t_gt.norm(), t_est.norm());
        let rte_abs = (t_est - t_gt).norm();
        let moves = norm_gt >= still_threshold;
        Self {
            i,
            j,
            rre_deg: rotation_error_deg(&ground_truth.rotation(), &estimate.rotation()),
            rte_abs,
            rte_rel: moves.then(|| rte_abs / norm_gt),
            mag_log: moves.then(|| magnitude_log_error(norm_gt, norm_est)),
            tde_deg: moves.then(|| {
                direction_error_deg(&t_gt, &t_est)
                    .filter(|_| norm_est > norm_gt * (-MAG_LOG_CAP).exp())
                    .unwrap_or(NO_DIRECTION_TDE_DEG)
            }),
            estimate_norm: norm_est,
        }
    }
}

/// Means over the four consecutive pairs of a window, `i` to `i + 1`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ConsecutiveErrors {
    /// Mean rotation error, degrees.
    pub rre_deg: f64,
    /// Mean translation error, scene units.
    pub rte_abs: f64,
    /// Mean direction error over the pairs that are not still, degrees.
    pub tde_deg: Option<f64>,
    /// Still pairs among the four.
    pub still_pairs: usize,
}

/// The errors of one window. Means are over frame 0 to i, i = 1 to 4, and for an `Option` over the pairs of these that
/// are not still; `None` where all are.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WindowErrors {
    /// Mean rotation error, degrees.
    pub rre_deg: f64,
    /// Mean translation error, scene units.
    pub rte_abs: f64,
    /// Mean of the translation error over the ground truth's length.
    pub rte_rel: Option<f64>,
    /// Mean absolute log of the ratio of lengths; each at most [`MAG_LOG_CAP`].
    pub mag_log: Option<f64>,
    /// Mean direction error, degrees. An estimate of no length has [`NO_DIRECTION_TDE_DEG`].
    pub tde_deg: Option<f64>,
    /// Still pairs among the four from frame 0.
    pub still_pairs: usize,
    /// Pairs among the four from frame 0 with a direction error of at most [`TDE_FOUND_DEG`].
    pub tde_found_pairs: usize,
    /// Mean length of the estimated translation, scene units: what a still window is judged by.
    pub estimate_norm: f64,
    /// RMSE of the five centres after SE(3) alignment, scene units.
    pub ate: f64,
    /// RMSE of the five centres after Sim(3) alignment, scene units.
    pub ate_sim3: f64,
    /// RMSE of the five centres with the first frames put on each other, scene units.
    pub ate_first_frame: f64,
    /// The centres of the ground truth or of the estimate are nearly collinear, or still. Then `ate` is
    /// `ate_first_frame`, and `ate_sim3` has the first frames put on each other and the best scale.
    pub collinear: bool,
    /// Means over consecutive pairs.
    pub consecutive: ConsecutiveErrors,
    /// All ten pairs, ordered by `i`, then `j`: the first four are those from frame 0.
    pub pairs: [PairErrors; PAIRS],
}

impl WindowErrors {
    /// Compares an estimate with the ground truth. Both must be finite, as [`WindowTrajectory::new`] checks.
    pub fn new(ground_truth: &WindowTrajectory, estimate: &WindowTrajectory, scale: SceneScale) -> Self {
        let threshold = scale.still_threshold();
        let mut frames = (0..WINDOW).flat_map(|i| (i + 1..WINDOW).map(move |j| (i, j)));
        let pairs = std::array::from_fn(|_| {
            // PAIRS counts exactly these; the default never comes.
            let frames = frames.next().unwrap_or_default();
            PairErrors::new(frames, ground_truth, estimate, threshold)
        });
        let from_first = &pairs[..WINDOW - 1];
        let consecutive: Vec<_> = pairs.iter().filter(|pair| pair.j == pair.i + 1).copied().collect();
        let ate = Ate::new(ground_truth, estimate);
        Self {
            rre_deg: mean_of(from_first, |pair| Some(pair.rre_deg)).unwrap_or(0.0),
            rte_abs: mean_of(from_first, |pair| Some(pair.rte_abs)).unwrap_or(0.0),
            rte_rel: mean_of(from_first, |pair| pair.rte_rel),
            mag_log: mean_of(from_first, |pair| pair.mag_log),
            tde_deg: mean_of(from_first, |pair| pair.tde_deg),
            still_pairs: count(from_first, PairErrors::is_still),
            tde_found_pairs: count(from_first, |pair| pair.tde_deg.is_some_and(|tde| tde <= TDE_FOUND_DEG)),
            estimate_norm: mean_of(from_first, |pair| Some(pair.estimate_norm)).unwrap_or(0.0),
            ate: ate.se3,
            ate_sim3: ate.sim3,
            ate_first_frame: ate.first_frame,
            collinear: ate.collinear,
            consecutive: ConsecutiveErrors {
                rre_deg: mean_of(&consecutive, |pair| Some(pair.rre_deg)).unwrap_or(0.0),
                rte_abs: mean_of(&consecutive, |pair| Some(pair.rte_abs)).unwrap_or(0.0),
                tde_deg: mean_of(&consecutive, |pair| pair.tde_deg),
                still_pairs: count(&consecutive, PairErrors::is_still),
            },
            pairs,
        }
    }

    /// Whether no pair from frame 0 moves.
    pub fn is_still(&self) -> bool {
        self.still_pairs == WINDOW - 1
    }

    /// The area under the recall of `max(RRE, TDE)` over the ten pairs, up to `threshold_deg`, 0 to 1: the mean of
    /// `max(0, 1 - error / threshold)`, which is that area exactly.
    pub fn auc(&self, threshold_deg: f64) -> f64 {
        self.pairs.iter().map(|pair| (1.0 - pair.pose_error_deg() / threshold_deg).max(0.0)).sum::<f64>() / PAIRS as f64
    }
}

struct Ate {
    se3: f64,
    sim3: f64,
    first_frame: f64,
    collinear: bool,
}

impl Ate {
    fn new(ground_truth: &WindowTrajectory, estimate: &WindowTrajectory) -> Self {
        let centres = |window: &WindowTrajectory| window.anchor_from_camera().map(|pose| pose.origin());
        let (gt, est) = (centres(ground_truth), centres(estimate));
        let first_frame = rmse(&gt, &est, |point| *point);
        let aligned: Result<(Isometry3<f64>, _), _> =
            kabsch(&est, &gt).and_then(|rigid| Ok((rigid, umeyama(&est, &gt)?)));
        match aligned {
            Ok((rigid, similar)) => Self {
                se3: rmse(&gt, &est, |point| rigid * point),
                sim3: rmse(&gt, &est, |point| similar.transform_point(point)),
                first_frame,
                collinear: false,
            },
            Err(_) => {
                let factor = scale_at_origin(&gt, &est);
                Self { se3: first_frame, sim3: rmse(&gt, &est, |point| point * factor), first_frame, collinear: true }
            }
        }
    }
}

/// The factor, not negative, that brings `est` nearest to `gt` by scaling about the origin; 1 where `est` is still.
fn scale_at_origin(gt: &[Point3<f64>], est: &[Point3<f64>]) -> f64 {
    let dot =
        |a: &[Point3<f64>], b: &[Point3<f64>]| -> f64 { a.iter().zip(b).map(|(a, b)| a.coords.dot(&b.coords)).sum() };
    let square = dot(est, est);
    if square > 0.0 { (dot(gt, est) / square).max(0.0) } else { 1.0 }
}

fn rmse(gt: &[Point3<f64>], est: &[Point3<f64>], align: impl Fn(&Point3<f64>) -> Point3<f64>) -> f64 {
    let sum: f64 = gt.iter().zip(est).map(|(gt, est)| (align(est) - gt).norm_squared()).sum();
    (sum / gt.len() as f64).sqrt()
}

fn mean_of(pairs: &[PairErrors], value: impl Fn(&PairErrors) -> Option<f64>) -> Option<f64> {
    let values: Vec<f64> = pairs.iter().filter_map(value).collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

fn count(pairs: &[PairErrors], holds: impl Fn(&PairErrors) -> bool) -> usize {
    pairs.iter().filter(|pair| holds(pair)).count()
}
