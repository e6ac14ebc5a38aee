//! Where a picture of a recorded sequence is.

use camera::decode::SampleRange;
use camera::recording::Place;
use camera::ros::Type;
use std::fmt;
use std::path::{Path, PathBuf};

/// Where the image of a frame is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Image {
    /// In a file of its own, JPEG or PNG.
    File(PathBuf),
    /// In a PNG of 16-bit samples of its own.
    Deep {
        /// The file.
        path: PathBuf,
        /// Of the images up to this one.
        range: SampleRange,
    },
    /// In a message of a recording of ROS 2.
    Recorded {
        /// The MCAP file.
        file: PathBuf,
        /// Where its message is.
        place: Place,
        /// Of the message.
        message_type: Type,
        /// Of the topic's images up to this one.
        range: SampleRange,
    },
}

impl Image {
    /// The image's own file.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) | Self::Deep { path, .. } => Some(path),
            Self::Recorded { .. } => None,
        }
    }
}

/// As errors name it.
impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) | Self::Deep { path, .. } => write!(f, "{}", path.display()),
            Self::Recorded { file, place: Place { offset, number }, .. } => {
                write!(f, "{}: message {number} of the record at byte {offset}", file.display())
            }
        }
    }
}
