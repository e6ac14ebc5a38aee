//! From the first pictures to a map: the points of an anchor are followed until the camera has moved enough, and an exact
//! window over five of the frames gives the first poses and depths.

use std::collections::VecDeque;

use geometry::pnp::refine_pose;
use geometry::two_view::rotation_between;
use geometry::{Stamp, WINDOW};
use nalgebra::{DMatrix, Isometry3, Matrix6, Point2, Translation3, Vector3};

use super::map::{Keyframe, Map, Point};
use super::{follow, unsure};
use crate::corners::corners;
use crate::picture::Picture;
use crate::tracks::{Track, Tracks};
use crate::window::{Motion, solve_tracks_of};

/// Median angle between a point's rays, radians, from which a map is begun: a fifth of a pixel at a focal length of 500
/// is then a depth to a fiftieth.
const ANGLE: f64 = 0.02;
/// Frames after which a smaller one will do, and that one.
const PATIENCE: usize = 12;
const SMALL_ANGLE: f64 = 0.01;
/// Points of the anchor that must be followed.
const LEAST_POINTS: usize = 25;
/// Tracks that the window is solved on: the map is then adjusted on all, and a frame must not wait for a whole window of them.
const SOLVED: usize = 160;
/// Median motion of the points beyond a turn, pixels, below which nothing is to be solved: a camera that stands.
const LEAST_MOTION_PX: f64 = 0.3;
/// Frames that a map is begun on, at least.
const LEAST_FRAMES: usize = 3;
/// Frames that are kept between the anchor and now.
const KEPT: usize = 9;
/// Frames whose places are remembered until there is a map.
const REMEMBERED: usize = 64;
/// Deviation of a pair from a turn, pixels.
const TURN_PX: f64 = 2.0;

/// Where each point is in a frame.
type Places = Vec<Option<Point2<f32>>>;

/// Frames since the anchor.
#[derive(Debug)]
pub(super) struct Start {
    /// Number, picture, and places of the points, of some frames since the anchor; the anchor is the first.
    frames: VecDeque<(u64, Picture, Places)>,
    pub points: Vec<Point>,
    anchor_from_world: Isometry3<f64>,
    /// The length that a step had before, which the new map's unit follows from.
    step: Option<f64>,
    /// Pose of the last frame in the anchor.
    last: Isometry3<f64>,
    pushed: usize,
    /// Stamp and places of every frame since the anchor, as many as are remembered.
    all: VecDeque<(Stamp, Places)>,
}

/// What a frame told.
#[derive(Debug)]
pub(super) enum Found {
    /// Too few points are left.
    Lost,
    /// A turn, or a motion too small to build on.
    Turned { camera_from_world: Isometry3<f64>, covariance: Matrix6<f64>, points: usize },
    /// A map.
    Ready {
        map: Box<Map>,
        camera_from_world: Isometry3<f64>,
        covariance: Matrix6<f64>,
        points: usize,
        /// What the map makes of the frames since the anchor.
        revised: Vec<(Stamp, Isometry3<f64>)>,
    },
}

impl Start {
    /// At an anchor.
    pub fn new(
        picture: Picture,
        number: u64,
        anchor_from_world: Isometry3<f64>,
        step: Option<f64>,
        count: usize,
    ) -> Self {
        let found = corners(&picture, 0, count, &[]);
        let points: Vec<Point> =
            found.iter().zip(0..).map(|(corner, id)| Point::new(id, &picture, corner.at)).collect();
        let places = points.iter().map(|point| Some(point.pixel)).collect();
        let frames = VecDeque::from([(number, picture, places)]);
        let all = VecDeque::new();
        Self { frames, points, anchor_from_world, step, last: Isometry3::identity(), pushed: 0, all }
    }

    /// The next frame, after `last`.
    pub fn push(&mut self, picture: &Picture, number: u64, last: Option<&Picture>) -> Found {
        self.pushed += 1;
        let identity = Isometry3::identity();
        follow(&mut self.points, picture, last, &identity, &identity);
        let places: Vec<_> = self.points.iter().map(|point| point.is_followed.then_some(point.pixel)).collect();
        let left = places.iter().flatten().count();
        if left < LEAST_POINTS {
            return Found::Lost;
        }
        self.all.push_back((picture.stamp(), places.clone()));
        if self.all.len() > REMEMBERED {
            self.all.pop_front();
        }
        self.frames.push_back((number, picture.clone(), places));
        if self.frames.len() > KEPT {
            // Every second one between the anchor and now.
            let mut index = 0;
            let count = self.frames.len();
            self.frames.retain(|_| {
                index += 1;
                index == 1 || index == count || index % 2 == 1
            });
        }
        let turned = self.turned(picture);
        if self.frames.len() < LEAST_FRAMES || turned.2 < LEAST_MOTION_PX {
            self.last = turned.0;
            let camera_from_world = turned.0 * self.anchor_from_world;
            return Found::Turned { camera_from_world, covariance: turned.1, points: left };
        }
        let count = self.frames.len();
        let chosen: [usize; WINDOW] = std::array::from_fn(|k| k * (count - 1) / (WINDOW - 1));
        let tracks = Tracks {
            points: (0..self.points.len())
                .map(|k| Track { places: chosen.map(|frame| self.frames[frame].2[k]), origin: 0, is_coarse: false })
                .collect(),
        };
        // All of them are seen by the anchor, and in the order of cells: every n-th is spread over the picture.
        let seen: Vec<Track> =
            tracks.points.into_iter().filter(|track| track.places.iter().flatten().count() >= 3).collect();
        let count = seen.len().min(SOLVED);
        let tracks = Tracks { points: (0..count).map(|k| seen[k * seen.len() / count]).collect() };
        let pictures = chosen.map(|frame| self.frames[frame].1.clone());
        let solved = solve_tracks_of(&tracks, &pictures).ok();
        let Some(solved) = solved.filter(|solved| solved.motion == Motion::Moved) else {
            let camera_from_world = turned.0 * self.anchor_from_world;
            return Found::Turned { camera_from_world, covariance: turned.1, points: left };
        };
        let last_block = 6 * (WINDOW - 2);
        let covariance: Matrix6<f64> = block(&solved.covariance, last_block);
        let mut window = solved.trajectory;
        let camera = picture.intrinsics();
        let is_enough = solved.angle > ANGLE || (self.pushed >= PATIENCE && solved.angle > SMALL_ANGLE);
        if let Some(step) = self.step {
            let way = window.anchor_from_camera()[WINDOW - 1].translation().norm() / self.pushed as f64;
            if way > 1e-9 {
                window = window.scaled(step / way);
            }
        }
        let poses = window.anchor_from_camera().map(|pose| *pose.inverse().isometry());
        let camera_from_world = poses[WINDOW - 1] * self.anchor_from_world;
        if !is_enough {
            let camera_from_world = turned.0 * self.anchor_from_world;
            return Found::Turned { camera_from_world, covariance: turned.1, points: left };
        }
        self.last = poses[WINDOW - 1];
        let mut map = Map { next_id: self.points.len() as u64, ..Map::default() };
        let mut frames: Vec<usize> = chosen.to_vec();
        frames.dedup();
        for frame in &frames {
            let pose = &poses[chosen.iter().position(|k| k == frame).unwrap_or(0)];
            let (number, picture, _) = &self.frames[*frame];
            map.keyframes.push_back(Keyframe::new(*number, pose * self.anchor_from_world, picture.clone()));
        }
        for (k, mut point) in std::mem::take(&mut self.points).into_iter().enumerate() {
            for frame in &frames {
                let (number, picture, places) = &self.frames[*frame];
                if let Some(place) = places[k] {
                    point.seen.push((*number, picture.normalised(&place)));
                }
            }
            map.points.push(point);
        }
        map.triangulate(camera);
        map.adjust(WINDOW, camera);
        let camera_from_world = map.keyframes.back().map_or(camera_from_world, |keyframe| keyframe.camera_from_world);
        let points = map.points.iter().filter(|point| point.world.is_some()).count();
        let revised = self.revised(&map, picture);
        Found::Ready { map: Box::new(map), camera_from_world, covariance, points, revised }
    }

    /// The frames since the anchor, posed on the map; the number of a point is its place in the lists, of which the map has
    /// dropped some.
    fn revised(&self, map: &Map, picture: &Picture) -> Vec<(Stamp, Isometry3<f64>)> {
        let camera = picture.intrinsics();
        let focal = 0.5 * (camera.fx + camera.fy);
        let mut start = self.anchor_from_world;
        let mut revised = Vec::with_capacity(self.all.len() + 1);
        // The anchor is where it was, and the map says so.
        revised.extend(self.frames.front().map(|(_, anchor, _)| (anchor.stamp(), start)));
        for (stamp, places) in &self.all {
            let known = |point: &Point| Some((point.world?, (*places.get(point.id as usize)?)?));
            let (solid, xy): (Vec<_>, Vec<_>) = map
                .points
                .iter()
                .filter_map(known)
                .map(|(world, place)| (world, Point2::from(picture.normalised(&place))))
                .unzip();
            let weights = vec![1.0; xy.len()];
            let Some(found) = refine_pose(&solid, &xy, &weights, &start, 1.0 / focal, 20) else { continue };
            start = found.camera_from_world;
            revised.push((*stamp, start));
        }
        revised
    }

    /// The turn since the anchor, at the place of the last frame, its covariance, and the median motion beyond it, pixels.
    fn turned(&self, picture: &Picture) -> (Isometry3<f64>, Matrix6<f64>, f64) {
        let camera = picture.intrinsics();
        let focal = 0.5 * (camera.fx + camera.fy);
        let rays = |places: &[Option<Point2<f32>>]| -> Vec<Option<Vector3<f64>>> {
            places
                .iter()
                .map(|place| Some(Point2::from(picture.normalised(&(*place)?)).to_homogeneous().normalize()))
                .collect()
        };
        let (Some(first), Some(now)) = (self.frames.front(), self.frames.back()) else {
            return (self.last, unsure(), f64::INFINITY);
        };
        let (a, b): (Vec<_>, Vec<_>) =
            rays(&first.2).into_iter().zip(rays(&now.2)).filter_map(|(a, b)| Some((a?, b?))).unzip();
        let Some(found) = rotation_between(&a, &b, TURN_PX / focal, 7) else {
            return (self.last, unsure(), f64::INFINITY);
        };
        let mut left: Vec<f64> = a.iter().zip(&b).map(|(a, b)| (found.b_from_a * a - b).norm()).collect();
        let middle = left.len() / 2;
        let beyond = *left.select_nth_unstable_by(middle, f64::total_cmp).1;
        let median = beyond.max(0.1 / focal);
        let pose = Isometry3::from_parts(Translation3::from(self.last.translation.vector), found.b_from_a);
        let mut covariance = Matrix6::identity() * (median * median);
        // What looks like a turn may be a translation that moves points as much, at the depth that is the unit.
        for k in 3..6 {
            covariance[(k, k)] = (4.0 * median * median).max(1e-6);
        }
        (pose, covariance, beyond * focal)
    }
}

fn block(matrix: &DMatrix<f64>, at: usize) -> Matrix6<f64> {
    Matrix6::from_fn(|r, c| matrix[(at + r, at + c)])
}
