//! The thread that looks at every message of the camera, poses each image by its tracks, and makes the reports.

use std::sync::Arc;
use std::time::Instant;

use crossbeam::channel::{Receiver, Sender, TrySendError, select, tick};
use geometry::Stamp;

use super::control::Notice;
use super::{Queued, Received, STOP_POLL, Shared, now, stamp};
use crate::config::Mount;
use crate::publish;
use crate::ros::message::{DiagnosticsMessage, OdometryMessage, Output};
use crate::solve::estimator::Estimator;
use crate::solve::held::Held;
use crate::solve::solver::SharedFrame;
use crate::solve::tracker::{Posed, Told, Tracked, Tracker};
use crate::status::counters::Fate;
use crate::status::diagnostics::{Reporter, scale, status};
use crate::trust::state::Status;
use crate::window::ingest::Ingest;
use crate::window::{Accepted, Window};

/// Farthest that stamps may be ahead of this machine's clock: clocks of two machines are never quite one.
const MOST_AHEAD_NANOS: i64 = 1_000_000_000;

/// A window that waits for the model.
pub(super) struct Offered<E: Estimator> {
    /// Of its frames.
    pub generation: u64,
    pub window: Window<SharedFrame<E>>,
    /// The same as the tracks have it.
    pub tracked: Option<Tracked>,
}

pub(super) struct IngestThread<E: Estimator> {
    pub ingest: Ingest<E::Frame>,
    pub reporter: Reporter,
    pub queue: Receiver<Queued>,
    pub windows: Sender<Offered<E>>,
    /// Whether somebody reads them.
    pub has_model: bool,
    /// The other end of `windows`, to take back what was not taken.
    pub replaced: Receiver<Offered<E>>,
    /// The fast clock, where the odometry is its own.
    pub tracker: Option<Tracker>,
    /// Windows that wait for it.
    pub held: Held<Window<SharedFrame<E>>>,
    /// What the model's thread has for it, and of which generation.
    pub said: Receiver<(u64, Told)>,
    pub told: Receiver<Notice>,
    pub inference_gone: Receiver<()>,
    /// Of the frames that wait for their window.
    pub generation: u64,
    pub odom_frame: String,
    pub mount: Option<Mount>,
    /// The camera's frame that was last put on the static tree.
    pub mounted: Option<Arc<str>>,
    /// The scale that was last published.
    pub told_scale: Option<DiagnosticsMessage>,
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
            self.shared.watch.turn();
            self.keep_up();
            self.listen();
            match queued {
                Some(Queued::CameraInfo(info)) => self.ingest.camera_info(&info),
                Some(Queued::Followed(odometry)) => self.follow(&odometry),
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
        self.shared.look_at_weights();
        let stamp = stamp(&self.shared.live.get(), &self.shared.stats);
        let report = self.reporter.report(stamp, Instant::now(), self.shared.stats.snapshot());
        self.shared.publish(Output::Status(status(&report)));
        self.shared.publish(Output::Diagnostics(report));
        self.told_scale = None;
        self.tell_scale(stamp);
    }

    /// Publishes the scale where it is another than before.
    fn tell_scale(&mut self, stamp: Stamp) {
        let Some(tracking) = self.shared.stats.snapshot().by_tracks else { return };
        let scale = scale(stamp, &tracking);
        if self.told_scale.as_ref().is_none_or(|told| told.values != scale.values) {
            self.told_scale = Some(scale.clone());
            self.shared.publish(Output::Scale(scale));
        }
    }

    /// Hands on what the model's thread has to say.
    fn listen(&mut self) {
        let Some(tracker) = &mut self.tracker else { return };
        for (generation, told) in self.said.try_iter() {
            let is_of_old = matches!(told, Told::Answered(_)) && generation != self.generation;
            if !is_of_old {
                tracker.take(told);
            }
        }
    }

    /// Forgets frames of an earlier generation.
    fn keep_up(&mut self) {
        let generation = self.shared.gate.look().generation;
        if generation != self.generation {
            self.generation = generation;
            self.ingest.forget(Fate::Forgotten);
            if let Some(tracker) = &mut self.tracker {
                tracker.reset();
            }
            self.held.drain().flat_map(|window| window.frames).for_each(|frame| frame.note(Fate::Forgotten));
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
        self.doubt_clock(image.stamp);
        let taken = self.ingest.image(image, ticket);
        let before = self.shared.stats.snapshot().status;
        for accepted in &taken.accepted {
            self.track(accepted);
        }
        self.report_if_not(before);
        if let Some(window) = taken.window.filter(|_| self.has_model)
            && let Some(gone) = self.held.push(window)
        {
            gone.frames.iter().for_each(|frame| frame.note(Fate::Superseded));
            self.shared.stats.update(|s| s.windows_superseded += 1);
        }
        self.offer_settled();
    }

    /// Whoever looks up a transform of the future waits for it.
    fn doubt_clock(&self, stamp: Stamp) {
        let is_ahead = !self.shared.live.get().use_sim_time && stamp.nanos_since(now()) > MOST_AHEAD_NANOS;
        let words = is_ahead.then(|| {
            format!(
                "stamps of {} are more than a second ahead of this machine's clock: bring the clocks together, or set \
                 use_sim_time where they are a simulation's",
                self.ingest.topic()
            )
        });
        self.shared.stats.doubt("clock", words);
    }

    /// A pose of the program that is followed. Of before a reset is none: it has a clock of its own.
    fn follow(&mut self, odometry: &OdometryMessage) {
        if !self.shared.gate.look().is_open {
            return;
        }
        let before = self.shared.stats.snapshot().status;
        let posed = self.tracker.as_mut().and_then(|tracker| tracker.followed(odometry));
        if let Some(posed) = posed {
            self.publish(&posed);
        }
        self.report_if_not(before);
        self.offer_settled();
    }

    fn report_if_not(&mut self, before: Status) {
        if self.shared.stats.snapshot().status != before {
            self.report();
        }
    }

    /// The pose of a frame, at once.
    fn track(&mut self, accepted: &Accepted<SharedFrame<E>>) {
        let Some(tracker) = &mut self.tracker else { return };
        let least_contrast = self.shared.live.get().trust.images.least_contrast;
        if let Some(posed) = tracker.frame(accepted, least_contrast) {
            self.publish(&posed);
        }
    }

    fn publish(&mut self, posed: &Posed) {
        let on = self.shared.live.get().publish;
        let (odometry, pose) = publish::posed(posed, &self.odom_frame, self.mount.as_ref());
        let mut outputs = vec![Output::Odometry(odometry), Output::Pose(pose)];
        if let Some(mount) = &self.mount {
            let camera_frame = &posed.view.frame_id;
            let is_named = !camera_frame.is_empty();
            if on.static_tf && is_named && self.mounted.as_ref() != Some(camera_frame) {
                self.mounted = Some(Arc::clone(camera_frame));
                outputs.push(Output::StaticTransform(publish::static_transform(posed.fix.stamp, &posed.view, mount)));
            }
            if on.tf {
                outputs.push(Output::Transform(publish::posed_transform(posed, &self.odom_frame, mount)));
            }
        }
        self.shared.gate.pass(self.generation, || outputs.into_iter().for_each(|output| self.shared.publish(output)));
        self.tell_scale(posed.fix.stamp);
    }

    /// Offers the windows of which the fast clock knows all that it will.
    fn offer_settled(&mut self) {
        while let Some(window) = self.held.pop_settled(self.tracker.as_ref()) {
            let tracked = self.tracker.as_ref().and_then(|tracker| tracker.tracked(&window.stamps));
            self.offer(Offered { generation: self.generation, window, tracked });
        }
    }

    /// The newest window wins. This thread is the only sender, so there is room once the old one is taken back.
    fn offer(&self, offered: Offered<E>) {
        let Err(TrySendError::Full(offered)) = self.windows.try_send(offered) else { return };
        if self.take_back(Fate::Superseded) {
            self.shared.stats.update(|s| s.windows_superseded += 1);
        }
        let _ = self.windows.try_send(offered);
    }

    /// Takes back the window that waits; whether there was one.
    fn take_back(&self, fate: Fate) -> bool {
        let old = self.replaced.try_recv();
        old.iter().flat_map(|offered| &offered.window.frames).for_each(|frame| frame.note(fate));
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
    use super::{Held, IngestThread, Offered};
    use crate::config::Config;
    use crate::ros::message::Input;
    use crate::solve::estimator::{Error, Estimate, Estimator};
    use crate::status::counters::{Fate, Stats};
    use crate::status::diagnostics::Reporter;
    use crate::supervision::Watch;
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
        let (_tell, said) = unbounded();
        let thread = IngestThread::<Nobody> {
            ingest: Ingest::new(&camera, settings.window, "/camera", Arc::clone(&stats)),
            reporter: Reporter::new(String::new(), Duration::from_secs(60), Instant::now()),
            queue,
            windows,
            has_model: true,
            replaced: newest.clone(),
            tracker: None,
            held: Held::default(),
            said,
            told,
            inference_gone,
            generation: gate.look().generation,
            odom_frame: String::new(),
            mount: None,
            mounted: None,
            told_scale: None,
            shared: Shared {
                stats: Arc::clone(&stats),
                stop: Arc::default(),
                gate: Arc::clone(&gate),
                live: SharedLive::new(&settings.live),
                failure: Arc::default(),
                weights: Arc::default(),
                watch: Watch::new(Arc::default()),
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
        let Offered { generation, window, .. } = newest.try_recv().unwrap();
        assert_eq!(generation, gate.look().generation);
        assert_eq!(window.stamps.map(|stamp| stamp.nanos / PERIOD), [4, 5, 6, 7, 8]);
        let s = stats.snapshot();
        assert_eq!((s.frames_received, s.fate(Fate::Forgotten), s.frames_pending), (9, 4, 5));
    }
}
