//! Tests of the whole, and what they share: the node as its own process, and the two ends of the wire around it, a camera
//! and a listener. The ends are made of the DDS that the node's `ros2-client` transport uses, but of nothing else of the
//! node: the messages are written down here once more. A node on any other middleware hears the same.

pub mod camera;
pub mod hil;
pub mod listener;
mod peer;
pub mod process;

use std::path::Path;

/// The root of the repository.
///
/// # Panics
///
/// Never: the crate is a folder of it.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in the repository")
}
