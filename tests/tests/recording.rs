//! What the node records is what training reads, and reads as the node did.

use camera::message::{CameraInfoMessage, ImageMessage, ImagePayload};
use camera::recording::{Entry, FileWriter};
use geometry::Stamp;
use node::config::Config;
use node::message::{Input, OdometryMessage, Output, StampedPose};
use node::recording::{entry_of_input, entry_of_output};
use training::data::formats;

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
        put(entry_of_output(&Output::Odometry(odometry), &config.topics, heard).unwrap());
    }
    writer.finish().unwrap();

    let opened = formats::open(&path).unwrap();
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
