//! The tests of the crate's public face, in one binary so that it is linked once.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests are tests too; clippy.toml covers the #[test] functions alone"
)]

mod input;
mod render;
mod stream;
mod window;
