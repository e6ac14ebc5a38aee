//! What happened to every frame and every window.
//!
//! Architecture Invariant: each image that comes in gets one [`Ticket`], and a ticket is counted exactly once, when its
//! last owner lets go of it, under the most telling fate that was noted on it. No stage can lose a frame without its
//! being counted: `received = used + sum of dropped + pending` holds in every [`Snapshot`], by construction.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use geometry::Stamp;

use crate::ros::lifecycle;
use crate::ros::transport::graph::Remark;
use crate::solve::scale::value::Scale;
use crate::trust::checks::Evidence;
use crate::trust::state::Status;
use crate::trust::tracking::Tracking;
use odometry::agreement::Agreement;

/// Answered windows whose latency is kept.
const LATENCIES: usize = 200;

macro_rules! fates {
    ($($(#[$doc:meta])* $name:ident => $counter:literal,)*) => {
        /// How a frame ended. Where several are noted on one frame, the last in this list counts.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Fate {
            $($(#[$doc])* $name,)*
        }

        const FATES: usize = [$($counter),*].len();

        impl Fate {
            /// All, in order.
            pub const ALL: [Fate; FATES] = [$(Fate::$name),*];

            /// The name of its counter.
            pub fn counter(self) -> &'static str {
                match self {
                    $(Fate::$name => $counter,)*
                }
            }

            /// Whether nothing was made of it.
            pub fn is_drop(self) -> bool {
                !matches!(self, Self::Posed | Self::Used)
            }
        }
    };
}

fates! {
    /// The node stopped before the frame had a window.
    Shutdown => "frames_dropped_shutdown",
    /// Nothing told its pose, and the model did not read it.
    Unposed => "frames_dropped_unposed",
    /// The node was not active.
    Inactive => "frames_dropped_inactive",
    /// The odometry was reset, or the node deactivated, after the image had come and before it was in an answered window.
    Forgotten => "frames_dropped_forgotten",
    /// Too many images were waiting to be looked at.
    QueueFull => "frames_dropped_queue_full",
    /// No CameraInfo had come.
    NoCameraInfo => "frames_dropped_no_camera_info",
    /// The latest CameraInfo could not be used, for example K = 0.
    CameraInfoInvalid => "frames_dropped_camera_info_invalid",
    /// The intrinsics are for another image size.
    CameraInfoMismatch => "frames_dropped_camera_info_mismatch",
    /// Its stamp is that of the frame before.
    Repeated => "frames_dropped_repeated",
    /// Its stamp is older than that of the frame before.
    Backward => "frames_dropped_backward",
    /// Its stamp jumped ahead, and the next image did not go on from there; one that jumped back is `Backward`.
    Ahead => "frames_dropped_ahead",
    /// It lies between the members of all windows.
    SkippedByStride => "frames_dropped_skipped_by_stride",
    /// It waited for its window when a gap in the stream restarted the buffer.
    GapReset => "frames_dropped_gap_reset",
    /// It waited for its window when the clock jumped back.
    ClockReset => "frames_dropped_clock_reset",
    /// It waited for its window when the camera changed.
    CameraChanged => "frames_dropped_camera_changed",
    /// All its windows gave way to newer ones.
    Superseded => "frames_dropped_superseded",
    /// All its windows had a member that could not be decoded or was blank.
    BrokenWindow => "frames_dropped_broken_window",
    /// The tracks gave it a pose, or it stood on the motion before; the model did not read it.
    Posed => "frames_posed",
    /// Its pixels could not be decoded.
    Decode => "frames_dropped_decode",
    /// Its pixels show nothing.
    Blank => "frames_dropped_blank",
    /// The model read it in at least one window and answered, whether or not the answer could be used.
    Used => "frames_used",
}

/// One image on its way through the node.
#[derive(Debug)]
pub struct Ticket {
    fate: AtomicU8,
    stats: Arc<Stats>,
}

impl Ticket {
    /// Notes a fate; a later entry of [`Fate`] outweighs an earlier one.
    pub fn note(&self, fate: Fate) {
        self.fate.fetch_max(fate as u8, Ordering::Relaxed);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let fate = usize::from(*self.fate.get_mut());
        let mut counts = self.stats.lock();
        counts.fates[fate] += 1;
        counts.frames_pending -= 1;
    }
}

/// The node's counters, shared by its threads.
#[derive(Debug, Default)]
pub struct Stats {
    counts: Mutex<Snapshot>,
}

/// The counters at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Images that came in.
    pub frames_received: u64,
    /// Images that are still waiting, buffered or in a window.
    pub frames_pending: u64,
    /// Images by [`Fate`].
    fates: [u64; FATES],
    /// CameraInfo messages.
    pub camera_infos_received: u64,
    /// CameraInfo messages that found the queue full.
    pub camera_infos_dropped: u64,
    /// Messages of the odometry that gives the scale.
    pub odometry_received: u64,
    /// Those that are out of order or not numbers.
    pub odometry_refused: u64,
    /// Poses of the program that the odometry follows.
    pub followed_received: u64,
    /// Those that are out of order, of another frame, or not numbers, or found the queue full.
    pub followed_refused: u64,
    /// Windows that the buffer completed.
    pub windows_complete: u64,
    /// Windows that gave way to a newer one before the model saw them.
    pub windows_superseded: u64,
    /// Windows with a member that could not be decoded or was blank.
    pub windows_broken: u64,
    /// Windows that the model answered.
    pub windows_answered: u64,
    /// Answers that did not parse or were absurd; nothing is published for them.
    pub answers_unparsed: u64,
    /// Answers that contradict the tracks of the same images: they give no scale and carry nothing.
    pub windows_contradicted: u64,
    /// Answers that could be held against tracks.
    pub windows_compared: u64,
    /// Poses of the odometry at the camera's rate that came out.
    pub poses_published: u64,
    /// Those among them that stand on the motion before, or the model's.
    pub poses_coasted: u64,
    /// Those that did not come out, since nothing told them for too long.
    pub poses_withheld: u64,
    /// Windows whose poses came out while the node was DEGRADED.
    pub windows_degraded: u64,
    /// Windows whose poses did not come out since the node was LOST or the images frozen.
    pub windows_withheld: u64,
    /// Windows whose poses did not come out since their scale was not known.
    pub windows_unscaled: u64,
    /// Times that the node became LOST.
    pub losses: u64,
    /// Times that it was LOST and no longer is.
    pub recoveries: u64,
    /// Times that the odometry could not be continued, so that the motion in between is missing from it: its reset counter.
    pub odometry_breaks: u64,
    /// Frames of windows that had been encoded for an earlier window.
    pub encode_cache_hits: u64,
    /// Frames that were encoded.
    pub encode_cache_misses: u64,
    /// Messages that the transport was too slow for.
    pub outputs_dropped: u64,
    /// Tokens of the last answer.
    pub answer_tokens: u64,
    /// How many of them the program wrote.
    pub answer_tokens_filled: u64,
    /// Passes of the model for it, behind the prompt.
    pub answer_passes: u64,
    /// Passes that were not needed, since what came next had been read ahead.
    pub answer_passes_saved: u64,
    /// Tokens of its prompt that the last prompt had begun with too, so that they were not read again.
    pub prompt_tokens_reused: u64,
    /// The parts of that answer that are the program's.
    pub answer_by_program: Vec<&'static str>,
    /// When the last image came.
    pub last_image: Option<Instant>,
    /// The stamp of that image.
    pub last_stamp: Option<Stamp>,
    /// The newest stamp of the odometry that gives the scale.
    pub odometry_stamp: Option<Stamp>,
    /// The newest stamp of the program that the odometry follows.
    pub followed_stamp: Option<Stamp>,
    /// The last thing that went wrong with an input or an answer, in words.
    pub last_problem: Option<String>,
    /// What the last odometry that was refused had wrong.
    pub odometry_problem: Option<String>,
    /// What is hard to believe of the camera's messages, by what it is about: [`Stats::doubt`].
    pub doubts: BTreeMap<&'static str, String>,
    /// What is made of the camera's 16-bit samples, where it has some.
    pub samples: Option<String>,
    /// What has become of the model's files since it was loaded, where that is anything.
    pub weights_changed: Option<String>,
    /// What the graph tells of the node's topics.
    pub graph: Vec<Remark>,
    /// Where the node is in its lifecycle.
    pub lifecycle: lifecycle::State,
    /// Why it is there, where a failure brought it there; empty otherwise.
    pub lifecycle_problem: String,
    /// What translations that come out are in.
    pub scale: Scale,
    /// How far the node trusts its poses: [`Snapshot::settle`].
    pub status: Status,
    /// Why that is not OK; empty where it is.
    pub status_reason: String,
    /// What the model's windows make of it by themselves, and why.
    pub by_windows: (Status, String),
    /// What the tracks make of it, where the odometry is theirs.
    pub by_tracks: Option<Tracking>,
    /// How the last answer stood to the tracks, where there were any.
    pub agreement: Option<Agreement>,
    /// What the checks found in the last answer; `None` where it had no poses.
    pub evidence: Option<Evidence>,
    latencies: VecDeque<Duration>,
}

impl Stats {
    /// All zero.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Counts an image that came in, at `now`.
    pub fn receive(self: &Arc<Self>, now: Instant) -> Ticket {
        let mut counts = self.lock();
        counts.frames_received += 1;
        counts.frames_pending += 1;
        counts.last_image = Some(now);
        Ticket { fate: AtomicU8::new(Fate::Shutdown as u8), stats: Arc::clone(self) }
    }

    /// Changes counters.
    pub fn update(&self, change: impl FnOnce(&mut Snapshot)) {
        change(&mut self.lock());
    }

    /// Keeps for the reports what is hard to believe of the camera's messages, until nothing is any more (`None`), and logs it
    /// once. `about` is what it is about: each has one sentence.
    pub fn doubt(&self, about: &'static str, words: Option<String>) {
        self.update(|s| match words {
            Some(words) if s.doubts.get(about) != Some(&words) => {
                tracing::warn!("{words}");
                s.doubts.insert(about, words);
            }
            Some(_) => {}
            None => {
                s.doubts.remove(about);
            }
        });
    }

    /// All counters at this moment.
    pub fn snapshot(&self) -> Snapshot {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Snapshot> {
        // Counters are whole numbers: a thread that died while it held them leaves nothing half done.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Snapshot {
    /// Images that ended so.
    pub fn fate(&self, fate: Fate) -> u64 {
        self.fates[fate as usize]
    }

    /// Makes one status of what is known of windows and tracks, and counts where it was lost and found; whether it has
    /// changed.
    pub fn settle(&mut self) -> bool {
        let (status, reason) = match &self.by_tracks {
            None => self.by_windows.clone(),
            Some(tracking) => tracking.status(),
        };
        let before = std::mem::replace(&mut self.status, status);
        self.losses += u64::from(before != Status::Lost && status == Status::Lost);
        self.recoveries += u64::from(before == Status::Lost && status != Status::Lost);
        let is_news = status != before || reason != self.status_reason;
        self.status_reason = reason;
        if status != before {
            let reason = &self.status_reason;
            match status {
                Status::Ok => tracing::info!("OK again"),
                Status::Degraded => tracing::warn!("DEGRADED: {reason}"),
                Status::Lost => tracing::warn!("LOST, nothing comes out: {reason}"),
            }
        }
        is_news
    }

    /// Images that the model read.
    pub fn frames_used(&self) -> u64 {
        self.fate(Fate::Used)
    }

    /// Images that nothing was made of.
    pub fn frames_dropped(&self) -> u64 {
        Fate::ALL.iter().filter(|fate| fate.is_drop()).map(|fate| self.fate(*fate)).sum()
    }

    /// Adds the time that a window took, from the model's taking it to its answer.
    pub fn add_latency(&mut self, latency: Duration) {
        if self.latencies.len() == LATENCIES {
            self.latencies.pop_front();
        }
        self.latencies.push_back(latency);
    }

    /// Forgets how long windows took, which no two replays agree on.
    pub fn forget_latencies(&mut self) {
        self.latencies.clear();
    }

    /// Median and largest time of the last windows.
    pub fn latency(&self) -> Option<(Duration, Duration)> {
        let mut sorted: Vec<Duration> = self.latencies.iter().copied().collect();
        sorted.sort_unstable();
        Some((*sorted.get(sorted.len() / 2)?, *sorted.last()?))
    }

    /// All counters by name, in a fixed order.
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        let mut all = vec![
            ("frames_received", self.frames_received),
            ("frames_pending", self.frames_pending),
            (Fate::Used.counter(), self.frames_used()),
            (Fate::Posed.counter(), self.fate(Fate::Posed)),
        ];
        let dropped = Fate::ALL.iter().filter(|f| f.is_drop());
        all.extend(dropped.map(|f| (f.counter(), self.fate(*f))));
        all.extend([
            ("camera_infos_received", self.camera_infos_received),
            ("camera_infos_dropped", self.camera_infos_dropped),
            ("odometry_received", self.odometry_received),
            ("odometry_refused", self.odometry_refused),
            ("followed_received", self.followed_received),
            ("followed_refused", self.followed_refused),
            ("windows_complete", self.windows_complete),
            ("windows_superseded", self.windows_superseded),
            ("windows_broken", self.windows_broken),
            ("windows_answered", self.windows_answered),
            ("answers_unparsed", self.answers_unparsed),
            ("windows_compared", self.windows_compared),
            ("windows_contradicted", self.windows_contradicted),
            ("poses_published", self.poses_published),
            ("poses_coasted", self.poses_coasted),
            ("poses_withheld", self.poses_withheld),
            ("windows_degraded", self.windows_degraded),
            ("windows_withheld", self.windows_withheld),
            ("windows_unscaled", self.windows_unscaled),
            ("losses", self.losses),
            ("recoveries", self.recoveries),
            ("odometry_breaks", self.odometry_breaks),
            ("encode_cache_hits", self.encode_cache_hits),
            ("encode_cache_misses", self.encode_cache_misses),
            ("outputs_dropped", self.outputs_dropped),
            ("answer_tokens", self.answer_tokens),
            ("answer_tokens_filled", self.answer_tokens_filled),
            ("answer_passes", self.answer_passes),
            ("answer_passes_saved", self.answer_passes_saved),
            ("prompt_tokens_reused", self.prompt_tokens_reused),
        ]);
        all
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Fate, Stats};

    #[test]
    fn a_ticket_counts_once_under_its_weightiest_fate() {
        let stats = Stats::new();
        let now = Instant::now();
        let [a, b, c] = [(); 3].map(|()| stats.receive(now));
        assert_eq!(stats.snapshot().frames_pending, 3);
        a.note(Fate::Used);
        a.note(Fate::Superseded);
        b.note(Fate::Superseded);
        drop((a, b));
        let s = stats.snapshot();
        assert_eq!((s.frames_used(), s.fate(Fate::Superseded), s.frames_pending), (1, 1, 1));
        drop(c);
        let s = stats.snapshot();
        assert_eq!((s.fate(Fate::Shutdown), s.frames_pending), (1, 0));
        assert_eq!(s.frames_received, s.frames_used() + s.frames_dropped() + s.frames_pending);
        let d = stats.receive(now);
        d.note(Fate::Posed);
        d.note(Fate::Superseded);
        drop(d);
        let s = stats.snapshot();
        assert_eq!((s.fate(Fate::Posed), s.frames_dropped()), (1, 2), "what is posed is not dropped");
    }

    #[test]
    fn every_fate_has_its_own_counter_and_all_are_listed() {
        let mut names: Vec<&str> = Fate::ALL.iter().map(|f| f.counter()).collect();
        let listed = Stats::new().snapshot().counters();
        for name in &names {
            assert_eq!(listed.iter().filter(|(n, _)| n == name).count(), 1, "{name}");
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Fate::ALL.len());
        let dropped = Fate::ALL.iter().filter(|f| f.is_drop());
        assert!(dropped.into_iter().all(|f| f.counter().starts_with("frames_dropped_")));
    }

    #[test]
    fn latency_is_of_the_last_windows() {
        let mut s = Stats::new().snapshot();
        assert_eq!(s.latency(), None);
        for ms in [5000, 1, 2, 3].into_iter().chain(4..=200) {
            s.add_latency(Duration::from_millis(ms));
        }
        s.add_latency(Duration::from_millis(7));
        let (median, max) = s.latency().unwrap();
        assert_eq!(max.as_millis(), 200);
        assert!((95..=105).contains(&median.as_millis()));
    }
}
