//! What passes the node's ends as messages of a recording, and back.

use camera::cdr::{REST, decode, encode};
use camera::message::ImagePayload;
use camera::recording::Entry;
use camera::ros::{self, ImageView, Type};
use geometry::Stamp;

use crate::ros::message::{Input, OdometryMessage, Output};
use crate::ros::transport::topics::Topics;
use crate::ros::transport::wire;

/// A message that came in at `log_time`. Names of `topics` are absolute.
pub fn entry_of_input(input: &Input, topics: &Topics, log_time: Stamp) -> Entry {
    let (topic, message_type, publish_time, data) = match input {
        Input::Image(image) => {
            let (message_type, size) = match &image.payload {
                ImagePayload::Raw { data, .. } => (Type::Image, data.len()),
                ImagePayload::Compressed { data, .. } => (Type::CompressedImage, data.len()),
            };
            (topics.image.as_str(), message_type, image.stamp, encode(&ImageView::from(image), size))
        }
        Input::CameraInfo(info) => {
            (topics.camera_info.as_str(), Type::CameraInfo, info.stamp, encode(&ros::CameraInfo::from(info), 0))
        }
        Input::Odometry(odometry) => odometry_on(topics.reference_odometry.as_deref(), odometry),
        Input::Followed(odometry) => odometry_on(topics.followed_odometry.as_deref(), odometry),
    };
    Entry { topic: topic.to_owned(), message_type, log_time, publish_time, data }
}

/// None comes in where it is not subscribed to.
fn odometry_on<'a>(topic: Option<&'a str>, odometry: &OdometryMessage) -> (&'a str, Type, Stamp, Vec<u8>) {
    let data = encode(&wire::odometry(odometry.clone()), 0);
    (topic.unwrap_or_default(), Type::Odometry, odometry.pose.stamp, data)
}

/// A message that goes out at `log_time`; `None` for one that is not recorded. Names of `topics` are absolute.
pub fn entry_of_output(output: &Output, topics: &Topics, log_time: Stamp) -> Option<Entry> {
    let (topic, message_type, publish_time, data) = match output {
        Output::Trajectory(m) => (&topics.trajectory, Type::Path, m.stamp, encode(&wire::path(m.clone()), 0)),
        Output::Odometry(m) => (&topics.odometry, Type::Odometry, m.pose.stamp, encode(&wire::odometry(m.clone()), 0)),
        Output::Diagnostics(m) => {
            let array = wire::diagnostic_array(m.clone(), &topics.full_name());
            (&topics.diagnostics, Type::DiagnosticArray, m.stamp, encode(&array, 0))
        }
        // Said by the others, or in another form.
        Output::Pose(_)
        | Output::Scale(_)
        | Output::Status(_)
        | Output::Reasoning(_)
        | Output::Transform(_)
        | Output::StaticTransform(_)
        | Output::Transition(_)
        | Output::ParameterEvent(_) => return None,
    };
    Some(Entry { topic: topic.clone(), message_type, log_time, publish_time, data })
}

/// The topics on which the node itself speaks in a recording: none of them is the truth of a drive. Names of `topics` are
/// absolute.
pub fn own_topics(topics: &Topics) -> [String; 3] {
    [&topics.trajectory, &topics.odometry, &topics.diagnostics].map(Clone::clone)
}

/// Bytes of a message that comes in, roughly.
pub(super) fn size_of(input: &Input) -> usize {
    let pixels = match input {
        Input::Image(image) => match &image.payload {
            ImagePayload::Raw { data, .. } | ImagePayload::Compressed { data, .. } => data.len(),
        },
        Input::CameraInfo(_) | Input::Odometry(_) | Input::Followed(_) => 0,
    };
    pixels + REST
}

/// A message that came in, of one of the types that do.
///
/// # Errors
///
/// What is wrong with it, where it is not what its type says.
pub(super) fn decode_input(message_type: Type, message: &[u8]) -> Result<Input, String> {
    match message_type {
        Type::Image => decode::<ros::Image>(message).map(|image| Input::Image(image.into())),
        Type::CompressedImage => decode::<ros::CompressedImage>(message).map(|image| Input::Image(image.into())),
        Type::CameraInfo => decode::<ros::CameraInfo>(message).map(|info| Input::CameraInfo(info.into())),
        Type::Odometry => decode::<ros::Odometry>(message).map(|odometry| Input::Odometry(odometry.into())),
        other => Err(format!("{} does not come in", other.name())),
    }
}

#[cfg(test)]
mod tests {
    use camera::message::{CameraInfoMessage, ImageMessage, ImagePayload};
    use camera::ros::Type;
    use geometry::Stamp;

    use super::{decode_input, entry_of_input};
    use crate::config::Config;
    use crate::ros::message::{Input, OdometryMessage, StampedPose};
    use crate::ros::transport::topics::Topics;

    #[test]
    fn what_comes_in_comes_back_and_has_its_topic() {
        let shipped = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/node.toml");
        let shipped = Config::load(&shipped, &[]).unwrap().topics.resolved().unwrap();
        let topics = Topics { reference_odometry: Some("/wheels".to_owned()), ..shipped };
        let stamp = Stamp::from_sec_nanosec(17, 250);
        let image = |payload| Input::Image(ImageMessage { stamp, frame_id: "eye".to_owned(), payload });
        let (encoding, data) = ("mono8".to_owned(), (0..8).collect());
        let raw = ImagePayload::Raw { width: 3, height: 2, encoding, is_bigendian: true, step: 4, data };
        let file = ImagePayload::Compressed { format: "png".to_owned(), data: vec![9, 8, 7] };
        let info = CameraInfoMessage { stamp, width: 640, height: 480, ..CameraInfoMessage::default() };
        let odometry = OdometryMessage {
            frame_id: "wheels".to_owned(),
            child_frame_id: "base_link".to_owned(),
            pose: StampedPose { stamp, position: [1.0, 2.0, 3.0], orientation_xyzw: [0.0, 0.6, 0.0, 0.8] },
            pose_covariance: std::array::from_fn(|i| i as f64),
        };
        for (topic, message_type, input) in [
            (topics.image.as_str(), Type::Image, image(raw)),
            (topics.image.as_str(), Type::CompressedImage, image(file)),
            (topics.camera_info.as_str(), Type::CameraInfo, Input::CameraInfo(info)),
            ("/wheels", Type::Odometry, Input::Odometry(odometry)),
        ] {
            let entry = entry_of_input(&input, &topics, Stamp::from_nanos(5));
            assert_eq!((entry.topic.as_str(), entry.message_type), (topic, message_type));
            assert_eq!((entry.log_time.nanos, entry.publish_time), (5, stamp));
            assert_eq!(decode_input(message_type, &entry.data), Ok(input), "{topic}");
        }
        assert!(decode_input(Type::Path, &[0, 1, 0, 0]).is_err());
    }
}
