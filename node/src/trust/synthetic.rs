//! Answers that are exact up to the digits of their text, for the tests of what judges them.

use std::time::Duration;

use geometry::{Anchor, Camera, Intrinsics, Transform, WindowTrajectory};
use model::answer::chain::{Chain, Track, parse_poses, write, write_poses};
use nalgebra::{Isometry3, Point3, Translation3, UnitQuaternion, Vector2, Vector3};

use crate::config::{CheckRules, Covariance, Frozen, ImageRules, Sanity, StatusRules, TrustRules};
use crate::solve::estimator::{Estimate, Work};

/// Rules that an exact answer passes by far.
pub(crate) fn rules() -> TrustRules {
    TrustRules {
        sanity: Sanity { max_step_metres: 1.0, max_step_radians: 0.5 },
        checks: CheckRules {
            procrustes_rotation_deg: 1.0,
            procrustes_translation: 0.1,
            epipolar_px: 1.0,
            overlap_rotation_deg: 1.0,
            overlap_translation: 0.05,
            tracks_rotation_deg: 12.0,
            tracks_direction_deg: 45.0,
            least_motion_metres: 0.05,
        },
        images: ImageRules { least_contrast: 0.0, frozen: Frozen::Ignored },
        status: StatusRules {
            consistent_ratio: 2.0,
            bad_ratio: 4.0,
            gross_ratio: 20.0,
            degraded_windows: 2,
            degraded_span: 5,
            degraded_widening: 3.0,
            lost_windows: 3,
            lost_after: Duration::from_secs(60),
            recover_windows: 2,
        },
        covariance: Covariance {
            position_stddev_metres: [0.1, 0.2, 0.3, 0.4],
            rotation_stddev_radians: [0.01, 0.02, 0.03, 0.04],
            break_position_stddev_metres: 2.0,
            break_rotation_stddev_radians: 0.5,
        },
    }
}

/// The pixel grid of the chains.
pub(crate) fn grid() -> Intrinsics {
    Intrinsics::new(160.0, 160.0, 80.0, 48.0, 160, 96).unwrap()
}

/// Goes forward by `metres` a frame and turns to the right by `radians`.
pub(crate) fn motion(metres: f64, radians: f64) -> WindowTrajectory {
    WindowTrajectory::new(std::array::from_fn(|i| {
        let turn = Vector3::new(0.0, radians * i as f64, 0.0);
        Transform::from_isometry_unchecked(Isometry3::new(Vector3::new(0.0, 0.0, metres * i as f64), turn))
    }))
    .unwrap()
}

/// The chain of five points that are where the trajectory shows them.
pub(crate) fn chain(trajectory: &WindowTrajectory) -> Chain {
    let points_in_anchor =
        [[-0.8, -0.5, 2.0], [0.7, -0.4, 2.5], [0.2, 0.3, 3.0], [-0.5, 0.6, 3.5], [0.9, 0.5, 2.2]].map(Point3::from);
    let camera_from_anchor = trajectory.anchor_from_camera().map(|pose| pose.inverse());
    let tracks = points_in_anchor.map(|point_in_anchor| {
        let points_in_camera = camera_from_anchor.map(|pose| pose.transform_point(&point_in_anchor));
        Track {
            pixels: points_in_camera.map(|point| grid().project(&point).unwrap()),
            depths: points_in_camera.map(|point| point.z),
            points_in_camera,
        }
    });
    let [_, camera_from_anchor @ ..] = camera_from_anchor;
    Chain { prose: std::array::from_fn(|_| "Words.".to_owned()), tracks, camera_from_anchor, trajectory: *trajectory }
}

/// A model's answer with this reasoning.
pub(crate) fn estimate(chain: &Chain) -> Estimate {
    let text = write(chain);
    let trajectory = parse_poses(&text).map_err(|e| e.to_string());
    Estimate {
        text,
        tokens: 1,
        filled: 0,
        work: Work::default(),
        by_program: Vec::new(),
        trajectory,
        grid: Some(grid()),
        position_stddev: None,
    }
}

/// The same, with the rotations of step 4 turned by so many degrees.
pub(crate) fn turned(chain: &Chain, degrees: f64) -> Chain {
    let turn = UnitQuaternion::from_scaled_axis(Vector3::y() * degrees.to_radians());
    changed(chain, |rotation, translation| (turn * rotation, translation))
}

/// The same, with its translations moved to the right.
pub(crate) fn moved(chain: &Chain, metres: f64) -> Chain {
    changed(chain, |rotation, translation| (rotation, translation + Vector3::x() * metres))
}

fn changed(
    chain: &Chain,
    change: impl Fn(UnitQuaternion<f64>, Vector3<f64>) -> (UnitQuaternion<f64>, Vector3<f64>),
) -> Chain {
    let of = |pose: Transform<Camera, Anchor>| {
        let (rotation, translation) = change(pose.rotation(), pose.translation());
        Transform::from_isometry_unchecked(Isometry3::from_parts(Translation3::from(translation), rotation))
    };
    Chain { camera_from_anchor: chain.camera_from_anchor.map(of), ..chain.clone() }
}

/// The same, with the pixels of one frame moved.
pub(crate) fn shifted(chain: &Chain, frame: usize, pixels: [f64; 2]) -> Chain {
    let mut chain = chain.clone();
    for track in &mut chain.tracks {
        track.pixels[frame] += Vector2::from(pixels);
    }
    chain
}

/// An answer without reasoning.
pub(crate) fn poses_alone(trajectory: &WindowTrajectory) -> Estimate {
    let text = write_poses(trajectory);
    Estimate {
        text,
        tokens: 1,
        filled: 0,
        work: Work::default(),
        by_program: Vec::new(),
        trajectory: Ok(*trajectory),
        grid: None,
        position_stddev: None,
    }
}
