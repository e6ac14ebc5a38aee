//! The error enum of the loaders.

use super::picture::Image;
use std::path::PathBuf;

/// What can be wrong with a data source. Each variant names the file and, where there is one, the frame.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is nothing where a recording should be.
    #[error("{path}: expected {expected}, got a path at which there is nothing", path = path.display())]
    Nowhere {
        /// The path.
        path: PathBuf,
        /// What was looked for.
        expected: String,
    },
    /// A recording of ROS 2 cannot be read.
    #[error(transparent)]
    Recording(#[from] camera::recording::Error),
    /// It is cut short or damaged, and nothing before that can be used.
    #[error("{}: {_0}", _0.path().display())]
    Damage(camera::recording::Damage),
    /// What a camera says of itself cannot be used.
    #[error("{path}: CameraInfo of {topic}: {source}; {hint}", path = path.display())]
    CameraInfo {
        /// The file.
        path: PathBuf,
        /// The topic of the images.
        topic: String,
        /// The field.
        source: Box<camera::error::InfoError>,
        /// What the key `images` has to do with it.
        hint: &'static str,
    },
    /// A folder with a `sequence.json` cannot be read.
    #[error(transparent)]
    Sequence(#[from] camera::sequence::Error),
    /// A JSON file is not what it should be.
    #[error("{path}: {source}", path = path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A field has a value that cannot be right.
    #[error("{path}: {field}: expected {expected}, got {got}", path = path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// The field.
        field: &'static str,
        /// Its bounds.
        expected: String,
        /// Its value.
        got: String,
    },
    /// The camera matrix is not one.
    #[error("{path}: {source}", path = path.display())]
    Intrinsics {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: geometry::Error,
    },
    /// A pose is not a rigid transform.
    #[error("{path}: pose of frame {index}: {source}", path = path.display())]
    Pose {
        /// The file.
        path: PathBuf,
        /// The frame.
        index: usize,
        /// What is wrong.
        source: geometry::Error,
    },
    /// A frame has no image.
    #[error("{path}: frame {index}: expected {expected}, got no such file", path = path.display())]
    MissingFrame {
        /// The folder.
        path: PathBuf,
        /// The frame.
        index: usize,
        /// The names that were looked for.
        expected: String,
    },
    /// The head of an image, or a depth image, does not decode.
    #[error("{image}: frame {index}: {source}")]
    Image {
        /// Where it is; a depth image too.
        image: Image,
        /// The frame.
        index: usize,
        /// Why.
        source: image::ImageError,
    },
    /// The same of an image of colours.
    #[error("{image}: frame {index}: {source}")]
    Decode {
        /// Where it is.
        image: Image,
        /// The frame.
        index: usize,
        /// What is wrong with it.
        source: camera::decode::DecodeError,
    },
    /// An image is there, but not as it should be.
    #[error("{image}: frame {index}: expected {expected}, got {got}")]
    Frame {
        /// Where it is; a depth image too.
        image: Image,
        /// The frame.
        index: usize,
        /// What it should be.
        expected: String,
        /// What it is.
        got: String,
    },
    /// A frame or window beyond the end.
    #[error("{path}: expected an index below {expected}, got {got}", path = path.display())]
    Index {
        /// The sequence, or the text of the source.
        path: PathBuf,
        /// The count.
        expected: u64,
        /// The index.
        got: u64,
    },
    /// A line of a text file is not what it should be.
    #[error("{path}:{line}: expected {expected}, got {got}", path = path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What belongs there.
        expected: String,
        /// What stands there.
        got: String,
    },
    /// A folder does not hold what its layout asks for.
    #[error("{path}: expected {expected}, got nothing of the kind", path = path.display())]
    Missing {
        /// The folder.
        path: PathBuf,
        /// What was looked for.
        expected: String,
    },
    /// The program that cuts videos does not start.
    #[error("{program}: {source}; install ffmpeg, name it with ffmpeg=PATH, or give frames=DIR", program = program.display())]
    Program {
        /// The program.
        program: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A video does not give the frames that were asked for.
    #[error("{path}: expected {expected} frames of ffmpeg, got {got}: {said}", path = path.display())]
    Cut {
        /// The video.
        path: PathBuf,
        /// How many times were listed.
        expected: usize,
        /// How many frames came, in order from the first.
        got: usize,
        /// The last words of the program.
        said: String,
    },
    /// Sources cannot be split as asked.
    #[error("split {name:?}: expected {expected}, got {got}")]
    Split {
        /// The part.
        name: String,
        /// What it needs.
        expected: String,
        /// What there is.
        got: String,
    },
    /// The text of a source cannot be understood.
    #[error("source {spec:?}: expected {expected}, got {got:?}")]
    Spec {
        /// The whole text.
        spec: String,
        /// What a part of it should be.
        expected: &'static str,
        /// That part.
        got: String,
    },
}
