//! Which intrinsics an image has: the latest CameraInfo's, or the config's.
//!
//! Intrinsics are never guessed. Without them, or with some for another pixel grid, the image is refused: poses from a
//! wrong K look plausible and are wrong.

use geometry::Intrinsics;

use crate::config::{FixedCamera, UseFixed};
use crate::message::CameraInfoMessage;

/// Why an image has no intrinsics.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// Nobody said yet.
    #[error("no CameraInfo yet, and the config's own intrinsics are not in use (camera.fixed)")]
    NoCameraInfo,
    /// The latest CameraInfo says nothing usable.
    #[error("CameraInfo cannot be used: {reason}")]
    Invalid {
        /// What is wrong with it.
        reason: String,
    },
    /// The intrinsics are for another size.
    #[error("intrinsics are for {} x {} pixels, the image has {} x {}", expected.0, expected.1, got.0, got.1)]
    OtherGrid {
        /// Width and height that the intrinsics are for.
        expected: (u32, u32),
        /// Width and height of the image.
        got: (u32, u32),
    },
}

/// What is known of the camera.
#[derive(Debug)]
pub struct CameraState {
    fixed: FixedCamera,
    latest: Option<Result<Intrinsics, String>>,
    distorted: bool,
}

impl CameraState {
    /// Before any CameraInfo.
    pub fn new(camera: &FixedCamera) -> Self {
        Self { fixed: *camera, latest: None, distorted: false }
    }

    /// Takes a CameraInfo; true where it says something new, so that a caller can log it once.
    pub fn update(&mut self, info: &CameraInfoMessage) -> bool {
        if self.fixed.use_fixed == UseFixed::Always {
            return false;
        }
        let new = intrinsics(info);
        let distorted = info.d.iter().any(|d| *d != 0.0);
        let changed = self.latest.as_ref() != Some(&new) || self.distorted != distorted;
        self.latest = Some(new);
        self.distorted = distorted;
        changed
    }

    /// The intrinsics of an image of this size.
    pub fn intrinsics(&self, width: u32, height: u32) -> Result<Intrinsics, Refusal> {
        let k = match (self.fixed.use_fixed, &self.latest) {
            (UseFixed::Always, _) | (UseFixed::UntilCameraInfo, None) => &self.fixed.intrinsics,
            (UseFixed::Never, None) => return Err(Refusal::NoCameraInfo),
            (_, Some(Err(reason))) => return Err(Refusal::Invalid { reason: reason.clone() }),
            (_, Some(Ok(k))) => k,
        };
        if (k.width, k.height) == (width, height) {
            Ok(*k)
        } else {
            Err(Refusal::OtherGrid { expected: (k.width, k.height), got: (width, height) })
        }
    }

    /// Whether the latest CameraInfo has distortion coefficients. They are not applied: the node wants rectified images,
    /// and says so.
    pub fn is_distorted(&self) -> bool {
        self.distorted
    }
}

/// K of a CameraInfo, if it is a pinhole's.
fn intrinsics(info: &CameraInfoMessage) -> Result<Intrinsics, String> {
    let [fx, skew, cx, zero_a, fy, cy, zero_b, zero_c, one] = info.k;
    if info.k.iter().all(|v| *v == 0.0) {
        return Err("K is zero: the camera is not calibrated".to_owned());
    }
    let shape = [skew, zero_a, zero_b, zero_c, one - 1.0];
    if !shape.iter().all(|v| v.abs() < 1e-6) {
        return Err(format!("K: expected [fx 0 cx; 0 fy cy; 0 0 1], got {:?}", info.k));
    }
    Intrinsics::new(fx, fy, cx, cy, info.width, info.height).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use geometry::Intrinsics;

    use super::{CameraState, Refusal};
    use crate::config::{FixedCamera, UseFixed};
    use crate::message::CameraInfoMessage;

    fn fixed(use_fixed: UseFixed) -> FixedCamera {
        FixedCamera { use_fixed, intrinsics: Intrinsics::new(50.0, 50.0, 32.0, 24.0, 64, 48).unwrap() }
    }

    fn info(k: [f64; 9], width: u32, height: u32) -> CameraInfoMessage {
        CameraInfoMessage {
            stamp: geometry::Stamp::default(),
            frame_id: "camera".to_owned(),
            width,
            height,
            distortion_model: "plumb_bob".to_owned(),
            d: vec![0.0; 5],
            k,
        }
    }

    const K: [f64; 9] = [70.0, 0.0, 32.0, 0.0, 70.0, 24.0, 0.0, 0.0, 1.0];

    #[test]
    fn without_camera_info_there_are_no_intrinsics_unless_the_config_has_them() {
        let never = CameraState::new(&fixed(UseFixed::Never));
        assert_eq!(never.intrinsics(64, 48), Err(Refusal::NoCameraInfo));
        let mut until = CameraState::new(&fixed(UseFixed::UntilCameraInfo));
        assert_eq!(until.intrinsics(64, 48).unwrap().fx.to_bits(), 50.0_f64.to_bits());
        assert!(until.update(&info(K, 64, 48)));
        assert!(!until.update(&info(K, 64, 48)), "the same again is no news");
        assert_eq!(until.intrinsics(64, 48).unwrap().fx.to_bits(), 70.0_f64.to_bits());
        let mut always = CameraState::new(&fixed(UseFixed::Always));
        always.update(&info(K, 64, 48));
        assert_eq!(always.intrinsics(64, 48).unwrap().fx.to_bits(), 50.0_f64.to_bits());
    }

    #[test]
    fn camera_info_that_is_no_pinhole_is_refused_and_says_why() {
        let rows = [
            ([0.0; 9], 64, "not calibrated"),
            ([f64::NAN, 0.0, 32.0, 0.0, 70.0, 24.0, 0.0, 0.0, 1.0], 64, "fx"),
            ([-70.0, 0.0, 32.0, 0.0, 70.0, 24.0, 0.0, 0.0, 1.0], 64, "fx"),
            ([70.0, 9.0, 32.0, 0.0, 70.0, 24.0, 0.0, 0.0, 1.0], 64, "expected [fx 0 cx"),
            ([70.0, 0.0, 32.0, 0.0, 70.0, 24.0, 0.0, 0.0, 0.0], 64, "expected [fx 0 cx"),
            ([70.0, 0.0, 1e9, 0.0, 70.0, 24.0, 0.0, 0.0, 1.0], 64, "cx"),
            (K, 0, "width"),
        ];
        for (k, width, wanted) in rows {
            let mut camera = CameraState::new(&fixed(UseFixed::UntilCameraInfo));
            camera.update(&info(k, width, 48));
            let message = camera.intrinsics(64, 48).unwrap_err().to_string();
            assert!(message.contains(wanted), "`{wanted}` is not in: {message}");
        }
    }

    #[test]
    fn intrinsics_for_another_grid_are_refused() {
        let mut camera = CameraState::new(&fixed(UseFixed::Never));
        camera.update(&info(K, 128, 96));
        let refusal = camera.intrinsics(64, 48);
        assert_eq!(refusal, Err(Refusal::OtherGrid { expected: (128, 96), got: (64, 48) }));
    }

    #[test]
    fn distortion_is_noticed() {
        let mut camera = CameraState::new(&fixed(UseFixed::Never));
        let mut with_d = info(K, 64, 48);
        with_d.d[0] = -0.3;
        assert!(camera.update(&with_d));
        assert!(camera.is_distorted());
        assert!(camera.update(&info(K, 64, 48)));
        assert!(!camera.is_distorted());
    }
}
