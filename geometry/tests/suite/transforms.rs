//! SE(3): composition, inversion, and what is taken for a rotation.

use crate::common::{distance, rotation, transform, vector};
use geometry::{Anchor, Camera, Error, Odom, Transform, World, nearest_rotation};
use nalgebra::{Matrix3, Point3, UnitQuaternion, Vector3};
use proptest::prelude::*;

proptest! {
    #[test]
    fn inverse_undoes(
        world_from_camera in transform::<World, Camera>(),
        point in vector(5.0),
    ) {
        let identity = world_from_camera.inverse() * world_from_camera;
        prop_assert!(distance(identity.isometry(), Transform::<Camera, Camera>::identity().isometry()) < 1e-12);
        let point = Point3::from(point);
        let back = world_from_camera.inverse().transform_point(&world_from_camera.transform_point(&point));
        prop_assert!((back - point).norm() < 1e-12);
    }

    #[test]
    fn a_product_is_one_after_the_other(
        odom_from_anchor in transform::<Odom, Anchor>(),
        anchor_from_camera in transform::<Anchor, Camera>(),
        point in vector(5.0),
    ) {
        let point = Point3::from(point);
        let odom_from_camera = odom_from_anchor * anchor_from_camera;
        let steps = odom_from_anchor.transform_point(&anchor_from_camera.transform_point(&point));
        prop_assert!((odom_from_camera.transform_point(&point) - steps).norm() < 1e-12);
        let v = point.coords;
        let steps = odom_from_anchor.transform_vector(&anchor_from_camera.transform_vector(&v));
        prop_assert!((odom_from_camera.transform_vector(&v) - steps).norm() < 1e-12);
    }

    #[test]
    fn matrix_and_quaternions_round_trip(pose in transform::<World, Camera>()) {
        let t = pose.translation();
        for back in [
            Transform::<World, Camera>::from_matrix_row_major(&pose.to_matrix_row_major()).unwrap(),
            Transform::from_rotation_translation(&pose.rotation_matrix(), &t).unwrap(),
            Transform::from_xyzw(pose.to_xyzw(), &t).unwrap(),
            Transform::from_wxyz(pose.to_wxyz(), &t).unwrap(),
        ] {
            prop_assert!(distance(pose.isometry(), back.isometry()) < 1e-12);
        }
    }

    #[test]
    fn nearest_rotation_is_nearer_than_its_neighbours(
        noise in prop::array::uniform9(-0.4..0.4_f64),
        start in rotation(3.0),
        step in rotation(0.1),
    ) {
        let matrix = start.to_rotation_matrix().into_inner() + Matrix3::from_row_slice(&noise);
        let nearest = nearest_rotation(&matrix).unwrap();
        prop_assert!((nearest.to_rotation_matrix().matrix().determinant() - 1.0).abs() < 1e-12);
        let off = |r: UnitQuaternion<f64>| (r.to_rotation_matrix().into_inner() - matrix).norm();
        prop_assert!(off(nearest) <= off(step * nearest) + 1e-12);
        prop_assert!(off(nearest) <= off(start) + 1e-12);
    }
}

#[test]
fn quaternion_orders_are_what_they_say() {
    // A quarter turn about z takes x to y.
    let half = std::f64::consts::FRAC_1_SQRT_2;
    let t = Vector3::new(1.0, 2.0, 3.0);
    #[rustfmt::skip]
    let quarter_turn = [
        0.0, -1.0, 0.0, 1.0,
        1.0, 0.0, 0.0, 2.0,
        0.0, 0.0, 1.0, 3.0,
        0.0, 0.0, 0.0, 1.0,
    ];
    for pose in [
        Transform::<World, Camera>::from_xyzw([0.0, 0.0, half, half], &t).unwrap(),
        Transform::<World, Camera>::from_wxyz([half, 0.0, 0.0, half], &t).unwrap(),
        Transform::from_matrix_row_major(&quarter_turn).unwrap(),
    ] {
        let moved = pose.transform_point(&Point3::new(1.0, 0.0, 0.0));
        assert!((moved - Point3::new(1.0, 3.0, 3.0)).norm() < 1e-12, "{pose:?}");
        assert!((pose.to_xyzw()[2].abs() - half).abs() < 1e-12);
    }
}

#[test]
fn what_is_no_rotation_is_refused() {
    let t = Vector3::zeros();
    let check = |matrix: Matrix3<f64>| Transform::<World, Camera>::from_rotation_translation(&matrix, &t);
    // Norm of R^T R - I for (1 + e) I is about 2 sqrt(3) e.
    assert!(check(Matrix3::identity() * 1.0028).is_ok());
    assert!(matches!(check(Matrix3::identity() * 1.003), Err(Error::NotRotation { .. })));
    let mirror = Matrix3::from_diagonal(&Vector3::new(1.0, 1.0, -1.0));
    assert!(matches!(check(mirror), Err(Error::NotRotation { got, .. }) if got == -1.0));
    assert!(matches!(check(Matrix3::zeros()), Err(Error::NotRotation { .. })));
    assert!(matches!(check(Matrix3::repeat(f64::NAN)), Err(Error::NotFinite { .. })));
    let far = Vector3::new(0.0, f64::INFINITY, 0.0);
    assert!(matches!(
        Transform::<World, Camera>::from_rotation_translation(&Matrix3::identity(), &far),
        Err(Error::NotFinite { .. })
    ));
    let mut matrix = Transform::<World, Camera>::identity().to_matrix_row_major();
    matrix[12] = 1e-3;
    assert!(matches!(
        Transform::<World, Camera>::from_matrix_row_major(&matrix),
        Err(Error::LastRow { got }) if got[0] == 1e-3
    ));
    assert!(matches!(
        Transform::<World, Camera>::from_xyzw([0.0, 0.0, 0.0, 0.98], &t),
        Err(Error::QuaternionNorm { .. })
    ));
    assert!(nearest_rotation(&Matrix3::repeat(1.0)).is_err());
}

#[test]
fn a_rounded_matrix_becomes_the_nearest_rotation() {
    let rotation = UnitQuaternion::from_euler_angles(0.3, -0.2, 1.0);
    let rounded = rotation.to_rotation_matrix().matrix().map(|x: f64| (x * 1e3).round() / 1e3);
    let pose = Transform::<World, Camera>::from_rotation_translation(&rounded, &Vector3::zeros()).unwrap();
    assert!(pose.rotation().angle_to(&rotation) < 1e-3);
    let r = pose.rotation_matrix();
    assert!((r.transpose() * r - Matrix3::identity()).norm() < 1e-14);
}

#[test]
fn debug_names_the_frames() {
    let text = format!("{:?}", Transform::<Odom, Camera>::identity());
    assert!(text.starts_with("Odom_from_Camera"), "{text}");
}
