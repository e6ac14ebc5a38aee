//! Exact camera poses from grey pictures, up to scale: tracks of points, the adjustment of five pictures, and a stream
//! that gives one pose a frame.
//!
//! Pictures come with intrinsics and stamps and without distortion; nothing here reads a file, a clock or a topic, and
//! time is an argument, so that a film gives the same poses live and from disk. The mathematics is in `geometry`.
//!
//! # The way of a picture
//! [`Picture`] (grey pyramid on a bounded grid) -> [`tracks`] (where points went) -> [`window`] (five pictures at once)
//! or [`stream`] (one after the other) -> [`fused`] (metres by a [`scale`] that has a source, and the model's answers, held
//! against the tracks by [`agreement`]). [`followed`] is the same from the poses of another program, without pictures.
//!
//! # Limits
//! One camera cannot see scale: lengths are in units that a window or a stream chooses and keeps. What moves by itself
//! in the scene is an outlier as long as most of the picture stands still.
//!
//! # Example
//! ```
//! use geometry::{Intrinsics, Stamp};
//! use odometry::stream::{Options, Stream};
//! use odometry::{Error, Grey, Picture};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let camera = Intrinsics::new(300.0, 300.0, 159.5, 119.5, 320, 240)?;
//! let pixels = (0..320 * 240).map(|i| ((i % 320 / 8 * 37 + i / 320 / 8 * 91) % 256) as u8).collect();
//! let grey = Grey::new(320, 240, pixels)?;
//! let mut stream = Stream::new(Options::default());
//! for k in 0..3 {
//!     // Time is an argument: a film gives the same poses live and from disk.
//!     let stamp = Stamp::from_nanos(k * 33_000_000);
//!     let pose = stream.push(Picture::new(stamp, &camera, &grey)?)?;
//!     assert_eq!(pose.stamp, stamp);
//! }
//! let late = stream.push(Picture::new(Stamp::from_nanos(0), &camera, &grey)?);
//! assert!(matches!(late, Err(Error::Stamp { .. })));
//! # Ok(())
//! # }
//! ```
#![deny(missing_docs)]

pub mod agreement;
mod align;
mod corners;
mod descriptors;
mod error;
pub mod followed;
pub mod fused;
pub mod ground;
mod lever;
mod metric;
mod picture;
pub mod scale;
pub mod stream;
pub mod tracks;
mod unscaled;
mod ways;
pub mod window;

pub use error::Error;
pub use picture::{Grey, Picture};
pub use unscaled::UpToScale;
