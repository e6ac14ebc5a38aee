//! Keyframes and points, and their adjustment.

use std::collections::{HashMap, VecDeque};

use geometry::adjust::{Bundle, Observations, Options, View};
use geometry::two_view::triangulate;
use geometry::{Intrinsics, Stamp};
use nalgebra::{DVector, Isometry3, Matrix3, Matrix6, Point2, Vector2, Vector3, Vector4};

use super::{FRESH_CORRELATION, Frame, KEYFRAME_MOTION, KEYFRAME_SHARE, LEAST_CORRELATION, error_px, pixel_of};
use crate::align::Patch;
use crate::corners::corners;
use crate::picture::Picture;
use crate::tracks::{expected, realign, slope};
use crate::window::{self, robust_sigma_px};

/// Keyframes that are kept, those that are held included.
const KEPT: usize = 16;
/// Scale of the loss, pixels; errors from which an observation is dropped.
const LOSS_PX: f64 = 0.5;
const OUTLIER_PX: f64 = 3.0;
/// Iterations of an adjustment.
const ITERATIONS: usize = 8;
const MIN_GAIN: f64 = 1e-3;
/// Points that a keyframe's covariance is computed from, at most.
const COVARIANCE_POINTS: usize = 160;
/// Angle between rays, radians, from which a depth is taken for known.
const LEAST_ANGLE: f64 = 0.006;
/// Farthest, pixels, that a point is looked for from where the pose puts it.
const REACH_PX: f32 = 3.0;
/// Farthest, pixels, that a point is from where its first keyframe says.
const REALIGN_PX: f32 = 1.5;
/// Points that were lost and are looked for in a frame, at most.
const SEARCHES: usize = 120;
/// Misses after which a point is forgotten.
const MISSES: u8 = 3;

/// A frame that points are known from.
#[derive(Debug)]
pub(super) struct Keyframe {
    pub number: u64,
    pub camera_from_world: Isometry3<f64>,
    pub picture: Picture,
}

impl Keyframe {
    pub fn new(number: u64, camera_from_world: Isometry3<f64>, picture: Picture) -> Self {
        Self { number, camera_from_world, picture }
    }
}

/// A point that is followed, or was.
pub(super) struct Point {
    pub id: u64,
    /// Homogeneous, of unit norm; `None` while its depth is unknown.
    pub world: Option<Vector4<f64>>,
    /// How well the keyframes know it: of a step in its tangent space, times the variance of a pixel.
    pub information: Matrix3<f64>,
    /// Keyframes that see it, and where, normalised.
    pub seen: Vec<(u64, Vector2<f64>)>,
    pub patch: Patch,
    /// Where it is, or was last.
    pub pixel: Point2<f32>,
    /// How its motion differs from that of the far: what is left of a prediction by the turn alone.
    pub drift: Vector2<f32>,
    pub is_followed: bool,
    /// Whether its patch is of another shape than what is seen now.
    pub is_stale: bool,
    pub misses: u8,
    correlation: f32,
}

impl std::fmt::Debug for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Point")
            .field("id", &self.id)
            .field("world", &self.world)
            .field("pixel", &self.pixel)
            .finish_non_exhaustive()
    }
}

impl Point {
    pub fn new(id: u64, picture: &Picture, pixel: Point2<f32>) -> Self {
        Self {
            id,
            world: None,
            information: Matrix3::zeros(),
            seen: Vec::new(),
            patch: Patch::new(picture, pixel, usize::MAX),
            pixel,
            drift: Vector2::zeros(),
            is_followed: true,
            is_stale: false,
            misses: 0,
            correlation: 1.0,
        }
    }

    /// It was found there; `guess` is where the turn and its drift had put it.
    pub fn moved(&mut self, at: Point2<f32>, correlation: f32, guess: Option<Point2<f32>>) {
        if let Some(guess) = guess {
            self.drift += at - guess;
        }
        self.pixel = at;
        self.correlation = correlation;
        self.is_followed = true;
    }
}

/// Keyframes and points.
#[derive(Debug, Default)]
pub(super) struct Map {
    /// The oldest first.
    pub keyframes: VecDeque<Keyframe>,
    pub points: Vec<Point>,
    pub next_id: u64,
    /// Points that the last keyframe saw.
    pub at_keyframe: usize,
    /// Standard deviation of an image coordinate, pixels, as the last adjustment left it.
    pub sigma_px: Option<f64>,
    /// Covariance of the newest keyframe against the oldest that was adjusted: rotation before translation, a step from the
    /// left of `camera_from_world`.
    pub covariance: Matrix6<f64>,
}

impl Map {
    /// Looks for points that were lost where the pose puts them.
    pub fn find_again(&mut self, picture: &Picture, pose: &Isometry3<f64>) {
        let camera = picture.intrinsics();
        let mut searches = 0;
        for point in self.points.iter_mut().filter(|point| !point.is_followed) {
            let Some(world) = &point.world else { continue };
            let Some(expected) = pixel_of(pose, world, camera) else { continue };
            if !camera.contains(&Point2::new(f64::from(expected.x), f64::from(expected.y))) {
                continue;
            }
            searches += 1;
            if searches > SEARCHES {
                break;
            }
            let found = point.patch.find(picture, expected, 1);
            match found.filter(|f| f.correlation > LEAST_CORRELATION && (f.at - expected).norm() < REACH_PX) {
                Some(found) => point.moved(found.at, found.correlation, None),
                None => point.misses += 1,
            }
        }
        self.points.retain(|point| point.misses < MISSES * if point.world.is_some() { 4 } else { 1 });
    }

    /// Whether the picture shows enough that is new.
    pub fn wants_keyframe(&self, picture: &Picture, target: usize) -> bool {
        let Some(last) = self.keyframes.back() else { return true };
        // What was recognised is followed from here on by what is seen here.
        if self.points.iter().any(|point| point.is_stale) {
            return true;
        }
        let camera = picture.intrinsics();
        let mut motions: Vec<f64> = self
            .points
            .iter()
            .filter(|point| point.is_followed)
            .filter_map(|point| {
                let (_, xy) = point.seen.iter().rev().find(|(number, _)| *number == last.number)?;
                let now = picture.normalised(&point.pixel);
                Some(((now.x - xy.x) * camera.fx).hypot((now.y - xy.y) * camera.fy))
            })
            .collect();
        let common = motions.len();
        if (common as f64) < KEYFRAME_SHARE * self.at_keyframe as f64 || common < target / 6 {
            return true;
        }
        let middle = motions.len() / 2;
        let median = *motions.select_nth_unstable_by(middle, f64::total_cmp).1;
        median > KEYFRAME_MOTION * f64::from(camera.width.max(camera.height))
    }

    /// Aligns the followed points anew with the keyframe that saw them first, in the shape that the motion gives their
    /// patches: what drifts from keyframe to keyframe is left behind.
    pub fn realign(&mut self, picture: &Picture, pose: &Isometry3<f64>) {
        let camera = picture.intrinsics();
        let focal = 0.5 * (camera.fx + camera.fy);
        // The keyframe that saw each first, where there, and how near.
        let origins: Vec<Option<(&Keyframe, Vector3<f64>)>> = self
            .points
            .iter()
            .map(|point| {
                let (number, xy) = point.seen.first()?;
                let world = point.world.as_ref().filter(|_| point.is_followed)?;
                let origin = self.keyframes.iter().find(|keyframe| keyframe.number == *number)?;
                let pose = &origin.camera_from_world;
                let inside = pose.rotation * world.xyz() + pose.translation.vector * world.w;
                (inside.z > 1e-6).then(|| (origin, xy.push(world.w / inside.z)))
            })
            .collect();
        for (index, point) in self.points.iter_mut().enumerate() {
            let Some((origin, near)) = origins[index] else { continue };
            let same = |other: &Option<(&Keyframe, Vector3<f64>)>| {
                other.filter(|(keyframe, _)| keyframe.number == origin.number).map(|(_, near)| near)
            };
            let others = origins.iter().enumerate().filter(|(k, _)| *k != index).filter_map(|(_, other)| same(other));
            let slope = slope(&near, others, focal);
            let relative = pose * origin.camera_from_world.inverse();
            let xy = &near.xy();
            let Some((_, shape)) = expected(camera, &relative, xy, near.z, &slope) else { continue };
            let at = pixel(camera, xy);
            if let Some(place) = realign(&origin.picture, at, picture, point.pixel, &shape, REALIGN_PX) {
                point.pixel = place;
            }
        }
    }

    /// Notes where the newest keyframe sees the points, and finds the depth of those that have moved enough.
    pub fn observe(&mut self, picture: &Picture, number: u64) {
        for point in self.points.iter_mut().filter(|point| point.is_followed) {
            point.seen.push((number, picture.normalised(&point.pixel)));
        }
        self.triangulate(picture.intrinsics());
    }

    /// Finds the depth of the followed points that have moved enough.
    pub fn triangulate(&mut self, camera: &Intrinsics) {
        let poses: HashMap<u64, Isometry3<f64>> =
            self.keyframes.iter().map(|keyframe| (keyframe.number, keyframe.camera_from_world)).collect();
        for point in self.points.iter_mut().filter(|point| point.is_followed && point.world.is_none()) {
            point.world = depth(point, &poses, camera);
        }
    }

    /// Adjusts the last `free` keyframes and all points that they see; older keyframes are held.
    pub fn adjust(&mut self, free: usize, camera: &Intrinsics) {
        let count = self.keyframes.len();
        if count < 2 {
            return;
        }
        // The first is always held: it carries the frame, as the second carries the scale once there are more.
        let first_free = count.saturating_sub(free).max(1);
        let places: HashMap<u64, usize> = self.keyframes.iter().enumerate().map(|(k, f)| (f.number, k)).collect();
        let views = self.keyframes.iter().enumerate().map(|(k, keyframe)| {
            if k < first_free { View::held(keyframe.camera_from_world) } else { View::free(keyframe.camera_from_world) }
        });
        let mut bundle = Bundle { views: views.collect(), points: Vec::new(), observations: Observations::new() };
        let mut indices = Vec::new();
        for (index, point) in self.points.iter().enumerate() {
            let Some(world) = point.world else { continue };
            let seen: Vec<(usize, Vector2<f64>)> =
                point.seen.iter().filter_map(|(number, xy)| Some((*places.get(number)?, *xy))).collect();
            if seen.len() < 2 || !seen.iter().any(|(view, _)| *view >= first_free) {
                continue;
            }
            bundle.points.push(world);
            bundle.observations.push(seen);
            indices.push(index);
        }
        let options = Options {
            focal: Vector2::new(camera.fx, camera.fy),
            loss_px: loss_px(self.sigma_px),
            iterations: ITERATIONS,
            min_gain: MIN_GAIN,
            turn_only: false,
        };
        let before = spread(&bundle);
        bundle.adjust(&options);
        if first_free == 1 {
            // One camera is held: the scale is kept as the distances between all.
            let after = spread(&bundle);
            if after > 1e-12 && before > 1e-12 {
                rescale(&mut bundle, before / after);
            }
        }
        let squares = bundle.squares(&options.focal);
        let (observed, sought) = (2 * squares.len(), 3 * bundle.points.len() + 6 * (count - first_free));
        self.sigma_px = (observed > sought).then(|| robust_sigma_px(squares.clone(), observed as f64, sought as f64));
        let informations = bundle.point_information(&options);
        let variance = self.sigma_px.unwrap_or(window::FEW_SIGMA_PX).powi(2);
        self.covariance = newest(&bundle, &options, variance, count.saturating_sub(free));
        let mut at = 0;
        for (own, index) in indices.iter().enumerate() {
            let point = &mut self.points[*index];
            let count = bundle.observations.of(own).len();
            let errors = &squares[at..at + count];
            at += count;
            let bad: Vec<u64> = bundle
                .observations
                .of(own)
                .iter()
                .zip(errors)
                .filter(|(_, square)| **square > OUTLIER_PX * OUTLIER_PX)
                .map(|((view, _), _)| self.keyframes[*view as usize].number)
                .collect();
            if bad.len() + 2 > count {
                point.world = None;
                point.seen.clear();
                point.misses += MISSES;
            } else {
                point.seen.retain(|(number, _)| !bad.contains(number));
                point.world = Some(bundle.points[own]);
                point.information = informations[own];
            }
        }
        for (keyframe, view) in self.keyframes.iter_mut().zip(&bundle.views) {
            keyframe.camera_from_world = view.camera_from_world;
        }
        let forgotten = |point: &Point| point.misses >= MISSES && point.world.is_none();
        self.points.retain(|point| !forgotten(point));
    }

    /// New points where there are none, fresh patches for those that have changed, and no more keyframes than are kept.
    pub fn renew(&mut self, picture: &Picture, target: usize) {
        let Some(number) = self.keyframes.back().map(|keyframe| keyframe.number) else { return };
        while self.keyframes.len() > KEPT {
            self.keyframes.pop_front();
        }
        let oldest = self.keyframes.front().map_or(0, |keyframe| keyframe.number);
        let newest: Vec<u64> = self.keyframes.iter().rev().take(6).map(|keyframe| keyframe.number).collect();
        for point in &mut self.points {
            point.seen.retain(|(number, _)| *number >= oldest);
            if point.is_followed && (point.is_stale || point.correlation < FRESH_CORRELATION) {
                point.patch = Patch::new(picture, point.pixel, usize::MAX);
                (point.correlation, point.is_stale) = (1.0, false);
            }
        }
        self.points.retain(|point| {
            point.is_followed || (point.world.is_some() && point.seen.iter().any(|(number, _)| newest.contains(number)))
        });
        let taken: Vec<Point2<f32>> =
            self.points.iter().filter(|point| point.is_followed).map(|point| point.pixel).collect();
        let wanted = target.saturating_sub(taken.len());
        if wanted > 0 {
            for corner in corners(picture, 0, target, &taken).into_iter().take(wanted) {
                let mut point = Point::new(self.next_id, picture, corner.at);
                self.next_id += 1;
                point.seen.push((number, picture.normalised(&corner.at)));
                self.points.push(point);
            }
        }
        self.at_keyframe = self.points.iter().filter(|point| point.is_followed).count();
    }

    /// When the oldest of the keyframes that are adjusted was taken, of which there are at most so many.
    pub fn oldest_adjusted(&self, free: usize) -> Option<Stamp> {
        let oldest = self.keyframes.len().saturating_sub(free);
        self.keyframes.get(oldest).map(|keyframe| keyframe.picture.stamp())
    }

    /// Median depth of the points that have one, from a camera.
    pub fn median_depth(&self, camera_from_world: &Isometry3<f64>) -> Option<f64> {
        let depth = |world: Vector4<f64>| {
            let z = (camera_from_world.rotation * world.xyz() + camera_from_world.translation.vector * world.w).z;
            (world.w > 1e-9 && z > 0.0).then(|| z / world.w)
        };
        let mut depths: Vec<f64> = self.points.iter().filter_map(|point| depth(point.world?)).collect();
        let middle = depths.len() / 2;
        (!depths.is_empty()).then(|| *depths.select_nth_unstable_by(middle, f64::total_cmp).1)
    }

    /// Five frames against all that is known of their points.
    pub fn window(&self, frames: &[&Frame], camera: &Intrinsics) -> Vec<Isometry3<f64>> {
        let places: HashMap<u64, usize> = self.keyframes.iter().enumerate().map(|(k, f)| (f.number, k)).collect();
        let mut bundle = Bundle { observations: Observations::new(), ..Bundle::default() };
        bundle.views.extend(self.keyframes.iter().map(|keyframe| View::held(keyframe.camera_from_world)));
        let first = bundle.views.len();
        bundle.views.extend(frames.iter().map(|frame| View::free(frame.camera_from_world)));
        let mut of_point: HashMap<u64, Vec<(usize, Vector2<f64>)>> = HashMap::new();
        for (k, frame) in frames.iter().enumerate() {
            for (id, xy) in &frame.seen {
                of_point.entry(*id).or_default().push((first + k, xy.coords));
            }
        }
        for point in &self.points {
            let (Some(world), Some(here)) = (point.world, of_point.get(&point.id)) else { continue };
            let old = point.seen.iter().filter_map(|(number, xy)| Some((*places.get(number)?, *xy)));
            bundle.points.push(world);
            bundle.observations.push(old.chain(here.iter().copied()));
        }
        if bundle.points.len() >= 12 {
            let focal = Vector2::new(camera.fx, camera.fy);
            let options = Options {
                focal,
                loss_px: loss_px(self.sigma_px),
                iterations: ITERATIONS,
                min_gain: MIN_GAIN,
                turn_only: false,
            };
            bundle.adjust(&options);
        }
        bundle.views[first..].iter().map(|view| view.camera_from_world).collect()
    }
}

/// Covariance of the last view against the one at `reference`, in the unit that gives the ways from there the same root of
/// the sum of squares. All that is known tells it: no view is taken for exact, whether it was adjusted or not.
fn newest(bundle: &Bundle, options: &Options, variance: f64, reference: usize) -> Matrix6<f64> {
    // Some of the points tell as much, each for several.
    let each = bundle.points.len().div_ceil(COVARIANCE_POINTS).max(1);
    let kept: Vec<usize> = (0..bundle.points.len()).step_by(each).collect();
    let share = kept.len() as f64 / bundle.points.len().max(1) as f64;
    let mut some = Bundle { views: bundle.views.clone(), points: Vec::new(), observations: Observations::new() };
    for point in kept {
        some.points.push(bundle.points[point]);
        some.observations.push(bundle.observations.of(point).iter().map(|(view, xy)| (*view as usize, *xy)));
    }
    let mut bundle = some;
    for (k, view) in bundle.views.iter_mut().enumerate() {
        view.is_free = k != reference;
    }
    let world_from_reference = bundle.views[reference].camera_from_world.inverse();
    let free: Vec<usize> = (0..bundle.views.len()).filter(|k| *k != reference).collect();
    // What the scale moves, and of it what is after the reference.
    let scale = DVector::from_fn(6 * free.len(), |k, _| {
        let way = || (bundle.views[free[k / 6]].camera_from_world * world_from_reference).translation.vector[k % 6 - 3];
        if k % 6 >= 3 { way() } else { 0.0 }
    });
    let after = DVector::from_fn(scale.len(), |k, _| if free[k / 6] > reference { scale[k] } else { 0.0 });
    let covariance = bundle.covariance(options, variance, Some(&scale)) * (window::ALIKE * share);
    let at = scale.len() - 6;
    let last = |vector: &DVector<f64>| vector.fixed_rows::<6>(at).into_owned();
    let (own, square) = (last(&scale), scale.dot(&after).max(f64::MIN_POSITIVE));
    let shared = &covariance * &after;
    let mixed = own * last(&shared).transpose() / square;
    covariance.fixed_view::<6, 6>(at, at) - mixed - mixed.transpose()
        + own * own.transpose() * (after.dot(&shared) / (square * square))
}

/// Scale of the loss, pixels; before any adjustment has told the residuals, that of any camera.
fn loss_px(sigma_px: Option<f64>) -> f64 {
    sigma_px.map_or(LOSS_PX, window::loss_px)
}

fn pixel(camera: &Intrinsics, xy: &Vector2<f64>) -> Point2<f32> {
    Point2::new((xy.x * camera.fx + camera.cx) as f32, (xy.y * camera.fy + camera.cy) as f32)
}

/// The sum of the distances between all pairs of cameras.
fn spread(bundle: &Bundle) -> f64 {
    let centres: Vec<_> = bundle.views.iter().map(|view| view.camera_from_world.inverse().translation.vector).collect();
    let mut sum = 0.0;
    for (k, a) in centres.iter().enumerate() {
        for b in &centres[k + 1..] {
            sum += (a - b).norm();
        }
    }
    sum
}

/// Multiplies all lengths as the first camera sees them.
fn rescale(bundle: &mut Bundle, factor: f64) {
    let Some(first) = bundle.views.first().map(|view| view.camera_from_world) else { return };
    let back = first.inverse();
    for view in &mut bundle.views {
        let mut relative = view.camera_from_world * back;
        relative.translation.vector *= factor;
        view.camera_from_world = relative * first;
    }
    for point in &mut bundle.points {
        let mut inside = (first.rotation * point.xyz() + first.translation.vector * point.w).push(point.w);
        inside.w /= factor;
        let world = back.rotation * inside.xyz() + back.translation.vector * inside.w;
        *point = world.push(inside.w).normalize();
    }
}

/// The point where its keyframes' rays meet, if they tell.
fn depth(point: &Point, poses: &HashMap<u64, Isometry3<f64>>, camera: &Intrinsics) -> Option<Vector4<f64>> {
    let seen: Vec<(&Isometry3<f64>, Point2<f64>)> =
        point.seen.iter().filter_map(|(number, xy)| Some((poses.get(number)?, Point2::from(*xy)))).collect();
    if seen.len() < 2 {
        return None;
    }
    let rays: Vec<_> =
        seen.iter().map(|(pose, xy)| pose.rotation.inverse() * xy.to_homogeneous().normalize()).collect();
    let newest = rays.last()?;
    if rays.iter().all(|ray| ray.angle(newest) < LEAST_ANGLE) {
        return None;
    }
    let (views, xy): (Vec<_>, Vec<_>) = seen.iter().map(|(pose, xy)| (**pose, *xy)).unzip();
    let world = triangulate(&views, &xy)?;
    let centres: Vec<_> = views.iter().map(|pose| pose.inverse().translation.vector).collect();
    // Rays that differ only because the camera turned wrongly tell nothing: the angle is that at the point.
    let to = |centre: &Vector3<f64>| (world.xyz() - centre * world.w).normalize();
    let last = to(centres.last()?);
    if centres.iter().all(|centre| to(centre).angle(&last) < LEAST_ANGLE) {
        return None;
    }
    let is_good = seen.iter().all(|(pose, xy)| error_px(pose, &world, xy, camera) < 2.5);
    (is_good && world.w > 1e-6).then_some(world)
}
