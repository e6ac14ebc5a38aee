//! How sure a pose of the odometry is.
//!
//! A pose hangs on the one at which its window joins the odometry, which is not sure itself: with `l` the way from there,
//! in the odometry's axes, an error `(t, r)` of the earlier pose becomes `(t + r x l, r)` (first order, errors on the left:
//! the form of `nav_msgs/Odometry`). The window's own error is added, the same in all directions, of the size that the
//! config says for so many frames, times the widening that the checks ask for. Where the model states how sure its positions
//! are, the larger of the two sizes counts: what it says of itself may make a pose less sure, and never surer.

use std::collections::VecDeque;

use geometry::{Outcome, Push, Stamp, WINDOW};
use nalgebra::{Matrix6, Vector3, Vector6};

use crate::config::Covariance;

/// Poses that are remembered: as many as the odometry may join a window to.
const HISTORY: usize = 4 * WINDOW;

/// Covariances along the odometry.
#[derive(Debug)]
pub struct Drift {
    rules: Covariance,
    /// Oldest first.
    history: VecDeque<Known>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    stamp: Stamp,
    /// In the odometry's frame.
    position: Vector3<f64>,
    /// Order x y z rotation-x rotation-y rotation-z, about the odometry's axes.
    covariance: Matrix6<f64>,
}

impl Drift {
    /// Before the first pose.
    pub fn new(rules: Covariance) -> Self {
        Self { rules, history: VecDeque::new() }
    }

    /// Adds by other rules from the next window on.
    pub fn set_rules(&mut self, rules: Covariance) {
        self.rules = rules;
    }

    /// The covariances of the poses of `push`, which came of a window of these stamps: row-major 6x6 each, order x y z
    /// rotation-x rotation-y rotation-z about the odometry's axes, metres and radians. None is zero, which in ROS means
    /// that it is not known. `scale` is what the window's positions were multiplied by, and so is what the config says of
    /// them; what it says of breaks is metres. `stated` are the standard deviations that the model states of frames 1 to 4,
    /// before the scale.
    pub fn extend(
        &mut self,
        stamps: &[Stamp; WINDOW],
        push: &Push,
        widening: f64,
        scale: f64,
        stated: Option<&[f64; WINDOW - 1]>,
    ) -> Vec<[f64; 36]> {
        let (join, frame) = self.join(stamps, &push.outcome);
        let mut all = Vec::with_capacity(push.poses.len());
        for pose in &push.poses {
            // The frame at the join is as unsure as the one behind it.
            let place = stamps.iter().position(|stamp| *stamp == pose.stamp).unwrap_or(frame);
            let steps = place.saturating_sub(frame).max(1);
            let position = pose.value.translation();
            let way = position - join.position;
            let mut carried = Matrix6::<f64>::identity();
            carried.fixed_view_mut::<3, 3>(0, 3).copy_from(&-way.cross_matrix());
            let units = self.rules.position_stddev_metres[steps - 1].max(between(stated, frame, place));
            let metres = scale * widening * units;
            let radians = widening * self.rules.rotation_stddev_radians[steps - 1];
            let covariance = carried * join.covariance * carried.transpose() + of_stddevs(metres, radians);
            self.history.push_back(Known { stamp: pose.stamp, position, covariance });
            all.push(std::array::from_fn(|k| covariance[(k / 6, k % 6)]));
        }
        let surplus = self.history.len().saturating_sub(HISTORY);
        self.history.drain(..surplus);
        all
    }

    /// The pose that the window hangs on, and which of its frames is there.
    fn join(&self, stamps: &[Stamp; WINDOW], outcome: &Outcome) -> (Known, usize) {
        let last = self.history.back();
        if let Outcome::Continued { common, .. } = outcome {
            let known = self.history.iter().rev().find(|known| known.stamp == *common).or(last);
            let frame = stamps.iter().position(|stamp| stamp == common);
            if let (Some(known), Some(frame)) = (known, frame) {
                return (*known, frame);
            }
        }
        // The origin is sure by definition, unless something came before it.
        let mut join = Known { stamp: stamps[0], position: Vector3::zeros(), covariance: Matrix6::zeros() };
        let mut frame = 0;
        if let Some(last) = last {
            let rules = &self.rules;
            let unknown = of_stddevs(rules.break_position_stddev_metres, rules.break_rotation_stddev_radians);
            join.covariance = last.covariance + unknown;
            if let Outcome::NewSegment { .. } = outcome {
                join.position = last.position;
                frame = stamps.iter().rposition(|stamp| *stamp <= last.stamp).unwrap_or(0);
            }
        }
        (join, frame)
    }
}

/// Standard deviation of the way between two frames of a window, metres, from what the model states of each, as if one knew
/// nothing of the other; 0 where it states nothing. The anchor is sure by definition.
fn between(stated: Option<&[f64; WINDOW - 1]>, a: usize, b: usize) -> f64 {
    let of = |frame: usize| stated.and_then(|all| all.get(frame.checked_sub(1)?)).copied().unwrap_or(0.0);
    if a == b { 0.0 } else { of(a).hypot(of(b)) }
}

fn of_stddevs(metres: f64, radians: f64) -> Matrix6<f64> {
    let (t, r) = (metres.powi(2), radians.powi(2));
    Matrix6::from_diagonal(&Vector6::new(t, t, t, r, r, r))
}

#[cfg(test)]
mod tests {
    use geometry::{Odometry, Stamp, Transform, WindowTrajectory};
    use nalgebra::Isometry3;

    use super::Drift;
    use crate::config::Covariance;

    const RULES: Covariance = Covariance {
        position_stddev_metres: [0.1, 0.2, 0.3, 0.4],
        rotation_stddev_radians: [0.01, 0.02, 0.03, 0.04],
        break_position_stddev_metres: 2.0,
        break_rotation_stddev_radians: 0.5,
    };

    fn stamps(first: i64) -> [Stamp; 5] {
        std::array::from_fn(|i| Stamp::from_nanos((first + i as i64) * 1000))
    }

    /// A metre along z a frame.
    fn walk() -> WindowTrajectory {
        WindowTrajectory::new(std::array::from_fn(|i| {
            Transform::from_isometry_unchecked(Isometry3::translation(0.0, 0.0, i as f64))
        }))
        .unwrap()
    }

    struct Rig {
        odometry: Odometry,
        drift: Drift,
    }

    impl Rig {
        fn new() -> Self {
            Self { odometry: Odometry::new(), drift: Drift::new(RULES) }
        }

        fn push(&mut self, first: i64, widening: f64) -> Vec<[f64; 36]> {
            self.push_with(first, widening, 1.0, None)
        }

        fn push_with(&mut self, first: i64, widening: f64, scale: f64, stated: Option<&[f64; 4]>) -> Vec<[f64; 36]> {
            let stamps = stamps(first);
            let push = self.odometry.push(&stamps, &walk().scaled(scale));
            self.drift.extend(&stamps, &push, widening, scale, stated)
        }
    }

    fn assert_close(got: f64, expected: f64) {
        assert!((got - expected).abs() < 1e-9, "expected {expected}, got {got}");
    }

    /// The entry of variance `axis`, of x y z rotation-x rotation-y rotation-z.
    fn variance(covariance: &[f64; 36], axis: usize) -> f64 {
        covariance[7 * axis]
    }

    #[test]
    fn the_first_window_is_as_unsure_as_the_config_says_for_each_frame() {
        let all = Rig::new().push(0, 1.0);
        assert_eq!(all.len(), 5);
        for (covariance, sigma) in all.iter().zip([1.0, 1.0, 2.0, 3.0, 4.0]) {
            for (k, got) in covariance.iter().enumerate() {
                let expected: f64 = match (k / 6, k % 6) {
                    (row, column) if row != column => 0.0,
                    (0..3, _) => 0.1 * sigma,
                    _ => 0.01 * sigma,
                };
                assert_close(*got, expected.powi(2));
            }
        }
    }

    #[test]
    fn windows_add_up_and_an_unsure_direction_moves_what_lies_ahead() {
        let mut rig = Rig::new();
        rig.push(0, 1.0);
        // Joined at frame 4; frame 8 is four metres and four frames on.
        let all = rig.push(4, 1.0);
        assert_eq!(all.len(), 4);
        let last = &all[3];
        assert_close(variance(last, 3), 2.0 * 0.04_f64.powi(2));
        assert_close(variance(last, 2), 2.0 * 0.4_f64.powi(2));
        // A turn about x or y by 0.04 is 0.16 m sideways after 4 m; one about z is none.
        assert_close(variance(last, 0), 2.0 * 0.4_f64.powi(2) + 0.16_f64.powi(2));
        assert_close(variance(last, 1), 2.0 * 0.4_f64.powi(2) + 0.16_f64.powi(2));
        // Turned about +y the way ahead, +z, goes to +x; about +x it goes to -y.
        assert_close(last[4], 4.0 * 0.04_f64.powi(2));
        assert_close(last[6 + 3], -4.0 * 0.04_f64.powi(2));
        for (row, column) in (0..6).flat_map(|row| (0..6).map(move |column| (row, column))) {
            assert_close(last[6 * row + column], last[6 * column + row]);
        }
    }

    #[test]
    fn widening_is_of_the_window_that_asks_for_it() {
        let mut rig = Rig::new();
        rig.push(0, 1.0);
        let all = rig.push(4, 3.0);
        assert_close(variance(&all[0], 3), 0.04_f64.powi(2) + (3.0 * 0.01_f64).powi(2));
        assert_close(variance(&all[3], 3), 0.04_f64.powi(2) + (3.0 * 0.04_f64).powi(2));
        // What joins behind it inherits it.
        let next = rig.push(5, 1.0);
        assert_eq!(next.len(), 1);
        assert_close(variance(&next[0], 3), variance(&all[3], 3) + 0.01_f64.powi(2));
    }

    #[test]
    fn what_is_scaled_is_as_unsure_in_its_own_units_and_turns_as_before() {
        for stated in [None, Some(&[0.01, 0.1, 0.6, 0.8])] {
            let (plain, scaled) =
                (Rig::new().push_with(0, 2.0, 1.0, stated), Rig::new().push_with(0, 2.0, 0.25, stated));
            for (plain, scaled) in plain.iter().zip(&scaled) {
                assert_close(variance(scaled, 2), variance(plain, 2) / 16.0);
                assert_close(variance(scaled, 4), variance(plain, 4));
            }
        }
    }

    #[test]
    fn what_the_model_states_widens_positions_and_never_narrows_them() {
        let mut rig = Rig::new();
        // Surer than the config at frames 1 and 2, less sure at 3 and 4.
        let all = rig.push_with(0, 2.0, 1.0, Some(&[0.01, 0.1, 0.6, 0.8]));
        for (covariance, sigma) in all.iter().zip([0.1, 0.1, 0.2, 0.6, 0.8]) {
            assert_close(variance(covariance, 0), (2.0_f64 * sigma).powi(2));
        }
        assert_close(variance(&all[4], 3), (2.0 * 0.04_f64).powi(2));
        // Frame 5 is one on from frame 4, where the window joins: both of its frames count.
        let next = rig.push_with(1, 1.0, 1.0, Some(&[0.0, 0.0, 0.3, 0.4]));
        assert_close(variance(&next[0], 2), variance(&all[4], 2) + 0.5_f64.powi(2));
    }

    #[test]
    fn a_break_adds_its_share_each_time_and_a_reset_too() {
        let mut rig = Rig::new();
        let first = variance(&rig.push(0, 1.0)[4], 3);
        let second = variance(&rig.push(10, 1.0)[4], 3);
        assert_close(second, first + 0.5_f64.powi(2) + 0.04_f64.powi(2));
        // Cut off although frames are shared: frame 14 is put at the last pose, frame 15 is one on.
        rig.odometry.start_segment();
        let all = rig.push(11, 1.0);
        assert_eq!(all.len(), 1);
        assert_close(variance(&all[0], 3), second + 0.5_f64.powi(2) + 0.01_f64.powi(2));
        // From the origin again, seen from where the first origin was.
        rig.odometry.reset();
        let all = rig.push(0, 1.0);
        assert_eq!(all.len(), 5);
        assert_close(variance(&all[4], 3), second + 2.0 * 0.5_f64.powi(2) + 0.01_f64.powi(2) + 0.04_f64.powi(2));
    }

    #[test]
    fn a_refused_window_adds_nothing() {
        let mut rig = Rig::new();
        rig.push(0, 1.0);
        assert!(rig.push(0, 1.0).is_empty());
        assert_close(variance(&rig.push(4, 1.0)[0], 3), 0.04_f64.powi(2) + 0.01_f64.powi(2));
    }
}
