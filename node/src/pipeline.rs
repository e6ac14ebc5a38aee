//! The threads between the two ends of the node.
//!
//! ```text
//! input callback --bounded--> ingest --one window, the newest--> inference --bounded--> output
//!                               `------------- diagnostics --------------------------------^
//! ```
//!
//! Architecture Invariants:
//! - The callback never blocks: what does not fit is dropped and counted.
//! - At most one window waits; a newer one takes its place.
//! - When either thread ends, for whatever reason, the other ends too, and the output hangs up, which ends the transport.
//!   A panic in a thread is a failure of the node, told in a last report, never a hang.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded, select, tick};
use geometry::Stamp;

use crate::config::{Config, DiagnosticsConfig, FixedCamera, TrustRules, WindowRules};
use crate::diagnostics::{Reporter, failure};
use crate::estimator::Estimator;
use crate::ingest::Ingest;
use crate::message::{CameraInfoMessage, ImageMessage, Input, Output};
use crate::publish;
use crate::solver::{SharedFrame, Solved, Solver};
use crate::stats::{Fate, Snapshot, Stats, Ticket};
use crate::transport::Ends;
use crate::window::Window;

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
    /// The window buffer's rules.
    pub window: WindowRules,
    /// Intrinsics without CameraInfo.
    pub camera: FixedCamera,
    /// What is made of answers.
    pub trust: TrustRules,
    /// The reports.
    pub diagnostics: DiagnosticsConfig,
}

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        Self {
            queue_depth: config.topics.image_queue_depth as usize,
            image_topic: config.topics.image.clone(),
            odom_frame: config.odom_frame.clone(),
            window: config.window,
            camera: config.camera,
            trust: config.trust,
            diagnostics: config.diagnostics,
        }
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
#[expect(clippy::large_enum_variant, reason = "what is large in an image is behind a Vec")]
enum Queued {
    Image(ImageMessage, Ticket),
    CameraInfo(CameraInfoMessage),
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
}

impl Pipeline {
    /// Starts the threads; the ends are for a transport. `stop` ends everything from outside.
    pub fn start<E>(settings: Settings, estimator: E, stop: Arc<AtomicBool>) -> io::Result<(Self, Ends)>
    where
        E: Estimator + 'static,
    {
        let stats = Stats::new();
        let (input, queue) = bounded(settings.queue_depth.max(1));
        let (windows, newest) = bounded(1);
        let (output, outputs) = bounded(OUTPUT_DEPTH);
        let (gone, inference_gone) = bounded(0);
        let (working, done) = bounded(0);
        let shared = Shared {
            stats: Arc::clone(&stats),
            stop: Arc::clone(&stop),
            failure: Arc::default(),
            output,
            _working: working,
        };

        let ingest = IngestThread::<E> {
            ingest: Ingest::new(&settings.camera, settings.window, Arc::clone(&stats)),
            reporter: Reporter::new(settings.image_topic, settings.diagnostics.silent_after, Instant::now()),
            period: settings.diagnostics.period,
            queue,
            windows,
            replaced: newest.clone(),
            inference_gone,
            shared: shared.clone(),
        };
        let inference = InferenceThread {
            solver: Solver::new(estimator, &settings.trust, Arc::clone(&stats)),
            newest,
            odom_frame: settings.odom_frame,
            shared: shared.clone(),
        };
        let failure = Arc::clone(&shared.failure);
        let threads = vec![
            spawn("ingest", shared.clone(), move || ingest.run())?,
            spawn("inference", shared, move || {
                let _gone = gone;
                inference.run()
            })?,
        ];
        let ends =
            Ends { input: Box::new(entrance(input, Arc::clone(&stats))), output: outputs, stop: Arc::clone(&stop) };
        Ok((Self { threads, done, stop, failure, stats }, ends))
    }

    /// The counters.
    pub fn stats(&self) -> &Arc<Stats> {
        &self.stats
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
    failure: Arc<Mutex<Option<Failure>>>,
    output: Sender<Output>,
    _working: Sender<()>,
}

impl Shared {
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Hands a message to the transport; one that is too slow for it loses messages, not the node its time.
    fn publish(&self, output: Output) {
        if self.output.try_send(output).is_err() {
            self.stats.update(|s| s.outputs_dropped += 1);
        }
    }

    fn fail(&self, failure: Failure) {
        tracing::error!("{failure}");
        let report = self::failure(now(), &failure.to_string(), &self.stats.snapshot());
        let _ = self.output.send_timeout(Output::Diagnostics(report), LAST_REPORT_PATIENCE);
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
    }
}

/// The callback of the camera's topics.
fn entrance(input: Sender<Queued>, stats: Arc<Stats>) -> impl Fn(Input) + Send + Sync {
    move |message| {
        let queued = match message {
            Input::Image(image) => Queued::Image(image, stats.receive(Instant::now())),
            Input::CameraInfo(info) => Queued::CameraInfo(info),
        };
        match input.try_send(queued) {
            Ok(()) => {}
            Err(TrySendError::Full(Queued::Image(_, ticket))) => ticket.note(Fate::QueueFull),
            Err(TrySendError::Full(Queued::CameraInfo(_))) => stats.update(|s| s.camera_infos_dropped += 1),
            // The node is stopping; the ticket says so when it goes.
            Err(TrySendError::Disconnected(_)) => {}
        }
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

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}

/// The time of day, which ROS stamps messages with.
pub(crate) fn now() -> Stamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Stamp::from_nanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

struct IngestThread<E: Estimator> {
    ingest: Ingest<E::Frame>,
    reporter: Reporter,
    period: Duration,
    queue: Receiver<Queued>,
    windows: Sender<Window<SharedFrame<E>>>,
    /// The other end of `windows`, to take back what was not taken.
    replaced: Receiver<Window<SharedFrame<E>>>,
    inference_gone: Receiver<()>,
    shared: Shared,
}

impl<E: Estimator> IngestThread<E> {
    fn run(mut self) -> Result<(), String> {
        let reports = tick(self.period);
        loop {
            select! {
                recv(self.queue) -> queued => match queued {
                    Ok(Queued::CameraInfo(info)) => self.ingest.camera_info(&info),
                    Ok(Queued::Image(image, ticket)) => {
                        if let Some(window) = self.ingest.image(image, ticket) {
                            self.offer(window);
                        }
                    }
                    Err(_) => return Ok(()),
                },
                recv(reports) -> _ => {
                    let report = self.reporter.report(now(), Instant::now(), self.shared.stats.snapshot());
                    self.shared.publish(Output::Diagnostics(report));
                }
                recv(self.inference_gone) -> _ => return Ok(()),
                default(STOP_POLL) => {}
            }
            if self.shared.is_stopped() {
                return Ok(());
            }
        }
    }

    /// The newest window wins. This thread is the only sender, so there is room once the old one is taken back.
    fn offer(&self, window: Window<SharedFrame<E>>) {
        let Err(TrySendError::Full(window)) = self.windows.try_send(window) else { return };
        if let Ok(old) = self.replaced.try_recv() {
            old.frames.iter().for_each(|f| f.note(Fate::Superseded));
            self.shared.stats.update(|s| s.windows_superseded += 1);
        }
        let _ = self.windows.try_send(window);
    }
}

struct InferenceThread<E: Estimator> {
    solver: Solver<E>,
    newest: Receiver<Window<SharedFrame<E>>>,
    odom_frame: String,
    shared: Shared,
}

impl<E: Estimator> InferenceThread<E> {
    fn run(mut self) -> Result<(), String> {
        loop {
            if self.shared.is_stopped() {
                return Ok(());
            }
            let window = match self.newest.recv_timeout(STOP_POLL) {
                Ok(window) => window,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            let id = window.id;
            let solved = self.solver.solve(window, &self.shared.stop).map_err(|e| e.to_string())?;
            match solved {
                Solved::Stopped => return Ok(()),
                Solved::Broken(reason) => tracing::warn!(window_id = id, "window dropped: {reason}"),
                Solved::Answered(answered) => {
                    if let Err(reason) = &answered.judged.poses {
                        tracing::debug!(window_id = id, text = answered.text, "answer dropped");
                        // The first, second, fourth, eighth, ...: weights that do not fit the camera never stop.
                        let counts = self.shared.stats.snapshot();
                        let count = counts.answers_unparsed + counts.windows_withheld;
                        if count.is_power_of_two() {
                            tracing::warn!(window_id = id, count, "answer dropped: {reason}");
                        }
                        continue;
                    }
                    tracing::debug!(window_id = id, latency_millis = answered.latency.as_millis(), "answer");
                    if let Some(trajectory) = publish::trajectory(&answered) {
                        self.shared.publish(Output::Trajectory(trajectory));
                    }
                    for odometry in publish::odometry(&answered, &self.odom_frame) {
                        self.shared.publish(Output::Odometry(odometry));
                    }
                }
            }
        }
    }
}
