//! Images of a camera with lens distortion to images of a pinhole, which is all that the model and the geometry know.
//!
//! What a rectified image shows: where CameraInfo.P is given, what P says, as image_proc does; pixels that the raw image
//! has no source for are black. Otherwise the widest view all of whose pixels have one, with the raw image's size and
//! principal point and one zoom for both axes. That is the purpose of OpenCV's `getOptimalNewCameraMatrix` at alpha 0,
//! but pixels keep their shape.
//!
//! A topic that is rectified already (`image_rect`) often comes with the CameraInfo of the raw one, whose D is not zero.
//! Nothing in the messages tells the two apart: for such a topic the config says so (`camera.images`), and nothing is done
//! here.
//!
//! The models are written here because the crates for them know only some (`opencv-ros-camera`: `plumb_bob`) or stand on
//! another nalgebra (`camera-intrinsic-model`).

use std::sync::OnceLock;

use geometry::Intrinsics;
use image::RgbImage;
use nalgebra::Point2;

use crate::error::InfoError;
use crate::lens::Lens;

/// Least and largest zoom that is looked at where P is not given; the view of the largest is a quarter of the raw one.
const MAX_ZOOM: f64 = 4.0;
/// Steps of the search for the zoom: to far less than a pixel.
const ZOOM_STEPS: u32 = 40;
/// Pixels of each edge that the search looks at. Between two of them an edge cannot bulge by the half pixel that it has
/// in reserve.
const EDGE_SAMPLES: u32 = 256;
/// Pixels, a row and a column, that the check of P looks at.
const GRID_SAMPLES: u32 = 32;
/// Part of a rectified image that P must leave with a source.
const LEAST_SHARE: f64 = 0.5;

/// A camera as its calibration describes it, on the pixel grid of its images.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CameraModel {
    /// K: the pinhole behind the lens. P's left where images are rectified already.
    pub raw: Intrinsics,
    /// What bends the rays before; none where images are a pinhole's already.
    pub lens: Option<Lens>,
    /// K of the rectified image, where CameraInfo.P says.
    pub rectified: Option<Intrinsics>,
}

/// Turns raw images of one camera into a pinhole's of the same size.
#[derive(Debug)]
pub struct Rectifier {
    map: Map,
    /// For each rectified pixel, row after row, where it is in the raw image. Made when the first image needs it.
    table: OnceLock<Vec<Option<[f32; 2]>>>,
}

impl Rectifier {
    /// What the camera needs; nothing where it has no lens distortion. Cheap: a table of all pixels is made by the first
    /// [`Self::apply`].
    ///
    /// # Errors
    /// Naming `D` where the lens folds over too early to leave a view, and `P` where it shows mostly what the camera
    /// does not see.
    pub fn new(model: &CameraModel) -> Result<Option<Self>, InfoError> {
        let Some(lens) = model.lens else { return Ok(None) };
        let raw = model.raw;
        let unzoomed = Map { raw, rectified: raw, lens, field: lens.field() };
        let map = match model.rectified {
            Some(rectified) => {
                let map = Map { rectified, ..unzoomed };
                let share = map.share();
                if share < LEAST_SHARE {
                    let expected =
                        format!("at least {:.0} % of the rectified image inside the raw one", LEAST_SHARE * 100.0);
                    return Err(InfoError::new("P", expected, format_args!("{:.0} %", share * 100.0)));
                }
                map
            }
            None => unzoomed.widest().ok_or_else(|| {
                let expected = "a lens through which at least a quarter of the view can be rectified";
                let off_axis = unzoomed.field.atan().to_degrees();
                InfoError::new("D", expected, format_args!("{lens:?}, one to one up to {off_axis:.1} deg off axis"))
            })?,
        };
        Ok(Some(Self { map, table: OnceLock::new() }))
    }

    /// The intrinsics of rectified images.
    pub fn intrinsics(&self) -> Intrinsics {
        self.map.rectified
    }

    /// The rectified image: bilinear between the four pixels around a source, black without one.
    ///
    /// # Panics
    /// Where the image has another size than the camera's; [`crate::optics::CameraState::optics`] refuses those.
    pub fn apply(&self, image: &RgbImage) -> RgbImage {
        let raw = &self.map.raw;
        assert_eq!(image.dimensions(), (raw.width, raw.height), "an image of another camera");
        let width = raw.width as usize;
        let (last_column, last_row) = (width - 1, raw.height as usize - 1);
        let pixels = image.as_raw();
        let table = self.table.get_or_init(|| self.map.table());
        let mut rectified = vec![0; table.len() * 3];
        for (out, source) in rectified.chunks_exact_mut(3).zip(table) {
            let Some([u, v]) = *source else { continue };
            let (left, top) = ((u as usize).min(last_column), (v as usize).min(last_row));
            let (right, bottom) = ((left + 1).min(last_column), (top + 1).min(last_row));
            let (across, along) = (u - left as f32, v - top as f32);
            for (channel, value) in out.iter_mut().enumerate() {
                let at = |x: usize, y: usize| f32::from(pixels[(y * width + x) * 3 + channel]);
                let upper = at(left, top) + across * (at(right, top) - at(left, top));
                let lower = at(left, bottom) + across * (at(right, bottom) - at(left, bottom));
                *value = (upper + along * (lower - upper) + 0.5) as u8;
            }
        }
        RgbImage::from_raw(raw.width, raw.height, rectified).expect("three bytes for each pixel")
    }
}

/// From rectified to raw pixels.
#[derive(Debug, Clone, Copy)]
struct Map {
    raw: Intrinsics,
    rectified: Intrinsics,
    lens: Lens,
    /// [`Lens::field`].
    field: f64,
}

impl Map {
    /// Where a rectified pixel is in the raw image, if it is.
    fn source(&self, u: f64, v: f64) -> Option<Point2<f64>> {
        let ray = self.rectified.back_project(&Point2::new(u, v), 1.0);
        if ray.x.hypot(ray.y) > self.field {
            return None;
        }
        let [x, y] = self.lens.distort([ray.x, ray.y]);
        let pixel = Point2::new(self.raw.fx * x + self.raw.cx, self.raw.fy * y + self.raw.cy);
        self.raw.contains(&pixel).then_some(pixel)
    }

    /// [`Self::source`] of every pixel, moved by half a pixel at most to lie between the centres of raw pixels.
    fn table(&self) -> Vec<Option<[f32; 2]>> {
        let (right, bottom) = self.last();
        let source = |u, v| self.source(u, v).map(|p| [p.x.clamp(0.0, right) as f32, p.y.clamp(0.0, bottom) as f32]);
        let columns = self.rectified.width;
        (0..self.rectified.height)
            .flat_map(|v| (0..columns).map(move |u| (f64::from(u), f64::from(v))))
            .map(|(u, v)| source(u, v))
            .collect()
    }

    /// The last column and row.
    fn last(&self) -> (f64, f64) {
        (f64::from(self.raw.width) - 1.0, f64::from(self.raw.height) - 1.0)
    }

    /// Part of the rectified pixels that have a source.
    fn share(&self) -> f64 {
        let (right, bottom) = self.last();
        let places = || (0..GRID_SAMPLES).map(|i| (f64::from(i) + 0.5) / f64::from(GRID_SAMPLES));
        let sources = places().flat_map(|y| places().map(move |x| self.source(x * right, y * bottom)));
        sources.flatten().count() as f64 / f64::from(GRID_SAMPLES * GRID_SAMPLES)
    }

    /// The same with the smallest zoom at which every pixel has a source.
    fn widest(&self) -> Option<Self> {
        let zoomed = |zoom: f64| {
            let raw = self.raw;
            Self { rectified: Intrinsics { fx: raw.fx * zoom, fy: raw.fy * zoom, ..raw }, ..*self }
        };
        let (mut too_wide, mut fits) = (1.0 / MAX_ZOOM, MAX_ZOOM);
        if !zoomed(fits).is_filled() {
            return None;
        }
        for _ in 0..ZOOM_STEPS {
            let middle = (too_wide * fits).sqrt();
            if zoomed(middle).is_filled() {
                fits = middle;
            } else {
                too_wide = middle;
            }
        }
        Some(zoomed(fits))
    }

    /// Whether every rectified pixel has a source: those on the edges do, and in the field the map is one to one.
    fn is_filled(&self) -> bool {
        let (right, bottom) = self.last();
        (0..=EDGE_SAMPLES).map(|i| f64::from(i) / f64::from(EDGE_SAMPLES)).all(|share| {
            let (u, v) = (share * right, share * bottom);
            [(u, 0.0), (u, bottom), (0.0, v), (right, v)].into_iter().all(|(u, v)| {
                self.source(u, v).is_some_and(|p| (0.0..=right).contains(&p.x) && (0.0..=bottom).contains(&p.y))
            })
        })
    }
}

#[cfg(test)]
mod tests;
