//! A pipeline between two hands: a camera that is a loop, a model that is a closure.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use camera::info::Images;
use camera::message::{CameraInfoMessage, ImageMessage, ImagePayload};
use camera::optics::{CameraRules, UseFixed};
use crossbeam::channel::{Receiver, Sender, bounded, unbounded};
use geometry::{Intrinsics, Stamp, Transform, WindowTrajectory};
use image::RgbImage;
use nalgebra::{Isometry3, Vector3};
use node::config::{
    CheckRules, Covariance, DiagnosticsConfig, Frozen, ImageRules, OdometryRules, OdometrySource, PublishConfig,
    Sanity, ScaleRules, Sheet, StatusRules, TrustRules, WindowRules,
};
use node::pipeline::{Failure, Live, Pipeline, Settings};
use node::ros::call::{Call, Reply};
use node::ros::lifecycle::State;
use node::ros::message::{
    DiagnosticLevel, DiagnosticsMessage, Input, OdometryMessage, Output, ParameterEventMessage, PoseMessage,
    TrajectoryMessage, TransformMessage,
};
use node::ros::transport::Ends;
use node::solve::estimator::{Error, Estimate, Estimator, Work};
use node::status::counters::{Fate, Snapshot};

pub const TIMEOUT: Duration = Duration::from_secs(20);
pub const PERIOD: i64 = 100_000_000;

/// Walks 0.1 m forward a frame.
pub fn walk() -> WindowTrajectory {
    let mut i = -1.0;
    WindowTrajectory::new([(); 5].map(|()| {
        i += 1.0;
        Transform::from_isometry_unchecked(Isometry3::new(Vector3::new(0.0, 0.0, 0.1 * i), Vector3::zeros()))
    }))
    .unwrap()
}

/// What a fake does with its n-th window.
pub type Behaviour = Box<dyn FnMut(usize) -> Result<Estimate, Error> + Send>;

pub struct Fake {
    encoded: Arc<AtomicUsize>,
    windows: Arc<AtomicUsize>,
    /// Each window waits for one token; without a gate none waits.
    gate: Option<Receiver<()>>,
    behaviour: Arc<Mutex<Behaviour>>,
}

impl Estimator for Fake {
    type Frame = u8;

    fn encode(&mut self, image: &RgbImage, _: &Intrinsics) -> Result<u8, Error> {
        self.encoded.fetch_add(1, Ordering::SeqCst);
        match image.get_pixel(0, 0).0[0] {
            255 => Err(Error::Image("too white".to_owned())),
            value => Ok(value),
        }
    }

    fn estimate(&mut self, frames: [&u8; 5]) -> Result<Estimate, Error> {
        assert!(frames.is_sorted(), "frames come in order: {frames:?}");
        if let Some(gate) = &self.gate {
            let _ = gate.recv();
        }
        let n = self.windows.fetch_add(1, Ordering::SeqCst);
        let behaviour = &mut *self.behaviour.lock().unwrap();
        behaviour(n)
    }
}

pub fn parsed() -> Result<Estimate, Error> {
    let text = "poses".to_owned();
    Ok(Estimate {
        text,
        tokens: 7,
        filled: 0,
        work: Work::default(),
        by_program: Vec::new(),
        trajectory: Ok(walk()),
        grid: None,
        position_stddev: None,
    })
}

pub fn settings(stride: u32, hop: u32) -> Settings {
    Settings {
        queue_depth: 1000,
        image_topic: "/camera".to_owned(),
        odom_frame: "odom".to_owned(),
        window: WindowRules { period: Duration::ZERO, stride, hop, max_gap: Duration::from_millis(500) },
        camera: CameraRules {
            use_fixed: UseFixed::Never,
            intrinsics: Intrinsics::new(9.0, 9.0, 4.0, 3.0, 8, 6).unwrap(),
            images: Images::Raw,
        },
        mount: None,
        odometry: OdometryRules {
            source: OdometrySource::Model,
            most_coast: Duration::from_secs(1),
            camera_height: None,
            least_motion_metres: 0.05,
            is_model_metric: true,
            is_topic_metric: false,
        },
        has_model: true,
        scale: ScaleRules::Metric,
        scale_topic: "/wheels".to_owned(),
        keeps_moments: false,
        autostart: true,
        live: Live {
            trust: trust(),
            publish: PublishConfig { reasoning: true, tf: false, static_tf: false },
            diagnostics: DiagnosticsConfig { period: Duration::from_millis(50), silent_after: Duration::from_secs(60) },
            use_sim_time: false,
        },
    }
}

fn trust() -> TrustRules {
    TrustRules {
        sanity: Sanity { max_step_metres: 1.0, max_step_radians: 1.0 },
        checks: CheckRules {
            procrustes_rotation_deg: 1.0,
            procrustes_translation: 0.1,
            epipolar_px: 1.0,
            overlap_rotation_deg: 1.0,
            overlap_translation: 0.1,
            tracks_rotation_deg: 12.0,
            tracks_direction_deg: 45.0,
            least_motion_metres: 0.05,
        },
        // The frames of most tests are of one grey.
        images: ImageRules { least_contrast: 0.0, frozen: Frozen::Ignored },
        status: StatusRules {
            consistent_ratio: 2.0,
            bad_ratio: 4.0,
            gross_ratio: 20.0,
            degraded_windows: 2,
            degraded_span: 10,
            degraded_widening: 3.0,
            // More than the tests of what is not published let fail in a row.
            lost_windows: 4,
            lost_after: Duration::from_secs(60),
            recover_windows: 2,
        },
        covariance: Covariance {
            position_stddev_metres: [0.5; 4],
            rotation_stddev_radians: [0.2; 4],
            break_position_stddev_metres: 2.0,
            break_rotation_stddev_radians: 1.0,
        },
    }
}

pub fn camera_info(k: [f64; 9], width: u32) -> Input {
    Input::CameraInfo(CameraInfoMessage {
        frame_id: "optical".to_owned(),
        width,
        height: 6,
        distortion_model: "plumb_bob".to_owned(),
        k,
        ..CameraInfoMessage::default()
    })
}

pub const K: [f64; 9] = [9.0, 0.0, 4.0, 0.0, 9.0, 3.0, 0.0, 0.0, 1.0];

pub fn grey(nanos: i64, value: u8) -> Input {
    let data = vec![value; 8 * 6];
    let encoding = "mono8".to_owned();
    let payload = ImagePayload::Raw { width: 8, height: 6, encoding, is_bigendian: false, step: 8, data };
    Input::Image(ImageMessage { stamp: Stamp::from_nanos(nanos), frame_id: "optical".to_owned(), payload })
}

/// What the parameters are read from and set in: not the settings above, which a set replaces by these.
pub fn sheet() -> Sheet {
    let overrides = [("trust.least_contrast", "0.0"), ("trust.frozen_images", "ignored")];
    let overrides = overrides.map(|(key, value)| (key.to_owned(), value.to_owned()));
    Sheet::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/node.toml"), &overrides).unwrap().0
}

pub struct Rig {
    pub pipeline: Pipeline,
    pub input: Box<dyn Fn(Input) + Send + Sync>,
    pub call: Box<dyn Fn(Call) + Send + Sync>,
    pub output: Receiver<Output>,
    pub stop: Arc<AtomicBool>,
    pub encoded: Arc<AtomicUsize>,
}

/// What stands before each loading of the model; an error makes it fail.
pub type Before = Box<dyn FnMut() -> Result<(), Error> + Send>;

/// A rig as it starts.
pub fn start(settings: Settings, gate: Option<Receiver<()>>, behaviour: Behaviour, before: Before) -> Rig {
    let encoded = Arc::new(AtomicUsize::new(0));
    let load = load(Arc::clone(&encoded), gate, behaviour, before);
    let stop = Arc::new(AtomicBool::new(false));
    let (pipeline, ends) = Pipeline::start(settings, sheet(), load, Arc::clone(&stop)).unwrap();
    let Ends { input, call, output, .. } = ends;
    Rig { pipeline, input, call, output, stop, encoded }
}

/// Makes fakes that all behave as one.
pub fn load(
    encoded: Arc<AtomicUsize>,
    gate: Option<Receiver<()>>,
    behaviour: Behaviour,
    mut before: Before,
) -> impl FnMut(Arc<AtomicBool>) -> Result<Fake, Error> + Send + 'static {
    let (behaviour, windows) = (Arc::new(Mutex::new(behaviour)), Arc::new(AtomicUsize::new(0)));
    move |_| {
        before()?;
        let (encoded, windows, behaviour) = (Arc::clone(&encoded), Arc::clone(&windows), Arc::clone(&behaviour));
        Ok(Fake { encoded, windows, gate: gate.clone(), behaviour })
    }
}

/// A rig that is active, and has said so.
pub fn rig(settings: Settings, gate: Option<Receiver<()>>, behaviour: Behaviour) -> Rig {
    let rig = start(settings, gate, behaviour, Box::new(|| Ok(())));
    let mut is_active = false;
    loop {
        match rig.output.recv_timeout(TIMEOUT).expect("the node becomes active") {
            Output::Transition(transition) => is_active = transition.edge.goal == State::Active,
            Output::Diagnostics(_) if is_active => return rig,
            _ => {}
        }
    }
}

/// As [`rig`], with good intrinsics, and a model that always answers.
pub fn ready(stride: u32, hop: u32, gate: Option<Receiver<()>>) -> Rig {
    let rig = rig(settings(stride, hop), gate, Box::new(|_| parsed()));
    (rig.input)(camera_info(K, 8));
    rig
}

pub fn gate() -> (Sender<()>, Option<Receiver<()>>) {
    let (open, gate) = unbounded();
    (open, Some(gate))
}

impl Rig {
    pub fn send(&self, frames: std::ops::Range<i64>) {
        frames.for_each(|i| (self.input)(grey(i * PERIOD, i as u8)));
    }

    pub fn wait(&self, what: &str, until: impl Fn(&Snapshot) -> bool) -> Snapshot {
        let begun = Instant::now();
        loop {
            let snapshot = self.pipeline.stats().snapshot();
            assert_balance(&snapshot);
            if until(&snapshot) {
                return snapshot;
            }
            assert!(begun.elapsed() < TIMEOUT, "{what}: {:?}", snapshot.counters());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Asks, and does not wait.
    pub fn ask<Answer: Send + 'static>(&self, call: impl FnOnce(Reply<Answer>) -> Call) -> Receiver<Answer> {
        let (answer, answered) = bounded(1);
        (self.call)(call(Box::new(move |got| answer.send(got).unwrap())));
        answered
    }

    /// Asks and waits for the answer.
    pub fn answer<Answer: Send + 'static>(&self, call: impl FnOnce(Reply<Answer>) -> Call) -> Answer {
        self.ask(call).recv_timeout(TIMEOUT).expect("an answer")
    }

    /// `~/change_state` by label.
    pub fn change(&self, label: &str) -> bool {
        self.answer(|reply| Call::ChangeState { id: 0, label: label.to_owned(), reply })
    }

    pub fn state(&self) -> State {
        self.answer(Call::GetState)
    }

    /// The next report of this level: its sentence and values.
    pub fn report(&self, level: DiagnosticLevel) -> (String, BTreeMap<String, String>) {
        let begun = Instant::now();
        while begun.elapsed() < TIMEOUT {
            match self.output.recv_timeout(TIMEOUT) {
                Ok(Output::Diagnostics(d)) if d.level == level => return (d.message, d.values.into_iter().collect()),
                Ok(_) => {}
                Err(e) => panic!("no report of level {level:?}: {e}"),
            }
        }
        panic!("no report of level {level:?} among those that came")
    }

    /// Hangs up the input, as a transport does when it returns; everything that came out, and the last counters.
    pub fn finish(self) -> (Result<Snapshot, Failure>, Outputs) {
        drop(self.input);
        let stats = Arc::clone(self.pipeline.stats());
        let finished = self.pipeline.finish(TIMEOUT);
        let outputs = Outputs::collect(&self.output);
        let snapshot = stats.snapshot();
        assert_balance(&snapshot);
        assert_eq!(snapshot.frames_pending, 0, "nothing is left behind");
        (finished, outputs)
    }
}

pub fn assert_balance(s: &Snapshot) {
    let dropped: u64 = s.counters().iter().filter(|(n, _)| n.starts_with("frames_dropped_")).map(|(_, n)| n).sum();
    let made = s.frames_used() + s.fate(Fate::Posed);
    assert_eq!(s.frames_received, made + dropped + s.frames_pending, "{:?}", s.counters());
}

#[derive(Default)]
pub struct Outputs {
    pub trajectories: Vec<TrajectoryMessage>,
    pub odometries: Vec<OdometryMessage>,
    pub poses: Vec<PoseMessage>,
    pub scales: Vec<DiagnosticsMessage>,
    pub diagnostics: Vec<(DiagnosticLevel, String, BTreeMap<String, String>)>,
    pub statuses: Vec<DiagnosticsMessage>,
    pub reasonings: Vec<String>,
    pub transforms: Vec<TransformMessage>,
    pub static_transforms: Vec<TransformMessage>,
    pub transitions: Vec<(State, State)>,
    pub parameter_events: Vec<ParameterEventMessage>,
}

impl Outputs {
    /// Until the pipeline hangs up: a hang here is a failure of the test.
    pub fn collect(output: &Receiver<Output>) -> Self {
        let mut all = Self::default();
        loop {
            match output.recv_timeout(TIMEOUT) {
                Ok(message) => all.add(message),
                Err(e) => {
                    assert!(e.is_disconnected(), "the output never hangs up");
                    return all;
                }
            }
        }
    }

    /// What comes out until there is what is waited for.
    pub fn until(output: &Receiver<Output>, done: impl Fn(&Self) -> bool) -> Self {
        let mut all = Self::default();
        while !done(&all) {
            all.add(output.recv_timeout(TIMEOUT).expect("what is waited for comes out"));
        }
        all
    }

    fn add(&mut self, message: Output) {
        match message {
            Output::Trajectory(t) => self.trajectories.push(t),
            Output::Odometry(o) => self.odometries.push(o),
            Output::Pose(pose) => self.poses.push(pose),
            Output::Scale(scale) => self.scales.push(scale),
            Output::Diagnostics(d) => self.diagnostics.push((d.level, d.message, d.values.into_iter().collect())),
            Output::Status(status) => self.statuses.push(status),
            Output::Reasoning(text) => self.reasonings.push(text),
            Output::Transform(t) => self.transforms.push(t),
            Output::StaticTransform(t) => self.static_transforms.push(t),
            Output::Transition(t) => self.transitions.push((t.edge.start, t.edge.goal)),
            Output::ParameterEvent(event) => self.parameter_events.push(event),
        }
    }
}
