//! ROS 2 messages as serde structs: field order is the wire format (CDR), so fields that the node does not use are
//! here too. `ros2_client` and recordings need these; r2r brings its own, generated from the sourced ROS 2.

use serde::{Deserialize, Serialize};

use crate::message::{
    self, CameraInfoMessage, DiagnosticsMessage, ImageMessage, ImagePayload, OdometryMessage, StampedPose,
    TrajectoryMessage, TransformMessage,
};

pub(super) mod service;

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Time {
    sec: i32,
    nanosec: u32,
}

impl From<geometry::Stamp> for Time {
    fn from(stamp: geometry::Stamp) -> Self {
        let (sec, nanosec) = stamp.to_sec_nanosec();
        Self { sec, nanosec }
    }
}

impl From<Time> for geometry::Stamp {
    fn from(time: Time) -> Self {
        Self::from_sec_nanosec(time.sec, time.nanosec)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Header {
    stamp: Time,
    frame_id: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Image {
    header: Header,
    height: u32,
    width: u32,
    encoding: String,
    is_bigendian: u8,
    step: u32,
    #[serde(with = "serde_bytes")]
    data: Vec<u8>,
}

impl From<Image> for ImageMessage {
    fn from(image: Image) -> Self {
        Self {
            stamp: image.header.stamp.into(),
            frame_id: image.header.frame_id,
            payload: ImagePayload::Raw {
                width: image.width,
                height: image.height,
                encoding: image.encoding,
                is_bigendian: image.is_bigendian != 0,
                step: image.step,
                data: image.data,
            },
        }
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct CompressedImage {
    header: Header,
    format: String,
    #[serde(with = "serde_bytes")]
    data: Vec<u8>,
}

impl From<CompressedImage> for ImageMessage {
    fn from(image: CompressedImage) -> Self {
        Self {
            stamp: image.header.stamp.into(),
            frame_id: image.header.frame_id,
            payload: ImagePayload::Compressed { format: image.format, data: image.data },
        }
    }
}

/// An image on its way into a recording: its pixels are not copied twice.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum ImageView<'a> {
    /// An [`Image`].
    Raw {
        header: Header,
        height: u32,
        width: u32,
        encoding: &'a str,
        is_bigendian: u8,
        step: u32,
        #[serde(with = "serde_bytes")]
        data: &'a [u8],
    },
    /// A [`CompressedImage`].
    Compressed {
        header: Header,
        format: &'a str,
        #[serde(with = "serde_bytes")]
        data: &'a [u8],
    },
}

impl<'a> From<&'a ImageMessage> for ImageView<'a> {
    fn from(image: &'a ImageMessage) -> Self {
        let header = Header { stamp: image.stamp.into(), frame_id: image.frame_id.clone() };
        match &image.payload {
            ImagePayload::Raw { width, height, encoding, is_bigendian, step, data } => Self::Raw {
                header,
                height: *height,
                width: *width,
                encoding,
                is_bigendian: u8::from(*is_bigendian),
                step: *step,
                data,
            },
            ImagePayload::Compressed { format, data } => Self::Compressed { header, format, data },
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct RegionOfInterest {
    x_offset: u32,
    y_offset: u32,
    height: u32,
    width: u32,
    do_rectify: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CameraInfo {
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
            stamp: info.header.stamp.into(),
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
    /// `do_rectify` is not kept by the node, and comes out false.
    fn from(info: &CameraInfoMessage) -> Self {
        let [binning_x, binning_y] = info.binning;
        let message::RegionOfInterest { x_offset, y_offset, width, height } = info.roi;
        Self {
            header: Header { stamp: info.stamp.into(), frame_id: info.frame_id.clone() },
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

/// `geometry_msgs/Pose`: position x y z, then quaternion x y z w.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Pose {
    position: [f64; 3],
    orientation_xyzw: [f64; 4],
}

impl From<&StampedPose> for Pose {
    fn from(pose: &StampedPose) -> Self {
        Self { position: pose.position, orientation_xyzw: pose.orientation_xyzw }
    }
}

#[derive(Debug, Serialize)]
struct PoseStamped {
    header: Header,
    pose: Pose,
}

#[derive(Debug, Serialize)]
pub(crate) struct Path {
    header: Header,
    poses: Vec<PoseStamped>,
}

impl From<TrajectoryMessage> for Path {
    fn from(trajectory: TrajectoryMessage) -> Self {
        let frame_id = trajectory.frame_id;
        let poses = trajectory
            .poses
            .iter()
            .map(|pose| PoseStamped {
                header: Header { stamp: pose.stamp.into(), frame_id: frame_id.clone() },
                pose: pose.into(),
            })
            .collect();
        Self { header: Header { stamp: trajectory.stamp.into(), frame_id }, poses }
    }
}

/// A 6x6 as rows, since serde stops at arrays of 32; CDR knows no difference.
type Covariance = [[f64; 6]; 6];

#[derive(Debug, Serialize, Deserialize)]
struct PoseWithCovariance {
    pose: Pose,
    covariance: Covariance,
}

#[derive(Debug, Serialize, Deserialize)]
struct TwistWithCovariance {
    linear: [f64; 3],
    angular: [f64; 3],
    covariance: Covariance,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Odometry {
    header: Header,
    child_frame_id: String,
    pose: PoseWithCovariance,
    twist: TwistWithCovariance,
}

impl From<OdometryMessage> for Odometry {
    fn from(odometry: OdometryMessage) -> Self {
        let mut covariance = [[0.0; 6]; 6];
        for (row, values) in covariance.iter_mut().zip(odometry.pose_covariance.chunks_exact(6)) {
            row.copy_from_slice(values);
        }
        let mut unmeasured = [[0.0; 6]; 6];
        for (i, row) in unmeasured.iter_mut().enumerate() {
            row[i] = super::TWIST_VARIANCE;
        }
        Self {
            header: Header { stamp: odometry.pose.stamp.into(), frame_id: odometry.frame_id },
            child_frame_id: odometry.child_frame_id,
            pose: PoseWithCovariance { pose: (&odometry.pose).into(), covariance },
            twist: TwistWithCovariance { linear: [0.0; 3], angular: [0.0; 3], covariance: unmeasured },
        }
    }
}

impl From<Odometry> for OdometryMessage {
    fn from(odometry: Odometry) -> Self {
        let Pose { position, orientation_xyzw } = odometry.pose.pose;
        let covariance = odometry.pose.covariance;
        Self {
            frame_id: odometry.header.frame_id,
            child_frame_id: odometry.child_frame_id,
            pose: StampedPose { stamp: odometry.header.stamp.into(), position, orientation_xyzw },
            pose_covariance: std::array::from_fn(|i| covariance[i / 6][i % 6]),
        }
    }
}

#[derive(Debug, Serialize)]
struct KeyValue {
    key: String,
    value: String,
}

#[derive(Debug, Serialize)]
pub(super) struct DiagnosticStatus {
    level: u8,
    name: String,
    message: String,
    hardware_id: String,
    values: Vec<KeyValue>,
}

impl DiagnosticStatus {
    /// The status of this name.
    pub(super) fn new(diagnostics: DiagnosticsMessage, name: String) -> Self {
        let values = diagnostics.values.into_iter().map(|(key, value)| KeyValue { key, value }).collect();
        Self { level: diagnostics.level as u8, name, message: diagnostics.message, hardware_id: String::new(), values }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct DiagnosticArray {
    header: Header,
    status: Vec<DiagnosticStatus>,
}

impl DiagnosticArray {
    /// The one status of the node called `node_name`.
    pub(crate) fn new(diagnostics: DiagnosticsMessage, node_name: &str) -> Self {
        Self {
            header: Header { stamp: diagnostics.stamp.into(), frame_id: String::new() },
            status: vec![DiagnosticStatus::new(diagnostics, super::diagnostic_name(node_name))],
        }
    }
}

/// `std_msgs/String`.
#[derive(Debug, Serialize)]
pub(super) struct Text {
    data: String,
}

impl From<String> for Text {
    fn from(data: String) -> Self {
        Self { data }
    }
}

#[derive(Debug, Serialize)]
struct TransformStamped {
    header: Header,
    child_frame_id: String,
    translation: [f64; 3],
    rotation_xyzw: [f64; 4],
}

/// `tf2_msgs/TFMessage`.
#[derive(Debug, Serialize)]
pub(super) struct TfMessage {
    transforms: Vec<TransformStamped>,
}

impl From<TransformMessage> for TfMessage {
    fn from(transform: TransformMessage) -> Self {
        Self {
            transforms: vec![TransformStamped {
                header: Header { stamp: transform.stamp.into(), frame_id: transform.frame_id },
                child_frame_id: transform.child_frame_id,
                translation: transform.translation,
                rotation_xyzw: transform.rotation_xyzw,
            }],
        }
    }
}

#[cfg(test)]
mod tests {
    use byteorder::LittleEndian;
    use geometry::Stamp;
    use serde::de::DeserializeOwned;

    use super::{CompressedImage, Image, ImageView};
    use crate::message::{ImageMessage, ImagePayload};

    fn pixels(payload: &ImagePayload) -> &[u8] {
        match payload {
            ImagePayload::Raw { data, .. } | ImagePayload::Compressed { data, .. } => data,
        }
    }

    /// Reads the message as `ros2_client` does, which is its one copy; what is made of it has the pixels where they are.
    fn assert_one_copy<Wire: DeserializeOwned + Into<ImageMessage>>(
        payload: ImagePayload,
        data: fn(&Wire) -> &Vec<u8>,
    ) {
        let sent = ImageMessage { stamp: Stamp::from_nanos(5), frame_id: "eye".to_owned(), payload };
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
        let raw = ImagePayload::Raw {
            width: 640,
            height: 480,
            encoding: "rgb8".to_owned(),
            is_bigendian: false,
            step: 640 * 3,
            data: data.clone(),
        };
        assert_one_copy::<Image>(raw, |image| &image.data);
        let file = ImagePayload::Compressed { format: "jpeg".to_owned(), data };
        assert_one_copy::<CompressedImage>(file, |image| &image.data);
    }
}
