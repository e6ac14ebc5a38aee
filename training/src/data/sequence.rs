//! Recorded frames with poses: a folder with `sequence.json`, `frames/%06d.jpg|jpeg|png` and perhaps `depth/%06d.png`.

use super::error::Error;
use geometry::{Camera, Intrinsics, Stamp, Transform, WINDOW, World};
use image::RgbImage;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Time between the frames of a sequence without timestamps.
const DEFAULT_STEP_NANOS: i64 = 100_000_000;
/// Depth of one step of a 16-bit depth image.
const METRES_PER_STEP: f32 = 1e-3;

/// `sequence.json`. Fields beyond these say where the data come from and are not read.
#[derive(Deserialize)]
struct Raw {
    name: String,
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

/// A recorded sequence: poses and camera in memory, pictures on disk.
#[derive(Debug, Clone)]
pub struct Sequence {
    directory: PathBuf,
    name: String,
    intrinsics: Intrinsics,
    metric: bool,
    world_from_camera: Vec<Transform<World, Camera>>,
    stamps: Vec<Stamp>,
    images: Vec<PathBuf>,
}

impl Sequence {
    /// Reads `sequence.json` and looks for the image of every frame; no image is decoded yet.
    ///
    /// # Errors
    /// Every variant of [`Error`] but those of images and windows.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, Error> {
        let directory = directory.as_ref().to_path_buf();
        let path = directory.join("sequence.json");
        let text = std::fs::read_to_string(&path).map_err(|source| Error::Io { path: path.clone(), source })?;
        let raw = parse(&text).map_err(|source| Error::Json { path: path.clone(), source })?;
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
        let world_from_camera = raw
            .poses
            .iter()
            .enumerate()
            .map(|(index, pose)| {
                let numbers: Vec<f64> = pose.iter().map(|x| x.unwrap_or(f64::NAN)).collect();
                let matrix = <&[f64; 16]>::try_from(numbers.as_slice())
                    .map_err(|_| field("poses", "16 numbers a pose", format!("{} in pose {index}", numbers.len())))?;
                Transform::from_matrix_row_major(matrix).map_err(|source| Error::Pose {
                    path: path.clone(),
                    index,
                    source,
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let stamps = match &raw.timestamps {
            None => (0..raw.num_frames as i64).map(|i| Stamp::from_nanos(i * DEFAULT_STEP_NANOS)).collect(),
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
        let images = (0..raw.num_frames).map(|index| frame_path(&directory, index)).collect::<Result<_, _>>()?;
        Ok(Self { directory, name: raw.name, intrinsics, metric: raw.metric, world_from_camera, stamps, images })
    }

    /// The folder that was opened.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The name in `sequence.json`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many frames there are.
    pub fn frames(&self) -> usize {
        self.images.len()
    }

    /// Camera of the stored images.
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
        self.check(index).map(|()| self.world_from_camera[index])
    }

    /// Time of every frame: that of the recording, or 0.1 s a frame from 0 where it has none.
    pub fn stamps(&self) -> &[Stamp] {
        &self.stamps
    }

    /// Frame numbers of every window whose frames are `stride` apart; none where `stride` is 0.
    pub fn windows(&self, stride: usize) -> impl Iterator<Item = [usize; WINDOW]> + use<> {
        let count = if stride == 0 { 0 } else { self.frames().saturating_sub((WINDOW - 1) * stride) };
        (0..count).map(move |first| std::array::from_fn(|i| first + i * stride))
    }

    /// The image of frame `index`.
    ///
    /// # Errors
    /// [`Error::Index`], [`Error::Io`], [`Error::Image`]; [`Error::Frame`] where it is cut short or of another size than
    /// the camera matrix is for.
    pub fn load_image(&self, index: usize) -> Result<RgbImage, Error> {
        self.check(index)?;
        let path = &self.images[index];
        let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.clone(), source })?;
        // The decoder fills what is missing of a JPEG with grey, without a word.
        let jpeg = bytes.starts_with(&[0xFF, 0xD8]);
        if jpeg && !bytes.windows(2).rev().take(4096).any(|pair| pair == [0xFF, 0xD9]) {
            let expected = "a JPEG with an end marker".to_owned();
            return Err(Error::Frame {
                path: path.clone(),
                index,
                expected,
                got: format!("{} bytes without one", bytes.len()),
            });
        }
        let image = image::load_from_memory(&bytes)
            .map_err(|source| Error::Image { path: path.clone(), index, source })?
            .into_rgb8();
        self.check_size(path, index, image.dimensions())?;
        Ok(image)
    }

    /// Z-depth of frame `index`, row-major, 0 where there is no value; `None` where the frame has no depth image.
    /// Metres for metric sequences.
    ///
    /// # Errors
    /// As [`Self::load_image`], and [`Error::Frame`] where the file is not 16-bit grey.
    pub fn load_depth(&self, index: usize) -> Result<Option<Vec<f32>>, Error> {
        self.check(index)?;
        let path = self.directory.join(format!("depth/{index:06}.png"));
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::Io { path, source }),
        };
        let image =
            image::load_from_memory(&bytes).map_err(|source| Error::Image { path: path.clone(), index, source })?;
        let image::DynamicImage::ImageLuma16(steps) = image else {
            let got = format!("{:?}", image.color());
            return Err(Error::Frame { path, index, expected: "16-bit grey".to_owned(), got });
        };
        self.check_size(&path, index, steps.dimensions())?;
        Ok(Some(steps.into_raw().into_iter().map(|step| f32::from(step) * METRES_PER_STEP).collect()))
    }

    fn check(&self, index: usize) -> Result<(), Error> {
        if index < self.frames() {
            return Ok(());
        }
        Err(Error::Index { path: self.directory.clone(), expected: self.frames() as u64, got: index as u64 })
    }

    fn check_size(&self, path: &Path, index: usize, got: (u32, u32)) -> Result<(), Error> {
        let expected = (self.intrinsics.width, self.intrinsics.height);
        if got == expected {
            return Ok(());
        }
        let text = |size: (u32, u32)| format!("{} x {} pixels", size.0, size.1);
        Err(Error::Frame { path: path.to_path_buf(), index, expected: text(expected), got: text(got) })
    }
}

/// Python writes NaN and Infinity into JSON. They become nulls, so that the error can name the pose.
fn parse(text: &str) -> Result<Raw, serde_json::Error> {
    serde_json::from_str(text).or_else(|error| {
        let repaired = text.replace("-Infinity", "null").replace("Infinity", "null").replace("NaN", "null");
        serde_json::from_str(&repaired).map_err(|_| error)
    })
}

fn frame_path(directory: &Path, index: usize) -> Result<PathBuf, Error> {
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

#[cfg(test)]
#[path = "sequence_tests.rs"]
mod tests;
