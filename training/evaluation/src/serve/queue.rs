//! Requests wait in a bounded queue for the one thread that owns the model.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use model::answer::prompt::Prompt;
use tokio::sync::mpsc::UnboundedSender;

use super::chat::{Reason, Tokens};
use super::{Refusal, Request};

/// Longest wait that a client is asked for, seconds.
const LONGEST_WAIT: u64 = 60;

/// Spells a request as tokens; the second argument says whether its client hung up.
///
/// # Errors
/// Why it is not answered; [`Refusal::stopping`] where nobody waits for it.
pub type Reader = dyn Fn(&Request, &dyn Fn() -> bool) -> Result<Prompt, Refusal> + Send + Sync;

/// What answers requests, one after the other.
pub trait Engine: Send + 'static {
    /// What reads requests before they wait, several at once, so that one that is too long never comes to the thread of the
    /// model. None where the engine reads them itself.
    fn reader(&self) -> Option<Arc<Reader>> {
        None
    }

    /// Answers one request: [`Event::Started`] first, then texts, then the end of each answer. Returns what that took.
    ///
    /// # Errors
    /// Why it is not answered; [`Refusal::stopping`] where it gave up since the sink is closed.
    fn answer(&self, request: &Request, sink: &Sink) -> Result<Tokens, Refusal>;
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The prompt was read.
    Started {
        /// Tokens of it, images included.
        prompt_tokens: usize,
    },
    /// More of one answer.
    Text {
        /// Which, from 0.
        answer: usize,
        /// Whole characters.
        text: String,
    },
    /// The end of one answer.
    Ended {
        /// Which, from 0.
        answer: usize,
        /// Why.
        reason: Reason,
    },
    /// The end of all.
    Done(Tokens),
    /// There is no answer, or no more of it.
    Refused(Refusal),
}

/// Where the events of a request go.
#[derive(Debug)]
pub struct Sink {
    events: UnboundedSender<Event>,
    cut: Arc<AtomicBool>,
}

impl Sink {
    pub(super) fn new(events: UnboundedSender<Event>, cut: Arc<AtomicBool>) -> Self {
        Self { events, cut }
    }

    /// Tells whoever waits. As many events as there are tokens wait at most.
    pub fn send(&self, event: Event) {
        // Nobody may wait any more; `is_closed` is how the engine learns of it.
        let _ = self.events.send(event);
    }

    /// Whether to give up: the client hung up, or the server can't wait any longer.
    pub fn is_closed(&self) -> bool {
        self.events.is_closed() || self.cut.load(Ordering::Relaxed)
    }
}

/// A request that waits.
#[derive(Debug)]
pub(super) struct Job {
    pub id: String,
    pub request: Request,
    pub sink: Sink,
}

/// The requests that wait.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    more: Condvar,
    limit: usize,
    /// Duration of the last answer, rounded up.
    last_seconds: AtomicU64,
}

#[derive(Debug)]
struct State {
    jobs: VecDeque<Job>,
    /// The engine waits for a job.
    idle: bool,
    open: bool,
}

impl Queue {
    /// `limit` requests may wait beside the one that is answered.
    pub fn new(limit: usize) -> Self {
        let state = State { jobs: VecDeque::new(), idle: true, open: true };
        Self { state: Mutex::new(state), more: Condvar::new(), limit, last_seconds: AtomicU64::new(1) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Errors
    /// A queue that is full, or closed.
    pub fn push(&self, job: Job) -> Result<(), Refusal> {
        let mut state = self.state();
        if !state.open {
            return Err(Refusal::stopping());
        }
        // Who hung up waits no more.
        state.jobs.retain(|job| !job.sink.is_closed());
        if state.jobs.len() >= self.limit + usize::from(state.idle) {
            let wait = self.last_seconds.load(Ordering::Relaxed).clamp(1, LONGEST_WAIT);
            return Err(Refusal::busy(state.jobs.len(), wait));
        }
        state.jobs.push_back(job);
        self.more.notify_one();
        Ok(())
    }

    /// The next job; none once the queue is closed.
    fn pop(&self) -> Option<Job> {
        let mut state = self.state();
        state.idle = true;
        while state.open && state.jobs.is_empty() {
            state = self.more.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.idle = false;
        if state.open { state.jobs.pop_front() } else { None }
    }

    /// Forgets what waits and takes no more: who waits for it learns that it will not be answered.
    pub fn close(&self) {
        let mut state = self.state();
        state.open = false;
        state.jobs.clear();
        self.more.notify_all();
    }

    pub fn is_open(&self) -> bool {
        self.state().open
    }

    fn took(&self, duration: Duration) {
        self.last_seconds.store(duration.as_secs() + 1, Ordering::Relaxed);
    }
}

/// Answers what comes until the queue is closed. A panic ends its request alone.
pub(super) fn work(queue: &Queue, engine: &dyn Engine) {
    while let Some(Job { id, request, sink }) = queue.pop() {
        if sink.is_closed() {
            continue;
        }
        let begun = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| engine.answer(&request, &sink)));
        let millis = begun.elapsed().as_millis() as u64;
        queue.took(begun.elapsed());
        let gone = sink.events.is_closed();
        let event = match outcome {
            Ok(Ok(tokens)) => Event::Done(tokens),
            Ok(Err(refusal)) => Event::Refused(refusal),
            // The panic's own message is in the log already.
            Err(_) => Event::Refused(Refusal::internal("the model failed")),
        };
        match &event {
            _ if gone => tracing::info!(id, millis, "the client hung up"),
            Event::Refused(refusal) => tracing::warn!(id, millis, "not answered: {refusal}"),
            Event::Done(Tokens { written, filled }) => {
                tracing::info!(
                    id,
                    millis,
                    images = request.images.len(),
                    completion_tokens = written,
                    filled,
                    "answered"
                );
            }
            _ => {}
        }
        sink.send(event);
    }
}
