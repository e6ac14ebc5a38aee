//! TUM RGB-D (<https://cvg.cit.tum.de/data/datasets/rgbd-dataset/file_formats>, Sturm et al. 2012): `rgb.txt` and
//! `depth.txt` list images with their times, `groundtruth.txt` has poses at times of its own.
//!
//! Poses are `timestamp tx ty tz qx qy qz qw`, camera to world, metres, optical camera axes. Depth is z-depth, 5000
//! steps a metre, on the grid of the image. Camera matrices are OpenCV's: from the centre of the first pixel. They are
//! not in the recording: `calibration.txt` or `intrinsics.txt` with `fx fy cx cy`, or else the published ones of the
//! three cameras.

use super::{Opened, Skipped, image_size, line_error, name_of, numbers, read_text};
use crate::error::Error;
use crate::picture::Image;
use crate::sequence::{DepthFile, Frame, Sequence};
use camera::optics::Optics;
use geometry::{Camera, Intrinsics, Stamp, Stamped, Transform, World};
use std::path::Path;

const METRES_PER_STEP: f32 = 1.0 / 5000.0;
/// Farthest that the time of a pose or of a depth image may be from that of the image.
const MAX_NANOS: u64 = 20_000_000;
/// Size that the published camera matrices are for.
const PUBLISHED_SIZE: (u32, u32) = (640, 480);
/// Folder names, published fx fy cx cy, and whether the published lens distortion is other than zero.
static PUBLISHED: [(&str, [f64; 4], bool); 3] = [
    ("freiburg1", [517.3, 516.5, 318.6, 255.3], true),
    ("freiburg2", [520.9, 521.0, 325.1, 249.7], true),
    ("freiburg3", [535.4, 539.2, 320.1, 247.6], false),
];

pub(super) fn fits(path: &Path) -> bool {
    path.join("rgb.txt").is_file()
}

pub(super) fn open(directory: &Path) -> Result<Opened, Error> {
    let name = name_of(directory);
    let images = listed(&directory.join("rgb.txt"))?;
    let depth_list = directory.join("depth.txt");
    let depth_images = if depth_list.is_file() { listed(&depth_list)? } else { Vec::new() };
    let poses = trajectory(&directory.join("groundtruth.txt"))?;
    let pose_stamps: Vec<Stamp> = poses.iter().map(|pose| pose.stamp).collect();
    let depth_stamps: Vec<Stamp> = depth_images.iter().map(|(stamp, _)| *stamp).collect();

    let total = images.len();
    let mut frames = Vec::with_capacity(total);
    let mut gap_before = false;
    for (index, (stamp, file)) in images.into_iter().enumerate() {
        let Some(pose) = nearest(&pose_stamps, stamp) else {
            gap_before = true;
            continue;
        };
        let image = directory.join(&file);
        if !image.is_file() {
            return Err(Error::MissingFrame { path: directory.to_path_buf(), index, expected: file });
        }
        let depth = nearest(&depth_stamps, stamp).map(|nearest| DepthFile {
            path: directory.join(&depth_images[nearest].1),
            units_per_step: METRES_PER_STEP,
            resample: false,
        });
        let image = Image::File(image);
        frames.push(Frame { stamp, world_from_camera: poses[pose].value, image, depth, gap_before });
        gap_before = false;
    }
    let Some(first) = frames.first().and_then(|frame| frame.image.file()) else {
        let expected = "an image in rgb.txt with a pose in groundtruth.txt within 20 ms".to_owned();
        return Err(Error::Missing { path: directory.to_path_buf(), expected });
    };
    let (intrinsics, distorted) = intrinsics(directory, &name, image_size(first, 0)?)?;

    let mut skipped = Vec::new();
    let mut tell = |what: String, why: &str| skipped.push(Skipped { what, why: why.to_owned() });
    let lost = total - frames.len();
    if lost > 0 {
        tell(format!("{name}: {lost} of {total} frames"), "no pose in groundtruth.txt within 20 ms");
    }
    let without_depth = frames.iter().filter(|frame| frame.depth.is_none()).count();
    if without_depth > 0 && !depth_images.is_empty() {
        tell(format!("{name}: depth of {without_depth} of {total} frames"), "no image in depth.txt within 20 ms");
    }
    if distorted {
        tell(
            format!("{name}: lens distortion"),
            "images are used as they are, with the published fx fy cx cy; undistort them and write calibration.txt",
        );
    }
    let path = directory.to_path_buf();
    let sequence = Sequence {
        path,
        source: name.clone(),
        name,
        optics: Optics::pinhole(intrinsics),
        metric: true,
        truth: None,
        frames,
    };
    Ok(Opened { sequences: vec![sequence], skipped })
}

/// `timestamp path` a line, by time; `#` starts a comment.
fn listed(path: &Path) -> Result<Vec<(Stamp, String)>, Error> {
    let text = read_text(path)?;
    let mut listed = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let entry = line.split_once(char::is_whitespace).and_then(|(time, file)| Some((stamp(time)?, file.trim())));
        let (stamp, file) =
            entry.ok_or_else(|| line_error(path, number, "a timestamp in seconds and a file", format!("{line:?}")))?;
        listed.push((stamp, file.to_owned()));
    }
    listed.sort_by_key(|(stamp, _)| *stamp);
    Ok(listed)
}

/// Decimal seconds without a sign, read as such: a float has not the digits for nanoseconds since 1970.
fn stamp(word: &str) -> Option<Stamp> {
    let (whole, fraction) = word.split_once('.').unwrap_or((word, ""));
    if !word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let nanos: i64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos).map(Stamp::from_nanos)
}

/// The poses by time.
fn trajectory(path: &Path) -> Result<Vec<Stamped<Transform<World, Camera>>>, Error> {
    let mut poses = geometry::tum::parse(&read_text(path)?, "").map_err(|cause| match cause {
        geometry::Error::TumLine { line, expected, got, .. } => line_error(path, line, expected, got),
        other => line_error(path, 1, "a pose a line", other.to_string()),
    })?;
    poses.sort_by_key(|pose| pose.stamp);
    Ok(poses)
}

/// Which of the rising stamps is nearest, where one is near enough.
fn nearest(stamps: &[Stamp], stamp: Stamp) -> Option<usize> {
    let distance = |index: &usize| stamps[*index].nanos.abs_diff(stamp.nanos);
    let after = stamps.partition_point(|other| *other < stamp);
    let around = after.saturating_sub(1)..(after + 1).min(stamps.len());
    around.min_by_key(distance).filter(|index| distance(index) <= MAX_NANOS)
}

/// The camera matrix of a file, or the published one by the folder's name and whether distortion is left out with it.
fn intrinsics(directory: &Path, name: &str, size: (u32, u32)) -> Result<(Intrinsics, bool), Error> {
    let (width, height) = size;
    let camera = |path: &Path, [fx, fy, cx, cy]: [f64; 4]| {
        Intrinsics::new(fx, fy, cx, cy, width, height)
            .and_then(Intrinsics::plausible)
            .map_err(|source| Error::Intrinsics { path: path.to_path_buf(), source })
    };
    let files = ["calibration.txt", "intrinsics.txt"].map(|file| directory.join(file));
    if let Some(path) = files.iter().find(|path| path.is_file()) {
        let expected = "fx fy cx cy in pixels, of undistorted images";
        let text = read_text(path)?;
        let content = |line: &str| line.split('#').next().unwrap_or_default().trim().to_owned();
        let (line, number) = text
            .lines()
            .map(content)
            .zip(1..)
            .find(|(line, _)| !line.is_empty())
            .ok_or_else(|| line_error(path, 1, expected, "nothing"))?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let values = numbers::<4>(&words).map_err(|got| line_error(path, number, expected, got))?;
        return Ok((camera(path, values)?, false));
    }
    let lower = name.to_lowercase();
    let known = PUBLISHED.iter().find(|(folder, ..)| lower.contains(folder));
    match known {
        Some((_, values, distorted)) if size == PUBLISHED_SIZE => Ok((camera(directory, *values)?, *distorted)),
        _ => Err(Error::Missing {
            path: directory.to_path_buf(),
            expected: format!(
                "calibration.txt with fx fy cx cy (known without it: freiburg1, 2 and 3 at 640 x 480; this is {width} x \
                 {height})"
            ),
        }),
    }
}
