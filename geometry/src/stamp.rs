//! Times as whole nanoseconds, and values that have one.
//!
//! An `f64` of seconds since 1970 resolves about 0.2 microseconds, too little to compare stamps for equality; that is why
//! the crate keeps integers and converts at its ends.

use serde::{Deserialize, Serialize};

const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// A point in time: nanoseconds since an epoch that the source of the stamps defines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// Nanoseconds since the epoch.
    pub nanos: i64,
}

impl Stamp {
    /// The stamp of `nanos` nanoseconds.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self { nanos }
    }

    /// The stamp nearest to `seconds`. Saturates at the ends of the range (292 years); NaN becomes zero.
    pub fn from_seconds_f64(seconds: f64) -> Self {
        Self { nanos: (seconds * NANOS_PER_SECOND as f64).round() as i64 }
    }

    /// Seconds, rounded to the nearest `f64`.
    pub fn as_seconds_f64(self) -> f64 {
        self.nanos as f64 / NANOS_PER_SECOND as f64
    }

    /// The stamp of a `builtin_interfaces/Time`.
    pub fn from_sec_nanosec(sec: i32, nanosec: u32) -> Self {
        Self { nanos: i64::from(sec) * NANOS_PER_SECOND + i64::from(nanosec) }
    }

    /// The fields of a `builtin_interfaces/Time`: `nanosec` is below 10^9, also before the epoch. Saturates at the
    /// ends of the range of `sec`.
    pub fn to_sec_nanosec(self) -> (i32, u32) {
        let sec = self.nanos.div_euclid(NANOS_PER_SECOND);
        let nanosec = self.nanos.rem_euclid(NANOS_PER_SECOND) as u32;
        match i32::try_from(sec) {
            Ok(sec) => (sec, nanosec),
            Err(_) if sec < 0 => (i32::MIN, 0),
            Err(_) => (i32::MAX, NANOS_PER_SECOND as u32 - 1),
        }
    }

    /// `self - earlier` in nanoseconds, saturating.
    pub fn nanos_since(self, earlier: Self) -> i64 {
        self.nanos.saturating_sub(earlier.nanos)
    }
}

/// A value at a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stamped<T> {
    /// When.
    pub stamp: Stamp,
    /// What.
    pub value: T,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn before_the_epoch_nanosec_stays_positive() {
        assert_eq!(Stamp::from_nanos(-1).to_sec_nanosec(), (-1, 999_999_999));
        assert_eq!(Stamp::from_seconds_f64(-0.25).nanos, -250_000_000);
    }

    #[test]
    fn seconds_beyond_i32_saturate() {
        assert_eq!(Stamp::from_nanos(i64::MAX).to_sec_nanosec(), (i32::MAX, 999_999_999));
        assert_eq!(Stamp::from_nanos(i64::MIN).to_sec_nanosec(), (i32::MIN, 0));
    }

    proptest! {
        #[test]
        fn sec_nanosec_round_trip(sec in any::<i32>(), nanosec in 0_u32..1_000_000_000) {
            prop_assert_eq!(Stamp::from_sec_nanosec(sec, nanosec).to_sec_nanosec(), (sec, nanosec));
        }

        #[test]
        fn seconds_round_trip_to_half_a_microsecond(nanos in 0_i64..2_000_000_000_000_000_000) {
            let stamp = Stamp::from_nanos(nanos);
            let back = Stamp::from_seconds_f64(stamp.as_seconds_f64());
            prop_assert!((back.nanos - nanos).abs() <= 500);
        }
    }
}
