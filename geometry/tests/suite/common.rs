//! What the property tests share: random poses and windows.

use geometry::{Anchor, Camera, Transform, WINDOW, WindowTrajectory};
use nalgebra::{Isometry3, Point3, UnitQuaternion, Vector3};
use proptest::prelude::*;

/// A vector with each entry within `reach` of 0.
pub fn vector(reach: f64) -> impl Strategy<Value = Vector3<f64>> {
    prop::array::uniform3(-reach..reach).prop_map(Vector3::from)
}

/// A rotation of up to `angle` radians in each entry of its rotation vector.
pub fn rotation(angle: f64) -> impl Strategy<Value = UnitQuaternion<f64>> {
    vector(angle).prop_map(UnitQuaternion::from_scaled_axis)
}

/// An isometry; rotations of every angle, translations of up to 10.
pub fn isometry() -> impl Strategy<Value = Isometry3<f64>> {
    (rotation(3.0), vector(10.0)).prop_map(|(rotation, t)| Isometry3::from_parts(t.into(), rotation))
}

/// A transform; see [`isometry`].
pub fn transform<To, From>() -> impl Strategy<Value = Transform<To, From>>
where
    Transform<To, From>: std::fmt::Debug,
{
    isometry().prop_map(Transform::from_isometry_unchecked)
}

/// A window whose frames each move by 0.05 to 0.6 and turn by up to 17 degrees.
pub fn window() -> impl Strategy<Value = WindowTrajectory> {
    let step = (rotation(0.17), vector(0.3), 0.05..0.3_f64).prop_map(|(rotation, t, push)| {
        // Pushed along z, so that no step is still.
        let t = Vector3::new(t.x, t.y, t.z.abs() + push);
        Transform::<Camera, Camera>::from_isometry_unchecked(Isometry3::from_parts(t.into(), rotation))
    });
    prop::collection::vec(step, WINDOW - 1).prop_map(|steps| {
        let mut poses = [Transform::<Anchor, Camera>::identity(); WINDOW];
        for (k, step) in steps.into_iter().enumerate() {
            poses[k + 1] = poses[k] * step;
        }
        WindowTrajectory::new(poses).unwrap()
    })
}

/// A cloud of `count` points within 2 of 0.
pub fn cloud(count: usize) -> impl Strategy<Value = Vec<Point3<f64>>> {
    prop::collection::vec(vector(2.0).prop_map(Point3::from), count)
}

/// The larger of the angle (radians) and the distance between two isometries.
pub fn distance(a: &Isometry3<f64>, b: &Isometry3<f64>) -> f64 {
    let difference = a.inv_mul(b);
    difference.rotation.angle().max(difference.translation.vector.norm())
}
