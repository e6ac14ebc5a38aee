//! Whether an answer is to be believed, and how far.
//!
//! An answer is held against itself and against the windows before ([`checks`]); what that says of the node's state, and
//! whether poses come out, is [`state`]'s to decide; how sure they are is [`covariance`]'s. Only [`Judge`] sees all three.
//!
//! Architecture Invariants:
//! - No clock is read here and no thread is here; time is the stamps.
//! - What is LOST has no poses: [`Judged`] does not hold them, so nobody can publish them.
//! - Behind LOST the reset counter has grown: the jump is never taken for motion.
//! - As long as the scale is not known the node says so and is DEGRADED at least, whatever else its windows say.

use geometry::{Odometry, Outcome, Push, Stamp, WINDOW, WindowTrajectory};
use model::answer::fill::Part;

use crate::config::{CheckRules, Frozen, ImageRules, TrustRules};
use crate::solve::estimator::Estimate;

pub mod checks;
pub mod covariance;
pub mod state;
#[cfg(test)]
pub(crate) mod synthetic;
#[cfg(test)]
mod tests;
pub mod tracking;

use checks::Evidence;
use covariance::Drift;
use state::{Event, FROZEN, State, Status, Verdict};

/// Judges the windows of one camera in the order in which they come.
#[derive(Debug)]
pub struct Judge {
    rules: TrustRules,
    state: State,
    /// What is published.
    odometry: Odometry,
    /// The last window that had poses, published or not: what the next one is held against. Were it held against what is
    /// published, one wrong window would speak against each one that shares a frame with it.
    previous: Option<([Stamp; WINDOW], WindowTrajectory)>,
    drift: Drift,
    epoch: u32,
    /// What the scale waits for, where the last answer with poses had none.
    waiting: Option<String>,
}

/// What is made of one answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// The state before and after it.
    pub verdict: Verdict,
    /// Why the state is not OK; empty where it is.
    pub reason: String,
    /// What the checks found; `None` where there are no poses to check.
    pub evidence: Option<Evidence>,
    /// What may be published, or why nothing may.
    pub poses: Result<Poses, NoPoses>,
}

/// Poses that may be published.
#[derive(Debug, Clone, PartialEq)]
pub struct Poses {
    /// Those of the window.
    pub trajectory: WindowTrajectory,
    /// What they add to the odometry.
    pub push: Push,
    /// One for each pose of `push`: see [`Drift::extend`].
    pub covariances: Vec<[f64; 36]>,
}

/// Why nothing may be published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoPoses {
    /// The answer does not parse or is absurd.
    #[error("{0}")]
    Unusable(String),
    /// All its images are one and the same.
    #[error("withheld: {}", state::FROZEN)]
    Frozen,
    /// The answer has poses, but the node does not know that they are right.
    #[error("withheld, since the node is LOST: {0}")]
    Withheld(String),
    /// The answer has poses, but not in metres, and nobody knows yet what its units are.
    #[error("withheld: {0}")]
    Unscaled(String),
}

impl Judge {
    /// Before the first window.
    pub fn new(rules: &TrustRules) -> Self {
        Self {
            rules: *rules,
            state: State::new(rules.status),
            odometry: Odometry::new(),
            previous: None,
            drift: Drift::new(rules.covariance),
            epoch: 0,
            waiting: None,
        }
    }

    /// Forgets everything but how many breaks there were, of which this is one, and what the scale waits for: the next window
    /// starts at the origin.
    pub fn reset(&mut self) {
        self.odometry.reset();
        self.previous = None;
        self.state = State::new(self.rules.status);
        self.drift = Drift::new(self.rules.covariance);
    }

    /// Judges by other rules from now on; what was is not judged anew.
    pub fn set_rules(&mut self, rules: &TrustRules) {
        self.rules = *rules;
        self.state.set_rules(rules.status);
        self.drift.set_rules(rules.covariance);
    }

    /// What images must be.
    pub fn image_rules(&self) -> ImageRules {
        self.rules.images
    }

    /// Takes an answer for the window of these stamps, whose translations are metres when multiplied by `scale`; stamps of
    /// different epochs cannot be compared. `is_frozen`: all its images are the same bit for bit.
    pub fn answer(
        &mut self,
        epoch: u32,
        stamps: &[Stamp; WINDOW],
        estimate: &Estimate,
        scale: f64,
        is_frozen: bool,
    ) -> Judged {
        let newest = stamps[WINDOW - 1];
        let before = self.status();
        if estimate.trajectory.is_ok() {
            // Others come with a scale of no meaning.
            self.waiting = None;
        }
        let sane = estimate.trajectory.as_ref().map_err(String::clone).and_then(|said| {
            let trajectory = said.scaled(scale);
            checks::sane(&trajectory, &self.rules.sanity).map(|()| (said, trajectory))
        });
        let (said, trajectory) = match sane {
            Ok(both) => both,
            Err(problem) => {
                let verdict = self.push(before, newest, Event::Failed(&problem));
                return self.judged(verdict, None, Err(NoPoses::Unusable(problem)));
            }
        };
        if is_frozen && self.rules.images.frozen == Frozen::Withheld {
            let verdict = self.push(before, newest, Event::Failed(FROZEN));
            return self.judged(verdict, None, Err(NoPoses::Frozen));
        }
        if epoch != self.epoch {
            // Stamps of the old epoch would make every new window look late.
            self.epoch = epoch;
            self.odometry.reset();
            self.previous = None;
        }
        // The reasoning is in the units of the answer, and so is what the model states of its positions.
        let least_motion_metres = self.rules.checks.least_motion_metres / scale;
        let unscaled = CheckRules { least_motion_metres, ..self.rules.checks };
        let by_tracks = estimate.by_program.contains(&Part::Poses);
        let mut evidence = checks::of_answer(said, &estimate.text, estimate.grid.as_ref(), by_tracks, &unscaled);
        let stated = estimate.position_stddev;
        evidence.stated_stddev_metres = stated.map(|stddevs| scale * stddevs.into_iter().fold(0.0, f64::max));
        if let Some((earlier, previous)) = self.previous.replace((*stamps, trajectory)) {
            let mut pair = Odometry::new();
            pair.push(&earlier, &previous);
            if !by_tracks {
                evidence.add_overlap(&pair.push(stamps, &trajectory).outcome, &self.rules.checks);
            }
        }
        let is_suspect = is_frozen && self.rules.images.frozen == Frozen::Degraded;
        let event = if is_suspect { Event::Frozen(&evidence) } else { Event::Answer(&evidence) };
        let verdict = self.push(before, newest, event);
        if verdict.status == Status::Lost {
            let withheld = NoPoses::Withheld(self.state.reason().to_owned());
            return self.judged(verdict, Some(evidence), Err(withheld));
        }
        if verdict.is_recovery() {
            self.odometry.start_segment();
        }
        let push = self.odometry.push(stamps, &trajectory);
        match push.outcome {
            Outcome::Started | Outcome::Continued { .. } => {}
            other => tracing::debug!(outcome = ?other, "the odometry could not be continued"),
        }
        let covariances = self.drift.extend(stamps, &push, verdict.widening, scale, stated.as_ref());
        self.judged(verdict, Some(evidence), Ok(Poses { trajectory, push, covariances }))
    }

    /// Takes note of an answer whose scale nobody knows yet, and why; its newest frame has this stamp. It speaks neither for
    /// the node nor against it, but nothing comes out.
    pub fn unscaled(&mut self, newest: Stamp, reason: String) -> Judged {
        let before = self.status();
        self.waiting = Some(reason.clone());
        let verdict = self.push(before, newest, Event::Unscaled(&reason));
        self.judged(verdict, None, Err(NoPoses::Unscaled(reason)))
    }

    /// Takes note of a window without an answer, whose newest frame has this stamp.
    pub fn gap(&mut self, newest: Stamp, problem: &str) -> Verdict {
        self.push(self.status(), newest, Event::Gap(problem))
    }

    /// Why the state is not OK, and what the scale waits for; empty where it is and nothing does.
    pub fn reason(&self) -> String {
        let reasons = [self.state.reason(), self.waiting.as_deref().unwrap_or_default()];
        let said: Vec<&str> = reasons.into_iter().filter(|reason| !reason.is_empty()).collect();
        said.join("; ")
    }

    /// How many breaks the published odometry has had.
    pub fn reset_counter(&self) -> u32 {
        self.odometry.reset_counter()
    }

    /// The state as it is told: no better than DEGRADED as long as the scale is not known.
    pub fn status(&self) -> Status {
        match self.state.status() {
            Status::Ok if self.waiting.is_some() => Status::Degraded,
            status => status,
        }
    }

    /// Hands an event to the state; the verdict is of the state as it is told, which was `before`.
    fn push(&mut self, before: Status, newest: Stamp, event: Event<'_>) -> Verdict {
        let verdict = self.state.push(newest, event);
        Verdict { before, status: self.status(), ..verdict }
    }

    fn judged(&self, verdict: Verdict, evidence: Option<Evidence>, poses: Result<Poses, NoPoses>) -> Judged {
        Judged { verdict, reason: self.reason(), evidence, poses }
    }
}
