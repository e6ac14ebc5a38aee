//! What becomes of a file's bytes.

use std::ops::Range;

use crate::rounds::Draw;

/// Longest range that is overwritten with zeros.
const MOST_ZEROS: usize = 16;

/// A change of a file's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// One bit of the byte at this place.
    Flip { at: usize, bit: u8 },
    /// The file ends here.
    Cut { at: usize },
    /// These are 0.
    Zeros(Range<usize>),
}

impl Damage {
    /// One that changes these bytes.
    pub fn draw(bytes: &[u8], draw: &mut Draw) -> Self {
        loop {
            let at = draw.below(bytes.len());
            let damage = match draw.below(3) {
                0 => Self::Flip { at, bit: draw.below(8) as u8 },
                1 => Self::Cut { at },
                _ => Self::Zeros(at..(at + 1 + draw.below(MOST_ZEROS)).min(bytes.len())),
            };
            if damage.done_to(bytes) != bytes {
                return damage;
            }
        }
    }

    pub fn done_to(&self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        match self {
            Self::Flip { at, bit } => bytes[*at] ^= 1_u8 << *bit,
            Self::Cut { at } => bytes.truncate(*at),
            Self::Zeros(range) => bytes[range.clone()].fill(0),
        }
        bytes
    }

    /// The first byte that it touches.
    pub fn begins(&self) -> usize {
        match self {
            Self::Flip { at, .. } | Self::Cut { at } => *at,
            Self::Zeros(range) => range.start,
        }
    }
}
