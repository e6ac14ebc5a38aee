//! The odometry at the camera's rate: it goes on whatever the model does, and says what it stands on.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests are tests too; clippy.toml covers the #[test] functions alone"
)]

#[expect(dead_code, reason = "of the rig some of the tests use some")]
mod rig;

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use camera::message::{ImageMessage, ImagePayload};
use camera::optics::{CameraRules, UseFixed};
use camera::sequence::Sequence;
use crossbeam::channel::Receiver;
use geometry::metrics::{Alignment, ape_rmse};
use geometry::{Camera, Intrinsics, Odom, Stamp, Transform, WindowTrajectory};
use image::RgbImage;
use model::answer::fill::Part;
use model::answer::measured::Measured;
use model::weights::manifest::ScaleErrors;
use nalgebra::Vector3;
use node::config::{ImageRules, OdometrySource};
use node::pipeline::{Pipeline, Settings};
use node::ros::call::Call;
use node::ros::lifecycle::State;
use node::ros::message::{DiagnosticsMessage, Input, OdometryMessage, Output, StampedPose};
use node::ros::transport::Ends;
use node::solve::estimator::{Error, Estimate, Estimator, Work};
use node::status::counters::{Fate, Snapshot};
use node::tools::replay;
use rig::{Outputs, Rig};

static FILM: LazyLock<Sequence> =
    LazyLock::new(|| Sequence::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/amazon_box")).unwrap());

/// Stamps of the film are as it was recorded; a lens that is blocked shows one grey.
fn image(frame: usize, stamp: Stamp) -> Input {
    let data = std::fs::read(&FILM.frames[frame]).unwrap();
    let payload = ImagePayload::Compressed { format: "jpeg".to_owned(), data };
    Input::Image(ImageMessage { stamp, frame_id: "optical".to_owned(), payload })
}

fn blocked(stamp: Stamp) -> Input {
    let Intrinsics { width, height, .. } = FILM.intrinsics;
    let data = vec![90; width as usize * height as usize];
    let payload =
        ImagePayload::Raw { width, height, encoding: "mono8".to_owned(), is_bigendian: false, step: width, data };
    Input::Image(ImageMessage { stamp, frame_id: "optical".to_owned(), payload })
}

/// Where wheels would have the camera, metres, a thousandth wrong.
fn wheels(frame: usize) -> Input {
    let poses = FILM.world_from_camera.as_ref().unwrap();
    let at = poses[0].inverse().transform_point(&poses[frame].origin()) * 1.001;
    moved_by(FILM.stamps[frame], at.coords)
}

fn moved_by(stamp: Stamp, at: Vector3<f64>) -> Input {
    let pose = StampedPose { stamp, position: at.into(), orientation_xyzw: [0.0, 0.0, 0.0, 1.0] };
    let (frame_id, child_frame_id) = ("odom".to_owned(), "base".to_owned());
    Input::Odometry(OdometryMessage { frame_id, child_frame_id, pose, pose_covariance: [0.0; 36] })
}

/// A model that says what it is told to say, once it may.
struct Says {
    gate: Option<Receiver<()>>,
    says: fn(usize) -> Result<Estimate, Error>,
    windows: usize,
    /// Whether it writes the tracks' own poses, in the unit of what it says.
    takes_measured: bool,
}

impl Estimator for Says {
    type Frame = ();

    fn encode(&mut self, _: &RgbImage, _: &Intrinsics) -> Result<(), Error> {
        Ok(())
    }

    fn scale_errors(&self) -> Option<ScaleErrors> {
        Some(ScaleErrors { noise: 0.1, bias: 0.05 })
    }

    fn estimate(&mut self, _: [&(); 5]) -> Result<Estimate, Error> {
        if let Some(gate) = &self.gate {
            let _ = gate.recv();
        }
        self.windows += 1;
        (self.says)(self.windows - 1)
    }

    fn takes_measured(&self) -> bool {
        self.takes_measured
    }

    fn estimate_measured(&mut self, frames: [&(); 5], measured: Measured) -> Result<Estimate, Error> {
        let said = self.estimate(frames)?;
        let length = |trajectory: &WindowTrajectory| trajectory.anchor_from_camera()[4].translation().norm();
        let metres = length(said.trajectory.as_ref().unwrap()) / length(&measured.trajectory);
        let depths = measured.depths.map(|of_point| of_point.map(|depth| metres * depth));
        Ok(Estimate {
            filled: 5,
            by_program: vec![Part::Points, Part::Poses],
            trajectory: Ok(measured.scaled(&depths).unwrap()),
            ..said
        })
    }
}

fn estimate(trajectory: &WindowTrajectory) -> Estimate {
    Estimate {
        text: "poses".to_owned(),
        tokens: 7,
        filled: 0,
        work: Work::default(),
        by_program: Vec::new(),
        trajectory: Ok(*trajectory),
        grid: None,
        position_stddev: None,
    }
}

/// The truth, for windows of neighbouring frames that share one.
fn truth(window: usize) -> Result<Estimate, Error> {
    let poses = FILM.world_from_camera.as_ref().unwrap();
    let poses = std::array::from_fn(|i| poses[(4 * window + i).min(poses.len() - 1)]);
    Ok(estimate(&WindowTrajectory::from_world(&poses)))
}

fn backwards(window: usize) -> Result<Estimate, Error> {
    truth(window).map(|right| estimate(&right.trajectory.unwrap().scaled(-1.0)))
}

fn settings(source: OdometrySource) -> Settings {
    let mut settings = rig::settings(1, 4);
    settings.odometry.source = source;
    settings.scale_topic = String::new();
    settings.camera = CameraRules { use_fixed: UseFixed::Always, intrinsics: FILM.intrinsics, ..settings.camera };
    settings.live.trust.images = ImageRules { least_contrast: 2.0, ..settings.live.trust.images };
    settings.live.trust.sanity.max_step_metres = 5.0;
    settings.window.max_gap = Duration::from_secs(5);
    // Nobody takes what comes out before the end.
    settings.live.diagnostics.period = Duration::from_secs(60);
    settings
}

fn start(settings: Settings, gate: Option<Receiver<()>>, says: fn(usize) -> Result<Estimate, Error>) -> Rig {
    start_with(settings, move || Says { gate: gate.clone(), says, windows: 0, takes_measured: false })
}

fn start_with(settings: Settings, says: impl Fn() -> Says + Send + 'static) -> Rig {
    let load = move |_| Ok(says());
    let stop = Arc::new(AtomicBool::new(false));
    let (pipeline, ends) = Pipeline::start(settings, rig::sheet(), load, Arc::clone(&stop)).unwrap();
    let Ends { input, call, output, .. } = ends;
    let rig = Rig { pipeline, input, call, output, stop, encoded: Arc::default() };
    rig.wait("active", |s| s.lifecycle == State::Active);
    rig
}

/// Sends frames of the film, and waits until each has been looked at.
fn play(rig: &Rig, frames: std::ops::Range<usize>) {
    for frame in frames {
        let before = looked_at(&rig.pipeline.stats().snapshot());
        (rig.input)(image(frame, FILM.stamps[frame]));
        rig.wait("a frame", |s| looked_at(s) > before);
    }
}

fn looked_at(s: &Snapshot) -> u64 {
    s.poses_published + s.poses_withheld
}

fn pose_of(o: &OdometryMessage) -> Transform<Odom, Camera> {
    Transform::from_xyzw(o.pose.orientation_xyzw, &Vector3::from(o.pose.position)).unwrap()
}

fn poses(outputs: &Outputs) -> Vec<(i64, Transform<Odom, Camera>)> {
    outputs.odometries.iter().map(|odometry| (odometry.pose.stamp.nanos, pose_of(odometry))).collect()
}

/// Every frame of the film has a pose, at its stamp, and they are right up to one scale.
fn assert_followed(outputs: &Outputs) {
    let poses = poses(outputs);
    let stamps: Vec<i64> = poses.iter().map(|(stamp, _)| *stamp).collect();
    assert_eq!(stamps, FILM.stamps.iter().map(|stamp| stamp.nanos).collect::<Vec<_>>());
    let estimate: Vec<_> = poses.iter().map(|(_, pose)| *pose).collect();
    let ate = ape_rmse(FILM.world_from_camera.as_ref().unwrap(), &estimate, Alignment::Sim3).unwrap();
    assert!(ate < 0.007, "ATE {ate} m");
    let same: Vec<i64> = outputs.poses.iter().map(|pose| pose.pose.stamp.nanos).collect();
    assert_eq!(stamps, same, "a PoseStamped for each");
}

/// From every fifth pose to the next: from frame to frame the truth's own jitter is a good part of a path.
fn length(places: impl Iterator<Item = Vector3<f64>>) -> f64 {
    let places: Vec<_> = places.step_by(5).collect();
    places.windows(2).map(|pair| (pair[1] - pair[0]).norm()).sum()
}

fn path(outputs: &Outputs) -> f64 {
    length(poses(outputs).iter().map(|(_, pose)| pose.translation()))
}

fn true_path() -> f64 {
    length(FILM.world_from_camera.as_ref().unwrap().iter().map(Transform::translation))
}

fn value(s: &DiagnosticsMessage, key: &str) -> String {
    s.values.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone()).unwrap_or_default()
}

#[test]
fn a_model_that_never_answers_keeps_no_pose_back() {
    let (open, gate) = rig::gate();
    let rig = start(settings(OdometrySource::Fused), gate, truth);
    play(&rig, 0..FILM.frames.len());
    let s = rig.pipeline.stats().snapshot();
    assert_eq!((s.windows_answered, s.poses_published), (0, FILM.frames.len() as u64));
    rig::assert_balance(&s);
    drop(open);
    let (finished, outputs) = rig.finish();
    assert_followed(&outputs);
    assert_eq!(finished.unwrap().fate(Fate::QueueFull), 0);
}

#[test]
fn without_a_model_tracks_are_up_to_scale_and_with_wheels_they_are_metres() {
    for has_wheels in [false, true] {
        let scale_topic = if has_wheels { "/wheels".to_owned() } else { String::new() };
        let rig = start(Settings { has_model: false, scale_topic, ..settings(OdometrySource::Fused) }, None, truth);
        for frame in 0..FILM.frames.len() {
            if has_wheels {
                (rig.input)(wheels(frame));
            }
            play(&rig, frame..frame + 1);
        }
        let (finished, outputs) = rig.finish();
        let s = finished.unwrap();
        assert_followed(&outputs);
        rig::assert_balance(&s);
        assert_eq!((s.windows_answered, s.fate(Fate::Posed)), (0, FILM.frames.len() as u64));
        let last = outputs.scales.last().unwrap();
        let expected = if has_wheels { "odometry" } else { "none" };
        assert_eq!((value(last, "source").as_str(), s.scale.to_string() == "arbitrary"), (expected, !has_wheels));
        assert_eq!(s.status.to_string(), "OK", "{}", s.status_reason);
        if has_wheels {
            let ratio = path(&outputs) / true_path();
            assert!((ratio - 1.0).abs() < 0.03, "path {ratio} of the true one");
            assert!(value(last, "log_stddev").parse::<f64>().unwrap() < 0.05, "{last:?}");
        }
    }
}

#[test]
fn a_model_that_is_right_gives_metres_and_its_windows_come_out_as_the_tracks_have_them() {
    let rig = start(settings(OdometrySource::Fused), None, truth);
    for frame in 0..FILM.frames.len() {
        play(&rig, frame..frame + 1);
        let windows = (frame as u64).saturating_sub(0) / 4;
        rig.wait("windows", |s| s.windows_answered == windows);
    }
    let (finished, outputs) = rig.finish();
    let s = finished.unwrap();
    // Once it has told the scale, the path is metres.
    let late = |places: Vec<Vector3<f64>>| length(places.into_iter().skip(20));
    let got = late(poses(&outputs).iter().map(|(_, pose)| pose.translation()).collect());
    let expected = late(FILM.world_from_camera.as_ref().unwrap().iter().map(Transform::translation).collect());
    let sigma = s.by_tracks.as_ref().unwrap().scale.unwrap().sigma;
    assert!((got / expected).ln().abs() < 2.0 * sigma && sigma < 0.15, "{got} of {expected} m, to {sigma}");
    assert_eq!((s.windows_contradicted, s.windows_compared), (0, s.windows_answered), "{:?}", s.agreement);
    assert_eq!(outputs.trajectories.len(), 12);
    let status = outputs.statuses.last().unwrap();
    assert_eq!((value(status, "carried").as_str(), value(status, "scale_source").as_str()), ("both", "model"));
    assert_eq!(outputs.reasonings.len(), 12);
}

#[test]
fn what_the_program_wrote_of_an_answer_tells_metres_and_is_no_second_opinion() {
    let says = || Says { gate: None, says: truth, windows: 0, takes_measured: true };
    let rig = start_with(settings(OdometrySource::Fused), says);
    for frame in 0..FILM.frames.len() {
        play(&rig, frame..frame + 1);
        rig.wait("windows", |s| s.windows_answered == frame as u64 / 4);
    }
    let (finished, outputs) = rig.finish();
    let s = finished.unwrap();
    let late = |places: Vec<Vector3<f64>>| length(places.into_iter().skip(20));
    let got = late(poses(&outputs).iter().map(|(_, pose)| pose.translation()).collect());
    let expected = late(FILM.world_from_camera.as_ref().unwrap().iter().map(Transform::translation).collect());
    assert!((got / expected).ln().abs() < 0.15, "{got} of {expected} m");
    assert_eq!((s.windows_compared, s.windows_contradicted, s.agreement), (0, 0, None));
    let status = outputs.statuses.last().unwrap();
    assert_eq!(value(status, "answer_by_program"), "grammar, step1, poses");
    assert_eq!(value(status, "scale_source"), "model");
}

#[test]
fn a_model_that_contradicts_the_tracks_is_counted_and_gives_no_scale() {
    let rig = start(settings(OdometrySource::Fused), None, backwards);
    for frame in 0..FILM.frames.len() {
        play(&rig, frame..frame + 1);
        rig.wait("windows", |s| s.windows_answered == frame as u64 / 4);
    }
    let (finished, outputs) = rig.finish();
    let s = finished.unwrap();
    assert_followed(&outputs);
    assert!(s.windows_contradicted >= 11, "{} of {}", s.windows_contradicted, s.windows_compared);
    assert!(s.last_problem.unwrap().contains("degrees away from where the tracks do"));
    assert!(s.status_reason.contains("nothing tells the scale"), "{}", s.status_reason);
    assert_eq!(value(outputs.scales.last().unwrap(), "source"), "none");
}

#[test]
fn a_model_that_fails_is_told_of_and_the_tracks_go_on() {
    let fails = |window| if window < 2 { truth(window) } else { Err(Error::Other("out of memory".to_owned())) };
    let rig = start(settings(OdometrySource::Fused), None, fails);
    for frame in 0..FILM.frames.len() {
        play(&rig, frame..frame + 1);
    }
    let s = rig.pipeline.stats().snapshot();
    let reason = &s.status_reason;
    assert!(reason.contains("the model has failed") && reason.contains("out of memory"), "{reason}");
    assert_eq!((s.lifecycle, s.status.to_string().as_str()), (State::Active, "DEGRADED"));
    let (finished, outputs) = rig.finish();
    rig::assert_balance(&finished.unwrap());
    assert_followed_but_for_scale(&outputs, "failed");
}

#[test]
fn behind_a_blocked_lens_the_motion_goes_on_for_a_while_and_after_that_nothing_comes_out() {
    let mut settings = settings(OdometrySource::Fused);
    settings.odometry.most_coast = Duration::from_millis(400);
    settings.has_model = false;
    let rig = start(settings, None, truth);
    play(&rig, 0..25);
    let before = rig.pipeline.stats().snapshot();
    let last = FILM.stamps[24].nanos;
    for i in 1..=20_u64 {
        (rig.input)(blocked(Stamp::from_nanos(last + i as i64 * 50_000_000)));
        rig.wait("a frame", |s| looked_at(s) == 25 + i);
    }
    let s = rig.pipeline.stats().snapshot();
    assert_eq!((s.poses_coasted - before.poses_coasted, s.poses_withheld), (8, 12), "400 ms of 1 s");
    assert_eq!((s.status.to_string().as_str(), s.losses), ("LOST", 1));
    for frame in 25..50 {
        let stamp = FILM.stamps[frame].nanos + 1_000_000_000;
        (rig.input)(image(frame, Stamp::from_nanos(stamp)));
        rig.wait("a frame", |s| looked_at(s) == 45 + frame as u64 - 24);
    }
    let s = rig.pipeline.stats().snapshot();
    assert_eq!((s.status.to_string().as_str(), s.recoveries), ("OK", 1));
    assert!(s.odometry_breaks > before.odometry_breaks, "behind LOST the counter has grown");
    let (finished, outputs) = rig.finish();
    let s = finished.unwrap();
    rig::assert_balance(&s);
    assert_eq!(s.fate(Fate::Blank), 20);
    // As unsure as it is, no step is longer than that.
    for pair in outputs.odometries.windows(2) {
        let way = (Vector3::from(pair[1].pose.position) - Vector3::from(pair[0].pose.position)).norm();
        let unsure = [0, 7, 14].map(|k| pair[1].pose_covariance[k]).iter().sum::<f64>().sqrt();
        assert!(way < 1.5 || way < 3.0 * unsure, "a step of {way} m, sure to {unsure}");
    }
}

#[test]
fn a_clock_that_goes_back_and_a_reset_are_breaks() {
    let rig = start(Settings { has_model: false, ..settings(OdometrySource::Tracks) }, None, truth);
    play(&rig, 0..20);
    let before = rig.pipeline.stats().snapshot().odometry_breaks;
    // The log loops.
    for frame in 0..3 {
        (rig.input)(image(frame, Stamp::from_nanos(FILM.stamps[frame].nanos - 100_000_000_000)));
    }
    rig.wait("the loop", |s| looked_at(s) == 23);
    assert_eq!(rig.pipeline.stats().snapshot().odometry_breaks, before + 1);
    let (told, answer) = crossbeam::channel::bounded(1);
    (rig.call)(Call::Reset(Box::new(move |result| told.send(result).unwrap())));
    answer.recv_timeout(rig::TIMEOUT).unwrap().unwrap();
    for frame in 3..6 {
        (rig.input)(image(frame, Stamp::from_nanos(FILM.stamps[frame].nanos - 100_000_000_000)));
    }
    rig.wait("after the reset", |s| looked_at(s) == 26);
    let (finished, outputs) = rig.finish();
    assert_eq!(finished.unwrap().odometry_breaks, before + 2);
    let at = Vector3::from(outputs.odometries[23].pose.position);
    assert!(at.norm() < 1e-12, "at the origin again: {at}");
}

/// Plays the film with wheels that do something else from some frame on.
fn misled(wrong: impl Fn(usize) -> Vec<Input>) -> (Snapshot, Outputs) {
    let settings = Settings { has_model: false, scale_topic: "/wheels".to_owned(), ..settings(OdometrySource::Fused) };
    let rig = start(settings, None, truth);
    for frame in 0..FILM.frames.len() {
        wrong(frame).into_iter().for_each(|message| (rig.input)(message));
        play(&rig, frame..frame + 1);
    }
    let (finished, outputs) = rig.finish();
    (finished.unwrap(), outputs)
}

#[test]
fn wheels_that_misbehave_move_no_pose_and_are_told_of() {
    let at = |frame: usize, factor: f64| -> Vector3<f64> {
        let poses = FILM.world_from_camera.as_ref().unwrap();
        poses[0].inverse().transform_point(&poses[frame].origin()).coords * factor
    };
    let stamp = |frame: usize| FILM.stamps[frame];
    type Wheels<'a> = Box<dyn Fn(usize) -> Vec<Input> + 'a>;
    let rows: Vec<(&str, Wheels<'_>, &str)> = vec![
        ("silent", Box::new(|_| vec![]), "none"),
        ("stuck from the beginning", Box::new(|k| vec![moved_by(stamp(k), Vector3::zeros())]), "none"),
        ("no numbers", Box::new(|k| vec![moved_by(stamp(k), Vector3::repeat(f64::NAN))]), "none"),
        ("of another time", Box::new(|k| vec![moved_by(Stamp::from_nanos(k as i64), at(k, 1.0))]), "none"),
        ("silent from frame 20", Box::new(|k| if k < 20 { vec![wheels(k)] } else { vec![] }), "odometry"),
        (
            "slipping once",
            Box::new(|k| vec![moved_by(stamp(k), at(k, 1.0) + Vector3::x() * if k < 25 { 0.0 } else { 0.3 })]),
            "odometry",
        ),
        ("twice each", Box::new(|k| vec![wheels(k), wheels(k)]), "odometry"),
    ];
    for (name, wheels, source) in rows {
        let (s, outputs) = misled(wheels);
        println!("{name}: path {:.3} of the true one, {} {}", path(&outputs) / true_path(), s.status, s.status_reason);
        assert_followed_but_for_scale(&outputs, name);
        rig::assert_balance(&s);
        assert_eq!(value(outputs.scales.last().unwrap(), "source"), source, "{name}");
        if source == "odometry" {
            assert!((path(&outputs) / true_path()).ln().abs() < 0.06, "{name}");
        } else {
            assert!(s.status_reason.contains("nothing tells the scale"), "{name}: {}", s.status_reason);
        }
    }
    // What jumps about says nothing that can be believed, and is named.
    let (s, outputs) =
        misled(|k| vec![moved_by(stamp(k), at(k, 1.0) + Vector3::y() * if k % 2 == 0 { 0.5 } else { 0.0 })]);
    assert_followed_but_for_scale(&outputs, "jumping");
    assert!(s.status_reason.contains("odometry contradicts itself"), "{}", s.status_reason);
}

fn assert_followed_but_for_scale(outputs: &Outputs, name: &str) {
    assert_eq!(outputs.odometries.len(), FILM.frames.len(), "{name}");
    assert!(outputs.odometries.iter().all(|o| o.pose.position.iter().all(|v| v.is_finite())), "{name}");
    let poses = FILM.world_from_camera.as_ref().unwrap();
    let turned = poses[0].rotation().angle_to(&poses[49].rotation());
    let all = self::poses(outputs);
    let got = all[0].1.rotation().angle_to(&all[49].1.rotation());
    assert!((turned - got).abs() < 0.02, "{name}: turned by {got} rad of {turned}");
}

#[test]
fn a_replay_is_what_the_node_does_without_waiting() {
    let run = || {
        let settings = Settings { has_model: false, ..settings(OdometrySource::Tracks) };
        let stop = AtomicBool::new(false);
        replay::replay(&FILM, None::<Says>, &settings, &stop, |_| {}).unwrap().odometry
    };
    let first = run();
    assert_eq!(first.len(), FILM.frames.len());
    assert_eq!(first, run(), "the same film gives the same bits");
    let rig = start(Settings { has_model: false, ..settings(OdometrySource::Tracks) }, None, truth);
    play(&rig, 0..FILM.frames.len());
    let (_, outputs) = rig.finish();
    for (live, replayed) in poses(&outputs).iter().zip(&first) {
        let apart = (live.1.translation() - replayed.odom_from_camera.translation()).norm();
        assert!(apart < 1e-12, "{} at {} ns", apart, live.0);
    }
}

#[test]
fn a_replay_for_a_page_keeps_words_states_and_pictures_and_changes_no_pose_and_no_counter() {
    let run = |keeps_moments| {
        let settings = Settings { keeps_moments, ..settings(OdometrySource::Fused) };
        let says = Says { gate: None, says: truth, windows: 0, takes_measured: false };
        replay::replay(&FILM, Some(says), &settings, &AtomicBool::new(false), |_| {}).unwrap()
    };
    let (bare, kept) = (run(false), run(true));
    assert_eq!((&bare.odometry, &bare.counters), (&kept.odometry, &kept.counters));
    assert!(bare.moments.is_empty());
    assert_eq!(kept.moments.iter().map(|moment| moment.stamp).collect::<Vec<_>>(), FILM.stamps);
    assert!(kept.moments.iter().all(|moment| moment.picture.is_some()));
    let last = &kept.moments[FILM.frames.len() - 1];
    assert_eq!((last.state.carried.as_deref(), last.state.source.as_deref()), (Some("both"), Some("model")));
    assert!(last.state.sigma.is_some_and(|sigma| sigma > 0.0) && last.state.points.is_some_and(|points| points > 20));
    assert!(kept.results.len() >= 10 && kept.results.iter().all(|result| result.text == "poses"));
    // Where no image is tracked, none is decoded for a page.
    let settings = Settings { keeps_moments: true, ..settings(OdometrySource::Model) };
    let says = Says { gate: None, says: truth, windows: 0, takes_measured: false };
    let stitched = replay::replay(&FILM, Some(says), &settings, &AtomicBool::new(false), |_| {}).unwrap();
    assert_eq!(stitched.moments.len(), FILM.frames.len());
    assert!(stitched.moments.iter().all(|moment| moment.picture.is_none() && moment.state.carried.is_none()));
}

/// The unit of the program that is followed, metres.
const UNIT: f64 = 0.4;

fn on_topic(is_metric: bool) -> Settings {
    let mut settings = settings(OdometrySource::Topic);
    settings.odometry.is_topic_metric = is_metric;
    settings.odometry.most_coast = Duration::from_millis(500);
    settings
}

/// Where another program has the camera, in a frame and a unit of its own.
fn slam(frame: usize, unit: f64, child: &str) -> Input {
    let poses = FILM.world_from_camera.as_ref().unwrap();
    let pose = poses[frame];
    let pose = StampedPose {
        stamp: FILM.stamps[frame],
        position: (pose.translation() / unit).into(),
        orientation_xyzw: pose.to_xyzw(),
    };
    let (frame_id, child_frame_id) = ("map".to_owned(), child.to_owned());
    Input::Followed(OdometryMessage { frame_id, child_frame_id, pose, pose_covariance: [0.0; 36] })
}

fn heard(s: &Snapshot) -> u64 {
    s.followed_received
}

#[test]
fn another_programs_poses_become_metres_and_the_models_windows_are_held_against_them() {
    type Says = fn(usize) -> Result<Estimate, Error>;
    for (has_wheels, says) in [(true, truth as Says), (false, truth), (false, backwards)] {
        let scale_topic = if has_wheels { "/wheels".to_owned() } else { String::new() };
        let rig = start(Settings { scale_topic, ..on_topic(false) }, None, says);
        let count = FILM.frames.len();
        for frame in 0..count {
            if has_wheels {
                (rig.input)(wheels(frame));
            }
            (rig.input)(image(frame, FILM.stamps[frame]));
            // It needs its time, and is a frame late.
            if frame > 0 {
                (rig.input)(slam(frame - 1, UNIT, "optical"));
            }
            rig.wait("a pose", |s| heard(s) == frame as u64);
            rig.wait("windows", |s| s.windows_answered == frame.saturating_sub(1) as u64 / 4);
        }
        (rig.input)(slam(count - 1, UNIT, "optical"));
        rig.wait("the last", |s| heard(s) == count as u64);
        let (finished, outputs) = rig.finish();
        let s = finished.unwrap();
        rig::assert_balance(&s);
        assert_eq!((s.poses_published, s.poses_withheld, s.followed_refused), (count as u64, 0, 0));
        assert_eq!(outputs.odometries.len(), count, "at its rate");
        assert_eq!(s.odometry_breaks, 0);
        if !has_wheels && std::ptr::fn_addr_eq(says, backwards as Says) {
            assert!(s.windows_contradicted >= 10, "{} of {}", s.windows_contradicted, s.windows_compared);
            assert!(s.status_reason.contains("nothing tells the scale"), "{}", s.status_reason);
            continue;
        }
        if has_wheels {
            assert_followed(&outputs);
        }
        assert_eq!((s.windows_contradicted, s.windows_compared), (0, s.windows_answered), "{:?}", s.agreement);
        assert!(s.windows_answered >= 11 && outputs.trajectories.len() as u64 == s.windows_answered);
        assert_eq!(s.status.to_string(), "OK", "{}", s.status_reason);
        let scale = s.by_tracks.as_ref().unwrap().scale.unwrap();
        let off = (scale.metres() / UNIT).ln();
        assert!(off.abs() < 2.5 * scale.sigma && scale.sigma < 0.15, "{scale:?}");
        let status = outputs.statuses.last().unwrap();
        let expected = if has_wheels { ("topic", "odometry") } else { ("both", "model") };
        assert_eq!((value(status, "carried").as_str(), value(status, "scale_source").as_str()), expected);
        if has_wheels {
            let ratio = path(&outputs) / true_path();
            assert!((ratio - 1.0).abs() < 0.03, "path {ratio} of the true one");
        }
    }
}

#[test]
fn a_followed_program_that_falls_silent_or_speaks_of_another_frame_is_told_of() {
    let rig = start(Settings { has_model: false, ..on_topic(true) }, None, truth);
    let step = |frame: usize, child: Option<&str>| {
        let before = (rig.pipeline.stats().snapshot(), child.is_some());
        (rig.input)(image(frame, FILM.stamps[frame]));
        child.map_or_else(|| (), |child| (rig.input)(slam(frame, 1.0, child)));
        rig.wait("both", |s| {
            s.frames_received > before.0.frames_received && heard(s) == heard(&before.0) + u64::from(before.1)
        });
    };
    (0..10).for_each(|frame| step(frame, Some("optical")));
    let s = rig.pipeline.stats().snapshot();
    assert_eq!((s.status.to_string().as_str(), s.poses_published), ("OK", 10));
    assert_eq!(s.by_tracks.as_ref().unwrap().scale.unwrap().source, Some(odometry::scale::Source::Topic));
    (10..14).for_each(|frame| step(frame, Some("imu")));
    let s = rig.pipeline.stats().snapshot();
    assert_eq!((s.followed_refused, s.poses_published), (4, 10));
    let problem = s.odometry_problem.unwrap();
    assert!(problem.contains("\"optical\"") && problem.contains("\"imu\""), "{problem}");
    let silence = (14..30).find(|frame| FILM.stamps[*frame].nanos_since(FILM.stamps[9]) > 500_000_000).unwrap();
    (14..=silence).for_each(|frame| step(frame, None));
    rig.wait("LOST", |s| s.status.to_string() == "LOST");
    let s = rig.pipeline.stats().snapshot();
    assert!(s.status_reason.contains("nothing has told the motion"), "{}", s.status_reason);
    let breaks = s.odometry_breaks;
    (silence + 1..silence + 6).for_each(|frame| step(frame, Some("optical")));
    let (finished, outputs) = rig.finish();
    let s = finished.unwrap();
    rig::assert_balance(&s);
    assert_eq!((s.status.to_string().as_str(), s.losses, s.recoveries), ("OK", 1, 1));
    let unposed = s.fate(Fate::Unposed);
    assert_eq!((s.fate(Fate::Shutdown), s.fate(Fate::Posed) + unposed), (0, silence as u64 + 6), "each has its own");
    assert!(s.odometry_breaks > breaks, "behind LOST the counter has grown");
    // What moved meanwhile is not told as a motion.
    let at = |k: usize| Vector3::from(outputs.odometries[k].pose.position);
    assert_eq!(outputs.odometries.len(), 15);
    assert!((at(10) - at(9)).norm() < 1e-9 && (at(11) - at(10)).norm() > 1e-4);
    assert!(outputs.odometries[10].pose_covariance[0] > 1.0);
}

#[test]
fn wheels_that_contradict_a_metric_program_are_held_off_by_name() {
    let rig = start(Settings { has_model: false, scale_topic: "/wheels".to_owned(), ..on_topic(true) }, None, truth);
    for frame in 0..FILM.frames.len() {
        (rig.input)(wheels(frame));
        (rig.input)(image(frame, FILM.stamps[frame]));
        (rig.input)(slam(frame, 1.5, "optical"));
        rig.wait("a pose", |s| heard(s) == frame as u64 + 1);
    }
    let (finished, outputs) = rig.finish();
    let s = finished.unwrap();
    let ratio = path(&outputs) / true_path();
    assert!((ratio * 1.5 - 1.0).abs() < 1e-6, "as it is told: {ratio}");
    assert!(s.status_reason.contains("held off: odometry says 1.5"), "{}", s.status_reason);
}

/// Path of the odometry over the true one with wheels that have each step a hundredth wrong, and the error after one scale over the path.
fn on_wheels(film: &Sequence) -> (f64, f64) {
    let mut settings =
        Settings { has_model: false, scale_topic: "/wheels".to_owned(), ..settings(OdometrySource::Fused) };
    settings.camera.intrinsics = film.intrinsics;
    let rig = start(settings, None, truth);
    let poses = film.world_from_camera.as_ref().unwrap();
    let (mut at, mut random) = (Vector3::zeros(), 7_u64);
    let mut heard = Vec::new();
    for (frame, path) in film.frames.iter().enumerate() {
        if frame > 0 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Uniform, with a standard deviation of a hundredth.
            let noise = 1.0 + 0.034_64 * ((random >> 11) as f64 / (1_u64 << 53) as f64 - 0.5);
            at += (poses[frame].translation() - poses[frame - 1].translation()) * noise;
        }
        (rig.input)(moved_by(film.stamps[frame], at));
        let data = std::fs::read(path).unwrap();
        let payload = ImagePayload::Compressed { format: "jpeg".to_owned(), data };
        let before = looked_at(&rig.pipeline.stats().snapshot());
        let stamp = film.stamps[frame];
        (rig.input)(Input::Image(ImageMessage { stamp, frame_id: "optical".to_owned(), payload }));
        rig.wait("a frame", |s| looked_at(s) > before);
        heard.extend(rig.output.try_iter().filter_map(odometry_of));
    }
    let output = rig.output.clone();
    rig.finish().0.unwrap();
    heard.extend(output.try_iter().filter_map(odometry_of));
    let estimate: Vec<_> = heard.iter().map(pose_of).collect();
    let expected = length(poses.iter().map(Transform::translation));
    let ate = ape_rmse(poses, &estimate, Alignment::Sim3).unwrap();
    (length(estimate.iter().map(Transform::translation)) / expected, ate / expected)
}

fn odometry_of(output: Output) -> Option<OdometryMessage> {
    if let Output::Odometry(odometry) = output { Some(odometry) } else { None }
}

#[test]
#[ignore = "needs ../shared/data"]
fn shared_films_with_wheels_are_as_long_as_they_are() {
    let real = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/real");
    for name in ["amazon_box", "redkitchen_depth", "redkitchen_wide"] {
        let (ratio, ate) = on_wheels(&Sequence::load(&real.join(name)).unwrap());
        println!("{name}: path {ratio:.4} of the true one, ATE {:.2} % of it", 100.0 * ate);
        // The stream's own unit drifts by a seventh within twenty frames of redkitchen_depth, before a reading tells.
        assert!((ratio - 1.0).abs() < 0.05, "{name}: path {ratio} of the true one");
    }
}
