//! Wire images to RGB pixels.
//!
//! A camera topic is outside input: every length is checked against every other before a pixel is touched, and nothing is
//! allocated that the message's own size does not justify. [`inspect`] is cheap and runs on every image;
//! [`decode`] runs only on those that the model will read.
//!
//! 16-bit samples, in either byte order, become bytes by the bits that their stream uses ([`SampleStream`]): sensors of ten
//! or twelve bits fill only the low ones, and nothing in a message says so. Left out: `16UC1`, `32FC1` and their like, which are depths and no pictures, and video codecs.

mod bayer;
mod file;
mod jpeg;
mod raw;
mod samples;
mod yuv;

use file::File;
use image::RgbImage;

use crate::message::ImagePayload;
pub use samples::{SampleRange, SampleStream};

/// Most pixels that an image may have: far above any camera, far below what a forged header could ask for.
pub const MAX_PIXELS: u64 = 64 << 20;

/// Why an image cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The encoding of a `sensor_msgs/Image` is one that the node does not read.
    #[error("encoding: expected one of {}, got `{got}`", raw::known())]
    Encoding {
        /// As sent.
        got: String,
    },
    /// The data of a `sensor_msgs/CompressedImage` are no file that the node reads.
    #[error("data: expected a JPEG or PNG file, got {got} bytes of another kind; format says `{format}`")]
    File {
        /// As sent: a hint only, since drivers disagree on what it says.
        format: String,
        /// Length of the data.
        got: usize,
    },
    /// No pixels.
    #[error("image size: expected at least 1x1, got {width}x{height}")]
    Empty {
        /// Pixels a row.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// More pixels than any camera has.
    #[error("image size: expected at most {MAX_PIXELS} pixels, got {width}x{height}")]
    TooLarge {
        /// Pixels a row.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// A size that the encoding's groups of pixels cannot fill.
    #[error("image size: expected {expected} for {encoding}, got {width}x{height}")]
    Groups {
        /// Name of the encoding.
        encoding: &'static str,
        /// What its groups need.
        expected: &'static str,
        /// Pixels a row.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// A row does not hold its pixels.
    #[error("step: expected at least {least} bytes for a row, got {step}")]
    Step {
        /// Bytes of a row without padding.
        least: u64,
        /// As sent.
        step: u32,
    },
    /// The data are not `rows * step` bytes.
    #[error("data: expected {rows} rows * step {step} = {expected} bytes, got {got}")]
    Length {
        /// Rows of bytes: those of the image, and half as many again where chroma has rows of its own.
        rows: u64,
        /// As sent.
        step: u32,
        /// `rows * step`.
        expected: u64,
        /// As sent.
        got: usize,
    },
    /// A JPEG without its end: the rest of the picture would be made up.
    #[error("JPEG: expected an end-of-image marker, got {got} bytes without one")]
    Truncated {
        /// Length of the data.
        got: usize,
    },
    /// A JPEG of whose picture a part is missing or wrong: decoders make up the rest.
    #[error("JPEG: expected a whole picture, got damaged data: scan {scan}: {fault}")]
    Damaged {
        /// From 1; 0 where there is none.
        scan: usize,
        /// What is wrong with it.
        fault: String,
    },
    /// A JPEG or PNG that its decoder refuses.
    #[error("{format}: {message}")]
    Broken {
        /// `JPEG` or `PNG`.
        format: &'static str,
        /// From the decoder.
        message: String,
    },
}

/// Size of the image, after every check that does not need the pixels.
pub fn inspect(payload: &ImagePayload) -> Result<(u32, u32), DecodeError> {
    match payload {
        ImagePayload::Raw { width, height, encoding, step, data, .. } => {
            raw::check(encoding, *width, *height, *step, data.len())?;
            Ok((*width, *height))
        }
        ImagePayload::Compressed { format, data } => File::of(format, data)?.inspect(data),
    }
}

/// The pixels, row after row without padding. Everything that [`inspect`] refuses is refused. `range` is that of the stream
/// with this image ([`SampleStream::take`]); only 16-bit samples need it.
pub fn decode(payload: &ImagePayload, range: SampleRange) -> Result<RgbImage, DecodeError> {
    match payload {
        ImagePayload::Raw { width, height, encoding, is_bigendian, step, data } => {
            let encoding = raw::check(encoding, *width, *height, *step, data.len())?;
            let layout = (*width as usize, *height as usize, *step as usize);
            let rgb = encoding.rgb(layout, *is_bigendian, range, data);
            Ok(RgbImage::from_raw(*width, *height, rgb).expect("three bytes for each pixel"))
        }
        ImagePayload::Compressed { format, data } => File::of(format, data)?.decode(format, data, range),
    }
}

/// The largest 16-bit sample of a colour in the image; 0 where its samples have eight bits, and where [`decode`] refuses it.
fn largest_sample(payload: &ImagePayload) -> u16 {
    match payload {
        ImagePayload::Raw { width, height, encoding, is_bigendian, step, data } => {
            raw::check(encoding, *width, *height, *step, data.len())
                .map_or(0, |encoding| encoding.largest_sample((*width as usize, *step as usize), *is_bigendian, data))
        }
        ImagePayload::Compressed { format, data } => {
            File::of(format, data).and_then(|file| file.largest_sample(data)).unwrap_or(0)
        }
    }
}

fn check_size(width: u32, height: u32) -> Result<(), DecodeError> {
    if width == 0 || height == 0 {
        Err(DecodeError::Empty { width, height })
    } else if u64::from(width) * u64::from(height) > MAX_PIXELS {
        Err(DecodeError::TooLarge { width, height })
    } else {
        Ok(())
    }
}

/// A name from outside, fit for one line of a log.
fn printable(name: &str) -> String {
    name.chars().take(64).map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests;
