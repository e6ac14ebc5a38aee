//! COLMAP's text model (<https://colmap.github.io/format.html>): `cameras.txt` and `images.txt`, images beside.
//!
//! An image's line is `IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME`, world to camera with optical camera axes, scalar
//! first; the line after it lists its 2-D points and may be empty. Scene units are arbitrary. COLMAP's pixel (0, 0) is
//! the corner of the first pixel, so half a pixel comes off the principal point. Frames are sorted by name, numbers as
//! numbers; images that were not registered are not in the file and leave no mark, so a window may step over them.
//! Images with a camera each are of one camera where those are as good as one ([`super::Films`]); else use one
//! (`--ImageReader.single_camera 1`).

use super::{Films, Opened, line_error, natural, numbers, read_text};
use crate::error::Error;
use crate::picture::Image;
use crate::sequence::Frame;
use geometry::{Camera, Intrinsics, Stamp, Transform, World};
use nalgebra::Vector3;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Where a model may be and its images are, in a scene's folder; undistorted ones before those they were made of.
static PLACES: [(&str, &str); 4] =
    [("", "images"), ("dense/sparse", "dense/images"), ("sparse", "images"), ("sparse/0", "images")];

pub(super) fn fits(path: &Path) -> bool {
    PLACES.iter().any(|(model, _)| ["txt", "bin"].iter().any(|kind| camera_file(path, model, kind).is_file()))
}

fn camera_file(path: &Path, model: &str, kind: &str) -> PathBuf {
    path.join(model).join(format!("cameras.{kind}"))
}

pub(super) fn open(directory: &Path) -> Result<Opened, Error> {
    let place = PLACES.iter().find(|(model, _)| camera_file(directory, model, "txt").is_file());
    let (model, images) = place.ok_or_else(|| Error::Missing {
        path: directory.to_path_buf(),
        expected: "a text model (of a binary one: colmap model_converter --output_type TXT)".to_owned(),
    })?;
    let folder = directory.join(images);
    let cameras = cameras(&camera_file(directory, model, "txt"))?;
    let path = directory.join(model).join("images.txt");
    let mut posed = posed(&path, &cameras)?;
    posed.sort_by_cached_key(|image| natural(&image.name));
    let mut films = Films::default();
    for (index, Posed { name, intrinsics, world_from_camera }) in posed.into_iter().enumerate() {
        let image = folder.join(&name);
        if !image.is_file() {
            return Err(Error::MissingFrame { path: folder, index, expected: name });
        }
        let (stamp, image) = (Stamp::default(), Image::File(image));
        films.add(intrinsics, Frame { stamp, world_from_camera, image, depth: None, gap_before: false });
    }
    let opened = films.into_opened(&camera_file(directory, model, "txt"), directory)?;
    if opened.sequences.is_empty() {
        return Err(Error::Missing { path, expected: "at least one image".to_owned() });
    }
    Ok(opened)
}

/// `CAMERA_ID MODEL WIDTH HEIGHT PARAMS...` a line.
fn cameras(path: &Path) -> Result<HashMap<u32, Intrinsics>, Error> {
    let text = read_text(path)?;
    let mut cameras = HashMap::new();
    for (line, number) in text.lines().zip(1..) {
        let wrong = |expected: &str, got: String| line_error(path, number, expected, got);
        let words: Vec<&str> = line.split_whitespace().collect();
        let [id, model, width, height, parameters @ ..] = words.as_slice() else {
            match words.first() {
                Some(word) if !word.starts_with('#') => {
                    return Err(wrong("CAMERA_ID MODEL WIDTH HEIGHT PARAMS", format!("{} columns", words.len())));
                }
                _ => continue,
            }
        };
        if id.starts_with('#') {
            continue;
        }
        let whole = |word: &str| word.parse::<u32>().map_err(|_| wrong("a whole number", format!("{word:?}")));
        let values = match *model {
            "SIMPLE_PINHOLE" => numbers::<3>(parameters).map(|[f, cx, cy]| [f, f, cx, cy]),
            "PINHOLE" => numbers::<4>(parameters),
            other => {
                return Err(wrong("SIMPLE_PINHOLE or PINHOLE (run colmap image_undistorter)", other.to_owned()));
            }
        };
        let [fx, fy, cx, cy] =
            values.map_err(|got| wrong("the parameters of the model", format!("{got} behind the height")))?;
        let intrinsics = Intrinsics::new(fx, fy, cx - 0.5, cy - 0.5, whole(width)?, whole(height)?)
            .and_then(Intrinsics::plausible)
            .map_err(|cause| wrong("a pinhole camera", cause.to_string()))?;
        cameras.insert(whole(id)?, intrinsics);
    }
    Ok(cameras)
}

struct Posed {
    name: String,
    intrinsics: Intrinsics,
    world_from_camera: Transform<World, Camera>,
}

/// Two lines an image.
fn posed(path: &Path, cameras: &HashMap<u32, Intrinsics>) -> Result<Vec<Posed>, Error> {
    let text = read_text(path)?;
    let mut posed = Vec::new();
    let mut lines = text.lines().zip(1_usize..);
    while let Some((line, number)) = lines.next() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |expected: &str, got: String| line_error(path, number, expected, got);
        // A name may have spaces in it.
        let words: Vec<&str> = line.splitn(10, ' ').collect();
        let [_, pose @ .., camera, name] = words.as_slice() else {
            return Err(wrong("an image's line", format!("{line:?}")));
        };
        if words.len() != 10 {
            let expected = "10 columns: IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME";
            return Err(wrong(expected, format!("{} columns", words.len())));
        }
        let [qw, qx, qy, qz, x, y, z] = numbers::<7>(pose).map_err(|got| wrong("a number", got))?;
        // The foreign pose is x_camera = R x_world + t.
        let camera_from_world: Transform<Camera, World> =
            Transform::from_wxyz([qw, qx, qy, qz], &Vector3::new(x, y, z))
                .map_err(|cause| wrong("a world-to-camera pose", cause.to_string()))?;
        let known = camera.parse().ok().and_then(|id: u32| cameras.get(&id));
        let intrinsics = *known.ok_or_else(|| wrong("the id of a camera in cameras.txt", format!("{camera:?}")))?;
        posed.push(Posed { name: (*name).to_owned(), intrinsics, world_from_camera: camera_from_world.inverse() });
        // Without this a file that lacks the lines of points would lose every other image.
        if let Some((points, number)) = lines.next() {
            let columns = points.split_whitespace().count();
            if !columns.is_multiple_of(3) {
                let expected = "the image's 2-D points, three columns each (the line may be empty)";
                return Err(line_error(path, number, expected, format!("{columns} columns")));
            }
        }
    }
    Ok(posed)
}
