//! ROS 2 messages as serde structs: the order of the fields is the wire format (CDR). Fields that no test reads begin with
//! an underscore.

use geometry::Stamp;
use node::message::CameraInfoMessage;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Header {
    sec: i32,
    nanosec: u32,
    pub frame_id: String,
}

impl Header {
    pub fn new(stamp: Stamp, frame_id: String) -> Self {
        let (sec, nanosec) = stamp.to_sec_nanosec();
        Self { sec, nanosec, frame_id }
    }

    pub fn stamp(&self) -> Stamp {
        Stamp::from_sec_nanosec(self.sec, self.nanosec)
    }
}

/// `sensor_msgs/Image`.
#[derive(Debug, Serialize)]
pub struct Image {
    pub header: Header,
    pub height: u32,
    pub width: u32,
    pub encoding: String,
    pub is_bigendian: u8,
    pub step: u32,
    #[serde(with = "serde_bytes")]
    pub data: Vec<u8>,
}

/// `sensor_msgs/CompressedImage`.
#[derive(Debug, Serialize)]
pub struct CompressedImage {
    pub header: Header,
    pub format: String,
    #[serde(with = "serde_bytes")]
    pub data: Vec<u8>,
}

/// `sensor_msgs/CameraInfo`.
#[derive(Debug, Serialize)]
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
    /// `x_offset`, `y_offset`, `height`, `width`.
    roi: [u32; 4],
    do_rectify: bool,
}

impl From<CameraInfoMessage> for CameraInfo {
    fn from(info: CameraInfoMessage) -> Self {
        let [binning_x, binning_y] = info.binning;
        Self {
            header: Header::new(info.stamp, info.frame_id),
            height: info.height,
            width: info.width,
            distortion_model: info.distortion_model,
            d: info.d,
            k: info.k,
            r: info.r,
            p: info.p,
            binning_x,
            binning_y,
            roi: [info.roi.x_offset, info.roi.y_offset, info.roi.height, info.roi.width],
            do_rectify: false,
        }
    }
}

/// `geometry_msgs/Pose`: x y z, then the quaternion x y z w.
#[derive(Debug, Deserialize)]
pub struct Pose {
    pub position: [f64; 3],
    pub orientation_xyzw: [f64; 4],
}

/// `geometry_msgs/PoseStamped`.
#[derive(Debug, Deserialize)]
pub struct PoseStamped {
    pub header: Header,
    pub pose: Pose,
}

/// `nav_msgs/Path`.
#[derive(Debug, Deserialize)]
pub struct Path {
    pub header: Header,
    pub poses: Vec<PoseStamped>,
}

/// A 6x6 as rows, since serde stops at arrays of 32.
type Covariance = [[f64; 6]; 6];

/// `nav_msgs/Odometry`.
#[derive(Debug, Deserialize)]
pub struct Odometry {
    pub header: Header,
    pub child_frame_id: String,
    pub pose: Pose,
    pub covariance: Covariance,
    _twist: ([f64; 6], Covariance),
}

/// `diagnostic_msgs/DiagnosticStatus`.
#[derive(Debug, Deserialize)]
pub struct DiagnosticStatus {
    pub level: u8,
    pub name: String,
    pub message: String,
    _hardware_id: String,
    pub values: Vec<(String, String)>,
}

/// `diagnostic_msgs/DiagnosticArray`.
#[derive(Debug, Deserialize)]
pub struct DiagnosticArray {
    pub header: Header,
    pub status: Vec<DiagnosticStatus>,
}
