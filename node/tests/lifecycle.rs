//! The lifecycle, the parameters and the reset of a running pipeline, without a transport.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam::channel::bounded;
use geometry::Transform;
use nalgebra::{Isometry3, UnitQuaternion, Vector3};
use node::config::Mount;
use node::config::keys::TABLE;
use node::pipeline::Settings;
use node::ros::call::Call;
use node::ros::lifecycle::State::{self, Activating, Active, CleaningUp, Configuring, Deactivating, ErrorProcessing};
use node::ros::lifecycle::State::{Finalized, Inactive, ShuttingDown, Unconfigured};
use node::ros::message::{DiagnosticLevel, Output};
use node::ros::parameters::Value;
use node::solve::estimator::{Error, Estimate};
use node::status::counters::Fate;

#[expect(dead_code, reason = "the tests of the pipeline use the rest")]
mod rig;
use rig::{
    Before, Behaviour, K, Outputs, PERIOD, Rig, TIMEOUT, camera_info, gate, parsed, ready, rig, settings, start,
};

fn managed(hop: u32) -> Settings {
    Settings { autostart: false, ..settings(1, hop) }
}

/// A managed node with good intrinsics and a model that always answers.
fn managed_rig(hop: u32) -> Rig {
    let rig = start(managed(hop), None, Box::new(|_| parsed()), Box::new(|| Ok(())));
    (rig.input)(camera_info(K, 8));
    rig
}

fn set(rig: &Rig, name: &str, value: Value) -> Result<(), String> {
    let changes = vec![(name.to_owned(), value)];
    let mut results = rig.answer(|reply| Call::SetParameters(changes, reply));
    assert_eq!(results.len(), 1);
    results.remove(0)
}

#[test]
fn a_node_that_starts_by_itself_goes_the_whole_way_and_says_so() {
    let rig = start(settings(1, 5), None, Box::new(|_| parsed()), Box::new(|| Ok(())));
    (rig.input)(camera_info(K, 8));
    rig.wait("active", |s| s.lifecycle == Active);
    assert_eq!(rig.state(), Active);
    rig.send(0..5);
    rig.wait("answer", |s| s.windows_answered == 1);
    let (finished, outputs) = rig.finish();
    finished.unwrap();
    let expected = [(Unconfigured, Configuring), (Configuring, Inactive), (Inactive, Activating), (Activating, Active)];
    assert_eq!(outputs.transitions, expected);
    assert_eq!(outputs.reasonings, ["poses"]);
    // Each report is told twice, once in short.
    assert_eq!(outputs.statuses.len(), outputs.diagnostics.len());
    assert!(outputs.statuses.iter().any(|s| s.values.contains(&("lifecycle".to_owned(), "active".to_owned()))));
}

#[test]
fn a_managed_node_answers_while_it_is_active_and_only_then() {
    let rig = managed_rig(5);
    assert_eq!(rig.state(), Unconfigured);
    rig.send(0..5);
    rig.wait("dropped", |s| s.fate(Fate::Inactive) == 5);
    assert!(!rig.change("activate"), "there is nothing to activate");
    assert!(rig.change("configure"));
    assert_eq!(rig.state(), Inactive);
    assert!(!rig.change("configure"));
    rig.send(5..10);
    rig.wait("dropped", |s| s.fate(Fate::Inactive) == 10);
    assert!(rig.change("activate"));
    rig.send(10..17);
    rig.wait("answer", |s| s.windows_answered == 1);
    assert!(rig.change("deactivate"));
    rig.wait("dropped", |s| s.frames_pending == 0 && s.odometry_breaks == 1);
    rig.send(17..20);
    let s = rig.wait("dropped", |s| s.frames_received == 20 && s.frames_pending == 0);
    assert_eq!((s.fate(Fate::Inactive) + s.fate(Fate::Forgotten), s.frames_used()), (15, 5));
    assert!(rig.change("activate"));
    rig.send(20..25);
    rig.wait("answer", |s| s.windows_answered == 2);
    assert!(!rig.change("cleanup"), "not from active");
    for label in ["deactivate", "cleanup", "configure", "shutdown"] {
        assert!(rig.change(label), "{label}");
    }
    assert_eq!(rig.state(), Finalized);
    for label in ["configure", "activate", "shutdown"] {
        assert!(!rig.change(label), "{label}");
    }
    let (finished, outputs) = rig.finish();
    assert_eq!(finished.unwrap().odometry_breaks, 2);
    let starts: Vec<i64> = outputs.trajectories.iter().map(|t| t.stamp.nanos / PERIOD).collect();
    assert_eq!(starts, [10, 20]);
    let origins: Vec<f64> = outputs.odometries.iter().step_by(5).map(|o| o.pose.position[2]).collect();
    assert!(origins.len() == 2 && origins.iter().all(|z| z.abs() < 1e-12), "each activation starts at the origin");
    let way: Vec<State> = outputs.transitions.iter().map(|(_, goal)| *goal).collect();
    let expected = [
        [Configuring, Inactive, Activating, Active],
        [Deactivating, Inactive, Activating, Active],
        [Deactivating, Inactive, CleaningUp, Unconfigured],
        [Configuring, Inactive, ShuttingDown, Finalized],
    ];
    assert_eq!(way, expected.concat());
}

#[test]
fn what_takes_long_holds_no_request_up() {
    let (open, closed) = bounded::<()>(0);
    let before: Before = Box::new(move || {
        let _ = closed.recv();
        Ok(())
    });
    let rig = start(managed(5), None, Box::new(|_| parsed()), before);
    let configured = rig.ask(|reply| Call::ChangeState { id: 1, label: String::new(), reply });
    assert_eq!(rig.state(), Configuring);
    assert!(!rig.change("configure"), "one transition at a time");
    assert!(!rig.change("shutdown"));
    assert!(rig.answer(Call::Reset).is_err_and(|reason| reason.contains("configuring")));
    let names = vec!["window.stride".to_owned(), "no.such".to_owned()];
    assert_eq!(rig.answer(|reply| Call::GetParameters(names, reply)), [Value::Integer(1), Value::Unset]);
    assert_eq!(rig.answer(Call::GetAvailableStates).len(), 10);
    assert_eq!(rig.answer(Call::GetTransitionGraph).len(), 25);
    assert!(configured.is_empty(), "the answer waits for the model");
    open.send(()).unwrap();
    assert!(configured.recv_timeout(TIMEOUT).unwrap());
    let labels: Vec<&str> = rig.answer(Call::GetAvailableTransitions).iter().map(|edge| edge.label).collect();
    assert_eq!(labels, ["cleanup", "activate", "shutdown"]);
    assert!(rig.finish().0.is_ok());
}

#[test]
fn a_model_that_does_not_load_leaves_a_managed_node_unconfigured_and_can_be_tried_again() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&attempts);
    let before: Before = Box::new(move || match counter.fetch_add(1, Ordering::SeqCst) {
        0 => Err(Error::Other("no such file".to_owned())),
        _ => Ok(()),
    });
    let rig = start(managed(5), None, Box::new(|_| parsed()), before);
    (rig.input)(camera_info(K, 8));
    assert!(!rig.change("configure"));
    assert_eq!(rig.state(), Unconfigured);
    let (message, values) = rig.report(DiagnosticLevel::Error);
    assert!(message.starts_with("unconfigured") && message.contains("no such file"), "{message}");
    assert_eq!(values["lifecycle"], "unconfigured");
    assert!(rig.change("configure") && rig.change("activate"));
    rig.send(0..5);
    rig.wait("answer", |s| s.windows_answered == 1);
    assert!(rig.finish().0.is_ok());
    assert_eq!(attempts.load(Ordering::SeqCst), 2);
}

#[test]
fn a_model_that_does_not_load_ends_a_node_that_starts_by_itself() {
    let before: Before = Box::new(|| Err(Error::Other("no such file".to_owned())));
    let rig = start(settings(1, 5), None, Box::new(|_| parsed()), before);
    let outputs = rig::Outputs::collect(&rig.output);
    assert_eq!(outputs.transitions.last(), Some(&(Configuring, Unconfigured)));
    let failure = rig.finish().0.unwrap_err().to_string();
    assert!(failure.contains("inference") && failure.contains("no such file"), "{failure}");
}

#[test]
fn a_model_that_fails_while_active_is_given_up_and_a_managed_node_lives_on() {
    let behaviour: Behaviour = Box::new(|n| match n {
        1 => Err(Error::Other("out of memory".to_owned())),
        _ => parsed(),
    });
    let rig = start(managed(5), None, behaviour, Box::new(|| Ok(())));
    (rig.input)(camera_info(K, 8));
    assert!(rig.change("configure") && rig.change("activate"));
    rig.send(0..5);
    rig.wait("answer", |s| s.windows_answered == 1);
    rig.send(5..10);
    let failed = [(Active, Deactivating), (Deactivating, ErrorProcessing), (ErrorProcessing, Unconfigured)];
    let is_told = |(level, message, _): &(DiagnosticLevel, String, _)| {
        *level == DiagnosticLevel::Error && message.contains("out of memory")
    };
    let outputs = Outputs::until(&rig.output, |outputs| {
        outputs.transitions.ends_with(&failed) && outputs.diagnostics.last().is_some_and(is_told)
    });
    assert_eq!(outputs.trajectories.len(), 1);
    rig.wait("given up", |s| s.lifecycle == Unconfigured && s.frames_pending == 0);
    assert!(!rig.change("activate"));
    assert!(rig.change("configure") && rig.change("activate"));
    rig.send(10..15);
    rig.wait("answer", |s| s.windows_answered == 2);
    let (finished, outputs) = rig.finish();
    assert_eq!(finished.unwrap().odometry_breaks, 1, "what was counted is counted on");
    assert_eq!(outputs.trajectories.len(), 1);
}

/// Does `act` while the model is at its first window, lets the model go on, and has it answer for frames 10 to 14.
fn interrupted(act: impl FnOnce(&Rig)) -> Outputs {
    let (open, gate) = gate();
    let rig = ready(1, 5, gate);
    rig.send(0..5);
    rig.wait("busy", |s| s.encode_cache_misses == 5);
    act(&rig);
    open.send(()).unwrap();
    open.send(()).unwrap();
    rig.wait("break", |s| s.odometry_breaks == 1);
    rig.send(10..15);
    rig.wait("answer", |s| s.windows_answered == 1 && s.frames_pending == 0);
    let (finished, outputs) = rig.finish();
    let s = finished.unwrap();
    assert_eq!((s.odometry_breaks, s.fate(Fate::Forgotten), s.frames_used()), (1, 5, 5));
    let starts: Vec<i64> = outputs.trajectories.iter().map(|t| t.stamp.nanos / PERIOD).collect();
    assert_eq!(starts, [10], "the answer to the window of before is dropped");
    assert!(outputs.odometries[0].pose.position[2].abs() < 1e-12, "the odometry is at its origin");
    outputs
}

#[test]
fn a_reset_takes_hold_at_once_also_while_the_model_is_busy() {
    let outputs = interrupted(|rig| {
        let said = rig.answer(Call::Reset).unwrap();
        assert!(said.contains("origin"), "{said}");
    });
    assert_eq!(outputs.reasonings, ["poses"]);
}

#[test]
fn nothing_comes_out_behind_a_deactivation_also_where_the_model_was_busy() {
    interrupted(|rig| {
        assert!(rig.change("deactivate"));
        assert!(rig.change("activate"), "and it can go on at once");
    });
}

#[test]
fn a_set_while_running_changes_what_is_done_with_the_next_answer() {
    let rig = ready(1, 5, None);
    rig.send(0..5);
    rig.wait("answer", |s| s.windows_answered == 1);
    assert_eq!(set(&rig, "sanity.max_step_metres", Value::Double(0.05)), Ok(()));
    assert_eq!(set(&rig, "publish.reasoning", Value::Bool(false)), Ok(()));
    rig.send(5..10);
    rig.wait("refused", |s| s.answers_unparsed == 1);
    assert_eq!(set(&rig, "sanity.max_step_metres", Value::Double(0.5)), Ok(()));
    rig.send(10..15);
    rig.wait("answer", |s| s.windows_answered == 3);
    let refusals = [
        ("sanity.max_step_metres", Value::Double(0.0), "above 0"),
        ("topics.image", Value::Text("/other".to_owned()), "when the node starts"),
        ("window.hop", Value::Integer(1), "when the node starts"),
        ("nothing", Value::Bool(true), "not a parameter"),
    ];
    for (name, value, wanted) in refusals {
        let reason = set(&rig, name, value).unwrap_err();
        assert!(reason.contains(wanted), "{name}: {reason}");
    }
    let both = vec![
        ("sanity.max_step_metres".to_owned(), Value::Double(2.0)),
        ("sanity.max_step_degrees".to_owned(), Value::Double(-1.0)),
    ];
    assert!(rig.answer(|reply| Call::SetParametersAtomically(both, reply)).is_err());
    let held = rig.answer(|reply| Call::GetParameters(vec!["sanity.max_step_metres".to_owned()], reply));
    assert_eq!(held, [Value::Double(0.5)], "all or none");
    let (finished, outputs) = rig.finish();
    assert_eq!(finished.unwrap().answers_unparsed, 1);
    assert_eq!(outputs.trajectories.len(), 2);
    assert_eq!(outputs.reasonings, ["poses"]);
}

#[test]
fn parameters_are_told_when_the_node_starts_and_when_they_are_set() {
    let rig = managed_rig(5);
    let start = Outputs::until(&rig.output, |outputs| !outputs.parameter_events.is_empty());
    let [declared] = &start.parameter_events[..] else { panic!("{:?}", start.parameter_events) };
    assert_eq!((declared.new.len(), declared.changed.len()), (TABLE.len(), 0));
    assert!(
        declared.new.contains(&("window.max_gap_millis".to_owned(), Value::Integer(500))) && declared.stamp.nanos > 0
    );

    let [metres, degrees] = ["sanity.max_step_metres", "sanity.max_step_degrees"].map(str::to_owned);
    // As `ros2 param set` writes a whole number; it is told as what it is held as.
    assert_eq!(set(&rig, &metres, Value::Integer(2)), Ok(()));
    assert!(set(&rig, &metres, Value::Double(-1.0)).is_err());
    let both = vec![(metres.clone(), Value::Double(3.0)), (degrees, Value::Double(45.0))];
    let changes = both.clone();
    assert_eq!(rig.answer(|reply| Call::SetParametersAtomically(changes, reply)), Ok(()));
    let (finished, outputs) = rig.finish();
    finished.unwrap();
    let changed: Vec<_> = outputs.parameter_events.into_iter().map(|event| (event.new, event.changed)).collect();
    assert_eq!(changed, [(vec![], vec![(metres, Value::Double(2.0))]), (vec![], both)]);
}

#[test]
fn reports_come_in_the_rhythm_that_was_set_last() {
    let mut settings = settings(1, 5);
    settings.live.diagnostics.period = std::time::Duration::from_secs(3600);
    let rig = rig(settings, None, Box::new(|_| parsed()));
    // The set itself brings one; those behind it only come in the new rhythm.
    assert_eq!(set(&rig, "diagnostics.period_millis", Value::Integer(10)), Ok(()));
    for _ in 0..8 {
        rig.report(DiagnosticLevel::Ok);
    }
    assert!(rig.finish().0.is_ok());
}

#[test]
fn reports_of_a_simulation_are_stamped_by_the_images() {
    let mut settings = settings(1, 5);
    settings.live.use_sim_time = true;
    let rig = rig(settings, None, Box::new(|_| parsed()));
    (rig.input)(camera_info(K, 8));
    rig.send(0..3);
    rig.wait("ingested", |s| s.frames_received == 3);
    let stamped = std::iter::from_fn(|| rig.output.recv_timeout(TIMEOUT).ok()).find_map(|output| match output {
        Output::Diagnostics(report) if report.stamp.nanos > 0 => Some(report.stamp.nanos),
        _ => None,
    });
    let stamp = stamped.unwrap();
    assert!(stamp <= 2 * PERIOD && stamp % PERIOD == 0, "{stamp}");
    assert!(rig.finish().0.is_ok());
}

#[test]
fn transforms_come_with_the_odometry_and_the_mount_once() {
    let quarter = std::f64::consts::FRAC_PI_2;
    let rotation = UnitQuaternion::from_euler_angles(-quarter, 0.0, -quarter);
    let isometry = Isometry3::from_parts(Vector3::new(0.1, 0.0, 0.0).into(), rotation);
    let mut settings = settings(1, 4);
    settings.mount =
        Some(Mount { base: "base_link".to_owned(), base_from_camera: Transform::from_isometry_unchecked(isometry) });
    settings.live.publish.tf = true;
    settings.live.publish.static_tf = true;
    let rig = rig(settings, None, Box::new(|_: usize| -> Result<Estimate, Error> { parsed() }));
    (rig.input)(camera_info(K, 8));
    rig.send(0..5);
    rig.wait("answer", |s| s.windows_answered == 1);
    rig.send(5..9);
    rig.wait("answer", |s| s.windows_answered == 2);
    let (_, outputs) = rig.finish();
    assert_eq!((outputs.odometries.len(), outputs.transforms.len(), outputs.static_transforms.len()), (9, 9, 1));
    let fixed = &outputs.static_transforms[0];
    assert_eq!((fixed.frame_id.as_str(), fixed.child_frame_id.as_str()), ("base_link", "optical"));
    for (i, transform) in (0..).zip(&outputs.transforms) {
        assert_eq!((transform.frame_id.as_str(), transform.child_frame_id.as_str()), ("odom", "base_link"));
        assert!((transform.translation[0] - 0.1 * f64::from(i)).abs() < 1e-9, "{transform:?}");
    }
}
