//! TUM trajectory files: one pose a line, `timestamp tx ty tz qx qy qz qw`, `#` starts a comment.
//!
//! Stamps are read as decimals, not as floats, so that a stamp of a file is the stamp of its image to the nanosecond.

use std::path::Path;

use nalgebra::Vector3;

use crate::error::Error;
use crate::frame::Transform;
use crate::stamp::{Stamp, Stamped};

/// Reads a file; see [`parse`].
///
/// # Errors
/// [`Error::Io`], and those of [`parse`] with the file's path.
pub fn read<To, From>(path: &Path) -> Result<Vec<Stamped<Transform<To, From>>>, Error> {
    let text =
        std::fs::read_to_string(path).map_err(|source| Error::Io { path: path.to_owned(), action: "read", source })?;
    parse(&text, &path.display().to_string())
}

/// Writes a file; see [`format()`].
///
/// # Errors
/// [`Error::Io`].
pub fn write<To, From>(path: &Path, poses: &[Stamped<Transform<To, From>>]) -> Result<(), Error> {
    std::fs::write(path, format(poses)).map_err(|source| Error::Io { path: path.to_owned(), action: "write", source })
}

/// The poses of a TUM text, in its order; stamps need not increase. `file` is its name in errors.
///
/// # Errors
/// [`Error::TumLine`] where a line does not have eight finite numbers, its stamp is outside of the range of
/// nanoseconds in 64 bits, or its quaternion is not of norm 1 within 1e-2.
pub fn parse<To, From>(text: &str, file: &str) -> Result<Vec<Stamped<Transform<To, From>>>, Error> {
    let mut poses = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let content = line.split('#').next().unwrap_or_default();
        let words: Vec<_> = content.split_whitespace().collect();
        if words.is_empty() {
            continue;
        }
        let error =
            |expected: String, got: String| Error::TumLine { file: file.to_owned(), line: index + 1, expected, got };
        let Ok([stamp, numbers @ ..]) = <[&str; 8]>::try_from(words.as_slice()) else {
            return Err(error(
                "8 numbers: timestamp tx ty tz qx qy qz qw".to_owned(),
                format!("{} words", words.len()),
            ));
        };
        let stamp = parse_stamp(stamp).ok_or_else(|| error("a timestamp in seconds".to_owned(), stamp.to_owned()))?;
        let mut values = [0.0; 7];
        for (value, word) in values.iter_mut().zip(numbers) {
            *value = word.parse().map_err(|_| error("a number".to_owned(), word.to_owned()))?;
        }
        let [x, y, z, qx, qy, qz, qw] = values;
        let value = Transform::from_xyzw([qx, qy, qz, qw], &Vector3::new(x, y, z))
            .map_err(|cause| error("a pose".to_owned(), cause.to_string()))?;
        poses.push(Stamped { stamp, value });
    }
    Ok(poses)
}

/// The TUM text of poses: stamps with nine decimals, numbers with as many digits as reading them back exactly takes.
pub fn format<To, From>(poses: &[Stamped<Transform<To, From>>]) -> String {
    use std::fmt::Write;
    let mut text = String::from("# timestamp tx ty tz qx qy qz qw\n");
    for Stamped { stamp, value } in poses {
        let sign = if stamp.nanos < 0 { "-" } else { "" };
        let nanos = stamp.nanos.unsigned_abs();
        let [x, y, z] = value.translation().into();
        let [qx, qy, qz, qw] = value.to_xyzw();
        let seconds = nanos / 1_000_000_000;
        let nanos = nanos % 1_000_000_000;
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{sign}{seconds}.{nanos:09} {x} {y} {z} {qx} {qy} {qz} {qw}");
    }
    text
}

/// Decimal seconds, with or without an exponent, to the nearest nanosecond; halves away from zero.
fn parse_stamp(word: &str) -> Option<Stamp> {
    let (negative, unsigned) = match word.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, word.strip_prefix('+').unwrap_or(word)),
    };
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // Digits before the point of the number in nanoseconds.
    let point = i64::try_from(whole.len()).ok()? + i64::from(exponent) + 9;
    let mut nanos: i128 = 0;
    for (position, digit) in (0_i64..).zip(&digits) {
        let digit = i128::from(digit - b'0');
        match position.cmp(&point) {
            std::cmp::Ordering::Less => nanos = nanos.checked_mul(10)?.checked_add(digit)?,
            std::cmp::Ordering::Equal => nanos = nanos.checked_add(i128::from(digit >= 5))?,
            std::cmp::Ordering::Greater => break,
        }
    }
    let missing = point - i64::try_from(digits.len()).ok()?;
    if missing > 0 && nanos != 0 {
        nanos = nanos.checked_mul(10_i128.checked_pow(u32::try_from(missing).ok()?)?)?;
    }
    let nanos = if negative { -nanos } else { nanos };
    i64::try_from(nanos).ok().map(Stamp::from_nanos)
}
