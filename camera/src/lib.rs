//! What a camera sends, live or from a drive on disk: the robot and the trainer read both here, so that what the one
//! recorded is what the other learns from.
//!
//! A [`message`] comes out of a middleware's sample or a [`recording`] ([`ros`] in [`cdr`]). [`optics`] says which
//! intrinsics its image has, from CameraInfo ([`info`]); [`plausible`] doubts numbers that no camera has; [`decode`] makes RGB of any encoding; [`rectify`] makes a
//! pinhole's of a [`lens`]'s image; [`quality`] tells a picture that shows nothing; [`pace`] takes frames a time apart. [`transforms`] lead from the camera to
//! the body that carries it. [`sequence`] is our own layout of files.
//!
//! Architecture Invariant: no clock, no threads, no transport; only [`recording`] and [`sequence`] touch files.
//!
//! # Example
//! ```
//! use std::time::Duration;
//!
//! use camera::pace::Pace;
//! use geometry::Stamp;
//!
//! // A second of a camera at 20 Hz, read at 4 Hz.
//! let mut pace = Pace::new(Duration::from_millis(250));
//! let taken = (0..20).filter(|k| pace.takes(Stamp::from_nanos(k * 50_000_000))).count();
//! assert_eq!(taken, 4);
//! ```

#![deny(missing_docs)]

pub mod cdr;
pub mod decode;
pub mod error;
pub mod info;
pub mod lens;
pub mod message;
pub mod optics;
pub mod pace;
pub mod plausible;
pub mod quality;
pub mod recording;
pub mod rectify;
pub mod ros;
pub mod sequence;
pub mod transforms;
