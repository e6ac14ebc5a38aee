//! The threads between the two ends of the node, and the lifecycle that they are under.
//!
//! ```text
//! input callback --bounded--> ingest --one window, the newest--> inference --bounded--> output
//!                               | `------------- reports -----------------------------------^
//! services ------> control -----'--------------- load, unload ------^
//! ```
//!
//! Architecture Invariants:
//! - The callbacks never block: what does not fit is dropped and counted, what takes long is a job of a thread.
//! - At most one window waits; a newer one takes its place.
//! - Nothing comes out while the node is not active, and nothing of before a reset behind it: each image belongs to the
//!   generation in which it came in, also while it is queued.
//! - When either thread ends, for whatever reason, the other ends too, and the output hangs up, which ends the transport.
//!   A panic in a thread is a failure of the node, told in a last report, never a hang.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded, unbounded};
use geometry::Stamp;

use crate::config::{
    Config, DiagnosticsConfig, Mount, OdometryRules, PublishConfig, ScaleRules, Sheet, TrustRules, WindowRules,
};
use crate::ros::message::{Input, OdometryMessage, Output};
use crate::ros::parameters::Parameters;
use crate::ros::transport::Ends;
use crate::ros::transport::graph::{CAMERA_INFO, Remark};
use crate::solve::estimator::{self, Estimator};
use crate::solve::held::Held;
use crate::solve::scale::{Reference, Scaler};
use crate::solve::tracker::{Given, Tracker};
use crate::solve::weights::Weights;
use crate::status::counters::{Fate, Snapshot, Stats, Ticket};
use crate::status::diagnostics::{Reporter, failure, status};
use crate::supervision::{Watch, panic_message};
use crate::window::ingest::Ingest;
use camera::message::{CameraInfoMessage, ImageMessage};
use camera::optics::{CameraRules, UseFixed};

mod control;
mod gate;
mod inference;
mod ingest;

use control::{Control, Parts};
use gate::Gate;
use inference::InferenceThread;
use ingest::IngestThread;

/// Messages that may wait for the transport.
const OUTPUT_DEPTH: usize = 256;
/// How often the threads look at the stop flag.
const STOP_POLL: Duration = Duration::from_millis(50);
/// How long the last report of a failing node may wait for room in the output.
const LAST_REPORT_PATIENCE: Duration = Duration::from_millis(200);

/// The part of the config that the pipeline needs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Images that may wait for the ingest thread.
    pub queue_depth: usize,
    /// Named in reports of a silent camera.
    pub image_topic: String,
    /// frame_id of the odometry.
    pub odom_frame: String,
    /// How the camera sits on the robot.
    pub mount: Option<Mount>,
    /// The window buffer's rules.
    pub window: WindowRules,
    /// What the camera's images are.
    pub camera: CameraRules,
    /// How the odometry is made.
    pub odometry: OdometryRules,
    /// Whether there is a model; without one nothing is loaded.
    pub has_model: bool,
    /// What the weights' translations are.
    pub scale: ScaleRules,
    /// Named where the scale that it gives is waited for; empty where none does.
    pub scale_topic: String,
    /// Whether a replay keeps what a page shows of each image; the pipeline keeps nothing.
    pub keeps_moments: bool,
    /// Whether the node configures and activates itself, and ends where the model fails.
    pub autostart: bool,
    /// What parameters may change.
    pub live: Live,
}

/// What may change while the node runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Live {
    /// What is made of answers.
    pub trust: TrustRules,
    /// What comes out beside poses and reports.
    pub publish: PublishConfig,
    /// The reports.
    pub diagnostics: DiagnosticsConfig,
    /// Whether reports are stamped by the images.
    pub use_sim_time: bool,
}

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        let topic = |name: &String| config.topics.resolve(name).unwrap_or_else(|_| name.clone());
        Self {
            queue_depth: config.topics.image_queue_depth as usize,
            image_topic: topic(&config.topics.image),
            odom_frame: config.odom_frame.clone(),
            mount: config.mount.clone(),
            window: config.window,
            camera: config.camera,
            odometry: config.odometry,
            has_model: config.model.is_some(),
            scale: config.scale,
            scale_topic: config.topics.reference_odometry.as_ref().map(topic).unwrap_or_default(),
            keeps_moments: false,
            autostart: config.autostart,
            live: Live::from(config),
        }
    }
}

impl Settings {
    /// The fast clock, where there is one.
    pub(crate) fn tracker(&self, reference: &Arc<Reference>, stats: &Arc<Stats>) -> Option<Tracker> {
        let reference = (!self.scale_topic.is_empty()).then(|| Arc::clone(reference));
        let (rules, trust, mount) = (&self.odometry, &self.live.trust, self.mount.clone());
        let given = Given { rules, trust, reference, mount, has_model: self.has_model };
        Tracker::new(given, Arc::clone(stats))
    }
}

impl From<&Config> for Live {
    fn from(config: &Config) -> Self {
        Self {
            trust: config.trust,
            publish: config.publish,
            diagnostics: config.diagnostics,
            use_sim_time: config.use_sim_time,
        }
    }
}

/// The settings that the threads look at each time that they need them.
#[derive(Debug, Clone)]
struct SharedLive(Arc<Mutex<Live>>);

impl SharedLive {
    fn new(live: &Live) -> Self {
        Self(Arc::new(Mutex::new(*live)))
    }

    fn get(&self) -> Live {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, live: &Live) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = *live;
    }
}

/// Why the pipeline ended by itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// A thread ended with an error.
    #[error("{thread} thread: {reason}")]
    Thread {
        /// Which.
        thread: &'static str,
        /// Why.
        reason: String,
    },
    /// A thread panicked.
    #[error("{thread} thread panicked: {message}")]
    Panicked {
        /// Which.
        thread: &'static str,
        /// The panic's message.
        message: String,
    },
}

/// What is waiting for the ingest thread.
enum Queued {
    Image(Received),
    CameraInfo(CameraInfoMessage),
    Followed(OdometryMessage),
}

/// An image as it came in.
struct Received {
    image: ImageMessage,
    ticket: Ticket,
    /// Of the gate when it came: what is queued when a generation ends belongs to that one, whenever it is looked at.
    generation: u64,
}

/// The running threads.
#[derive(Debug)]
pub struct Pipeline {
    threads: Vec<JoinHandle<()>>,
    /// Hangs up when both threads are done.
    done: Receiver<()>,
    stop: Arc<AtomicBool>,
    failure: Arc<Mutex<Option<Failure>>>,
    stats: Arc<Stats>,
    watch: Watch,
}

impl Pipeline {
    /// Starts the threads; the ends are for a transport. `load` makes the model, on a thread of its own, each time that the
    /// node is configured; the flag that it is given makes the model give up an answer. `sheet` is what the settings were
    /// made from, for the parameters. `stop` ends everything from outside.
    pub fn start<E, Load>(
        settings: Settings,
        sheet: Sheet,
        load: Load,
        stop: Arc<AtomicBool>,
    ) -> io::Result<(Self, Ends)>
    where
        E: Estimator + 'static,
        Load: FnMut(Arc<AtomicBool>) -> Result<E, estimator::Error> + Send + 'static,
    {
        let stats = Stats::new();
        let watch = Watch::new(Arc::clone(&stop));
        let (input, queue) = bounded(settings.queue_depth.max(1));
        let (windows, newest) = bounded(1);
        let (output, outputs) = bounded(OUTPUT_DEPTH);
        let (jobs, work) = unbounded();
        let (notices, told) = unbounded();
        let (gone, inference_gone) = bounded(0);
        let (working, done) = bounded(0);
        let (tell, said) = unbounded();
        let reference = Arc::new(Reference::new(settings.mount.as_ref(), &settings.scale_topic));
        stats.update(|s| s.scale = Scaler::new(settings.scale, Arc::clone(&reference)).scale());
        let tracker = settings.tracker(&reference, &stats);
        let has_tracker = tracker.is_some();
        let shared = Shared {
            stats: Arc::clone(&stats),
            stop: Arc::clone(&stop),
            gate: Arc::default(),
            live: SharedLive::new(&settings.live),
            failure: Arc::default(),
            weights: Arc::default(),
            watch: watch.clone(),
            output,
            _working: working,
        };
        let control = Arc::new(Control::new(Parts {
            parameters: Parameters::new(sheet),
            jobs,
            notices: notices.clone(),
            gate: Arc::clone(&shared.gate),
            live: shared.live.clone(),
            stats: Arc::clone(&stats),
        }));

        let gate = Arc::clone(&shared.gate);
        let generation = gate.look().generation;
        let silent_after = settings.live.diagnostics.silent_after;
        let ingest = IngestThread::<E> {
            ingest: Ingest::new(&settings.camera, settings.window, &settings.image_topic, Arc::clone(&stats)),
            reporter: Reporter::new(settings.image_topic, silent_after, Instant::now()),
            queue,
            windows,
            has_model: settings.has_model,
            replaced: newest.clone(),
            tracker,
            held: Held::default(),
            said,
            told,
            inference_gone,
            generation,
            odom_frame: settings.odom_frame.clone(),
            mount: settings.mount.clone(),
            mounted: None,
            told_scale: None,
            shared: shared.clone(),
        };
        let inference = InferenceThread {
            load: settings.has_model.then_some(load),
            solver: None,
            newest,
            tell: has_tracker.then_some(tell),
            jobs: work,
            notices,
            control: Arc::clone(&control),
            odom_frame: settings.odom_frame,
            mount: settings.mount,
            scale: settings.scale,
            reference: Arc::clone(&reference),
            // Where tracks carry the odometry it goes on without.
            is_fatal: settings.autostart && !has_tracker,
            generation,
            mounted: None,
            shared: shared.clone(),
        };
        let failure = Arc::clone(&shared.failure);
        let needs_camera_info = settings.camera.use_fixed == UseFixed::Never;
        let threads = vec![
            spawn("ingest", shared.clone(), move || ingest.run())?,
            spawn("inference", shared, move || {
                let _gone = gone;
                inference.run()
            })?,
        ];
        control.declare();
        if settings.autostart {
            control.start();
        }
        let ends = Ends {
            input: Box::new(entrance(input, reference, gate, Arc::clone(&stats))),
            call: Box::new(move |call| control.call(call)),
            graph: Box::new(graph(Arc::clone(&stats), needs_camera_info)),
            output: outputs,
            stop: Arc::clone(&stop),
            watch: watch.clone(),
        };
        Ok((Self { threads, done, stop, failure, stats, watch }, ends))
    }

    /// The counters.
    pub fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }

    /// Over the threads of the node, the transport's among them.
    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Stops the threads and waits for them, but not longer than `patience`: a forward pass of a large model cannot be
    /// cut short. Returns the last counters, or why the pipeline ended by itself.
    pub fn finish(self, patience: Duration) -> Result<Snapshot, Failure> {
        self.stop.store(true, Ordering::Relaxed);
        if self.done.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the model is still busy; leaving it behind");
        } else {
            for thread in self.threads {
                // A panic was caught inside and is in `failure`.
                let _ = thread.join();
            }
        }
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        match failure {
            Some(failure) => Err(failure),
            None => Ok(self.stats.snapshot()),
        }
    }
}

/// What both threads hold.
#[derive(Clone)]
struct Shared {
    stats: Arc<Stats>,
    stop: Arc<AtomicBool>,
    gate: Arc<Gate>,
    live: SharedLive,
    failure: Arc<Mutex<Option<Failure>>>,
    /// Files of the model that is loaded.
    weights: Arc<Mutex<Option<Arc<Weights>>>>,
    watch: Watch,
    output: Sender<Output>,
    _working: Sender<()>,
}

impl Shared {
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Keeps the files of the model that is loaded, to be looked at; `None` where there is none any more.
    fn set_weights(&self, weights: Option<Arc<Weights>>) {
        *self.weights.lock().unwrap_or_else(PoisonError::into_inner) = weights;
    }

    /// Notes whether the files of the model are as they were when it was loaded.
    fn look_at_weights(&self) {
        let weights = self.weights.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let changed = weights.and_then(|weights| weights.changed());
        self.stats.update(|s| s.weights_changed = changed);
    }

    /// Hands a message to the transport; one that is too slow for it loses messages, not the node its time.
    fn publish(&self, output: Output) {
        if self.output.try_send(output).is_err() {
            self.stats.update(|s| s.outputs_dropped += 1);
        }
    }

    fn fail(&self, failure: Failure) {
        tracing::error!("{failure}");
        let stamp = stamp(&self.live.get(), &self.stats);
        let report = self::failure(stamp, &failure.to_string(), &self.stats.snapshot());
        self.publish(Output::Status(status(&report)));
        let _ = self.output.send_timeout(Output::Diagnostics(report), LAST_REPORT_PATIENCE);
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
    }
}

/// The callback of the camera's topics, and of the odometry that gives the scale, of which only the newest answer knows what
/// it needs.
fn entrance(
    input: Sender<Queued>,
    reference: Arc<Reference>,
    gate: Arc<Gate>,
    stats: Arc<Stats>,
) -> impl Fn(Input) + Send + Sync {
    move |message| {
        let queued = match message {
            Input::Image(image) => {
                let generation = gate.look().generation;
                let ticket = stats.receive(Instant::now());
                stats.update(|s| s.last_stamp = Some(image.stamp));
                Queued::Image(Received { image, ticket, generation })
            }
            Input::CameraInfo(info) => Queued::CameraInfo(info),
            Input::Followed(odometry) => {
                stats.update(|s| s.followed_stamp = Some(odometry.pose.stamp));
                Queued::Followed(odometry)
            }
            Input::Odometry(odometry) => {
                stats.update(|s| s.odometry_stamp = Some(odometry.pose.stamp));
                reference.take(&odometry, &stats);
                return;
            }
        };
        match input.try_send(queued) {
            Ok(()) => {}
            Err(TrySendError::Full(Queued::Image(Received { ticket, .. }))) => ticket.note(Fate::QueueFull),
            Err(TrySendError::Full(Queued::CameraInfo(_))) => stats.update(|s| s.camera_infos_dropped += 1),
            Err(TrySendError::Full(Queued::Followed(_))) => stats.update(|s| {
                s.followed_received += 1;
                s.followed_refused += 1;
            }),
            // The node is stopping; the ticket says so when it goes.
            Err(TrySendError::Disconnected(_)) => {}
        }
    }
}

/// Looks at the graph, one a second, for which a topic that nobody publishes must have stood to be told in the log: others are
/// discovered meanwhile.
const PATIENT_LOOKS: u32 = 5;

/// The callback of what the graph tells: it is kept for the reports, and told in the log when it comes and when it goes, but
/// for publishers that fit, which are nothing to warn of. Without CameraInfo where the node does without.
fn graph(stats: Arc<Stats>, needs_camera_info: bool) -> impl Fn(Vec<Remark>) + Send + Sync {
    let seen: Mutex<Vec<(Remark, u32)>> = Mutex::default();
    move |mut found| {
        let has_camera_info = stats.snapshot().camera_infos_received > 0;
        found.retain(|remark| match remark {
            Remark::Kept { .. } => !has_camera_info && needs_camera_info,
            remark => needs_camera_info || remark.waits_for() != Some(CAMERA_INFO),
        });
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::take(&mut *seen);
        for remark in &found {
            let looks = before.iter().find(|(old, _)| old.is_same(remark)).map_or(0, |(_, looks)| *looks) + 1;
            if told_after(remark) == Some(looks) {
                tracing::warn!("{remark}");
            }
            seen.push((remark.clone(), looks));
        }
        for (old, looks) in &before {
            let is_told = told_after(old).is_some_and(|least| *looks >= least);
            if is_told && !found.iter().any(|remark| remark.is_same(old)) {
                tracing::info!("gone: {old}");
            }
        }
        stats.update(|s| s.graph = found);
    }
}

/// How many looks at the graph it takes for a remark to be told in the log.
fn told_after(remark: &Remark) -> Option<u32> {
    match remark {
        Remark::Qos(_) | Remark::Type { .. } | Remark::Shared { .. } => Some(1),
        Remark::Alone { .. } | Remark::Kept { .. } => Some(PATIENT_LOOKS),
        Remark::Fitting { .. } => None,
    }
}

fn spawn(
    name: &'static str,
    shared: Shared,
    work: impl FnOnce() -> Result<(), String> + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        // Nothing that the work held is looked at after a panic, except counters.
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => shared.fail(Failure::Thread { thread: name, reason }),
            Err(panic) => shared.fail(Failure::Panicked { thread: name, message: panic_message(&*panic) }),
        }
    })
}

/// The moment, on the clock of the messages: the time of day, or in a simulation that of the newest image.
fn stamp(live: &Live, stats: &Stats) -> Stamp {
    if live.use_sim_time { stats.snapshot().last_stamp.unwrap_or_default() } else { now() }
}

/// The time of day, which ROS stamps messages with.
pub(crate) fn now() -> Stamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Stamp::from_nanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::graph;
    use crate::ros::transport::graph::{CAMERA_INFO, IMAGE, Remark};
    use crate::status::counters::Stats;

    #[test]
    fn what_the_graph_tells_is_kept_but_for_camera_info_that_nobody_needs() {
        let fitting = |key| Remark::Fitting { topic: "/t".to_owned(), key, publishers: 1 };
        let kept = || Remark::Kept { topic: "/t".to_owned(), key: CAMERA_INFO };
        let found = || vec![fitting(IMAGE), fitting(CAMERA_INFO), kept()];
        for (needs_camera_info, received, expected) in [
            (true, 0, found()),
            (true, 1, vec![fitting(IMAGE), fitting(CAMERA_INFO)]),
            (false, 0, vec![fitting(IMAGE)]),
        ] {
            let stats = Stats::new();
            stats.update(|s| s.camera_infos_received = received);
            graph(stats.clone(), needs_camera_info)(found());
            assert_eq!(stats.snapshot().graph, expected, "needed: {needs_camera_info}, received: {received}");
        }
    }
}
