//! The node as a process on its default transport, handled roughly: stopped and continued, told to stay on loopback. The peer
//! is made of the same DDS.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::fs::File;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::thread::sleep;
use std::time::{Duration, Instant};

use camera::ros::{ByteBuf, DiagnosticArray, Header, Image};
use geometry::Stamp;
use ros2_client::dds::rustdds::DomainParticipant;
use ros2_client::qos::{History, QosProfile};
use ros2_client::{
    Context, ContextOptions, MessageTypeName, Name, Node, NodeName, NodeOptions, Publisher, Subscription,
};

#[expect(dead_code, reason = "no weights are needed")]
mod common;
use common::repository;

const TIMEOUT: Duration = Duration::from_secs(20);

/// Of the `test`-th test of this file: alone in it, and far below the ports that Linux gives out.
fn domain(test: u32) -> u16 {
    ((std::process::id() + 7 * test) % 100 + 1) as u16
}

/// A node without a model, and what it says.
struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    fn start(mut program: Command, domain: u16, folder: &Path) -> Self {
        let log = folder.join("node.log");
        let domain = format!("node.domain_id={domain}");
        let keys = ["model.weights=", &domain, "diagnostics.period_millis=100"];
        program.arg("run").args(keys.into_iter().flat_map(|key| ["--set", key]));
        for variable in ["RUST_LOG", "ROS_LOCALHOST_ONLY", "ROS_AUTOMATIC_DISCOVERY_RANGE"] {
            if program.get_envs().all(|(name, _)| name != variable) {
                program.env_remove(variable);
            }
        }
        let child = program.current_dir(repository()).stderr(File::create(&log).unwrap()).spawn().unwrap();
        Self { child, log }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.child.id())]).status().unwrap();
        assert!(sent.success(), "SIG{name}");
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for its end.
    fn end(&mut self, patience: Duration) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(begun.elapsed() < patience, "it is still there after {patience:?}:\n{}", self.log());
            sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it has gone already where all went well
        let _ = self.child.wait();
    }
}

fn node() -> Command {
    Command::new(env!("CARGO_BIN_EXE_node"))
}

/// Another node in the same domain. Fields go in this order: the participant outlives the node's writers.
struct Peer {
    node: Node,
    participant: DomainParticipant,
}

impl Peer {
    fn join(domain: u16) -> Self {
        let context = Context::with_options(ContextOptions::new().domain_id(domain)).unwrap();
        let name = NodeName::new("/", "peer").unwrap();
        let options = NodeOptions::new().enable_rosout(false).start_parameter_services(false);
        let node = context.new_node(name, options).unwrap();
        Self { node, participant: context.domain_participant() }
    }

    fn images(&mut self) -> Publisher<Image> {
        let (name, qos) = (Name::parse("/camera/image_raw").unwrap(), QosProfile::subscription_default());
        let topic = self.node.create_topic(&name, MessageTypeName::new("sensor_msgs", "Image"), &qos).unwrap();
        self.node.create_publisher(&topic, Some(qos)).unwrap()
    }

    fn reports(&mut self) -> Subscription<DiagnosticArray> {
        let qos = QosProfile::publisher_default().history(History::KeepLast { depth: 50 });
        let name = Name::parse("/diagnostics").unwrap();
        let kind = MessageTypeName::new("diagnostic_msgs", "DiagnosticArray");
        let topic = self.node.create_topic(&name, kind, &qos).unwrap();
        self.node.create_subscription(&topic, Some(qos)).unwrap()
    }

    /// Where the node says that its trajectory's readers reach it, as soon as it is known.
    fn locators(&self, node: &mut Running) -> Vec<String> {
        let begun = Instant::now();
        loop {
            let writers = self.participant.discovered_writers();
            let of_node = writers.iter().find(|w| w.publication_topic_data.topic_name == "rt/ego/trajectory");
            if let Some(writer) = of_node {
                return writer.writer_proxy.unicast_locator_list.iter().map(|l| format!("{l:?}")).collect();
            }
            assert_eq!(node.ended(), None, "{}", node.log());
            assert!(begun.elapsed() < TIMEOUT, "the node is not there:\n{}", node.log());
            sleep(Duration::from_millis(50));
        }
    }
}

fn image(number: u32) -> Image {
    let header = Header::new(Stamp::from_nanos(1_000_000_000 + i64::from(number) * 50_000_000), "eye");
    let (width, height) = (32, 24);
    let data = (0..width * height).map(|k| (k * 7) as u8).collect::<Vec<u8>>();
    let encoding = "mono8".to_owned();
    Image { header, height, width, encoding, is_bigendian: 0, step: width, data: ByteBuf::from(data) }
}

/// A value of a report.
fn value(report: &DiagnosticArray, key: &str) -> Option<String> {
    let mut values = report.status.iter().flat_map(|status| &status.values);
    values.find(|pair| pair.key == key).map(|pair| pair.value.clone())
}

/// Sends images, from `number` on, until the node reports that it has `least`; returns how many it then has, and its state.
fn send_until(
    node: &mut Running,
    (images, reports): (&Publisher<Image>, &Subscription<DiagnosticArray>),
    number: &mut u32,
    least: u64,
) -> (u64, String) {
    let begun = Instant::now();
    loop {
        assert_eq!(node.ended(), None, "{}", node.log());
        assert!(begun.elapsed() < TIMEOUT, "fewer than {least} images are reported in {TIMEOUT:?}:\n{}", node.log());
        images.publish(image(*number)).unwrap();
        *number += 1;
        sleep(Duration::from_millis(50));
        while let Some((report, _)) = reports.take().unwrap() {
            let received = value(&report, "frames_received").and_then(|count| count.parse::<u64>().ok());
            if let Some(received) = received.filter(|received| *received >= least) {
                return (received, value(&report, "lifecycle").unwrap_or_default());
            }
        }
    }
}

#[test]
fn a_node_that_was_stopped_and_continued_hears_its_camera_again() {
    let (folder, domain) = (tempfile::tempdir().unwrap(), domain(0));
    let mut node = Running::start(node(), domain, folder.path());
    let mut peer = Peer::join(domain);
    let (images, reports) = (peer.images(), peer.reports());
    let mut number = 0;
    let (before, _) = send_until(&mut node, (&images, &reports), &mut number, 5);
    node.signal("STOP");
    sleep(Duration::from_secs(2));
    node.signal("CONT");
    // More than may have been on their way; and the counters of before are still there.
    let (_, state) = send_until(&mut node, (&images, &reports), &mut number, before + 20);
    assert_eq!(state, "active");
    node.signal("TERM");
    let status = node.end(Duration::from_secs(5));
    assert_eq!(status.code(), Some(0), "{}", node.log());
}

#[test]
fn a_node_that_is_to_stay_on_loopback_is_announced_there_alone_and_says_what_it_cannot_do() {
    let rows = [(1, None), (2, Some("ROS_LOCALHOST_ONLY")), (3, Some("ROS_AUTOMATIC_DISCOVERY_RANGE"))];
    let is_networked = UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.connect("203.0.113.1:9")).is_ok();
    for (test, variable) in rows {
        let (folder, domain) = (tempfile::tempdir().unwrap(), domain(test));
        let mut program = node();
        if let Some(variable) = variable {
            program.env(variable, if variable.ends_with("ONLY") { "1" } else { "LOCALHOST" });
        }
        let mut node = Running::start(program, domain, folder.path());
        let locators = Peer::join(domain).locators(&mut node);
        let (near, far): (Vec<&String>, Vec<&String>) = locators.iter().partition(|l| l.contains("127.0.0.1"));
        assert!(!near.is_empty(), "{variable:?}: {locators:?}");
        match variable {
            None => assert!(!far.is_empty() || !is_networked, "without a variable it is on the network: {locators:?}"),
            Some(variable) => {
                assert!(far.is_empty(), "{variable}: {locators:?}");
                let log = node.log();
                assert!(log.contains(variable) && log.contains("announced on loopback alone"), "{log}");
            }
        }
    }
}
