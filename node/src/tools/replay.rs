//! Recorded images through the node without topics, threads or drops: the same ingest, the same solver, every window
//! answered in order. What comes out depends on the weights and the pixels alone, latencies apart.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use geometry::{Stamp, WINDOW};
use model::memory::Resident;

use crate::config::{ScaleRules, WindowRules};
use crate::pipeline::Settings;
use crate::ros::lifecycle::State;
use crate::solve::estimator::{self, Estimator};
use crate::solve::scale::{Reference, Scaler};
use crate::solve::solver::{Answered, Solved, Solver};
use crate::status::counters::{Snapshot, Stats};
use crate::tools::report::{Evidence, WindowResult};
use crate::window::ingest::Ingest;
use camera::info::Images;
use camera::message::{ImageMessage, ImagePayload};
use camera::optics::{CameraRules, UseFixed};
use camera::sequence::Sequence;

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
    solver: Solver<E>,
    stats: Arc<Stats>,
}

impl<E: Estimator> Inline<E> {
    fn new(estimator: E, camera: &CameraRules, scale: ScaleRules, settings: &Settings) -> Self {
        let stats = Stats::new();
        stats.update(|s| s.lifecycle = State::Active);
        let ingest = Ingest::new(camera, settings.window, Arc::clone(&stats));
        let reference = Arc::new(Reference::new(settings.mount.as_ref(), &settings.scale_topic));
        let scaler = Scaler::new(scale, Arc::clone(&reference));
        let solver = Solver::new(estimator, scaler, &settings.live.trust, Arc::clone(&stats));
        Self { ingest, reference, solver, stats }
    }

    /// Takes an image that came at `now`; the answer to the window that it completes.
    fn image(&mut self, image: ImageMessage, now: Instant, stop: &AtomicBool) -> Result<Option<Box<Answered>>, Error> {
        let Some(window) = self.ingest.image(image, self.stats.receive(now)) else { return Ok(None) };
        let (id, last) = (window.id, window.stamps[WINDOW - 1]);
        match self.solver.solve(window, stop)? {
            Solved::Stopped => Err(Error::Stopped),
            Solved::Broken(reason) => {
                tracing::warn!(window_id = id, last_stamp = last.nanos, "window dropped: {reason}");
                Ok(None)
            }
            Solved::Answered(answered) => Ok(Some(answered)),
        }
    }

    /// The last counters, with what still waited for a window.
    fn finish(self) -> Snapshot {
        let Self { ingest, solver, stats, .. } = self;
        drop((ingest, solver));
        stats.snapshot()
    }
}

/// Plays `sequence` and tells `each` of every answer as it comes.
///
/// # Errors
///
/// [`Error`], but none of a recording.
pub fn replay<E: Estimator>(
    sequence: &Sequence,
    estimator: E,
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
    let mut windows = Vec::new();
    for (path, stamp) in sequence.frames.iter().zip(&sequence.stamps) {
        let image = image(path, *stamp)?;
        let Some(answered) = node.image(image, Instant::now(), stop)? else { continue };
        each(&answered);
        // Every stamp came from this list.
        let frames = answered.stamps.map(|s| sequence.stamps.partition_point(|t| *t < s));
        windows.push(result(frames, *answered));
    }
    Ok(evidence(&node.finish(), windows))
}

fn evidence(counts: &Snapshot, results: Vec<WindowResult>) -> Evidence {
    Evidence {
        windows: counts.windows_answered,
        unparsed: Some(counts.answers_unparsed),
        latency_ms_median: counts.latency().map(|(median, _)| median.as_secs_f64() * 1e3),
        node_rss_mib_max: Resident::of_self().map(|held| held.highest_mib),
        counters: counts.counters().into_iter().map(|(name, n)| (name.to_owned(), n)).collect(),
        results,
    }
}

fn result(frames: [usize; WINDOW], answered: Answered) -> WindowResult {
    let (trajectory, problem) = match answered.judged.poses {
        Ok(poses) => (Some(poses.trajectory), None),
        Err(reason) => (None, Some(reason.to_string())),
    };
    WindowResult { frames, stamps: answered.stamps, trajectory, problem, latency: Some(answered.latency) }
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
