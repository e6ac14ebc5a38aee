//! Whether the covariance that comes with an answer tells its errors.
//!
//! A claimed covariance is of a step from the left of `camera_from_anchor`, rotation before translation. One camera
//! cannot see scale: the exact window holds it, so that its covariance has no part along the translations. The truth is
//! brought to the answer's unit first, by the factor that gives both the same root of the sum of the squares of the
//! four translations, which to first order is what holding the scale means. Directions of no variance are left out (a
//! pseudo-inverse), and the degrees of freedom are those that remain.

use geometry::adjust::step_between;
use geometry::metrics::{Interval, Statistic};
use geometry::{WINDOW, WindowTrajectory};
use nalgebra::{DMatrix, DVector, Isometry3, Matrix3, Matrix6, Vector3, Vector6};
use odometry::window::{Carried, Motion, Solved};
use serde::{Deserialize, Serialize};

use super::coverage::{Coverage, Judged};
use super::{BOOTSTRAP_SEED, Outcome};

/// Frames of a window that have a covariance.
const FRAMES: usize = WINDOW - 1;
/// Eigenvalues of the matrix of correlations below this share of the largest are rounding: no variance.
const RANK_RATIO: f64 = 1e-9;
/// Length of the longest true translation, scene units, up to which a camera stays exactly where it is: what rounding
/// leaves of a synthetic one.
const EXACTLY_STILL: f64 = 1e-6;
/// 99 % of chi-square with three degrees of freedom.
const SIGNIFICANT_3: f64 = 11.344_866_730_144_37;
/// Frames of a film that are drawn together for an interval: neighbours have their errors in common.
const BLOCK: usize = 20;

/// The covariance that came with an answer.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    /// Of frames 1 to 4, 24 x 24, in the answer's unit.
    pub covariance: DMatrix<f64>,
    /// The answer says that no translation can be told: its rotations alone are judged.
    pub turned: bool,
    /// The answer has a unit of its own, and its covariance no part along the translations.
    pub scale_held: bool,
}

impl Claim {
    /// What an exact window says of itself.
    pub fn of(solved: &Solved) -> Self {
        Self {
            covariance: solved.covariance.clone(),
            turned: solved.motion == Motion::Turned,
            scale_held: solved.carried == Carried::Tracks,
        }
    }
}

impl Judged {
    /// `None` where the covariance is none.
    fn new(error: &DVector<f64>, covariance: &DMatrix<f64>) -> Option<Self> {
        let (square, rank) = mahalanobis(error, covariance)?;
        Some(Self { nees: 6.0 * square / rank as f64, level: chi_square(square, rank) })
    }

    /// Of a step, rotation before translation; of its rotation alone where `turned`.
    pub fn of_step(step: &Vector6<f64>, covariance: &Matrix6<f64>, turned: bool) -> Option<Self> {
        let size = if turned { 3 } else { 6 };
        let error = DVector::from_fn(size, |k, _| step[k]);
        Self::new(&error, &DMatrix::from_fn(size, size, |i, j| covariance[(i, j)]))
    }
}

/// The squared length of an error in units of its covariance, and how many degrees of freedom it has; `None` where the
/// matrix is not finite, has a negative variance, or no variance at all.
fn mahalanobis(error: &DVector<f64>, covariance: &DMatrix<f64>) -> Option<(f64, usize)> {
    if error.iter().chain(covariance.iter()).any(|value| !value.is_finite()) {
        return None;
    }
    let size = error.len();
    if (0..size).any(|k| covariance[(k, k)] < 0.0) {
        return None;
    }
    // Radians and lengths: correlations have no unit.
    let axes: Vec<usize> = (0..size).filter(|k| covariance[(*k, *k)] > 0.0).collect();
    let sigma: Vec<f64> = axes.iter().map(|k| covariance[(*k, *k)].sqrt()).collect();
    let correlation = DMatrix::from_fn(axes.len(), axes.len(), |i, j| {
        let (a, b) = (axes[i], axes[j]);
        0.5 * (covariance[(a, b)] + covariance[(b, a)]) / (sigma[i] * sigma[j])
    });
    if axes.is_empty() {
        return None;
    }
    let scaled = DVector::from_fn(axes.len(), |k, _| error[axes[k]] / sigma[k]);
    let eigen = correlation.symmetric_eigen();
    let floor = RANK_RATIO * eigen.eigenvalues.amax();
    let (mut square, mut rank) = (0.0, 0);
    for (value, vector) in eigen.eigenvalues.iter().zip(eigen.eigenvectors.column_iter()) {
        if *value > floor {
            square += vector.dot(&scaled).powi(2) / value;
            rank += 1;
        }
    }
    (rank > 0).then_some((square, rank))
}

/// The distribution function of chi-square: the lower incomplete gamma function P(dof / 2, x / 2) by its series.
pub(super) fn chi_square(x: f64, dof: usize) -> f64 {
    if x.is_nan() || x <= 0.0 || dof == 0 {
        return 0.0;
    }
    let (a, half) = (dof as f64 / 2.0, x / 2.0);
    // What is left above is below 1e-12.
    if half > a + 30.0 + 12.0 * a.sqrt() {
        return 1.0;
    }
    // ln of gamma(a), from gamma(1) = 1 or gamma(1/2) = sqrt(pi) upwards.
    let (mut at, mut ln_gamma) =
        if dof.is_multiple_of(2) { (1.0, 0.0) } else { (0.5, 0.5 * std::f64::consts::PI.ln()) };
    while at < a - 0.25 {
        ln_gamma += f64::ln(at);
        at += 1.0;
    }
    let (mut term, mut sum, mut n) = (1.0 / a, 1.0 / a, 0.0);
    while term > 1e-17 * sum {
        n += 1.0;
        term *= half / (a + n);
        sum += term;
    }
    (sum * (a * half.ln() - half - ln_gamma).exp()).min(1.0)
}

/// Root of the sum of the squares of the translations: the same from whichever camera they are seen.
fn size(window: &WindowTrajectory) -> f64 {
    window.anchor_from_camera().iter().map(|pose| pose.translation().norm_squared()).sum::<f64>().sqrt()
}

fn block(covariance: &DMatrix<f64>, k: usize) -> Matrix6<f64> {
    covariance.fixed_view::<6, 6>(6 * k, 6 * k).into_owned()
}

/// Frames 1 to 4 of an answer against its own covariance; `None` where that is none.
pub(super) fn judge(truth: &WindowTrajectory, estimate: &WindowTrajectory, claim: &Claim) -> Option<[Judged; FRAMES]> {
    if claim.covariance.shape() != (6 * FRAMES, 6 * FRAMES) {
        return None;
    }
    let (length, own) = (size(truth), size(estimate));
    let turned = claim.turned || (claim.scale_held && own <= 0.0);
    // A camera that stays has no length that could be compared.
    let unit = if claim.scale_held && own > 0.0 && length > EXACTLY_STILL { own / length } else { 1.0 };
    let truth = truth.scaled(unit);
    let one = |k: usize| {
        let [from, to] = [estimate, &truth].map(|window| *window.anchor_from_camera()[k + 1].inverse().isometry());
        Judged::of_step(&step_between(&from, &to), &block(&claim.covariance, k), turned)
    };
    let judged: Option<Vec<Judged>> = (0..FRAMES).map(one).collect();
    judged?.try_into().ok()
}

/// Whether an answer moves, and by its own covariance for sure, although the camera stays exactly where it is; `None`
/// where it does not stay. No variance at all counts as sure.
pub(super) fn invents(truth: &WindowTrajectory, estimate: &WindowTrajectory, claim: &Claim) -> Option<bool> {
    if !stays(truth) || claim.covariance.shape() != (6 * FRAMES, 6 * FRAMES) {
        return None;
    }
    let sure = |k: usize| {
        let t: Vector3<f64> = estimate.anchor_from_camera()[k + 1].inverse().translation();
        let covariance = block(&claim.covariance, k).fixed_view::<3, 3>(3, 3).into_owned();
        t.norm() > 0.0 && square_in_all(&t, &covariance) > SIGNIFICANT_3
    };
    Some(!claim.turned && (0..FRAMES).any(sure))
}

/// Whether a camera stays exactly where it is.
pub(super) fn stays(truth: &WindowTrajectory) -> bool {
    truth.anchor_from_camera().iter().all(|pose| pose.translation().norm() <= EXACTLY_STILL)
}

/// `t^T C^-1 t` where directions without variance count in full.
fn square_in_all(t: &Vector3<f64>, covariance: &Matrix3<f64>) -> f64 {
    let eigen = (0.5 * (covariance + covariance.transpose())).symmetric_eigen();
    let floor = (1e-12 * eigen.eigenvalues.amax()).max(f64::MIN_POSITIVE);
    let along = |k: usize| eigen.eigenvectors.column(k).dot(t).powi(2) / eigen.eigenvalues[k].max(floor);
    (0..3).map(along).sum()
}

/// How well answers' own covariances fit their errors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OwnCoverage {
    /// Windows whose answer has a covariance.
    pub windows: usize,
    /// Those among them that say that no translation can be told: three degrees of freedom, of rotation.
    pub turned: usize,
    /// NEES is brought to six degrees of freedom where fewer were judged.
    pub coverage: Coverage,
    /// Median NEES of all poses, which a few gross errors do not move: about 5.3 where the covariance is right.
    pub nees_median: f64,
}

impl OwnCoverage {
    /// `None` where no answer has a covariance.
    pub(super) fn new(outcomes: &[Outcome]) -> Option<Self> {
        let of_one = |outcome: &Outcome| {
            let (estimate, claim) = (outcome.estimate.trajectory.as_ref()?, outcome.estimate.claim.as_ref()?);
            Some((judge(&outcome.truth, estimate, claim)?, claim.turned))
        };
        let (judged, turned): (Vec<_>, Vec<bool>) = outcomes.iter().filter_map(of_one).unzip();
        Some(Self {
            windows: judged.len(),
            turned: turned.iter().filter(|turned| **turned).count(),
            coverage: Coverage::of(&judged, BOOTSTRAP_SEED)?,
            nees_median: median(judged.iter().flatten())?,
        })
    }
}

fn median<'a>(judged: impl Iterator<Item = &'a Judged>) -> Option<f64> {
    let mut nees: Vec<f64> = judged.map(|pose| pose.nees).collect();
    nees.sort_by(f64::total_cmp);
    nees.get(nees.len() / 2).copied()
}

/// Answers that move where the camera does not: those of the synthetic strata `rotation` and `still` above all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Invented {
    /// Windows whose camera stays exactly where it is.
    pub still_windows: usize,
    /// Those of them with an answer that has a covariance.
    pub answered: usize,
    /// Those of these with a translation beyond its own 99 % region in any frame.
    pub invented: usize,
    /// Their share of the answered.
    pub share: Option<Interval>,
}

impl Invented {
    /// `None` where no camera stays, or no answer has a covariance.
    pub(super) fn new(outcomes: &[Outcome]) -> Option<Self> {
        let still: Vec<&Outcome> = outcomes.iter().filter(|outcome| stays(&outcome.truth)).collect();
        let of_one = |outcome: &&Outcome| {
            let (estimate, claim) = (outcome.estimate.trajectory.as_ref()?, outcome.estimate.claim.as_ref()?);
            Some(f64::from(u8::from(invents(&outcome.truth, estimate, claim)?)))
        };
        let invented: Vec<f64> = still.iter().filter_map(of_one).collect();
        (!invented.is_empty()).then(|| Self {
            still_windows: still.len(),
            answered: invented.len(),
            invented: invented.iter().filter(|one| **one > 0.0).count(),
            share: Statistic::new(&invented, BOOTSTRAP_SEED).mean,
        })
    }
}

/// How well the covariances of a film's poses fit their errors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FilmCoverage {
    /// Poses that could be judged.
    pub poses: usize,
    /// Those among them that are a turn alone: three degrees of freedom.
    pub turned: usize,
    /// Mean NEES, brought to six degrees of freedom; intervals are over blocks of 20 frames.
    pub nees: Interval,
    /// Median NEES, which a few gross errors do not move: about 5.3 where the covariance is right. Of several films the
    /// median of theirs.
    pub nees_median: f64,
    /// Share of the poses within the 68 % region.
    pub within_68: Interval,
    /// Share of the poses within the 95 % region.
    pub within_95: Interval,
}

impl FilmCoverage {
    /// Of poses in their order, each with whether it is a turn alone; `None` without any.
    pub(super) fn new(judged: &[(Judged, bool)]) -> Option<Self> {
        let mean = |of: &dyn Fn(&Judged) -> f64| {
            let blocks = judged.chunks(BLOCK);
            let means: Vec<f64> =
                blocks.map(|block| block.iter().map(|(pose, _)| of(pose)).sum::<f64>() / block.len() as f64).collect();
            let drawn = Statistic::new(&means, BOOTSTRAP_SEED).mean?;
            // The last block may be a short one: the value itself is that of all poses.
            let value = judged.iter().map(|(pose, _)| of(pose)).sum::<f64>() / judged.len() as f64;
            Some(Interval { value, low: drawn.low.min(value), high: drawn.high.max(value) })
        };
        let within = |region: f64| mean(&move |pose| f64::from(u8::from(pose.level <= region)));
        Some(Self {
            poses: judged.len(),
            turned: judged.iter().filter(|(_, turned)| *turned).count(),
            nees: mean(&|pose| pose.nees)?,
            nees_median: median(judged.iter().map(|(pose, _)| pose))?,
            within_68: within(0.68)?,
            within_95: within(0.95)?,
        })
    }
}

impl FilmCoverage {
    /// Of several films: figures are weighted by their poses, and films are drawn for the intervals.
    pub(super) fn over<'a>(films: impl Iterator<Item = &'a Self>) -> Option<Self> {
        let films: Vec<&Self> = films.collect();
        let poses: usize = films.iter().map(|film| film.poses).sum();
        let mean = |of: fn(&Self) -> f64| {
            // Weighted, the mean over films is the mean over poses.
            let share = |film: &&Self| of(film) * (film.poses * films.len()) as f64 / poses as f64;
            Statistic::new(&films.iter().map(share).collect::<Vec<_>>(), BOOTSTRAP_SEED).mean
        };
        Some(Self {
            poses,
            turned: films.iter().map(|film| film.turned).sum(),
            nees: mean(|film| film.nees.value)?,
            nees_median: Statistic::new(&films.iter().map(|film| film.nees_median).collect::<Vec<_>>(), BOOTSTRAP_SEED)
                .median?
                .value,
            within_68: mean(|film| film.within_68.value)?,
            within_95: mean(|film| film.within_95.value)?,
        })
    }
}

/// The pose of a frame in an earlier one, `reference_from_camera`, against its covariance, with `unit` the answer's
/// units for one of the truth.
pub(super) fn judge_relative(
    truth: &Isometry3<f64>,
    estimate: &Isometry3<f64>,
    unit: f64,
    covariance: &Matrix6<f64>,
    turned: bool,
) -> Option<Judged> {
    let mut truth = truth.inverse();
    truth.translation.vector *= unit;
    Judged::of_step(&step_between(&estimate.inverse(), &truth), covariance, turned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use geometry::{Anchor, Camera, Transform};
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use training_data::random::normal;

    fn truth() -> WindowTrajectory {
        WindowTrajectory::from_later(std::array::from_fn(|k| {
            let i = (k + 1) as f64;
            let (t, r) = (Vector3::new(0.1, 0.03 * i, -0.04), Vector3::new(0.01, 0.05, -0.02));
            Transform::from_isometry_unchecked(Isometry3::new(t * i, r * i))
        }))
    }

    /// The covariance of 24 unknowns with sigmas of their own that hang together, without a part along `along`.
    fn covariance(along: Option<&DVector<f64>>) -> DMatrix<f64> {
        let root = DMatrix::from_fn(24, 24, |i, j| {
            let size = if i % 6 < 3 { 0.002 } else { 0.01 };
            let mixed = (((i * 7 + j * 13) % 11) as f64 - 5.0) / 12.0;
            size * (1.0 + i as f64 / 24.0) * if i == j { 1.0 } else { mixed / 3.0 }
        });
        let full = &root * root.transpose();
        let Some(along) = along else { return full };
        let unit = along.normalize();
        let rest = DMatrix::identity(24, 24) - &unit * unit.transpose();
        &rest * full * &rest
    }

    /// What an adjustment holds where it holds the scale.
    fn translations(window: &WindowTrajectory) -> DVector<f64> {
        DVector::from_fn(24, |k, _| {
            let t = window.anchor_from_camera()[k / 6 + 1].inverse().translation();
            if k % 6 < 3 { 0.0 } else { t[k % 6 - 3] }
        })
    }

    /// The truth, stepped from the left by a draw of this covariance.
    fn drawn(truth: &WindowTrajectory, covariance: &DMatrix<f64>, rng: &mut ChaCha8Rng) -> WindowTrajectory {
        let eigen = covariance.clone().symmetric_eigen();
        let z = DVector::from_fn(24, |k, _| eigen.eigenvalues[k].max(0.0).sqrt() * normal(rng));
        let step = &eigen.eigenvectors * z;
        let mut window = *truth;
        for k in 0..FRAMES {
            let own =
                |first: usize| Vector3::new(step[6 * k + first], step[6 * k + first + 1], step[6 * k + first + 2]);
            let step = Isometry3::new(own(3), own(0));
            let camera_from_anchor = step * window.anchor_from_camera()[k + 1].inverse().isometry();
            window.later_mut()[k] = Transform::<Camera, Anchor>::from_isometry_unchecked(camera_from_anchor).inverse();
        }
        window
    }

    /// Coverage of 600 windows whose errors are drawn from `of` and claimed to be `claimed`; poses are given in a unit
    /// of their own where the scale is held.
    fn coverage(of: &DMatrix<f64>, claimed: &DMatrix<f64>, scale_held: bool) -> Coverage {
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        let judged: Vec<_> = (0..600)
            .map(|_| {
                let estimate = drawn(&truth(), of, &mut rng);
                let (estimate, covariance) = if scale_held {
                    let mut covariance = claimed.clone();
                    for k in (0..24).filter(|k| k % 6 >= 3) {
                        covariance.row_mut(k).scale_mut(7.0);
                        covariance.column_mut(k).scale_mut(7.0);
                    }
                    (estimate.scaled(7.0), covariance)
                } else {
                    (estimate, claimed.clone())
                };
                let claim = Claim { covariance, turned: false, scale_held };
                judge(&truth(), &estimate, &claim).unwrap()
            })
            .collect();
        Coverage::of(&judged, 0).unwrap()
    }

    #[test]
    fn the_covariance_that_errors_are_drawn_from_covers_them() {
        let full = covariance(None);
        let held = covariance(Some(&translations(&truth())));
        for (covariance, scale_held) in [(&full, false), (&held, true)] {
            let fit = coverage(covariance, covariance, scale_held);
            assert!((fit.nees.value - 6.0).abs() < 0.4, "{scale_held}: {fit:?}");
            assert!((fit.within_68.value - 0.68).abs() < 0.04, "{scale_held}: {fit:?}");
            assert!((fit.within_95.value - 0.95).abs() < 0.02, "{scale_held}: {fit:?}");
            let sure = coverage(covariance, &(covariance / 4.0), scale_held);
            assert!((sure.nees.value - 24.0).abs() < 2.0 && sure.within_95.high < 0.5, "{scale_held}: {sure:?}");
            let timid = coverage(covariance, &(covariance * 4.0), scale_held);
            assert!(timid.nees.high < 2.0 && timid.within_68.low > 0.97, "{scale_held}: {timid:?}");
        }
        // A unit of one's own is no error where the scale is held, and a large one where it is not.
        let wrong = Claim { covariance: held.clone(), turned: false, scale_held: false };
        assert!(judge(&truth(), &truth().scaled(7.0), &wrong).unwrap().iter().all(|pose| pose.level > 0.999));
        let right = Claim { covariance: held, turned: false, scale_held: true };
        assert!(judge(&truth(), &truth().scaled(7.0), &right).unwrap().iter().all(|pose| pose.nees < 1e-6));
    }

    #[test]
    fn directions_without_variance_are_left_out_and_counted() {
        let direction = Vector3::new(1.0, 2.0, -2.0) / 3.0;
        let plane = Matrix3::identity() - direction * direction.transpose();
        let covariance = DMatrix::from_fn(4, 4, |i, j| if i < 3 && j < 3 { 1e-6 * plane[(i, j)] } else { 0.0 });
        let error = DVector::from_vec(vec![2e-3 / 3.0, -2e-3 / 3.0, -1e-3 / 3.0, 9.0]);
        let (square, rank) = mahalanobis(&error, &covariance).unwrap();
        // 1 mm across the direction that is held.
        assert!(rank == 2 && (square - 1.0).abs() < 1e-6, "{square} {rank}");
        assert_eq!(mahalanobis(&error, &DMatrix::zeros(4, 4)), None);
        assert_eq!(mahalanobis(&error, &DMatrix::from_element(4, 4, f64::NAN)), None);
        assert_eq!(mahalanobis(&error, &-DMatrix::identity(4, 4)), None);
    }

    #[test]
    fn a_turn_is_judged_by_its_rotation_alone() {
        let mut turn = truth();
        for pose in turn.later_mut() {
            *pose = Transform::from_isometry_unchecked(Isometry3::from_parts(Default::default(), pose.rotation()));
        }
        let claim = Claim { covariance: covariance(None), turned: true, scale_held: true };
        assert!(judge(&truth(), &turn, &claim).unwrap().iter().all(|pose| pose.nees < 1e-9));
        let off = judge(&truth(), &WindowTrajectory::identity(), &claim).unwrap();
        assert!(off[3].level > 0.999, "{off:?}");
    }

    #[test]
    fn an_invented_translation_is_one_that_its_own_covariance_is_sure_of() {
        let still = WindowTrajectory::identity();
        let mut moved = still;
        moved.later_mut()[1] = Transform::from_isometry_unchecked(Isometry3::translation(0.0, 0.0, 0.05));
        // 5 cm are five sigmas or one, or of no variance at all.
        let claim = |sigma: f64| Claim {
            covariance: DMatrix::identity(24, 24) * sigma * sigma,
            turned: false,
            scale_held: true,
        };
        for (sigma, expected) in [(0.01, true), (0.0149, false), (0.05, false), (0.0, true)] {
            assert_eq!(invents(&still, &moved, &claim(sigma)), Some(expected), "{sigma}");
        }
        assert_eq!(invents(&still, &still, &claim(0.0)), Some(false), "who stays invents nothing");
        assert_eq!(invents(&still, &moved, &Claim { turned: true, ..claim(0.01) }), Some(false));
        assert_eq!(invents(&truth(), &moved, &claim(0.01)), None, "a camera that moves");
    }

    #[test]
    fn the_distribution_function_is_that_of_the_tables() {
        for (x, dof, expected) in [
            (0.0, 3, 0.0),
            (2.365_97, 3, 0.5),
            (7.814_73, 3, 0.95),
            (SIGNIFICANT_3, 3, 0.99),
            (12.5916, 6, 0.95),
            (3.841_46, 1, 0.95),
            (35.1725, 23, 0.95),
            (41.6384, 23, 0.99),
            (1e5, 6, 1.0),
        ] {
            assert!((chi_square(x, dof) - expected).abs() < 1e-5, "{x} {dof}: {}", chi_square(x, dof));
        }
    }

    #[test]
    fn the_poses_of_a_film_are_judged_in_blocks() {
        let pose = |nees: f64, level: f64| (Judged { nees, level }, false);
        let judged: Vec<_> = (0..50).map(|k| if k < 40 { pose(6.0, 0.5) } else { pose(60.0, 1.0) }).collect();
        let got = FilmCoverage::new(&judged).unwrap();
        assert!((got.nees_median - 6.0).abs() < 1e-12, "ten gross errors of fifty: {got:?}");
        assert!((got.nees.value - 16.8).abs() < 1e-9 && (got.within_68.value - 0.8).abs() < 1e-12, "{got:?}");
        assert!(got.within_68.low < 0.01 && got.within_68.high > 0.99, "three blocks tell little: {got:?}");
        assert_eq!(FilmCoverage::new(&[]), None);
        // A film of fifty poses counts for more than one of ten.
        let other = FilmCoverage::new(&[pose(6.0, 0.5); 10]).unwrap();
        let both = FilmCoverage::over([&got, &other].into_iter()).unwrap();
        assert!(both.poses == 60 && (both.nees.value - 15.0).abs() < 1e-9, "{both:?}");
        assert_eq!(FilmCoverage::over(std::iter::empty()), None);
    }
}
