//! Pictures that lost something on their way: a picture is what the camera saw, or it is refused.
//!
//! A PNG has a checksum for each of its parts, so that holds of any damage. A JPEG has none: damaged data may be other data, as
//! long as there are as many codes, and no decoder can tell. What can be told, and must be, is that data are missing:
//! * a file that was cut, anywhere;
//! * a scan that ends at least [`LEAST_AT_END`] bytes early, with everything behind it gone but the end-of-image marker;
//! * of a sequential picture, [`LEAST_INSIDE`] or more bytes of its scan in a row that are zero or gone. Of fewer, some leave as many
//!   codes as there were: of these pictures, none of 256 bytes or more does, and one in thirty of 128 to 255 zeros.
//!
//! A damaged header may make another picture, and nothing is asked of that but that it is read as any other.

use std::ops::Range;

use camera::decode::{SampleRange, decode};
use camera::message::ImagePayload;

use crate::images;
use crate::reader::Reader;

/// Bytes that a scan loses at its end for that to be seen: more than may be put behind its last code.
const LEAST_AT_END: usize = 64;
/// The same in its middle.
const LEAST_INSIDE: usize = 256;
/// What ends a JPEG.
const END_OF_IMAGE: usize = 2;
/// What ends a PNG: the chunk IEND.
const IEND: usize = 12;

/// Files of `make_seeds.py`.
const PICTURES: [&[u8]; 5] = [
    include_bytes!("../pictures/baseline.jpg"),
    include_bytes!("../pictures/restarts.jpg"),
    include_bytes!("../pictures/progressive.jpg"),
    include_bytes!("../pictures/rgb.png"),
    include_bytes!("../pictures/deep.png"),
];

/// What happens to a file.
#[derive(Debug)]
enum Damage {
    /// A bit is another.
    Flip(usize, u8),
    /// Nothing comes from a place on.
    Cut(usize),
    /// Zeros come in place of it.
    Zeros(Range<usize>),
    /// What is behind it comes in its place.
    Drop(Range<usize>),
}

/// One of the pictures, and what happens to it: which picture, what, where, and how many bytes. It comes through where it has a
/// picture still.
pub fn damaged_image(data: &[u8]) -> bool {
    let mut reader = Reader(data);
    let whole = PICTURES[usize::from(reader.byte()) % PICTURES.len()];
    let damage = Damage::read(&mut reader, whole);
    let damaged = damage.as_ref().map_or_else(|| whole.to_vec(), |damage| damage.apply(whole));
    let (before, after) = (file(whole.to_vec()), file(damaged));
    let is_read = images::read(&after);
    let is_jpeg = whole.starts_with(&[0xff, 0xd8]);
    if damage.as_ref().is_some_and(|damage| is_jpeg && damage.is_seen(whole)) {
        assert!(!is_read, "{damage:?}: data are missing, and there is a picture");
    }
    if is_read && (!is_jpeg || damage.is_none()) {
        let pixels = |payload: &ImagePayload| decode(payload, SampleRange::of(payload));
        let (before, after) = (pixels(&before), pixels(&after));
        assert!(before.is_ok() && before == after, "{damage:?}: another picture");
    }
    is_read
}

fn file(data: Vec<u8>) -> ImagePayload {
    ImagePayload::Compressed { format: String::new(), data }
}

impl Damage {
    /// None where nothing happens.
    fn read(reader: &mut Reader<'_>, file: &[u8]) -> Option<Self> {
        let kind = reader.byte() % 6;
        let [at, length] = std::array::from_fn(|_| reader.word() as usize);
        let at = at % file.len();
        let range = at..at + length % (file.len() - at + 1);
        let end = file.len() - if file.starts_with(&[0xff, 0xd8]) { END_OF_IMAGE } else { IEND };
        let damage = match kind {
            1 => Self::Flip(at, 1 << (length % 8)),
            2 => Self::Cut(at),
            3 => Self::Drop(at.min(end)..end),
            4 => Self::Zeros(range),
            5 => Self::Drop(range),
            _ => return None,
        };
        (damage.apply(file) != file).then_some(damage)
    }

    fn apply(&self, file: &[u8]) -> Vec<u8> {
        let mut file = file.to_vec();
        match self {
            Self::Flip(at, bit) => file[*at] ^= bit,
            Self::Cut(at) => file.truncate(*at),
            Self::Zeros(range) => file[range.clone()].fill(0),
            Self::Drop(range) => drop(file.drain(range.clone())),
        }
        file
    }

    /// Whether so much of a JPEG is missing that it must be seen.
    fn is_seen(&self, jpeg: &[u8]) -> bool {
        let scans = scans(jpeg);
        let is_inside = |range: &Range<usize>| match &scans[..] {
            [scan] => range.len() >= LEAST_INSIDE && scan.start <= range.start && range.end <= scan.end,
            _ => false,
        };
        let is_end = |range: &Range<usize>| {
            let scan = scans.iter().find(|scan| scan.contains(&range.start));
            range.end == jpeg.len() - END_OF_IMAGE && scan.is_some_and(|scan| scan.end - range.start >= LEAST_AT_END)
        };
        match self {
            Self::Flip(..) => false,
            Self::Cut(_) => true,
            Self::Zeros(range) => is_inside(range),
            Self::Drop(range) => is_inside(range) || is_end(range),
        }
    }
}

/// Where the data of each scan are.
fn scans(jpeg: &[u8]) -> Vec<Range<usize>> {
    const START_OF_SCAN: u8 = 0xda;
    let (mut at, mut found) = (2, Vec::new());
    while let Some(&[0xff, marker, high, low]) = jpeg.get(at..at + 4) {
        let begin = at + 2 + usize::from(u16::from_be_bytes([high, low]));
        at = begin;
        if marker == START_OF_SCAN {
            let is_marker = |pair: &[u8]| pair[0] == 0xff && !matches!(pair[1], 0 | 0xd0..=0xd7);
            let end = jpeg.get(begin..).and_then(|data| data.windows(2).position(is_marker));
            at = end.map_or(jpeg.len(), |end| begin + end);
            found.push(begin..at);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{PICTURES, scans};

    #[test]
    fn pictures_have_scans_that_damage_can_be_in() {
        let counts = PICTURES.map(|file| if file.starts_with(&[0xff, 0xd8]) { scans(file).len() } else { 0 });
        assert_eq!((counts[0], counts[1], counts[2] > 5, counts[3], counts[4]), (1, 1, true, 0, 0), "{counts:?}");
        for file in &PICTURES[..2] {
            let scan = &scans(file)[0];
            assert!(scan.len() > 1000 && scan.end == file.len() - 2, "{scan:?}");
        }
    }
}
