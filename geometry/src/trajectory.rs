//! The answer of the model: the poses of one five-frame window.

use crate::error::Error;
use crate::frame::{Anchor, Camera, Transform, World};

/// Frames in a window.
pub const WINDOW: usize = 5;
/// How far the first pose may be from the identity, in scene units and in radians.
const ANCHOR_TOLERANCE: f64 = 1e-6;

/// The camera poses of one window in the frame of its first camera. In scene units: whether those are metres is not
/// known here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WindowTrajectory {
    /// The first is the identity.
    anchor_from_camera: [Transform<Anchor, Camera>; WINDOW],
}

impl WindowTrajectory {
    /// Takes poses that are already anchored at the first, which becomes exactly the identity.
    ///
    /// # Errors
    /// [`Error::NotFinite`]; [`Error::NotAnchored`] where the first differs from the identity by more than 1e-6
    /// scene units or radians.
    pub fn new(anchor_from_camera: [Transform<Anchor, Camera>; WINDOW]) -> Result<Self, Error> {
        for pose in &anchor_from_camera {
            pose.check_finite("pose of a window")?;
        }
        let first = &anchor_from_camera[0];
        let got = first.translation().norm().max(first.rotation().angle());
        if got > ANCHOR_TOLERANCE {
            return Err(Error::NotAnchored { expected: ANCHOR_TOLERANCE, got });
        }
        let mut window = Self { anchor_from_camera };
        window.anchor_from_camera[0] = Transform::identity();
        Ok(window)
    }

    /// Anchors poses in a common world at the first of them. Poses that are not finite stay so.
    pub fn from_world(world_from_camera: &[Transform<World, Camera>; WINDOW]) -> Self {
        Self::anchored(world_from_camera)
    }

    /// From the output of step 4 of the chain: `camera_i_from_anchor` for i = 1 to 4.
    pub fn from_camera_from_anchor(camera_from_anchor: &[Transform<Camera, Anchor>; WINDOW - 1]) -> Self {
        let mut window = Self::identity();
        for (pose, camera_from_anchor) in window.later_mut().iter_mut().zip(camera_from_anchor) {
            *pose = camera_from_anchor.inverse();
        }
        window
    }

    /// A camera that does not move.
    pub fn identity() -> Self {
        Self { anchor_from_camera: [Transform::identity(); WINDOW] }
    }

    /// The same motion backwards in time, anchored at what was the last frame.
    pub fn reversed(&self) -> Self {
        let mut poses = self.anchor_from_camera;
        poses.reverse();
        Self::anchored(&poses)
    }

    /// From the poses of the cameras after the first. Nothing is checked: those that are not finite stay so.
    pub fn from_later(later: [Transform<Anchor, Camera>; WINDOW - 1]) -> Self {
        let mut window = Self::identity();
        *window.later_mut() = later;
        window
    }

    /// The pose of each camera; the first is the identity.
    pub fn anchor_from_camera(&self) -> &[Transform<Anchor, Camera>; WINDOW] {
        &self.anchor_from_camera
    }

    /// The poses of the cameras after the first, to be written: camera `i` at index `i - 1`.
    pub fn later_mut(&mut self) -> &mut [Transform<Anchor, Camera>; WINDOW - 1] {
        let [_, later @ ..] = &mut self.anchor_from_camera;
        later
    }

    /// `camera_i_from_camera_j`.
    ///
    /// # Panics
    /// Where `i` or `j` is not below [`WINDOW`].
    pub fn relative(&self, i: usize, j: usize) -> Transform<Camera, Camera> {
        self.anchor_from_camera[i].inverse() * self.anchor_from_camera[j]
    }

    /// The same window with its translations multiplied by `factor`: the change of scene units.
    pub fn scaled(&self, factor: f64) -> Self {
        Self {
            anchor_from_camera: self.anchor_from_camera.map(|pose| {
                let mut isometry = *pose.isometry();
                isometry.translation.vector *= factor;
                Transform::from_isometry_unchecked(isometry)
            }),
        }
    }

    fn anchored<W>(world_from_camera: &[Transform<W, Camera>; WINDOW]) -> Self {
        // The first camera is the anchor by definition.
        let anchor_from_world: Transform<Anchor, W> = world_from_camera[0].inverse().relabel();
        let mut window = Self {
            anchor_from_camera: world_from_camera.map(|world_from_camera| anchor_from_world * world_from_camera),
        };
        window.anchor_from_camera[0] = Transform::identity();
        window
    }
}
