//! The pictures of a recorded sequence, read.

use super::error::Error;
use super::formats::ros2::whole;
use super::picture::Image;
use super::sequence::{DepthFile, Sequence};
use camera::decode::{SampleRange, SampleStream, decode};
use camera::error::InfoError;
use camera::message::ImagePayload;
use camera::plausible::doubts_of_pinhole;
use camera::recording::read_at;
use image::RgbImage;
use std::fs::File;
use std::io::Read;
use std::path::Path;

impl Sequence {
    /// The image of frame `index`: decoded, and rectified where its camera has a lens, as the robot does it.
    ///
    /// # Errors
    /// [`Error::Index`], [`Error::Io`], [`Error::Recording`], [`Error::Decode`]; [`Error::Frame`] where the message is none
    /// or the image has another size than the camera matrix is for.
    pub fn load_image(&self, index: usize) -> Result<RgbImage, Error> {
        let image = &self.frame(index)?.image;
        let (payload, range) = match image {
            Image::File(path) => {
                let payload = file(path).map_err(|source| Error::Io { path: path.clone(), source })?;
                let range = SampleRange::of(&payload);
                (payload, range)
            }
            Image::Deep { path, range } => {
                (file(path).map_err(|source| Error::Io { path: path.clone(), source })?, *range)
            }
            Image::Recorded { file, place, message_type, range } => {
                let message = whole(*message_type, &read_at(file, *place)?).map_err(|got| {
                    let expected = message_type.name().to_owned();
                    Error::Frame { image: image.clone(), index, expected, got }
                })?;
                (message.payload, *range)
            }
        };
        let pixels = decode(&payload, range).map_err(|source| Error::Decode { image: image.clone(), index, source })?;
        self.check_size(image, index, pixels.dimensions())?;
        Ok(self.optics.rectify(pixels))
    }

    /// Notes how much of 16-bit samples the images use that are files, each with those before it, as the robot reads such a
    /// stream. All of them are decoded where the first is a PNG of 16-bit samples, and none where it is not.
    pub(crate) fn find_sample_ranges(&mut self) {
        let mut stream = SampleStream::default();
        for (index, frame) in self.frames.iter_mut().enumerate() {
            let Image::File(path) = &frame.image else { return };
            if index == 0 && !is_deep(path) {
                return;
            }
            // A file that cannot be read is an error of whoever wants its picture.
            let Ok(payload) = file(path) else { continue };
            frame.image = Image::Deep { range: stream.take(&payload), path: path.clone() };
        }
        if stream.range().is_some() {
            tracing::info!("{}: 16-bit PNG{stream}", self.directory().display());
        }
    }

    /// What is hard to believe of the camera, where a file of numbers says it; of a recording of ROS 2 that is told where its
    /// CameraInfo is read, which knows of regions and binning.
    pub fn doubts(&self) -> Vec<String> {
        let is_recorded = self.frames.iter().any(|frame| matches!(frame.image, Image::Recorded { .. }));
        let doubts = if is_recorded { Vec::new() } else { doubts_of_pinhole(self.intrinsics()) };
        let words =
            |doubt: &InfoError| format!("{}: the camera is hard to believe: {doubt}", self.directory().display());
        doubts.iter().map(words).collect()
    }

    /// Z-depth of frame `index` on the grid of its image, row-major, 0 where there is no value; `None` where the frame
    /// has no depth image. Metres for metric sequences.
    ///
    /// # Errors
    /// [`Error::Index`], [`Error::Io`], [`Error::Image`]; [`Error::Frame`] where the file is not 16-bit grey or has another
    /// size.
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
            depth = nearest(&depth, size, (self.intrinsics().width, self.intrinsics().height));
        } else {
            self.check_size(&file(), index, size)?;
        }
        Ok(Some(depth))
    }

    fn check_size(&self, image: &Image, index: usize, got: (u32, u32)) -> Result<(), Error> {
        let expected = (self.intrinsics().width, self.intrinsics().height);
        if got == expected {
            return Ok(());
        }
        let text = |size: (u32, u32)| format!("{} x {} pixels", size.0, size.1);
        Err(Error::Frame { image: image.clone(), index, expected: text(expected), got: text(got) })
    }
}

fn file(path: &Path) -> std::io::Result<ImagePayload> {
    Ok(ImagePayload::Compressed { format: String::new(), data: std::fs::read(path)? })
}

/// Whether a file is a PNG of 16-bit samples, by its header.
fn is_deep(path: &Path) -> bool {
    let mut header = [0; 25];
    let is_read = File::open(path).and_then(|mut file| file.read_exact(&mut header)).is_ok();
    is_read && header.starts_with(b"\x89PNG\r\n\x1a\n") && header[24] == 16
}

/// The same field of view on another grid, each pixel with the value nearest to its centre: a mean of two surfaces is
/// on neither.
pub(crate) fn nearest(values: &[f32], from: (u32, u32), to: (u32, u32)) -> Vec<f32> {
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
