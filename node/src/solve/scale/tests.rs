use std::sync::Arc;

use geometry::{Stamp, Transform, WINDOW, WindowTrajectory};
use nalgebra::{Isometry3, Point3, Vector3};
use proptest::prelude::*;

use super::{REMEMBERED, Reference, Scale, Scaler};
use crate::config::{Mount, ScaleRules};
use crate::ros::message::{OdometryMessage, StampedPose};
use crate::status::counters::Stats;

const MILLIS: i64 = 1_000_000;
/// Between frames.
const PERIOD: i64 = 100 * MILLIS;
const RULES: ScaleRules = ScaleRules::Measured { least_motion_metres: 0.05, windows: 5 };

fn at(nanos: i64, position: [f64; 3]) -> OdometryMessage {
    OdometryMessage {
        frame_id: "wheels".to_owned(),
        child_frame_id: "base_link".to_owned(),
        pose: StampedPose { stamp: Stamp::from_nanos(nanos), position, orientation_xyzw: [0.0, 0.0, 0.0, 1.0] },
        pose_covariance: [0.0; 36],
    }
}

/// Frames `first` to `first + 4`.
fn stamps(first: i64) -> [Stamp; WINDOW] {
    std::array::from_fn(|i| Stamp::from_nanos((first + i as i64) * PERIOD))
}

/// Goes so many units forward a frame.
fn walk(units: f64) -> WindowTrajectory {
    WindowTrajectory::new(std::array::from_fn(|i| {
        Transform::from_isometry_unchecked(Isometry3::translation(0.0, 0.0, units * i as f64))
    }))
    .unwrap()
}

/// A body that goes along x at a metre a second, said every 20 ms, half way between the frames' stamps, over these frames.
fn drive(reference: &Reference, frames: std::ops::Range<i64>) {
    for k in frames.start * 5..frames.end * 5 {
        let nanos = (20 * k - 10) * MILLIS;
        reference.push(&at(nanos, [nanos as f64 / 1e9, 3.0, 0.0])).unwrap();
    }
}

fn scaler(rules: ScaleRules) -> (Arc<Reference>, Scaler) {
    let reference = Arc::new(Reference::new(None, "/wheels"));
    (Arc::clone(&reference), Scaler::new(rules, reference))
}

fn assert_close(got: f64, expected: f64) {
    assert!((got - expected).abs() < 1e-9, "expected {expected}, got {got}");
}

#[test]
fn weights_that_are_not_asked_for_metres_are_left_as_they_are() {
    for (rules, scale, name) in
        [(ScaleRules::Metric, Scale::Metric, "metric"), (ScaleRules::Arbitrary, Scale::Arbitrary, "arbitrary")]
    {
        let (reference, mut scaler) = scaler(rules);
        drive(&reference, 0..6);
        assert_close(scaler.take(&stamps(0), &walk(5.0)).unwrap(), 1.0);
        assert_eq!((scaler.scale(), scaler.scale().to_string().as_str()), (scale, name));
    }
}

#[test]
fn three_windows_make_a_scale_and_the_last_ones_keep_it() {
    let (reference, mut scaler) = scaler(RULES);
    drive(&reference, 0..40);
    // 0.1 m a frame, which the weights call 0.25.
    for (window, measured) in [(0, "1 of 3"), (4, "2 of 3")] {
        let problem = scaler.take(&stamps(window), &walk(0.25)).unwrap_err();
        assert!(problem.contains("waiting for the scale from /wheels: ") && problem.contains(measured), "{problem}");
        assert_eq!(scaler.scale(), Scale::Unknown);
    }
    assert_close(scaler.take(&stamps(8), &walk(0.25)).unwrap(), 0.4);
    assert_eq!(scaler.scale().to_string(), "0.4000");
    // Two wrong ones among five are outvoted; other weights would not be.
    for units in [2.5, 0.01] {
        assert_close(scaler.take(&stamps(12), &walk(units)).unwrap(), 0.4);
    }
    for (units, expected) in [(0.1, 0.4), (0.1, 1.0), (0.1, 1.0)] {
        assert_close(scaler.take(&stamps(16), &walk(units)).unwrap(), expected);
    }
}

#[test]
fn a_robot_that_stands_and_an_answer_that_does_not_move_measure_nothing() {
    let (reference, mut scaler) = scaler(RULES);
    drive(&reference, 0..40);
    let still = Arc::new(Reference::new(None, "/wheels"));
    let mut standing = Scaler::new(RULES, Arc::clone(&still));
    for k in 0..100 {
        still.push(&at(k * 20 * MILLIS, [1.0 + 1e-4 * k as f64, 0.0, 0.0])).unwrap();
    }
    for window in 0..5 {
        let problem = standing.take(&stamps(window), &walk(0.25)).unwrap_err();
        assert!(problem.contains("0 of 3") && problem.contains("motion of 0.05 m"), "{problem}");
        for units in [0.0, f64::NAN, f64::INFINITY] {
            let problem = scaler.take(&stamps(window), &walk(1.0).scaled(units)).unwrap_err();
            assert!(problem.contains("0 of 3") && problem.contains("0.400 m, the answer by"), "{problem}");
        }
    }
    // A scale that is known outlives a stop.
    (0..3).for_each(|window| drop(scaler.take(&stamps(window), &walk(0.25))));
    assert_close(scaler.take(&stamps(20), &walk(0.0)).unwrap(), 0.4);
}

#[test]
fn steps_outside_of_what_is_known_are_left_out() {
    let (reference, mut scaler) = scaler(ScaleRules::Measured { least_motion_metres: 0.05, windows: 1 });
    let silent = scaler.take(&stamps(0), &walk(0.25)).unwrap_err();
    assert!(silent.contains("no odometry"), "{silent}");
    drive(&reference, 10..20);
    for first in [0, 5, 20, 1000] {
        assert!(scaler.take(&stamps(first), &walk(0.25)).is_err(), "frame {first}");
    }
    // Frames 10 to 19 are known. The answer is ten times too long where the other odometry does not see it.
    let mut wrong = [0.0, 2.5, 2.75, 3.0, 3.25];
    let along = |z: [f64; 5]| {
        WindowTrajectory::new(z.map(|z| Transform::from_isometry_unchecked(Isometry3::translation(0.0, 0.0, z))))
            .unwrap()
    };
    assert_close(scaler.take(&stamps(9), &along(wrong)).unwrap(), 0.4);
    wrong = [0.0, 0.5, 1.0, 1.5, 11.5];
    assert_close(scaler.take(&stamps(16), &along(wrong)).unwrap(), 0.2);
    // Nothing is made up over a silence, however the path goes on behind it.
    drive(&reference, 26..32);
    assert_close(scaler.take(&stamps(22), &walk(7.0)).unwrap(), 0.2);
}

#[test]
fn positions_that_cannot_be_are_refused_and_counted() {
    let (reference, mut scaler) = scaler(ScaleRules::Measured { least_motion_metres: 0.05, windows: 1 });
    let stats = Stats::new();
    drive(&reference, 0..10);
    let newest = reference.lock().back().unwrap().0.nanos;
    let rows = [
        (newest + 1, [f64::NAN, 0.0, 0.0], "finite position"),
        (newest + 1, [0.0, f64::INFINITY, 0.0], "finite position"),
        (newest, [0.0; 3], "expected a stamp behind"),
        (newest - 900 * MILLIS, [0.0; 3], "expected a stamp behind"),
    ];
    for (count, (nanos, position, problem)) in (1..).zip(rows) {
        reference.take(&at(nanos, position), &stats);
        let s = stats.snapshot();
        assert_eq!((s.odometry_received, s.odometry_refused), (count, count));
        assert!(s.odometry_problem.as_ref().is_some_and(|said| said.contains(problem)), "{:?}", s.odometry_problem);
    }
    assert_close(scaler.take(&stamps(2), &walk(0.25)).unwrap(), 0.4);
    // A clock that went back for good: what was before is no neighbour of what comes.
    reference.take(&at(newest - 1500 * MILLIS, [0.0; 3]), &stats);
    assert_eq!((stats.snapshot().odometry_received, stats.snapshot().odometry_refused), (5, 4));
    assert_eq!(reference.lock().len(), 1);
}

#[test]
fn what_is_remembered_is_bounded() {
    let reference = Reference::new(None, "/wheels");
    for k in 0..REMEMBERED as i64 + 10 {
        reference.push(&at(k, [0.0; 3])).unwrap();
    }
    let path = reference.lock();
    assert_eq!((path.len(), path[0].0.nanos), (REMEMBERED, 10));
}

#[test]
fn a_camera_beside_the_axle_moves_where_the_body_only_turns() {
    let base_from_camera = Transform::from_isometry_unchecked(Isometry3::translation(0.5, 0.0, 1.0));
    let reference = Reference::new(Some(&Mount { base: "base_link".to_owned(), base_from_camera }), "/wheels");
    let mut turned = at(0, [2.0, 3.0, 0.0]);
    turned.pose.orientation_xyzw = [0.0, 0.0, 0.5_f64.sqrt(), 0.5_f64.sqrt()];
    reference.push(&turned).unwrap();
    let [first, ..] = reference.at(&[Stamp::from_nanos(0); WINDOW]);
    assert!((first.unwrap() - Point3::new(2.0, 3.5, 1.0)).norm() < 1e-9, "{first:?}");
    turned.pose.stamp = Stamp::from_nanos(1);
    turned.pose.orientation_xyzw = [0.0; 4];
    assert!(reference.push(&turned).unwrap_err().contains("norm"), "no orientation, no camera");
}

proptest! {
    /// A curve of any speed, wheels and answers with up to 5 % of noise a step: the median of five windows is as close.
    #[test]
    fn a_known_scale_is_found_through_noise(
        scale in 0.05..20.0_f64,
        speed in 0.3..3.0_f64,
        turn in 0.1..1.0_f64,
        noise in proptest::collection::vec(0.95..1.05_f64, 40),
    ) {
        let (reference, mut scaler) = scaler(RULES);
        // Positions at the frames and half way between them; noise there would not average out, so there is none.
        let place = |frame: f64| -> Vector3<f64> {
            let angle = 0.1 * turn * frame;
            Vector3::new(angle.sin(), 0.0, 1.0 - angle.cos()) * (speed / turn)
        };
        for half in -1..60 {
            let frame = f64::from(half) / 2.0;
            let position: [f64; 3] = place(frame).into();
            reference.push(&at(i64::from(half) * PERIOD / 2, position)).unwrap();
        }
        let mut found = None;
        for (window, noise) in (0_i64..).zip(noise.chunks_exact(4)) {
            let mut way = Vector3::zeros();
            let mut poses = [Transform::identity(); WINDOW];
            for (i, (pose, factor)) in (window..).zip(poses[1..].iter_mut().zip(noise)) {
                let from = i as f64;
                way += (place(from + 1.0) - place(from)) * (factor / scale);
                *pose = Transform::from_isometry_unchecked(Isometry3::new(way, Vector3::zeros()));
            }
            let trajectory = WindowTrajectory::new(poses).unwrap();
            found = scaler.take(&stamps(window), &trajectory).ok();
        }
        let found = found.expect("ten windows that move are enough");
        prop_assert!((found / scale - 1.0).abs() < 0.06, "{found} for {scale}");
    }
}
