//! Recordings of ROS 2: a synthetic film is written as an MCAP file and must come back as it was.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Cursor};
use std::path::Path;

use byteorder::LittleEndian;
use mcap::records::MessageHeader;
use mcap::{Compression, WriteOptions, Writer};
use nalgebra::{Isometry3, Translation3, UnitQuaternion, Vector3};
use serde::Serialize;
use training::data::formats::open;
use training::data::{Error, parse_source};
use training::synth::{self, SynthSequence};

const FRAMES: usize = 7;
const START: i64 = 1_700_000_000_000_000_000;
const STEP: i64 = 100_000_000;

#[derive(Serialize)]
struct Header {
    sec: i32,
    nanosec: u32,
    frame_id: String,
}

#[derive(Serialize)]
struct Image {
    header: Header,
    height: u32,
    width: u32,
    encoding: String,
    is_bigendian: u8,
    step: u32,
    data: Vec<u8>,
}

#[derive(Serialize)]
struct CompressedImage {
    header: Header,
    format: String,
    data: Vec<u8>,
}

#[derive(Serialize)]
struct CameraInfo {
    header: Header,
    height: u32,
    width: u32,
    distortion_model: String,
    d: Vec<f64>,
    k: [f64; 9],
    r: [f64; 9],
    p: [f64; 12],
    binning: [u32; 2],
    roi: (u32, u32, u32, u32, bool),
}

#[derive(Serialize)]
struct Pose {
    position: [f64; 3],
    orientation_xyzw: [f64; 4],
}

#[derive(Serialize)]
struct PoseStamped {
    header: Header,
    pose: Pose,
}

#[derive(Serialize)]
struct TransformStamped {
    header: Header,
    child_frame_id: String,
    transform: Pose,
}

#[derive(Serialize)]
struct Odometry {
    header: Header,
    child_frame_id: String,
    pose: Pose,
    covariance: [[f64; 6]; 6],
    twist: [f64; 6],
    twist_covariance: [[f64; 6]; 6],
}

#[derive(Serialize)]
struct TfMessage {
    transforms: Vec<TransformStamped>,
}

fn header(nanos: i64, frame_id: &str) -> Header {
    let (sec, nanosec) = geometry::Stamp::from_nanos(nanos).to_sec_nanosec();
    Header { sec, nanosec, frame_id: frame_id.to_owned() }
}

fn pose(isometry: &Isometry3<f64>) -> Pose {
    let (q, t) = (isometry.rotation, isometry.translation.vector);
    Pose { position: [t.x, t.y, t.z], orientation_xyzw: [q.i, q.j, q.k, q.w] }
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
        let mut data = vec![0, 1, 0, 0];
        data.extend(cdr_encoding::to_vec::<T, LittleEndian>(message).unwrap());
        self.raw(schema, topic, nanos, &data);
    }
}

/// What to write.
#[derive(Clone)]
struct Plan {
    compression: Option<Compression>,
    chunks: bool,
    /// PNG with odometry of the base, in place of pixels with poses of the camera.
    compressed: bool,
    info: bool,
    d: Vec<f64>,
    pose_topics: Vec<&'static str>,
    /// Whether there are static transforms.
    mounted: bool,
    /// A frame whose message is cut short.
    broken: Option<usize>,
}

impl Plan {
    fn new() -> Self {
        Self {
            compression: None,
            chunks: true,
            compressed: false,
            info: true,
            d: vec![0.0; 5],
            pose_topics: vec!["/pose"],
            mounted: true,
            broken: None,
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
        if self.compressed && self.mounted {
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
        for frame in 0..FRAMES {
            let at = START + frame as i64 * STEP;
            let frame_id = if self.compressed { "eye" } else { "camera_optical_frame" };
            self.write_image(film, frame, at, frame_id, &mut bag);
            if self.info {
                let k = &film.intrinsics;
                let info = CameraInfo {
                    header: header(at, frame_id),
                    height: 48,
                    width: 64,
                    distortion_model: "plumb_bob".to_owned(),
                    d: self.d.clone(),
                    k: [k.fx, 0.0, k.cx, 0.0, k.fy, k.cy, 0.0, 0.0, 1.0],
                    r: [0.0; 9],
                    p: [0.0; 12],
                    binning: [0; 2],
                    roi: (0, 0, 0, 0, false),
                };
                bag.put("sensor_msgs/msg/CameraInfo", "/camera/camera_info", at, &info);
            }
            let world_from_camera = *film.world_from_camera[frame].isometry();
            let body = if self.compressed {
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

    fn write_image(&self, film: &SynthSequence, frame: usize, at: i64, frame_id: &str, bag: &mut Bag) {
        let image = &film.images[frame];
        let (schema, topic) = if self.compressed {
            ("sensor_msgs/msg/CompressedImage", "/camera/image/compressed")
        } else {
            ("sensor_msgs/msg/Image", "/camera/image")
        };
        if self.broken == Some(frame) {
            bag.raw(schema, topic, at, &[0, 1, 0, 0, 1, 2, 3]);
        } else if self.compressed {
            let mut png = Cursor::new(Vec::new());
            image.write_to(&mut png, image::ImageFormat::Png).unwrap();
            let format = "rgb8; png compressed bgr8".to_owned();
            let message = CompressedImage { header: header(at, frame_id), format, data: png.into_inner() };
            bag.put(schema, topic, at, &message);
        } else {
            let padded = |row: &[u8]| [row, &[99; 5]].concat();
            let message = Image {
                header: header(at, frame_id),
                height: 48,
                width: 64,
                encoding: "rgb8".to_owned(),
                is_bigendian: 0,
                step: 64 * 3 + 5,
                data: image.as_raw().chunks(64 * 3).flat_map(padded).collect(),
            };
            bag.put(schema, topic, at, &message);
        }
    }

    fn write_pose(&self, body: &Isometry3<f64>, at: i64, bag: &mut Bag) {
        for topic in &self.pose_topics {
            if self.compressed {
                let message = Odometry {
                    header: header(at, "odom"),
                    child_frame_id: "base_link".to_owned(),
                    pose: pose(body),
                    covariance: [[0.0; 6]; 6],
                    twist: [0.0; 6],
                    twist_covariance: [[0.0; 6]; 6],
                };
                bag.put("nav_msgs/msg/Odometry", topic, at, &message);
            } else {
                let message = PoseStamped { header: header(at, "camera_optical_frame"), pose: pose(body) };
                bag.put("geometry_msgs/msg/PoseStamped", topic, at, &message);
            }
        }
    }
}

fn film() -> SynthSequence {
    synth::sequence(3, 5, FRAMES, (64, 48))
}

fn check(path: &Path, film: &SynthSequence, name: &str) {
    let opened = open(path).unwrap();
    assert!(opened.skipped.is_empty() && opened.sequences.len() == 1, "{:?}", opened.skipped);
    let sequence = &opened.sequences[0];
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
    let source = parse_source(&path.display().to_string()).unwrap();
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
        check(&path, &film, "film-camera-image");
    }
    Plan { chunks: false, ..Plan::new() }.write(&film, &path);
    check(&path, &film, "film-camera-image");
}

#[test]
fn compressed_images_with_odometry_come_back_from_a_rosbag() {
    let (film, directory) = (film(), tempfile::tempdir().unwrap());
    let bag = directory.path().join("film");
    fs::create_dir(&bag).unwrap();
    fs::write(bag.join("metadata.yaml"), "rosbag2_bagfile_information:\n").unwrap();
    let empty = open(&bag).unwrap_err();
    assert!(matches!(empty, Error::Missing { .. }), "{empty}");
    for compression in [None, Some(Compression::Zstd), Some(Compression::Lz4)] {
        Plan { compression, compressed: true, ..Plan::new() }.write(&film, &bag.join("film_0.mcap"));
        check(&bag, &film, "film-camera-image-compressed");
    }
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
        (Plan { d: vec![0.1, 0.0, 0.0, 0.0, 0.0], ..plan.clone() }, vec!["D:", "rectify first", "0.1"]),
        (Plan { info: false, ..plan.clone() }, vec!["CameraInfo", "/camera/image"]),
        (Plan { pose_topics: vec![], ..plan.clone() }, vec!["PoseStamped, Odometry"]),
        (Plan { pose_topics: vec!["/a", "/b"], ..plan.clone() }, vec!["one topic of PoseStamped", "/a, /b"]),
        (Plan { compressed: true, mounted: false, ..plan }, vec!["\"base_link\"", "no static transform", "\"eye\""]),
    ];
    for (plan, parts) in cases {
        let text = error(plan);
        assert!(text.contains("film.mcap") && parts.iter().all(|part| text.contains(part)), "{text}");
    }
}

#[test]
fn damaged_files_are_named() {
    let (film, directory) = (film(), tempfile::tempdir().unwrap());
    let path = directory.path().join("film.mcap");
    Plan { compression: Some(Compression::Zstd), ..Plan::new() }.write(&film, &path);
    let whole = fs::read(&path).unwrap();
    for length in [0, 5, 16, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        let error = open(&path).unwrap_err();
        assert!(matches!(error, Error::Recording { .. }), "{length}: {error}");
        assert!(error.to_string().contains("film.mcap"), "{error}");
    }
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
