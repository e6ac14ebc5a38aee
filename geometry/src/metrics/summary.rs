//! The errors of many windows in one table.

use serde::{Deserialize, Serialize};

use super::bootstrap::{Interval, bootstrap, mean, median};
use super::window::WindowErrors;
use crate::trajectory::WINDOW;

/// The thresholds of `auc_5`, `auc_10` and `auc_30`, degrees.
pub const AUC_THRESHOLDS_DEG: [f64; 3] = [5.0, 10.0, 30.0];

/// A column over windows; absent values of a window are left out, and `count` says how many were there.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Statistic {
    /// Windows that have a value.
    pub count: usize,
    /// Their median with its interval; `None` where `count` is 0.
    pub median: Option<Interval>,
    /// Their mean with its interval; `None` where `count` is 0.
    pub mean: Option<Interval>,
}

impl Statistic {
    /// Median and mean of finite values, each with a bootstrap interval from this seed.
    pub fn new(values: &[f64], seed: u64) -> Self {
        Self {
            count: values.len(),
            median: bootstrap(values, seed, |values| Some(median(values))),
            mean: bootstrap(values, seed, |values| Some(mean(values))),
        }
    }
}

/// The table of an evaluation. Windows that did not parse are counted in `windows`, not in `parsed`; they have no
/// pose and so no part in the columns, but each is ten misses in the AUCs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// All windows.
    pub windows: usize,
    /// Windows that parsed.
    pub parsed: usize,
    /// Pairs from frame 0 in windows that parsed: four each.
    pub pairs: usize,
    /// Pairs among them whose ground truth is still: without `rte_rel`, `mag_log` and `tde_deg`.
    pub still_pairs: usize,
    /// Windows that parsed in which all four pairs are still.
    pub still_windows: usize,
    /// Windows that parsed whose `ate` fell back to the first frame.
    pub collinear_windows: usize,
    /// Rotation error, degrees.
    pub rre_deg: Statistic,
    /// Translation error, scene units.
    pub rte_abs: Statistic,
    /// Translation error over the ground truth's length.
    pub rte_rel: Statistic,
    /// Absolute log of the ratio of lengths.
    pub mag_log: Statistic,
    /// Direction error, degrees.
    pub tde_deg: Statistic,
    /// Share of the pairs that are not still with a direction error of at most 15 degrees.
    pub tde_within_15_share: Option<f64>,
    /// RMSE of the centres after SE(3) alignment, scene units.
    pub ate: Statistic,
    /// RMSE of the centres after Sim(3) alignment, scene units.
    pub ate_sim3: Statistic,
    /// RMSE of the centres with the first frames put on each other, scene units.
    pub ate_first_frame: Statistic,
    /// Rotation error of consecutive pairs, degrees.
    pub consecutive_rre_deg: Statistic,
    /// Translation error of consecutive pairs, scene units.
    pub consecutive_rte_abs: Statistic,
    /// Direction error of consecutive pairs, degrees.
    pub consecutive_tde_deg: Statistic,
    /// AUC up to 5 degrees over all windows, 0 to 1; `None` without windows.
    pub auc_5: Option<Interval>,
    /// AUC up to 10 degrees over all windows.
    pub auc_10: Option<Interval>,
    /// AUC up to 30 degrees over all windows.
    pub auc_30: Option<Interval>,
    /// The three AUCs over the windows that parsed.
    pub auc_parsed: [Option<Interval>; 3],
    /// The seed of all intervals.
    pub seed: u64,
}

impl Summary {
    /// Summarizes windows; `None` is a window that did not parse. The seed fixes the bootstrap intervals.
    pub fn new(errors: &[Option<WindowErrors>], seed: u64) -> Self {
        let parsed: Vec<&WindowErrors> = errors.iter().flatten().collect();
        let column = |value: &dyn Fn(&WindowErrors) -> Option<f64>| {
            let values: Vec<f64> = parsed.iter().filter_map(|window| value(window)).collect();
            Statistic::new(&values, seed)
        };
        let total =
            |value: &dyn Fn(&WindowErrors) -> usize| -> usize { parsed.iter().map(|window| value(window)).sum() };
        let [auc_5, auc_10, auc_30] = AUC_THRESHOLDS_DEG.map(|threshold| {
            let of_window = |window: &Option<WindowErrors>| window.as_ref().map_or(0.0, |w| w.auc(threshold));
            let values: Vec<f64> = errors.iter().map(of_window).collect();
            bootstrap(&values, seed, |values| Some(mean(values)))
        });
        let pairs = parsed.len() * (WINDOW - 1);
        let still_pairs = total(&|window| window.still_pairs);
        let found = total(&|window| window.tde_found_pairs);
        Self {
            windows: errors.len(),
            parsed: parsed.len(),
            pairs,
            still_pairs,
            still_windows: total(&|window| usize::from(window.is_still())),
            collinear_windows: total(&|window| usize::from(window.collinear)),
            rre_deg: column(&|window| Some(window.rre_deg)),
            rte_abs: column(&|window| Some(window.rte_abs)),
            rte_rel: column(&|window| window.rte_rel),
            mag_log: column(&|window| window.mag_log),
            tde_deg: column(&|window| window.tde_deg),
            tde_within_15_share: (pairs > still_pairs).then(|| found as f64 / (pairs - still_pairs) as f64),
            ate: column(&|window| Some(window.ate)),
            ate_sim3: column(&|window| Some(window.ate_sim3)),
            ate_first_frame: column(&|window| Some(window.ate_first_frame)),
            consecutive_rre_deg: column(&|window| Some(window.consecutive.rre_deg)),
            consecutive_rte_abs: column(&|window| Some(window.consecutive.rte_abs)),
            consecutive_tde_deg: column(&|window| window.consecutive.tde_deg),
            auc_5,
            auc_10,
            auc_30,
            auc_parsed: AUC_THRESHOLDS_DEG.map(|threshold| {
                let values: Vec<f64> = parsed.iter().map(|window| window.auc(threshold)).collect();
                bootstrap(&values, seed, |values| Some(mean(values)))
            }),
            seed,
        }
    }
}
