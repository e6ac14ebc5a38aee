//! How much of 16-bit samples a camera fills. `mono16`, `bayer_rggb16` and a 16-bit PNG hold what a sensor of ten or twelve
//! bits measured as well as what one of sixteen did, and nothing in a message tells which: the values do.
//!
//! One picture is not enough, since a dark one of a deep sensor looks like a bright one of a shallow sensor, and a range of
//! each picture's own would make the brightness pump. So the range is the stream's: the largest sample of all images up to
//! this one. It only grows, in steps of two bits, and images before keep what they had. A function of the images in their
//! order alone, so that a robot and whoever reads its recording see the same bytes.
//!
//! Left out: samples of eight bits in sixteen, which are read as dark ones of ten. Stretched any further, the noise of a
//! covered lens would be a picture.

use std::fmt;

use super::{largest_sample, printable};
use crate::message::ImagePayload;

/// Bits of a sample that sensors have.
const DEPTHS: [u32; 3] = [10, 12, 14];

/// The largest 16-bit sample of a stream of images up to one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct SampleRange(u16);

impl SampleRange {
    /// Of samples that fill all sixteen bits.
    pub const FULL: Self = Self(u16::MAX);

    /// Of one image by itself; nothing where its samples have eight bits. A 16-bit PNG is decoded for it.
    pub fn of(payload: &ImagePayload) -> Self {
        Self(largest_sample(payload))
    }

    /// The largest sample.
    pub fn largest(self) -> u16 {
        self.0
    }

    /// Bits that samples are taken to have: 10, 12, 14 or 16.
    pub fn bits(self) -> u32 {
        DEPTHS.into_iter().find(|bits| u32::from(self.0) >> *bits == 0).unwrap_or(u16::BITS)
    }

    /// The high byte of a sample of so many bits.
    pub(super) fn byte(self, sample: u16) -> u8 {
        u8::try_from(sample >> (self.bits() - u8::BITS)).unwrap_or(u8::MAX)
    }
}

/// What the images of one stream have shown of their samples so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SampleStream {
    /// Of the images, as their messages name it.
    encoding: String,
    range: SampleRange,
}

impl SampleStream {
    /// Takes the next image of the stream: the range to decode it with. Another encoding starts afresh.
    pub fn take(&mut self, payload: &ImagePayload) -> SampleRange {
        let (ImagePayload::Raw { encoding, .. } | ImagePayload::Compressed { format: encoding, .. }) = payload;
        if *encoding != self.encoding {
            *self = Self { encoding: encoding.clone(), range: SampleRange::default() };
        }
        self.range = self.range.max(SampleRange::of(payload));
        self.range
    }

    /// The range of all images up to here; `None` where no sample of sixteen bits was seen that is not zero.
    pub fn range(&self) -> Option<SampleRange> {
        (self.range != SampleRange::default()).then_some(self.range)
    }
}

/// For a log: encoding, largest value and what is made of it.
impl fmt::Display for SampleStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (encoding, largest, bits) = (printable(&self.encoding), self.range.largest(), self.range.bits());
        write!(f, "{encoding}: the largest value is {largest}, so samples are taken for {bits} bits")
    }
}
