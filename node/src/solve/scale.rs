//! What a unit of the weights' translations is in metres, where the weights do not know: one camera alone cannot.
//!
//! Another odometry, of wheels for example, moves along while a window's frames are taken. Its positions at their stamps
//! and those of the answer are two paths through the same places: with `w_i` and `m_i` the lengths of their steps, the
//! window's scale is `sum w_i / sum m_i`, over the steps at both ends of which the other odometry is known. What counts is
//! the median over the last windows that moved far enough, so that one wrong answer, or wheels that slip once, change
//! nothing. It is kept while the robot stands and where the other odometry falls silent.
//!
//! Left out: the time by which the two may lag each other, and wheels that always slip.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use geometry::{Base, Odom, Stamp, Transform, WINDOW, WindowTrajectory};
use nalgebra::{Point3, Vector3};

use crate::config::{Mount, ScaleRules};
use crate::ros::message::OdometryMessage;
use crate::status::counters::Stats;

pub(crate) mod value;

pub use value::Scale;

/// Positions that are remembered: a minute of 200 a second, since a window is measured when its answer is there.
const REMEMBERED: usize = 12_000;
/// Between positions that are further apart in time nothing is interpolated.
const MAX_GAP_NANOS: i64 = 500_000_000;
/// A stamp that is further behind the newest says that the clock went back; one that is less so came late.
const CLOCK_WENT_BACK_NANOS: i64 = 1_000_000_000;
/// Windows that must be measured before their median counts: the fewest of which one may be wrong.
const LEAST_WINDOWS: usize = 3;

/// Where the camera was of late by another odometry, in that one's frame. The transport's thread adds to it, and the one
/// that the model is on asks; neither holds it for long.
#[derive(Debug, Default)]
pub struct Reference {
    /// What it comes on.
    topic: String,
    /// The camera on the body whose odometry it is, metres. Where it is not known the body stands for the camera, which
    /// is wrong where the robot turns.
    camera_in_base: Option<Point3<f64>>,
    path: Mutex<Path>,
}

/// Positions in the order of their stamps, which strictly increase.
type Path = VecDeque<(Stamp, Point3<f64>)>;

impl Reference {
    /// Before the first message on `topic`.
    pub fn new(mount: Option<&Mount>, topic: &str) -> Self {
        let camera_in_base = mount.map(|mount| mount.base_from_camera.origin());
        Self { topic: topic.to_owned(), camera_in_base, path: Mutex::default() }
    }

    /// Takes a message and counts it.
    pub fn take(&self, odometry: &OdometryMessage, stats: &Stats) {
        let refused = self.push(odometry).err();
        stats.update(|s| {
            s.odometry_received += 1;
            if let Some(reason) = refused {
                s.odometry_refused += 1;
                s.odometry_problem = Some(format!("odometry at {} ns: {reason}", odometry.pose.stamp.nanos));
            }
        });
    }

    /// Adds a position; an error is why it is none that can be used.
    fn push(&self, odometry: &OdometryMessage) -> Result<(), String> {
        let pose = &odometry.pose;
        let position = Vector3::from(pose.position);
        let camera = match self.camera_in_base {
            None => Point3::from(position),
            Some(camera_in_base) => {
                let odom_from_base = Transform::<Odom, Base>::from_xyzw(pose.orientation_xyzw, &position);
                odom_from_base.map_err(|e| e.to_string())?.transform_point(&camera_in_base)
            }
        };
        if !camera.iter().all(|v| v.is_finite()) {
            return Err(format!("expected a finite position, got {:?}", pose.position));
        }
        let mut path = self.lock();
        if let Some((newest, _)) = path.back() {
            let step = pose.stamp.nanos_since(*newest);
            if step < -CLOCK_WENT_BACK_NANOS {
                path.clear();
            } else if step <= 0 {
                return Err(format!("expected a stamp behind {} ns", newest.nanos));
            }
        }
        if path.len() == REMEMBERED {
            path.pop_front();
        }
        path.push_back((pose.stamp, camera));
        Ok(())
    }

    /// Where the camera was at a stamp, metres; `None` where that is not known.
    pub fn position(&self, stamp: Stamp) -> Option<Point3<f64>> {
        interpolated(&self.lock(), stamp)
    }

    /// Where the camera was at each stamp, where that is known.
    fn at(&self, stamps: &[Stamp; WINDOW]) -> [Option<Point3<f64>>; WINDOW] {
        let path = self.lock();
        stamps.map(|stamp| interpolated(&path, stamp))
    }

    fn lock(&self) -> MutexGuard<'_, Path> {
        // A position is whole or not there.
        self.path.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// On the line between the positions before and behind it.
fn interpolated(path: &Path, stamp: Stamp) -> Option<Point3<f64>> {
    let next = path.partition_point(|(known, _)| *known < stamp);
    let (after, there) = *path.get(next)?;
    if after == stamp {
        return Some(there);
    }
    let (before, here) = *path.get(next.checked_sub(1)?)?;
    let gap = after.nanos_since(before);
    let share = stamp.nanos_since(before) as f64 / gap as f64;
    (gap <= MAX_GAP_NANOS).then(|| here + (there - here) * share)
}

/// Says for each window what its translations are to be multiplied by.
#[derive(Debug)]
pub struct Scaler {
    rules: ScaleRules,
    reference: Arc<Reference>,
    /// Scales of the last windows that could be measured, oldest first.
    measured: VecDeque<f64>,
}

impl Scaler {
    /// Before the first window.
    pub fn new(rules: ScaleRules, reference: Arc<Reference>) -> Self {
        Self { rules, reference, measured: VecDeque::new() }
    }

    /// What translations come out in.
    pub fn scale(&self) -> Scale {
        match self.rules {
            ScaleRules::Metric => Scale::Metric,
            ScaleRules::Arbitrary => Scale::Arbitrary,
            ScaleRules::Measured { windows, .. } => {
                if self.measured.len() < LEAST_WINDOWS.min(windows) {
                    Scale::Unknown
                } else {
                    Scale::Measured(median(&self.measured))
                }
            }
        }
    }

    /// Takes an answer for frames of these stamps, and returns the factor for its translations.
    ///
    /// # Errors
    /// Why there is none yet.
    pub fn take(&mut self, stamps: &[Stamp; WINDOW], trajectory: &WindowTrajectory) -> Result<f64, String> {
        let ScaleRules::Measured { least_motion_metres, windows } = self.rules else { return Ok(1.0) };
        let measured = measure(&self.reference.at(stamps), trajectory, least_motion_metres);
        if let Ok(scale) = measured {
            if self.measured.len() == windows {
                self.measured.pop_front();
            }
            self.measured.push_back(scale);
        }
        self.known(measured.err().as_deref())
    }

    /// The factor as it stands, for an answer that measures nothing; `reason` is why.
    ///
    /// # Errors
    /// Why there is none yet.
    pub fn known(&self, reason: Option<&str>) -> Result<f64, String> {
        match (self.scale(), self.rules) {
            (Scale::Measured(scale), _) => Ok(scale),
            (Scale::Unknown, ScaleRules::Measured { windows, .. }) => {
                let (known, least) = (self.measured.len(), LEAST_WINDOWS.min(windows));
                let last = reason.map(|reason| format!(", the last: {reason}")).unwrap_or_default();
                let topic = &self.reference.topic;
                Err(format!("waiting for the scale from {topic}: {known} of {least} windows measured{last}"))
            }
            _ => Ok(1.0),
        }
    }
}

/// Metres for a unit of the answer.
fn measure(
    reference: &[Option<Point3<f64>>; WINDOW],
    trajectory: &WindowTrajectory,
    least_motion_metres: f64,
) -> Result<f64, String> {
    let (mut metres, mut units) = (0.0, 0.0);
    let mut is_covered = false;
    for i in 1..WINDOW {
        if let (Some(from), Some(to)) = (reference[i - 1], reference[i]) {
            metres += (to - from).norm();
            units += trajectory.relative(i - 1, i).translation().norm();
            is_covered = true;
        }
    }
    if !is_covered {
        return Err("no odometry at the stamps of the frames".to_owned());
    }
    if metres < least_motion_metres {
        return Err(format!("expected a motion of {least_motion_metres} m at least, the odometry has {metres:.3}"));
    }
    let scale = metres / units;
    if scale.is_finite() && scale > 0.0 {
        Ok(scale)
    } else {
        Err(format!("the odometry has moved by {metres:.3} m, the answer by {units:.3}"))
    }
}

/// Of at least one.
fn median(values: &VecDeque<f64>) -> f64 {
    let mut sorted: Vec<f64> = values.iter().copied().collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let upper = sorted.len() / 2;
    let lower = (sorted.len() - 1) / 2;
    (sorted[lower] + sorted[upper]) / 2.0
}

#[cfg(test)]
mod tests;
