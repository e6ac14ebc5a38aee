//! A pipeline with a camera in one hand, and what must have become of its images in the other.

use std::time::Duration;

use camera::message::{ImageMessage, ImagePayload};
use crossbeam::channel::{Receiver, Sender};
use geometry::Stamp;
use node::config::{Frozen, ImageRules};
use node::pipeline::Settings;
use node::ros::call::Call;
use node::ros::message::{DiagnosticLevel, Input};
use node::ros::parameters::Value;
use node::status::counters::{Fate, Snapshot};
use node::trust::state::Status;

use crate::rig::{self, Behaviour, K, Outputs, PERIOD, Rig, camera_info, parsed};

/// No report comes by itself within it.
const LONG_MILLIS: i64 = 3_600_000;

/// What a case comes to. What is not said is none, and OK.
pub struct Expect {
    /// Images that the model read and answered for.
    pub used: u64,
    /// Images that ended otherwise.
    pub dropped: &'static [(Fate, u64)],
    /// Images that wait for their window when all is over.
    pub waiting: u64,
    /// These, and those of earlier windows that the next one shares.
    pub held: u64,
    pub answered: u64,
    pub broken: u64,
    pub superseded: u64,
    pub unparsed: u64,
    pub withheld: u64,
    pub unscaled: u64,
    /// `odometry_breaks`.
    pub breaks: u64,
    pub status: Status,
    /// Part of the reason for it.
    pub reason: &'static str,
    /// Of the report.
    pub level: DiagnosticLevel,
    /// Part of its sentence.
    pub message: &'static str,
    /// The paths that came out: the stamps of their poses, in periods of the camera.
    pub paths: Vec<[i64; 5]>,
}

impl Default for Expect {
    fn default() -> Self {
        Self {
            used: 0,
            dropped: &[],
            waiting: 0,
            held: 0,
            answered: 0,
            broken: 0,
            superseded: 0,
            unparsed: 0,
            withheld: 0,
            unscaled: 0,
            breaks: 0,
            status: Status::Ok,
            reason: "",
            level: DiagnosticLevel::Ok,
            message: "",
            paths: Vec::new(),
        }
    }
}

/// Five frames in a row.
pub fn from(first: i64) -> [i64; 5] {
    std::array::from_fn(|i| first + i as i64)
}

/// The image of 8 x 6 pixels at so many periods, a ramp of grey that starts with `value`.
pub fn picture(at: i64, value: u8) -> Input {
    image(at, grey(8, value))
}

/// A ramp of grey, `width` x 6 pixels.
pub fn grey(width: u32, value: u8) -> ImagePayload {
    let data = (0..width * 6).map(|at| value + (at % 8) as u8 * 4).collect();
    ImagePayload::Raw { width, height: 6, encoding: "mono8".to_owned(), is_bigendian: false, step: width, data }
}

/// An image of this content at so many periods.
pub fn image(at: i64, payload: ImagePayload) -> Input {
    let stamp = Stamp::from_nanos(at.saturating_mul(PERIOD));
    Input::Image(ImageMessage { stamp, frame_id: "optical".to_owned(), payload })
}

/// One image each 100 ms, windows of neighbouring frames that share one; images are looked at as by default.
pub fn settings() -> Settings {
    let mut settings = rig::settings(1, 4);
    settings.live.trust.images = ImageRules { least_contrast: 2.0, frozen: Frozen::Degraded };
    settings.live.diagnostics.period = Duration::from_millis(LONG_MILLIS as u64);
    settings
}

pub struct Case {
    pub rig: Rig,
    /// What the camera says of itself.
    pub info: Input,
    infos: u64,
}

impl Case {
    /// A model that walks 0.1 m a frame.
    pub fn new() -> Self {
        Self::with(settings(), Box::new(|_| parsed()))
    }

    pub fn with(settings: Settings, behaviour: Behaviour) -> Self {
        Self::of(rig::rig(settings, None, behaviour), camera_info(K, 8))
    }

    pub fn of(rig: Rig, info: Input) -> Self {
        Self { rig, info, infos: 0 }
    }

    /// A model that is at its first window, frames 0 to 4, and waits for leave to answer it, and each that comes behind.
    pub fn busy() -> (Sender<()>, Self) {
        let (open, gate): (Sender<()>, Option<Receiver<()>>) = rig::gate();
        let case = Self::of(rig::rig(settings(), gate, Box::new(|_| parsed())), camera_info(K, 8));
        (case.rig.input)(case.info.clone());
        case.burst(0..5);
        case.rig.wait("busy", |s| s.encode_cache_misses == 5);
        (open, case)
    }

    /// Frames of a rising grey, and what becomes of them is not waited for.
    pub fn burst(&self, frames: std::ops::Range<i64>) {
        frames.for_each(|i| (self.rig.input)(picture(i, i as u8)));
    }

    /// Frames of a rising grey, one by one.
    pub fn frames(&mut self, frames: std::ops::Range<i64>) {
        frames.for_each(|i| self.image(picture(i, i as u8)));
    }

    /// An image among CameraInfos, as drivers send them, and the answer to the window that it completes.
    pub fn image(&mut self, image: Input) {
        for message in [self.info.clone(), image, self.info.clone()] {
            (self.rig.input)(message);
        }
        self.infos += 2;
        // One queue: when the second CameraInfo is counted, the image has been looked at.
        self.rig.wait("answer", |s| {
            let ended = s.windows_answered + s.windows_broken + s.windows_superseded;
            s.camera_infos_received == self.infos && ended == s.windows_complete
        });
    }

    /// Ends the case and holds it against what it must come to.
    pub fn end(self, expect: &Expect) -> Outputs {
        let rig = self.rig;
        let settled = rig.wait("all frames settled", |s| s.frames_pending == expect.held);
        let long = |name: &str| (name.to_owned(), Value::Integer(LONG_MILLIS));
        let changes = vec![long("diagnostics.period_millis"), long("diagnostics.silent_after_millis")];
        // A set makes a report, which looks back to the start.
        rig.answer(|reply| Call::SetParametersAtomically(changes, reply)).unwrap();
        let mut outputs = Outputs::until(&rig.output, |outputs| {
            let counters = settled.counters();
            outputs.diagnostics.last().is_some_and(|(_, _, values)| {
                counters.iter().all(|(name, n)| values.get(*name).is_some_and(|value| *value == n.to_string()))
            })
        });
        let (finished, rest) = rig.finish();
        outputs.trajectories.extend(rest.trajectories);
        outputs.odometries.extend(rest.odometries);
        expect.check_report(&outputs);
        expect.check_counts(&finished.unwrap());
        expect.check_poses(&outputs);
        outputs
    }
}

impl Expect {
    fn check_report(&self, outputs: &Outputs) {
        let (level, message, values) = outputs.diagnostics.last().unwrap();
        assert_eq!(*level, self.level, "{message}");
        assert!(message.contains(self.message), "`{}` is not in: {message}", self.message);
        let status = outputs.statuses.last().unwrap();
        assert_eq!((status.level, &status.message), (*level, message), "the status is the report's");
        assert_eq!(values["status"], self.status.to_string(), "{message}");
        let reason = values.get("status_reason").map_or("", String::as_str);
        assert_eq!(reason.is_empty(), self.status == Status::Ok, "{reason}");
        assert!(reason.contains(self.reason), "`{}` is not in: {reason}", self.reason);
    }

    fn check_counts(&self, s: &Snapshot) {
        for fate in Fate::ALL {
            let dropped = self.dropped.iter().find(|(dropped, _)| *dropped == fate).map_or(0, |(_, n)| *n);
            let expected = match fate {
                Fate::Used => self.used,
                Fate::Shutdown => self.waiting,
                _ => dropped,
            };
            assert_eq!(s.fate(fate), expected, "{}: {:?}", fate.counter(), s.counters());
        }
        let windows = [
            ("windows_answered", s.windows_answered, self.answered),
            ("windows_broken", s.windows_broken, self.broken),
            ("windows_superseded", s.windows_superseded, self.superseded),
            ("answers_unparsed", s.answers_unparsed, self.unparsed),
            ("windows_withheld", s.windows_withheld, self.withheld),
            ("windows_unscaled", s.windows_unscaled, self.unscaled),
            ("odometry_breaks", s.odometry_breaks, self.breaks),
        ];
        for (name, got, expected) in windows {
            assert_eq!(got, expected, "{name}: {:?}", s.counters());
        }
    }

    /// The model that these cases have says 0.1 m a frame: another step of the odometry is a jump.
    fn check_poses(&self, outputs: &Outputs) {
        let periods = |path: &node::ros::message::TrajectoryMessage| -> Vec<i64> {
            path.poses.iter().map(|pose| pose.stamp.nanos / PERIOD).collect()
        };
        let paths: Vec<Vec<i64>> = outputs.trajectories.iter().map(periods).collect();
        assert_eq!(paths, self.paths);
        let ways: Vec<f64> = outputs.odometries.iter().map(|odometry| odometry.pose.position[2]).collect();
        let jumps = ways.windows(2).filter(|pair| (pair[1] - pair[0] - 0.1).abs() > 1e-9).count() as u64;
        assert!(jumps <= self.breaks, "{jumps} jumps, {} breaks: {ways:?}", self.breaks);
    }
}
