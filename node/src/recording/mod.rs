//! Recordings of the node's topics as MCAP files, as rosbag2 writes them: profile `ros2`, messages in CDR, definitions in
//! `ros2msg`, one channel a topic; `log_time` is when a message came or went, `publish_time` its own stamp.
//!
//! [`Recorder`] stands between the pipeline and its transport and writes what passes; [`Recording`] is a file that is read
//! again, and [`crate::replay::recording`] plays it to the node.
//!
//! Architecture Invariant: a recording never holds the camera up. What a slow or full disk cannot take is dropped,
//! counted and told, and what waits for it is bounded.
//!
//! Architecture Invariant: a chunk that was handed to the system can be read, whatever becomes of the process: it has
//! its own length and checksum, and nothing in front of it changes later.
//!
//! Left out: the bytes as they came over the wire. Transports hand out messages, and those are written again, equal in
//! every field but those that the node does not keep: CameraInfo's `roi.do_rectify` comes out false, and the twist of the
//! odometry that gives the scale as one that nobody measured.

mod message;
mod reader;
mod schema;
mod tap;
mod writer;

use std::path::PathBuf;

use mcap::McapError;

pub use message::{Entry, Kind};
pub use reader::{Camera, Damage, Recording};
pub use tap::{Recorded, Recorder};
pub use writer::{FileWriter, Writer};

/// Why there is no recording, or why it cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be opened, created or read at all.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file does not begin as one.
    #[error("{}: expected an MCAP file, got one of another kind", path.display())]
    NotMcap {
        /// The file.
        path: PathBuf,
    },
    /// Nothing in it is a picture.
    #[error(
        "{}: expected a topic with messages of sensor_msgs/msg/Image or CompressedImage, got {got}",
        path.display()
    )]
    NoImages {
        /// The file.
        path: PathBuf,
        /// What topics there are, and what is wrong with the file.
        got: String,
    },
    /// More than one topic could be meant.
    #[error("{}: expected `{wanted}` or a single topic of its type, got {got}: choose one with --set {key}=NAME", path.display())]
    Ambiguous {
        /// The file.
        path: PathBuf,
        /// The config's key.
        key: &'static str,
        /// The config's topic.
        wanted: String,
        /// Those of the file.
        got: String,
    },
    /// Messages that are not in CDR: the file was not written by ROS 2.
    #[error("{}: {topic}: expected messages in cdr, got `{got}`", path.display())]
    Encoding {
        /// The file.
        path: PathBuf,
        /// The topic.
        topic: String,
        /// What its channel says.
        got: String,
    },
    /// Images that the node does not read.
    #[error("{}: {topic}: {reason}", path.display())]
    Images {
        /// The file.
        path: PathBuf,
        /// The topic.
        topic: String,
        /// What was expected and what is there.
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
fn reason(error: &McapError) -> String {
    match error {
        McapError::Io(source) => source.to_string(),
        other => other.to_string(),
    }
}
