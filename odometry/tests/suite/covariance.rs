//! Whether poses are as far off as their covariance says: walks of many kinds through a room, with wheels.

use geometry::{Camera, Stamp, Transform, World};
use nalgebra::{Point3, Vector3};
use odometry::fused::{Fix, Fused, Options};

use crate::render::{Scene, camera, film, looking, picture, random, stamp};

/// Of the wheels, of a step and of all steps of a walk.
const NOISE: f64 = 0.01;
const BIAS: f64 = 0.01;

/// A camera that goes somewhere and sways, looking at something; 1 to 4 cm a frame.
fn walk(seed: u64, frames: usize) -> Vec<Transform<World, Camera>> {
    let draw = |k: u64| random(seed, 77, k);
    let start = Vector3::new(2.4 * (draw(1) - 0.5), 0.8 * (draw(2) - 0.5), -2.3 + 1.5 * draw(3));
    let heading = Vector3::new(1.6 * (draw(4) - 0.5), 0.3 * (draw(5) - 0.5), 0.4 + draw(6)).normalize();
    let speed = 0.01 + 0.03 * draw(7);
    let target = Vector3::new(2.0 * (draw(8) - 0.5), 0.8 * (draw(9) - 0.5), 3.5 + 2.0 * draw(10));
    let pose = |k: usize| {
        let sway = |axis: u64, size: f64| {
            let (rate, phase) = (0.03 + 0.08 * draw(axis), std::f64::consts::TAU * draw(axis + 1));
            size * ((rate * k as f64 + phase).sin() - phase.sin())
        };
        let eye = start + heading * (speed * k as f64).min(2.2);
        let eye = eye + Vector3::new(sway(20, 0.15), sway(22, 0.06), sway(24, 0.1));
        looking(eye, target + Vector3::new(sway(26, 0.5), sway(28, 0.3), 0.0))
    };
    (0..frames).map(pose).collect()
}

fn wheels(truth: &[Transform<World, Camera>], seed: u64) -> Vec<Point3<f64>> {
    // A normal number out of two even ones (Box and Muller).
    let bias =
        BIAS * (-2.0 * random(seed, 5, 5).max(1e-9).ln()).sqrt() * (std::f64::consts::TAU * random(seed, 6, 6)).cos();
    let mut at = Point3::origin();
    let mut known = vec![at];
    for (k, pair) in truth.windows(2).enumerate() {
        let noise = NOISE * 12_f64.sqrt() * (random(seed, k as u64, 1) - 0.5);
        at += (pair[1].translation() - pair[0].translation()) * (1.0 + bias + noise);
        known.push(at);
    }
    known
}

/// Errors over their standard deviations: of positions and rotations, along each axis.
#[derive(Default)]
struct Errors([Vec<f64>; 2]);

impl Errors {
    fn add(&mut self, fix: &Fix, truth: &Transform<World, Camera>, first: &Transform<World, Camera>) {
        let (got, expected) = (fix.odom_from_camera.isometry(), first.inverse().isometry() * truth.isometry());
        let way = got.translation.vector - expected.translation.vector;
        let turn = (got.rotation * expected.rotation.inverse()).scaled_axis();
        for axis in 0..3 {
            let sigma = |k: usize| fix.covariance[(k, k)].sqrt();
            self.0[0].push(way[axis].abs() / sigma(axis));
            self.0[1].push(turn[axis].abs() / sigma(axis + 3));
        }
    }

    /// Shares within one and two standard deviations, of positions and of rotations.
    fn shares(&self) -> [[f64; 2]; 2] {
        let share = |of: &[f64], most: f64| of.iter().filter(|z| **z < most).count() as f64 / of.len().max(1) as f64;
        [0, 1].map(|k| [share(&self.0[k], 1.0), share(&self.0[k], 2.0)])
    }
}

/// Shares where the scale is told, and before it is.
fn of_walks(seeds: std::ops::Range<u64>, frames: usize) -> [[[f64; 2]; 2]; 2] {
    let lens = camera(320, 240);
    let mut errors = [Errors::default(), Errors::default()];
    for seed in seeds {
        let truth = walk(seed, frames);
        let known = wheels(&truth, seed);
        let position = |asked: Stamp| (0..frames).find(|k| stamp(*k) == asked).map(|k| known[k]);
        let mut fused = Fused::new(Options { patience_nanos: 1_000_000_000, ..Options::default() });
        for (k, grey) in film(&Scene::room(), &lens, &truth).iter().enumerate() {
            let fix = fused.push(picture(k, &lens, grey), &position).unwrap();
            let is_told = fix.scale.is_some_and(|scale| scale.sigma < 0.1);
            if k > 0 {
                errors[usize::from(!is_told)].add(&fix, &truth[k], &truth[0]);
            }
        }
    }
    errors.map(|errors| errors.shares())
}

#[test]
fn poses_are_as_far_off_as_they_say() {
    let [told, before] = of_walks(300..308, 60);
    println!("told {told:.2?}, before {before:.2?}");
    for ([one, two], name) in told.iter().chain(&before).zip(["way", "turn", "way before", "turn before"]) {
        assert!(*one > 0.6 && *two > 0.9, "{name}: {one} {two}");
    }
    // Nor much nearer.
    assert!(told[0][0] < 0.97 && before[0][0] < 0.9, "{told:?} {before:?}");
}

#[test]
#[ignore = "measures: cargo test -p odometry --test suite shares_of_many_walks -- --ignored --nocapture"]
fn shares_of_many_walks() {
    for seeds in [100..116, 300..316] {
        let [told, before] = of_walks(seeds.clone(), 90);
        println!("{seeds:?}: told {told:.2?}, before {before:.2?}");
    }
}
