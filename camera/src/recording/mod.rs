//! Recordings of ROS 2 as MCAP files, as rosbag2 writes them: profile `ros2`, messages in CDR, definitions in `ros2msg`,
//! one channel a topic; `log_time` is when a message came or went, `publish_time` its own stamp. And the folders that
//! rosbag2 puts them in ([`bag`]).
//!
//! Architecture Invariant: a chunk that was handed to the system can be read, whatever becomes of the process: it has
//! its own length and checksum, and nothing in front of it changes later.

pub mod bag;
mod ending;
mod reader;
mod schema;
mod source;
mod writer;

use std::path::PathBuf;

use geometry::Stamp;
use mcap::McapError;

use crate::ros::Type;

pub use reader::{Channel, Damage, Message, Place, read_at, scan};
pub use writer::{FileWriter, Writer};

/// A key in the metadata of a channel: our node has said what is in it.
const OWN_MARK: &str = "egoreasoner";

/// A message of a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its topic, by its absolute name.
    pub topic: String,
    /// Its type.
    pub message_type: Type,
    /// When it came or went.
    pub log_time: Stamp,
    /// Its own stamp.
    pub publish_time: Stamp,
    /// The message in CDR ([`crate::cdr::encode`]).
    pub data: Vec<u8>,
}

/// Why there is no recording.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder cannot be opened, created or read at all.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file does not begin as one.
    #[error("{}: expected an MCAP file, got {got}", path.display())]
    NotMcap {
        /// The file.
        path: PathBuf,
        /// What it is, as far as that is known.
        got: &'static str,
    },
    /// A bag that cannot be read.
    #[error("{}: {field}: expected {expected}, got {got}", path.display())]
    Bag {
        /// Its metadata.yaml, or its folder.
        path: PathBuf,
        /// The key.
        field: &'static str,
        /// What it should say.
        expected: String,
        /// What it says.
        got: String,
    },
    /// A message that is not where it was.
    #[error("{}: the message at byte {} cannot be read: {reason}", path.display(), place.offset)]
    Message {
        /// The file.
        path: PathBuf,
        /// Where it should be.
        place: Place,
        /// What is wrong.
        reason: String,
    },
    /// The file cannot be written.
    #[error("{}: {reason}; {written} messages are in the file, {lost} are not", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
        /// Messages in the file.
        written: u64,
        /// Messages that did not come into it.
        lost: u64,
    },
}

/// An error of the container in words: its own text keeps what the system says to itself.
pub fn reason(error: &McapError) -> String {
    match error {
        McapError::Io(source) => source.to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
