//! A pose on another program's topic as one of the camera.

use camera::transforms::plain;
use geometry::{Base, Camera, Transform, World};
use nalgebra::{Matrix6, Vector3};
use odometry::followed::Pose;

use crate::config::Mount;
use crate::ros::message::OdometryMessage;

/// Variances below zero by less are rounding.
const ROUNDING: f64 = 1e-9;

/// Where the camera is by a message whose `child_frame_id` is the camera's optical frame, or the robot's body on which it sits.
///
/// # Errors
/// What was expected, and what came.
pub fn pose(message: &OdometryMessage, camera_frame: &str, mount: Option<&Mount>) -> Result<Pose, String> {
    let given = &message.pose;
    let position = Vector3::from(given.position);
    if !position.iter().all(|v| v.is_finite()) {
        return Err(format!("expected a finite position, got {:?}", given.position));
    }
    let said = covariance(&message.pose_covariance);
    let child = plain(&message.child_frame_id);
    let body = mount.filter(|mount| mount.base == child);
    let (world_from_camera, covariance) = if let Some(mount) = body.filter(|_| child != camera_frame) {
        let world_from_base = Transform::<World, Base>::from_xyzw(given.orientation_xyzw, &position);
        let world_from_base = world_from_base.map_err(|e| e.to_string())?;
        let lever = world_from_base.rotation() * mount.base_from_camera.translation();
        let world_from_camera: Transform<World, Camera> = world_from_base * mount.base_from_camera;
        (world_from_camera, said.map(|said| moved(&said, &lever)))
    } else if child == camera_frame {
        let pose = Transform::<World, Camera>::from_xyzw(given.orientation_xyzw, &position);
        (pose.map_err(|e| e.to_string())?, said)
    } else {
        let base = mount.map_or("frames.base, which is not set".to_owned(), |mount| format!("{:?}", mount.base));
        return Err(format!("expected the child_frame_id {camera_frame:?}, the camera's, or {base}, got {child:?}"));
    };
    Ok(Pose { stamp: given.stamp, world_from_camera, covariance })
}

/// `None` where the program does not say: all zeros, -1 on the diagonal, or what is no covariance.
fn covariance(said: &[f64; 36]) -> Option<Matrix6<f64>> {
    let matrix = Matrix6::from_row_slice(said);
    let is_said = said.iter().all(|v| v.is_finite()) && (0..6).all(|k| matrix[(k, k)] > 0.0);
    let symmetric = (matrix + matrix.transpose()) * 0.5;
    (is_said && symmetric.symmetric_eigenvalues().min() > -ROUNDING).then_some(symmetric)
}

/// The covariance of what sits at the end of a lever, in the axes of the world: where the body turns wrongly it is moved.
fn moved(covariance: &Matrix6<f64>, lever: &Vector3<f64>) -> Matrix6<f64> {
    let mut by = Matrix6::identity();
    by.fixed_view_mut::<3, 3>(0, 3).copy_from(&-lever.cross_matrix());
    by * covariance * by.transpose()
}

#[cfg(test)]
mod tests {
    use geometry::{Stamp, Transform};
    use nalgebra::{Isometry3, Vector3};

    use super::pose;
    use crate::config::Mount;
    use crate::ros::message::{OdometryMessage, StampedPose};

    fn message(child: &str) -> OdometryMessage {
        let mut pose_covariance = [0.0; 36];
        for k in 0..6 {
            pose_covariance[7 * k] = if k < 3 { 0.01 } else { 0.04 };
        }
        OdometryMessage {
            frame_id: "map".to_owned(),
            child_frame_id: child.to_owned(),
            pose: StampedPose {
                stamp: Stamp::from_nanos(5),
                position: [1.0, 2.0, 3.0],
                orientation_xyzw: [0.0, 0.0, 0.0, 1.0],
            },
            pose_covariance,
        }
    }

    fn mount() -> Mount {
        let base_from_camera =
            Transform::from_isometry_unchecked(Isometry3::new(Vector3::new(2.0, 0.0, 0.0), Vector3::zeros()));
        Mount { base: "base_link".to_owned(), base_from_camera }
    }

    #[test]
    fn a_pose_is_the_cameras_or_the_bodys_and_no_others() {
        let own = pose(&message("optical"), "optical", None).unwrap();
        assert_eq!(own.world_from_camera.translation(), Vector3::new(1.0, 2.0, 3.0));
        assert!((own.covariance.unwrap()[(1, 1)] - 0.01).abs() < 1e-12);
        let of_body = pose(&message("base_link"), "optical", Some(&mount())).unwrap();
        assert_eq!(of_body.world_from_camera.translation(), Vector3::new(3.0, 2.0, 3.0));
        // A turn of the body by 0.2 moves what is 2 m ahead of it by 0.4.
        let covariance = of_body.covariance.unwrap();
        assert!((covariance[(1, 1)] - 0.01 - 0.16).abs() < 1e-12 && (covariance[(0, 0)] - 0.01).abs() < 1e-12);
        let unknown = pose(&message("imu"), "optical", Some(&mount())).unwrap_err();
        assert_eq!(unknown, "expected the child_frame_id \"optical\", the camera's, or \"base_link\", got \"imu\"");
        let unmounted = pose(&message("base_link"), "optical", None).unwrap_err();
        assert!(unmounted.contains("frames.base, which is not set"), "{unmounted}");
    }

    #[test]
    fn what_is_no_pose_is_refused_and_what_is_no_covariance_is_none() {
        let mut far = message("optical");
        far.pose.position[1] = f64::NAN;
        assert!(pose(&far, "optical", None).unwrap_err().contains("finite position"));
        let mut turned = message("optical");
        turned.pose.orientation_xyzw = [0.0; 4];
        assert!(pose(&turned, "optical", None).is_err());
        let none = |change: &dyn Fn(&mut [f64; 36])| {
            let mut message = message("optical");
            change(&mut message.pose_covariance);
            pose(&message, "optical", None).unwrap().covariance
        };
        assert_eq!(none(&|c| *c = [0.0; 36]), None);
        assert_eq!(none(&|c| c[0] = -1.0), None);
        assert_eq!(none(&|c| c[3] = f64::INFINITY), None);
        assert_eq!(none(&|c| (c[1], c[6]) = (5.0, 5.0)), None);
        assert!(none(&|_| {}).is_some());
    }
}
