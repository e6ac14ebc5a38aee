//! Bundle adjustment: the truth is found again, what is held stays, priors weigh what they say, the information matrix is
//! that of the noise, and the minimum is no worse than Ceres' as pycolmap calls it (`training/baselines/adjust.py`).

use std::path::PathBuf;

use geometry::WINDOW;
use geometry::adjust::{Bundle, Observations, Options, PosePrior, View, step_between, stepped};
use nalgebra::{DMatrix, DVector, Isometry3, Matrix4x3, Matrix6, UnitQuaternion, Vector2, Vector3, Vector4, Vector6};
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

use crate::common::isometry;

const FOCAL: f64 = 500.0;
const FREE: usize = WINDOW - 1;

fn options(loss_px: f64) -> Options {
    Options { focal: Vector2::new(FOCAL, FOCAL), loss_px, iterations: 100, min_gain: 0.0, turn_only: false }
}

/// A number from the normal distribution (Box and Muller).
fn normal(random: &mut ChaCha8Rng) -> f64 {
    let (u, v): (f64, f64) = (random.random_range(1e-300..1.0), random.random());
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

fn within(random: &mut ChaCha8Rng, reach: f64) -> Vector3<f64> {
    Vector3::from_fn(|_, _| random.random_range(-reach..reach))
}

fn small_step(random: &mut ChaCha8Rng, turn: f64, way: f64) -> Vector6<f64> {
    let (w, v) = (within(random, turn), within(random, way));
    Vector6::new(w.x, w.y, w.z, v.x, v.y, v.z)
}

fn project(pose: &Isometry3<f64>, point: &Vector4<f64>) -> Option<Vector2<f64>> {
    let inside = pose.rotation * point.xyz() + pose.translation.vector * point.w;
    (inside.z > 0.1 * point.w.max(0.1)).then(|| inside.xy() / inside.z)
}

/// Five cameras, the first of them held at the identity, and points that each of them sees; the observations are exact.
fn scene(random: &mut ChaCha8Rng, points: usize, at_infinity: usize) -> Bundle {
    let mut poses = vec![Isometry3::identity()];
    for k in 1..WINDOW {
        let mut step = small_step(random, 0.08, 0.3);
        // No two cameras are in one place.
        step[3] += 0.3 * if k % 2 == 0 { 0.3 } else { 1.0 };
        let next = stepped(&poses[k - 1], &step);
        poses.push(next);
    }
    let mut solid = Vec::new();
    while solid.len() < points + at_infinity {
        let ray = Vector3::new(random.random_range(-0.6..0.6), random.random_range(-0.45..0.45), 1.0);
        let depth = random.random_range(2.0..8.0);
        let point = if solid.len() < points { (ray * depth).push(1.0) } else { ray.push(0.0) }.normalize();
        if poses.iter().all(|pose| project(pose, &point).is_some()) {
            solid.push(point);
        }
    }
    let mut observations = Observations::new();
    for point in &solid {
        observations.push(poses.iter().enumerate().filter_map(|(k, pose)| Some((k, project(pose, point)?))));
    }
    let views = poses.iter().enumerate().map(|(k, pose)| if k == 0 { View::held(*pose) } else { View::free(*pose) });
    Bundle { views: views.collect(), points: solid, observations }
}

/// The same with noise on every observation, pixels.
fn noisy(truth: &Bundle, random: &mut ChaCha8Rng, sigma_px: f64) -> Bundle {
    let mut observations = Observations::new();
    for point in 0..truth.points.len() {
        let seen: Vec<_> = truth
            .observations
            .of(point)
            .iter()
            .map(|(view, xy)| (*view as usize, xy + Vector2::from_fn(|_, _| normal(random) * sigma_px / FOCAL)))
            .collect();
        observations.push(seen);
    }
    Bundle { observations, ..truth.clone() }
}

/// The same from other poses and depths.
fn perturbed(truth: &Bundle, random: &mut ChaCha8Rng, turn: f64, way: f64) -> Bundle {
    let mut bundle = truth.clone();
    for view in bundle.views.iter_mut().filter(|view| view.is_free) {
        view.camera_from_world = stepped(&view.camera_from_world, &small_step(random, turn, way));
    }
    for point in &mut bundle.points {
        point.w *= 1.0 + random.random_range(-way..way);
        *point = point.normalize();
    }
    bundle
}

/// The factor that brings the translations of `poses` to those of `truth`.
fn scale_between(truth: &Bundle, poses: &Bundle) -> f64 {
    let pairs = || truth.views.iter().zip(&poses.views).map(|(a, b)| (a.camera_from_world, b.camera_from_world));
    let top: f64 = pairs().map(|(a, b)| a.translation.vector.dot(&b.translation.vector)).sum();
    let bottom: f64 = pairs().map(|(_, b)| b.translation.vector.norm_squared()).sum();
    if bottom > 0.0 { top / bottom } else { 1.0 }
}

/// Steps from the true poses of the free views, once the scale is taken out.
fn errors(truth: &Bundle, got: &Bundle) -> DVector<f64> {
    let factor = scale_between(truth, got);
    let mut out = DVector::zeros(6 * FREE);
    for k in 1..WINDOW {
        let mut pose = got.views[k].camera_from_world;
        pose.translation.vector *= factor;
        out.fixed_rows_mut::<6>(6 * (k - 1)).copy_from(&step_between(&truth.views[k].camera_from_world, &pose));
    }
    out
}

#[test]
fn the_truth_is_found_again() {
    /// Exact observations lead back to the poses from a start that is off by so much.
    fn check(loss_px: f64, turn: f64, way: f64, at_infinity: usize) {
        for seed in 0..40 {
            let random = &mut ChaCha8Rng::seed_from_u64(seed);
            let truth = scene(random, 50, at_infinity);
            let mut got = perturbed(&truth, random, turn, way);
            let before = got.cost(&options(loss_px));
            let cost = got.adjust(&options(loss_px));
            let error = errors(&truth, &got).amax();
            let name = format!("loss {loss_px} px, {turn} rad, {way}, seed {seed}");
            assert!(error < 1e-6, "{name}: {error}, cost {before} to {cost}");
            assert!(cost < 1e-9, "{name}: cost {before} to {cost}");
            assert!((cost - got.cost(&options(loss_px))).abs() <= 1e-12, "{name}");
            for point in &got.points {
                assert!((point.norm() - 1.0).abs() < 1e-9 && point.w >= 0.0, "{name}: {point:?}");
            }
            for point in &got.points[50..] {
                assert!(point.w < 1e-6, "{name}: what is at infinity stays there: {point:?}");
            }
        }
    }
    check(0.5, 0.002, 0.01, 0);
    check(0.5, 0.002, 0.01, 30);
    check(50.0, 0.02, 0.05, 0);
    check(50.0, 0.02, 0.05, 30);
    check(1e3, 0.04, 0.08, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn held_views_stay_to_the_bit(seed in any::<u64>(), held in 1_usize..WINDOW) {
        let random = &mut ChaCha8Rng::seed_from_u64(seed);
        let truth = noisy(&scene(random, 30, 3), random, 0.5);
        let mut got = perturbed(&truth, random, 0.01, 0.03);
        got.views[held].is_free = false;
        let before = got.clone();
        let cost = got.cost(&options(0.5));
        prop_assert!(got.adjust(&options(0.5)) < cost);
        for k in 0..WINDOW {
            let stayed = got.views[k] == before.views[k];
            prop_assert_eq!(stayed, k == 0 || k == held, "view {}", k);
        }
        prop_assert_eq!(&got.observations, &before.observations);
    }

    /// A step there and the step back to where it came from.
    #[test]
    fn steps_are_inverse_to_each_other(from in isometry(), to in isometry(), step in prop::array::uniform6(-1.5..1.5_f64)) {
        let step = Vector6::from(step);
        prop_assert!((step_between(&from, &stepped(&from, &step)) - step).amax() < 1e-9);
        let there = stepped(&from, &step_between(&from, &to));
        prop_assert!(there.rotation.angle_to(&to.rotation) < 1e-9);
        prop_assert!((there.translation.vector - to.translation.vector).norm() < 1e-8);
    }

    #[test]
    fn turning_alone_moves_nothing(seed in any::<u64>()) {
        let random = &mut ChaCha8Rng::seed_from_u64(seed);
        let mut truth = scene(random, 0, 40);
        for view in &mut truth.views {
            view.camera_from_world.translation.vector = Vector3::zeros();
        }
        let mut got = truth.clone();
        for view in got.views.iter_mut().skip(1) {
            view.camera_from_world = stepped(&view.camera_from_world, &small_step(random, 0.03, 1e-300));
            view.camera_from_world.translation.vector = Vector3::zeros();
        }
        let cost = got.adjust(&Options { turn_only: true, ..options(50.0) });
        prop_assert!(cost < 1e-9, "{}", cost);
        for (view, truth) in got.views.iter().zip(&truth.views) {
            prop_assert_eq!(view.camera_from_world.translation.vector, Vector3::zeros());
            prop_assert!(view.camera_from_world.rotation.angle_to(&truth.camera_from_world.rotation) < 1e-6);
        }
        prop_assert!(got.points.iter().all(|point| point.w == 0.0));
    }
}

#[test]
fn priors_weigh_what_they_say() {
    /// Where view 2 ends whose prior is wrong by 0.05 rad and 0.1: with the prior, or with the points.
    fn check(information: f64, with_prior: bool) {
        for seed in 0..20 {
            let random = &mut ChaCha8Rng::seed_from_u64(seed);
            let truth = scene(random, 40, 0);
            let mut got = truth.clone();
            let wrong = stepped(&truth.views[2].camera_from_world, &Vector6::new(0.05, 0.0, 0.0, 0.0, 0.1, 0.0));
            got.views[2].prior =
                Some(PosePrior { camera_from_world: wrong, information: Matrix6::identity() * information });
            got.adjust(&options(1.0));
            let from_prior = step_between(&wrong, &got.views[2].camera_from_world).amax();
            let from_truth = errors(&truth, &got).amax();
            let name = format!("information {information}, seed {seed}: {from_prior}, {from_truth}");
            assert_eq!(from_prior < 1e-3, with_prior, "{name}");
            assert_eq!(from_truth < 1e-5, !with_prior, "{name}");
        }
    }
    check(1e-3, false);
    check(1.0, false);
    check(1e10, true);
}

#[test]
fn priors_set_the_scale() {
    for (seed, information) in [(0, 100.0), (1, 1e3), (2, 1e5)] {
        let random = &mut ChaCha8Rng::seed_from_u64(seed);
        let truth = scene(random, 40, 0);
        let mut got = truth.clone();
        for view in got.views.iter_mut().skip(1) {
            let mut twice = view.camera_from_world;
            twice.translation.vector *= 2.0;
            view.prior = Some(PosePrior { camera_from_world: twice, information: Matrix6::identity() * information });
        }
        let cost = got.adjust(&options(1.0));
        let scale = 1.0 / scale_between(&truth, &got);
        assert!((scale - 2.0).abs() < 1e-4, "information {information}: scale {scale}, cost {cost}");
        assert!(errors(&truth, &got).amax() < 1e-5);
    }
}

/// An orthonormal basis of the steps of a point on its sphere.
fn basis(point: &Vector4<f64>) -> Matrix4x3<f64> {
    let mut columns = vec![*point];
    for axis in 0..4 {
        let mut next = Vector4::ith(axis, 1.0);
        for column in &columns {
            next -= column * column.dot(&next);
        }
        if next.norm() > 0.2 && columns.len() < 4 {
            columns.push(next.normalize());
        }
    }
    Matrix4x3::from_columns(&columns[1..4])
}

#[test]
fn information_is_the_hessian_with_the_points_eliminated() {
    const STEP: f64 = 2e-5;
    let random = &mut ChaCha8Rng::seed_from_u64(5);
    let mut truth = scene(random, 12, 2);
    truth.views[3].prior = Some(PosePrior {
        camera_from_world: truth.views[3].camera_from_world,
        information: Matrix6::from_diagonal(&Vector6::new(3e5, 2e5, 1e5, 3e4, 2e4, 1e4)),
    });
    let options = options(2.0);
    let bases: Vec<_> = truth.points.iter().map(basis).collect();
    let poses = 6 * FREE;
    let size = poses + 3 * truth.points.len();
    let cost = |moves: &[(usize, f64)]| {
        let mut bundle = truth.clone();
        let mut steps = DVector::zeros(size);
        for (k, by) in moves {
            steps[*k] += by;
        }
        for (k, view) in bundle.views.iter_mut().skip(1).enumerate() {
            view.camera_from_world = stepped(&view.camera_from_world, &steps.fixed_rows::<6>(6 * k).into_owned());
        }
        for (k, point) in bundle.points.iter_mut().enumerate() {
            *point = (*point + bases[k] * steps.fixed_rows::<3>(poses + 3 * k)).normalize();
        }
        bundle.cost(&options)
    };
    let hessian = DMatrix::from_fn(size, size, |i, j| {
        let at = |a: f64, b: f64| cost(&[(i, a * STEP), (j, b * STEP)]);
        (at(1.0, 1.0) - at(1.0, -1.0) - at(-1.0, 1.0) + at(-1.0, -1.0)) / (4.0 * STEP * STEP)
    });
    let (a, b, c) = (
        hessian.view((0, 0), (poses, poses)),
        hessian.view((0, poses), (poses, size - poses)),
        hessian.view((poses, poses), (size - poses, size - poses)),
    );
    let inverse = c.into_owned().try_inverse().unwrap();
    // The cost is the sum of squares, whose second derivative is twice J^T J.
    let expected = (a - b * inverse * b.transpose()) * 0.5;
    let got = truth.information(&options);
    for i in 0..poses {
        for j in 0..poses {
            let size = (got[(i, i)] * got[(j, j)]).sqrt();
            let difference = (got[(i, j)] - expected[(i, j)]).abs();
            assert!(difference < 1e-3 * size, "({i}, {j}): {} for {}, of {size}", got[(i, j)], expected[(i, j)]);
        }
    }
    // With the points known: the same block without the elimination.
    let known = truth.information_of_poses(&options);
    for k in 0..FREE {
        let (own, expected) = (known.view((6 * k, 6 * k), (6, 6)), a.view((6 * k, 6 * k), (6, 6)) * 0.5);
        assert!((own - &expected).amax() < 1e-3 * expected.amax(), "view {k}");
    }
}

#[test]
fn covariance_is_that_of_the_noise() {
    const DRAWS: usize = 1000;
    const SIGMA_PX: f64 = 0.3;
    let options = Options { iterations: 20, min_gain: 1e-12, ..options(1e3) };
    for (seed, count) in [(1, 60), (2, 25), (3, 150)] {
        let random = &mut ChaCha8Rng::seed_from_u64(seed);
        let truth = scene(random, count, 0);
        let information = truth.information(&options) / (SIGMA_PX * SIGMA_PX);
        let eigen = information.clone().symmetric_eigen();
        let mut order: Vec<usize> = (0..6 * FREE).collect();
        order.sort_by(|a, b| eigen.eigenvalues[*a].total_cmp(&eigen.eigenvalues[*b]));
        // The scale is the one direction that nothing tells.
        let (free, next) = (eigen.eigenvalues[order[0]], eigen.eigenvalues[order[1]]);
        assert!(free.abs() < 1e-4 * next, "{free}, {next}");
        let mut empirical = DMatrix::zeros(6 * FREE, 6 * FREE);
        let mut nees = 0.0;
        for _ in 0..DRAWS {
            let mut got = noisy(&truth, random, SIGMA_PX);
            got.adjust(&options);
            let error = errors(&truth, &got);
            empirical += &error * error.transpose() / DRAWS as f64;
            nees += error.dot(&(&information * &error)) / DRAWS as f64;
        }
        let freedom = (6 * FREE - 1) as f64;
        println!("{count} points: NEES {nees:.2} of {freedom}");
        assert!((nees / freedom - 1.0).abs() < 0.1, "{count} points: NEES {nees} of {freedom}");
        for k in &order[1..7] {
            let along = eigen.eigenvectors.column(*k);
            let (got, expected) = ((along.transpose() * &empirical * along)[0], 1.0 / eigen.eigenvalues[*k]);
            println!("{count} points: variance {got:.3e} of {expected:.3e}");
            assert!((got / expected - 1.0).abs() < 0.15, "{count} points: variance {got} of {expected}");
        }
    }
}

#[test]
fn what_tells_nothing_does_no_harm() {
    /// Adjusts, with everything finite and no cost gained.
    fn check(name: &str, mut bundle: Bundle) {
        let before = bundle.cost(&options(0.5));
        let cost = bundle.adjust(&options(0.5));
        assert!(cost.is_finite() && cost <= before, "{name}: {before} to {cost}");
        assert!(bundle.points.iter().all(|point| point.iter().all(|value| value.is_finite())), "{name}");
        for view in &bundle.views {
            let pose = view.camera_from_world;
            assert!(pose.translation.vector.iter().chain(pose.rotation.coords.iter()).all(|v| v.is_finite()), "{name}");
        }
        assert!(bundle.information(&options(0.5)).iter().all(|value| value.is_finite()), "{name}");
    }
    let random = &mut ChaCha8Rng::seed_from_u64(9);
    let truth = scene(random, 20, 0);
    check("nothing", Bundle::default());
    check("cameras alone", Bundle { points: vec![], observations: Observations::new(), ..truth.clone() });
    let mut held = perturbed(&truth, random, 0.01, 0.1);
    held.views.iter_mut().for_each(|view| view.is_free = false);
    check("all held", held);
    let mut free = perturbed(&truth, random, 0.01, 0.1);
    free.views.iter_mut().for_each(|view| view.is_free = true);
    check("none held", free);
    let mut once = perturbed(&truth, random, 0.01, 0.1);
    once.points.push(Vector4::new(0.1, 0.0, 1.0, 0.3).normalize());
    once.observations.push([(2, Vector2::new(0.1, 0.0))]);
    once.points.push(Vector4::new(0.1, 0.0, 1.0, 0.3).normalize());
    once.observations.push([]);
    check("points seen once and never", once);
    let mut behind = perturbed(&truth, random, 0.01, 0.1);
    for point in behind.points.iter_mut().take(5) {
        *point = Vector4::new(-point.x, -point.y, -point.z, point.w);
    }
    check("points behind", behind);
    let mut same = truth.clone();
    let first = same.views[0].camera_from_world;
    same.views.iter_mut().for_each(|view| view.camera_from_world = first);
    check("all cameras in one place", same);
    let mut axis = truth;
    axis.points[0] = Vector4::new(-1.0, 0.0, 0.0, 0.0);
    axis.points[1] = Vector4::new(0.0, 0.0, 0.0, 1.0);
    check("points on the axes of the sphere", axis);
}

#[derive(Deserialize)]
struct Fixture {
    focal: f64,
    loss_px: f64,
    /// Rotation vector and translation of `camera_from_world`: where it begins, and where pycolmap ends.
    start: Vec<[f64; 6]>,
    pycolmap: Vec<[f64; 6]>,
    /// Sum of the losses where pycolmap ends, square pixels.
    cost: f64,
    /// Points where it begins.
    points: Vec<[f64; 3]>,
    /// Point, view, and hundredths of pixels from the principal point.
    seen: Vec<[i32; 4]>,
}

fn pose_of(values: &[f64; 6]) -> Isometry3<f64> {
    let [a, b, c, x, y, z] = *values;
    Isometry3::from_parts(Vector3::new(x, y, z).into(), UnitQuaternion::from_scaled_axis(Vector3::new(a, b, c)))
}

#[test]
fn the_minimum_is_pycolmaps() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/adjust.json");
    let fixture: Fixture = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut observations = Observations::new();
    for k in 0..fixture.points.len() {
        let own = fixture.seen.iter().filter(|seen| seen[0] as usize == k);
        let place = |value: i32| f64::from(value) / 100.0 / fixture.focal;
        observations.push(own.map(|[_, view, x, y]| (*view as usize, Vector2::new(place(*x), place(*y)))));
    }
    let views = fixture.start.iter().map(pose_of).enumerate();
    let mut bundle = Bundle {
        views: views.map(|(k, pose)| if k == 0 { View::held(pose) } else { View::free(pose) }).collect(),
        points: fixture.points.iter().map(|p| Vector4::new(p[0], p[1], p[2], 1.0).normalize()).collect(),
        observations,
    };
    let options = Options {
        focal: Vector2::new(fixture.focal, fixture.focal),
        loss_px: fixture.loss_px,
        iterations: 100,
        min_gain: 1e-12,
        turn_only: false,
    };
    let before = bundle.cost(&options);
    let cost = bundle.adjust(&options);
    println!("cost {before:.3} to {cost:.6}, pycolmap has {:.6}", fixture.cost);
    assert!(before > 3.0 * fixture.cost, "the start is no test");
    assert!(cost <= fixture.cost * 1.001, "{cost}, pycolmap has {}", fixture.cost);
    let theirs =
        Bundle { views: fixture.pycolmap.iter().map(|pose| View::free(pose_of(pose))).collect(), ..Bundle::default() };
    let factor = scale_between(&theirs, &bundle);
    for (k, (own, their)) in bundle.views.iter().zip(&theirs.views).enumerate().skip(1) {
        let (own, their) = (own.camera_from_world, their.camera_from_world);
        let turn = own.rotation.angle_to(&their.rotation);
        let way = (own.translation.vector * factor - their.translation.vector).norm() / their.translation.vector.norm();
        println!("view {k}: {turn:.2e} rad, {way:.2e} of the way");
        assert!(turn < 1e-4 && way < 1e-4, "view {k}: {turn} rad, {way} of the way");
    }
}

/// Cauchy's loss bends less than the squares that it weighs: an inverse of their matrix alone is too small by half.
#[test]
fn covariance_by_residuals_is_that_of_the_noise_under_a_robust_loss() {
    const DRAWS: usize = 200;
    const SIGMA_PX: f64 = 0.3;
    let options = Options { iterations: 40, min_gain: 1e-12, ..options(2.385 * SIGMA_PX) };
    let mut faults = String::new();
    for (seed, count) in [(1, 60), (2, 30), (3, 150)] {
        let random = &mut ChaCha8Rng::seed_from_u64(seed);
        let truth = scene(random, count, 0);
        let world_from_first = truth.views[0].camera_from_world.inverse();
        let mut nees = 0.0;
        for _ in 0..DRAWS {
            let mut got = noisy(&truth, random, SIGMA_PX);
            got.adjust(&options);
            let scale = DVector::from_fn(6 * FREE, |k, _| {
                let way = (got.views[k / 6 + 1].camera_from_world * world_from_first).translation.vector;
                if k % 6 >= 3 { way[k % 6 - 3] } else { 0.0 }
            });
            let covariance = got.covariance(&options, SIGMA_PX * SIGMA_PX, Some(&scale));
            let sigma = covariance.diagonal().map(f64::sqrt);
            let eigen = DMatrix::from_fn(6 * FREE, 6 * FREE, |i, j| covariance[(i, j)] / (sigma[i] * sigma[j]))
                .symmetric_eigen();
            let scaled = errors(&truth, &got).component_div(&sigma);
            let mut order: Vec<usize> = (0..6 * FREE).collect();
            order.sort_by(|a, b| eigen.eigenvalues[*a].total_cmp(&eigen.eigenvalues[*b]));
            // The scale has none.
            assert!(eigen.eigenvalues[order[0]].abs() < 1e-6, "{}", eigen.eigenvalues);
            for k in &order[1..] {
                nees += eigen.eigenvectors.column(*k).dot(&scaled).powi(2) / eigen.eigenvalues[*k] / DRAWS as f64;
            }
        }
        let ratio = nees / (6 * FREE - 1) as f64;
        println!("{count} points: NEES {ratio:.3} an unknown");
        // Few points know little of how wrong they are.
        let most = if count < 100 { 1.6 } else { 1.3 };
        if !(0.8..most).contains(&ratio) {
            faults += &format!("{count} points: NEES {ratio} an unknown\n");
        }
    }
    assert!(faults.is_empty(), "{faults}");
}
