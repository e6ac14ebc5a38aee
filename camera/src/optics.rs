//! Which intrinsics an image has, and what rectifies it: the latest CameraInfo's word, or fixed ones.
//!
//! Intrinsics are never guessed. Without them, or with some for another pixel grid, the image is refused: poses from a
//! wrong K look plausible and are wrong.

use std::sync::Arc;

use geometry::Intrinsics;
use image::RgbImage;

use crate::error::InfoError;
use crate::info::Images;
use crate::message::CameraInfoMessage;
use crate::plausible::{doubts, doubts_of_pinhole};
use crate::rectify::{CameraModel, Rectifier};

/// When the config's own intrinsics stand in for CameraInfo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UseFixed {
    /// Only CameraInfo counts.
    Never,
    /// Until the first CameraInfo.
    UntilCameraInfo,
    /// CameraInfo is ignored.
    Always,
}

/// What images are, and whose word on their intrinsics counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CameraRules {
    /// When the config's own intrinsics count.
    pub use_fixed: UseFixed,
    /// What they are.
    pub intrinsics: Intrinsics,
    /// Which of CameraInfo's matrices count.
    pub images: Images,
}

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
        reason: InfoError,
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

/// What makes an image one of a pinhole.
#[derive(Debug, Clone)]
pub struct Optics {
    /// Intrinsics of the image that the model reads, which has the size of the one that came.
    pub intrinsics: Intrinsics,
    /// What the image must go through first, where the lens distorts.
    pub rectifier: Option<Arc<Rectifier>>,
}

impl Optics {
    /// Of images that are a pinhole's already.
    pub fn pinhole(intrinsics: Intrinsics) -> Self {
        Self { intrinsics, rectifier: None }
    }

    /// What a camera whose calibration this is makes of its images.
    ///
    /// # Errors
    ///
    /// Those of [`CameraModel::new`] and [`Rectifier::new`].
    pub fn new(model: &CameraModel) -> Result<Self, InfoError> {
        let rectifier = Rectifier::new(model)?.map(Arc::new);
        let intrinsics = rectifier.as_ref().map_or(model.raw, |r| r.intrinsics());
        Ok(Self { intrinsics, rectifier })
    }

    /// The image of a pinhole with [`Self::intrinsics`]. The image must have their size.
    pub fn rectify(&self, image: RgbImage) -> RgbImage {
        match &self.rectifier {
            Some(rectifier) => rectifier.apply(&image),
            None => image,
        }
    }
}

/// What is known of the camera.
#[derive(Debug)]
pub struct CameraState {
    use_fixed: UseFixed,
    images: Images,
    fixed: Optics,
    latest: Option<Latest>,
}

/// The latest CameraInfo and what follows from it, which is not worked out again while the camera repeats itself.
#[derive(Debug)]
struct Latest {
    model: Result<CameraModel, InfoError>,
    optics: Result<Optics, InfoError>,
    doubts: Vec<InfoError>,
}

impl CameraState {
    /// Before any CameraInfo.
    pub fn new(camera: &CameraRules) -> Self {
        let fixed = Optics::pinhole(camera.intrinsics);
        Self { use_fixed: camera.use_fixed, images: camera.images, fixed, latest: None }
    }

    /// Takes a CameraInfo; true where it says something new, so that a caller can log it once.
    pub fn update(&mut self, info: &CameraInfoMessage) -> bool {
        if self.use_fixed == UseFixed::Always {
            return false;
        }
        let model = CameraModel::new(info, self.images);
        if self.latest.as_ref().is_some_and(|latest| latest.model == model) {
            return false;
        }
        let optics = model.clone().and_then(|model| Optics::new(&model));
        let doubts = if optics.is_ok() { doubts(info, self.images) } else { Vec::new() };
        self.latest = Some(Latest { model, optics, doubts });
        true
    }

    /// What images of the camera need, whatever their size.
    pub fn latest(&self) -> Result<&Optics, Refusal> {
        match (self.use_fixed, &self.latest) {
            (UseFixed::Always, _) | (UseFixed::UntilCameraInfo, None) => Ok(&self.fixed),
            (UseFixed::Never, None) => Err(Refusal::NoCameraInfo),
            (_, Some(latest)) => latest.optics.as_ref().map_err(|e| Refusal::Invalid { reason: e.clone() }),
        }
    }

    /// What is hard to believe of what images of the camera need ([`crate::plausible`]).
    pub fn doubts(&self) -> Vec<InfoError> {
        match (self.use_fixed, &self.latest) {
            (UseFixed::Always, _) | (UseFixed::UntilCameraInfo, None) => doubts_of_pinhole(&self.fixed.intrinsics),
            (UseFixed::Never, None) => Vec::new(),
            (_, Some(latest)) => latest.doubts.clone(),
        }
    }

    /// What an image of this size needs.
    pub fn optics(&self, width: u32, height: u32) -> Result<&Optics, Refusal> {
        let optics = self.latest()?;
        let k = &optics.intrinsics;
        if (k.width, k.height) == (width, height) {
            Ok(optics)
        } else {
            Err(Refusal::OtherGrid { expected: (k.width, k.height), got: (width, height) })
        }
    }
}

#[cfg(test)]
mod tests;
