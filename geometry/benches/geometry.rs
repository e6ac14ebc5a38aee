//! Times of the solvers that the odometry calls, on seeded problems.
#![expect(clippy::unwrap_used, reason = "a bench that cannot be set up has nothing to measure")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use geometry::RobustOptions;
use geometry::adjust::{Bundle, Observations, Options, View, stepped};
use geometry::five_point::five_point;
use geometry::pnp::{estimate_pose, refine_pose};
use geometry::two_view::{estimate_essential, triangulate};
use nalgebra::{Isometry3, Point2, Point3, Vector2, Vector3, Vector4, Vector6};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const FOCAL: f64 = 500.0;

fn step(random: &mut ChaCha8Rng, turn: f64, way: f64) -> Vector6<f64> {
    Vector6::from_fn(|k, _| if k < 3 { random.random_range(-turn..turn) } else { random.random_range(-way..way) })
}

/// Cameras that each go on a little from the last, points, and where they are seen with a fifth of a pixel of noise; the
/// first `held` are held, and the rest is off by what a prediction is.
fn bundle(views: usize, held: usize, points: usize) -> Bundle {
    let random = &mut ChaCha8Rng::seed_from_u64(7);
    let mut poses = vec![Isometry3::identity()];
    for k in 1..views {
        let forth = step(random, 0.02, 0.02) + Vector6::new(0.0, 0.0, 0.0, 0.08, 0.0, 0.0);
        poses.push(stepped(&poses[k - 1], &forth));
    }
    let mut out = Bundle { observations: Observations::new(), ..Bundle::default() };
    while out.points.len() < points {
        let ray = Vector3::new(random.random_range(-0.6..0.6), random.random_range(-0.45..0.45), 1.0);
        let point = ray * random.random_range(2.0..8.0);
        let mut seen = Vec::new();
        // From some camera on, as many as a point is usually followed.
        let first = random.random_range(0..views.saturating_sub(4).max(1));
        for (k, pose) in poses.iter().enumerate().skip(first).take(8) {
            let inside = pose * Point3::from(point);
            let noise = Vector2::from_fn(|_, _| random.random_range(-0.35..0.35) / FOCAL);
            if inside.z > 0.3 {
                seen.push((k, inside.coords.xy() / inside.z + noise));
            }
        }
        if seen.len() >= 3 {
            out.points.push((point * (1.0 + random.random_range(-0.02..0.02))).push(1.0).normalize());
            out.observations.push(seen);
        }
    }
    out.views = poses
        .iter()
        .enumerate()
        .map(
            |(k, pose)| {
                if k < held { View::held(*pose) } else { View::free(stepped(pose, &step(random, 0.002, 0.005))) }
            },
        )
        .collect();
    out
}

fn benches(criterion: &mut Criterion) {
    let random = &mut ChaCha8Rng::seed_from_u64(1);
    let pose = stepped(&Isometry3::identity(), &Vector6::new(0.02, 0.05, 0.01, 0.3, 0.05, 0.1));
    let (mut solid, mut a, mut b) = (Vec::new(), Vec::new(), Vec::new());
    for k in 0..200 {
        let ray = Vector3::new(random.random_range(-0.6..0.6), random.random_range(-0.45..0.45), 1.0);
        let point = Point3::from(ray * random.random_range(2.0..8.0));
        let inside = pose * point;
        let noise = |random: &mut ChaCha8Rng| Vector2::from_fn(|_, _| random.random_range(-0.5..0.5) / FOCAL);
        solid.push(point);
        a.push(Point2::from(ray.xy() + noise(random)));
        // Three of ten are wrong.
        let wrong = Vector2::new(random.random_range(-0.6..0.6), random.random_range(-0.45..0.45));
        b.push(Point2::from(if k % 10 < 3 { wrong } else { inside.coords.xy() / inside.z + noise(random) }));
    }
    let rays = |xy: &[Point2<f64>]| std::array::from_fn(|k| xy[10 * k + 5].to_homogeneous().normalize());
    let (rays_a, rays_b): ([Vector3<f64>; 5], [Vector3<f64>; 5]) = (rays(&a), rays(&b));
    criterion.bench_function("five_point", |bench| bench.iter(|| five_point(black_box(&rays_a), black_box(&rays_b))));
    let options = RobustOptions { threshold: 1.0 / FOCAL, max_iterations: 400, confidence: 0.999, seed: 7 };
    criterion.bench_function("estimate_essential/200, 30 % wrong", |bench| {
        bench.iter(|| estimate_essential(black_box(&a), &b, &options, &[]).unwrap());
    });
    let options = RobustOptions { threshold: 3.0 / FOCAL, max_iterations: 60, confidence: 0.99, seed: 7 };
    criterion.bench_function("estimate_pose/200, 30 % wrong", |bench| {
        bench.iter(|| estimate_pose(black_box(&solid), &b, &options, &[]).unwrap());
    });
    let homogeneous: Vec<Vector4<f64>> = solid.iter().map(|p| p.coords.push(1.0).normalize()).collect();
    let start = stepped(&pose, &Vector6::new(0.002, -0.002, 0.001, 0.01, 0.01, -0.01));
    let weights = vec![1.0; b.len()];
    criterion.bench_function("refine_pose/200", |bench| {
        bench.iter(|| refine_pose(black_box(&homogeneous), &b, &weights, &start, 1.0 / FOCAL, 12).unwrap());
    });
    criterion.bench_function("triangulate/2 views", |bench| {
        bench.iter(|| triangulate(black_box(&[Isometry3::identity(), pose]), &[a[5], b[5]]));
    });
    for (name, own, iterations) in [
        ("adjust/window: 5 views, 350 points", bundle(5, 1, 350), 12),
        ("adjust/stream: 16 views, 8 held, 500 points", bundle(16, 8, 500), 8),
    ] {
        let options =
            Options { focal: Vector2::new(FOCAL, FOCAL), loss_px: 0.5, iterations, min_gain: 1e-3, turn_only: false };
        criterion.bench_function(name, |bench| {
            bench.iter_batched(|| own.clone(), |mut own| own.adjust(&options), BatchSize::SmallInput);
        });
    }
    let own = bundle(5, 1, 350);
    let options =
        Options { focal: Vector2::new(FOCAL, FOCAL), loss_px: 0.5, iterations: 0, min_gain: 0.0, turn_only: false };
    criterion.bench_function("information/window", |bench| bench.iter(|| black_box(&own).information(&options)));
}

criterion_group! {
    name = all;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2));
    targets = benches
}
criterion_main!(all);
