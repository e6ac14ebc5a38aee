//! The pinhole camera and the epipolar geometry of two.

use crate::common::{isometry, vector};
use geometry::{Camera, Error, Intrinsics, Transform, World, epipolar};
use nalgebra::{Isometry3, Point2, Point3, UnitQuaternion, Vector3};
use proptest::prelude::*;

fn intrinsics() -> impl Strategy<Value = Intrinsics> {
    (100.0..900.0_f64, 100.0..900.0_f64, 200_u32..1300, 200_u32..1000, 0.3..0.7_f64, 0.3..0.7_f64).prop_map(
        |(fx, fy, width, height, x, y)| {
            Intrinsics::new(fx, fy, x * f64::from(width), y * f64::from(height), width, height).unwrap()
        },
    )
}

fn in_front() -> impl Strategy<Value = Point3<f64>> {
    (vector(1.0), 0.5..20.0_f64).prop_map(|(v, z)| Point3::new(v.x * z, v.y * z, z))
}

proptest! {
    #[test]
    fn back_projection_undoes_projection(k in intrinsics(), point in in_front()) {
        let pixel = k.project(&point).unwrap();
        prop_assert!((k.back_project(&pixel, point.z) - point).norm() < 1e-10);
        // The closed form and the matrices are the same map.
        let by_matrix = k.matrix() * point.coords;
        prop_assert!((by_matrix.xy() / by_matrix.z - pixel.coords).norm() < 1e-9);
        let ray = k.inverse_matrix() * pixel.to_homogeneous() * point.z;
        prop_assert!((ray - point.coords).norm() < 1e-10);
    }

    #[test]
    fn rescaling_there_and_back_changes_nothing(k in intrinsics(), width in 32_u32..2000, height in 32_u32..2000) {
        let back = k.rescale(width, height).rescale(k.width, k.height);
        for (a, b) in [(k.fx, back.fx), (k.fy, back.fy), (k.cx, back.cx), (k.cy, back.cy)] {
            prop_assert!((a - b).abs() < 1e-9);
        }
        prop_assert_eq!((k.width, k.height), (back.width, back.height));
    }

    #[test]
    fn rescaling_moves_pixels_about_the_corner(k in intrinsics(), point in in_front(), width in 32_u32..2000) {
        let height = k.height * 2;
        let before = k.project(&point).unwrap();
        let after = k.rescale(width, height).project(&point).unwrap();
        let s = f64::from(width) / f64::from(k.width);
        prop_assert!((after.x - ((before.x + 0.5) * s - 0.5)).abs() < 1e-8);
        prop_assert!((after.y - ((before.y + 0.5) * 2.0 - 0.5)).abs() < 1e-8);
        // A pixel is on the image before exactly where it is after, but for rounding at the border.
        let border = (before.x + 0.5).abs().min((before.x + 0.5 - f64::from(k.width)).abs())
            .min((before.y + 0.5).abs()).min((before.y + 0.5 - f64::from(k.height)).abs());
        prop_assume!(border > 1e-6);
        prop_assert_eq!(k.contains(&before), k.rescale(width, height).contains(&after));
    }

    #[test]
    fn matches_lie_on_epipolar_lines(
        k_a in intrinsics(),
        k_b in intrinsics(),
        point in in_front(),
        world_from_a in isometry(),
        turn in vector(0.2),
        baseline in vector(0.3),
        off in 0.5..20.0_f64,
    ) {
        prop_assume!(baseline.norm() > 0.05);
        let a_from_b = Isometry3::from_parts(baseline.into(), UnitQuaternion::from_scaled_axis(turn));
        let world_from_b = world_from_a * a_from_b;
        let point_in_b = a_from_b.inverse_transform_point(&point);
        prop_assume!(point_in_b.z > 0.1);
        let (pose_a, pose_b) = (
            Transform::<World, Camera>::from_isometry_unchecked(world_from_a),
            Transform::<World, Camera>::from_isometry_unchecked(world_from_b),
        );
        let f = epipolar::fundamental(&pose_a, &pose_b, &k_a, &k_b).unwrap();
        let (a, b) = (k_a.project(&point).unwrap(), k_b.project(&point_in_b).unwrap());
        let line = f * a.to_homogeneous();
        prop_assume!(line.xy().norm() > 1e-9);
        prop_assert!(epipolar::symmetric_distance(&f, &a, &b).unwrap() < 1e-4);
        // A pixel moved across its line is off by as much in b, and by something in a: half of it at least.
        let normal = line.xy() / line.xy().norm();
        let moved = Point2::from(b.coords + normal * off);
        prop_assert!(epipolar::symmetric_distance(&f, &a, &moved).unwrap() > 0.5 * off - 1e-4);
        // The order of the cameras does not matter.
        let swapped = epipolar::fundamental(&pose_b, &pose_a, &k_b, &k_a).unwrap();
        let there = epipolar::symmetric_distance(&f, &a, &moved).unwrap();
        let back = epipolar::symmetric_distance(&swapped, &moved, &a).unwrap();
        prop_assert!((there - back).abs() < 1e-6 * there.max(1.0));
    }

    #[test]
    fn rotation_alone_is_a_homography(k in intrinsics(), point in in_front(), turn in vector(0.2)) {
        let pose_a = Transform::<World, Camera>::identity();
        let turn = UnitQuaternion::from_scaled_axis(turn);
        let pose_b = Transform::from_isometry_unchecked(Isometry3::from_parts(Vector3::zeros().into(), turn));
        let point_in_b = turn.inverse() * point;
        prop_assume!(point_in_b.z > 0.1);
        let h = epipolar::rotation_homography(&pose_a, &pose_b, &k, &k);
        let (a, b) = (k.project(&point).unwrap(), k.project(&point_in_b).unwrap());
        prop_assert!(epipolar::symmetric_transfer_distance(&h, &a, &b).unwrap() < 1e-6);
        let moved = Point2::new(b.x + 3.0, b.y);
        prop_assert!(epipolar::symmetric_transfer_distance(&h, &a, &moved).unwrap() > 1.5 - 1e-6);
        let none = epipolar::fundamental(&pose_a, &pose_b, &k, &k);
        prop_assert!(matches!(none, Err(Error::NoBaseline { .. })), "{:?}", none);
    }
}

#[test]
fn a_sideways_baseline_has_horizontal_lines() {
    let k = Intrinsics::new(500.0, 500.0, 320.0, 240.0, 640, 480).unwrap();
    let pose_a = Transform::<World, Camera>::identity();
    let pose_b = Transform::from_isometry_unchecked(Isometry3::translation(0.2, 0.0, 0.0));
    let f = epipolar::fundamental(&pose_a, &pose_b, &k, &k).unwrap();
    let distance = |b| epipolar::symmetric_distance(&f, &Point2::new(100.0, 50.0), &b).unwrap();
    assert!(distance(Point2::new(70.0, 50.0)) < 1e-9);
    assert!((distance(Point2::new(70.0, 57.5)) - 7.5).abs() < 1e-9);
    let nan = Point2::new(f64::NAN, 0.0);
    assert_eq!(epipolar::symmetric_distance(&f, &nan, &nan), None);
}

#[test]
fn golden_pixel_and_rescale() {
    let k = Intrinsics::new(500.0, 400.0, 319.5, 239.5, 640, 480).unwrap();
    assert_eq!(k.project(&Point3::new(0.4, -0.2, 2.0)), Some(Point2::new(419.5, 199.5)));
    assert_eq!(k.project(&Point3::new(0.4, -0.2, 0.0)), None);
    assert_eq!(k.project(&Point3::new(0.4, -0.2, -2.0)), None);
    assert_eq!(k.project(&Point3::new(0.4, -0.2, f64::NAN)), None);
    // The centre of the image stays the centre.
    let half = k.rescale(320, 240);
    assert_eq!((half.fx, half.fy, half.cx, half.cy), (250.0, 200.0, 159.5, 119.5));
    let crop = k.crop(100, 20, 64, 48);
    assert!(crop.is_err(), "a principal point far outside: {crop:?}");
    let crop = k.crop(300, 220, 64, 48).unwrap();
    assert_eq!((crop.cx, crop.cy, crop.width), (19.5, 19.5, 64));
    for (u, v, inside) in [(-0.5, 0.0, true), (-0.51, 0.0, false), (639.49, 479.49, true), (639.5, 0.0, false)] {
        assert_eq!(k.contains(&Point2::new(u, v)), inside, "{u} {v}");
    }
}

#[test]
fn bad_intrinsics_name_their_field() {
    for (field, result) in [
        ("fx", Intrinsics::new(0.0, 1.0, 0.0, 0.0, 4, 4)),
        ("fy", Intrinsics::new(1.0, f64::NAN, 0.0, 0.0, 4, 4)),
        // Half of the first is zero, twice the second infinite.
        ("fy", Intrinsics::new(1.0, 5e-324, 0.0, 0.0, 4, 4)),
        ("fx", Intrinsics::new(f64::MAX, 1.0, 0.0, 0.0, 4, 4)),
        ("cx", Intrinsics::new(1.0, 1.0, 8.1, 0.0, 4, 4)),
        ("cy", Intrinsics::new(1.0, 1.0, 0.0, -4.1, 4, 4)),
        ("cy", Intrinsics::new(1.0, 1.0, 0.0, f64::NAN, 4, 4)),
        ("width", Intrinsics::new(1.0, 1.0, 0.0, 0.0, 0, 4)),
        ("height", Intrinsics::new(1.0, 1.0, 0.0, 0.0, 4, 0)),
    ] {
        match result {
            Err(Error::Intrinsics { field: got, .. }) => assert_eq!(field, got),
            other => panic!("{field}: {other:?}"),
        }
    }
}

#[test]
fn intrinsics_are_checked_when_deserialized() {
    let k = Intrinsics::new(500.0, 400.0, 319.5, 239.5, 640, 480).unwrap();
    let text = serde_json::to_string(&k).unwrap();
    assert_eq!(serde_json::from_str::<Intrinsics>(&text).unwrap(), k);
    let error = serde_json::from_str::<Intrinsics>(&text.replace("500.0", "0.0")).unwrap_err();
    assert!(error.to_string().contains("fx"), "{error}");
}

#[test]
fn a_matrix_of_another_size_is_not_plausible() {
    let camera = |f: f64, cx: f64, cy: f64| Intrinsics::new(f, f, cx, cy, 160, 120).unwrap();
    assert_eq!(camera(150.0, 79.5, 59.5).plausible().unwrap(), camera(150.0, 79.5, 59.5));
    assert!(camera(150.0, 40.0, 89.0).plausible().is_ok(), "a part near the middle");
    for (k, field) in [
        (camera(150.0, 18.0, 59.5), "cx"),
        (camera(150.0, 79.5, 119.5), "cy"),
        (camera(0.9, 79.5, 59.5), "fx"),
        (camera(9000.0, 79.5, 59.5), "fx"),
    ] {
        let error = k.plausible().unwrap_err();
        assert!(matches!(error, Error::Intrinsics { field: of, .. } if of == field), "{error}");
    }
}
