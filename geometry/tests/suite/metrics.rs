//! The errors of windows: known values, undefined cases, invariances, summaries.

use crate::common::{isometry, rotation, vector, window};
use geometry::metrics::{
    Alignment, MAG_LOG_CAP, NO_DIRECTION_TDE_DEG, Pairs, ape, ape_rmse, direction_error_deg, magnitude_log_error,
    rotation_error_deg, rpe,
};
use geometry::{Camera, Error, SceneScale, Summary, Transform, WINDOW, WindowErrors, WindowTrajectory, World};
use nalgebra::{Isometry3, Translation3, UnitQuaternion, Vector3};
use proptest::prelude::*;

fn scale() -> SceneScale {
    SceneScale::default()
}

/// A window from centres, with the same turn about y added at each frame.
fn path(centres: [[f64; 3]; WINDOW], turn_deg: f64) -> WindowTrajectory {
    WindowTrajectory::new(std::array::from_fn(|k| {
        let turn = UnitQuaternion::from_scaled_axis(Vector3::y() * turn_deg.to_radians() * k as f64);
        Transform::from_isometry_unchecked(Isometry3::from_parts(Translation3::from(Vector3::from(centres[k])), turn))
    }))
    .unwrap()
}

fn straight(speed: f64) -> WindowTrajectory {
    path(std::array::from_fn(|k| [0.0, 0.0, speed * k as f64]), 0.0)
}

fn curve(scale: f64) -> WindowTrajectory {
    path(std::array::from_fn(|k| [0.1 * scale * (k * k) as f64, 0.0, scale * k as f64]), 2.0)
}

fn close(a: f64, b: f64, tolerance: f64) -> bool {
    (a - b).abs() <= tolerance
}

proptest! {
    #[test]
    fn equal_windows_have_no_error(window in window()) {
        let errors = WindowErrors::new(&window, &window, scale());
        for value in [errors.rre_deg, errors.rte_abs, errors.ate_first_frame, errors.consecutive.rte_abs] {
            prop_assert!(value < 1e-6, "{:?}", errors);
        }
        for value in [errors.ate, errors.ate_sim3] {
            prop_assert!(value < 1e-9, "{:?}", errors);
        }
        for value in [errors.rte_rel, errors.mag_log, errors.tde_deg, errors.consecutive.tde_deg] {
            prop_assert!(value.unwrap() < 1e-5, "{:?}", errors);
        }
        prop_assert_eq!(errors.tde_found_pairs, 4);
        prop_assert!(close(errors.auc(5.0), 1.0, 1e-6));
    }

    #[test]
    fn the_worlds_do_not_matter(a in window(), b in window(), one in isometry(), other in isometry()) {
        let moved = |window: &WindowTrajectory, world: &Isometry3<f64>| {
            WindowTrajectory::from_world(&window.anchor_from_camera().map(|pose| Transform::from_isometry_unchecked(world * pose.isometry())))
        };
        let before = WindowErrors::new(&a, &b, scale());
        let after = WindowErrors::new(&moved(&a, &one), &moved(&b, &other), scale());
        for (x, y) in [
            (before.rre_deg, after.rre_deg),
            (before.rte_abs, after.rte_abs),
            (before.mag_log.unwrap(), after.mag_log.unwrap()),
            (before.tde_deg.unwrap(), after.tde_deg.unwrap()),
            (before.ate, after.ate),
            (before.ate_sim3, after.ate_sim3),
            (before.auc(30.0), after.auc(30.0)),
        ] {
            prop_assert!(close(x, y, 1e-6), "{} {}", x, y);
        }
    }

    #[test]
    fn alignment_helps_and_scale_helps_more(a in window(), b in window()) {
        let errors = WindowErrors::new(&a, &b, scale());
        prop_assume!(!errors.collinear);
        // Centres are compared after SE(3), which minimizes over what the first frame fixes.
        prop_assert!(errors.ate <= errors.ate_first_frame + 1e-9);
        prop_assert!(errors.ate_sim3 <= errors.ate + 1e-9);
        prop_assert!(errors.rte_abs > 0.0);
    }

    #[test]
    fn a_change_of_units_scales_lengths_alone(a in window(), b in window(), factor in 2.0..100.0_f64) {
        let before = WindowErrors::new(&a, &b, scale());
        let after = WindowErrors::new(&a.scaled(factor), &b.scaled(factor), scale());
        prop_assert!(close(after.rre_deg, before.rre_deg, 1e-9));
        prop_assert!(close(after.tde_deg.unwrap(), before.tde_deg.unwrap(), 1e-6));
        prop_assert!(close(after.mag_log.unwrap(), before.mag_log.unwrap(), 1e-9));
        prop_assert!(close(after.rte_rel.unwrap(), before.rte_rel.unwrap(), 1e-9));
        prop_assert!(close(after.rte_abs, before.rte_abs * factor, 1e-9 * factor));
        prop_assert!(close(after.ate, before.ate * factor, 1e-9 * factor));
        // Another unit in the estimate alone shows in mag_log, not in the directions or under Sim(3).
        let other = WindowErrors::new(&a, &a.scaled(factor), scale());
        prop_assert!(close(other.mag_log.unwrap(), factor.ln(), 1e-9));
        prop_assert!(close(other.rte_rel.unwrap(), factor - 1.0, 1e-9 * factor));
        prop_assert!(other.tde_deg.unwrap() < 1e-5 && other.ate_sim3 < 1e-9);
    }

    #[test]
    fn a_turn_of_the_camera_is_its_rre(a in window(), axis in vector(1.0), degrees in 0.1..179.0_f64) {
        prop_assume!(axis.norm() > 0.1);
        let turn = UnitQuaternion::from_scaled_axis(axis.normalize() * degrees.to_radians());
        let mut poses = *a.anchor_from_camera();
        for pose in &mut poses[1..] {
            *pose = *pose * Transform::<Camera, Camera>::from_isometry_unchecked(Isometry3::from_parts(Vector3::zeros().into(), turn));
        }
        let errors = WindowErrors::new(&a, &WindowTrajectory::new(poses).unwrap(), scale());
        prop_assert!(close(errors.rre_deg, degrees, 1e-9));
        prop_assert!(errors.rte_abs < 1e-12);
    }

    #[test]
    fn angles_are_angles(a in rotation(3.0), axis in vector(1.0), degrees in 0.0..180.0_f64, v in vector(1.0)) {
        prop_assume!(axis.norm() > 0.1 && v.cross(&axis).norm() > 0.01);
        let turn = UnitQuaternion::from_scaled_axis(axis.normalize() * degrees.to_radians());
        prop_assert!(close(rotation_error_deg(&a, &(a * turn)), degrees, 1e-6));
        let across = v.cross(&axis);
        prop_assert!(close(direction_error_deg(&across, &(turn * across * 3.0)).unwrap(), degrees, 1e-6));
    }

    #[test]
    fn aucs_are_ordered_shares(windows in prop::collection::vec((window(), window(), any::<bool>()), 1..6)) {
        let errors: Vec<_> = windows.iter()
            .map(|(a, b, parsed)| parsed.then(|| WindowErrors::new(a, b, scale()))).collect();
        let summary = Summary::new(&errors, 1);
        let [a, b, c] = [summary.auc_5, summary.auc_10, summary.auc_30].map(|auc| auc.unwrap());
        prop_assert!(0.0 <= a.value && a.value <= b.value && b.value <= c.value && c.value <= 1.0);
        for auc in [a, b, c] {
            prop_assert!(0.0 <= auc.low && auc.low <= auc.high && auc.high <= 1.0);
        }
        prop_assert!(c.value <= summary.parsed as f64 / summary.windows as f64 + 1e-12);
    }
}

#[test]
fn small_angles_keep_their_digits() {
    let x = Vector3::x();
    let turned = Vector3::new(1.0, 1e-9, 0.0);
    let tde = direction_error_deg(&x, &turned).unwrap();
    assert!(close(tde.to_radians() / 1e-9, 1.0, 1e-6), "{tde}");
    assert_eq!(direction_error_deg(&x, &-x), Some(180.0));
    assert_eq!(direction_error_deg(&(x * 1e-200), &(x * 1e200)), Some(0.0));
    assert_eq!(direction_error_deg(&x, &Vector3::zeros()), None);
    assert_eq!(direction_error_deg(&Vector3::new(f64::NAN, 1.0, 0.0), &x), None);
}

#[test]
fn known_errors_of_a_straight_window() {
    let errors = WindowErrors::new(&straight(1.0), &straight(2.0), scale());
    assert!(close(errors.rte_abs, 2.5, 1e-12)); // mean of 1, 2, 3, 4
    assert!(close(errors.rte_rel.unwrap(), 1.0, 1e-12));
    assert!(close(errors.mag_log.unwrap(), 2.0_f64.ln(), 1e-12));
    assert_eq!((errors.rre_deg, errors.tde_deg), (0.0, Some(0.0)));
    assert!(errors.collinear);
    assert_eq!(errors.ate, errors.ate_first_frame);
    assert!(close(errors.ate, 6.0_f64.sqrt(), 1e-12)); // mean of 0, 1, 4, 9, 16
    assert!(errors.ate_sim3 < 1e-12);
    assert!(close(errors.consecutive.rte_abs, 1.0, 1e-12));
    let opposite = WindowErrors::new(&straight(1.0), &straight(-1.0), scale());
    assert_eq!(opposite.tde_deg, Some(180.0), "signs are not folded");
    assert_eq!(opposite.auc(30.0), 0.0);
    // The best scale is not negative: the estimate shrinks to the origin.
    assert!(close(opposite.ate_sim3, 6.0_f64.sqrt(), 1e-12));
}

#[test]
fn consecutive_pairs_see_a_step_once() {
    // A turn about the axis of the path's own turns, from frame 1 on: only the pair (0, 1) is wrong.
    let mut poses = *curve(1.0).anchor_from_camera();
    let turn = Transform::<Camera, Camera>::from_isometry_unchecked(Isometry3::rotation(Vector3::y() * 0.1));
    for pose in &mut poses[1..] {
        *pose = *pose * turn;
    }
    let estimate = WindowTrajectory::new(poses).unwrap();
    let errors = WindowErrors::new(&curve(1.0), &estimate, scale());
    let degrees = 0.1_f64.to_degrees();
    assert!(close(errors.rre_deg, degrees, 1e-9));
    assert!(close(errors.consecutive.rre_deg, degrees / 4.0, 1e-6));
    // The later three steps are seen from a camera that looks 0.1 rad aside.
    assert!(close(errors.consecutive.tde_deg.unwrap(), degrees * 3.0 / 4.0, 1e-6));
    assert!(errors.tde_deg.unwrap() < 1e-6);
}

#[test]
fn known_ate_of_a_bent_window() {
    let bent = curve(1.0);
    assert!(!WindowErrors::new(&bent, &bent, scale()).collinear);
    // A mirrored curve in its plane is a half turn about z away: SE(3) alignment removes it, the first frame does not.
    let mut poses = *bent.anchor_from_camera();
    for pose in &mut poses {
        let t = pose.translation();
        *pose = Transform::from_isometry_unchecked(Isometry3::from_parts(
            Translation3::new(-t.x, t.y, t.z),
            pose.rotation(),
        ));
    }
    let errors = WindowErrors::new(&bent, &WindowTrajectory::new(poses).unwrap(), scale());
    assert!(errors.ate < 1e-9, "{}", errors.ate);
    // Twice x = 0.1 k^2: squares 0.04 (0 + 1 + 16 + 81 + 256), over five.
    assert!(close(errors.ate_first_frame, (0.04 * 354.0 / 5.0_f64).sqrt(), 1e-12));
    assert_eq!(errors.rre_deg, 0.0);
    // An estimate on a line flags the window as well.
    assert!(WindowErrors::new(&bent, &straight(1.0), scale()).collinear);
}

#[test]
fn an_estimate_that_stands_still_has_finite_errors() {
    let errors = WindowErrors::new(&curve(1.0), &WindowTrajectory::identity(), scale());
    assert_eq!(errors.tde_deg, Some(NO_DIRECTION_TDE_DEG));
    assert_eq!(errors.mag_log, Some(MAG_LOG_CAP));
    assert_eq!(errors.rte_rel, Some(1.0));
    assert!(errors.collinear && errors.ate_sim3.is_finite());
    // Below a thousandth of the ground truth a direction counts for nothing, above it does.
    let tde = |factor| WindowErrors::new(&curve(1.0), &curve(1.0).scaled(factor), scale()).tde_deg.unwrap();
    assert_eq!(tde(0.9e-3), 90.0);
    assert!(tde(1.1e-3) < 1e-6);
    assert!(close(magnitude_log_error(1.0, 1e-3), MAG_LOG_CAP, 1e-12));
    assert_eq!(magnitude_log_error(1.0, 1e9), MAG_LOG_CAP);
}

#[test]
fn still_pairs_are_counted_apart() {
    // Frames 1 and 2 have moved less than the threshold, 3 and 4 more.
    let truth = path([0.0, 4e-4, 9e-4, 2e-3, 3e-3].map(|z| [0.0, 0.0, z]), 1.0);
    let estimate = path([0.0, 1.0, 1.0, 2e-3, 0.0].map(|x| [x, 0.0, 0.0]), 1.0);
    let errors = WindowErrors::new(&truth, &estimate, scale());
    assert_eq!((errors.still_pairs, errors.tde_found_pairs), (2, 0));
    assert!(close(errors.tde_deg.unwrap(), 90.0, 1e-9));
    assert!(close(errors.mag_log.unwrap(), 0.5 * MAG_LOG_CAP, 1e-9));
    assert!(!errors.is_still());
    // The same motion is still where a unit is a metre.
    let metric = SceneScale { metric: true, median_depth: None };
    let errors = WindowErrors::new(&truth, &estimate, metric);
    assert_eq!((errors.tde_deg, errors.mag_log, errors.rte_rel), (None, None, None));
    assert!(errors.is_still());
    assert!(close(errors.estimate_norm, 2.002 / 4.0, 1e-12));
    // Still pairs are judged by their rotation alone in AUC.
    assert!(close(errors.auc(5.0), 1.0, 1e-9));
}

#[test]
fn the_still_threshold_is_the_largest_of_three() {
    let threshold = |metric, median_depth| SceneScale { metric, median_depth }.still_threshold();
    assert_eq!(threshold(false, None), 1e-3);
    assert_eq!(threshold(true, None), 1e-2);
    assert!(close(threshold(true, Some(4.0)), 2e-2, 1e-15));
    assert_eq!(threshold(true, Some(1.0)), 1e-2);
    assert_eq!(threshold(false, Some(f64::NAN)), 1e-3);
    assert_eq!(threshold(false, Some(f64::INFINITY)), 1e-3);
}

#[test]
fn auc_is_the_area_under_the_recall() {
    // Pairs i < j of a window that turns 1 degree a frame too far have errors j - i: 4x1, 3x2, 2x3, 1x4 degrees.
    let truth = path([[0.0; 3]; WINDOW], 0.0);
    let estimate = path([[0.0; 3]; WINDOW], 1.0);
    let errors = WindowErrors::new(&truth, &estimate, scale());
    // Recall at an error x, summed in fine steps.
    let steps = 50_000;
    let area = (0..steps)
        .map(|k| 5.0 * (f64::from(k) + 0.5) / f64::from(steps))
        .map(|x| errors.pairs.iter().filter(|pair| pair.pose_error_deg() <= x).count() as f64 / 10.0)
        .sum::<f64>()
        / f64::from(steps);
    assert!(close(errors.auc(5.0), area, 1e-4), "{area}");
    assert!(close(errors.auc(5.0), 0.6, 1e-9));
}

#[test]
fn a_summary_counts_all_windows() {
    let good = WindowErrors::new(&curve(1.0), &curve(1.0), scale());
    let double = WindowErrors::new(&curve(1.0), &curve(2.0), scale());
    let line = WindowErrors::new(&straight(1.0), &straight(3.0), scale());
    let still = WindowErrors::new(&WindowTrajectory::identity(), &WindowTrajectory::identity(), scale());
    let all = [Some(good), None, Some(double), Some(line), Some(still), None];
    let summary = Summary::new(&all, 7);
    assert_eq!((summary.windows, summary.parsed, summary.pairs), (6, 4, 16));
    assert_eq!((summary.still_pairs, summary.still_windows, summary.collinear_windows), (4, 1, 2));
    assert_eq!((summary.rre_deg.count, summary.mag_log.count), (4, 3));
    assert!(close(summary.mag_log.mean.unwrap().value, (2.0_f64.ln() + 3.0_f64.ln()) / 3.0, 1e-9));
    assert!(close(summary.mag_log.median.unwrap().value, 2.0_f64.ln(), 1e-9));
    assert_eq!(summary.tde_within_15_share, Some(1.0));
    // Four perfect windows, two that did not parse.
    assert!(close(summary.auc_30.unwrap().value, 4.0 / 6.0, 1e-6));
    assert!(close(summary.auc_parsed[2].unwrap().value, 1.0, 1e-6));
    assert_eq!(summary, Summary::new(&all, 7));
    let mean = |seed| Summary::new(&all, seed).rte_abs.mean.unwrap();
    assert_eq!(mean(7).value, mean(8).value);
    assert!(mean(7).low <= mean(7).value && mean(7).value <= mean(7).high);
    // All of it is JSON, without NaN.
    let text = serde_json::to_string(&summary).unwrap();
    assert!(text.contains("\"windows\":6") && !text.contains("NaN"), "{text}");
}

#[test]
fn a_summary_of_nothing_has_no_numbers() {
    for errors in [vec![], vec![None, None]] {
        let summary = Summary::new(&errors, 0);
        assert_eq!((summary.windows, summary.parsed), (errors.len(), 0));
        assert_eq!((summary.rre_deg.count, summary.rre_deg.mean, summary.tde_within_15_share), (0, None, None));
        assert_eq!(summary.auc_5.map(|auc| auc.value), (!errors.is_empty()).then_some(0.0));
    }
}

#[test]
fn trajectories_that_cannot_be_compared_are_errors() {
    let poses: Vec<Transform<World, Camera>> =
        (0..6).map(|k| Transform::from_isometry_unchecked(Isometry3::translation(f64::from(k), 0.0, 0.0))).collect();
    assert_eq!(ape_rmse(&poses, &poses, Alignment::None).unwrap(), 0.0);
    assert!(matches!(ape(&poses, &poses, Alignment::Se3), Err(Error::Degenerate { .. })));
    assert!(matches!(ape(&poses, &poses[1..], Alignment::None), Err(Error::Length { .. })));
    assert!(matches!(ape(&poses[..0], &poses[..0], Alignment::None), Err(Error::TooFew { .. })));
    let pairs = Pairs::All { delta: 6 };
    assert!(matches!(rpe(&poses, &poses, Alignment::None, pairs), Err(Error::TooFew { expected: 7, got: 6, .. })));
    let mut bad = poses.clone();
    bad[2] = Transform::from_isometry_unchecked(Isometry3::translation(f64::NAN, 0.0, 0.0));
    assert!(matches!(ape(&poses, &bad, Alignment::None), Err(Error::NotFinite { .. })));
}
