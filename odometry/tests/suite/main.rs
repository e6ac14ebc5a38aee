//! The tests of the crate's public face, in one binary so that it is linked once.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests are tests too; clippy.toml covers the #[test] functions alone"
)]
#![expect(clippy::print_stdout, reason = "helpers of tests tell what they measured")]

mod covariance;
mod followed;
mod fused;
mod input;
mod render;
mod stream;
mod window;
