//! `transforms.json` of nerfstudio (<https://docs.nerf.studio/quickstart/data_conventions.html>), instant-ngp and
//! DL3DV.
//!
//! `transform_matrix` is camera to world with OpenGL's camera axes (x right, y up, z backward): its second and third
//! column change their sign here. Pixels count from the corner of the first one (a ray goes through i + 0.5), so half a
//! pixel comes off `cx` and `cy`. `fl_x fl_y cx cy w h` stand at the top or at a frame; `camera_angle_x` (radians)
//! where `fl_x` is missing. Depth images are 16-bit z-depth of `depth_unit_scale_factor` a step (0.001 without it).
//!
//! Scene units are taken for arbitrary. `applied_transform` and `applied_scale` tell how the poses came from another
//! world: the first cancels in poses that are relative to a frame, the second is a choice of unit, so neither is read.
//! Frames are sorted by name, numbers as numbers, since their order in the file need not be that of time. Cameras that
//! differ from frame to frame make sequences of one frame each, which have no windows.

use super::{Films, Opened, image_size, natural, read_json};
use crate::error::Error;
use crate::picture::Image;
use crate::sequence::{DepthFile, Frame};
use geometry::{Intrinsics, Stamp, Transform};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Where the file is in a scene's folder; the second in DL3DV's benchmark.
const PLACES: [&str; 2] = ["transforms.json", "nerfstudio/transforms.json"];
/// Models that are a pinhole where every coefficient is 0.
const PINHOLES: [&str; 6] = ["PINHOLE", "SIMPLE_PINHOLE", "OPENCV", "SIMPLE_RADIAL", "RADIAL", "PERSPECTIVE"];
const DEPTH_UNIT: f64 = 1e-3;

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
    for index in order {
        let frame = &raw.frames[index];
        let fields = Fields { path, common: &raw.fields, own: &frame.fields };
        let image = image_path(folder, &frame.file_path, index)?;
        let intrinsics = fields.intrinsics(&image, index)?;
        let depth_unit = fields.number("depth_unit_scale_factor")?.unwrap_or(DEPTH_UNIT);
        if !(depth_unit.is_finite() && depth_unit > 0.0) {
            return Err(fields.wrong("depth_unit_scale_factor", "a number above 0", depth_unit));
        }
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
    let sequences = films.into_sequences(directory, false);
    if sequences.is_empty() {
        return Err(Error::Missing { path: path.clone(), expected: "at least one frame".to_owned() });
    }
    Ok(Opened { sequences, skipped: Vec::new() })
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

impl Fields<'_> {
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

    fn intrinsics(&self, image: &Path, index: usize) -> Result<Intrinsics, Error> {
        for field in ["k1", "k2", "k3", "k4", "p1", "p2"] {
            let coefficient = self.number(field)?.unwrap_or(0.0);
            if coefficient != 0.0 {
                return Err(self.wrong(field, "0 (undistort the images first)", coefficient));
            }
        }
        let known = |model: &Value| model.as_str().is_some_and(|model| PINHOLES.contains(&model));
        if let Some(model) = self.value("camera_model").filter(|model| !known(model)) {
            return Err(self.wrong("camera_model", "a pinhole (undistort the images first)", model));
        }
        if self.value("is_fisheye").is_some_and(|fisheye| *fisheye != Value::Bool(false)) {
            return Err(self.wrong("is_fisheye", "false (undistort the images first)", true));
        }
        let (width, height) = match (self.pixels("w")?, self.pixels("h")?) {
            (Some(width), Some(height)) => (width, height),
            _ => image_size(image, index)?,
        };
        let (w, h) = (f64::from(width), f64::from(height));
        let focal = |side: f64, angle: f64| 0.5 * side / (0.5 * angle).tan();
        let fx = match (self.number("fl_x")?, self.number("camera_angle_x")?) {
            (Some(fx), _) => fx,
            (None, Some(angle)) => focal(w, angle),
            (None, None) => return Err(self.wrong("fl_x", "fl_x or camera_angle_x", "neither")),
        };
        let fy = match (self.number("fl_y")?, self.number("camera_angle_y")?) {
            (Some(fy), _) => fy,
            (None, Some(angle)) => focal(h, angle),
            (None, None) => fx,
        };
        let cx = self.number("cx")?.unwrap_or(0.5 * w) - 0.5;
        let cy = self.number("cy")?.unwrap_or(0.5 * h) - 0.5;
        Intrinsics::new(fx, fy, cx, cy, width, height)
            .map_err(|source| Error::Intrinsics { path: self.path.to_path_buf(), source })
    }
}
