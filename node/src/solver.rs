//! One window in, poses out: what the inference thread does, and what a replay does without threads.
//!
//! Architecture Invariant: no pose leaves here that the model did not state and that did not pass [`check`]. There is no
//! fallback answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use geometry::{Odometry, Outcome, Push, Stamp, WINDOW, WindowTrajectory};

use crate::config::Sanity;
use crate::estimator::{Error, Estimator};
use crate::frame::{Embedding, Frame};
use crate::stats::{Fate, Stats};
use crate::window::{View, Window};

/// A frame that several windows may hold.
pub type SharedFrame<E> = Arc<Frame<<E as Estimator>::Frame>>;

/// What became of a window.
#[derive(Debug)]
pub enum Solved {
    /// The model answered.
    Answered(Box<Answered>),
    /// A member could not be decoded.
    Broken(String),
    /// The node is to stop.
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
    /// The poses and what they add to the odometry, or why there are none.
    pub poses: Result<(WindowTrajectory, Push), String>,
}

/// Asks the model window by window and stitches its answers.
#[derive(Debug)]
pub struct Solver<E> {
    estimator: E,
    sanity: Sanity,
    odometry: Odometry,
    epoch: u32,
    stats: Arc<Stats>,
}

impl<E: Estimator> Solver<E> {
    /// Nothing stitched yet.
    pub fn new(estimator: E, sanity: Sanity, stats: Arc<Stats>) -> Self {
        Self { estimator, sanity, odometry: Odometry::new(), epoch: 0, stats }
    }

    /// Reads a window. An error is the model's own failure, after which no other window will do better.
    pub fn solve(&mut self, window: Window<SharedFrame<E>>, stop: &AtomicBool) -> Result<Solved, Error> {
        let span = tracing::info_span!("window", window_id = window.id, stamp = window.stamps[0].nanos);
        let _entered = span.enter();
        let begun = Instant::now();
        let mut embeddings = Vec::with_capacity(WINDOW);
        for frame in &window.frames {
            if stop.load(Ordering::Relaxed) {
                return Ok(Solved::Stopped);
            }
            match frame.embedding(&window.view, &mut self.estimator)? {
                Embedding::Cached(embedding) => {
                    self.stats.update(|s| s.encode_cache_hits += 1);
                    embeddings.push(embedding);
                }
                Embedding::Fresh(embedding) => {
                    self.stats.update(|s| s.encode_cache_misses += 1);
                    embeddings.push(embedding);
                }
                Embedding::Broken(reason) => {
                    window.frames.iter().for_each(|f| f.note(Fate::BrokenWindow));
                    self.stats.update(|s| {
                        s.windows_broken += 1;
                        s.last_problem = Some(reason.clone());
                    });
                    return Ok(Solved::Broken(reason));
                }
            }
        }
        let embeddings: [Arc<E::Frame>; WINDOW] =
            embeddings.try_into().unwrap_or_else(|_| unreachable!("one embedding for each of the frames"));
        let estimate = self.estimator.estimate(embeddings.each_ref().map(|e| &**e))?;
        if stop.load(Ordering::Relaxed) {
            // The answer may have been cut short.
            return Ok(Solved::Stopped);
        }
        let latency = begun.elapsed();
        window.frames.iter().for_each(|f| f.note(Fate::Used));
        let poses = estimate.trajectory.and_then(|t| check(&t, &self.sanity).map(|()| t));
        self.stats.update(|s| {
            s.windows_answered += 1;
            s.answer_tokens = estimate.tokens as u64;
            s.add_latency(latency);
            if let Err(reason) = &poses {
                s.answers_unparsed += 1;
                s.last_problem = Some(format!("answer of window {}: {reason}", window.id));
            }
        });
        let poses = poses.map(|trajectory| {
            let push = self.stitch(window.epoch, &window.stamps, &trajectory);
            (trajectory, push)
        });
        Ok(Solved::Answered(Box::new(Answered {
            window_id: window.id,
            stamps: window.stamps,
            view: window.view,
            latency,
            text: estimate.text,
            poses,
        })))
    }

    fn stitch(&mut self, epoch: u32, stamps: &[Stamp; WINDOW], trajectory: &WindowTrajectory) -> Push {
        let before = self.odometry.reset_counter();
        if epoch != self.epoch {
            // Stamps of the old epoch would make every new window look late.
            self.epoch = epoch;
            self.odometry.reset();
        }
        let push = self.odometry.push(stamps, trajectory);
        match push.outcome {
            Outcome::Started | Outcome::Continued { .. } => {}
            other => tracing::debug!(outcome = ?other, "the odometry could not be continued"),
        }
        let breaks = push.reset_counter.wrapping_sub(before);
        self.stats.update(|s| s.odometry_breaks += u64::from(breaks));
        push
    }
}

/// Whether an answer can be believed at all.
fn check(trajectory: &WindowTrajectory, sanity: &Sanity) -> Result<(), String> {
    for i in 1..WINDOW {
        let step = trajectory.relative(i - 1, i);
        let metres = step.translation().norm();
        let radians = step.rotation().angle();
        if metres.is_nan() || metres > sanity.max_step_metres {
            return Err(format!(
                "frame {} to {i}: expected a step of at most {} m, got {metres:.3}",
                i - 1,
                sanity.max_step_metres
            ));
        }
        if radians.is_nan() || radians > sanity.max_step_radians {
            return Err(format!(
                "frame {} to {i}: expected a turn of at most {:.1} deg, got {:.1}",
                i - 1,
                sanity.max_step_radians.to_degrees(),
                radians.to_degrees()
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use geometry::{Transform, WindowTrajectory};
    use nalgebra::{Isometry3, Vector3};

    use super::check;
    use crate::config::Sanity;

    #[test]
    fn absurd_answers_are_refused() {
        let sanity = Sanity { max_step_metres: 1.0, max_step_radians: 0.5 };
        let rows = [
            (Vector3::new(0.1, 0.0, 0.2), Vector3::new(0.0, 0.1, 0.0), None),
            (Vector3::new(1.1, 0.0, 0.0), Vector3::zeros(), Some("step")),
            (Vector3::zeros(), Vector3::new(0.0, 0.6, 0.0), Some("turn")),
            (Vector3::new(f64::NAN, 0.0, 0.0), Vector3::zeros(), Some("step")),
            (Vector3::new(0.0, f64::INFINITY, 0.0), Vector3::zeros(), Some("step")),
            (Vector3::zeros(), Vector3::new(f64::NAN, 0.0, 0.0), Some("turn")),
        ];
        for (translation, rotation, wanted) in rows {
            let mut trajectory = WindowTrajectory::identity();
            trajectory.anchor_from_camera[4] = Transform::from_isometry(Isometry3::new(translation, rotation));
            let got = check(&trajectory, &sanity).err();
            let fits = match wanted {
                None => got.is_none(),
                Some(part) => got.as_ref().is_some_and(|message| message.contains(part)),
            };
            assert!(fits, "{translation} {rotation}: {got:?}");
        }
    }
}
