//! How far a wrong scale has led a path astray.
//!
//! Published steps are never rescaled. What becomes known of the scale later says how wrong they were made, and that they
//! all share what is still unknown of it: the longer the way from where the unit began, the further a pose may be off along it.

use nalgebra::{Matrix3, Vector3};

use crate::scale::Belief;

/// The steps since a unit began.
#[derive(Clone, Debug)]
pub(crate) struct Lever {
    /// Their sum, metres as they were made.
    way: Vector3<f64>,
    /// Their sum, each with the logarithm of the scale that it was made with.
    made: Vector3<f64>,
    /// What earlier units have left.
    before: Matrix3<f64>,
}

impl Default for Lever {
    fn default() -> Self {
        Self { way: Vector3::zeros(), made: Vector3::zeros(), before: Matrix3::zeros() }
    }
}

impl Lever {
    /// Adds a step, made with a scale of this logarithm.
    pub fn step(&mut self, step: &Vector3<f64>, log: f64) {
        self.way += step;
        self.made += step * log;
    }

    /// Another unit begins, when so much is known of the last.
    pub fn begin_unit(&mut self, known: Option<&Belief>) {
        *self = Self { before: self.covariance(known), ..Self::default() };
    }

    /// Covariance of the position, as of what is known of the scale now.
    pub fn covariance(&self, known: Option<&Belief>) -> Matrix3<f64> {
        let Some(known) = known else { return self.before };
        let off = self.made - self.way * known.log;
        let unknown = self.way * known.sigma;
        self.before + off * off.transpose() + unknown * unknown.transpose()
    }
}

#[cfg(test)]
mod tests {
    use nalgebra::Vector3;

    use super::Lever;
    use crate::scale::Belief;

    fn known(log: f64, sigma: f64) -> Belief {
        Belief { log, sigma, source: None }
    }

    #[test]
    fn what_becomes_known_later_counts_for_steps_that_were_made_before() {
        let mut lever = Lever::default();
        (0..10).for_each(|_| lever.step(&Vector3::new(0.1, 0.0, 0.0), 0.3));
        let along = |known: &Belief| lever.covariance(Some(known))[(0, 0)].sqrt();
        // A metre, as unsure as the scale.
        assert!((along(&known(0.3, 0.2)) - 0.2).abs() < 1e-12);
        // It was right, as it turns out; or a tenth too long.
        assert!((along(&known(0.3, 0.01)) - 0.01).abs() < 1e-12);
        assert!((along(&known(0.2, 0.0)) - 0.1).abs() < 1e-12);
        assert!(lever.covariance(Some(&known(0.2, 0.1)))[(1, 1)].abs() < 1e-12);
    }

    #[test]
    fn there_and_back_is_nowhere_and_another_unit_knows_nothing_of_the_last() {
        let mut lever = Lever::default();
        lever.step(&Vector3::new(1.0, 0.0, 0.0), 0.0);
        lever.begin_unit(Some(&known(0.0, 0.1)));
        lever.step(&Vector3::new(0.0, 1.0, 0.0), 0.5);
        let covariance = lever.covariance(Some(&known(0.5, 0.2)));
        assert!((covariance[(0, 0)] - 0.01).abs() < 1e-12 && (covariance[(1, 1)] - 0.04).abs() < 1e-12);
        lever.step(&Vector3::new(0.0, -1.0, 0.0), 0.5);
        assert!(lever.covariance(Some(&known(0.5, 0.2)))[(1, 1)].abs() < 1e-12);
    }
}
