//! Requests and signals while the model is at a window, and readers that do not read.

use std::sync::atomic::Ordering;

use node::ros::call::Call;
use node::ros::lifecycle::State;
use node::ros::message::DiagnosticLevel::Warn;
use node::ros::message::Output;
use node::ros::parameters::Value;
use node::status::counters::Fate;

use crate::case::{Case, Expect, from, picture};
use crate::rig::PERIOD;

/// The model is at frames 0 to 4; what is done meanwhile ends that, and frames 10 to 14 are answered.
fn interrupted(act: impl FnOnce(&Case)) {
    let (open, case) = Case::busy();
    act(&case);
    open.send(()).unwrap();
    open.send(()).unwrap();
    case.rig.wait("begun anew", |s| s.odometry_breaks == 1 && s.frames_pending == 0);
    case.burst(10..15);
    case.rig.wait("answer", |s| s.windows_answered == 1);
    let outputs = case.end(&Expect {
        used: 5,
        dropped: &[(Fate::Forgotten, 5)],
        held: 1,
        answered: 1,
        breaks: 1,
        paths: vec![from(10)],
        ..Expect::default()
    });
    assert!(outputs.odometries[0].pose.position[2].abs() < 1e-12, "at its origin");
}

#[test]
fn a_reset_during_inference() {
    interrupted(|case| {
        case.rig.answer(Call::Reset).unwrap();
    });
}

#[test]
fn many_resets_during_inference() {
    let (open, case) = Case::busy();
    (0..50).for_each(|_| drop(case.rig.answer(Call::Reset).unwrap()));
    open.send(()).unwrap();
    let s = case.rig.wait("begun anew", |s| s.odometry_breaks == 1 && s.frames_pending == 0);
    assert_eq!((s.windows_answered, s.fate(Fate::Forgotten)), (0, 5));
    let outputs = case.end(&Expect { dropped: &[(Fate::Forgotten, 5)], breaks: 1, ..Expect::default() });
    assert!(outputs.odometries.is_empty(), "the answer of before comes to nothing");
}

#[test]
fn images_of_before_a_reset_that_wait_to_be_looked_at() {
    let (open, case) = Case::busy();
    // Three images make no window: nothing of a burst may reach the next, looked at or not.
    for first in (5..155).step_by(3) {
        case.burst(first..first + 3);
        case.rig.answer(Call::Reset).unwrap();
    }
    case.burst(160..165);
    (0..2).for_each(|_| open.send(()).unwrap());
    case.rig.wait("answer", |s| s.windows_answered == 1);
    let outputs = case.end(&Expect {
        used: 5,
        dropped: &[(Fate::Forgotten, 155)],
        held: 1,
        answered: 1,
        breaks: 1,
        paths: vec![from(160)],
        ..Expect::default()
    });
    assert!(outputs.odometries[0].pose.position[2].abs() < 1e-12, "at its origin");
}

#[test]
fn a_deactivation_during_inference() {
    interrupted(|case| {
        assert!(case.rig.change("deactivate"));
        assert!(case.rig.change("activate"));
    });
}

#[test]
fn a_shutdown_during_inference() {
    let (open, case) = Case::busy();
    let shut = case.rig.ask(|reply| Call::ChangeState { id: 0, label: "shutdown".to_owned(), reply });
    open.send(()).unwrap();
    assert!(shut.recv_timeout(crate::rig::TIMEOUT).unwrap());
    assert_eq!(case.rig.state(), State::Finalized);
    case.burst(5..8);
    case.end(&Expect {
        dropped: &[(Fate::Forgotten, 5), (Fate::Inactive, 3)],
        breaks: 1,
        message: "finalized, nothing comes out",
        ..Expect::default()
    });
}

#[test]
fn a_stop_during_inference() {
    let (open, case) = Case::busy();
    case.burst(5..7);
    case.rig.stop.store(true, Ordering::SeqCst);
    open.send(()).unwrap();
    let (finished, outputs) = case.rig.finish();
    let s = finished.unwrap();
    assert_eq!((s.frames_received, s.fate(Fate::Shutdown), s.windows_answered), (7, 7, 0));
    assert!(outputs.trajectories.is_empty() && outputs.odometries.is_empty(), "half an answer is none");
}

#[test]
fn a_parameter_out_of_bounds_while_windows_are_answered() {
    let mut case = Case::new();
    case.frames(0..5);
    let bad = [
        ("sanity.max_step_metres", Value::Double(f64::NAN)),
        ("trust.least_contrast", Value::Double(-1.0)),
        ("trust.frozen_images", Value::Text("sometimes".to_owned())),
        ("trust.lost_windows", Value::Integer(i64::MAX)),
        ("diagnostics.period_millis", Value::Text("often".to_owned())),
    ];
    for (name, value) in bad {
        let change = vec![(name.to_owned(), value)];
        let refused = case.rig.answer(|reply| Call::SetParametersAtomically(change, reply));
        assert!(refused.is_err(), "{name}");
    }
    case.frames(5..9);
    case.end(&Expect { used: 9, held: 1, answered: 2, paths: vec![from(0), from(4)], ..Expect::default() });
}

/// Messages that may wait for the transport.
const ROOM: usize = 256;

#[test]
fn a_reader_that_reads_nothing() {
    let mut case = Case::new();
    // A text, a path and four poses of each of a hundred windows. Neighbouring frames may look alike, all five may not.
    (0..401).for_each(|i| case.image(picture(i, (i / 2) as u8)));
    case.rig.wait("answers", |s| s.windows_answered == 100 && s.outputs_dropped == 601 - ROOM as u64);
    let waited: Vec<Output> = case.rig.output.try_iter().collect();
    assert_eq!(waited.len(), ROOM);
    let stamps: Vec<i64> = waited
        .iter()
        .filter_map(|output| match output {
            Output::Odometry(odometry) => Some(odometry.pose.stamp.nanos / PERIOD),
            _ => None,
        })
        .collect();
    assert_eq!(stamps, (0..stamps.len() as i64).collect::<Vec<_>>(), "what waited is whole, from the first on");
    case.end(&Expect {
        used: 401,
        held: 1,
        answered: 100,
        level: Warn,
        message: "outputs_dropped +345",
        ..Expect::default()
    });
}
