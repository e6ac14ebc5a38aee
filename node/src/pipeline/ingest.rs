//! The thread that looks at every message of the camera, and makes the reports.

use std::time::Instant;

use crossbeam::channel::{Receiver, Sender, TrySendError, select, tick};

use super::control::Notice;
use super::{Queued, Received, STOP_POLL, Shared, stamp};
use crate::ros::message::Output;
use crate::solve::estimator::Estimator;
use crate::solve::solver::SharedFrame;
use crate::status::counters::Fate;
use crate::status::diagnostics::{Reporter, status};
use crate::window::Window;
use crate::window::ingest::Ingest;

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
                Some(Queued::Image(received)) => self.take(received),
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

    /// An image that was queued when its generation ended is as old as the frames that [`Self::keep_up`] has forgotten. None
    /// is of a later generation than this thread, which keeps up behind the queue.
    fn take(&mut self, Received { image, ticket, generation }: Received) {
        if !self.shared.gate.look().is_open {
            ticket.note(Fate::Inactive);
            return;
        }
        if generation != self.generation {
            ticket.note(Fate::Forgotten);
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

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use crossbeam::channel::{bounded, unbounded};
    use geometry::{Intrinsics, Stamp, WINDOW};
    use image::RgbImage;

    use super::super::{Gate, Settings, Shared, SharedLive, entrance};
    use super::IngestThread;
    use crate::config::Config;
    use crate::ros::message::Input;
    use crate::solve::estimator::{Error, Estimate, Estimator};
    use crate::status::counters::{Fate, Stats};
    use crate::status::diagnostics::Reporter;
    use crate::window::ingest::Ingest;
    use camera::info::Images;
    use camera::message::{ImageMessage, ImagePayload};
    use camera::optics::{CameraRules, UseFixed};

    const PERIOD: i64 = 100_000_000;

    struct Nobody;

    impl Estimator for Nobody {
        type Frame = ();

        fn encode(&mut self, _: &RgbImage, _: &Intrinsics) -> Result<(), Error> {
            Ok(())
        }

        fn estimate(&mut self, _: [&(); WINDOW]) -> Result<Estimate, Error> {
            Err(Error::Other("nobody asks".to_owned()))
        }
    }

    fn image(at: i64) -> Input {
        let encoding = "mono8".to_owned();
        let payload =
            ImagePayload::Raw { width: 8, height: 6, encoding, is_bigendian: false, step: 8, data: vec![7; 48] };
        Input::Image(ImageMessage { stamp: Stamp::from_nanos(at * PERIOD), frame_id: "optical".to_owned(), payload })
    }

    #[test]
    fn what_is_queued_when_a_generation_ends_belongs_to_it() {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/node.toml");
        let settings = Settings::from(&Config::load(&shipped, &[]).unwrap());
        let intrinsics = Intrinsics::new(9.0, 9.0, 4.0, 3.0, 8, 6).unwrap();
        let camera = CameraRules { use_fixed: UseFixed::Always, intrinsics, images: Images::Raw };
        let (stats, gate) = (Stats::new(), Arc::new(Gate::default()));
        gate.open();
        let (input, queue) = unbounded();
        let (windows, newest) = bounded(1);
        let (_notices, told) = unbounded();
        let (_inference, inference_gone) = bounded(0);
        let (output, _outputs) = unbounded();
        let (working, _done) = bounded(0);
        let thread = IngestThread::<Nobody> {
            ingest: Ingest::new(&camera, settings.window, Arc::clone(&stats)),
            reporter: Reporter::new(String::new(), Duration::from_secs(60), Instant::now()),
            queue,
            windows,
            replaced: newest.clone(),
            told,
            inference_gone,
            generation: gate.look().generation,
            shared: Shared {
                stats: Arc::clone(&stats),
                stop: Arc::default(),
                gate: Arc::clone(&gate),
                live: SharedLive::new(&settings.live),
                failure: Arc::default(),
                output,
                _working: working,
            },
        };
        // The thread is not yet at any of them when the odometry is reset.
        let take = entrance(input, Arc::default(), Arc::clone(&gate), Arc::clone(&stats));
        (0..4).for_each(|i| take(image(i)));
        gate.renew();
        (4..9).for_each(|i| take(image(i)));
        drop(take);
        thread.run().unwrap();
        let (generation, window) = newest.try_recv().unwrap();
        assert_eq!(generation, gate.look().generation);
        assert_eq!(window.stamps.map(|stamp| stamp.nanos / PERIOD), [4, 5, 6, 7, 8]);
        let s = stats.snapshot();
        assert_eq!((s.frames_received, s.fate(Fate::Forgotten), s.frames_pending), (9, 4, 5));
    }
}
