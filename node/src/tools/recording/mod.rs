//! Recordings of the node's topics: [`Recorder`] stands between the pipeline and its transport and writes what passes;
//! [`Recording`] is a file or a bag that is read again, and [`crate::tools::replay::recording`] plays it to the node. What a file
//! holds is [`camera::recording`]'s.
//!
//! Architecture Invariant: a recording never holds the camera up. What a slow or full disk cannot take is dropped,
//! counted and told, and what waits for it is bounded.
//!
//! Left out: the bytes as they came over the wire. Transports hand out messages, and those are written again, equal in
//! every field but those that the node does not keep: CameraInfo's `roi.do_rectify` comes out false, and the twist of the
//! odometry that gives the scale as one that nobody measured.

mod entry;
mod reader;
mod tap;

use std::path::PathBuf;

pub use entry::{entry_of_input, entry_of_output, own_topics};
pub use reader::{Camera, Recording};
pub use tap::{Recorded, Recorder};

/// Why a recording cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none, or none that can be read.
    #[error(transparent)]
    File(#[from] camera::recording::Error),
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
}
