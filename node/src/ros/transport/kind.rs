//! The two backends.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Which backend moves the messages; the same topics, types and QoS either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Pure-Rust DDS; needs no ROS 2 on the machine.
    Ros2Client,
    /// The sourced ROS 2 through rcl: its rmw, its shared memory. Needs the feature `ros`.
    R2r,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ros2Client => "ros2-client",
            Self::R2r => "r2r",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_named_as_in_the_config() {
        for (kind, name) in [(Kind::Ros2Client, "ros2-client"), (Kind::R2r, "r2r")] {
            assert_eq!(kind.to_string(), name);
            assert_eq!(serde_json::from_str::<Kind>(&format!("{name:?}")).ok(), Some(kind));
        }
    }
}
