//! `transforms.json` of nerfstudio (<https://docs.nerf.studio/quickstart/data_conventions.html>), instant-ngp and
//! DL3DV.
//!
//! `transform_matrix` is camera to world with OpenGL's camera axes (x right, y up, z backward): its second and third
//! column change their sign here. Pixels count from the corner of the first one (a ray goes through i + 0.5), so half a
//! pixel comes off `cx` and `cy`. `fl_x fl_y cx cy w h` stand at the top or at a frame; `camera_angle_x` (radians)
//! where `fl_x` is missing. Depth images are 16-bit z-depth of `depth_unit_scale_factor` a step (0.001 without it).
//!
//! Scene units are taken for arbitrary. `applied_transform` and `applied_scale` tell how the poses came from another
//! world: the first cancels in poses that are relative to a frame, the second is a choice of unit, which depth is brought
//! to. Frames are sorted by name, numbers as numbers, since their order in the file need not be that of time; times in
//! the file are not read. Cameras that differ from frame to frame are one where they are as good as one
//! ([`super::Films`]). Keys that say of lens or axes what is not read are refused, others that are not known are told of.

use super::{Films, Opened, Skipped, image_size, name_of, natural, read_json};
use crate::error::Error;
use crate::picture::Image;
use crate::sequence::{DepthFile, Frame};
use camera::sequence::is_zero;
use geometry::{Intrinsics, Stamp, Transform};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Where the file is in a scene's folder; the second in DL3DV's benchmark.
const PLACES: [&str; 2] = ["transforms.json", "nerfstudio/transforms.json"];
/// Models that are a pinhole where every coefficient is 0.
const PINHOLES: [&str; 6] = ["PINHOLE", "SIMPLE_PINHOLE", "OPENCV", "SIMPLE_RADIAL", "RADIAL", "PERSPECTIVE"];
const DEPTH_UNIT: f64 = 1e-3;
/// Keys that are read, at the top or at a frame.
static READ: [&str; 22] = [
    "applied_scale",
    "camera_angle_x",
    "camera_angle_y",
    "camera_model",
    "cx",
    "cy",
    "depth_unit_scale_factor",
    "fl_x",
    "fl_y",
    "h",
    "integer_depth_scale",
    "is_fisheye",
    "k1",
    "k2",
    "k3",
    "k4",
    "k5",
    "k6",
    "p1",
    "p2",
    "p3",
    "w",
];
/// Keys that change nothing of poses relative to a frame, of pictures or of cameras: another world, the box and the colours
/// of a radiance field, how good a picture is, where it comes from.
static HARMLESS: [&str; 35] = [
    "aabb",
    "aabb_range",
    "aabb_scale",
    "applied_transform",
    "auto_scale_poses_override",
    "background",
    "bg_color",
    "black_transparent",
    "colmap_id",
    "colmap_im_id",
    "colmap_image_id",
    "colmap_point_id",
    "enable_depth_loading",
    "enable_ray_loading",
    "envmap",
    "far",
    "fix_premult",
    "frame_id",
    "is_hdr",
    "mask_color",
    "n_extra_learnable_dims",
    "n_frames",
    "name",
    "near",
    "offset",
    "orientation_override",
    "ply_file_path",
    "render_aabb",
    "render_aabb_to_local",
    "scale",
    "sharpness",
    "test_filenames",
    "train_filenames",
    "up",
    "val_filenames",
];
/// Keys that say that a ray is not a pinhole's, or that poses have other axes; zeros and false do not.
static REFUSED: [&str; 13] = [
    "distortion",
    "distortion_coefficients",
    "distortion_params",
    "equirect",
    "fisheye_crop_radius",
    "from_mitsuba",
    "from_na",
    "ftheta_p0",
    "latlong",
    "ortho",
    "orthographic",
    "rolling_shutter",
    "xi",
];
/// How far a focal length and an angle that stand side by side may disagree.
const DISAGREEMENT: f64 = 0.02;

#[derive(Deserialize)]
struct Raw {
    frames: Vec<RawFrame>,
    #[serde(flatten)]
    fields: Map<String, Value>,
}

#[derive(Deserialize)]
struct RawFrame {
    file_path: String,
    depth_file_path: Option<String>,
    /// Rows; `None` stands for a NaN, which JSON does not have.
    transform_matrix: Vec<Vec<Option<f64>>>,
    #[serde(flatten)]
    fields: Map<String, Value>,
}

pub(super) fn fits(path: &Path) -> bool {
    PLACES.iter().any(|place| path.join(place).is_file())
}

pub(super) fn open(directory: &Path) -> Result<Opened, Error> {
    let paths = PLACES.map(|place| directory.join(place));
    let path = paths.iter().find(|path| path.is_file()).unwrap_or(&paths[0]);
    let folder = path.parent().unwrap_or(directory);
    let raw: Raw = read_json(path)?;
    let mut order: Vec<usize> = (0..raw.frames.len()).collect();
    order.sort_by_cached_key(|&index| natural(&raw.frames[index].file_path));
    let mut films = Films::default();
    let mut others: BTreeSet<&str> = BTreeSet::new();
    for index in order {
        let frame = &raw.frames[index];
        let fields = Fields { path, common: &raw.fields, own: &frame.fields };
        fields.check(&mut others)?;
        let image = image_path(folder, &frame.file_path, index)?;
        let intrinsics = fields.intrinsics(&image, index)?;
        let depth_unit = fields.depth_unit(frame.depth_file_path.is_some())?;
        let depth = frame.depth_file_path.as_ref().map(|depth| DepthFile {
            path: folder.join(depth),
            units_per_step: depth_unit as f32,
            resample: true,
        });
        let world_from_camera = Transform::from_matrix_row_major(&optical(path, index, &frame.transform_matrix)?)
            .map_err(|source| Error::Pose { path: path.clone(), index, source })?;
        let (stamp, image) = (Stamp::default(), Image::File(image));
        films.add(intrinsics, Frame { stamp, world_from_camera, image, depth, gap_before: false });
    }
    let mut opened = films.into_opened(path, directory)?;
    if opened.sequences.is_empty() {
        return Err(Error::Missing { path: path.clone(), expected: "at least one frame".to_owned() });
    }
    let what = |keys: &str| format!("{}: {keys} of transforms.json", name_of(directory));
    let masks: Vec<&str> = others.iter().copied().filter(|key| key.contains("mask")).collect();
    if !masks.is_empty() {
        let why = "masks are not read: what they cut out of the pictures is seen".to_owned();
        opened.skipped.push(Skipped { what: what(&masks.join(", ")), why });
    }
    let unknown: Vec<&str> = others.iter().copied().filter(|key| !key.contains("mask")).collect();
    if !unknown.is_empty() {
        let why = "not known here, and not read (depth is read from depth_file_path)".to_owned();
        opened.skipped.push(Skipped { what: what(&unknown.join(", ")), why });
    }
    Ok(opened)
}

/// The matrix, row after row, of a camera with optical axes: y and z of OpenGL's are turned round.
fn optical(path: &Path, index: usize, rows: &[Vec<Option<f64>>]) -> Result<[f64; 16], Error> {
    if !(3..=4).contains(&rows.len()) || rows.iter().any(|row| row.len() != 4) {
        return Err(Error::Field {
            path: path.to_path_buf(),
            field: "transform_matrix",
            expected: "4 rows of 4 numbers".to_owned(),
            got: format!("{} numbers in {} rows in frame {index}", rows.iter().flatten().count(), rows.len()),
        });
    }
    let mut matrix = [0.0; 16];
    matrix[15] = 1.0;
    for (to, from) in matrix.iter_mut().zip(rows.iter().flatten()) {
        *to = from.unwrap_or(f64::NAN);
    }
    for row in 0..3 {
        matrix[4 * row + 1] *= -1.0;
        matrix[4 * row + 2] *= -1.0;
    }
    Ok(matrix)
}

/// The image of a frame; old files leave its extension out.
fn image_path(folder: &Path, file: &str, index: usize) -> Result<PathBuf, Error> {
    ["", ".png", ".jpg", ".jpeg"]
        .iter()
        .map(|extension| folder.join(format!("{file}{extension}")))
        .find(|path| path.is_file())
        .ok_or_else(|| Error::MissingFrame { path: folder.to_path_buf(), index, expected: file.to_owned() })
}

/// What stands at a frame, or else at the top.
struct Fields<'a> {
    path: &'a Path,
    common: &'a Map<String, Value>,
    own: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// Puts the keys that are neither read nor known to change nothing to the `others`.
    fn check(&self, others: &mut BTreeSet<&'a str>) -> Result<(), Error> {
        for (key, value) in self.common.iter().chain(self.own) {
            let key = key.as_str();
            if let Some(field) = REFUSED.iter().copied().find(|refused| *refused == key) {
                if !is_zero(value) {
                    return Err(self.wrong(field, "none (only pinholes with the axes of OpenGL are read)", value));
                }
            } else if !READ.contains(&key) && !HARMLESS.contains(&key) {
                others.insert(key);
            }
        }
        Ok(())
    }

    /// Depth of one step of a depth image, in the unit of the poses.
    fn depth_unit(&self, is_used: bool) -> Result<f64, Error> {
        let mut unit = DEPTH_UNIT;
        for field in ["depth_unit_scale_factor", "applied_scale"] {
            let factor = self.number(field)?;
            if factor.is_some_and(|factor| !(factor.is_finite() && factor > 0.0)) {
                return Err(self.wrong(field, "a number above 0", factor.unwrap_or(f64::NAN)));
            }
            unit = match (field, factor) {
                (_, None) => unit,
                ("applied_scale", Some(factor)) => unit * factor,
                (_, Some(factor)) => factor,
            };
        }
        let integer = self.number("integer_depth_scale")?;
        if let (true, Some(integer), None) = (is_used, integer, self.number("depth_unit_scale_factor")?) {
            return Err(self.wrong("integer_depth_scale", "depth_unit_scale_factor beside depth_file_path", integer));
        }
        Ok(unit)
    }

    fn wrong(&self, field: &'static str, expected: &str, got: impl ToString) -> Error {
        Error::Field { path: self.path.to_path_buf(), field, expected: expected.to_owned(), got: got.to_string() }
    }

    fn value(&self, field: &str) -> Option<&Value> {
        self.own.get(field).or_else(|| self.common.get(field)).filter(|value| !value.is_null())
    }

    fn number(&self, field: &'static str) -> Result<Option<f64>, Error> {
        let number = |value: &Value| value.as_f64().ok_or_else(|| self.wrong(field, "a number", value));
        self.value(field).map(number).transpose()
    }

    fn pixels(&self, field: &'static str) -> Result<Option<u32>, Error> {
        let Some(value) = self.number(field)? else { return Ok(None) };
        if value.fract() != 0.0 || !(1.0..=65_535.0).contains(&value) {
            return Err(self.wrong(field, "a whole number of pixels", value));
        }
        Ok(Some(value as u32))
    }

    /// A focal length in pixels, by itself or by the angle over a side.
    fn focal(&self, field: &'static str, angle_field: &'static str, side: f64) -> Result<Option<f64>, Error> {
        let (stated, angle) = (self.number(field)?, self.number(angle_field)?);
        let by_angle = angle.map(|angle| 0.5 * side / (0.5 * angle).tan());
        if let (Some(stated), Some(by_angle)) = (stated, by_angle)
            && !(1.0 - DISAGREEMENT..=1.0 + DISAGREEMENT).contains(&(by_angle / stated))
        {
            let expected = format!("the angle of {field}, which is {stated}, over {side} pixels");
            return Err(self.wrong(angle_field, &expected, format!("that of {by_angle:.1}")));
        }
        Ok(stated.or(by_angle))
    }

    fn intrinsics(&self, image: &Path, index: usize) -> Result<Intrinsics, Error> {
        for field in ["k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2", "p3"] {
            let coefficient = self.number(field)?.unwrap_or(0.0);
            if coefficient != 0.0 {
                return Err(self.wrong(field, "0 (undistort the images first)", coefficient));
            }
        }
        let known = |model: &Value| model.as_str().is_some_and(|model| PINHOLES.contains(&model));
        if let Some(model) = self.value("camera_model").filter(|model| !known(model)) {
            return Err(self.wrong("camera_model", "a pinhole (undistort the images first)", model));
        }
        if let Some(fisheye) = self.value("is_fisheye").filter(|fisheye| !is_zero(fisheye)) {
            return Err(self.wrong("is_fisheye", "false (undistort the images first)", fisheye));
        }
        let (width, height) = match (self.pixels("w")?, self.pixels("h")?) {
            (Some(width), Some(height)) => (width, height),
            _ => image_size(image, index)?,
        };
        let (w, h) = (f64::from(width), f64::from(height));
        let Some(fx) = self.focal("fl_x", "camera_angle_x", w)? else {
            return Err(self.wrong("fl_x", "fl_x or camera_angle_x", "neither"));
        };
        let fy = self.focal("fl_y", "camera_angle_y", h)?.unwrap_or(fx);
        let cx = self.number("cx")?.unwrap_or(0.5 * w) - 0.5;
        let cy = self.number("cy")?.unwrap_or(0.5 * h) - 0.5;
        Intrinsics::new(fx, fy, cx, cy, width, height)
            .and_then(Intrinsics::plausible)
            .map_err(|source| Error::Intrinsics { path: self.path.to_path_buf(), source })
    }
}
