use byteorder::LittleEndian;
use geometry::Stamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_bytes::Bytes;

use super::{CameraInfo, CompressedImage, Image, ImageView, Type};
use crate::cdr::{decode, encode};
use crate::message::{CameraInfoMessage, ImageMessage, ImagePayload, RegionOfInterest};

fn message(payload: ImagePayload) -> ImageMessage {
    ImageMessage { stamp: Stamp::from_sec_nanosec(17, 250), frame_id: "eye".to_owned(), payload }
}

fn raw() -> ImageMessage {
    let (encoding, data) = ("mono8".to_owned(), (0..8).collect());
    message(ImagePayload::Raw { width: 3, height: 2, encoding, is_bigendian: true, step: 4, data })
}

fn info() -> CameraInfoMessage {
    CameraInfoMessage {
        stamp: Stamp::from_sec_nanosec(17, 250),
        frame_id: "eye".to_owned(),
        width: 640,
        height: 480,
        distortion_model: "plumb_bob".to_owned(),
        d: vec![0.1, -0.2, 0.0, 0.0, 0.5],
        k: std::array::from_fn(|i| i as f64),
        r: std::array::from_fn(|i| 10.0 + i as f64),
        p: std::array::from_fn(|i| 20.0 + i as f64),
        binning: [2, 3],
        roi: RegionOfInterest { x_offset: 1, y_offset: 2, width: 3, height: 4 },
    }
}

/// Decodes the message and checks that no beginning of its bytes is one.
fn back<Wire: DeserializeOwned>(message: &impl Serialize) -> Wire {
    let bytes = encode(message, 0);
    for length in 0..bytes.len() {
        assert!(decode::<Wire>(&bytes[..length]).is_err(), "{length} bytes");
    }
    let mut strange = bytes.clone();
    strange[1] = 7;
    assert!(decode::<Wire>(&strange).is_err_and(|e| e.contains("encapsulation")));
    let mut long = bytes.clone();
    long[12..16].fill(0xff);
    assert!(decode::<Wire>(&long).is_err(), "a name of 4 GB");
    decode(&bytes).unwrap()
}

#[test]
fn what_is_written_is_read_and_what_is_no_message_is_named() {
    let file = message(ImagePayload::Compressed { format: "png".to_owned(), data: vec![9, 8, 7] });
    assert_eq!(ImageMessage::from(back::<Image>(&ImageView::from(&raw()))), raw());
    assert_eq!(ImageMessage::from(back::<CompressedImage>(&ImageView::from(&file))), file);
    assert_eq!(CameraInfoMessage::from(back::<CameraInfo>(&CameraInfo::from(&info()))), info());
}

#[test]
fn either_byte_order_is_read() {
    // sec 1, nanosec 2, frame_id "", format "a", data [7]
    let big = [
        &[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0][..],
        &[0, 0, 0, 2, b'a', 0, 0, 0, 0, 0, 0, 1, 7],
    ]
    .concat();
    let got: CompressedImage<String, &Bytes> = decode(&big).unwrap();
    assert_eq!((got.header.stamp(), got.format.as_str()), (Stamp::from_sec_nanosec(1, 2), "a"));
    assert_eq!(got.data.as_ptr(), big[big.len() - 1..].as_ptr(), "borrowed");
}

#[test]
fn an_image_has_the_bytes_of_ros() {
    let expected = [
        &[0, 1, 0, 0][..],
        &[17, 0, 0, 0, 250, 0, 0, 0],
        &[4, 0, 0, 0, b'e', b'y', b'e', 0],
        &[2, 0, 0, 0, 3, 0, 0, 0],
        &[6, 0, 0, 0, b'm', b'o', b'n', b'o', b'8', 0],
        &[1, 0, 4, 0, 0, 0],
        &[8, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7],
    ]
    .concat();
    assert_eq!(encode(&ImageView::from(&raw()), 8), expected);
}

#[test]
fn types_are_known_by_the_names_of_both_generations() {
    for known in Type::ALL {
        assert_eq!(Type::named(known.name()), Some(known));
        assert_eq!(Type::named(&known.name().replace("/msg/", "/")), Some(known));
    }
    assert_eq!(Type::named("sensor_msgs/msg/Imu"), None);
}

fn pixels(payload: &ImagePayload) -> &[u8] {
    match payload {
        ImagePayload::Raw { data, .. } | ImagePayload::Compressed { data, .. } => data,
    }
}

/// Reads the message as `ros2_client` does, which is its one copy; what is made of it has the pixels where they are.
fn assert_one_copy<Wire: DeserializeOwned + Into<ImageMessage>>(payload: ImagePayload, data: fn(&Wire) -> &Vec<u8>) {
    let sent = message(payload);
    let mut bytes = Vec::new();
    cdr_encoding::to_writer::<_, LittleEndian, _>(&mut bytes, &ImageView::from(&sent)).unwrap();
    let (wire, _) = cdr_encoding::from_bytes::<Wire, LittleEndian>(&bytes).unwrap();
    let (place, room) = (data(&wire).as_ptr(), data(&wire).capacity());
    assert_eq!(room, pixels(&sent.payload).len(), "taken in one piece, not byte by byte into what has to grow");
    let got: ImageMessage = wire.into();
    assert_eq!(pixels(&got.payload).as_ptr(), place, "moved, not copied");
    assert_eq!(got, sent);
}

#[test]
fn pixels_are_copied_out_of_the_wire_once() {
    let data: Vec<u8> = (0..640 * 480 * 3).map(|i| i as u8).collect();
    let encoding = "rgb8".to_owned();
    let (width, height, step) = (640, 480, 640 * 3);
    let raw = ImagePayload::Raw { width, height, encoding, is_bigendian: false, step, data: data.clone() };
    assert_one_copy::<Image>(raw, |image| &image.data);
    assert_one_copy::<CompressedImage>(ImagePayload::Compressed { format: "jpeg".to_owned(), data }, |image| {
        &image.data
    });
}
