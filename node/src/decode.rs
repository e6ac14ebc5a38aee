//! Wire images to RGB pixels.
//!
//! A camera topic is outside input: every length is checked against every other before a pixel is touched, and nothing is
//! allocated that the message's own size does not justify. [`inspect`] is cheap and runs on every image;
//! [`decode`] runs only on those that the model will read.
//!
//! Left out: Bayer patterns, YUV, 16-bit depths. A camera driver or `image_proc` converts them.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, RgbImage};

use crate::message::ImagePayload;

/// What [`decode`] reads, as told to whoever sends something else.
pub const SUPPORTED: &str = "rgb8, bgr8 or mono8 in sensor_msgs/Image, JPEG or PNG in sensor_msgs/CompressedImage";

/// Most pixels that an image may have: far above any camera, far below what a forged header could ask for.
pub const MAX_PIXELS: u64 = 64 << 20;

/// Why an image cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The encoding is one that the node does not read.
    #[error("encoding: expected {SUPPORTED}, got `{got}`")]
    Encoding {
        /// As sent.
        got: String,
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
    /// A row does not hold its pixels.
    #[error("step: expected at least {least} bytes for a row, got {step}")]
    Step {
        /// Width times bytes a pixel.
        least: u64,
        /// As sent.
        step: u32,
    },
    /// The data are not `step * height` bytes.
    #[error("data: expected step * height = {expected} bytes, got {got}")]
    Length {
        /// `step * height`.
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
            let channels = Channels::of(encoding)?;
            check_size(*width, *height)?;
            let least = u64::from(*width) * channels.count();
            if u64::from(*step) < least {
                return Err(DecodeError::Step { least, step: *step });
            }
            let expected = u64::from(*step) * u64::from(*height);
            if expected != data.len() as u64 {
                return Err(DecodeError::Length { expected, got: data.len() });
            }
            Ok((*width, *height))
        }
        ImagePayload::Compressed { format, data } => {
            let file = File::of(format, data)?;
            let decoder = file.decoder(data)?;
            let (width, height) = decoder.dimensions();
            check_size(width, height)?;
            if file == File::Jpeg && !has_end_of_image(data) {
                return Err(DecodeError::Truncated { got: data.len() });
            }
            Ok((width, height))
        }
    }
}

/// The pixels, row after row without padding. Everything that [`inspect`] refuses is refused.
pub fn decode(payload: &ImagePayload) -> Result<RgbImage, DecodeError> {
    let (width, height) = inspect(payload)?;
    match payload {
        ImagePayload::Raw { encoding, step, data, .. } => {
            let channels = Channels::of(encoding)?;
            let row = width as usize * channels.count() as usize;
            let mut rgb = Vec::with_capacity(width as usize * height as usize * 3);
            for line in data.chunks_exact(*step as usize) {
                channels.append_rgb(&line[..row], &mut rgb);
            }
            Ok(RgbImage::from_raw(width, height, rgb).expect("three bytes for each pixel"))
        }
        ImagePayload::Compressed { format, data } => {
            let file = File::of(format, data)?;
            let image = DynamicImage::from_decoder(file.decoder(data)?).map_err(|e| file.broken(&e))?;
            Ok(image.into_rgb8())
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

#[derive(Clone, Copy)]
enum Channels {
    Rgb,
    Bgr,
    Mono,
}

impl Channels {
    fn of(encoding: &str) -> Result<Channels, DecodeError> {
        match encoding {
            "rgb8" => Ok(Channels::Rgb),
            "bgr8" => Ok(Channels::Bgr),
            "mono8" => Ok(Channels::Mono),
            other => Err(DecodeError::Encoding { got: printable(other) }),
        }
    }

    fn count(self) -> u64 {
        match self {
            Channels::Rgb | Channels::Bgr => 3,
            Channels::Mono => 1,
        }
    }

    fn append_rgb(self, row: &[u8], rgb: &mut Vec<u8>) {
        match self {
            Channels::Rgb => rgb.extend_from_slice(row),
            Channels::Bgr => rgb.extend(row.chunks_exact(3).flat_map(|p| [p[2], p[1], p[0]])),
            Channels::Mono => rgb.extend(row.iter().flat_map(|&p| [p; 3])),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum File {
    Jpeg,
    Png,
}

impl File {
    /// By the data themselves: drivers disagree on what `format` says.
    fn of(format: &str, data: &[u8]) -> Result<File, DecodeError> {
        match image::guess_format(data) {
            Ok(ImageFormat::Jpeg) => Ok(File::Jpeg),
            Ok(ImageFormat::Png) => Ok(File::Png),
            _ => Err(DecodeError::Encoding { got: printable(format) }),
        }
    }

    fn decoder<'a>(self, data: &'a [u8]) -> Result<impl ImageDecoder + 'a, DecodeError> {
        let format = match self {
            File::Jpeg => ImageFormat::Jpeg,
            File::Png => ImageFormat::Png,
        };
        let mut reader = ImageReader::with_format(Cursor::new(data), format);
        let mut limits = image::Limits::default();
        // 16-bit RGBA is the widest that a PNG decodes to.
        limits.max_alloc = Some(MAX_PIXELS * 8);
        reader.limits(limits);
        reader.into_decoder().map_err(|e| self.broken(&e))
    }

    fn broken(self, error: &image::ImageError) -> DecodeError {
        let format = match self {
            File::Jpeg => "JPEG",
            File::Png => "PNG",
        };
        DecodeError::Broken { format, message: error.to_string() }
    }
}

/// Whether an end-of-image marker follows the first scan. Decoders fill the missing rest of a cut JPEG with grey, which
/// would be a made-up picture. The header's segments are skipped, since a thumbnail in them has an end of its own.
fn has_end_of_image(data: &[u8]) -> bool {
    const START_OF_SCAN: u8 = 0xda;
    const END_OF_IMAGE: u8 = 0xd9;
    let mut at = 2; // after the start-of-image marker
    while let Some(&[0xff, marker]) = data.get(at..at + 2) {
        if marker == 0xff {
            at += 1; // fill byte
            continue;
        }
        let Some(&[high, low]) = data.get(at + 2..at + 4) else { return false };
        let next = at + 2 + usize::from(u16::from_be_bytes([high, low]));
        if marker == START_OF_SCAN {
            let scan = data.get(next..).unwrap_or_default();
            return scan.windows(2).rev().any(|pair| pair == [0xff, END_OF_IMAGE]);
        }
        at = next;
    }
    false
}

/// A name from outside, fit for one line of a log.
fn printable(name: &str) -> String {
    name.chars().take(64).map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests;
