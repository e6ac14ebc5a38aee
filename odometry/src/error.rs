//! The one error enum of the crate.

/// What can be wrong with an input. Each variant says what was expected and what came.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A picture whose bytes are not its width times its height times its channels.
    #[error(
        "picture: expected {width} x {height} x {channels} = {} bytes, got {got}",
        width.saturating_mul(*height).saturating_mul(*channels)
    )]
    Bytes {
        /// Columns.
        width: usize,
        /// Rows.
        height: usize,
        /// Bytes of a pixel: 1 of grey, 3 of RGB.
        channels: usize,
        /// Bytes that came.
        got: usize,
    },
    /// A picture with a side too short to track anything.
    #[error("picture: expected sides of at least {expected} pixels, got {width} x {height}")]
    TooSmall {
        /// The shortest side that will do.
        expected: usize,
        /// Columns.
        width: usize,
        /// Rows.
        height: usize,
    },
    /// A picture of another size than its intrinsics are for.
    #[error("picture: expected {expected:?} pixels as its intrinsics say, got {got:?}")]
    Size {
        /// Width and height of the intrinsics.
        expected: [u32; 2],
        /// Width and height of the picture.
        got: [u32; 2],
    },
    /// A picture of another camera than those before it.
    #[error("picture {index}: expected the intrinsics of those before it ({expected}), got {got}")]
    Camera {
        /// Which picture, counted from 0.
        index: usize,
        /// What the camera was.
        expected: String,
        /// What it is now.
        got: String,
    },
    /// Stamps that do not increase.
    #[error("picture {index}: expected a stamp after {last_nanos} ns, got {got_nanos} ns")]
    Stamp {
        /// Which picture, counted from 0.
        index: usize,
        /// The last stamp.
        last_nanos: i64,
        /// The stamp that came.
        got_nanos: i64,
    },
    /// A pose of another program that is not newer than the one before it.
    #[error("pose: expected a stamp after {last_nanos} ns, got {got_nanos} ns")]
    PoseStamp {
        /// The last stamp.
        last_nanos: i64,
        /// The stamp that came.
        got_nanos: i64,
    },
    /// A prior that is not finite, or whose covariance is not positive.
    #[error("prior: {what}: expected {expected}")]
    Prior {
        /// Which part of it.
        what: String,
        /// What it must be.
        expected: &'static str,
    },
    /// The resizer refused the picture.
    #[error("picture: expected to bring it to {width} x {height}, got: {why}")]
    Resize {
        /// Columns asked for.
        width: u32,
        /// Rows asked for.
        height: u32,
        /// What it said.
        why: String,
    },
}
