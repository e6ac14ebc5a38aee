//! Our own layout: `sequence.json`, `frames/%06d.jpg|jpeg|png` and perhaps `depth/%06d.png` (16-bit, millimetres).
//!
//! ```json
//! {"name": "desk", "width": 640, "height": 480, "metric": true, "num_frames": 50, "timestamps": null,
//!  "intrinsics": {"fx": 525.0, "fy": 525.0, "cx": 319.5, "cy": 239.5}, "pose_convention": "camera_to_world",
//!  "camera_axes": "opencv (x right, y down, z forward)", "poses": [[1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]]}
//! ```
//! A pose is a 4x4 matrix, row after row; times are seconds. `"scene"` names what a split must not cut; without it that
//! is the video of `"url"`, or the name.

use super::{Opened, made_up_stamp, read_json, realestate};
use crate::data::error::Error;
use crate::data::picture::Image;
use crate::data::sequence::{DepthFile, Frame, Sequence};
use geometry::{Intrinsics, Stamp, Transform};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Depth of one step of a 16-bit depth image.
const METRES_PER_STEP: f32 = 1e-3;

/// Fields beyond these say where the data come from and are not read.
#[derive(Deserialize)]
struct Raw {
    name: String,
    scene: Option<String>,
    url: Option<String>,
    width: u32,
    height: u32,
    intrinsics: RawIntrinsics,
    pose_convention: String,
    camera_axes: String,
    metric: bool,
    num_frames: usize,
    timestamps: Option<Vec<f64>>,
    /// 4x4 row-major; `None` stands for a NaN, which JSON does not have.
    poses: Vec<Vec<Option<f64>>>,
}

#[derive(Deserialize)]
struct RawIntrinsics {
    fx: f64,
    fy: f64,
    cx: f64,
    cy: f64,
}

pub(super) fn fits(path: &Path) -> bool {
    path.join("sequence.json").is_file()
}

pub(super) fn open(directory: &Path) -> Result<Opened, Error> {
    Ok(Opened { sequences: vec![read(directory)?], skipped: Vec::new() })
}

pub(in crate::data) fn read(directory: &Path) -> Result<Sequence, Error> {
    let path = directory.join("sequence.json");
    let raw: Raw = read_json(&path)?;
    let field = |field, expected: &str, got: String| Error::Field {
        path: path.clone(),
        field,
        expected: expected.to_owned(),
        got,
    };

    if raw.pose_convention != "camera_to_world" {
        return Err(field("pose_convention", "camera_to_world", raw.pose_convention));
    }
    if !raw.camera_axes.starts_with("opencv") {
        return Err(field("camera_axes", "opencv (x right, y down, z forward)", raw.camera_axes));
    }
    if raw.num_frames != raw.poses.len() {
        return Err(field(
            "num_frames",
            "the number of poses",
            format!("{} with {} poses", raw.num_frames, raw.poses.len()),
        ));
    }
    let RawIntrinsics { fx, fy, cx, cy } = raw.intrinsics;
    let intrinsics = Intrinsics::new(fx, fy, cx, cy, raw.width, raw.height)
        .map_err(|source| Error::Intrinsics { path: path.clone(), source })?;
    let poses = raw
        .poses
        .iter()
        .enumerate()
        .map(|(index, pose)| {
            let numbers: Vec<f64> = pose.iter().map(|x| x.unwrap_or(f64::NAN)).collect();
            let matrix = <&[f64; 16]>::try_from(numbers.as_slice())
                .map_err(|_| field("poses", "16 numbers a pose", format!("{} in pose {index}", numbers.len())))?;
            Transform::from_matrix_row_major(matrix).map_err(|source| Error::Pose { path: path.clone(), index, source })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let stamps: Vec<Stamp> = match &raw.timestamps {
        None => (0..raw.num_frames).map(made_up_stamp).collect(),
        Some(seconds) => {
            let rising = seconds.windows(2).all(|pair| pair[0] < pair[1]) && seconds.iter().all(|s| s.is_finite());
            if seconds.len() != raw.num_frames || !rising {
                return Err(field(
                    "timestamps",
                    "one rising time a frame",
                    format!("{} times, rising: {rising}", seconds.len()),
                ));
            }
            seconds.iter().map(|&s| Stamp::from_seconds_f64(s)).collect()
        }
    };
    let frames = poses
        .into_iter()
        .zip(stamps)
        .enumerate()
        .map(|(index, (world_from_camera, stamp))| {
            let depth = directory.join(format!("depth/{index:06}.png"));
            Ok(Frame {
                stamp,
                world_from_camera,
                image: Image::File(image_path(directory, index)?),
                depth: Some(DepthFile { path: depth, units_per_step: METRES_PER_STEP, resample: false }),
                gap_before: false,
            })
        })
        .collect::<Result<Vec<_>, Error>>()?;
    let source = raw.scene.or_else(|| realestate::video_id(&raw.url?)).unwrap_or_else(|| raw.name.clone());
    Ok(Sequence { path: directory.to_path_buf(), name: raw.name, source, intrinsics, metric: raw.metric, frames })
}

fn image_path(directory: &Path, index: usize) -> Result<PathBuf, Error> {
    let frames = directory.join("frames");
    ["jpg", "jpeg", "png"]
        .iter()
        .map(|extension| frames.join(format!("{index:06}.{extension}")))
        .find(|path| path.is_file())
        .ok_or_else(|| Error::MissingFrame {
            path: frames.clone(),
            index,
            expected: format!("{index:06}.jpg, .jpeg or .png"),
        })
}

impl Sequence {
    /// Reads a folder with a `sequence.json`; other layouts are [`super::open`]'s. No image is decoded yet.
    ///
    /// # Errors
    /// Every variant of [`Error`] but those of images and windows.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, Error> {
        read(directory.as_ref())
    }
}
