//! What the node records is what training reads, and reads as the node did.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use camera::message::{CameraInfoMessage, ImageMessage, ImagePayload};
use camera::recording::{Entry, FileWriter};
use geometry::{Intrinsics, Stamp, Transform, WINDOW, WindowTrajectory};
use image::RgbImage;
use nalgebra::{Isometry3, Vector3};
use node::config::Config;
use node::pipeline::{Pipeline, Settings};
use node::ros::message::{Input, OdometryMessage, Output, StampedPose};
use node::ros::transport::Ends;
use node::solve::estimator::{Error, Estimate, Estimator, Work};
use node::tools::recording::{Recorder, entry_of_input, entry_of_output};
use node::window::{View, WindowBuffer};
use training_data::formats::{self, Ros2Options};
use training_data::stage::windows::Entry as Listed;

const FRAMES: i64 = 6;
const PERIOD: i64 = 100_000_000;
const START: i64 = 1_700_000_000_000_000_000;
const SIZE: (u32, u32) = (16, 8);

/// The pixels of frame `i`, row after row.
fn pixels(i: i64) -> Vec<u8> {
    (0..SIZE.0 * SIZE.1 * 3).map(|k| (k + 17 * i as u32) as u8).collect()
}

/// Walks to the right and turns about the vertical.
fn pose(i: i64) -> StampedPose {
    let half = 0.05 * i as f64;
    StampedPose {
        stamp: Stamp::from_nanos(START + i * PERIOD),
        position: [0.25 * i as f64, 0.0, 0.0],
        orientation_xyzw: [0.0, half.sin(), 0.0, half.cos()],
    }
}

#[test]
fn training_reads_what_the_node_records() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("drive.mcap");
    let shipped = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/node.toml");
    let config = Config::load(&shipped, &[]).unwrap();
    let mut writer = FileWriter::create(&path).unwrap();
    let mut put = |entry: Entry| writer.write(&entry).unwrap();
    for i in 0..FRAMES {
        let stamp = Stamp::from_nanos(START + i * PERIOD);
        let heard = Stamp::from_nanos(stamp.nanos + 7_000_000);
        let frame_id = "camera_optical_frame".to_owned();
        let info = CameraInfoMessage {
            stamp,
            frame_id: frame_id.clone(),
            width: SIZE.0,
            height: SIZE.1,
            distortion_model: "plumb_bob".to_owned(),
            k: [12.0, 0.0, 7.5, 0.0, 13.0, 3.5, 0.0, 0.0, 1.0],
            ..CameraInfoMessage::default()
        };
        put(entry_of_input(&Input::CameraInfo(info), &config.topics, heard));
        let payload = ImagePayload::Raw {
            width: SIZE.0,
            height: SIZE.1,
            encoding: "rgb8".to_owned(),
            is_bigendian: false,
            step: SIZE.0 * 3,
            data: pixels(i),
        };
        let image = ImageMessage { stamp, frame_id: frame_id.clone(), payload };
        put(entry_of_input(&Input::Image(image), &config.topics, heard));
        let odometry = OdometryMessage {
            frame_id: "odom".to_owned(),
            child_frame_id: frame_id,
            pose: pose(i),
            pose_covariance: [0.0; 36],
        };
        put(entry_of_output(&Output::Odometry(odometry), &config.topics.resolved().unwrap(), heard).unwrap());
    }
    writer.finish().unwrap();

    // What the node said is taken for the truth where it is asked for, and not else.
    let error = formats::open(&path).unwrap_err().to_string();
    assert!(error.contains("beside /ego/odometry, which our node has said itself (pose_topic=NAME"), "{error}");
    let asked = Ros2Options { pose_topic: Some("/ego/odometry".to_owned()), ..Ros2Options::default() };
    let opened = formats::open_ros2(&path, &asked).unwrap();
    assert!(opened.skipped.is_empty(), "{:?}", opened.skipped);
    let [sequence] = &opened.sequences[..] else { panic!("{} sequences", opened.sequences.len()) };
    assert_eq!((sequence.frames() as i64, sequence.metric()), (FRAMES, true));
    let k = sequence.intrinsics();
    assert_eq!((k.width, k.height), SIZE);
    assert!((k.fx - 12.0).abs() + (k.fy - 13.0).abs() + (k.cx - 7.5).abs() + (k.cy - 3.5).abs() < 1e-12);
    for (i, index) in (0..FRAMES).zip(0..) {
        let expected = pose(i);
        assert_eq!(sequence.stamps()[index], expected.stamp);
        assert_eq!(sequence.load_image(index).unwrap().as_raw(), &pixels(i), "frame {i}");
        let got = sequence.world_from_camera(index).unwrap();
        let [x, y, z] = expected.position;
        let far = (got.translation().x - x).hypot(got.translation().y - y).hypot(got.translation().z - z);
        let turned = got.rotation().angle() - 0.1 * i as f64;
        assert!(far < 1e-9 && turned.abs() < 1e-9, "frame {i}: {far} and {turned}");
    }
}

const TIMEOUT: Duration = Duration::from_secs(60);

/// What a model was given.
type Given = Arc<Mutex<Vec<(RgbImage, Intrinsics)>>>;

/// Keeps what it is given, and answers that the camera walks.
struct Witness(Given);

impl Estimator for Witness {
    type Frame = ();

    fn encode(&mut self, image: &RgbImage, intrinsics: &Intrinsics) -> Result<(), Error> {
        self.0.lock().unwrap().push((image.clone(), *intrinsics));
        Ok(())
    }

    fn estimate(&mut self, _: [&(); 5]) -> Result<Estimate, Error> {
        let pose = |i: usize| {
            Transform::from_isometry_unchecked(Isometry3::new(Vector3::z() * (0.1 * i as f64), Vector3::zeros()))
        };
        let trajectory = Ok(WindowTrajectory::from_world(&std::array::from_fn(pose)));
        Ok(Estimate {
            text: "poses".to_owned(),
            tokens: 1,
            filled: 0,
            work: Work::default(),
            by_program: Vec::new(),
            trajectory,
            grid: None,
            position_stddev: None,
        })
    }
}

/// A fisheye's word about itself.
fn fisheye() -> CameraInfoMessage {
    CameraInfoMessage {
        frame_id: "camera_optical_frame".to_owned(),
        width: 64,
        height: 48,
        distortion_model: "equidistant".to_owned(),
        d: vec![-0.02, 0.01, -0.004, 0.0006],
        k: [30.0, 0.0, 31.0, 0.0, 30.5, 23.0, 0.0, 0.0, 1.0],
        ..CameraInfoMessage::default()
    }
}

/// Lumas and chromas of a frame, no two frames alike.
fn nv12(i: i64) -> ImagePayload {
    let mut state = i as u32 + 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let data = (0..64 * 72).map(|_| next()).collect();
    let (width, height, step) = (64, 48, 64);
    ImagePayload::Raw { width, height, encoding: "nv12".to_owned(), is_bigendian: false, step, data }
}

/// What the node made of a drive: the numbers of the frames of each window, and what the model was given for a frame.
struct Drive {
    stamps: Vec<Stamp>,
    windows: Vec<[usize; WINDOW]>,
    given: BTreeMap<usize, (RgbImage, Intrinsics)>,
}

impl Drive {
    /// Holds a window that training reads against these frames of the node's, to the bit.
    fn check(&self, window: &Listed, frames: [usize; WINDOW]) {
        for ((frame, stamp), file) in frames.into_iter().zip(window.stamps).zip(&window.frames) {
            let off = Stamp::from_seconds_f64(stamp).nanos_since(self.stamps[frame]);
            assert!(off.abs() < 1000, "frame {frame}: {off} ns");
            let (image, k) = &self.given[&frame];
            let read = image::open(file).unwrap().into_rgb8();
            assert_eq!(&read, image, "frame {frame}: pixels");
            let read = &window.intrinsics;
            for (key, got, expected) in
                [("fx", read.fx, k.fx), ("fy", read.fy, k.fy), ("cx", read.cx, k.cx), ("cy", read.cy, k.cy)]
            {
                assert_eq!(got.to_bits(), expected.to_bits(), "frame {frame}: {key}");
            }
            assert_eq!(read.width, k.width);
        }
    }
}

/// Runs the node over a drive as `node record` does, with an image at each of the stamps.
fn record(path: &std::path::Path, stamps: Vec<Stamp>, overrides: &[(&str, &str)]) -> Drive {
    let shipped = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/node.toml");
    let overrides: Vec<_> = overrides.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let (sheet, config) = node::config::Sheet::load(&shipped, &overrides).unwrap();
    let (given, stop) = (Given::default(), Arc::new(AtomicBool::new(false)));
    let witness = Arc::clone(&given);
    let load = move |_| Ok(Witness(Arc::clone(&witness)));
    let mut recorder = Recorder::create(path, &config.topics.resolved().unwrap()).unwrap();
    let (pipeline, ends) = Pipeline::start(Settings::from(&config), sheet, load, stop).unwrap();
    let Ends { input, output, call, graph, stop, .. } = recorder.tap(ends).unwrap();
    let wait = |what: &str, until: &dyn Fn(&node::status::counters::Snapshot) -> bool| {
        let begun = Instant::now();
        while !until(&pipeline.stats().snapshot()) {
            let counters = pipeline.stats().snapshot().counters();
            assert!(begun.elapsed() < TIMEOUT, "{what}: {counters:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    wait("active", &|s| s.lifecycle == node::ros::lifecycle::State::Active);
    input(Input::CameraInfo(fisheye()));
    let intrinsics = Intrinsics::new(30.0, 30.0, 31.0, 23.0, 64, 48).unwrap();
    let view = View { frame_id: "camera_optical_frame".into(), intrinsics };
    let (mut buffer, mut windows) = (WindowBuffer::new(config.window), Vec::new());
    for (number, stamp) in stamps.iter().copied().enumerate() {
        let frame_id = "camera_optical_frame".to_owned();
        input(Input::Image(ImageMessage { stamp, frame_id, payload: nv12(number as i64) }));
        windows.extend(buffer.push(stamp, &view, number).window.map(|window| window.frames));
        // No window gives way to a newer one.
        wait("window", &|s| s.windows_answered as usize == windows.len());
    }
    drop((input, call, graph, stop));
    pipeline.finish(TIMEOUT).unwrap();
    drop(output);
    assert_eq!(recorder.finish(TIMEOUT).unwrap().lost, 0);
    let given = Arc::into_inner(given).unwrap().into_inner().unwrap();
    // Each frame is encoded once, with its first window.
    let read: BTreeSet<usize> = windows.iter().flatten().copied().collect();
    assert_eq!(given.len(), read.len());
    Drive { stamps, windows, given: read.into_iter().zip(given).collect() }
}

#[test]
fn windows_of_a_drive_through_a_fisheye_in_yuv_are_what_the_node_gave_its_model() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("drive.mcap");
    let stamps = (0..9).map(|i| Stamp::from_nanos(START + i * PERIOD)).collect();
    let drive = record(&path, stamps, &[]);
    assert_eq!(drive.given.len(), 9);
    let raw = fisheye();
    assert!(drive.given.values().all(|(_, k)| k.fx.to_bits() != raw.k[0].to_bits()), "the lens is in the way");
    let out = dir.path().join("windows");
    let list =
        training_data::stage::windows::run(&format!("{},pose_topic=/ego/odometry", path.display()), &out).unwrap();
    assert!(list.unreadable.is_empty(), "{list:?}");
    assert_eq!(list.windows.len(), 5);
    for (first, window) in list.windows.iter().enumerate() {
        drive.check(window, std::array::from_fn(|i| first + i));
    }
}

#[test]
fn windows_a_time_apart_are_the_same_for_the_node_and_for_training() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("drive.mcap");
    // At 30 Hz, 4 ms early or late, and some are lost.
    let came = (0..50_i64).filter(|i| ![7, 20, 21, 33].contains(i));
    let stamps = came.map(|i| Stamp::from_nanos(START + i * 33_333_333 + (i * 7 % 5 - 2) * 2_000_000)).collect();
    // Noise has nothing to track, and without a pose it is no frame for training.
    // Frames come as fast as they are made, and none is lost for that.
    let settings = [
        ("window.period_millis", "100"),
        ("window.hop", "2"),
        ("odometry.most_coast_millis", "60000"),
        ("topics.image_queue_depth", "100"),
    ];
    let drive = record(&path, stamps, &settings);
    assert!(drive.windows.len() >= 5, "{:?}", drive.windows);
    assert!(
        drive.windows.iter().flatten().any(|frame| frame % 3 != 0),
        "no stride in frames does: {:?}",
        drive.windows
    );
    let out = dir.path().join("windows");
    let source = format!("{},pose_topic=/ego/odometry,period_millis=100,every=2", path.display());
    let list = training_data::stage::windows::run(&source, &out).unwrap();
    assert!(list.unreadable.is_empty(), "{list:?}");
    assert_eq!(list.windows.len(), drive.windows.len());
    for (window, frames) in list.windows.iter().zip(&drive.windows) {
        drive.check(window, *frames);
    }
}
