//! ScanNet as its SensReader exports it (<https://github.com/ScanNet/ScanNet>, Dai et al. 2017): `color/0.jpg`,
//! `depth/0.png`, `pose/0.txt`, `intrinsic/intrinsic_color.txt`.
//!
//! Poses are 4x4 matrices, camera to world, metres, optical camera axes; -inf where the reconstruction lost the camera.
//! Depth is z-depth in millimetres, brought to the grid of the colour image, which is larger: both cameras are taken
//! for one, as the data set's own tools do. Pixels count from the centre of the first. The export has no times: 30 Hz.

use super::{Opened, Skipped, image_size, line_error, name_of, numbered, numbers, read_text};
use crate::error::Error;
use crate::picture::Image;
use crate::sequence::{DepthFile, Frame, Sequence};
use camera::optics::Optics;
use geometry::{Intrinsics, Stamp, Transform};
use std::collections::BTreeMap;
use std::path::Path;

const METRES_PER_STEP: f32 = 1e-3;
const FRAMES_PER_SECOND: i64 = 30;

pub(super) fn fits(path: &Path) -> bool {
    path.join("pose").is_dir() && path.join("color").is_dir()
}

pub(super) fn open(directory: &Path) -> Result<Opened, Error> {
    let name = name_of(directory);
    let images = numbered(&directory.join("color"), &["jpg", "jpeg", "png"])?;
    let depth_folder = directory.join("depth");
    let mut depth = if depth_folder.is_dir() { numbered(&depth_folder, &["png"])? } else { BTreeMap::new() };
    // Exports may keep every n-th frame; what is more than n apart has a hole in it.
    let numbers_of_frames: Vec<i64> = images.keys().copied().collect();
    let step = numbers_of_frames.windows(2).map(|pair| pair[1] - pair[0]).min().unwrap_or(1);

    let total = images.len();
    let mut frames = Vec::with_capacity(total);
    let mut before: Option<i64> = None;
    for (number, image) in images {
        let path = directory.join(format!("pose/{number}.txt"));
        let matrix = matrix(&path)?;
        if !matrix.iter().all(|value| value.is_finite()) {
            continue;
        }
        let world_from_camera = Transform::from_matrix_row_major(&matrix).map_err(|source| Error::Pose {
            path,
            index: usize::try_from(number).unwrap_or_default(),
            source,
        })?;
        frames.push(Frame {
            stamp: Stamp::from_nanos(number * 1_000_000_000 / FRAMES_PER_SECOND),
            world_from_camera,
            image: Image::File(image),
            depth: depth.remove(&number).map(|path| DepthFile {
                path,
                units_per_step: METRES_PER_STEP,
                resample: true,
            }),
            gap_before: before.is_some_and(|before| number - before > step),
        });
        before = Some(number);
    }
    let Some(first) = frames.first().and_then(|frame| frame.image.file()) else {
        let expected = "an image in color with a finite pose in pose".to_owned();
        return Err(Error::Missing { path: directory.to_path_buf(), expected });
    };
    let intrinsics = intrinsics(&directory.join("intrinsic/intrinsic_color.txt"), image_size(first, 0)?)?;
    let lost = total - frames.len();
    let mut skipped = Vec::new();
    if lost > 0 {
        let what = format!("{name}: {lost} of {total} frames");
        skipped.push(Skipped { what, why: "their pose is not finite".to_owned() });
    }
    let extrinsics = directory.join("intrinsic/extrinsic_color.txt");
    if extrinsics.is_file() && !is_identity(&matrix(&extrinsics)?) {
        let why = "it is not the identity, and not read: poses are taken for those of the colour camera".to_owned();
        skipped.push(Skipped { what: format!("{name}: extrinsic_color.txt"), why });
    }
    let (path, source) = (directory.to_path_buf(), room(&name).to_owned());
    let sequence =
        Sequence { path, name, source, optics: Optics::pinhole(intrinsics), metric: true, truth: None, frames };
    Ok(Opened { sequences: vec![sequence], skipped })
}

/// `scene0000` of `scene0000_01`: rooms were scanned several times.
fn room(name: &str) -> &str {
    match name.rsplit_once('_') {
        Some((room, scan)) if room.starts_with("scene") && scan.bytes().all(|byte| byte.is_ascii_digit()) => room,
        _ => name,
    }
}

fn matrix(path: &Path) -> Result<[f64; 16], Error> {
    let text = read_text(path)?;
    let words: Vec<&str> = text.split_whitespace().collect();
    numbers::<16>(&words).map_err(|got| line_error(path, 1, "a 4x4 matrix", got.replace("columns", "words")))
}

fn is_identity(matrix: &[f64; 16]) -> bool {
    matrix.iter().enumerate().all(|(i, value)| (value - f64::from(u8::from(i % 5 == 0))).abs() < 1e-6)
}

fn intrinsics(path: &Path, (width, height): (u32, u32)) -> Result<Intrinsics, Error> {
    let [fx, skew, cx, _, zero, fy, cy, ..] = matrix(path)?;
    if skew != 0.0 || zero != 0.0 {
        return Err(line_error(path, 1, "a camera matrix without skew", format!("{skew} and {zero} beside fx and fy")));
    }
    Intrinsics::new(fx, fy, cx, cy, width, height)
        .and_then(Intrinsics::plausible)
        .map_err(|source| Error::Intrinsics { path: path.to_path_buf(), source })
}
