//! The thread that looks at every message of the camera, and makes the reports.

use std::time::Instant;

use crossbeam::channel::{Receiver, Sender, TrySendError, select, tick};

use super::control::Notice;
use super::{Queued, STOP_POLL, Shared, stamp};
use crate::diagnostics::{Reporter, status};
use crate::estimator::Estimator;
use crate::ingest::Ingest;
use crate::message::{ImageMessage, Output};
use crate::solver::SharedFrame;
use crate::stats::{Fate, Ticket};
use crate::window::Window;

/// A window, and the generation of its frames.
pub(super) type Tagged<E> = (u64, Window<SharedFrame<E>>);

pub(super) struct IngestThread<E: Estimator> {
    pub ingest: Ingest<E::Frame>,
    pub reporter: Reporter,
    pub queue: Receiver<Queued>,
    pub windows: Sender<Tagged<E>>,
    /// The other end of `windows`, to take back what was not taken.
    pub replaced: Receiver<Tagged<E>>,
    pub told: Receiver<Notice>,
    pub inference_gone: Receiver<()>,
    /// Of the frames that wait for their window.
    pub generation: u64,
    pub shared: Shared,
}

impl<E: Estimator> IngestThread<E> {
    pub fn run(mut self) -> Result<(), String> {
        let ended = self.until_stopped();
        // Whatever the model is at is not wanted any more.
        self.shared.gate.interrupt();
        self.told.try_iter().filter_map(Notice::output).for_each(|output| self.shared.publish(output));
        ended
    }

    fn until_stopped(&mut self) -> Result<(), String> {
        let mut period = self.shared.live.get().diagnostics.period;
        let mut reports = tick(period);
        loop {
            let (mut queued, mut notice, mut is_due) = (None, None, false);
            select! {
                recv(self.queue) -> received => match received {
                    Ok(message) => queued = Some(message),
                    Err(_) => return Ok(()),
                },
                recv(self.told) -> received => notice = received.ok(),
                recv(reports) -> _ => is_due = true,
                recv(self.inference_gone) -> _ => return Ok(()),
                default(STOP_POLL) => {}
            }
            is_due |= notice.as_ref().is_some_and(Notice::calls_for_report);
            // Also where the node is stopping meanwhile: the last transition is news to whoever asked for it.
            if let Some(output) = notice.and_then(Notice::output) {
                self.shared.publish(output);
            }
            if self.shared.is_stopped() {
                return Ok(());
            }
            self.keep_up();
            match queued {
                Some(Queued::CameraInfo(info)) => self.ingest.camera_info(&info),
                Some(Queued::Image(image, ticket)) => self.take(image, ticket),
                None => {}
            }
            if is_due {
                let diagnostics = self.shared.live.get().diagnostics;
                if diagnostics.period != period {
                    period = diagnostics.period;
                    reports = tick(period);
                }
                self.reporter.set_silent_after(diagnostics.silent_after);
                self.report();
            }
        }
    }

    fn report(&mut self) {
        let stamp = stamp(&self.shared.live.get(), &self.shared.stats);
        let report = self.reporter.report(stamp, Instant::now(), self.shared.stats.snapshot());
        self.shared.publish(Output::Status(status(&report)));
        self.shared.publish(Output::Diagnostics(report));
    }

    /// Forgets frames of an earlier generation.
    fn keep_up(&mut self) {
        let generation = self.shared.gate.look().generation;
        if generation != self.generation {
            self.generation = generation;
            self.ingest.forget(Fate::Forgotten);
            self.take_back(Fate::Forgotten);
        }
    }

    fn take(&mut self, image: ImageMessage, ticket: Ticket) {
        if !self.shared.gate.look().is_open {
            ticket.note(Fate::Inactive);
            return;
        }
        if let Some(window) = self.ingest.image(image, ticket) {
            self.offer(window);
        }
    }

    /// The newest window wins. This thread is the only sender, so there is room once the old one is taken back.
    fn offer(&self, window: Window<SharedFrame<E>>) {
        let Err(TrySendError::Full(tagged)) = self.windows.try_send((self.generation, window)) else { return };
        if self.take_back(Fate::Superseded) {
            self.shared.stats.update(|s| s.windows_superseded += 1);
        }
        let _ = self.windows.try_send(tagged);
    }

    /// Takes back the window that waits; whether there was one.
    fn take_back(&self, fate: Fate) -> bool {
        let old = self.replaced.try_recv();
        old.iter().flat_map(|(_, window)| &window.frames).for_each(|frame| frame.note(fate));
        old.is_ok()
    }
}
