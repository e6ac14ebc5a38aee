//! Windows: right on textured scenes, honest where nothing can be told.

use std::array::from_fn;

use geometry::adjust::{Bundle, Observations, Options, View};
use geometry::two_view::triangulate;
use geometry::{Camera, Intrinsics, Transform, WINDOW, WindowTrajectory, World};
use nalgebra::{Matrix6, UnitQuaternion, Vector3, Vector6};
use odometry::window::{Carried, Motion, Prior, Refusal, Solved, solve};
use odometry::{Grey, Picture, tracks};

use crate::render::{Look, Scene, camera, even, looking, moved, picture};

type Poses = [Transform<World, Camera>; WINDOW];

/// Five poses from one in the room on, each turned and moved by the same step.
fn steps(turn: [f64; 3], way: [f64; 3]) -> Poses {
    let first = looking(Vector3::new(0.3, -0.1, 0.2), Vector3::new(0.0, 0.1, 4.0));
    let mut poses = [first; WINDOW];
    for k in 1..WINDOW {
        poses[k] = moved(&poses[k - 1], turn, way);
    }
    poses
}

fn shown(scene: &Scene, camera: &Intrinsics, poses: &Poses, gains: [f64; WINDOW]) -> [Picture; WINDOW] {
    from_fn(|k| {
        let look = Look { gain: gains[k], seed: k as u64, ..Look::default() };
        picture(k, camera, &scene.shown(camera, &poses[k], look))
    })
}

/// Largest error of a rotation, degrees; largest error of a direction from the anchor, degrees; largest error of a
/// position over its way, once the scale is that of the truth; and that scale.
fn errors(poses: &Poses, got: &WindowTrajectory) -> (f64, f64, f64, f64) {
    let truth = WindowTrajectory::from_world(poses);
    let pairs = || (1..WINDOW).map(|k| (truth.anchor_from_camera()[k], got.anchor_from_camera()[k]));
    let top: f64 = pairs().map(|(a, b)| a.translation().dot(&b.translation())).sum();
    let bottom: f64 = pairs().map(|(_, b)| b.translation().norm_squared()).sum();
    let scale = top / bottom.max(1e-30);
    let worst =
        |of: &dyn Fn(&Transform<_, _>, &Transform<_, _>) -> f64| pairs().map(|(a, b)| of(&a, &b)).fold(0.0, f64::max);
    (
        worst(&|a, b| a.rotation().angle_to(&b.rotation()).to_degrees()),
        worst(&|a, b| a.translation().angle(&b.translation()).to_degrees()),
        worst(&|a, b| (a.translation() - b.translation() * scale).norm() / a.translation().norm().max(1e-9)),
        scale,
    )
}

/// A motion of some centimetres and a degree: what most rows are about.
const TURN: [f64; 3] = [0.004, 0.02, 0.006];
const WAY: [f64; 3] = [0.06, -0.01, 0.05];
const EVEN: [f64; WINDOW] = [1.0; WINDOW];

struct Row {
    name: &'static str,
    scene: Scene,
    size: [u32; 2],
    turn: [f64; 3],
    way: [f64; 3],
    gains: [f64; WINDOW],
    /// Bounds: degrees of rotation and direction, and share of the way.
    bounds: [f64; 3],
}

#[test]
fn moving_cameras_are_posed() {
    fn check(row: &Row) -> String {
        let Row { name, size, bounds, .. } = row;
        let poses = steps(row.turn, row.way);
        let pictures = shown(&row.scene, &camera(size[0], size[1]), &poses, row.gains);
        let solved = match solve(&pictures, None) {
            Ok(Ok(solved)) => solved,
            other => return format!("{name}: {other:?}\n"),
        };
        let (rotation, direction, way, _) = errors(&poses, &solved.trajectory);
        println!(
            "{name}: {rotation:.4} deg, {direction:.3} deg, {way:.4} of the way, {} points, {:.3} px",
            solved.points, solved.sigma_px
        );
        let is_good = solved.motion == Motion::Moved
            && solved.carried == Carried::Tracks
            && rotation < bounds[0]
            && direction < bounds[1]
            && way < bounds[2];
        if is_good {
            String::new()
        } else {
            format!(
                "{name}: {:?}: {rotation} deg, {direction} deg, {way} of the way, {bounds:?} allowed\n",
                solved.motion
            )
        }
    }
    let row = |name, size, turn, way, bounds| Row { name, scene: Scene::room(), size, turn, way, gains: EVEN, bounds };
    let vga = [640, 480];
    let rows = [
        row("any", vga, TURN, WAY, [0.03, 0.4, 0.01]),
        row("forward", vga, [0.0, 0.0, 0.0], [0.0, 0.0, 0.08], [0.03, 0.5, 0.01]),
        row("backward, rolling", vga, [0.0, 0.0, 0.05], [0.0, 0.0, -0.08], [0.03, 0.5, 0.01]),
        row("sideways", vga, [0.0, 0.0, 0.0], [0.08, 0.0, 0.0], [0.03, 0.4, 0.01]),
        row("far steps", vga, [0.0, 0.06, 0.0], [0.25, 0.0, 0.1], [0.08, 0.3, 0.01]),
        row("5 degrees a step", vga, [0.0, 0.087, 0.0], [0.08, 0.0, 0.03], [0.05, 0.8, 0.02]),
        row("a centimetre", vga, [0.0, 0.004, 0.0], [0.01, 0.0, 0.005], [0.03, 2.5, 0.06]),
        Row { scene: Scene::plane(), ..row("plane", vga, TURN, WAY, [0.05, 1.0, 0.02]) },
        Row { gains: [1.0, 0.6, 1.3, 1.6, 0.8], ..row("exposure", vga, TURN, WAY, [0.03, 0.5, 0.015]) },
        row("160 x 120", [160, 120], TURN, WAY, [0.12, 1.5, 0.04]),
        row("320 x 240", [320, 240], TURN, WAY, [0.06, 0.8, 0.02]),
        row("1280 x 720", [1280, 720], TURN, WAY, [0.03, 0.4, 0.01]),
        row("360 x 640", [360, 640], TURN, WAY, [0.03, 0.5, 0.015]),
        row("640 x 80", [640, 80], TURN, WAY, [0.1, 2.0, 0.05]),
    ];
    let faults: String = rows.iter().map(check).collect();
    assert!(faults.is_empty(), "{faults}");
}

#[test]
fn pictures_of_a_4k_camera_are_posed() {
    let poses = steps(TURN, WAY);
    let coarse = camera(960, 540);
    let fine = coarse.rescale(3840, 2160);
    let scene = Scene::room();
    let pictures = from_fn(|k| {
        let grey = scene.shown(&coarse, &poses[k], Look { seed: k as u64, ..Look::default() });
        let pixels = (0..2160 * 3840).map(|i| grey.pixels()[(i / 3840 / 4) * 960 + i % 3840 / 4]).collect();
        picture(k, &fine, &Grey::new(3840, 2160, pixels).unwrap())
    });
    let solved = solve(&pictures, None).unwrap().unwrap();
    let (rotation, direction, way, _) = errors(&poses, &solved.trajectory);
    println!("3840 x 2160: {rotation:.4} deg, {direction:.3} deg, {way:.4} of the way");
    assert!(rotation < 0.03 && direction < 0.4 && way < 0.01, "{rotation} deg, {direction} deg, {way}");
}

#[test]
fn turning_and_standing_cameras_go_nowhere() {
    let faults =
        still("standing", [0.0; 3]) + &still("turning", [0.0, 0.02, 0.0]) + &still("rolling", [0.0, 0.0, 0.05]);
    assert!(faults.is_empty(), "{faults}");
}

#[test]
fn a_fast_turn_is_no_motion() {
    let faults: String = [0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.1]
        .iter()
        .map(|y| still(&format!("turn {y}"), [0.01, *y, 0.0]))
        .collect();
    assert!(faults.is_empty(), "{faults}");
}

/// What is wrong with the answer for a camera that turns alone by so much a step.
fn still(name: &str, turn: [f64; 3]) -> String {
    let poses = steps(turn, [0.0; 3]);
    let pictures = shown(&Scene::room(), &camera(640, 480), &poses, EVEN);
    let solved = solve(&pictures, None).unwrap().unwrap();
    let (rotation, ..) = errors(&poses, &solved.trajectory);
    let way = solved.trajectory.anchor_from_camera().iter().map(|p| p.translation().norm()).fold(0.0, f64::max);
    let sigma = (0..24).filter(|k| k % 6 >= 3).map(|k| solved.covariance[(k, k)].sqrt()).fold(0.0, f64::max);
    println!(
        "{name}: {:?}, {rotation:.4} deg, way {way}, sigma {sigma:.2e}, parallax {:.3} px, {:.3} px",
        solved.motion, solved.parallax_px, solved.sigma_px
    );
    let is_good = solved.motion == Motion::Turned && way == 0.0 && rotation < 0.02 && sigma > 1e-6 && sigma < 3e-3;
    if is_good {
        String::new()
    } else {
        format!("{name}: {:?}, {rotation} deg, way {way}, sigma {sigma}\n", solved.motion)
    }
}

/// How far off the poses are in units of what their covariance allows.
#[test]
fn covariance_is_about_that_of_the_errors() {
    for (name, scene) in [("plane", Scene::plane()), ("room", Scene::room())] {
        let median = median_nees(name, &scene);
        assert!(median > 0.2 && median < 4.0, "{name}: {median}");
    }
}

/// What the robust cost of all tracks comes to from these poses.
fn least_cost(found: &tracks::Tracks, camera: &Intrinsics, start: &WindowTrajectory) -> f64 {
    let poses = start.anchor_from_camera().map(|pose| *pose.inverse().isometry());
    let mut bundle = Bundle { observations: Observations::new(), ..Bundle::default() };
    for track in &found.points {
        let at = |(k, place): (usize, &Option<nalgebra::Point2<f32>>)| {
            let place = (*place)?.cast::<f64>();
            Some((k, nalgebra::Vector2::new((place.x - camera.cx) / camera.fx, (place.y - camera.cy) / camera.fy)))
        };
        let seen: Vec<_> = track.places.iter().enumerate().filter_map(at).collect();
        let (views, xy): (Vec<_>, Vec<_>) = seen.iter().map(|(k, xy)| (poses[*k], nalgebra::Point2::from(*xy))).unzip();
        if let Some(point) = triangulate(&views, &xy) {
            bundle.points.push(point);
            bundle.observations.push(seen);
        }
    }
    bundle.views =
        poses.iter().enumerate().map(|(k, p)| if k == 0 { View::held(*p) } else { View::free(*p) }).collect();
    let focal = nalgebra::Vector2::new(camera.fx, camera.fy);
    bundle.adjust(&Options { focal, loss_px: 0.5, iterations: 200, min_gain: 0.0, turn_only: false })
}

/// A plane has a twin in two views that more views tell apart: the window must not end at the twin.
#[test]
fn a_plane_is_not_taken_for_its_twin() {
    let (scene, camera) = (Scene::plane(), camera(640, 480));
    let mut faults = String::new();
    for seed in 0..24_u64 {
        let k = (seed % 8) as f64;
        let lift = 0.02 * (seed / 8) as f64;
        let poses =
            steps([0.004 * (k - 4.0), 0.01 + lift, 0.003 * k], [0.06 - 0.01 * k, 0.01 * (k - 3.0) + lift, 0.04]);
        let pictures: [Picture; WINDOW] = from_fn(|i| {
            picture(
                i,
                &camera,
                &scene.shown(&camera, &poses[i], Look { seed: 10 * seed + i as u64, ..Look::default() }),
            )
        });
        let solved = solve(&pictures, None).unwrap().unwrap();
        let (rotation, direction, ..) = errors(&poses, &solved.trajectory);
        if rotation > 0.1 || direction > 2.0 {
            // Is the truth the better minimum of the same tracks?
            let found = tracks::of_window(&pictures).unwrap();
            let (own, at_truth) = (
                least_cost(&found, pictures[0].intrinsics(), &solved.trajectory),
                least_cost(&found, pictures[0].intrinsics(), &WindowTrajectory::from_world(&poses)),
            );
            faults += &format!(
                "{seed}: {rotation:.3} deg, {direction:.2} deg, cost {own:.4}, from the truth {at_truth:.4} square pixels\n"
            );
        }
    }
    println!("{faults}");
    assert!(faults.is_empty(), "{faults}");
}

/// The median over eight windows of the squared Mahalanobis distance over the number of unknowns.
fn median_nees(name: &str, scene: &Scene) -> f64 {
    let camera = camera(640, 480);
    let mut ratios = Vec::new();
    for seed in 0..8_u64 {
        let k = seed as f64;
        let poses = steps([0.004 * (k - 4.0), 0.01, 0.003 * k], [0.06 - 0.01 * k, 0.01 * (k - 3.0), 0.04]);
        let pictures: [Picture; WINDOW] = from_fn(|i| {
            picture(
                i,
                &camera,
                &scene.shown(&camera, &poses[i], Look { seed: 10 * seed + i as u64, ..Look::default() }),
            )
        });
        let solved = solve(&pictures, None).unwrap().unwrap();
        let (.., scale) = errors(&poses, &solved.trajectory);
        let truth = WindowTrajectory::from_world(&poses).scaled(1.0 / scale);
        let mut error = nalgebra::DVector::zeros(24);
        for k in 1..WINDOW {
            let inverse = |t: &WindowTrajectory| *t.anchor_from_camera()[k].inverse().isometry();
            let step = geometry::adjust::step_between(&inverse(&truth), &inverse(&solved.trajectory));
            error.fixed_rows_mut::<6>(6 * (k - 1)).copy_from(&step);
        }
        let eigen = solved.covariance.clone().symmetric_eigen();
        let largest = eigen.eigenvalues.max();
        let nees: f64 = (0..24)
            .filter(|k| eigen.eigenvalues[*k] > 1e-8 * largest)
            .map(|k| eigen.eigenvectors.column(k).dot(&error).powi(2) / eigen.eigenvalues[k])
            .sum();
        let (rotation, direction, way, _) = errors(&poses, &solved.trajectory);
        println!(
            "{name} {seed}: {:?} {:.2}, {rotation:.4} deg, {direction:.3} deg, {way:.4}, {:.3} px, parallax {:.2} px",
            solved.motion,
            nees / 23.0,
            solved.sigma_px,
            solved.parallax_px
        );
        ratios.push(nees / 23.0);
    }
    ratios.sort_by(f64::total_cmp);
    println!("{name}: NEES over its degrees of freedom: {ratios:.2?}");
    ratios[ratios.len() / 2]
}

fn covariance(turn: f64, way: f64) -> [Matrix6<f64>; WINDOW - 1] {
    let (a, b) = (turn * turn, way * way);
    [Matrix6::from_diagonal(&Vector6::new(a, a, a, b, b, b)); WINDOW - 1]
}

fn flat() -> [Picture; WINDOW] {
    let camera = camera(640, 480);
    from_fn(|k| picture(k, &camera, &even(&camera, 128)))
}

#[test]
fn nothing_to_see_is_a_refusal() {
    for value in [0, 128, 255] {
        let camera = camera(640, 480);
        let pictures = from_fn(|k| picture(k, &camera, &even(&camera, value)));
        assert_eq!(solve(&pictures, None).unwrap().unwrap_err(), Refusal::FewTracks { got: 0 });
    }
    // One picture of five is black.
    let mut pictures = shown(&Scene::room(), &camera(640, 480), &steps(TURN, WAY), EVEN);
    pictures[3] = picture(3, &camera(640, 480), &even(&camera(640, 480), 0));
    match solve(&pictures, None).unwrap() {
        Err(Refusal::FewPoints { index: 3, got: 0 }) => (),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_prior_carries_where_nothing_is_seen() {
    let prior =
        Prior { trajectory: WindowTrajectory::from_world(&steps(TURN, WAY)), covariance: covariance(0.02, 0.05) };
    let solved: Solved = solve(&flat(), Some(&prior)).unwrap().unwrap();
    assert_eq!(solved.carried, Carried::Prior);
    assert_eq!(solved.trajectory, prior.trajectory);
    for k in 0..WINDOW - 1 {
        assert_eq!(solved.covariance.fixed_view::<6, 6>(6 * k, 6 * k), prior.covariance[k]);
    }
}

#[test]
fn a_right_prior_gives_the_unit() {
    let poses = steps(TURN, WAY);
    let pictures = shown(&Scene::room(), &camera(640, 480), &poses, EVEN);
    let alone = solve(&pictures, None).unwrap().unwrap();
    for (wrong_scale, sigma) in [(1.0, 0.02), (1.05, 0.02), (0.95, 0.01)] {
        // Each pose of it is off by something within its covariance.
        let mut trajectory = WindowTrajectory::from_world(&poses).scaled(wrong_scale);
        for k in 1..WINDOW {
            let sign = if k % 2 == 0 { 1.0 } else { -1.0 };
            let step = nalgebra::Isometry3::from_parts(
                Vector3::new(0.004 * sign, 0.003, 0.0).into(),
                UnitQuaternion::from_scaled_axis(Vector3::new(0.0, 0.01 * sign, 0.0)),
            );
            trajectory.later_mut()[k - 1] =
                Transform::from_isometry_unchecked(trajectory.anchor_from_camera()[k].isometry() * step);
        }
        let prior = Prior { trajectory, covariance: covariance(0.02, sigma) };
        let solved = solve(&pictures, Some(&prior)).unwrap().unwrap();
        let (rotation, direction, way, scale) = errors(&poses, &solved.trajectory);
        let (.., lone_way, _) = errors(&poses, &alone.trajectory);
        println!(
            "prior x {wrong_scale}: {rotation:.4} deg, {direction:.3} deg, {way:.4} ({lone_way:.4} alone), scale {:.4}",
            1.0 / scale
        );
        assert_eq!(solved.carried, Carried::Both);
        // The standard deviation of the scale: that of the four positions, by how far they are.
        let length: f64 = (1..WINDOW).map(|k| (0.0784 * k as f64).powi(2)).sum::<f64>().sqrt();
        assert!((1.0 / scale - wrong_scale).abs() < sigma / length, "scale {} of {wrong_scale}", 1.0 / scale);
        assert!(rotation < 0.05 && direction < 0.6, "{rotation} deg, {direction} deg");
    }
}

#[test]
fn a_wrong_prior_is_left_out() {
    let poses = steps(TURN, WAY);
    let pictures = shown(&Scene::room(), &camera(640, 480), &poses, EVEN);
    let truth = WindowTrajectory::from_world(&poses);
    let about = UnitQuaternion::from_scaled_axis(Vector3::new(0.0, 30.0_f64.to_radians(), 0.0));
    let mut direction = truth;
    let mut turned = truth;
    for k in 1..WINDOW {
        let own = *truth.anchor_from_camera()[k].isometry();
        let mut moved = own;
        moved.translation.vector = about * own.translation.vector;
        direction.later_mut()[k - 1] = Transform::from_isometry_unchecked(moved);
        let mut moved = own;
        moved.rotation = about * own.rotation;
        turned.later_mut()[k - 1] = Transform::from_isometry_unchecked(moved);
    }
    for (name, trajectory) in [("direction", direction), ("rotation", turned)] {
        let prior = Prior { trajectory, covariance: covariance(0.01, 0.005) };
        let solved = solve(&pictures, Some(&prior)).unwrap().unwrap();
        let (rotation, direction, ..) = errors(&poses, &solved.trajectory);
        println!("wrong {name}: {rotation:.4} deg, {direction:.3} deg, {:?}", solved.carried);
        assert_eq!(solved.carried, Carried::Tracks, "{name}");
        assert!(rotation < 0.05 && direction < 0.6, "{name}: {rotation} deg, {direction} deg");
    }
}

#[test]
fn the_same_pictures_give_the_same_bits() {
    let poses = steps(TURN, WAY);
    let make = || shown(&Scene::room(), &camera(320, 240), &poses, EVEN);
    assert_eq!(solve(&make(), None), solve(&make(), None));
}
