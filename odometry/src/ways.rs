//! Ways between places, by the poses whose unit is asked for and by another odometry in metres.

use std::collections::VecDeque;

use geometry::Stamp;
use nalgebra::{Point3, Vector3};

/// Positions that are remembered, to be held against another odometry.
const REMEMBERED: usize = 512;
/// Noise of a way between two positions of another odometry: of its length, and of its ends, metres.
const ODOMETRY_NOISE: f64 = 0.02;
const ODOMETRY_NOISE_METRES: f64 = 0.002;
/// The least way that tells a scale before there is any reading, metres.
const FIRST_MOTION_METRES: f64 = 0.02;

/// Positions of one unit, in the order of their stamps, and how far they were held against the other odometry.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ways {
    path: VecDeque<(Stamp, Vector3<f64>)>,
    /// The end of the last way that was.
    measured: Option<Stamp>,
}

impl Ways {
    /// Adds a position; one that is not newer than the last changes nothing.
    pub fn push(&mut self, stamp: Stamp, at: Vector3<f64>) {
        if self.path.back().is_some_and(|(newest, _)| stamp <= *newest) {
            return;
        }
        if self.path.len() == REMEMBERED {
            self.path.pop_front();
        }
        self.path.push_back((stamp, at));
    }

    /// The way since the last reading: `log(metres / unit)` and its noise, where the other odometry knows both ends and it is as
    /// long as `least_metres`.
    pub fn read(&mut self, position: &dyn Fn(Stamp) -> Option<Point3<f64>>, least_metres: f64) -> Option<(f64, f64)> {
        let mut ends = self.path.iter().rev().filter_map(|(stamp, at)| Some((*stamp, *at, position(*stamp)?)));
        let (to_stamp, to, to_metres) = ends.next()?;
        let from = self.path.iter().filter(|(stamp, _)| self.measured.is_none_or(|last| *stamp >= last));
        let mut from = from.filter_map(|(stamp, at)| Some((*stamp, *at, position(*stamp)?)));
        let (from_stamp, from, from_metres) = from.next()?;
        let (metres, units) = ((to_metres - from_metres).norm(), (to - from).norm());
        let least = if self.measured.is_none() { FIRST_MOTION_METRES.min(least_metres) } else { least_metres };
        if !(to_stamp > from_stamp && metres >= least && units > 0.0) {
            return None;
        }
        self.measured = Some(to_stamp);
        Some(((metres / units).ln(), ODOMETRY_NOISE.hypot(ODOMETRY_NOISE_METRES / metres)))
    }
}
