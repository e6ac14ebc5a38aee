//! What makes steps in a unit of their own metres: of the tracks ([`crate::fused`]), or of another program's poses
//! ([`crate::followed`]).

use geometry::Stamp;
use nalgebra::{Matrix3, Point3, Vector3};

use crate::lever::Lever;
use crate::scale::{Applied, Belief, Biases, Scale, Source, UNTOLD_SIGMA};
use crate::ways::Ways;

/// The unit: what is known of it, and what was made with it.
#[derive(Clone, Debug)]
pub(crate) struct Metric {
    /// Metres for a unit, by all that tells it.
    pub scale: Scale,
    /// The scale that steps are made with.
    applied: Applied,
    lever: Lever,
    /// In this unit.
    ways: Ways,
    /// Since when a source of the scale is waited for.
    waiting: Option<Stamp>,
}

impl Metric {
    /// Before the first step.
    pub fn new(biases: Biases) -> Self {
        Self {
            scale: Scale::new(biases),
            applied: Applied::default(),
            lever: Lever::default(),
            ways: Ways::default(),
            waiting: None,
        }
    }

    /// Another unit begins, which follows from the last one roughly.
    pub fn begin_segment(&mut self) {
        self.leave_unit();
        self.scale.begin_segment();
    }

    /// Another unit begins, of which nothing is known.
    pub fn forget(&mut self) {
        self.leave_unit();
        self.scale.forget();
    }

    /// As [`Self::forget`], and stamps of before cannot be compared.
    pub fn cut(&mut self) {
        self.forget();
        (self.applied, self.waiting) = (Applied::default(), None);
    }

    fn leave_unit(&mut self) {
        self.lever.begin_unit(self.scale.belief().as_ref());
        self.ways = Ways::default();
    }

    /// Metres for a unit, as the last step was made; `None` before the first.
    pub fn metres(&self) -> Option<f64> {
        self.applied.metres()
    }

    /// The scale of the next step, with how far that may be off; `None` before anything is known.
    pub fn choose(&mut self) -> Option<Belief> {
        self.scale.belief().map(|known| self.applied.choose(&known))
    }

    /// Adds a place in the unit, to be held against another odometry.
    pub fn pass(&mut self, stamp: Stamp, at: Vector3<f64>) {
        self.ways.push(stamp, at);
    }

    /// Reads the scale off the way since the last reading, where the other odometry knows it and it is as long as
    /// `least_metres`. `position` is where that one had the camera at a stamp, metres.
    pub fn measure(&mut self, position: &dyn Fn(Stamp) -> Option<Point3<f64>>, least_metres: f64) {
        if let Some((log, noise)) = self.ways.read(position, least_metres) {
            self.scale.take(Source::Odometry, log, noise);
        }
    }

    /// Whether a source may still come that tells more than `sigma`, before the first way is told.
    pub fn is_to_wait(&mut self, stamp: Stamp, sigma: f64, patience_nanos: i64) -> bool {
        sigma > UNTOLD_SIGMA && {
            let since = *self.waiting.get_or_insert(stamp);
            stamp.nanos_since(since) < patience_nanos
        }
    }

    /// Adds a step in metres, and the scale that it was made with.
    pub fn step(&mut self, step: &Vector3<f64>, scale: Option<&Belief>) {
        self.lever.step(step, scale.map_or(0.0, |scale| scale.log));
    }

    /// What a wrong scale adds to the covariance of the position, by what is known of it now.
    pub fn covariance(&self) -> Matrix3<f64> {
        self.lever.covariance(self.scale.belief().as_ref())
    }
}

#[cfg(test)]
mod tests {
    use geometry::Stamp;
    use nalgebra::{Point3, Vector3};

    use super::Metric;
    use crate::scale::{Biases, Source};

    type End = fn(&mut Metric);

    fn at(seconds: i64) -> Stamp {
        Stamp::from_nanos(seconds * 1_000_000_000)
    }

    /// A metre along x, of which the odometry that gives the scale says two.
    fn walked() -> Metric {
        let mut metric = Metric::new(Biases::default());
        metric.scale.expect(0.0, 1.0);
        let scale = metric.choose();
        metric.step(&Vector3::x(), scale.as_ref());
        (0..2).for_each(|i| metric.pass(at(i), Vector3::x() * i as f64));
        metric.measure(&|stamp| Some(Point3::new(2e-9 * stamp.nanos as f64, 0.0, 0.0)), 0.05);
        metric
    }

    #[test]
    fn a_unit_that_is_left_keeps_what_it_has_led_astray_and_nothing_else() {
        let mut metric = walked();
        assert!(metric.scale.has_read(Source::Odometry));
        assert!((metric.choose().unwrap().metres() - 2.0).abs() < 1e-2);
        let off = metric.covariance()[(0, 0)];
        // Half of the way is missing: its logarithm is 0.69.
        assert!((off.sqrt() - 0.69).abs() < 0.02, "{off}");
        let position = |stamp: Stamp| Some(Point3::new(9e-9 * stamp.nanos as f64, 0.0, 0.0));
        let ends: [(End, bool, bool); 3] =
            [(Metric::begin_segment, true, true), (Metric::forget, false, true), (Metric::cut, false, false)];
        for (end, is_expected, is_applied) in ends {
            let mut metric = walked();
            assert!(metric.is_to_wait(at(5), 1.0, 2) && metric.choose().is_some());
            end(&mut metric);
            assert!((metric.covariance()[(0, 0)] - off).abs() < 1e-12, "of before");
            assert_eq!(metric.scale.is_expected(), is_expected);
            assert_eq!(metric.metres().is_some(), is_applied);
            // Where nothing is applied any more the waiting begins anew.
            assert_eq!(metric.is_to_wait(at(9), 1.0, 2_000_000_000), !is_applied);
            // One end of a way is of the unit before.
            metric.pass(at(10), Vector3::x() * 5.0);
            metric.measure(&position, 0.05);
            assert!(!metric.scale.has_read(Source::Odometry));
        }
    }

    #[test]
    fn what_is_known_well_enough_is_not_waited_for() {
        let mut metric = walked();
        assert!(!metric.is_to_wait(at(0), 0.3, 2_000_000_000));
        assert!(metric.is_to_wait(at(1), 0.31, 2_000_000_000) && metric.is_to_wait(at(2), 0.31, 2_000_000_000));
        assert!(!metric.is_to_wait(at(3), 0.31, 2_000_000_000), "two seconds from when it was first asked");
        assert!(!metric.is_to_wait(at(4), 0.31, 0));
    }
}
