//! RealEstate10K (<https://google.github.io/realestate10k>, Zhou et al. 2018): a text file a clip, and the pictures
//! apart from it, since the data set has none.
//!
//! The first line is the address of the video; each other line has 19 columns:
//!
//! ```text
//! timestamp fx fy cx cy k1 k2 r11 r12 r13 t1 r21 r22 r23 t2 r31 r32 r33 t3
//! ```
//! Timestamps are microseconds. The matrix is world to camera, with optical camera axes; scene units are arbitrary,
//! another for each clip. `fx cx` are in image widths, `fy cy` in heights, whatever the size of the pictures, stretched
//! ones included. A normalised 0.5 is the middle of the image, so 0 is the outer edge of the first pixel, not its
//! centre: `cx W` counts from the corner, and half a pixel less from the centre.

use super::{Opened, Skipped, Videos, entries, gather, image_size, line_error, numbered, numbers, read_text};
use crate::error::Error;
use crate::picture::Image;
use crate::sequence::{Frame, Sequence};
use camera::optics::Optics;
use geometry::{Camera, Intrinsics, Stamp, Transform, World};
use nalgebra::{Matrix3, Vector3};
use std::path::{Path, PathBuf};

const COLUMNS: &str = "19 columns: timestamp in microseconds, fx fy cx cy k1 k2, a 3x4 world-to-camera matrix";

/// Where the pictures of the clips are.
#[derive(Debug, Clone)]
pub enum Pictures {
    /// In folders that are called as the clips are: `<clip>/<timestamp>.jpg`, `.jpeg` or `.png`.
    Frames(PathBuf),
    /// In videos, from which they are cut at the listed times.
    Videos(Videos),
}

/// What a file says.
struct Clip {
    /// The video's id on YouTube.
    video: String,
    /// fx, fy, cx, cy in widths and heights, from the corner; the same in all lines.
    camera: [f64; 4],
    /// Microseconds from the start of the video, rising, and the pose.
    frames: Vec<(i64, Transform<World, Camera>)>,
}

/// Opens a file of RealEstate10K, or every `.txt` file of a folder in the order of their names.
///
/// Files that are broken and clips without pictures are left out and told of in [`Opened::skipped`], as are frames
/// without a picture; windows do not go across those.
///
/// # Errors
/// [`Error::Program`] where videos have to be cut and ffmpeg does not start; the first of the others where not one clip
/// is left: [`Error::Line`] for what a file says, [`Error::Missing`] and [`Error::Cut`] for its pictures.
pub fn open(poses: &Path, pictures: &Pictures) -> Result<Opened, Error> {
    let files: Vec<PathBuf> = if poses.is_dir() {
        entries(poses)?.into_iter().filter(|path| path.extension().is_some_and(|e| e == "txt")).collect()
    } else {
        vec![poses.to_path_buf()]
    };
    gather(poses, files.into_iter(), |file| film(file, pictures))
}

fn film(path: &Path, pictures: &Pictures) -> Result<Opened, Error> {
    let clip = parse(&read_text(path)?, path)?;
    let name = path.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let micros: Vec<i64> = clip.frames.iter().map(|(micros, _)| *micros).collect();
    let images = match pictures {
        Pictures::Frames(folder) => stored(&folder.join(&name), &micros)?,
        Pictures::Videos(videos) => videos.frames(&clip.video, &name, &micros)?.into_iter().map(Some).collect(),
    };
    let mut frames = Vec::with_capacity(images.len());
    let mut gap_before = false;
    for ((micros, world_from_camera), image) in clip.frames.into_iter().zip(images) {
        let Some(image) = image else {
            gap_before = true;
            continue;
        };
        let (stamp, image) = (Stamp::from_nanos(micros * 1000), Image::File(image));
        frames.push(Frame { stamp, world_from_camera, image, depth: None, gap_before });
        gap_before = false;
    }
    let Some(first) = frames.first().and_then(|frame| frame.image.file()) else {
        let expected = format!("{}.jpg, .jpeg or .png, or one of another listed time", micros[0]);
        return Err(Error::Missing { path: path.to_path_buf(), expected });
    };
    let (width, height) = image_size(first, 0)?;
    let (w, h) = (f64::from(width), f64::from(height));
    let [fx, fy, cx, cy] = clip.camera;
    let intrinsics = Intrinsics::new(fx * w, fy * h, cx * w - 0.5, cy * h - 0.5, width, height)
        .and_then(Intrinsics::plausible)
        .map_err(|source| Error::Intrinsics { path: path.to_path_buf(), source })?;
    let lost = micros.len() - frames.len();
    let skipped = (lost > 0).then(|| Skipped {
        what: format!("{name}: {lost} of {} frames", micros.len()),
        why: "no picture of their time".to_owned(),
    });
    let sequence = Sequence {
        path: path.to_path_buf(),
        name,
        source: clip.video,
        optics: Optics::pinhole(intrinsics),
        metric: false,
        truth: None,
        frames,
    };
    Ok(Opened { sequences: vec![sequence], skipped: skipped.into_iter().collect() })
}

/// The pictures of a clip in its folder, where there are any.
fn stored(folder: &Path, micros: &[i64]) -> Result<Vec<Option<PathBuf>>, Error> {
    if !folder.is_dir() {
        return Err(Error::Missing {
            path: folder.to_path_buf(),
            expected: "a folder of the clip's frames".to_owned(),
        });
    }
    let mut files = numbered(folder, &["jpg", "jpeg", "png"])?;
    Ok(micros.iter().map(|micros| files.remove(micros)).collect())
}

fn parse(text: &str, path: &Path) -> Result<Clip, Error> {
    let mut lines = text.lines().zip(1_usize..).filter(|(line, _)| !line.trim().is_empty());
    let (address, number) = lines.next().unwrap_or(("", 1));
    let video = video_id(address.trim()).ok_or_else(|| {
        let got = match address.split_whitespace().count() {
            columns @ 18.. => format!("{columns} columns: is this another format?"),
            _ => format!("{address:?}"),
        };
        line_error(path, number, format!("the address of the video on YouTube, then lines of {COLUMNS}"), got)
    })?;
    let mut camera: Option<[f64; 4]> = None;
    let mut frames: Vec<(i64, Transform<World, Camera>)> = Vec::new();
    for (line, number) in lines {
        let wrong = |expected: &str, got: String| line_error(path, number, expected, got);
        let words: Vec<&str> = line.split_whitespace().collect();
        let (micros, values) = match words.as_slice() {
            [first, rest @ ..] if rest.len() == 18 => {
                let micros = first.parse::<i64>().ok().filter(|micros| *micros >= 0);
                let micros = micros.ok_or_else(|| wrong("a timestamp in microseconds", format!("{first:?}")))?;
                (micros, numbers::<18>(rest).map_err(|got| wrong("a number", got))?)
            }
            other => return Err(wrong(COLUMNS, format!("{} columns", other.len()))),
        };
        if frames.last().is_some_and(|(before, _)| *before >= micros) {
            return Err(wrong("a later time than in the line before", micros.to_string()));
        }
        let [fx, fy, cx, cy, k1, k2, matrix @ ..] = values;
        if k1 != 0.0 || k2 != 0.0 {
            return Err(wrong("k1 and k2 of 0 (undistort the frames first)", format!("{k1} {k2}")));
        }
        let own = [fx, fy, cx, cy];
        let same = camera.get_or_insert(own).iter().zip(own).all(|(a, b)| (a - b).abs() <= 1e-6);
        if !same {
            return Err(wrong("fx fy cx cy as in the lines before (one camera a clip)", format!("{own:?}")));
        }
        // The foreign matrix is the extrinsics [R|t] of x_camera = R x_world + t.
        let [a, b, c, x, d, e, f, y, g, h, i, z] = matrix;
        let camera_from_world: Transform<Camera, World> =
            Transform::from_rotation_translation(&Matrix3::new(a, b, c, d, e, f, g, h, i), &Vector3::new(x, y, z))
                .map_err(|cause| wrong("a rigid world-to-camera matrix", cause.to_string()))?;
        frames.push((micros, camera_from_world.inverse()));
    }
    let camera = camera.ok_or_else(|| line_error(path, number + 1, COLUMNS, "the end of the file"))?;
    Ok(Clip { video, camera, frames })
}

/// The id of a video in its address on YouTube.
pub(super) fn video_id(address: &str) -> Option<String> {
    let rest = match address.split_once("watch?v=") {
        Some((_, rest)) => rest,
        None => address.split_once("youtu.be/")?.1,
    };
    let id = rest.split(['&', '?', '#', '/']).next()?;
    // It becomes a part of paths.
    let safe = !id.is_empty() && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    safe.then(|| id.to_owned())
}
