//! The stream of frames cut into five-frame windows.
//!
//! Frames are counted from the last restart of the stream, `n = 0, 1, ..`; with a period those alone that are about that far
//! apart ([`Pace`]). Window `k` has the members `k * hop + i * stride`, `i = 0..4`. A restart happens where five frames across it
//! would not be one motion of one camera on one clock: a silence longer than `max_gap`, a clock that jumped back, another camera or image size.
//!
//! One stamp does not make a clock: a driver that forgets to set it once, or a bit that tips, is no reason to lose a window
//! and the odometry. A frame whose stamp jumps by more than `max_gap` is held back, and the next frame says which clock goes
//! on: the one that it jumped to, on which the stream starts afresh with the two, or the one before, as if the held frame
//! had been lost. A regular stream holds nothing back, and a window is complete no later for it, since a held frame is at
//! most the first of one.
//!
//! Architecture Invariant: no clock is read here and no thread is here; time is the stamps. Every frame that is pushed is
//! a member of an emitted window, or handed back in [`Push::dropped`] with the cause, or still in the buffer, where at most
//! one is held back.
//! A window's stamps strictly increase, and it never spans a restart.

pub mod frame;
pub mod ingest;

use std::collections::VecDeque;
use std::sync::Arc;

use camera::pace::Pace;
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
    /// It lies between the members of all windows, or between the frames that count.
    SkippedByStride,
    /// It has the stamp of the frame before it.
    Repeated,
    /// It is older than the frame before it.
    Backward,
    /// Its stamp jumped, and the next frame did not go on from there.
    Stray {
        /// That stamp.
        stamp: Stamp,
        /// Of the frame before it.
        newest: Stamp,
    },
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

/// A frame of the stream.
#[derive(Debug, PartialEq)]
pub struct Accepted<T> {
    /// Time of its exposure, behind that of the frame before unless the stream started afresh with it.
    pub stamp: Stamp,
    /// The camera.
    pub view: View,
    /// Set where the stream started afresh with it.
    pub restart: Option<Restart>,
    /// The frame.
    pub frame: T,
}

/// What one frame brought about.
#[derive(Debug, PartialEq)]
pub struct Push<T> {
    /// The window that it completed.
    pub window: Option<Window<T>>,
    /// Frames that are now the newest of the stream, one behind the other: it, and one that was held back before it.
    pub accepted: Vec<Accepted<T>>,
    /// Frames that will never be in a window; it may be itself.
    pub dropped: Vec<(T, Cause)>,
    /// Set where the stream started afresh with it, or with the frame that was held back before it.
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
    /// Its stamp is more than `max_gap` from that of the newest.
    held: Option<Held<T>>,
    /// Which frames count.
    pace: Pace,
    /// Place of the next frame that counts in the stream.
    next_place: u64,
    /// Place of the first member of the next window.
    next_start: u64,
    next_id: u64,
    epoch: u32,
}

/// A frame that waits for the next to say whether its clock goes on.
#[derive(Debug)]
struct Held<T> {
    stamp: Stamp,
    view: View,
    frame: T,
}

/// How the stamp of a frame lies to an earlier frame's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The same clock goes on.
    Onward,
    Repeated,
    /// Back by `max_gap` or less: it came out of order.
    Late,
    /// By more than `max_gap`, ahead or back.
    Jump,
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
        Self {
            rules,
            waiting: VecDeque::new(),
            newest: None,
            held: None,
            pace: Pace::new(rules.period),
            next_place: 0,
            next_start: 0,
            next_id: 0,
            epoch: 0,
        }
    }

    /// Frames in the buffer that were in no window yet.
    pub fn waiting(&self) -> usize {
        self.waiting.iter().filter(|w| !w.emitted).count() + usize::from(self.held.is_some())
    }

    /// Starts the stream afresh; returns the frames that were in no window yet. Windows and epochs are counted on.
    pub fn clear(&mut self) -> Vec<T> {
        self.newest = None;
        self.begin_count();
        let unseen = self.waiting.drain(..).filter(|w| !w.emitted).map(|w| w.frame);
        unseen.chain(self.held.take().map(|held| held.frame)).collect()
    }

    /// Takes the next frame of the stream.
    ///
    /// A frame that repeats a stamp, or is late by `max_gap` or less, is dropped and says nothing of a frame that is held
    /// back. Where frames jump one by one and none goes on from another, as those of a camera slower than `max_gap`, each
    /// is held back and dropped with the next.
    pub fn push(&mut self, stamp: Stamp, view: &View, frame: T) -> Push<T> {
        let mut push = Push { window: None, accepted: Vec::new(), dropped: Vec::new(), restart: None };
        let from_newest = self.newest.as_ref().map(|(newest, _)| self.step(*newest, stamp));
        let from_held = self.held.as_ref().map(|held| self.step(held.stamp, stamp));
        match (from_newest, from_held) {
            (_, Some(Step::Onward)) => {
                if let Some(held) = self.held.take() {
                    self.accept(held.stamp, &held.view, held.frame, &mut push);
                }
                self.accept(stamp, view, frame, &mut push);
            }
            (None | Some(Step::Onward), _) => {
                self.give_up_held(&mut push);
                self.accept(stamp, view, frame, &mut push);
            }
            (Some(Step::Repeated), _) | (_, Some(Step::Repeated)) => push.dropped.push((frame, Cause::Repeated)),
            (Some(Step::Late), _) | (_, Some(Step::Late)) => push.dropped.push((frame, Cause::Backward)),
            (Some(Step::Jump), _) => {
                self.give_up_held(&mut push);
                self.held = Some(Held { stamp, view: view.clone(), frame });
            }
        }
        push
    }

    fn step(&self, from: Stamp, to: Stamp) -> Step {
        let max_gap = i64::try_from(self.rules.max_gap.as_nanos()).unwrap_or(i64::MAX);
        match to.nanos_since(from) {
            0 => Step::Repeated,
            nanos if nanos < -max_gap || nanos > max_gap => Step::Jump,
            nanos if nanos < 0 => Step::Late,
            _ => Step::Onward,
        }
    }

    /// Hands back the frame that is held back: its clock does not go on.
    fn give_up_held(&mut self, push: &mut Push<T>) {
        if let (Some(held), Some((newest, _))) = (self.held.take(), &self.newest) {
            push.dropped.push((held.frame, Cause::Stray { stamp: held.stamp, newest: *newest }));
        }
    }

    /// Puts a frame behind the newest, or starts the stream afresh with it.
    fn accept(&mut self, stamp: Stamp, view: &View, frame: T, push: &mut Push<T>) {
        let restart = self.newest.as_ref().and_then(|(newest, newest_view)| {
            if stamp < *newest {
                Some(Restart::ClockWentBack)
            } else if newest_view != view {
                Some(Restart::CameraChanged)
            } else {
                (self.step(*newest, stamp) == Step::Jump).then_some(Restart::Gap)
            }
        });
        if let Some(restart) = restart {
            let unseen = self.waiting.drain(..).filter(|w| !w.emitted);
            push.dropped.extend(unseen.map(|w| (w.frame, Cause::Restarted(restart))));
            self.begin_count();
            self.epoch += u32::from(restart == Restart::ClockWentBack);
            push.restart = push.restart.or(Some(restart));
        }
        self.newest = Some((stamp, view.clone()));
        push.accepted.push(Accepted { stamp, view: view.clone(), restart, frame: frame.clone() });
        let is_counted = self.pace.takes(stamp);
        let place = self.next_place;
        self.next_place += u64::from(is_counted);
        if !(is_counted && self.is_member(place)) {
            push.dropped.push((frame, Cause::SkippedByStride));
            return;
        }
        self.waiting.push_back(Waiting { place, stamp, frame, emitted: false });
        if place == self.next_start + self.span() {
            push.window = Some(self.emit(view));
        }
    }

    fn begin_count(&mut self) {
        self.pace.restart();
        (self.next_place, self.next_start) = (0, 0);
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
