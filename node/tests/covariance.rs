//! Whether the odometry of real films is as far off as its covariance says, and how long its frames take.

use std::path::Path;
use std::time::Instant;

use camera::sequence::Sequence;
use geometry::Stamp;
use nalgebra::{Point3, Vector3};
use odometry::fused::{Fix, Fused, Options};
use odometry::{Grey, Picture};

fn film(path: &str) -> (Sequence, Vec<Grey>) {
    let film = Sequence::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("the film");
    let grey = |path: &std::path::PathBuf| {
        let image = image::open(path).expect("a frame").to_rgb8();
        Grey::from_rgb(image.width() as usize, image.height() as usize, image.as_raw()).expect("grey")
    };
    let greys = film.frames.iter().map(grey).collect();
    (film, greys)
}

/// Fixes of a film with wheels of 1 % noise a step.
fn on_wheels(film: &Sequence, greys: &[Grey]) -> Vec<Fix> {
    let poses = film.world_from_camera.as_ref().expect("poses");
    let (mut at, mut random) = (Vector3::zeros(), 7_u64);
    let mut wheels = vec![Point3::origin()];
    for pair in poses.windows(2) {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Uniform, with a standard deviation of a hundredth.
        let noise = 1.0 + 0.034_64 * ((random >> 11) as f64 / (1_u64 << 53) as f64 - 0.5);
        at += (pair[1].translation() - pair[0].translation()) * noise;
        wheels.push(Point3::from(at));
    }
    let position = |asked: Stamp| film.stamps.iter().position(|stamp| *stamp == asked).map(|k| wheels[k]);
    let mut fused = Fused::new(Options { patience_nanos: 1_000_000_000, ..Options::default() });
    let each = film.stamps.iter().zip(greys);
    each.map(|(stamp, grey)| {
        let picture = Picture::new(*stamp, &film.intrinsics, grey).expect("a picture");
        fused.push(picture, &position).expect("a fix")
    })
    .collect()
}

/// Shares of the errors within one and two standard deviations, of positions and of rotations along each axis, where a source
/// tells the scale.
fn shares(film: &Sequence, fixes: &[Fix]) -> [[f64; 2]; 2] {
    let poses = film.world_from_camera.as_ref().expect("poses");
    let mut errors = [Vec::new(), Vec::new()];
    for (fix, pose) in fixes.iter().zip(poses).skip(1) {
        if fix.scale.is_none_or(|scale| scale.source.is_none()) {
            continue;
        }
        let (got, expected) = (fix.odom_from_camera.isometry(), poses[0].inverse().isometry() * pose.isometry());
        let way = got.translation.vector - expected.translation.vector;
        let turn = (got.rotation * expected.rotation.inverse()).scaled_axis();
        for axis in 0..3 {
            errors[0].push(way[axis].abs() / fix.covariance[(axis, axis)].sqrt());
            errors[1].push(turn[axis].abs() / fix.covariance[(axis + 3, axis + 3)].sqrt());
        }
    }
    let share = |of: &[f64], most: f64| of.iter().filter(|z| **z < most).count() as f64 / of.len().max(1) as f64;
    errors.map(|of| [share(&of, 1.0), share(&of, 2.0)])
}

#[test]
#[ignore = "needs ../shared/data"]
fn shared_films_are_as_far_off_as_they_say() {
    let named = ["amazon_box", "aruco_plane", "redkitchen_depth", "redkitchen_wide"];
    let desk = ["mydesk_a", "mydesk_b", "mydesk_c", "mydesk_d"];
    for name in named.into_iter().chain(desk) {
        let (film, greys) = film(&format!("../../shared/data/real/{name}"));
        let [way, turn] = shares(&film, &on_wheels(&film, &greys));
        println!("{name}: positions {way:.2?}, rotations {turn:.2?}");
        // The poses of the others are coarser than what they would judge.
        assert!(!desk.contains(&name) || (way[0] > 0.5 && way[1] > 0.85), "{name}: {way:?}");
    }
}

#[test]
#[ignore = "measures the time"]
fn the_longest_frames() {
    let (film, greys) = film("../tests/data/amazon_box");
    let mut fused = Fused::new(Options::default());
    let mut took: Vec<(f64, usize)> = Vec::new();
    // There and back, at 30 Hz.
    for i in 0..600 {
        let (round, last) = (i % (2 * greys.len() - 2), greys.len() - 1);
        let frame = if round <= last { round } else { 2 * last - round };
        let stamp = Stamp::from_nanos(i as i64 * 33_333_333);
        let picture = Picture::new(stamp, &film.intrinsics, &greys[frame]).expect("a picture");
        let begun = Instant::now();
        fused.push(picture, &|_| None).expect("a fix");
        took.push((begun.elapsed().as_secs_f64() * 1e3, i));
    }
    took.sort_by(|a, b| b.0.total_cmp(&a.0));
    println!("median {:.1} ms; the longest (ms, frame): {:.1?}", took[took.len() / 2].0, &took[..5]);
}
