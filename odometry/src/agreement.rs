//! What a model says of a window, held against the tracks of the same five pictures.
//!
//! Tracks tell rotation and direction ten times better than any model, and nothing of lengths: an answer that contradicts
//! them in what they know is not believed in what they do not.

use geometry::epipolar::{fundamental, symmetric_distance};
use geometry::metrics::log_length;
use geometry::{WINDOW, WindowTrajectory};
use nalgebra::Point2;

use crate::stream::TrackedWindow;

/// Median motion of the points beyond what a turn explains, pixels, from which the tracks know a direction.
const LEAST_PARALLAX_PX: f64 = 1.5;

/// How an answer stands to the tracks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Agreement {
    /// Largest angle, over the frames, between the two rotations from the anchor, degrees.
    pub rotation_deg: f64,
    /// Angle between the directions from the first frame to the one that has moved most by the tracks, degrees; `None` where
    /// the tracks have none, or the answer stands still.
    pub direction_deg: Option<f64>,
    /// Median distance of the points from the epipolar lines of the answer's poses, pixels of the grid that was worked on, over
    /// the first and the last frame; `None` where the answer stands still.
    pub epipolar_px: Option<f64>,
    /// Median of `log(length said / length tracked)` over the frames that have moved; `None` where the tracks tell no length.
    pub log_scale: Option<f64>,
}

/// Holds an answer against the tracks.
pub fn compare(said: &WindowTrajectory, tracked: &TrackedWindow) -> Agreement {
    let (a, b) = (said.anchor_from_camera(), tracked.trajectory.anchor_from_camera());
    let frames = 1..WINDOW;
    let angle = |i: usize| a[i].rotation().angle_to(&b[i].rotation()).to_degrees();
    let length = |i: usize| b[i].translation().norm();
    let rotation_deg = frames.clone().map(angle).fold(0.0, f64::max);
    let farthest = frames.max_by(|i, j| length(*i).total_cmp(&length(*j))).unwrap_or(WINDOW - 1);
    let knows = parallax_px(tracked, farthest).is_some_and(|parallax| parallax > LEAST_PARALLAX_PX);
    let direction_deg = (knows && a[farthest].translation().norm() > 0.0)
        .then(|| a[farthest].translation().angle(&b[farthest].translation()).to_degrees());
    Agreement {
        rotation_deg,
        direction_deg,
        epipolar_px: epipolar_px(said, tracked),
        log_scale: log_length(said, &tracked.trajectory).filter(|_| knows && tracked.unit.is_some()),
    }
}

/// Where points are in the first picture and in another.
fn pairs(tracked: &TrackedWindow, other: usize) -> impl Iterator<Item = (Point2<f64>, Point2<f64>)> {
    let place = |at: Option<Point2<f32>>| at.map(|at| at.cast::<f64>());
    tracked.tracks.points.iter().filter_map(move |track| Some((place(track.places[0])?, place(track.places[other])?)))
}

/// Median motion that the turn does not explain.
fn parallax_px(tracked: &TrackedWindow, other: usize) -> Option<f64> {
    let camera = &tracked.camera;
    let turn = tracked.trajectory.anchor_from_camera()[other].rotation().inverse();
    let mut left: Vec<f64> = pairs(tracked, other)
        .filter_map(|(from, to)| {
            let ray = nalgebra::Vector3::new((from.x - camera.cx) / camera.fx, (from.y - camera.cy) / camera.fy, 1.0);
            let turned = turn * ray;
            let at =
                Point2::new(camera.fx * turned.x / turned.z + camera.cx, camera.fy * turned.y / turned.z + camera.cy);
            (turned.z > 1e-6).then(|| (at - to).norm())
        })
        .collect();
    middle(&mut left)
}

fn epipolar_px(said: &WindowTrajectory, tracked: &TrackedWindow) -> Option<f64> {
    let (first, last) = (&said.anchor_from_camera()[0], &said.anchor_from_camera()[WINDOW - 1]);
    let matrix = fundamental(first, last, &tracked.camera, &tracked.camera).ok()?;
    let mut distances: Vec<f64> =
        pairs(tracked, WINDOW - 1).filter_map(|(a, b)| symmetric_distance(&matrix, &a, &b)).collect();
    middle(&mut distances)
}

fn middle(values: &mut [f64]) -> Option<f64> {
    let middle = values.len() / 2;
    (!values.is_empty()).then(|| *values.select_nth_unstable_by(middle, f64::total_cmp).1)
}
