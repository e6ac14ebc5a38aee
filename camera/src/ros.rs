//! Messages of ROS 2 as serde structs: the order of the fields is the wire format (CDR), so fields that nobody here uses
//! stand here too. A DDS transport and recordings need these; r2r brings its own, generated from the sourced ROS 2.
//!
//! Pixels and the encoding's name are generic: owned where a message is kept, borrowed ([`Bytes`], `&str`) where it is
//! written, or looked at and dropped.

use geometry::Stamp;
use serde::{Deserialize, Serialize};
pub use serde_bytes::{ByteBuf, Bytes};

use crate::message::{self, CameraInfoMessage, ImageMessage, ImagePayload};

/// Types that are read or written here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Type {
    /// [`Image`].
    Image,
    /// [`CompressedImage`].
    CompressedImage,
    /// [`CameraInfo`].
    CameraInfo,
    /// [`PoseStamped`].
    PoseStamped,
    /// [`PoseWithCovarianceStamped`].
    PoseWithCovarianceStamped,
    /// [`Odometry`].
    Odometry,
    /// [`TransformStamped`].
    TransformStamped,
    /// [`TfMessage`].
    TfMessage,
    /// [`Path`].
    Path,
    /// [`DiagnosticArray`].
    DiagnosticArray,
}

impl Type {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Image,
        Self::CompressedImage,
        Self::CameraInfo,
        Self::PoseStamped,
        Self::PoseWithCovarianceStamped,
        Self::Odometry,
        Self::TransformStamped,
        Self::TfMessage,
        Self::Path,
        Self::DiagnosticArray,
    ];

    /// Its name in ROS 2.
    pub fn name(self) -> &'static str {
        match self {
            Self::Image => "sensor_msgs/msg/Image",
            Self::CompressedImage => "sensor_msgs/msg/CompressedImage",
            Self::CameraInfo => "sensor_msgs/msg/CameraInfo",
            Self::PoseStamped => "geometry_msgs/msg/PoseStamped",
            Self::PoseWithCovarianceStamped => "geometry_msgs/msg/PoseWithCovarianceStamped",
            Self::Odometry => "nav_msgs/msg/Odometry",
            Self::TransformStamped => "geometry_msgs/msg/TransformStamped",
            Self::TfMessage => "tf2_msgs/msg/TFMessage",
            Self::Path => "nav_msgs/msg/Path",
            Self::DiagnosticArray => "diagnostic_msgs/msg/DiagnosticArray",
        }
    }

    /// The type of this name, also as ROS 1 has it (`sensor_msgs/Image`).
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name || known.name().replacen("/msg/", "/", 1) == name)
    }
}

/// `builtin_interfaces/Time`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Time {
    sec: i32,
    nanosec: u32,
}

impl From<Stamp> for Time {
    fn from(stamp: Stamp) -> Self {
        let (sec, nanosec) = stamp.to_sec_nanosec();
        Self { sec, nanosec }
    }
}

impl From<Time> for Stamp {
    fn from(time: Time) -> Self {
        Self::from_sec_nanosec(time.sec, time.nanosec)
    }
}

/// `std_msgs/Header`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Time of what the message tells.
    pub stamp: Time,
    /// The frame that it is told in.
    pub frame_id: String,
}

impl Header {
    /// Of this time and frame.
    pub fn new(stamp: Stamp, frame_id: impl Into<String>) -> Self {
        Self { stamp: stamp.into(), frame_id: frame_id.into() }
    }

    /// Its time.
    pub fn stamp(&self) -> Stamp {
        self.stamp.into()
    }
}

/// `sensor_msgs/Image`; [`ImagePayload::Raw`] says what the fields mean.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of the ROS message")]
pub struct Image<S = String, B = ByteBuf> {
    pub header: Header,
    pub height: u32,
    pub width: u32,
    pub encoding: S,
    pub is_bigendian: u8,
    pub step: u32,
    pub data: B,
}

/// `sensor_msgs/CompressedImage`; [`ImagePayload::Compressed`] says what the fields mean.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of the ROS message")]
pub struct CompressedImage<S = String, B = ByteBuf> {
    pub header: Header,
    pub format: S,
    pub data: B,
}

impl From<Image> for ImageMessage {
    fn from(image: Image) -> Self {
        Self {
            stamp: image.header.stamp(),
            frame_id: image.header.frame_id,
            payload: ImagePayload::Raw {
                width: image.width,
                height: image.height,
                encoding: image.encoding,
                is_bigendian: image.is_bigendian != 0,
                step: image.step,
                data: image.data.into_vec(),
            },
        }
    }
}

impl From<CompressedImage> for ImageMessage {
    fn from(image: CompressedImage) -> Self {
        Self {
            stamp: image.header.stamp(),
            frame_id: image.header.frame_id,
            payload: ImagePayload::Compressed { format: image.format, data: image.data.into_vec() },
        }
    }
}

/// An image on its way out: its pixels are not copied twice.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum ImageView<'a> {
    /// Of [`ImagePayload::Raw`].
    Raw(Image<&'a str, &'a Bytes>),
    /// Of [`ImagePayload::Compressed`].
    Compressed(CompressedImage<&'a str, &'a Bytes>),
}

impl<'a> From<&'a ImageMessage> for ImageView<'a> {
    fn from(image: &'a ImageMessage) -> Self {
        let header = Header::new(image.stamp, image.frame_id.as_str());
        match &image.payload {
            ImagePayload::Raw { width, height, encoding, is_bigendian, step, data } => Self::Raw(Image {
                header,
                height: *height,
                width: *width,
                encoding,
                is_bigendian: u8::from(*is_bigendian),
                step: *step,
                data: Bytes::new(data),
            }),
            ImagePayload::Compressed { format, data } => {
                Self::Compressed(CompressedImage { header, format, data: Bytes::new(data) })
            }
        }
    }
}

/// `sensor_msgs/RegionOfInterest`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct RegionOfInterest {
    x_offset: u32,
    y_offset: u32,
    height: u32,
    width: u32,
    do_rectify: bool,
}

/// `sensor_msgs/CameraInfo`; [`CameraInfoMessage`] is what is kept of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CameraInfo {
    header: Header,
    height: u32,
    width: u32,
    distortion_model: String,
    d: Vec<f64>,
    k: [f64; 9],
    r: [f64; 9],
    p: [f64; 12],
    binning_x: u32,
    binning_y: u32,
    roi: RegionOfInterest,
}

impl From<CameraInfo> for CameraInfoMessage {
    fn from(info: CameraInfo) -> Self {
        Self {
            stamp: info.header.stamp(),
            frame_id: info.header.frame_id,
            width: info.width,
            height: info.height,
            distortion_model: info.distortion_model,
            d: info.d,
            k: info.k,
            r: info.r,
            p: info.p,
            binning: [info.binning_x, info.binning_y],
            roi: message::RegionOfInterest {
                x_offset: info.roi.x_offset,
                y_offset: info.roi.y_offset,
                width: info.roi.width,
                height: info.roi.height,
            },
        }
    }
}

impl From<&CameraInfoMessage> for CameraInfo {
    /// `do_rectify` is not kept, and comes out false.
    fn from(info: &CameraInfoMessage) -> Self {
        let [binning_x, binning_y] = info.binning;
        let message::RegionOfInterest { x_offset, y_offset, width, height } = info.roi;
        Self {
            header: Header::new(info.stamp, info.frame_id.as_str()),
            height: info.height,
            width: info.width,
            distortion_model: info.distortion_model.clone(),
            d: info.d.clone(),
            k: info.k,
            r: info.r,
            p: info.p,
            binning_x,
            binning_y,
            roi: RegionOfInterest { x_offset, y_offset, height, width, do_rectify: false },
        }
    }
}

/// `geometry_msgs/Pose`, and a `geometry_msgs/Transform`, which has the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Pose {
    /// x y z.
    pub position: [f64; 3],
    /// Quaternion, order x y z w.
    pub orientation_xyzw: [f64; 4],
}

/// `geometry_msgs/PoseStamped`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of the ROS message")]
pub struct PoseStamped {
    pub header: Header,
    pub pose: Pose,
}

/// `nav_msgs/Path`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of the ROS message")]
pub struct Path {
    pub header: Header,
    pub poses: Vec<PoseStamped>,
}

/// A 6x6 as rows, since serde stops at arrays of 32; CDR knows no difference.
pub type Covariance = [[f64; 6]; 6];

/// `geometry_msgs/PoseWithCovariance`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of the ROS message")]
pub struct PoseWithCovariance {
    pub pose: Pose,
    pub covariance: Covariance,
}

/// `geometry_msgs/PoseWithCovarianceStamped`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of the ROS message")]
pub struct PoseWithCovarianceStamped {
    pub header: Header,
    pub pose: PoseWithCovariance,
}

/// `geometry_msgs/TwistWithCovariance`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of the ROS message")]
pub struct TwistWithCovariance {
    pub linear: [f64; 3],
    pub angular: [f64; 3],
    pub covariance: Covariance,
}

/// `nav_msgs/Odometry`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of the ROS message")]
pub struct Odometry {
    pub header: Header,
    pub child_frame_id: String,
    pub pose: PoseWithCovariance,
    pub twist: TwistWithCovariance,
}

/// `geometry_msgs/TransformStamped`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of the ROS message")]
pub struct TransformStamped {
    pub header: Header,
    pub child_frame_id: String,
    pub transform: Pose,
}

/// `tf2_msgs/TFMessage`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of the ROS message")]
pub struct TfMessage {
    pub transforms: Vec<TransformStamped>,
}

/// `diagnostic_msgs/KeyValue`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of the ROS message")]
pub struct KeyValue {
    pub key: String,
    pub value: String,
}

/// `diagnostic_msgs/DiagnosticStatus`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of the ROS message")]
pub struct DiagnosticStatus {
    pub level: u8,
    pub name: String,
    pub message: String,
    pub hardware_id: String,
    pub values: Vec<KeyValue>,
}

/// `diagnostic_msgs/DiagnosticArray`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of the ROS message")]
pub struct DiagnosticArray {
    pub header: Header,
    pub status: Vec<DiagnosticStatus>,
}

/// `std_msgs/String`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of the ROS message")]
pub struct Text {
    pub data: String,
}

#[cfg(test)]
mod tests;
