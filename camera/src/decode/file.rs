//! `sensor_msgs/CompressedImage`: JPEG and PNG files.

use std::borrow::Cow;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::{ColorType, DynamicImage, GrayImage, ImageDecoder, ImageFormat, ImageReader, RgbImage};

use super::raw::{self, Encoding};
use super::{DecodeError, MAX_PIXELS, SampleRange, bayer, check_size, jpeg, printable};

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
    pub(super) fn decode(self, format: &str, data: &[u8], range: SampleRange) -> Result<RgbImage, DecodeError> {
        let image = narrowed(self.image(data)?, range);
        let (width, height) = (image.width(), image.height());
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

    /// The largest 16-bit sample of a colour; 0 where samples have eight bits.
    pub(super) fn largest_sample(self, data: &[u8]) -> Result<u16, DecodeError> {
        if self == Self::Jpeg || !is_wide(self.decoder(data)?.color_type()) {
            return Ok(0);
        }
        let image = self.image(data)?;
        let samples =
            if image.color().has_color() { image.into_rgb16().into_raw() } else { image.into_luma16().into_raw() };
        Ok(samples.into_iter().max().unwrap_or(0))
    }

    fn image(self, data: &[u8]) -> Result<DynamicImage, DecodeError> {
        self.inspect(data)?;
        if self == Self::Jpeg {
            jpeg::check(&jpeg::with_standard_tables(data))?;
        }
        let decoder = self.decoder(data)?;
        // A decoder that panics must not take along who reads images of others.
        let decoded = catch_unwind(AssertUnwindSafe(|| DynamicImage::from_decoder(decoder)));
        decoded.map_err(|_| self.broken("its decoder panicked"))?.map_err(|e| self.broken(e))
    }

    fn decoder<'a>(self, data: &'a [u8]) -> Result<impl ImageDecoder + 'a, DecodeError> {
        let (format, data) = match self {
            Self::Jpeg => (ImageFormat::Jpeg, jpeg::with_standard_tables(data)),
            Self::Png => (ImageFormat::Png, without_remarks(data)),
        };
        let mut reader = ImageReader::with_format(Cursor::new(data), format);
        let mut limits = image::Limits::default();
        // 16-bit RGBA is the widest that a PNG decodes to.
        limits.max_alloc = Some(MAX_PIXELS * 8);
        reader.limits(limits);
        reader.into_decoder().map_err(|e| self.broken(e))
    }

    fn broken(self, error: impl ToString) -> DecodeError {
        let format = match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
        };
        DecodeError::Broken { format, message: error.to_string() }
    }
}

/// Whether samples have 16 bits.
fn is_wide(color: ColorType) -> bool {
    color.bytes_per_pixel() == 2 * color.channel_count()
}

/// An image whose samples are bytes, as [`super::raw`] makes them of the same samples. Opacity goes.
fn narrowed(image: DynamicImage, range: SampleRange) -> DynamicImage {
    let (width, height) = (image.width(), image.height());
    let bytes = |samples: Vec<u16>| samples.into_iter().map(|sample| range.byte(sample)).collect::<Vec<u8>>();
    match (is_wide(image.color()), image.color().has_color()) {
        (false, _) => image,
        (true, true) => {
            let rgb = RgbImage::from_raw(width, height, bytes(image.into_rgb16().into_raw()));
            DynamicImage::ImageRgb8(rgb.expect("three bytes for each pixel"))
        }
        (true, false) => {
            let grey = GrayImage::from_raw(width, height, bytes(image.into_luma16().into_raw()));
            DynamicImage::ImageLuma8(grey.expect("a byte for each pixel"))
        }
    }
}

/// A PNG without the chunks that its pixels do not need: texts and colour profiles are packed, and could unpack to any size.
fn without_remarks(data: &[u8]) -> Cow<'_, [u8]> {
    const SIGNATURE: usize = 8;
    let (mut at, mut kept, mut is_all) = (SIGNATURE, data[..SIGNATURE].to_vec(), true);
    while let Some(&[a, b, c, d, ref kind @ ..]) = data.get(at..at + 8) {
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        // Its length, kind, data and checksum; what is cut is left to the decoder.
        let chunk = &data[at..data.len().min(at + 12 + length)];
        at += chunk.len();
        if matches!(kind, b"IHDR" | b"PLTE" | b"tRNS" | b"IDAT" | b"IEND") {
            kept.extend_from_slice(chunk);
        } else {
            is_all = false;
        }
    }
    if is_all { Cow::Borrowed(data) } else { Cow::Owned(kept) }
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
