//! Recordings of ROS 2: a synthetic film is written as an MCAP file and must come back as it was.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Cursor};
use std::ops::Range;
use std::path::Path;

use camera::cdr::encode;
use camera::decode::{SampleRange, decode};
use camera::message::{CameraInfoMessage, ImagePayload, RegionOfInterest};
use camera::ros::{
    ByteBuf, CameraInfo, CompressedImage, Header, Image, Odometry, Pose, PoseStamped, PoseWithCovariance,
    PoseWithCovarianceStamped, TfMessage, TransformStamped, TwistWithCovariance,
};
use geometry::Stamp;
use mcap::records::{MessageHeader, op};
use mcap::{Compression, WriteOptions, Writer};
use nalgebra::{Isometry3, Translation3, UnitQuaternion, Vector3};
use serde::Serialize;
use training_data::formats::open;
use training_data::synth::{self, SynthSequence};
use training_data::{Error, WindowSource, parse_source};

const FRAMES: usize = 7;
const START: i64 = 1_700_000_000_000_000_000;
const STEP: i64 = 100_000_000;

fn header(nanos: i64, frame_id: &str) -> Header {
    Header::new(Stamp::from_nanos(nanos), frame_id)
}

fn pose(isometry: &Isometry3<f64>) -> Pose {
    let (q, t) = (isometry.rotation, isometry.translation.vector);
    Pose { position: [t.x, t.y, t.z], orientation_xyzw: [q.i, q.j, q.k, q.w] }
}

/// What odometry is off by at a time.
fn drift(at: i64) -> Isometry3<f64> {
    let seconds = (at - START) as f64 * 1e-9;
    Isometry3::new(Vector3::new(0.3 * seconds, -0.1, 0.0), Vector3::new(0.0, 0.0, 0.2))
}

/// A file that is being written.
struct Bag {
    writer: Writer<BufWriter<File>>,
    channels: BTreeMap<String, u16>,
}

impl Bag {
    fn raw(&mut self, schema: &str, topic: &str, nanos: i64, data: &[u8]) {
        let id = match self.channels.get(topic) {
            Some(id) => *id,
            None => {
                let schema = self.writer.add_schema(schema, "ros2msg", b"").unwrap();
                let id = self.writer.add_channel(schema, topic, "cdr", &BTreeMap::new()).unwrap();
                self.channels.insert(topic.to_owned(), id);
                id
            }
        };
        let time = nanos as u64;
        let header = MessageHeader { channel_id: id, sequence: 0, log_time: time, publish_time: time };
        self.writer.write_to_known_channel(&header, data).unwrap();
    }

    fn put<T: Serialize>(&mut self, schema: &str, topic: &str, nanos: i64, message: &T) {
        self.raw(schema, topic, nanos, &encode(message, 0));
    }
}

/// Whose poses there are.
#[derive(Clone, Copy, PartialEq)]
enum Poses {
    /// Of the camera, which the messages name.
    Camera,
    /// Of the base, which the messages name.
    Base,
    /// Of the base, in messages that name the map.
    BaseInMap,
    /// Of the base, by transforms from the map over odom.
    Moving,
}

/// What to write.
#[derive(Clone)]
struct Plan {
    compression: Option<Compression>,
    chunks: bool,
    /// PNG in place of pixels.
    compressed: bool,
    /// Pixels of a sensor of twelve bits, in the low ones of 16.
    deep: bool,
    /// Whether images name no frame.
    nameless: bool,
    poses: Poses,
    /// The file of this image is empty.
    spoiled: Option<usize>,
    /// Encoding, step and bytes in place of the film's pixels.
    pixels: Option<(&'static str, u32, Vec<u8>)>,
    image_topics: Vec<&'static str>,
    /// Width that the camera infos say; none where there are none.
    info_width: Option<u32>,
    info_topics: Vec<&'static str>,
    /// What else they say.
    edit: fn(&mut CameraInfoMessage),
    /// Whether poses that are no odometry have a covariance.
    covariance: bool,
    /// At which frames a planner says where it wants to go.
    goal: Range<usize>,
    /// Whether our node says where the base is in odom, where transforms do too.
    ego: bool,
    d: Vec<f64>,
    pose_topics: Vec<&'static str>,
    /// Whether there are static transforms.
    mounted: bool,
    /// A frame whose message is cut short.
    broken: Option<usize>,
    /// The frame from which on the camera has another focal length.
    zoom_at: Option<usize>,
    /// What is written of the film.
    frames: Range<usize>,
}

impl Plan {
    fn new() -> Self {
        Self {
            compression: None,
            chunks: true,
            compressed: false,
            spoiled: None,
            pixels: None,
            image_topics: vec!["/camera/image"],
            deep: false,
            nameless: false,
            poses: Poses::Camera,
            info_width: Some(64),
            info_topics: vec!["/camera/camera_info"],
            edit: |_| (),
            covariance: false,
            goal: 0..0,
            ego: false,
            d: vec![0.0; 5],
            pose_topics: vec!["/pose"],
            mounted: true,
            broken: None,
            zoom_at: None,
            frames: 0..FRAMES,
        }
    }

    fn write(&self, film: &SynthSequence, path: &Path) {
        let options = WriteOptions::new().compression(self.compression).use_chunks(self.chunks);
        let writer = options.chunk_size(Some(8192)).create(BufWriter::new(File::create(path).unwrap())).unwrap();
        let mut bag = Bag { writer, channels: BTreeMap::new() };
        let optical =
            UnitQuaternion::from_euler_angles(-std::f64::consts::FRAC_PI_2, 0.0, -std::f64::consts::FRAC_PI_2);
        let base_from_link = Isometry3::from_parts(Translation3::new(0.2, -0.1, 0.5), UnitQuaternion::identity());
        let link_from_camera = Isometry3::from_parts(Translation3::new(0.0, 0.01, 0.0), optical);
        let on_base = self.poses != Poses::Camera;
        if on_base && self.mounted {
            let link = |parent: &str, child: &str, isometry| TransformStamped {
                header: header(START, parent),
                child_frame_id: child.to_owned(),
                transform: pose(isometry),
            };
            let first = link("base_link", "camera_link", &base_from_link);
            let second = link("camera_link", "eye", &link_from_camera);
            for transforms in [vec![first], vec![second]] {
                bag.put("tf2_msgs/msg/TFMessage", "/tf_static", START, &TfMessage { transforms });
            }
        }
        for frame in self.frames.clone() {
            let at = START + frame as i64 * STEP;
            let frame_id = if on_base { "eye" } else { "camera_optical_frame" };
            for topic in &self.image_topics {
                let frame_id = if self.nameless { "" } else { frame_id };
                self.write_image(film, frame, header(at, frame_id), topic, &mut bag);
            }
            if let Some(width) = self.info_width {
                let k = &film.intrinsics;
                let fx = if self.zoom_at.is_some_and(|first| frame >= first) { k.fx * 1.5 } else { k.fx };
                let mut info = CameraInfoMessage {
                    stamp: Stamp::from_nanos(at),
                    frame_id: frame_id.to_owned(),
                    height: 48,
                    width,
                    distortion_model: "plumb_bob".to_owned(),
                    d: self.d.clone(),
                    k: [fx, 0.0, k.cx, 0.0, k.fy, k.cy, 0.0, 0.0, 1.0],
                    ..CameraInfoMessage::default()
                };
                (self.edit)(&mut info);
                for topic in &self.info_topics {
                    bag.put("sensor_msgs/msg/CameraInfo", topic, at, &CameraInfo::from(&info));
                }
            }
            if self.goal.contains(&frame) {
                let goal =
                    PoseStamped { header: header(at, "map"), pose: pose(&Isometry3::translation(9.0, 0.0, 0.0)) };
                bag.put("geometry_msgs/msg/PoseStamped", "/goal_pose", at, &goal);
            }
            let world_from_camera = *film.world_from_camera[frame].isometry();
            let body = if on_base {
                world_from_camera * (base_from_link * link_from_camera).inverse()
            } else {
                world_from_camera
            };
            // Two poses around the image, whose middle is the true one.
            for side in [-1.0, 1.0] {
                let turn = UnitQuaternion::from_scaled_axis(Vector3::new(0.01, -0.02, 0.015) * side);
                let shift = Translation3::from(body.translation.vector + Vector3::new(0.03, 0.01, -0.02) * side);
                let near = Isometry3::from_parts(shift, body.rotation * turn);
                self.write_pose(&near, at + (side * 2e7) as i64, &mut bag);
            }
        }
        bag.writer.finish().unwrap();
    }

    fn write_image(&self, film: &SynthSequence, frame: usize, header: Header, topic: &str, bag: &mut Bag) {
        let (image, at) = (&film.images[frame], header.stamp().nanos);
        let topic = &if self.compressed { format!("{topic}/compressed") } else { topic.to_owned() };
        let schema = if self.compressed { "sensor_msgs/msg/CompressedImage" } else { "sensor_msgs/msg/Image" };
        if self.broken == Some(frame) {
            bag.raw(schema, topic, at, &[0, 1, 0, 0, 1, 2, 3]);
        } else if self.compressed {
            let mut png = Cursor::new(Vec::new());
            image.write_to(&mut png, image::ImageFormat::Png).unwrap();
            let format = "rgb8; png compressed bgr8".to_owned();
            let data = if self.spoiled == Some(frame) { Vec::new() } else { png.into_inner() };
            bag.put(schema, topic, at, &CompressedImage { header, format, data: ByteBuf::from(data) });
        } else {
            let padded = |row: &[u8]| [row, &[99; 5]].concat();
            let rows = image.as_raw().chunks(64 * 3);
            let twelve_bits =
                |row: &[u8]| row.iter().flat_map(|value| (u16::from(*value) << 4).to_le_bytes()).collect::<Vec<u8>>();
            let (encoding, step, data) = match self.pixels.clone() {
                Some(pixels) => pixels,
                None if self.deep => ("rgb16", 64 * 6, rows.flat_map(twelve_bits).collect()),
                None => ("rgb8", 64 * 3 + 5, rows.flat_map(padded).collect()),
            };
            let (encoding, data) = (encoding.to_owned(), ByteBuf::from(data));
            let message = Image { header, height: 48, width: 64, encoding, is_bigendian: 0, step, data };
            bag.put(schema, topic, at, &message);
        }
    }

    fn write_odometry(&self, topic: &str, base: &Isometry3<f64>, at: i64, bag: &mut Bag) {
        let message = Odometry {
            header: header(at, "odom"),
            child_frame_id: "base_link".to_owned(),
            pose: PoseWithCovariance { pose: pose(base), covariance: [[0.0; 6]; 6] },
            twist: TwistWithCovariance { linear: [0.0; 3], angular: [0.0; 3], covariance: [[0.0; 6]; 6] },
        };
        bag.put("nav_msgs/msg/Odometry", topic, at, &message);
    }

    fn write_pose(&self, body: &Isometry3<f64>, at: i64, bag: &mut Bag) {
        for topic in &self.pose_topics {
            if self.poses == Poses::Moving {
                // Of the base in odom, which drifts in the map.
                let map_from_odom = drift(at);
                if self.ego {
                    self.write_odometry("/ego/odometry", &(map_from_odom.inverse() * body), at, bag);
                }
                for (parent, child, isometry) in
                    [("odom", "base_link", map_from_odom.inverse() * body), ("map", "odom", map_from_odom)]
                {
                    let (header, child_frame_id) = (header(at, parent), child.to_owned());
                    let transforms = vec![TransformStamped { header, child_frame_id, transform: pose(&isometry) }];
                    bag.put("tf2_msgs/msg/TFMessage", topic, at, &TfMessage { transforms });
                }
            } else if self.poses == Poses::Base {
                self.write_odometry(topic, body, at, bag);
            } else {
                let frame_id = if self.poses == Poses::Camera { "camera_optical_frame" } else { "map" };
                let (header, pose) = (header(at, frame_id), pose(body));
                if self.covariance {
                    let pose = PoseWithCovariance { pose, covariance: [[0.0; 6]; 6] };
                    let message = PoseWithCovarianceStamped { header, pose };
                    bag.put("geometry_msgs/msg/PoseWithCovarianceStamped", topic, at, &message);
                } else {
                    bag.put("geometry_msgs/msg/PoseStamped", topic, at, &PoseStamped { header, pose });
                }
            }
        }
    }
}

fn film() -> SynthSequence {
    synth::sequence(3, 5, FRAMES, (64, 48))
}

fn check(source: &str, film: &SynthSequence, name: &str) {
    let source = parse_source(source).unwrap();
    let WindowSource::Recorded { sequences, skipped, .. } = &source else { panic!("not recorded") };
    assert!(skipped.is_empty() && sequences.len() == 1, "{skipped:?}");
    let sequence = &sequences[0];
    assert_eq!((sequence.frames(), sequence.name(), sequence.source()), (FRAMES, name, "film"));
    assert!(sequence.metric());
    assert_eq!(sequence.intrinsics(), &film.intrinsics);
    assert_eq!(sequence.stamps()[3].nanos, START + 3 * STEP);
    for index in 0..FRAMES {
        let (got, expected) = (sequence.world_from_camera(index).unwrap(), film.world_from_camera[index]);
        assert!((got.translation() - expected.translation()).norm() < 1e-6, "frame {index}");
        assert!((got.rotation_matrix() - expected.rotation_matrix()).norm() < 1e-6, "frame {index}");
        assert!(sequence.load_depth(index).unwrap().is_none());
    }
    assert_eq!(source.len(), 3);
    for window in [2, 0, 1, 2, 0] {
        let sample = source.sample(window).unwrap();
        assert!(sample.frames.is_none());
        assert_eq!(sample.images[..], film.images[window as usize..window as usize + 5], "window {window}");
    }
}

#[test]
fn pixels_with_poses_come_back() {
    let (film, directory) = (film(), tempfile::tempdir().unwrap());
    let path = directory.path().join("film.mcap");
    for compression in [None, Some(Compression::Zstd), Some(Compression::Lz4)] {
        Plan { compression, ..Plan::new() }.write(&film, &path);
        check(&path.display().to_string(), &film, "film-camera-image");
    }
    Plan { chunks: false, ..Plan::new() }.write(&film, &path);
    check(&path.display().to_string(), &film, "film-camera-image");
    Plan { covariance: true, ..Plan::new() }.write(&film, &path);
    check(&path.display().to_string(), &film, "film-camera-image");
}

#[test]
fn pixels_of_twelve_bits_in_sixteen_come_back_as_bright() {
    let (film, directory) = (film(), tempfile::tempdir().unwrap());
    let path = directory.path().join("film.mcap");
    Plan { deep: true, ..Plan::new() }.write(&film, &path);
    check(&path.display().to_string(), &film, "film-camera-image");
}

#[test]
fn images_that_name_no_frame_are_of_that_of_camera_info() {
    let (film, directory) = (film(), tempfile::tempdir().unwrap());
    let path = directory.path().join("film.mcap");
    Plan { nameless: true, poses: Poses::Base, ..Plan::new() }.write(&film, &path);
    check(&path.display().to_string(), &film, "film-camera-image");
}

#[test]
fn compressed_images_with_odometry_come_back_from_a_rosbag() {
    let (film, directory) = (film(), tempfile::tempdir().unwrap());
    let bag = directory.path().join("film");
    fs::create_dir(&bag).unwrap();
    let metadata = |text: &str| fs::write(bag.join("metadata.yaml"), text).unwrap();
    metadata("rosbag2_bagfile_information:\n");
    let empty = open(&bag).unwrap_err().to_string();
    assert!(empty.contains("relative_file_paths"), "{empty}");
    // Split, and in another order than that of the names.
    metadata(
        "rosbag2_bagfile_information:\n  storage_identifier: mcap\n  relative_file_paths:\n    - film_9.mcap\n    - \
         film_10.mcap\n",
    );
    for compression in [None, Some(Compression::Zstd), Some(Compression::Lz4)] {
        let plan = Plan { compression, compressed: true, poses: Poses::Base, ..Plan::new() };
        let first = Plan { frames: 0..3, ..plan.clone() };
        first.write(&film, &bag.join("film_9.mcap"));
        Plan { frames: 3..FRAMES, mounted: false, ..plan }.write(&film, &bag.join("film_10.mcap"));
        check(&bag.display().to_string(), &film, "film-camera-image-compressed");
    }
}

#[test]
fn transforms_that_move_carry_the_camera() {
    let (film, directory) = (film(), tempfile::tempdir().unwrap());
    let path = directory.path().join("film.mcap");
    let plan = Plan { poses: Poses::Moving, pose_topics: vec!["/tf"], ..Plan::new() };
    plan.write(&film, &path);
    for keys in ["", ",pose_topic=/tf"] {
        check(&format!("{}{keys}", path.display()), &film, "film-camera-image");
    }
    let error = parse_source(&format!("{},pose_topic=/odom", path.display())).unwrap_err().to_string();
    assert!(error.contains("poses of /odom"), "{error}");
    Plan { mounted: false, ..plan }.write(&film, &path);
    let error = open(&path).unwrap_err().to_string();
    assert!(error.contains("a topic with poses"), "{error}");
}

#[test]
fn two_trees_of_transforms_are_not_one() {
    let (film, directory) = (film(), tempfile::tempdir().unwrap());
    let path = directory.path().join("film.mcap");
    Plan { poses: Poses::Moving, pose_topics: vec!["/a/tf", "/b/tf"], ..Plan::new() }.write(&film, &path);
    let error = open(&path).unwrap_err().to_string();
    assert!(error.contains("one topic with transforms that move") && error.contains("/a/tf, /b/tf"), "{error}");
    // One of another name is as good as /tf; what its poses are of is not to be chosen.
    Plan { poses: Poses::Moving, pose_topics: vec!["/robot/tf"], ..Plan::new() }.write(&film, &path);
    check(&format!("{},pose_topic=/robot/tf", path.display()), &film, "film-camera-image");
    let error = parse_source(&format!("{},pose_frame=base_link", path.display())).unwrap_err().to_string();
    assert!(error.contains("pose_frame: expected nothing"), "{error}");
}

#[test]
fn the_end_of_a_file_that_is_lost_is_a_gap_in_its_bag() {
    let (film, directory) = (film(), tempfile::tempdir().unwrap());
    let bag = directory.path().join("film");
    fs::create_dir(&bag).unwrap();
    let [first, second] = ["a.mcap", "b.mcap"].map(|name| bag.join(name));
    let list = "rosbag2_bagfile_information:\n  relative_file_paths:\n    - a.mcap\n    - b.mcap\n";
    fs::write(bag.join("metadata.yaml"), list).unwrap();
    let plan = Plan { chunks: false, ..Plan::new() };
    Plan { frames: 0..4, ..plan.clone() }.write(&film, &first);
    Plan { frames: 4..FRAMES, ..plan }.write(&film, &second);
    assert_eq!(open(&bag).unwrap().sequences[0].windows(1).count(), 3);
    // A file that was opened and never written takes nothing from the others.
    let written = fs::read(&second).unwrap();
    fs::write(&second, "").unwrap();
    let opened = open(&bag).unwrap();
    assert_eq!((opened.sequences[0].frames(), opened.skipped.len()), (4, 1), "{opened:?}");
    fs::write(&second, written).unwrap();
    let whole = fs::read(&first).unwrap();
    // Without what stands behind the messages, and most of the last pose.
    fs::write(&first, &whole[..whole.len() * 9 / 10]).unwrap();
    let opened = open(&bag).unwrap();
    let sequence = &opened.sequences[0];
    assert!(sequence.frames() >= 5 && sequence.windows(1).count() == 0, "{} frames", sequence.frames());
    assert_eq!((0..sequence.frames()).filter(|i| sequence.frame(*i).unwrap().gap_before).count(), 1);
}

#[test]
fn an_image_that_comes_twice_is_taken_once() {
    let (film, directory) = (film(), tempfile::tempdir().unwrap());
    let bag = directory.path().join("film");
    fs::create_dir(&bag).unwrap();
    let list = "rosbag2_bagfile_information:\n  relative_file_paths:\n    - a.mcap\n    - b.mcap\n";
    fs::write(bag.join("metadata.yaml"), list).unwrap();
    Plan::new().write(&film, &bag.join("a.mcap"));
    Plan { frames: 0..2, ..Plan::new() }.write(&film, &bag.join("b.mcap"));
    let opened = open(&bag).unwrap();
    assert_eq!(opened.sequences[0].frames(), FRAMES);
    assert_eq!(opened.skipped.len(), 1, "{:?}", opened.skipped);
    assert!(opened.skipped[0].what.contains("2 of 9 frames") && opened.skipped[0].why.contains("stamp"));
}

#[test]
fn what_a_person_can_mend_is_told_before_damage() {
    let (film, directory) = (film(), tempfile::tempdir().unwrap());
    let path = directory.path().join("film.mcap");
    Plan { pose_topics: vec!["/a", "/b"], chunks: false, ..Plan::new() }.write(&film, &path);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let error = open(&path).unwrap_err().to_string();
    assert!(error.contains("pose_topic=NAME"), "{error}");
}

#[test]
fn one_of_several_topics_with_poses_is_named() {
    let (film, directory) = (film(), tempfile::tempdir().unwrap());
    let path = directory.path().join("film.mcap");
    Plan { pose_topics: vec!["/a", "/b"], ..Plan::new() }.write(&film, &path);
    check(&format!("{},pose_topic=/b", path.display()), &film, "film-camera-image");
}

/// Whose word the poses of the only sequence are.
fn truth(source: &str) -> Vec<String> {
    parse_source(source).unwrap().truth()
}

#[test]
fn what_the_node_said_is_no_truth_unless_it_is_asked_for() {
    let (film, directory) = (film(), tempfile::tempdir().unwrap());
    let path = directory.path().join("film.mcap");
    let source = path.display().to_string();
    let plan = Plan { poses: Poses::Base, ..Plan::new() };
    Plan { pose_topics: vec!["/ego/odometry", "/wheel/odom"], ..plan.clone() }.write(&film, &path);
    check(&source, &film, "film-camera-image");
    assert_eq!(truth(&source), ["/wheel/odom"]);
    // Also where the node runs in a namespace, and nobody else has poses.
    Plan { pose_topics: vec!["/robot1/ego/odometry"], ..plan }.write(&film, &path);
    let error = open(&path).unwrap_err().to_string();
    for part in ["beside /robot1/ego/odometry", "our node has said itself", "pose_topic=NAME"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let asked = format!("{source},pose_topic=/robot1/ego/odometry");
    check(&asked, &film, "film-camera-image");
    assert_eq!(truth(&asked), ["/robot1/ego/odometry"]);
}

#[test]
fn transforms_that_the_node_said_are_no_truth_either() {
    let (film, directory) = (film(), tempfile::tempdir().unwrap());
    let path = directory.path().join("film.mcap");
    let plan = Plan { poses: Poses::Moving, pose_topics: vec!["/tf"], ego: true, ..Plan::new() };
    plan.write(&film, &path);
    let error = open(&path).unwrap_err().to_string();
    for part in ["transforms that our node has not said itself", "odom to base_link as /ego/odometry", "pose_topic=/tf"]
    {
        assert!(error.contains(part), "{part}: {error}");
    }
    check(&format!("{},pose_topic=/tf", path.display()), &film, "film-camera-image");
}

#[test]
fn of_two_odometries_or_two_frames_one_is_chosen_by_a_key() {
    let (film, directory) = (film(), tempfile::tempdir().unwrap());
    let path = directory.path().join("film.mcap");
    let error = |keys: &str| parse_source(&format!("{}{keys}", path.display())).unwrap_err().to_string();
    let plan = Plan { poses: Poses::Base, pose_topics: vec!["/wheel/odom", "/odometry/filtered"], ..Plan::new() };
    plan.write(&film, &path);
    let text = error("");
    for part in ["one topic of Odometry", "pose_topic=NAME", "/odometry/filtered, /wheel/odom"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let chosen = format!("{},pose_topic=/odometry/filtered", path.display());
    check(&chosen, &film, "film-camera-image");
    assert_eq!(truth(&chosen), ["/odometry/filtered"]);
    // A goal that was given once is no track; poses of another type are no better than an odometry.
    let with_goals = |goal: Range<usize>| Plan { goal, pose_topics: vec!["/wheel/odom"], ..plan.clone() };
    with_goals(2..3).write(&film, &path);
    check(&path.display().to_string(), &film, "film-camera-image");
    with_goals(2..4).write(&film, &path);
    let text = error("");
    assert!(
        text.contains("one topic of Odometry or PoseStamped") && text.contains("/goal_pose, /wheel/odom"),
        "{text}"
    );

    Plan { poses: Poses::Moving, pose_topics: vec!["/tf"], ..plan }.write(&film, &path);
    assert_eq!(truth(&path.display().to_string()), ["/tf (map to eye)"]);
    let source = parse_source(&format!("{},world_frame=odom", path.display())).unwrap();
    assert_eq!(source.truth(), ["/tf (odom to eye)"]);
    let WindowSource::Recorded { sequences, .. } = &source else { panic!("not recorded") };
    for index in 0..FRAMES {
        let got = *sequences[0].world_from_camera(index).unwrap().isometry();
        let expected = drift(START + index as i64 * STEP).inverse() * film.world_from_camera[index].isometry();
        assert!((got.translation.vector - expected.translation.vector).norm() < 1e-6, "frame {index}");
        assert!(got.rotation.angle_to(&expected.rotation) < 1e-6, "frame {index}");
    }
    let text = error(",world_frame=mars");
    assert!(
        text.contains("world_frame: expected a frame") && text.contains("base_link, camera_link, map, odom"),
        "{text}"
    );
}

#[test]
fn images_that_are_called_rectified_are_asked_about_where_there_is_a_lens() {
    let (film, directory) = (film(), tempfile::tempdir().unwrap());
    let path = directory.path().join("film.mcap");
    let d = vec![-0.2, 0.05, 0.0, 0.0, 0.0];
    // K is that of the lens; of the rectified image P is, and is what K of other films is.
    let edit = |info: &mut CameraInfoMessage| {
        let [fx, _, cx, _, fy, cy, ..] = info.k;
        info.p = [fx / 1.5, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0];
    };
    let plan = Plan { d, edit, zoom_at: Some(0), image_topics: vec!["/camera/image_rect"], ..Plan::new() };
    plan.write(&film, &path);
    let error = open(&path).unwrap_err().to_string();
    for part in ["/camera/image_rect", "images=rectified", "images=raw"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let opened = parse_source(&format!("{},images=rectified", path.display())).unwrap();
    let WindowSource::Recorded { sequences, .. } = &opened else { panic!("not recorded") };
    let (k, expected) = (sequences[0].intrinsics(), film.intrinsics);
    assert!((k.fx - expected.fx).abs() + (k.fy - expected.fy).abs() + (k.cx - expected.cx).abs() < 1e-9, "{k:?}");
    assert_eq!(sequences[0].load_image(2).unwrap(), film.images[2]);
    let raw = parse_source(&format!("{},images=raw", path.display())).unwrap();
    assert_ne!(raw.sample(0).unwrap().images[2], film.images[2]);
    // Without a lens there is no doubt.
    Plan { d: vec![0.0; 5], edit: |_| (), zoom_at: None, ..plan.clone() }.write(&film, &path);
    check(&path.display().to_string(), &film, "film-camera-image_rect");
    // What is refused for the raw image says what may be the matter.
    let stereo = |info: &mut CameraInfoMessage| info.r = [0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0];
    Plan { edit: stereo, image_topics: vec!["/camera/image"], ..plan }.write(&film, &path);
    let error = open(&path).unwrap_err().to_string();
    assert!(error.contains("R: expected the identity") && error.contains("images=rectified"), "{error}");
}

#[test]
fn encodings_and_grids_of_the_robot_are_those_of_training() {
    let (film, directory) = (film(), tempfile::tempdir().unwrap());
    let path = directory.path().join("film.mcap");
    let first = |plan: Plan| {
        plan.write(&film, &path);
        open(&path).unwrap().sequences.swap_remove(0)
    };
    // Each tile red, green, green, blue.
    let tile = |x: usize, y: usize| [[200, 100], [100, 50]][y % 2][x % 2];
    let bayer: Vec<u8> = (0..48).flat_map(|y| (0..64).map(move |x| tile(x, y))).collect();
    let sequence = first(Plan { pixels: Some(("bayer_rggb8", 64, bayer)), ..Plan::new() });
    assert!(sequence.load_image(3).unwrap().pixels().all(|pixel| pixel.0 == [200, 100, 50]));
    let data: Vec<u8> = (0..64 * 48 * 2).map(|at| (at * 7 % 251) as u8).collect();
    let sequence = first(Plan { pixels: Some(("yuv422_yuy2", 128, data.clone())), ..Plan::new() });
    let encoding = "yuv422_yuy2".to_owned();
    let payload = ImagePayload::Raw { width: 64, height: 48, encoding, is_bigendian: false, step: 128, data };
    assert_eq!(sequence.load_image(3).unwrap(), decode(&payload, SampleRange::default()).unwrap());

    // Both grids hold the film's image: one twice as fine, and one of which it is a part.
    let binned = |info: &mut CameraInfoMessage| {
        (info.width, info.height, info.binning) = (128, 96, [2, 2]);
        for (place, focal) in [(0, true), (4, true), (2, false), (5, false)] {
            info.k[place] = if focal { info.k[place] * 2.0 } else { (info.k[place] + 0.5) * 2.0 - 0.5 };
        }
    };
    let part = |info: &mut CameraInfoMessage| {
        (info.width, info.height) = (100, 80);
        info.roi = RegionOfInterest { x_offset: 10, y_offset: 20, width: 64, height: 48 };
        info.k[2] += 10.0;
        info.k[5] += 20.0;
    };
    for edit in [binned as fn(&mut CameraInfoMessage), part] {
        let sequence = first(Plan { edit, ..Plan::new() });
        let (k, expected) = (sequence.intrinsics(), film.intrinsics);
        let off = [k.fx - expected.fx, k.fy - expected.fy, k.cx - expected.cx, k.cy - expected.cy];
        assert!(off.iter().all(|off| off.abs() < 1e-9), "{k:?}");
        assert_eq!((k.width, k.height), (64, 48));
        assert_eq!(sequence.load_image(1).unwrap(), film.images[1]);
    }
}

#[test]
fn one_of_several_cameras_and_of_several_infos_is_chosen_by_a_key() {
    let (film, directory) = (film(), tempfile::tempdir().unwrap());
    let path = directory.path().join("film.mcap");
    let source = |keys: &str| format!("{}{keys}", path.display());
    let error = |keys: &str| parse_source(&source(keys)).unwrap_err().to_string();
    Plan { image_topics: vec!["/camera/image", "/camera/other"], ..Plan::new() }.write(&film, &path);
    assert_eq!(open(&path).unwrap().sequences.len(), 2);
    check(&source(",image_topic=/camera/other"), &film, "film-camera-other");
    let text = error(",image_topic=/front");
    assert!(text.contains("image_topic") && text.contains("there are /camera/image, /camera/other"), "{text}");

    let plan = Plan { image_topics: vec!["/front/image"], ..Plan::new() };
    Plan { info_topics: vec!["/a/info", "/b/info"], ..plan.clone() }.write(&film, &path);
    let text = error("");
    for part in ["/front/image", "info_topic=NAME", "/a/info of frame", "/b/info of frame"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    check(&source(",info_topic=/b/info"), &film, "film-front-image");
    // The only one is taken, but not where it is another camera's.
    let only = Plan { info_topics: vec!["/a/info"], ..plan };
    only.write(&film, &path);
    check(&source(""), &film, "film-front-image");
    Plan { edit: |info| info.frame_id = "rear".to_owned(), ..only }.write(&film, &path);
    let text = error("");
    assert!(text.contains("/a/info of frame \"rear\"") && text.contains("\"camera_optical_frame\""), "{text}");
    check(&source(",info_topic=/a/info"), &film, "film-front-image");
}

#[test]
fn one_broken_file_refuses_no_other() {
    let (film, directory) = (film(), tempfile::tempdir().unwrap());
    let path = directory.path().join("film.mcap");
    Plan { compressed: true, spoiled: Some(0), ..Plan::new() }.write(&film, &path);
    let sequence = &open(&path).unwrap().sequences[0];
    assert_eq!(sequence.frames(), FRAMES);
    assert!(matches!(sequence.load_image(0), Err(Error::Decode { index: 0, .. })));
    assert_eq!(sequence.load_image(1).unwrap(), film.images[1]);
}

#[test]
fn a_camera_that_zooms_is_two_sequences() {
    let (film, directory) = (film(), tempfile::tempdir().unwrap());
    let path = directory.path().join("film.mcap");
    // The CameraInfo of a frame comes after its image.
    Plan { zoom_at: Some(3), ..Plan::new() }.write(&film, &path);
    let opened = open(&path).unwrap();
    let found: Vec<_> = opened
        .sequences
        .iter()
        .map(|sequence| (sequence.name(), sequence.frames(), sequence.intrinsics().fx / film.intrinsics.fx))
        .collect();
    assert_eq!(found, [("film-camera-image-0", 4, 1.0), ("film-camera-image-1", 3, 1.5)]);
    assert_eq!(opened.sequences[1].load_image(0).unwrap(), film.images[4]);
}

#[test]
fn what_a_lens_bends_is_straightened_unless_it_was_already() {
    let (film, directory) = (film(), tempfile::tempdir().unwrap());
    let path = directory.path().join("film.mcap");
    Plan { d: vec![-0.2, 0.05, 0.0, 0.0, 0.0], ..Plan::new() }.write(&film, &path);
    let sequence = &open(&path).unwrap().sequences[0];
    let (k, raw) = (*sequence.intrinsics(), film.intrinsics);
    assert!((k.fx - raw.fx).abs() > 1.0 && (k.width, k.height) == (raw.width, raw.height), "{k:?}");
    let straight = sequence.load_image(2).unwrap();
    assert_ne!(straight, film.images[2]);
    // The axis is where it was.
    let (x, y) = (raw.cx.round() as u32, raw.cy.round() as u32);
    let off = straight.get_pixel(x, y).0.iter().zip(film.images[2].get_pixel(x, y).0).map(|(a, b)| a.abs_diff(b)).max();
    assert!(off < Some(12), "{off:?}");
    // For rectified images P counts, of which this recording says nothing.
    let error = parse_source(&format!("{},images=rectified", path.display())).unwrap_err().to_string();
    assert!(error.contains("film.mcap") && error.contains("P: expected the matrix"), "{error}");
}

#[test]
fn the_frame_of_poses_that_do_not_name_it_is_told() {
    let (film, directory) = (film(), tempfile::tempdir().unwrap());
    let path = directory.path().join("film.mcap");
    Plan { poses: Poses::BaseInMap, ..Plan::new() }.write(&film, &path);
    // Without it, the error says which frames lead to the camera, and what would help.
    let error = open(&path).unwrap_err().to_string();
    for part in ["\"eye\"", "(base_link, camera_link)", "pose_frame=NAME", "/pose of frame \"map\""] {
        assert!(error.contains(part), "{part}: {error}");
    }
    // The folder with the file in it is as good as the file.
    for place in [path.as_path(), directory.path()] {
        for frame in ["base_link", "/base_link"] {
            check(&format!("{},pose_frame={frame}", place.display()), &film, "film-camera-image");
        }
    }
    // Of another frame, the same poses are others of the camera: the mount of the base is missing.
    let source = parse_source(&format!("{},pose_frame=camera_link", path.display())).unwrap();
    let WindowSource::Recorded { sequences, .. } = &source else { panic!("not recorded") };
    let moved = sequences[0].world_from_camera(0).unwrap().translation() - film.world_from_camera[0].translation();
    assert!((moved.norm() - Vector3::<f64>::new(0.2, -0.1, 0.5).norm()).abs() < 1e-6, "{moved}");
    // A frame that was asked for is never taken for the camera by its name.
    for frame in ["odom", "other_optical_frame"] {
        let error = parse_source(&format!("{},pose_frame={frame}", path.display())).unwrap_err().to_string();
        assert!(error.contains(&format!("of frame {frame:?}: no transforms lead")), "{error}");
    }
}

#[test]
fn an_image_that_cannot_be_used_is_named_by_its_place() {
    let (film, directory) = (film(), tempfile::tempdir().unwrap());
    let path = directory.path().join("film.mcap");
    Plan { info_width: Some(80), ..Plan::new() }.write(&film, &path);
    let opened = open(&path).unwrap();
    let sequence = &opened.sequences[0];
    let image = &sequence.frame(1).unwrap().image;
    assert!(image.file().is_none() && image.to_string().starts_with(&format!("{}: message ", path.display())));
    let error = sequence.load_image(1).unwrap_err();
    assert!(matches!(&error, Error::Frame { image: named, index: 1, .. } if named == image), "{error}");
    let text = error.to_string();
    assert!(text.contains(&image.to_string()) && text.contains("80 x 48") && text.contains("64 x 48"), "{text}");
    // A list of which nothing can be read is none.
    let listed = training_data::stage::windows::run(&path.display().to_string(), directory.path());
    let text = listed.unwrap_err().to_string();
    assert!(text.contains("not one of 3 windows can be read") && text.contains("80 x 48"), "{text}");
}

#[test]
fn a_broken_message_is_a_gap() {
    let (film, directory) = (film(), tempfile::tempdir().unwrap());
    let path = directory.path().join("film.mcap");
    Plan { broken: Some(2), ..Plan::new() }.write(&film, &path);
    let opened = open(&path).unwrap();
    let sequence = &opened.sequences[0];
    assert_eq!((sequence.frames(), sequence.windows(1).count()), (FRAMES - 1, 0));
    assert!(sequence.frame(2).unwrap().gap_before);
    assert_eq!(opened.skipped[0].what, "film: 1 messages of /camera/image");
}

#[test]
fn what_cannot_be_used_is_named() {
    let (film, directory) = (film(), tempfile::tempdir().unwrap());
    let path = directory.path().join("film.mcap");
    let error = |plan: Plan| {
        plan.write(&film, &path);
        open(&path).unwrap_err().to_string()
    };
    let plan = Plan::new();
    let cases = [
        (Plan { d: vec![0.1, 0.0, 0.0], ..plan.clone() }, vec!["CameraInfo of /camera/image", "D: expected 4 or 5"]),
        (Plan { info_width: None, ..plan.clone() }, vec!["CameraInfo", "/camera/image"]),
        (Plan { pose_topics: vec![], ..plan.clone() }, vec!["PoseStamped, Odometry"]),
        (
            Plan { pose_topics: vec!["/a", "/b"], ..plan.clone() },
            vec!["one topic of PoseStamped", "pose_topic=NAME", "/a, /b"],
        ),
        (
            Plan { poses: Poses::Base, mounted: false, ..plan },
            vec!["\"base_link\"", "no transforms lead from", "\"eye\"", "(none)", "pose_frame=NAME"],
        ),
    ];
    for (plan, parts) in cases {
        let text = error(plan);
        assert!(text.contains("film.mcap") && parts.iter().all(|part| text.contains(part)), "{text}");
    }
}

/// Where the first chunk begins behind a place of a file.
fn chunk_behind(file: &[u8], place: usize) -> usize {
    let summary = mcap::Summary::read(file).unwrap().unwrap();
    let starts = summary.chunk_indexes.iter().map(|index| index.chunk_start_offset as usize);
    starts.filter(|start| *start > place).min().unwrap()
}

#[test]
fn a_bag_of_which_messages_are_missing_is_told() {
    let (film, directory) = (film(), tempfile::tempdir().unwrap());
    let bag = directory.path().join("film");
    fs::create_dir(&bag).unwrap();
    let list = "rosbag2_bagfile_information:\n  relative_file_paths:\n    - a.mcap\n  topics_with_message_count:\n    \
                - topic_metadata:\n        name: /camera/image\n      message_count: 9\n";
    fs::write(bag.join("metadata.yaml"), list).unwrap();
    Plan::new().write(&film, &bag.join("a.mcap"));
    let opened = open(&bag).unwrap();
    assert_eq!((opened.sequences[0].frames(), opened.skipped.len()), (FRAMES, 1), "{:?}", opened.skipped);
    let told = &opened.skipped[0];
    assert!(told.what.contains("metadata.yaml"), "{told:?}");
    assert!(told.why.contains("counts 9 messages of /camera/image, and 7 can be read"), "{told:?}");
}

#[test]
fn damaged_files_are_named() {
    let (film, directory) = (film(), tempfile::tempdir().unwrap());
    let path = directory.path().join("film.mcap");
    Plan { compression: Some(Compression::Zstd), ..Plan::new() }.write(&film, &path);
    let whole = fs::read(&path).unwrap();
    for length in [0, 5, 16, whole.len() / 10] {
        fs::write(&path, &whole[..length]).unwrap();
        let error = open(&path).unwrap_err();
        assert!(matches!(error, Error::Recording(_) | Error::Damage(_)), "{length}: {error}");
        assert!(error.to_string().contains("film.mcap"), "{error}");
    }
    // As the robot does, what is before the damage is used, and the damage is told.
    fs::write(&path, &whole[..whole.len() * 3 / 5]).unwrap();
    let opened = open(&path).unwrap();
    let frames = opened.sequences[0].frames();
    assert!((1..FRAMES).contains(&frames), "{frames}");
    assert!(opened.skipped[0].what.contains("film.mcap") && opened.skipped[0].why.contains("from byte"), "{opened:?}");
    // A chunk that became an index of messages, which is left out: neither it nor what comes after is taken, so that no window
    // reaches over the hole.
    let mut changed = whole.clone();
    changed[chunk_behind(&whole, whole.len() * 3 / 5)] = op::MESSAGE_INDEX;
    fs::write(&path, &changed).unwrap();
    let opened = open(&path).unwrap();
    let frames = opened.sequences[0].frames();
    assert!((1..FRAMES).contains(&frames), "{frames}");
    assert!(opened.skipped[0].what.contains("film.mcap"), "{opened:?}");
    let why = &opened.skipped[0].why;
    assert!(why.contains("from byte") && why.contains("as the file's own index says"), "{why}");
    // Whatever byte is wrong, the reader comes back.
    for compression in [None, Some(Compression::Lz4)] {
        Plan { compression, ..Plan::new() }.write(&film, &path);
        let whole = fs::read(&path).unwrap();
        for place in (0..whole.len()).step_by(whole.len() / 40) {
            let mut spoiled = whole.clone();
            spoiled[place] ^= 0xFF;
            fs::write(&path, &spoiled).unwrap();
            if let Ok(opened) = open(&path) {
                (0..opened.sequences[0].frames()).for_each(|index| drop(opened.sequences[0].load_image(index)));
            }
        }
    }
}
