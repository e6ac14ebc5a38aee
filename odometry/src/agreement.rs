//! What a model says of a window, held against the tracks of the same five pictures.
//!
//! Tracks tell rotation and direction ten times better than any model, and nothing of lengths: an answer that contradicts
//! them in what they know is not believed in what they do not.

use geometry::epipolar::{fundamental, symmetric_distance};
use geometry::metrics::log_length;
use geometry::{WINDOW, WindowTrajectory};
use nalgebra::Point2;

use crate::stream::TrackedWindow;
use crate::unscaled::UpToScale;

/// Median motion of the points beyond what a turn explains, pixels, from which the tracks know a direction.
const LEAST_PARALLAX_PX: f64 = 1.5;

/// Angle between the directions to the frames of a window, from which it is not known to go anywhere, degrees.
const MOST_WINDING_DEG: f64 = 30.0;

/// How an answer stands to the tracks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Agreement {
    /// Largest angle, over the frames, between the two rotations from the anchor, degrees.
    pub rotation_deg: f64,
    /// Angle between the directions from the first frame to the one that has moved most by the tracks, degrees; `None` where
    /// the tracks have none, or the answer stands still.
    pub direction_deg: Option<f64>,
    /// Median distance of the points from the epipolar lines of the answer's poses, pixels of the grid that was worked on, over
    /// the first and the last frame; `None` where the answer stands still, or there are no points.
    pub epipolar_px: Option<f64>,
    /// Median of `log(length said / length tracked)` over the frames that have moved; `None` where the tracks tell no length.
    pub log_scale: Option<f64>,
}

/// Holds an answer against the tracks.
pub fn compare(said: &WindowTrajectory, tracked: &TrackedWindow) -> Agreement {
    let known = tracked.trajectory.shape();
    let knows = parallax_px(tracked, farthest(known)).is_some_and(|px| px > LEAST_PARALLAX_PX);
    let agreement = compare_poses(said, known, knows);
    let log_scale = agreement.log_scale.filter(|_| tracked.unit.is_some());
    Agreement { epipolar_px: epipolar_px(said, tracked), log_scale, ..agreement }
}

/// Holds an answer against poses that another program has of the same pictures.
pub fn compare_followed(said: &WindowTrajectory, followed: &UpToScale) -> Agreement {
    compare_poses(said, followed.shape(), is_under_way(followed.shape()))
}

fn compare_poses(said: &WindowTrajectory, known: &WindowTrajectory, knows_direction: bool) -> Agreement {
    let (a, b) = (said.anchor_from_camera(), known.anchor_from_camera());
    let angle = |i: usize| a[i].rotation().angle_to(&b[i].rotation()).to_degrees();
    let farthest = farthest(known);
    let direction_deg = (knows_direction && a[farthest].translation().norm() > 0.0)
        .then(|| a[farthest].translation().angle(&b[farthest].translation()).to_degrees());
    Agreement {
        rotation_deg: (1..WINDOW).map(angle).fold(0.0, f64::max),
        direction_deg,
        epipolar_px: None,
        log_scale: log_length(said, known).filter(|_| knows_direction),
    }
}

/// The frame that has moved most.
fn farthest(trajectory: &WindowTrajectory) -> usize {
    let length = |i: usize| trajectory.anchor_from_camera()[i].translation().norm();
    (1..WINDOW).max_by(|i, j| length(*i).total_cmp(&length(*j))).unwrap_or(WINDOW - 1)
}

/// Whether poses without pictures go somewhere: those of a camera that stands are noise, whose directions are seldom alike.
fn is_under_way(trajectory: &WindowTrajectory) -> bool {
    let way = |i: usize| trajectory.anchor_from_camera()[i].translation();
    (1..WINDOW - 1).all(|i| way(i).angle(&way(WINDOW - 1)).to_degrees() < MOST_WINDING_DEG)
        && way(WINDOW - 1).norm() > 0.0
}

/// Where points are in the first picture and in another.
fn pairs(tracked: &TrackedWindow, other: usize) -> impl Iterator<Item = (Point2<f64>, Point2<f64>)> {
    let place = |at: Option<Point2<f32>>| at.map(|at| at.cast::<f64>());
    tracked.tracks.points.iter().filter_map(move |track| Some((place(track.places[0])?, place(track.places[other])?)))
}

/// Median motion that the turn does not explain.
fn parallax_px(tracked: &TrackedWindow, other: usize) -> Option<f64> {
    let camera = &tracked.camera;
    let turn = tracked.trajectory.shape().anchor_from_camera()[other].rotation().inverse();
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
