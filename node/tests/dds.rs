//! The node as a process on its default transport, handled roughly: stopped and continued, told to stay on loopback, and
//! sent datagrams that nobody meant. The peer is made of the same DDS; what it forges is written down here byte by byte.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::fs::File;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::thread::sleep;
use std::time::{Duration, Instant};

use camera::ros::{ByteBuf, DiagnosticArray, Header, Image};
use geometry::Stamp;
use ros2_client::dds::rustdds::{DomainParticipant, RTPSEntity};
use ros2_client::qos::{History, QosProfile};
use ros2_client::{
    Context, ContextOptions, MessageTypeName, Name, Node, NodeName, NodeOptions, Publisher, Subscription,
};

#[expect(dead_code, reason = "no weights are needed")]
mod common;
use common::repository;

const TIMEOUT: Duration = Duration::from_secs(20);

/// Address space of a node that is sent forged datagrams, KiB. One that was sent none takes a small part of it.
const ADDRESS_SPACE_KIB: u64 = 3 << 19;

/// What a node says that ends for want of memory: its own words, or those of the allocator where a list doubles past the end.
const OUT_OF_MEMORY: [&str; 2] = ["memory is nearly gone", "memory allocation of "];

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
    /// `program` is the node, or what starts it with the rest as its arguments.
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

    /// It ends as asked, or has ended by itself with a word about memory.
    fn ends_well(&mut self) {
        let status = self.ended().unwrap_or_else(|| {
            self.signal("TERM");
            self.end(Duration::from_secs(5))
        });
        let said = OUT_OF_MEMORY.iter().any(|words| self.log().contains(words));
        assert!(status.success() || said, "{status}:\n{}", self.log());
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

/// The node with a bound on its address space, and few of the reservations that an allocator makes for many threads.
fn bounded_node() -> Command {
    let mut shell = Command::new("sh");
    let script = format!("ulimit -v {ADDRESS_SPACE_KIB} && exec \"$@\"");
    shell.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_node")]).env("MALLOC_ARENA_MAX", "1");
    shell
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

    /// The port of the node's discovery: that of its topics less one, by RTPS 2.5, 9.6.2.3. The node has all the memory then
    /// that it needs.
    fn discovery_port(&self, node: &mut Running) -> u16 {
        let locators = self.locators(node);
        sleep(Duration::from_millis(500));
        assert_eq!(node.ended(), None, "{}", node.log());
        let port = locators[0].rsplit(':').next().unwrap().trim_end_matches(')');
        port.parse::<u16>().unwrap() - 1
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

/// What discovery says of publishers, and who reads it: entities that every participant has.
const SEDP_WRITER: [u8; 4] = [0, 0, 3, 0xc2];
const SEDP_READER: [u8; 4] = [0, 0, 3, 0xc7];

/// A sequence number, little-endian.
fn sequence(number: u64) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&((number >> 32) as u32).to_le_bytes());
    bytes[4..].copy_from_slice(&(number as u32).to_le_bytes());
    bytes
}

/// A message with one submessage, as if from `peer`.
fn message(peer: &Peer, kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let length = (body.len() as u16).to_le_bytes();
    let guid = peer.participant.guid().to_bytes();
    let parts: [&[u8]; 5] = [b"RTPS\x02\x04\x01\x12", &guid[..12], &[kind, 1], &length, &body];
    parts.concat()
}

fn heartbeat(peer: &Peer, last: u64, count: u32) -> Vec<u8> {
    message(peer, 0x07, &[&SEDP_READER, &SEDP_WRITER, &sequence(1), &sequence(last), &count.to_le_bytes()])
}

fn gap(peer: &Peer, start: u64, end: u64) -> Vec<u8> {
    message(peer, 0x08, &[&SEDP_READER, &SEDP_WRITER, &sequence(start), &sequence(end), &[0; 4]])
}

#[test]
fn numbers_far_ahead_end_a_node_by_its_own_word_or_not_at_all() {
    const FAR: u64 = 1 << 40;
    for (test, kind) in [(4, "gap"), (5, "heartbeat")] {
        let (folder, domain) = (tempfile::tempdir().unwrap(), domain(test));
        let mut node = Running::start(bounded_node(), domain, folder.path());
        let peer = Peer::join(domain);
        let port = peer.discovery_port(&mut node);
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let begun = Instant::now();
        // The node's side of the match cannot be seen from here: what comes before it is passed over.
        for count in 0.. {
            if node.ended().is_some() || begun.elapsed() > Duration::from_secs(15) {
                break;
            }
            let forged =
                if kind == "gap" { gap(&peer, 1_000_000, FAR) } else { heartbeat(&peer, FAR, 1_000_000 + count) };
            let _ = socket.send_to(&forged, ("127.0.0.1", port)); // refused where the node has just ended
            sleep(Duration::from_millis(100));
        }
        node.ends_well();
    }
}

/// Numbers without a pattern, the same at each run (Knuth's MMIX).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }
}

/// Whether the byte at `at` is of an address: a kind (UDP over IPv4), a port, and sixteen bytes of which the last four count.
/// Those stay as they are, or the node would answer somewhere.
fn is_of_locator(seed: &[u8], at: usize) -> bool {
    let windows = seed.windows(24).enumerate();
    let mut locators = windows.filter(|(_, bytes)| bytes[..4] == [1, 0, 0, 0] && bytes[8..20] == [0; 12]);
    locators.any(|(start, _)| (start..start + 24).contains(&at))
}

#[test]
fn damaged_datagrams_leave_a_node_that_ends_when_it_is_told_to_or_says_why_it_ended() {
    const DATAGRAMS: usize = 4000;
    let (folder, domain) = (tempfile::tempdir().unwrap(), domain(6));
    // Participants announce themselves on this machine to the first twelve; this is the last of them.
    let listener = UdpSocket::bind(("127.0.0.1", 7400 + 250 * domain + 10 + 2 * 11)).unwrap();
    listener.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut node = Running::start(bounded_node(), domain, folder.path());
    let peer = Peer::join(domain);
    let port = peer.discovery_port(&mut node);
    let mut seeds = vec![heartbeat(&peer, 3, 1), gap(&peer, 2, 5)];
    let mut buffer = [0; 65_536];
    while let Ok(length) = listener.recv(&mut buffer) {
        seeds.push(buffer[..length].to_vec());
    }
    assert!(seeds.len() > 2, "no announcement was heard");
    let (socket, mut dice) = (UdpSocket::bind("127.0.0.1:0").unwrap(), Dice(19));
    for k in 0..DATAGRAMS {
        let seed = &seeds[dice.below(seeds.len())];
        let mut damaged = seed.clone();
        for _ in 0..=dice.below(4) {
            // Behind the magic word, which is looked at first.
            let at = 4 + dice.below(damaged.len() - 4);
            if !is_of_locator(seed, at) {
                damaged[at] = dice.below(256) as u8;
            }
        }
        if dice.below(8) == 0 {
            damaged.truncate(4 + dice.below(damaged.len() - 4));
        }
        // To topics and discovery in turn; refused where the node has ended.
        let _ = socket.send_to(&damaged, ("127.0.0.1", port + (k % 2) as u16));
        if k % 100 == 0 {
            sleep(Duration::from_millis(20));
        }
    }
    sleep(Duration::from_secs(1));
    node.ends_well();
}
