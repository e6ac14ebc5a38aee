//! What cameras that are built do not have. Numbers may be a camera's in form, and poses come out of them that look like any
//! other, where a driver says K of the binned image, a calibration is of another size, or two fields are exchanged.
//!
//! A doubt is no refusal: lenses shift, and there are strange ones. It is told with the field, what cameras have, and what
//! this one says. Bounds are wide enough for lenses that are in use, and narrow enough for the common slip, a matrix of an
//! image of half the size or twice.

use geometry::Intrinsics;

use crate::error::InfoError;
use crate::info::{Grid, Images, left_of_p, part};
use crate::lens::Lens;
use crate::message::{CameraInfoMessage, RegionOfInterest};

/// Where the principal point is, as shares of the image: that of an image of half the size is at a quarter.
const PRINCIPAL_POINT: std::ops::RangeInclusive<f64> = 0.3..=0.7;
/// Angle that the wider side of an image shows, degrees.
const FIELD_OF_VIEW_DEG: std::ops::RangeInclusive<f64> = 5.0..=170.0;
/// Most that the sides of a pixel differ by, as a factor.
const MOST_ASPECT: f64 = 2.0;
/// Most that P zooms in or out of what K shows, as a factor.
const MOST_ZOOM: f64 = 3.0;

/// What is hard to believe of a camera that needs no CameraInfo: of the config, a data set, or a command line.
pub fn doubts_of_pinhole(k: &Intrinsics) -> Vec<InfoError> {
    doubts_of_matrix("camera", k, "")
}

/// What is hard to believe of a CameraInfo for these images. Nothing of one that [`crate::rectify::CameraModel::new`]
/// refuses.
pub fn doubts(info: &CameraInfoMessage, images: Images) -> Vec<InfoError> {
    let Ok(grid) = Grid::of(info) else { return Vec::new() };
    // On the full grid, where a stated region of interest moves nothing out of the middle.
    let matrix =
        |values: [f64; 9]| Intrinsics::new(values[0], values[4], values[2], values[5], grid.full.0, grid.full.1);
    let left = left_of_p(info);
    let p = left.and_then(|left| matrix(left).ok().zip(grid.pinhole("P", left).ok()));
    if images == Images::Rectified {
        return p.map(|(p, image)| doubts_of_matrix("P", &p, &shown(info, &grid, &image))).unwrap_or_default();
    }
    let (Ok(k), Ok(image)) = (matrix(info.k), grid.pinhole("K", info.k)) else { return Vec::new() };
    let mut found = doubts_of_matrix("K", &k, &shown(info, &grid, &image));
    if let Some((p, image)) = p {
        if let Ok(Some(_)) = Lens::new(&info.distortion_model, &info.d) {
            found.extend(principal_point("P", &p, &shown(info, &grid, &image)));
        }
        let zoom = p.fx / k.fx;
        if !(1.0 / MOST_ZOOM..=MOST_ZOOM).contains(&zoom) {
            let expected = format!("a focal length near that of K, {:.1} pixels: both are for the same grid", k.fx);
            found.push(InfoError::new("P fx", expected, format_args!("{:.1}", p.fx)));
        }
    }
    found.extend(fold(info, &k));
    found
}

/// How the images differ from the full grid, and what becomes of the principal point there, as an end of a sentence.
fn shown(info: &CameraInfoMessage, grid: &Grid, image: &Intrinsics) -> String {
    let mut text = String::new();
    let [across, along] = grid.binning;
    if [across, along] != [1, 1] {
        text.push_str(&format!(", binning {across} x {along}"));
    }
    if info.roi != RegionOfInterest::default() {
        text.push_str(&format!(", roi {}", part(&info.roi)));
    }
    if !text.is_empty() {
        let Intrinsics { cx, cy, width, height, .. } = image;
        text.push_str(&format!(
            ", which is ({cx:.1}, {cy:.1}) of the {width} x {height} pixels of an image (K, P, width and height are those of \
             the whole sensor without binning)"
        ));
    }
    text
}

fn doubts_of_matrix(field: &str, k: &Intrinsics, shown: &str) -> Vec<InfoError> {
    let mut found = Vec::from_iter(principal_point(field, k, shown));
    let angle = |size: u32, focal: f64| 2.0 * (0.5 * f64::from(size) / focal).atan().to_degrees();
    let size = format!("{} x {} pixels{shown}", k.width, k.height);
    let widest = angle(k.width, k.fx).max(angle(k.height, k.fy));
    if !FIELD_OF_VIEW_DEG.contains(&widest) {
        let (least, most) = (FIELD_OF_VIEW_DEG.start(), FIELD_OF_VIEW_DEG.end());
        let expected = format!("a field of view of {least} to {most} degrees");
        let got = format!("{widest:.1} degrees: fx {:.1}, fy {:.1} of {size}", k.fx, k.fy);
        found.push(InfoError::new(format!("{field} focal length"), expected, got));
    }
    let aspect = k.fx / k.fy;
    if !(1.0 / MOST_ASPECT..=MOST_ASPECT).contains(&aspect) {
        let expected = format!("fx and fy within a factor of {MOST_ASPECT} of each other");
        let got = format!("fx {:.1}, fy {:.1} of {size}", k.fx, k.fy);
        found.push(InfoError::new(format!("{field} focal length"), expected, got));
    }
    found
}

fn principal_point(field: &str, k: &Intrinsics, shown: &str) -> Option<InfoError> {
    let share = |at: f64, size: u32| (at + 0.5) / f64::from(size);
    if PRINCIPAL_POINT.contains(&share(k.cx, k.width)) && PRINCIPAL_POINT.contains(&share(k.cy, k.height)) {
        return None;
    }
    let (least, most) = (PRINCIPAL_POINT.start(), PRINCIPAL_POINT.end());
    let expected = format!("one at {least} to {most} of width and height");
    let got = format!("({:.1}, {:.1}) of {} x {} pixels{shown}", k.cx, k.cy, k.width, k.height);
    Some(InfoError::new(format!("{field} principal point"), expected, got))
}

/// A lens that bends rays back on themselves before the nearer edges of the image: coefficients of another model, or in
/// another order.
fn fold(info: &CameraInfoMessage, k: &Intrinsics) -> Option<InfoError> {
    let lens = Lens::new(&info.distortion_model, &info.d).ok()??;
    let [x, y] = lens.distort([lens.folds_at()?, 0.0]);
    let edge = (0.5 * f64::from(k.width) / k.fx).min(0.5 * f64::from(k.height) / k.fy);
    let reached = x.hypot(y);
    if reached >= edge {
        return None;
    }
    let expected = "a lens that is one to one up to the edges of the image";
    let got = format!(
        "{:?}, which folds the image {:.0} % of the way from its middle to its nearer edges",
        info.d,
        100.0 * reached / edge
    );
    Some(InfoError::new("D", expected, got))
}

#[cfg(test)]
mod tests;
