//! Messages of the node as a recording holds them, in CDR behind the four bytes that say so.

use byteorder::{BigEndian, LittleEndian};
use geometry::Stamp;
use serde::{Deserialize, Serialize};

use crate::message::{ImagePayload, Input, Output};
use crate::transport::{Topics, wire};

/// The encapsulation of CDR in little-endian order.
const LITTLE_ENDIAN: [u8; 4] = [0, 1, 0, 0];
/// Bytes of a message beside the pixels, roughly.
const REST: usize = 256;

/// What a topic carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The camera's pictures, as pixels.
    Image,
    /// The same, as files.
    CompressedImage,
    /// The camera's word about itself.
    CameraInfo,
    /// Another odometry, which gives the scale.
    ReferenceOdometry,
    /// Poses of a window.
    Trajectory,
    /// Windows stitched together.
    Odometry,
    /// The node's word about itself.
    Diagnostics,
}

impl Kind {
    /// All, in order.
    pub const ALL: [Self; 7] = [
        Self::Image,
        Self::CompressedImage,
        Self::CameraInfo,
        Self::ReferenceOdometry,
        Self::Trajectory,
        Self::Odometry,
        Self::Diagnostics,
    ];

    /// The name of its type in ROS 2.
    pub fn type_name(self) -> &'static str {
        match self {
            Self::Image => "sensor_msgs/msg/Image",
            Self::CompressedImage => "sensor_msgs/msg/CompressedImage",
            Self::CameraInfo => "sensor_msgs/msg/CameraInfo",
            Self::Trajectory => "nav_msgs/msg/Path",
            Self::ReferenceOdometry | Self::Odometry => "nav_msgs/msg/Odometry",
            Self::Diagnostics => "diagnostic_msgs/msg/DiagnosticArray",
        }
    }

    /// The kind of a type, also by its name in ROS 1; of an odometry only its topic tells whose it is.
    pub(super) fn of_type(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| {
            let known = kind.type_name();
            known == name || known.replacen("/msg/", "/", 1) == name
        })
    }

    /// Its topic among the node's.
    pub(super) fn topic(self, topics: &Topics) -> &str {
        match self {
            Self::Image | Self::CompressedImage => &topics.image,
            Self::CameraInfo => &topics.camera_info,
            // None comes in where it is not subscribed to.
            Self::ReferenceOdometry => topics.reference_odometry.as_deref().unwrap_or_default(),
            Self::Trajectory => &topics.trajectory,
            Self::Odometry => &topics.odometry,
            Self::Diagnostics => &topics.diagnostics,
        }
    }
}

/// A message of a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// When it came or went.
    pub log_time: Stamp,
    /// Its own stamp.
    pub publish_time: Stamp,
    /// The message.
    pub data: Vec<u8>,
}

impl Entry {
    /// A message that came in at `log_time`.
    pub fn of_input(input: &Input, log_time: Stamp) -> Self {
        let (kind, publish_time, data) = match input {
            Input::Image(image) => {
                let (kind, size) = match &image.payload {
                    ImagePayload::Raw { data, .. } => (Kind::Image, data.len()),
                    ImagePayload::Compressed { data, .. } => (Kind::CompressedImage, data.len()),
                };
                (kind, image.stamp, encode(&wire::ImageView::from(image), size))
            }
            Input::CameraInfo(info) => (Kind::CameraInfo, info.stamp, encode(&wire::CameraInfo::from(info), 0)),
            Input::Odometry(odometry) => {
                let data = encode(&wire::Odometry::from(odometry.clone()), 0);
                (Kind::ReferenceOdometry, odometry.pose.stamp, data)
            }
        };
        Self { kind, log_time, publish_time, data }
    }

    /// A message that goes out at `log_time` from the node called `node_name`; `None` for one that is not recorded.
    pub fn of_output(output: &Output, node_name: &str, log_time: Stamp) -> Option<Self> {
        let (kind, publish_time, data) = match output {
            Output::Trajectory(m) => (Kind::Trajectory, m.stamp, encode(&wire::Path::from(m.clone()), 0)),
            Output::Odometry(m) => (Kind::Odometry, m.pose.stamp, encode(&wire::Odometry::from(m.clone()), 0)),
            Output::Diagnostics(m) => {
                (Kind::Diagnostics, m.stamp, encode(&wire::DiagnosticArray::new(m.clone(), node_name), 0))
            }
            // Said by the others, or in another form.
            Output::Status(_)
            | Output::Reasoning(_)
            | Output::Transform(_)
            | Output::StaticTransform(_)
            | Output::Transition(_)
            | Output::ParameterEvent(_) => return None,
        };
        Some(Self { kind, log_time, publish_time, data })
    }
}

/// Bytes of a message that comes in, roughly.
pub(super) fn size_of(input: &Input) -> usize {
    let pixels = match input {
        Input::Image(image) => match &image.payload {
            ImagePayload::Raw { data, .. } | ImagePayload::Compressed { data, .. } => data.len(),
        },
        Input::CameraInfo(_) | Input::Odometry(_) => 0,
    };
    pixels + REST
}

fn encode<T: Serialize>(message: &T, size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size + REST);
    bytes.extend(LITTLE_ENDIAN);
    // Alignment counts from behind the encapsulation, as the serializer does.
    cdr_encoding::to_writer::<T, LittleEndian, &mut Vec<u8>>(&mut bytes, message)
        .expect("memory takes every byte, and every sequence knows its length");
    bytes
}

/// A message that came in, of one of the kinds that do.
///
/// # Errors
///
/// What is wrong with it, where it is not what its kind says.
pub(super) fn decode_input(kind: Kind, message: &[u8]) -> Result<Input, String> {
    match kind {
        Kind::Image => decode::<wire::Image>(message).map(|image| Input::Image(image.into())),
        Kind::CompressedImage => decode::<wire::CompressedImage>(message).map(|image| Input::Image(image.into())),
        Kind::CameraInfo => decode::<wire::CameraInfo>(message).map(|info| Input::CameraInfo(info.into())),
        Kind::ReferenceOdometry => decode::<wire::Odometry>(message).map(|odometry| Input::Odometry(odometry.into())),
        Kind::Trajectory | Kind::Odometry | Kind::Diagnostics => Err(format!("{} does not come in", kind.type_name())),
    }
}

fn decode<'a, T: Deserialize<'a>>(message: &'a [u8]) -> Result<T, String> {
    let (encapsulation, body) =
        message.split_at_checked(4).ok_or_else(|| format!("expected at least 4 bytes, got {}", message.len()))?;
    let decoded = match encapsulation[..2] {
        [0, 0] => cdr_encoding::from_bytes::<T, BigEndian>(body),
        [0, 1] => cdr_encoding::from_bytes::<T, LittleEndian>(body),
        _ => return Err(format!("expected plain CDR, got the encapsulation {encapsulation:?}")),
    };
    decoded.map(|(value, _)| value).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use geometry::Stamp;

    use super::{Entry, Kind, decode_input};
    use crate::message::{
        CameraInfoMessage, ImageMessage, ImagePayload, Input, OdometryMessage, RegionOfInterest, StampedPose,
    };

    fn inputs() -> [(Kind, Input); 4] {
        let stamp = Stamp::from_sec_nanosec(17, 250);
        let raw = ImagePayload::Raw {
            width: 3,
            height: 2,
            encoding: "mono8".to_owned(),
            is_bigendian: true,
            step: 4,
            data: (0..8).collect(),
        };
        let file = ImagePayload::Compressed { format: "png".to_owned(), data: vec![9, 8, 7] };
        let image = |payload| Input::Image(ImageMessage { stamp, frame_id: "eye".to_owned(), payload });
        let info = CameraInfoMessage {
            stamp,
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
        };
        let orientation_xyzw = [0.0, 0.6, 0.0, 0.8];
        let odometry = OdometryMessage {
            frame_id: "wheels".to_owned(),
            child_frame_id: "base_link".to_owned(),
            pose: StampedPose { stamp, position: [1.0, 2.0, 3.0], orientation_xyzw },
            pose_covariance: std::array::from_fn(|i| i as f64),
        };
        [
            (Kind::Image, image(raw)),
            (Kind::CompressedImage, image(file)),
            (Kind::CameraInfo, Input::CameraInfo(info)),
            (Kind::ReferenceOdometry, Input::Odometry(odometry)),
        ]
    }

    #[test]
    fn what_comes_in_comes_back_in_either_byte_order() {
        for (kind, input) in inputs() {
            let entry = Entry::of_input(&input, Stamp::from_nanos(5));
            assert_eq!((entry.kind, entry.log_time.nanos, entry.publish_time.nanos), (kind, 5, 17_000_000_250));
            assert_eq!(decode_input(kind, &entry.data), Ok(input), "{kind:?}");
        }
        // sec 1, nanosec 2, frame_id "", format "a", data [7]
        let big = [
            &[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0][..],
            &[0, 0, 0, 2, b'a', 0, 0, 0, 0, 0, 0, 1, 7],
        ]
        .concat();
        let payload = ImagePayload::Compressed { format: "a".to_owned(), data: vec![7] };
        let stamp = Stamp::from_sec_nanosec(1, 2);
        let expected = Input::Image(ImageMessage { stamp, frame_id: String::new(), payload });
        assert_eq!(decode_input(Kind::CompressedImage, &big), Ok(expected));
    }

    #[test]
    fn an_image_has_the_bytes_of_ros() {
        let [(_, input), ..] = inputs();
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
        assert_eq!(Entry::of_input(&input, Stamp::default()).data, expected);
    }

    #[test]
    fn what_is_not_a_message_is_named() {
        for (kind, input) in inputs() {
            let data = Entry::of_input(&input, Stamp::default()).data;
            for length in 0..data.len() {
                assert!(decode_input(kind, &data[..length]).is_err(), "{kind:?}, {length} bytes");
            }
            let mut strange = data;
            strange[1] = 7;
            assert!(decode_input(kind, &strange).unwrap_err().contains("encapsulation"));
            let mut long = strange;
            long[1] = 1;
            long[12..16].fill(0xff);
            assert!(decode_input(kind, &long).is_err(), "a name of 4 GB");
        }
        assert!(decode_input(Kind::Odometry, &[0, 1, 0, 0]).is_err());
    }

    #[test]
    fn types_are_known_by_both_names() {
        for kind in Kind::ALL {
            assert_eq!(Kind::of_type(kind.type_name()).map(Kind::type_name), Some(kind.type_name()));
        }
        assert_eq!(Kind::of_type("sensor_msgs/Image"), Some(Kind::Image));
        assert_eq!(Kind::of_type("sensor_msgs/msg/Imu"), None);
    }
}
