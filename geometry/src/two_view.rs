//! Two calibrated views: essential matrices and what follows from them, robustly.
//!
//! Image points are normalised: `K^-1` of a pixel, so `(x, y, 1)` is a ray in the optical camera frame and an error
//! is in pixels divided by the focal length. Hartley and Zisserman, Multiple View Geometry, 2nd ed., chapters 9, 11, 12.

use nalgebra::{Isometry3, Matrix3, Point2, Point3, Rotation3, Translation3, UnitQuaternion, Vector3, Vector4};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::five_point::five_point;
use crate::frame::{nearest_rotation, quaternion_from_orthonormal};
use crate::homography::{decompose_homography, transfer_squared};
use crate::linear::{smallest_eigenvector, solve_positive};
use crate::robust::{CONVERGED, Loss, Problem, ROUGH, RobustOptions, Search, accumulate, minimise, ransac};
use crate::svd::svd;
use crate::up_to::UpTo;

/// Fewest pairs that determine an essential matrix.
const MIN_PAIRS: usize = 5;
/// Second singular value, beside the first, below which a matrix is no essential one.
const RANK: f64 = 1e-9;
/// Steps of a local optimisation, and of the last one.
const POLISH_STEPS: usize = 10;
const FINAL_STEPS: usize = 30;

/// The squared first-order distance of a pair of points to a pair that fits exactly (Hartley and Zisserman, eq. 11.9),
/// in normalised units: `(b^T E a)^2 / (|E a|_xy^2 + |E^T b|_xy^2)`.
///
/// Infinite where it is undefined: both points are epipoles, or a number is not finite.
pub fn sampson_squared(essential: &Matrix3<f64>, a: &Point2<f64>, b: &Point2<f64>) -> f64 {
    let (a, b) = (a.to_homogeneous(), b.to_homogeneous());
    let in_b = essential * a;
    let in_a = essential.tr_mul(&b);
    let residual = b.dot(&in_b);
    let square = residual * residual / (in_b.xy().norm_squared() + in_a.xy().norm_squared());
    if square.is_finite() { square } else { f64::INFINITY }
}

/// `[t]_x R` of `b_from_a = [R | t]`, with t scaled to length 1; zero where there is no translation.
pub fn essential_from_pose(b_from_a: &Isometry3<f64>) -> Matrix3<f64> {
    let t = b_from_a.translation.vector.try_normalize(f64::MIN_POSITIVE).unwrap_or_else(Vector3::zeros);
    t.cross_matrix() * b_from_a.rotation.to_rotation_matrix().into_inner()
}

/// The four poses `b_from_a` with `|t| = 1` of an essential matrix (Hartley and Zisserman, result 9.19): two rotations,
/// each with t and -t, in the order (R, t), (R, -t), (R', t), (R', -t).
///
/// `None` where the matrix is not finite or of a rank below two.
pub fn decompose_essential(essential: &Matrix3<f64>) -> Option<[Isometry3<f64>; 4]> {
    if !essential.iter().all(|x| x.is_finite()) {
        return None;
    }
    let (u, v_t, singular) = svd(essential);
    if singular[1].is_nan() || singular[1] <= RANK * singular[0] || singular[0] <= 0.0 {
        return None;
    }
    // Each factor as a proper rotation; the sign of E is free.
    let u = u * u.determinant().signum();
    let v_t = v_t * v_t.determinant().signum();
    let t: Vector3<f64> = u.column(2).into_owned();
    let w = Matrix3::new(0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0);
    let first = quaternion_from_orthonormal(&(u * w * v_t));
    let second = quaternion_from_orthonormal(&(u * w.transpose() * v_t));
    let pose = |t: Vector3<f64>, r| Isometry3::from_parts(Translation3::from(t), r);
    Some([pose(t, first), pose(-t, first), pose(t, second), pose(-t, second)])
}

/// Where a pair of rays meets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    /// In front of both cameras.
    Front,
    /// Behind one.
    Behind,
    /// So far away that noise decides.
    Far,
}

/// The signs of the two depths at which the rays are nearest to each other: `depth_b b = depth_a R a + t`.
fn side(r: &Matrix3<f64>, t: &Vector3<f64>, a: &Point2<f64>, b: &Point2<f64>, threshold: f64) -> Side {
    let u = r * a.to_homogeneous();
    let v = b.to_homogeneous();
    let (uu, uv, vv, ut, vt) = (u.norm_squared(), u.dot(&v), v.norm_squared(), u.dot(t), v.dot(t));
    // The squared sine of the angle between the rays.
    let parallax = 1.0 - uv * uv / (uu * vv);
    if parallax <= 4.0 * threshold * threshold / vv && uv > 0.0 {
        return Side::Far;
    }
    if uv * vt - vv * ut > 0.0 && uu * vt - uv * ut > 0.0 { Side::Front } else { Side::Behind }
}

/// A pose among several for the same pair of views.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RankedPose {
    /// The pose.
    pub b_from_a: Isometry3<f64>,
    /// The Cauchy loss of the triangulated points' reprojection errors, in squared thresholds; a point behind a camera
    /// costs that of an error of a hundred thresholds.
    pub cost: f64,
}

/// A point behind a camera costs as much as this squared error, in squared thresholds.
const BEHIND: f64 = 1e4;
/// A pose is plausible up to so many times the lowest cost, plus a bit for each pair.
const PLAUSIBLE: f64 = 1.5;
const PLAUSIBLE_EACH: f64 = 0.05;

/// Those of the candidates that explain the pairs about as well as the best, best first: candidates are the four
/// decompositions of an essential matrix, those of a homography, or any others.
///
/// The twisted pair of a clear scene costs far more and is dropped; the other side of a plane or of small parallax costs
/// little more and stays. `threshold` is the error of an inlier in normalised units. Empty where the lengths differ,
/// there are no pairs, or no candidate is finite.
pub fn best_poses(
    candidates: &[Isometry3<f64>],
    a: &[Point2<f64>],
    b: &[Point2<f64>],
    threshold: f64,
) -> Vec<RankedPose> {
    if a.len() != b.len() || a.is_empty() || !(threshold > 0.0 && threshold.is_finite()) {
        return Vec::new();
    }
    let identity = Isometry3::identity();
    let mut ranked: Vec<RankedPose> = candidates
        .iter()
        .map(|b_from_a| {
            let poses = [identity, *b_from_a];
            let cost = a.iter().zip(b).map(|(a, b)| {
                let Some(point) = triangulate(&poses, &[*a, *b]) else { return BEHIND.ln_1p() };
                let squares = [(&poses[0], a), (&poses[1], b)].map(|(pose, xy)| {
                    let p = pose.rotation * point.xyz() + pose.translation.vector * point.w;
                    ((p.xy() / p.z - xy.coords).norm_squared() / (threshold * threshold)).min(BEHIND)
                });
                squares[0].ln_1p() + squares[1].ln_1p()
            });
            RankedPose { b_from_a: *b_from_a, cost: cost.sum() }
        })
        .filter(|ranked| ranked.cost.is_finite())
        .collect();
    ranked.sort_by(|left, right| left.cost.total_cmp(&right.cost));
    if let Some(best) = ranked.first() {
        let limit = PLAUSIBLE * best.cost + PLAUSIBLE_EACH * a.len() as f64;
        ranked.retain(|ranked| ranked.cost <= limit);
    }
    ranked
}

/// The homogeneous point (x, y, z, w) in the world whose images are nearest to `xy` in the algebraic sense (the DLT,
/// Hartley and Zisserman, section 12.2): of norm 1, `w >= 0`, in front of all cameras, and at infinity where the rays
/// meet only beyond it.
///
/// `None` for fewer than two views, lengths that differ, numbers that are not finite, and a point that is not in front
/// of every camera.
pub fn triangulate(camera_from_world: &[Isometry3<f64>], xy: &[Point2<f64>]) -> Option<Vector4<f64>> {
    if camera_from_world.len() != xy.len() || xy.len() < 2 {
        return None;
    }
    let mut normal = [[0.0; 4]; 4];
    for (pose, xy) in camera_from_world.iter().zip(xy) {
        let p = rows(pose);
        for (k, x) in [xy.x, xy.y].into_iter().enumerate() {
            let row: [f64; 4] = std::array::from_fn(|c| x * p[2][c] - p[k][c]);
            for i in 0..4 {
                for j in 0..4 {
                    normal[i][j] += row[i] * row[j];
                }
            }
        }
    }
    let mut point = Vector4::from(smallest_eigenvector(&normal));
    let depth = |pose: &Isometry3<f64>, point: &Vector4<f64>| Vector4::from(rows(pose)[2]).dot(point);
    let ahead: i32 = camera_from_world.iter().map(|pose| if depth(pose, &point) < 0.0 { -1 } else { 1 }).sum();
    if ahead < 0 || (ahead == 0 && point.w < 0.0) {
        point = -point;
    }
    if point.w < 0.0 {
        point.w = 0.0;
        point = point.try_normalize(f64::MIN_POSITIVE)?;
    }
    let seen = camera_from_world.iter().all(|pose| depth(pose, &point) > f64::EPSILON);
    (seen && point.iter().all(|x| x.is_finite())).then_some(point)
}

/// The 3x4 matrix `[R | t]`.
fn rows(pose: &Isometry3<f64>) -> [[f64; 4]; 3] {
    let r = pose.rotation.to_rotation_matrix().into_inner();
    let t = pose.translation.vector;
    std::array::from_fn(|k| [r[(k, 0)], r[(k, 1)], r[(k, 2)], t[k]])
}

/// What [`estimate_essential`] finds.
#[derive(Clone, Debug)]
pub struct RelativePose {
    /// The pose; its translation has length 1, since two views do not tell the scale.
    pub b_from_a: Isometry3<f64>,
    /// `[t]_x R` of it.
    pub essential: Matrix3<f64>,
    /// For each pair whether it fits: its Sampson error is within the threshold and it is not behind a camera.
    pub inliers: Vec<bool>,
    /// The sum over finite pairs of the squared Sampson error in squared thresholds, at most 1 each: 0 is perfect; an
    /// outlier costs 1, and so does a point behind a camera.
    pub score: f64,
}

impl RelativePose {
    /// The number of inliers.
    pub fn inlier_count(&self) -> usize {
        self.inliers.iter().filter(|inlier| **inlier).count()
    }
}

/// The relative pose of two views from pairs of normalised points, of which some are wrong: five-point samples in a
/// locally optimised RANSAC, refined over all inliers.
///
/// `priors` are hypotheses `b_from_a` that are tried and refined first, such as a model's pose or the last motion; one
/// without translation stands for its rotation with each of three directions. They only propose: the pairs decide.
///
/// Without translation the direction is arbitrary, though all pairs fit: compare with [`rotation_between`]. The data do
/// not have to be mostly inliers, and five pairs always fit some answer: judge by [`RelativePose::inlier_count`].
///
/// `None` where the lengths differ, fewer than five pairs are finite, the threshold is not positive, or nothing fits
/// five pairs.
pub fn estimate_essential(
    a: &[Point2<f64>],
    b: &[Point2<f64>],
    options: &RobustOptions,
    priors: &[Isometry3<f64>],
) -> Option<RelativePose> {
    if a.len() != b.len() || !options.usable() {
        return None;
    }
    let search = EssentialSearch::new(a, b, options.threshold);
    let priors = priors.iter().flat_map(|prior| {
        let t = prior.translation.vector;
        let still = t.norm() < 1e-9;
        let count = if still { 3 } else { 1 };
        (0..count).map(move |k| {
            let t = if still { Vector3::ith(k, 1.0) } else { t };
            essential_from_pose(&Isometry3::from_parts(Translation3::from(t), prior.rotation))
        })
    });
    let (essential, _) = ransac(&search, options, priors.filter(|e| e.iter().all(|x| x.is_finite())))?;
    let refined = |essential: &Matrix3<f64>| {
        let motion = Motion::from_essential(essential)?;
        let (motion, _) = minimise(&search.problem(Loss::Truncated(search.square)), &motion, FINAL_STEPS, CONVERGED);
        search.best_side(&motion.essential())
    };
    let (mut cost, mut b_from_a) = refined(&essential)?;
    // On a plane another motion fits as well; which one puts points behind a camera is not seen in Sampson errors.
    let (first, last) = (b_from_a, a.len());
    let fits: Vec<bool> = a.iter().zip(b).map(|(a, b)| search.fits(&first, a, b)).collect();
    let pick =
        |points: &[Point2<f64>]| -> Vec<Point2<f64>> { (0..last).filter(|k| fits[*k]).map(|k| points[k]).collect() };
    for twin in &plane_twins(&first, &pick(a), &pick(b), options.threshold) {
        if let Some((other, pose)) = refined(&essential_from_pose(twin))
            && other < cost
        {
            (cost, b_from_a) = (other, pose);
        }
    }
    let inliers: Vec<bool> = a.iter().zip(b).map(|(a, b)| search.fits(&b_from_a, a, b)).collect();
    if inliers.iter().filter(|inlier| **inlier).count() < MIN_PAIRS {
        return None;
    }
    Some(RelativePose { b_from_a, essential: essential_from_pose(&b_from_a), inliers, score: cost })
}

/// The poses that explain the inliers of a relative pose about as well as it does, best first: see [`best_poses`].
///
/// It is considered with the other three decompositions of its essential matrix, and, where most inliers lie on a plane,
/// with those of the plane's homography. `a`, `b` and `threshold` are those of [`estimate_essential`]. Empty where the
/// lengths differ.
pub fn alternatives(pose: &RelativePose, a: &[Point2<f64>], b: &[Point2<f64>], threshold: f64) -> Vec<RankedPose> {
    if a.len() != b.len() || a.len() != pose.inliers.len() {
        return Vec::new();
    }
    let pick = |points: &[Point2<f64>]| -> Vec<Point2<f64>> {
        points.iter().zip(&pose.inliers).filter(|(_, inlier)| **inlier).map(|(p, _)| *p).collect()
    };
    let (a, b) = (pick(a), pick(b));
    let mut candidates = vec![pose.b_from_a];
    let same = |other: &Isometry3<f64>| {
        other.rotation.angle_to(&pose.b_from_a.rotation) < 1e-6
            && (other.translation.vector - pose.b_from_a.translation.vector).norm() < 1e-6
    };
    candidates.extend(decompose_essential(&pose.essential).into_iter().flatten().filter(|other| !same(other)));
    candidates.extend(plane_twins(&pose.b_from_a, &a, &b, threshold).iter().copied());
    best_poses(&candidates, &a, &b, threshold)
}

/// The share of the pairs that must lie on a plane for it to be one, and rounds of reweighting to find it.
const PLANE_SHARE: f64 = 0.8;
const PLANE_ROUNDS: usize = 8;
/// A plane's motion this near to the given one, in radians and parts of the translation, is the given one.
const TWIN_APART: f64 = 1e-2;

/// Other motions, with `|t| = 1`, that explain the same pairs where most of them lie on a plane `n X = 1`: the pair
/// `H = R + t n^T` is fitted by n alone, and decomposed.
fn plane_twins(
    b_from_a: &Isometry3<f64>,
    a: &[Point2<f64>],
    b: &[Point2<f64>],
    threshold: f64,
) -> UpTo<Isometry3<f64>, 4> {
    let mut twins = UpTo::new();
    let (r, t) = (b_from_a.rotation.to_rotation_matrix().into_inner(), b_from_a.translation.vector);
    let mut normal = Vector3::zeros();
    let scale = (2.0 * threshold).powi(2);
    let square =
        |normal: &Vector3<f64>, a: &Point2<f64>, b: &Point2<f64>| transfer_squared(&(r + t * normal.transpose()), a, b);
    for round in 0..PLANE_ROUNDS {
        // b_k z = (R a + t s)_k with s = n a and z = (R a + t s)_z is linear in n, and z times an error in b.
        let (mut sum, mut right) = ([[0.0; 3]; 3], [0.0; 3]);
        for (a, b) in a.iter().zip(b) {
            let ray = a.to_homogeneous();
            let turned = r * ray;
            let depth = turned.z + t.z * normal.dot(&ray);
            let error = if round == 0 { 0.0 } else { square(&normal, a, b) };
            let weight = 1.0 / ((1.0 + error / scale) * depth * depth).max(1e-6);
            if error.is_infinite() || !weight.is_finite() {
                continue;
            }
            for k in 0..2 {
                let slope = t[k] - b[k] * t.z;
                let jacobian: [f64; 3] = std::array::from_fn(|c| slope * ray[c]);
                accumulate(&mut sum, &mut right, &jacobian, b[k] * turned.z - turned[k], weight);
            }
        }
        let Some(next) = solve_positive(&sum, &right) else { return twins };
        normal = Vector3::from(next);
    }
    let on_plane = a.iter().zip(b).filter(|(a, b)| square(&normal, a, b) <= scale).count();
    if (on_plane as f64) < PLANE_SHARE * a.len() as f64 || on_plane < MIN_PAIRS {
        return twins;
    }
    for motion in &decompose_homography(&(r + t * normal.transpose()), a) {
        let Some(t) = motion.b_from_a.translation.vector.try_normalize(1e-9) else { continue };
        let rotation = motion.b_from_a.rotation;
        if rotation.angle_to(&b_from_a.rotation) + (t - b_from_a.translation.vector).norm() > TWIN_APART {
            twins.push(Isometry3::from_parts(Translation3::from(t), rotation));
        }
    }
    twins
}

/// Pairs between looks at whether a model has already lost.
const CHUNK: usize = 32;

/// The finite pairs, coordinate by coordinate.
struct EssentialSearch {
    ax: Vec<f64>,
    ay: Vec<f64>,
    bx: Vec<f64>,
    by: Vec<f64>,
    threshold: f64,
    /// Its square.
    square: f64,
}

impl EssentialSearch {
    fn new(a: &[Point2<f64>], b: &[Point2<f64>], threshold: f64) -> Self {
        let finite = |(a, b): &(&Point2<f64>, &Point2<f64>)| a.iter().chain(b.iter()).all(|x| x.is_finite());
        let pairs = || a.iter().zip(b).filter(finite);
        Self {
            ax: pairs().map(|(a, _)| a.x).collect(),
            ay: pairs().map(|(a, _)| a.y).collect(),
            bx: pairs().map(|(_, b)| b.x).collect(),
            by: pairs().map(|(_, b)| b.y).collect(),
            threshold,
            square: threshold * threshold,
        }
    }

    /// Of the four decompositions the one with the fewest points behind a camera, and its cost with those counted as
    /// outliers.
    fn best_side(&self, essential: &Matrix3<f64>) -> Option<(f64, Isometry3<f64>)> {
        let mut best: Option<(f64, Isometry3<f64>)> = None;
        for pose in decompose_essential(essential)? {
            let (r, t) = (pose.rotation.to_rotation_matrix().into_inner(), pose.translation.vector);
            let mut cost = 0.0;
            for ((ax, ay), (bx, by)) in self.ax.iter().zip(&self.ay).zip(self.bx.iter().zip(&self.by)) {
                let (a, b) = (Point2::new(*ax, *ay), Point2::new(*bx, *by));
                let square = sampson_squared(essential, &a, &b) / self.square;
                let fits = square < 1.0 && side(&r, &t, &a, &b, self.threshold) != Side::Behind;
                cost += if fits { square } else { 1.0 };
                if best.as_ref().is_some_and(|(least, _)| cost >= *least) {
                    break;
                }
            }
            if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                best = Some((cost, pose));
            }
        }
        best
    }

    /// Whether a pair is within the threshold and in front of both cameras.
    fn fits(&self, b_from_a: &Isometry3<f64>, a: &Point2<f64>, b: &Point2<f64>) -> bool {
        let (r, t) = (b_from_a.rotation.to_rotation_matrix().into_inner(), b_from_a.translation.vector);
        sampson_squared(&(t.cross_matrix() * r), a, b) <= self.square
            && side(&r, &t, a, b, self.threshold) != Side::Behind
    }

    fn problem(&self, loss: Loss) -> SampsonProblem<'_> {
        SampsonProblem { pairs: self, loss }
    }
}

impl Search<5> for EssentialSearch {
    type Model = Matrix3<f64>;

    fn count(&self) -> usize {
        self.ax.len()
    }

    fn solve(&self, sample: &[usize; 5], found: &mut dyn FnMut(Matrix3<f64>)) {
        let a = sample.map(|k| Vector3::new(self.ax[k], self.ay[k], 1.0));
        let b = sample.map(|k| Vector3::new(self.bx[k], self.by[k], 1.0));
        for e in &five_point(&a, &b) {
            found(*e);
        }
    }

    fn cost(&self, e: &Matrix3<f64>, limit: f64) -> f64 {
        let inverse = 1.0 / self.square;
        let mut cost = 0.0;
        let chunks = self.ax.chunks(CHUNK).zip(self.ay.chunks(CHUNK));
        for ((ax, ay), (bx, by)) in chunks.zip(self.bx.chunks(CHUNK).zip(self.by.chunks(CHUNK))) {
            for ((ax, ay), (bx, by)) in ax.iter().zip(ay).zip(bx.iter().zip(by)) {
                let l0 = e.m11 * ax + e.m12 * ay + e.m13;
                let l1 = e.m21 * ax + e.m22 * ay + e.m23;
                let l2 = e.m31 * ax + e.m32 * ay + e.m33;
                let m0 = e.m11 * bx + e.m21 * by + e.m31;
                let m1 = e.m12 * bx + e.m22 * by + e.m32;
                let r = bx * l0 + by * l1 + l2;
                let square = r * r / (l0 * l0 + l1 * l1 + m0 * m0 + m1 * m1);
                // NaN, where both are epipoles, costs 1 too.
                cost += (square * inverse).min(1.0);
            }
            if cost >= limit {
                return cost;
            }
        }
        cost
    }

    fn full_cost(&self, e: &Matrix3<f64>) -> f64 {
        self.best_side(e).map_or(f64::INFINITY, |(cost, _)| cost)
    }

    fn polish(&self, e: &Matrix3<f64>) -> Option<Matrix3<f64>> {
        let motion = Motion::from_essential(e)?;
        let (motion, _) = minimise(&self.problem(Loss::Truncated(self.square)), &motion, POLISH_STEPS, ROUGH);
        Some(motion.essential())
    }
}

/// A rotation and a direction of translation.
#[derive(Clone, Copy)]
struct Motion {
    r: Matrix3<f64>,
    t: Vector3<f64>,
}

impl Motion {
    /// Any of the four decompositions: all have the same Sampson errors.
    fn from_essential(e: &Matrix3<f64>) -> Option<Self> {
        let pose = decompose_essential(e)?[0];
        Some(Self { r: pose.rotation.to_rotation_matrix().into_inner(), t: pose.translation.vector })
    }

    fn essential(&self) -> Matrix3<f64> {
        self.t.cross_matrix() * self.r
    }

    /// Two unit vectors that are orthogonal to t and to each other.
    fn tangents(&self) -> [Vector3<f64>; 2] {
        let axis = Vector3::ith(self.t.iamin(), 1.0);
        let first = self.t.cross(&axis);
        let first = first / first.norm();
        [first, self.t.cross(&first)]
    }
}

/// Sampson errors over the five dimensions of a motion: a turn from the left, and a step of t on the sphere.
struct SampsonProblem<'a> {
    pairs: &'a EssentialSearch,
    loss: Loss,
}

impl SampsonProblem<'_> {
    fn pairs(&self) -> impl Iterator<Item = [f64; 4]> + '_ {
        let p = self.pairs;
        p.ax.iter().zip(&p.ay).zip(p.bx.iter().zip(&p.by)).map(|((ax, ay), (bx, by))| [*ax, *ay, *bx, *by])
    }
}

impl Problem<5> for SampsonProblem<'_> {
    type State = Motion;

    fn cost(&self, state: &Motion) -> f64 {
        let e = state.essential();
        if let Loss::Truncated(square) = self.loss {
            return square * self.pairs.cost(&e, f64::INFINITY);
        }
        self.pairs()
            .map(|[ax, ay, bx, by]| {
                self.loss.apply(sampson_squared(&e, &Point2::new(ax, ay), &Point2::new(bx, by)).min(1e6)).0
            })
            .sum()
    }

    fn linearise(&self, state: &Motion) -> (f64, [[f64; 5]; 5], [f64; 5]) {
        let e = state.essential();
        let [u, v] = state.tangents();
        let cross = state.t.cross_matrix();
        let turned = |k: usize| cross * Vector3::ith(k, 1.0).cross_matrix() * state.r;
        let derivatives = [turned(0), turned(1), turned(2), u.cross_matrix() * state.r, v.cross_matrix() * state.r];
        let derivatives = derivatives.map(|d| -> [f64; 9] { std::array::from_fn(|k| d[(k / 3, k % 3)]) });
        let (mut cost, mut normal, mut gradient) = (0.0, [[0.0; 5]; 5], [0.0; 5]);
        for [ax, ay, bx, by] in self.pairs() {
            let l0 = e.m11 * ax + e.m12 * ay + e.m13;
            let l1 = e.m21 * ax + e.m22 * ay + e.m23;
            let l2 = e.m31 * ax + e.m32 * ay + e.m33;
            let m0 = e.m11 * bx + e.m21 * by + e.m31;
            let m1 = e.m12 * bx + e.m22 * by + e.m32;
            let algebraic = bx * l0 + by * l1 + l2;
            let size = l0 * l0 + l1 * l1 + m0 * m0 + m1 * m1;
            let inverse = 1.0 / size.sqrt();
            let residual = algebraic * inverse;
            let (loss, weight) = self.loss.apply(residual * residual);
            if !loss.is_finite() {
                continue;
            }
            cost += loss;
            if weight == 0.0 {
                continue;
            }
            // The derivative of e / sqrt(size) by the nine entries of E, rows first.
            let pull = algebraic * inverse / size;
            let (p0, p1, q0, q1) = (pull * l0, pull * l1, pull * m0, pull * m1);
            let (b0, b1) = (bx * inverse, by * inverse);
            let by_entry = [
                b0 * ax - p0 * ax - q0 * bx,
                b0 * ay - p0 * ay - q1 * bx,
                b0 - p0,
                b1 * ax - p1 * ax - q0 * by,
                b1 * ay - p1 * ay - q1 * by,
                b1 - p1,
                inverse * ax - q0,
                inverse * ay - q1,
                inverse,
            ];
            let jacobian: [f64; 5] =
                std::array::from_fn(|k| by_entry.iter().zip(&derivatives[k]).map(|(g, d)| g * d).sum());
            accumulate(&mut normal, &mut gradient, &jacobian, residual, weight);
        }
        (cost, normal, gradient)
    }

    fn retract(&self, state: &Motion, step: &[f64; 5]) -> Motion {
        let [u, v] = state.tangents();
        let t = state.t + step[3] * u + step[4] * v;
        let turn = Rotation3::new(Vector3::new(step[0], step[1], step[2])).into_inner();
        Motion { r: turn * state.r, t: t / t.norm() }
    }
}

/// What [`rotation_between`] finds.
#[derive(Clone, Debug)]
pub struct RobustRotation {
    /// The rotation.
    pub b_from_a: UnitQuaternion<f64>,
    /// For each pair whether `|R a - b|` of its unit vectors is within the threshold.
    pub inliers: Vec<bool>,
}

/// Samples of two pairs for a rotation, and rounds of reweighting.
const ROTATION_SAMPLES: usize = 64;
const ROTATION_ROUNDS: usize = 5;
/// Rays on which the samples are judged, at most.
const ROTATION_JUDGES: usize = 200;

/// The rotation that takes most of the rays in a to those in b: two-point RANSAC, then Kabsch with Geman-McClure
/// weights. Rays have any length but zero; `threshold` is the length of `R a - b` of their unit vectors, about an angle.
///
/// `None` where the lengths differ, fewer than two pairs of rays are finite, the threshold is not positive, or all rays
/// are parallel.
pub fn rotation_between(
    rays_a: &[Vector3<f64>],
    rays_b: &[Vector3<f64>],
    threshold: f64,
    seed: u64,
) -> Option<RobustRotation> {
    if rays_a.len() != rays_b.len() || !(threshold > 0.0 && threshold.is_finite()) {
        return None;
    }
    let unit = |v: &Vector3<f64>| v.try_normalize(f64::MIN_POSITIVE).filter(|v| v.iter().all(|x| x.is_finite()));
    let pairs: Vec<(Vector3<f64>, Vector3<f64>)> =
        rays_a.iter().zip(rays_b).filter_map(|(a, b)| Some((unit(a)?, unit(b)?))).collect();
    if pairs.len() < 2 {
        return None;
    }
    // Axes that belong to two rays: along their sum, and their normal.
    let axes = |p: &Vector3<f64>, q: &Vector3<f64>| {
        let along = (p + q).try_normalize(1e-9)?;
        let up = p.cross(q).try_normalize(1e-9)?;
        Some(Matrix3::from_columns(&[along, up, along.cross(&up)]))
    };
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut pick = || random.random_range(0..pairs.len() as u64) as usize;
    let judges: Vec<usize> = if pairs.len() <= ROTATION_JUDGES {
        (0..pairs.len()).collect()
    } else {
        (0..ROTATION_JUDGES).map(|_| pick()).collect()
    };
    let mut best: Option<(f64, Matrix3<f64>)> = None;
    for _ in 0..ROTATION_SAMPLES {
        let (p, q) = (&pairs[pick()], &pairs[pick()]);
        let (Some(in_a), Some(in_b)) = (axes(&p.0, &q.0), axes(&p.1, &q.1)) else { continue };
        let r = in_b * in_a.transpose();
        let cost: f64 = judges.iter().map(|k| (r * pairs[*k].0 - pairs[*k].1).norm().min(threshold)).sum();
        if best.as_ref().is_none_or(|(least, _)| cost < *least) {
            best = Some((cost, r));
        }
    }
    let mut r = best?.1;
    let mut rotation = quaternion_from_orthonormal(&r);
    for _ in 0..ROTATION_ROUNDS {
        let mut sum = Matrix3::zeros();
        for (a, b) in &pairs {
            let weight = 1.0 / (1.0 + (r * a - b).norm_squared() / (threshold * threshold));
            sum += weight * weight * b * a.transpose();
        }
        let Ok(next) = nearest_rotation(&sum) else { break };
        rotation = next;
        r = rotation.to_rotation_matrix().into_inner();
    }
    let fits = |(a, b)| Some((r * unit(a)? - unit(b)?).norm() <= threshold);
    let inliers = rays_a.iter().zip(rays_b).map(|pair| fits(pair).unwrap_or(false)).collect();
    Some(RobustRotation { b_from_a: rotation, inliers })
}

/// The Euclidean point of a homogeneous one; `None` at infinity.
pub fn euclidean(point: &Vector4<f64>) -> Option<Point3<f64>> {
    let euclidean = Point3::from(point.xyz() / point.w);
    euclidean.iter().all(|x| x.is_finite()).then_some(euclidean)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::Rng;

    use super::*;
    use crate::homography::{PlaneMotion, homography_from_motion};

    pub(crate) struct Scene {
        pub b_from_a: Isometry3<f64>,
        pub points: Vec<Point3<f64>>,
        pub a: Vec<Point2<f64>>,
        pub b: Vec<Point2<f64>>,
        pub wrong: usize,
    }

    /// Points in front of both of two cameras, with normal noise and a share of random pairs.
    pub(crate) fn scene(seed: u64, count: usize, outliers: f64, noise: f64, b_from_a: Isometry3<f64>) -> Scene {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut scene = Scene { b_from_a, points: vec![], a: vec![], b: vec![], wrong: 0 };
        while scene.a.len() < count {
            let mut uniform = |low: f64, high: f64| random.random_range(low..high);
            let z = uniform(2.0, 10.0);
            let p = Point3::new(0.6 * uniform(-1.0, 1.0) * z, 0.45 * uniform(-1.0, 1.0) * z, z);
            let q = b_from_a * p;
            if q.z < 0.2 {
                continue;
            }
            // Nearly normal: a sum of uniform numbers of variance 1.
            let mut jitter = || noise * (0..12).map(|_| uniform(-0.5, 0.5)).sum::<f64>();
            let a = Point2::new(p.x / p.z + jitter(), p.y / p.z + jitter());
            let mut b = Point2::new(q.x / q.z + jitter(), q.y / q.z + jitter());
            if uniform(0.0, 1.0) < outliers {
                scene.wrong += 1;
                b = Point2::new(uniform(-0.6, 0.6), uniform(-0.45, 0.45));
            }
            scene.points.push(p);
            scene.a.push(a);
            scene.b.push(b);
        }
        scene
    }

    fn errors(got: &Isometry3<f64>, truth: &Isometry3<f64>) -> (f64, f64) {
        let angle = got.rotation.angle_to(&truth.rotation);
        (angle, got.translation.vector.angle(&truth.translation.vector))
    }

    fn motion() -> impl Strategy<Value = Isometry3<f64>> {
        (prop::array::uniform3(-0.2..0.2_f64), prop::array::uniform3(-1.0..1.0_f64)).prop_map(|(turn, t)| {
            let t = Vector3::from(t).try_normalize(1e-2).unwrap_or_else(Vector3::x);
            Isometry3::new(0.8 * t, Vector3::from(turn))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn decompositions_multiply_back_and_one_is_the_truth(b_from_a in motion()) {
            let e = essential_from_pose(&b_from_a);
            let poses = decompose_essential(&(-3.0 * e)).unwrap();
            for pose in &poses {
                let back = essential_from_pose(pose);
                prop_assert!((back - e).norm().min((back + e).norm()) < 1e-12);
                prop_assert!((pose.translation.vector.norm() - 1.0).abs() < 1e-12);
            }
            let best = poses.iter().map(|pose| { let (r, t) = errors(pose, &b_from_a); r.max(t) });
            prop_assert!(best.fold(f64::INFINITY, f64::min) < 1e-7);
        }

        #[test]
        fn points_are_triangulated(b_from_a in motion(), seed in any::<u64>()) {
            let scene = scene(seed, 20, 0.0, 0.0, b_from_a);
            for (point, (a, b)) in scene.points.iter().zip(scene.a.iter().zip(&scene.b)) {
                let Some(got) = triangulate(&[Isometry3::identity(), b_from_a], &[*a, *b]) else {
                    // On the baseline the depth is arbitrary.
                    let parallax = (b_from_a.rotation * a.to_homogeneous()).angle(&b.to_homogeneous());
                    prop_assert!(parallax < 1e-3);
                    continue;
                };
                prop_assert!((got.norm() - 1.0).abs() < 1e-12 && got.w >= 0.0);
                let truth = point.to_homogeneous().normalize();
                let parallax = (b_from_a.rotation * a.to_homogeneous()).angle(&b.to_homogeneous());
                prop_assert!((got - truth).norm() < 1e-12 / (parallax * parallax) + 1e-12);
            }
        }

        #[test]
        fn a_third_of_outliers_does_no_harm(b_from_a in motion(), seed in any::<u64>()) {
            let noise = 5e-4;
            let scene = scene(seed, 200, 0.3, noise, b_from_a);
            let options = RobustOptions { threshold: 4.0 * noise, seed, ..RobustOptions::default() };
            let got = estimate_essential(&scene.a, &scene.b, &options, &[]).unwrap();
            let (turn, direction) = errors(&got.b_from_a, &b_from_a);
            prop_assert!(turn < 1e-2 && direction < 5e-2, "{} {}", turn, direction);
            prop_assert!((got.b_from_a.translation.vector.norm() - 1.0).abs() < 1e-12);
            let right = 200 - scene.wrong;
            prop_assert!((right - 3..right + 10).contains(&got.inlier_count()), "{} {}", got.inlier_count(), right);
            prop_assert!((got.essential - essential_from_pose(&got.b_from_a)).norm() < 1e-12);
            // The score is that of the errors, and the truth's is no better.
            let cost = |e: &Matrix3<f64>| -> f64 {
                scene.a.iter().zip(&scene.b)
                    .map(|(a, b)| (sampson_squared(e, a, b) / options.threshold.powi(2)).min(1.0)).sum()
            };
            let behind = got.inlier_count().abs_diff(
                scene.a.iter().zip(&scene.b)
                    .filter(|(a, b)| sampson_squared(&got.essential, a, b) <= options.threshold.powi(2)).count());
            prop_assert!(got.score > cost(&got.essential) - 1e-9 && got.score < cost(&got.essential) + behind as f64 + 1e-9);
            let (found, truth) = (cost(&got.essential), cost(&essential_from_pose(&b_from_a)));
            prop_assert!(found < truth + 4.0, "{} {}", found, truth);
            let again = estimate_essential(&scene.a, &scene.b, &options, &[]).unwrap();
            prop_assert_eq!(again.b_from_a, got.b_from_a);
        }

        #[test]
        fn rotations_are_found(turn in prop::array::uniform3(-0.5..0.5_f64), seed in any::<u64>()) {
            let truth = UnitQuaternion::from_scaled_axis(Vector3::from(turn));
            let scene = scene(seed, 300, 0.4, 5e-4, Isometry3::from_parts(Translation3::identity(), truth));
            let rays = |xy: &[Point2<f64>]| xy.iter().map(Point2::to_homogeneous).collect::<Vec<_>>();
            let got = rotation_between(&rays(&scene.a), &rays(&scene.b), 3e-3, seed).unwrap();
            prop_assert!(got.b_from_a.angle_to(&truth) < 1e-3, "{}", got.b_from_a.angle_to(&truth));
            let count = got.inliers.iter().filter(|inlier| **inlier).count();
            prop_assert!((140..225).contains(&count), "{}", count);
        }

        #[test]
        fn any_numbers_do_no_harm(numbers in prop::collection::vec(prop::num::f64::ANY, 48), take in 0..12_usize) {
            let point = |k: usize| Point2::new(numbers[2 * k], numbers[2 * k + 1]);
            let a: Vec<_> = (0..take).map(point).collect();
            let b: Vec<_> = (0..take).map(|k| point(12 + k)).collect();
            let options = RobustOptions { max_iterations: 20, ..RobustOptions::default() };
            if let Some(got) = estimate_essential(&a, &b, &options, &[Isometry3::identity()]) {
                prop_assert!(got.essential.iter().all(|x| x.is_finite()));
            }
            let rays = |xy: &[Point2<f64>]| xy.iter().map(Point2::to_homogeneous).collect::<Vec<_>>();
            if let Some(got) = rotation_between(&rays(&a), &rays(&b), 0.01, 1) {
                prop_assert!(got.b_from_a.coords.iter().all(|x| x.is_finite()));
            }
            triangulate(&vec![Isometry3::identity(); take], &a);
            best_poses(&[Isometry3::identity()], &a, &b, 0.01);
            let matrix = Matrix3::from_fn(|i, j| numbers[3 * i + j]);
            decompose_essential(&matrix);
            prop_assert!(!sampson_squared(&matrix, &point(10), &point(11)).is_nan());
        }
    }

    #[test]
    fn the_jacobian_is_the_slope_of_the_cost() {
        let scene = scene(3, 40, 0.2, 1e-3, Isometry3::new(Vector3::new(0.3, 0.2, 0.5), Vector3::new(0.1, 0.0, -0.1)));
        let search = EssentialSearch::new(&scene.a, &scene.b, 0.02);
        let state = Motion::from_essential(&essential_from_pose(&scene.b_from_a)).unwrap();
        for loss in [Loss::Cauchy(4e-4), Loss::Truncated(4e-4)] {
            let problem = search.problem(loss);
            let (cost, _, gradient) = problem.linearise(&state);
            assert!((cost / problem.cost(&state) - 1.0).abs() < 1e-12);
            for k in 0..5 {
                let moved = |h: f64| {
                    let mut step = [0.0; 5];
                    step[k] = h;
                    problem.cost(&problem.retract(&state, &step))
                };
                let slope = (moved(1e-6) - moved(-1e-6)) / 2e-6;
                assert!((slope - 2.0 * gradient[k]).abs() < 1e-5 * slope.abs().max(1e-3), "{k}: {slope}");
            }
        }
    }

    #[test]
    fn a_clear_scene_leaves_one_pose_and_small_parallax_two() {
        let turn = Vector3::new(0.05, -0.1, 0.02);
        for (length, expected) in [(0.5, 1), (1e-5, 2)] {
            let b_from_a = Isometry3::new(length * Vector3::new(1.0, 0.2, 0.4).normalize(), turn);
            let scene = scene(8, 60, 0.0, 5e-4, b_from_a);
            let poses = decompose_essential(&essential_from_pose(&b_from_a)).unwrap();
            let best = best_poses(&poses, &scene.a, &scene.b, 2e-3);
            assert_eq!(best.len(), expected, "{best:?}");
            assert!(best[0].b_from_a.rotation.angle_to(&b_from_a.rotation) < 1e-6);
            assert!(length < 0.1 || errors(&best[0].b_from_a, &b_from_a).1 < 1e-6);
        }
    }

    #[test]
    fn a_plane_has_a_twin() {
        let normal = Vector3::new(0.05, 0.1, 1.0).normalize();
        let motion = PlaneMotion {
            b_from_a: Isometry3::new(Vector3::new(0.2, 0.05, 0.1), Vector3::new(0.05, -0.1, 0.02)),
            normal,
        };
        let h = homography_from_motion(&motion);
        let mut random = ChaCha8Rng::seed_from_u64(4);
        let (mut a, mut b) = (vec![], vec![]);
        for _ in 0..80 {
            let mut uniform = |size: f64| random.random_range(-size..size);
            let p = Point2::new(uniform(0.4), uniform(0.3));
            let q = h * p.to_homogeneous();
            a.push(p);
            b.push(Point2::new(q.x / q.z + uniform(5e-4), q.y / q.z + uniform(5e-4)));
        }
        let options = RobustOptions { threshold: 1e-3, ..RobustOptions::default() };
        let pose = estimate_essential(&a, &b, &options, &[]).unwrap();
        let ranked = alternatives(&pose, &a, &b, options.threshold);
        assert_eq!(ranked.len(), 2, "{ranked:?}");
        let near = |truth: &Isometry3<f64>| ranked.iter().any(|r| errors(&r.b_from_a, truth).1 < 0.1);
        let twins = decompose_homography(&h, &a);
        assert!(twins.len() == 2 && twins.iter().all(|twin| near(&twin.b_from_a)), "{ranked:?} {twins:?}");
    }

    #[test]
    fn priors_win_where_samples_do_not() {
        let b_from_a = Isometry3::new(Vector3::new(0.5, 0.1, 0.3), Vector3::new(0.05, -0.1, 0.02));
        let scene = scene(2, 200, 0.85, 5e-4, b_from_a);
        let options = RobustOptions { max_iterations: 20, ..RobustOptions::default() };
        let near = b_from_a * Isometry3::new(Vector3::new(0.01, 0.0, 0.01), Vector3::new(0.003, 0.0, -0.003));
        let error = |priors: &[_]| {
            let got = estimate_essential(&scene.a, &scene.b, &options, priors);
            got.map_or(f64::INFINITY, |got| errors(&got.b_from_a, &b_from_a).1)
        };
        assert!(error(&[]) > 0.1 && error(&[near]) < 0.03, "{} {}", error(&[]), error(&[near]));
        // Wrong ones do no harm; one without translation keeps its rotation.
        let turn = Isometry3::from_parts(Translation3::identity(), b_from_a.rotation);
        let easy = self::scene(2, 200, 0.2, 5e-4, b_from_a);
        let options = RobustOptions::default();
        for prior in [Isometry3::translation(0.0, 1.0, 0.0), turn, Isometry3::translation(f64::NAN, 0.0, 0.0)] {
            let got = estimate_essential(&easy.a, &easy.b, &options, &[prior]).unwrap();
            assert!(errors(&got.b_from_a, &b_from_a).1 < 0.02);
        }
    }

    #[test]
    fn too_little_or_mismatched_is_none() {
        let options = RobustOptions::default();
        let some = [Point2::new(0.1, 0.2); 8];
        assert!(estimate_essential(&[], &[], &options, &[]).is_none());
        assert!(estimate_essential(&some, &some[..7], &options, &[]).is_none());
        assert!(estimate_essential(&some[..4], &some[..4], &options, &[]).is_none());
        let bad = RobustOptions { threshold: f64::NAN, ..options };
        assert!(estimate_essential(&some, &some, &bad, &[]).is_none());
        assert!(rotation_between(&[], &[], 0.1, 0).is_none());
        assert!(rotation_between(&[Vector3::z(); 3], &[Vector3::z(); 3], 0.1, 0).is_none());
        let identity = Isometry3::identity();
        assert!(triangulate(&[identity, identity], &[some[0]]).is_none());
        // No baseline: the centre of the cameras would fit, and is not in front of them.
        assert!(triangulate(&[identity; 2], &[some[0], Point2::new(0.11, 0.2)]).is_none());
        assert!(decompose_essential(&Matrix3::zeros()).is_none());
        assert!(best_poses(&[identity], &some, &some[..3], 0.1).is_empty());
    }

    #[test]
    #[ignore = "measures: cargo test --release -p geometry two_view -- --ignored --nocapture"]
    fn time_of_a_call() {
        let motions = |k: u64| Isometry3::new(Vector3::new(0.5, 0.1 * k as f64, 0.4), Vector3::new(0.1, 0.0, 0.02));
        let scenes: Vec<_> = (0..20).map(|k| scene(k, 200, 0.3, 5e-4, motions(k % 7))).collect();
        // The best of ten: others may share the machine.
        let time = |work: &dyn Fn()| {
            let once = |_| {
                let start = std::time::Instant::now();
                work();
                start.elapsed()
            };
            (0..10).map(once).min().unwrap()
        };
        let options = RobustOptions::default();
        let run = |given: bool| {
            for scene in &scenes {
                let priors = [scene.b_from_a];
                let priors = if given { &priors[..] } else { &[] };
                estimate_essential(&scene.a, &scene.b, &options, priors).unwrap();
            }
        };
        println!("estimate_essential, 200 pairs, 30 % outliers: {:?}", time(&|| run(false)) / 20);
        println!("with a prior: {:?}", time(&|| run(true)) / 20);
        let triangulations = time(&|| {
            for scene in &scenes {
                let poses = [Isometry3::identity(), scene.b_from_a];
                for (a, b) in scene.a.iter().zip(&scene.b) {
                    std::hint::black_box(triangulate(&poses, &[*a, *b]));
                }
            }
        });
        println!("triangulate: {:?}", triangulations / 4000);
    }
}
