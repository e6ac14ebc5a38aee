//! Answers as messages.
//!
//! The trajectory's poses are in the optical frame of the window's first image, so its `frame_id` is that frame and its
//! stamp that image's. The odometry frame is where the first camera stood, with the camera's optical axes (x right,
//! y down, z forward), not REP 103's: the node does not know how the camera sits on the robot.

use geometry::{Camera, Push, Stamp, Stamped, Transform};

use crate::config::Covariance;
use crate::message::{OdometryMessage, StampedPose, TrajectoryMessage};
use crate::solver::Answered;

/// The five poses of a window; `None` where the answer holds none.
pub fn trajectory(answered: &Answered) -> Option<TrajectoryMessage> {
    let (trajectory, _) = answered.poses.as_ref().ok()?;
    let poses = answered.stamps.iter().zip(&trajectory.anchor_from_camera);
    Some(TrajectoryMessage {
        stamp: answered.stamps[0],
        frame_id: answered.view.frame_id.to_string(),
        poses: poses.map(|(stamp, pose)| stamped_pose(*stamp, pose)).collect(),
    })
}

/// The poses that a window adds to the odometry, oldest first.
pub fn odometry(push: &Push, odom_frame: &str, camera_frame: &str, covariance: &Covariance) -> Vec<OdometryMessage> {
    let message = |pose: &Stamped<Transform<geometry::Odom, Camera>>| OdometryMessage {
        frame_id: odom_frame.to_owned(),
        child_frame_id: camera_frame.to_owned(),
        pose: stamped_pose(pose.stamp, &pose.value),
        pose_covariance: diagonal(covariance, push.reset_counter),
    };
    push.poses.iter().map(message).collect()
}

fn stamped_pose<To>(stamp: Stamp, to_from_camera: &Transform<To, Camera>) -> StampedPose {
    StampedPose { stamp, position: to_from_camera.translation().into(), orientation_xyzw: to_from_camera.to_xyzw() }
}

/// Order x y z rotation-x rotation-y rotation-z. What happened at a break is not known: each adds its share.
fn diagonal(covariance: &Covariance, breaks: u32) -> [f64; 36] {
    let share = 1.0 + f64::from(breaks);
    std::array::from_fn(|k| match (k / 6, k % 6) {
        (row, column) if row != column => 0.0,
        (0..3, _) => share * covariance.position_stddev_metres.powi(2),
        _ => share * covariance.rotation_stddev_radians.powi(2),
    })
}
