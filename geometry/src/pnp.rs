//! The pose of a calibrated camera from points whose world coordinates are known.
//!
//! The minimal solver is Grunert's (1841) as in Haralick, Lee, Ottenberg and Nölle, "Review and analysis of solutions of
//! the three point perspective pose estimation problem", IJCV 13(3), 1994; its quartic starts Newton's method on the
//! three distances. Image points are normalised, as in [`crate::two_view`].

use nalgebra::{Isometry3, Matrix3, Matrix6, Point2, Point3, Translation3, UnitQuaternion, Vector3, Vector4};

use crate::frame::quaternion_from_orthonormal;
use crate::polynomial::real_roots;
use crate::robust::{CONVERGED, Loss, Problem, ROUGH, RobustOptions, Search, accumulate, minimise, ransac};
use crate::up_to::UpTo;

/// Steps of Newton's method on the distances.
const NEWTON_STEPS: usize = 8;
/// The squared sides of the triangle must agree to this part of the largest.
const AGREES: f64 = 1e-10;
/// Solutions whose distances agree to this part are one.
const SAME: f64 = 1e-7;
/// The sine of an angle below which three points are on a line.
const COLLINEAR: f64 = 1e-9;
/// Steps of a local optimisation, and of the last one.
const POLISH_STEPS: usize = 8;
const FINAL_STEPS: usize = 30;
/// Fewest inliers of an answer: three points fit always.
const MIN_INLIERS: usize = 4;
/// The squared error, in normalised units, of a point behind the camera.
const BEHIND: f64 = 1e4;
/// Depths below this part of a point's distance are behind.
const NO_DEPTH: f64 = 1e-9;

/// The up to four poses `camera_from_world` from which three points of the world are seen along three rays of any
/// length but zero, in the camera frame.
///
/// Empty where the points are on a line, the rays coincide, or a number is not finite.
pub fn p3p(points: &[Point3<f64>; 3], rays: &[Vector3<f64>; 3]) -> UpTo<Isometry3<f64>, 4> {
    let mut poses = UpTo::new();
    let rays = rays.map(|ray| ray / ray.norm());
    // Sides opposite to points 0, 1, 2, squared, and the cosines of the angles under which they are seen.
    let pairs = [(1, 2), (0, 2), (0, 1)];
    let sides = pairs.map(|(i, j)| (points[i] - points[j]).norm_squared());
    let cosines = pairs.map(|(i, j)| rays[i].dot(&rays[j]));
    let largest = sides.iter().fold(0.0, |largest: f64, side| largest.max(*side));
    let area = (points[1] - points[0]).cross(&(points[2] - points[0])).norm();
    let finite = sides.iter().chain(&cosines).all(|x| x.is_finite());
    if !finite || area.is_nan() || area <= COLLINEAR * largest || cosines.iter().any(|c| *c >= 1.0) {
        return poses;
    }
    let sides = sides.map(|side| side / largest);
    let [a, b, c] = [sides[0] / sides[1], 1.0, sides[2] / sides[1]];
    let [alpha, beta, gamma] = cosines;

    // s_1 = u s_0, s_2 = v s_0 (eq. 4 and 5): with N = s_0^2 (1 + v^2 - 2 v beta) = b, the other two sides give
    // u^2 + v^2 - 2 u v alpha = a N and 1 + u^2 - 2 u gamma = c N. Their difference is linear in u (eq. 8):
    // 2 u (gamma - v alpha) = 1 - v^2 + (a - c) N.
    let n = [1.0, -2.0 * beta, 1.0];
    let numerator: [f64; 3] = std::array::from_fn(|k| (a - c) * n[k] + [1.0, 0.0, -1.0][k]);
    let denominator = [2.0 * gamma, -2.0 * alpha];
    // 1 + u^2 - 2 u gamma - c N = 0, times the squared denominator: the quartic in v (eq. 9).
    let mut quartic = [0.0; 5];
    for i in 0..3 {
        for j in 0..3 {
            quartic[i + j] += numerator[i] * numerator[j];
        }
    }
    for i in 0..2 {
        for j in 0..3 {
            quartic[i + j] -= 2.0 * gamma * denominator[i] * numerator[j];
        }
        for j in 0..2 {
            for k in 0..3 {
                quartic[i + j + k] += denominator[i] * denominator[j] * ([1.0, 0.0, 0.0][k] - c * n[k]);
            }
        }
    }

    let mut found = UpTo::<[f64; 3], 4>::new();
    for &v in &real_roots(&quartic) {
        if v <= 0.0 {
            continue;
        }
        let n = (1.0 + v * v - 2.0 * v * beta).max(f64::MIN_POSITIVE);
        // The linear equation fails where its slope is zero: the quadratic one has both answers then.
        let root = (gamma * gamma - 1.0 + c * n).max(0.0).sqrt();
        let linear = (1.0 - v * v + (a - c) * n) / (2.0 * (gamma - v * alpha));
        for u in [linear, gamma + root, gamma - root] {
            let s = (b * sides[1] / n).sqrt();
            let Some(distances) = polish_distances([s, u * s, v * s], &sides, &cosines) else { continue };
            let same = |other: &[f64; 3]| distances.iter().zip(other).all(|(x, y)| (x - y).abs() <= SAME * (x + y));
            if !found.iter().any(same) {
                found.push(distances);
            }
        }
    }
    let scale = largest.sqrt();
    for distances in &found {
        let seen: [Point3<f64>; 3] = std::array::from_fn(|k| Point3::from(rays[k] * (distances[k] * scale)));
        if let (Some(in_world), Some(in_camera)) = (axes(points), axes(&seen)) {
            let rotation = quaternion_from_orthonormal(&(in_camera * in_world.transpose()));
            let mean = |p: &[Point3<f64>; 3]| (p[0].coords + p[1].coords + p[2].coords) / 3.0;
            let translation = mean(&seen) - rotation * mean(points);
            if translation.iter().chain(rotation.coords.iter()).all(|x| x.is_finite()) {
                poses.push(Isometry3::from_parts(Translation3::from(translation), rotation));
            }
        }
    }
    poses
}

/// Newton's method on `s_i^2 + s_j^2 - 2 s_i s_j cos = side`; `None` unless it ends at three positive distances.
fn polish_distances(mut s: [f64; 3], sides: &[f64; 3], cosines: &[f64; 3]) -> Option<[f64; 3]> {
    let residual = |s: &[f64; 3]| {
        Vector3::from_fn(|k, _| {
            let (i, j) = [(1, 2), (0, 2), (0, 1)][k];
            s[i] * s[i] + s[j] * s[j] - 2.0 * s[i] * s[j] * cosines[k] - sides[k]
        })
    };
    let mut error = residual(&s);
    let mut norm = error.norm();
    for _ in 0..NEWTON_STEPS {
        if norm.is_nan() || norm > 1.0 {
            return None;
        }
        let d = |i: usize, j: usize, k: usize| 2.0 * (s[i] - s[j] * cosines[k]);
        let jacobian =
            Matrix3::new(0.0, d(1, 2, 0), d(2, 1, 0), d(0, 2, 1), 0.0, d(2, 0, 1), d(0, 1, 2), d(1, 0, 2), 0.0);
        let Some(inverse) = jacobian.try_inverse() else { break };
        let step = inverse * error;
        let next = [s[0] - step.x, s[1] - step.y, s[2] - step.z];
        let next_error = residual(&next);
        let next_norm = next_error.norm();
        if next_norm >= norm || next_norm.is_nan() {
            break;
        }
        (s, error, norm) = (next, next_error, next_norm);
        if norm < 1e-16 {
            break;
        }
    }
    (norm < AGREES && s.iter().all(|s| *s > 0.0)).then_some(s)
}

/// An orthonormal frame of a triangle.
fn axes(p: &[Point3<f64>; 3]) -> Option<Matrix3<f64>> {
    let first = (p[1] - p[0]).try_normalize(f64::MIN_POSITIVE)?;
    let normal = first.cross(&(p[2] - p[0])).try_normalize(f64::MIN_POSITIVE)?;
    Some(Matrix3::from_columns(&[first, normal.cross(&first), normal]))
}

/// What [`estimate_pose`] finds.
#[derive(Clone, Debug)]
pub struct AbsolutePose {
    /// The pose.
    pub camera_from_world: Isometry3<f64>,
    /// For each point whether it is in front and its reprojection error within the threshold.
    pub inliers: Vec<bool>,
    /// The sum over finite points of the squared error in squared thresholds, at most 1 each.
    pub score: f64,
}

impl AbsolutePose {
    /// The number of inliers.
    pub fn inlier_count(&self) -> usize {
        self.inliers.iter().filter(|inlier| **inlier).count()
    }
}

/// The pose of a camera from points of the world and their normalised images, of which some are wrong: three-point
/// samples in a locally optimised RANSAC, refined over all inliers.
///
/// `priors` are hypotheses `camera_from_world` that are tried and refined first, such as the last pose.
///
/// `None` where the lengths differ, fewer than four points are finite, the threshold is not positive, or nothing fits
/// four points.
pub fn estimate_pose(
    points: &[Point3<f64>],
    xy: &[Point2<f64>],
    options: &RobustOptions,
    priors: &[Isometry3<f64>],
) -> Option<AbsolutePose> {
    if points.len() != xy.len() || !options.usable() {
        return None;
    }
    let finite = |(p, xy): &(&Point3<f64>, &Point2<f64>)| p.iter().chain(xy.iter()).all(|x| x.is_finite());
    let data: Vec<Datum> = points
        .iter()
        .zip(xy)
        .filter(finite)
        .map(|(p, xy)| Datum { point: p.coords, w: 1.0, xy: *xy, weight: 1.0 })
        .collect();
    if data.len() < MIN_INLIERS {
        return None;
    }
    let search = PoseSearch { data: &data, square: options.threshold * options.threshold };
    let priors = priors.iter().filter(|prior| finite_pose(prior)).map(View::new);
    let (view, _) = ransac(&search, options, priors)?;
    let problem = Reprojection { data: &data, loss: Loss::Truncated(search.square) };
    let (view, _) = minimise(&problem, &view, FINAL_STEPS, CONVERGED);
    let inliers: Vec<bool> =
        points.iter().zip(xy).map(|(p, xy)| view.square(&p.coords, 1.0, xy) <= search.square).collect();
    let score = search.cost(&view, f64::INFINITY);
    let count = inliers.iter().filter(|inlier| **inlier).count();
    (count >= MIN_INLIERS).then(|| AbsolutePose { camera_from_world: view.pose(), inliers, score })
}

/// What [`refine_pose`] finds.
#[derive(Clone, Copy, Debug)]
pub struct RefinedPose {
    /// The pose.
    pub camera_from_world: Isometry3<f64>,
    /// `J^T W J` over increments from the left [rotation in radians; translation]: the inverse of the pose's covariance
    /// once divided by the variance of an image coordinate, in squared normalised units.
    pub information: Matrix6<f64>,
    /// The weighted sum of the Cauchy losses, in squared normalised units.
    pub cost: f64,
}

/// The pose near `start` with the lowest robust reprojection error: Levenberg-Marquardt with the Cauchy loss
/// `scale^2 log(1 + e^2 / scale^2)`, `scale` in normalised units.
///
/// Points are homogeneous (x, y, z, w) in the world, so that those at infinity (w = 0) count; increments are
/// `R' = exp(r) R`, `t' = exp(r) t + d`. A point behind the camera costs a large constant. Points of weight 0 and those
/// that are not finite are left out.
///
/// `None` where the lengths differ, nothing is left, the scale is not positive, or the start is not finite.
pub fn refine_pose(
    points: &[Vector4<f64>],
    xy: &[Point2<f64>],
    weights: &[f64],
    start: &Isometry3<f64>,
    scale: f64,
    iterations: usize,
) -> Option<RefinedPose> {
    if points.len() != xy.len() || weights.len() != xy.len() || !finite_pose(start) {
        return None;
    }
    if !(scale > 0.0 && scale.is_finite()) {
        return None;
    }
    let data: Vec<Datum> = points
        .iter()
        .zip(xy)
        .zip(weights)
        .filter(|((p, xy), weight)| {
            p.iter().chain(xy.iter()).all(|x| x.is_finite()) && weight.is_finite() && **weight > 0.0
        })
        .map(|((p, xy), weight)| Datum { point: p.xyz(), w: p.w, xy: *xy, weight: *weight })
        .collect();
    if data.is_empty() {
        return None;
    }
    let problem = Reprojection { data: &data, loss: Loss::Cauchy(scale * scale) };
    let (view, _) = minimise(&problem, &View::new(start), iterations, CONVERGED);
    let (cost, normal, _) = problem.linearise(&view);
    let information = Matrix6::from_fn(|i, j| normal[i.max(j)][i.min(j)]);
    Some(RefinedPose { camera_from_world: view.pose(), information, cost })
}

fn finite_pose(pose: &Isometry3<f64>) -> bool {
    pose.translation.vector.iter().chain(pose.rotation.coords.iter()).all(|x| x.is_finite())
}

/// A point of the world, homogeneous, and its image.
struct Datum {
    point: Vector3<f64>,
    w: f64,
    xy: Point2<f64>,
    weight: f64,
}

/// A pose as a matrix.
#[derive(Clone, Copy)]
struct View {
    r: Matrix3<f64>,
    t: Vector3<f64>,
}

impl View {
    fn new(pose: &Isometry3<f64>) -> Self {
        Self { r: pose.rotation.to_rotation_matrix().into_inner(), t: pose.translation.vector }
    }

    fn pose(&self) -> Isometry3<f64> {
        Isometry3::from_parts(Translation3::from(self.t), quaternion_from_orthonormal(&self.r))
    }

    #[inline]
    fn in_camera(&self, point: &Vector3<f64>, w: f64) -> Option<Vector3<f64>> {
        let p = self.r * point + self.t * w;
        (p.z > NO_DEPTH * (p.x.abs() + p.y.abs())).then_some(p)
    }

    /// The squared reprojection error.
    #[inline]
    fn square(&self, point: &Vector3<f64>, w: f64, xy: &Point2<f64>) -> f64 {
        let Some(p) = self.in_camera(point, w) else { return BEHIND };
        let inverse = 1.0 / p.z;
        let (dx, dy) = (p.x * inverse - xy.x, p.y * inverse - xy.y);
        let square = dx * dx + dy * dy;
        if square < BEHIND { square } else { BEHIND }
    }
}

struct PoseSearch<'a> {
    data: &'a [Datum],
    square: f64,
}

impl Search<3> for PoseSearch<'_> {
    type Model = View;

    fn count(&self) -> usize {
        self.data.len()
    }

    fn solve(&self, sample: &[usize; 3], found: &mut dyn FnMut(View)) {
        let points = sample.map(|k| Point3::from(self.data[k].point));
        let rays = sample.map(|k| self.data[k].xy.to_homogeneous());
        for pose in &p3p(&points, &rays) {
            found(View::new(pose));
        }
    }

    fn cost(&self, view: &View, limit: f64) -> f64 {
        let inverse = 1.0 / self.square;
        let mut cost = 0.0;
        for chunk in self.data.chunks(16) {
            for datum in chunk {
                cost += (view.square(&datum.point, datum.w, &datum.xy) * inverse).min(1.0);
            }
            if cost >= limit {
                break;
            }
        }
        cost
    }

    fn polish(&self, view: &View) -> Option<View> {
        let problem = Reprojection { data: self.data, loss: Loss::Truncated(self.square) };
        Some(minimise(&problem, view, POLISH_STEPS, ROUGH).0)
    }
}

/// Reprojection errors over the six dimensions of a pose.
struct Reprojection<'a> {
    data: &'a [Datum],
    loss: Loss,
}

impl Problem<6> for Reprojection<'_> {
    type State = View;

    fn cost(&self, view: &View) -> f64 {
        self.data.iter().map(|d| d.weight * self.loss.apply(view.square(&d.point, d.w, &d.xy)).0).sum()
    }

    fn linearise(&self, view: &View) -> (f64, [[f64; 6]; 6], [f64; 6]) {
        let (mut cost, mut normal, mut gradient) = (0.0, [[0.0; 6]; 6], [0.0; 6]);
        for datum in self.data {
            let (loss, weight) = self.loss.apply(view.square(&datum.point, datum.w, &datum.xy));
            cost += datum.weight * loss;
            let weight = weight * datum.weight;
            let Some(p) = view.in_camera(&datum.point, datum.w) else { continue };
            if weight == 0.0 {
                continue;
            }
            let inverse = 1.0 / p.z;
            let (x, y) = (p.x * inverse, p.y * inverse);
            let (dx, dy) = (x - datum.xy.x, y - datum.xy.y);
            if dx * dx + dy * dy >= BEHIND {
                continue;
            }
            let shift = datum.w * inverse;
            let by_x = [-x * y, 1.0 + x * x, -y, shift, 0.0, -x * shift];
            let by_y = [-1.0 - y * y, x * y, x, 0.0, shift, -y * shift];
            accumulate(&mut normal, &mut gradient, &by_x, dx, weight);
            accumulate(&mut normal, &mut gradient, &by_y, dy, weight);
        }
        (cost, normal, gradient)
    }

    fn retract(&self, view: &View, step: &[f64; 6]) -> View {
        let turn = UnitQuaternion::from_scaled_axis(Vector3::new(step[0], step[1], step[2])).to_rotation_matrix();
        View { r: turn.into_inner() * view.r, t: turn * view.t + Vector3::new(step[3], step[4], step[5]) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    struct Scene {
        camera_from_world: Isometry3<f64>,
        points: Vec<Point3<f64>>,
        xy: Vec<Point2<f64>>,
        wrong: usize,
    }

    fn scene(seed: u64, count: usize, outliers: f64, noise: f64) -> Scene {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut uniform = |low: f64, high: f64| random.random_range(low..high);
        let mut vector = |size: f64| Vector3::from_fn(|_, _| uniform(-size, size));
        let camera_from_world = Isometry3::new(vector(3.0), vector(1.5));
        let (mut points, mut xy, mut wrong) = (vec![], vec![], 0);
        for _ in 0..count {
            let z = uniform(2.0, 9.0);
            let p = Point3::new(uniform(-0.6, 0.6) * z, uniform(-0.45, 0.45) * z, z);
            let mut jitter = || noise * (0..12).map(|_| uniform(-0.5, 0.5)).sum::<f64>();
            let mut image = Point2::new(p.x / p.z + jitter(), p.y / p.z + jitter());
            if uniform(0.0, 1.0) < outliers {
                wrong += 1;
                image = Point2::new(uniform(-0.6, 0.6), uniform(-0.45, 0.45));
            }
            points.push(camera_from_world.inverse() * p);
            xy.push(image);
        }
        Scene { camera_from_world, points, xy, wrong }
    }

    fn distance(a: &Isometry3<f64>, b: &Isometry3<f64>) -> f64 {
        let difference = a.inv_mul(b);
        difference.rotation.angle().max(difference.translation.vector.norm())
    }

    #[test]
    fn the_true_pose_is_among_the_answers() {
        let mut lost = 0;
        for seed in 0..3000 {
            let scene = scene(seed, 3, 0.0, 0.0);
            let points: [_; 3] = std::array::from_fn(|k| scene.points[k]);
            let rays: [_; 3] = std::array::from_fn(|k| scene.xy[k].to_homogeneous() * (1.0 + k as f64));
            let poses = p3p(&points, &rays);
            let error = poses.iter().map(|pose| distance(pose, &scene.camera_from_world));
            lost += u32::from(error.fold(f64::INFINITY, f64::min) > 1e-6);
            for pose in &poses {
                for (p, ray) in points.iter().zip(&rays) {
                    assert!((pose * p).coords.angle(ray) < 1e-6, "seed {seed}");
                }
            }
        }
        // Where two solutions nearly coincide.
        assert!(lost <= 6, "{lost} lost");
    }

    #[test]
    fn equal_sides_seen_from_the_axis() {
        // cos gamma = v cos alpha: the linear equation for u is 0 = 0.
        let points = [
            Point3::new(1.0, 0.0, 0.0),
            Point3::new(-0.5, 0.75_f64.sqrt(), 0.0),
            Point3::new(-0.5, -0.75_f64.sqrt(), 0.0),
        ];
        let pose = Isometry3::translation(0.0, 0.0, 3.0);
        let rays = points.map(|p| (pose * p).coords);
        let poses = p3p(&points, &rays);
        assert!(poses.iter().any(|got| distance(got, &pose) < 1e-6), "{poses:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn outliers_do_no_harm(seed in any::<u64>()) {
            let noise = 5e-4;
            let scene = scene(seed, 100, 0.5, noise);
            let options = RobustOptions { threshold: 4.0 * noise, seed, ..RobustOptions::default() };
            let got = estimate_pose(&scene.points, &scene.xy, &options, &[]).unwrap();
            let difference = got.camera_from_world.inv_mul(&scene.camera_from_world);
            prop_assert!(difference.rotation.angle() < 3e-3 && difference.translation.vector.norm() < 1e-2);
            let right = 100 - scene.wrong;
            prop_assert!((right - 2..right + 5).contains(&got.inlier_count()), "{} {}", got.inlier_count(), right);
            let truth = estimate_pose(&scene.points, &scene.xy, &options, &[scene.camera_from_world]).unwrap();
            prop_assert!(got.score < truth.score + 0.5);
            let weights: Vec<f64> = got.inliers.iter().map(|inlier| f64::from(u8::from(*inlier))).collect();
            let homogeneous: Vec<_> = scene.points.iter().map(|p| p.to_homogeneous() * 0.7).collect();
            let off = Isometry3::new(Vector3::new(0.1, -0.1, 0.1), Vector3::new(0.05, 0.0, 0.05)) * scene.camera_from_world;
            let refined = refine_pose(&homogeneous, &scene.xy, &weights, &off, 2.0 * noise, 30).unwrap();
            prop_assert!(distance(&refined.camera_from_world, &scene.camera_from_world) < 1e-2);
            // The errors are those that the information promises: chi squared of six dimensions.
            let change = refined.camera_from_world * scene.camera_from_world.inverse();
            let r = change.rotation.scaled_axis();
            let t = change.translation.vector;
            let v = nalgebra::Vector6::new(r.x, r.y, r.z, t.x, t.y, t.z);
            let chi = (refined.information * v).dot(&v) / (noise * noise);
            prop_assert!(chi < 40.0, "{}", chi);
        }

        #[test]
        fn any_numbers_do_no_harm(numbers in prop::collection::vec(prop::num::f64::ANY, 60), take in 0..12_usize) {
            let points: Vec<_> =
                (0..take).map(|k| Point3::new(numbers[3 * k], numbers[3 * k + 1], numbers[3 * k + 2])).collect();
            let xy: Vec<_> = (0..take).map(|k| Point2::new(numbers[36 + 2 * k], numbers[37 + 2 * k])).collect();
            let options = RobustOptions { max_iterations: 20, ..RobustOptions::default() };
            if let Some(got) = estimate_pose(&points, &xy, &options, &[Isometry3::identity()]) {
                prop_assert!(finite_pose(&got.camera_from_world));
            }
            let homogeneous: Vec<_> = points.iter().map(Point3::to_homogeneous).collect();
            refine_pose(&homogeneous, &xy, &numbers[..take], &Isometry3::identity(), 0.01, 5);
        }
    }

    #[test]
    fn the_jacobian_is_the_slope_of_the_cost() {
        let scene = scene(4, 30, 0.2, 1e-3);
        let data: Vec<Datum> = scene
            .points
            .iter()
            .zip(&scene.xy)
            .enumerate()
            .map(|(k, (p, xy))| Datum { point: p.coords, w: 0.1 * k as f64, xy: *xy, weight: 1.0 + 0.1 * k as f64 })
            .collect();
        let problem = Reprojection { data: &data, loss: Loss::Cauchy(1e-2) };
        let view = View::new(&scene.camera_from_world);
        let (cost, _, gradient) = problem.linearise(&view);
        assert!((cost / problem.cost(&view) - 1.0).abs() < 1e-12);
        for k in 0..6 {
            let moved = |h: f64| {
                let mut step = [0.0; 6];
                step[k] = h;
                problem.cost(&problem.retract(&view, &step))
            };
            let slope = (moved(1e-6) - moved(-1e-6)) / 2e-6;
            assert!((slope - 2.0 * gradient[k]).abs() < 1e-5 * slope.abs().max(1e-3), "{k}: {slope} {}", gradient[k]);
        }
    }

    #[test]
    fn points_at_infinity_turn_the_camera() {
        let scene = scene(6, 40, 0.0, 0.0);
        let camera_from_world = Isometry3::from_parts(Translation3::identity(), scene.camera_from_world.rotation);
        let directions: Vec<Vector4<f64>> =
            scene.xy.iter().map(|xy| (camera_from_world.rotation.inverse() * xy.to_homogeneous()).push(0.0)).collect();
        let off = Isometry3::new(Vector3::zeros(), Vector3::new(0.1, -0.1, 0.2)) * camera_from_world;
        let got = refine_pose(&directions, &scene.xy, &[1.0; 40], &off, 1e-2, 30).unwrap();
        assert!(got.camera_from_world.rotation.angle_to(&camera_from_world.rotation) < 1e-7);
        assert!(got.cost < 1e-12 && got.camera_from_world.translation.vector.norm() < 1e-9);
        assert!(got.information.fixed_view::<3, 3>(3, 3).norm() < 1e-12);
    }

    #[test]
    fn too_little_or_mismatched_is_none() {
        let scene = scene(1, 8, 0.0, 0.0);
        let options = RobustOptions::default();
        let (points, xy) = (&scene.points[..], &scene.xy[..]);
        assert!(estimate_pose(&[], &[], &options, &[]).is_none());
        assert!(estimate_pose(points, &xy[..5], &options, &[]).is_none());
        assert!(estimate_pose(&points[..3], &xy[..3], &options, &[]).is_none());
        let line: [_; 3] = std::array::from_fn(|k| Point3::new(k as f64, 0.0, 2.0));
        assert!(p3p(&line, &line.map(|p| p.coords)).is_empty());
        let start = Isometry3::identity();
        assert!(refine_pose(&[], &[], &[], &start, 0.1, 5).is_none());
        assert!(refine_pose(&[Vector4::x()], &xy[..1], &[0.0], &start, 0.1, 5).is_none());
        assert!(refine_pose(&[Vector4::x()], &xy[..1], &[1.0], &start, f64::NAN, 5).is_none());
    }

    #[test]
    #[ignore = "measures: cargo test --release -p geometry pnp -- --ignored --nocapture"]
    fn time_of_a_call() {
        let scenes: Vec<_> = (0..50).map(|k| scene(k, 200, 0.3, 5e-4)).collect();
        let time = |work: &dyn Fn(&Scene)| {
            let once = |_| {
                let start = std::time::Instant::now();
                scenes.iter().for_each(work);
                start.elapsed() / 50
            };
            (0..10).map(once).min().unwrap()
        };
        let minimal = time(&|scene| {
            let points: [_; 3] = std::array::from_fn(|k| scene.points[k]);
            std::hint::black_box(p3p(&points, &std::array::from_fn(|k| scene.xy[k].to_homogeneous())));
        });
        println!("p3p: {minimal:?}");
        let robust = time(&|scene| {
            estimate_pose(&scene.points, &scene.xy, &RobustOptions::default(), &[]).unwrap();
        });
        println!("estimate_pose, 200 points, 30 % outliers: {robust:?}");
        let homogeneous: Vec<Vec<_>> =
            scenes.iter().map(|scene| scene.points.iter().map(Point3::to_homogeneous).collect()).collect();
        let weights = [1.0; 200];
        let start = std::time::Instant::now();
        for (scene, points) in scenes.iter().zip(&homogeneous) {
            std::hint::black_box(refine_pose(points, &scene.xy, &weights, &scene.camera_from_world, 1e-3, 10));
        }
        println!("refine_pose, 200 points, up to 10 iterations: {:?}", start.elapsed() / 50);
    }
}
