//! How large the errors of answers are, frame by frame, and whether a covariance says so.
//!
//! The node writes a covariance beside each pose; a filter that fuses the pose believes it. Whether it may is measured:
//! the normalised estimation error squared (NEES, Bar-Shalom et al., Estimation with Applications to Tracking and
//! Navigation, section 5.4.2), `e^T P^-1 e` of a pose error with six degrees of freedom, is 6 on average where the
//! covariance P is right, more where it is too sure of itself; and 68 and 95 % of the poses must lie within the regions
//! that P says hold so many. The windows that a sigma comes from flatter it: judge it on others.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use geometry::metrics::{Interval, Statistic};
use geometry::{WINDOW, WindowTrajectory};
use model::weights::manifest::{self, Covariance, Manifest};
use nalgebra::{Matrix6, Vector6};
use odometry::window::Prior;
use serde::{Deserialize, Serialize};

use super::coverage::{Coverage, Judged};

/// Frames of a window that have an error: the first is the identity in truth and estimate alike.
const FRAMES: usize = WINDOW - 1;
/// The share of a normal distribution within one standard deviation.
const WITHIN_SIGMA: f64 = 0.682_689_492_137_086;
/// The smallest sigma that is claimed, scene units or degrees: a covariance of zero means in ROS that it is not known.
const LEAST_SIGMA: f64 = 1e-4;

/// `camera_from_camera` of a frame, from where it was thought to be to where it was, in the axes of the true camera:
/// translation in scene units, then the rotation vector in radians. The order of `nav_msgs/Odometry`.
pub type PoseError = Vector6<f64>;

/// The errors of frames 1 to 4 of a window.
pub fn pose_errors(truth: &WindowTrajectory, estimate: &WindowTrajectory) -> [PoseError; FRAMES] {
    std::array::from_fn(|k| {
        let error = truth.anchor_from_camera()[k + 1].inverse() * estimate.anchor_from_camera()[k + 1];
        let (t, r) = (error.translation(), error.rotation().scaled_axis());
        Vector6::new(t.x, t.y, t.z, r.x, r.y, r.z)
    })
}

/// Standard deviations of each axis, of frames 1 to 4: what `[covariance]` of `config/node.toml` holds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sigmas {
    /// Of x, y and z, scene units.
    #[serde(alias = "position_stddev_metres")]
    pub position: [f64; FRAMES],
    /// About x, y and z, degrees.
    #[serde(alias = "rotation_stddev_degrees")]
    pub rotation_deg: [f64; FRAMES],
}

impl Sigmas {
    /// `[covariance]` of a node's config.
    ///
    /// # Errors
    /// A file that is missing or lacks them, a sigma that is not over 0.
    pub fn of_node(path: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        struct Node {
            covariance: Sigmas,
        }
        let place = || path.display().to_string();
        let node: Node = toml::from_str(&std::fs::read_to_string(path).with_context(place)?).with_context(place)?;
        node.covariance.checked(path)
    }

    /// `covariance` of the manifest in a folder of weights, which `--record` writes; `None` where there is no manifest, or
    /// it has none.
    ///
    /// # Errors
    /// A manifest that is none, a sigma that is not over 0.
    pub fn of_weights(folder: &Path) -> Result<Option<Self>> {
        let Some(Covariance { position_stddev_metres, rotation_stddev_degrees, .. }) =
            Manifest::of(folder)?.and_then(|manifest| manifest.covariance)
        else {
            return Ok(None);
        };
        let sigmas = Self { position: position_stddev_metres, rotation_deg: rotation_stddev_degrees };
        sigmas.checked(&folder.join(manifest::FILE)).map(Some)
    }

    fn checked(self, path: &Path) -> Result<Self> {
        let bad = self.position.iter().chain(&self.rotation_deg).find(|sigma| !(**sigma > 0.0 && sigma.is_finite()));
        ensure!(bad.is_none(), "{}: covariance: expected standard deviations over 0, got {bad:?}", path.display());
        Ok(self)
    }

    /// Poses with these errors, as an adjustment believes them: rotation before translation. Frames count as
    /// independent, and axes too.
    pub(super) fn prior(&self, trajectory: &WindowTrajectory) -> Prior {
        let covariance = std::array::from_fn(|k| {
            let (r, t) = (self.rotation_deg[k].to_radians().powi(2), self.position[k].powi(2));
            Matrix6::from_diagonal(&Vector6::new(r, r, r, t, t, t))
        });
        Prior { trajectory: *trajectory, covariance }
    }
}

/// The size of the errors of one frame index, as a standard deviation of each axis.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Root mean square over axes and windows; windows are drawn for the interval.
    pub rms: Interval,
    /// Below it are as many absolute errors as a normal distribution has within one sigma: a few gross errors leave it
    /// where it is. Far below `rms` where the errors have long tails.
    pub quantile: f64,
}

/// The errors of windows, what covariance they support, and how well a given one fits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Windows with an answer.
    pub windows: usize,
    /// Scene units.
    pub position: [Spread; FRAMES],
    /// Degrees.
    pub rotation_deg: [Spread; FRAMES],
    /// The larger of the two measures of each spread, nowhere less than in the frame before, never zero.
    pub supported: Sigmas,
    /// How well those fit the windows that they come from.
    pub supported_coverage: Coverage,
    /// How well the given ones fit.
    pub given_coverage: Option<Coverage>,
    /// Lines for `[covariance]` of `config/node.toml`. What a break adds is not known from single windows.
    pub toml: String,
}

impl Calibration {
    /// Measures the errors of the answered windows of `source`; `None` without any. `seed` fixes the intervals.
    pub fn new(errors: &[[PoseError; FRAMES]], given: Option<&Sigmas>, source: &str, seed: u64) -> Option<Self> {
        let position = spreads(errors, 0, |metres| metres, seed)?;
        let rotation_deg = spreads(errors, 3, f64::to_degrees, seed)?;
        let supported = Sigmas { position: growing(&position), rotation_deg: growing(&rotation_deg) };
        Some(Self {
            windows: errors.len(),
            position,
            rotation_deg,
            supported,
            supported_coverage: Coverage::new(errors, &supported, seed)?,
            given_coverage: given.and_then(|sigmas| Coverage::new(errors, sigmas, seed)),
            toml: toml(&supported, errors.len(), source),
        })
    }
}

impl Coverage {
    /// Of a diagonal covariance with these sigmas, which must be positive; `None` without windows. Windows are drawn for
    /// the intervals, since the frames of one go together.
    pub fn new(errors: &[[PoseError; FRAMES]], sigmas: &Sigmas, seed: u64) -> Option<Self> {
        let one = |error: &PoseError, k: usize| {
            let (position, rotation) = (sigmas.position[k], sigmas.rotation_deg[k].to_radians());
            let nees = axes(error, 0).map(|e| (e / position).powi(2)).iter().sum::<f64>()
                + axes(error, 3).map(|e| (e / rotation).powi(2)).iter().sum::<f64>();
            Judged { nees, level: chi_square_6(nees) }
        };
        let judged: Vec<[Judged; FRAMES]> =
            errors.iter().map(|window| std::array::from_fn(|k| one(&window[k], k))).collect();
        Self::of(&judged, seed)
    }
}

/// Three entries of an error, from `first`.
fn axes(error: &PoseError, first: usize) -> [f64; 3] {
    [error[first], error[first + 1], error[first + 2]]
}

/// The distribution function of chi-square with six degrees of freedom.
fn chi_square_6(x: f64) -> f64 {
    let half = x / 2.0;
    1.0 - (-half).exp() * (1.0 + half + half * half / 2.0)
}

fn spreads(
    errors: &[[PoseError; FRAMES]],
    first: usize,
    unit: impl Fn(f64) -> f64,
    seed: u64,
) -> Option<[Spread; FRAMES]> {
    let of_frame = |k: usize| {
        let windows: Vec<[f64; 3]> = errors.iter().map(|window| axes(&window[k], first).map(&unit)).collect();
        let squares: Vec<f64> = windows.iter().map(|error| error.iter().map(|e| e * e).sum::<f64>() / 3.0).collect();
        let Interval { value, low, high } = Statistic::new(&squares, seed).mean?;
        let mut sizes: Vec<f64> = windows.iter().flatten().map(|e| e.abs()).collect();
        sizes.sort_by(f64::total_cmp);
        Some(Spread {
            rms: Interval { value: value.sqrt(), low: low.sqrt(), high: high.sqrt() },
            quantile: sizes[((sizes.len() - 1) as f64 * WITHIN_SIGMA).round() as usize],
        })
    };
    let all: Vec<Spread> = (0..FRAMES).map(of_frame).collect::<Option<_>>()?;
    all.try_into().ok()
}

/// A window's frames hang on each other: a later one is never surer.
fn growing(spreads: &[Spread; FRAMES]) -> [f64; FRAMES] {
    let mut largest = LEAST_SIGMA;
    spreads.map(|spread| {
        largest = largest.max(spread.rms.value).max(spread.quantile);
        largest
    })
}

fn toml(sigmas: &Sigmas, windows: usize, source: &str) -> String {
    let list = |values: &[f64; FRAMES]| values.map(|sigma| format!("{sigma:.4}")).join(", ");
    format!(
        "[covariance]\n# From {windows} windows of {}.\nposition_stddev_metres = [{}]\nrotation_stddev_degrees = [{}]\n",
        source.replace(['\n', '\r'], " "),
        list(&sigmas.position),
        list(&sigmas.rotation_deg)
    )
}

#[cfg(test)]
mod tests {
    use geometry::{Transform, WindowTrajectory};
    use nalgebra::{Isometry3, Vector3, Vector6};
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::{Calibration, Coverage, PoseError, Sigmas, chi_square_6, pose_errors};
    use training_data::random::normal;

    const TRUE: Sigmas = Sigmas { position: [0.01, 0.02, 0.03, 0.04], rotation_deg: [0.5, 1.0, 1.5, 2.0] };

    /// Windows with normal errors of [`TRUE`].
    fn drawn(windows: usize) -> Vec<[PoseError; 4]> {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let mut error = |k: usize| {
            let (t, r) = (TRUE.position[k], TRUE.rotation_deg[k].to_radians());
            Vector6::new(t, t, t, r, r, r).map(|sigma| sigma * normal(&mut rng))
        };
        (0..windows).map(|_| std::array::from_fn(&mut error)).collect()
    }

    fn scaled(sigmas: &Sigmas, factor: f64) -> Sigmas {
        let scale = |values: [f64; 4]| values.map(|v| v * factor);
        Sigmas { position: scale(sigmas.position), rotation_deg: scale(sigmas.rotation_deg) }
    }

    #[test]
    fn the_true_covariance_of_normal_errors_fits() {
        let errors = drawn(2000);
        let fit = Coverage::new(&errors, &TRUE, 0).unwrap();
        // Variance of chi-square with six degrees is 12: 8,000 poses give the mean to 0.04.
        assert!((fit.nees.value - 6.0).abs() < 0.2, "{fit:?}");
        assert!(fit.nees.low < fit.nees.value && fit.nees.value < fit.nees.high, "{fit:?}");
        assert!(fit.nees.high - fit.nees.low < 0.4, "{fit:?}");
        assert!(fit.nees_of_frame.iter().all(|nees| (nees.value - 6.0).abs() < 0.4), "{fit:?}");
        assert!((fit.within_68.value - 0.68).abs() < 0.02, "{fit:?}");
        assert!((fit.within_95.value - 0.95).abs() < 0.01, "{fit:?}");
    }

    #[test]
    fn a_covariance_that_is_too_sure_covers_far_less_and_a_timid_one_more() {
        let errors = drawn(500);
        let sure = Coverage::new(&errors, &scaled(&TRUE, 1.0 / 3.0), 0).unwrap();
        assert!((sure.nees.value - 54.0).abs() < 3.0, "{sure:?}");
        assert!(sure.within_68.high < 0.05 && sure.within_95.high < 0.1, "{sure:?}");
        let timid = Coverage::new(&errors, &scaled(&TRUE, 3.0), 0).unwrap();
        assert!(timid.nees.high < 1.0 && timid.within_68.low > 0.99, "{timid:?}");
    }

    #[test]
    fn sigmas_come_back_from_the_errors_that_they_made() {
        let found = Calibration::new(&drawn(2000), Some(&scaled(&TRUE, 0.5)), "a test", 0).unwrap();
        assert_eq!(found.windows, 2000);
        for (spreads, expected) in [(&found.position, TRUE.position), (&found.rotation_deg, TRUE.rotation_deg)] {
            for (spread, expected) in spreads.iter().zip(expected) {
                assert!((spread.rms.value / expected - 1.0).abs() < 0.05, "{spread:?} {expected}");
                assert!((spread.quantile / expected - 1.0).abs() < 0.05, "{spread:?} {expected}");
                assert!(spread.rms.low < spread.rms.value && spread.rms.value < spread.rms.high, "{spread:?}");
            }
        }
        assert!((found.supported_coverage.nees.value - 6.0).abs() < 0.4, "{found:?}");
        assert!((found.given_coverage.unwrap().nees.value - 24.0).abs() < 1.0);
        assert!(Calibration::new(&[], None, "nothing", 0).is_none());
    }

    #[test]
    fn a_few_gross_errors_move_the_root_mean_square_and_not_the_quantile() {
        let mut errors = drawn(1000);
        for window in errors.iter_mut().take(10) {
            window[0] *= 100.0;
        }
        let found = Calibration::new(&errors, None, "a test", 0).unwrap();
        assert!((found.position[0].quantile / 0.01 - 1.0).abs() < 0.1, "{found:?}");
        assert!(found.position[0].rms.value > 0.05, "{found:?}");
        // Sigmas are the larger of the two, and no later frame is surer than an earlier one.
        let sigmas = found.supported.position;
        assert!(sigmas[0] > 0.05 && sigmas.is_sorted(), "{sigmas:?}");
    }

    #[test]
    fn the_shipped_node_states_standard_deviations() {
        let configs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config");
        let sigmas = Sigmas::of_node(&configs.join("node.toml")).unwrap();
        assert!(sigmas.position.is_sorted() && sigmas.rotation_deg.is_sorted());
        let error = Sigmas::of_node(&configs.join("training/split.toml")).unwrap_err();
        assert!(
            format!("{error:#}").contains("split.toml") && format!("{error:#}").contains("covariance"),
            "{error:#}"
        );
    }

    #[test]
    fn a_manifest_may_state_them_too_and_a_prior_has_their_squares() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("manifest.json");
        assert_eq!(Sigmas::of_weights(dir.path()).unwrap(), None);
        std::fs::write(&path, r#"{"stages": []}"#).unwrap();
        assert_eq!(Sigmas::of_weights(dir.path()).unwrap(), None);
        let text = r#"{"covariance": {"position_stddev_metres": [0.01, 0.02, 0.03, 0.04],
            "rotation_stddev_degrees": [0.5, 1.0, 1.5, 2.0]}}"#;
        std::fs::write(&path, text).unwrap();
        assert_eq!(Sigmas::of_weights(dir.path()).unwrap(), Some(TRUE));
        std::fs::write(&path, text.replace("0.5", "0.0")).unwrap();
        assert!(Sigmas::of_weights(dir.path()).unwrap_err().to_string().contains("over 0"));
        // One that lacks a number is an error too, and not a manifest without a covariance.
        std::fs::write(&path, text.replace("rotation_stddev", "rotation_stdev")).unwrap();
        let error = Sigmas::of_weights(dir.path()).unwrap_err().to_string();
        assert!(error.contains("manifest.json") && error.contains("rotation_stddev_degrees"), "{error}");
        let prior = TRUE.prior(&WindowTrajectory::identity());
        // Rotation comes first.
        assert!((prior.covariance[3][(0, 0)].sqrt().to_degrees() - 2.0).abs() < 1e-12);
        assert!((prior.covariance[3][(5, 5)].sqrt() - 0.04).abs() < 1e-12 && prior.covariance[0][(0, 5)].abs() < 1e-12);
    }

    #[test]
    fn the_lines_are_toml_that_a_config_can_hold() {
        let found = Calibration::new(&drawn(300), None, "synth:seed=1\n", 0).unwrap();
        let table: toml::Table = found.toml.parse().unwrap();
        for (key, expected) in [
            ("position_stddev_metres", found.supported.position),
            ("rotation_stddev_degrees", found.supported.rotation_deg),
        ] {
            let values: Vec<f64> =
                table["covariance"][key].as_array().unwrap().iter().map(|v| v.as_float().unwrap()).collect();
            assert_eq!(values.len(), 4);
            assert!(values.iter().zip(expected).all(|(got, expected)| (got - expected).abs() < 1e-4), "{values:?}");
        }
        let exact = Calibration::new(&[[PoseError::zeros(); 4]; 2], None, "", 0).unwrap();
        assert!(exact.toml.contains("[0.0001, 0.0001, 0.0001, 0.0001]"), "no sigma is zero: {}", exact.toml);
        assert!(exact.supported_coverage.nees.value.abs() < 1e-9, "{exact:?}");
    }

    #[test]
    fn errors_are_seen_from_the_camera() {
        // The camera looks to the right, along the anchor's x. It is thought 0.1 m too far along its own view.
        let turn = Vector3::new(0.0, std::f64::consts::FRAC_PI_2, 0.0);
        let at = |x: f64, turn: Vector3<f64>| {
            Transform::from_isometry_unchecked(Isometry3::new(Vector3::new(x, 0.0, 0.0), turn))
        };
        let (mut truth, mut estimate) = (WindowTrajectory::identity(), WindowTrajectory::identity());
        truth.later_mut()[2] = at(1.0, turn);
        estimate.later_mut()[2] = at(1.1, turn * 1.02);
        let errors = pose_errors(&truth, &estimate);
        let expected = Vector6::new(0.0, 0.0, 0.1, 0.0, 0.02 * std::f64::consts::FRAC_PI_2, 0.0);
        assert!((errors[2] - expected).norm() < 1e-9, "{}", errors[2]);
        assert!(errors[0].norm() < 1e-12);
    }

    #[test]
    fn the_distribution_function_is_that_of_the_tables() {
        for (x, expected) in [(0.0, 0.0), (5.348_12, 0.5), (12.5916, 0.95), (16.8119, 0.99)] {
            assert!((chi_square_6(x) - expected).abs() < 1e-5, "{x}");
        }
    }
}
