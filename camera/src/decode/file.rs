//! `sensor_msgs/CompressedImage`: JPEG and PNG files.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, RgbImage};

use super::raw::{self, Encoding};
use super::{DecodeError, MAX_PIXELS, bayer, check_size, printable};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum File {
    Jpeg,
    Png,
}

impl File {
    /// By the data themselves: drivers disagree on what `format` says.
    pub(super) fn of(format: &str, data: &[u8]) -> Result<Self, DecodeError> {
        match image::guess_format(data) {
            Ok(ImageFormat::Jpeg) => Ok(Self::Jpeg),
            Ok(ImageFormat::Png) => Ok(Self::Png),
            _ => Err(DecodeError::File { format: printable(format), got: data.len() }),
        }
    }

    /// Width and height, from the header.
    pub(super) fn inspect(self, data: &[u8]) -> Result<(u32, u32), DecodeError> {
        let (width, height) = self.decoder(data)?.dimensions();
        check_size(width, height)?;
        if self == Self::Jpeg && !has_end_of_image(data) {
            return Err(DecodeError::Truncated { got: data.len() });
        }
        Ok((width, height))
    }

    /// The pixels. `format` tells one thing that the data do not: whether grey pixels are a Bayer mosaic, which
    /// image_transport compresses as it is (`bayer_rggb8; jpeg compressed `).
    pub(super) fn decode(self, format: &str, data: &[u8]) -> Result<RgbImage, DecodeError> {
        let (width, height) = self.inspect(data)?;
        let image = DynamicImage::from_decoder(self.decoder(data)?).map_err(|e| self.broken(&e))?;
        let original = format.split(';').next().unwrap_or_default().trim();
        match raw::named(original) {
            Some((_, Encoding::Bayer { red, .. })) if !image.color().has_color() => {
                let mut rgb = RgbImage::new(width, height);
                bayer::demosaic(image.into_luma8().as_raw(), width as usize, red, &mut rgb);
                Ok(rgb)
            }
            _ => Ok(image.into_rgb8()),
        }
    }

    fn decoder<'a>(self, data: &'a [u8]) -> Result<impl ImageDecoder + 'a, DecodeError> {
        let format = match self {
            Self::Jpeg => ImageFormat::Jpeg,
            Self::Png => ImageFormat::Png,
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
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
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
