//! The stream: a pose for every frame of a film, whatever comes in between.

use std::fmt::Write;
use std::sync::LazyLock;

use geometry::metrics::{Alignment, ape_rmse};
use geometry::{Camera, Intrinsics, Odom, Transform, WINDOW, WindowTrajectory, World, umeyama};
use nalgebra::{UnitQuaternion, Vector3};
use odometry::stream::{Basis, Options, Pose, Stream};
use odometry::{Error, Grey, Picture};

use crate::render::{Look, Scene, camera, even, film, looking, moved, noise, orbit_and_walk, picture, stamp};

type Truth = Vec<Transform<World, Camera>>;

static ROOM: LazyLock<Scene> = LazyLock::new(Scene::room);
/// 120 frames: an orbit, then a walk.
static FILM: LazyLock<(Truth, Vec<Grey>)> = LazyLock::new(|| {
    let truth: Truth = (0..120).map(orbit_and_walk).collect();
    let shown = film(&ROOM, &small(), &truth);
    (truth, shown)
});

fn small() -> Intrinsics {
    camera(320, 240)
}

/// What a stream said of a film.
struct Run {
    /// As they were given.
    poses: Vec<Pose>,
    /// With those that were revised.
    odom_from_camera: Vec<Transform<Odom, Camera>>,
    stream: Stream,
}

fn run(greys: &[Grey]) -> Run {
    let mut stream = Stream::new(Options::default());
    let (mut poses, mut odom_from_camera) = (Vec::new(), Vec::new());
    for (k, grey) in greys.iter().enumerate() {
        let pose = stream.push(picture(k, &small(), grey)).unwrap();
        assert_eq!(pose.stamp, stamp(k));
        assert!(pose.covariance.iter().all(|value| value.is_finite()), "frame {k}");
        assert!(pose.covariance.symmetric_eigenvalues().min() >= 0.0, "frame {k}: {}", pose.covariance);
        odom_from_camera.push(pose.odom_from_camera);
        for revised in stream.take_revised() {
            let index = (0..=k).find(|k| stamp(*k) == revised.stamp).unwrap();
            odom_from_camera[index] = revised.value;
        }
        poses.push(pose);
    }
    Run { poses, odom_from_camera, stream }
}

/// The film, some of its frames changed.
fn changed(change: impl Fn(usize, &Grey) -> Grey) -> Vec<Grey> {
    FILM.1.iter().enumerate().map(|(k, grey)| change(k, grey)).collect()
}

fn path(poses: &[Transform<World, Camera>]) -> f64 {
    poses.windows(2).map(|pair| (pair[1].translation() - pair[0].translation()).norm()).sum()
}

/// The absolute trajectory error after a similarity, over the length of the path.
fn ate(truth: &[Transform<World, Camera>], got: &[Transform<Odom, Camera>]) -> f64 {
    ape_rmse(truth, got, Alignment::Sim3).unwrap() / path(truth)
}

/// The scale of some frames: units of the world in one of the stream.
fn scale(truth: &[Transform<World, Camera>], got: &[Transform<Odom, Camera>]) -> f64 {
    let origins = |poses: Vec<Vector3<f64>>| poses.into_iter().map(nalgebra::Point3::from).collect::<Vec<_>>();
    let from = origins(got.iter().map(Transform::translation).collect());
    let to = origins(truth.iter().map(Transform::translation).collect());
    umeyama(&from, &to).unwrap().scale
}

fn count(poses: &[Pose], basis: Basis) -> usize {
    poses.iter().filter(|pose| pose.basis == basis).count()
}

fn told(poses: &[Pose]) -> String {
    format!(
        "{} on tracks, {} on turns, {} on motions, {} keyframes, segment {}",
        count(poses, Basis::Tracks),
        count(poses, Basis::Turn),
        count(poses, Basis::Motion),
        poses.iter().filter(|pose| pose.is_keyframe).count(),
        poses.last().map_or(0, |pose| pose.segment)
    )
}

#[test]
fn a_film_is_followed() {
    let (truth, greys) = &*FILM;
    let got = run(greys);
    let (first, second) =
        (scale(&truth[..60], &got.odom_from_camera[..60]), scale(&truth[60..], &got.odom_from_camera[60..]));
    let error = ate(truth, &got.odom_from_camera);
    let live: Vec<_> = got.poses.iter().map(|pose| pose.odom_from_camera).collect();
    println!(
        "{}; ATE {:.3} %, live {:.3} %, scale {:.4}",
        told(&got.poses),
        100.0 * error,
        100.0 * ate(truth, &live),
        first / second
    );
    assert_eq!(got.poses.len(), 120);
    assert_eq!(got.poses[119].segment, 0);
    assert!(count(&got.poses[20..], Basis::Tracks) == 100, "{}", told(&got.poses));
    assert!(error < 0.01, "{error}");
    assert!((first / second - 1.0).abs() < 0.05, "{first}, {second}");
    for k in 1..120 {
        let step = |a: UnitQuaternion<f64>, b: UnitQuaternion<f64>| a.inverse() * b;
        let own = step(got.odom_from_camera[k - 1].rotation(), got.odom_from_camera[k].rotation());
        let turn = own.angle_to(&step(truth[k - 1].rotation(), truth[k].rotation())).to_degrees();
        assert!(turn < 0.15, "frame {k}: {turn} degrees");
    }
    // What is now known of the last frames.
    let stamps = std::array::from_fn(|k| stamp(100 + 4 * k));
    let window = got.stream.window(&stamps).unwrap();
    let expected = WindowTrajectory::from_world(&std::array::from_fn(|k| truth[100 + 4 * k]));
    for k in 1..WINDOW {
        let (own, expected) = (window.anchor_from_camera()[k], expected.anchor_from_camera()[k]);
        let (turn, way) =
            (own.rotation().angle_to(&expected.rotation()), own.translation().angle(&expected.translation()));
        assert!(turn.to_degrees() < 0.1 && way.to_degrees() < 1.0, "{k}: {turn}, {way}");
    }
    assert_eq!(got.stream.window(&std::array::from_fn(|k| stamp(20 + k))), None);
    assert_eq!(got.stream.window(&std::array::from_fn(|k| stamp(118 + k))), None);
}

#[test]
fn the_same_film_gives_the_same_bits() {
    let (a, b) = (run(&FILM.1[..60]), run(&FILM.1[..60]));
    assert_eq!(a.poses, b.poses);
    assert_eq!(a.odom_from_camera, b.odom_from_camera);
}

#[test]
fn stamps_that_go_back_change_nothing() {
    let expected = run(&FILM.1[..60]);
    let mut stream = Stream::new(Options::default());
    for (k, grey) in FILM.1[..60].iter().enumerate() {
        let pose = stream.push(picture(k, &small(), grey)).unwrap();
        assert_eq!(pose, expected.poses[k], "frame {k}");
        for wrong in [k, k.saturating_sub(3), 0] {
            let error = stream.push(picture(wrong, &small(), &FILM.1[90])).unwrap_err();
            let Error::Stamp { index, last_nanos, got_nanos } = error else { panic!("{error}") };
            assert_eq!((index, last_nanos, got_nanos), (k + 1, stamp(k).nanos, stamp(wrong).nanos));
        }
        // Another camera and an old stamp: the stamp alone counts.
        let other = camera(160, 120);
        assert!(stream.push(picture(k, &other, &even(&other, 3))).is_err());
    }
    assert_eq!(stream.restarts(), 0);
}

#[test]
fn another_camera_begins_anew() {
    let (truth, _) = &*FILM;
    let wide = geometry::Intrinsics { fx: 300.0, fy: 300.0, ..small() };
    let mut stream = Stream::new(Options::default());
    let (mut poses, mut got) = (Vec::new(), Vec::new());
    for k in 0..120 {
        let pose = if k < 60 {
            stream.push(picture(k, &small(), &FILM.1[k])).unwrap()
        } else {
            let grey = ROOM.shown(&wide, &truth[k], Look { seed: k as u64, ..Look::default() });
            stream.push(picture(k, &wide, &grey)).unwrap()
        };
        assert_eq!(stream.restarts(), u32::from(k >= 60), "frame {k}");
        assert_eq!(pose.segment, u32::from(k >= 60), "frame {k}");
        got.push(pose.odom_from_camera);
        for revised in stream.take_revised() {
            got[(0..=k).find(|k| stamp(*k) == revised.stamp).unwrap()] = revised.value;
        }
        poses.push(pose);
    }
    let (before, after) = (scale(&truth[..60], &got[..60]), scale(&truth[60..], &got[60..]));
    println!("{}; scale {:.3}, ATE {:.3} %", told(&poses), before / after, 100.0 * ate(&truth[60..], &got[60..]));
    assert!(ate(&truth[60..], &got[60..]) < 0.01);
    assert!((before / after).ln().abs() < 0.3, "{before}, {after}");
}

#[test]
fn a_lens_that_is_blocked_for_a_moment() {
    let (truth, _) = &*FILM;
    for (from, value) in [(45, 0), (80, 0), (80, 255)] {
        let got =
            run(&changed(|k, grey| if (from..from + 5).contains(&k) { even(&small(), value) } else { grey.clone() }));
        let error = ate(truth, &got.odom_from_camera);
        println!("{from}, {value}: {}; ATE {:.3} %", told(&got.poses), 100.0 * error);
        assert_eq!(count(&got.poses[from..from + 5], Basis::Motion), 5, "{from}");
        assert_eq!(count(&got.poses[from + 6..], Basis::Tracks), 120 - from - 6, "{from}: {}", told(&got.poses));
        assert_eq!(got.poses[119].segment, 0, "{from}");
        for pose in &got.poses[from..from + 5] {
            assert!(pose.covariance[(0, 0)] > 1e-3 && pose.covariance[(3, 3)] > 1e-3);
        }
        let seen: Vec<usize> = (0..120).filter(|k| !(from..from + 6).contains(k)).collect();
        let (truth, own): (Vec<_>, Vec<_>) = seen.iter().map(|k| (truth[*k], got.odom_from_camera[*k])).unzip();
        assert!(ate(&truth, &own) < 0.01, "{from}: {}", ate(&truth, &own));
    }
}

#[test]
fn a_lens_that_is_blocked_for_a_second() {
    let (truth, _) = &*FILM;
    let got = run(&changed(|k, grey| if (40..70).contains(&k) { even(&small(), 0) } else { grey.clone() }));
    let (before, after) =
        (scale(&truth[..40], &got.odom_from_camera[..40]), scale(&truth[72..], &got.odom_from_camera[72..]));
    let error = ate(&truth[72..], &got.odom_from_camera[72..]);
    println!("{}; scale {:.3}, ATE {:.3} %", told(&got.poses), before / after, 100.0 * error);
    assert_eq!(got.poses[39].segment, 0);
    assert!(got.poses[119].segment >= 1);
    assert!(count(&got.poses[40..70], Basis::Tracks) == 0, "{}", told(&got.poses));
    assert!(count(&got.poses[90..], Basis::Tracks) == 30, "{}", told(&got.poses));
    assert!(error < 0.015, "{error}");
    assert!((before / after).ln().abs() < 0.3, "{before}, {after}");
}

/// Sixty frames of turning on the spot by so much a frame, then sixty of walking; what is wrong with the answer.
fn turned_then_walked(turn_a_frame: f64) -> String {
    let first = looking(Vector3::new(0.2, 0.0, 0.0), Vector3::new(-2.0, 0.1, 4.0));
    let turned = |k: usize| moved(&first, [0.0, turn_a_frame * k as f64, 0.0], [0.0; 3]);
    let walked = |k: usize| {
        let along = (k - 59) as f64;
        moved(&turned(59), [0.0, -0.004 * along, 0.0], [0.02 * along, 0.1 * (0.1 * along).sin(), 0.01 * along])
    };
    let truth: Truth = (0..120).map(|k| if k < 60 { turned(k) } else { walked(k) }).collect();
    let got = run(&film(&ROOM, &small(), &truth));
    let turn = |a: usize, b: usize| {
        let own = got.odom_from_camera[a].rotation().inverse() * got.odom_from_camera[b].rotation();
        own.angle_to(&(truth[a].rotation().inverse() * truth[b].rotation())).to_degrees()
    };
    let way = got.poses[..60].iter().map(|pose| pose.odom_from_camera.translation().norm()).fold(0.0, f64::max);
    let error = ate(&truth[66..], &got.odom_from_camera[66..]);
    let (first, then) = (turn(0, 59), turn(66, 119));
    let text = format!(
        "{turn_a_frame} rad a frame: {} of them turning; {first:.3} deg, way {way:.4}; then {}; ATE {:.3} %, {then:.3} deg\n",
        told(&got.poses[..60]),
        told(&got.poses[60..]),
        100.0 * error
    );
    println!("{text}");
    let is_good = count(&got.poses[..60], Basis::Tracks) == 0
        && first < 1.0
        && way < 0.01
        && count(&got.poses[80..], Basis::Tracks) == 40
        && error < 0.01
        && then < 0.5;
    if is_good { String::new() } else { text }
}

#[test]
fn turning_on_the_spot_then_walking() {
    let faults: String = [0.001, 0.003, 0.006, 0.01, 0.03].map(turned_then_walked).concat();
    assert!(faults.is_empty(), "{faults}");
}

#[test]
#[ignore = "fault: after turning a degree a frame the walk is 1.9 degrees off (ATE 1.05 %), where 0.6 and 1.7 degrees a frame leave 0.1"]
fn turning_a_degree_a_frame_then_walking() {
    let fault = turned_then_walked(0.0174);
    assert!(fault.is_empty(), "{fault}");
}

#[test]
fn standing_still_does_not_drift() {
    let (truth, greys) = &*FILM;
    // Forty frames of walking, then a hundred of the last, each with its own noise.
    let stays: Vec<Grey> =
        (0..100).map(|k| ROOM.shown(&small(), &truth[39], Look { seed: 1000 + k, ..Look::default() })).collect();
    let greys: Vec<Grey> = greys[..40].iter().chain(&stays).cloned().collect();
    let got = run(&greys);
    let unit = scale(&truth[..40], &got.odom_from_camera[..40]);
    let depth = ROOM.median_depth(&small(), &truth[39]) / unit;
    let begin = got.odom_from_camera[40];
    let drift = got.odom_from_camera[40..]
        .iter()
        .map(|pose| (pose.translation() - begin.translation()).norm())
        .fold(0.0, f64::max);
    let turn = got.odom_from_camera[139].rotation().angle_to(&begin.rotation()).to_degrees();
    let keyframes = got.poses[40..].iter().filter(|pose| pose.is_keyframe).count();
    println!(
        "{}; drift {:.4} % of the depth, {turn:.4} deg, {keyframes} keyframes",
        told(&got.poses),
        100.0 * drift / depth
    );
    assert!(drift < 0.002 * depth, "{drift} of {depth}");
    assert!(turn < 0.05, "{turn}");
    assert!(keyframes <= 2, "{keyframes}");
    assert_eq!(count(&got.poses[40..], Basis::Tracks), 100);
}

#[test]
fn standing_still_from_the_beginning() {
    let (truth, _) = &*FILM;
    let stays: Vec<Grey> =
        (0..100).map(|k| ROOM.shown(&small(), &truth[0], Look { seed: k, ..Look::default() })).collect();
    let got = run(&stays);
    let way = got.poses.iter().map(|pose| pose.odom_from_camera.translation().norm()).fold(0.0, f64::max);
    let turn = got.poses.iter().map(|pose| pose.odom_from_camera.rotation().angle().to_degrees()).fold(0.0, f64::max);
    println!("{}; way {way:.5}, {turn:.4} deg", told(&got.poses));
    assert_eq!(count(&got.poses, Basis::Turn), 100);
    assert!(way < 0.002 && turn < 0.05, "{way}, {turn}");
    assert!(!got.poses.iter().any(|pose| pose.is_keyframe));
}

#[test]
fn exposure_may_jump() {
    let (truth, _) = &*FILM;
    let gains = [1.0, 1.5, 0.6, 1.3];
    let got = run(&changed(|k, _| {
        ROOM.shown(&small(), &truth[k], Look { gain: gains[k / 30], seed: k as u64, ..Look::default() })
    }));
    let error = ate(truth, &got.odom_from_camera);
    println!("{}; ATE {:.3} %", told(&got.poses), 100.0 * error);
    assert_eq!(got.poses[119].segment, 0);
    assert!(count(&got.poses[20..], Basis::Tracks) == 100, "{}", told(&got.poses));
    assert!(error < 0.01, "{error}");
}

#[test]
fn some_frames_are_blurred() {
    let (truth, _) = &*FILM;
    let is_blurred = |k: usize| [50, 51, 52, 53, 85, 86, 87].contains(&k);
    let blur = |k: usize| {
        // A jolt: a degree and a half, and two steps, while the shutter is open.
        let to = moved(&truth[k + 2], [0.0, 0.013, 0.0], [0.0; 3]);
        let from = moved(&truth[k - 2], [0.0, -0.013, 0.0], [0.0; 3]);
        ROOM.blurred(&small(), &from, &to, Look { seed: k as u64, ..Look::default() })
    };
    let got = run(&changed(|k, grey| if is_blurred(k) { blur(k) } else { grey.clone() }));
    let error = ate(truth, &got.odom_from_camera);
    println!("{}; ATE {:.3} %", told(&got.poses), 100.0 * error);
    assert_eq!(got.poses[119].segment, 0);
    assert!(error < 0.012, "{error}");
    assert_eq!(count(&got.poses[90..], Basis::Tracks), 30);
}

#[test]
fn noise_gives_no_confident_pose() {
    let greys: Vec<Grey> = (0..40).map(|k| noise(&small(), k)).collect();
    let got = run(&greys);
    println!("{}", told(&got.poses));
    for (k, pose) in got.poses.iter().enumerate() {
        assert_ne!(pose.basis, Basis::Tracks, "frame {k}");
        assert!(pose.covariance[(0, 0)] > 1e-4 && pose.covariance[(3, 3)] > 1e-4, "frame {k}: {}", pose.covariance);
        assert!(!pose.is_keyframe);
    }
}

#[test]
fn noise_in_a_film_is_passed_over() {
    let (truth, _) = &*FILM;
    let got = run(&changed(|k, grey| if (70..75).contains(&k) { noise(&small(), k as u64) } else { grey.clone() }));
    println!("{}", told(&got.poses));
    assert_eq!(count(&got.poses[70..75], Basis::Motion), 5);
    assert_eq!(got.poses[119].segment, 0);
    let seen: Vec<usize> = (0..120).filter(|k| !(70..76).contains(k)).collect();
    let (truth, own): (Vec<_>, Vec<_>) = seen.iter().map(|k| (truth[*k], got.odom_from_camera[*k])).unzip();
    assert!(ate(&truth, &own) < 0.01, "{}", ate(&truth, &own));
}

#[test]
fn every_third_frame_will_do() {
    let (truth, greys) = &*FILM;
    let (truth, greys): (Vec<_>, Vec<_>) = (0..120).step_by(3).map(|k| (truth[k], greys[k].clone())).unzip();
    let got = run(&greys);
    let error = ate(&truth, &got.odom_from_camera);
    println!("{}; ATE {:.3} %", told(&got.poses), 100.0 * error);
    assert!(error < 0.012, "{error}");
    assert_eq!(got.poses[39].segment, 0);
}

/// What a film of other rooms and motions must come to.
struct Row {
    name: &'static str,
    greys: Vec<Grey>,
    truth: Truth,
    /// Share of the path.
    ate: f64,
    /// Frames from the 20th on that may stand on anything but tracks.
    others: usize,
    segment: u32,
}

#[test]
fn films_of_other_kinds_are_followed() {
    fn check(row: &Row) -> String {
        let got = run(&row.greys);
        let half = row.truth.len() / 2;
        let error = ate(&row.truth, &got.odom_from_camera);
        let (first, second) = (
            scale(&row.truth[..half], &got.odom_from_camera[..half]),
            scale(&row.truth[half..], &got.odom_from_camera[half..]),
        );
        let others = got.poses[20..].iter().filter(|pose| pose.basis != Basis::Tracks).count();
        let live = got.poses.iter().map(|pose| pose.odom_from_camera.translation().norm()).fold(0.0, f64::max);
        println!(
            "{}: {}; ATE {:.3} %, scale {:.4}, unit {second:.3}, farthest {:.3}",
            row.name,
            told(&got.poses),
            100.0 * error,
            first / second,
            live * second
        );
        let is_good = error < row.ate
            && others <= row.others
            && (first / second - 1.0).abs() < 0.05
            && got.poses.iter().all(|pose| pose.segment <= row.segment);
        if is_good {
            String::new()
        } else {
            format!("{}: {}; ATE {error}, scale {}\n", row.name, told(&got.poses), first / second)
        }
    }
    let (own, base) = (small(), &FILM.0);
    let shown = |scene: &Scene, truth: &Truth| film(scene, &own, truth);
    let row = |name, greys, truth, ate, others| Row { name, greys, truth, ate, others, segment: 0 };
    // Forwards, a metre and a half, swaying as a walker does.
    let forwards: Truth = (0..100)
        .map(|k| {
            let along = k as f64;
            looking(
                Vector3::new(
                    0.9 + 0.03 * (0.35 * along).sin(),
                    -0.2 + 0.02 * (0.7 * along).sin(),
                    -2.0 + 0.025 * along,
                ),
                Vector3::new(0.9, 0.0, 6.0),
            )
        })
        .collect();
    let slow: Truth = (0..100)
        .map(|k| {
            looking(
                Vector3::new(0.003 * k as f64, -0.2 + 0.04 * (0.06 * k as f64).sin(), 0.0),
                Vector3::new(0.0, 0.1, 4.0),
            )
        })
        .collect();
    let wall: Truth = (0..80)
        .map(|k| {
            let along = k as f64;
            let eye = Vector3::new(-0.5 + 0.015 * along, 0.2 * (0.07 * along).sin(), 0.3 * (0.05 * along).cos() - 0.2);
            looking(eye, Vector3::new(0.1 * (0.1 * along).sin(), 0.0, 2.0))
        })
        .collect();
    // A jolt of 12 degrees between two frames.
    let jolt: Truth = base
        .iter()
        .enumerate()
        .map(|(k, pose)| if k < 70 { *pose } else { moved(pose, [0.0, 0.2, 0.0], [0.0; 3]) })
        .collect();
    // Somebody walks through the picture.
    let passed = (0..120)
        .map(|k| {
            let right = base[k].transform_point(&nalgebra::Point3::new(-1.6 + 0.03 * k as f64, 0.1, 1.8));
            let scene = Scene::room_with(right.coords, Vector3::new(0.35, 1.4, 0.35));
            scene.shown(&own, &base[k], Look { seed: k as u64, ..Look::default() })
        })
        .collect();
    let rows = [
        row("forwards", shown(&ROOM, &forwards), forwards, 0.01, 0),
        row("3 mm a frame", shown(&ROOM, &slow), slow, 0.02, 10),
        row("one plane", shown(&Scene::plane(), &wall), wall, 0.01, 0),
        row("a jolt", shown(&ROOM, &jolt), jolt, 0.01, 0),
        row("somebody passes", passed, base.clone(), 0.015, 0),
        row("a quarter of the light", dim(0.25, 120), base.clone(), 0.015, 0),
    ];
    let faults: String = rows.iter().map(check).collect();
    assert!(faults.is_empty(), "{faults}");
}

/// The first frames of the film in so much light.
fn dim(gain: f64, frames: usize) -> Vec<Grey> {
    let look = |k: usize| Look { gain, seed: k as u64, ..Look::default() };
    FILM.0[..frames].iter().enumerate().map(|(k, pose)| ROOM.shown(&small(), pose, look(k))).collect()
}

/// Textures of six grey levels are below the corners' threshold: the stream says so, and where it does say more it is right.
#[test]
fn darkness_is_admitted() {
    for gain in [0.05, 0.1, 0.15] {
        let got = run(&dim(gain, 40));
        println!("{gain}: {}", told(&got.poses));
        for (k, pose) in got.poses.iter().enumerate().filter(|(_, pose)| pose.basis == Basis::Motion) {
            assert!(pose.covariance[(0, 0)] > 1e-3 && pose.covariance[(3, 3)] > 1e-3, "frame {k}");
        }
        if count(&got.poses[20..], Basis::Tracks) == 20 {
            let error = ate(&FILM.0[..40], &got.odom_from_camera);
            assert!(error < 0.03, "{gain}: {error}");
        }
    }
}

#[test]
fn a_cut_is_not_one_motion() {
    // The other end of the room, from one frame to the next: no pose may claim to know the way.
    let (truth, greys) = &*FILM;
    let first = looking(Vector3::new(1.0, -0.3, 6.5), Vector3::new(-1.0, 0.1, -2.0));
    let other: Truth = (0..60)
        .map(|k| moved(&first, [0.0, 0.004 * k as f64, 0.0], [0.02 * k as f64, 0.1 * (0.1 * k as f64).sin(), 0.0]))
        .collect();
    let mut both: Vec<Grey> = greys[..50].to_vec();
    both.extend(film(&ROOM, &small(), &other));
    let got = run(&both);
    let error = ate(&other[15..], &got.odom_from_camera[65..]);
    println!("{}; ATE {:.3} %", told(&got.poses), 100.0 * error);
    assert!(ate(&truth[..50], &got.odom_from_camera[..50]) < 0.01);
    // Two strangers that know each other are a new place; until then the motion goes on.
    for pose in &got.poses[50..55] {
        assert!(pose.basis == Basis::Motion || (pose.segment == 1 && pose.basis == Basis::Turn), "{pose:?}");
    }
    assert_eq!(got.poses[109].segment, 1);
    assert_eq!(count(&got.poses[85..], Basis::Tracks), 25);
    assert!(error < 0.02, "{error}");
}

#[test]
fn stamps_of_every_size_are_taken() {
    let mut stream = Stream::new(Options::default());
    let (truth, greys) = &*FILM;
    let mut got = Vec::new();
    for (k, grey) in greys[..30].iter().enumerate() {
        // Ends of the range, and steps that differ by a thousand.
        let nanos = match k {
            0 => i64::MIN,
            29 => i64::MAX,
            k if k % 2 == 0 => k as i64 * 1_000_000_000,
            k => k as i64 * 1_000_000_000 - 999_000_000,
        };
        let picture = Picture::new(geometry::Stamp::from_nanos(nanos), &small(), grey).unwrap();
        got.push(stream.push(picture).unwrap().odom_from_camera);
    }
    let error = ate(&truth[8..30], &got[8..30]);
    println!("ATE {:.3} %", 100.0 * error);
    assert!(error < 0.02, "{error}");
}

/// Counts what a stream says of itself when it is printed: its lists, with all that is in them.
#[derive(Default)]
struct Sizes {
    bytes: usize,
    points: usize,
    keyframes: usize,
    frames: usize,
}

impl Write for Sizes {
    fn write_str(&mut self, s: &str) -> std::fmt::Result {
        self.bytes += s.len();
        self.points += usize::from(s == "Point");
        self.keyframes += usize::from(s == "Keyframe");
        self.frames += usize::from(s == "Frame");
        Ok(())
    }
}

#[test]
fn memory_is_bounded() {
    let greys = &FILM.1;
    let mut stream = Stream::new(Options::default());
    let mut sizes = Vec::new();
    for k in 0..600 {
        // There and back: 0 ... 119, 118 ... 1, 0 ...
        let place = k % 238;
        let grey = &greys[if place < 120 { place } else { 238 - place }];
        stream.push(picture(k, &small(), grey)).unwrap();
        if [150, 388, 599].contains(&k) {
            let mut own = Sizes::default();
            write!(own, "{stream:?}").unwrap();
            println!(
                "{k}: {} points, {} keyframes, {} frames, {} bytes of text",
                own.points, own.keyframes, own.frames, own.bytes
            );
            sizes.push(own);
        }
    }
    for (first, last) in [(&sizes[0], &sizes[1]), (&sizes[0], &sizes[2])] {
        assert!(last.points as f64 <= 1.25 * first.points as f64);
        assert!(last.bytes as f64 <= 1.15 * first.bytes as f64);
        assert!(last.keyframes <= 17 && last.frames <= 64);
    }
}
