//! `sensor_msgs/Image`: what its encodings mean, by the names of `sensor_msgs/image_encodings.hpp`.

use super::{DecodeError, SampleRange, bayer, check_size, printable, yuv};

/// How the bytes of an image lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// The samples of a pixel side by side.
    Interleaved {
        /// Samples a pixel.
        samples: usize,
        /// Bytes a sample.
        bytes: usize,
        /// Which of the samples are red, green and blue.
        rgb: [usize; 3],
    },
    /// 4:2:2, two pixels in four bytes.
    Yuv422 {
        /// Place of the first luma: before or after the first chroma.
        luma: usize,
    },
    /// 4:2:0: all lumas, then half as many rows with chroma in pairs.
    Yuv420 {
        /// Place of U in a pair.
        u: usize,
    },
    /// One sample a pixel, in tiles of 2x2.
    Bayer {
        /// Bytes a sample.
        bytes: usize,
        /// Column and row of red in the tile.
        red: [usize; 2],
    },
}

const fn interleaved(samples: usize, bytes: usize, rgb: [usize; 3]) -> Encoding {
    Encoding::Interleaved { samples, bytes, rgb }
}

const fn tile(bytes: usize, red: [usize; 2]) -> Encoding {
    Encoding::Bayer { bytes, red }
}

/// `nv12` is younger than Jazzy's header; camera drivers wrote it before.
const KNOWN: [(&str, Encoding); 24] = [
    ("rgb8", interleaved(3, 1, [0, 1, 2])),
    ("bgr8", interleaved(3, 1, [2, 1, 0])),
    ("rgba8", interleaved(4, 1, [0, 1, 2])),
    ("bgra8", interleaved(4, 1, [2, 1, 0])),
    ("mono8", interleaved(1, 1, [0, 0, 0])),
    ("rgb16", interleaved(3, 2, [0, 1, 2])),
    ("bgr16", interleaved(3, 2, [2, 1, 0])),
    ("rgba16", interleaved(4, 2, [0, 1, 2])),
    ("bgra16", interleaved(4, 2, [2, 1, 0])),
    ("mono16", interleaved(1, 2, [0, 0, 0])),
    ("uyvy", Encoding::Yuv422 { luma: 1 }),
    ("yuv422", Encoding::Yuv422 { luma: 1 }),
    ("yuyv", Encoding::Yuv422 { luma: 0 }),
    ("yuv422_yuy2", Encoding::Yuv422 { luma: 0 }),
    ("nv12", Encoding::Yuv420 { u: 0 }),
    ("nv21", Encoding::Yuv420 { u: 1 }),
    ("bayer_rggb8", tile(1, [0, 0])),
    ("bayer_bggr8", tile(1, [1, 1])),
    ("bayer_gbrg8", tile(1, [0, 1])),
    ("bayer_grbg8", tile(1, [1, 0])),
    ("bayer_rggb16", tile(2, [0, 0])),
    ("bayer_bggr16", tile(2, [1, 1])),
    ("bayer_gbrg16", tile(2, [0, 1])),
    ("bayer_grbg16", tile(2, [1, 0])),
];

/// The names, for whoever sends another.
pub(super) fn known() -> String {
    KNOWN.map(|(name, _)| name).join(", ")
}

/// The encoding of that name, and the name as this program has it.
pub(super) fn named(name: &str) -> Option<(&'static str, Encoding)> {
    KNOWN.into_iter().find(|(known, _)| *known == name)
}

/// The encoding of an image whose fields fit together: then [`Encoding::rgb`] finds all the bytes that it wants.
pub(super) fn check(
    encoding: &str,
    width: u32,
    height: u32,
    step: u32,
    length: usize,
) -> Result<Encoding, DecodeError> {
    let Some((name, encoding)) = named(encoding) else {
        return Err(DecodeError::Encoding { got: printable(encoding) });
    };
    check_size(width, height)?;
    if let Some(expected) = encoding.unfilled(width, height) {
        return Err(DecodeError::Groups { encoding: name, expected, width, height });
    }
    let least = encoding.row(u64::from(width));
    if u64::from(step) < least {
        return Err(DecodeError::Step { least, step });
    }
    let rows = encoding.rows(u64::from(height));
    let expected = rows * u64::from(step);
    if expected != length as u64 {
        return Err(DecodeError::Length { rows, step, expected, got: length });
    }
    Ok(encoding)
}

impl Encoding {
    /// What the groups of pixels need, where an image of this size does not have it.
    fn unfilled(self, width: u32, height: u32) -> Option<&'static str> {
        match self {
            Self::Interleaved { .. } => None,
            Self::Yuv422 { .. } => (!width.is_multiple_of(2)).then_some("an even width"),
            Self::Yuv420 { .. } => {
                (!width.is_multiple_of(2) || !height.is_multiple_of(2)).then_some("an even width and height")
            }
            Self::Bayer { .. } => (width < 2 || height < 2).then_some("at least a tile of 2x2"),
        }
    }

    /// Bytes of a row without padding.
    fn row(self, width: u64) -> u64 {
        match self {
            Self::Interleaved { samples, bytes, .. } => width * (samples * bytes) as u64,
            Self::Yuv422 { .. } => width * 2,
            Self::Yuv420 { .. } => width,
            Self::Bayer { bytes, .. } => width * bytes as u64,
        }
    }

    /// Rows of bytes.
    fn rows(self, height: u64) -> u64 {
        match self {
            Self::Yuv420 { .. } => height / 2 * 3,
            _ => height,
        }
    }

    /// Three bytes for each pixel, row after row, of an image that passed [`check`]: width, height and bytes a row.
    pub(super) fn rgb(
        self,
        (width, height, step): yuv::Layout,
        is_bigendian: bool,
        range: SampleRange,
        data: &[u8],
    ) -> Vec<u8> {
        let Some(narrow) = self.narrow() else { return self.rgb_of_bytes((width, height, step), data) };
        let bytes: Vec<u8> = self.samples((width, step), is_bigendian, data).map(|sample| range.byte(sample)).collect();
        narrow.rgb_of_bytes((width, height, narrow.row(width as u64) as usize), &bytes)
    }

    /// The largest 16-bit sample of a colour, of an image that passed [`check`]; 0 where samples have eight bits.
    pub(super) fn largest_sample(self, size: (usize, usize), is_bigendian: bool, data: &[u8]) -> u16 {
        let samples = self.samples(size, is_bigendian, data);
        let largest = match self {
            // The fourth is opacity, which most cameras fill with the largest number there is.
            Self::Interleaved { samples: 4, bytes: 2, .. } => {
                samples.enumerate().filter(|(at, _)| at % 4 != 3).map(|(_, sample)| sample).max()
            }
            _ if self.narrow().is_some() => samples.max(),
            _ => None,
        };
        largest.unwrap_or(0)
    }

    /// The same with one byte a sample, of an encoding that has two.
    fn narrow(self) -> Option<Self> {
        match self {
            Self::Interleaved { samples, bytes: 2, rgb } => Some(Self::Interleaved { samples, bytes: 1, rgb }),
            Self::Bayer { bytes: 2, red } => Some(Self::Bayer { bytes: 1, red }),
            _ => None,
        }
    }

    /// Samples of two bytes, row after row without padding.
    fn samples(self, (width, step): (usize, usize), is_bigendian: bool, data: &[u8]) -> impl Iterator<Item = u16> {
        let value = if is_bigendian { u16::from_be_bytes } else { u16::from_le_bytes };
        let row = self.row(width as u64) as usize;
        let pairs = data.chunks_exact(step).flat_map(move |line| line[..row].chunks_exact(2));
        pairs.map(move |pair| value([pair[0], pair[1]]))
    }

    /// [`Self::rgb`] where each sample is a byte.
    fn rgb_of_bytes(self, (width, height, step): yuv::Layout, data: &[u8]) -> Vec<u8> {
        let mut rgb = vec![0; width * height * 3];
        let lines = rgb.chunks_exact_mut(width * 3).zip(data.chunks_exact(step));
        match self {
            Self::Interleaved { samples, rgb: [red, green, blue], .. } => {
                for (line, row) in lines {
                    for (out, pixel) in line.chunks_exact_mut(3).zip(row.chunks_exact(samples)) {
                        out.copy_from_slice(&[pixel[red], pixel[green], pixel[blue]]);
                    }
                }
            }
            Self::Yuv422 { luma } => yuv::rgb_422(data, (width, height, step), luma, &mut rgb),
            Self::Yuv420 { u } => yuv::rgb_420(data, (width, height, step), u, &mut rgb),
            Self::Bayer { red, .. } => {
                let mosaic: Vec<u8> = data.chunks_exact(step).flat_map(|row| &row[..width]).copied().collect();
                bayer::demosaic(&mosaic, width, red, &mut rgb);
            }
        }
        rgb
    }
}
