//! The node over the wire, with a peer that is made of the same DDS but of nothing else of ours: its messages are
//! written down here once more.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use futures::channel::oneshot;
use futures::executor::block_on;
use futures::future::{Either, select};
use node::config::Config;
use node::pipeline::{Pipeline, Settings};
use node::ros::transport::{self, Kind, Topics};
use ros2_client::parameters::raw::{self, ParameterDescriptor, SetParametersResult};
use ros2_client::qos::{History, QosProfile};
use ros2_client::rcl_interfaces::{
    DescribeParametersRequest, DescribeParametersResponse, GetParametersRequest, GetParametersResponse,
    SetParametersRequest, SetParametersResponse,
};
use ros2_client::{
    Client, Context, ContextOptions, Message, MessageTypeName, Name, Node, NodeName, NodeOptions, ParameterValue,
    Publisher, ServiceMapping, ServiceTypeName, Subscription,
};
use serde::{Deserialize, Serialize};

#[expect(dead_code, reason = "the tests of the pipeline use the rest")]
mod rig;
use rig::{K, TIMEOUT, load, parsed, settings, sheet};

const NODE: &str = "/under/test";

#[derive(Debug, Clone, Serialize, Deserialize)]
struct State {
    id: u8,
    label: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Empty {
    structure_needs_at_least_one_member: u8,
}
impl Message for Empty {}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct GetState {
    current_state: State,
}
impl Message for GetState {}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct ChangeStateRequest {
    transition: State,
}
impl Message for ChangeStateRequest {}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct ChangeStateResponse {
    success: bool,
}
impl Message for ChangeStateResponse {}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Trigger {
    success: bool,
    message: String,
}
impl Message for Trigger {}

#[derive(Debug, Clone, Deserialize)]
struct TransitionEvent {
    timestamp: u64,
    _transition: State,
    start_state: State,
    goal_state: State,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Header {
    sec: i32,
    nanosec: u32,
    frame_id: String,
}

#[derive(Debug, Clone, Serialize)]
struct Image {
    header: Header,
    height: u32,
    width: u32,
    encoding: String,
    is_bigendian: u8,
    step: u32,
    data: Vec<u8>,
}

#[derive(Debug, Clone, Serialize)]
struct CameraInfo {
    header: Header,
    height: u32,
    width: u32,
    distortion_model: String,
    d: Vec<f64>,
    k: [f64; 9],
    r: [f64; 9],
    p: [f64; 12],
    binning: [u32; 2],
    roi: [u32; 4],
    do_rectify: bool,
}

#[derive(Debug, Clone, Deserialize)]
struct Path {
    header: Header,
    poses: Vec<(Header, [f64; 7])>,
}

/// Another node in the same domain.
struct Peer {
    context: Context,
    node: Node,
}

impl Peer {
    fn join(domain: u16) -> Self {
        let context = Context::with_options(ContextOptions::new().domain_id(domain)).unwrap();
        let name = NodeName::new("/", "peer").unwrap();
        let options = NodeOptions::new().enable_rosout(false).start_parameter_services(false);
        let mut node = context.new_node(name, options).unwrap();
        let spinner = node.spinner().unwrap();
        std::thread::spawn(move || block_on(spinner.spin()));
        Self { context, node }
    }

    /// Waits until another's subscription and publisher of these DDS topics are there. (What ros2-client's own waits listen to
    /// keeps eight events, and loses the one that is waited for where a node that starts makes more at once.)
    fn wait_for(&self, subscription: Option<&str>, publisher: Option<&str>) {
        let participant = self.context.domain_participant();
        let begun = Instant::now();
        loop {
            let readers = participant.discovered_readers();
            let writers = participant.discovered_writers();
            let is_read = |name| readers.iter().any(|r| r.subscription_topic_data.topic_name() == name);
            let is_written = |name| writers.iter().any(|w| w.publication_topic_data.topic_name == name);
            if subscription.is_none_or(is_read) && publisher.is_none_or(is_written) {
                break;
            }
            assert!(
                begun.elapsed() < TIMEOUT,
                "no subscription {subscription:?} with a publisher {publisher:?} in {TIMEOUT:?}"
            );
            sleep(Duration::from_millis(20));
        }
    }

    fn client<Request, Response>(&mut self, name: &str, package: &str, service: &str) -> Client<Request, Response>
    where
        Request: Message + Clone + 'static,
        Response: Message + 'static,
    {
        let path = format!("{NODE}/{name}");
        let name = Name::parse(&path).unwrap();
        let service = ServiceTypeName::new(package, service);
        let client = self.node.create_client(ServiceMapping::Enhanced, &name, &service, reliable(), reliable());
        self.wait_for(Some(&format!("rq{path}Request")), Some(&format!("rr{path}Reply")));
        client.unwrap()
    }

    fn publisher<M: Serialize>(&mut self, name: &str, package: &str, message: &str) -> Publisher<M> {
        let name = Name::parse(name).unwrap();
        let topic = self.node.create_topic(&name, MessageTypeName::new(package, message), &reliable()).unwrap();
        self.node.create_publisher(&topic, None).unwrap()
    }

    fn subscription<M: 'static>(&mut self, name: &str, package: &str, message: &str) -> Subscription<M> {
        let name = Name::parse(name).unwrap();
        let topic = self.node.create_topic(&name, MessageTypeName::new(package, message), &reliable()).unwrap();
        self.node.create_subscription(&topic, None).unwrap()
    }
}

fn reliable() -> QosProfile {
    QosProfile::publisher_default().history(History::KeepLast { depth: 50 })
}

/// The future's output; a hang is a failure of the test.
fn in_time<F: Future>(future: F) -> F::Output {
    let (alarm, rings) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        sleep(TIMEOUT);
        drop(alarm);
    });
    match block_on(select(Box::pin(future), rings)) {
        Either::Left((output, _)) => output,
        Either::Right(_) => panic!("no answer in {TIMEOUT:?}"),
    }
}

fn ask<Request, Response>(client: &Client<Request, Response>, request: Request) -> Response
where
    Request: Message + 'static,
    Response: Message + 'static,
{
    in_time(client.async_call_service(request)).unwrap()
}

fn change(client: &Client<ChangeStateRequest, ChangeStateResponse>, label: &str) -> bool {
    ask(client, ChangeStateRequest { transition: State { id: 0, label: label.to_owned() } }).success
}

fn topics(domain: u16) -> Topics {
    let shipped = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/node.toml");
    let overrides = [
        ("node.name", "test".to_owned()),
        ("node.namespace", "/under".to_owned()),
        ("node.domain_id", domain.to_string()),
        ("topics.image_reliability", "reliable".to_owned()),
    ];
    let overrides = overrides.map(|(key, value)| (key.to_owned(), value));
    Config::load(&shipped, &overrides).unwrap().topics
}

#[test]
fn a_look_at_the_graph_names_the_camera_that_there_is() {
    let domain = u16::try_from(std::process::id() % 100 + 1).unwrap();
    let mut peer = Peer::join(domain);
    let _images: Publisher<Image> = peer.publisher("/front/image_raw", "sensor_msgs", "Image");
    let _infos: Publisher<CameraInfo> = peer.publisher("/front/camera_info", "sensor_msgs", "CameraInfo");
    let topics = Topics { image: "/front/image_raw".to_owned(), ..topics(domain) };
    let begun = Instant::now();
    loop {
        let remarks = transport::look(Kind::Ros2Client, &topics, Duration::from_secs(2)).unwrap();
        let told: Vec<String> = remarks.iter().map(ToString::to_string).collect();
        let starts = |with: &str| told.iter().any(|remark| remark.starts_with(with));
        let info = "nobody publishes /camera/camera_info (topics.camera_info), but there is /front/camera_info: set";
        if starts(info) && starts("/front/image_raw (topics.image) has 1 publisher of the right type and QoS") {
            break;
        }
        assert!(begun.elapsed() < TIMEOUT, "{told:?}");
    }
}

#[test]
fn the_node_announces_no_clock_of_another_type_than_ros_has() {
    let domain = u16::try_from(std::process::id() % 30 + 201).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let load = load(Arc::default(), None, Box::new(|_| parsed()), Box::new(|| Ok(())));
    let (pipeline, ends) = Pipeline::start(settings(1, 1), sheet(), load, Arc::clone(&stop)).unwrap();
    let carried = std::thread::spawn(move || transport::run(Kind::Ros2Client, &topics(domain), ends));
    let context = Context::with_options(ContextOptions::new().domain_id(domain)).unwrap();
    let heard = || -> Vec<String> {
        let readers = context.domain_participant().discovered_readers();
        readers.iter().map(|reader| reader.subscription_topic_data.topic_name().clone()).collect()
    };
    let begun = Instant::now();
    while !heard().iter().any(|topic| topic == "rt/camera/image_raw") {
        assert!(begun.elapsed() < TIMEOUT, "{:?}", heard());
        sleep(Duration::from_millis(50));
    }
    sleep(Duration::from_secs(1)); // the rest of its ends
    assert!(!heard().iter().any(|topic| topic == "rt/clock"), "{:?}", heard());
    stop.store(true, Ordering::Relaxed);
    carried.join().unwrap().unwrap();
    pipeline.finish(TIMEOUT).unwrap();
}

#[test]
fn a_peer_leads_the_node_through_its_life_sets_its_parameters_and_gets_its_poses() {
    let domain = u16::try_from(std::process::id() % 100 + 101).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let settings = Settings { autostart: false, ..settings(1, 1) };
    let load = load(Arc::default(), None, Box::new(|_| parsed()), Box::new(|| Ok(())));
    let (pipeline, ends) = Pipeline::start(settings, sheet(), load, Arc::clone(&stop)).unwrap();
    let carried = std::thread::spawn(move || transport::run(Kind::Ros2Client, &topics(domain), ends));

    let mut peer = Peer::join(domain);
    let events: Subscription<TransitionEvent> =
        peer.subscription(&format!("{NODE}/transition_event"), "lifecycle_msgs", "TransitionEvent");
    let parameter_events: Subscription<raw::ParameterEvent> =
        peer.subscription("/parameter_events", "rcl_interfaces", "ParameterEvent");
    let paths: Subscription<Path> = peer.subscription("/under/ego/trajectory", "nav_msgs", "Path");
    let images: Publisher<Image> = peer.publisher("/camera/image_raw", "sensor_msgs", "Image");
    let infos: Publisher<CameraInfo> = peer.publisher("/camera/camera_info", "sensor_msgs", "CameraInfo");
    let get_state: Client<Empty, GetState> = peer.client("get_state", "lifecycle_msgs", "GetState");
    let change_state: Client<ChangeStateRequest, ChangeStateResponse> =
        peer.client("change_state", "lifecycle_msgs", "ChangeState");
    let reset: Client<Empty, Trigger> = peer.client("reset", "std_srvs", "Trigger");
    let get: Client<GetParametersRequest, GetParametersResponse> =
        peer.client("get_parameters", "rcl_interfaces", "GetParameters");
    let describe: Client<DescribeParametersRequest, DescribeParametersResponse> =
        peer.client("describe_parameters", "rcl_interfaces", "DescribeParameters");
    let set: Client<SetParametersRequest, SetParametersResponse> =
        peer.client("set_parameters", "rcl_interfaces", "SetParameters");
    peer.wait_for(None, Some(&format!("rt{NODE}/transition_event")));
    peer.wait_for(Some("rt/camera/image_raw"), None);
    sleep(Duration::from_secs(1)); // the node's side of the matches cannot be seen from here

    let empty = || Empty { structure_needs_at_least_one_member: 0 };
    let state = || ask(&get_state, empty()).current_state.label;
    assert_eq!(state(), "unconfigured");
    assert!(!change(&change_state, "activate"));
    assert!(change(&change_state, "configure") && change(&change_state, "activate"));
    assert_eq!(state(), "active");

    let begun = Instant::now();
    let mut frames = 0;
    let path = loop {
        assert!(begun.elapsed() < TIMEOUT, "no Path for {frames} images");
        let header = Header { sec: 1 + frames / 10, nanosec: frames as u32 % 10 * 100_000_000, frame_id: "eye".into() };
        infos.publish(camera_info(header.clone())).unwrap();
        images.publish(image(header)).unwrap();
        frames += 1;
        sleep(Duration::from_millis(50));
        if let Some((path, _)) = paths.take().unwrap() {
            break path;
        }
    };
    assert_eq!((path.header.frame_id.as_str(), path.poses.len()), ("eye", 5));
    assert!((path.poses[4].1[2] - 0.4).abs() < 1e-9, "{path:?}");
    let answer = ask(&reset, empty());
    assert!(answer.success && answer.message.contains("origin"), "{answer:?}");

    let step = "sanity.max_step_metres".to_owned();
    let described = ask(&describe, DescribeParametersRequest { names: vec![step.clone(), "topics.image".to_owned()] });
    let [live, frozen]: [ParameterDescriptor; 2] = described.values.try_into().unwrap();
    assert!(
        live.name == step && !live.read_only && live.r#type == 3 && live.description.contains("metres"),
        "{live:?}"
    );
    assert!(frozen.read_only && frozen.r#type == 4, "{frozen:?}");
    let parameter = |name: &str, value: ParameterValue| raw::Parameter { name: name.to_owned(), value: value.into() };
    let parameters = vec![
        parameter(&step, ParameterValue::Double(1.25)),
        parameter("topics.image", ParameterValue::String("/x".into())),
    ];
    let results: Vec<SetParametersResult> = ask(&set, SetParametersRequest { parameter: parameters }).results;
    assert!(results[0].successful && !results[1].successful, "{results:?}");
    assert!(results[1].reason.contains("when the node starts"), "{results:?}");
    let event = loop {
        let (event, _) = in_time(parameter_events.async_take()).unwrap();
        if !event.changed_parameters.is_empty() {
            break event;
        }
    };
    let changed = event.changed_parameters.into_iter().map(|p| (p.name, ParameterValue::from(p.value)));
    assert_eq!(event.node, NODE);
    assert_eq!(changed.collect::<Vec<_>>(), [(step.clone(), ParameterValue::Double(1.25))], "but not what was refused");
    let values = ask(&get, GetParametersRequest { names: vec![step, "no.such".to_owned()] }).values;
    let values: Vec<ParameterValue> = values.into_iter().map(ParameterValue::from).collect();
    assert_eq!(values, [ParameterValue::Double(1.25), ParameterValue::NotSet]);

    assert!(
        change(&change_state, "deactivate") && change(&change_state, "cleanup") && change(&change_state, "shutdown")
    );
    assert_eq!(state(), "finalized");
    let mut goals = Vec::new();
    while goals.last().is_none_or(|goal| goal != "finalized") {
        let (event, _) = in_time(events.async_take()).unwrap();
        assert!(event.timestamp > 0 && event.start_state.id > 0, "{event:?}");
        goals.push(event.goal_state.label);
    }
    let expected = [
        "configuring",
        "inactive",
        "activating",
        "active",
        "deactivating",
        "inactive",
        "cleaningup",
        "unconfigured",
        "shuttingdown",
        "finalized",
    ];
    assert_eq!(goals, expected);
    stop.store(true, Ordering::SeqCst);
    carried.join().unwrap().unwrap();
    assert!(pipeline.finish(TIMEOUT).is_ok());
}

fn camera_info(header: Header) -> CameraInfo {
    CameraInfo {
        header,
        height: 6,
        width: 8,
        distortion_model: "plumb_bob".to_owned(),
        d: Vec::new(),
        k: K,
        r: [0.0; 9],
        p: [0.0; 12],
        binning: [0; 2],
        roi: [0; 4],
        do_rectify: false,
    }
}

fn image(header: Header) -> Image {
    let data = vec![7; 48];
    Image { header, height: 6, width: 8, encoding: "mono8".to_owned(), is_bigendian: 0, step: 8, data }
}
