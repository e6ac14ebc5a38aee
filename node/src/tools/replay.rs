//! Recorded images through the node without topics, threads or drops: the same ingest, the same solver, every window
//! answered in order. What comes out depends on the weights and the pixels alone, latencies apart.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use geometry::{Stamp, WINDOW, WindowTrajectory};
use model::memory::Resident;

use crate::config::{ScaleRules, TrustRules, WindowRules};
use crate::pipeline::Settings;
use crate::ros::lifecycle::State;
use crate::ros::message::OdometryMessage;
use crate::solve::estimator::{self, Estimator};
use crate::solve::fusion;
use crate::solve::held::Held;
use crate::solve::scale::{Reference, Scaler};
use crate::solve::solver::{Answered, SharedFrame, Solved, Solver};
use crate::solve::tracker::{Posed, Told, Tracker};
use crate::status::counters::{Snapshot, Stats};
use crate::tools::moments::{Album, Moment, Shown, State as Standing};
use crate::tools::report::{Evidence, FilmPose, WindowResult};
use crate::window::ingest::Ingest;
use crate::window::{Accepted, Window};
use camera::info::Images;
use camera::message::{ImageMessage, ImagePayload};
use camera::optics::{CameraRules, UseFixed};
use camera::sequence::Sequence;
use odometry::scale::Source;

pub mod recording;

/// Why a replay did not reach its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A frame's file cannot be read.
    #[error("{}: {source}", path.display())]
    Frame {
        /// The file.
        path: std::path::PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A recording cannot be read, or what comes out cannot be written.
    #[error(transparent)]
    Recording(#[from] crate::tools::recording::Error),
    /// The model is broken.
    #[error(transparent)]
    Model(#[from] estimator::Error),
    /// Stopped from outside.
    #[error("stopped before the end of the sequence")]
    Stopped,
}

/// The node without threads: what comes in is answered at once.
struct Inline<E: Estimator> {
    ingest: Ingest<E::Frame>,
    reference: Arc<Reference>,
    tracker: Option<Tracker>,
    held: Held<Window<SharedFrame<E>>>,
    solver: Option<Solver<E>>,
    trust: TrustRules,
    stats: Arc<Stats>,
    /// Of what a page shows, where there is to be one.
    album: Option<Album>,
}

/// What a message made come out.
#[derive(Default)]
struct Step {
    /// Of the fast clock.
    posed: Vec<Posed>,
    /// The answers to the windows that it completed, and those as the fast clock has them.
    answered: Vec<(Box<Answered>, Option<WindowTrajectory>)>,
}

impl<E: Estimator> Inline<E> {
    fn new(estimator: Option<E>, camera: &CameraRules, scale: ScaleRules, settings: &Settings) -> Self {
        let stats = Stats::new();
        stats.update(|s| s.lifecycle = State::Active);
        let ingest = Ingest::new(camera, settings.window, &settings.image_topic, Arc::clone(&stats));
        let reference = Arc::new(Reference::new(settings.mount.as_ref(), &settings.scale_topic));
        let mut tracker = settings.tracker(&reference, &stats);
        let scaler = Scaler::new(scale, Arc::clone(&reference));
        let trust = settings.live.trust;
        let solver = estimator.map(|estimator| Solver::new(estimator, scaler, &trust, Arc::clone(&stats)));
        if let (Some(tracker), Some(solver)) = (&mut tracker, &solver) {
            tracker.take(Told::Loaded(solver.scale_errors()));
        }
        let album = settings.keeps_moments.then(Album::default);
        Self { ingest, reference, tracker, held: Held::default(), solver, trust, stats, album }
    }

    /// Takes an image that came at `now`: first its pose, then the answer to the window that it completes.
    fn image(&mut self, image: ImageMessage, now: Instant, stop: &AtomicBool) -> Result<Step, Error> {
        let taken = self.ingest.image(image, self.stats.receive(now));
        let mut step = Step::default();
        let least_contrast = self.trust.images.least_contrast;
        for accepted in &taken.accepted {
            if let Some(tracker) = &mut self.tracker {
                step.posed.extend(tracker.frame(accepted, least_contrast));
            }
            self.keep(accepted);
        }
        if let Some(window) = taken.window.filter(|_| self.solver.is_some())
            && let Some(gone) = self.held.push(window)
        {
            // No window is left out where nobody hurries.
            self.answer(gone, stop, &mut step)?;
        }
        self.answer_settled(stop, &mut step)?;
        Ok(step)
    }

    /// Keeps what a page shows of an image. Its pixels are those that the tracks had: where they are not asked for, nothing
    /// is decoded for a page, so that one changes no counter.
    fn keep(&mut self, accepted: &Accepted<SharedFrame<E>>) {
        let Some(album) = &mut self.album else { return };
        let standing = Standing::of(&self.stats.snapshot());
        let tracker = self.tracker.as_ref().filter(|tracker| tracker.is_by_tracks());
        let pixels = tracker.and_then(|_| accepted.frame.pixels(self.trust.images.least_contrast).ok());
        let shown = tracker.zip(pixels.as_ref()).map(|(tracker, pixels)| Shown {
            image: &pixels.image,
            intrinsics: &accepted.view.intrinsics,
            seen: tracker.seen(),
        });
        album.add(accepted.stamp, standing, shown);
    }

    /// Takes a pose of the program that is followed.
    fn followed(&mut self, odometry: &OdometryMessage, stop: &AtomicBool) -> Result<Step, Error> {
        let mut step = Step::default();
        if let Some(tracker) = &mut self.tracker {
            step.posed.extend(tracker.followed(odometry));
        }
        self.answer_settled(stop, &mut step)?;
        Ok(step)
    }

    /// The windows that still wait when nothing more comes.
    fn rest(&mut self, stop: &AtomicBool) -> Result<Step, Error> {
        let mut step = Step::default();
        while let Some(window) = self.held.pop_if(|_| true) {
            self.answer(window, stop, &mut step)?;
        }
        Ok(step)
    }

    fn answer_settled(&mut self, stop: &AtomicBool, step: &mut Step) -> Result<(), Error> {
        while let Some(window) = self.held.pop_settled(self.tracker.as_ref()) {
            self.answer(window, stop, step)?;
        }
        Ok(())
    }

    fn answer(&mut self, window: Window<SharedFrame<E>>, stop: &AtomicBool, step: &mut Step) -> Result<(), Error> {
        let Some(solver) = &mut self.solver else { return Ok(()) };
        let tracked = self.tracker.as_ref().and_then(|tracker| tracker.tracked(&window.stamps));
        let (id, last) = (window.id, window.stamps[WINDOW - 1]);
        match solver.solve(window, tracked.as_ref(), stop)? {
            Solved::Stopped => return Err(Error::Stopped),
            Solved::Broken(reason) => {
                tracing::warn!(window_id = id, last_stamp = last.nanos, "window dropped: {reason}");
            }
            Solved::Answered(answered) => {
                let mut trajectory = None;
                if let Some(tracker) = &mut self.tracker {
                    let met = fusion::meet(&answered, tracked.as_ref(), &self.trust, &self.stats);
                    trajectory = met.trajectory;
                    met.told.into_iter().for_each(|told| tracker.take(told));
                }
                step.answered.push((answered, trajectory));
            }
        }
        Ok(())
    }

    /// The last counters, with what still waited for a window, and what was kept for a page.
    fn finish(self) -> (Snapshot, Vec<Moment>) {
        let Self { ingest, held, solver, tracker, stats, album, .. } = self;
        drop((ingest, held, solver, tracker));
        (stats.snapshot(), album.map(Album::finish).unwrap_or_default())
    }
}

/// Plays `sequence` and tells `each` of every answer as it comes.
///
/// # Errors
///
/// [`Error`], but none of a recording.
pub fn replay<E: Estimator>(
    sequence: &Sequence,
    estimator: Option<E>,
    settings: &Settings,
    stop: &AtomicBool,
    mut each: impl FnMut(&Answered),
) -> Result<Evidence, Error> {
    let camera = CameraRules { use_fixed: UseFixed::Always, intrinsics: sequence.intrinsics, images: Images::Raw };
    // A sequence has no other odometry: what the weights say is compared as they say it.
    let scale = match settings.scale {
        ScaleRules::Metric => ScaleRules::Metric,
        ScaleRules::Arbitrary | ScaleRules::Measured { .. } => ScaleRules::Arbitrary,
    };
    let mut node = Inline::new(estimator, &camera, scale, settings);
    let (mut windows, mut odometry) = (Vec::new(), Vec::new());
    for (path, stamp) in sequence.frames.iter().zip(&sequence.stamps) {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        let image = image(path, *stamp)?;
        let step = node.image(image, Instant::now(), stop)?;
        // Every stamp came from this list.
        let place = |stamp: Stamp| sequence.stamps.partition_point(|t| *t < stamp);
        odometry.extend(step.posed.iter().map(|posed| of_film(posed, place(posed.fix.stamp))));
        for (answered, tracked) in step.answered {
            each(&answered);
            windows.push(result(answered.stamps.map(place), *answered, tracked.as_ref()));
        }
    }
    let (counts, moments) = node.finish();
    Ok(evidence(&counts, moments, windows, odometry))
}

fn of_film(posed: &Posed, frame: usize) -> FilmPose {
    FilmPose { frame, stamp: posed.fix.stamp, odom_from_camera: posed.fix.odom_from_camera, segment: posed.fix.segment }
}

fn evidence(counts: &Snapshot, moments: Vec<Moment>, results: Vec<WindowResult>, odometry: Vec<FilmPose>) -> Evidence {
    let scale = counts.by_tracks.as_ref().and_then(|tracking| tracking.scale);
    Evidence {
        scale: scale.map(|scale| (scale.source.map_or("none", Source::name).to_owned(), scale.sigma)),
        odometry,
        windows: counts.windows_answered,
        unparsed: Some(counts.answers_unparsed),
        latency_ms_median: counts.latency().map(|(median, _)| median.as_secs_f64() * 1e3),
        node_rss_mib_max: Resident::of_self().map(|held| held.highest_mib),
        counters: counts.counters().into_iter().map(|(name, n)| (name.to_owned(), n)).collect(),
        results,
        problem: counts.last_problem.clone(),
        moments,
    }
}

fn result(frames: [usize; WINDOW], answered: Answered, tracked: Option<&WindowTrajectory>) -> WindowResult {
    let (own, problem) = match answered.judged.poses {
        Ok(poses) => (Some(poses.trajectory), None),
        Err(reason) => (None, Some(reason.to_string())),
    };
    WindowResult {
        frames,
        stamps: answered.stamps,
        trajectory: tracked.copied().or(own),
        said: answered.said,
        text: answered.text,
        problem,
        latency: Some(answered.latency),
    }
}

fn image(path: &Path, stamp: Stamp) -> Result<ImageMessage, Error> {
    let data = std::fs::read(path).map_err(|source| Error::Frame { path: path.to_owned(), source })?;
    Ok(ImageMessage {
        stamp,
        frame_id: "camera".to_owned(),
        payload: ImagePayload::Compressed { format: "jpeg".to_owned(), data },
    })
}

/// Frames that a sequence must have for one window.
pub fn least_frames(rules: &WindowRules) -> usize {
    (WINDOW - 1) * rules.stride as usize + 1
}
