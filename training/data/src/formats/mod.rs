//! Readers of recorded sequences, one module a layout. What is particular to a layout ends in its module: which way
//! poses point, which axes a camera has, where pixel (0, 0) is, what a step of depth means.
//!
//! | layout | known by | poses | pixels from | times |
//! | --- | --- | --- | --- | --- |
//! | ours | `sequence.json` | camera to world | centre | stored, or 10 Hz |
//! | nerfstudio, instant-ngp, DL3DV | `transforms.json` | camera to world, OpenGL camera axes | corner | 10 Hz |
//! | TUM RGB-D | `rgb.txt` | camera to world | centre | stored |
//! | ScanNet export | `color/` and `pose/` | camera to world | centre | 30 Hz |
//! | COLMAP text | `cameras.txt` | world to camera | corner | 10 Hz |
//! | ROS 2: MCAP, rosbag2 | `.mcap` or `metadata.yaml` | body to world, with transforms | centre | stored |
//! | RealEstate10K | asked for: [`open_realestate`] | world to camera | corner, in image sizes | stored |
//!
//! Another layout is a module with `fits` and `open`, and a row in `LAYOUTS`; one that is a single file (a recording in
//! a container) fits by its extension.

mod colmap;
mod nerfstudio;
mod realestate;
pub(super) mod ros2;
mod scannet;
mod sequence_json;
mod tum;
mod video;

use super::error::Error;
use super::picture::Image;
use super::sequence::{Frame, Sequence};
use camera::optics::Optics;
use camera::sequence::DEFAULT_PERIOD_NANOS;
use geometry::{Intrinsics, Stamp, WINDOW};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

pub use realestate::{Pictures, open as open_realestate};
pub use ros2::Ros2Options;
pub use video::Videos;

/// What a path holds.
#[derive(Debug, Clone, Default)]
pub struct Opened {
    /// What can be used; at least one where the opening succeeded.
    pub sequences: Vec<Sequence>,
    /// What was left out of it.
    pub skipped: Vec<Skipped>,
}

impl Opened {
    /// Writes what was left out to the log, the first of it: a report has all, but not every stage makes one.
    pub(super) fn told(self) -> Self {
        for Skipped { what, why } in self.skipped.iter().take(MOST_TOLD) {
            tracing::warn!("{what}: {why}");
        }
        if self.skipped.len() > MOST_TOLD {
            tracing::warn!("and {} parts of the recordings more were left out", self.skipped.len() - MOST_TOLD);
        }
        self
    }
}

/// Something that was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// A file or folder, or how many frames of a sequence.
    pub what: String,
    /// The reason.
    pub why: String,
}

/// A layout that a path shows by itself.
struct Layout {
    /// What it is known by.
    mark: &'static str,
    fits: fn(&Path) -> bool,
    open: fn(&Path) -> Result<Opened, Error>,
}

/// In the order in which they are tried.
static LAYOUTS: [Layout; 6] = [
    Layout { mark: "sequence.json", fits: sequence_json::fits, open: sequence_json::open },
    Layout { mark: "transforms.json", fits: nerfstudio::fits, open: nerfstudio::open },
    Layout { mark: "rgb.txt (TUM RGB-D)", fits: tum::fits, open: tum::open },
    Layout { mark: "color and pose (ScanNet)", fits: scannet::fits, open: scannet::open },
    Layout { mark: "cameras.txt (COLMAP)", fits: colmap::fits, open: colmap::open },
    Layout {
        mark: "metadata.yaml (rosbag2; or an .mcap file)",
        fits: ros2::fits,
        open: |path| ros2::open(path, &Ros2Options::default()),
    },
];

fn layout(path: &Path) -> Option<&'static Layout> {
    LAYOUTS.iter().find(|layout| (layout.fits)(path))
}

/// The error of a path that holds nothing of what was expected, or nothing at all.
fn not_there(path: &Path, expected: String) -> Error {
    let path = path.to_path_buf();
    if path.exists() { Error::Missing { path, expected } } else { Error::Nowhere { path, expected } }
}

/// Opens one recording; several sequences where it has several cameras. No image is decoded yet.
///
/// # Errors
/// [`Error::Nowhere`], [`Error::Missing`] where no layout fits, and those of its reader: each names the file and the line or frame.
pub fn open(path: &Path) -> Result<Opened, Error> {
    match layout(path) {
        Some(layout) => (layout.open)(path),
        None => {
            let marks: Vec<&str> = LAYOUTS.iter().map(|layout| layout.mark).collect();
            Err(not_there(path, format!("a folder with {}", marks.join(", or "))))
        }
    }
}

/// Opens one recording, or every recording in a folder of them in the order of their names. Those that cannot be read
/// are among [`Opened::skipped`].
///
/// # Errors
/// Those of [`open`]; of a folder of recordings, the first where not one can be read.
pub fn open_all(path: &Path) -> Result<Opened, Error> {
    open_each(path, |path| layout(path).is_some(), open)
}

/// Opens one recording of ROS 2, or every one in a folder of them, as [`open_all`] does.
///
/// # Errors
/// As [`open_all`]; [`Error::Missing`] where there is no such recording.
pub fn open_ros2(path: &Path, options: &Ros2Options) -> Result<Opened, Error> {
    open_each(path, ros2::fits, |path| {
        if !ros2::fits(path) {
            let expected =
                "a recording of ROS 2 (.mcap or metadata.yaml), which pose_topic, pose_frame, world_frame, image_topic, info_topic \
                 and images are for"
                    .to_owned();
            return Err(not_there(path, expected));
        }
        ros2::open(path, options)
    })
}

fn open_each(
    path: &Path,
    fits: impl Fn(&Path) -> bool,
    open: impl Fn(&Path) -> Result<Opened, Error>,
) -> Result<Opened, Error> {
    if fits(path) || !path.is_dir() {
        return open(path);
    }
    let entries = entries(path)?;
    if !entries.iter().any(|entry| fits(entry)) {
        // The error says what was looked for.
        return open(path);
    }
    gather(path, entries.into_iter().filter(|entry| entry.is_dir() || fits(entry)), open)
}

/// Opens one item after the other; an error ends that only where nothing is left, or nothing could be.
fn gather(
    path: &Path,
    items: impl Iterator<Item = PathBuf>,
    open: impl Fn(&Path) -> Result<Opened, Error>,
) -> Result<Opened, Error> {
    let mut all = Opened::default();
    let mut first = None;
    for item in items {
        match open(&item) {
            Ok(opened) => {
                all.sequences.extend(opened.sequences);
                all.skipped.extend(opened.skipped);
            }
            // Would be that of every other item.
            Err(error @ Error::Program { .. }) => return Err(error),
            Err(error) => {
                all.skipped.push(Skipped { what: item.display().to_string(), why: error.to_string() });
                first = first.or(Some(error));
            }
        }
    }
    if all.sequences.is_empty() {
        let none = || Error::Missing { path: path.to_path_buf(), expected: "at least one recording".to_owned() };
        return Err(first.unwrap_or_else(none));
    }
    // Names go into ids of windows, which are unique.
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for sequence in &mut all.sequences {
        let count = seen.entry(sequence.name.clone()).or_default();
        *count += 1;
        if *count > 1 {
            sequence.name = format!("{}-{count}", sequence.name);
        }
    }
    Ok(all)
}

/// Parts that were left out and are told of one by one.
const MOST_TOLD: usize = 10;
/// Cameras of one folder are taken for one, their mean, where no pixel of any is further from it than this share of the
/// longer side: one in 640, which is less than the poses of such data are good for.
const ONE_CAMERA: f64 = 1.0 / 640.0;

/// The frames of a recording and the camera of each, for layouts in which one recording may have several.
#[derive(Default)]
struct Films(Vec<(Intrinsics, Frame)>);

impl Films {
    fn add(&mut self, intrinsics: Intrinsics, frame: Frame) {
        self.0.push((intrinsics, frame));
    }

    /// One sequence a folder and camera, all of one source, with made-up times; numbered where there are several. `path`
    /// is the file that has the cameras.
    ///
    /// # Errors
    /// [`Error::Field`] where there are frames enough for a window, and no camera has them.
    fn into_opened(self, path: &Path, directory: &Path) -> Result<Opened, Error> {
        let scene = name_of(directory);
        let mut folders: Vec<(PathBuf, Vec<(Intrinsics, Frame)>)> = Vec::new();
        for (camera, frame) in self.0 {
            let folder = frame.image.file().and_then(Path::parent).unwrap_or(Path::new("")).to_path_buf();
            match folders.iter_mut().find(|(known, _)| *known == folder) {
                Some((_, frames)) => frames.push((camera, frame)),
                None => folders.push((folder, vec![(camera, frame)])),
            }
        }
        let (mut skipped, mut hindered) = (Vec::new(), None);
        let mut films: Vec<(Intrinsics, Vec<Frame>)> = Vec::new();
        for (_, frames) in folders {
            let (total, cameras) = (frames.len(), counted(&frames));
            let shared = shared_camera(&frames, &cameras);
            match &shared {
                Ok(None) => {}
                Ok(Some((_, apart))) => skipped.push(Skipped {
                    what: format!("{scene}: the cameras of {total} frames"),
                    why: format!(
                        "{} that differ by at most {apart:.2} px are taken for one, their mean",
                        cameras.len()
                    ),
                }),
                Err(apart) => {
                    let short: Vec<usize> = cameras.iter().map(|(_, n)| *n).filter(|n| *n < WINDOW).collect();
                    skipped.push(Skipped {
                        what: format!("{scene}: {} of {total} frames", short.iter().sum::<usize>()),
                        why: format!("{} cameras have fewer than {WINDOW} frames each", short.len()),
                    });
                    hindered = hindered.or((total >= WINDOW).then_some((total, cameras.len(), *apart)));
                }
            }
            films.extend(by_camera(frames, shared.ok().flatten().map(|(camera, _)| camera)));
        }
        if let Some((frames, cameras, apart)) = hindered
            && films.iter().all(|(_, frames)| frames.len() < WINDOW)
        {
            return Err(Error::Field {
                path: path.to_path_buf(),
                field: "cameras",
                expected: format!(
                    "one for at least {WINDOW} frames (estimate one for all; those that are within 1/640 of the longer \
                     side of their mean are taken for one)"
                ),
                got: format!("{cameras} cameras for {frames} frames, up to {apart:.1} px from their mean"),
            });
        }
        let several = films.len() > 1;
        let sequence = |(number, (intrinsics, mut frames)): (usize, (Intrinsics, Vec<Frame>))| {
            for (index, frame) in frames.iter_mut().enumerate() {
                frame.stamp = made_up_stamp(index);
            }
            Sequence {
                path: directory.to_path_buf(),
                name: if several { format!("{scene}-{number}") } else { scene.clone() },
                source: scene.clone(),
                optics: Optics::pinhole(intrinsics),
                metric: false,
                truth: None,
                frames,
            }
        };
        Ok(Opened { sequences: films.into_iter().enumerate().map(sequence).collect(), skipped })
    }
}

/// The cameras and how many frames each has.
fn counted(frames: &[(Intrinsics, Frame)]) -> Vec<(Intrinsics, usize)> {
    let mut cameras: Vec<(Intrinsics, usize)> = Vec::new();
    for (camera, _) in frames {
        match cameras.iter_mut().find(|(known, _)| known == camera) {
            Some((_, count)) => *count += 1,
            None => cameras.push((*camera, 1)),
        }
    }
    cameras
}

/// The mean camera of a folder's frames and how far the furthest is from it, where some have too few frames for a window
/// and all are as good as one; none where each makes windows of its own, as those of a rig do.
///
/// # Errors
/// How far the furthest is from the mean, pixels, where they are not as good as one.
fn shared_camera(
    frames: &[(Intrinsics, Frame)],
    cameras: &[(Intrinsics, usize)],
) -> Result<Option<(Intrinsics, f64)>, f64> {
    let [(first, _), _, ..] = cameras else { return Ok(None) };
    if cameras.iter().all(|(_, count)| *count >= WINDOW) {
        return Ok(None);
    }
    let mut sums = [0.0; 4];
    for (camera, _) in frames {
        for (sum, value) in sums.iter_mut().zip([camera.fx, camera.fy, camera.cx, camera.cy]) {
            *sum += value;
        }
    }
    let [fx, fy, cx, cy] = sums.map(|sum| sum / frames.len() as f64);
    let mean = Intrinsics { fx, fy, cx, cy, ..*first };
    let furthest = cameras.iter().map(|(camera, _)| apart(camera, &mean)).fold(0.0, f64::max);
    let bound = ONE_CAMERA * f64::from(first.width.max(first.height));
    if furthest <= bound { Ok(Some((mean, furthest))) } else { Err(furthest) }
}

/// How far a pixel of one camera can be from that of another for the same ray, pixels.
fn apart(one: &Intrinsics, other: &Intrinsics) -> f64 {
    if (one.width, one.height) != (other.width, other.height) {
        return f64::INFINITY;
    }
    // Linear along a side, so largest at an end of it.
    let side = |[f, c]: [f64; 2], [other_f, other_c]: [f64; 2], size: u32| {
        let at = |pixel: f64| (f * (pixel - other_c) / other_f + c - pixel).abs();
        at(-0.5).max(at(f64::from(size) - 0.5))
    };
    let across = side([one.fx, one.cx], [other.fx, other.cx], one.width);
    across.max(side([one.fy, one.cy], [other.fy, other.cy], one.height))
}

/// The frames of a folder, camera by camera; with the one that they share, all together.
fn by_camera(frames: Vec<(Intrinsics, Frame)>, shared: Option<Intrinsics>) -> Vec<(Intrinsics, Vec<Frame>)> {
    let mut films: Vec<(Intrinsics, Vec<Frame>)> = Vec::new();
    for (own, frame) in frames {
        let camera = shared.unwrap_or(own);
        match films.iter_mut().find(|(known, _)| *known == camera) {
            Some((_, frames)) => frames.push(frame),
            None => films.push((camera, vec![frame])),
        }
    }
    films
}

/// The time of a frame of a layout that has none: 10 Hz from 0.
fn made_up_stamp(index: usize) -> Stamp {
    Stamp::from_nanos(index as i64 * DEFAULT_PERIOD_NANOS)
}

/// What a folder is called.
fn name_of(path: &Path) -> String {
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    whole.file_name().map_or_else(|| "sequence".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// What is in a folder, by name.
fn entries(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |source| Error::Io { path: directory.to_path_buf(), source };
    let mut entries = std::fs::read_dir(directory)
        .map_err(failed)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?;
    entries.sort();
    Ok(entries)
}

/// Files of a folder that are called by whole numbers and end in one of `extensions`.
fn numbered(directory: &Path, extensions: &[&str]) -> Result<BTreeMap<i64, PathBuf>, Error> {
    let number = |path: &PathBuf| {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        extensions.contains(&extension.as_str()).then_some(())?;
        path.file_stem()?.to_str()?.parse::<i64>().ok()
    };
    Ok(entries(directory)?.into_iter().filter_map(|path| Some((number(&path)?, path))).collect())
}

/// A key that sorts names with numbers in them as a person would: `r_2` before `r_10`.
fn natural(name: &str) -> String {
    let digit = |c: char| c.is_ascii_digit();
    let (mut key, mut rest) = (String::with_capacity(name.len() + 20), name);
    while !rest.is_empty() {
        let after_digits = rest.trim_start_matches(digit);
        let digits = &rest[..rest.len() - after_digits.len()];
        if !digits.is_empty() {
            // Writing to a String cannot fail.
            let _ = write!(key, "{digits:0>20}");
        }
        let text = after_digits.find(digit).unwrap_or(after_digits.len());
        key.push_str(&after_digits[..text]);
        rest = &after_digits[text..];
    }
    key
}

/// Exactly `N` numbers, or what there is in place of them.
fn numbers<const N: usize>(words: &[&str]) -> Result<[f64; N], String> {
    let exact = <&[&str; N]>::try_from(words).map_err(|_| format!("{} columns", words.len()))?;
    let mut values = [0.0; N];
    for (value, word) in values.iter_mut().zip(exact) {
        *value = word.parse().map_err(|_| format!("{word:?}"))?;
    }
    Ok(values)
}

fn line_error(path: &Path, line: usize, expected: impl Into<String>, got: impl Into<String>) -> Error {
    Error::Line { path: path.to_path_buf(), line, expected: expected.into(), got: got.into() }
}

fn read_text(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::Io { path: path.to_path_buf(), source })
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    camera::sequence::parse(&read_text(path)?).map_err(|source| Error::Json { path: path.to_path_buf(), source })
}

/// Width and height in the head of an image file.
fn image_size(path: &Path, index: usize) -> Result<(u32, u32), Error> {
    let reader = image::ImageReader::open(path)
        .and_then(image::ImageReader::with_guessed_format)
        .map_err(|source| Error::Io { path: path.to_path_buf(), source })?;
    reader.into_dimensions().map_err(|source| Error::Image { image: Image::File(path.to_path_buf()), index, source })
}

#[cfg(test)]
mod tests;
