//! Windows, their stitching into one odometry, and TUM files.

use crate::common::{distance, isometry, transform, window};
use geometry::{
    Anchor, Camera, Error, Odometry, Outcome, Stamp, Stamped, Transform, WINDOW, WindowTrajectory, World, tum,
};
use nalgebra::{Isometry3, Translation3, UnitQuaternion, Vector3};
use proptest::prelude::*;

const STEP_NANOS: i64 = 33_366_700;

fn stamp(frame: usize) -> Stamp {
    Stamp::from_nanos(1_305_031_102_175_304_000 + frame as i64 * STEP_NANOS)
}

/// The exact window over these frames of a track.
fn cut(track: &[Transform<World, Camera>], frames: [usize; WINDOW]) -> ([Stamp; WINDOW], WindowTrajectory) {
    (frames.map(stamp), WindowTrajectory::from_world(&frames.map(|frame| track[frame])))
}

fn track(length: usize) -> impl Strategy<Value = Vec<Transform<World, Camera>>> {
    prop::collection::vec(transform(), length)
}

/// The largest distance of a published pose to the track seen from its first camera.
fn deviation(poses: &[Stamped<Transform<geometry::Odom, Camera>>], track: &[Transform<World, Camera>]) -> f64 {
    poses
        .iter()
        .enumerate()
        .map(|(k, pose)| {
            let truth = track[0].isometry().inv_mul(track[k].isometry());
            distance(pose.value.isometry(), &truth)
        })
        .fold(0.0, f64::max)
}

proptest! {
    #[test]
    fn exact_windows_reproduce_the_chain(track in track(40), shift in 1_usize..5) {
        let mut odometry = Odometry::new();
        let mut poses = Vec::new();
        for first in (0..=40 - WINDOW).step_by(shift) {
            let (stamps, window) = cut(&track, std::array::from_fn(|k| first + k));
            let push = odometry.push(&stamps, &window);
            prop_assert_eq!(push.reset_counter, 0);
            if let Outcome::Continued { overlap, disagreement, common } = push.outcome {
                prop_assert_eq!(overlap, WINDOW - shift);
                prop_assert_eq!(common, stamp(first + WINDOW - shift - 1));
                prop_assert_eq!(disagreement.is_none(), overlap == 1);
                if let Some(disagreement) = disagreement {
                    prop_assert!(disagreement.rotation.0 < 1e-6 && disagreement.translation < 1e-9);
                }
            } else {
                prop_assert_eq!(push.outcome, Outcome::Started);
                prop_assert_eq!(first, 0);
            }
            poses.extend(push.poses);
        }
        for (k, pose) in poses.iter().enumerate() {
            prop_assert_eq!(pose.stamp, stamp(k));
        }
        prop_assert!(poses.len() > 40 - shift);
        prop_assert!(deviation(&poses, &track) < 1e-9, "{}", deviation(&poses, &track));
    }

    #[test]
    fn windows_with_strides_and_dropped_ones_reproduce_the_chain(track in track(30)) {
        // A window over frames 0, 2, .. 8, then one that skips ahead and shares frame 8 alone.
        let mut odometry = Odometry::new();
        let mut poses = Vec::new();
        for frames in [[0, 2, 4, 6, 8], [8, 10, 12, 14, 16], [10, 14, 18, 22, 26]] {
            let (stamps, window) = cut(&track, frames);
            poses.extend(odometry.push(&stamps, &window).poses);
        }
        let frames = [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 22, 26];
        prop_assert_eq!(poses.iter().map(|pose| pose.stamp).collect::<Vec<_>>(), frames.map(stamp).to_vec());
        let truth: Vec<_> = frames.iter().map(|frame| track[*frame]).collect();
        prop_assert!(deviation(&poses, &truth) < 1e-9);
    }

    #[test]
    fn from_world_ignores_the_world(track in track(WINDOW), world in isometry()) {
        let poses: [_; WINDOW] = track.try_into().unwrap();
        let moved = poses.map(|pose| Transform::from_isometry_unchecked(world * pose.isometry()));
        let (a, b) = (WindowTrajectory::from_world(&poses), WindowTrajectory::from_world(&moved));
        for (a, b) in a.anchor_from_camera().iter().zip(b.anchor_from_camera()) {
            prop_assert!(distance(a.isometry(), b.isometry()) < 1e-12 * 100.0);
        }
        prop_assert_eq!(a.anchor_from_camera()[0], Transform::identity());
    }

    #[test]
    fn reversing_twice_changes_nothing(window in window()) {
        let back = window.reversed().reversed();
        for k in 0..WINDOW {
            prop_assert!(distance(window.anchor_from_camera()[k].isometry(), back.anchor_from_camera()[k].isometry()) < 1e-12);
        }
        // Frame k backwards is frame 4 - k forwards.
        let there = window.reversed().relative(0, 1);
        prop_assert!(distance(there.isometry(), window.relative(4, 3).isometry()) < 1e-12);
    }

    #[test]
    fn inverse_poses_make_the_same_window(window in window()) {
        let camera_from_anchor = std::array::from_fn(|k| window.anchor_from_camera()[k + 1].inverse());
        let back = WindowTrajectory::from_camera_from_anchor(&camera_from_anchor);
        for k in 0..WINDOW {
            prop_assert!(distance(window.anchor_from_camera()[k].isometry(), back.anchor_from_camera()[k].isometry()) < 1e-12);
        }
    }

    #[test]
    fn tum_text_round_trips(track in track(6), nanos in prop::array::uniform6(any::<i64>())) {
        let poses: Vec<_> = track.into_iter().zip(nanos)
            .map(|(value, nanos)| Stamped { stamp: Stamp::from_nanos(nanos), value }).collect();
        let back: Vec<Stamped<Transform<World, Camera>>> = tum::parse(&tum::format(&poses), "a.tum").unwrap();
        prop_assert_eq!(back.len(), poses.len());
        for (a, b) in poses.iter().zip(&back) {
            prop_assert_eq!(a.stamp, b.stamp);
            prop_assert_eq!(a.value.translation(), b.value.translation());
            prop_assert!(a.value.rotation().angle_to(&b.value.rotation()) < 1e-7);
        }
    }
}

#[test]
fn a_long_chain_stays_a_rotation() {
    let turn = UnitQuaternion::from_euler_angles(0.1, 0.2, 0.3);
    let step = Isometry3::from_parts(Translation3::new(0.1, 0.0, 0.2), turn);
    let mut poses = vec![Transform::<World, Camera>::identity()];
    for k in 1..3000 {
        let next = poses[k - 1] * Transform::<Camera, Camera>::from_isometry_unchecked(step);
        poses.push(next.renormalized());
    }
    let mut odometry = Odometry::new();
    for first in 0..=poses.len() - WINDOW {
        let (stamps, window) = cut(&poses, std::array::from_fn(|k| first + k));
        odometry.push(&stamps, &window);
    }
    let last = odometry.last().unwrap().value;
    let norm = last.rotation().quaternion().norm();
    assert!((norm - 1.0).abs() < 1e-14, "{norm}");
    assert!(distance(last.isometry(), poses[2999].isometry()) < 1e-9);
}

fn straight(speed: f64) -> WindowTrajectory {
    WindowTrajectory::new(std::array::from_fn(|k| {
        Transform::from_isometry_unchecked(Isometry3::translation(0.0, 0.0, speed * k as f64))
    }))
    .unwrap()
}

#[test]
fn a_window_without_overlap_starts_a_segment_at_the_last_pose() {
    let mut odometry = Odometry::new();
    odometry.push(&[0, 1, 2, 3, 4].map(stamp), &straight(1.0));
    let push = odometry.push(&[10, 11, 12, 13, 14].map(stamp), &straight(0.5));
    assert_eq!(push.outcome, Outcome::NewSegment { gap_nanos: 6 * STEP_NANOS });
    assert_eq!(push.reset_counter, 1);
    let z: Vec<f64> = push.poses.iter().map(|pose| pose.value.translation().z).collect();
    assert_eq!(z, [4.0, 4.5, 5.0, 5.5, 6.0]);
    // Interleaved: the latest frame that is not after the last pose is put at it.
    let push = odometry.push(
        &[stamp(11), stamp(12), stamp(13), stamp(14), stamp(15)].map(|s| Stamp::from_nanos(s.nanos - 7)),
        &straight(1.0),
    );
    assert!(matches!(push.outcome, Outcome::NewSegment { gap_nanos } if gap_nanos < 0));
    assert_eq!(push.reset_counter, 2);
    let z: Vec<f64> = push.poses.iter().map(|pose| pose.value.translation().z).collect();
    assert_eq!(z, [7.0]);
}

#[test]
fn stamps_that_go_back_are_reported_and_change_nothing() {
    let mut odometry = Odometry::new();
    odometry.push(&[3, 4, 5, 6, 7].map(stamp), &straight(1.0));
    let before = *odometry.last().unwrap();
    for frames in [[3, 4, 5, 6, 7], [0, 1, 2, 3, 4]] {
        let push = odometry.push(&frames.map(stamp), &straight(2.0));
        assert_eq!(push.poses, []);
        assert_eq!(push.outcome, Outcome::StampsWentBack { last: stamp(7), got: stamp(frames[4]) });
    }
    for (frames, index) in [([8, 9, 9, 10, 11], 2), ([8, 9, 10, 12, 11], 4)] {
        let push = odometry.push(&frames.map(stamp), &straight(2.0));
        assert_eq!(push.poses, []);
        assert_eq!(push.outcome, Outcome::StampsNotIncreasing { index });
    }
    let mut bad = straight(1.0);
    bad.later_mut()[1] = Transform::from_isometry_unchecked(Isometry3::translation(f64::NAN, 0.0, 0.0));
    let push = odometry.push(&[7, 8, 9, 10, 11].map(stamp), &bad);
    assert_eq!((push.poses.len(), push.outcome), (0, Outcome::NotFinite { index: 2 }));
    assert_eq!(*odometry.last().unwrap(), before);
    assert_eq!(odometry.reset_counter(), 0);
}

#[test]
fn disagreement_is_measured() {
    let mut odometry = Odometry::new();
    odometry.push(&[0, 1, 2, 3, 4].map(stamp), &straight(1.0));
    let push = odometry.push(&[1, 2, 3, 4, 5].map(stamp), &straight(1.5));
    let Outcome::Continued { disagreement: Some(disagreement), overlap: 4, .. } = push.outcome else {
        panic!("{:?}", push.outcome);
    };
    // Frame 1 is three steps before the common frame 4: 3.0 in one window, 4.5 in the other.
    assert!((disagreement.translation - 1.5).abs() < 1e-12);
    assert!((disagreement.span - 4.5).abs() < 1e-12);
    assert!((push.poses[0].value.translation().z - 5.5).abs() < 1e-12);
}

#[test]
fn a_segment_that_is_asked_for_starts_at_the_last_pose_although_frames_are_shared() {
    let mut odometry = Odometry::new();
    odometry.start_segment();
    let push = odometry.push(&[0, 1, 2, 3, 4].map(stamp), &straight(1.0));
    assert_eq!((push.outcome, push.reset_counter), (Outcome::Started, 0), "nothing to break off from");
    odometry.start_segment();
    // A window that is refused starts nothing.
    assert_eq!(odometry.push(&[0, 1, 2, 3, 4].map(stamp), &straight(1.0)).reset_counter, 0);
    let push = odometry.push(&[2, 3, 4, 5, 6].map(stamp), &straight(2.0));
    assert_eq!((push.outcome, push.reset_counter), (Outcome::NewSegment { gap_nanos: -2 * STEP_NANOS }, 1));
    let z: Vec<f64> = push.poses.iter().map(|pose| pose.value.translation().z).collect();
    assert_eq!(z, [6.0, 8.0], "frame 4 is put at the last pose");
    // Frame 3 of the segment before, one unit behind frame 4, is no opinion any more.
    let push = odometry.push(&[3, 4, 5, 6, 7].map(stamp), &straight(2.0));
    let Outcome::Continued { disagreement: Some(disagreement), overlap: 3, .. } = push.outcome else {
        panic!("{:?}", push.outcome);
    };
    assert_eq!(push.reset_counter, 1);
    assert!(disagreement.translation < 1e-12, "{disagreement:?}");
}

#[test]
fn reset_starts_again_at_the_origin() {
    let mut odometry = Odometry::new();
    odometry.push(&[3, 4, 5, 6, 7].map(stamp), &straight(1.0));
    odometry.reset();
    let push = odometry.push(&[0, 1, 2, 3, 4].map(stamp), &straight(1.0));
    assert_eq!((push.outcome, push.reset_counter, push.poses.len()), (Outcome::Started, 1, 5));
    assert_eq!(push.poses[0].value, Transform::identity());
}

#[test]
fn a_window_starts_with_the_identity() {
    let near = |offset: f64| {
        let mut poses = *straight(1.0).anchor_from_camera();
        poses[0] = Transform::from_isometry_unchecked(Isometry3::translation(offset, 0.0, 0.0));
        WindowTrajectory::new(poses)
    };
    assert_eq!(near(1e-7).unwrap(), straight(1.0));
    assert!(matches!(near(1e-5), Err(Error::NotAnchored { got, .. }) if got == 1e-5));
    assert!(matches!(near(f64::NAN), Err(Error::NotFinite { .. })));
    let turned: Transform<Anchor, Camera> =
        Transform::from_isometry_unchecked(Isometry3::rotation(Vector3::x() * 1e-5));
    let mut poses = *straight(1.0).anchor_from_camera();
    poses[0] = turned;
    assert!(matches!(WindowTrajectory::new(poses), Err(Error::NotAnchored { .. })));
}

#[test]
fn tum_stamps_are_read_as_decimals() {
    for (word, nanos) in [
        ("1305031102.175304", 1_305_031_102_175_304_000),
        ("1305031102.1753040004", 1_305_031_102_175_304_000),
        ("1305031102.1753040005", 1_305_031_102_175_304_001),
        ("1.305031102175303936e+09", 1_305_031_102_175_303_936),
        ("0", 0),
        ("-0.5", -500_000_000),
        ("3", 3_000_000_000),
        (".25", 250_000_000),
        ("+1e-9", 1),
        ("5e-10", 1),
        ("4e-10", 0),
        ("1e-300", 0),
        ("12E1", 120_000_000_000),
        ("0e99999", 0),
    ] {
        let text = format!("{word} 0 0 0 0 0 0 1");
        let poses: Vec<Stamped<Transform<World, Camera>>> = tum::parse(&text, "a.tum").unwrap();
        assert_eq!(poses[0].stamp.nanos, nanos, "{word}");
    }
}

#[test]
fn tum_errors_name_file_and_line() {
    for (line, expected) in [
        ("1 0 0 0 0 0 0", "a.tum:3: expected 8 numbers: timestamp tx ty tz qx qy qz qw, got 7 words"),
        ("1 0 0 0 0 0 0 1 9", "a.tum:3: expected 8 numbers: timestamp tx ty tz qx qy qz qw, got 9 words"),
        ("x 0 0 0 0 0 0 1", "a.tum:3: expected a timestamp in seconds, got x"),
        (". 0 0 0 0 0 0 1", "a.tum:3: expected a timestamp in seconds, got ."),
        ("nan 0 0 0 0 0 0 1", "a.tum:3: expected a timestamp in seconds, got nan"),
        ("1e20 0 0 0 0 0 0 1", "a.tum:3: expected a timestamp in seconds, got 1e20"),
        ("1e999999999 0 0 0 0 0 0 1", "a.tum:3: expected a timestamp in seconds, got 1e999999999"),
        ("1 0 0 z 0 0 0 1", "a.tum:3: expected a number, got z"),
        ("1 0 0 nan 0 0 0 1", "a.tum:3: expected a pose, got translation: expected finite numbers, got NaN"),
        ("1 0 0 0 0 0 0 0", "a.tum:3: expected a pose, got quaternion: expected a norm within 0.01 of 1, got 0"),
    ] {
        let text = format!("# stamps\n0 0 0 0 0 0 0 1 # a comment\n{line}\n");
        let error = tum::parse::<World, Camera>(&text, "a.tum").unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn tum_files_are_written_and_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tum");
    let error = tum::read::<World, Camera>(&path).unwrap_err();
    assert!(matches!(&error, Error::Io { action: "read", path: got, .. } if *got == path), "{error}");
    let poses = [Stamped { stamp: stamp(3), value: Transform::<World, Camera>::identity() }];
    tum::write(&path, &poses).unwrap();
    assert_eq!(tum::read::<World, Camera>(&path).unwrap(), poses);
    assert!(matches!(tum::write(folder.path(), &poses), Err(Error::Io { action: "write", .. })));
}
