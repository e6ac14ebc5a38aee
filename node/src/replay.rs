//! A recorded sequence through the node without topics, threads or drops: the same ingest, the same solver, every
//! window answered in order. What comes out depends on the weights and the pixels alone, latencies apart.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use geometry::{Stamp, WINDOW};

use crate::config::{FixedCamera, TrustRules, UseFixed, WindowRules};
use crate::estimator::{self, Estimator};
use crate::ingest::Ingest;
use crate::message::{ImageMessage, ImagePayload};
use crate::report::{Evidence, WindowResult};
use crate::sequence::Sequence;
use crate::solver::{Answered, Solved, Solver};
use crate::stats::{Stats, resident_mib};

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
    /// The model is broken.
    #[error(transparent)]
    Model(#[from] estimator::Error),
    /// Stopped from outside.
    #[error("stopped before the end of the sequence")]
    Stopped,
}

/// How to cut and judge.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// The window buffer's rules.
    pub window: WindowRules,
    /// What is made of answers.
    pub trust: TrustRules,
}

/// Plays `sequence` and tells `each` of every answer as it comes.
pub fn replay<E: Estimator>(
    sequence: &Sequence,
    estimator: E,
    rules: Rules,
    stop: &AtomicBool,
    mut each: impl FnMut(&Answered),
) -> Result<Evidence, Error> {
    let stats = Stats::new();
    let camera = FixedCamera { use_fixed: UseFixed::Always, intrinsics: sequence.intrinsics };
    let mut ingest = Ingest::new(&camera, rules.window, Arc::clone(&stats));
    let mut solver = Solver::new(estimator, &rules.trust, Arc::clone(&stats));
    let mut windows = Vec::new();
    for (path, stamp) in sequence.frames.iter().zip(&sequence.stamps) {
        let image = image(path, *stamp)?;
        let Some(window) = ingest.image(image, stats.receive(Instant::now())) else { continue };
        match solver.solve(window, stop)? {
            Solved::Stopped => return Err(Error::Stopped),
            Solved::Broken(reason) => tracing::warn!(file = %path.display(), "window dropped: {reason}"),
            Solved::Answered(answered) => {
                each(&answered);
                windows.push(result(sequence, *answered));
            }
        }
    }
    drop((ingest, solver));
    let s = stats.snapshot();
    Ok(Evidence {
        windows: s.windows_answered,
        unparsed: Some(s.answers_unparsed),
        latency_ms_median: s.latency().map(|(median, _)| median.as_secs_f64() * 1e3),
        node_rss_mib_max: resident_mib().map(|(_, max)| max),
        counters: s.counters().into_iter().map(|(name, n)| (name.to_owned(), n)).collect(),
        results: windows,
    })
}

fn result(sequence: &Sequence, answered: Answered) -> WindowResult {
    // Every stamp came from this list.
    let frames = answered.stamps.map(|s| sequence.stamps.partition_point(|t| *t < s));
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
