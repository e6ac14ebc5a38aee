//! Answers as messages.
//!
//! The trajectory's poses are in the optical frame of the window's first image, so its `frame_id` is that frame and its
//! stamp that image's. The odometry frame is where the first camera stood, with the camera's optical axes (x right,
//! y down, z forward), not REP 103's: the node does not know how the camera sits on the robot.

use geometry::{Camera, Odom, Stamp, Stamped, Transform};

use crate::message::{OdometryMessage, StampedPose, TrajectoryMessage};
use crate::solver::Answered;

/// The five poses of a window; `None` where none may come out.
pub fn trajectory(answered: &Answered) -> Option<TrajectoryMessage> {
    let poses = answered.judged.poses.as_ref().ok()?;
    let frames = answered.stamps.iter().zip(&poses.trajectory.anchor_from_camera);
    Some(TrajectoryMessage {
        stamp: answered.stamps[0],
        frame_id: answered.view.frame_id.to_string(),
        poses: frames.map(|(stamp, pose)| stamped_pose(*stamp, pose)).collect(),
    })
}

/// The poses that a window adds to the odometry, oldest first; none where none may come out.
pub fn odometry(answered: &Answered, odom_frame: &str) -> Vec<OdometryMessage> {
    let Ok(poses) = &answered.judged.poses else { return Vec::new() };
    let frames = poses.push.poses.iter().zip(&poses.covariances);
    let message = |(pose, covariance): (&Stamped<Transform<Odom, Camera>>, &[f64; 36])| OdometryMessage {
        frame_id: odom_frame.to_owned(),
        child_frame_id: answered.view.frame_id.to_string(),
        pose: stamped_pose(pose.stamp, &pose.value),
        pose_covariance: *covariance,
    };
    frames.map(message).collect()
}

fn stamped_pose<To>(stamp: Stamp, to_from_camera: &Transform<To, Camera>) -> StampedPose {
    StampedPose { stamp, position: to_from_camera.translation().into(), orientation_xyzw: to_from_camera.to_xyzw() }
}
