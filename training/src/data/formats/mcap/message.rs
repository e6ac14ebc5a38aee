//! Messages of ROS 2 as far as they are read: the order of fields is that of the bytes, and what follows the last is
//! left.

use byteorder::{BigEndian, LittleEndian};
use geometry::{Camera, Stamp, Transform, World};
use image::RgbImage;
use nalgebra::{Isometry3, Vector3};
use serde::Deserialize;

/// Types of messages that matter; of two with poses, the first is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    PoseStamped,
    Odometry,
    TransformStamped,
    TfMessage,
    Image,
    CompressedImage,
    CameraInfo,
}

impl Kind {
    pub(super) fn of(schema: &str) -> Option<Self> {
        match schema {
            "geometry_msgs/msg/PoseStamped" => Some(Self::PoseStamped),
            "nav_msgs/msg/Odometry" => Some(Self::Odometry),
            "geometry_msgs/msg/TransformStamped" => Some(Self::TransformStamped),
            "tf2_msgs/msg/TFMessage" => Some(Self::TfMessage),
            "sensor_msgs/msg/Image" => Some(Self::Image),
            "sensor_msgs/msg/CompressedImage" => Some(Self::CompressedImage),
            "sensor_msgs/msg/CameraInfo" => Some(Self::CameraInfo),
            _ => None,
        }
    }
}

#[derive(Deserialize)]
struct Time {
    sec: i32,
    nanosec: u32,
}

#[derive(Deserialize)]
pub(super) struct Header {
    stamp: Time,
    pub frame_id: String,
}

impl Header {
    pub(super) fn stamp(&self) -> Stamp {
        Stamp::from_sec_nanosec(self.stamp.sec, self.stamp.nanosec)
    }
}

/// An image without its pixels.
#[derive(Deserialize)]
pub(super) struct ImageHead {
    pub header: Header,
    _height: u32,
    _width: u32,
    pub encoding: String,
}

impl ImageHead {
    /// Whether [`picture`] reads the encoding.
    pub(super) fn known(&self) -> bool {
        channels(&self.encoding).is_some()
    }
}

#[derive(Deserialize)]
struct Image<'a> {
    _header: Header,
    height: u32,
    width: u32,
    encoding: String,
    _is_bigendian: u8,
    step: u32,
    data: &'a [u8],
}

/// A compressed image without its bytes.
#[derive(Deserialize)]
pub(super) struct CompressedHead {
    pub header: Header,
    pub format: String,
}

impl CompressedHead {
    /// Whether it is a JPEG or PNG of colours.
    pub(super) fn known(&self) -> bool {
        let format = self.format.to_ascii_lowercase();
        ["jpeg", "jpg", "png"].iter().any(|name| format.contains(name)) && !format.contains("compresseddepth")
    }
}

#[derive(Deserialize)]
struct CompressedImage<'a> {
    _header: Header,
    _format: String,
    data: &'a [u8],
}

#[derive(Deserialize)]
pub(super) struct CameraInfo {
    _header: Header,
    pub height: u32,
    pub width: u32,
    _distortion_model: String,
    pub d: Vec<f64>,
    pub k: [f64; 9],
}

impl CameraInfo {
    pub(super) fn same(&self, other: &Self) -> bool {
        (self.height, self.width, &self.d, &self.k) == (other.height, other.width, &other.d, &other.k)
    }
}

/// `geometry_msgs/Pose` or `Transform`.
#[derive(Deserialize)]
pub(super) struct Pose {
    position: [f64; 3],
    orientation_xyzw: [f64; 4],
}

impl Pose {
    /// `None` where it is no rigid transform.
    pub(super) fn isometry(&self) -> Option<Isometry3<f64>> {
        let pose = Transform::<World, Camera>::from_xyzw(self.orientation_xyzw, &Vector3::from(self.position));
        pose.ok().map(|pose| *pose.isometry())
    }
}

#[derive(Deserialize)]
pub(super) struct PoseStamped {
    pub header: Header,
    pub pose: Pose,
}

/// Also the beginning of an odometry, whose pose comes first.
#[derive(Deserialize)]
pub(super) struct TransformStamped {
    pub header: Header,
    pub child_frame_id: String,
    pub transform: Pose,
}

#[derive(Deserialize)]
pub(super) struct TfMessage {
    pub transforms: Vec<TransformStamped>,
}

/// A message behind the four bytes that say how it is encoded.
pub(super) fn decode<'a, T: Deserialize<'a>>(message: &'a [u8]) -> Option<T> {
    let (encapsulation, body) = message.split_at_checked(4)?;
    match encapsulation[..2] {
        [0, 0] => Some(cdr_encoding::from_bytes::<T, BigEndian>(body).ok()?.0),
        [0, 1] => Some(cdr_encoding::from_bytes::<T, LittleEndian>(body).ok()?.0),
        _ => None,
    }
}

/// What a message with an image holds.
pub(in crate::data) enum Picture {
    Pixels(RgbImage),
    /// The bytes of a JPEG or PNG.
    Encoded(Vec<u8>),
}

/// Reads an `Image` or `CompressedImage`; `None` where rows or more are missing.
pub(in crate::data) fn picture(message: &[u8], compressed: bool) -> Option<Picture> {
    if compressed {
        decode::<CompressedImage<'_>>(message).map(|image| Picture::Encoded(image.data.to_vec()))
    } else {
        decode::<Image<'_>>(message).and_then(|image| pixels(&image)).map(Picture::Pixels)
    }
}

/// Channels of a pixel of an encoding, and which of them are red, green and blue.
fn channels(encoding: &str) -> Option<(usize, [usize; 3])> {
    match encoding {
        "rgb8" => Some((3, [0, 1, 2])),
        "bgr8" => Some((3, [2, 1, 0])),
        "rgba8" => Some((4, [0, 1, 2])),
        "bgra8" => Some((4, [2, 1, 0])),
        "mono8" => Some((1, [0, 0, 0])),
        _ => None,
    }
}

/// `None` where rows are missing.
fn pixels(image: &Image<'_>) -> Option<RgbImage> {
    let (channels, [red, green, blue]) = channels(&image.encoding)?;
    let (step, height) = (image.step as usize, image.height as usize);
    let row = (image.width as usize).checked_mul(channels).filter(|row| (1..=step).contains(row))?;
    // Of the last row, the padding may be missing.
    if image.data.len() < step.checked_mul(height.checked_sub(1)?)?.checked_add(row)? {
        return None;
    }
    let rows = image.data.chunks(step).take(height);
    let pixels = rows.flat_map(|line| line[..row].chunks_exact(channels));
    let values = pixels.flat_map(|pixel| [pixel[red], pixel[green], pixel[blue]]).collect();
    RgbImage::from_raw(image.width, image.height, values)
}
