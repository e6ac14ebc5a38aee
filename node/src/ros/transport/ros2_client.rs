//! The transport of a machine without ROS 2: RTPS and CDR in pure Rust. Other ROS 2 nodes cannot tell the difference,
//! but there is no shared memory here, and no rcl that would read `--ros-args` ([`super::ros_args`] does).
//!
//! The library's own task beside a node (its spinner) is left out: it keeps a graph for waiting on peers and a simulated time,
//! neither of which is asked for here, and it announces `/clock` as builtin_interfaces/Time, which no clock of ROS 2 is.

use std::net::Ipv4Addr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use camera::message::{CameraInfoMessage, ImageMessage};
use camera::ros;
use crossbeam::channel::{Receiver, RecvTimeoutError, bounded};
use futures::StreamExt;
use futures::executor::block_on;
use futures::future::{AbortHandle, AbortRegistration, Abortable, ready};
use ros2_client::dds::rustdds::{DomainParticipant, DomainParticipantBuilder, QosPolicies, RTPSEntity, Topic, policy};
use ros2_client::qos::{Durability, History, QosProfile, WhenFull};
use ros2_client::{
    Context, Message, MessageTypeName, Name, Node, NodeName, NodeOptions, Publisher, Server, ServiceTypeName,
    Subscription,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::graph::{Remark, remarks};
use super::qos::{End, Endpoint, Qos};
use super::{
    Ends, Error, GRAPH_PERIOD, KEEP_LAST, Kind, PARAMETER_EVENTS, SCALE, STOP_POLL, TF, TF_STATIC, TRAJECTORY,
    TRANSITION_EVENT, Topics, look_until, publish_until_stopped, wire,
};
use crate::ros::message::{Input, OdometryMessage, Output, TransformMessage};
use crate::supervision::panic_message;

mod memory;
mod reach;
mod services;
mod watch;

use memory::{Excess, Limits};
use reach::Reach;
use services::Services;
use watch::Watch;

/// How long a participant that is given up has for its threads to end. Where they do not, it is left behind.
const LEAVE_PATIENCE: Duration = Duration::from_secs(1);

/// Runs until stopped; see [`super::run`]. Where a thread of RustDDS ends meanwhile, the node joins the domain again.
///
/// # Errors
///
/// [`Error`] where a name is not valid, the network cannot be opened, a thread panics or memory is nearly gone.
pub fn run(topics: &Topics, ends: Ends) -> Result<(), Error> {
    let (reach, told) = reach::asked(|name| std::env::var(name).ok());
    for told in told {
        tracing::warn!("{told}");
    }
    let mut fixed = None;
    while let Some(thread) = stay(topics, reach, &ends, &mut fixed)? {
        tracing::warn!(
            thread,
            "a thread of the DDS library has ended, as it does where the process was stopped and continued: joining the \
             domain again"
        );
    }
    Ok(())
}

/// Why a stay in the domain ended before it was told to.
enum Broken {
    /// The named thread of RustDDS is gone.
    Library(&'static str),
    /// The named thread of ours has ended, in this way.
    Ours(&'static str, String),
    /// Too much memory is taken.
    Memory(Excess),
}

/// One stay in the domain: until told to stop, or until the thread of RustDDS ends that is returned. `fixed` is the last
/// transform that does not change, which nobody says again to those who come later.
fn stay(
    topics: &Topics,
    reach: Reach,
    ends: &Ends,
    fixed: &mut Option<TransformMessage>,
) -> Result<Option<&'static str>, Error> {
    let Ends { input, call, graph: tell, output, stop, watch: supervision } = ends;
    let mut graph = Graph::join(topics, reach)?;
    let participant = graph.participant.clone(); // lives longer than its writers, which say goodbye through it

    let image = if topics.image_compressed {
        ImageReader::Compressed(graph.subscribe(&topics.image, "sensor_msgs", "CompressedImage")?)
    } else {
        ImageReader::Raw(graph.subscribe(&topics.image, "sensor_msgs", "Image")?)
    };
    let camera_info: Subscription<ros::CameraInfo> =
        graph.subscribe(&topics.camera_info, "sensor_msgs", "CameraInfo")?;
    let mut odometry = |name: &Option<String>| -> Result<Option<Subscription<ros::Odometry>>, Error> {
        name.as_ref().map(|name| graph.subscribe(name, "nav_msgs", "Odometry")).transpose()
    };
    let (reference, followed) = (odometry(&topics.reference_odometry)?, odometry(&topics.followed_odometry)?);
    let publishers = Publishers::new(&mut graph)?;
    let mut services = Services::new(&mut graph)?;
    let watch = Watch::new(participant.clone(), services.quiet())
        .map_err(|error| middleware("watch the threads of the DDS library", &error))?;
    let (image_name, trajectory_name) = (topics.resolve(&topics.image)?, topics.resolve(&topics.trajectory)?);
    let ours = topics.endpoints()?;
    let domain = graph.node.domain_id();
    tracing::info!(transport = "ros2-client", image = image_name, trajectory = trajectory_name, domain, "listening");
    if let Some(transform) = fixed.clone() {
        publishers.send(Output::StaticTransform(transform));
    }

    // One thread a stream: an image of megabytes takes milliseconds to copy out, in which CameraInfo must not wait.
    let take_image = |image: ImageMessage| input(Input::Image(image));
    let take_camera_info = |info: CameraInfoMessage| input(Input::CameraInfo(info));
    let take_reference = |odometry: OdometryMessage| input(Input::Odometry(odometry));
    let take_followed = |odometry: OdometryMessage| input(Input::Followed(odometry));
    let broken = OnceLock::new();
    let breaks = &broken;
    let is_stopped = thread::scope(|scope| {
        let mut aborts = Vec::new();
        let (handle, registration) = AbortHandle::new_pair();
        aborts.push(handle);
        spawn(scope, "the images", breaks, move || match image {
            ImageReader::Raw(images) => read(&images, "image", registration, take_image),
            ImageReader::Compressed(images) => read(&images, "image", registration, take_image),
        });
        let (handle, registration) = AbortHandle::new_pair();
        aborts.push(handle);
        spawn(scope, "the camera info", breaks, move || {
            read(&camera_info, "camera_info", registration, take_camera_info);
        });
        if let Some(odometry) = reference {
            let (handle, registration) = AbortHandle::new_pair();
            aborts.push(handle);
            spawn(scope, "the reference odometry", breaks, move || {
                read(&odometry, "odometry", registration, take_reference);
            });
        }
        if let Some(odometry) = followed {
            let (handle, registration) = AbortHandle::new_pair();
            aborts.push(handle);
            spawn(scope, "the followed odometry", breaks, move || {
                read(&odometry, "odometry", registration, take_followed);
            });
        }
        let (handle, registration) = AbortHandle::new_pair();
        aborts.push(handle);
        spawn(scope, "the services", breaks, move || services.run(call, registration));
        let (running, ended) = bounded::<()>(0);
        spawn(scope, "the graph", breaks, move || {
            look_around(watch, &ended, breaks, |found| tell(remarks(&ours, &found)));
        });

        let is_stopped = publish_until_stopped(
            output,
            stop,
            supervision,
            || breaks.get().is_none(),
            |output| {
                if let Output::StaticTransform(transform) = &output {
                    *fixed = Some(transform.clone());
                }
                publishers.send(output);
            },
        );
        aborts.iter().for_each(AbortHandle::abort);
        drop(running);
        is_stopped
    });
    if matches!(broken.get(), Some(Broken::Memory(_))) {
        // Each waits for a loop that lists numbers without end, which takes what is left meanwhile.
        std::mem::forget((graph, publishers, participant));
    } else {
        drop(graph);
        drop(publishers);
        leave(participant);
    }
    match broken.into_inner().filter(|_| !is_stopped) {
        None => Ok(None),
        Some(Broken::Library(thread)) => Ok(Some(thread)),
        Some(Broken::Ours(thread, how)) => {
            supervision.note(thread, &how);
            Ok(None)
        }
        Some(Broken::Memory(Excess { of, most_mib, got_mib })) => Err(Error::Memory { of, most_mib, got_mib }),
    }
}

/// Does `work` on a thread of `scope`, which is to last as long as the stay.
fn spawn<'scope>(
    scope: &'scope Scope<'scope, '_>,
    thread: &'static str,
    broken: &'scope OnceLock<Broken>,
    work: impl FnOnce() + Send + 'scope,
) {
    scope.spawn(move || {
        // Nothing that the work held is looked at after a panic.
        let how = match catch_unwind(AssertUnwindSafe(work)) {
            Ok(()) => "it returned".to_owned(),
            Err(panic) => format!("it panicked: {}", panic_message(&*panic)),
        };
        let _ = broken.set(Broken::Ours(thread, how)); // what broke first counts
    });
}

/// Looks whether all is well until the other end of `ended` is dropped, and now and then which ends others have in the graph.
/// (ros2-client hands on none of the events that RustDDS has for this, but what was discovered can be asked for.)
fn look_around(mut watch: Watch, ended: &Receiver<()>, broken: &OnceLock<Broken>, tell: impl Fn(Vec<Endpoint>)) {
    let limits = Limits::of_system();
    let mut looked = Instant::now();
    while ended.recv_timeout(STOP_POLL) == Err(RecvTimeoutError::Timeout) {
        if let Some(excess) = limits.excess() {
            let Excess { of, most_mib, got_mib } = excess;
            // At once: there may be no memory for it later.
            tracing::error!(of, most_mib, got_mib, "memory is nearly gone");
            let _ = broken.set(Broken::Memory(excess));
            return;
        }
        if let Some(thread) = watch.ended() {
            let _ = broken.set(Broken::Library(thread));
            return;
        }
        if looked.elapsed() >= GRAPH_PERIOD {
            tell(others(watch.participant()));
            looked = Instant::now();
        }
    }
}

/// Drops the last of a participant, which waits for its threads: one that lists numbers without end is left behind.
fn leave(participant: DomainParticipant) {
    let (left, gone) = bounded::<()>(0);
    let leaving = thread::Builder::new().name("leave".to_owned()).spawn(move || {
        drop(participant);
        drop(left);
    });
    // Where there is no thread for it, it was dropped here.
    if leaving.is_ok() && gone.recv_timeout(LEAVE_PATIENCE) == Err(RecvTimeoutError::Timeout) {
        tracing::warn!("the threads of the DDS library do not end; leaving them behind");
    }
}

/// As [`super::look`], under a name of its own: a node of the configured one may be running.
pub(super) fn look(topics: &Topics, patience: Duration) -> Result<Vec<Remark>, Error> {
    let asking = Topics { node_name: format!("{}_doctor", topics.node_name), ..topics.clone() };
    let (reach, _) = reach::asked(|name| std::env::var(name).ok());
    let graph = Graph::join(&asking, reach)?;
    let participant = graph.participant.clone();
    let found = look_until(topics, patience, |_| others(&participant));
    drop(graph);
    found
}

struct Publishers {
    trajectory: Publisher<ros::Path>,
    odometry: Publisher<ros::Odometry>,
    pose: Publisher<ros::PoseStamped>,
    scale: Publisher<ros::DiagnosticStatus>,
    diagnostics: Publisher<ros::DiagnosticArray>,
    status: Publisher<ros::DiagnosticStatus>,
    reasoning: Publisher<ros::Text>,
    tf: Publisher<ros::TfMessage>,
    tf_static: Publisher<ros::TfMessage>,
    transition_event: Publisher<wire::service::TransitionEvent>,
    parameter_events: Publisher<wire::service::ParameterEvent>,
    /// With its namespace.
    full_name: String,
}

impl Publishers {
    fn new(graph: &mut Graph<'_>) -> Result<Self, Error> {
        let topics = graph.topics;
        Ok(Self {
            trajectory: graph.publish(&topics.trajectory, "nav_msgs", "Path")?,
            odometry: graph.publish(&topics.odometry, "nav_msgs", "Odometry")?,
            pose: graph.publish(&topics.pose, "geometry_msgs", "PoseStamped")?,
            scale: graph.publish(&topics.scale, "diagnostic_msgs", "DiagnosticStatus")?,
            diagnostics: graph.publish(&topics.diagnostics, "diagnostic_msgs", "DiagnosticArray")?,
            status: graph.publish(&topics.status, "diagnostic_msgs", "DiagnosticStatus")?,
            reasoning: graph.publish(&topics.reasoning, "std_msgs", "String")?,
            tf: graph.publish(TF, "tf2_msgs", "TFMessage")?,
            tf_static: graph.publish(TF_STATIC, "tf2_msgs", "TFMessage")?,
            transition_event: graph.publish(TRANSITION_EVENT, "lifecycle_msgs", "TransitionEvent")?,
            // The library has one of its own, for parameters that it keeps itself: there are none.
            parameter_events: graph.publish(PARAMETER_EVENTS, "rcl_interfaces", "ParameterEvent")?,
            full_name: topics.full_name(),
        })
    }

    /// Publishes a message; one that the middleware does not take is told in the log.
    fn send(&self, output: Output) {
        if let Err((topic, error)) = self.publish(output) {
            tracing::warn!(topic, error, "a message was not published");
        }
    }

    /// The topic and the reason where the middleware does not take the message.
    fn publish(&self, output: Output) -> Result<(), (&'static str, String)> {
        fn send<Wire: Serialize>(
            topic: &'static str,
            publisher: &Publisher<Wire>,
            message: Wire,
        ) -> Result<(), (&'static str, String)> {
            publisher.publish(message).map_err(|error| (topic, error.to_string()))
        }
        match output {
            Output::Trajectory(m) => send("trajectory", &self.trajectory, wire::path(m)),
            Output::Odometry(m) => send("odometry", &self.odometry, wire::odometry(m)),
            Output::Pose(m) => send("pose", &self.pose, wire::pose_stamped(m)),
            Output::Scale(m) => send("scale", &self.scale, wire::diagnostic_status(m, &self.full_name, SCALE)),
            Output::Diagnostics(m) => {
                send("diagnostics", &self.diagnostics, wire::diagnostic_array(m, &self.full_name))
            }
            Output::Status(m) => send("status", &self.status, wire::diagnostic_status(m, &self.full_name, TRAJECTORY)),
            Output::Reasoning(text) => send("reasoning", &self.reasoning, ros::Text { data: text }),
            Output::Transform(m) => send(TF, &self.tf, wire::tf_message(m)),
            Output::StaticTransform(m) => send(TF_STATIC, &self.tf_static, wire::tf_message(m)),
            Output::Transition(m) => send("transition_event", &self.transition_event, m.into()),
            Output::ParameterEvent(m) => {
                let event = wire::service::ParameterEvent::new(m, self.full_name.clone());
                send(PARAMETER_EVENTS, &self.parameter_events, event)
            }
        }
    }
}

enum ImageReader {
    Raw(Subscription<ros::Image>),
    Compressed(Subscription<ros::CompressedImage>),
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

/// The ends of topics that others have in the graph.
fn others(participant: &DomainParticipant) -> Vec<Endpoint> {
    let writers = participant.discovered_writers();
    let readers = participant.discovered_readers();
    // Our own writers are discovered as well; of readers nothing is told but how they fit those.
    let ours = participant.guid().prefix;
    let writers =
        writers.iter().map(|writer| &writer.publication_topic_data).filter(|writer| writer.key.prefix != ours);
    let readers = readers.iter().map(|reader| &reader.subscription_topic_data);
    let writers = writers.filter_map(|w| endpoint((w.topic_name(), &w.type_name), End::Publisher, &w.qos()));
    let readers = readers.filter_map(|r| endpoint((r.topic_name(), r.type_name()), End::Subscription, &r.qos()));
    writers.chain(readers).collect()
}

/// `None` for what is no topic of ROS. Policies that are not announced are DDS's defaults (DDS 1.4, 2.2.3): best effort
/// for a reader, reliable for a writer, and volatile.
fn endpoint((dds_name, dds_type): (&str, &str), end: End, policies: &QosPolicies) -> Option<Endpoint> {
    let topic = dds_name.strip_prefix("rt").filter(|topic| topic.starts_with('/'))?.to_owned();
    // `sensor_msgs::msg::dds_::Image_` is sensor_msgs/msg/Image.
    let message_type = dds_type.strip_suffix('_').unwrap_or(dds_type).replace("::dds_::", "::").replace("::", "/");
    let is_reliable = match policies.reliability() {
        Some(policy::Reliability::Reliable { .. }) => true,
        Some(policy::Reliability::BestEffort) => false,
        None => end == End::Publisher,
    };
    let is_transient_local = policies.durability().is_some_and(|durability| durability != policy::Durability::Volatile);
    Some(Endpoint { topic, end, message_type, key: "", is_reliable, is_transient_local })
}

/// The node in the ROS graph.
struct Graph<'a> {
    participant: DomainParticipant,
    node: Node,
    topics: &'a Topics,
}

impl<'a> Graph<'a> {
    fn join(topics: &'a Topics, reach: Reach) -> Result<Self, Error> {
        let name = NodeName::new(&topics.namespace, &topics.node_name).map_err(|error| Error::Name {
            name: format!("{} in {}", topics.node_name, topics.namespace),
            reason: error.to_string(),
        })?;
        let participant = DomainParticipantBuilder::new(topics.domain()?);
        let participant = match reach {
            Reach::Network => participant,
            Reach::Loopback => participant.with_only_networks([Ipv4Addr::LOCALHOST]),
        };
        let participant = participant.build().map_err(|error| middleware("join the domain", &error))?;
        let context =
            Context::from_domain_participant(participant).map_err(|error| middleware("join the domain", &error))?;
        // Logs go through tracing, so no rosout. The library's parameters have neither descriptions nor read-only ones, so
        // those services are ours, as they are with r2r.
        let options = NodeOptions::new().enable_rosout(false).start_parameter_services(false);
        let node = context.new_node(name, options).map_err(|error| middleware("create the node", &error))?;
        Ok(Self { participant: context.domain_participant(), node, topics })
    }

    fn name(&self, name: &str) -> Result<Name, Error> {
        let resolved = self.topics.resolve(name)?;
        Name::parse(&resolved).map_err(|error| Error::Name { name: name.to_owned(), reason: error.to_string() })
    }

    fn topic(&self, name: &str, package: &str, message: &str, qos: &QosProfile) -> Result<Topic, Error> {
        self.node
            .create_topic(&self.name(name)?, MessageTypeName::new(package, message), qos)
            .map_err(|error| middleware(&format!("create topic {name}"), &error))
    }

    fn subscribe<Wire: 'static>(
        &mut self,
        name: &str,
        package: &str,
        message: &str,
    ) -> Result<Subscription<Wire>, Error> {
        let qos = profile(self.topics.sensor_qos(name)?);
        let topic = self.topic(name, package, message, &qos)?;
        self.node
            .create_subscription(&topic, Some(qos))
            .map_err(|error| middleware(&format!("subscribe to {name}"), &error))
    }

    fn publish<Wire: Serialize>(&mut self, name: &str, package: &str, message: &str) -> Result<Publisher<Wire>, Error> {
        let qos = profile(self.topics.publisher_qos(name)?);
        let topic = self.topic(name, package, message, &qos)?;
        self.node.create_publisher(&topic, Some(qos)).map_err(|error| middleware(&format!("publish {name}"), &error))
    }

    fn serve<Request, Response>(
        &mut self,
        name: &str,
        package: &str,
        service: &str,
    ) -> Result<Server<Request, Response>, Error>
    where
        Request: Message + Clone + 'static,
        Response: Message + 'static,
    {
        let absolute = self.name(name)?;
        let qos = profile(Qos { is_reliable: true, is_transient_local: false, depth: KEEP_LAST });
        self.node
            .create_server(services::mapping(), &absolute, &ServiceTypeName::new(package, service), qos.clone(), qos)
            .map_err(|error| middleware(&format!("serve {name}"), &error))
    }
}

fn profile(qos: Qos) -> QosProfile {
    let profile = QosProfile::subscription_default()
        .history(keep_last(qos.depth))
        .durability(if qos.is_transient_local { Durability::TransientLocal } else { Durability::Volatile });
    if qos.is_reliable { profile.reliability_reliable(WhenFull::DEFAULT) } else { profile }
}

fn keep_last(depth: u32) -> History {
    History::KeepLast { depth: usize::try_from(depth.max(1)).unwrap_or(1) }
}

fn middleware(action: &str, reason: &dyn std::fmt::Display) -> Error {
    Error::Middleware { kind: Kind::Ros2Client, action: action.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use ros2_client::dds::rustdds::{Duration, QosPolicyBuilder, policy};

    use super::{End, endpoint};

    const IMAGE: &str = "sensor_msgs::msg::dds_::Image_";

    #[test]
    fn policies_that_are_not_announced_are_the_defaults_of_dds() {
        let silent = QosPolicyBuilder::new().build();
        let read = |end, policies| {
            endpoint(("rt/cam/image", IMAGE), end, policies).map(|e| (e.is_reliable, e.is_transient_local))
        };
        assert_eq!(read(End::Publisher, &silent), Some((true, false)));
        assert_eq!(read(End::Subscription, &silent), Some((false, false)));
        let told = QosPolicyBuilder::new().best_effort().durability(policy::Durability::TransientLocal).build();
        assert_eq!(read(End::Publisher, &told), Some((false, true)));
        let told = QosPolicyBuilder::new().reliable(Duration::ZERO).durability(policy::Durability::Volatile).build();
        assert_eq!(read(End::Subscription, &told), Some((true, false)));
    }

    #[test]
    fn topics_are_named_as_in_ros_and_all_else_is_passed_over() {
        let policies = QosPolicyBuilder::new().build();
        let found = endpoint(("rt/cam/image", IMAGE), End::Publisher, &policies).unwrap();
        assert_eq!((found.topic.as_str(), found.message_type.as_str()), ("/cam/image", "sensor_msgs/msg/Image"));
        let topic = |dds_name| endpoint((dds_name, IMAGE), End::Publisher, &policies).map(|e| e.topic);
        for other in ["rq/cam/set_infoRequest", "ros_discovery_info", "rtk", "rt"] {
            assert_eq!(topic(other), None, "{other}");
        }
    }
}
