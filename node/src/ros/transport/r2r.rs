//! The transport of a machine with ROS 2 sourced: rcl underneath, so its rmw, its shared memory, its `--ros-args`
//! (which rcl reads from the command line itself; topic names are remapped there, not here).
//!
//! r2r puts every subscription behind a channel of ten and drops, unseen, what does not fit. The spinning thread
//! therefore empties all streams after every wake-up and does nothing else; outputs are published from the caller's.
//!
//! Of an image r2r makes one copy, of all pixels at once, out of the message that rcl has filled: from there on they are
//! moved. A message that the middleware lends (r2r's native subscriptions) would save nothing: images have no fixed size,
//! and such are not lent.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use camera::message::{CameraInfoMessage, ImageMessage, ImagePayload, RegionOfInterest};
use futures::{FutureExt, Stream, StreamExt, stream};
use r2r::builtin_interfaces::msg::Time;
use r2r::diagnostic_msgs::msg::{DiagnosticArray, DiagnosticStatus, KeyValue};
use r2r::geometry_msgs::msg::{Point, Pose, PoseStamped, PoseWithCovariance, Quaternion, TwistWithCovariance};
use r2r::lifecycle_msgs::msg::TransitionEvent;
use r2r::nav_msgs::msg::{Odometry, Path};
use r2r::qos::{DurabilityPolicy, ReliabilityPolicy};
use r2r::rcl_interfaces::msg::ParameterEvent;
use r2r::sensor_msgs::msg::{CameraInfo, CompressedImage, Image};
use r2r::std_msgs::msg::{Header, String as Text};
use r2r::{Context, Node, Publisher, QosProfile, WrappedTypesupport};

use super::graph::{Remark, nearby, remarks};
use super::qos::{End, Endpoint, Qos};
use super::topics::environment_domain;
use super::{
    Ends, Error, GRAPH_PERIOD, Kind, PARAMETER_EVENTS, SCALE, STOP_POLL, TRAJECTORY, TRANSITION_EVENT, TWIST_VARIANCE,
    Topics, look_until, publish_until_stopped, status_name,
};
use crate::ros::message::{
    DiagnosticsMessage, Input, OdometryMessage, Output, PoseMessage, StampedPose, TrajectoryMessage,
};

mod services;
mod tf;

use tf::Transforms;

/// Runs until stopped; see [`super::run`].
///
/// # Errors
///
/// [`Error`] where rcl refuses the node or a name.
pub fn run(topics: &Topics, ends: Ends) -> Result<(), Error> {
    let Ends { input, call, graph: tell, output, stop, watch } = ends;
    let (mut node, got) = join(topics)?;

    let cannot_subscribe = |name: &str, error: r2r::Error| middleware(&format!("subscribe to {name}"), &error);
    let image_qos = profile(topics.sensor_qos(&topics.image)?);
    let mut images: Box<dyn Stream<Item = ImageMessage> + Send + Unpin> = if topics.image_compressed {
        let stream = node.subscribe::<CompressedImage>(&topics.image, image_qos);
        Box::new(stream.map_err(|error| cannot_subscribe(&topics.image, error))?.map(image_from_compressed))
    } else {
        let stream = node.subscribe::<Image>(&topics.image, image_qos);
        Box::new(stream.map_err(|error| cannot_subscribe(&topics.image, error))?.map(image_from_raw))
    };
    let mut camera_infos = node
        .subscribe::<CameraInfo>(&topics.camera_info, profile(topics.sensor_qos(&topics.camera_info)?))
        .map_err(|error| cannot_subscribe(&topics.camera_info, error))?
        .map(camera_info_from);
    let mut odometry =
        |name: &Option<String>| -> Result<Box<dyn Stream<Item = OdometryMessage> + Send + Unpin>, Error> {
            let Some(name) = name else { return Ok(Box::new(stream::pending())) };
            let stream = node.subscribe::<Odometry>(name, profile(topics.sensor_qos(name)?));
            Ok(Box::new(stream.map_err(|error| cannot_subscribe(name, error))?.map(odometry_message_from)))
        };
    let (mut references, mut followed) = (odometry(&topics.reference_odometry)?, odometry(&topics.followed_odometry)?);
    let publishers = Publishers::new(&mut node, topics)?;
    let mut services = services::all(&mut node)?;
    let (ours, full_name) = (topics.endpoints()?, publishers.full_name.clone());
    tracing::info!(transport = "r2r", image = topics.image, trajectory = topics.trajectory, domain = got, "listening");

    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            watch.over("what comes in", || {
                let mut looked = Instant::now();
                while !done.load(Ordering::Relaxed) {
                    node.spin_once(STOP_POLL);
                    // The odometry first: an image may end a window that it measures. Then CameraInfo, which belongs to the
                    // image that comes with it.
                    while let Some(Some(odometry)) = references.next().now_or_never() {
                        input(Input::Odometry(odometry));
                    }
                    while let Some(Some(odometry)) = followed.next().now_or_never() {
                        input(Input::Followed(odometry));
                    }
                    while let Some(Some(info)) = camera_infos.next().now_or_never() {
                        input(Input::CameraInfo(info));
                    }
                    while let Some(Some(image)) = images.next().now_or_never() {
                        input(Input::Image(image));
                    }
                    for requests in &mut services {
                        while let Some(Some(request)) = requests.next().now_or_never() {
                            call(request);
                        }
                    }
                    if looked.elapsed() >= GRAPH_PERIOD {
                        tell(remarks(&ours, &publishers_of_others(&node, &ours, &full_name)));
                        looked = Instant::now();
                    }
                }
            });
        });
        let publish = |output| {
            if let Err((topic, error)) = publishers.publish(output) {
                tracing::warn!(topic, %error, "a message was not published");
            }
        };
        publish_until_stopped(&output, &stop, &watch, || true, publish);
        done.store(true, Ordering::Relaxed);
    });
    Ok(())
}

/// The node, and the domain that it is in.
fn join(topics: &Topics) -> Result<(Node, u16), Error> {
    let got = environment_domain()?;
    if let Some(expected) = topics.domain_id.filter(|&expected| expected != got) {
        return Err(Error::DomainFromEnvironment { expected, got });
    }
    let context = Context::create().map_err(|error| middleware("start rcl", &error))?;
    let node = Node::create(context, &topics.node_name, &topics.namespace)
        .map_err(|error| middleware(&format!("create node {}", topics.node_name), &error))?;
    Ok((node, got))
}

/// As [`super::look`]. The node that looks has no ends, so that whatever is found is another's.
pub(super) fn look(topics: &Topics, patience: Duration) -> Result<Vec<Remark>, Error> {
    let asking = Topics { node_name: format!("{}_doctor", topics.node_name), ..topics.clone() };
    let (node, _) = join(&asking)?;
    look_until(topics, patience, |ours| publishers_of_others(&node, ours, ""))
}

struct Publishers {
    trajectory: Publisher<Path>,
    odometry: Publisher<Odometry>,
    pose: Publisher<PoseStamped>,
    scale: Publisher<DiagnosticStatus>,
    diagnostics: Publisher<DiagnosticArray>,
    status: Publisher<DiagnosticStatus>,
    reasoning: Publisher<Text>,
    transforms: Transforms,
    transition_event: Publisher<TransitionEvent>,
    parameter_events: Publisher<ParameterEvent>,
    /// With its namespace.
    full_name: String,
}

impl Publishers {
    fn new(node: &mut Node, topics: &Topics) -> Result<Self, Error> {
        Ok(Self {
            trajectory: publisher(node, topics, &topics.trajectory)?,
            odometry: publisher(node, topics, &topics.odometry)?,
            pose: publisher(node, topics, &topics.pose)?,
            scale: publisher(node, topics, &topics.scale)?,
            diagnostics: publisher(node, topics, &topics.diagnostics)?,
            status: publisher(node, topics, &topics.status)?,
            reasoning: publisher(node, topics, &topics.reasoning)?,
            transforms: Transforms::new(node, topics)?,
            transition_event: publisher(node, topics, TRANSITION_EVENT)?,
            parameter_events: publisher(node, topics, PARAMETER_EVENTS)?,
            full_name: node.fully_qualified_name().map_err(|error| middleware("read the node's name", &error))?,
        })
    }

    /// The topic and the reason where rcl does not take the message.
    fn publish(&self, output: Output) -> Result<(), (&'static str, r2r::Error)> {
        let (topic, result) = match output {
            Output::Trajectory(m) => ("trajectory", self.trajectory.publish(&path_from(m))),
            Output::Odometry(m) => ("odometry", self.odometry.publish(&odometry_from(m))),
            Output::Pose(PoseMessage { frame_id, pose }) => {
                let stamped = PoseStamped { header: header(pose.stamp, frame_id), pose: pose_from(&pose) };
                ("pose", self.pose.publish(&stamped))
            }
            Output::Scale(m) => ("scale", self.scale.publish(&status_from(m, &self.full_name, SCALE))),
            Output::Diagnostics(m) => ("diagnostics", self.diagnostics.publish(&diagnostics_from(m, &self.full_name))),
            Output::Status(m) => ("status", self.status.publish(&status_from(m, &self.full_name, TRAJECTORY))),
            Output::Reasoning(data) => ("reasoning", self.reasoning.publish(&Text { data })),
            Output::Transform(m) => (super::TF, self.transforms.publish(m)),
            Output::StaticTransform(m) => (super::TF_STATIC, self.transforms.publish_static(m)),
            Output::Transition(m) => {
                ("transition_event", self.transition_event.publish(&services::transition_event_from(m)))
            }
            Output::ParameterEvent(m) => {
                let event = services::parameter_event_from(m, self.full_name.clone());
                (PARAMETER_EVENTS, self.parameter_events.publish(&event))
            }
        };
        result.map_err(|error| (topic, error))
    }
}

/// What others than `full_name` publish on the topics of `ours` and on those nearby; a policy that rcl does not know counts as
/// fitting. r2r 0.9.7 has no such call for subscriptions, and its list of all topics reads past its end where a topic has two
/// types.
fn publishers_of_others(node: &Node, ours: &[Endpoint], full_name: &str) -> Vec<Endpoint> {
    let nearby = nearby(ours);
    let of_ours = ours.iter().map(|our| (our.topic.as_str(), Some(our)));
    let topics = of_ours.chain(nearby.iter().map(|topic| (topic.as_str(), None)));
    let mut found = Vec::new();
    for (topic, our) in topics {
        let infos = node.get_publishers_info_by_topic(topic, false).unwrap_or_else(|error| {
            tracing::debug!(topic, %error, "rcl does not tell who publishes");
            Vec::new()
        });
        // One is the node's own; a second node of the same name is another.
        let mut is_own_left = our.is_some_and(|our| our.end == End::Publisher);
        for info in infos {
            let name = format!("{}/{}", info.node_namespace.trim_end_matches('/'), info.node_name);
            if is_own_left && name == full_name {
                is_own_left = false;
                continue;
            }
            found.push(Endpoint {
                topic: topic.to_owned(),
                end: End::Publisher,
                message_type: info.topic_type,
                key: "",
                is_reliable: match info.qos_profile.reliability {
                    ReliabilityPolicy::Reliable => true,
                    ReliabilityPolicy::BestEffort => false,
                    _ => our.is_some_and(|our| our.is_reliable),
                },
                is_transient_local: match info.qos_profile.durability {
                    DurabilityPolicy::TransientLocal => true,
                    DurabilityPolicy::Volatile => false,
                    _ => our.is_some_and(|our| our.is_transient_local),
                },
            });
        }
    }
    found
}

fn publisher<Message>(node: &mut Node, topics: &Topics, name: &str) -> Result<Publisher<Message>, Error>
where
    Message: WrappedTypesupport + 'static,
{
    let qos = profile(topics.publisher_qos(name)?);
    node.create_publisher(name, qos).map_err(|error| middleware(&format!("publish {name}"), &error))
}

fn profile(qos: Qos) -> QosProfile {
    let depth = usize::try_from(qos.depth.max(1)).unwrap_or(1);
    let profile = QosProfile::default().keep_last(depth);
    let profile = if qos.is_reliable { profile.reliable() } else { profile.best_effort() };
    if qos.is_transient_local { profile.transient_local() } else { profile.volatile() }
}

fn middleware(action: &str, reason: &dyn std::fmt::Display) -> Error {
    Error::Middleware { kind: Kind::R2r, action: action.to_owned(), reason: reason.to_string() }
}

fn stamp_from(time: &Time) -> geometry::Stamp {
    geometry::Stamp::from_sec_nanosec(time.sec, time.nanosec)
}

fn header(stamp: geometry::Stamp, frame_id: String) -> Header {
    let (sec, nanosec) = stamp.to_sec_nanosec();
    Header { stamp: Time { sec, nanosec }, frame_id }
}

fn image_from_raw(image: Image) -> ImageMessage {
    ImageMessage {
        stamp: stamp_from(&image.header.stamp),
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

fn image_from_compressed(image: CompressedImage) -> ImageMessage {
    ImageMessage {
        stamp: stamp_from(&image.header.stamp),
        frame_id: image.header.frame_id,
        payload: ImagePayload::Compressed { format: image.format, data: image.data },
    }
}

fn camera_info_from(info: CameraInfo) -> CameraInfoMessage {
    CameraInfoMessage {
        stamp: stamp_from(&info.header.stamp),
        frame_id: info.header.frame_id,
        width: info.width,
        height: info.height,
        distortion_model: info.distortion_model,
        d: info.d,
        k: array(&info.k),
        r: array(&info.r),
        p: array(&info.p),
        binning: [info.binning_x, info.binning_y],
        roi: RegionOfInterest {
            x_offset: info.roi.x_offset,
            y_offset: info.roi.y_offset,
            width: info.roi.width,
            height: info.roi.height,
        },
    }
}

fn odometry_message_from(odometry: Odometry) -> OdometryMessage {
    let Pose { position, orientation } = odometry.pose.pose;
    OdometryMessage {
        pose: StampedPose {
            stamp: stamp_from(&odometry.header.stamp),
            position: [position.x, position.y, position.z],
            orientation_xyzw: [orientation.x, orientation.y, orientation.z, orientation.w],
        },
        frame_id: odometry.header.frame_id,
        child_frame_id: odometry.child_frame_id,
        pose_covariance: array(&odometry.pose.covariance),
    }
}

/// A matrix, for which r2r has a Vec, of as many values as the type says.
fn array<const N: usize>(values: &[f64]) -> [f64; N] {
    let mut array = [0.0; N];
    array.iter_mut().zip(values).for_each(|(to, from)| *to = *from);
    array
}

fn pose_from(pose: &StampedPose) -> Pose {
    let [x, y, z] = pose.position;
    let position = Point { x, y, z };
    let [x, y, z, w] = pose.orientation_xyzw;
    Pose { position, orientation: Quaternion { x, y, z, w } }
}

fn path_from(trajectory: TrajectoryMessage) -> Path {
    let poses = trajectory
        .poses
        .iter()
        .map(|pose| PoseStamped { header: header(pose.stamp, trajectory.frame_id.clone()), pose: pose_from(pose) })
        .collect();
    Path { header: header(trajectory.stamp, trajectory.frame_id), poses }
}

fn odometry_from(odometry: OdometryMessage) -> Odometry {
    let mut unmeasured = vec![0.0; 36];
    unmeasured.iter_mut().step_by(7).for_each(|variance| *variance = TWIST_VARIANCE);
    Odometry {
        header: header(odometry.pose.stamp, odometry.frame_id),
        child_frame_id: odometry.child_frame_id,
        pose: PoseWithCovariance { pose: pose_from(&odometry.pose), covariance: odometry.pose_covariance.to_vec() },
        twist: TwistWithCovariance { covariance: unmeasured, ..Default::default() },
    }
}

fn diagnostics_from(diagnostics: DiagnosticsMessage, full_name: &str) -> DiagnosticArray {
    DiagnosticArray {
        header: header(diagnostics.stamp, String::new()),
        status: vec![status_from(diagnostics, full_name, TRAJECTORY)],
    }
}

fn status_from(diagnostics: DiagnosticsMessage, full_name: &str, what: &str) -> DiagnosticStatus {
    let values = diagnostics.values.into_iter().map(|(key, value)| KeyValue { key, value }).collect();
    DiagnosticStatus {
        level: diagnostics.level as u8,
        name: status_name(full_name, what),
        message: diagnostics.message,
        hardware_id: full_name.to_owned(),
        values,
    }
}

#[cfg(test)]
mod tests {
    use r2r::WrappedTypesupport;

    use super::{CompressedImage, Image, ImageMessage, ImagePayload, image_from_compressed, image_from_raw};

    fn place(image: &ImageMessage) -> (*const u8, usize) {
        match &image.payload {
            ImagePayload::Raw { data, .. } | ImagePayload::Compressed { data, .. } => (data.as_ptr(), data.len()),
        }
    }

    #[test]
    fn pixels_stay_where_r2r_has_put_them() {
        let sent = Image { data: vec![7; 640 * 480 * 3], ..Image::default() };
        // As from another node: through the bytes of the middleware, into the one copy that r2r hands out.
        let bytes = sent.to_serialized_bytes().unwrap();
        let image = Image::from_serialized_bytes(&bytes).unwrap();
        assert_eq!(image.data.capacity(), sent.data.len(), "taken in one piece");
        let before = (image.data.as_ptr(), image.data.len());
        assert_eq!(place(&image_from_raw(image)), before);

        let image = CompressedImage { data: vec![7; 100_000], ..CompressedImage::default() };
        let before = (image.data.as_ptr(), image.data.len());
        assert_eq!(place(&image_from_compressed(image)), before);
    }
}
