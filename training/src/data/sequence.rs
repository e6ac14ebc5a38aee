//! A film with poses: what every reader in [`super::formats`] makes, whatever its layout on disk.

use super::error::Error;
use super::formats;
use super::formats::mcap::{Picture, picture, read_message};
use super::windows::{Spacing, windows};
use geometry::{Camera, Intrinsics, Stamp, Transform, WINDOW, World};
use image::RgbImage;
use std::fmt;
use std::path::{Path, PathBuf};

/// One frame of a sequence: its pose in memory, its pictures on disk.
#[derive(Debug, Clone)]
pub struct Frame {
    /// When: as recorded, or made up at a steady rate where the layout has no times.
    pub stamp: Stamp,
    /// Camera to world, optical camera axes; scene units.
    pub world_from_camera: Transform<World, Camera>,
    /// Where the image is.
    pub image: Image,
    /// The depth image; [`Sequence::load_depth`] takes one that is not there for none.
    pub depth: Option<DepthFile>,
    /// Whether frames are missing between the one before and this one: no window goes across.
    pub gap_before: bool,
}

/// Where the image of a frame is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Image {
    /// In a file of its own, JPEG or PNG.
    File(PathBuf),
    /// In a message of a recording of ROS 2.
    Recorded {
        /// The MCAP file.
        file: PathBuf,
        /// The byte at which the message's record begins, or the chunk around it.
        offset: u64,
        /// How many messages there are before it in the chunk.
        number: usize,
        /// Whether it is a `CompressedImage`, not an `Image`.
        compressed: bool,
    },
}

impl Image {
    /// The image's own file.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Recorded { .. } => None,
        }
    }
}

/// As errors name it.
impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Recorded { file, offset, number, .. } => {
                write!(f, "{}: message {number} of the record at byte {offset}", file.display())
            }
        }
    }
}

/// A 16-bit grey PNG of z-depth; 0 where there is no value.
#[derive(Debug, Clone)]
pub struct DepthFile {
    /// The file.
    pub path: PathBuf,
    /// Depth of one step, scene units (metres where the sequence is metric).
    pub units_per_step: f32,
    /// Whether a size other than the image's is brought to the image's grid (nearest value) or is an error.
    pub resample: bool,
}

/// A recorded sequence of one camera: poses and camera in memory, pictures on disk.
#[derive(Debug, Clone)]
pub struct Sequence {
    /// The folder or file that was opened.
    pub(super) path: PathBuf,
    pub(super) name: String,
    pub(super) source: String,
    pub(super) intrinsics: Intrinsics,
    pub(super) metric: bool,
    pub(super) frames: Vec<Frame>,
}

impl Sequence {
    /// Reads a folder with a `sequence.json`; other layouts are [`formats::open`]'s. No image is decoded yet.
    ///
    /// # Errors
    /// Every variant of [`Error`] but those of images and windows.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, Error> {
        formats::sequence_json::read(directory.as_ref())
    }

    /// The folder or file that was opened.
    pub fn directory(&self) -> &Path {
        &self.path
    }

    /// Its name: of the folder, the clip, or as the format says.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The video or scene that it is of: what a split must not cut. Its name, where the format knows no better.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// How many frames there are.
    pub fn frames(&self) -> usize {
        self.frames.len()
    }

    /// Frame `index`.
    ///
    /// # Errors
    /// [`Error::Index`].
    pub fn frame(&self, index: usize) -> Result<&Frame, Error> {
        self.frames.get(index).ok_or_else(|| Error::Index {
            path: self.path.clone(),
            expected: self.frames() as u64,
            got: index as u64,
        })
    }

    /// Camera of the stored images, pixels; integer coordinates are pixel centres.
    pub fn intrinsics(&self) -> &Intrinsics {
        &self.intrinsics
    }

    /// Whether scene units are metres.
    pub fn metric(&self) -> bool {
        self.metric
    }

    /// Pose of frame `index`, scene units.
    ///
    /// # Errors
    /// [`Error::Index`].
    pub fn world_from_camera(&self, index: usize) -> Result<Transform<World, Camera>, Error> {
        self.frame(index).map(|frame| frame.world_from_camera)
    }

    /// Time of every frame: that of the recording, or 0.1 s a frame from 0 where it has none.
    pub fn stamps(&self) -> Vec<Stamp> {
        self.frames.iter().map(|frame| frame.stamp).collect()
    }

    /// Frame numbers of every window whose frames are `stride` apart; none where `stride` is 0.
    pub fn windows(&self, stride: usize) -> impl Iterator<Item = [usize; WINDOW]> + use<> {
        self.spaced_windows(Spacing::Stride(stride), 1).into_iter()
    }

    /// Frame numbers of the windows that start at every `every`-th frame; none goes across a gap.
    pub fn spaced_windows(&self, spacing: Spacing, every: usize) -> Vec<[usize; WINDOW]> {
        windows(&self.frames, spacing, every)
    }

    /// The image of frame `index`.
    ///
    /// # Errors
    /// [`Error::Index`], [`Error::Io`], [`Error::Recording`], [`Error::Image`]; [`Error::Frame`] where it is cut
    /// short or of another size than the camera matrix is for.
    pub fn load_image(&self, index: usize) -> Result<RgbImage, Error> {
        let image = &self.frame(index)?.image;
        let wrong = |expected: &str, got: String| Error::Frame {
            image: image.clone(),
            index,
            expected: expected.to_owned(),
            got,
        };
        let bytes = match image {
            Image::File(path) => std::fs::read(path).map_err(|source| Error::Io { path: path.clone(), source })?,
            Image::Recorded { file, offset, number, compressed } => {
                let message = read_message(file, *offset, *number)
                    .map_err(|source| Error::Recording { path: file.clone(), source })?;
                match picture(&message, *compressed) {
                    Some(Picture::Encoded(bytes)) => bytes,
                    Some(Picture::Pixels(pixels)) => {
                        self.check_size(image, index, pixels.dimensions())?;
                        return Ok(pixels);
                    }
                    None => {
                        let got = format!("{} bytes that are none", message.len());
                        return Err(wrong("an image with all its rows", got));
                    }
                }
            }
        };
        // The decoder fills what is missing of a JPEG with grey, without a word.
        let jpeg = bytes.starts_with(&[0xFF, 0xD8]);
        if jpeg && !bytes.windows(2).rev().take(4096).any(|pair| pair == [0xFF, 0xD9]) {
            return Err(wrong("a JPEG with an end marker", format!("{} bytes without one", bytes.len())));
        }
        let pixels = image::load_from_memory(&bytes)
            .map_err(|source| Error::Image { image: image.clone(), index, source })?
            .into_rgb8();
        self.check_size(image, index, pixels.dimensions())?;
        Ok(pixels)
    }

    /// Z-depth of frame `index` on the grid of its image, row-major, 0 where there is no value; `None` where the frame
    /// has no depth image. Metres for metric sequences.
    ///
    /// # Errors
    /// As [`Self::load_image`], and [`Error::Frame`] where the file is not 16-bit grey.
    pub fn load_depth(&self, index: usize) -> Result<Option<Vec<f32>>, Error> {
        let Some(DepthFile { path, units_per_step, resample }) = &self.frame(index)?.depth else { return Ok(None) };
        let file = || Image::File(path.clone());
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::Io { path: path.clone(), source }),
        };
        let image = image::load_from_memory(&bytes).map_err(|source| Error::Image { image: file(), index, source })?;
        let image::DynamicImage::ImageLuma16(steps) = image else {
            let got = format!("{:?}", image.color());
            return Err(Error::Frame { image: file(), index, expected: "16-bit grey".to_owned(), got });
        };
        let size = steps.dimensions();
        let mut depth: Vec<f32> = steps.into_raw().into_iter().map(|step| f32::from(step) * units_per_step).collect();
        if *resample {
            depth = nearest(&depth, size, (self.intrinsics.width, self.intrinsics.height));
        } else {
            self.check_size(&file(), index, size)?;
        }
        Ok(Some(depth))
    }

    fn check_size(&self, image: &Image, index: usize, got: (u32, u32)) -> Result<(), Error> {
        let expected = (self.intrinsics.width, self.intrinsics.height);
        if got == expected {
            return Ok(());
        }
        let text = |size: (u32, u32)| format!("{} x {} pixels", size.0, size.1);
        Err(Error::Frame { image: image.clone(), index, expected: text(expected), got: text(got) })
    }
}

/// The same field of view on another grid, each pixel with the value nearest to its centre: a mean of two surfaces is
/// on neither.
fn nearest(values: &[f32], from: (u32, u32), to: (u32, u32)) -> Vec<f32> {
    if from == to {
        return values.to_vec();
    }
    let place = |i: u32, to: u32, from: u32| {
        let (i, to, from) = (u64::from(i), u64::from(to), u64::from(from));
        ((2 * i + 1) * from / (2 * to)) as usize
    };
    let width = from.0 as usize;
    let rows = (0..to.1).map(|y| place(y, to.1, from.1));
    rows.flat_map(|y| (0..to.0).map(move |x| values[y * width + place(x, to.0, from.0)])).collect()
}

#[cfg(test)]
#[path = "sequence_tests.rs"]
pub(super) mod tests;
