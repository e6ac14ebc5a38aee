//! What lengths are in.

use std::fmt;

/// What translations that come out are in.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Scale {
    /// Metres, as the weights say them.
    #[default]
    Metric,
    /// Units that nobody knows.
    Arbitrary,
    /// Metres once there is a scale; nothing comes out yet.
    Unknown,
    /// Metres, by this many for each unit of the weights.
    Measured(f64),
}

impl fmt::Display for Scale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Metric => f.write_str("metric"),
            Self::Arbitrary => f.write_str("arbitrary"),
            Self::Unknown => f.write_str("unknown"),
            Self::Measured(scale) => write!(f, "{scale:.4}"),
        }
    }
}
