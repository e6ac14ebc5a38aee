//! An odometry that is to give the scale and is late, silent or broken.

use geometry::Stamp;
use node::config::ScaleRules;
use node::pipeline::Settings;
use node::ros::message::DiagnosticLevel::Warn;
use node::ros::message::{Input, OdometryMessage, StampedPose};
use node::status::counters::Fate;
use node::trust::state::Status;

use crate::case::{Case, Expect, from, settings};
use crate::rig::{Behaviour, PERIOD, grey, parsed};

/// Weights whose metre the wheels are to say; a second without a usable answer is LOST.
fn unscaled() -> Settings {
    let mut settings = settings();
    settings.scale = ScaleRules::Measured { least_motion_metres: 0.05, windows: 5 };
    settings.live.trust.status.lost_after = std::time::Duration::from_secs(1);
    settings
}

/// Where the wheels say that the robot is at so many periods, along their x.
fn wheels(at: i64, metres: f64) -> Input {
    let stamp = Stamp::from_nanos(at * PERIOD);
    let pose = StampedPose { stamp, position: [metres, 0.0, 0.0], orientation_xyzw: [0.0, 0.0, 0.0, 1.0] };
    let (frame_id, child_frame_id) = ("wheels".to_owned(), "base_link".to_owned());
    Input::Odometry(OdometryMessage { frame_id, child_frame_id, pose, pose_covariance: [0.0; 36] })
}

/// A node that can see and waits for the wheels.
fn waiting() -> Expect {
    Expect {
        held: 1,
        status: Status::Degraded,
        reason: "waiting for the scale from /wheels: 0 of 3 windows measured",
        level: Warn,
        message: "DEGRADED: waiting for the scale from /wheels: 0 of 3 windows measured",
        ..Expect::default()
    }
}

#[test]
fn a_scale_that_never_comes() {
    let mut case = Case::with(unscaled(), Box::new(|_| parsed()));
    case.frames(0..41);
    case.end(&Expect { used: 41, answered: 10, unscaled: 10, ..waiting() });
}

#[test]
fn a_scale_that_never_comes_to_a_camera_that_is_black_now_and_then() {
    let mut case = Case::with(unscaled(), Box::new(|_| parsed()));
    // The first window and the last are black: between them the node has seen for four seconds.
    (0..5).for_each(|i| case.image(grey(i * PERIOD, 0)));
    case.frames(5..41);
    (41..45).for_each(|i| case.image(grey(i * PERIOD, 0)));
    // Of the black ones the first of each window alone is looked at; frame 4, which the second window shares, is one.
    case.end(&Expect {
        used: 33,
        dropped: &[(Fate::Blank, 3), (Fate::BrokenWindow, 9)],
        answered: 8,
        broken: 3,
        unscaled: 8,
        ..waiting()
    });
}

#[test]
fn answers_that_fail_while_the_scale_is_waited_for() {
    let behaviour: Behaviour = Box::new(|n| {
        let mut estimate = parsed()?;
        if n % 2 == 1 {
            estimate.trajectory = Err("no block".to_owned());
        }
        Ok(estimate)
    });
    let mut case = Case::with(unscaled(), behaviour);
    case.frames(0..33);
    let outputs = case.end(&Expect {
        used: 33,
        answered: 8,
        unparsed: 4,
        unscaled: 4,
        reason: "bad windows of the last 8, the last: no block; waiting for the scale from /wheels: 0 of 3",
        message: "DEGRADED: 4 bad windows of the last 8, the last: no block; waiting for the scale from /wheels",
        ..waiting()
    });
    assert!(outputs.odometries.is_empty());
}

#[test]
fn a_scale_that_comes_late() {
    let mut case = Case::with(unscaled(), Box::new(|_| parsed()));
    case.frames(0..21);
    for i in 21..37 {
        (case.rig.input)(wheels(i, 0.1 * i as f64));
        case.frames(i..i + 1);
    }
    // The third window that is measured is the first that comes out.
    case.end(&Expect {
        used: 37,
        held: 1,
        answered: 9,
        unscaled: 7,
        message: "9 windows answered",
        paths: vec![from(28), from(32)],
        ..Expect::default()
    });
}

#[test]
fn wheels_that_stand_still_while_the_camera_moves() {
    let mut case = Case::with(unscaled(), Box::new(|_| parsed()));
    for i in 0..13 {
        (case.rig.input)(wheels(i, 0.0));
        case.frames(i..i + 1);
    }
    case.end(&Expect {
        used: 13,
        answered: 3,
        unscaled: 3,
        reason: "0 of 3 windows measured, the last: expected a motion of 0.05 m at least, the odometry has 0.000",
        ..waiting()
    });
}
