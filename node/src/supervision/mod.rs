//! The node looks after its own threads: where one ends that should not, by a panic or by returning, the node ends with an error,
//! so that whoever started it can start it anew. Where systemd is that, it also hears whether the node is alive.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

mod systemd;

pub use systemd::Service;

/// A thread that ended before the node was told to stop.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the thread of {thread} ended by itself: {how}")]
pub struct Ended {
    /// What it did.
    pub thread: &'static str,
    /// How it ended, in words.
    pub how: String,
}

/// Shared by the threads that are to last as long as the node.
#[derive(Clone)]
pub struct Watch(Arc<Inner>);

struct Inner {
    stop: Arc<AtomicBool>,
    ended: Mutex<Option<Ended>>,
    /// Of the thread that looks at what comes in.
    turns: AtomicU64,
    service: Mutex<Option<Service>>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("ended", &self.check()).finish_non_exhaustive()
    }
}

impl Watch {
    /// Over a node that `stop` ends: set from outside, or by [`Self::note`].
    pub fn new(stop: Arc<AtomicBool>) -> Self {
        let inner = Inner { stop, ended: Mutex::default(), turns: AtomicU64::new(0), service: Mutex::default() };
        Self(Arc::new(inner))
    }

    /// Runs the work of a thread that is to last until the node is told to stop. However it ends before that, the node ends.
    pub fn over(&self, thread: &'static str, work: impl FnOnce()) {
        // Nothing that the work held is looked at afterwards.
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(()) => self.note(thread, "it returned"),
            Err(panic) => self.note(thread, &format!("it panicked: {}", panic_message(&*panic))),
        }
    }

    /// Ends the node since a thread has ended, for this reason; nothing where it was told to stop before.
    pub fn note(&self, thread: &'static str, how: &str) {
        if self.0.stop.load(Ordering::Relaxed) {
            return;
        }
        let ended = Ended { thread, how: how.to_owned() };
        tracing::error!("{ended}");
        self.0.ended.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(ended);
        self.0.stop.store(true, Ordering::Relaxed);
    }

    /// Whether all threads lasted.
    ///
    /// # Errors
    ///
    /// The first that did not.
    pub fn check(&self) -> Result<(), Ended> {
        self.0.ended.lock().unwrap_or_else(PoisonError::into_inner).clone().map_or(Ok(()), Err)
    }

    /// Tells a service manager from now on how the node is.
    pub fn tell(&self, service: Option<Service>) {
        *self.0.service.lock().unwrap_or_else(PoisonError::into_inner) = service;
    }

    /// The thread that looks at what comes in is still at it.
    pub fn turn(&self) {
        self.0.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// The thread that publishes is still at it: a few times a second.
    pub fn pass(&self) {
        if let Some(service) = self.0.service.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            service.pass(self.0.turns.load(Ordering::Relaxed), Instant::now());
        }
    }

    /// The thread that publishes is about to end.
    pub fn stopping(&self) {
        if let Some(service) = self.0.service.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            service.stopping();
        }
    }
}

/// What a panic said.
pub fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::Watch;

    fn panics() {
        panic!("no socket");
    }

    fn returns() {}

    #[test]
    fn a_thread_that_panics_or_returns_ends_the_node_and_the_first_is_named() {
        let works: [(fn(), &str); 2] = [(panics, "it panicked: no socket"), (returns, "it returned")];
        for (work, how) in works {
            let stop = Arc::new(AtomicBool::new(false));
            let watch = Watch::new(Arc::clone(&stop));
            assert_eq!(watch.check(), Ok(()));
            let of_thread = watch.clone();
            std::thread::spawn(move || of_thread.over("images", work)).join().unwrap();
            assert!(stop.load(Ordering::Relaxed), "the others end too");
            watch.note("services", "it returned");
            let ended = watch.check().unwrap_err();
            assert_eq!(ended.to_string(), format!("the thread of images ended by itself: {how}"));
        }
    }

    #[test]
    fn threads_of_a_node_that_is_told_to_stop_may_end() {
        let watch = Watch::new(Arc::new(AtomicBool::new(true)));
        watch.over("images", returns);
        assert_eq!(watch.check(), Ok(()));
    }
}
