//! The pipeline with fake models: drops, counts, failures and shutdown, without a transport.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use camera::message::{CameraInfoMessage, ImageMessage, ImagePayload};
use geometry::Stamp;
use image::RgbImage;
use node::config::ScaleRules;
use node::ros::message::{DiagnosticLevel, Input, OdometryMessage, StampedPose};
use node::solve::estimator::{Error, Estimate};
use node::status::counters::Fate;

#[expect(dead_code, reason = "the tests of the lifecycle use the rest")]
mod rig;
use rig::{Behaviour, K, Outputs, PERIOD, Rig, camera_info, gate, grey, parsed, ready, rig, settings, walk};

#[test]
fn a_model_that_keeps_up_answers_every_window_and_encodes_every_frame_once() {
    let rig = ready(1, 1, None);
    for i in 0..12 {
        rig.send(i..i + 1);
        rig.wait("window", |s| s.windows_answered as i64 == (i - 3).max(0));
    }
    assert_eq!(rig.encoded.load(Ordering::SeqCst), 12);
    let (finished, outputs) = rig.finish();
    let s = finished.unwrap();
    assert_eq!((s.frames_received, s.frames_used(), s.frames_dropped()), (12, 12, 0));
    assert_eq!((s.windows_answered, s.windows_superseded, s.answers_unparsed), (8, 0, 0));
    assert_eq!((s.encode_cache_misses, s.encode_cache_hits), (12, 28));
    assert_eq!(s.odometry_breaks, 0);

    assert_eq!(outputs.trajectories.len(), 8);
    for (w, trajectory) in (0..).zip(&outputs.trajectories) {
        assert_eq!(trajectory.frame_id, "optical");
        assert_eq!(trajectory.stamp.nanos, w * PERIOD);
        let stamps: Vec<i64> = trajectory.poses.iter().map(|p| p.stamp.nanos).collect();
        assert_eq!(stamps, (w..w + 5).map(|i| i * PERIOD).collect::<Vec<_>>());
        assert!((trajectory.poses[4].position[2] - 0.4).abs() < 1e-12);
    }
    // Each frame once, in order, each 0.1 m further on.
    let stamps: Vec<i64> = outputs.odometries.iter().map(|o| o.pose.stamp.nanos / PERIOD).collect();
    assert_eq!(stamps, (0..12).collect::<Vec<_>>());
    for (i, odometry) in (0..).zip(&outputs.odometries) {
        assert_eq!((odometry.frame_id.as_str(), odometry.child_frame_id.as_str()), ("odom", "optical"));
        assert!((odometry.pose.position[2] - 0.1 * f64::from(i)).abs() < 1e-9);
        // The first window's five are as sure as the config says; each frame behind them adds its share.
        let windows = f64::from((i - 3).max(1));
        assert!((odometry.pose_covariance[14] - 0.25 * windows).abs() < 1e-9);
        assert!((odometry.pose_covariance[35] - 0.04 * windows).abs() < 1e-9);
        assert!(odometry.pose_covariance[1].abs() < 1e-12);
    }
}

#[test]
fn the_newest_window_wins_and_frames_of_the_others_are_not_even_decoded() {
    let (open, gate) = gate();
    let rig = ready(1, 5, gate);
    rig.send(0..5);
    // The model is at the first window; five more come and only the last of them stays.
    rig.wait("first window taken", |s| s.encode_cache_misses == 5);
    rig.send(5..30);
    rig.wait("superseded", |s| s.windows_superseded == 4);
    open.send(()).unwrap();
    open.send(()).unwrap();
    let s = rig.wait("two answers", |s| s.windows_answered == 2 && s.frames_pending == 0);
    assert_eq!((s.frames_used(), s.fate(Fate::Superseded)), (10, 20));
    assert_eq!(rig.encoded.load(Ordering::SeqCst), 10);
    let (_, outputs) = rig.finish();
    let stamps: Vec<i64> = outputs.trajectories.iter().map(|t| t.stamp.nanos / PERIOD).collect();
    assert_eq!(stamps, [0, 25]);
}

#[test]
fn a_frame_that_two_windows_share_is_used_if_one_of_them_is_answered() {
    let (open, gate) = gate();
    let rig = ready(1, 4, gate);
    rig.send(0..5);
    rig.wait("first window taken", |s| s.encode_cache_misses == 5);
    rig.send(5..13); // windows 4..8, superseded, and 8..12
    rig.wait("superseded", |s| s.windows_superseded == 1);
    open.send(()).unwrap();
    open.send(()).unwrap();
    rig.wait("answers", |s| s.windows_answered == 2);
    let (finished, _) = rig.finish();
    let s = finished.unwrap();
    assert_eq!((s.frames_used(), s.fate(Fate::Superseded)), (10, 3), "frames 5, 6, 7 were in the lost window alone");
    assert_eq!(s.odometry_breaks, 1, "the second answer shares no frame with the first");
}

#[test]
fn stride_and_gaps_are_counted() {
    let rig = ready(2, 4, None);
    rig.send(0..9);
    rig.wait("window", |s| s.windows_answered == 1);
    rig.send(9..11);
    rig.send(20..22);
    rig.wait("ingested", |s| s.fate(Fate::GapReset) == 1);
    let (finished, _) = rig.finish();
    let s = finished.unwrap();
    assert_eq!((s.frames_used(), s.fate(Fate::SkippedByStride), s.fate(Fate::GapReset)), (5, 6, 1));
    assert_eq!(s.fate(Fate::Shutdown), 1, "frame 20 waited for its window");
}

#[test]
fn frames_without_usable_intrinsics_are_dropped_by_cause_and_reported_as_an_error() {
    let mut zero = K;
    zero[0] = 0.0;
    let rows = [
        (None, Fate::NoCameraInfo, "no CameraInfo"),
        (Some(camera_info([0.0; 9], 8)), Fate::CameraInfoInvalid, "not calibrated"),
        (Some(camera_info(zero, 8)), Fate::CameraInfoInvalid, "fx"),
        (Some(camera_info(K, 16)), Fate::CameraInfoMismatch, "16 x 6"),
    ];
    for (info, fate, words) in rows {
        let rig = rig(settings(1, 1), None, Box::new(|_| parsed()));
        if let Some(info) = info {
            (rig.input)(info);
        }
        rig.send(0..6);
        rig.wait("dropped", |s| s.fate(fate) == 6);
        let (message, values) = rig.report(DiagnosticLevel::Error);
        assert!(message.contains(words), "{message}");
        assert_eq!(values[fate.counter()], "6");
        // Intrinsics at last: the node goes on.
        (rig.input)(camera_info(K, 8));
        rig.send(6..11);
        rig.wait("answer", |s| s.windows_answered == 1);
        let (finished, outputs) = rig.finish();
        assert_eq!(finished.unwrap().frames_used(), 5);
        assert_eq!(outputs.trajectories.len(), 1);
    }
}

#[test]
fn images_that_cannot_be_decoded_are_dropped_and_the_node_goes_on() {
    let rig = ready(1, 5, None);
    let bad = |payload| Input::Image(ImageMessage { stamp: Stamp::from_nanos(1), frame_id: "optical".into(), payload });
    let raw = |encoding: &str, step: u32, length: usize| ImagePayload::Raw {
        width: 8,
        height: 6,
        encoding: encoding.to_owned(),
        is_bigendian: false,
        step,
        data: vec![0; length],
    };
    let jpeg = || {
        let mut bytes = std::io::Cursor::new(Vec::new());
        RgbImage::new(8, 6).write_to(&mut bytes, image::ImageFormat::Jpeg).unwrap();
        bytes.into_inner()
    };
    let mut truncated = jpeg();
    truncated.truncate(truncated.len() - 20);
    let compressed = |data| ImagePayload::Compressed { format: "jpeg".to_owned(), data };
    (rig.input)(bad(raw("32FC1", 32, 192)));
    (rig.input)(bad(raw("mono8", 8, 47)));
    (rig.input)(bad(raw("mono8", 7, 42)));
    (rig.input)(bad(compressed(truncated)));
    rig.wait("dropped", |s| s.fate(Fate::Decode) == 4);

    // Found out only by decoding: the window goes, the next one comes.
    rig.send(1..3);
    let mut broken = jpeg();
    let scan = broken.windows(2).position(|w| w == [0xff, 0xda]).unwrap();
    let huffman = broken.windows(2).position(|w| w == [0xff, 0xc4]).unwrap();
    broken[huffman + 5..scan].fill(0xff);
    let payload = compressed(broken);
    let stamp = Stamp::from_nanos(3 * PERIOD);
    (rig.input)(Input::Image(ImageMessage { stamp, frame_id: "optical".to_owned(), payload }));
    rig.send(4..6);
    rig.wait("broken", |s| s.windows_broken == 1 || s.fate(Fate::Decode) == 5);
    rig.send(6..11);
    rig.wait("answer", |s| s.windows_answered >= 1);
    let (finished, outputs) = rig.finish();
    let s = finished.unwrap();
    assert_eq!(s.fate(Fate::Decode), 5);
    assert!(!outputs.trajectories.is_empty());
}

/// The model refuses images whose first pixel is white. P moves that pixel to where the lens shows nothing, so that a
/// rectified image is black there.
#[test]
fn images_of_a_lens_with_distortion_reach_the_model_rectified() {
    let rig = rig(settings(1, 1), None, Box::new(|_| parsed()));
    (rig.input)(Input::CameraInfo(CameraInfoMessage {
        width: 8,
        height: 6,
        distortion_model: "plumb_bob".to_owned(),
        d: vec![1e-3, 0.0, 0.0, 0.0],
        k: K,
        p: [9.0, 0.0, 5.0, 0.0, 0.0, 9.0, 3.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        ..CameraInfoMessage::default()
    }));
    for i in 0..5 {
        (rig.input)(grey(i * PERIOD, 255));
    }
    rig.wait("answer", |s| s.windows_answered == 1);
    let (finished, _) = rig.finish();
    assert_eq!(finished.unwrap().frames_used(), 5);
}

#[test]
fn an_image_that_the_model_cannot_read_costs_its_windows_only() {
    let rig = ready(1, 5, None);
    rig.send(0..4);
    (rig.input)(grey(4 * PERIOD, 255));
    rig.wait("broken", |s| s.windows_broken == 1);
    rig.send(5..10);
    rig.wait("answer", |s| s.windows_answered == 1);
    let (finished, outputs) = rig.finish();
    let s = finished.unwrap();
    assert_eq!((s.frames_used(), s.fate(Fate::Decode), s.fate(Fate::BrokenWindow)), (5, 1, 4));
    assert_eq!(outputs.trajectories.len(), 1);
}

#[test]
fn another_resolution_starts_the_window_afresh_and_counts_what_it_drops() {
    let rig = ready(1, 1, None);
    rig.send(0..3);
    // The camera goes on with twice the columns and the intrinsics for them.
    (rig.input)(camera_info([18.0, 0.0, 8.0, 0.0, 9.0, 3.0, 0.0, 0.0, 1.0], 16));
    for i in 3..8 {
        let payload = ImagePayload::Raw {
            width: 16,
            height: 6,
            encoding: "mono8".to_owned(),
            is_bigendian: false,
            step: 16,
            data: vec![i as u8; 16 * 6],
        };
        let stamp = Stamp::from_nanos(i * PERIOD);
        (rig.input)(Input::Image(ImageMessage { stamp, frame_id: "optical".to_owned(), payload }));
    }
    rig.wait("window", |s| s.windows_answered == 1);
    let (finished, outputs) = rig.finish();
    let s = finished.unwrap();
    assert_eq!((s.frames_received, s.frames_used(), s.fate(Fate::CameraChanged)), (8, 5, 3));
    let stamps: Vec<i64> = outputs.trajectories[0].poses.iter().map(|p| p.stamp.nanos / PERIOD).collect();
    assert_eq!(stamps, [3, 4, 5, 6, 7], "no window mixes two grids");
}

/// Where wheels say that the robot is, along their x.
fn wheels(nanos: i64, metres: f64) -> Input {
    let stamp = Stamp::from_nanos(nanos);
    let pose = StampedPose { stamp, position: [metres, 0.0, 0.0], orientation_xyzw: [0.0, 0.0, 0.0, 1.0] };
    let (frame_id, child_frame_id) = ("wheels".to_owned(), "base_link".to_owned());
    Input::Odometry(OdometryMessage { frame_id, child_frame_id, pose, pose_covariance: [0.0; 36] })
}

#[test]
fn poses_of_weights_that_are_not_metric_wait_for_a_scale_and_come_out_in_metres() {
    let mut settings = settings(1, 4);
    settings.scale = ScaleRules::Measured { least_motion_metres: 0.05, windows: 5 };
    let rig = rig(settings, None, Box::new(|_| parsed()));
    (rig.input)(camera_info(K, 8));
    // The wheels stand for a window, and then go 0.25 m a frame, which the model calls 0.1.
    for window in 0..6_i64 {
        let frames = if window == 0 { 0..5 } else { 4 * window + 1..4 * window + 5 };
        for i in frames {
            (rig.input)(wheels(i * PERIOD, 0.25 * (i - 4).max(0) as f64));
            rig.send(i..i + 1);
        }
        rig.wait("answer", |s| s.windows_answered as i64 == window + 1);
        if window == 0 {
            let (message, values) = rig.report(DiagnosticLevel::Warn);
            assert!(
                message.contains("DEGRADED: waiting for the scale from /wheels: 0 of 3") && message.contains("motion"),
                "{message}"
            );
            assert_eq!((values["scale"].as_str(), values["status"].as_str()), ("unknown", "DEGRADED"));
            (rig.input)(wheels(5 * PERIOD, f64::NAN));
            (rig.input)(wheels(2 * PERIOD, 7.0));
        }
    }
    let (finished, outputs) = rig.finish();
    let s = finished.unwrap();
    assert_eq!((s.windows_unscaled, s.windows_degraded, s.windows_withheld, s.odometry_breaks), (3, 0, 0, 0));
    assert_eq!((s.odometry_received, s.odometry_refused), (25 + 2, 2));
    assert_eq!((s.scale.to_string().as_str(), s.status.to_string().as_str()), ("2.5000", "OK"));
    let starts: Vec<i64> = outputs.trajectories.iter().map(|t| t.stamp.nanos / PERIOD).collect();
    assert_eq!(starts, [12, 16, 20]);
    assert!(outputs.trajectories.iter().all(|t| (t.poses[4].position[2] - 1.0).abs() < 1e-9));
    assert_eq!(outputs.odometries.len(), 13);
    let last = &outputs.odometries[12].pose;
    assert!((last.position[2] - 3.0).abs() < 1e-9, "{last:?}");
    // 0.5 units of the weights.
    assert!((outputs.odometries[0].pose_covariance[14] - 1.25_f64.powi(2)).abs() < 1e-9);
}

#[test]
fn weights_of_no_known_scale_are_published_as_such() {
    let mut settings = settings(1, 4);
    settings.scale = ScaleRules::Arbitrary;
    let rig = rig(settings, None, Box::new(|_| parsed()));
    (rig.input)(camera_info(K, 8));
    rig.send(0..5);
    rig.wait("answer", |s| s.windows_answered == 1);
    assert_eq!(rig.report(DiagnosticLevel::Ok).1["scale"], "arbitrary");
    let (finished, _) = rig.finish();
    assert_eq!(finished.unwrap().windows_unscaled, 0);
}

#[test]
fn the_odometry_says_in_its_covariance_that_a_window_was_lost() {
    // Of windows that share one frame each, the second does not parse: how the camera moved in it is not known.
    let behaviour: Behaviour = Box::new(|n| {
        if n == 1 {
            let trajectory = Err("no block".to_owned());
            return Ok(Estimate { text: "?".to_owned(), tokens: 1, trajectory, ..parsed()? });
        }
        parsed()
    });
    let rig = rig(settings(1, 4), None, behaviour);
    (rig.input)(camera_info(K, 8));
    for window in 0..3 {
        rig.send(if window == 0 { 0..5 } else { 4 * window + 1..4 * window + 5 });
        rig.wait("window", |s| s.windows_answered as i64 == window + 1);
    }
    let (finished, outputs) = rig.finish();
    assert_eq!(finished.unwrap().odometry_breaks, 1);
    // Along the way: 0.5 m of each window, 2 m of the break.
    let variances: Vec<f64> = outputs.odometries.iter().map(|o| o.pose_covariance[14]).collect();
    assert_eq!(variances.len(), 10);
    assert!(variances[..5].iter().all(|v| (v - 0.25).abs() < 1e-9), "{variances:?}");
    assert!(variances[5..].iter().all(|v| (v - 4.5).abs() < 1e-9), "{variances:?}");
}

#[test]
fn a_lost_node_is_silent_says_why_and_comes_back_by_itself() {
    let behaviour: Behaviour = Box::new(|n| {
        let mut estimate = parsed()?;
        if (1..5).contains(&n) {
            estimate.trajectory = Err("no complete <poses> block".to_owned());
        }
        Ok(estimate)
    });
    let rig = rig(settings(1, 4), None, behaviour);
    (rig.input)(camera_info(K, 8));
    rig.send(0..1);
    let answer = |n: i64| {
        rig.send(n * 4 + 1..n * 4 + 5);
        rig.wait("answer", |s| s.windows_answered as i64 == n + 1);
    };
    (0..5).for_each(answer);
    // What was there before the report is passed over with it.
    let message = loop {
        let (message, values) = rig.report(DiagnosticLevel::Error);
        if values["status"] == "LOST" {
            break message;
        }
    };
    assert!(message.starts_with("LOST") && message.contains("no complete <poses> block"), "{message}");
    (5..7).for_each(answer);
    let (finished, outputs) = rig.finish();
    let s = finished.unwrap();
    assert_eq!((s.answers_unparsed, s.windows_withheld, s.losses, s.recoveries), (4, 1, 1, 1));
    assert_eq!(s.odometry_breaks, 1);
    let starts: Vec<i64> = outputs.trajectories.iter().map(|t| t.stamp.nanos / PERIOD).collect();
    assert_eq!(starts, [24], "the first good window behind LOST is not yet believed");
    assert_eq!(outputs.odometries.len(), 5);
}

#[test]
fn stamps_that_go_back_are_counted_and_a_log_that_loops_starts_over() {
    let rig = ready(1, 5, None);
    rig.send(0..5);
    rig.send(4..5); // again
    rig.send(3..4); // late
    rig.wait("first window", |s| s.windows_answered == 1 && s.fate(Fate::Backward) == 1);
    rig.send(5..7);
    rig.send(20..22); // silence
    rig.send(0..5); // from the start
    rig.wait("second window", |s| s.windows_answered == 2);
    let (finished, outputs) = rig.finish();
    let s = finished.unwrap();
    assert_eq!((s.fate(Fate::Repeated), s.fate(Fate::Backward)), (1, 1));
    assert_eq!((s.fate(Fate::GapReset), s.fate(Fate::ClockReset), s.frames_used()), (2, 2, 10));
    assert_eq!(s.odometry_breaks, 1);
    let stamps: Vec<i64> = outputs.odometries.iter().map(|o| o.pose.stamp.nanos / PERIOD).collect();
    assert_eq!(stamps, [0, 1, 2, 3, 4, 0, 1, 2, 3, 4], "the odometry starts over too");
}

#[test]
fn answers_that_do_not_parse_or_are_absurd_are_counted_and_never_published() {
    let behaviour: Behaviour = Box::new(|n| {
        let mut estimate = parsed()?;
        match n {
            1 => estimate.trajectory = Err("no complete <poses> block".to_owned()),
            2 => estimate.trajectory = Ok(walk().scaled(1e3)),
            3 => estimate.trajectory = Ok(walk().scaled(f64::NAN)),
            _ => {}
        }
        Ok(estimate)
    });
    let rig = rig(settings(1, 4), None, behaviour);
    (rig.input)(camera_info(K, 8));
    rig.send(0..1);
    for n in 0..5 {
        rig.send(n * 4 + 1..n * 4 + 5);
        rig.wait("answer", |s| s.windows_answered as i64 == n + 1);
    }
    let (finished, outputs) = rig.finish();
    let s = finished.unwrap();
    assert_eq!((s.windows_answered, s.answers_unparsed, s.frames_used()), (5, 3, 21));
    assert_eq!(s.odometry_breaks, 1, "what the lost answers would have said is missing");
    let starts: Vec<i64> = outputs.trajectories.iter().map(|t| t.stamp.nanos / PERIOD).collect();
    assert_eq!(starts, [0, 16]);
    assert!(outputs.odometries.iter().all(|o| o.pose.position.iter().all(|v| v.abs() < 1.0)));
}

#[test]
fn a_failing_model_ends_the_node_with_a_report() {
    for (behaviour, words) in [
        (Box::new(|_| Err(Error::Other("out of memory".to_owned()))) as Behaviour, "out of memory"),
        (
            Box::new(|_| -> Result<Estimate, Error> { panic!("index out of bounds") }) as Behaviour,
            "panicked: index out of bounds",
        ),
    ] {
        let rig = rig(settings(1, 1), None, behaviour);
        (rig.input)(camera_info(K, 8));
        rig.send(0..5);
        // As a transport would: waits for the output to hang up, while images keep coming.
        let outputs = Outputs::collect(&rig.output);
        rig.send(5..10);
        let (level, message, _) = outputs.diagnostics.last().expect("a last report");
        assert_eq!(*level, DiagnosticLevel::Error);
        assert!(message.contains("the node stops") && message.contains(words), "{message}");
        assert!(outputs.trajectories.is_empty());
        let (finished, _) = rig.finish();
        let failure = finished.unwrap_err().to_string();
        assert!(failure.contains("inference") && failure.contains(words), "{failure}");
    }
}

#[test]
fn the_callback_never_blocks_and_every_frame_of_a_flood_is_counted() {
    let (open, gate) = gate();
    let mut settings = settings(1, 1);
    settings.queue_depth = 2;
    let rig = rig(settings, gate, Box::new(|_| parsed()));
    (rig.input)(camera_info(K, 8));
    let begun = Instant::now();
    rig.send(0..250);
    assert!(begun.elapsed() < Duration::from_secs(5));
    // At most two in the queue, five in the buffer, in the waiting window and with the model each.
    rig.wait("received", |s| s.frames_received == 250 && s.frames_pending <= 2 + 3 * 5);
    drop(open);
    let (finished, _) = rig.finish();
    assert_eq!(finished.unwrap().frames_received, 250);
}

#[test]
fn a_stop_ends_everything_at_once_even_while_the_model_is_busy() {
    let (open, gate) = gate();
    let rig = ready(1, 1, gate);
    rig.send(0..8);
    rig.wait("busy", |s| s.encode_cache_misses == 5);
    rig.stop.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    let Rig { pipeline, input, .. } = rig;
    drop(input);
    assert!(pipeline.finish(Duration::from_millis(300)).is_ok(), "left behind, not a failure");
    assert!(begun.elapsed() < Duration::from_secs(2));
    drop(open);

    // A model that notices the flag: its half answer is thrown away.
    let (open, gate) = self::gate();
    let rig = ready(1, 1, gate);
    rig.send(0..5);
    rig.wait("busy", |s| s.encode_cache_misses == 5);
    rig.stop.store(true, Ordering::SeqCst);
    open.send(()).unwrap();
    let (finished, outputs) = rig.finish();
    let s = finished.unwrap();
    assert_eq!((s.windows_answered, s.fate(Fate::Shutdown)), (0, 5));
    assert!(outputs.trajectories.is_empty());
}

#[test]
fn reports_come_in_their_rhythm_with_all_counters() {
    let rig = ready(1, 4, None);
    rig.send(0..5);
    rig.wait("answer", |s| s.windows_answered == 1);
    rig.report(DiagnosticLevel::Ok);
    rig.report(DiagnosticLevel::Ok);
    let (_, values) = rig.report(DiagnosticLevel::Ok);
    for key in ["frames_received", "frames_used", "frames_pending", "latency_ms_median", "latency_ms_max"] {
        assert!(values.contains_key(key), "{key}");
    }
    assert_eq!(values["frames_received"], "5");
    assert_eq!(values["encode_cache_misses"], "5");
    assert!(rig.finish().0.is_ok());
}
