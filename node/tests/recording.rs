//! What is recorded comes back, is played to the same poses, and survives what happens to files.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufWriter;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use camera::message::{CameraInfoMessage, ImageMessage, ImagePayload};
use camera::optics::UseFixed;
use camera::recording::{Entry, Writer};
use geometry::{Intrinsics, Stamp, Transform, WindowTrajectory};
use image::RgbImage;
use mcap::MessageStream;
use mcap::records::MessageHeader;
use nalgebra::{Isometry3, Vector3};
use node::config::{Config, OdometrySource, ScaleRules};
use node::pipeline::{Pipeline, Settings};
use node::ros::lifecycle::State;
use node::ros::message::{Input, OdometryMessage, StampedPose};
use node::ros::transport::{Ends, Topics};
use node::solve::estimator::{Error, Estimate, Estimator};
use node::tools::recording::{Recorder, Recording, entry_of_input};
use node::tools::replay;
use node::tools::replay::recording::{Node, Played};

#[expect(dead_code, reason = "the tests of the pipeline use the rest")]
mod rig;
use rig::{K, PERIOD, Rig, TIMEOUT, camera_info, grey, parsed, settings, sheet};

/// Those of the shipped config.
fn topics() -> Topics {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/node.toml");
    let topics = Config::load(&shipped, &[]).unwrap().topics.resolved().unwrap();
    Topics { reference_odometry: Some("/wheels/odometry".to_owned()), ..topics }
}

/// Where a frame of this grey was taken.
fn place(grey: u8) -> Vector3<f64> {
    let way = f64::from(grey);
    Vector3::new(0.02 * way.sin(), 0.0, 0.1 * way)
}

/// Knows where each frame was taken from how grey it is, so that other pixels make other poses.
struct Surveyor;

impl Estimator for Surveyor {
    type Frame = u8;

    fn encode(&mut self, image: &RgbImage, _: &Intrinsics) -> Result<u8, Error> {
        Ok(image.get_pixel(0, 0).0[0])
    }

    fn estimate(&mut self, frames: [&u8; 5]) -> Result<Estimate, Error> {
        let world_from_camera = frames.map(|grey| {
            let turn = Vector3::new(0.0, 0.01 * f64::from(*grey), 0.0);
            Transform::from_isometry_unchecked(Isometry3::new(place(*grey), turn))
        });
        Ok(Estimate { trajectory: Ok(WindowTrajectory::from_world(&world_from_camera)), ..parsed()? })
    }
}

/// A message as the library's own reader finds it.
#[derive(Debug, Clone, PartialEq)]
struct Found {
    topic: String,
    log_time: u64,
    publish_time: u64,
    data: Vec<u8>,
}

fn read(bytes: &[u8]) -> Vec<Found> {
    let messages = MessageStream::new(bytes).unwrap().map(|message| {
        let message = message.unwrap();
        assert_eq!(message.channel.message_encoding, "cdr");
        let schema = message.channel.schema.as_ref().unwrap();
        assert_eq!(schema.encoding, "ros2msg");
        let (log_time, publish_time) = (message.log_time, message.publish_time);
        Found { topic: message.channel.topic.clone(), log_time, publish_time, data: message.data.into_owned() }
    });
    messages.collect()
}

fn of_topic<'a>(messages: &'a [Found], topic: &str) -> Vec<&'a Found> {
    messages.iter().filter(|m| m.topic == topic).collect()
}

/// Topic, stamp and bytes of the poses.
fn poses(messages: &[Found]) -> Vec<(&str, u64, &[u8])> {
    let of_poses = messages.iter().filter(|m| m.topic.starts_with("/ego/"));
    of_poses.map(|m| (m.topic.as_str(), m.publish_time, m.data.as_slice())).collect()
}

/// Records a camera, and a model that keeps up with it.
fn record(file: &Path, frames: i64) {
    let stop = Arc::new(AtomicBool::new(false));
    let mut recorder = Recorder::create(file, &topics()).unwrap();
    let load = |_| Ok(Surveyor);
    let (pipeline, ends) = Pipeline::start(settings(1, 1), sheet(), load, Arc::clone(&stop)).unwrap();
    let Ends { input, call, output, .. } = recorder.tap(ends).unwrap();
    let rig = Rig { pipeline, input, call, output, stop, encoded: Arc::default() };
    rig.wait("active", |s| s.lifecycle == State::Active);
    (rig.input)(camera_info(K, 8));
    for i in 0..frames {
        rig.send(i..i + 1);
        rig.wait("window", |s| s.windows_answered as i64 == (i - 3).max(0));
    }
    let (finished, outputs) = rig.finish();
    finished.unwrap();
    assert_eq!((outputs.trajectories.len() as i64, outputs.odometries.len() as i64), (frames - 4, frames));
    let recorded = recorder.finish(TIMEOUT).unwrap();
    assert_eq!(recorded.lost, 0);
}

/// What a replay writes, and what it says.
fn play(file: &Path) -> Result<(Vec<u8>, Played), replay::Error> {
    play_to(&settings(1, 1), file)
}

fn play_to(settings: &Settings, file: &Path) -> Result<(Vec<u8>, Played), replay::Error> {
    let recording = Recording::open(file)?;
    let topics = topics();
    let camera = recording.camera(&topics, UseFixed::Never)?;
    let stop = AtomicBool::new(false);
    let node = Node { settings, topics: &topics, stop: &stop, echoes: false };
    let mut writer = Writer::new(Vec::new()).unwrap();
    let out = |entry: &Entry| {
        writer.write(entry).unwrap();
        Ok(())
    };
    let played = replay::recording::replay(&camera, Some(Surveyor), node, out, |_| {})?;
    Ok((writer.finish().unwrap(), played))
}

/// A CameraInfo and images, each in a chunk of its own; the images of a file that ends as it should.
fn write(file: &Path, frames: Range<i64>) {
    let mut writer = Writer::new(BufWriter::new(File::create(file).unwrap())).unwrap();
    let inputs = std::iter::once(camera_info(K, 8)).chain(frames.map(|i| grey(i * PERIOD, i as u8)));
    for (i, input) in (0..).zip(inputs) {
        writer.write(&entry_of_input(&input, &topics(), Stamp::from_nanos(1_000_000_000 + i * PERIOD))).unwrap();
        writer.flush().unwrap();
    }
    writer.finish().unwrap();
}

#[test]
fn a_recording_plays_to_the_poses_of_the_live_run_twice_in_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("live.mcap");
    record(&file, 14);
    let live_bytes = std::fs::read(&file).unwrap();
    assert_eq!(&live_bytes[21..25], b"ros2", "the profile");
    let live = read(&live_bytes);
    let images = of_topic(&live, "/camera/image_raw");
    assert_eq!((images.len(), of_topic(&live, "/camera/camera_info").len()), (14, 1));
    assert!(images.iter().zip(0..).all(|(m, i)| m.publish_time as i64 == i * PERIOD), "publish_time is the stamp");
    assert!(images.is_sorted_by_key(|m| m.log_time) && images[0].log_time > 1_600_000_000_000_000_000);

    let (first, played) = play(&file).unwrap();
    let (second, _) = play(&file).unwrap();
    assert!(first == second, "two replays differ");
    assert_eq!(played.notes, [] as [String; 0]);
    assert_eq!((played.evidence.windows, played.evidence.results.len()), (10, 10));
    assert_eq!(played.evidence.results[3].frames, [3, 4, 5, 6, 7]);
    assert!(played.evidence.counters.contains(&("frames_used".to_owned(), 14)));

    let replayed = read(&first);
    assert_eq!(poses(&replayed), poses(&live));
    assert_eq!(poses(&live).len(), 10 + 14);
    // Times are those of the images that completed the windows.
    let windows = of_topic(&replayed, "/ego/trajectory");
    assert!(windows.iter().zip(&images[4..]).all(|(window, image)| window.log_time == image.log_time));
    let reports = of_topic(&replayed, "/diagnostics");
    let last = reports.last().unwrap();
    assert_eq!(last.log_time, images[13].log_time);
    let text = String::from_utf8_lossy(&last.data).into_owned();
    assert!(text.contains("frames_used"), "{text}");
    for key in ["latency_ms", "node_rss_mib", "temperature_"] {
        assert!(!text.contains(key), "{key} is the machine's: {text}");
    }
}

#[test]
fn an_odometry_that_was_recorded_gives_its_scale_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("wheels.mcap");
    let mut writer = Writer::new(BufWriter::new(File::create(&file).unwrap())).unwrap();
    let mut put = |input: &Input, i: i64| {
        writer.write(&entry_of_input(input, &topics(), Stamp::from_nanos(1_000_000_000 + i * PERIOD))).unwrap();
    };
    put(&camera_info(K, 8), 0);
    for i in 0..12_u8 {
        let stamp = Stamp::from_nanos(i64::from(i) * PERIOD);
        let position = (place(i) * 2.0).into();
        put(
            &Input::Odometry(OdometryMessage {
                frame_id: "wheels".to_owned(),
                child_frame_id: "base_link".to_owned(),
                pose: StampedPose { stamp, position, orientation_xyzw: [0.0, 0.0, 0.0, 1.0] },
                pose_covariance: [0.0; 36],
            }),
            i.into(),
        );
        put(&grey(stamp.nanos, i), i.into());
    }
    writer.finish().unwrap();

    let mut settings = settings(1, 1);
    settings.scale = ScaleRules::Measured { least_motion_metres: 0.05, windows: 5 };
    let (first, played) = play_to(&settings, &file).unwrap();
    let (second, _) = play_to(&settings, &file).unwrap();
    assert!(first == second, "two replays differ");
    assert_eq!(played.notes, [] as [String; 0]);
    let counter = |name: &str| played.evidence.counters.iter().find(|(n, _)| n == name).unwrap().1;
    assert_eq!((counter("odometry_received"), counter("odometry_refused"), counter("windows_unscaled")), (12, 0, 2));
    let (_, plain) = play(&file).unwrap();
    for (window, (scaled, plain)) in played.evidence.results.iter().zip(&plain.evidence.results).enumerate() {
        let plain = plain.trajectory.as_ref().unwrap();
        match &scaled.trajectory {
            None => assert!(window < 2, "window {window}: {:?}", scaled.problem),
            Some(scaled) => {
                let [got, wanted] = [scaled, &plain.scaled(2.0)].map(|t| t.anchor_from_camera()[4].translation());
                assert!((got - wanted).norm() < 1e-9, "window {window}: {got} {wanted}");
            }
        }
    }

    // Of a recording without it nothing metric can be said, and that is.
    write(&file, 0..6);
    let (_, silent) = play_to(&settings, &file).unwrap();
    assert_eq!(silent.notes, ["there is no odometry of scale.odometry_topic in the recording"]);
    assert!(silent.evidence.results.iter().all(|window| window.trajectory.is_none()));
}

#[test]
fn a_program_that_was_followed_is_followed_again_and_windows_wait_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("slam.mcap");
    let topics = Topics { followed_odometry: Some("/slam/odometry".to_owned()), ..topics() };
    let mut writer = Writer::new(BufWriter::new(File::create(&file).unwrap())).unwrap();
    let mut put = |input: &Input, i: i64| {
        writer.write(&entry_of_input(input, &topics, Stamp::from_nanos(1_000_000_000 + i * PERIOD))).unwrap();
    };
    let pose = |i: u8| {
        let stamp = Stamp::from_nanos(i64::from(i) * PERIOD);
        let turn = nalgebra::UnitQuaternion::from_scaled_axis(Vector3::new(0.0, 0.01 * f64::from(i), 0.0));
        Input::Followed(OdometryMessage {
            frame_id: "map".to_owned(),
            child_frame_id: "optical".to_owned(),
            pose: StampedPose { stamp, position: (place(i) / 2.0).into(), orientation_xyzw: turn.coords.into() },
            pose_covariance: [0.0; 36],
        })
    };
    put(&camera_info(K, 8), 0);
    for i in 0..12_u8 {
        put(&grey(i64::from(i) * PERIOD, i), i.into());
        // It needs its time.
        if i > 0 {
            put(&pose(i - 1), i.into());
        }
    }
    put(&pose(11), 12);
    writer.finish().unwrap();

    let mut settings = settings(1, 1);
    settings.odometry.source = OdometrySource::Topic;
    settings.scale_topic = String::new();
    let play = || {
        let recording = Recording::open(&file).unwrap();
        let camera = recording.camera(&topics, UseFixed::Never).unwrap();
        let stop = AtomicBool::new(false);
        let node = Node { settings: &settings, topics: &topics, stop: &stop, echoes: false };
        let mut out = Vec::new();
        let each = |entry: &Entry| {
            out.push((entry.topic.clone(), entry.publish_time, entry.data.clone()));
            Ok(())
        };
        let played = replay::recording::replay(&camera, Some(Surveyor), node, each, |_| ()).unwrap();
        (out, played)
    };
    let ((first, played), (second, _)) = (play(), play());
    assert!(first == second, "two replays differ");
    assert_eq!(played.notes, [] as [String; 0]);
    let counter = |name: &str| played.evidence.counters.iter().find(|(n, _)| n == name).unwrap().1;
    assert_eq!((counter("followed_received"), counter("followed_refused")), (12, 0));
    assert_eq!((counter("windows_answered"), counter("windows_compared"), counter("windows_contradicted")), (8, 8, 0));
    assert_eq!(played.evidence.odometry.len(), 12);
    assert_eq!(played.evidence.scale.as_ref().unwrap().0, "model");

    // Of a recording without it nothing can be said, and that is.
    write(&file, 0..6);
    assert_eq!(play().1.notes, ["there is no odometry of odometry.topic in the recording"]);
}

#[test]
fn a_file_has_an_index_and_definitions() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f.mcap");
    write(&file, 0..3);
    let summary = mcap::Summary::read(&std::fs::read(&file).unwrap()).unwrap().unwrap();
    let stats = summary.stats.as_ref().unwrap();
    assert_eq!((stats.message_count, stats.channel_count, stats.chunk_count), (4, 2, 4));
    assert_eq!((stats.message_start_time, stats.message_end_time), (1_000_000_000, 1_300_000_000));
    assert!(summary.chunk_indexes.iter().all(|index| index.message_index_length > 0), "rosbag2 sorts by it");
    let mut names: Vec<&str> = summary.schemas.values().map(|schema| schema.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["sensor_msgs/msg/CameraInfo", "sensor_msgs/msg/Image"]);
    let image = summary.schemas.values().find(|schema| schema.name.ends_with("Image")).unwrap();
    let text = std::str::from_utf8(&image.data).unwrap();
    assert!(text.starts_with("std_msgs/Header header\nuint32 height\n") && text.contains("\nMSG: std_msgs/Header\n"));
}

#[test]
fn a_file_whose_writer_was_killed_holds_every_closed_chunk() {
    let dir = tempfile::tempdir().unwrap();
    let (file, copy) = (dir.path().join("f.mcap"), dir.path().join("copy.mcap"));
    let mut writer = Writer::new(BufWriter::new(File::create(&file).unwrap())).unwrap();
    let image = |i: i64| entry_of_input(&grey(i * PERIOD, i as u8), &topics(), Stamp::from_nanos(i));
    (0..9).for_each(|i| writer.write(&image(i)).unwrap());
    assert_eq!((writer.written(), writer.open_messages()), (0, 9));
    writer.flush().unwrap();
    assert_eq!((writer.written(), writer.open_messages()), (9, 0));
    writer.write(&image(9)).unwrap();
    // A process that is killed leaves what the system has.
    std::fs::copy(&file, &copy).unwrap();
    let recording = Recording::open(&copy).unwrap();
    assert_eq!(recording.damage().len(), 1);
    assert_eq!(recording.camera(&topics(), UseFixed::Always).unwrap().images(), 9);
    writer.finish().unwrap();
    let recording = Recording::open(&file).unwrap();
    assert_eq!(recording.damage(), []);
    assert_eq!(recording.camera(&topics(), UseFixed::Always).unwrap().images(), 10);
}

/// A hundred places of a file, from one of Knuth's generators.
fn places(size: usize) -> impl Iterator<Item = usize> {
    let mut state = 1_u64;
    (0..100).map(move |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % size
    })
}

#[test]
fn a_file_that_is_cut_anywhere_plays_as_far_as_it_goes_or_says_why_not() {
    let dir = tempfile::tempdir().unwrap();
    let (file, cut) = (dir.path().join("whole.mcap"), dir.path().join("cut.mcap"));
    write(&file, 0..30);
    let bytes = std::fs::read(&file).unwrap();
    let (whole, _) = play(&file).unwrap();
    let whole = read(&whole);
    let (mut played, mut refused) = (0, 0);
    for place in places(bytes.len()) {
        std::fs::write(&cut, &bytes[..place]).unwrap();
        match play(&cut) {
            Ok((out, _)) => {
                let (part, whole) = (read(&out), poses(&whole));
                assert!(whole.starts_with(&poses(&part)), "cut at byte {place}");
                played += usize::from(poses(&part).len() < whole.len());
            }
            Err(error) => {
                assert!(error.to_string().contains("cut.mcap"), "{error}");
                refused += 1;
            }
        }
    }
    assert!(played > 20 && refused > 0, "{played} played in part, {refused} refused");
}

#[test]
fn a_file_with_any_byte_changed_is_no_reason_to_panic() {
    let dir = tempfile::tempdir().unwrap();
    let (file, bad) = (dir.path().join("whole.mcap"), dir.path().join("bad.mcap"));
    write(&file, 0..10);
    let bytes = std::fs::read(&file).unwrap();
    for place in places(bytes.len()) {
        let mut changed = bytes.clone();
        changed[place] ^= 0x55;
        std::fs::write(&bad, changed).unwrap();
        let _ = play(&bad);
    }
}

/// A message of a file that the node has not written: topic, type, encoding, bytes.
type Foreign = (&'static str, &'static str, &'static str, Vec<u8>);

fn foreign(file: &Path, messages: &[Foreign]) {
    let mut writer = mcap::Writer::new(BufWriter::new(File::create(file).unwrap())).unwrap();
    for (time, (topic, schema, encoding, data)) in (0..).zip(messages) {
        let schema = writer.add_schema(schema, "ros2msg", b"").unwrap();
        let channel_id = writer.add_channel(schema, topic, encoding, &BTreeMap::new()).unwrap();
        let header = MessageHeader { channel_id, sequence: 0, log_time: time, publish_time: time };
        writer.write_to_known_channel(&header, data).unwrap();
    }
    writer.finish().unwrap();
}

fn cdr(input: &Input) -> Vec<u8> {
    entry_of_input(input, &topics(), Stamp::default()).data
}

const IMAGE: &str = "sensor_msgs/msg/Image";
const INFO: &str = "sensor_msgs/msg/CameraInfo";

#[test]
fn bad_files_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bad.mcap");
    let image = || cdr(&grey(0, 1));
    let depth = || {
        let payload = ImagePayload::Raw {
            width: 2,
            height: 1,
            encoding: "32FC1".to_owned(),
            is_bigendian: false,
            step: 8,
            data: vec![0; 8],
        };
        cdr(&Input::Image(ImageMessage { stamp: Stamp::default(), frame_id: String::new(), payload }))
    };
    let video = || {
        let payload = ImagePayload::Compressed { format: "h264".to_owned(), data: vec![0, 0, 0, 1] };
        cdr(&Input::Image(ImageMessage { stamp: Stamp::default(), frame_id: String::new(), payload }))
    };
    let info = || cdr(&Input::CameraInfo(CameraInfoMessage::default()));
    let rows: [(Vec<Foreign>, &[&str]); 8] = [
        (vec![], &["expected a topic with messages of sensor_msgs/msg/Image", "no messages"]),
        (vec![("/imu", "sensor_msgs/msg/Imu", "cdr", vec![])], &["/imu of sensor_msgs/msg/Imu"]),
        (vec![("/a", IMAGE, "cdr", image()), ("/b", IMAGE, "cdr", image())], &["/a, /b", "--set topics.image=NAME"]),
        (
            vec![("/a", IMAGE, "cdr", image()), ("/i", INFO, "cdr", info()), ("/j", INFO, "cdr", info())],
            &["/i, /j", "--set topics.camera_info=NAME"],
        ),
        (vec![("/a", "sensor_msgs/Image", "ros1", image())], &["/a: expected messages in cdr, got `ros1`"]),
        (vec![("/a", IMAGE, "json", image())], &["/a: expected messages in cdr, got `json`"]),
        (vec![("/depth", IMAGE, "cdr", depth())], &["/depth: encoding: expected one of", "`32FC1`"]),
        (vec![("/v", "sensor_msgs/msg/CompressedImage", "cdr", video())], &["/v: data: expected a JPEG", "h264"]),
    ];
    for (messages, parts) in rows {
        foreign(&file, &messages);
        let error = play(&file).unwrap_err().to_string();
        assert!(error.contains("bad.mcap"), "{error}");
        for part in parts {
            assert!(error.contains(part), "`{part}` is not in: {error}");
        }
    }
    std::fs::write(&file, "a bag of another kind").unwrap();
    assert!(play(&file).unwrap_err().to_string().contains("expected an MCAP file"));
    assert!(play(dir.path()).unwrap_err().to_string().contains(&dir.path().display().to_string()));
}

#[test]
fn the_topic_that_the_config_names_is_played_among_others_and_else_the_only_one() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f.mcap");
    let others = vec![("/other", IMAGE, "cdr", cdr(&grey(0, 1))), ("/other", INFO, "json", vec![])];
    let frames = |topic| (0..5_i64).map(move |i| (topic, IMAGE, "cdr", cdr(&grey(i * PERIOD, i as u8))));
    let info = |topic| (topic, INFO, "cdr", cdr(&camera_info(K, 8)));
    let named: Vec<Foreign> =
        others.into_iter().chain([info("/camera/camera_info")]).chain(frames("/camera/image_raw")).collect();
    let only: Vec<Foreign> = std::iter::once(info("/front/info")).chain(frames("/front/image")).collect();
    for messages in [named, only] {
        foreign(&file, &messages);
        let (_, played) = play(&file).unwrap();
        assert_eq!((played.evidence.windows, &played.notes[..]), (1, &[] as &[String]));
    }
}

#[test]
fn parts_of_a_bag_are_one_recording_in_the_order_of_its_list() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, bag) = (dir.path().join("whole.mcap"), dir.path().join("bag"));
    std::fs::create_dir(&bag).unwrap();
    write(&whole, 0..12);
    // Names sort the other way.
    write(&bag.join("drive_9.mcap"), 0..6);
    write(&bag.join("drive_10.mcap"), 6..12);
    let list = "rosbag2_bagfile_information:\n  storage_identifier: mcap\n  relative_file_paths:\n    - drive_9.mcap\n    - \
                drive_10.mcap\n";
    std::fs::write(bag.join("metadata.yaml"), list).unwrap();
    let ((expected, _), (got, played)) = (play(&whole).unwrap(), play(&bag).unwrap());
    assert_eq!((played.evidence.windows, &played.notes[..]), (8, &[] as &[String]));
    assert_eq!(poses(&read(&got)), poses(&read(&expected)));
}

#[test]
fn one_broken_file_among_images_refuses_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f.mcap");
    let compressed = |i: i64, data: Vec<u8>| {
        let payload = ImagePayload::Compressed { format: "png".to_owned(), data };
        let stamp = Stamp::from_nanos(i * PERIOD);
        let image = Input::Image(ImageMessage { stamp, frame_id: "optical".to_owned(), payload });
        ("/camera/image_raw", "sensor_msgs/msg/CompressedImage", "cdr", cdr(&image))
    };
    let png = |i: i64| {
        let mut data = std::io::Cursor::new(Vec::new());
        let picture = RgbImage::from_fn(8, 6, |x, y| image::Rgb([(9 * x + 7 * y) as u8 + i as u8; 3]));
        picture.write_to(&mut data, image::ImageFormat::Png).unwrap();
        compressed(i, data.into_inner())
    };
    let info = ("/camera/camera_info", INFO, "cdr", cdr(&camera_info(K, 8)));
    let broken = compressed(0, Vec::new());
    let messages: Vec<Foreign> = [info, broken.clone()].into_iter().chain((1..6).map(png)).collect();
    foreign(&file, &messages);
    let (_, played) = play(&file).unwrap();
    let counter = |name: &str| played.evidence.counters.iter().find(|(n, _)| n == name).unwrap().1;
    assert_eq!((played.evidence.windows, counter("frames_dropped_decode")), (1, 1));
    // Where all are of no kind that is read, the topic is refused.
    foreign(&file, &[broken.clone(), broken]);
    assert!(play(&file).unwrap_err().to_string().contains("expected a JPEG or PNG file, got 0 bytes"));
}

#[test]
fn what_is_odd_in_a_recording_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("odd.mcap");
    let at = |i: i64| ("/camera/image_raw", IMAGE, "cdr", cdr(&grey(i * PERIOD, i as u8)));
    let mut broken = at(6);
    broken.3.truncate(30);
    let messages = [vec![at(0), at(1), at(2), at(1), at(1)], vec![broken], (3..8).map(at).collect()].concat();
    foreign(&file, &messages);
    let (_, played) = play(&file).unwrap();
    let counter = |name: &str| played.evidence.counters.iter().find(|(n, _)| n == name).unwrap().1;
    assert_eq!((played.evidence.windows, counter("frames_dropped_no_camera_info")), (0, 10));
    let notes = played.notes.join("\n");
    for part in [
        "2 images of /camera/image_raw do not come after the one before; the first is image 3 at 100000000 ns",
        "1 messages are not what their type says",
        "there is no CameraInfo in the recording",
    ] {
        assert!(notes.contains(part), "`{part}` is not in: {notes}");
    }
}
