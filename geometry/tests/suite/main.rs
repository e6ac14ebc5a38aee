//! The tests of the crate's public face, in one binary so that it is linked once.
#![expect(clippy::float_cmp, reason = "values that are exact by construction are compared exactly")]
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests are tests too; clippy.toml covers the #[test] functions alone"
)]

mod adjust;
mod camera;
mod common;
mod evo;
mod metrics;
mod procrustes;
mod reward;
mod solvers;
mod trajectory;
mod transforms;
