//! The one factor of scale that an estimator without lengths is given.

use geometry::{SceneScale, WindowErrors, WindowTrajectory};

/// Errors of an estimate whose translations are multiplied by the factor that brings its five camera centres nearest
/// to the true ones, in the frame of the anchor and by least squares; and that factor.
///
/// A factor below 0 would turn directions around, which no change of units does: it becomes 0, and the columns of
/// direction (TDE, and with it the AUCs) are those of the directions as given. An estimate that does not move has no
/// scale and stays as it is, with a factor of 1.
pub(super) fn errors(truth: &WindowTrajectory, estimate: &WindowTrajectory, scale: SceneScale) -> (WindowErrors, f64) {
    let dot = |a: &WindowTrajectory, b: &WindowTrajectory| -> f64 {
        let pairs = a.anchor_from_camera().iter().zip(b.anchor_from_camera());
        pairs.map(|(a, b)| a.translation().dot(&b.translation())).sum()
    };
    let square = dot(estimate, estimate);
    let factor = (dot(truth, estimate) / square).max(0.0);
    let size = (dot(truth, truth) / square).sqrt();
    if !(square > 0.0 && factor.is_finite() && size.is_finite()) {
        return (WindowErrors::new(truth, estimate, scale), 1.0);
    }
    let mut errors = WindowErrors::new(truth, &estimate.scaled(factor), scale);
    if factor <= 0.0 {
        // As long as the truth, so that the rule for estimates of no length does not see the unit.
        let given = WindowErrors::new(truth, &estimate.scaled(size), scale);
        errors.tde_deg = given.tde_deg;
        errors.tde_found_pairs = given.tde_found_pairs;
        errors.consecutive.tde_deg = given.consecutive.tde_deg;
        for (pair, given) in errors.pairs.iter_mut().zip(&given.pairs) {
            pair.tde_deg = given.tde_deg;
        }
    }
    (errors, factor)
}

#[cfg(test)]
mod tests {
    use super::errors;
    use geometry::{SceneScale, Transform, WINDOW, WindowErrors, WindowTrajectory};
    use nalgebra::{Isometry3, Vector3};

    const METRIC: SceneScale = SceneScale { metric: true, median_depth: None };

    fn truth() -> WindowTrajectory {
        WindowTrajectory::from_later(std::array::from_fn(|k| {
            let i = (k + 1) as f64;
            let (t, r) = (Vector3::new(0.1, 0.02 * i, -0.03), Vector3::new(0.0, 0.04, 0.01));
            Transform::from_isometry_unchecked(Isometry3::new(t * i, r * i))
        }))
    }

    #[test]
    fn a_scale_is_taken_back_and_directions_are_not_turned_around() {
        let truth = truth();
        let (scaled, factor) = errors(&truth, &truth.scaled(2e-7), METRIC);
        assert!((factor * 2e-7 - 1.0).abs() < 1e-9 && scaled.rte_rel.unwrap() < 1e-9, "{factor}");

        let (behind, factor) = errors(&truth, &truth.scaled(-3.0), METRIC);
        let given = WindowErrors::new(&truth, &truth.scaled(-1.0), METRIC);
        assert!(factor.abs() < 1e-12, "{factor}");
        assert!((behind.tde_deg.unwrap() - 180.0).abs() < 1e-6, "a wrong way is not forgiven: {behind:?}");
        assert_eq!((behind.tde_found_pairs, behind.still_pairs), (0, 0));
        assert!((behind.auc(30.0) - given.auc(30.0)).abs() < 1e-12);
        assert!((behind.rte_rel.unwrap() - 1.0).abs() < 1e-9, "no length is better than any: {behind:?}");
    }

    #[test]
    fn one_factor_does_not_mend_a_shape() {
        let truth = truth();
        let mut bent = truth;
        let mut last = *bent.anchor_from_camera()[WINDOW - 1].isometry();
        last.translation.vector *= 2.0;
        bent.later_mut()[WINDOW - 2] = Transform::from_isometry_unchecked(last);
        let (bent, factor) = errors(&truth, &bent, METRIC);
        assert!(factor > 0.5 && factor < 1.0 && bent.rte_rel.unwrap() > 0.1, "{factor} {bent:?}");
        let (still, factor) = errors(&truth, &WindowTrajectory::identity(), METRIC);
        assert!((factor - 1.0).abs() < 1e-12 && (still.tde_deg.unwrap() - 90.0).abs() < 1e-12, "{factor} {still:?}");
    }
}
