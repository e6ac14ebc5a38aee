use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded};
use geometry::Stamp;

use super::{Error, MAX_WAITING_BYTES, Recorder};
use crate::config::Config;
use crate::ros::message::{DiagnosticLevel, DiagnosticsMessage, Input, Output, TrajectoryMessage};
use crate::ros::transport::{Ends, Topics};
use crate::supervision::Watch;
use crate::tools::recording::Recording;
use camera::message::{ImageMessage, ImagePayload};
use camera::optics::UseFixed;

const TIMEOUT: Duration = Duration::from_secs(20);
const PIXELS: usize = 1 << 20;

/// Those of the shipped config.
fn topics() -> Topics {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/node.toml");
    Config::load(&shipped, &[]).unwrap().topics.resolved().unwrap()
}

/// What a disk does once it has no room.
enum Then {
    Fail,
    Panic,
    /// Until the other end hangs up.
    Hang(Receiver<()>),
}

struct Disk {
    room: usize,
    then: Then,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.room {
            if matches!(self.then, Then::Panic) {
                // Once: the file is ended as the thread unwinds.
                self.then = Then::Fail;
                panic!("a fault of the writer");
            }
            match &self.then {
                Then::Fail | Then::Panic => return Err(io::Error::new(io::ErrorKind::StorageFull, "no space left")),
                Then::Hang(released) => {
                    let _ = released.recv();
                }
            }
        }
        self.room = self.room.saturating_sub(bytes.len());
        self.bytes.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A recorder with a camera on one side and a pipeline on the other.
struct Rig {
    recorder: Recorder,
    ends: Ends,
    pipeline: Sender<Output>,
    /// Images that came to the pipeline.
    came: Arc<AtomicUsize>,
    file: Arc<Mutex<Vec<u8>>>,
}

fn rig(room: usize, then: Then, waiting: usize) -> Rig {
    let file = Arc::new(Mutex::new(Vec::new()));
    let disk = Disk { room, then, bytes: Arc::clone(&file) };
    let mut recorder = Recorder::start(Path::new("test.mcap"), disk, &topics(), waiting).unwrap();
    let came = Arc::new(AtomicUsize::new(0));
    let (pipeline, output) = bounded(8);
    let counter = Arc::clone(&came);
    let input = Box::new(move |_: Input| {
        counter.fetch_add(1, Ordering::SeqCst);
    });
    let stop = Arc::new(AtomicBool::new(false));
    let watch = Watch::new(Arc::clone(&stop));
    let ends = Ends { input, call: Box::new(|_| {}), graph: Box::new(|_| {}), output, stop, watch };
    let ends = recorder.tap(ends).unwrap();
    Rig { recorder, ends, pipeline, came, file }
}

impl Rig {
    /// Pixels that do not shrink.
    fn send(&self, i: usize) {
        let mut state = i as u32 + 1;
        let data = (0..PIXELS).map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        });
        let payload = ImagePayload::Raw {
            width: 1 << 10,
            height: 1 << 10,
            encoding: "mono8".to_owned(),
            is_bigendian: false,
            step: 1 << 10,
            data: data.collect(),
        };
        let stamp = Stamp::from_nanos(i as i64);
        (self.ends.input)(Input::Image(ImageMessage { stamp, frame_id: "eye".to_owned(), payload }));
    }

    fn wait(&self, what: &str, until: impl Fn(&super::Recorded) -> bool) {
        let begun = Instant::now();
        while !until(&self.recorder.sink.shared.counts()) {
            assert!(begun.elapsed() < TIMEOUT, "{what}: {:?}", self.recorder.sink.shared.counts());
            sleep(Duration::from_millis(2));
        }
    }

    /// What the transport gets for a report that all is well.
    fn report(&self) -> DiagnosticsMessage {
        let message = "3 windows answered".to_owned();
        let well = DiagnosticsMessage { stamp: Stamp::default(), level: DiagnosticLevel::Ok, message, values: vec![] };
        self.pipeline.send(Output::Diagnostics(well)).unwrap();
        match self.ends.output.recv_timeout(TIMEOUT).unwrap() {
            Output::Diagnostics(report) => report,
            other => panic!("{other:?}"),
        }
    }
}

fn value(report: &DiagnosticsMessage, key: &str) -> u64 {
    report.values.iter().find(|(name, _)| name == key).unwrap().1.parse().unwrap()
}

#[test]
fn what_passes_is_in_the_file_and_goes_on() {
    let Rig { recorder, ends, pipeline, came, file } = {
        let rig = rig(usize::MAX, Then::Fail, MAX_WAITING_BYTES);
        rig.send(0);
        rig.send(1);
        let report = rig.report();
        assert_eq!((report.level, report.message.as_str()), (DiagnosticLevel::Ok, "3 windows answered"));
        assert_eq!(value(&report, "messages_not_recorded"), 0);
        rig
    };
    let path = TrajectoryMessage { stamp: Stamp::from_nanos(7), frame_id: "eye".to_owned(), poses: vec![] };
    pipeline.send(Output::Trajectory(path.clone())).unwrap();
    assert_eq!(ends.output.recv_timeout(TIMEOUT).unwrap(), Output::Trajectory(path));
    // What the pipeline says when the transport is gone already.
    let Ends { input, output, .. } = ends;
    drop((input, output));
    let late = TrajectoryMessage { stamp: Stamp::from_nanos(8), frame_id: "eye".to_owned(), poses: vec![] };
    pipeline.send(Output::Trajectory(late)).unwrap();
    drop(pipeline);
    let recorded = recorder.finish(TIMEOUT).unwrap();
    assert_eq!((recorded.written, recorded.lost, came.load(Ordering::SeqCst)), (5, 0, 2));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("whole.mcap");
    std::fs::write(&path, &*file.lock().unwrap()).unwrap();
    let recording = Recording::open(&path).unwrap();
    assert_eq!(recording.damage(), []);
}

#[test]
fn a_full_disk_ends_the_recording_and_not_the_node() {
    // Room for one chunk, and not for two.
    let rig = rig(5 << 20, Then::Fail, MAX_WAITING_BYTES);
    for i in 0..10 {
        rig.send(i);
    }
    rig.wait("failure", |c| c.failure.is_some() && c.written + c.lost == 10);
    let report = rig.report();
    assert_eq!(report.level, DiagnosticLevel::Warn);
    assert!(report.message.contains("the recording has ended: no space left"), "{}", report.message);
    let written = value(&report, "messages_recorded");
    assert!((1..5).contains(&written), "{written}");
    assert_eq!(value(&report, "messages_not_recorded"), 10 - written);
    rig.send(10);
    assert_eq!(rig.came.load(Ordering::SeqCst), 11, "the pipeline got all");
    let Rig { recorder, ends, pipeline, file, .. } = rig;
    drop((ends, pipeline));
    let error = recorder.finish(TIMEOUT).unwrap_err();
    // The eleventh image and the report, too.
    let lost = 12 - written;
    let expected = format!("test.mcap: no space left; {written} messages are in the file, {lost} are not");
    assert_eq!(error.to_string(), expected);

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cut.mcap");
    std::fs::write(&path, &*file.lock().unwrap()).unwrap();
    let recording = Recording::open(&path).unwrap();
    assert_eq!(recording.damage().len(), 1);
    let camera = recording.camera(&topics(), UseFixed::Always).unwrap();
    assert_eq!(camera.images(), written);
}

#[test]
fn a_disk_that_hangs_holds_nothing_up() {
    let (release, released) = bounded::<()>(0);
    let room = 8 * PIXELS;
    let rig = rig(1 << 12, Then::Hang(released), room);
    for i in 0..40 {
        rig.send(i);
        assert!(rig.recorder.sink.shared.waiting.load(Ordering::SeqCst) <= room, "what waits is bounded");
    }
    assert_eq!(rig.came.load(Ordering::SeqCst), 40, "the camera was never held up");
    // One chunk is with the disk, and no more than the room waits.
    rig.wait("losses", |c| c.lost >= 40 - 4 - 8);
    let report = rig.report();
    assert_eq!(report.level, DiagnosticLevel::Warn);
    assert!(report.message.starts_with("messages_not_recorded +"), "{}", report.message);
    assert_eq!(rig.report().level, DiagnosticLevel::Ok, "what is over is over");
    drop(release);
    let Rig { recorder, ends, pipeline, .. } = rig;
    drop((ends, pipeline));
    let recorded = recorder.finish(TIMEOUT).unwrap();
    assert_eq!(recorded.written + recorded.lost, 42);
    assert!(recorded.written >= 4, "{recorded:?}");
}

#[test]
fn a_disk_that_hangs_at_the_end_is_an_error_in_time() {
    let (release, released) = bounded::<()>(0);
    let rig = rig(1 << 12, Then::Hang(released), MAX_WAITING_BYTES);
    rig.send(0);
    let Rig { recorder, ends, pipeline, .. } = rig;
    drop((ends, pipeline));
    let error = recorder.finish(Duration::from_millis(300)).unwrap_err();
    assert!(matches!(&error, Error::Write { reason, .. } if reason.contains("too slow")), "{error}");
    drop(release);
}

#[test]
fn a_recording_replaces_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("there.mcap");
    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(Recorder::create(&path, &topics()), Err(Error::Io { .. })));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn a_writing_thread_that_panics_ends_the_node_within_two_seconds() {
    let rig = rig(1 << 12, Then::Panic, MAX_WAITING_BYTES);
    let begun = Instant::now();
    (0..8).for_each(|i| rig.send(i));
    while !rig.ends.stop.load(Ordering::SeqCst) {
        assert!(begun.elapsed() < Duration::from_secs(2), "nobody noticed");
        sleep(Duration::from_millis(2));
    }
    let ended = rig.ends.watch.check().unwrap_err();
    assert_eq!(ended.to_string(), "the thread of the recording ended by itself: it panicked");
    drop((rig.ends, rig.pipeline));
    assert!(rig.recorder.finish(TIMEOUT).unwrap_err().to_string().contains("the writing thread panicked"));
}
