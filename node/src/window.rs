//! The stream of frames cut into five-frame windows.
//!
//! Frames are counted from the last restart of the stream, `n = 0, 1, ..`. Window `k` has the members
//! `k * hop + i * stride`, `i = 0..4`. A restart happens where five frames across it would not be one motion of one
//! camera on one clock: a silence longer than `max_gap`, a clock that jumped back, another camera or image size.
//!
//! Architecture Invariant: no clock is read here and no thread is here; time is the stamps. Every frame that is pushed is
//! a member of an emitted window, or handed back in [`Push::dropped`] with the cause, or still in the buffer.
//! A window's stamps strictly increase, and it never spans a restart.

use std::collections::VecDeque;
use std::sync::Arc;

use geometry::{Intrinsics, Stamp, WINDOW};

use crate::config::WindowRules;

/// The camera as a frame saw it; windows never mix two.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// The optical frame of the image header.
    pub frame_id: Arc<str>,
    /// Intrinsics and size of the image.
    pub intrinsics: Intrinsics,
}

/// Five frames, ready for the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Window<T> {
    /// Counts emitted windows from 0.
    pub id: u64,
    /// Counts the jumps back of the clock: stamps of different epochs cannot be compared.
    pub epoch: u32,
    /// Times of exposure, strictly increasing.
    pub stamps: [Stamp; WINDOW],
    /// The camera.
    pub view: View,
    /// The frames.
    pub frames: [T; WINDOW],
}

/// Why a frame will never be in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It lies between the members of all windows.
    SkippedByStride,
    /// It has the stamp of the frame before it.
    Repeated,
    /// It is older than the frame before it.
    Backward,
    /// It waited for its window when the stream restarted.
    Restarted(Restart),
}

/// Why the stream started afresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// No frame for longer than `max_gap`.
    Gap,
    /// The clock jumped back by more than `max_gap`: a log that loops, a simulation that was reset.
    ClockWentBack,
    /// Other intrinsics, size or optical frame.
    CameraChanged,
}

/// What one frame brought about.
#[derive(Debug, PartialEq)]
pub struct Push<T> {
    /// The window that it completed.
    pub window: Option<Window<T>>,
    /// Frames that will never be in a window; it may be itself.
    pub dropped: Vec<(T, Cause)>,
    /// Set where the stream started afresh with it.
    pub restart: Option<Restart>,
}

/// Collects frames until they make a window.
#[derive(Debug)]
pub struct WindowBuffer<T> {
    rules: WindowRules,
    /// Members of windows to come, by their place in the stream.
    waiting: VecDeque<Waiting<T>>,
    /// Stamp and camera of the newest frame.
    newest: Option<(Stamp, View)>,
    /// Place of the next frame in the stream.
    next_place: u64,
    /// Place of the first member of the next window.
    next_start: u64,
    next_id: u64,
    epoch: u32,
}

#[derive(Debug)]
struct Waiting<T> {
    place: u64,
    stamp: Stamp,
    frame: T,
    /// Whether it was in a window already.
    emitted: bool,
}

impl<T: Clone> WindowBuffer<T> {
    /// An empty buffer.
    pub fn new(rules: WindowRules) -> Self {
        Self { rules, waiting: VecDeque::new(), newest: None, next_place: 0, next_start: 0, next_id: 0, epoch: 0 }
    }

    /// Frames in the buffer that were in no window yet.
    pub fn waiting(&self) -> usize {
        self.waiting.iter().filter(|w| !w.emitted).count()
    }

    /// Starts the stream afresh; returns the frames that were in no window yet. Windows and epochs are counted on.
    pub fn clear(&mut self) -> Vec<T> {
        self.newest = None;
        self.next_place = 0;
        self.next_start = 0;
        self.waiting.drain(..).filter(|w| !w.emitted).map(|w| w.frame).collect()
    }

    /// Takes the next frame of the stream.
    ///
    /// A frame that is late by `max_gap` or less came out of order and is dropped; one that is late by more says that
    /// the clock jumped.
    pub fn push(&mut self, stamp: Stamp, view: &View, frame: T) -> Push<T> {
        let mut dropped = Vec::new();
        let mut restart = None;
        if let Some((newest, newest_view)) = &self.newest {
            let max_gap = i64::try_from(self.rules.max_gap.as_nanos()).unwrap_or(i64::MAX);
            let step = stamp.nanos_since(*newest);
            if step == 0 {
                return Push { window: None, dropped: vec![(frame, Cause::Repeated)], restart: None };
            }
            restart = if step < -max_gap {
                Some(Restart::ClockWentBack)
            } else if step < 0 {
                return Push { window: None, dropped: vec![(frame, Cause::Backward)], restart: None };
            } else if newest_view != view {
                Some(Restart::CameraChanged)
            } else if step > max_gap {
                Some(Restart::Gap)
            } else {
                None
            };
        }
        if let Some(restart) = restart {
            let unseen = self.waiting.drain(..).filter(|w| !w.emitted);
            dropped.extend(unseen.map(|w| (w.frame, Cause::Restarted(restart))));
            self.next_place = 0;
            self.next_start = 0;
            self.epoch += u32::from(restart == Restart::ClockWentBack);
        }
        self.newest = Some((stamp, view.clone()));
        let place = self.next_place;
        self.next_place += 1;
        if !self.is_member(place) {
            dropped.push((frame, Cause::SkippedByStride));
            return Push { window: None, dropped, restart };
        }
        self.waiting.push_back(Waiting { place, stamp, frame, emitted: false });
        let window = (place == self.next_start + self.span()).then(|| self.emit(view));
        Push { window, dropped, restart }
    }

    /// Frames from the first member of a window to its last.
    fn span(&self) -> u64 {
        (WINDOW as u64 - 1) * u64::from(self.rules.stride)
    }

    /// Whether a window that is still to come has a member at `place`.
    fn is_member(&self, place: u64) -> bool {
        let (stride, hop) = (u64::from(self.rules.stride), u64::from(self.rules.hop));
        let mut start = self.next_start;
        while start <= place {
            let behind = place - start;
            if behind.is_multiple_of(stride) && behind <= self.span() {
                return true;
            }
            start += hop;
        }
        false
    }

    fn emit(&mut self, view: &View) -> Window<T> {
        let (start, stride) = (self.next_start, u64::from(self.rules.stride));
        let first = self.waiting.front().expect("the frame that completes a window was just pushed").place;
        debug_assert_eq!(first, start, "the oldest frame kept is the next window's first");
        let mut stamps = [Stamp::default(); WINDOW];
        let frames = std::array::from_fn(|i| {
            let place = start + i as u64 * stride;
            let at = self.waiting.partition_point(|w| w.place < place);
            let member = &mut self.waiting[at];
            debug_assert_eq!(member.place, place, "members are kept until their last window");
            member.emitted = true;
            stamps[i] = member.stamp;
            member.frame.clone()
        });
        let window = Window { id: self.next_id, epoch: self.epoch, stamps, view: view.clone(), frames };
        self.next_id += 1;
        self.next_start += u64::from(self.rules.hop);
        while self.waiting.front().is_some_and(|w| w.place < self.next_start) {
            self.waiting.pop_front();
        }
        window
    }
}

#[cfg(test)]
mod tests;
