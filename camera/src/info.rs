//! What a CameraInfo says, checked, on the pixel grid of the images that it comes with.

use geometry::Intrinsics;

use crate::error::InfoError;
use crate::lens::Lens;
use crate::message::{CameraInfoMessage, RegionOfInterest};
use crate::rectify::CameraModel;

/// How far a number that must be zero or one may be off: drivers keep matrices in `f32`.
const TOLERANCE: f64 = 1e-6;

/// What the camera's topic carries; nothing in the messages tells the two apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Images {
    /// What the lens makes: K and D of CameraInfo describe it.
    Raw,
    /// What image_proc makes of that, `image_rect`: P of the same CameraInfo describes it.
    Rectified,
}

impl CameraModel {
    /// What CameraInfo says of these images.
    ///
    /// # Errors
    /// Naming the field that is no calibration, or none that can be used.
    pub fn new(info: &CameraInfoMessage, images: Images) -> Result<Self, InfoError> {
        match images {
            Images::Raw => Self::of_raw(info),
            Images::Rectified => Self::of_rectified(info),
        }
    }

    /// R and P are looked at only where the lens distorts: without, the raw image is a pinhole's, whose matrix is K.
    fn of_raw(info: &CameraInfoMessage) -> Result<Self, InfoError> {
        let grid = Grid::of(info)?;
        if info.k.iter().all(|v| *v == 0.0) {
            return Err(InfoError::new("K", "a calibration", "zeros: the camera is not calibrated"));
        }
        let raw = grid.pinhole("K", info.k)?;
        let Some(lens) = Lens::new(&info.distortion_model, &info.d)? else {
            return Ok(Self { raw, lens: None, rectified: None });
        };
        let identity = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];
        let is_near = |wanted: [f64; 9]| info.r.iter().zip(wanted).all(|(r, wanted)| (r - wanted).abs() < TOLERANCE);
        if !is_near(identity) && !is_near([0.0; 9]) {
            let expected = "the identity: of a stereo pair, feed the rectified image (camera.images)";
            return Err(InfoError::new("R", expected, format_args!("{:?}", info.r)));
        }
        let rectified = left_of_p(info).map(|left| grid.pinhole("P", left)).transpose()?;
        Ok(Self { raw, lens: Some(lens), rectified })
    }

    /// K, D and R describe the image that was rectified. It is not this one, which is a pinhole's with the left of P as
    /// its matrix; P's fourth column, where the left camera of a stereo pair is, moves no pixel's ray.
    fn of_rectified(info: &CameraInfoMessage) -> Result<Self, InfoError> {
        let left = left_of_p(info).ok_or_else(|| {
            let expected = "the matrix of the rectified image, since camera.images is \"rectified\"";
            InfoError::new("P", expected, "zeros")
        })?;
        Ok(Self { raw: Grid::of(info)?.pinhole("P", left)?, lens: None, rectified: None })
    }
}

/// The row-major 3x3 on the left of P; none where it is all zeros, which says nothing.
pub(crate) fn left_of_p(info: &CameraInfoMessage) -> Option<[f64; 9]> {
    let left: [f64; 9] = std::array::from_fn(|i| info.p[i / 3 * 4 + i % 3]);
    left.iter().any(|v| *v != 0.0).then_some(left)
}

/// Where the images' pixels are on the full grid, which a CameraInfo's matrices are for.
pub(crate) struct Grid {
    pub(crate) full: (u32, u32),
    roi: RegionOfInterest,
    pub(crate) binning: [u32; 2],
}

/// A region of interest in words.
pub(crate) fn part(roi: &RegionOfInterest) -> String {
    format!("{} x {} at ({}, {})", roi.width, roi.height, roi.x_offset, roi.y_offset)
}

impl Grid {
    pub(crate) fn of(info: &CameraInfoMessage) -> Result<Self, InfoError> {
        let (width, height) = (info.width, info.height);
        let all = RegionOfInterest { x_offset: 0, y_offset: 0, width, height };
        let roi = if info.roi == RegionOfInterest::default() { all } else { info.roi };
        let is_inside = |offset: u32, size: u32, full: u32| offset.checked_add(size).is_some_and(|end| end <= full);
        if is_inside(roi.x_offset, roi.width, width) && is_inside(roi.y_offset, roi.height, height) {
            Ok(Self { full: (width, height), roi, binning: info.binning.map(|b| b.max(1)) })
        } else {
            Err(InfoError::new("roi", format!("a part of {width} x {height} pixels"), part(&roi)))
        }
    }

    /// The pinhole of a row-major 3x3 matrix on the images' grid. A binned pixel lies in the middle of those that it
    /// sums up, half a pixel from where image_geometry has it.
    pub(crate) fn pinhole(&self, field: &str, matrix: [f64; 9]) -> Result<Intrinsics, InfoError> {
        let [fx, skew, cx, zero_a, fy, cy, zero_b, zero_c, one] = matrix;
        let shape = [skew, zero_a, zero_b, zero_c, one - 1.0];
        if !shape.iter().all(|v| v.abs() < TOLERANCE) {
            return Err(InfoError::new(field, "[fx 0 cx; 0 fy cy; 0 0 1]", format_args!("{matrix:?}")));
        }
        let [across, along] = self.binning;
        let (width, height) = (self.roi.width / across, self.roi.height / along);
        let full = Intrinsics::new(fx, fy, cx, cy, self.full.0, self.full.1);
        let shown = full
            .and_then(|k| k.crop(self.roi.x_offset.into(), self.roi.y_offset.into(), width * across, height * along));
        match shown {
            Ok(k) if self.binning == [1, 1] => Ok(k),
            Ok(k) => Ok(k.rescale(width, height)),
            Err(geometry::Error::Intrinsics { field: part, expected, got }) => {
                Err(InfoError::new(format!("{field} {part}"), expected, got))
            }
            Err(other) => Err(InfoError::new(field, "a pinhole camera", other)),
        }
    }
}
