//! The transport of a machine without ROS 2: RTPS and CDR in pure Rust. Other ROS 2 nodes cannot tell the difference,
//! but there is no shared memory here, and no rcl that would read `--ros-args` ([`super::ros_args`] does).

use std::thread;

use futures::StreamExt;
use futures::executor::block_on;
use futures::future::{AbortHandle, AbortRegistration, Abortable, ready};
use ros2_client::dds::rustdds::{DomainParticipant, Topic};
use ros2_client::qos::{History, QosProfile, WhenFull};
use ros2_client::{
    Context, ContextOptions, MessageTypeName, Name, Node, NodeName, NodeOptions, Publisher, Subscription,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Ends, Error, KEEP_LAST, Kind, Topics, publish_until_stopped, ros_args, wire};
use crate::message::{CameraInfoMessage, ImageMessage, Input, Output};

/// Runs until stopped; see [`super::run`].
///
/// # Errors
///
/// [`Error`] where a name is not valid or the network cannot be opened.
pub fn run(topics: &Topics, ends: Ends) -> Result<(), Error> {
    let Ends { input, output, stop } = ends;
    if std::env::var("ROS_LOCALHOST_ONLY").is_ok_and(|value| value == "1") {
        tracing::warn!("ROS_LOCALHOST_ONLY has no effect with transport \"ros2-client\"");
    }
    let mut graph = Graph::join(topics)?;
    let participant = graph.participant.clone(); // lives longer than its writers, which say goodbye through it

    let image = if topics.image_compressed {
        ImageReader::Compressed(graph.subscribe(&topics.image, "sensor_msgs", "CompressedImage", topics)?)
    } else {
        ImageReader::Raw(graph.subscribe(&topics.image, "sensor_msgs", "Image", topics)?)
    };
    let camera_info: Subscription<wire::CameraInfo> =
        graph.subscribe(&topics.camera_info, "sensor_msgs", "CameraInfo", topics)?;
    let trajectory: Publisher<wire::Path> = graph.publish(&topics.trajectory, "nav_msgs", "Path")?;
    let odometry: Publisher<wire::Odometry> = graph.publish(&topics.odometry, "nav_msgs", "Odometry")?;
    let diagnostics: Publisher<wire::DiagnosticArray> =
        graph.publish(&topics.diagnostics, "diagnostic_msgs", "DiagnosticArray")?;
    let spinner = graph.node.spinner().map_err(|error| middleware("start the node's spinner", &error))?;
    tracing::info!(
        transport = "ros2-client",
        image = topics.image,
        trajectory = topics.trajectory,
        domain = graph.node.domain_id(),
        "listening"
    );

    // One thread a stream: an image of megabytes takes milliseconds to copy out, in which CameraInfo must not wait.
    let take_image = |image: ImageMessage| input(Input::Image(image));
    let take_camera_info = |info: CameraInfoMessage| input(Input::CameraInfo(info));
    thread::scope(|scope| {
        scope.spawn(move || {
            if let Err(error) = block_on(spinner.spin()) {
                tracing::error!(%error, "the node's spinner ended");
            }
        });
        let mut aborts = Vec::new();
        let (handle, registration) = AbortHandle::new_pair();
        aborts.push(handle);
        scope.spawn(move || match image {
            ImageReader::Raw(images) => read(&images, "image", registration, take_image),
            ImageReader::Compressed(images) => read(&images, "image", registration, take_image),
        });
        let (handle, registration) = AbortHandle::new_pair();
        aborts.push(handle);
        scope.spawn(move || read(&camera_info, "camera_info", registration, take_camera_info));

        publish_until_stopped(&output, &stop, |output| {
            let (topic, result) = match output {
                Output::Trajectory(m) => ("trajectory", trajectory.publish(m.into()).map_err(|e| e.to_string())),
                Output::Odometry(m) => ("odometry", odometry.publish(m.into()).map_err(|e| e.to_string())),
                Output::Diagnostics(m) => {
                    let message = wire::DiagnosticArray::new(m, &topics.node_name);
                    ("diagnostics", diagnostics.publish(message).map_err(|e| e.to_string()))
                }
            };
            if let Err(error) = result {
                tracing::warn!(topic, error, "a message was not published");
            }
        });
        aborts.iter().for_each(AbortHandle::abort);
        drop(graph); // ends the spinner
    });
    drop((trajectory, odometry, diagnostics));
    drop(participant);
    Ok(())
}

enum ImageReader {
    Raw(Subscription<wire::Image>),
    Compressed(Subscription<wire::CompressedImage>),
}

/// Hands every message of `subscription` to `take` until aborted.
fn read<Wire, Message>(
    subscription: &Subscription<Wire>,
    topic: &'static str,
    registration: AbortRegistration,
    take: impl Fn(Message),
) where
    Wire: DeserializeOwned + Into<Message> + 'static,
{
    let messages = subscription.async_stream().for_each(|message| {
        match message {
            Ok((message, _)) => take(message.into()),
            Err(error) => tracing::warn!(topic, %error, "a message could not be read"),
        }
        ready(())
    });
    // Aborted is the one way out: the stream itself does not end.
    let _ = block_on(Abortable::new(messages, registration));
}

/// The node in the ROS graph.
struct Graph {
    participant: DomainParticipant,
    node: Node,
    namespace: String,
    node_name: String,
}

impl Graph {
    fn join(topics: &Topics) -> Result<Self, Error> {
        let name = NodeName::new(&topics.namespace, &topics.node_name).map_err(|error| Error::Name {
            name: format!("{} in {}", topics.node_name, topics.namespace),
            reason: error.to_string(),
        })?;
        let options = ContextOptions::new().domain_id(topics.domain()?);
        let context = Context::with_options(options).map_err(|error| middleware("join the domain", &error))?;
        // Logs go through tracing and parameters through the config, so neither rosout nor parameter services.
        let options = NodeOptions::new().enable_rosout(false).start_parameter_services(false);
        let node = context.new_node(name, options).map_err(|error| middleware("create the node", &error))?;
        Ok(Self {
            participant: context.domain_participant(),
            node,
            namespace: topics.namespace.clone(),
            node_name: topics.node_name.clone(),
        })
    }

    fn topic(&self, name: &str, package: &str, message: &str, qos: &QosProfile) -> Result<Topic, Error> {
        let absolute = ros_args::absolute_name(name, &self.namespace, &self.node_name)?;
        let parsed =
            Name::parse(&absolute).map_err(|error| Error::Name { name: name.to_owned(), reason: error.to_string() })?;
        self.node
            .create_topic(&parsed, MessageTypeName::new(package, message), qos)
            .map_err(|error| middleware(&format!("create topic {absolute}"), &error))
    }

    fn subscribe<Wire: 'static>(
        &mut self,
        name: &str,
        package: &str,
        message: &str,
        topics: &Topics,
    ) -> Result<Subscription<Wire>, Error> {
        let depth = if name == topics.image { topics.image_queue_depth } else { KEEP_LAST };
        let qos = QosProfile::subscription_default().history(keep_last(depth));
        let qos = if topics.image_reliable { qos.reliability_reliable(WhenFull::DEFAULT) } else { qos };
        let topic = self.topic(name, package, message, &qos)?;
        self.node
            .create_subscription(&topic, Some(qos))
            .map_err(|error| middleware(&format!("subscribe to {name}"), &error))
    }

    fn publish<Wire: Serialize>(&mut self, name: &str, package: &str, message: &str) -> Result<Publisher<Wire>, Error> {
        let qos = QosProfile::publisher_default().history(keep_last(KEEP_LAST));
        let topic = self.topic(name, package, message, &qos)?;
        self.node.create_publisher(&topic, Some(qos)).map_err(|error| middleware(&format!("publish {name}"), &error))
    }
}

fn keep_last(depth: u32) -> History {
    History::KeepLast { depth: usize::try_from(depth.max(1)).unwrap_or(1) }
}

fn middleware(action: &str, reason: &dyn std::fmt::Display) -> Error {
    Error::Middleware { kind: Kind::Ros2Client, action: action.to_owned(), reason: reason.to_string() }
}
