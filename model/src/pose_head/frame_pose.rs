//! A pose as the heads say it.

use geometry::{Anchor, Camera, Transform, WindowTrajectory};
use nalgebra::{Isometry3, Translation3, UnitQuaternion, UnitVector3, Vector3};

use super::ASKED;

/// A camera's pose in the anchor's frame by its angles.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FramePose {
    /// Camera centre, scene units.
    pub position: Vector3<f64>,
    /// Turn about the anchor's y axis, to the right; radians.
    pub yaw: f64,
    /// Then about the camera's x axis, upwards; radians.
    pub pitch: f64,
    /// Then about the camera's z axis, clockwise as the camera sees it; radians.
    pub roll: f64,
}

impl FramePose {
    /// Of a pose: R = R_y(yaw) R_x(pitch) R_z(roll).
    pub fn of(anchor_from_camera: &Transform<Anchor, Camera>) -> Self {
        let r = anchor_from_camera.rotation_matrix();
        Self {
            position: anchor_from_camera.translation(),
            yaw: r[(0, 2)].atan2(r[(2, 2)]),
            pitch: (-r[(1, 2)]).clamp(-1.0, 1.0).asin(),
            roll: r[(1, 0)].atan2(r[(1, 1)]),
        }
    }

    /// Of the frames of a window that are asked for.
    pub fn of_window(trajectory: &WindowTrajectory) -> [Self; ASKED] {
        std::array::from_fn(|i| Self::of(&trajectory.anchor_from_camera()[i + 1]))
    }

    /// The pose itself.
    pub fn anchor_from_camera(&self) -> Transform<Anchor, Camera> {
        let about = |axis: UnitVector3<f64>, angle: f64| UnitQuaternion::from_axis_angle(&axis, angle);
        let rotation = about(Vector3::y_axis(), self.yaw)
            * about(Vector3::x_axis(), self.pitch)
            * about(Vector3::z_axis(), self.roll);
        Transform::from_isometry_unchecked(Isometry3::from_parts(Translation3::from(self.position), rotation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn angles_have_the_signs_that_they_say_and_make_the_pose_again() {
        let pose = FramePose { position: Vector3::new(0.1, -0.2, 0.3), yaw: 0.4, pitch: -0.3, roll: 0.2 };
        let again = FramePose::of(&pose.anchor_from_camera());
        assert!((again.position - pose.position).norm() < 1e-12);
        for (a, b) in [(again.yaw, pose.yaw), (again.pitch, pose.pitch), (again.roll, pose.roll)] {
            assert!((a - b).abs() < 1e-12, "{again:?}");
        }
        let still = FramePose { position: Vector3::zeros(), yaw: 0.0, pitch: 0.0, roll: 0.0 };
        let (ahead, down) = (Vector3::z(), Vector3::y());
        let of = |pose: FramePose, vector| pose.anchor_from_camera().transform_vector(&vector);
        assert!(of(FramePose { yaw: 0.1, ..still }, ahead).x > 0.0, "to the right is +x");
        assert!(of(FramePose { pitch: 0.1, ..still }, ahead).y < 0.0, "up is -y");
        assert!(of(FramePose { roll: 0.1, ..still }, down).x < 0.0, "clockwise: the lower edge goes left");
    }
}
