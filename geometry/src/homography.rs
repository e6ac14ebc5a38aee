//! Homographies between two calibrated views of a plane, and the motions that they allow.
//!
//! Hartley and Zisserman, Multiple View Geometry, 2nd ed., chapter 4 (the normalised DLT); the decomposition is that of
//! Ma, Soatto, Košecká and Sastry, An Invitation to 3-D Vision, 2004, section 5.3.3. Image points are normalised, as in
//! [`crate::two_view`]; on pixels the first two functions work as well.

use nalgebra::{Isometry3, Matrix3, Point2, Translation3, Vector3};

use crate::frame::nearest_rotation;
use crate::linear::{null_space, symmetric_eigen};
use crate::robust::{CONVERGED, Loss, Problem, ROUGH, RobustOptions, Search, accumulate, minimise, ransac};
use crate::svd::svd;
use crate::up_to::UpTo;

/// Fewest pairs that determine a homography.
const MIN_PAIRS: usize = 4;
/// Steps of a local optimisation, and of the last one.
const POLISH_STEPS: usize = 8;
const FINAL_STEPS: usize = 30;
/// Smallest singular value, beside the largest, of a homography that can be inverted.
const RANK: f64 = 1e-9;
/// Second smallest eigenvalue of the DLT, beside the largest, below which the pairs do not determine a homography.
const DETERMINED: f64 = 1e-14;
/// Twice the area of a triangle, in centred points, below which its corners are on a line.
const COLLINEAR: f64 = 1e-6;
/// The share of the points that must be in front of the cameras.
const IN_FRONT: f64 = 0.9;
/// A spread of the singular values below which there is no translation to speak of.
const STILL: f64 = 1e-9;

/// The H with `b ~ H a` of at least four pairs, by the normalised DLT (Hartley and Zisserman, algorithm 4.2). Its
/// Frobenius norm is 1, and `(H a).z` is positive for most pairs.
///
/// `None` where the lengths differ, there are fewer than four pairs, a number is not finite, or the pairs do not
/// determine H: three of four on a line.
pub fn homography(a: &[Point2<f64>], b: &[Point2<f64>]) -> Option<Matrix3<f64>> {
    if a.len() != b.len() || a.len() < MIN_PAIRS {
        return None;
    }
    let (to_a, to_b) = (centring(a)?, centring(b)?);
    let rows = |k: usize| {
        let (a, b) = (to_a * a[k].to_homogeneous(), to_b * b[k].to_homogeneous());
        [
            [-a.x, -a.y, -1.0, 0.0, 0.0, 0.0, b.x * a.x, b.x * a.y, b.x],
            [0.0, 0.0, 0.0, -a.x, -a.y, -1.0, b.y * a.x, b.y * a.y, b.y],
        ]
    };
    let h = if a.len() == MIN_PAIRS {
        for (points, centring) in [(a, to_a), (b, to_b)] {
            let rays: [Vector3<f64>; 4] = std::array::from_fn(|k| centring * points[k].to_homogeneous());
            let flat = |(i, j, k): (usize, usize, usize)| rays[i].cross(&rays[j]).dot(&rays[k]).abs() < COLLINEAR;
            if [(0, 1, 2), (0, 1, 3), (0, 2, 3), (1, 2, 3)].into_iter().any(flat) {
                return None;
            }
        }
        let [row] = null_space::<8, 9, 1>(&std::array::from_fn(|k| rows(k / 2)[k % 2]));
        row
    } else {
        let mut normal = [[0.0; 9]; 9];
        for row in (0..a.len()).flat_map(rows) {
            for i in 0..9 {
                for j in 0..9 {
                    normal[i][j] += row[i] * row[j];
                }
            }
        }
        let (values, vectors) = symmetric_eigen(&normal);
        let mut order: [usize; 9] = std::array::from_fn(|k| k);
        order.sort_by(|&i, &j| values[i].total_cmp(&values[j]));
        if values[order[1]].is_nan() || values[order[1]] <= DETERMINED * values[order[8]] {
            return None;
        }
        vectors[order[0]]
    };
    let h = to_b.try_inverse()? * Matrix3::from_row_slice(&h) * to_a;
    let ahead: f64 = a.iter().map(|a| (h * a.to_homogeneous()).z.signum()).sum();
    normalised(if ahead < 0.0 { -h } else { h })
}

/// With Frobenius norm 1; `None` where it cannot be inverted.
fn normalised(h: Matrix3<f64>) -> Option<Matrix3<f64>> {
    let norm = h.norm();
    if !(norm.is_finite() && norm > 0.0) {
        return None;
    }
    let h = h / norm;
    if !h.iter().all(|x| x.is_finite()) {
        return None;
    }
    let (_, _, singular) = svd(&h);
    (singular[2] > RANK * singular[0]).then_some(h)
}

/// Moves the mean to 0 and the mean distance to sqrt(2); `None` for one point only, or numbers that are not finite.
fn centring(points: &[Point2<f64>]) -> Option<Matrix3<f64>> {
    let count = points.len() as f64;
    let mean = points.iter().fold(nalgebra::Vector2::zeros(), |sum, p| sum + p.coords) / count;
    let spread = points.iter().map(|p| (p.coords - mean).norm()).sum::<f64>() / count;
    let scale = std::f64::consts::SQRT_2 / spread;
    let matrix = Matrix3::new(scale, 0.0, -scale * mean.x, 0.0, scale, -scale * mean.y, 0.0, 0.0, 1.0);
    (scale > 0.0 && matrix.iter().all(|x| x.is_finite())).then_some(matrix)
}

/// The squared distance of b to the image of a, in squared units of the points; infinite where a goes to infinity or
/// behind the camera.
pub fn transfer_squared(homography: &Matrix3<f64>, a: &Point2<f64>, b: &Point2<f64>) -> f64 {
    let moved = homography * a.to_homogeneous();
    if moved.z.is_nan() || moved.z <= 0.0 {
        return f64::INFINITY;
    }
    let square = (moved.xy() / moved.z - b.coords).norm_squared();
    if square.is_nan() { f64::INFINITY } else { square }
}

/// What [`estimate_homography`] finds.
#[derive(Clone, Debug)]
pub struct RobustHomography {
    /// H with `b ~ H a` and Frobenius norm 1.
    pub b_from_a: Matrix3<f64>,
    /// For each pair whether its transfer error in b is within the threshold.
    pub inliers: Vec<bool>,
    /// The sum over finite pairs of the squared transfer error in squared thresholds, at most 1 each.
    pub score: f64,
}

impl RobustHomography {
    /// The number of inliers.
    pub fn inlier_count(&self) -> usize {
        self.inliers.iter().filter(|inlier| **inlier).count()
    }
}

/// The homography that takes most points in a to those in b: four-point samples in a locally optimised RANSAC on the
/// transfer error in b, refined over all inliers.
///
/// `None` where the lengths differ, fewer than four pairs are finite, the threshold is not positive, or nothing fits
/// four pairs.
pub fn estimate_homography(a: &[Point2<f64>], b: &[Point2<f64>], options: &RobustOptions) -> Option<RobustHomography> {
    if a.len() != b.len() || !options.usable() {
        return None;
    }
    let finite = |(a, b): &(&Point2<f64>, &Point2<f64>)| a.iter().chain(b.iter()).all(|x| x.is_finite());
    let pairs: Vec<(Point2<f64>, Point2<f64>)> = a.iter().zip(b).filter(finite).map(|(a, b)| (*a, *b)).collect();
    let search = TransferSearch { pairs: &pairs, square: options.threshold * options.threshold };
    let (h, _) = ransac(&search, options, std::iter::empty())?;
    let (h, _) = minimise(&search, &h, FINAL_STEPS, CONVERGED);
    let h = normalised(h)?;
    let inliers: Vec<bool> = a.iter().zip(b).map(|(a, b)| transfer_squared(&h, a, b) <= search.square).collect();
    let score = Search::cost(&search, &h, f64::INFINITY);
    let count = inliers.iter().filter(|inlier| **inlier).count();
    (count >= MIN_PAIRS).then_some(RobustHomography { b_from_a: h, inliers, score })
}

struct TransferSearch<'a> {
    pairs: &'a [(Point2<f64>, Point2<f64>)],
    square: f64,
}

impl Search<4> for TransferSearch<'_> {
    type Model = Matrix3<f64>;

    fn count(&self) -> usize {
        self.pairs.len()
    }

    fn solve(&self, sample: &[usize; 4], found: &mut dyn FnMut(Matrix3<f64>)) {
        let (a, b) = (sample.map(|k| self.pairs[k].0), sample.map(|k| self.pairs[k].1));
        if let Some(h) = homography(&a, &b) {
            found(h);
        }
    }

    fn cost(&self, h: &Matrix3<f64>, limit: f64) -> f64 {
        let inverse = 1.0 / self.square;
        let mut cost = 0.0;
        for chunk in self.pairs.chunks(16) {
            for (a, b) in chunk {
                cost += (transfer_squared(h, a, b) * inverse).min(1.0);
            }
            if cost >= limit {
                break;
            }
        }
        cost
    }

    fn polish(&self, h: &Matrix3<f64>) -> Option<Matrix3<f64>> {
        normalised(minimise(self, h, POLISH_STEPS, ROUGH).0)
    }
}

/// Truncated transfer errors over the nine entries of H, rows first. The damping holds the scale, which is free.
impl Problem<9> for TransferSearch<'_> {
    type State = Matrix3<f64>;

    fn cost(&self, h: &Matrix3<f64>) -> f64 {
        self.square * Search::cost(self, h, f64::INFINITY)
    }

    fn linearise(&self, h: &Matrix3<f64>) -> (f64, [[f64; 9]; 9], [f64; 9]) {
        let loss = Loss::Truncated(self.square);
        let (mut cost, mut normal, mut gradient) = (0.0, [[0.0; 9]; 9], [0.0; 9]);
        for (a, b) in self.pairs {
            let (value, weight) = loss.apply(transfer_squared(h, a, b));
            cost += value;
            if weight == 0.0 {
                continue;
            }
            let moved = h * a.to_homogeneous();
            let inverse = 1.0 / moved.z;
            let (x, y) = (moved.x * inverse, moved.y * inverse);
            let (p, q) = (a.x * inverse, a.y * inverse);
            let by_x = [p, q, inverse, 0.0, 0.0, 0.0, -x * p, -x * q, -x * inverse];
            let by_y = [0.0, 0.0, 0.0, p, q, inverse, -y * p, -y * q, -y * inverse];
            accumulate(&mut normal, &mut gradient, &by_x, x - b.x, weight);
            accumulate(&mut normal, &mut gradient, &by_y, y - b.y, weight);
        }
        (cost, normal, gradient)
    }

    fn retract(&self, h: &Matrix3<f64>, step: &[f64; 9]) -> Matrix3<f64> {
        let next = h + Matrix3::from_row_slice(step);
        next / next.norm()
    }
}

/// A motion that a homography allows, and the plane that goes with it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PlaneMotion {
    /// The pose; its translation is in units of the distance of camera a to the plane.
    pub b_from_a: Isometry3<f64>,
    /// The plane's unit normal in camera a, pointing away from it: `n X = 1` for points of the plane. Zero where there
    /// is no translation, and so no plane.
    pub normal: Vector3<f64>,
}

/// The up to four motions with `H ~ R + t n^T` (Ma et al., theorem 5.19), less those that put more than a tenth of the
/// points `a` behind a camera: in general two are left, and one where the points fill a wide image.
///
/// H is one of normalised points, of either sign and any scale. Empty where it is not finite, cannot be inverted, or
/// `a` is empty.
pub fn decompose_homography(homography: &Matrix3<f64>, a: &[Point2<f64>]) -> UpTo<PlaneMotion, 4> {
    let mut motions = UpTo::new();
    let Some(h) = normalised(*homography) else { return motions };
    if a.is_empty() {
        return motions;
    }
    let (_, v_t, singular) = svd(&h);
    let needed = IN_FRONT * a.len() as f64;
    let share = |test: &dyn Fn(&Vector3<f64>) -> bool| a.iter().filter(|a| test(&a.to_homogeneous())).count() as f64;
    // The middle singular value of R + t n^T is 1, and depths keep their sign.
    let h = h / singular[1];
    let h = if 2.0 * share(&|a| (h * a).z > 0.0) < a.len() as f64 { -h } else { h };
    if share(&|a| (h * a).z > 0.0) < needed {
        return motions;
    }
    let (s1, s3) = ((singular[0] / singular[1]).powi(2), (singular[2] / singular[1]).powi(2));
    if s1 - s3 <= STILL {
        if let Ok(rotation) = nearest_rotation(&h) {
            let b_from_a = Isometry3::from_parts(Translation3::identity(), rotation);
            motions.push(PlaneMotion { b_from_a, normal: Vector3::zeros() });
        }
        return motions;
    }
    let v = v_t.transpose();
    let v = v * v.determinant().signum();
    let [v1, v2, v3] = [0, 1, 2].map(|k| v.column(k).into_owned());
    let (first, third) = ((1.0 - s3).max(0.0).sqrt(), (s1 - 1.0).max(0.0).sqrt());
    let size = (s1 - s3).sqrt();
    // Where one is zero, as for motion along the normal, both are the same.
    let signs: &[f64] = if first.min(third) > 1e-6 * size { &[1.0, -1.0] } else { &[1.0] };
    for sign in signs {
        // A direction in the plane whose length H keeps, beside v2 (eq. 5.44).
        let u = (first * v1 + sign * third * v3) / size;
        let before = Matrix3::from_columns(&[v2, u, v2.cross(&u)]);
        let (hv, hu) = (h * v2, h * u);
        let after = Matrix3::from_columns(&[hv, hu, hv.cross(&hu)]);
        let Ok(rotation) = nearest_rotation(&(after * before.transpose())) else { continue };
        let normal = v2.cross(&u).normalize();
        let t = (h - rotation.to_rotation_matrix().into_inner()) * normal;
        for (normal, t) in [(normal, t), (-normal, -t)] {
            if share(&|a| normal.dot(a) > 0.0) >= needed && t.iter().all(|x| x.is_finite()) {
                let b_from_a = Isometry3::from_parts(Translation3::from(t), rotation);
                motions.push(PlaneMotion { b_from_a, normal });
            }
        }
    }
    motions
}

/// `R + t n^T`, the homography of a plane: `n X = 1` in camera a, t in units of its distance.
pub fn homography_from_motion(motion: &PlaneMotion) -> Matrix3<f64> {
    motion.b_from_a.rotation.to_rotation_matrix().into_inner()
        + motion.b_from_a.translation.vector * motion.normal.transpose()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn motion() -> impl Strategy<Value = PlaneMotion> {
        let vector = |size: f64| prop::array::uniform3(-size..size).prop_map(Vector3::from);
        (vector(0.3), vector(0.4), vector(0.4)).prop_map(|(turn, t, tilt)| PlaneMotion {
            b_from_a: Isometry3::new(t, turn),
            normal: nalgebra::Rotation3::new(tilt) * Vector3::z(),
        })
    }

    struct Views {
        a: Vec<Point2<f64>>,
        b: Vec<Point2<f64>>,
        wrong: usize,
    }

    fn views(motion: &PlaneMotion, seed: u64, count: usize, outliers: f64, noise: f64) -> Views {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut uniform = |low: f64, high: f64| random.random_range(low..high);
        let h = homography_from_motion(motion);
        let mut views = Views { a: vec![], b: vec![], wrong: 0 };
        for _ in 0..count {
            let a = Point2::new(uniform(-0.6, 0.6), uniform(-0.45, 0.45));
            let moved = h * a.to_homogeneous();
            let mut jitter = || noise * (0..12).map(|_| uniform(-0.5, 0.5)).sum::<f64>();
            let mut b = Point2::new(moved.x / moved.z + jitter(), moved.y / moved.z + jitter());
            if uniform(0.0, 1.0) < outliers {
                views.wrong += 1;
                b = Point2::new(uniform(-0.6, 0.6), uniform(-0.45, 0.45));
            }
            views.a.push(a);
            views.b.push(b);
        }
        views
    }

    fn apart(left: &PlaneMotion, right: &PlaneMotion) -> f64 {
        let t = (left.b_from_a.translation.vector - right.b_from_a.translation.vector).norm();
        left.b_from_a.rotation.angle_to(&right.b_from_a.rotation).max(t).max((left.normal - right.normal).norm())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn the_plane_and_the_motion_are_among_the_answers(
            motion in motion(), seed in any::<u64>(), count in 4..30_usize, scale in prop_oneof![-3.0..-0.1_f64, 0.1..3.0],
        ) {
            let t = motion.b_from_a.translation.vector;
            // Along the normal two answers nearly coincide.
            prop_assume!(t.norm() > 0.05 && (motion.b_from_a.rotation.inverse() * t).cross(&motion.normal).norm() > 0.03);
            let views = views(&motion, seed, count, 0.0, 0.0);
            let truth = homography_from_motion(&motion);
            prop_assume!(views.a.iter().all(|a| (truth * a.to_homogeneous()).z > 0.1));
            let answers = decompose_homography(&(scale * truth), &views.a);
            prop_assert!((1..=3).contains(&answers.len()));
            for answer in &answers {
                prop_assert!((homography_from_motion(answer) - truth).norm() < 1e-9);
            }
            let error = answers.iter().map(|answer| apart(answer, &motion)).fold(f64::INFINITY, f64::min);
            prop_assert!(error < 1e-7, "{}", error);

            let Some(h) = homography(&views.a, &views.b) else { return Ok(()) };
            let truth = truth / truth.norm();
            let fits = |h: &Matrix3<f64>| {
                views.a.iter().zip(&views.b).map(|(a, b)| transfer_squared(h, a, b)).fold(0.0, f64::max).sqrt()
            };
            prop_assert!(fits(&h) < 1e-6, "{}", fits(&h));
            prop_assert!(count < 10 || (h - truth).norm() < 1e-6, "{}", h - truth);
        }

        #[test]
        fn outliers_do_no_harm(motion in motion(), seed in any::<u64>()) {
            let noise = 5e-4;
            let truth = homography_from_motion(&motion);
            let views = views(&motion, seed, 200, 0.5, noise);
            prop_assume!(views.a.iter().all(|a| (truth * a.to_homogeneous()).z > 0.2));
            let options = RobustOptions { threshold: 4.0 * noise, seed, ..RobustOptions::default() };
            let got = estimate_homography(&views.a, &views.b, &options).unwrap();
            let right = 200 - views.wrong;
            prop_assert!((right - 3..right + 5).contains(&got.inlier_count()), "{} {}", got.inlier_count(), right);
            let mut worst = 0.0_f64;
            for a in &views.a {
                let exact = truth * a.to_homogeneous();
                worst = worst.max(transfer_squared(&got.b_from_a, a, &Point2::from(exact.xy() / exact.z)));
            }
            prop_assert!(worst.sqrt() < 5.0 * noise, "{}", worst.sqrt());
            prop_assert!(got.score < 200.0 && got.score > 0.9 * views.wrong as f64 - 2.0);
        }

        #[test]
        fn any_numbers_do_no_harm(numbers in prop::collection::vec(prop::num::f64::ANY, 48), take in 0..12_usize) {
            let point = |k: usize| Point2::new(numbers[2 * k], numbers[2 * k + 1]);
            let a: Vec<_> = (0..take).map(point).collect();
            let b: Vec<_> = (0..take).map(|k| point(12 + k)).collect();
            let options = RobustOptions { max_iterations: 20, ..RobustOptions::default() };
            if let Some(got) = estimate_homography(&a, &b, &options) {
                prop_assert!(got.b_from_a.iter().all(|x| x.is_finite()));
            }
            if let Some(h) = homography(&a, &b) {
                prop_assert!(h.iter().all(|x| x.is_finite()));
            }
            for motion in &decompose_homography(&Matrix3::from_fn(|i, j| numbers[3 * i + j]), &a) {
                prop_assert!(motion.b_from_a.translation.vector.iter().all(|x| x.is_finite()));
            }
        }
    }

    #[test]
    fn the_jacobian_is_the_slope_of_the_cost() {
        let motion = PlaneMotion {
            b_from_a: Isometry3::new(Vector3::new(0.2, 0.1, -0.1), Vector3::new(0.1, 0.0, 0.1)),
            normal: Vector3::new(0.1, 0.2, 1.0).normalize(),
        };
        let views = views(&motion, 1, 40, 0.2, 2e-3);
        let pairs: Vec<_> = views.a.iter().copied().zip(views.b.iter().copied()).collect();
        let search = TransferSearch { pairs: &pairs, square: 1e-3 };
        let h = homography_from_motion(&motion);
        let (cost, _, gradient) = search.linearise(&h);
        assert!((cost / Problem::cost(&search, &h) - 1.0).abs() < 1e-12);
        for k in 0..9 {
            let moved = |d: f64| {
                let mut step = [0.0; 9];
                step[k] = d;
                Problem::cost(&search, &search.retract(&h, &step))
            };
            let slope = (moved(1e-6) - moved(-1e-6)) / 2e-6;
            assert!((slope - 2.0 * gradient[k]).abs() < 1e-5 * slope.abs().max(1e-3), "{k}: {slope}");
        }
    }

    #[test]
    fn special_motions() {
        let a: Vec<_> = (0..9).map(|k| Point2::new(f64::from(k % 3) - 1.0, f64::from(k / 3) - 1.0) * 0.5).collect();
        let turn = Vector3::new(0.1, -0.2, 0.05);
        // Without translation: the rotation alone.
        let still = decompose_homography(&(2.0 * nalgebra::Rotation3::new(turn).into_inner()), &a);
        assert_eq!(still.len(), 1);
        assert!(still[0].b_from_a.rotation.angle_to(&nalgebra::UnitQuaternion::new(turn)) < 1e-9);
        assert!(still[0].b_from_a.translation.vector.norm() < 1e-12);
        // Along the normal: one answer.
        let ahead = PlaneMotion { b_from_a: Isometry3::translation(0.0, 0.0, -0.3), normal: Vector3::z() };
        let answers = decompose_homography(&homography_from_motion(&ahead), &a);
        assert_eq!(answers.len(), 1);
        assert!(apart(&answers[0], &ahead) < 1e-7, "{answers:?}");
    }

    #[test]
    fn too_little_or_degenerate_is_none() {
        let line: Vec<_> = (0..8).map(|k| Point2::new(f64::from(k), 0.5)).collect();
        assert!(homography(&line, &line).is_none());
        assert!(homography(&line[..4], &line[..4]).is_none());
        assert!(homography(&[], &[]).is_none());
        assert!(homography(&[Point2::new(0.1, 0.2); 6], &line[..6]).is_none());
        let options = RobustOptions::default();
        assert!(estimate_homography(&line, &line[..7], &options).is_none());
        assert!(estimate_homography(&line, &line, &options).is_none());
        assert!(decompose_homography(&Matrix3::identity(), &[]).is_empty());
        assert!(decompose_homography(&Matrix3::zeros(), &line).is_empty());
    }

    #[test]
    #[ignore = "measures: cargo test --release -p geometry homography -- --ignored --nocapture"]
    fn time_of_a_call() {
        let motion = PlaneMotion {
            b_from_a: Isometry3::new(Vector3::new(0.2, 0.1, -0.1), Vector3::new(0.1, 0.0, 0.1)),
            normal: Vector3::new(0.1, 0.2, 1.0).normalize(),
        };
        let views: Vec<_> = (0..20).map(|seed| views(&motion, seed, 200, 0.3, 5e-4)).collect();
        let once = |_| {
            let start = std::time::Instant::now();
            for views in &views {
                estimate_homography(&views.a, &views.b, &RobustOptions::default()).unwrap();
            }
            start.elapsed() / 20
        };
        println!("estimate_homography, 200 pairs, 30 % outliers: {:?}", (0..10).map(once).min().unwrap());
    }
}
