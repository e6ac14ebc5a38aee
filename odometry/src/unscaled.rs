//! Poses whose lengths are no metres yet.

use geometry::WindowTrajectory;

/// Five poses in the unit of the tracks, or of another program: of another type than those in metres, which are all that a
/// robot is told.
///
/// ```compile_fail,E0308
/// fn publish(_in_metres: &geometry::WindowTrajectory) {}
/// fn of_tracks(window: &odometry::UpToScale) {
///     publish(window);
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UpToScale(WindowTrajectory);

impl UpToScale {
    /// Poses in a unit of their own.
    pub fn new(trajectory: WindowTrajectory) -> Self {
        Self(trajectory)
    }

    /// In metres, of which `metres` are a unit.
    pub fn in_metres(&self, metres: f64) -> WindowTrajectory {
        self.0.scaled(metres)
    }

    /// The poses as they are: for turns, directions and ratios of lengths.
    pub fn shape(&self) -> &WindowTrajectory {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use geometry::{Transform, WindowTrajectory};
    use nalgebra::{Isometry3, Vector3};

    use super::UpToScale;

    #[test]
    fn a_unit_makes_metres_of_lengths_and_leaves_turns() {
        let mut window = WindowTrajectory::identity();
        let turn = Vector3::new(0.0, 0.3, 0.0);
        window.later_mut()[3] = Transform::from_isometry_unchecked(Isometry3::new(Vector3::new(0.0, 0.0, 2.0), turn));
        let metric = UpToScale::new(window).in_metres(0.25);
        let last = &metric.anchor_from_camera()[4];
        assert!((last.translation().z - 0.5).abs() < 1e-12 && (last.rotation().angle() - 0.3).abs() < 1e-12);
    }
}
