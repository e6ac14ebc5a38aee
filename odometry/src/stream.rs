//! One pose a frame: the stream.
//!
//! Points are followed from frame to frame; the newest frame is posed on those whose depth is known; now and then a frame
//! becomes a keyframe, new points are chosen and the last keyframes are adjusted with older ones held, which keeps the
//! scale. It begins with an exact window over frames that are far enough apart. Its state is bounded, and the same pictures
//! give the same bytes.

mod map;
mod start;

use std::collections::{BTreeMap, VecDeque};

use geometry::{Camera, Intrinsics, Odom, Stamp, Stamped, Transform, WINDOW, WindowTrajectory};
use nalgebra::{Isometry3, Matrix6, Point2, Point3, Translation3, UnitQuaternion, Vector4};

use crate::Error;
use crate::align::Patch;
use crate::descriptors::Features;
use crate::picture::Picture;
use crate::tracks::{Track, Tracks, expected, motion_near, realign, recognised_motion};
use crate::unscaled::UpToScale;
use crate::window::{ALIKE, solve_tracks};
use geometry::RobustOptions;
use geometry::adjust::{self, Known};
use geometry::pnp::{estimate_pose, refine_pose};
use geometry::two_view::rotation_between;
use map::{Keyframe, Map, Point};
use start::Start;

/// Largest reprojection error of a point that a pose stands on, and from which a point is taken for another, pixels.
const INLIER_PX: f64 = 3.0;
const LOST_PX: f64 = 5.0;
/// Scale of the loss of a frame's pose, pixels.
const LOSS_PX: f64 = 1.0;
/// The least standard deviation of a coordinate, pixels.
const LEAST_SIGMA_PX: f64 = 0.05;
/// Points that a pose needs, and the share of those followed that must fit it.
const LEAST_POINTS: usize = 10;
const LEAST_SHARE: f64 = 0.5;
/// Least normalised cross-correlation of a point that is followed, and below which its patch is taken anew.
const LEAST_CORRELATION: f32 = 0.8;
const FRESH_CORRELATION: f32 = 0.92;
/// Farthest, pixels, that a point found forwards and backwards may be from where it began.
const FORWARD_BACKWARD: f32 = 0.5;
/// Median motion since the last keyframe that makes the next one, of the longest side.
const KEYFRAME_MOTION: f64 = 0.022;
/// Share of the points of the last keyframe, below which there is a next one.
const KEYFRAME_SHARE: f64 = 0.65;
/// Points that a turn needs, the share of them that must fit, and how well, pixels.
const TURN_POINTS: usize = 20;
const TURN_SHARE: f64 = 0.7;
const TURN_PX: f64 = 1.5;
/// Frames without a pose after which the map is given up, and how many that recognise each other and not what was known:
/// the camera then sees something else, and not nothing.
const PATIENCE: usize = 20;
const STRANGERS: usize = 2;
/// Steps that a motion is taken to go on.
const MOST_STEPS: f64 = 3.0;
/// Errors, pixels, of places that recognised neighbours give, and how far alignment then looks.
const COARSE_PX: f64 = 10.0;
const COARSE_REACH_PX: f32 = 8.0;
/// Frames whose points are remembered.
const MEMORY: usize = 64;
/// Finest levels that a good prediction is aligned on.
const PREDICTED_LEVELS: usize = 1;

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
    /// Covariance of the pose against the oldest of the last keyframes that are adjusted ([`Options::keyframes`]), in the
    /// unit that the ways from there tell: rotation (radians) before translation, a step from the left of
    /// `camera_from_odom`.
    pub covariance: Matrix6<f64>,
    /// When that keyframe was taken; the pose's own stamp where there is none.
    pub reference: Stamp,
    /// What it stands on.
    pub basis: Basis,
    /// Times that tracks were lost, and the map begun anew at the old scale.
    pub segment: u32,
    /// Whether the frame became a keyframe.
    pub is_keyframe: bool,
    /// Points of known depth that it sees.
    pub points: usize,
}

/// Five pictures as the tracks have them.
#[derive(Clone, Debug, PartialEq)]
pub struct TrackedWindow {
    /// The poses.
    pub trajectory: UpToScale,
    /// The points that are seen in three of them or more, pixels of `camera`.
    pub tracks: Tracks,
    /// Of the grid that was worked on.
    pub camera: Intrinsics,
    /// The segment whose unit the poses are in; `None` where they are in one of their own.
    pub unit: Option<u32>,
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
        Self { points: 400, keyframes: 8 }
    }
}

/// A frame that is remembered.
#[derive(Clone, Debug)]
struct Frame {
    stamp: Stamp,
    camera_from_world: Isometry3<f64>,
    segment: u32,
    basis: Basis,
    /// Numbers of the points that it sees and where, normalised.
    seen: Vec<(u64, Point2<f64>)>,
}

/// Poses of pictures that come one after the other.
#[derive(Debug)]
pub struct Stream {
    options: Options,
    /// Stamp, camera and number of the last picture.
    last: Option<(Stamp, Intrinsics, u64)>,
    /// The last picture that was posed: the one that the points' places are of.
    reference: Option<Picture>,
    /// The last frames, oldest first.
    frames: VecDeque<Frame>,
    map: Map,
    /// What leads to a map, while there is none.
    start: Option<Start>,
    segment: u32,
    /// The length of a step on the last map that was given up.
    step: Option<f64>,
    /// Frames in a row without a pose of their own.
    lost: usize,
    restarts: u32,
    revised: Vec<Stamped<Transform<Odom, Camera>>>,
    /// Recognisable points of the reference, once they were asked for.
    features: Option<(Stamp, Features)>,
    /// The last picture that shows nothing of it, and how many in a row have recognised the one before.
    stranger: Option<(Picture, Features)>,
    strangers: usize,
}

impl Stream {
    /// A stream that has seen nothing.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            last: None,
            reference: None,
            frames: VecDeque::new(),
            map: Map::default(),
            start: None,
            segment: 0,
            step: None,
            lost: 0,
            restarts: 0,
            revised: Vec::new(),
            features: None,
            stranger: None,
            strangers: 0,
        }
    }

    /// Better poses of frames that were posed before there was a map: for who writes a trajectory down, not for who has
    /// acted on the first ones. Each is given once, after the frame that began the map.
    pub fn take_revised(&mut self) -> Vec<Stamped<Transform<Odom, Camera>>> {
        std::mem::take(&mut self.revised)
    }

    /// Times that a picture of another camera made the stream begin anew.
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// The pose of the next picture. A picture of another size or camera begins a new segment where the last one ended.
    ///
    /// # Errors
    /// [`Error::Stamp`] where its stamp is not after the last one's: the picture is left out, and the stream is as it was.
    pub fn push(&mut self, picture: Picture) -> Result<Pose, Error> {
        let mut number = 0;
        if let Some((stamp, camera, last)) = self.last {
            number = last + 1;
            if picture.stamp() <= stamp {
                let (last_nanos, got_nanos) = (stamp.nanos, picture.stamp().nanos);
                return Err(Error::Stamp { index: number as usize, last_nanos, got_nanos });
            }
            if *picture.given_intrinsics() != camera {
                self.restarts += 1;
                self.give_up();
                self.reference = None;
                // What was seen through another camera is no place of this one.
                self.frames.iter_mut().for_each(|frame| frame.seen.clear());
            }
        }
        // Of the frame's covariance, which is told before the frame may become a keyframe.
        let reference = self.map.oldest_adjusted(self.options.keyframes);
        let frame = if self.reference.is_none() || self.start.is_some() {
            self.starting(&picture, number)
        } else {
            self.running(&picture, number)
        };
        let reference = reference.or_else(|| self.map.oldest_adjusted(self.options.keyframes));
        let reference = reference.unwrap_or(picture.stamp());
        let is_keyframe = self.map.keyframes.back().is_some_and(|keyframe| keyframe.number == number);
        let pose = Pose {
            stamp: picture.stamp(),
            odom_from_camera: Transform::from_isometry_unchecked(frame.0.camera_from_world.inverse()),
            covariance: frame.1,
            reference,
            basis: frame.0.basis,
            segment: self.segment,
            is_keyframe,
            points: frame.2,
        };
        self.frames.push_back(frame.0);
        if self.frames.len() > MEMORY {
            self.frames.pop_front();
        }
        self.last = Some((picture.stamp(), *picture.given_intrinsics(), number));
        if pose.basis != Basis::Motion || self.start.is_some() {
            self.reference = Some(picture);
        }
        Ok(pose)
    }

    /// What is now known of five of the last pictures (at most 64 back), anchored at the first of them; `None` where
    /// one is forgotten, or of another segment.
    pub fn window(&self, stamps: &[Stamp; WINDOW]) -> Option<WindowTrajectory> {
        let frame = |stamp: &Stamp| self.frames.iter().find(|frame| frame.stamp == *stamp);
        let mut frames = Vec::with_capacity(WINDOW);
        for stamp in stamps {
            frames.push(frame(stamp)?);
        }
        if frames.iter().any(|frame| frame.segment != frames[0].segment || frame.basis == Basis::Motion) {
            return None;
        }
        let camera = self.reference.as_ref()?.intrinsics();
        if self.start.is_some() {
            return solve_tracks(&tracks_of(&frames, camera), camera, None).ok().map(|solved| solved.trajectory);
        }
        let poses = self.map.window(&frames, camera);
        let mut window = WindowTrajectory::identity();
        for (out, pose) in window.later_mut().iter_mut().zip(&poses[1..]) {
            *out = Transform::from_isometry_unchecked(poses[0] * pose.inverse());
        }
        Some(window)
    }

    /// Five of the last pictures as the tracks have them; `None` where [`Self::window`] is.
    pub fn tracked(&self, stamps: &[Stamp; WINDOW]) -> Option<TrackedWindow> {
        let trajectory = UpToScale::new(self.window(stamps)?);
        let camera = *self.reference.as_ref()?.intrinsics();
        let frames: Vec<&Frame> =
            stamps.iter().filter_map(|stamp| self.frames.iter().find(|frame| frame.stamp == *stamp)).collect();
        let is_in_unit = self.start.is_none() && frames.iter().all(|frame| frame.basis == Basis::Tracks);
        let tracks = tracks_of(&frames, &camera);
        Some(TrackedWindow { trajectory, tracks, camera, unit: is_in_unit.then_some(self.segment) })
    }

    /// The points that are followed in the newest picture: numbers that stay as long as they are followed, and where they are,
    /// normalised; none where the picture shows nothing that was known.
    pub fn seen(&self) -> &[(u64, Point2<f64>)] {
        self.frames.back().map(|frame| frame.seen.as_slice()).unwrap_or_default()
    }

    /// The points of known depth that are seen now, in the frame of the camera of the last pose, units of the stream.
    pub fn points_in_camera(&self) -> Vec<Point3<f64>> {
        let Some(frame) = self.frames.back().filter(|frame| frame.basis == Basis::Tracks) else { return Vec::new() };
        let pose = &frame.camera_from_world;
        let point = |point: &Point| {
            let world = point.world.filter(|world| point.is_followed && world.w > 1e-9)?;
            Some(pose.transform_point(&Point3::from(world.xyz() / world.w)))
        };
        self.map.points.iter().filter_map(point).collect()
    }

    /// Median depth of what the camera sees, units of the stream; `None` while there is no map.
    pub fn median_depth(&self) -> Option<f64> {
        self.map.median_depth(&self.frames.back()?.camera_from_world)
    }

    /// Where the camera would be at a stamp, were the last motion to go on.
    fn predicted(&self, stamp: Stamp) -> Isometry3<f64> {
        let mut posed = self.frames.iter().rev().filter(|frame| frame.basis != Basis::Motion);
        match (posed.next(), posed.next()) {
            (Some(last), Some(before)) if last.segment == before.segment => {
                let time = last.stamp.nanos_since(before.stamp).max(1) as f64;
                // A few steps at most: after that the motion is another.
                let steps = (stamp.nanos_since(last.stamp) as f64 / time).clamp(0.0, MOST_STEPS);
                let step = last.camera_from_world * before.camera_from_world.inverse();
                let turn = UnitQuaternion::from_scaled_axis(step.rotation.scaled_axis() * steps);
                Isometry3::from_parts(Translation3::from(step.translation.vector * steps), turn)
                    * last.camera_from_world
            }
            (Some(last), _) => last.camera_from_world,
            _ => self.frames.back().map_or_else(Isometry3::identity, |frame| frame.camera_from_world),
        }
    }

    /// The length of a typical step of late, units of the stream.
    fn typical_step(&self) -> Option<f64> {
        let of = |frame: &Frame| frame.camera_from_world.inverse().translation.vector;
        let mut steps: Vec<f64> = self
            .frames
            .iter()
            .zip(self.frames.iter().skip(1))
            .filter(|(a, b)| a.basis == Basis::Tracks && b.basis == Basis::Tracks && a.segment == b.segment)
            .map(|(a, b)| (of(b) - of(a)).norm())
            .collect();
        steps.drain(..steps.len().saturating_sub(10));
        steps.sort_by(f64::total_cmp);
        steps.get(steps.len() / 2).copied().filter(|step| *step > 0.0)
    }

    fn give_up(&mut self) {
        // Of the map that is given up: what leads to one has no unit of its own to hand on.
        if self.start.is_none() {
            self.step = self.typical_step().or(self.step);
        }
        self.map = Map::default();
        self.start = None;
        (self.lost, self.strangers, self.stranger) = (0, 0, None);
        if !self.frames.is_empty() {
            self.segment += 1;
        }
    }

    /// A frame while there is no map.
    fn starting(&mut self, picture: &Picture, number: u64) -> (Frame, Matrix6<f64>, usize) {
        let here = self.frames.back().map_or_else(Isometry3::identity, |frame| frame.camera_from_world);
        let Some(mut start) = self.start.take() else {
            self.start = Some(Start::new(picture.clone(), number, here, self.step, self.options.points));
            let basis = if self.frames.is_empty() { Basis::Turn } else { Basis::Motion };
            return (self.frame(picture, here, basis), unsure(), 0);
        };
        let found = start.push(picture, number, self.reference.as_ref());
        match found {
            start::Found::Lost => {
                // The motion goes on while no point tells it.
                let here = self.predicted(picture.stamp());
                self.start = Some(Start::new(picture.clone(), number, here, self.step, self.options.points));
                (self.frame(picture, here, Basis::Motion), unsure(), 0)
            }
            start::Found::Turned { camera_from_world, covariance, points } => {
                self.start = Some(start);
                (self.frame(picture, camera_from_world, Basis::Turn), covariance, points)
            }
            start::Found::Ready { map, camera_from_world, covariance, points, revised } => {
                for (stamp, pose) in &revised {
                    if let Some(frame) = self.frames.iter_mut().rev().find(|frame| frame.stamp == *stamp) {
                        (frame.camera_from_world, frame.basis) = (*pose, Basis::Tracks);
                    }
                }
                self.revised.extend(revised.iter().map(|(stamp, pose)| Stamped {
                    stamp: *stamp,
                    value: Transform::from_isometry_unchecked(pose.inverse()),
                }));
                self.map = *map;
                self.map.renew(picture, self.options.points);
                (self.frame(picture, camera_from_world, Basis::Tracks), covariance, points)
            }
        }
    }

    fn frame(&self, picture: &Picture, camera_from_world: Isometry3<f64>, basis: Basis) -> Frame {
        let points = self.start.as_ref().map_or(&self.map.points, |start| &start.points);
        let seen = points.iter().filter(|point| point.is_followed);
        Frame {
            stamp: picture.stamp(),
            camera_from_world,
            segment: self.segment,
            basis,
            seen: seen.map(|point| (point.id, Point2::from(picture.normalised(&point.pixel)))).collect(),
        }
    }

    /// A frame on the map.
    fn running(&mut self, picture: &Picture, number: u64) -> (Frame, Matrix6<f64>, usize) {
        let predicted = self.predicted(picture.stamp());
        let last = self.frames.iter().rev().find(|frame| frame.basis != Basis::Motion).or(self.frames.back());
        let last = last.map_or_else(Isometry3::identity, |frame| frame.camera_from_world);
        let before: Vec<(bool, Point2<f32>)> =
            self.map.points.iter().map(|point| (point.is_followed, point.pixel)).collect();
        follow(&mut self.map.points, picture, self.reference.as_ref(), &predicted, &last);
        let posed = match self.posed(picture, &[predicted, last]) {
            Some(posed) => Some((posed, Basis::Tracks)),
            None => match self.turned(picture, &before, &last) {
                Some(posed) => Some((posed, Basis::Turn)),
                None => self.recognised(picture, &before, &last).map(|posed| (posed, Basis::Tracks)),
            },
        };
        let Some(((pose, covariance, count), basis)) = posed else {
            self.lost += 1;
            for (point, (followed, pixel)) in self.map.points.iter_mut().zip(before) {
                // Where they were last seen is where they are looked for.
                (point.is_followed, point.pixel) = (followed, pixel);
            }
            if self.lost > PATIENCE || self.strangers >= STRANGERS {
                self.give_up();
                self.start = Some(Start::new(picture.clone(), number, predicted, self.step, self.options.points));
            }
            return (self.frame_without(picture, predicted), unsure(), 0);
        };
        (self.lost, self.strangers) = (0, 0);
        self.map.find_again(picture, &pose);
        let frame = self.frame(picture, pose, basis);
        if self.map.wants_keyframe(picture, self.options.points) {
            self.map.realign(picture, &pose);
            self.map.keyframes.push_back(Keyframe::new(number, pose, picture.clone()));
            self.map.observe(picture, number);
            if basis == Basis::Tracks {
                self.map.adjust(self.options.keyframes, picture.intrinsics());
            }
            let pose = self.map.keyframes.back().map_or(pose, |keyframe| keyframe.camera_from_world);
            self.map.renew(picture, self.options.points);
            let frame = Frame { camera_from_world: pose, ..frame };
            return (frame, covariance, count);
        }
        (frame, covariance, count)
    }

    fn frame_without(&self, picture: &Picture, camera_from_world: Isometry3<f64>) -> Frame {
        Frame {
            stamp: picture.stamp(),
            camera_from_world,
            segment: self.segment,
            basis: Basis::Motion,
            seen: Vec::new(),
        }
    }

    /// The pose that the followed points of known depth tell, its covariance, and how many fit it; those that do not are
    /// dropped.
    fn posed(&mut self, picture: &Picture, starts: &[Isometry3<f64>]) -> Option<(Isometry3<f64>, Matrix6<f64>, usize)> {
        let camera = picture.intrinsics();
        let focal = 0.5 * (camera.fx + camera.fy);
        let known: Vec<usize> = (0..self.map.points.len())
            .filter(|k| self.map.points[*k].is_followed && self.map.points[*k].world.is_some())
            .collect();
        if known.len() < LEAST_POINTS {
            return None;
        }
        let solid: Vec<Vector4<f64>> = known.iter().filter_map(|k| self.map.points[*k].world).collect();
        let xy: Vec<Point2<f64>> =
            known.iter().map(|k| Point2::from(picture.normalised(&self.map.points[*k].pixel))).collect();
        let weights = vec![1.0; xy.len()];
        let errors = |pose: &Isometry3<f64>| -> Vec<f64> {
            solid.iter().zip(&xy).map(|(point, xy)| error_px(pose, point, xy, camera)).collect()
        };
        let fits = |pose: &Isometry3<f64>| errors(pose).iter().filter(|error| **error < INLIER_PX).count();
        let least = LEAST_POINTS.max((LEAST_SHARE * known.len() as f64) as usize);
        let mut best: Option<(usize, geometry::pnp::RefinedPose)> = None;
        for start in starts {
            if let Some(refined) = refine_pose(&solid, &xy, &weights, start, LOSS_PX / focal, 12) {
                let count = fits(&refined.camera_from_world);
                if best.as_ref().is_none_or(|(most, _)| count > *most) {
                    best = Some((count, refined));
                }
                if count >= least {
                    break;
                }
            }
        }
        if best.as_ref().is_none_or(|(count, _)| *count < least) {
            let euclidean: Vec<Point3<f64>> = solid.iter().map(|p| Point3::from(p.xyz() / p.w.max(1e-9))).collect();
            let options =
                RobustOptions { threshold: INLIER_PX / focal, max_iterations: 300, confidence: 0.999, seed: 7 };
            if let Some(found) = estimate_pose(&euclidean, &xy, &options, starts)
                && let Some(refined) = refine_pose(&solid, &xy, &weights, &found.camera_from_world, LOSS_PX / focal, 12)
            {
                let count = fits(&refined.camera_from_world);
                if best.as_ref().is_none_or(|(most, _)| count > *most) {
                    best = Some((count, refined));
                }
            }
        }
        let (count, refined) = best?;
        if count < LEAST_POINTS || (count as f64) < 0.35 * known.len() as f64 {
            return None;
        }
        let mut squares = Vec::new();
        let mut seen = Vec::with_capacity(known.len());
        for ((k, xy), error) in known.iter().zip(&xy).zip(errors(&refined.camera_from_world)) {
            let point = &mut self.map.points[*k];
            if error > LOST_PX {
                point.is_followed = false;
                point.misses += 1;
            } else {
                squares.push(error * error);
                let Some(point_in_world) = point.world else { continue };
                seen.push(Known { point: point_in_world, information: point.information, xy: xy.coords });
            }
        }
        let middle = squares.len() / 2;
        let median = *squares.select_nth_unstable_by(middle, f64::total_cmp).1;
        // Of a two-dimensional Gaussian.
        let variance = (median / (2.0 * std::f64::consts::LN_2)).max(LEAST_SIGMA_PX * LEAST_SIGMA_PX);
        let options = adjust::Options {
            focal: nalgebra::Vector2::new(camera.fx, camera.fy),
            loss_px: LOSS_PX,
            iterations: 0,
            min_gain: 0.0,
            turn_only: false,
        };
        let information = adjust::pose_information(&refined.camera_from_world, &seen, &options);
        let of_points = information.try_inverse().map_or_else(unsure, |inverse| inverse * variance * ALIKE);
        // The points go with the keyframe that is nearest, the last one.
        let covariance = match self.map.keyframes.back() {
            Some(keyframe) => {
                let moved = adjoint(&(refined.camera_from_world * keyframe.camera_from_world.inverse()));
                of_points + moved * self.map.covariance * moved.transpose()
            }
            None => of_points,
        };
        Some((refined.camera_from_world, covariance, count))
    }

    /// The pose by a turn on the spot that explains what was followed, where too few points of known depth are left: the
    /// camera stays where it is, as far as can be told.
    fn turned(
        &mut self,
        picture: &Picture,
        before: &[(bool, Point2<f32>)],
        last: &Isometry3<f64>,
    ) -> Option<(Isometry3<f64>, Matrix6<f64>, usize)> {
        let camera = picture.intrinsics();
        let focal = 0.5 * (camera.fx + camera.fy);
        let ray = |pixel: &Point2<f32>| Point2::from(picture.normalised(pixel)).to_homogeneous().normalize();
        let (from, to): (Vec<_>, Vec<_>) = self
            .map
            .points
            .iter()
            .zip(before)
            .filter(|(point, (followed, _))| point.is_followed && *followed)
            .map(|(point, (_, pixel))| (ray(pixel), ray(&point.pixel)))
            .unzip();
        if from.len() < TURN_POINTS {
            return None;
        }
        let found = rotation_between(&from, &to, TURN_PX / focal, 7)?;
        let mut left: Vec<f64> = from.iter().zip(&to).map(|(a, b)| (found.b_from_a * a - b).norm()).collect();
        let fitting = left.iter().filter(|error| **error < TURN_PX / focal).count();
        if (fitting as f64) < TURN_SHARE * from.len() as f64 {
            return None;
        }
        let middle = left.len() / 2;
        let median = left.select_nth_unstable_by(middle, f64::total_cmp).1.max(LEAST_SIGMA_PX / focal);
        let pose = Isometry3::from_parts(Translation3::identity(), found.b_from_a) * last;
        let mut covariance = Matrix6::identity() * (4.0 * median * median);
        // What no turn explains may be the motion of points that are as far as those of the map.
        let depth = self.map.median_depth(last).unwrap_or(1.0);
        for k in 3..6 {
            covariance[(k, k)] *= (2.0 * depth).powi(2);
        }
        Some((pose, covariance, 0))
    }

    /// The pose by points that are recognised where following failed: as their neighbours went, coarsely, then aligned in
    /// the shape that the coarse pose gives their patches.
    fn recognised(
        &mut self,
        picture: &Picture,
        before: &[(bool, Point2<f32>)],
        last: &Isometry3<f64>,
    ) -> Option<(Isometry3<f64>, Matrix6<f64>, usize)> {
        let reference = self.reference.as_ref()?;
        // The reference stays the same while the camera is lost.
        let known = match self.features.take() {
            Some((stamp, features)) if stamp == reference.stamp() => features,
            _ => Features::new(reference).ok()?,
        };
        let own = Features::new(picture).ok()?;
        let moved = recognised_motion((reference, &known), (picture, &own));
        self.features = Some((reference.stamp(), known));
        let Some(moved) = moved else {
            let is_known = |(before, features): &(Picture, Features)| {
                before.stamp() > reference.stamp() && recognised_motion((before, features), (picture, &own)).is_some()
            };
            self.strangers = if self.stranger.as_ref().is_some_and(is_known) { self.strangers + 1 } else { 0 };
            self.stranger = Some((picture.clone(), own));
            return None;
        };
        let camera = picture.intrinsics();
        let focal = 0.5 * (camera.fx + camera.fy);
        let (mut solid, mut xy) = (Vec::new(), Vec::new());
        for (point, (followed, pixel)) in self.map.points.iter().zip(before) {
            if let (true, Some(world)) = (*followed, &point.world)
                && let Some(motion) = motion_near(*pixel, &moved)
            {
                solid.push(Point3::from(world.xyz() / world.w.max(1e-9)));
                xy.push(Point2::from(picture.normalised(&(pixel + motion))));
            }
        }
        let options = RobustOptions { threshold: COARSE_PX / focal, max_iterations: 300, confidence: 0.999, seed: 7 };
        let coarse = estimate_pose(&solid, &xy, &options, &[*last])?.camera_from_world;
        let relative = coarse * last.inverse();
        for (point, (followed, pixel)) in self.map.points.iter_mut().zip(before) {
            point.is_followed = false;
            if !*followed {
                continue;
            }
            let Some(world) = &point.world else { continue };
            let inside = last.rotation * world.xyz() + last.translation.vector * world.w;
            let own = reference.normalised(pixel);
            let found = (inside.z > 1e-6)
                .then(|| expected(camera, &relative, &own, world.w / inside.z, &nalgebra::Vector2::zeros()))
                .flatten()
                .and_then(|(at, shape)| realign(reference, *pixel, picture, at, &shape, COARSE_REACH_PX));
            if let Some(at) = found {
                (point.is_followed, point.pixel) = (true, at);
                point.is_stale = true;
            }
        }
        self.posed(picture, &[coarse])
    }
}

/// The points of five frames as tracks.
fn tracks_of(frames: &[&Frame], camera: &Intrinsics) -> Tracks {
    let mut of_point: BTreeMap<u64, [Option<Point2<f32>>; WINDOW]> = BTreeMap::new();
    for (view, frame) in frames.iter().enumerate() {
        for (id, xy) in &frame.seen {
            let pixel = Point2::new((xy.x * camera.fx + camera.cx) as f32, (xy.y * camera.fy + camera.cy) as f32);
            of_point.entry(*id).or_default()[view] = Some(pixel);
        }
    }
    let track = |places: [Option<Point2<f32>>; WINDOW]| {
        let origin = places.iter().position(Option::is_some)?;
        (places.iter().flatten().count() >= 3).then_some(Track { places, origin, is_coarse: false })
    };
    Tracks { points: of_point.into_values().filter_map(track).collect() }
}

/// Takes a step from the left of a camera's pose, rotation before translation, to that of a camera that goes with it.
fn adjoint(own_from_other: &Isometry3<f64>) -> Matrix6<f64> {
    let rotation = own_from_other.rotation.to_rotation_matrix().into_inner();
    let mut adjoint = Matrix6::zeros();
    adjoint.fixed_view_mut::<3, 3>(0, 0).copy_from(&rotation);
    adjoint.fixed_view_mut::<3, 3>(3, 3).copy_from(&rotation);
    adjoint.fixed_view_mut::<3, 3>(3, 0).copy_from(&(own_from_other.translation.vector.cross_matrix() * rotation));
    adjoint
}

/// The covariance of a pose that nothing tells.
fn unsure() -> Matrix6<f64> {
    Matrix6::from_diagonal(&nalgebra::Vector6::new(0.1, 0.1, 0.1, 1.0, 1.0, 1.0))
}

/// Reprojection error, pixels; huge behind the camera.
fn error_px(pose: &Isometry3<f64>, point: &Vector4<f64>, xy: &Point2<f64>, camera: &Intrinsics) -> f64 {
    let inside = pose.rotation * point.xyz() + pose.translation.vector * point.w;
    if inside.z <= 1e-6 {
        return 1e6;
    }
    ((inside.x / inside.z - xy.x) * camera.fx).hypot((inside.y / inside.z - xy.y) * camera.fy)
}

/// The pixel of a homogeneous point.
fn pixel_of(pose: &Isometry3<f64>, point: &Vector4<f64>, camera: &Intrinsics) -> Option<Point2<f32>> {
    let inside = pose.rotation * point.xyz() + pose.translation.vector * point.w;
    (inside.z > 1e-6).then(|| {
        Point2::new(
            (inside.x / inside.z * camera.fx + camera.cx) as f32,
            (inside.y / inside.z * camera.fy + camera.cy) as f32,
        )
    })
}

/// Follows points into the next picture: from where the predicted motion puts them, then from where they were, then as
/// their neighbours went.
fn follow(
    points: &mut [Point],
    picture: &Picture,
    last_picture: Option<&Picture>,
    predicted: &Isometry3<f64>,
    last: &Isometry3<f64>,
) {
    let camera = picture.intrinsics();
    // What the turn alone does to a point of unknown depth.
    let turn = predicted.rotation * last.rotation.inverse();
    let turned = Isometry3::from_parts(Translation3::identity(), turn);
    let mut followed = Vec::with_capacity(points.len());
    let mut failed = Vec::new();
    for (index, point) in points.iter_mut().enumerate() {
        if !point.is_followed {
            continue;
        }
        let guess = match &point.world {
            Some(world) => pixel_of(predicted, world, camera),
            None => {
                let ray = Point2::from(picture.normalised(&point.pixel)).to_homogeneous();
                pixel_of(&turned, &ray.push(0.0), camera).map(|p| p + point.drift)
            }
        };
        let guess = guess.filter(|p| camera.contains(&Point2::new(f64::from(p.x), f64::from(p.y))));
        let was = point.pixel;
        match guess.and_then(|guess| found(point, picture, last_picture, guess, PREDICTED_LEVELS + 1)) {
            Some((at, correlation)) => {
                followed.push((was, at - was));
                point.moved(at, correlation, guess);
            }
            None => failed.push(index),
        }
    }
    // As their neighbours went, if most were followed; from where they were, if the prediction was no good.
    let is_good = followed.len() >= failed.len();
    let mut again = Vec::new();
    for index in failed {
        let point = &mut points[index];
        let was = point.pixel;
        let guess = if is_good { motion_near(was, &followed).map(|motion| was + motion) } else { Some(was) };
        let levels = if is_good { 2 } else { usize::MAX };
        match guess.and_then(|guess| found(point, picture, last_picture, guess, levels)) {
            Some((at, correlation)) => {
                if !is_good {
                    followed.push((was, at - was));
                }
                point.moved(at, correlation, None);
            }
            None => again.push(index),
        }
    }
    for index in again {
        let point = &mut points[index];
        let guess = if is_good { None } else { motion_near(point.pixel, &followed).map(|motion| point.pixel + motion) };
        match guess.and_then(|guess| found(point, picture, last_picture, guess, 2)) {
            Some((at, correlation)) => point.moved(at, correlation, None),
            None => point.is_followed = false,
        }
    }
}

/// Where a point is in a picture; one of unknown depth must be found back from there.
fn found(
    point: &Point,
    picture: &Picture,
    last_picture: Option<&Picture>,
    guess: Point2<f32>,
    levels: usize,
) -> Option<(Point2<f32>, f32)> {
    let found = point.patch.find(picture, guess, levels)?;
    if found.correlation < LEAST_CORRELATION {
        return None;
    }
    if let (None, Some(last)) = (&point.world, last_picture) {
        let back = Patch::new(picture, found.at, 2);
        let returned = back.find(last, point.pixel, 1)?;
        if (returned.at - point.pixel).norm() > FORWARD_BACKWARD {
            return None;
        }
    }
    Some((found.at, found.correlation))
}
