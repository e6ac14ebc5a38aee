//! Answers as messages.
//!
//! The trajectory's poses are in the optical frame of the window's first image, so its `frame_id` is that frame and its
//! stamp that image's.
//!
//! The odometry frame is where the first camera stood, with the camera's optical axes (x right, y down, z forward). Where
//! the config says how the camera sits on the robot ([`Mount`]), it is where the robot's body stood, with the body's axes
//! (x forward, y left, z up: REP 103), and its transform to the body is REP 105's `odom -> base_link`.

use geometry::{Base, Camera, Odom, Stamp, Stamped, Transform, WindowTrajectory};
use nalgebra::Matrix6;

use crate::config::Mount;
use crate::ros::message::{OdometryMessage, PoseMessage, StampedPose, TrajectoryMessage, TransformMessage};
use crate::solve::solver::Answered;
use crate::solve::tracker::Posed;
use crate::window::View;

/// The five poses of a window as the model has them; `None` where none may come out.
pub fn trajectory(answered: &Answered) -> Option<TrajectoryMessage> {
    let poses = answered.judged.poses.as_ref().ok()?;
    Some(trajectory_of(answered, &poses.trajectory))
}

/// Five poses for the frames of an answered window.
pub fn trajectory_of(answered: &Answered, trajectory: &WindowTrajectory) -> TrajectoryMessage {
    let frames = answered.stamps.iter().zip(trajectory.anchor_from_camera());
    TrajectoryMessage {
        stamp: answered.stamps[0],
        frame_id: answered.view.frame_id.to_string(),
        poses: frames.map(|(stamp, pose)| stamped_pose(*stamp, pose)).collect(),
    }
}

/// A pose of the fast clock: the odometry, and the same without covariance.
pub fn posed(posed: &Posed, odom_frame: &str, mount: Option<&Mount>) -> (OdometryMessage, PoseMessage) {
    let fix = &posed.fix;
    let covariance = std::array::from_fn(|k| fix.covariance[(k / 6, k % 6)]);
    let stamped = Stamped { stamp: fix.stamp, value: fix.odom_from_camera };
    let odometry = odometry_message(&stamped, &covariance, &posed.view, (odom_frame, mount));
    let pose = PoseMessage { frame_id: odom_frame.to_owned(), pose: odometry.pose.clone() };
    (odometry, pose)
}

/// The same pose as a transform from the odometry frame to the body.
pub fn posed_transform(posed: &Posed, odom_frame: &str, mount: &Mount) -> TransformMessage {
    let odom_from_base: Transform<Odom, Base> =
        from_body(mount, &posed.fix.odom_from_camera) * mount.base_from_camera.inverse();
    transform(posed.fix.stamp, odom_frame, &mount.base, &odom_from_base)
}

/// The poses that a window adds to the odometry, oldest first; none where none may come out.
pub fn odometry(answered: &Answered, odom_frame: &str, mount: Option<&Mount>) -> Vec<OdometryMessage> {
    let Ok(poses) = &answered.judged.poses else { return Vec::new() };
    let frames = poses.push.poses.iter().zip(&poses.covariances);
    frames.map(|(pose, covariance)| odometry_message(pose, covariance, &answered.view, (odom_frame, mount))).collect()
}

fn odometry_message(
    pose: &Stamped<Transform<Odom, Camera>>,
    covariance: &[f64; 36],
    view: &View,
    (odom_frame, mount): (&str, Option<&Mount>),
) -> OdometryMessage {
    let (pose, covariance) = match mount {
        None => (stamped_pose(pose.stamp, &pose.value), *covariance),
        Some(mount) => {
            (stamped_pose(pose.stamp, &from_body(mount, &pose.value)), turned(covariance, &mount.base_from_camera))
        }
    };
    OdometryMessage {
        frame_id: odom_frame.to_owned(),
        child_frame_id: view.frame_id.to_string(),
        pose,
        pose_covariance: covariance,
    }
}

/// The same poses as transforms from the odometry frame to the body.
pub fn transforms(answered: &Answered, odom_frame: &str, mount: &Mount) -> Vec<TransformMessage> {
    let Ok(poses) = &answered.judged.poses else { return Vec::new() };
    let camera_from_base = mount.base_from_camera.inverse();
    let message = |pose: &Stamped<Transform<Odom, Camera>>| {
        let odom_from_base: Transform<Odom, Base> = from_body(mount, &pose.value) * camera_from_base;
        transform(pose.stamp, odom_frame, &mount.base, &odom_from_base)
    };
    poses.push.poses.iter().map(message).collect()
}

/// Where the camera sits on the body.
pub fn static_transform(stamp: Stamp, view: &View, mount: &Mount) -> TransformMessage {
    transform(stamp, &mount.base, &view.frame_id, &mount.base_from_camera)
}

/// A pose of the camera, seen from where the body stood when the camera stood at the origin.
fn from_body(mount: &Mount, pose: &Transform<Odom, Camera>) -> Transform<Odom, Camera> {
    // The odometry's origin was the first camera and becomes the body that carried it: both are called Odom.
    let body_from_first_camera: Transform<Odom, Odom> = mount.base_from_camera.relabel();
    body_from_first_camera * *pose
}

/// A covariance in the axes of the body rather than the camera's: both halves turn with them.
fn turned(covariance: &[f64; 36], base_from_camera: &Transform<Base, Camera>) -> [f64; 36] {
    let rotation = base_from_camera.rotation_matrix();
    let mut both = Matrix6::<f64>::zeros();
    both.fixed_view_mut::<3, 3>(0, 0).copy_from(&rotation);
    both.fixed_view_mut::<3, 3>(3, 3).copy_from(&rotation);
    let turned = both * Matrix6::from_row_slice(covariance) * both.transpose();
    std::array::from_fn(|k| turned[(k / 6, k % 6)])
}

fn transform<To, From>(
    stamp: Stamp,
    frame_id: &str,
    child_frame_id: &str,
    to_from_from: &Transform<To, From>,
) -> TransformMessage {
    TransformMessage {
        stamp,
        frame_id: frame_id.to_owned(),
        child_frame_id: child_frame_id.to_owned(),
        translation: to_from_from.translation().into(),
        rotation_xyzw: to_from_from.to_xyzw(),
    }
}

fn stamped_pose<To>(stamp: Stamp, to_from_camera: &Transform<To, Camera>) -> StampedPose {
    StampedPose { stamp, position: to_from_camera.translation().into(), orientation_xyzw: to_from_camera.to_xyzw() }
}

#[cfg(test)]
mod tests;
