//! Kabsch and Umeyama: recovery, degenerate clouds, mirrors.

use crate::common::{cloud, distance, isometry, rotation, vector};
use geometry::{Error, RANK_RATIO, kabsch, singular_ratio, umeyama};
use nalgebra::{Isometry3, Point3, Vector3};
use proptest::prelude::*;

fn moved(points: &[Point3<f64>], isometry: &Isometry3<f64>) -> Vec<Point3<f64>> {
    points.iter().map(|point| isometry * point).collect()
}

/// Clouds that are clearly not collinear.
fn spread(points: &[Point3<f64>]) -> bool {
    singular_ratio(points).unwrap() > 0.05
}

fn residual(motion: &Isometry3<f64>, from: &[Point3<f64>], to: &[Point3<f64>]) -> f64 {
    from.iter().zip(to).map(|(a, b)| (motion * a - b).norm_squared()).sum()
}

proptest! {
    #[test]
    fn kabsch_recovers_an_isometry(points in cloud(5), motion in isometry()) {
        prop_assume!(spread(&points));
        let found = kabsch(&points, &moved(&points, &motion)).unwrap();
        prop_assert!(distance(&found, &motion) < 1e-9);
    }

    #[test]
    fn kabsch_recovers_an_isometry_of_a_plane(points in cloud(4), tilt in isometry(), motion in isometry()) {
        let flat: Vec<_> = points.iter().map(|p| tilt * Point3::new(p.x, p.y, 0.0)).collect();
        prop_assume!(spread(&flat));
        let found = kabsch(&flat, &moved(&flat, &motion)).unwrap();
        prop_assert!(distance(&found, &motion) < 1e-9);
    }

    #[test]
    fn a_thin_cloud_keeps_its_precision(points in cloud(5), motion in isometry()) {
        // Four times the smallest width that is accepted.
        let thin: Vec<_> = points.iter().map(|p| Point3::new(p.x, 4e-3 * p.y, 0.0)).collect();
        let ratio = singular_ratio(&thin).unwrap();
        prop_assume!(ratio > 1.1 * RANK_RATIO);
        let found = kabsch(&thin, &moved(&thin, &motion)).unwrap();
        prop_assert!(distance(&found, &motion) < 1e-7, "{}", distance(&found, &motion));
    }

    #[test]
    fn collinear_clouds_are_refused(
        along in vector(1.0),
        start in vector(3.0),
        steps in prop::array::uniform5(-2.0..2.0_f64),
        other in cloud(5),
    ) {
        let line: Vec<_> = steps.iter().map(|s| Point3::from(start + along * *s)).collect();
        for (from, to) in [(&line, &other), (&other, &line), (&line, &line)] {
            let refused = matches!(kabsch(from, to), Err(Error::Degenerate { .. }));
            prop_assert!(refused, "{:?}", kabsch(from, to));
            prop_assert!(umeyama(from, to).is_err());
        }
    }

    #[test]
    fn a_mirrored_cloud_gives_the_best_rotation(points in cloud(6), motion in isometry(), step in rotation(0.3)) {
        prop_assume!(spread(&points));
        let mirrored: Vec<_> = points.iter().map(|p| motion * Point3::new(p.x, p.y, -p.z)).collect();
        let Ok(found) = kabsch(&points, &mirrored) else { return Ok(()) };
        let r = found.rotation.to_rotation_matrix();
        prop_assert!((r.matrix().determinant() - 1.0).abs() < 1e-12);
        prop_assert!((r.matrix().transpose() * r.matrix() - nalgebra::Matrix3::identity()).norm() < 1e-12);
        // No neighbour about the common centre is better.
        let mean = points.iter().map(|p| p.coords).sum::<Vector3<f64>>() / 6.0;
        let turned = Isometry3::from_parts(
            (found * Point3::from(mean) - (step * found.rotation * mean)).coords.into(),
            step * found.rotation,
        );
        prop_assert!(residual(&found, &points, &mirrored) <= residual(&turned, &points, &mirrored) + 1e-9);
    }

    #[test]
    fn umeyama_recovers_a_similarity(points in cloud(5), motion in isometry(), scale in 0.01..50.0_f64) {
        prop_assume!(spread(&points));
        let to: Vec<_> = points.iter().map(|p| Point3::from(scale * (motion.rotation * p.coords) + motion.translation.vector)).collect();
        let found = umeyama(&points, &to).unwrap();
        prop_assert!((found.scale / scale - 1.0).abs() < 1e-9);
        prop_assert!(found.rotation.angle_to(&motion.rotation) < 1e-9);
        for (p, q) in points.iter().zip(&to) {
            prop_assert!((found.transform_point(p) - q).norm() < 1e-8 * (1.0 + scale));
        }
    }

    #[test]
    fn singular_ratio_is_that_of_the_ellipsoid(exponent in -4.0..0.0_f64, motion in isometry()) {
        let width = 10.0_f64.powf(exponent);
        // The corners of a flat rhombus: singular values sqrt(2) and sqrt(2) width.
        let rhombus = [(1.0, 0.0), (-1.0, 0.0), (0.0, width), (0.0, -width)].map(|(x, y)| motion * Point3::new(x, y, 0.0));
        prop_assert!((singular_ratio(&rhombus).unwrap() / width - 1.0).abs() < 1e-9);
        prop_assert_eq!(kabsch(&rhombus, &rhombus).is_ok(), width > RANK_RATIO);
    }
}

#[test]
fn what_does_not_determine_a_rotation_is_refused() {
    let triangle = [Point3::origin(), Point3::new(1.0, 0.0, 0.0), Point3::new(0.0, 1.0, 0.0)];
    assert!(kabsch(&triangle, &triangle).is_ok());
    assert!(matches!(kabsch(&triangle, &triangle[..2]), Err(Error::Length { expected: 3, got: 2, .. })));
    assert!(matches!(kabsch(&triangle[..2], &triangle[..2]), Err(Error::TooFew { expected: 3, got: 2, .. })));
    assert!(matches!(kabsch(&[], &[]), Err(Error::TooFew { .. })));
    let mut bad = triangle;
    bad[1].y = f64::NAN;
    assert!(matches!(kabsch(&bad, &triangle), Err(Error::NotFinite { .. })));
    assert!(matches!(kabsch(&triangle, &bad), Err(Error::NotFinite { .. })));
    let same = [Point3::new(3.0, 0.1, 7.7); 5];
    assert!(matches!(kabsch(&same, &same), Err(Error::Degenerate { got, .. }) if got == 0.0));
}
