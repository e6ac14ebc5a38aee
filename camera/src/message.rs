//! What a camera says, live or in a recording: plain data, free of any middleware's types. [`crate::ros`] has them as they
//! lie on the wire.

use geometry::Stamp;

/// `sensor_msgs/Image` or `sensor_msgs/CompressedImage`, not yet decoded.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageMessage {
    /// Time of exposure.
    pub stamp: Stamp,
    /// The camera's optical frame.
    pub frame_id: String,
    /// The pixels as they came.
    pub payload: ImagePayload,
}

/// The pixels of an [`ImageMessage`] as they came over the wire.
#[derive(Debug, Clone, PartialEq)]
pub enum ImagePayload {
    /// `sensor_msgs/Image`.
    Raw {
        /// Pixels a row.
        width: u32,
        /// Rows.
        height: u32,
        /// One of the names of `sensor_msgs/image_encodings`.
        encoding: String,
        /// Byte order of 16-bit encodings.
        is_bigendian: bool,
        /// Bytes a row, padding included.
        step: u32,
        /// `step * height` bytes.
        data: Vec<u8>,
    },
    /// `sensor_msgs/CompressedImage`.
    Compressed {
        /// As sent, for example `jpeg` or `rgb8; jpeg compressed bgr8`.
        format: String,
        /// The file.
        data: Vec<u8>,
    },
}

/// `sensor_msgs/RegionOfInterest`, pixels of the full grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RegionOfInterest {
    /// First column.
    pub x_offset: u32,
    /// First row.
    pub y_offset: u32,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// `sensor_msgs/CameraInfo`, the parts that are used.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CameraInfoMessage {
    /// Time of the image that it belongs to.
    pub stamp: Stamp,
    /// The camera's optical frame.
    pub frame_id: String,
    /// Pixels a row of the full grid, which K and P are for.
    pub width: u32,
    /// Rows of the full grid.
    pub height: u32,
    /// `plumb_bob`, `equidistant`, ... or empty.
    pub distortion_model: String,
    /// Distortion coefficients; empty or all zero for a rectified image.
    pub d: Vec<f64>,
    /// Row-major 3x3 camera matrix of the raw image, pixels.
    pub k: [f64; 9],
    /// Row-major 3x3 rotation into the rectified frame of a stereo pair; the identity, or zeros, for a single camera.
    pub r: [f64; 9],
    /// Row-major 3x4 projection matrix of the rectified image, pixels; zeros where nothing is said of it.
    pub p: [f64; 12],
    /// Columns and rows of the full grid that one pixel of the image sums up; 0 means 1.
    pub binning: [u32; 2],
    /// Part of the full grid that the image shows; zeros mean all of it.
    pub roi: RegionOfInterest,
}
