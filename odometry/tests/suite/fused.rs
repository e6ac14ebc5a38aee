//! The odometry in metres: by another odometry, by the camera's height, by a model, and by none of them.

use geometry::metrics::{Alignment, ape_rmse};
use geometry::{Camera, Intrinsics, Odom, Stamp, Transform, WINDOW, WindowTrajectory, World};
use nalgebra::{Point3, UnitQuaternion, Vector3};
use odometry::agreement::{self, Agreement};
use odometry::fused::{Answer, CameraHeight, Carried, Fix, Fused, Options};
use odometry::scale::Source;
use odometry::{Grey, Picture};

use crate::render::{Scene, camera, even, film, looking, moved, orbit_and_walk, picture, random, stamp};

fn small() -> Intrinsics {
    camera(320, 240)
}

struct Film {
    truth: Vec<Transform<World, Camera>>,
    shown: Vec<Grey>,
}

fn orbit() -> Film {
    let truth: Vec<_> = (0..120).map(orbit_and_walk).collect();
    let shown = film(&Scene::room(), &small(), &truth);
    Film { truth, shown }
}

/// A robot whose camera is so high over the floor (at y = 1.5), driving a slight bend; uneven light on request.
fn drive(height: f64, is_dim: bool) -> Film {
    let pose = |k: usize| {
        let way = k as f64 * 0.03;
        let eye = Vector3::new(-1.0 + 0.02 * way * way, 1.5 - height, -2.5 + way);
        looking(eye, eye + Vector3::new(0.04 * way, 0.25, 1.0))
    };
    let truth: Vec<_> = (0..100).map(pose).collect();
    let mut shown = film(&Scene::room(), &small(), &truth);
    if is_dim {
        for (k, grey) in shown.iter_mut().enumerate() {
            *grey = uneven(grey, k);
        }
    }
    Film { truth, shown }
}

/// The picture under a light that falls off to the right and flickers.
fn uneven(grey: &Grey, k: usize) -> Grey {
    let width = grey.width();
    let flicker = 1.0 + 0.1 * (k as f64 * 0.7).sin();
    let lit = |(at, value): (usize, &u8)| {
        let x = (at % width) as f64 / width as f64;
        (f64::from(*value) * (1.0 - 0.5 * x) * flicker).clamp(0.0, 255.0) as u8
    };
    Grey::new(width, grey.height(), grey.pixels().iter().enumerate().map(lit).collect()).unwrap()
}

fn path<To>(poses: &[Transform<To, Camera>]) -> f64 {
    poses.windows(2).map(|pair| (pair[1].translation() - pair[0].translation()).norm()).sum()
}

fn run(film: &Film, options: Options, position: &dyn Fn(Stamp) -> Option<Point3<f64>>) -> (Fused, Vec<Fix>) {
    let mut fused = Fused::new(options);
    let mut fixes = Vec::new();
    for (k, grey) in film.shown.iter().enumerate() {
        let fix = fused.push(picture(k, &small(), grey), position).unwrap();
        assert!(fix.covariance.symmetric_eigenvalues().min() >= -1e-12, "frame {k}: {}", fix.covariance);
        fixes.push(fix);
    }
    (fused, fixes)
}

fn poses(fixes: &[Fix]) -> Vec<Transform<Odom, Camera>> {
    fixes.iter().map(|fix| fix.odom_from_camera).collect()
}

fn nobody(_: Stamp) -> Option<Point3<f64>> {
    None
}

/// Wheels that have each step a hundredth wrong, at random.
fn wheels(truth: &[Transform<World, Camera>], seed: u64) -> impl Fn(Stamp) -> Option<Point3<f64>> {
    let mut at = Vector3::zeros();
    let mut known = vec![at];
    for (k, pair) in truth.windows(2).enumerate() {
        at += (pair[1].translation() - pair[0].translation()) * (1.0 + 0.034 * (random(seed, k as u64, 1) - 0.5));
        known.push(at);
    }
    move |asked| (0..known.len()).find(|k| stamp(*k) == asked).map(|k| Point3::from(known[k]))
}

#[test]
fn another_odometry_gives_metres() {
    for (name, film) in [("orbit", orbit()), ("drive", drive(0.6, false))] {
        let (fused, fixes) = run(&film, Options::default(), &wheels(&film.truth, 3));
        let (got, expected) = (path(&poses(&fixes)), path(&film.truth));
        // The first frames stand where they began until the camera has moved enough.
        let first = fixes.iter().position(|fix| fix.scale.is_some()).unwrap();
        assert!(first < 25, "{name}: {first}");
        let ate = ape_rmse(&film.truth[first..], &poses(&fixes)[first..], Alignment::Se3).unwrap();
        let last = fixes.last().unwrap();
        let scale = last.scale.unwrap();
        println!("{name}: path {got:.4} of {expected:.4} m, ATE {ate:.4} m, sigma {:.4}", scale.sigma);
        assert!((got / expected - 1.0).abs() < 0.03, "{name}: path {got} of {expected}");
        assert!(ate < 0.02 * expected, "{name}: ATE {ate}");
        assert_eq!(scale.source, Some(Source::Odometry));
        assert!(scale.sigma < 0.03, "{}", scale.sigma);
        assert_eq!(fused.scale().held_off(), []);
        assert_eq!((last.carried, last.segment), (Carried::Tracks, 0));
    }
}

#[test]
fn the_height_of_the_camera_gives_metres() {
    for height in [0.3, 0.6, 1.0, 1.6] {
        for is_dim in [false, true] {
            let film = drive(height, is_dim);
            // Looking a quarter down, as the robot's model says.
            let down = nalgebra::Unit::new_normalize(Vector3::new(0.0, 1.0, 0.25));
            let options = Options { camera_height: Some(CameraHeight { metres: height, down }), ..Options::default() };
            let (_, fixes) = run(&film, options, &nobody);
            let (got, expected) = (path(&poses(&fixes)), path(&film.truth));
            let scale = fixes.last().unwrap().scale.unwrap();
            println!(
                "{height} m, dim {is_dim}: path {got:.4} of {expected:.4} m, sigma {:.4}, {:?}",
                scale.sigma, scale.source
            );
            // Steps from before there was a height are as unsure as the way that they made.
            let unsure = fixes.last().unwrap().covariance.fixed_view::<3, 3>(0, 0).trace().sqrt();
            let off = (got - expected).abs();
            assert!(off < 0.05 * expected || off < 2.0 * unsure, "{height} m: path {got} of {expected}, {unsure}");
        }
    }
}

#[test]
fn with_nothing_to_tell_it_the_scale_is_a_guess_that_says_so() {
    let film = orbit();
    let (_, fixes) = run(&film, Options::default(), &nobody);
    let scale = fixes.last().unwrap().scale.unwrap();
    assert_eq!(scale.source, None);
    assert!(scale.sigma > 0.9, "{scale:?}");
    let poses = poses(&fixes);
    let ate = ape_rmse(&film.truth, &poses, Alignment::Sim3).unwrap();
    assert!(ate < 0.02 * path(&film.truth), "up to scale it is exact: {ate}");
    // The way from the origin may be as wrong as the scale.
    let way = poses.last().unwrap().translation();
    let toward = (way.transpose() * fixes.last().unwrap().covariance.fixed_view::<3, 3>(0, 0) * way)[0].sqrt();
    assert!(toward > 0.8 * way.norm_squared(), "{toward} of {}", way.norm_squared());
}

/// The true motion between frames, turned and scaled by as much.
fn said(film: &Film, frames: [usize; WINDOW], turned: f64, factor: f64) -> WindowTrajectory {
    let poses = frames.map(|k| film.truth[k]);
    let mut window = WindowTrajectory::from_world(&poses).scaled(factor);
    let turn = UnitQuaternion::from_scaled_axis(Vector3::new(0.0, turned.to_radians(), 0.0));
    for pose in window.later_mut() {
        let mut isometry = *pose.isometry();
        isometry.translation.vector = turn * isometry.translation.vector;
        *pose = Transform::from_isometry_unchecked(isometry);
    }
    window
}

#[test]
fn answers_are_held_against_the_tracks() {
    let film = orbit();
    let frames = [40, 43, 46, 49, 52];
    let mut fused = Fused::new(Options::default());
    for k in 0..=52 {
        fused.push(picture(k, &small(), &film.shown[k]), &nobody).unwrap();
    }
    let tracked = fused.tracked(&frames.map(stamp)).unwrap();
    assert_eq!(tracked.unit, Some(0));
    let compare = |turned, factor| agreement::compare(&said(&film, frames, turned, factor), &tracked);
    let right: Agreement = compare(0.0, 1.0);
    println!("{right:?}");
    assert!(right.rotation_deg < 0.3 && right.direction_deg.unwrap() < 3.0 && right.epipolar_px.unwrap() < 0.5);
    let turned = compare(70.0, 1.0);
    assert!((turned.direction_deg.unwrap() - 70.0).abs() < 5.0, "{turned:?}");
    assert!(turned.epipolar_px.unwrap() > 4.0 * right.epipolar_px.unwrap(), "{turned:?}");
    let longer = compare(0.0, 3.0).log_scale.unwrap() - right.log_scale.unwrap();
    assert!((longer - 3.0_f64.ln()).abs() < 1e-9, "{longer}");
    // A model that stands still has no direction, and no length.
    let still = agreement::compare(&WindowTrajectory::identity(), &tracked);
    assert_eq!((still.direction_deg, still.log_scale, still.epipolar_px), (None, None, None));
    assert!(fused.tracked(&[40, 43, 46, 49, 52].map(|k| stamp(k + 60))).is_none());
}

/// The answers for windows of frames that came every fourth frame, up to `k`.
fn answer(film: &Film, fused: &Fused, k: usize, factor: f64) -> Option<Answer> {
    let first = k.checked_sub(12).filter(|first| first.is_multiple_of(4))?;
    let frames = std::array::from_fn(|i| first + 3 * i);
    let trajectory = said(film, frames, 0.0, factor);
    let agreement = fused.tracked(&frames.map(stamp)).map(|t| (agreement::compare(&trajectory, &t), t.unit));
    Some(Answer { stamps: frames.map(stamp), trajectory, stddev: (0.02, 0.01), agreement })
}

#[test]
fn a_model_gives_metres_and_carries_where_tracks_are_lost() {
    let film = orbit();
    let biases = odometry::scale::Biases([0.01, 0.01, 0.02, 0.05]);
    let mut fused = Fused::new(Options { biases, model_noise: 0.2, ..Options::default() });
    let mut fixes = Vec::new();
    for k in 0..film.shown.len() {
        let grey = if (80..95).contains(&k) { even(&small(), 90) } else { film.shown[k].clone() };
        fixes.push(fused.push(picture(k, &small(), &grey), &nobody).unwrap());
        let noise = (0.4 * (random(5, k as u64, 2) - 0.5)).exp();
        if let Some(answer) = answer(&film, &fused, k, noise) {
            fused.take(&answer);
        }
    }
    let scale = fixes.last().unwrap().scale.unwrap();
    assert_eq!((scale.source, fixes[70].carried), (Some(Source::Model), Carried::Both));
    assert!(scale.sigma < 0.3, "{scale:?}");
    let between =
        |a: usize, b: usize| (fixes[b].odom_from_camera.translation() - fixes[a].odom_from_camera.translation()).norm();
    let truth = |a: usize, b: usize| (film.truth[b].translation() - film.truth[a].translation()).norm();
    let off = (between(60, 79) / truth(60, 79)).ln().abs();
    assert!(off < 2.0 * scale.sigma, "{off} of {scale:?}");
    // Behind a lens that is blocked the model's motion goes on, and the covariance grows.
    assert!(
        (84..95).all(|k| fixes[k].carried == Carried::Model),
        "{:?}",
        fixes[84..95].iter().map(|f| f.carried).collect::<Vec<_>>()
    );
    assert!((between(79, 94) / truth(79, 94)).ln().abs() < 0.35, "{} of {}", between(79, 94), truth(79, 94));
    assert!(fixes[94].covariance[(0, 0)] > fixes[79].covariance[(0, 0)]);
    assert!(fixes[100..].iter().all(|fix| fix.carried == Carried::Both && fix.segment == 0));
}

#[test]
fn what_is_followed_keeps_its_number_and_its_place_in_the_scene() {
    let film = orbit();
    let mut fused = Fused::new(Options::default());
    let mut seen = Vec::new();
    for (k, grey) in film.shown.iter().take(32).enumerate() {
        fused.push(picture(k, &small(), grey), &nobody).unwrap();
        seen.push(fused.seen().to_vec());
    }
    let later_from_earlier = film.truth[31].inverse() * film.truth[30];
    let (rotation, way) = (later_from_earlier.rotation_matrix(), later_from_earlier.translation().normalize());
    let (mut both, mut fitting) = (0, 0);
    for (id, before) in &seen[30] {
        let Some((_, after)) = seen[31].iter().find(|(other, _)| other == id) else { continue };
        both += 1;
        // The epipolar constraint: another number's place is as a rule a tenth off.
        let error = after.to_homogeneous().dot(&way.cross(&(rotation * before.to_homogeneous())));
        fitting += usize::from(error.abs() < 0.004);
    }
    assert!(both >= 50 && both * 2 > seen[30].len(), "{both} of {}", seen[30].len());
    assert!(fitting * 10 >= both * 9, "{fitting} of {both}");
    fused.push(picture(32, &small(), &even(&small(), 90)), &nobody).unwrap();
    assert!(fused.seen().is_empty(), "a picture of nothing");
}

#[test]
fn what_contradicts_a_better_source_is_held_off_and_named() {
    let film = orbit();
    let biases = odometry::scale::Biases([0.01, 0.01, 0.02, 0.05]);
    let mut fused = Fused::new(Options { biases, model_noise: 0.1, ..Options::default() });
    let position = wheels(&film.truth, 3);
    for k in 0..film.shown.len() {
        fused.push(picture(k, &small(), &film.shown[k]), &position).unwrap();
        if let Some(answer) = answer(&film, &fused, k, 3.0) {
            fused.take(&answer);
        }
    }
    let held_off = fused.scale().held_off();
    assert_eq!(held_off.len(), 1, "{held_off:?}");
    assert!(held_off[0].0 == Source::Model && held_off[0].1.contains("odometry"), "{held_off:?}");
    assert_eq!(fused.scale().belief().unwrap().source, Some(Source::Odometry));
}

#[test]
fn a_cut_is_a_break_and_goes_on_from_where_it_was() {
    let film = orbit();
    let mut fused = Fused::new(Options::default());
    let mut last = None;
    for k in 0..60 {
        last = Some(fused.push(picture(k, &small(), &film.shown[k]), &nobody).unwrap());
    }
    fused.cut();
    let before = last.unwrap();
    // Of an earlier time, and of another camera.
    let other = camera(240, 180);
    let next = fused.push(picture(0, &other, &even(&other, 80)), &nobody).unwrap();
    assert_eq!((before.segment, next.segment), (0, 1));
    let moved = (next.odom_from_camera.translation() - before.odom_from_camera.translation()).norm();
    assert!(moved < 1e-9 && next.covariance[(0, 0)] > before.covariance[(0, 0)], "{moved}");
    fused.reset();
    let next = fused.push(picture(5, &small(), &film.shown[5]), &nobody).unwrap();
    assert_eq!((next.segment, next.odom_from_camera.translation().norm()), (2, 0.0));
}

#[test]
fn no_jump_is_taken_for_motion() {
    let film = orbit();
    let elsewhere = Scene::plane();
    let mut fused = Fused::new(Options::default());
    let mut fixes: Vec<Fix> = Vec::new();
    for k in 0..120 {
        // Cut to another place and back.
        let pose = moved(&film.truth[0], [0.0; 3], [0.01 * k as f64, 0.0, 0.0]);
        let grey = if (50..90).contains(&k) { film_of(&elsewhere, &pose, k) } else { film.shown[k].clone() };
        fixes.push(fused.push(picture(k, &small(), &grey), &nobody).unwrap());
    }
    for pair in fixes.windows(2) {
        let step = (pair[1].odom_from_camera.translation() - pair[0].odom_from_camera.translation()).norm();
        let covered = pair[0].covariance.fixed_view::<3, 3>(0, 0).trace().sqrt();
        assert!(
            pair[1].segment > pair[0].segment || step < 0.2 || step < 3.0 * covered,
            "a step of {step} at {:?}, sure to {covered}",
            pair[1].stamp
        );
    }
    assert!(fixes.last().unwrap().segment >= 1);
}

fn film_of(scene: &Scene, pose: &Transform<World, Camera>, k: usize) -> Grey {
    scene.shown(&small(), pose, crate::render::Look { seed: k as u64, ..crate::render::Look::default() })
}

#[test]
fn behind_a_clock_that_goes_back_a_way_is_kept_back_no_longer_than_at_first() {
    let film = orbit();
    let mut fused = Fused::new(Options { patience_nanos: 1_000_000_000, ..Options::default() });
    let mut ends = Vec::new();
    for earlier in [0, 100_000_000_000] {
        let mut at = Vector3::zeros();
        for (k, grey) in film.shown.iter().enumerate().take(60) {
            let stamp = Stamp::from_nanos(stamp(k).nanos - earlier);
            let fix = fused.push(Picture::new(stamp, &small(), grey).unwrap(), &nobody).unwrap();
            at = fix.odom_from_camera.translation();
        }
        ends.push(at);
        fused.cut();
    }
    assert!(ends[0].norm() > 0.1 && (ends[1] - ends[0]).norm() > 0.1, "{ends:?}");
}
