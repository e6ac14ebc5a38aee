//! The figures of one film: how far the path that was found is from the true one.

use geometry::metrics::{Alignment, Pairs, ape_rmse, rpe};
use geometry::{Camera, Odom, Transform, World};
use nalgebra::Isometry3;
use odometry::stream::{Basis, Pose};
use serde::{Deserialize, Serialize};

use crate::eval::covariance::{FilmCoverage, judge_relative};
use crate::eval::coverage::Judged;

/// Frames that a stream may take before it must have a pose: two views have no scale to be held against.
const FIRST_JUDGED: usize = 3;
/// Length, scene units, up to which a path is none.
const NO_PATH: f64 = 1e-6;
/// Stretches that drift of rotation is measured on, as a share of the path.
const STRETCH: f64 = 0.25;

/// A pose of a film, with what it is of.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// Frame number.
    pub frame: usize,
    pub pose: Pose,
    /// The place in the list of the keyframe that the pose is judged in, and `reference_from_camera`.
    pub reference: Option<(usize, Isometry3<f64>)>,
}

/// How far a path is from the true one. Scene units are metres where the film is metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PathFigures {
    /// Share of the frames from the fourth on with a pose that is not just the last motion going on.
    pub with_pose: Option<f64>,
    /// Share of the same frames whose pose is a turn alone.
    pub turning: Option<f64>,
    /// Keyframes.
    pub keyframes: usize,
    /// Times that tracks were lost and the map begun anew.
    pub losses: u32,
    /// Length of the true path, scene units.
    pub path_length: f64,
    /// RMSE of the camera centres after SE(3) alignment, scene units.
    pub ate_se3: Option<f64>,
    /// The same over the path's length.
    pub ate_se3_over_path: Option<f64>,
    /// RMSE of the camera centres after Sim(3) alignment, scene units.
    pub ate_sim3: Option<f64>,
    /// The same over the path's length.
    pub ate_sim3_over_path: Option<f64>,
    /// What one who never moves gets after alignment, over the path's length: RMSE of the true centres about their mean.
    /// A Sim(3) may shrink any path to a point, so that its ATE is never larger; near it, nothing was found.
    pub ate_still_over_path: Option<f64>,
    /// Why there is no ATE.
    pub no_ate: Option<String>,
    /// Median rotation error from one frame to the next, degrees.
    pub rpe_rotation_deg: Option<f64>,
    /// Rotation error a scene unit of the true path, degrees: the mean over all stretches of a quarter of the path.
    pub rotation_deg_a_unit: Option<f64>,
    /// Scale of the second half over the first: estimated over true step lengths, summed in each half of the steps.
    pub scale_second_half: Option<f64>,
    /// How well the covariances fit the errors.
    pub coverage: Option<FilmCoverage>,
}

impl PathFigures {
    /// Of the true pose of every frame and of those that were found, in the order of frames.
    pub(super) fn new(truth: &[Transform<World, Camera>], found: &[Found]) -> Self {
        let along = lengths(truth);
        let path_length = along.last().copied().unwrap_or(0.0);
        let reference: Vec<Transform<World, Camera>> = found.iter().map(|one| truth[one.frame]).collect();
        let estimate: Vec<Transform<Odom, Camera>> = found.iter().map(|one| one.pose.odom_from_camera).collect();
        let ate = |alignment| ape_rmse(&reference, &estimate, alignment);
        let (se3, sim3) = (ate(Alignment::Se3), ate(Alignment::Sim3));
        let no_ate = se3.as_ref().err().or(sim3.as_ref().err()).map(ToString::to_string);
        let over_path = |ate: Option<f64>| ate.filter(|_| path_length > NO_PATH).map(|ate| ate / path_length);
        let (se3, sim3) = (se3.ok(), sim3.ok());
        let judged = truth.len().saturating_sub(FIRST_JUDGED);
        let share = |holds: &dyn Fn(&Pose) -> bool| {
            let count = found.iter().filter(|one| one.frame >= FIRST_JUDGED && holds(&one.pose)).count();
            (judged > 0).then(|| count as f64 / judged as f64)
        };
        let rpe = rpe(&reference, &estimate, Alignment::None, Pairs::All { delta: 1 }).ok();
        Self {
            with_pose: share(&|pose| pose.basis != Basis::Motion),
            turning: share(&|pose| pose.basis == Basis::Turn),
            keyframes: found.iter().filter(|one| one.pose.is_keyframe).count(),
            losses: found.iter().map(|one| one.pose.segment).max().unwrap_or(0),
            path_length,
            ate_se3: se3,
            ate_se3_over_path: over_path(se3),
            ate_sim3: sim3,
            ate_sim3_over_path: over_path(sim3),
            ate_still_over_path: over_path(spread(&reference)),
            no_ate,
            rpe_rotation_deg: rpe.map(|errors| errors.rotation_deg.median),
            rotation_deg_a_unit: rotation_drift(&reference, &estimate, found, &along),
            scale_second_half: scale_drift(&reference, &estimate),
            coverage: FilmCoverage::new(&judged_poses(truth, found)),
        }
    }
}

/// RMSE of centres about their mean.
fn spread(poses: &[Transform<World, Camera>]) -> Option<f64> {
    let count = poses.len() as f64;
    let mean = poses.iter().map(Transform::translation).sum::<nalgebra::Vector3<f64>>() / count;
    let squares: f64 = poses.iter().map(|pose| (pose.translation() - mean).norm_squared()).sum();
    (!poses.is_empty()).then(|| (squares / count).sqrt())
}

/// The way from the first frame to each, along the path.
fn lengths(truth: &[Transform<World, Camera>]) -> Vec<f64> {
    let mut sum = 0.0;
    let mut lengths = Vec::with_capacity(truth.len());
    for (k, pose) in truth.iter().enumerate() {
        if k > 0 {
            sum += step(&truth[k - 1], pose);
        }
        lengths.push(sum);
    }
    lengths
}

fn step<F>(from: &Transform<F, Camera>, to: &Transform<F, Camera>) -> f64 {
    (to.translation() - from.translation()).norm()
}

fn rotation_drift(
    reference: &[Transform<World, Camera>],
    estimate: &[Transform<Odom, Camera>],
    found: &[Found],
    along: &[f64],
) -> Option<f64> {
    let at = |k: usize| along[found[k].frame];
    let stretch = STRETCH * along.last()?;
    if stretch <= STRETCH * NO_PATH {
        return None;
    }
    let (mut sum, mut count, mut to) = (0.0, 0usize, 0);
    for from in 0..found.len() {
        while to < found.len() && at(to) - at(from) < stretch {
            to += 1;
        }
        if to == found.len() {
            break;
        }
        let truth = reference[from].rotation().inverse() * reference[to].rotation();
        let own = estimate[from].rotation().inverse() * estimate[to].rotation();
        sum += truth.angle_to(&own).to_degrees() / (at(to) - at(from));
        count += 1;
    }
    (count > 0).then(|| sum / count as f64)
}

fn scale_drift(reference: &[Transform<World, Camera>], estimate: &[Transform<Odom, Camera>]) -> Option<f64> {
    let steps = reference.len().checked_sub(1)?;
    let scale = |range: std::ops::Range<usize>| {
        let own: f64 = range.clone().map(|k| step(&estimate[k], &estimate[k + 1])).sum();
        let truth: f64 = range.map(|k| step(&reference[k], &reference[k + 1])).sum();
        (truth > NO_PATH && own > 0.0).then(|| own / truth)
    };
    Some(scale(steps / 2..steps)? / scale(0..steps / 2)?)
}

/// Poses against their covariances: each in the keyframe that its covariance is against, the truth in the unit that gives
/// the ways from that keyframe to all frames up to this one the same root of the sum of squares. The last motion going on
/// is no measurement, and is left out.
fn judged_poses(truth: &[Transform<World, Camera>], found: &[Found]) -> Vec<(Judged, bool)> {
    let one = |(k, own): (usize, &Found)| {
        let (place, estimate) = own.reference.as_ref()?;
        let first = found.get(*place).filter(|_| own.pose.basis != Basis::Motion)?;
        let (mut length, mut said) = (0.0, 0.0);
        for other in &found[*place..=k] {
            length += step(&truth[first.frame], &truth[other.frame]).powi(2);
            said += step(&first.pose.odom_from_camera, &other.pose.odom_from_camera).powi(2);
        }
        let turned = own.pose.basis == Basis::Turn || said <= 0.0;
        let unit = if said > 0.0 && length > NO_PATH * NO_PATH { (said / length).sqrt() } else { 1.0 };
        let truth = truth[first.frame].inverse() * truth[own.frame];
        let judged = judge_relative(truth.isometry(), estimate, unit, &own.pose.covariance, turned)?;
        Some((judged, turned))
    };
    found.iter().enumerate().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use geometry::Stamp;
    use nalgebra::{Matrix6, Translation3, UnitQuaternion, Vector3};
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use training_data::random::normal;

    /// A circle of radius 2 about z, flown in `frames` frames, looking along the way.
    fn circle(frames: usize) -> Vec<Transform<World, Camera>> {
        (0..frames)
            .map(|k| {
                let angle = std::f64::consts::TAU * k as f64 / frames as f64;
                let place = Vector3::new(2.0 * angle.cos(), 2.0 * angle.sin(), 0.1 * (3.0 * angle).sin());
                let rotation = UnitQuaternion::from_scaled_axis(Vector3::new(0.0, 0.0, angle));
                Transform::from_isometry_unchecked(Isometry3::from_parts(Translation3::from(place), rotation))
            })
            .collect()
    }

    fn found(frame: usize, odom_from_camera: Isometry3<f64>) -> Found {
        let pose = Pose {
            stamp: Stamp::from_nanos(frame as i64),
            odom_from_camera: Transform::from_isometry_unchecked(odom_from_camera),
            covariance: Matrix6::identity(),
            reference: Stamp::default(),
            basis: Basis::Tracks,
            segment: 0,
            is_keyframe: frame.is_multiple_of(5),
            points: 100,
        };
        Found { frame, pose, reference: None }
    }

    /// The truth in another world and unit.
    fn elsewhere(truth: &[Transform<World, Camera>], scale: impl Fn(usize) -> f64) -> Vec<Found> {
        let world = Isometry3::new(Vector3::new(3.0, -1.0, 2.0), Vector3::new(0.4, -0.2, 1.0));
        let mut place = Vector3::zeros();
        let mut poses = Vec::new();
        for (k, pose) in truth.iter().enumerate() {
            if k > 0 {
                place += scale(k) * (pose.translation() - truth[k - 1].translation());
            }
            poses.push(found(k, world * Isometry3::from_parts(Translation3::from(place), pose.rotation())));
        }
        poses
    }

    #[test]
    fn a_path_in_a_unit_of_its_own_has_no_error_after_sim3_and_one_that_is_known_after_se3() {
        let truth = circle(200);
        let got = PathFigures::new(&truth, &elsewhere(&truth, |_| 0.5));
        assert!((got.path_length - 4.0 * std::f64::consts::PI).abs() < 0.4, "{got:?}");
        assert!(got.ate_sim3.unwrap() < 1e-9 && got.rpe_rotation_deg.unwrap() < 1e-6, "{got:?}");
        // Half the radius: every centre is half a radius off.
        let centred = (2.0f64.powi(2) + 0.5 * 0.1f64.powi(2)).sqrt() / 2.0;
        assert!((got.ate_se3.unwrap() - centred).abs() < 1e-6, "{got:?}");
        let still = got.ate_still_over_path.unwrap() * got.path_length;
        assert!((still - 2.0 * centred).abs() < 1e-6, "the radius, and the waves: {got:?}");
        let share = got.ate_se3_over_path.unwrap();
        assert!((share - centred / got.path_length).abs() < 1e-9 && got.no_ate.is_none(), "{got:?}");
        assert!((got.scale_second_half.unwrap() - 1.0).abs() < 1e-9, "{got:?}");
        assert!(got.rotation_deg_a_unit.unwrap() < 1e-5, "{got:?}");
        assert_eq!((got.with_pose, got.turning, got.keyframes, got.losses), (Some(1.0), Some(0.0), 40, 0));
    }

    #[test]
    fn scale_that_shrinks_and_rotation_that_drifts_are_told() {
        let truth = circle(201);
        let shrinking = PathFigures::new(&truth, &elsewhere(&truth, |k| if k <= 100 { 0.5 } else { 0.4 }));
        assert!((shrinking.scale_second_half.unwrap() - 0.8).abs() < 1e-9, "{shrinking:?}");
        assert!(shrinking.ate_sim3.unwrap() > 0.05, "one unit does not fit both halves: {shrinking:?}");
        // 0.05 degrees a frame about the axis of view, over steps of about 2 tau / 201.
        let mut turning = elsewhere(&truth, |_| 1.0);
        for (k, one) in turning.iter_mut().enumerate() {
            let roll = Isometry3::rotation(Vector3::new(0.0, 0.0, (0.05 * k as f64).to_radians()));
            one.pose.odom_from_camera = Transform::from_isometry_unchecked(one.pose.odom_from_camera.isometry() * roll);
        }
        let got = PathFigures::new(&truth, &turning);
        let expected = 0.05 * 200.0 / got.path_length;
        assert!((got.rotation_deg_a_unit.unwrap() / expected - 1.0).abs() < 0.05, "{expected} {got:?}");
        assert!((got.rpe_rotation_deg.unwrap() - 0.05).abs() < 1e-6, "{got:?}");
        assert!(got.ate_se3.unwrap() < 1e-9, "centres are where they were");
    }

    #[test]
    fn lost_frames_count_and_a_camera_that_stays_has_no_path() {
        let truth = circle(23);
        let mut poses = elsewhere(&truth, |_| 1.0);
        for (k, one) in poses.iter_mut().enumerate() {
            // Frame 1 is too early to count.
            one.pose.basis = match k {
                1 | 10..15 => Basis::Motion,
                15 => Basis::Turn,
                _ => Basis::Tracks,
            };
            one.pose.segment = u32::from(k >= 15);
        }
        poses.remove(20);
        let got = PathFigures::new(&truth, &poses);
        // Five of twenty went on as before, and one frame was not taken at all.
        assert!((got.with_pose.unwrap() - 0.7).abs() < 1e-12 && (got.turning.unwrap() - 0.05).abs() < 1e-12, "{got:?}");
        assert_eq!(got.losses, 1);
        let still = vec![Transform::identity(); 10];
        let poses: Vec<_> = (0..10).map(|k| found(k, Isometry3::identity())).collect();
        let got = PathFigures::new(&still, &poses);
        assert!(got.path_length < 1e-12 && got.ate_se3.is_none() && got.no_ate.is_some(), "{got:?}");
        assert_eq!((got.scale_second_half, got.rotation_deg_a_unit, got.rpe_rotation_deg), (None, None, Some(0.0)));
        let none = PathFigures::new(&still, &[]);
        assert_eq!((none.with_pose, none.rpe_rotation_deg, none.coverage), (Some(0.0), None, None));
    }

    #[test]
    fn covariances_of_poses_are_held_against_errors_drawn_from_them() {
        let truth = circle(1200);
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        // One keyframe, then nine frames in it, each with an error of its own, in half the unit.
        let (turn, shift) = (0.002, 0.0005);
        let mut covered = |claimed: f64, basis: Basis| {
            let mut poses: Vec<Found> = elsewhere(&truth, |_| 0.5);
            for k in 0..poses.len() {
                let first = k / 10 * 10;
                let mut draw = |sigma: f64| Vector3::from_fn(|_, _| sigma * normal(&mut rng));
                let step = Isometry3::new(draw(shift), draw(turn));
                let exact = poses[first].pose.odom_from_camera.inverse() * poses[k].pose.odom_from_camera;
                poses[k].reference = (k > first).then(|| (first, (step * exact.isometry().inverse()).inverse()));
                let (r, t) = ((claimed * turn).powi(2), (claimed * shift).powi(2));
                poses[k].pose.covariance = Matrix6::from_diagonal(&nalgebra::Vector6::new(r, r, r, t, t, t));
                poses[k].pose.basis = basis;
            }
            PathFigures::new(&truth, &poses).coverage
        };
        let right = covered(1.0, Basis::Tracks).unwrap();
        assert!(right.poses == 1080 && (right.nees.value - 6.0).abs() < 0.5, "{right:?}");
        assert!(
            (right.within_68.value - 0.68).abs() < 0.05 && (right.within_95.value - 0.95).abs() < 0.03,
            "{right:?}"
        );
        let sure = covered(0.5, Basis::Tracks).unwrap();
        assert!((sure.nees.value - 24.0).abs() < 2.0 && sure.within_68.high < 0.3, "{sure:?}");
        let turned = covered(1.0, Basis::Turn).unwrap();
        assert!(turned.turned == 1080 && (turned.nees.value - 6.0).abs() < 0.7, "{turned:?}");
        assert_eq!(covered(1.0, Basis::Motion), None);
    }
}
