//! The node against another ROS 2 implementation, over the real wire, with each transport: `counterpart.py` (rclpy) is
//! the camera and the reader. `cargo xtask test` runs this; by hand:
//!
//! ```text
//! EGOREASONER_NODE=target/ros2/bin/debug/egoreasoner_node EGOREASONER_PYTHON=python3 \
//!     cargo xtask ros2 -- cargo test -p tests --features ros --test ros_roundtrip
//! ```

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::hil::measure::LastWords;
use tests::process::{PATIENCE, Place, Running, from_environment};
use tests::root;

/// Frames that may still be on their way at the last report: of the window being answered, of the one that waits, and of
/// the one that waits for its last frames. After the stop nothing may be.
const MAX_PENDING: u64 = 5 + 5 + 4;

const FRAME_ID: &str = "front_optical";

#[test]
fn ros2_client_accounts_for_every_reliable_frame() {
    reliable_frames("ros2-client");
}

#[test]
fn r2r_accounts_for_every_reliable_frame() {
    reliable_frames("r2r");
}

#[test]
fn ros2_client_hears_compressed_sensor_data() {
    compressed_sensor_data("ros2-client");
}

#[test]
fn r2r_hears_compressed_sensor_data() {
    compressed_sensor_data("r2r");
}

/// 1280x720 rgb8 at 10 Hz, reliable, on topics that the command line remaps.
fn reliable_frames(transport: &str) {
    let received = round_trip(&RoundTrip {
        transport,
        name: "reliable",
        images: 40,
        overrides: &["topics.image_reliability=reliable"],
        camera: &["--count", "40", "--width", "1280", "--height", "720", "--rate", "10"],
    });
    received.check_every_frame_is_accounted_for(40);
    received.check_paths();
}

/// JPEGs with the QoS of a camera driver, which is the node's default.
fn compressed_sensor_data(transport: &str) {
    let received = round_trip(&RoundTrip {
        transport,
        name: "compressed",
        images: 20,
        overrides: &["topics.image_transport=compressed"],
        camera: &[
            "--count",
            "20",
            "--width",
            "640",
            "--height",
            "480",
            "--rate",
            "10",
            "--compressed",
            "--best-effort",
        ],
    });
    received.check_every_frame_is_accounted_for(20);
    received.check_paths();
}

struct RoundTrip<'a> {
    transport: &'a str,
    name: &'a str,
    images: u64,
    overrides: &'a [&'a str],
    camera: &'a [&'a str],
}

/// Starts the node, plays the camera, stops the node, and returns what came back.
fn round_trip(case: &RoundTrip<'_>) -> Received {
    let name = format!("ros_{}_{}", case.transport, case.name);
    let place = Place::new(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name));
    let json = place.folder.join("received.json");
    let _ = std::fs::remove_file(&json); // of an earlier run

    let mut node = place.node(case.transport);
    for setting in case.overrides {
        node.arg("--set").arg(setting);
    }
    node.args(["--ros-args", "-r", "/camera/image_raw:=/front/image_raw"]);
    node.args(["-r", "/camera/camera_info:=/front/camera_info", "-r", "__node:=ego_under_test"]);
    let mut node = place.start(node);

    let mut camera = Command::new(from_environment("EGOREASONER_PYTHON"));
    place.put_in_domain(&mut camera);
    camera.arg(root().join("tests/ros/counterpart.py")).arg("--out").arg(&json).args(case.camera);
    camera.args(["--image-topic", "/front/image_raw", "--camera-info-topic", "/front/camera_info"]);
    camera.args(["--frame-id", FRAME_ID, "--drain", "60"]);
    let mut camera = Running::new(camera.spawn().expect("the counterpart starts"));
    let status = loop {
        if let Some(status) = camera.exited() {
            break status;
        }
        assert!(node.exited().is_none(), "the node ended by itself:\n{}", place.log());
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(status.success(), "counterpart: {status}; the node said:\n{}", place.log());

    let (status, _) = node.stop(PATIENCE).unwrap_or_else(|e| panic!("{e}; the node said:\n{}", place.log()));
    let log = place.log();
    assert!(status.success(), "the node ended with {status}:\n{log}");
    let text = std::fs::read_to_string(&json).expect("the counterpart wrote its JSON");
    let received = Received { json: serde_json::from_str(&text).expect("the counterpart writes JSON"), log };
    assert_eq!(received.published().len() as u64, case.images);
    received
}

struct Received {
    json: Value,
    log: String,
}

impl Received {
    fn published(&self) -> Vec<i64> {
        let stamps = self.json["published_stamps_nanos"].as_array().expect("a list");
        stamps.iter().map(|stamp| stamp.as_i64().expect("nanoseconds")).collect()
    }

    /// `received = used + dropped + pending` in the last diagnostics, and nothing pending in the node's last words.
    fn check_every_frame_is_accounted_for(&self, images: u64) {
        let diagnostics = &self.json["diagnostics_last"];
        let values = diagnostics["values"].as_object().expect("diagnostics came back");
        let count = |name: &str| values[name].as_str().and_then(|text| text.parse::<u64>().ok()).expect("a number");
        let dropped: u64 = values.keys().filter(|key| key.starts_with("frames_dropped_")).map(|key| count(key)).sum();
        let (used, pending) = (count("frames_used") + count("frames_posed"), count("frames_pending"));
        assert_eq!(count("frames_received"), images, "{diagnostics:#}");
        assert_eq!(used + dropped + pending, images, "{diagnostics:#}");
        assert!(pending <= MAX_PENDING, "{diagnostics:#}");
        assert!(diagnostics["name"].as_str().is_some_and(|name| name.starts_with("ego_under_test")), "{diagnostics:#}");
        // The node does not take itself for another.
        assert!(!diagnostics.to_string().contains("another node publishes"), "{diagnostics:#}");

        let last = LastWords::of_log(&self.log).expect("the node logs its counts");
        assert_eq!((last.received, last.used + last.posed + last.dropped), (images, images), "{last:?}");
    }

    /// Five poses each, stamped as published and in order, in the frame of the camera; windows in order too.
    fn check_paths(&self) {
        let published = self.published();
        let paths = self.json["paths"].as_array().expect("a list");
        assert!(!paths.is_empty(), "no Path came back; the node said:\n{}", self.log);
        let mut previous_start = i64::MIN;
        for path in paths {
            assert_eq!(path["frame_id"], FRAME_ID);
            let poses = path["poses"].as_array().expect("a list");
            assert_eq!(poses.len(), 5, "{path:#}");
            let stamps: Vec<i64> = poses.iter().filter_map(|pose| pose["stamp_nanos"].as_i64()).collect();
            assert!(stamps.iter().all(|stamp| published.contains(stamp)), "{path:#}");
            assert!(stamps.windows(2).all(|pair| pair[0] < pair[1]), "{path:#}");
            assert_eq!(path["stamp_nanos"].as_i64(), stamps.first().copied());
            assert!(previous_start < stamps[0], "windows must come in order: {path:#}");
            previous_start = stamps[0];
            for pose in poses {
                assert_eq!(pose["frame_id"], FRAME_ID);
                let norm: f64 = numbers(&pose["orientation_xyzw"]).iter().map(|x| x * x).sum();
                assert!((norm - 1.0).abs() < 1e-6, "{pose:#}");
            }
            assert_eq!(numbers(&poses[0]["position"]), [0.0; 3], "the first pose is the anchor: {path:#}");
        }
        let odometry = self.json["odometry"].as_array().expect("a list");
        assert!(!odometry.is_empty(), "no Odometry came back");
        for message in odometry {
            assert_eq!(message["frame_id"], "odom");
            assert_eq!(message["child_frame_id"], FRAME_ID);
            assert!(message["stamp_nanos"].as_i64().is_some_and(|stamp| published.contains(&stamp)), "{message:#}");
            let covariance = numbers(&message["covariance"]);
            assert_eq!(covariance.len(), 36);
            assert!((0..6).all(|i| covariance[7 * i] > 0.0), "{message:#}");
        }
    }
}

fn numbers(list: &Value) -> Vec<f64> {
    list.as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
}
