//! One window in, poses out: what the inference thread does, and what a replay does without threads.
//!
//! Architecture Invariant: no pose leaves here that the model did not state and that [`Judge`] did not let pass. There is
//! no fallback answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use geometry::{Stamp, WINDOW, WindowTrajectory};

use model::answer::fill::Part;
use model::weights::manifest::ScaleErrors;

use crate::config::TrustRules;
use crate::solve::estimator::{Error, Estimator};
use crate::solve::scale::Scaler;
use crate::solve::tracker::Tracked;
use crate::status::counters::{Fate, Stats};
use crate::trust::state::{Status, Verdict};
use crate::trust::{Judge, Judged, NoPoses};
use crate::window::frame::{Embedding, Frame, Seen};
use crate::window::{View, Window};

/// A frame that several windows may hold.
pub type SharedFrame<E> = Arc<Frame<<E as Estimator>::Frame>>;

/// What became of a window.
#[derive(Debug)]
pub enum Solved {
    /// The model answered.
    Answered(Box<Answered>),
    /// A member could not be decoded, or shows nothing.
    Broken(String),
    /// It was given up.
    Stopped,
}

/// A window that the model answered.
#[derive(Debug)]
pub struct Answered {
    /// The window's number.
    pub window_id: u64,
    /// Times of exposure of its frames.
    pub stamps: [Stamp; WINDOW],
    /// The camera.
    pub view: View,
    /// From taking the window to the answer, decoding and encoding included.
    pub latency: Duration,
    /// The model's words.
    pub text: String,
    /// Whether its poses are those of the tracks, in its own unit: held against the tracks they say nothing but that.
    pub poses_by_program: bool,
    /// What it said, before anybody judged it; `None` where that holds no poses.
    pub said: Option<WindowTrajectory>,
    /// Its poses, how sure they are, and what they were held against.
    pub judged: Judged,
}

/// Asks the model window by window and stitches its answers.
#[derive(Debug)]
pub struct Solver<E> {
    estimator: E,
    scaler: Scaler,
    judge: Judge,
    stats: Arc<Stats>,
    /// Breaks of the odometry that an earlier solver has counted.
    earlier_breaks: u64,
}

impl<E: Estimator> Solver<E> {
    /// Nothing stitched yet.
    pub fn new(estimator: E, scaler: Scaler, rules: &TrustRules, stats: Arc<Stats>) -> Self {
        let earlier_breaks = stats.snapshot().odometry_breaks;
        stats.update(|s| {
            if s.by_tracks.is_none() {
                s.scale = scaler.scale();
            }
        });
        Self { estimator, scaler, judge: Judge::new(rules), stats, earlier_breaks }
    }

    /// Restarts the odometry: the next window starts at its origin, and is held against nothing. The scale stays.
    pub fn reset(&mut self) {
        self.judge.reset();
        self.stats.update(|s| {
            if s.by_tracks.is_none() {
                s.odometry_breaks = self.breaks();
            }
            s.by_windows = (self.judge.status(), self.judge.reason());
            (s.evidence, s.agreement) = (None, None);
            s.settle();
        });
    }

    /// Judges by other rules from the next window on.
    pub fn set_rules(&mut self, rules: &TrustRules) {
        self.judge.set_rules(rules);
    }

    /// How far the lengths that the model says are off, where that is known.
    pub fn scale_errors(&self) -> Option<ScaleErrors> {
        self.estimator.scale_errors()
    }

    fn breaks(&self) -> u64 {
        self.earlier_breaks + u64::from(self.judge.reset_counter())
    }

    /// Reads a window. An error is the model's own failure, after which no other window will do better.
    pub fn solve(
        &mut self,
        window: Window<SharedFrame<E>>,
        tracked: Option<&Tracked>,
        stop: &AtomicBool,
    ) -> Result<Solved, Error> {
        self.solve_unless(window, tracked, &|| stop.load(Ordering::Relaxed))
    }

    /// As [`Self::solve`], given up where `is_stopped` says so.
    pub fn solve_unless(
        &mut self,
        window: Window<SharedFrame<E>>,
        tracked: Option<&Tracked>,
        is_stopped: &dyn Fn() -> bool,
    ) -> Result<Solved, Error> {
        let span = tracing::info_span!("window", window_id = window.id, stamp = window.stamps[0].nanos);
        let _entered = span.enter();
        if let Some(changed) = self.estimator.weights().and_then(|weights| weights.changed()) {
            return Err(Error::Weights(changed));
        }
        let begun = Instant::now();
        let least_contrast = self.judge.image_rules().least_contrast;
        let mut all_seen = Vec::with_capacity(WINDOW);
        for frame in &window.frames {
            if is_stopped() {
                return Ok(Solved::Stopped);
            }
            match frame.embedding(&window.view, least_contrast, &mut self.estimator)? {
                Embedding::Cached(seen) => {
                    self.stats.update(|s| s.encode_cache_hits += 1);
                    all_seen.push(seen);
                }
                Embedding::Fresh(seen) => {
                    self.stats.update(|s| s.encode_cache_misses += 1);
                    all_seen.push(seen);
                }
                Embedding::Broken(reason) => {
                    window.frames.iter().for_each(|f| f.note(Fate::BrokenWindow));
                    let verdict = self.judge.gap(window.stamps[WINDOW - 1], &reason);
                    self.note(&verdict, &self.judge.reason());
                    self.stats.update(|s| {
                        s.windows_broken += 1;
                        s.last_problem = Some(reason.clone());
                    });
                    return Ok(Solved::Broken(reason));
                }
            }
        }
        let all_seen: [Arc<Seen<E::Frame>>; WINDOW] =
            all_seen.try_into().unwrap_or_else(|_| unreachable!("one embedding for each of the frames"));
        let is_frozen = all_seen.iter().all(|seen| seen.digest == all_seen[0].digest);
        let embeddings = all_seen.each_ref().map(|seen| &seen.embedding);
        let measured = tracked.filter(|_| self.estimator.takes_measured()).and_then(Tracked::measured);
        let estimate = match measured {
            Some(measured) => self.estimator.estimate_measured(embeddings, measured)?,
            None => self.estimator.estimate(embeddings)?,
        };
        if is_stopped() {
            // The answer may have been cut short.
            return Ok(Solved::Stopped);
        }
        let latency = begun.elapsed();
        window.frames.iter().for_each(|f| f.note(Fate::Used));
        let scale = match &estimate.trajectory {
            // The odometry may go on where the pictures stand still: that is no measure of what the weights call a metre.
            Ok(_) if is_frozen => self.scaler.known(Some("the images are frozen")),
            Ok(trajectory) => self.scaler.take(&window.stamps, trajectory),
            // Nothing to scale.
            Err(_) => Ok(1.0),
        };
        let judged = match scale {
            Ok(scale) => self.judge.answer(window.epoch, &window.stamps, &estimate, scale, is_frozen),
            Err(reason) => self.judge.unscaled(window.stamps[WINDOW - 1], reason),
        };
        self.note(&judged.verdict, &judged.reason);
        self.stats.update(|s| {
            s.windows_answered += 1;
            s.answer_tokens = estimate.tokens as u64;
            s.answer_tokens_filled = estimate.filled as u64;
            s.answer_passes = estimate.work.passes as u64;
            s.answer_passes_saved = estimate.work.passes_saved as u64;
            s.prompt_tokens_reused = estimate.work.prompt_tokens_reused as u64;
            s.answer_by_program = estimate.by_program.iter().map(|part| part.name()).collect();
            s.add_latency(latency);
            if s.by_tracks.is_none() {
                s.odometry_breaks = self.breaks();
                s.scale = self.scaler.scale();
            }
            s.evidence.clone_from(&judged.evidence);
            match &judged.poses {
                Ok(_) => s.windows_degraded += u64::from(judged.verdict.status == Status::Degraded),
                Err(NoPoses::Unusable(_)) => s.answers_unparsed += 1,
                Err(NoPoses::Withheld(_) | NoPoses::Frozen) => s.windows_withheld += 1,
                Err(NoPoses::Unscaled(_)) => s.windows_unscaled += 1,
            }
            if let Err(reason) = &judged.poses {
                s.last_problem = Some(format!("answer of window {}: {reason}", window.id));
            }
        });
        Ok(Solved::Answered(Box::new(Answered {
            window_id: window.id,
            stamps: window.stamps,
            view: window.view,
            latency,
            text: estimate.text,
            poses_by_program: estimate.by_program.contains(&Part::Poses),
            said: estimate.trajectory.ok(),
            judged,
        })))
    }

    /// Counts what the state has become, and says so where it changed.
    fn note(&self, verdict: &Verdict, reason: &str) {
        self.stats.update(|s| {
            s.by_windows = (verdict.status, reason.to_owned());
            s.settle();
        });
    }
}

#[cfg(test)]
mod tests;
