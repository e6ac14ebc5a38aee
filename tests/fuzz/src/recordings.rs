//! Recordings.

use std::io::Write;

use camera::recording::{Damage, Error, Place, read_at, scan};

use crate::memory::within;

/// What of a record is held at once: as it is in the file, unpacked, a message of it unpacked again, and old and new room while
/// that grows.
const COPIES: usize = 6;
/// What a record may unpack to beyond a multiple of its size, and that multiple, as `camera::recording` has them.
const FREE: usize = 64 << 20;
const RATIO: usize = 1024;
/// What a file costs beside its records: buffers, its index, names of channels.
const SLACK: usize = 8 << 20;
/// How many messages are read again by their places.
const PLACES: usize = 4;

/// What is kept of a file: where its first messages are, with their lengths and sums, how many there are, and what is told.
type Read = (Vec<(Place, usize, u64)>, u64, Option<Damage>);

/// An MCAP file of any bytes, from first to last. It comes through where it has messages and nothing is missing.
pub fn mcap(data: &[u8]) -> bool {
    let mut file = tempfile::NamedTempFile::new().expect("room for a file");
    file.write_all(data).expect("room for an input");
    let limit = COPIES * (FREE + RATIO * data.len()) + SLACK;
    let read = || {
        let (mut places, mut count) = (Vec::new(), 0);
        let damage = scan(file.path(), |message| {
            if places.len() < PLACES {
                places.push((message.place, message.data.len(), sum(message.data)));
            }
            count += 1;
            Ok::<(), Error>(())
        })?;
        Ok::<Read, Error>((places, count, damage))
    };
    let (places, count, damage) = match within(limit, read) {
        Ok(found) => found,
        Err(Error::NotMcap { .. }) => return false,
        Err(error) => panic!("expected a file or damage, got {error}"),
    };
    for (place, length, sum_of_first) in &places {
        let again = within(limit, || read_at(file.path(), *place)).expect("a message is where it was");
        assert_eq!((again.len(), sum(&again)), (*length, *sum_of_first), "{place:?}");
    }
    match damage {
        None => count > 0,
        Some(Damage::Broken { offset, .. }) => {
            assert!(offset <= data.len() as u64, "{offset}");
            false
        }
        Some(Damage::Missing { expected, got, .. }) => {
            assert!(got == count && expected > got, "{expected}, {got} of {count}");
            false
        }
    }
}

fn sum(data: &[u8]) -> u64 {
    data.iter().fold(0, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)))
}
