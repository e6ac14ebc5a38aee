//! The GRPO reward: its ends, its parts, and that worse answers earn less.

use crate::common::{isometry, window};
use geometry::reward::{PARSE_FAILURE, Reward, validity};
use geometry::{SceneScale, StatedPose, WINDOW, WindowErrors, WindowTrajectory};
use nalgebra::{Matrix3, Vector3};
use proptest::prelude::*;

fn scale() -> SceneScale {
    SceneScale::default()
}

fn stated(window: &WindowTrajectory) -> [StatedPose; WINDOW] {
    window.anchor_from_camera().each_ref().map(StatedPose::from)
}

proptest! {
    #[test]
    fn a_perfect_answer_earns_one(truth in window()) {
        let reward = Reward::new(Some(&stated(&truth)), &truth, scale());
        prop_assert!((reward.total - 1.0).abs() < 1e-6, "{:?}", reward);
    }

    #[test]
    fn the_reward_is_the_printed_metrics(truth in window(), answer in window()) {
        let reward = Reward::new(Some(&stated(&answer)), &truth, scale());
        let errors = WindowErrors::new(&truth, &answer, scale());
        let expected = 0.2 + 0.1
            + 0.35 * (-errors.rre_deg / 5.0).exp()
            + 0.35 * (0.5 * (-errors.tde_deg.unwrap() / 15.0).exp() + 0.5 * (-errors.mag_log.unwrap() / 0.5).exp());
        prop_assert!((reward.total - expected).abs() < 1e-6);
        prop_assert!(reward.total >= 0.3 && reward.total <= 1.0);
    }

    #[test]
    fn an_answer_is_anchored_at_its_own_first_pose(truth in window(), world in isometry()) {
        let answer = truth.anchor_from_camera().map(|pose| {
            let moved = world * pose.isometry();
            StatedPose { rotation: moved.rotation.to_rotation_matrix().into_inner(), translation: moved.translation.vector }
        });
        prop_assert!((Reward::new(Some(&answer), &truth, scale()).total - 1.0).abs() < 1e-6);
    }
}

#[test]
fn a_parse_failure_replaces_the_sum() {
    let reward = Reward::new(None, &WindowTrajectory::identity(), scale());
    assert_eq!((reward.total, reward.format, PARSE_FAILURE), (-1.0, 0.0, -1.0));
}

#[test]
fn poses_without_a_rotation_earn_the_format_alone() {
    let truth = WindowTrajectory::identity();
    for (rotation, x) in
        [(Matrix3::zeros(), 0.0), (Matrix3::repeat(f64::NAN), 0.0), (Matrix3::identity(), f64::INFINITY)]
    {
        let mut answer = stated(&truth);
        answer[3] = StatedPose { rotation, translation: Vector3::new(x, 0.0, 0.0) };
        let reward = Reward::new(Some(&answer), &truth, scale());
        assert!((reward.total - 0.2).abs() < 1e-12, "{reward:?}");
    }
    // Finite, but not after a product.
    let mut answer = stated(&truth);
    answer[0].translation.x = -f64::MAX;
    answer[3].translation.x = f64::MAX;
    assert!((Reward::new(Some(&answer), &truth, scale()).total - 0.3).abs() < 1e-12);
}

#[test]
fn validity_fades() {
    let answer = |factor: f64| {
        let mut answer = stated(&WindowTrajectory::identity());
        answer[2].rotation *= factor;
        validity(&answer)
    };
    // The norm of R^T R - I for a factor f is sqrt(3) |f^2 - 1|.
    let factor = |norm: f64| (1.0 + norm / 3.0_f64.sqrt()).sqrt();
    assert_eq!(answer(factor(0.009)), 1.0);
    assert!((answer(factor(0.055)) - 0.5).abs() < 1e-9);
    assert_eq!(answer(factor(0.11)), 0.0);
    assert_eq!(answer(-1.0), 0.0, "a reflection");
}

#[test]
fn a_still_window_is_judged_by_its_length() {
    let truth = WindowTrajectory::identity();
    let moved = |x: f64| {
        let mut answer = stated(&truth);
        for pose in &mut answer[1..] {
            pose.translation.x = x;
        }
        Reward::new(Some(&answer), &truth, scale())
    };
    assert!((moved(0.0).total - 1.0).abs() < 1e-9);
    assert_eq!(moved(0.0).direction, None);
    assert!((moved(1e-3).magnitude - (-1.0_f64).exp()).abs() < 1e-9);
    assert!((moved(10.0).total - 0.65).abs() < 1e-9);
}
