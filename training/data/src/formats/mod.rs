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
use geometry::{Intrinsics, Stamp};
use serde::de::DeserializeOwned;
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

/// Something that was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// Opens one recording; several sequences where it has several cameras. No image is decoded yet.
///
/// # Errors
/// [`Error::Missing`] where no layout fits, and those of its reader: each names the file and the line or frame.
pub fn open(path: &Path) -> Result<Opened, Error> {
    match layout(path) {
        Some(layout) => (layout.open)(path),
        None => {
            let marks: Vec<&str> = LAYOUTS.iter().map(|layout| layout.mark).collect();
            Err(Error::Missing { path: path.to_path_buf(), expected: format!("a folder with {}", marks.join(", or ")) })
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
                "a recording of ROS 2 (.mcap or metadata.yaml), as pose_frame, pose_topic and images are for"
                    .to_owned();
            return Err(Error::Missing { path: path.to_path_buf(), expected });
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

/// The frames of a recording by camera and folder, for layouts in which one recording may have several.
#[derive(Default)]
struct Films(Vec<(Intrinsics, PathBuf, Vec<Frame>)>);

impl Films {
    /// Puts a frame behind those of the same camera matrix and folder.
    fn add(&mut self, intrinsics: Intrinsics, frame: Frame) {
        let folder = frame.image.file().and_then(Path::parent).unwrap_or(Path::new(""));
        match self.0.iter_mut().find(|film| film.0 == intrinsics && film.1 == folder) {
            Some(film) => film.2.push(frame),
            None => self.0.push((intrinsics, folder.to_path_buf(), vec![frame])),
        }
    }

    /// One sequence a camera, all of one source, with made-up times; numbered where there are several.
    fn into_sequences(self, path: &Path, metric: bool) -> Vec<Sequence> {
        let scene = name_of(path);
        let several = self.0.len() > 1;
        let sequence = |(number, (intrinsics, _, mut frames)): (usize, (Intrinsics, PathBuf, Vec<Frame>))| {
            for (index, frame) in frames.iter_mut().enumerate() {
                frame.stamp = made_up_stamp(index);
            }
            Sequence {
                path: path.to_path_buf(),
                name: if several { format!("{scene}-{number}") } else { scene.clone() },
                source: scene.clone(),
                optics: Optics::pinhole(intrinsics),
                metric,
                frames,
            }
        };
        self.0.into_iter().enumerate().map(sequence).collect()
    }
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

/// For layouts whose camera matrix does not say which size it is for: one of another size has its principal point far
/// from the middle.
fn check_middle(path: &Path, intrinsics: &Intrinsics) -> Result<(), Error> {
    let Intrinsics { cx, cy, width, height, .. } = *intrinsics;
    let near = |at: f64, size: u32| (0.25..=0.75).contains(&((at + 0.5) / f64::from(size)));
    if near(cx, width) && near(cy, height) {
        return Ok(());
    }
    Err(Error::Field {
        path: path.to_path_buf(),
        field: "cx cy",
        expected: format!("a principal point near the middle of the {width} x {height} image"),
        got: format!("{cx} {cy}: is this the camera matrix of another size?"),
    })
}

#[cfg(test)]
mod tests;
