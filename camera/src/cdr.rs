//! CDR, in which messages lie on the wire and in recordings, behind the four bytes that say so.

use byteorder::{BigEndian, LittleEndian};
use serde::{Deserialize, Serialize};

/// The encapsulation of CDR in little-endian order.
const LITTLE_ENDIAN: [u8; 4] = [0, 1, 0, 0];
/// Bytes of a message beside its pixels, roughly.
pub const REST: usize = 256;

/// A message as bytes; `size` is that of its pixels, which is allocated at once.
#[expect(clippy::missing_panics_doc, reason = "memory takes every byte, and every sequence knows its length")]
pub fn encode<T: Serialize>(message: &T, size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size + REST);
    bytes.extend(LITTLE_ENDIAN);
    // Alignment counts from behind the encapsulation, as the serializer does.
    cdr_encoding::to_writer::<T, LittleEndian, &mut Vec<u8>>(&mut bytes, message)
        .expect("memory takes every byte, and every sequence knows its length");
    bytes
}

/// A message of bytes, in either order; what follows its last field is left.
///
/// # Errors
///
/// What is wrong with it, where it is no `T`.
pub fn decode<'a, T: Deserialize<'a>>(message: &'a [u8]) -> Result<T, String> {
    let (encapsulation, body) =
        message.split_at_checked(4).ok_or_else(|| format!("expected at least 4 bytes, got {}", message.len()))?;
    let decoded = match encapsulation[..2] {
        [0, 0] => cdr_encoding::from_bytes::<T, BigEndian>(body),
        [0, 1] => cdr_encoding::from_bytes::<T, LittleEndian>(body),
        _ => return Err(format!("expected plain CDR, got the encapsulation {encapsulation:?}")),
    };
    decoded.map(|(value, _)| value).map_err(|e| e.to_string())
}
