//! Windows stitched into one odometry.
//!
//! # The rule
//! Two windows that share a frame differ by one rigid transform. It is read off at the **latest common stamp**:
//! `odom_from_new = odom_from_camera(c) * camera_from_anchor(c) * anchor_from_camera(new)`. For exact windows this
//! reproduces the ground-truth chain exactly. Where windows are noisy, the latest frame is the one with the shortest step
//! to the new one; an average over all common frames would mix in the older, longer steps and would move the published
//! pose by the new window's opinion of the past. What the windows disagree on at the other common stamps is reported
//! ([`Disagreement`]) instead of hidden in an average.
//!
//! Published poses are never changed. A window without a common stamp starts a new segment and says so; so does one whose
//! predecessors are not to be believed ([`Odometry::start_segment`]).

use std::collections::VecDeque;

use crate::frame::{Anchor, Camera, Odom, Transform};
use crate::stamp::{Stamp, Stamped};
use crate::trajectory::{WINDOW, WindowTrajectory};
use crate::units::Radians;

/// Published poses that are remembered as possible common frames.
const HISTORY: usize = 4 * WINDOW;

/// Stitches windows in the order in which they come.
#[derive(Clone, Debug, Default)]
pub struct Odometry {
    /// The last poses that were published, oldest first, stamps strictly increasing.
    history: VecDeque<Stamped<Transform<Odom, Camera>>>,
    reset_counter: u32,
    /// The next window starts a new segment, whatever it shares.
    is_cut: bool,
}

/// What one window added.
#[derive(Clone, Debug, PartialEq)]
pub struct Push {
    /// The new poses, oldest first; their stamps are later than all before. Empty where the window was refused.
    pub poses: Vec<Stamped<Transform<Odom, Camera>>>,
    /// How many breaks the trajectory has had: it grows by one at each new segment and each [`Odometry::reset`].
    pub reset_counter: u32,
    /// How the window was attached, or why not.
    pub outcome: Outcome,
}

/// How a window was attached, or why not.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// The first window: its anchor is the odometry's origin.
    Started,
    /// Attached at the latest common stamp.
    Continued {
        /// That stamp.
        common: Stamp,
        /// How many stamps are common.
        overlap: usize,
        /// What the windows disagree on at the other common stamps; `None` where there are no others.
        disagreement: Option<Disagreement>,
    },
    /// No common stamp, or a segment that [`Odometry::start_segment`] asked for. The motion in between is unknown and taken
    /// as none: the latest frame of the window that is not after the last published pose, or else its first, is put at
    /// that pose.
    NewSegment {
        /// From the last published pose to the window's first frame, nanoseconds; negative where they interleave.
        gap_nanos: i64,
    },
    /// The window ends at or before the last published pose. Nothing is published, nothing changes.
    StampsWentBack {
        /// The last published stamp.
        last: Stamp,
        /// The window's last stamp.
        got: Stamp,
    },
    /// The stamps of the window itself do not increase. Nothing is published, nothing changes.
    StampsNotIncreasing {
        /// The first frame, 1 to 4, whose stamp is not after the one before.
        index: usize,
    },
    /// A pose of the window is NaN or infinite. Nothing is published, nothing changes.
    NotFinite {
        /// The frame, 0 to 4.
        index: usize,
    },
}

/// The largest difference, over the common stamps, between a published pose and the new window's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Disagreement {
    /// Angle between the orientations.
    pub rotation: Radians,
    /// Distance between the camera centres, in scene units.
    pub translation: f64,
    /// What that distance is to be measured by: the longest way, in the opinion of either, between the camera at the
    /// latest common stamp and at another, in scene units.
    pub span: f64,
}

impl Odometry {
    /// An odometry without poses.
    pub fn new() -> Self {
        Self::default()
    }

    /// Attaches a window; `stamps[i]` is the time of its frame i.
    pub fn push(&mut self, stamps: &[Stamp; WINDOW], window: &WindowTrajectory) -> Push {
        if let Some(outcome) = self.refuse(stamps, window) {
            return self.answer(Vec::new(), outcome);
        }
        let (odom_from_anchor, outcome) = self.attach(stamps, window);
        let last = self.last().map(|last| last.stamp);
        let poses: Vec<_> = stamps
            .iter()
            .zip(window.anchor_from_camera())
            .filter(|(stamp, _)| last.is_none_or(|last| **stamp > last))
            .map(|(stamp, anchor_from_camera)| Stamped {
                stamp: *stamp,
                value: (odom_from_anchor * *anchor_from_camera).renormalized(),
            })
            .collect();
        self.history.extend(&poses);
        let surplus = self.history.len().saturating_sub(HISTORY);
        self.history.drain(..surplus);
        self.answer(poses, outcome)
    }

    /// Forgets all poses: the next window starts at the origin again. Counts as a break.
    pub fn reset(&mut self) {
        self.history.clear();
        self.is_cut = false;
        self.reset_counter = self.reset_counter.wrapping_add(1);
    }

    /// Joins the next window to nothing: it starts a new segment ([`Outcome::NewSegment`]) even where it shares frames
    /// with published poses. An odometry without poses has nothing to break off from.
    pub fn start_segment(&mut self) {
        self.is_cut = true;
    }

    /// The last published pose.
    pub fn last(&self) -> Option<&Stamped<Transform<Odom, Camera>>> {
        self.history.back()
    }

    /// How many breaks the trajectory has had.
    pub fn reset_counter(&self) -> u32 {
        self.reset_counter
    }

    fn answer(&self, poses: Vec<Stamped<Transform<Odom, Camera>>>, outcome: Outcome) -> Push {
        Push { poses, reset_counter: self.reset_counter, outcome }
    }

    fn refuse(&self, stamps: &[Stamp; WINDOW], window: &WindowTrajectory) -> Option<Outcome> {
        if let Some(index) = (1..WINDOW).find(|&k| stamps[k] <= stamps[k - 1]) {
            return Some(Outcome::StampsNotIncreasing { index });
        }
        if let Some(index) =
            window.anchor_from_camera().iter().position(|pose| pose.check_finite("pose of a window").is_err())
        {
            return Some(Outcome::NotFinite { index });
        }
        let last = self.last()?.stamp;
        let got = stamps[WINDOW - 1];
        (got <= last).then_some(Outcome::StampsWentBack { last, got })
    }

    fn attach(&mut self, stamps: &[Stamp; WINDOW], window: &WindowTrajectory) -> (Transform<Odom, Anchor>, Outcome) {
        let is_cut = std::mem::take(&mut self.is_cut);
        let Some(last) = self.last().copied() else {
            return (Transform::identity(), Outcome::Started);
        };
        let common: Vec<Common> = self
            .history
            .iter()
            .filter_map(|known| {
                let frame = stamps.iter().position(|stamp| *stamp == known.stamp)?;
                Some((*known, window.anchor_from_camera()[frame]))
            })
            .collect();
        if let Some(((known, anchor_from_camera), others)) = common.split_last().filter(|_| !is_cut) {
            let odom_from_anchor = known.value * anchor_from_camera.inverse();
            let outcome = Outcome::Continued {
                common: known.stamp,
                overlap: common.len(),
                disagreement: disagreement(&odom_from_anchor, known, others),
            };
            return (odom_from_anchor, outcome);
        }
        self.reset_counter = self.reset_counter.wrapping_add(1);
        // Poses of another segment are no opinion on this one.
        self.history.drain(..self.history.len() - 1);
        let frame = stamps.iter().rposition(|stamp| *stamp <= last.stamp).unwrap_or(0);
        (
            last.value * window.anchor_from_camera()[frame].inverse(),
            Outcome::NewSegment { gap_nanos: stamps[0].nanos_since(last.stamp) },
        )
    }
}

/// A published pose and the new window's pose at the same stamp.
type Common = (Stamped<Transform<Odom, Camera>>, Transform<Anchor, Camera>);

fn disagreement(
    odom_from_anchor: &Transform<Odom, Anchor>,
    latest: &Stamped<Transform<Odom, Camera>>,
    others: &[Common],
) -> Option<Disagreement> {
    let way = |pose: &Transform<Odom, Camera>| (pose.translation() - latest.value.translation()).norm();
    let differences = others.iter().map(|(known, anchor_from_camera)| {
        let odom_from_camera = *odom_from_anchor * *anchor_from_camera;
        let difference = known.value.inverse() * odom_from_camera;
        Disagreement {
            rotation: Radians(difference.rotation().angle()),
            translation: difference.translation().norm(),
            span: way(&known.value).max(way(&odom_from_camera)),
        }
    });
    differences.reduce(|a, b| Disagreement {
        rotation: Radians(a.rotation.0.max(b.rotation.0)),
        translation: a.translation.max(b.translation),
        span: a.span.max(b.span),
    })
}
