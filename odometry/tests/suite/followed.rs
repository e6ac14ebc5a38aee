//! The poses of another program, in metres.

use geometry::{Camera, Stamp, Transform, WindowTrajectory, World};
use nalgebra::{Isometry3, Matrix6, Point3, UnitQuaternion, Vector3};
use odometry::UpToScale;
use odometry::agreement;
use odometry::followed::{Followed, Options, Pose};
use odometry::fused::{Answer, Carried, Fix};
use odometry::scale::{Biases, Source};

use crate::render::{orbit_and_walk, random, stamp};

const UNIT: f64 = 0.4;

fn options() -> Options {
    Options {
        is_metric: false,
        biases: Biases::default(),
        model_noise: 0.1,
        least_motion_metres: 0.05,
        break_stddev: (1.0, 0.5),
        most_gap_nanos: 1_000_000_000,
        patience_nanos: 0,
    }
}

fn truth() -> Vec<Transform<World, Camera>> {
    (0..120).map(orbit_and_walk).collect()
}

/// As another program has it: from where it began, in its own axes and unit.
fn theirs(k: usize, unit: f64) -> Transform<World, Camera> {
    let first = Isometry3::new(Vector3::new(3.0, -1.0, 2.0), Vector3::new(0.3, -0.8, 0.5));
    let mut pose = *orbit_and_walk(k).isometry();
    pose.translation.vector /= unit;
    Transform::from_isometry_unchecked(first * pose)
}

fn pose(k: usize, world_from_camera: Transform<World, Camera>) -> Pose {
    Pose { stamp: stamp(k), world_from_camera, covariance: None }
}

fn at(k: usize) -> Vector3<f64> {
    orbit_and_walk(k).translation()
}

fn nobody(_: Stamp) -> Option<Point3<f64>> {
    None
}

/// The steps between fixes against those of the truth: the largest error, of the longest step.
fn error(fixes: &[Fix]) -> f64 {
    let truth = truth();
    let relative = |k: usize| truth[0].inverse().isometry() * truth[k].isometry();
    let ways: Vec<f64> = (0..fixes.len()).map(|k| relative(k).translation.vector.norm()).collect();
    let longest = ways.iter().copied().fold(0.0, f64::max);
    let off = |k: usize| {
        let ours = fixes[0].odom_from_camera.inverse().isometry() * fixes[k].odom_from_camera.isometry();
        (ours.translation.vector - relative(k).translation.vector).norm()
    };
    (0..fixes.len()).map(off).fold(0.0, f64::max) / longest
}

#[test]
fn poses_in_metres_come_out_as_they_are_and_from_the_origin() {
    let mut followed = Followed::new(Options { is_metric: true, ..options() });
    let fixes: Vec<_> = (0..120).map(|k| followed.push(&pose(k, theirs(k, 1.0)), &nobody).unwrap()).collect();
    assert!(error(&fixes) < 1e-9, "{}", error(&fixes));
    assert!(fixes[0].odom_from_camera.translation().norm() < 1e-12);
    let last = fixes.last().unwrap();
    assert_eq!((last.carried, last.segment, last.stamp), (Carried::Topic, 0, stamp(119)));
    assert_eq!(last.scale.unwrap().source, Some(Source::Topic));
    // Two sources that agree are surer than one, and change nothing.
    let again = (0..120).fold(Followed::new(Options { is_metric: true, ..options() }), |mut followed, k| {
        let fix = followed.push(&pose(k, theirs(k, 1.0)), &|asked| (asked == stamp(k)).then(|| Point3::from(at(k))));
        assert_eq!(fix.unwrap().odom_from_camera, fixes[k].odom_from_camera);
        followed
    });
    assert!(again.scale().held_off().is_empty());
}

#[test]
fn wheels_give_metres_to_poses_that_have_none() {
    let mut followed = Followed::new(Options { patience_nanos: 1_000_000_000, ..options() });
    let wheels = |asked: Stamp| (0..120).find(|k| stamp(*k) == asked).map(|k| Point3::from(at(k) * 1.002));
    let fixes: Vec<_> = (0..120).map(|k| followed.push(&pose(k, theirs(k, UNIT)), &wheels).unwrap()).collect();
    assert!(error(&fixes) < 0.01, "{}", error(&fixes));
    let scale = fixes.last().unwrap().scale.unwrap();
    assert!((scale.metres() / UNIT - 1.0).abs() < 0.02 && scale.sigma < 0.03, "{scale:?}");
    assert_eq!(scale.source, Some(Source::Odometry));
}

#[test]
fn with_nothing_that_tells_a_unit_it_stays_and_the_covariance_says_so() {
    let mut followed = Followed::new(options());
    let fixes: Vec<_> = (0..120).map(|k| followed.push(&pose(k, theirs(k, UNIT)), &nobody).unwrap()).collect();
    let last = fixes.last().unwrap();
    let way = last.odom_from_camera.translation();
    let expected = (theirs(0, UNIT).inverse() * theirs(119, UNIT).relabel::<World, Camera>()).translation();
    assert!((way - expected).norm() < 1e-9, "{way} {expected}");
    assert_eq!(last.scale.unwrap().source, None);
    let along = way.normalize();
    let variance = (along.transpose() * last.covariance.fixed_view::<3, 3>(0, 0) * along)[0];
    assert!(variance.sqrt() > 0.9 * way.norm(), "{} of {}", variance.sqrt(), way.norm());
}

#[test]
fn the_other_programs_covariance_turns_into_our_axes_and_metres() {
    let mut followed = Followed::new(Options { is_metric: true, ..options() });
    let theirs_at = theirs(7, 1.0);
    let mut given = pose(7, theirs_at);
    let along = theirs_at.rotation() * Vector3::x();
    let mut covariance = Matrix6::identity() * 1e-8;
    let mut positions = covariance.fixed_view_mut::<3, 3>(0, 0);
    positions += along * along.transpose() * 0.04;
    given.covariance = Some(covariance);
    let fix = followed.push(&given, &nobody).unwrap();
    // What was unsure along the camera's x is so still.
    let ours = fix.odom_from_camera.rotation() * Vector3::x();
    let sigma = (ours.transpose() * fix.covariance.fixed_view::<3, 3>(0, 0) * ours)[0].sqrt();
    assert!((sigma - 0.2).abs() < 1e-3, "{sigma}");
    assert!(fix.covariance.symmetric_eigenvalues().min() > 0.0);
}

#[test]
fn a_jump_and_a_silence_are_breaks_and_no_motion() {
    let jump = Isometry3::new(Vector3::new(0.4, 0.0, 0.0), Vector3::zeros());
    let turn = Isometry3::new(Vector3::zeros(), Vector3::new(0.0, 0.5, 0.0));
    for (name, by, later) in [("jump", jump, 0), ("turn", turn, 0), ("silence", Isometry3::identity(), 40)] {
        let mut followed = Followed::new(Options { is_metric: true, ..options() });
        let mut fixes = Vec::new();
        for k in 0..80 {
            let is_behind = k >= 40;
            let at = *theirs(k, 1.0).isometry();
            let shown = Transform::from_isometry_unchecked(if is_behind { by * at } else { at });
            let stamp = stamp(if is_behind { k + later } else { k });
            fixes.push(followed.push(&Pose { stamp, ..pose(k, shown) }, &nobody).unwrap());
        }
        let segments: Vec<u32> = fixes.iter().map(|fix| fix.segment).collect();
        assert_eq!((segments[39], segments[40], segments[79]), (0, 1, 1), "{name}");
        let step =
            |k: usize| (fixes[k].odom_from_camera.translation() - fixes[k - 1].odom_from_camera.translation()).norm();
        assert!(step(40) < 1e-12, "{name}: {}", step(40));
        let longest = (1..80).map(step).fold(0.0, f64::max);
        assert!(longest < 0.1, "{name}: {longest}");
        assert!(fixes[40].covariance[(0, 0)] > 1.0 && fixes[39].covariance[(0, 0)] < 0.1, "{name}");
    }
    // What moves like a camera is none.
    let mut followed = Followed::new(options());
    let last = (0..120).map(|k| followed.push(&pose(k, theirs(k, UNIT)), &nobody).unwrap()).last().unwrap();
    assert_eq!(last.segment, 0);
}

#[test]
fn windows_are_found_between_poses_and_give_the_models_lengths_a_unit() {
    let mut followed = Followed::new(options());
    // Twice as often as the camera's pictures.
    let mut told = 0;
    for k in 0..120 {
        followed.push(&pose(k, theirs(k, UNIT)), &nobody).unwrap();
        if k < 9 || k % 4 != 0 {
            continue;
        }
        let stamps = [8, 6, 4, 2, 0].map(|back| stamp(k - back));
        let window = followed.tracked(&stamps).unwrap();
        let said = WindowTrajectory::from_world(&[8, 6, 4, 2, 0].map(|back| orbit_and_walk(k - back)));
        let agreement = agreement::compare_followed(&said, &window);
        assert!(agreement.rotation_deg < 1e-6, "{agreement:?}");
        if let Some(direction) = agreement.direction_deg {
            assert!(direction < 1e-3, "{agreement:?}");
            told += 1;
        }
        let agreement = Some((agreement, Some(followed.segment())));
        followed.take(&Answer { stamps, trajectory: said, stddev: (0.1, 0.1), agreement });
    }
    assert!(told > 20, "{told}");
    let scale = followed.scale().belief().unwrap();
    assert_eq!(scale.source, Some(Source::Model));
    followed.set_model_errors(0.1, 0.05);
    assert!((followed.scale().belief().unwrap().metres() / UNIT - 1.0).abs() < 0.02, "{scale:?}");
    // Of what is behind a break, or not yet known, nothing is said.
    assert_eq!(followed.tracked(&[115, 116, 117, 118, 120].map(stamp)), None);
    let halves = followed.tracked(&[100, 101, 102, 103, 104].map(|k| Stamp::from_nanos(stamp(k).nanos + 7_000_000)));
    assert!(halves.is_some());
    followed.cut();
    assert_eq!(followed.tracked(&[115, 116, 117, 118, 119].map(stamp)), None);
}

#[test]
fn a_camera_that_stands_has_no_direction() {
    let mut named = 0;
    for seed in 0..200 {
        let poses: [Transform<World, Camera>; 5] = std::array::from_fn(|i| {
            let noise = |axis: u64| 0.002 * (random(seed, i as u64, axis) - 0.5);
            let way = Vector3::new(noise(1), noise(2), noise(3));
            Transform::from_isometry_unchecked(Isometry3::from_parts(way.into(), UnitQuaternion::identity()))
        });
        let window = WindowTrajectory::from_world(&poses);
        named += usize::from(agreement::compare_followed(&window, &UpToScale::new(window)).direction_deg.is_some());
    }
    assert!(named < 20, "{named} of 200");
}

#[test]
fn a_stamp_that_is_not_newer_is_refused_and_changes_nothing() {
    let mut followed = Followed::new(options());
    followed.push(&pose(3, theirs(3, UNIT)), &nobody).unwrap();
    let again = followed.push(&pose(3, theirs(4, UNIT)), &nobody).unwrap_err();
    assert!(again.to_string().contains("expected a stamp after"), "{again}");
    let fix = followed.push(&pose(4, theirs(4, UNIT)), &nobody).unwrap();
    assert_eq!(fix.segment, 0);
    followed.cut();
    let fix = followed.push(&pose(2, theirs(2, UNIT)), &nobody).unwrap();
    assert_eq!((fix.segment, followed.newest()), (1, Some(stamp(2))));
}
