use std::time::Duration;

use geometry::{Base, Camera, Intrinsics, Odom, Stamp, Transform};
use nalgebra::{Isometry3, Translation3, UnitQuaternion, Vector3};

use super::{odometry, static_transform, transforms};
use crate::config::Mount;
use crate::ros::message::TransformMessage;
use crate::solve::solver::Answered;
use crate::trust::Judge;
use crate::trust::synthetic::{motion, poses_alone, rules};
use crate::window::View;

const PERIOD: i64 = 100_000_000;

/// The second of two windows that join at frame 4, of a camera that goes forward and turns to the right at each frame.
fn answered(metres: f64, radians: f64) -> Answered {
    let mut judge = Judge::new(&rules());
    let mut answer = |first: i64| {
        let stamps = std::array::from_fn(|i| Stamp::from_nanos((first + i as i64) * PERIOD));
        (stamps, judge.answer(0, &stamps, &poses_alone(&motion(metres, radians)), 1.0, false))
    };
    answer(0);
    let (stamps, judged) = answer(4);
    Answered {
        window_id: 1,
        stamps,
        view: View { frame_id: "optical".into(), intrinsics: Intrinsics::new(9.0, 9.0, 4.0, 3.0, 8, 6).unwrap() },
        latency: Duration::ZERO,
        text: String::new(),
        poses_by_program: false,
        said: None,
        judged,
    }
}

/// A camera that looks ahead, 0.2 m before the middle of the body and 0.5 m above it.
fn mount() -> Mount {
    let quarter = std::f64::consts::FRAC_PI_2;
    let rotation = UnitQuaternion::from_euler_angles(-quarter, 0.0, -quarter);
    let isometry = Isometry3::from_parts(Translation3::new(0.2, 0.0, 0.5), rotation);
    Mount { base: "base_link".to_owned(), base_from_camera: Transform::from_isometry_unchecked(isometry) }
}

fn transform_of<To, From>(message: &TransformMessage) -> Transform<To, From> {
    Transform::from_xyzw(message.rotation_xyzw, &message.translation.into()).unwrap()
}

#[test]
fn a_robot_that_drives_straight_on_moves_along_the_x_axis_of_odom() {
    let answered = answered(0.1, 0.0);
    let all = transforms(&answered, "odom", &mount());
    let stamps: Vec<i64> = all.iter().map(|message| message.stamp.nanos / PERIOD).collect();
    assert_eq!(stamps, [5, 6, 7, 8]);
    for (frame, message) in (5..).zip(&all) {
        assert_eq!((message.frame_id.as_str(), message.child_frame_id.as_str()), ("odom", "base_link"));
        let position = Vector3::from(message.translation);
        assert!((position - Vector3::new(0.1 * f64::from(frame), 0.0, 0.0)).norm() < 1e-9, "{message:?}");
        assert!((message.rotation_xyzw[3].abs() - 1.0).abs() < 1e-9, "{message:?}");
    }
}

#[test]
fn a_turn_to_the_right_is_a_negative_yaw() {
    // Windows of a turning camera: 0.1 rad a frame, 8 frames.
    let message = transforms(&answered(0.1, 0.1), "odom", &mount()).pop().unwrap();
    let (_, _, yaw) = transform_of::<Odom, Base>(&message).rotation().euler_angles();
    assert!((yaw + 0.8).abs() < 1e-9, "{yaw}");
    // The camera has gone 0.4 m ahead, turned by 0.4 rad, gone 0.4 m ahead again; the body's middle is 0.2 m behind it.
    let left = 0.2 * 0.8_f64.sin() - 0.4 * 0.4_f64.sin();
    assert!((message.translation[1] - left).abs() < 1e-9 && message.translation[2].abs() < 1e-9, "{message:?}");
}

#[test]
fn the_tree_leads_to_the_pose_that_the_odometry_states() {
    let (answered, mount) = (answered(0.1, 0.1), mount());
    let fixed = static_transform(answered.stamps[0], &answered.view, &mount);
    assert_eq!((fixed.frame_id.as_str(), fixed.child_frame_id.as_str()), ("base_link", "optical"));
    let base_from_camera: Transform<Base, Camera> = transform_of(&fixed);
    let poses = odometry(&answered, "odom", Some(&mount));
    let all = transforms(&answered, "odom", &mount);
    assert_eq!((poses.len(), all.len()), (4, 4));
    for (pose, message) in poses.iter().zip(&all) {
        assert_eq!((pose.child_frame_id.as_str(), pose.pose.stamp), ("optical", message.stamp));
        let odom_from_camera = transform_of::<Odom, Base>(message) * base_from_camera;
        assert!((odom_from_camera.translation() - Vector3::from(pose.pose.position)).norm() < 1e-9);
        let same: f64 = odom_from_camera.to_xyzw().iter().zip(&pose.pose.orientation_xyzw).map(|(a, b)| a * b).sum();
        assert!((same.abs() - 1.0).abs() < 1e-9);
    }
}

#[test]
fn covariances_turn_with_the_axes() {
    let answered = answered(0.1, 0.0);
    let optical = odometry(&answered, "odom", None).pop().unwrap().pose_covariance;
    let body = odometry(&answered, "odom", Some(&mount())).pop().unwrap().pose_covariance;
    let close = |a: f64, b: f64| (a - b).abs() < 1e-12;
    // Forward, left, up of the body are z, -x, -y of the camera; the way ahead is surer than those across it.
    for (ours, camera) in [(0, 2), (1, 0), (2, 1), (3, 5), (4, 3), (5, 4)] {
        assert!(close(body[7 * ours], optical[7 * camera]), "{ours}");
    }
    assert!(body[0] < body[7] - 1e-6);
    // An error of the heading carries the position to the left.
    assert!(optical[4].abs() > 1e-6 && close(body[6 + 5], optical[4]));
    assert!((0..36).all(|k| close(body[k], body[6 * (k % 6) + k / 6])), "symmetric");
}
