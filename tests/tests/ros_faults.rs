//! Faults that the wire has a part in, to the node as its own process, with each transport. The camera and the listener
//! are of Rust; `cargo xtask test` runs this as it runs `ros_roundtrip.rs`.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::path::Path;
use std::time::{Duration, Instant};

use ::camera::message::{CameraInfoMessage, ImageMessage, ImagePayload};
use geometry::Stamp;
use tests::camera::{self, Camera};
use tests::hil::measure::LastWords;
use tests::listener::{self, Heard, Listener, Report};
use tests::process::{Place, Running};

const TIMEOUT: Duration = Duration::from_secs(60);
/// Of SIGTERM, also where the model is at an answer.
const EXIT: Duration = Duration::from_secs(2);
const PERIOD: i64 = 100_000_000;
/// Where the stamps of a case begin, in periods; those of what comes in front are less, and far apart.
const START: i64 = 100_000;
const SIZE: (u32, u32) = (64, 48);

/// A case with the two transports, by the names that xtask knows them by.
macro_rules! both {
    ($($case:ident: $ros2_client:ident, $r2r:ident;)*) => {
        $(
            #[test]
            fn $ros2_client() {
                $case("ros2-client");
            }

            #[test]
            fn $r2r() {
                $case("r2r");
            }
        )*
    };
}

both! {
    malformed_images: ros2_client_counts_malformed_images, r2r_counts_malformed_images;
    zero_stamps: ros2_client_reports_stamps_that_are_zero, r2r_reports_stamps_that_are_zero;
    big_endian: ros2_client_reads_big_endian_samples, r2r_reads_big_endian_samples;
    far_larger: ros2_client_survives_an_image_far_larger, r2r_survives_an_image_far_larger;
    other_type: ros2_client_reports_a_camera_of_another_type, r2r_reports_a_camera_of_another_type;
    other_reliability: ros2_client_reports_a_camera_that_is_not_reliable, r2r_reports_a_camera_that_is_not_reliable;
    stalled_reader: ros2_client_does_not_wait_for_a_reader, r2r_does_not_wait_for_a_reader;
    gone_and_back: ros2_client_hears_a_camera_that_comes_back, r2r_hears_a_camera_that_comes_back;
    two_cameras: ros2_client_takes_one_frame_of_two_cameras, r2r_takes_one_frame_of_two_cameras;
    sigterm: ros2_client_ends_in_the_middle_of_an_answer, r2r_ends_in_the_middle_of_an_answer;
}

struct Bench {
    place: Place,
    node: Running,
    listener: Listener,
}

impl Bench {
    /// A node that is active, and a listener that hears it.
    fn new(transport: &str, name: &str, settings: &[&str]) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("faults_{transport}_{name}"));
        let place = Place::new(folder);
        let mut command = place.node(transport);
        let own = [
            "topics.image_reliability=reliable",
            "diagnostics.period_millis=200",
            "diagnostics.silent_after_millis=1000",
        ];
        for setting in own.iter().chain(settings) {
            command.arg("--set").arg(setting);
        }
        let node = place.start(command);
        let listener = Listener::start(place.domain(), &listener::Topics::default()).unwrap();
        let bench = Self { place, node, listener };
        bench.wait("an active node", |report| report.is_active().then_some(()));
        bench
    }

    /// The first answer of `look` for the newest report.
    fn wait<T>(&self, what: &str, mut look: impl FnMut(&Report) -> Option<T>) -> T {
        let newest = |heard: &Heard| heard.diagnostics.last().and_then(&mut look);
        self.listener.wait_for(TIMEOUT, newest).unwrap_or_else(|| {
            let last = self.listener.heard().diagnostics.last().cloned();
            panic!("no {what}; the last report: {last:#?}\nthe node said:\n{}", self.place.log())
        })
    }

    fn wait_for_count(&self, name: &str, least: u64) {
        self.wait(name, |report| (report.count(name)? >= least).then_some(()));
    }

    fn count(&self, name: &str) -> u64 {
        self.wait(name, |report| report.count(name))
    }

    /// A camera that the node hears: what it sent before that is lost, so it sends until something comes.
    fn camera(&self, topics: &camera::Topics) -> Camera {
        let camera = Camera::start(self.place.domain(), topics).unwrap();
        let (frames, infos) = (self.count("frames_received"), self.count("camera_infos_received"));
        assert!(camera.wait_for_listener(TIMEOUT), "no node listens:\n{}", self.place.log());
        let begun = Instant::now();
        for i in 1.. {
            camera.publish_info(info(SIZE)).unwrap();
            camera.publish_image(image(10 * i, payload(i))).unwrap();
            std::thread::sleep(Duration::from_millis(500));
            if self.count("frames_received") > frames && self.count("camera_infos_received") > infos {
                break;
            }
            assert!(begun.elapsed() < TIMEOUT, "the node hears nothing:\n{}", self.place.log());
        }
        camera
    }

    /// SIGTERM: the node ends well, in time, and its last words account for every frame.
    fn end(mut self) {
        let (status, _) = self.node.stop(EXIT).unwrap_or_else(|e| panic!("{e}; the node said:\n{}", self.place.log()));
        let log = self.place.log();
        assert!(status.success(), "the node ended with {status}:\n{log}");
        assert!(!log.contains("panicked"), "{log}");
        let last = LastWords::of_log(&log).expect("the node logs its counts");
        assert_eq!(last.received, last.used + last.posed + last.dropped, "{last:?}");
        let heard = self.listener.heard();
        assert_eq!(heard.unreadable, [""; 0]);
        assert!(heard.diagnostics.iter().all(Report::accounts_for_every_frame));
        assert!(heard.odometry.iter().all(|message| (0..6).all(|i| message.covariance[i][i] > 0.0)));
        for path in &heard.paths {
            assert_eq!(path.poses.len(), 5, "{path:?}");
            assert!(path.poses.is_sorted_by(|a, b| a.stamp < b.stamp), "{path:?}");
        }
    }
}

fn info((width, height): (u32, u32)) -> CameraInfoMessage {
    let (cx, cy) = (f64::from(width) / 2.0, f64::from(height) / 2.0);
    let k = [60.0, 0.0, cx, 0.0, 60.0, cy, 0.0, 0.0, 1.0];
    CameraInfoMessage { frame_id: "eye".to_owned(), width, height, k, ..CameraInfoMessage::default() }
}

fn image(at: i64, payload: ImagePayload) -> ImageMessage {
    ImageMessage { stamp: Stamp::from_nanos(at * PERIOD), frame_id: "eye".to_owned(), payload }
}

/// A pattern that moves to the left.
fn pattern(i: i64, (width, height): (u32, u32)) -> Vec<u8> {
    let shift = (i % 100) as u32;
    (0..width * height).map(|at| ((at % width + 2 * shift) * 7 % 200 + at / width % 50) as u8).collect()
}

fn payload(i: i64) -> ImagePayload {
    let (width, height) = SIZE;
    let encoding = "mono8".to_owned();
    ImagePayload::Raw { width, height, encoding, is_bigendian: false, step: width, data: pattern(i, SIZE) }
}

/// Good frames at the rate of their stamps.
fn frames(camera: &Camera, places: std::ops::Range<i64>) {
    for i in places {
        camera.publish_image(image(i, payload(i))).unwrap();
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn malformed_images(transport: &str) {
    let bench = Bench::new(transport, "malformed", &[]);
    let camera = bench.camera(&camera::Topics::default());
    let raw = |encoding: &str, (width, height): (u32, u32), step: u32, bytes: usize| ImagePayload::Raw {
        width,
        height,
        encoding: encoding.to_owned(),
        is_bigendian: false,
        step,
        data: vec![7; bytes],
    };
    let (refused, answered) = (bench.count("frames_dropped_decode"), bench.count("windows_answered"));
    let bad = [
        raw("rgb8", SIZE, 192, 192 * 48 - 1),
        raw("mono8", SIZE, 0, 0),
        raw("32FC1", SIZE, 256, 256 * 48),
        raw("", (0, 0), 0, 0),
        raw("mono8", (u32::MAX, u32::MAX), u32::MAX, 4),
        raw("nv12", (63, 48), 64, 64 * 72),
    ];
    for (payload, i) in bad.into_iter().zip(START..) {
        camera.publish_image(image(i, payload)).unwrap();
        std::thread::sleep(Duration::from_millis(50));
    }
    bench.wait_for_count("frames_dropped_decode", refused + 6);
    frames(&camera, START + 10..START + 16);
    bench.wait_for_count("windows_answered", answered + 1);
    assert_eq!(bench.count("frames_dropped_decode"), refused + 6);
    bench.end();
}

fn zero_stamps(transport: &str) {
    let bench = Bench::new(transport, "zero", &[]);
    let camera = bench.camera(&camera::Topics::default());
    let answered = bench.count("windows_answered");
    // Until what was in front of them is so long ago that a report says nothing of it.
    for _ in 0..50 {
        camera.publish_image(image(0, payload(0))).unwrap();
        std::thread::sleep(Duration::from_millis(100));
    }
    let told = |heard: &Heard| {
        let wanted = "every image is refused: stamp 0 ns";
        heard.diagnostics.iter().any(|report| report.level == 2 && report.message.contains(wanted))
    };
    assert!(bench.listener.wait_until(TIMEOUT, told), "{:?}", bench.listener.heard().diagnostics.last());
    bench.wait_for_count("frames_dropped_repeated", 40);
    assert_eq!(bench.count("windows_answered"), answered);
    bench.end();
}

fn big_endian(transport: &str) {
    let bench = Bench::new(transport, "big_endian", &[]);
    let camera = bench.camera(&camera::Topics::default());
    let (refused, answered) = (bench.count("frames_dropped_decode"), bench.count("windows_answered"));
    let (width, height) = SIZE;
    for i in START..START + 6 {
        let data = pattern(i, SIZE).iter().flat_map(|high| [*high, 0]).collect();
        let encoding = "mono16".to_owned();
        let payload = ImagePayload::Raw { width, height, encoding, is_bigendian: true, step: 2 * width, data };
        camera.publish_image(image(i, payload)).unwrap();
        std::thread::sleep(Duration::from_millis(100));
    }
    bench.wait_for_count("windows_answered", answered + 1);
    // In the wrong order all high bytes were zero: black.
    let black = bench.count("frames_dropped_blank");
    assert_eq!((bench.count("frames_dropped_decode"), black), (refused, 0));
    bench.end();
}

fn far_larger(transport: &str) {
    let bench = Bench::new(transport, "larger", &[]);
    let camera = bench.camera(&camera::Topics::default());
    let answered = bench.count("windows_answered");
    let (width, height) = (1920, 1080);
    let data = vec![7; (width * height * 3) as usize];
    let encoding = "rgb8".to_owned();
    let large = ImagePayload::Raw { width, height, encoding, is_bigendian: false, step: width * 3, data };
    camera.publish_image(image(START, large)).unwrap();
    bench.wait_for_count("frames_dropped_camera_info_mismatch", 1);
    frames(&camera, START + 10..START + 16);
    bench.wait_for_count("windows_answered", answered + 1);
    bench.end();
}

/// The report of a node that hears no camera although there is one.
fn is_stale(report: &Report) -> Option<()> {
    (report.level == 3 && report.message.starts_with("no image on /camera/image_raw")).then_some(())
}

fn other_type(transport: &str) {
    let bench = Bench::new(transport, "type", &[]);
    let wrong = camera::Topics { compressed: true, ..camera::Topics::default() };
    let other = Camera::start(bench.place.domain(), &wrong).unwrap();
    for i in 0..20 {
        let payload = ImagePayload::Compressed { format: "jpeg".to_owned(), data: vec![0xff; 100] };
        other.publish_image(image(i, payload)).unwrap();
        std::thread::sleep(Duration::from_millis(50));
    }
    bench.wait("a word of the silence", is_stale);
    assert_eq!(bench.count("frames_received"), 0, "bytes of another type are no image");
    drop(other);
    let camera = bench.camera(&camera::Topics::default());
    frames(&camera, START..START + 6);
    bench.wait_for_count("windows_answered", 1);
    bench.end();
}

fn other_reliability(transport: &str) {
    let bench = Bench::new(transport, "reliability", &[]);
    let unreliable = camera::Topics { qos: camera::sensor_data(10), ..camera::Topics::default() };
    let other = Camera::start(bench.place.domain(), &unreliable).unwrap();
    for i in 0..20 {
        other.publish_image(image(i, payload(i))).unwrap();
        std::thread::sleep(Duration::from_millis(50));
    }
    let reason =
        "QoS mismatch on /camera/image_raw: reliability: a publisher offers best_effort, this node requests reliable";
    bench.wait("the reason of the silence", |report| is_stale(report).filter(|()| report.message.contains(reason)));
    let told = |heard: &Heard| heard.statuses.iter().any(|status| status.message.contains(reason));
    assert!(bench.listener.wait_until(TIMEOUT, told), "{:?}", bench.listener.heard().statuses.last());
    assert_eq!(bench.place.log().matches(reason).count(), 1, "once in the log:\n{}", bench.place.log());
    assert_eq!(bench.count("frames_received"), 0);
    drop(other);
    bench.wait("an end of it", |report| (!report.message.contains("QoS")).then_some(()));
    let camera = bench.camera(&camera::Topics::default());
    frames(&camera, START..START + 6);
    bench.wait_for_count("windows_answered", 1);
    bench.end();
}

fn stalled_reader(transport: &str) {
    let bench = Bench::new(transport, "stalled", &[]);
    let camera = bench.camera(&camera::Topics::default());
    let stalled = Listener::start(bench.place.domain(), &listener::Topics::default()).unwrap();
    assert!(stalled.wait_until(TIMEOUT, |heard| !heard.diagnostics.is_empty()));
    let received = bench.count("frames_received");
    // Its application takes nothing; its DDS acknowledges all the same.
    let held = stalled.heard();
    frames(&camera, START..START + 60);
    bench.wait_for_count("frames_received", received + 60);
    bench.wait_for_count("windows_answered", 1);
    let reports = bench.listener.heard().diagnostics.len();
    assert!(bench.listener.wait_until(TIMEOUT, |heard| heard.diagnostics.len() > reports + 5), "reports go on");
    drop(held);
    bench.end();
}

fn gone_and_back(transport: &str) {
    let bench = Bench::new(transport, "gone", &[]);
    let camera = bench.camera(&camera::Topics::default());
    frames(&camera, START..START + 6);
    bench.wait_for_count("windows_answered", 1);
    drop(camera);
    bench.wait("a word of the silence", is_stale);
    let answered = bench.count("windows_answered");
    let before = bench.listener.heard().diagnostics.len();
    // Its clock starts again too.
    let camera = bench.camera(&camera::Topics::default());
    frames(&camera, START + 1000..START + 1006);
    bench.wait_for_count("windows_answered", answered + 1);
    // While it sent: the answer may take longer than the silence that counts.
    assert!(bench.listener.heard().diagnostics.iter().skip(before).any(|report| report.level < 3), "stale throughout");
    bench.end();
}

fn two_cameras(transport: &str) {
    let bench = Bench::new(transport, "two", &[]);
    let first = bench.camera(&camera::Topics::default());
    let second = bench.camera(&camera::Topics::default());
    let (received, repeated) = (bench.count("frames_received"), bench.count("frames_dropped_repeated"));
    let answered = bench.count("windows_answered");
    let mut sent = received;
    for i in START..START + 10 {
        for camera in [&first, &second] {
            camera.publish_image(image(i, payload(i))).unwrap();
            sent += 1;
            // Or one overtakes the other.
            bench.wait_for_count("frames_received", sent);
        }
    }
    bench.wait_for_count("frames_dropped_repeated", repeated + 10);
    bench.wait_for_count("windows_answered", answered + 1);
    assert_eq!(bench.count("frames_dropped_repeated"), repeated + 10);
    bench.end();
}

/// The reasoning is written in full, and a window begins with every frame: the model is always at an answer.
fn sigterm(transport: &str) {
    let settings = ["model.mode=full_chain", "window.hop=1"];
    let bench = Bench::new(transport, "sigterm", &settings);
    let camera = bench.camera(&camera::Topics::default());
    let begun = Instant::now();
    let mut at = START;
    // Five frames are encoded before an answer begins; a newer window waits already.
    while bench.count("windows_superseded") == 0 {
        assert!(begun.elapsed() < TIMEOUT, "the model is never busy:\n{}", bench.place.log());
        frames(&camera, at..at + 5);
        at += 5;
    }
    for i in at..at + 5 {
        camera.publish_image(image(i, payload(i))).unwrap();
    }
    bench.end();
}
